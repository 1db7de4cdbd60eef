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
            cells = [
                [" ".join(map(str, cell)) if isinstance(cell, list | tuple) else cell for cell in row]
                for row in self.rows
            ]
            csv.writer(text, lineterminator="\n").writerows([self.columns, *cells])
            return text.getvalue().rstrip("\n")
        return table(self.columns, self.rows) if self.text is None else self.text


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
