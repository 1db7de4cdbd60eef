"""Tables of numbers that PLUMED writes: COLVAR, HILLS and grids, with what restarts and killed runs do to them.

Format: https://www.plumed.org/doc, pages on PRINT, METAD and EXTERNAL. `#! FIELDS` names the columns and `#! SET` gives
constants; a run that continues writes its header again into the same file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import ExpressionError, SamplingError
from cg_assets.core.expressions import parse_expression

FloatArray = NDArray[np.float64]

ENERGY_UNITS = {"kJ/mol": 1.0, "kcal/mol": 4.184, "eV": 96.48533212331}
"""In kJ/mol; PLUMED writes kJ/mol unless `UNITS ENERGY` is set."""
TIME_UNITS = {"ps": 1.0, "fs": 1e-3, "ns": 1e3}
"""In ps; PLUMED writes ps unless `UNITS TIME` is set."""
LENGTH_UNITS = {"nm": 1.0, "angstrom": 0.1}
"""In nm; PLUMED writes nm unless `UNITS LENGTH` is set."""


@dataclass(frozen=True)
class PlumedTable:
    """What stands below one header, up to the next.

    Attributes:
        path: of the file.
        fields: names of the columns.
        constants: value of each `#! SET` line, as text.
        rows: `(n, n_fields)`.
        lines: `(n,)` line of the file that each row stands in, from 1.
    """

    path: Path
    fields: tuple[str, ...]
    constants: dict[str, str]
    rows: FloatArray
    lines: NDArray[np.int64]

    def column(self, name: str) -> FloatArray:
        """Values `(n,)` of a column.

        Raises:
            SamplingError: it is missing, or a value is not a finite number.
        """
        if name not in self.fields:
            raise SamplingError(f"{self.path}: has no column {name}; its columns are {', '.join(self.fields)}")
        values = self.rows[:, self.fields.index(name)]
        if len(bad := np.flatnonzero(~np.isfinite(values))):
            raise SamplingError(
                f"{self.path}, line {self.lines[bad[0]]}: {name} is {values[bad[0]]}, and {len(bad) - 1} further lines "
                "are not finite; remove the frames of these times and their lines"
            )
        return values

    def limits(self, name: str) -> tuple[float, float] | None:
        """Range of a variable by `SET min_...` and `SET max_...`; None without both.

        Raises:
            SamplingError: a limit is not a number.
        """
        texts = [self.constants.get(f"{end}_{name}") for end in ("min", "max")]
        if texts[0] is None or texts[1] is None:
            return None
        try:
            low, high = (float(parse_expression(text).evaluate({})) for text in texts if text is not None)
        except (ExpressionError, ValueError) as error:
            raise SamplingError(f"{self.path}: the limits of {name}, {texts}, are no numbers: {error}") from None
        return low, high


@dataclass
class _Part:
    fields: tuple[str, ...]
    line: int
    constants: dict[str, str] = field(default_factory=dict)
    rows: list[list[float]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def read_plumed(path: Path) -> tuple[list[PlumedTable], list[str]]:
    """The tables of a file, one for each header with lines below it, and what was left out, in sentences.

    A last line without its end of line, or one that the next header cuts, is left out whatever it holds: its last
    number may be half a number.

    Raises:
        SamplingError: the file cannot be read, has no header, or a line does not fit its header.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SamplingError(f"{path}: cannot be read as text: {error}") from None
    if "\0" in text:
        raise SamplingError(
            f"{path}: holds zero bytes from line {text[: text.index(chr(0))].count(chr(10)) + 1} on: "
            "its end was never written; copy it again"
        )
    parts: list[_Part] = []
    notes: list[str] = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        content, mark, header = line.partition("#!")
        whole = line.endswith("\n") and not mark
        words = content.split("#")[0].split()
        if words and not whole:
            notes.append(f"{path}, line {number}: was cut when the run ended and is left out")
        elif words:
            _add_row(path, parts, number, words)
        if mark:
            _add_header(path, parts, number, header.split())
    tables = [
        PlumedTable(path, part.fields, part.constants, np.array(part.rows), np.array(part.lines))
        for part in parts
        if part.rows
    ]
    if not tables:
        raise SamplingError(f"{path}: holds no line of numbers below a line `#! FIELDS ...`; is it a file of PLUMED?")
    return tables, notes


def _add_row(path: Path, parts: list[_Part], number: int, words: list[str]) -> None:
    if not parts:
        raise SamplingError(f"{path}, line {number}: no line `#! FIELDS ...` before it names the columns; restore it")
    part = parts[-1]
    if len(words) != len(part.fields):
        raise SamplingError(
            f"{path}, line {number}: has {len(words)} numbers where line {part.line} names {len(part.fields)} fields; "
            "remove the line"
        )
    try:
        part.rows.append([float(word) for word in words])
    except ValueError as error:
        raise SamplingError(f"{path}, line {number}: {error}; remove the line") from None
    part.lines.append(number)


def _add_header(path: Path, parts: list[_Part], number: int, words: list[str]) -> None:
    match words:
        case ["FIELDS", *names] if names and len(set(names)) == len(names):
            parts.append(_Part(tuple(names), number))
        case ["FIELDS", *names]:
            raise SamplingError(f"{path}, line {number}: FIELDS names {names or 'nothing'}; each column needs its own")
        case ["SET", name, value] if parts:
            if parts[-1].rows and parts[-1].constants.get(name) != value:  # a constant that changes within a run
                parts.append(_Part(parts[-1].fields, parts[-1].line, dict(parts[-1].constants)))
            parts[-1].constants[name] = value


def is_backup(path: Path) -> bool:
    """Whether PLUMED moved a file aside, as `bck.0.COLVAR`, when a new run started in its folder."""
    first, _, rest = path.name.partition(".")
    return first == "bck" and rest.split(".")[0].isdigit()
