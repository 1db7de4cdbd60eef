"""Tables on the terminal, and for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from cg_assets.core.nested import rebuilt

Form = Literal["text", "json", "csv"]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], ruled: bool = False) -> str:
    """Columns next to each other under their names, with a rule between where it is asked for."""
    from tabulate import tabulate

    return tabulate(rows, columns, tablefmt="simple" if ruled else "plain", disable_numparse=True)


@dataclass(frozen=True)
class Table:
    """What a command answers: rows for other programs, and text for people.

    Attributes:
        columns: names.
        rows: a value for each column.
        text: for the terminal; None for the rows under their names.
        whole: for JSON, where a list of rows cannot hold all of it; None for the rows.
        status: exit status of the command.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    text: str | None = None
    whole: object = None
    status: int = 0

    def printed(self, form: Form = "text") -> str:
        """To look at, as JSON (an object for each row, unless there is a whole), or as CSV with a header."""
        if form == "json":
            records = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
            return as_json(records if self.whole is None else self.whole)
        if form == "csv":
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([self.columns, *(map(_cell, row) for row in self.rows)])
            return text.getvalue().rstrip("\n")
        return table(self.columns, self.rows) if self.text is None else self.text


def _cell(value: object) -> object:
    """A value as CSV: a list of single values with spaces, other nested ones as JSON in a line, bytes as in JSON."""
    if isinstance(value, list | tuple) and not any(isinstance(item, Mapping | list | tuple) for item in value):
        return " ".join(str(_cell(item)) for item in value)
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(_plain(value), default=str, allow_nan=False)
    return _plain(value) if isinstance(value, bytes) else value


def as_json(value: object) -> str:
    """JSON as every parser reads it: null for numbers that are not finite, dates as text, bytes as hexadecimal."""
    return json.dumps(_plain(value), indent=2, default=str, allow_nan=False)


def _plain(value: object) -> object:
    """A value in types of JSON, as far as there are any for it."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else rebuilt(value, _plain)
