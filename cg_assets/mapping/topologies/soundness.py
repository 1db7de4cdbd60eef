"""Damage to the files of a topology that OpenMM reads in silence."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cg_assets.core.errors import SystemSpecError, library_errors, one_line

if TYPE_CHECKING:
    import openmm

_NOT_FINITE = re.compile(r'<[^<>]*="[-+]?(?:nan|inf)[^<>]*>', re.IGNORECASE)
_TERM = re.compile(r"<(?:Bond|Angle|Torsion) [^<>]*/>")
_WITHOUT_FORCE = re.compile(r' k="-?0"')
_PAIR = re.compile(r'<(?:Bond|Constraint) [^<>]*\bp1="(\d+)" p2="(\d+)"')


def read_text(path: Path, field: str) -> str:
    """The content of a text file; letters of other alphabets may come out wrong.

    Raises:
        SystemSpecError: it holds zero bytes.
    """
    content = path.read_bytes()
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise SystemSpecError(
            f"{field}: {path}, line {line}: holds zero bytes, as an interrupted copy leaves; copy it again"
        )
    return content.decode("utf-8", errors="replace")


def read_xml(path: Path, field: str) -> ElementTree.Element:
    """The root of an XML file; OpenMM's own parser accepts wrong closing tags and text between tags.

    Raises:
        SystemSpecError: it is not well formed, or holds text between tags.
    """
    with library_errors(SystemSpecError, f"{field}: {path} is damaged", "copy it again"):
        root = ElementTree.fromstring(read_text(path, field))
    for element in root.iter():
        for text in (element.tail, element.text if len(element) else ""):
            if text and text.strip():
                raise SystemSpecError(
                    f"{field}: {path}: holds the text {one_line(text, 40)!r} at {element.tag}, outside of any tag; "
                    "correct it"
                )
    return root


def check_system(
    system: openmm.System, names: Sequence[str], where: str, bonds: Iterable[tuple[int, int]] = ()
) -> None:
    """Refuse numbers that are not finite, a term that is there twice, and a bond without a term.

    Args:
        system: made from the files.
        names: of its atoms.
        where: the field and the files, for messages.
        bonds: that must have a term or a constraint.

    Raises:
        SystemSpecError: there is one.
    """
    import openmm

    text = openmm.XmlSerializer.serialize(system)
    if found := _NOT_FINITE.search(text):
        raise SystemSpecError(f"{where}: gives a number that is not finite, {_shown(found[0], names)}; correct it")
    for term, count in Counter(_TERM.findall(text)).items():
        if count > 1 and not _WITHOUT_FORCE.search(term):
            raise SystemSpecError(f"{where}: holds a term {count} times, {_shown(term, names)}; remove all but one")
    held = {frozenset((int(one), int(other))) for one, other in _PAIR.findall(text)}
    if lost := [pair for pair in bonds if frozenset(pair) not in held]:
        one, other = (names[atom] for atom in lost[0])
        raise SystemSpecError(
            f"{where}: has no parameters for {len(lost)} bonds, the first {one}-{other}, which would be left out; add "
            "them"
        )


def _shown(term: str, names: Sequence[str]) -> str:
    """An element of OpenMM's XML, with the names of its atoms."""
    atoms = [names[int(number)] for number in re.findall(r'\bp\d="(\d+)"', term)]
    return f"{term} of {'-'.join(atoms)}" if atoms else term


def check_read_back(root: ElementTree.Element, system: openmm.System, path: Path) -> None:
    """Refuse a serialised System of which OpenMM read something else than the file holds, as 0 for a word.

    Raises:
        SystemSpecError: an attribute or the number of elements of a kind differs.
    """
    import openmm

    again = _by_tag(ElementTree.fromstring(openmm.XmlSerializer.serialize(system)))
    for tag, elements in _by_tag(root).items():
        others = again.get(tag, [])
        if len(others) != len(elements):
            raise SystemSpecError(
                f"model.topology.xml: {path}: holds {len(elements)} times {tag}, of which OpenMM reads {len(others)}; "
                "serialise the System again"
            )
        for element, other in zip(elements, others, strict=True):
            for name, value in element.items():
                if name in {"version", "openmmVersion"} or _same(value, other.get(name, "")):
                    continue
                raise SystemSpecError(
                    f"model.topology.xml: {path}: {tag} {dict(element.items())}: OpenMM reads {name} as "
                    f"{other.get(name)!r}; correct it"
                )


def _by_tag(root: ElementTree.Element) -> dict[str, list[ElementTree.Element]]:
    found: dict[str, list[ElementTree.Element]] = {}
    for element in root.iter():
        found.setdefault(element.tag, []).append(element)
    return found


def _same(one: str, other: str) -> bool:
    try:
        return one == other or math.isclose(float(one), float(other), rel_tol=1e-12)
    except ValueError:
        return False
