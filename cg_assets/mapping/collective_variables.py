"""Collective variables of bead positions with analytic gradients, and forces projected on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cg_assets.core.geometry import FloatArray, projected_force
from cg_assets.mapping.settings import LinearMapping
from cg_assets.systems.spec import SystemSpec

if TYPE_CHECKING:
    from cg_assets.mapping.maps import CGMap


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
        values[name], local = variable.measure(points, sites)
        gradients[name] = np.zeros_like(points)
        for slot, site in enumerate(sites):
            gradients[name][:, site] += local[:, slot]
    return values, gradients


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
