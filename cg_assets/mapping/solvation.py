"""Put water around a molecule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.mapping.cells import shortest_vector, shown_cell
from cg_assets.mapping.peptides import fixed_generator

_SCALES = 1.0 + 0.02 * np.arange(8)
"""Sizes of the box, relative to the one asked for, in which so many waters are looked for."""


def add_water(
    topology: Any, positions: NDArray[np.float64], force_fields: list[str], waters: int, box: NDArray[np.float64]
) -> tuple[Any, NDArray[np.float64]]:
    """A molecule in the middle of a periodic box of water; the same input gives the same box.

    Args:
        topology: OpenMM topology of the molecule.
        positions: `(n_atoms, 3)` [nm].
        force_fields: files of the force field, which must include water.
        waters: number of water molecules.
        box: `(3, 3)` vectors of the box in reduced form [nm].

    Returns:
        Topology and positions [nm] of the molecule, its atoms first, and the water.

    Raises:
        SystemSpecError: the molecule or the water does not fit into the box, or the force field has no water model.
    """
    from openmm import app, unit

    length = float(np.linalg.norm(positions[:, None] - positions[None], axis=-1).max())
    if length > shortest_vector(box) - 0.5:
        raise SystemSpecError(
            f"model.box is {shown_cell(box)}, but the molecule is {length:.2f} nm long and needs 0.5 nm more; enlarge "
            "the box and add waters"
        )
    topology.setPeriodicBoxVectors(None)
    remedy = "add a water model to model.force_fields, for example amber14/tip3p.xml"
    with library_errors(SystemSpecError, "model.waters", remedy), fixed_generator():
        if np.array_equal(box, box[0, 0] * np.eye(3)):
            modeller = app.Modeller(topology, unit.Quantity(positions, unit.nanometer))
            modeller.addSolvent(app.ForceField(*force_fields), numAdded=waters)
        else:
            modeller = _filled(topology, positions, app.ForceField(*force_fields), waters, box)
    made = np.array(modeller.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer), dtype=np.float64)
    placed = np.array(modeller.positions.value_in_unit(unit.nanometer), dtype=np.float64)
    return modeller.topology, _rescaled(modeller.topology, placed, len(positions), made, box)


def _filled(
    topology: Any, positions: NDArray[np.float64], force_field: Any, waters: int, box: NDArray[np.float64]
) -> Any:
    """A modeller with so many waters in a box of a shape, larger than asked for where these would not fit.

    OpenMM's own count of waters fills a brick and then states the box of another shape around it, which is too large.
    """
    from openmm import Vec3, app, unit

    for scale in _SCALES:
        modeller = app.Modeller(topology, unit.Quantity(positions, unit.nanometer))
        modeller.addSolvent(force_field, boxVectors=[Vec3(*vector) for vector in scale * box] * unit.nanometer)
        added = [residue for residue in modeller.topology.residues() if residue.name == "HOH"]
        if len(added) >= waters:
            extra = np.random.default_rng(0).permutation(len(added))[waters:]
            modeller.delete([added[index] for index in extra])
            return modeller
    raise SystemSpecError(
        f"model.waters is {waters}, but {shown_cell(box)} holds about {len(added) / _SCALES[-1] ** 3:.0f}; correct one"
    )


def _rescaled(
    topology: Any, positions: NDArray[np.float64], n_solute: int, made: NDArray[np.float64], box: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Positions with the solute moved whole to the middle of the new box, and each water moved whole with it."""
    result = positions.copy()
    middle = 0.5 * (positions[:n_solute].min(axis=0) + positions[:n_solute].max(axis=0))
    centre = 0.5 * box.sum(axis=0)
    result[:n_solute] += centre - middle
    for residue in topology.residues():
        atoms = [atom.index for atom in residue.atoms()]
        if atoms[0] >= n_solute:
            away = positions[atoms[0]] - middle
            for axis in (2, 1, 0):
                away = away - made[axis] * np.round(away[axis] / made[axis, axis])
            result[atoms] += centre + away * box[0, 0] / made[0, 0] - positions[atoms[0]]
    return result
