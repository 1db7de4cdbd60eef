"""Begin the file of an own system: from a shipped one, a structure, or trajectories; every guess is a comment in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cg_assets.core.errors import CgAssetsError, SystemSpecError, shortened
from cg_assets.mapping.bead_mapping import WATER
from cg_assets.mapping.pdb_residues import PdbResidue, pdb_residues
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


@dataclass(frozen=True)
class Source:
    """What a molecule is known from.

    Attributes:
        structure: PDB file, or GRO file of trajectories.
        temperature: of the simulation [K]; None where the user has not stated it.
        trajectories: files of frames; none where the molecule is to be sampled.
        force_fields: files of OpenMM's force field; none for a guess.
    """

    structure: Path
    temperature: float | None
    trajectories: Sequence[Path] = ()
    force_fields: Sequence[str] = ()


def new_from_shipped(name: str, parent: str, folder: Path) -> Path:
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
        f"# Everything that this file leaves out is that of {parent}; take away the # of a line to change it.",
        f"extends: {parent}",
        f"name: {name}",
        f"title: {load_system(parent).title}, own copy",
        *(f"# {line}".rstrip() for line in own),
    ]
    return _written(name, folder, text, {})


def new_from_molecule(name: str, source: Source, folder: Path) -> Path:
    """Write a system of a molecule that is sampled here, or whose trajectories are imported.

    Raises:
        SystemSpecError: something must be stated that files do not contain, or no guess is safe; names the remedy.
    """
    residues = pdb_residues(source.structure)
    if not residues:
        raise SystemSpecError(f"{source.structure}: is not a PDB or GRO file with atoms; give the structure with --pdb")
    if source.temperature is None:
        raise SystemSpecError(
            f"{source.structure}: does not contain the temperature; state it with --temperature, in K"
        )
    if not source.trajectories:
        return _written(name, folder, _sampled(name, source, residues), {source.structure: _copied(name, source)})
    try:
        return _written(
            name, folder, _imported(name, source, residues, None), {source.structure: _copied(name, source)}
        )
    except CgAssetsError as error:
        if source.trajectories[0].suffix.lower() not in _WITH_FORCES or "force" not in str(error):
            raise
        reason = " ".join(str(error).split())
        text = _imported(name, source, residues, reason)
        return _written(name, folder, text, {source.structure: _copied(name, source)})


def _copied(name: str, source: Source) -> str:
    return f"{name}{source.structure.suffix.lower()}"


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
            f"{source.structure}: holds no hydrogens; add them, for example with PDBFixer or gmx pdb2gmx"
        )
    fields = ", ".join(source.force_fields or ["amber14-all.xml"])
    solvent = "null" if source.force_fields else "OBC2"
    guess = "as stated" if source.force_fields else "guess: Amber ff14SB, with OBC2 for the water"
    return [
        *_head(name, source),
        "model:",
        "  type: molecule",
        f"  pdb: {_copied(name, source)}",
        f"  force_fields: [{fields}]  # {guess}",
        f"  implicit_solvent: {solvent}  # guess: no box; for explicit water see model.waters in docs/systems.md",
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
    files = ", ".join(json.dumps(str(path.absolute())) for path in source.trajectories)
    head = [*_head(name, source), "model:", "  type: molecule", f"  pdb: {_copied(name, source)}"]
    if source.force_fields:
        head.append(f"  force_fields: [{', '.join(source.force_fields)}]")
    head += [
        *_beads(residues),
        "imported:",
        f"  files: [{files}]  # a further batch needs files of its own: put {{batch}} into their names",
        "  bias: null  # guess: the run was not biased",
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
        "  flow: {type: flow, of: imported, noise: 0.007, labels: clean}  # forces from configurations alone",
        *_rest("flow_kernel_forces", "flow", residues),
    ]


def _head(name: str, source: Source) -> list[str]:
    return [
        f"# Made from {source.structure.name}. Guesses are marked; cg-assets docs FIELD explains a field.",
        f"name: {name}",
        f"title: {name.replace('_', ' ').capitalize()}",
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


def _written(name: str, folder: Path, text: Sequence[str], copies: dict[Path, str]) -> Path:
    """Write the file and what it names, if the system that they make passes its checks.

    Raises:
        SystemSpecError: it does not, or there is a file or a system of this name.
    """
    path = folder / f"{name}.yaml"
    if name in system_files() or path.exists():
        raise SystemSpecError(f"{name}: a system of this name exists; choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    made = [path]
    try:
        for source, copy in copies.items():
            if (folder / copy).exists():
                raise SystemSpecError(f"{folder / copy}: is there already; choose another name")
            made.append(folder / copy)
            shutil.copyfile(source, folder / copy)
        path.write_text("\n".join([f"# yaml-language-server: $schema={SCHEMA}", *text, ""]), encoding="utf-8")
        load_system(path).check()
    except CgAssetsError:
        for file in made:
            file.unlink(missing_ok=True)
        raise
    (folder / SCHEMA).write_text(json.dumps(system_schema()), encoding="utf-8")
    return path
