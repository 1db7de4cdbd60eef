"""Bonds of a structure where OpenMM has no template for a residue, and those that cannot be."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, shortened
from cg_assets.core.settings import Fact
from cg_assets.mapping.bead_mapping import WATER
from cg_assets.mapping.cells import real_box
from cg_assets.mapping.chains import connected_groups

RADII = {"H": 0.031, "C": 0.076, "N": 0.071, "O": 0.066, "F": 0.057, "P": 0.107, "S": 0.105, "Cl": 0.102}
RADII |= {"B": 0.084, "Si": 0.111, "Se": 0.12, "Br": 0.12, "I": 0.139}
"""Covalent radii [nm], B. Cordero et al., Dalton Trans. 2832 (2008)."""
_REACH, BROKEN = 1.25, 1.5
"""Longest bond that is found by distance, and that of a template or of CONECT that is kept, relative to the sum of the
radii; two neighbours of one atom are 1.6 times as far apart, or more."""
_ALPHA_CARBONS = (0.25, 0.45)
"""Distance of neighbouring alpha carbons, cis to trans with room for motion [nm]."""
_BEADS = 0.6
"""Longest bond of beads that a file or a template gives [nm]."""
_STRETCH = 1.5
"""Largest distance of neighbouring beads in a chain, relative to the median."""


def complete_bonds(
    topology: Any, places: NDArray[np.float64], path: Path, beads: frozenset[str] = frozenset()
) -> tuple[Any, NDArray[np.float64], list[Fact]]:
    """Bonds as the positions show them.

    Templates bond neighbours in a chain however far they are apart, and leave out what they do not hold. Molecules that
    a periodic box has cut are made whole; bonds of neighbouring residues over a gap are cut; residues whose atoms a
    template does not join are bonded by distance; residues without a backbone are bonded in chains of beads.

    Args:
        topology: OpenMM topology.
        places: `(n_atoms, 3)` [nm].
        path: of the file, for messages.
        beads: names of atoms that are beads without an element.

    Returns:
        Topology, positions, and what was done.

    Raises:
        SystemSpecError: the atoms of a residue remain in pieces, or far apart.
    """
    facts: list[Fact] = []
    places = _whole(topology, places)
    topology, cut = _without_gaps(topology, places)
    if cut:
        facts.append(
            ("gaps", f"too far apart to be bonded (missing residues, no TER, or a wrong CONECT): {shortened(cut)}")
        )
    if found := _by_distance(topology, places, beads):
        inside = [one.residue for one, other in found if one.residue == other.residue]
        names = list(dict.fromkeys(map(residue_name, inside or [atom.residue for pair in found for atom in pair])))
        facts.append(("bonds by distance", f"{len(found)}, of residues without template: {shortened(names)}"))
    _check_pieces(topology, path, beads)
    far = _bond_chain_of_beads(topology, places, beads)
    if far:
        facts.append(("gaps in chains of beads", shortened(far)))
    return topology, places, facts


def residue_name(residue: Any) -> str:
    """Number from 1 and name, for messages."""
    return f"{residue.index + 1} {residue.name}"


def _is_site(atom: Any, beads: frozenset[str]) -> bool:
    """Whether it is an atom or a bead, not a virtual site."""
    return atom.element is not None or atom.name in beads


def _pairs(topology: Any) -> NDArray[np.int64]:
    return np.array([(one.index, other.index) for one, other in topology.bonds()], dtype=np.int64).reshape(-1, 2)


def _radii(topology: Any) -> NDArray[np.float64]:
    """Covalent radius of each atom [nm]; NaN where it is not in the table."""
    symbols = ("" if atom.element is None else atom.element.symbol for atom in topology.atoms())
    return np.array([RADII.get(symbol, np.nan) for symbol in symbols])


def _whole(topology: Any, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions of molecules that the box of the file does not cut."""
    from cg_assets.mapping.images import WholeMolecules

    vectors = topology.getPeriodicBoxVectors()
    box = vectors and real_box(np.array([[[float(component._value) for component in vector] for vector in vectors]]))
    return WholeMolecules(len(places), _pairs(topology).tolist()).apply(places[None], box)[0]


def _without_gaps(topology: Any, places: NDArray[np.float64]) -> tuple[Any, list[str]]:
    """The topology without bonds of atoms that are far apart, and those between residues in words.

    Names alone make such bonds within a residue too: HT1 of CHARMM is on the nitrogen of one end or in the cap of the
    other.
    """
    radii, pairs = _radii(topology), _pairs(topology)
    lengths = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    broken = lengths > BROKEN * radii[pairs].sum(axis=1)
    cut, words = [], []
    for (one, other), length, is_broken in zip(topology.bonds(), lengths, broken, strict=True):
        beads = not any({"N", "C"} & {near.name for near in atom.residue.atoms()} for atom in (one, other))
        if not is_broken or (beads and length < _BEADS):
            continue
        cut.append((one, other))
        if one.residue != other.residue:
            names = f"{residue_name(one.residue)} {one.name} and {residue_name(other.residue)} {other.name}"
            words.append(f"{names} ({length:.3g} nm)")
    return (_without(topology, cut) if cut else topology), words


def _without(topology: Any, bonds: Iterable[tuple[Any, Any]]) -> Any:
    """A copy without some bonds."""
    from openmm import app, unit

    modeller = app.Modeller(topology, np.zeros((topology.getNumAtoms(), 3)) * unit.nanometer)
    gone = {frozenset((one.index, other.index)) for one, other in bonds}
    modeller.delete([bond for bond in topology.bonds() if frozenset((bond[0].index, bond[1].index)) in gone])
    return modeller.topology


def _in_pieces(topology: Any, beads: frozenset[str]) -> list[Any]:
    """Residues of several atoms that bonds within them do not join; not water."""
    inside = [(one.index, other.index) for one, other in topology.bonds() if one.residue == other.residue]
    groups = connected_groups(topology.getNumAtoms(), inside)
    return [
        residue
        for residue in topology.residues()
        if residue.name not in WATER
        and len({int(groups[atom.index]) for atom in residue.atoms() if _is_site(atom, beads)}) > 1
    ]


def _by_distance(topology: Any, places: NDArray[np.float64], beads: frozenset[str]) -> list[tuple[Any, Any]]:
    """Add the bonds of residues that a template does not join, by the distance of their atoms."""
    from scipy.spatial import cKDTree

    incomplete = {residue.index for residue in _in_pieces(topology, beads)}
    if not incomplete:
        return []
    radii, atoms = _radii(topology), list(topology.atoms())
    known = np.flatnonzero(np.isfinite(radii))
    reach = 2 * _REACH * float(radii[known].max(initial=0.0))
    there = {frozenset(pair) for pair in _pairs(topology).tolist()}
    bonded = Counter(atom for pair in there for atom in pair)
    near = known[cKDTree(places[known]).query_pairs(reach, output_type="ndarray").reshape(-1, 2)]
    lengths = np.linalg.norm(places[near[:, 0]] - places[near[:, 1]], axis=1)
    found = []
    for one, other in near[np.argsort(lengths)].tolist():
        first, second = atoms[one], atoms[other]
        light = [atom.index for atom in (first, second) if atom.element.symbol == "H"]
        if (
            np.linalg.norm(places[one] - places[other]) > _REACH * (radii[one] + radii[other])
            or frozenset((one, other)) in there
            or not {first.residue.index, second.residue.index} & incomplete
            or {first.residue.name, second.residue.name} & WATER
            or len(light) == 2
            or any(bonded[atom] for atom in light)
            or (light and first.residue != second.residue)
        ):
            continue
        topology.addBond(first, second)
        there.add(frozenset((one, other)))
        bonded.update((one, other))
        found.append((first, second))
    return found


def _check_pieces(topology: Any, path: Path, beads: frozenset[str]) -> None:
    pieces = _in_pieces(topology, beads)
    if pieces:
        raise SystemSpecError(
            f"model.pdb: {path}: the atoms of residue {shortened([residue_name(item) for item in pieces])} have no "
            "bonds that join them, neither by the name of the residue nor by distance; add missing atoms, or CONECT "
            "lines"
        )


def _neighbours(topology: Any, beads: frozenset[str]) -> Iterator[tuple[Any, Any]]:
    """Beads of neighbouring residues of a chain that are joined by no backbone: alpha carbons, or all of a residue."""
    for chain in topology.chains():
        sites = [_chain_bead(residue, beads) for residue in chain.residues()]
        for one, other in itertools.pairwise(sites):
            if one is not None and other is not None and one.name == other.name:
                yield one, other


def _chain_bead(residue: Any, beads: frozenset[str]) -> Any | None:
    atoms = {atom.name: atom for atom in residue.atoms()}
    if residue.name in WATER or {"N", "C"} & set(atoms):
        return None
    if "CA" in atoms and atoms["CA"].element is not None and atoms["CA"].element.symbol == "C":
        return atoms["CA"]
    if "BB" in beads and "BB" in atoms:
        return atoms["BB"]
    (atom, *more) = atoms.values()
    ion = atom.element is not None and atom.element.symbol.upper() == residue.name.upper().strip("+-0123456789")
    return None if more or ion or not _is_site(atom, beads) else atom


def _bond_chain_of_beads(topology: Any, places: NDArray[np.float64], beads: frozenset[str]) -> list[str]:
    """Bond beads of neighbouring residues; those too far apart in words."""
    joined = {frozenset((one.residue.index, other.residue.index)) for one, other in topology.bonds()}
    candidates = [
        pair
        for pair in _neighbours(topology, beads)
        if frozenset((pair[0].residue.index, pair[1].residue.index)) not in joined
    ]
    lengths = [float(np.linalg.norm(places[one.index] - places[other.index])) for one, other in candidates]
    far = []
    for (one, other), length in zip(candidates, lengths, strict=True):
        low, high = _ALPHA_CARBONS if one.name == "CA" else (0.0, _STRETCH * float(np.median(lengths)))
        if low < length < high:
            topology.addBond(one, other)
        else:
            far.append(f"{residue_name(one.residue)} and {residue_name(other.residue)} ({length:.3g} nm)")
    return far
