"""Find and read system files: those that the package ships and those in `$CG_ASSETS_HOME/systems/`."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import JsonValue, ValidationError

from cg_assets.core.errors import SystemSpecError
from cg_assets.settings import installation
from cg_assets.systems.base import FAULT, Fields, System, fields_of, merge
from cg_assets.systems.spec import SystemSpec
from cg_assets.systems.thermal_spec import ThermalSystem

AnySystem = SystemSpec | ThermalSystem

SHIPPED = Path(__file__).parent
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast if PyYAML comes with libyaml."""
_FILES = ("pdb", "file", "files")
"""Fields that name files."""


def system_files() -> dict[str, Path]:
    """Name of each system that can be loaded to its YAML file, shipped ones first.

    Raises:
        SystemSpecError: a user's file has the name of another system.
    """
    files = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    for path in sorted((installation().home / "systems").glob("*.y*ml")):
        if path.stem in files:
            raise SystemSpecError(f"{path}: a system named {path.stem} already exists ({files[path.stem]}); rename it")
        files[path.stem] = path
    return files


def load_system(name: str | Path) -> AnySystem:
    """Read and validate a system by name or by the path of its YAML file.

    Raises:
        SystemSpecError: no such system, or a field is wrong; names the field, the value and what is allowed.
    """
    if isinstance(name, Path) or str(name).endswith((".yaml", ".yml")):
        path = Path(name)
    else:
        files = system_files()
        if name not in files:
            raise SystemSpecError(f"no system named {name!r}; there are: {', '.join(files)}")
        path = files[name]
    content = _read(path)
    if content.get("name") != path.stem:
        raise SystemSpecError(f"{path}: name is {content.get('name')!r}; it must be the file's name, {path.stem!r}")
    try:
        return _kind_of(content).model_validate(content | {"folder": path.parent.absolute()})
    except ValidationError as error:
        raise SystemSpecError(_explain(path, error)) from None


def load_all_systems() -> dict[str, AnySystem]:
    """Every system by name."""
    return {name: load_system(path) for name, path in system_files().items()}


def _kind_of(content: Fields) -> type[SystemSpec] | type[ThermalSystem]:
    """Water is specified at many temperatures, everything else at one."""
    return ThermalSystem if fields_of(content.get("model")).get("type") == "water" else SystemSpec


def _read(path: Path, chain: tuple[Path, ...] = ()) -> Fields:
    if path in chain:
        raise SystemSpecError(f"{path}: extends leads back to itself: {' -> '.join(item.stem for item in chain)}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (OSError, UnicodeDecodeError) as error:
        raise SystemSpecError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise SystemSpecError(f"{path}: is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise SystemSpecError(f"{path}: must hold fields and their values, not a {type(content).__name__}")
    if "extends" not in content:
        return content
    parent = str(content.pop("extends"))
    files = system_files()
    if parent not in files:
        raise SystemSpecError(f"{path}: extends names {parent!r}; there are: {', '.join(files)}")
    base = _read(files[parent], (*chain, path))
    return fields_of(merge(_with_absolute_files(base, files[parent].parent), content))


def _with_absolute_files(value: JsonValue, folder: Path, field: str = "") -> JsonValue:
    """The parent's fields: files that it names are relative to its own folder."""
    if isinstance(value, dict):
        return {name: _with_absolute_files(item, folder, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_absolute_files(item, folder, field) for item in value]
    return str(folder / value) if field in _FILES and isinstance(value, str) else value


def _explain(path: Path, error: ValidationError) -> str:
    lines = [f"{path}: {error.error_count()} wrong field(s)"]
    for item in error.errors(include_url=False):
        # Where a field may be one of several kinds of values, pydantic puts the kind, as list[...], into the place.
        field = ".".join(part for part in map(str, item["loc"]) if "[" not in part) or "system"
        if item["type"] == FAULT:
            lines.append(f"  {field} {item['msg']}")
            continue
        value = item["input"]
        shown = "" if isinstance(value, dict) or item["type"] == "missing" else f" (value {value!r})"
        reason = item["msg"].removeprefix("Value error, ")
        lines.append(f"  {field}{shown}: {reason}")
    return "\n".join(lines)


def specification_text(system: System) -> str:
    """The whole specification as YAML, with everything that it took from defaults and from `extends`."""
    return yaml.safe_dump(system.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
