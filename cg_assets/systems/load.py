"""Find and read system files: those that the package ships and those in `$CG_ASSETS_HOME/systems/`."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from cg_assets.core.errors import SystemSpecError, one_line, shortened
from cg_assets.core.nested import fields_of, rebuilt
from cg_assets.core.settings import PATTERNS
from cg_assets.settings import CHANGES, installation, set_variables
from cg_assets.systems.base import FAULT, Fields, Place, System, merge
from cg_assets.systems.plain_yaml import read_value, read_yaml
from cg_assets.systems.spec import SystemSpec

SHIPPED = Path(__file__).parent
_FILES = ("pdb", "file", "files", "force_files")
"""Fields that name files."""
_NO_FILES = ("type", "defines")
"""Fields of model.topology that name no file."""


@dataclass(frozen=True)
class FoundSystems:
    """What the folders of systems hold.

    Attributes:
        systems: those that can be run, by name.
        left_out: file of each system that cannot, to what is wrong with it.
    """

    systems: dict[str, SystemSpec] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)


def system_files() -> dict[str, Path]:
    """Name of each system to its YAML file, shipped ones first; of files with one name, the first."""
    return _Folders().files


def load_system(name: str | Path) -> SystemSpec:
    """Read and validate a system by name or by the path of its YAML file.

    Raises:
        SystemSpecError: no such system, two of this name, or a field is wrong; names the field, the value and what is
            allowed.
    """
    folders = _Folders()
    if isinstance(name, Path) or str(name).endswith((".yaml", ".yml")):
        return folders.load(Path(name))
    if name not in folders.files:
        raise SystemSpecError(f"no system named {one_line(name)!r}; there are: {', '.join(folders.files)}")
    for path, reason in folders.clashes.items():
        if path.stem == name:
            raise SystemSpecError(reason)
    return folders.load(folders.files[name])


def name_of(given: str) -> str:
    """The name of a system that data are made of, given by name or by the path of its file.

    Raises:
        SystemSpecError: the file lies outside the folders of systems, where the processes of a run would not find it;
            or as of `load_system`.
    """
    if not given.endswith((".yaml", ".yml")):
        return given
    name, path = load_system(given).name, Path(given).resolve()
    file = system_files().get(name)
    if file is None or file.resolve() != path:
        folder = installation().home / "systems"
        raise SystemSpecError(f"{path}: lies outside {folder}; put it there, and give the name: {name}")
    return name


def change_fields(name: str, given: Sequence[str]) -> None:
    """Give fields of a system other values than its file, in this process and those that it starts.

    They count in the hashes of the specification like values of the file, so that nothing made with them is pooled
    with data made without them.

    Args:
        name: of the system, or the path of its file.
        given: `field=value` of each, the field dotted, the value in YAML; null removes an inherited entry.

    Raises:
        SystemSpecError: one is no field with a value, or its value is no plain YAML.
    """
    changes: Fields = {}
    for text in given:
        field, equals, value = text.partition("=")
        *parents, last = field.strip().split(".")
        if not equals or not all((*parents, last)):
            raise SystemSpecError(f"--set {one_line(text)}: write FIELD=VALUE, for example training.epochs=3")
        if field.strip() == "extends":
            raise SystemSpecError("--set extends: cannot be set; it belongs in the file")
        section = changes
        for part in parents:
            inside = section.setdefault(part, {})
            if not isinstance(inside, dict):
                raise SystemSpecError(f"--set {field}: contradicts the value that another --set gives {part}")
            section = inside
        if isinstance(section.get(last), dict):
            raise SystemSpecError(f"--set {field}: contradicts the value that another --set gives a field within it")
        section[last] = read_value(value, f"--set {field}")
    if changes:
        set_variables({CHANGES: json.dumps({Path(name).stem: changes})})


def flat_fields(value: JsonValue, place: Place = ()) -> Iterator[Place]:
    """Places of the values within sections."""
    if not fields_of(value):
        yield place
    for name, item in fields_of(value).items():
        yield from flat_fields(item, (*place, name))


def find_systems() -> FoundSystems:
    """Every system; a file that is wrong or has the name of another one is left out, and stops no other."""
    folders, found = _Folders(), FoundSystems()
    found.left_out.update(folders.clashes)
    for name, path in folders.files.items():
        try:
            found.systems[name] = folders.load(path)
        except SystemSpecError as error:
            found.left_out[path] = str(error)
    return found


def load_all_systems() -> dict[str, SystemSpec]:
    """Every system that can be run, by name."""
    return find_systems().systems


class _Folders:
    """The files of systems, each read once.

    Attributes:
        files: name of each system to its file.
        clashes: file with the name of another one, to what is wrong with it.
    """

    def __init__(self) -> None:
        self.files = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
        self.clashes: dict[Path, str] = {}
        self._contents: dict[Path, Fields] = {}
        self._lines: dict[Path, dict[Place, int]] = {}
        self._changes = _changes()
        for path in sorted((installation().home / "systems").glob("*.y*ml")):
            first = self.files.setdefault(path.stem, path)
            if first != path:
                self.clashes[path] = f"{path}: a system named {path.stem} already exists ({first}); rename it"

    def load(self, path: Path) -> SystemSpec:
        """The system of a file; errors as of `load_system`."""
        content, lines, shown = self._whole(path), self._lines[path], str(path)
        if own := self._changes.get(path.stem):
            content = fields_of(merge(content, fields_of(own)))
            changed = list(flat_fields(own))
            # Their lines in the file, and those of the sections around them, have other values.
            lines = {
                place: line
                for place, line in lines.items()
                if all(place[: len(one)] != one[: len(place)] for one in changed)
            }
            shown = f"{path} with --set {', '.join(map('.'.join, changed))}"
        if content.get("name") != path.stem:
            given = one_line(repr(content.get("name")), 60)
            raise SystemSpecError(f"{shown}: name is {given}; it must be the file's name, {path.stem!r}")
        try:
            return SystemSpec.model_validate(content | {"folder": path.parent.absolute()})
        except ValidationError as error:
            raise SystemSpecError(_explain(shown, error, content, lines)) from None

    def _whole(self, path: Path, chain: tuple[Path, ...] = ()) -> Fields:
        """Fields of a file, with those of the systems that it extends."""
        if path in chain:
            raise SystemSpecError(f"{path}: extends leads back to itself: {' -> '.join(item.stem for item in chain)}")
        if path in self._contents:
            return self._contents[path]
        content, self._lines[path] = read_yaml(path)
        if not isinstance(content, dict):
            raise SystemSpecError(f"{path}: must hold fields and their values, not a {type(content).__name__}")
        if "extends" in content:
            parent = content["extends"]
            if not isinstance(parent, str) or parent not in self.files:
                given = one_line(repr(parent), 60)
                raise SystemSpecError(f"{path}: extends names {given}; there are: {', '.join(self.files)}")
            base = self._whole(self.files[parent], (*chain, path))
            own = {name: value for name, value in content.items() if name != "extends"}
            content = fields_of(merge(_with_absolute_files(base, self.files[parent].parent), own))
        self._contents[path] = content
        return content


def _changes() -> dict[str, Fields]:
    """The fields that `--set` gives other values, by system."""
    text = installation().changes
    try:
        changes = json.loads(text)
    except json.JSONDecodeError:
        changes = None
    if not isinstance(changes, dict) or not all(isinstance(fields, dict) for fields in changes.values()):
        raise SystemSpecError(
            f"{CHANGES} is {one_line(repr(text), 60)}; it must be JSON, fields by system as --set writes them: unset it"
        )
    return changes


def _with_absolute_files(value: JsonValue, folder: Path, field: str = "") -> JsonValue:
    """The parent's fields: files that it names are relative to its own folder."""
    if isinstance(value, dict):
        files = () if field != "topology" else tuple(name for name in value if name not in _NO_FILES)
        return {
            name: _with_absolute_files(item, folder, "files" if name in files else name) for name, item in value.items()
        }
    if not isinstance(value, str):
        return rebuilt(value, lambda item: _with_absolute_files(item, folder, field))
    # A force field that is no file here is one that OpenMM ships.
    here = (folder / value).is_file() if field == "force_fields" else field in _FILES
    return str(folder / value) if here else value


_WORDS = (
    (r"^Value error, ", ""),
    (r"^Input is not a valid path.*", "must be the path of a file"),
    (r"^Input should be", "must be"),
    (r"a valid dictionary( or (an )?instance of \w+)?|an instance of \w+", "fields and their values"),
    (r"^Input should have", "must have"),
    (r"^Field required", "is missing"),
    (r"^(List|Dictionary|Tuple|String|Value) should have", "must have"),
    (r" after validation, not", ", not"),
    (r"a valid (tuple|list)", "a list"),
    (r"a valid string", "text"),
    (r"a valid integer", "an integer"),
    (r"a valid boolean", "true or false"),
    (r"a valid ", "a "),
    (r", unable to parse .*", ""),
)
"""The validator's words, and ours."""
_MOST_FAULTS = 20
"""Faults of a file that are listed."""


def _explain(path: str, error: ValidationError, content: Fields, lines: Mapping[Place, int]) -> str:
    """What is wrong with a file: one line for one field, else a line for each.

    Args:
        path: of the file, with what was changed.
        error: what the validator found.
        content: the fields of the file, with those that it inherits.
        lines: place of each field that stands in the file itself to its line.
    """
    found = [(_place(item), item) for item in error.errors(include_url=False)]
    found = [(place, item) for place, item in found if place == ("model",)] or found  # it decides what the others mean
    keys = {place for place, item in found if item["loc"][-1:] == ("[key]",)}
    reasons: dict[tuple[Place, str], list[str]] = {}
    for place, item in found:
        if item["type"] == FAULT:
            reasons[place, f" {one_line(item['msg'], 600)}"] = []
            continue
        # Of several kinds of values, the one that fits further; of a wrong name, not the value.
        further = any(len(other) > len(place) and other[: len(place)] == place for other, _ in found)
        is_key = item["loc"][-1:] == ("[key]",)
        misnamed = any(place[: len(key)] == key for key in keys)
        if is_key or not (further or misnamed):
            reasons.setdefault((place, _value(item, is_key)), []).append(_reason(item, content, place))
    same: dict[str, list[Place]] = {}
    for (place, before), texts in reasons.items():
        same.setdefault(before + " or ".join(dict.fromkeys(texts)), []).append(place)
    told = [_where(places, lines) + text for text, places in same.items()]
    if len(told) == 1:
        return f"{path}: {told[0]}"
    more = [f"and {len(told) - _MOST_FAULTS} more"] if len(told) > _MOST_FAULTS else []
    return "\n  ".join([f"{path}: {len(told)} faults", *told[:_MOST_FAULTS], *more])


def _where(places: list[Place], lines: Mapping[Place, int]) -> str:
    """The lines of some places, or of the sections that lack them, and their names."""
    named = shortened([one_line(".".join(filter(None, place)), 120) or "system" for place in places])
    ends = [[place[:length] for length in range(len(place), 0, -1)] for place in places]
    found = {next((lines[end] for end in one if end in lines), None) for one in ends}
    shown = [str(line) for line in sorted(line for line in found if line is not None)]
    return f"line{'s' * (len(shown) > 1)} {shortened(shown)}: {named}" if shown else named


def _place(item: ErrorDetails) -> Place:
    """Names of fields alone, where a field may be one of several kinds of values, and of a short list its own."""
    names = [part for part in map(str, item["loc"]) if "[" not in part and not part.startswith("function-")]
    return tuple(names[:-1] if item["type"] == "missing" and names[-1].isdigit() else names)


def _value(item: ErrorDetails, is_key: bool) -> str:
    """What stands between a place and the reason."""
    if is_key:
        return ": its name "
    hidden = item["type"] == "missing" or isinstance(item["input"], dict)
    return ": " if hidden else f" (value {one_line(repr(item['input']), 60)}): "


def _reason(item: ErrorDetails, content: Fields, place: Place) -> str:
    """Why a value is refused, in plain words; of an unknown field, with the known one that is meant."""
    if item["type"] == "extra_forbidden":
        from cg_assets.systems.schema import known_fields

        known = known_fields(content, place[:-1])
        near = difflib.get_close_matches(place[-1], known, 1) or difflib.get_close_matches(place[-1].lower(), known, 1)
        return f"is not known; is {near[0]} meant?" if near else f"is not known; known are {shortened(known)}"
    if item["type"] == "missing" and str(item["loc"][-1]).isdigit():
        return "has too few entries"
    if item["type"] == "string_pattern_mismatch":
        return f"must be {PATTERNS.get(item['ctx']['pattern'], 'text of another form')}"
    message = item["msg"]
    for theirs, ours in _WORDS:
        message = re.sub(theirs, ours, message)
    return one_line(message, 600)


def specification_text(system: System) -> str:
    """The whole specification as YAML, with everything that it took from defaults and from `extends`."""
    return yaml.safe_dump(system.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
