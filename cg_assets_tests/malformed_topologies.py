"""Malformed topologies and parameters, each damaged in one place, drawn with a seed: GROMACS, AMBER, CHARMM, OpenMM."""

import io
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import openmm
from charmm_files import forces_of, kinds_of, write_parameters, write_psf
from malformed_imports import cut, hole, replaced
from openmm import app, unit

from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.builders import MoleculeSettings, build_molecule

PLAIN = {"constraints": "none", "hydrogen_mass": None}
HEAVY = BeadMapping(type="beads", beads="heavy_atoms")
WORDS = ["nan", "*********", "1.2.3", "x", "1e999"]
NUMBER = re.compile(r"-?\d+\.?\d*$")
TERM = {
    "it.top": r"\d+( +\d+)+ +[19] +[-\d.]",
    "it.prm": r"[\w ]+ -?\d+\.\d+ \d+ \d+\.\d+$",
    "it.xml": r"<(Bond|Angle|Torsion|Exception|Improper|Proper)\b",
    "field.xml": r"<(Angle|Improper|Proper)\b",
}
"""Lines whose loss cannot be seen in formats without counts: one term fewer is another molecule, and sound. For the
same reason names of atom types are left alone: with another one a term is one of other atoms."""


@dataclass(frozen=True)
class MalformedTopology:
    """Settings of a molecule and its files.

    Attributes:
        kind: what was done.
        file: the damaged one.
        fields: of `MoleculeSettings`.
        files: contents by name.
    """

    kind: str
    file: str
    fields: dict
    files: dict[str, bytes]


@lru_cache
def molecule():
    """Capped alanine with the force field that the files hold."""
    fields = {"sequence": ["ACE", "ALA", "NME"], "force_fields": ["amber14-all.xml"], **PLAIN}
    return build_molecule(MoleculeSettings.model_validate(fields), HEAVY, {}, Path())


def write_pdb() -> bytes:
    own, text = molecule(), io.StringIO()
    app.PDBFile.writeFile(own.topology, unit.Quantity(own.positions, unit.nanometer), text)
    return text.getvalue().encode()


def write_top() -> bytes:
    """A `top` in which each term holds its parameters (GROMACS manual, file formats)."""
    own = molecule()
    force = forces_of(own.system)
    lines = ["[ defaults ]", "1 2 no 0.5 0.8333", "[ atomtypes ]"]
    atoms = list(own.topology.atoms())
    for atom, kind in zip(atoms, kinds_of(own.topology), strict=True):
        charge, size, depth = (part._value for part in force["NonbondedForce"].getParticleParameters(atom.index))
        number, mass = atom.element.atomic_number, atom.element.mass._value
        lines.append(f"{kind} {kind} {number} {mass:.5f} {charge:.6f} A {size:.8f} {depth:.8f}")
    lines += ["[ moleculetype ]", "peptide 3", "[ atoms ]"]
    for atom, kind in zip(atoms, kinds_of(own.topology), strict=True):
        charge = force["NonbondedForce"].getParticleParameters(atom.index)[0]._value
        number, residue = atom.index + 1, atom.residue
        start = f"{number:6d} {kind:8s} {residue.index + 1} {residue.name} {atom.name} {number}"
        lines.append(f"{start} {charge:.6f} {atom.element.mass._value:.5f}")
    lines.append("[ bonds ]")
    for index in range(force["HarmonicBondForce"].getNumBonds()):
        one, other, length, strength = force["HarmonicBondForce"].getBondParameters(index)
        lines.append(f"{one + 1:6d} {other + 1:6d} 1 {length._value:.6f} {strength._value:.4f}")
    lines.append("[ pairs ]")
    for index in range(force["NonbondedForce"].getNumExceptions()):
        one, other, _, size, depth = force["NonbondedForce"].getExceptionParameters(index)
        if depth._value:
            lines.append(f"{one + 1:6d} {other + 1:6d} 1 {size._value:.8f} {depth._value:.8f}")
    lines.append("[ angles ]")
    for index in range(force["HarmonicAngleForce"].getNumAngles()):
        *three, angle, strength = force["HarmonicAngleForce"].getAngleParameters(index)
        places = " ".join(f"{place + 1:6d}" for place in three)
        lines.append(f"{places} 1 {angle.value_in_unit(unit.degree):.4f} {strength._value:.4f}")
    lines.append("[ dihedrals ]")
    for index in range(force["PeriodicTorsionForce"].getNumTorsions()):
        *four, count, phase, strength = force["PeriodicTorsionForce"].getTorsionParameters(index)
        places = " ".join(f"{place + 1:6d}" for place in four)
        lines.append(f"{places} 9 {phase.value_in_unit(unit.degree):.4f} {strength._value:.6f} {count}")
    return "\n".join([*lines, "[ system ]", "capped alanine", "[ molecules ]", "peptide 1", ""]).encode()


def gromacs(_: Path) -> tuple[dict, dict[str, bytes], list[str]]:
    """Settings, files, and those to damage."""
    source = {"type": "gromacs", "top": "it.top", "coordinates": "it.pdb"}
    return {"topology": source, **PLAIN}, {"it.pdb": write_pdb(), "it.top": write_top()}, ["it.top"]


def amber(_: Path) -> tuple[dict, dict[str, bytes], list[str]]:
    """The acetyl group of MDAnalysisTests."""
    from MDAnalysisTests.datafiles import __file__ as place

    source = {"type": "amber", "prmtop": "it.prmtop", "coordinates": "it.inpcrd"}
    places = 10 * molecule().positions[[1, 0, 2, 3, 4, 5]].ravel()
    lines = ["".join(f"{place:12.7f}" for place in places[begin : begin + 6]) for begin in range(0, 18, 6)]
    files = {
        "it.inpcrd": "\n".join(["acetyl", f"{6:6d}", *lines, ""]).encode(),
        "it.prmtop": (Path(place).parent / "data/Amber/ace_mbondi3.parm7").read_bytes(),
    }
    return {"topology": source, **PLAIN}, files, ["it.prmtop"]


def charmm(folder: Path) -> tuple[dict, dict[str, bytes], list[str]]:
    """A psf and its parameters, either of which is damaged."""
    own = molecule()
    write_psf(folder / "it.psf", own.topology, own.system)
    write_parameters(folder / "it.prm", own.topology, own.system)
    source = {"type": "charmm", "psf": "it.psf", "parameters": ["it.prm"], "coordinates": "it.pdb"}
    files = {name: (folder / name).read_bytes() for name in ("it.psf", "it.prm")}
    return {"topology": source, **PLAIN}, files | {"it.pdb": write_pdb()}, ["it.psf", "it.prm"]


def serialised(_: Path) -> tuple[dict, dict[str, bytes], list[str]]:
    """A System of OpenMM's XmlSerializer."""
    source = {"type": "openmm_system", "xml": "it.xml", "coordinates": "it.pdb"}
    text = openmm.XmlSerializer.serialize(molecule().system)
    return {"topology": source, **PLAIN}, {"it.pdb": write_pdb(), "it.xml": text.encode()}, ["it.xml"]


def own_field(_: Path) -> tuple[dict, dict[str, bytes], list[str]]:
    """A force field in OpenMM's format: the part of ff14SB that capped alanine needs."""
    folder = next(path for path in app.forcefield._getDataDirectories() if path)
    root = ElementTree.parse(f"{folder}/amber14/protein.ff14SB.xml").getroot()
    residues = root.find("Residues")
    for residue in list(residues):
        if residue.get("name") not in {"ACE", "ALA", "NME"}:
            residues.remove(residue)
    types = {atom.get("type") for atom in residues.iter("Atom")}
    kinds = root.find("AtomTypes")
    for kind in list(kinds):
        if kind.get("name") not in types:
            kinds.remove(kind)
    classes = {kind.get("class") for kind in kinds} | {"", None}
    for section in root:
        for term in list(section):
            named = {value for name, value in term.items() if re.match(r"(class|type)\d*$", name)}
            if section.tag not in {"AtomTypes", "Residues"} and not named <= classes | types:
                section.remove(term)
    ElementTree.indent(root)
    fields = {"sequence": ["ACE", "ALA", "NME"], "force_fields": ["field.xml"], **PLAIN}
    return fields, {"field.xml": ElementTree.tostring(root)}, ["field.xml"]


SOURCES: dict[Callable[[Path], tuple[dict, dict[str, bytes], list[str]]], int] = {
    gromacs: 45,
    amber: 45,
    charmm: 55,
    serialised: 25,
    own_field: 30,
}
"""How many of two hundred."""


def _number(lines: list[str], draw: random.Random) -> list[str]:
    """The value of an attribute is none."""
    at = draw.choice([number for number, line in enumerate(lines) if '="' in line])
    values = [*re.finditer(r'(?<!class\d)(?<!type\d)="([^"]*)"', lines[at])]
    chosen = draw.choice(values)
    changed = lines[at][: chosen.start(1)] + draw.choice(WORDS) + lines[at][chosen.end(1) :]
    return [*lines[:at], changed, *lines[at + 1 :]]


def _text(content: bytes, draw: random.Random, name: str) -> bytes:
    """A line is lost, written twice or of letters, or one number is none."""
    lines = content.decode().splitlines(keepends=True)
    counted = [number for number, line in enumerate(lines) if not re.match(TERM.get(name, "$."), line.strip())]
    at = draw.randrange(len(lines))
    change = draw.choice(["lost", "twice", "letters", "number", "number", "number"])
    if change == "lost":
        at = draw.choice(counted)
        changed = lines[:at] + lines[at + 1 :]
    elif change == "twice":
        changed = [*lines[:at], lines[at], *lines[at:]]
    elif change == "letters":
        changed = [*lines[:at], "lost lost lost\n", *lines[at + 1 :]]
    elif name.endswith(".xml"):
        changed = _number(lines, draw)
    else:
        numbers = [index for index, line in enumerate(lines) if name != "it.prm" or NUMBER.match(line.split(" ")[-1])]
        at = draw.choice(numbers)
        words = lines[at].split(" ")
        places = [place for place, word in enumerate(words) if word.strip()]
        places = [place for place in places if name != "it.prm" or NUMBER.match(words[place])] or places
        words[draw.choice(places or [0])] = draw.choice(WORDS)
        changed = [*lines[:at], " ".join(words).rstrip("\n") + "\n", *lines[at + 1 :]]
    return "".join(changed).encode()


def malformed_topologies(seed: int, folder: Path) -> list[MalformedTopology]:
    """Two hundred malformed topologies, the same for a seed."""
    draw, found = random.Random(seed), []
    for source, number in SOURCES.items():
        fields, files, names = source(folder)
        for _ in range(number):
            name = draw.choice(names)
            damage = draw.choice([cut, replaced, hole, *[_text] * 7])
            content = _text(files[name], draw, name) if damage is _text else damage(files[name], draw)
            kind = f"{source.__name__}, {name}: {damage.__name__}"
            found.append(MalformedTopology(kind, name, fields, files | {name: content}))
    return found


def sound_topologies(folder: Path) -> list[MalformedTopology]:
    """The topologies before anything is done to them."""
    return [
        MalformedTopology(source.__name__, names[0], fields, files)
        for source in SOURCES
        for fields, files, names in [source(folder)]
    ]
