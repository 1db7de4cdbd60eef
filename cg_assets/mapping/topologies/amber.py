"""AMBER: a `prmtop`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.mapping.topologies.base import Parameterised, Topology, check_positions, read_coordinates
from cg_assets.mapping.topologies.soundness import read_text

_POINTERS = {"NATOM": 0, "NTYPES": 1, "NBONH": 2, "NTHETH": 4, "NPHIH": 6, "NEXT": 10, "NRES": 11, "NBONA": 12}
_POINTERS |= {"NTHETA": 13, "NPHIA": 14, "NUMBND": 15, "NUMANG": 16, "NPTRA": 17}
"""Where in the section POINTERS a number stands (ambermd.org/FileFormats)."""
_COUNTS: dict[str, Callable[[dict[str, int]], int]] = {
    **{name: lambda of: of["NATOM"] for name in ("ATOM_NAME", "CHARGE", "ATOMIC_NUMBER", "MASS", "ATOM_TYPE_INDEX")},
    **{name: lambda of: of["NATOM"] for name in ("NUMBER_EXCLUDED_ATOMS", "AMBER_ATOM_TYPE", "RADII", "SCREEN")},
    **{name: lambda of: of["NRES"] for name in ("RESIDUE_LABEL", "RESIDUE_POINTER")},
    **{name: lambda of: of["NUMBND"] for name in ("BOND_FORCE_CONSTANT", "BOND_EQUIL_VALUE")},
    **{name: lambda of: of["NUMANG"] for name in ("ANGLE_FORCE_CONSTANT", "ANGLE_EQUIL_VALUE")},
    **{f"DIHEDRAL_{name}": lambda of: of["NPTRA"] for name in ("FORCE_CONSTANT", "PERIODICITY", "PHASE")},
    **{f"{name}_SCALE_FACTOR": lambda of: of["NPTRA"] for name in ("SCEE", "SCNB")},
    **{f"LENNARD_JONES_{x}COEF": lambda of: of["NTYPES"] * (of["NTYPES"] + 1) // 2 for x in "AB"},
    "NONBONDED_PARM_INDEX": lambda of: of["NTYPES"] ** 2,
    "BONDS_INC_HYDROGEN": lambda of: 3 * of["NBONH"],
    "BONDS_WITHOUT_HYDROGEN": lambda of: 3 * of["NBONA"],
    "ANGLES_INC_HYDROGEN": lambda of: 4 * of["NTHETH"],
    "ANGLES_WITHOUT_HYDROGEN": lambda of: 4 * of["NTHETA"],
    "DIHEDRALS_INC_HYDROGEN": lambda of: 5 * of["NPHIH"],
    "DIHEDRALS_WITHOUT_HYDROGEN": lambda of: 5 * of["NPHIA"],
    "EXCLUDED_ATOMS_LIST": lambda of: of["NEXT"],
}
"""Entries of each section by these numbers."""


class AmberTopology(Topology):
    """An AMBER `prmtop` with the positions of an inpcrd, rst7 or PDB file."""

    type: Literal["amber"]
    prmtop: Path
    """Relative to the folder of the YAML file."""

    def files(self, folder: Path) -> list[Path]:
        """The `prmtop` and the positions."""
        return [folder / self.coordinates, folder / self.prmtop]

    def load(self, folder: Path, box: NDArray[np.float64] | None) -> Parameterised:
        """Read by OpenMM; errors as of `Topology.load`."""
        from openmm import app

        _check_sections(folder / self.prmtop)
        positions, own = read_coordinates(folder / self.coordinates)
        vectors = own if box is None else box
        with library_errors(SystemSpecError, f"model.topology.prmtop: {folder / self.prmtop} cannot be read"):
            prmtop = app.AmberPrmtopFile(str(folder / self.prmtop), periodicBoxVectors=vectors)
        check_positions(prmtop.topology, positions, vectors, folder / self.coordinates, folder / self.prmtop)
        return Parameterised(prmtop.topology, positions, own, prmtop.createSystem)


def _check_sections(path: Path) -> None:
    """Refuse sections of another number of entries than POINTERS states, and lines whose columns have moved.

    Raises:
        SystemSpecError: by file, section and line.
    """
    field, section, width, words = "model.topology.prmtop", "", 0, False
    found: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(path, field).splitlines(), 1):
        where = f"{field}: {path}, line {number}"
        if line.startswith("%FLAG"):
            section, width = line[5:].strip(), 0
            found[section] = []
        elif section not in {"POINTERS", *_COUNTS}:
            continue
        elif line.startswith("%FORMAT"):
            if (columns := re.search(r"\(\d+\(?([aAeEfFiI])(\d+)", line)) is None:
                raise SystemSpecError(f"{where}: {line.strip()} is no format; copy the file again")
            words, width = columns[1] in "aA", int(columns[2])
        elif not width:
            raise SystemSpecError(f"{where}: {section} has no line %FORMAT; copy the file again")
        elif not line.startswith("%"):
            text = line.rstrip()
            entries = [text[begin : begin + width] for begin in range(0, len(text), width)]
            if not words and (wrong := [entry for entry in entries if len(entry) < width or len(entry.split()) != 1]):
                raise SystemSpecError(f"{where}: {wrong[0]!r} is no number of {width} columns in {section}; correct it")
            found[section] += entries
    numbers = found.get("POINTERS", [])
    if len(numbers) <= max(_POINTERS.values()) or not all(number.strip().isdigit() for number in numbers):
        raise SystemSpecError(f"{field}: {path}: its section POINTERS is damaged; copy it again")
    counts = {name: int(numbers[place]) for name, place in _POINTERS.items()}
    for name, entries in found.items():
        if name in _COUNTS and len(entries) != (due := _COUNTS[name](counts)):
            raise SystemSpecError(
                f"{field}: {path}: {name} has {len(entries)} entries where {due} are due; copy it again"
            )
