"""Tables on the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal

Form = Literal["text", "json", "csv"]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], ruled: bool = False) -> str:
    """Columns next to each other under their names, with a rule between where it is asked for."""
    from tabulate import tabulate

    return tabulate(rows, columns, tablefmt="simple" if ruled else "plain", disable_numparse=True)


def printed(columns: Sequence[str], rows: Iterable[Sequence[object]], form: Form = "text") -> str:
    """A table to look at, as a JSON list of an object for each row, or as CSV with a header."""
    if form == "json":
        return as_json([dict(zip(columns, row, strict=True)) for row in rows])
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        return text.getvalue().rstrip("\n")
    return table(columns, rows)


def as_json(value: object) -> str:
    """JSON as every parser reads it: null for numbers that are not finite, which it cannot hold; dates as text."""
    return json.dumps(_plain(value), indent=2, default=str, allow_nan=False)


def _plain(value: object) -> object:
    """A value in types of JSON, as far as there are any for it."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
