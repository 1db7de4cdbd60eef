"""Collective variables of bead positions with analytic gradients, and forces projected on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.mapping.settings import LinearMapping, Torsion
from cg_assets.systems.spec import SystemSpec

if TYPE_CHECKING:
    from cg_assets.mapping.maps import CGMap

FloatArray = NDArray[np.float64]


def distance(positions: ArrayLike, pair: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Distance of two sites of a whole molecule.

    Args:
        positions: `(n_frames, n_sites, 3)` [nm].
        pair: the two sites.

    Returns:
        Distances `(n_frames,)` [nm] and their gradients by the two sites `(n_frames, 2, 3)`.
    """
    points = np.asarray(positions, dtype=np.float64)
    vector = points[:, pair[1]] - points[:, pair[0]]
    length = np.linalg.norm(vector, axis=1)
    unit = vector / length[:, None]
    return length, np.stack([-unit, unit], axis=1)


def torsion(positions: ArrayLike, sites: tuple[int, int, int, int]) -> tuple[FloatArray, FloatArray]:
    """Dihedral angle of four sites in the IUPAC sign convention (trans is π).

    Gradients after A. Blondel and M. Karplus, J. Comput. Chem. 17, 1132 (1996), which are singular only where three
    consecutive sites are in line.

    Args:
        positions: `(n_frames, n_sites, 3)` [nm].
        sites: the four sites along the chain.

    Returns:
        Angles `(n_frames,)` in (-π, π] [rad] and their gradients by the four sites `(n_frames, 4, 3)` [rad/nm].
    """
    points = np.asarray(positions, dtype=np.float64)
    i, j, k, m = (points[:, site] for site in sites)
    f, g, h = i - j, j - k, m - k
    a, b = np.cross(f, g), np.cross(h, g)
    length = np.linalg.norm(g, axis=1)
    angle = np.arctan2((np.cross(b, a) * g).sum(axis=1) / length, (a * b).sum(axis=1))
    by_a = -length[:, None] * a / (a * a).sum(axis=1)[:, None]
    by_b = length[:, None] * b / (b * b).sum(axis=1)[:, None]
    along_a = ((f * g).sum(axis=1) / length**2)[:, None] * by_a
    along_b = ((h * g).sum(axis=1) / length**2)[:, None] * by_b
    return angle, np.stack([by_a, -by_a - along_a - along_b, along_a + along_b - by_b, by_b], axis=1)


def collective_variables(system: SystemSpec, cg_map: CGMap, positions: ArrayLike) -> dict[str, FloatArray]:
    """Values of all collective variables of a system from bead positions.

    Args:
        system: the system.
        cg_map: its CG map.
        positions: `(n_frames, n_beads, dimension)` of whole molecules.

    Returns:
        Name to `(n_frames,)` [rad, nm or reduced]; a model system's variable is its CG coordinate.

    Raises:
        SystemSpecError: a collective variable uses an atom on which no bead sits.
    """
    return collective_variable_gradients(system, cg_map, positions)[0]


def collective_variable_gradients(
    system: SystemSpec, cg_map: CGMap, positions: ArrayLike
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Values of all collective variables and their gradients by bead positions.

    Args:
        system: the system.
        cg_map: its CG map.
        positions: `(n_frames, n_beads, dimension)` of whole molecules.

    Returns:
        Name to values `(n_frames,)`, and name to gradients `(n_frames, n_beads, dimension)`.

    Raises:
        SystemSpecError: a collective variable uses an atom on which no bead sits.
    """
    points = np.asarray(positions, dtype=np.float64)
    if isinstance(system.mapping, LinearMapping):
        names = list(system.mapping.coordinates)
        units = np.eye(len(names))[:, None, :, None] * np.ones_like(points)
        return {name: points[:, place, 0] for place, name in enumerate(names)}, dict(zip(names, units, strict=True))
    values: dict[str, FloatArray] = {}
    gradients: dict[str, FloatArray] = {}
    for name, variable in system.collective_variables.items():
        sites = [cg_map.bead_on_atom(atom) for atom in variable.atoms]
        if isinstance(variable, Torsion):
            values[name], local = torsion(points, (sites[0], sites[1], sites[2], sites[3]))
        else:
            values[name], local = distance(points, (sites[0], sites[1]))
        gradients[name] = np.zeros_like(points)
        for slot, site in enumerate(sites):
            gradients[name][:, site] += local[:, slot]
    return values, gradients


def projected_force(forces: ArrayLike, gradient: ArrayLike) -> FloatArray:
    """Generalised force along a collective variable, g = f·∇ξ / |∇ξ|².

    Its conditional mean <g | ξ> is a function of the ensemble alone, which makes it comparable between replicas; it is
    -dA/dξ up to the geometric term kT <∇·(∇ξ/|∇ξ|²) | ξ>, which vanishes for a linear variable.

    Args:
        forces: `(n_frames, n_beads, dimension)`.
        gradient: `(n_frames, n_beads, dimension)` of the collective variable.

    Returns:
        `(n_frames,)` [energy per unit of the variable].
    """
    along = np.asarray(gradient, dtype=np.float64)
    force = np.asarray(forces, dtype=np.float64)
    return np.einsum("fid,fid->f", force, along) / np.einsum("fid,fid->f", along, along)


def projected_forces(system: SystemSpec, cg_map: CGMap, positions: ArrayLike, forces: ArrayLike) -> FloatArray:
    """Generalised forces along each collective variable, columns in the order of `system.variable_names`.

    Args:
        system: the system.
        cg_map: its CG map.
        positions: `(n_frames, n_beads, dimension)` of whole molecules.
        forces: bead forces, same shape.

    Returns:
        `(n_frames, n_variables)`.
    """
    gradients = collective_variable_gradients(system, cg_map, positions)[1]
    return np.stack([projected_force(forces, gradients[name]) for name in system.variable_names], axis=1)
