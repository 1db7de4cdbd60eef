"""The fields of a system's file, from the settings: as JSON Schema for editors, as Markdown, and one by one."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from pydantic import JsonValue

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.nested import fields_of, listed, rebuilt
from cg_assets.core.settings import LIQUIDS
from cg_assets.systems.base import Fields, Place
from cg_assets.systems.spec import OF_RESPONSES, SystemSpec

_EXTENDS: Fields = {
    "type": "string",
    "description": "Name of the system whose fields are taken where this file has none.",
}
_FILLED = ("evaluation", "potentials")
"""Sections whose `type` follows from that of the model."""


def system_schema() -> Fields:
    """JSON Schema (2020-12) of a system's file; a file that extends another one may leave out whatever that has."""
    whole = copy.deepcopy(_settings())
    extending = fields_of(_of_part(whole, "extending_"))
    sections = fields_of(whole.pop("$defs")) | {
        f"extending_{name}": item for name, item in fields_of(extending.pop("$defs")).items()
    }
    of_liquids: Fields = {"properties": {"model": {"properties": {"type": {"enum": [*LIQUIDS]}}}}}
    whole["if"] = of_liquids
    whole["then"] = {"required": ["temperatures"]}
    whole["else"] = {"required": ["temperature", "training", "potentials", "evaluation"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A system of cg_assets",
        "if": {"type": "object", "required": ["extends"]},
        "then": {"$ref": "#/$defs/extending"},
        "else": {"$ref": "#/$defs/whole"},
        "$defs": sections | {"whole": whole, "extending": extending},
    }


@cache
def _settings() -> Fields:
    """The schema of the settings as a file gives them."""
    found = fields_of(_closed(SystemSpec.model_json_schema()))
    properties = fields_of(found["properties"])
    del properties["folder"]
    properties["extends"] = _EXTENDS
    for section in _FILLED:
        for member in _members(found, properties[section]):
            _drop(member, "type")
            if section == "potentials" and "temperature_dependence" in fields_of(member["properties"]):
                for name in OF_RESPONSES:
                    properties.setdefault(name, fields_of(member["properties"])[name])
                    fields_of(member["properties"])[name] = _of_part(fields_of(member["properties"])[name])
                    _drop(member, name)
    for name in ("temperature", "evaluation"):
        _drop(found, name)
    return found


def _drop(section: Fields, name: str) -> None:
    """Let a section do without a field."""
    if "required" in section:
        section["required"] = [item for item in listed(section["required"]) if item != name]


def _closed(value: JsonValue) -> JsonValue:
    """A schema whose names are all of the form that they must have."""
    closed = rebuilt(value, _closed)
    return closed | {"additionalProperties": False} if "patternProperties" in fields_of(closed) else closed


def _of_part(value: JsonValue, prefix: str = "") -> JsonValue:
    """A schema of what is merged with the fields of another file: nothing is needed, and null removes a name."""
    part = rebuilt(value, lambda item: _of_part(item, prefix))
    section = fields_of(part)
    section.pop("required", None)
    if reference := section.get("$ref"):
        section["$ref"] = reference.replace("#/$defs/", f"#/$defs/{prefix}")
    if names := fields_of(section.get("patternProperties")):
        section["patternProperties"] = {name: {"anyOf": [item, {"type": "null"}]} for name, item in names.items()}
    return part


def _members(root: Fields, item: JsonValue) -> Iterator[Fields]:
    """Every section that a field can hold, itself or under names or in a list."""
    item = fields_of(item)
    if not item:
        return
    if reference := item.get("$ref"):
        yield from _members(root, fields_of(root["$defs"])[str(reference).removeprefix("#/$defs/")])
    if "properties" in item:
        yield item
    inside: list[JsonValue] = [item.get("items"), item.get("additionalProperties")]
    inside += fields_of(item.get("patternProperties")).values()
    for part in [*listed(item.get("anyOf")), *inside]:
        yield from _members(root, part)


def known_fields(content: Fields, place: Place) -> list[str]:
    """Names of the fields that a section of a file can have; of a section with a `type`, those of that member."""
    root = _settings()
    sections, here = [root], content
    for part in place:
        inside = [fields_of(section["properties"]).get(part) for section in sections]
        if any(inside):
            sections = [member for item in inside for member in _members(root, item)]
        here = fields_of(here.get(part))
    chosen = [item for item in sections if _type_of(item) in (here.get("type"), "")]
    return sorted({name for section in chosen or sections for name in fields_of(section["properties"])})


def _type_of(section: Fields) -> str:
    return str(fields_of(fields_of(section["properties"]).get("type")).get("const", ""))


# ----------------------------------------------------------------------------------------- the reference


@dataclass(frozen=True)
class FieldText:
    """A field of a section.

    Attributes:
        name: of the field.
        values: what it can be.
        default: in YAML; empty where the field is needed.
        meaning: what it is, with its unit.
    """

    name: str
    values: str
    default: str
    meaning: str


@dataclass(frozen=True)
class SectionText:
    """A section of a file.

    Attributes:
        places: where it can stand, dotted.
        type: the member of its family; empty where there is none.
        meaning: what it is.
        fields: of it.
    """

    places: list[str]
    type: str
    meaning: str
    fields: list[FieldText]


def sections() -> list[SectionText]:
    """Every section that a system's file can have, each once."""
    root = _settings()
    found: dict[str, SectionText] = {}
    waiting: list[tuple[str, Fields]] = [("", root)]
    while waiting:
        place, section = waiting.pop(0)
        key = f"{section.get('title')}"
        if key in found:
            if place not in found[key].places:
                found[key].places.append(place)
            continue
        properties = fields_of(section["properties"])
        needed = listed(section.get("required"))
        rows = [_row(name, fields_of(item), name in needed) for name, item in properties.items() if name != "type"]
        found[key] = SectionText([place], _type_of(section), _sentence(section.get("description")), rows)
        for name, item in properties.items():
            inside = f"{place}.{name}".removeprefix(".") + (".NAME" if "patternProperties" in fields_of(item) else "")
            waiting += [(inside, member) for member in _members(root, item)]
    return list(found.values())


def _sentence(text: JsonValue) -> str:
    return str(text or "").split("\n\n")[0].replace("\n", " ")


def _row(name: str, item: Fields, needed: bool) -> FieldText:
    default = item.get("default")
    shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
    shown = "its own defaults" if fields_of(default) else shown
    return FieldText(name, _values(item), "" if needed else shown, _sentence(item.get("description")))


_KINDS = {"string": "text", "boolean": "true or false", "null": "null", "number": "number", "integer": "whole number"}
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _values(item: Fields) -> str:
    """What a field can be, in words."""
    if "properties" in item or "$ref" in item:
        return "section"
    if "const" in item or "enum" in item:
        return ", ".join(f"`{value}`" for value in listed(item.get("enum")) or [item.get("const")])
    if "anyOf" in item:
        return " or ".join(dict.fromkeys(_values(fields_of(part)) for part in listed(item["anyOf"])))
    if "patternProperties" in item:
        kinds = dict.fromkeys(_values(fields_of(part)) for part in fields_of(item["patternProperties"]).values())
        return f"names, each with: {' or '.join(kinds)}"
    if item.get("type") == "array":
        parts = [item["items"]] if "items" in item else listed(item.get("prefixItems"))[:1]
        return f"list of: {' or '.join(_values(fields_of(part)) for part in parts) or 'values'}"
    limits = [f"{sign} {item[name]}" for name, sign in _LIMITS.items() if name in item and item[name] != 1_000_000_000]
    return " ".join([_KINDS.get(str(item.get("type")), "fields and values"), ", ".join(limits)]).strip()


def reference_markdown() -> str:
    """Every field of a system's file, in a table for each section."""
    lines: list[str] = []
    for section in sections():
        places = ", ".join(f"`{place}`" for place in section.places if place) or "The file"
        title = places + (f", type `{section.type}`" if section.type else "")
        lines += [f"## {title}", "", section.meaning, "", "| field | values | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{row.name}` | {_cell(row.values)} | {_cell(row.default) or 'needed'} | {_cell(row.meaning)} |"
            for row in section.fields
        ]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@dataclass(frozen=True)
class FieldHelp:
    """What a field means in one place, or several alike."""

    field: str
    type: str
    values: str
    default: str
    meaning: str

    def __str__(self) -> str:
        """Three lines."""
        kind = f" (type {self.type})" if self.type else ""
        default = f"default {self.default}" if self.default else "needed"
        return f"{self.field}{kind}\n  {self.values}; {default}\n  {self.meaning}".rstrip()


def field_help(asked: str) -> list[FieldHelp]:
    """What a field means, wherever it can stand: its values, default, meaning and unit.

    Args:
        asked: name of the field, or its dotted place or the end of that, as in `biased.friction`.

    Raises:
        SystemSpecError: there is no such field; names the nearest ones.
    """
    *before, name = asked.split(".")
    found, known = [], set()
    for section in sections():
        for row in section.fields:
            known.add(row.name)
            places = [place for place in section.places if _ends_with(place.split("."), before)]
            if row.name == name and places:
                where = ", ".join(f"{place}.{name}".removeprefix(".") for place in places)
                found.append(FieldHelp(where, section.type, row.values, row.default, row.meaning))
    if not found:
        near = difflib.get_close_matches(name, sorted(known), 3)
        raise SystemSpecError(f"no field is called {asked}" + (f"; is {' or '.join(near)} meant?" if near else ""))
    return found


def _ends_with(place: list[str], end: list[str]) -> bool:
    """Whether a place ends so, where NAME stands for any name."""
    return len(end) <= len(place) and all(
        own in (part, "NAME") for own, part in zip(place[len(place) - len(end) :], end, strict=True)
    )
