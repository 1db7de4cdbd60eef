"""Beads of molecules: on atoms or groups of atoms, or one for each molecule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dictionary
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cg_assets.core.errors import ForceMapError, SystemSpecError
from cg_assets.core.nested import fields_of
from cg_assets.core.settings import LIQUIDS, AtomName, Fault, Scope
from cg_assets.mapping.force_maps import ForceMap, group_map, optimal_map, slice_map
from cg_assets.mapping.liquids.water import Centre
from cg_assets.mapping.maps import CGMap, Mapping

if TYPE_CHECKING:
    from cg_assets.mapping.builders import MoleculeModel
    from cg_assets.mapping.liquids.liquid import Liquid

WATER = {"HOH", "WAT", "H2O", "SOL", "TIP", "TIP3", "TIP4", "TIP5", "TP3", "TP4", "T3P", "T4P", "SPC", "DOD"}
"""Residue names of water."""
_LONGEST_BOND = 3
"""Bonds of atoms that a bond of beads may stand for."""


class BeadMapping(Mapping):
    """Beads placed on atoms or at centres of mass of groups of atoms."""

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    type: Literal["beads"]
    beads: Literal["heavy_atoms", "alpha_carbons"] | Annotated[dict[str, list[AtomName]], Field(min_length=1)]
    """`heavy_atoms` (not those of water), `alpha_carbons`, or bead name to its atoms (one atom: placed on it; several:
    at their centre of mass)."""
    molecules: list[str] | None = None
    """Names of residues whose molecules carry beads, where these are not named one by one; null for the polymers."""
    force_map: Literal["slice", "group", "optimal"] = "optimal"
    """How atomistic forces become bead forces: docs/force_maps.md."""
    bead_types: Literal["element", "unique"] = "unique"
    """Which beads share parameters: those of one element, or none."""

    @property
    def named(self) -> dict[str, list[str]]:
        """Atoms of the beads that are named one by one; none where a rule makes them."""
        return fields_of(self.beads)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Beads that are one."""
        named: dict[frozenset[str], str] = {}
        for bead, atoms in self.named.items():
            first = named.setdefault(frozenset(atoms), bead)
            if first != bead:
                yield Fault(f"beads.{bead}", f"holds the same atoms as {first}, {', '.join(atoms)}; leave one out")

    @property
    def needs_frames(self) -> bool:
        """Whether the force map is fitted to frames."""
        return self.force_map == "optimal"

    def holds_atom(self, atom: str) -> bool:
        """Whether it is a bead, or one sits exactly on this atom, going by names."""
        if ":" not in atom:
            return atom in self.named
        if self.beads == "alpha_carbons":
            return atom.split(":")[1] == "CA"
        if self.beads == "heavy_atoms":
            return not atom.split(":")[1].lstrip("0123456789").upper().startswith("H")
        return [atom] in self.named.values()

    def carriers(self, names: Sequence[str], residues: Sequence[str], groups: Sequence[int]) -> list[int]:
        """Atoms of the molecules that carry beads, of which each has at least one.

        Where beads are not named one by one these are the polymers, molecules of more than one residue: neither water,
        ions, ligands nor cosolvent. Without a polymer they are all molecules, if they are of one kind.

        Args:
            names: of all atoms.
            residues: name of the residue of each.
            groups: number of the molecule of each.

        Raises:
            SystemSpecError: it is not clear which molecules carry beads.
        """
        if self.named:
            named = {atom for members in self.named.values() for atom in members}
            return [index for index, name in enumerate(names) if name in named]
        inside: dict[int, set[str]] = {}
        for name, group in zip(names, groups, strict=True):
            inside.setdefault(group, set()).add(name.split(":")[0])
        polymers = [index for index, group in enumerate(groups) if len(inside[group]) > 1]
        others = [index for index, residue in enumerate(residues) if residue not in WATER]
        if self.molecules is not None:
            if missing := [residue for residue in self.molecules if residue not in residues]:
                known = ", ".join(sorted(set(residues)))
                raise SystemSpecError(f"mapping.molecules: no residue is named {', '.join(missing)}; known are {known}")
            return [index for index, residue in enumerate(residues) if residue in self.molecules]
        if polymers:
            return polymers
        atoms = Counter(groups)
        whole = [index for index in others if atoms[groups[index]] > 1]  # no ions
        kinds = {residues[index] for index in whole or others}
        if len(kinds) > 1:
            raise SystemSpecError(
                f"mapping.beads is {self.beads}, and no molecule has more than one residue, so which of "
                f"{', '.join(sorted(kinds))} carry beads is not clear; name them in mapping.molecules"
            )
        return [index for index, residue in enumerate(residues) if residue in kinds]

    def atoms_of_beads(self, element_of: Dictionary[str, str]) -> dict[str, list[str]]:
        """Atoms of each bead.

        Args:
            element_of: element of each atom of the molecules that carry beads.

        Raises:
            SystemSpecError: there is no alpha carbon.
        """
        if self.beads == "heavy_atoms":
            return {name: [name] for name, element in element_of.items() if element not in {"H", ""}}
        if self.beads == "alpha_carbons":
            found = {name: [name] for name, element in element_of.items() if name.endswith(":CA") and element == "C"}
            if not found:
                raise SystemSpecError("mapping.beads is alpha_carbons, of which the molecule has none; name its beads")
            return found
        return self.beads

    def cg_map(self, structure: MoleculeModel) -> CGMap:
        """Each bead at the centre of mass of its atoms, of those that frames store."""
        stored = [structure.atom_names[atom] for atom in structure.stored]
        element_of = {name: structure.elements[atom] for name, atom in zip(stored, structure.stored, strict=True)}
        masses = structure.masses[structure.stored]
        members = self.atoms_of_beads(element_of)
        names = list(members)
        matrix = np.zeros((len(names), len(stored)))
        atoms_of = [[stored.index(atom) for atom in members[name]] for name in names]
        for row, atoms in zip(matrix, atoms_of, strict=True):
            row[atoms] = masses[atoms] / masses[atoms].sum()
            if len(atoms) == 1:
                row[atoms] = 1.0
        elements = ["".join(sorted(element_of[stored[atom]] for atom in atoms)) for atoms in atoms_of]
        kinds = elements if self.bead_types == "element" else names
        order = list(dict.fromkeys(kinds))
        return CGMap(
            matrix=matrix,
            bead_names=names,
            bead_types=[order.index(kind) for kind in kinds],
            bead_masses=np.array([masses[atoms].sum() for atoms in atoms_of]),
            atom_names=stored,
            bead_elements=elements,
            bonds=_bead_bonds(atoms_of, structure.stored_pairs(structure.bonds)),
        )

    def fitted_force_map(
        self, cg_map: CGMap, constraints: Sequence[tuple[int, int]], forces: NDArray | None
    ) -> ForceMap:
        """Slice, group or optimal map."""
        if self.force_map == "slice":
            return slice_map(cg_map)
        if self.force_map == "group":
            return group_map(cg_map, constraints)
        if forces is None:
            raise ForceMapError(
                "the frames hold no forces to fit an optimal force map to; set mapping.force_map to group"
            )
        return optimal_map(cg_map, constraints, forces)

    def plainest_force_map(self, cg_map: CGMap) -> ForceMap:
        """The slice map."""
        return slice_map(cg_map)

    def further_force_maps(
        self, cg_map: CGMap, constraints: Sequence[tuple[int, int]], forces: NDArray | None
    ) -> dict[str, ForceMap]:
        """The other kinds; the optimal one where there are forces enough."""
        maps = {"slice": slice_map(cg_map), "group": group_map(cg_map, constraints)}
        if forces is not None and self.force_map != "optimal":
            with suppress(ForceMapError):  # too few frames
                maps["optimal"] = optimal_map(cg_map, constraints, forces)
        return {kind: force_map for kind, force_map in maps.items() if kind != self.force_map}


class MoleculeBeads(Mapping):
    """One bead for each molecule."""

    goes_with: ClassVar[tuple[str, ...]] = LIQUIDS

    type: Literal["molecules"]
    beads: Centre = "centre_of_mass"
    """Where the bead is: the `centre_of_mass` of the molecule, or its `oxygen`."""

    def cg_map(self, structure: Liquid) -> CGMap:
        """The centre of each molecule, or its oxygen."""
        number, names = structure.n_molecules, structure.site_names
        return CGMap(
            matrix=np.kron(np.eye(number), structure.bead_weights).astype(np.float64),
            bead_names=[str(molecule + 1) for molecule in range(number)],
            bead_types=[0] * number,
            bead_masses=np.full(number, structure.bead_mass),
            atom_names=[f"{molecule + 1}:{name}" for molecule in range(number) for name in names],
            bead_elements=[structure.bead_element] * number,
            bonds=[],
        )

    def fitted_force_map(
        self, cg_map: CGMap, constraints: Sequence[tuple[int, int]], forces: NDArray | None
    ) -> ForceMap:
        """The total force on each molecule, whether it is rigid or not."""
        return self.plainest_force_map(cg_map)

    def plainest_force_map(self, cg_map: CGMap) -> ForceMap:
        """The same."""
        members = np.kron(np.eye(cg_map.n_beads), np.ones(cg_map.n_atoms // cg_map.n_beads))
        return ForceMap(members.astype(np.float64), "group")


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
