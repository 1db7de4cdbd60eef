"""Malformed systems, each wrong in one place, drawn with a seed: files of YAML and PDB as users damage them."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import yaml
from small_systems import GLYCINE, SMALL_WELLS

from cg_assets.systems.load import SHIPPED

Content = dict[str, Any]
NAMES = ("muller_brown", "muller_brown_plane", "capped_alanine_implicit", "chignolin", "water")


@dataclass(frozen=True)
class Malformed:
    """A system's files.

    Attributes:
        kind: what was done to it.
        name: of the system.
        text: its YAML.
        others: further files by name.
    """

    kind: str
    name: str
    text: bytes
    others: dict[str, bytes] = field(default_factory=dict)


@lru_cache
def _bases() -> list[Content]:
    contents = [yaml.safe_load((SHIPPED / f"{name}.yaml").read_text()) for name in NAMES]
    for content in contents:
        _without_files(content)
    return [*contents, yaml.safe_load(SMALL_WELLS)]


def _without_files(content: Content) -> None:
    """The shipped files lie in another folder."""
    evaluation = content.get("evaluation", {})
    evaluation.pop("native", None)
    evaluation.get("reference", {}).pop("file", None)


def _places(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*at, key))


def _inside(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


def _own(content: Content) -> bytes:
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode()


def wrong_value(draw: random.Random) -> Malformed:
    """A value of another type, or a number that is none."""
    content = copy.deepcopy(draw.choice(_bases()))
    place = draw.choice([place for place in _places(content) if place[0] not in ("name", "title", "extends")])
    old = _inside(content, place)
    wrong: list[Any] = [{"nonsense": 1}, [[]], float("nan"), float("inf"), True, "nonsense", "10", 10**20]
    if isinstance(old, dict | list):
        wrong = ["nonsense", 7.5, True, [[None]]]
    elif isinstance(old, str):
        wrong = [5, True, {"nonsense": 1}, [[]], "nonsense nonsense", "", 1e300]
    _inside(content, place[:-1])[place[-1]] = new = draw.choice(wrong)
    return Malformed(f"{place} = {new!r}", content["name"], _own(content))


REQUIRED = (
    *[(section,) for section in ("title", "model", "mapping", "cg_simulation")],
    *[("model", key) for key in ("type",)],
    ("mapping", "type"),
    ("cg_simulation", "replicas"),
    ("cg_simulation", "timestep"),
    ("cg_simulation", "duration"),
    ("sampling", "unbiased", "friction"),
    ("sampling", "unbiased", "burn_in"),
    ("sampling", "biased", "bias", "type"),
    ("network",),
    ("network", "type"),
    ("training", "epochs"),
    ("evaluation", "reference", "type"),
    ("evaluation", "max_pmf_error"),
    ("potentials",),
)


def missing_field(draw: random.Random) -> Malformed:
    """A field that is needed is left out."""
    while True:
        content, place = copy.deepcopy(draw.choice(_bases()[:4])), draw.choice(REQUIRED)
        try:
            del _inside(content, place[:-1])[place[-1]]
        except KeyError:
            continue
        return Malformed(f"without {place}", content["name"], _own(content))


def unknown_field(draw: random.Random) -> Malformed:
    """A name that is misspelt or not known."""
    content = copy.deepcopy(draw.choice(_bases()))
    sections = [(), *(place for place in _places(content) if isinstance(_inside(content, place), dict))]
    section = draw.choice(sections)
    name = draw.choice(["temprature", "Temperature", "two words", "", "a.b", "ä", "x" * 300, "line\nbreak", "_id"])
    _inside(content, section)[name] = draw.choice([1, "one", [1]])
    return Malformed(f"{section} with {name!r}", content["name"], _own(content))


TEXTS: tuple[Callable[[str, random.Random], str], ...] = (
    lambda text, draw: text + text.splitlines()[draw.randrange(1, 3)] + "\n",
    lambda text, draw: text.replace(": 1.0", ": 010", 1).replace("temperature: 3", "temperature: 03", 1),
    lambda text, draw: text + f"refresh: {{max_age: {draw.choice(['1:30', '0x1F', '1_000', '0o17', 'yes', 'off'])}}}\n",
    lambda text, draw: text + "\ttabs: 1\n",
    lambda text, draw: text + f"{draw.choice('[{')}\n",
    lambda text, draw: text + f"deep: {'[' * 40}{']' * 40}\n",
    lambda text, draw: text + f"refresh: !!{draw.choice(['python/object:a.B', 'float', 'own'])} 1\n",
    lambda text, draw: text + "---\nname: second\n",
    lambda text, draw: text + "refresh: *nothing\n",
    lambda text, draw: text.replace("name:", "name:\x00", 1),
    lambda text, draw: text.replace("name: ", "name: other_", 1),
    lambda text, draw: text.replace("name:", draw.choice(["nom:", "? [name]\n:", "1:"]), 1),
    lambda text, draw: "\n".join(text.splitlines()[: draw.randrange(1, 4)]) + "\n",
    lambda text, draw: draw.choice(
        ["", "text", "- 1\n- 2\n", "5", "null", "#", "[]", "{}", "true", '"', "&a [*a]", "%"]
    ),
    lambda text, draw: f"extends: {draw.choice(['nowhere', '5', '[a]', 'null', '../x', 'true'])}\n" + text,
    lambda text, draw: text + "wide: [" + "1, " * 60_000 + "1]\n",
    lambda text, draw: text + "#" * 1_000_001,
)


def wrong_text(draw: random.Random) -> Malformed:
    """Text that is no plain YAML, or nothing of a system."""
    content = draw.choice([_bases()[0], _bases()[2]])
    text = yaml.safe_dump(content, sort_keys=False)
    number = draw.randrange(len(TEXTS))
    return Malformed(f"text {number}", content["name"], TEXTS[number](text, draw).encode("utf-8"))


def wrong_bytes(draw: random.Random) -> Malformed:
    """What is no UTF-8."""
    text = SMALL_WELLS.encode()
    where = draw.randrange(len(text))
    return Malformed("bytes", "small_wells", text[:where] + bytes([draw.randrange(0xF8, 0x100)]) + text[where:])


MEANINGS: tuple[tuple[str, tuple[Any, ...], tuple[Any, ...]], ...] = (
    ("capped_alanine_implicit", ("model", "sequence"), (["ALA"], ["ACE", "XXX", "NME"], [], ["ACE"], ["ala", "gly"])),
    ("capped_alanine_implicit", ("model", "force_fields"), ([], ["../x.xml"], ["tip3p.xml"], ["charmm36.xml"], [""])),
    ("capped_alanine_implicit", ("model", "pdb"), ("nothing.pdb", "", ".", "/", "~")),
    ("capped_alanine_implicit", ("model", "box"), (0.3, 1.0, -1, 1000)),
    ("capped_alanine_implicit", ("model", "hydrogen_mass"), (0.0, 40.0, 1e-3)),
    ("capped_alanine_implicit", ("mapping", "beads"), ({"a": ["9:CA"]}, {}, {"a": []}, {"a": ["1:C", "1:C"]}, "atoms")),
    ("capped_alanine_implicit", ("mapping", "force_map"), ("best", "")),
    ("capped_alanine_implicit", ("collective_variables", "phi", "atoms"), (["1:C"], ["2:HA"] * 4, ["2:N"] * 4)),
    ("capped_alanine_implicit", ("collective_variables",), ({}, {"PHI": {}}, {"phi": {"type": "angle"}})),
    ("capped_alanine_implicit", ("sampling", "unbiased", "timestep"), (0.02, 2, 0.003, 1e-300)),
    ("capped_alanine_implicit", ("sampling", "unbiased", "starts"), ([], "equilibrium", [{"chi": 1}], [{"phi": 60}])),
    ("capped_alanine_implicit", ("sampling", "unbiased", "replicas"), (0, -1, 10**10, 10**30)),
    ("capped_alanine_implicit", ("sampling", "biased", "bias", "width"), ({}, {"phi": 20, "psi": 0.3}, {"phi": 0.3})),
    ("capped_alanine_implicit", ("temperature",), (0, -1, 25, 1e9)),
    ("chignolin", ("model", "sequence"), (["GLY"] * 501, ["GLY", "MSE"], ["ACE", "ALA"])),
    ("chignolin", ("collective_variables", "turn", "range"), ([2, 1], [3, 21], [1], [-1, 1])),
    ("muller_brown", ("model", "expression"), ("x +", "z", "open('x')", "1/0", "x**x", "x" * 6000, "exp(" * 60, "")),
    ("muller_brown", ("model", "domain"), ({"x": [0, 60]}, {"x": [60, 0], "y": [0, 9]}, {"x": [0, 60], "y": [10, 60]})),
    ("muller_brown", ("mapping", "coordinates"), ({}, {"s": {}}, {"x": {"q": 1}}, {"s": {"x": 0}})),
    ("muller_brown", ("sampling", "biased", "bias", "expression"), ("y", "x +", "import os", "phi")),
    ("muller_brown", ("network", "range"), ([60, 0], [1], [0, 0])),
    (
        "muller_brown",
        ("evaluation", "basins"),
        ({"a": {}}, {"a": {"limits": {"q": [0, 1]}}}, {"a": {"limits": []}}),
    ),
    ("water", ("model", "molecules"), (1, 10**6, 7.5)),
    ("water", ("model", "density"), (0.997, -1, 1e5)),
    ("water", ("model", "cutoff"), (0, 9.0, 6.2)),
    ("water", ("temperatures",), ([], [400, 300], [300, 300], [-1, 300])),
    ("water", ("targets", "temperatures"), ([1, 2], [], [300, 200])),
)


def wrong_meaning(draw: random.Random) -> Malformed:
    """A value of the right type that cannot be."""
    base, place, values = draw.choice(MEANINGS)
    content = copy.deepcopy(_bases()[NAMES.index(base)])
    if place[-1] == "pdb":
        del content["model"]["sequence"]
    _inside(content, place[:-1])[place[-1]] = new = draw.choice(values)
    return Malformed(f"{place} = {str(new)[:60]}", base, _own(content))


@lru_cache
def _glycine() -> list[str]:
    from openmm import app, unit

    from cg_assets.mapping.peptides import build_peptide

    topology, positions = build_peptide(["ACE", "GLY", "NME"])
    text = io.StringIO()
    app.PDBFile.writeFile(topology, positions * unit.nanometer, text)
    return [line for line in text.getvalue().splitlines() if line.startswith(("ATOM", "HETATM"))]


def _put(lines: list[str], at: int, line: str) -> list[str]:
    return [*lines[:at], line, *lines[at + 1 :]]


STRUCTURES: tuple[Callable[[list[str], int, random.Random], list[str]], ...] = (
    lambda lines, at, draw: lines[:at] + lines[at + 1 :],
    lambda lines, at, draw: _put(lines, at, lines[at][:30] + "     x  " + lines[at][38:]),
    lambda lines, at, draw: _put(lines, at, lines[at][:30] + "     nan" + lines[at][38:]),
    lambda lines, at, draw: _put(lines, at, lines[at][:76] + " F" + lines[at][78:]),
    lambda lines, at, draw: _put(lines, at, lines[at][:30] + "  99.000" + lines[at][38:]),
    lambda lines, at, draw: _put(lines, at, lines[at][:30] + lines[at - 1][30:54] + lines[at][54:]),
    lambda lines, at, draw: lines[: 1 + at // 2],
    lambda lines, at, draw: [line for line in lines if line[76:78].strip() != "H"],
    lambda lines, at, draw: [line[:30] + f"{0:8.3f}" * 3 + line[54:] for line in lines],
    lambda lines, at, draw: [],
    lambda lines, at, draw: ["<html>", "not found"],
    lambda lines, at, draw: [line[:76] + draw.choice(["Xx", "C ", "??"]) + line[78:] for line in lines],
)


def wrong_structure(draw: random.Random) -> Malformed:
    """A damaged PDB file."""
    lines, number = _glycine(), draw.randrange(len(STRUCTURES))
    damaged = STRUCTURES[number](lines, draw.randrange(1, len(lines)), draw)
    others = {"own_glycine.pdb": "\n".join([*damaged, "END", ""]).encode()}
    return Malformed(f"structure {number}", "own_glycine", GLYCINE.encode(), others)


def undamaged() -> list[Malformed]:
    """The systems before anything is done to them."""
    structure = {"own_glycine.pdb": "\n".join([*_glycine(), "END", ""]).encode()}
    sound = [Malformed("none", content["name"], _own(content)) for content in _bases()]
    return [*sound, Malformed("none", "own_glycine", GLYCINE.encode(), structure)]


KINDS = {
    wrong_value: 90,
    missing_field: 30,
    unknown_field: 40,
    wrong_text: 50,
    wrong_bytes: 10,
    wrong_meaning: 60,
    wrong_structure: 20,
}
"""What is done to how many of three hundred."""


def malformed(seed: int, parts: int = 1) -> list[Malformed]:
    """Three hundred malformed systems, or every `parts`-th of them, the same for a seed."""
    draw = random.Random(seed)
    return [kind(draw) for kind, number in KINDS.items() for _ in range(number)][::parts]
