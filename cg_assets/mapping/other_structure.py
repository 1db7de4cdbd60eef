"""Beads of a molecule in the structure of another PDB file, whose residues may be counted otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, shortened
from cg_assets.core.settings import Fact
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.description import number_in_file, numbers_of_file
from cg_assets.mapping.maps import CGMap
from cg_assets.mapping.pdb import open_pdb

_SAME = 0.5
"""Part of the residues whose names must be those of the model."""


def beads_in(molecule: MoleculeModel, cg_map: CGMap, path: Path, field: str) -> tuple[NDArray[np.float64], list[Fact]]:
    """Bead positions in a structure, and how its residues were found.

    Residues are those of the same chain and number as in the file of the model, or of the same place: whichever gives
    more equal names.

    Args:
        molecule: the molecule.
        cg_map: its beads.
        path: PDB file of the structure.
        field: the field that names it.

    Returns:
        Positions `(n_beads, 3)` [nm], and facts where numbers or names of residues differ.

    Raises:
        SystemSpecError: the file cannot be read, lacks an atom of a bead, or is of another molecule.
    """
    topology, places = open_pdb(path, field)
    used = np.flatnonzero(np.any(cg_map.matrix != 0, axis=0))
    atoms = [cg_map.atom_names[atom] for atom in used]
    rows = sorted({int(name.split(":")[0]) - 1 for name in atoms})
    every, other = list(molecule.topology.residues()), list(topology.residues())
    mine = [every[row] for row in rows]
    pairs = max(
        (_matched(mine, other, by) for by in (number_in_file, lambda residue: residue.index)),
        key=lambda found: (sum(one.name == two.name for one, two in found), len(found)),
    )
    strange = [f"{one.index + 1} {one.name} is {two.name}" for one, two in pairs if one.name != two.name]
    if len(pairs) - len(strange) < _SAME * len(mine):
        known = numbers_of_file([(residue.index + 1, *number_in_file(residue)) for residue in other])
        raise SystemSpecError(
            f"{field}: {path}: its residues {known} are those of another molecule, neither by chain and number nor by "
            f"place ({shortened(strange) or 'none of the numbers is there'}); number them as in the model"
        )
    index = {f"{one.index + 1}:{atom.name}": atom.index for one, two in pairs for atom in two.atoms()}
    if missing := [name for name in atoms if name not in index]:
        raise SystemSpecError(
            f"{field}: {path} lacks {shortened(missing)}, on which beads sit; name a structure with the atoms of all "
            "beads"
        )
    facts: list[Fact] = []
    rows_there = [(one.index + 1, *number_in_file(two)) for one, two in pairs]
    if any(number_in_file(one)[1] != number_in_file(two)[1] for one, two in pairs):
        facts.append((field, f"residues {numbers_of_file(rows_there)} (place = chain/number in {path.name})"))
    if strange:
        facts.append((field, f"{path.name} has other names of residues: {shortened(strange)}"))
    return cg_map.matrix[:, used] @ places[[index[name] for name in atoms]], facts


def _matched(mine: Sequence[Any], other: Sequence[Any], by: Callable[[Any], Hashable]) -> list[tuple[Any, Any]]:
    """Residues of one structure with those of another that have the same key; not those whose key is not unique."""
    count = Counter(map(by, other))
    there = {by(residue): residue for residue in other if count[by(residue)] == 1}
    return [(residue, there[by(residue)]) for residue in mine if by(residue) in there]
