"""The CG map: which linear combination of atoms each bead is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.settings import BeadMapping, LinearMapping, ModelPotential
from cg_assets.systems.spec import SystemSpec

_LONGEST_BOND = 3
"""Bonds of atoms that a bond of beads may stand for."""


@dataclass(frozen=True)
class CGMap:
    """A linear map from atoms to beads, R = M r.

    The atoms are those that frames store: a molecule's solvent is not among them. For a model potential the "atoms" are
    its coordinates, each of one dimension.

    Attributes:
        matrix: `(n_beads, n_atoms)` M; each row of a molecule's map sums to 1.
        bead_names: name of each bead: its own, or that of the heavy atom that it sits on (`2:CA`).
        bead_types: `(n_beads,)` number of each bead's type; beads of one type share parameters.
        bead_masses: `(n_beads,)` [amu or reduced].
        atom_names: name of each atom (`2:CA`) or coordinate (`x`).
        bead_elements: chemical elements of each bead's atoms, for example `C` or `CHHH`; empty for model potentials.
        bonds: pairs of beads whose atoms are bonded, or joined by at most two atoms of no bead (a chain of alpha
            carbons).
    """

    matrix: NDArray[np.float64]
    bead_names: list[str]
    bead_types: list[int]
    bead_masses: NDArray[np.float64]
    atom_names: list[str]
    bead_elements: list[str]
    bonds: list[tuple[int, int]]

    @property
    def n_beads(self) -> int:
        """Number of beads."""
        return len(self.matrix)

    @property
    def n_atoms(self) -> int:
        """Number of atoms, or of coordinates of a model potential."""
        return self.matrix.shape[1]

    def bead_on_atom(self, atom: str) -> int:
        """Index of the bead that sits exactly on an atom.

        Raises:
            SystemSpecError: no bead sits on it.
        """
        column = self.matrix[:, self.atom_names.index(atom)] if atom in self.atom_names else np.zeros(self.n_beads)
        alone = np.flatnonzero((column == 1.0) & (np.count_nonzero(self.matrix, axis=1) == 1))
        if len(alone) == 0:
            raise SystemSpecError(f"no bead sits on atom {atom}; beads are {', '.join(self.bead_names)}")
        return int(alone[0])

    def apply(self, positions: NDArray) -> NDArray[np.float64]:
        """Bead positions `(..., n_beads, dimension)` from atom positions `(..., n_atoms, dimension)`."""
        return np.matmul(self.matrix, positions)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "matrix": self.matrix.tolist(),
            "bead_names": self.bead_names,
            "bead_types": self.bead_types,
            "bead_masses": self.bead_masses.tolist(),
            "atom_names": self.atom_names,
            "bead_elements": self.bead_elements,
            "bonds": [list(pair) for pair in self.bonds],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> CGMap:
        """The map that `to_json` described."""
        return cls(
            matrix=np.array(content["matrix"], dtype=np.float64),
            bead_names=list(content["bead_names"]),
            bead_types=list(content["bead_types"]),
            bead_masses=np.array(content["bead_masses"], dtype=np.float64),
            atom_names=list(content["atom_names"]),
            bead_elements=list(content["bead_elements"]),
            bonds=[(int(first), int(second)) for first, second in content["bonds"]],
        )

    @property
    def hash(self) -> str:
        """Hash of the whole map."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def build_map(system: SystemSpec) -> CGMap:
    """The CG map of a system.

    Raises:
        SystemSpecError: beads name atoms that do not exist.
    """
    if isinstance(system.mapping, LinearMapping):
        return _linear_map(system, system.mapping)
    from cg_assets.mapping.builders import build_molecule

    return bead_map(system, build_molecule(system))


def bead_map(system: SystemSpec, molecule: Any) -> CGMap:
    """The CG map of a molecule that is built already.

    Args:
        system: a system with a bead mapping.
        molecule: its `MoleculeModel`.
    """
    mapping = system.mapping
    if not isinstance(mapping, BeadMapping):
        raise SystemSpecError(f"{system.name}: mapping.type must be beads for a molecule")
    stored = [molecule.atom_names[atom] for atom in molecule.stored]
    element_of = dict(zip(molecule.atom_names, molecule.elements, strict=True))
    masses = molecule.masses[molecule.stored]
    if mapping.beads == "heavy_atoms":
        members = {name: [name] for name in stored if element_of[name] not in {"H", ""}}
    elif mapping.beads == "alpha_carbons":
        members = {name: [name] for name in stored if name.endswith(":CA") and element_of[name] == "C"}
        if len(members) < 2:
            raise SystemSpecError(
                f"mapping.beads is alpha_carbons, of which the molecule has {len(members)}; name its beads one by one"
            )
    else:
        members = mapping.beads
    names = list(members)
    matrix = np.zeros((len(names), len(stored)))
    atoms_of = [[stored.index(atom) for atom in members[name]] for name in names]
    for row, atoms in zip(matrix, atoms_of, strict=True):
        row[atoms] = masses[atoms] / masses[atoms].sum()
        if len(atoms) == 1:
            row[atoms] = 1.0
    elements = ["".join(sorted(element_of[stored[atom]] for atom in atoms)) for atoms in atoms_of]
    kinds = elements if mapping.bead_types == "element" else names
    order = list(dict.fromkeys(kinds))
    return CGMap(
        matrix=matrix,
        bead_names=names,
        bead_types=[order.index(kind) for kind in kinds],
        bead_masses=np.array([masses[atoms].sum() for atoms in atoms_of]),
        atom_names=stored,
        bead_elements=elements,
        bonds=_bead_bonds(atoms_of, molecule.stored_pairs(molecule.bonds)),
    )


def _linear_map(system: SystemSpec, mapping: LinearMapping) -> CGMap:
    if not isinstance(system.model, ModelPotential):
        raise SystemSpecError(f"{system.name}: mapping.type linear needs a model potential")
    coordinates = system.model.coordinates
    matrix = np.array([[weights.get(name, 0.0) for name in coordinates] for weights in mapping.coordinates.values()])
    return CGMap(
        matrix=matrix,
        bead_names=list(mapping.coordinates),
        bead_types=list(range(len(matrix))),
        bead_masses=system.model.mass / (matrix**2).sum(axis=1),
        atom_names=list(coordinates),
        bead_elements=[],
        bonds=[],
    )


def _bead_bonds(atoms_of: Sequence[Sequence[int]], bonds: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pairs of different beads with a bond between their atoms, or a way of at most three over atoms of no bead."""
    beads_of: dict[int, list[int]] = {}
    for bead, atoms in enumerate(atoms_of):
        for atom in atoms:
            beads_of.setdefault(atom, []).append(bead)
    neighbours: dict[int, set[int]] = {}
    for first, second in bonds:
        neighbours.setdefault(first, set()).add(second)
        neighbours.setdefault(second, set()).add(first)
    found = set()
    for bead, atoms in enumerate(atoms_of):
        edge = set(atoms)
        for _ in range(_LONGEST_BOND):
            edge = {near for atom in edge for near in neighbours.get(atom, ())} - set(atoms)
            found |= {(min(bead, other), max(bead, other)) for atom in edge for other in beads_of.get(atom, ())}
            edge = {atom for atom in edge if atom not in beads_of}
    return sorted(pair for pair in found if pair[0] != pair[1])
