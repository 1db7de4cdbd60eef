"""Put water around a molecule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.mapping.peptides import fixed_generator


def add_water(
    topology: Any, positions: NDArray[np.float64], force_fields: list[str], waters: int, box: float
) -> tuple[Any, NDArray[np.float64]]:
    """A molecule in the middle of a cubic box of water; the same input gives the same box.

    Args:
        topology: OpenMM topology of the molecule.
        positions: `(n_atoms, 3)` [nm].
        force_fields: files of the force field, which must include water.
        waters: number of water molecules.
        box: edge of the box [nm].

    Returns:
        Topology and positions [nm] of the molecule, its atoms first, and the water.

    Raises:
        SystemSpecError: the molecule does not fit into the box, or the force field has no water model.
    """
    from openmm import app, unit

    length = float(np.linalg.norm(positions[:, None] - positions[None], axis=-1).max())
    if length > box - 0.5:
        raise SystemSpecError(
            f"model.box is {box} nm, but the molecule is {length:.2f} nm long and needs 0.5 nm more; enlarge the box "
            "and add waters"
        )
    topology.setPeriodicBoxVectors(None)
    modeller = app.Modeller(topology, unit.Quantity(positions, unit.nanometer))
    remedy = "add a water model to model.force_fields, for example amber14/tip3p.xml"
    with library_errors(SystemSpecError, "model.waters", remedy), fixed_generator():
        modeller.addSolvent(app.ForceField(*force_fields), numAdded=waters)
    made = float(modeller.topology.getPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer))
    placed = np.array(modeller.positions.value_in_unit(unit.nanometer), dtype=np.float64)
    return modeller.topology, _rescaled(modeller.topology, placed, len(positions), made, box)


def _rescaled(
    topology: Any, positions: NDArray[np.float64], n_solute: int, made: float, box: float
) -> NDArray[np.float64]:
    """Positions with the solute moved whole to the middle of the new box, and each water moved whole with it."""
    result = positions.copy()
    middle = 0.5 * (positions[:n_solute].min(axis=0) + positions[:n_solute].max(axis=0))
    result[:n_solute] += 0.5 * box - middle
    for residue in topology.residues():
        atoms = [atom.index for atom in residue.atoms()]
        if atoms[0] >= n_solute:
            away = positions[atoms[0]] - middle
            away -= made * np.round(away / made)
            result[atoms] += 0.5 * box + away * box / made - positions[atoms[0]]
    return result
