"""What every format of trajectories gives: how many frames, their times, and blocks of atoms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import NoForcesError, SamplingError
from cg_assets.sampling.imported.formats.units import ENERGY, FORCE, LENGTH, same_unit


@dataclass(frozen=True)
class AtomBlock:
    """Some frames of a file, in the order of its atoms.

    Attributes:
        positions: `(n_frames, n_atoms, 3)` [nm].
        time: `(n_frames,)` [ps]; None where the format has no clock.
        forces: same shape as positions [kJ/mol/nm]; None where there are none.
        box: `(n_frames, 3, 3)` rows are the vectors of the box [nm]; None without a box.
        energy: `(n_frames,)` potential energy [kJ/mol]; None where there is none.
    """

    positions: NDArray[np.floating]
    time: NDArray[np.float64] | None = None
    forces: NDArray[np.floating] | None = None
    box: NDArray[np.float64] | None = None
    energy: NDArray[np.float64] | None = None

    def select(self, index: slice | NDArray) -> AtomBlock:
        """Some of the frames."""
        return AtomBlock(
            self.positions[index],
            **{name: None if array is None else array[index] for name, array in self._further().items()},
        )

    def _further(self) -> dict[str, NDArray | None]:
        return {"time": self.time, "forces": self.forces, "box": self.box, "energy": self.energy}


@dataclass(frozen=True)
class Contents:
    """What a file holds, found without keeping its atoms.

    Attributes:
        n_frames: whole frames.
        n_atoms: atoms of each.
        time: `(n_frames,)` [ps]; None where the format has no clock.
        usable: `(n_frames,)` whether a frame has all that is to be read; None where all have.
        cut: whether the file ends within a frame.
    """

    n_frames: int
    n_atoms: int
    time: NDArray[np.floating] | None = None
    usable: NDArray[np.bool_] | None = None
    cut: bool = False

    def first(self, count: int) -> list[range]:
        """The first usable frames, in one range where they are evenly spaced."""
        all_rows = range(self.n_frames) if self.usable is None else np.flatnonzero(self.usable).tolist()
        rows = list(all_rows[:count])
        even = range(rows[0], rows[-1] + 1, rows[1] - rows[0] if len(rows) > 1 else 1) if rows else range(0)
        return ([even] if rows else []) if list(even) == rows else [range(row, row + 1) for row in rows]


@dataclass(frozen=True)
class Source:
    """A file and how it is to be read.

    Attributes:
        path: of the file.
        forces: whether its forces are read.
        force_file: a second file that holds them; None where it is the same.
        length_unit: of the file, by the user; None for that of the format.
        force_unit: of the file, by the user; None for that of the format.
        atom_counts: numbers of atoms that the file may have, for formats that do not give it.
    """

    path: Path
    forces: bool = False
    force_file: Path | None = None
    length_unit: str | None = None
    force_unit: str | None = None
    atom_counts: tuple[int, ...] = field(default=())


class TrajectoryFile(ABC):
    """A trajectory in one format.

    Attributes:
        suffixes: in small letters, by which a file's format is known.
        gives_forces: whether the format can hold forces.
        length_unit: in which `_read` gives positions; None where the format fixes none.
        force_unit: in which `_read` gives forces; None where the format fixes none.
        energy_unit: in which `_read` gives energies.
        holds_fixes: whether forces may hold those of a thermostat, as LAMMPS writes them.
    """

    suffixes: ClassVar[tuple[str, ...]]
    gives_forces: ClassVar[bool] = False
    length_unit: str | None = "nm"
    force_unit: str | None = "kJ/mol/nm"
    energy_unit: str = "kJ/mol"
    holds_fixes: bool = False

    def __init__(self, source: Source) -> None:
        """Nothing is read yet.

        Raises:
            SamplingError: forces are asked for that the format cannot hold.
        """
        self.source, self.path = source, source.path
        if source.forces and not self.gives_forces:
            raise NoForcesError(
                f"{self.path}: no forces are read from this format; give a trr, nc, lammpstrj, extxyz, h5md or npz "
                "file, or leave imported.forces out"
            )

    @abstractmethod
    def contents(self) -> Contents:
        """What the file holds.

        Raises:
            SamplingError: it cannot be read, or lacks what is asked for.
        """

    @abstractmethod
    def _read(self, frames: range, size: int) -> Iterator[AtomBlock]:
        """Blocks of at most `size` of some frames, in the units of the file."""

    def units(self) -> tuple[str, str]:
        """Units of length and force of the file.

        Raises:
            SamplingError: neither the user nor the format states one.
        """
        length = self.source.length_unit or self.length_unit
        force = self.source.force_unit or self.force_unit
        for name, unit, wanted in (("length", length, True), ("force", force, self.source.forces)):
            if unit is None and wanted:
                known = ", ".join(LENGTH if name == "length" else FORCE)
                raise SamplingError(
                    f"{self.path}: its unit of {name} is not stated; give imported.{name}_unit ({known})"
                )
        return str(length), str(force or "kJ/mol/nm")

    def _agreed(self, what: str, stated: str, known: dict[str, float], given: str | None) -> str | None:
        """The unit that a file states, None where it states none.

        Raises:
            SamplingError: it is not known, or the user contradicts it.
        """
        unit = same_unit(stated, known) if stated else None
        if stated and unit is None:
            raise SamplingError(
                f"{self.path}: its unit {stated!r} of {what} is not known; known are {', '.join(known)}"
            )
        if unit and given and unit != given:
            raise SamplingError(f"{self.path}: states the unit {unit}, but imported gives {given} for {what}")
        return unit

    def blocks(self, frames: range, size: int, atoms: NDArray[np.int64] | None = None) -> Iterator[AtomBlock]:
        """Blocks of at most `size` of some frames, in nm, kJ/mol and ps, positions and forces in the file's precision.

        Args:
            frames: numbers of the frames, rising.
            size: most frames in a block.
            atoms: which atoms; None for all.

        Raises:
            SamplingError: the file is damaged.
        """
        length, force = self.units()
        for block in self._read(frames, size):
            yield replace(
                block,
                positions=_scaled(block.positions, atoms, LENGTH[length]),
                forces=None if block.forces is None else _scaled(block.forces, atoms, FORCE[force]),
                box=None if block.box is None else block.box.astype(np.float64) * LENGTH[length],
                energy=None if block.energy is None else block.energy * ENERGY[self.energy_unit],
            )


def _scaled(numbers: NDArray, atoms: NDArray[np.int64] | None, unit: float) -> NDArray[np.floating]:
    """Some atoms of `(n_frames, n_atoms, 3)` in our units, of float32 as such, of all else as float64."""
    picked = numbers if atoms is None else numbers[:, atoms]
    if picked.dtype != np.float32:
        return picked.astype(np.float64) * unit
    if unit == 1.0:
        return picked
    inverse = round(1.0 / unit)
    exact = abs(inverse * unit - 1.0) < 1e-12  # a quotient by a whole number is rounded but once
    return picked / np.float32(inverse) if exact else picked * np.float32(unit)
