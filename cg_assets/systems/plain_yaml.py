"""Read the plain part of YAML: what could mean two things, or grow without bound, is refused with its line.

YAML 1.1, which PyYAML reads, takes 010 for 8, 1:30 for 90 and `no` for false; YAML 1.2 takes them for 10 and text. A
key that stands twice loses its first value, and anchors that name anchors grow exponentially.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import yaml
from pydantic import JsonValue

from cg_assets.core.errors import SystemSpecError, one_line

MOST_BYTES = 1_000_000
MOST_VALUES = 50_000
"""Values of a file, those that anchors repeat included."""
DEEPEST = 30
"""Sections within sections."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast if PyYAML comes with libyaml."""

_WORDS: dict[str, JsonValue] = {"": None, "~": None, "true": True, "false": False}
_WORDS |= {word: None for word in ("null", "Null", "NULL")} | {"True": True, "TRUE": True}
_WORDS |= {"False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DOUBTFUL = re.compile(
    r"[-+]?(0[0-9_]+|0[xob][0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[0-9]+_[0-9_]*(\.[0-9_]*)?)"
)
"""Octal, hexadecimal, binary and sexagesimal numbers, and those with underscores."""
_DOUBTFUL_WORDS = {"yes", "no", "on", "off"}
_MOST_DIGITS = 18


def read_yaml(path: Path) -> tuple[JsonValue, dict[tuple[str, ...], int]]:
    """The content of a file, and the line of each field and entry of a list by its place.

    Raises:
        SystemSpecError: the file cannot be read, is no plain YAML, or is too large; names the line.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SystemSpecError(f"{path}: is no file; give the path of a system's YAML file")
        size = status.st_size
        if size > MOST_BYTES:
            raise SystemSpecError(f"{path}: has {size} bytes; a system's file has at most {MOST_BYTES}")
        reader = _Reader(path, path.read_text(encoding="utf-8"))
        return reader.document(), reader.lines
    except OSError as error:
        raise SystemSpecError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SystemSpecError(f"{path}: cannot be read: {error}; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SystemSpecError(f"{path}: {line}is not valid YAML: {one_line(error.problem or error.context)}") from None
    except yaml.YAMLError as error:
        raise SystemSpecError(f"{path}: is not valid YAML: {one_line(error)}") from None


def read_value(text: str, origin: str) -> JsonValue:
    """A value as in a file; `origin` is where it stands.

    Raises:
        SystemSpecError: it is no plain YAML.
    """
    try:
        return _Reader(Path(origin), text).document()
    except yaml.YAMLError as error:
        raise SystemSpecError(f"{origin}: is not valid YAML: {one_line(error)}") from None


class _Reader:
    """Values from the events of a parser, whose own nesting is without bound."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._events = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, tuple[JsonValue, int]] = {}
        self._values = 0
        self.lines: dict[tuple[str, ...], int] = {}

    def document(self) -> JsonValue:
        """The one document of a text; None of an empty one."""
        value: JsonValue = None
        next(self._events)
        for number, start in enumerate(self._until(yaml.StreamEndEvent)):
            if number:
                self._refuse(start, "a second document begins; write one system in a file")
            value = self._value(next(self._events), ())
            next(self._events)
        return value

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        """Events up to one that ends something; whoever takes an event reads what belongs to it."""
        while not isinstance(event := next(self._events), end):
            yield event

    def _value(self, event: yaml.Event, place: tuple[str, ...]) -> JsonValue:
        self.lines.setdefault(place, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                self._refuse(event, f"*{event.anchor} names no value before it")
            value, size = self._anchors[event.anchor]
            self._count(event, size)
            return value
        before = self._values
        self._count(event, 1)
        if len(place) >= DEEPEST:
            self._refuse(event, f"nests more than {DEEPEST} sections deep")
        if event.tag is not None and event.tag != "!":
            self._refuse(event, f"the tag {one_line(event.tag)} is not allowed; leave it out")
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event) if event.implicit[0] else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            items = enumerate(self._until(yaml.SequenceEndEvent))
            value = [self._value(item, (*place, str(number))) for number, item in items]
        else:
            value = self._fields(place)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._values - before
        return value

    def _fields(self, place: tuple[str, ...]) -> JsonValue:
        fields: dict[str, JsonValue] = {}
        lines: dict[str, int] = {}
        merged: list[JsonValue] = []
        for event in self._until(yaml.MappingEndEvent):
            key = self._value(event, (*place, ""))
            if not isinstance(key, str):
                self._refuse(event, f"{one_line(key)} stands where the name of a field must; quote it")
            self.lines.setdefault((*place, key), event.start_mark.line + 1)
            value = self._value(next(self._events), (*place, key))
            if key == "<<" and event.implicit[0]:
                merged += value if isinstance(value, list) else [value]
            elif key in fields:
                self._refuse(event, f"{one_line(key)} stands twice, first in line {lines[key]}; remove one")
            else:
                fields[key], lines[key] = value, event.start_mark.line + 1
        for section in merged:
            if not isinstance(section, dict):
                self._refuse(event, "<< merges no section; give the anchor of one")
            fields = section | fields
        return fields

    def _scalar(self, event: yaml.ScalarEvent) -> JsonValue:
        text = event.value
        if text in _WORDS:
            return _WORDS[text]
        if not text[0].isdigit() and text[0] not in "+-.":
            if text.lower() in _DOUBTFUL_WORDS:
                self._refuse(event, f"{text} is read differently by versions of YAML; write true, false or '{text}'")
            return text
        if _WHOLE.fullmatch(text):
            if len(text) > _MOST_DIGITS:
                self._refuse(event, f"a number of {len(text)} digits is too large")
            return int(text)
        if _DOUBTFUL.fullmatch(text):
            self._refuse(event, f"{one_line(text)} is read differently by versions of YAML; write it as a decimal")
        if _DECIMAL.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return text

    def _count(self, event: yaml.Event, values: int) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            self._refuse(event, f"there are more than {MOST_VALUES} values, those that anchors repeat included")

    def _refuse(self, event: yaml.Event, reason: str) -> NoReturn:
        raise SystemSpecError(f"{self._path}: line {event.start_mark.line + 1}: {reason}")
