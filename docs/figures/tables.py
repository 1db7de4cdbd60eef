"""Tables and numbers of a Markdown page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PLAIN = r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"


@dataclass(frozen=True)
class Number:
    """A number of a table.

    Attributes:
        value: itself.
        error: its standard error; 0 where the table has none.
        low, high: the range of repeats, where the table has one; else the value.
    """

    value: float
    error: float = 0.0
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Table:
    """A table: its header, and its rows of text."""

    header: list[str]
    rows: list[list[str]]

    def column(self, index: int) -> list[str]:
        """The cells of one column."""
        return [row[index] for row in self.rows]

    def row(self, name: str) -> list[str]:
        """The cells after the first of the row whose first cell is this."""
        return next(row[1:] for row in self.rows if row[0] == name)


def read_tables(page: Path) -> dict[str, list[Table]]:
    """The tables of a page below each of its headings; text without code marks and bold."""
    found: dict[str, list[Table]] = {}
    heading, rows = "", []
    for line in [*page.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append([re.sub(r"[`*]", "", cell).strip() for cell in line.strip("|").split("|")])
            continue
        if rows:
            found.setdefault(heading, []).append(Table(rows[0], rows[2:]))
            rows = []
        if line.startswith("#"):
            heading = line.lstrip("# ")
    return found


def numbers(text: str) -> list[Number]:
    """Numbers of a cell: `0.64(17)`, `1.6(1.1)`, `13.9 ± 1.4`, `19 s (17-25)`, `1,370`, or several with commas.

    A cell without a number, such as `exploded`, gives none.
    """
    found = []
    pattern = rf"({_PLAIN})(?:\(([\d.]+)\)| ± ({_PLAIN})|(?: s)? \(({_PLAIN})-({_PLAIN})\))?"
    for value, digits, error, low, high in re.findall(pattern, text):
        number = _float(value)
        size = _float(error) if error else _in_units_of_the_last_digit(value, digits)
        found.append(Number(number, size, _float(low) if low else number, _float(high) if high else number))
    return found


def _float(text: str) -> float:
    return float(text.replace(",", ""))


def _in_units_of_the_last_digit(value: str, digits: str) -> float:
    """The error `(17)` of `0.64` is 0.17; one with a point stands as it is."""
    if not digits:
        return 0.0
    decimals = 0 if "." in digits else len(value.partition(".")[2])
    return float(digits) / 10.0**decimals
