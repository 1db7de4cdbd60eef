"""Residues of a PDB file by its own text, without OpenMM: their numbers, and how many molecules carry beads."""

from __future__ import annotations

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
        atoms: names of its atoms.
    """

    segment: int
    chain: str
    number: str
    name: str
    atoms: frozenset[str]


def pdb_residues(path: Path) -> tuple[PdbResidue, ...]:
    """Residues of the first model of a file, in order; none where it is missing."""
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else ()


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> tuple[PdbResidue, ...]:
    segment, last = 0, ("", "", "")
    rows: list[tuple[int, str, str, str, set[str]]] = []
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
                rows.append((segment, here[0].strip(), here[1].strip(), here[2].strip(), set()))
                last = here
            rows[-1][4].add(line[12:16].strip())
    return tuple(PdbResidue(*row[:4], frozenset(row[4])) for row in rows)


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
