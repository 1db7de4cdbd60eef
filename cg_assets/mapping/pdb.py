"""Read the structure of a molecule from a PDB file, and refuse what would be misread without a word."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, library_errors, shortened
from cg_assets.core.settings import Fact
from cg_assets.mapping.bead_mapping import WATER
from cg_assets.mapping.bonds import complete_bonds
from cg_assets.mapping.cells import cell_vectors, is_dummy, reduced, same_cell, shown_cell

if TYPE_CHECKING:
    from cg_assets.mapping.builders import MoleculeSettings

_USUAL = {"H", "C", "N", "O", "S", "P", ""}
"""Elements that are guessed right from the names of atoms; "" of virtual sites."""
_BEAD = re.compile("BB[0-9]*|SC[0-9]+")
"""Usual names of beads."""
_TRACES, _FAR = {"CA", "CB", "P"}, 0.3
"""Atoms that stand for a residue, and distance of bonded ones that only beads have [nm]."""
_HAS_ATOMS = re.compile(rb"^(ATOM|HETATM)", re.MULTILINE)
_SAME_PLACE = 0.02
_SHORT_BOND = 0.04
"""Distances of atoms that are one, and of bonded atoms whose positions are in nm [nm]."""


def open_pdb(path: Path, field: str) -> tuple[Any, NDArray[np.float64]]:
    """OpenMM topology and positions `(n_atoms, 3)` [nm] of a PDB file.

    Args:
        path: the file.
        field: the field that names it.

    Raises:
        SystemSpecError: it cannot be read, holds no atom, or a position is not finite.
    """
    from openmm import app, unit

    with library_errors(SystemSpecError, f"{field}: {path} cannot be read as a PDB file"):
        if path.suffix not in (".gz", ".bz2") and not _HAS_ATOMS.search(path.read_bytes()):
            raise SystemSpecError(f"{field}: {path} holds no atom; give a PDB file with ATOM or HETATM lines")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pdb = app.PDBFile(str(path))
        places = np.array(pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=np.float64).reshape(-1, 3)
    if twice := [str(item.message) for item in caught if "duplicate atom" in str(item.message)]:
        line = twice[0].partition("(")[2]
        atom, residue = line[12:16].strip(), f"{line[17:20].strip()} {line[22:27].strip()}"
        raise SystemSpecError(
            f"{field}: {path}: several atoms of residue {residue} are named {atom}, of which OpenMM reads one "
            f"({len(twice)} left out in all); number them, as in {atom}1 and {atom}2"
        )
    if not len(places):
        raise SystemSpecError(f"{field}: {path} holds no atom; give a PDB file with ATOM or HETATM lines")
    for atom, place in zip(pdb.topology.atoms(), places, strict=True):
        if not np.isfinite(place).all():
            raise SystemSpecError(f"{field}: {path}: atom {_name(atom)} has no finite position; correct its line")
    return pdb.topology, places


def read_pdb(molecule: MoleculeSettings, path: Path) -> tuple[Any, NDArray[np.float64], list[Fact]]:
    """Topology and positions `(n_atoms, 3)` [nm] of a molecule, and what was done to its bonds.

    Raises:
        SystemSpecError: the file cannot be read, would be misread, lacks hydrogens, or its box does not fit.
    """
    from openmm import unit

    topology, places = open_pdb(path, "model.pdb")
    _restore_names(topology, path)
    beads = frozenset(molecule.masses or ())
    for atom in topology.atoms():
        if atom.name in beads:
            atom.element = None
    blank = _check_elements(topology, path)
    has_hydrogens = any(atom.element is not None and atom.element.symbol == "H" for atom in topology.atoms())
    if molecule.force_fields and not has_hydrogens:
        raise SystemSpecError(
            f"model.pdb: {path} has no hydrogen atoms; add them, for example with openmm.app.Modeller.addHydrogens "
            "or PDBFixer, and save the file again"
        )
    _check_places(topology, places, path)
    topology, places, facts = complete_bonds(topology, places, path, beads)
    if blank:
        _check_beads(topology, places, path)
    vectors = topology.getPeriodicBoxVectors()
    if vectors is not None:
        box = np.array(vectors.value_in_unit(unit.nanometer))
        if is_dummy(box):
            facts = [*facts, ("box of the PDB file", f"{shown_cell(box)}, a dummy: ignored")]
        elif molecule.force_fields:  # frames that are imported bring boxes of their own
            _check_box(molecule, reduced(box), topology, path)
    return topology, places, facts


def _name(atom: Any) -> str:
    return f"{atom.residue.index + 1}:{atom.name}"


def _restore_names(topology: Any, path: Path) -> None:
    """Give atoms the names of the file where OpenMM's standard names make two of a residue equal (HN and HT1)."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    original: dict[str, set[str]] = {}
    for line in atoms:
        original.setdefault(line[6:11].strip(), set()).add(line[12:16].strip())
    for residue in topology.residues():
        count = Counter(atom.name for atom in residue.atoms())
        for atom in residue.atoms():
            if count[atom.name] > 1 and len(names := original.get(atom.id, set())) == 1:
                (atom.name,) = names


def _check_elements(topology: Any, path: Path) -> bool:
    """Without an element column OpenMM takes an alpha carbon that is alone for calcium, and BB for boron.

    Returns:
        Whether an element is blank.
    """
    from openmm.app import element

    beads = {
        atom.name
        for atom in topology.atoms()
        if atom.element is not None and _BEAD.fullmatch(atom.name) and atom.element.symbol == atom.name[0]
    }
    if beads:
        raise SystemSpecError(
            f"model.pdb: {path}: {', '.join(sorted(beads))} are names of beads, which would get the masses of atoms "
            "(boron, sulphur); give model.masses, for example {BB: 72, SC1: 54}"
        )
    with path.open(encoding="utf-8", errors="replace") as lines:
        if not any(line.startswith(("ATOM", "HETATM")) and not line[76:78].strip() for line in lines):
            return False
    for atom in topology.atoms():
        symbol = atom.element.symbol if atom.element is not None else ""
        ion = symbol.upper() == atom.residue.name.upper().strip("+-0123456789")
        if atom.name == "CA" and symbol == "Ca" and not ion:
            atom.element = element.carbon
        elif symbol not in _USUAL and not ion:
            raise SystemSpecError(
                f"model.pdb: {path}: atom {_name(atom)} of residue {atom.residue.name} would be read as the element "
                f"{symbol}, because columns 77 and 78 are blank; fill in the elements, or of beads give model.masses"
            )
    return True


def _check_beads(topology: Any, places: NDArray[np.float64], path: Path) -> None:
    """Refuse beads that would get the masses of elements: bonded, and too far apart to be atoms."""
    far = [
        atom
        for one, other in topology.bonds()
        if one.element is not None and other.element is not None
        if np.linalg.norm(places[one.index] - places[other.index]) > _FAR
        for atom in (one, other)
        if atom.name not in _TRACES and "'" not in atom.name
    ]
    if names := {atom.name: atom.element.name for atom in far}:
        raise SystemSpecError(
            f"model.pdb: {path}: {shortened(list(names))} are too far from what they are bonded to for atoms, and as "
            f"beads would get the masses of {shortened(list(dict.fromkeys(names.values())))}, because columns 77 and "
            f"78 are blank; give model.masses, for example {{{next(iter(names))}: 72}}"
        )


def _check_places(topology: Any, places: NDArray[np.float64], path: Path) -> None:
    """Refuse atoms in one place, and positions in nm, where a PDB file holds Å."""
    from scipy.spatial import cKDTree

    pairs = np.array([(first.index, second.index) for first, second in topology.bonds()], dtype=int).reshape(-1, 2)
    lengths = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    if len(lengths) and np.median(lengths) < _SHORT_BOND:
        raise SystemSpecError(
            f"model.pdb: {path}: bonded atoms are {np.median(lengths):.3g} nm apart where 0.1 nm is usual; positions "
            "of a PDB file are in Å (multiply nm by 10)"
        )
    atoms = [atom for atom in topology.atoms() if atom.element is not None]
    close = cKDTree(places[[atom.index for atom in atoms]]).query_pairs(_SAME_PLACE)
    if close:
        first, second = (_name(atoms[index]) for index in min(close))
        raise SystemSpecError(f"model.pdb: {path}: atoms {first} and {second} are in one place; correct their lines")


def _check_box(molecule: MoleculeSettings, box: NDArray, topology: Any, path: Path) -> None:
    """Refuse a box in the PDB file that contradicts the specification."""
    shown = shown_cell(box)
    if molecule.box is None:
        waters = sum(residue.name in WATER for residue in topology.residues())
        if waters:
            raise SystemSpecError(
                f"model.box is null, but {path} holds {waters} water molecules in a box of {shown}; set model.box "
                "and model.cutoff"
            )
        return
    if molecule.cutoff is not None and molecule.cutoff > np.diag(box).min() / 2:
        raise SystemSpecError(
            f"model.cutoff {molecule.cutoff} nm is beyond half the box of {path} ({shown}); lower it or use a "
            "larger box"
        )
    asked = cell_vectors(molecule.box)
    if not same_cell(box, asked):
        raise SystemSpecError(f"model.box is {shown_cell(asked)}, but the box of {path} is {shown}; make them equal")
