"""What a molecule was understood to be, in words: molecules, conformer, box, forces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cg_assets.core.errors import shortened
from cg_assets.core.settings import Fact
from cg_assets.mapping.builders import MoleculeModel, MoleculeSettings
from cg_assets.mapping.cells import shown_cell
from cg_assets.mapping.chains import connected_groups


def molecule_facts(settings: MoleculeSettings, molecule: MoleculeModel, folder: Path) -> Iterator[Fact]:
    """Molecules, conformer, handedness, box and forces.

    Args:
        settings: what was asked for.
        molecule: what was built.
        folder: of the PDB file.
    """
    residues = list(molecule.topology.residues())
    inside = [(atom.index, next(residue.atoms()).index) for residue in residues for atom in residue.atoms()]
    number = len(set(connected_groups(molecule.n_atoms, [*molecule.bonds, *inside]).tolist()))
    names = [f"{count} {name}" for name, count in Counter(residue.name for residue in residues).items()]
    yield "molecules", f"{number}, of {len(residues)} residue(s), {molecule.n_atoms} atoms: {shortened(names)}"
    yield from molecule.facts
    stored = set(molecule.stored.tolist())
    bare = [residue.name for residue in residues if not any(atom.index in stored for atom in residue.atoms())]
    if bare:
        left_out = [f"{count} {name}" for name, count in Counter(bare).most_common()]
        yield "without beads", f"{shortened(left_out)}; frames leave them out"
    numbers = [(item.index + 1, *number_in_file(item)) for item in residues if item.name not in bare]
    if any(number != str(place) for place, _, number in numbers):
        yield "residue numbers", f"{numbers_of_file(numbers)} (place = chain/number of the file)"
    yield "conformer", _conformer(settings, folder)
    if mirrored := [f"{residue.index + 1} {residue.name}" for residue in residues if _is_mirrored(residue, molecule)]:
        yield "D-residues", f"{shortened(mirrored)}; force fields describe them as L-residues"
    if molecule.box is None:
        yield "box", "none, isolated"
    else:
        cutoff = "" if settings.cutoff is None else f", cutoff {settings.cutoff:g} nm"
        yield "box", f"{shown_cell(molecule.box)}, {molecule.density:.0f} kg/m³{cutoff}"
    if molecule.system is None:
        yield "forces", "none: frames are imported"
    else:
        yield "forces", ", ".join(type(force).__name__ for force in molecule.system.getForces())
        yield "constraints", f"{len(molecule.constraints)}; steps of up to {1000 * settings.longest_timestep:.2g} fs"


def number_in_file(residue: Any) -> tuple[str, str]:
    """Chain and number of an OpenMM residue in its file."""
    return residue.chain.id.strip(), f"{residue.id}{residue.insertionCode}".strip()


def numbers_of_file(residues: Iterable[tuple[int, str, str]]) -> str:
    """Places of residues, from 1, and their chains and numbers in the file, as a table in one line."""
    runs: list[list[tuple[int, str, str]]] = []
    for here in residues:
        last = runs[-1][-1] if runs else None
        follows = last is not None and last[1] == here[1] and last[2].lstrip("-").isdigit()
        if follows and last is not None and (last[0] + 1, str(int(last[2]) + 1)) == (here[0], here[2]):
            runs[-1].append(here)
        else:
            runs.append([here])
    rows = [f"{_ends([str(one[0]) for one in run])} = {run[0][1]}/{_ends([one[2] for one in run])}" for run in runs]
    return f"{'; '.join(rows[:20])}{'; ...' if len(rows) > 20 else ''}"


def _ends(numbers: list[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def _conformer(settings: MoleculeSettings, folder: Path) -> str:
    if settings.topology is not None:
        return f"that of {settings.topology.coordinates}"
    if settings.pdb is None:
        return "extended, built from the sequence"
    lines = (folder / settings.pdb).read_text(encoding="utf-8", errors="replace").splitlines()
    models = sum(line.startswith("MODEL") for line in lines)
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    places = {line[16] for line in atoms if len(line) > 16} - {" "}
    text = f"model 1 of {models} in {settings.pdb}" if models > 1 else f"that of {settings.pdb}"
    return text + (f"; alternate locations {', '.join(sorted(places))}: the first of each atom" if places else "")


def _is_mirrored(residue: Any, molecule: MoleculeModel) -> bool:
    """Whether nitrogen, carbonyl and side chain go round the alpha carbon as in a D-residue."""
    place = {atom.name: molecule.positions[atom.index] for atom in residue.atoms()}
    if not {"CA", "N", "C", "CB"} <= set(place):
        return False
    nitrogen, carbonyl, beta = (place[name] - place["CA"] for name in ("N", "C", "CB"))
    return float(np.dot(np.cross(nitrogen, carbonyl), beta)) < 0.0
