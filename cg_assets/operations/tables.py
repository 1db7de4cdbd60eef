"""Tables on the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Literal

Form = Literal["text", "json", "csv"]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], ruled: bool = False) -> str:
    """Columns next to each other under their names, with a rule between where it is asked for."""
    from tabulate import tabulate

    return tabulate(rows, columns, tablefmt="simple" if ruled else "plain", disable_numparse=True)


def printed(columns: Sequence[str], rows: Iterable[Sequence[object]], form: Form = "text") -> str:
    """A table to look at, as a JSON list of an object for each row, or as CSV with a header."""
    if form == "json":
        return json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2, default=str)
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        return text.getvalue().rstrip("\n")
    return table(columns, rows)
