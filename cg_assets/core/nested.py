"""Values of JSON and YAML: lists and sections within each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def fields_of(value: Any) -> dict[str, Any]:
    """A section's fields; none where it is no section."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """A list's entries; none where it is no list."""
    return value if isinstance(value, list) else []


def rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """A list or section with each of its entries changed; anything else as it is."""
    if isinstance(value, Mapping):
        return {name: change(item) for name, item in value.items()}
    return type(value)(change(item) for item in value) if isinstance(value, list | tuple) else value
