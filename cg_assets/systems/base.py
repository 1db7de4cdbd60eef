"""What every system's specification has: a name, sections that agree, and hashes of these."""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, PositiveFloat, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from cg_assets.core.errors import CgAssetsError, SystemSpecError
from cg_assets.core.nested import fields_of
from cg_assets.core.settings import Built, Fact, Fault, Name, Scope, Strict
from cg_assets.core.units import UnitSystem, unit
from cg_assets.sampling.liquid_box import WaterBox  # noqa: F401
from cg_assets.sampling.model import Model
from cg_assets.sampling.model_potential.model import ModelPotential  # noqa: F401 - models are found where they are imported
from cg_assets.sampling.molecule.model import Molecule  # noqa: F401

FAULT = "fault"
"""Type of the errors of sections that do not agree."""
Place = tuple[str, ...]


Fields = dict[str, JsonValue]
"""A section of a YAML file as it is read."""


def merge(base: JsonValue, override: JsonValue) -> JsonValue:
    """Merge fields one by one; a section that states its own `type`, or is no section, replaces the whole."""
    if not isinstance(override, dict) or not isinstance(base, dict) or "type" in override:
        return override
    return base | {name: merge(base.get(name), value) for name, value in override.items()}


_CRON_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
"""Lowest and highest minute, hour, day, month and weekday of a cron schedule."""
_CRON_PART = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/([1-9]\d?))?")
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _cron_numbers(field: str, low: int, high: int) -> set[int]:
    """What a field of a cron schedule stands for; nothing where it cannot be read."""
    numbers: set[int] = set()
    for part in field.split(","):
        match = _CRON_PART.fullmatch(part)
        if match is None:
            return set()
        start, end, step = match.groups()
        first = int(start or low)
        last = int(end) if end else first if start and not step else high
        if not low <= first <= last <= high:
            return set()
        numbers |= set(range(first, last + 1, int(step or 1)))
    return numbers


class Refresh(Strict):
    """How data are kept up to date; it does not affect the data, so it is not part of any hash."""

    schedule: str = "0 3 * * 1"
    """When the schedule of the system adds a batch, once it is switched on: minute, hour, day, month, weekday (UTC)."""
    max_age: PositiveFloat = 30.0
    """Age from which the newest data count as stale [days]."""

    @field_validator("schedule")
    @classmethod
    def _is_a_cron_schedule(cls, value: str) -> str:
        fields = value.split()
        numbers = [_cron_numbers(field, *limits) for field, limits in zip(fields, _CRON_LIMITS, strict=False)]
        if len(fields) != len(_CRON_LIMITS) or not all(numbers):
            raise ValueError(
                "must be five numbers, ranges or * for minute, hour, day, month and weekday, for example 0 3 * * 1 for "
                "Mondays at 03:00"
            )
        if not any(day <= _DAYS[month - 1] for day in numbers[2] for month in numbers[3]):
            raise ValueError("names days that its months do not have, so that it would never come")
        return value


def _sections(value: Any, place: Place = ()) -> Iterator[tuple[Place, Strict]]:
    """All settings within others, with their places."""
    if isinstance(value, Strict):
        yield place, value
        value = {name: getattr(value, name) for name in type(value).model_fields}
    for name, item in fields_of(value).items():
        yield from _sections(item, (*place, name))


def within(place: str, faults: Iterator[Fault]) -> Iterator[Fault]:
    """Faults of a section as those of the whole."""
    for field, reason in faults:
        yield Fault(f"{place}.{field}", reason)


class System(Strict):
    """A system, without its sections."""

    name: Name
    """Of the system and of its file, in lower-case letters, digits and underscores."""
    title: str
    """In a few words, for figures and lists."""
    model: Model
    """What is simulated."""
    refresh: Refresh = Refresh()
    """When batches are added, and how old data may be."""
    folder: Path = Field(default=Path("."), exclude=True)
    """Folder of the YAML file, against which relative paths are read."""

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, value: str) -> str:
        if value in {"reference", "main", "temp", "lineage"}:
            raise ValueError(f"{value} is reserved; choose another name")
        return value

    @abstractmethod
    def scope(self) -> Scope:
        """What sections may need of each other."""

    @abstractmethod
    def built(self) -> Built:
        """What is simulated and its beads, built.

        Raises:
            SystemSpecError: a field does not fit the topology or the force field.
        """

    def check(self) -> Built:
        """Check everything that can be checked without a run: build the model, examine the files it needs.

        Raises:
            SystemSpecError: a field does not fit the topology or the force field, or there are several faults.
            ForceMapError: the force map is not valid under the constraints.
            SamplingError: an imported file is missing or does not fit the molecule.
            StorageError: the reference cannot be read, or belongs to another model or plan.
        """
        built = self.built()
        errors: list[CgAssetsError] = []
        for place, section in _sections(self):
            try:
                for field, reason in section.built_faults(built):
                    errors.append(SystemSpecError(f"{'.'.join(filter(None, (*place, field)))} {reason}"))
            except CgAssetsError as error:
                errors.append(error)
        if len(errors) > 1:
            raise SystemSpecError("\n  ".join([f"{self.name}: {len(errors)} faults", *map(str, errors)]))
        if errors:
            raise errors[0]
        return built

    def understood(self, built: Built) -> list[Fact]:
        """What its sections were understood to ask for, with what is built of them."""
        return [
            (about or ".".join(place), text)
            for place, section in _sections(self)
            for about, text in section.facts(built)
        ]

    @model_validator(mode="after")
    def _sections_agree(self) -> System:
        scope, sections = self.scope(), list(_sections(self))
        misfits = [
            (place, section.misfit(scope.model))
            for place, section in sections
            if scope.model not in (section.goes_with or [scope.model])
        ]
        faults = misfits or [(place, fault) for place, section in sections for fault in section.faults(scope)]
        if faults:
            errors = [
                InitErrorDetails(
                    type=PydanticCustomError(FAULT, "{reason}", {"reason": fault.reason}),
                    loc=(*place, *filter(None, fault.field.split("."))),
                    input={},
                )
                for place, fault in faults
            ]
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self

    @property
    def units(self) -> UnitSystem:
        """`molar` for molecules, `reduced` for model potentials."""
        return self.model.units

    @property
    def variable_quantities(self) -> dict[str, str]:
        """Name of each collective variable to what it is: `angle` or `length`."""
        return {}

    @property
    def variable_units(self) -> dict[str, str]:
        """Name of each collective variable to its unit."""
        return {name: unit(quantity, self.units) for name, quantity in self.variable_quantities.items()}

    def hash_of(self, *sections: str) -> str:
        """Hash of some sections ("model", "sampling.biased", ...), of the files' contents instead of their names.

        Two systems with equal sections have the same hash, whatever their names and folders. A section that is missing
        counts as null.
        """
        content = self._hashed_content()
        picked = {}
        for section in sections:
            value: Any = content
            for part in section.split("."):
                value = fields_of(value).get(part)
            picked[section] = value
        digest = hashlib.sha256(json.dumps(picked, sort_keys=True).encode())
        for place, paths in sorted(self.outside_files().items()):
            if any(f"{place}.".startswith(f"{section}.") for section in sections):
                for path in paths:
                    digest.update(path.read_bytes() if path.is_file() else b"missing")
        return digest.hexdigest()[:16]

    def outside_files(self) -> dict[str, list[Path]]:
        """Section to the files that it names, whose content belongs to it."""
        return {"model": self.model.files(self.folder)}

    def _hashed_content(self) -> Fields:
        """The specification as JSON, without names of files and what is null, as a field that is added later may be."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def content_hash(self) -> str:
        """Hash of everything in the specification that affects the data."""
        return self.hash_of(*(name for name in self._hashed_content() if name != "refresh"))


def seed_of(system: str, stage: str, batch: str) -> int:
    """The seed of a batch: the same (system, stage, batch) always gives the same number below 2**31."""
    return int(hashlib.sha256(f"{system}/{stage}/{batch}".encode()).hexdigest()[:8], 16) & 0x7FFFFFFF


def validate_batch_name(batch: str) -> str:
    """A batch name that can be part of a path: letters, digits, dash and underscore."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", batch):
        raise ValueError(f"batch {batch!r} must be 1 to 40 letters, digits, dashes or underscores")
    return batch
