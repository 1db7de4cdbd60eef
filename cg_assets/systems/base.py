"""What every system's specification has: strict fields, a name, and hashes of its sections."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveFloat, field_validator

from cg_assets.core.settings import Name, Strict

if TYPE_CHECKING:
    from cg_assets.core.units import UnitSystem


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Merge key by key; a section that states its own `type` replaces the whole section."""
    merged = dict(base)
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and "type" not in value:
            merged[key] = merge(base[key], value)
        else:
            merged[key] = value
    return merged


_CRON_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
"""Lowest and highest minute, hour, day, month and weekday of a cron schedule."""


class Refresh(Strict):
    """How data are kept up to date; no part of what the data are, so no part of any hash."""

    schedule: str = "0 3 * * 1"
    """When the schedule of the system adds a batch, once it is switched on: minute, hour, day, month, weekday (UTC)."""
    max_age: PositiveFloat = 30.0
    """Age from which the newest data count as stale [days]."""

    @field_validator("schedule")
    @classmethod
    def _is_a_cron_schedule(cls, value: str) -> str:
        fields = value.split()
        known = len(fields) == len(_CRON_LIMITS)
        for text, (low, high) in zip(fields, _CRON_LIMITS, strict=False):
            for part in text.split(","):
                match = re.fullmatch(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/([1-9]\d?))?", part)
                known &= match is not None
                numbers = [int(number) for number in match.groups()[:2] if number] if match else []
                known &= numbers == sorted(numbers) and all(low <= number <= high for number in numbers)
        if not known:
            raise ValueError(
                "must be five numbers, ranges or * for minute, hour, day, month and weekday, for example 0 3 * * 1 for "
                "Mondays at 03:00"
            )
        return value


class System(Strict):
    """A system, whatever it is made of."""

    name: Name
    title: str
    refresh: Refresh = Refresh()
    folder: Path = Field(default=Path("."), exclude=True)
    """Folder of the YAML file, against which relative paths are read."""

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, value: str) -> str:
        if value in {"reference", "main", "temp", "lineage"}:
            raise ValueError(f"{value} is reserved; choose another name")
        return value

    @property
    def units(self) -> UnitSystem:
        """`molar` for molecules, `reduced` for model potentials."""
        return "molar"

    @property
    def variable_quantities(self) -> dict[str, str]:
        """Name of each collective variable to what it is: `angle` or `length`."""
        return {}

    def hash_of(self, *sections: str) -> str:
        """Hash of some sections ("model", "sampling.biased", ...), of the files' contents instead of their names.

        Two systems whose sections say the same have the same hash, whatever their names and folders.
        """
        content = self._hashed_content()
        picked = {}
        for section in sections:
            value: Any = content
            for part in section.split("."):
                value = value[part]
            picked[section] = value
        digest = hashlib.sha256(json.dumps(picked, sort_keys=True).encode())
        if "model" in sections:
            digest.update(self._hashed_bytes())
        return digest.hexdigest()[:16]

    def _hashed_content(self) -> dict[str, Any]:
        """The specification as JSON, without names of files and what is null, as a field that is added later may be."""
        return self.model_dump(mode="json", exclude_none=True)

    def _hashed_bytes(self) -> bytes:
        """Content of the files that the model is read from."""
        return b""

    @property
    def content_hash(self) -> str:
        """Hash of everything that the specification says of the data."""
        return self.hash_of(*(name for name in self._hashed_content() if name != "refresh"))
