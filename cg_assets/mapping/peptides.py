"""Build peptides from standard bond lengths and angles: capped ones here, others with PeptideBuilder."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError

BUILDABLE = ("ALA", "GLY")
"""Residues between caps."""
_LETTERS = {
    **{"ALA": "A", "ARG": "R", "ASN": "N", "ASP": "D", "CYS": "C", "GLN": "Q", "GLU": "E", "GLY": "G", "HIS": "H"},
    **{"ILE": "I", "LEU": "L", "LYS": "K", "MET": "M", "PHE": "F", "PRO": "P", "SER": "S", "THR": "T", "TRP": "W"},
    **{"TYR": "Y", "VAL": "V"},
}
"""Residues of peptides with free ends."""
_CAPS = {"ACE", "NME"}
PHI, PSI = -1.4, 2.6

# Bond lengths [nm] and angles [rad] of the peptide backbone: Engh & Huber, Acta Cryst. A 47, 392 (1991).
_N_CA, _CA_C, _C_N, _C_O = 0.1458, 0.1525, 0.1329, 0.1231
_N_CA_C, _CA_C_N, _C_N_CA = math.radians(111.0), math.radians(117.2), math.radians(121.7)


def build_peptide(sequence: list[str]) -> tuple[Any, NDArray[np.float64]]:
    """Topology and positions of an extended peptide, hydrogens included (those of pH 7).

    Args:
        sequence: residue names: ACE first, NME last and ALA or GLY between them; or the 20 standard residues without
            caps, the ends then being charged.

    Returns:
        The OpenMM topology and positions `(n_atoms, 3)` [nm].

    Raises:
        SystemSpecError: a residue cannot be built; the remedy is a PDB file.
    """
    _check_sequence(sequence)
    from openmm import Platform, app, unit

    if not _CAPS & set(sequence):
        pdb = app.PDBFile(io.StringIO(_free_peptide("".join(_LETTERS[name] for name in sequence))))
        modeller = app.Modeller(pdb.topology, pdb.positions)
    else:
        topology = app.Topology()
        chain = topology.addChain()
        positions: list[NDArray[np.float64]] = []
        for name, atoms in _heavy_atoms(sequence):
            residue = topology.addResidue(name, chain)
            for atom_name, position in atoms:
                topology.addAtom(atom_name, app.Element.getBySymbol(atom_name[0]), residue)
                positions.append(position)
        topology.createStandardBonds()
        modeller = app.Modeller(topology, unit.Quantity(np.array(positions), unit.nanometer))
    with fixed_generator():  # addHydrogens draws first guesses
        modeller.addHydrogens(platform=Platform.getPlatformByName("Reference"))
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


@contextmanager
def fixed_generator() -> Iterator[None]:
    """Give OpenMM's Modeller, which draws from Python's global generator, a fixed one for the time of a call."""
    generator_state = random.getstate()
    random.seed(20)
    try:
        yield
    finally:
        random.setstate(generator_state)


def _free_peptide(letters: str) -> str:
    """Heavy atoms of an extended peptide as a PDB file (Tien et al., PeerJ 1, e80 (2013))."""
    import PeptideBuilder
    from Bio.PDB import PDBIO

    structure = PeptideBuilder.make_extended_structure(letters)
    PeptideBuilder.add_terminal_OXT(structure)
    text, writer = io.StringIO(), PDBIO()
    writer.set_structure(structure)
    writer.save(text)
    return text.getvalue()


def _check_sequence(sequence: list[str]) -> None:
    if len(sequence) > 1 and set(sequence) <= set(_LETTERS):
        return
    if not _CAPS & set(sequence):
        other = sorted(set(sequence) - set(_LETTERS))
        raise SystemSpecError(
            f"model.sequence holds {other}; it must be at least two of the 20 standard residues, or begin with ACE and "
            "end with NME; give other molecules as model.pdb"
        )
    if len(sequence) < 3 or sequence[0] != "ACE" or sequence[-1] != "NME":
        raise SystemSpecError(
            f"model.sequence is {sequence}; it must begin with ACE, end with NME and hold residues between them; "
            "give other molecules as model.pdb"
        )
    other = [name for name in sequence[1:-1] if name not in BUILDABLE]
    if other:
        raise SystemSpecError(
            f"model.sequence holds {other}; only {', '.join(BUILDABLE)} are built from internal geometry; "
            "give a molecule with other side chains as model.pdb"
        )


def _heavy_atoms(sequence: list[str]) -> list[tuple[str, list[tuple[str, NDArray[np.float64]]]]]:
    """Heavy atoms of each residue with positions [nm]."""
    methyl = np.zeros(3)
    carbonyl = np.array([_CA_C, 0.0, 0.0])
    nitrogen = carbonyl + _C_N * np.array([-math.cos(_CA_C_N), math.sin(_CA_C_N), 0.0])
    residues = [("ACE", [("CH3", methyl), ("C", carbonyl), ("O", _oxygen(methyl, carbonyl, nitrogen))])]
    alpha = methyl
    for name in sequence[1:-1]:
        before, previous_alpha = carbonyl, alpha
        alpha = _place(previous_alpha, before, nitrogen, _N_CA, _C_N_CA, math.pi)
        carbonyl = _place(before, nitrogen, alpha, _CA_C, _N_CA_C, PHI)
        following = _place(nitrogen, alpha, carbonyl, _C_N, _CA_C_N, PSI)
        atoms = [
            ("N", nitrogen),
            ("CA", alpha),
            ("C", carbonyl),
            ("O", _oxygen(alpha, carbonyl, following)),
        ]
        if name == "ALA":
            atoms.append(("CB", _beta(nitrogen, alpha, carbonyl)))
        residues.append((name, atoms))
        nitrogen = following
    methyl = _place(alpha, carbonyl, nitrogen, _N_CA, _C_N_CA, math.pi)
    residues.append(("NME", [("N", nitrogen), ("C", methyl)]))
    return residues


def _place(
    first: NDArray, second: NDArray, third: NDArray, length: float, angle: float, dihedral: float
) -> NDArray[np.float64]:
    """The fourth atom of a chain from its bond length [nm], bond angle and dihedral [rad]."""
    along = _unit(third - second)
    normal = _unit(np.cross(second - first, along))
    local = np.array([-math.cos(angle), math.sin(angle) * math.cos(dihedral), math.sin(angle) * math.sin(dihedral)])
    frame = np.stack([along, np.cross(normal, along), normal])
    return third + length * local @ frame


def _oxygen(neighbour: NDArray, carbonyl: NDArray, nitrogen: NDArray) -> NDArray[np.float64]:
    return carbonyl - _C_O * _unit(_unit(neighbour - carbonyl) + _unit(nitrogen - carbonyl))


def _beta(nitrogen: NDArray, alpha: NDArray, carbonyl: NDArray) -> NDArray[np.float64]:
    """C-beta of an L amino acid, 0.153 nm from the alpha carbon."""
    first, second = _unit(nitrogen - alpha), _unit(carbonyl - alpha)
    bisector, normal = _unit(first + second), _unit(np.cross(first, second))
    return alpha + 0.153 * _unit(normal * math.sqrt(2 / 3) - bisector / math.sqrt(3))


def _unit(vector: NDArray) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)
