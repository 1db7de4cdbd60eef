"""Dumps of LAMMPS as text: atoms sorted by number, scaled coordinates unscaled in the box of the frame."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterator
from typing import IO, ClassVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError, one_line
from cg_assets.sampling.imported.formats.base import AtomBlock, Source
from cg_assets.sampling.imported.formats.streamed import StreamedFile, joined_in_turn

_UNITS = {
    "real": ("angstrom", "kcal/mol/angstrom", 1e-3),
    "metal": ("angstrom", "eV/angstrom", 1.0),
    "electron": ("bohr", "hartree/bohr", 1e-3),
}
"""Style of units to those of lengths and forces, and the unit of time [ps]."""


class LammpsDump(StreamedFile):
    """A dump with columns id and x y z, xu yu zu, xs ys zs or xsu ysu zsu, and fx fy fz where forces are wanted."""

    suffixes: ClassVar[tuple[str, ...]] = tuple(
        f"{end}{packed}" for packed in ("", ".gz", ".bz2") for end in (".lammpstrj", ".dump", ".lammpsdump")
    )
    gives_forces = True
    length_unit: str | None = "angstrom"
    force_unit: str | None = None
    holds_fixes = True

    def __init__(self, source: Source) -> None:
        """Reads the units, which a dump states under `dump_modify units yes`."""
        super().__init__(source)
        self._clock: float | None = None
        with self._open() as file:
            for line in file:
                if line.startswith("ITEM: ATOMS"):
                    break
                if line.startswith("ITEM: UNITS"):
                    self._take_units(next(file).strip())

    def _take_units(self, style: str) -> None:
        if style not in _UNITS:
            raise SamplingError(
                f"{self.path}: is in units {style}, which have no scale here; write units real or metal"
            )
        self.length_unit, self.force_unit, self._clock = _UNITS[style]
        for name, stated in (("length", self.length_unit), ("force", self.force_unit)):
            given = getattr(self.source, f"{name}_unit")
            if given not in (None, stated):
                raise SamplingError(f"{self.path}: is in units {style}, but imported.{name}_unit is {given}")

    def _open(self) -> IO[str]:
        name = self.path.name.lower()
        opener = gzip.open if name.endswith(".gz") else bz2.open if name.endswith(".bz2") else open
        return opener(self.path, "rt", encoding="utf-8", errors="replace")

    def _stream(self) -> Iterator[AtomBlock]:
        with self._open() as file:
            yield from joined_in_turn(self._frames(file))

    def _frames(self, file: IO[str]) -> Iterator[AtomBlock]:
        count = 0
        try:
            while line := file.readline():
                head: dict[str, list[str]] = {}
                while line and not line.startswith("ITEM: ATOMS"):
                    if line.startswith("ITEM: "):
                        lines = 3 if line.startswith("ITEM: BOX") else 1
                        head[line[6:].strip()] = [file.readline() for _ in range(lines)]
                    line = file.readline()
                if not line:
                    self.cut = True
                    return
                n_atoms = int(head["NUMBER OF ATOMS"][0])
                rows = [file.readline().split() for _ in range(n_atoms)]
                if any(len(row) < len(line.split()) - 2 for row in rows):
                    if file.readline() or any("\0" in word for row in rows for word in row):
                        raise ValueError("it lacks atoms or columns, and more follows")
                    self.cut = True
                    return
                yield self._frame(line.split()[2:], rows, head)
                count += 1
        except (ValueError, KeyError, EOFError, OSError) as error:
            raise SamplingError(
                f"{self.path}: frame {count} is no frame of a LAMMPS dump: {one_line(error)}"
            ) from error

    def _frame(self, columns: list[str], rows: list[list[str]], head: dict[str, list[str]]) -> AtomBlock:
        table = np.array(rows)
        if "id" in columns:
            table = table[np.argsort(table[:, columns.index("id")].astype(int))]

        def take(*names: str) -> NDArray[np.float64] | None:
            if not set(names) <= set(columns):
                return None
            return table[:, [columns.index(name) for name in names]].astype(np.float64)

        vectors, corner = _box(
            *next(((name, lines) for name, lines in head.items() if name.startswith("BOX")), ("", []))
        )
        found = [take(*(axis + end for axis in "xyz")) for end in ("u", "", "su", "s")]
        scaled = [None if part is None else corner + part @ vectors for part in found[2:]]
        positions = next((part for part in [*found[:2], *scaled] if part is not None), None)
        if positions is None or "id" not in columns:
            raise SamplingError(
                f"{self.path}: has columns {' '.join(columns)}; it needs id and x y z, xu yu zu or xs ys zs"
            )
        forces = take("fx", "fy", "fz") if self.source.forces else None
        time = None
        if "TIME" in head and self._clock is not None:
            time = np.array([float(head["TIME"][0]) * self._clock])
        return AtomBlock(positions[None], time, None if forces is None else forces[None], vectors[None])


def _box(name: str, lines: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors and lower corner of a box; of a tilted one the file gives the bounds of its corners (LAMMPS manual)."""
    bounds = np.array([[float(number) for number in line.split()] for line in lines])
    if bounds.ndim != 2 or bounds.shape[1] not in (2, 3, 4):
        raise ValueError("it has no bounds of its box")
    if "abc origin" in name:  # general triclinic: the vectors and the origin
        return bounds[:, :3], bounds[:, 3]
    xy, xz, yz = bounds[:, 2] if bounds.shape[1] == 3 else (0.0, 0.0, 0.0)
    low, high = bounds[:, 0].copy(), bounds[:, 1].copy()
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    vectors = np.diag(high - low)
    vectors[1, 0], vectors[2, 0], vectors[2, 1] = xy, xz, yz
    return vectors, low
