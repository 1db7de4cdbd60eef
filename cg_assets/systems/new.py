"""Begin the file of an own system: from a shipped one, a structure, or trajectories; every guess is a comment in it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from cg_assets.core.errors import NoForcesError, SystemSpecError, one_line, shortened
from cg_assets.core.settings import Name
from cg_assets.mapping.bead_mapping import WATER
from cg_assets.mapping.pdb_residues import PdbResidue, pdb_residues
from cg_assets.sampling.imported.bias import undeclared_bias
from cg_assets.systems.load import load_system, system_files
from cg_assets.systems.schema import system_schema

SCHEMA = "system.schema.json"
"""JSON Schema that is written next to the file of a system."""
_AMINO_ACIDS = {
    *("ALA", "ARG", "ASN", "ASP", "ASH", "CYS", "CYX", "GLN", "GLU", "GLH", "GLY", "HIS", "HID", "HIE", "HIP", "ILE"),
    *("LEU", "LYS", "LYN", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL", "ACE", "NME"),
}
_CHAIN = 5
"""Residues from which up a molecule is a chain of alpha carbons."""
_WITH_FORCES = (".trr", ".nc", ".ncdf", ".lammpstrj", ".dump", ".npz")
"""Formats in which forces are looked for."""
_FORCE_FIELDS = ("amber14-all.xml",)
"""Those of a molecule whose user names none; OBC2 goes with them."""
_UNBIASED = "  bias: null"
"""Line by which the user states that runs were not biased."""


class Begun(NamedTuple):
    """The file of a system that was begun.

    Attributes:
        path: of the file.
        notes: what the user should look at first, in sentences.
    """

    path: Path
    notes: list[str]


@dataclass(frozen=True)
class Source:
    """What a molecule is known from.

    Attributes:
        structure: PDB file.
        temperature: of the simulation [K]; None where the user has not stated it.
        trajectories: files of frames; none where the molecule is to be sampled.
        force_fields: files of OpenMM's force field; none for a guess.
    """

    structure: Path
    temperature: float | None
    trajectories: Sequence[Path] = ()
    force_fields: Sequence[str] = ()


def new_from_shipped(name: str, parent: str, folder: Path) -> Begun:
    """Write a system that extends a shipped one, with the lines of that as comments.

    Raises:
        SystemSpecError: there is no such system, or the new name is taken or cannot be one.
    """
    files = system_files()
    if parent not in files:
        raise SystemSpecError(f"--from {parent}: no such system; there are: {', '.join(files)}")
    lines = files[parent].read_text(encoding="utf-8").splitlines()
    own = [line for line in lines if not line.startswith(("extends:", "name:", "title:"))]
    text = [
        f"# Everything that this file leaves out is that of {parent}; to change a line, take away its # and that of",
        "# the sections that it is in.",
        f"extends: {parent}",
        f"name: {name}",
        f"title: {_quoted(f'{load_system(parent).title}, own copy')}",
        *(f"#{_with_absolute_names(line, files[parent].parent)}" for line in own),
    ]
    return Begun(_written(name, folder, text, {}).path, [])


def _with_absolute_names(line: str, folder: Path) -> str:
    """A line of a file in a folder, for a file in another one."""
    return re.sub(r"[\w./-]+", lambda found: str(path) if (path := folder / found[0]).is_file() else found[0], line)


def new_from_molecule(name: str, source: Source, folder: Path) -> Begun:
    """Write a system of a molecule that is sampled here, or whose trajectories are imported.

    Raises:
        SystemSpecError: something must be stated that files do not contain, or no guess is safe; names the remedy.
    """
    if not source.structure.is_file():
        raise SystemSpecError(f"{source.structure}: there is no such file; give the structure with --pdb")
    residues = pdb_residues(source.structure) if source.structure.suffix.lower() == ".pdb" else ()
    if not residues:
        raise SystemSpecError(
            f"{source.structure}: is not a PDB file with atoms; write one, for example with gmx editconf, for --pdb"
        )
    if source.temperature is None:
        raise SystemSpecError(
            f"{source.structure}: does not contain the temperature; state it with --temperature, in K"
        )
    copies = {source.structure: _copied(name)}
    if not source.trajectories:
        system = _written(name, folder, _sampled(name, source, residues), copies)
        solvent = _solvent(source)
        return Begun(system.path, [] if solvent == "OBC2" else [f"model.implicit_solvent is {solvent}"])
    notes: list[str] = []
    try:
        system = _written(name, folder, _imported(name, source, residues, None), copies)
    except NoForcesError as error:
        notes.append(f"imported.forces is null, and a flow kernel makes the labels: {one_line(error, 600)}")
        system = _written(name, folder, _imported(name, source, residues, one_line(error, 600)), copies)
    if sign := undeclared_bias(system.trajectories):
        notes.append(f"{sign}: declare it in imported.bias, or take the # of bias: null away if there was none")
    return Begun(system.path, notes)


def _copied(name: str) -> str:
    return f"{name}.pdb"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _solvent(source: Source) -> str:
    """OBC2 for the force field that is a guess otherwise, else null with what that means."""
    if not source.force_fields or tuple(source.force_fields) == _FORCE_FIELDS:
        return "OBC2"
    own = any(file.startswith("implicit/") for file in source.force_fields)
    return f"null: {'that of force_fields counts' if own else 'vacuum'}"


def _sampled(name: str, source: Source, residues: Sequence[PdbResidue]) -> list[str]:
    """The file of a molecule in implicit solvent."""
    waters = [residue for residue in residues if residue.name in WATER]
    unknown = sorted({residue.name for residue in residues} - _AMINO_ACIDS)
    if waters:
        raise SystemSpecError(
            f"{source.structure}: holds {len(waters)} molecules of water; remove them to sample in implicit solvent, "
            "or set model.waters as docs/systems.md describes"
        )
    if unknown and not source.force_fields:
        raise SystemSpecError(
            f"{source.structure}: no force field is known for {shortened(unknown)}; name its files with --force-field, "
            "or import trajectories with --trajectory"
        )
    if not any(atom.startswith("H") for residue in residues for atom in residue.atoms):
        raise SystemSpecError(
            f"{source.structure}: holds no hydrogens; add them, as with Modeller.addHydrogens of OpenMM "
            "(docs/tutorials/own_molecule.md), PDBFixer or gmx pdb2gmx"
        )
    fields = ", ".join(map(_quoted, source.force_fields or _FORCE_FIELDS))
    solvent, _, meaning = _solvent(source).partition(": ")
    why = f"null: {meaning}" if meaning else "guess: no box"
    guess = "as stated" if source.force_fields else "guess: Amber ff14SB, with OBC2 for the water"
    return [
        *_head(name, source),
        "model:",
        "  type: molecule",
        f"  pdb: {_copied(name)}",
        f"  force_fields: [{fields}]  # {guess}",
        f"  implicit_solvent: {solvent}  # {why}; for explicit water see model.waters in docs/systems.md",
        "  constraints: h_bonds  # guess: bonds with hydrogen are rigid, which allows a time step of 0.004 ps",
        "  hydrogen_mass: 4.0  # [amu]",
        *_beads(residues),
        "sampling:",
        "  unbiased:  # guess: plain dynamics from the structure; add sampling.biased where barriers are high",
        "    replicas: 4",
        "    starts: [{}]  # the structure itself",
        "    timestep: 0.004  # [ps]",
        "    friction: 1.0  # [1/ps]",
        "    burn_in: 100  # [ps]",
        "    duration: 2000  # [ps], a guess; longer than the slowest motion",
        "    frame_interval: 0.2  # [ps]",
        *_rest("mapped_forces", "own", residues),
    ]


def _imported(name: str, source: Source, residues: Sequence[PdbResidue], without: str | None) -> list[str]:
    """The file of trajectories, with their forces where the format has them, or without for a reason."""
    forces = without is None and source.trajectories[0].suffix.lower() in _WITH_FORCES
    files = ", ".join(_quoted(str(path.absolute())) for path in source.trajectories)
    head = [*_head(name, source), "model:", "  type: molecule", f"  pdb: {_copied(name)}"]
    if source.force_fields:
        head.append(f"  force_fields: [{', '.join(map(_quoted, source.force_fields))}]")
    head += [
        *_beads(residues),
        "imported:",
        f"  files: [{files}]  # a further batch needs files of its own: put {{batch}} into their names",
        f"#{_UNBIASED}  # state this if the run was not biased, or declare its bias: cg-assets docs imported.bias",
    ]
    if forces:
        return [
            *head,
            "  forces: file  # the forces of the atoms in the files",
            *_rest("imported_forces", "own", residues),
        ]
    why = f"not used: {without}" if without else "none are looked for in this format"
    return [
        *head,
        f"  forces: null  # {why}",
        "labels:",
        "  flow: {type: flow, of: imported, noise: 0.007, labels: clean}  # [nm]; forces from configurations",
        *_rest("flow_kernel_forces", "flow", residues),
    ]


def _head(name: str, source: Source) -> list[str]:
    return [
        f"# Made from {source.structure.name}. Guesses are marked; cg-assets docs FIELD explains a field.",
        f"name: {name}",
        f"title: {_quoted(name.replace('_', ' ').capitalize())}",
        f"temperature: {source.temperature:g}  # [K], as stated",
    ]


def _is_chain(residues: Sequence[PdbResidue]) -> bool:
    return sum("CA" in residue.atoms and residue.name in _AMINO_ACIDS for residue in residues) >= _CHAIN


def _beads(residues: Sequence[PdbResidue]) -> list[str]:
    """Beads on alpha carbons of a chain, else on heavy atoms."""
    beads = "alpha_carbons" if _is_chain(residues) else "heavy_atoms"
    other = "heavy_atoms" if _is_chain(residues) else "alpha_carbons"
    return [
        "mapping:",
        "  type: beads",
        f"  beads: {beads}  # guess from {len(residues)} residues; or {other}, or the atoms of each bead by name",
        *_variables(residues),
    ]


def _variables(residues: Sequence[PdbResidue]) -> list[str]:
    """Torsions of a single amino acid, or the size of another small molecule."""
    carbons = [place for place, residue in enumerate(residues, 1) if "CA" in residue.atoms]
    if len(carbons) > 1:
        return ["# collective_variables: none are named, so alpha carbons are judged by their distance or their size"]
    heavy = [
        f"{place}:{atom}"
        for place, residue in enumerate(residues, 1)
        for atom in residue.atoms
        if not atom.lstrip("0123456789").startswith("H")
    ]
    chosen = (
        []
        if not carbons
        else [
            ("phi", [f"{carbons[0] - 1}:C", f"{carbons[0]}:N", f"{carbons[0]}:CA", f"{carbons[0]}:C"]),
            ("psi", [f"{carbons[0]}:N", f"{carbons[0]}:CA", f"{carbons[0]}:C", f"{carbons[0] + 1}:N"]),
        ]
    )
    if chosen and {atom for _, atoms in chosen for atom in atoms} <= set(heavy):
        lines = [f"  {name}: {{type: torsion, atoms: {json.dumps(atoms)}}}  # [rad]" for name, atoms in chosen]
        return ["collective_variables:  # guess: the torsions of the backbone", *lines]
    size = f"  size: {{type: radius_of_gyration, atoms: {json.dumps(heavy)}, range: [0, 1.5]}}  # [nm]"
    return ["collective_variables:  # guess: the radius of gyration of the heavy atoms", size]


def _rest(labels: str, potential: str, residues: Sequence[PdbResidue]) -> list[str]:
    """Potential, CG simulation and evaluation."""
    variables = [line.split(":")[0].strip() for line in _variables(residues)[1:]]
    judged = [f"  collective_variables: [{', '.join(variables)}]"] if variables else []
    prior = "{}  # bonds, angles and dihedrals" if _is_chain(residues) else "null"
    return [
        "network:",
        "  type: message_passing",
        f"  prior: {prior}",
        "training: {epochs: 25, batch_size: 256, learning_rate: 0.01}",
        "cg_simulation:",
        "  replicas: 50",
        "  timestep: 0.002  # [ps]",
        "  friction: 1.0  # [1/ps]",
        "  burn_in: 10  # [ps]",
        "  duration: 100  # [ps]",
        "  frame_interval: 0.1  # [ps]",
        "potentials:",
        f"  {potential}: {{labels: {labels}}}",
        "evaluation:",
        "  reference: {type: data}  # guess: the frames themselves are long enough to compare with",
        *judged,
        "  max_pmf_error: 0.5  # guess",
    ]


class _Written(NamedTuple):
    """A file that passed its checks, and the trajectories that it names."""

    path: Path
    trajectories: list[Path]


def _written(name: str, folder: Path, text: Sequence[str], copies: dict[Path, str]) -> _Written:
    """Write the file and what it names, if the system that they make passes its checks, but for a bias to be declared.

    Raises:
        CgAssetsError: it does not, or there is a file or a system of this name, or the name cannot be one.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise SystemSpecError(
            f"{one_line(repr(name), 80)}: cannot be the name of a system; it takes lower-case letters, digits and "
            "underscores, at most 60, with a letter first"
        ) from None
    path = folder / f"{name}.yaml"
    if name in system_files() or path.exists():
        raise SystemSpecError(f"{name}: a system of this name exists; choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as undone:
        for source, copy in copies.items():
            if (folder / copy).exists():
                raise SystemSpecError(f"{folder / copy}: is there already; choose another name")
            undone.callback((folder / copy).unlink, missing_ok=True)
            shutil.copyfile(source, folder / copy)
        undone.callback(path.unlink, missing_ok=True)
        whole = "\n".join([f"# yaml-language-server: $schema={SCHEMA}", *text, ""])
        path.write_text(whole.replace(f"#{_UNBIASED}", _UNBIASED), encoding="utf-8")
        system = load_system(path)
        system.check()
        path.write_text(whole, encoding="utf-8")
        (folder / SCHEMA).write_text(json.dumps(system_schema()), encoding="utf-8")
        undone.pop_all()
    return _Written(path, system.imported_files("0000"))
