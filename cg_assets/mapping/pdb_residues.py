"""Residues of a PDB or GRO file by its own text, without OpenMM: numbers, places, molecules that carry beads."""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from cg_assets.core.errors import SystemSpecError, shortened
from cg_assets.mapping.bead_mapping import WATER

_CAPS = {"ACE", "NME", "NMA", "NH2", "FOR"}
_BACKBONE = {"CA", "P", "C3'", "BB"}


class PdbResidue(NamedTuple):
    """A residue of a PDB file.

    Attributes:
        segment: number of the chain; a new one begins after TER too.
        chain: its letter, "" if it is blank.
        number: with the insertion code, as in the file.
        name: of the residue.
        places: name of each of its atoms to its position [nm]; empty where the file has no number.
    """

    segment: int
    chain: str
    number: str
    name: str
    places: Mapping[str, tuple[float, ...]]

    @property
    def atoms(self) -> Set[str]:
        """Names of its atoms."""
        return self.places.keys()


def pdb_residues(path: Path) -> tuple[PdbResidue, ...]:
    """Residues of the first model of a file, in order; none where it is missing, or neither PDB nor GRO."""
    read = {".pdb": _read, ".gro": _read_gro}.get(path.suffix.lower())
    return read(path, path.stat().st_mtime_ns) if read is not None and path.is_file() else ()


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> tuple[PdbResidue, ...]:
    segment, last = 0, ("", "", "")
    rows: list[tuple[int, str, str, str, dict[str, tuple[float, ...]]]] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("ENDMDL"):
                break
            if line.startswith("TER") and last[0]:
                segment, last = segment + 1, ("", "", "")
            if not line.startswith(("ATOM", "HETATM")):
                continue
            here = (line[21:22], line[22:27], line[17:20])
            other = here[:2] != last[:2] or (here[2] != last[2] and not line[16:17].strip())
            if other or not rows:
                segment += bool(last[0]) and last[0] != here[0]
                rows.append((segment, here[0].strip(), here[1].strip(), here[2].strip(), {}))
                last = here
            rows[-1][4].setdefault(line[12:16].strip(), _numbers(line[30:38], line[38:46], line[46:54], 0.1))
    return tuple(PdbResidue(*row) for row in rows)


@lru_cache(maxsize=64)
def _read_gro(path: Path, changed: int) -> tuple[PdbResidue, ...]:
    last, found = "", list[tuple[str, dict[str, tuple[float, ...]]]]()
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = file.readlines()[2:-1]
    for line in lines:
        if line[:10] != last or not found:
            last = line[:10]
            found.append((last, {}))
        points = [place for place, letter in enumerate(line) if letter == "." and place > 20]
        width = points[1] - points[0] if len(points) > 2 else 8  # the distance of the decimal points, as in GROMACS
        x, y, z = (line[20 + width * axis :][:width] for axis in range(3))
        found[-1][1].setdefault(line[10:15].strip(), _numbers(x, y, z, 1.0))
    return tuple(PdbResidue(0, "", name[:5].strip(), name[5:].strip(), places) for name, places in found)


def _numbers(x: str, y: str, z: str, unit: float) -> tuple[float, ...]:
    try:
        return float(x) * unit, float(y) * unit, float(z) * unit
    except ValueError:
        return ()


def plain_atom(name: str, path: Path) -> str:
    """An atom by the place of its residue (`5:CA`) from its chain and number in a file (`A/38:CA`).

    Args:
        name: of the atom.
        path: of the PDB file.

    Raises:
        SystemSpecError: the file has no such residue, or several.
    """
    place, _, atom = name.partition(":")
    chain, _, number = place.partition("/")
    residues = pdb_residues(path)
    found = [
        index
        for index, residue in enumerate(residues)
        if (residue.chain, residue.number) == (chain, number) and residue.name not in WATER
    ]
    if len(found) == 1:
        return f"{found[0] + 1}:{atom}"
    if found:
        names = ", ".join(f"{index + 1} {residues[index].name}" for index in found)
        raise SystemSpecError(
            f"{name}: {path.name} has {len(found)} residues {place} ({names}); name the atom by the place of its "
            f"residue, for example {found[0] + 1}:{atom}"
        )
    known = [residue.number for residue in residues if residue.chain == chain]
    chains = ", ".join(sorted({residue.chain for residue in residues if residue.chain})) or "none"
    remedy = f"chain {chain} has {shortened(known)}" if known else f"its chains are {chains}"
    raise SystemSpecError(f"{name}: {path.name} has no residue {place}; {remedy}")


def molecules_in_solvent(path: Path, places: set[int], named: set[str]) -> int:
    """Number of molecules of a PDB file that carry beads, 0 where it holds no others.

    A chain of residues with a backbone is one molecule, every other residue one of its own.

    Args:
        path: the file.
        places: of residues with beads, from 1; none where those of all polymers have them.
        named: names of residues whose molecules carry beads instead of the polymers.
    """
    residues = pdb_residues(path)
    polymer = [
        item.name in _CAPS or bool(_BACKBONE & item.atoms and item.name not in {*WATER, "CA"}) for item in residues
    ]
    molecule = [
        (item.segment, 0) if is_one else (item.segment, row + 1)
        for row, (item, is_one) in enumerate(zip(residues, polymer, strict=True))
    ]
    if places:
        carriers = [row for row in range(len(residues)) if row + 1 in places]
    elif named:
        carriers = [row for row, item in enumerate(residues) if item.name in named]
    else:
        carriers = [row for row, is_one in enumerate(polymer) if is_one]
    found = {molecule[row] for row in carriers}
    return len(found) if set(molecule) - found else 0
