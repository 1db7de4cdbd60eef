"""TRR files of GROMACS: positions, velocities and forces, each in the frames that hold it.

Each frame is a header of big-endian integers and reals, then box, virial, pressure, positions, velocities and forces,
each of the size that the header gives (GROMACS manual, file formats). Single and double precision are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import NoForcesError, SamplingError
from cg_assets.sampling.imported.formats.base import AtomBlock, Contents, TrajectoryFile

_MAGIC, _LETTERS = 1993, 24
_HEADER = struct.Struct(">13i")
"""Sizes of ten sections [bytes], number of atoms, step, one more number."""


@dataclass(frozen=True)
class _Frames:
    """Where the frames of a file lie: start of the box, sizes of box, positions, velocities, forces [bytes]."""

    begin: NDArray[np.int64]
    sizes: NDArray[np.int64]
    time: NDArray[np.float64]
    n_atoms: int
    cut: bool


class TrrFile(TrajectoryFile):
    """A TRR file; frames without positions, or without forces where these are wanted, are left out."""

    suffixes: ClassVar[tuple[str, ...]] = (".trr",)
    gives_forces = True

    def contents(self) -> Contents:
        """Every frame; usable are those with positions, and with forces where they are wanted."""
        found = self._frames
        if not len(found.time):
            raise SamplingError(f"{self.path}: holds no whole frame; it is cut or damaged")
        usable = found.sizes[:, 2] > 0
        if self.source.forces:
            if not (found.sizes[:, 4] > 0).any():
                raise NoForcesError(f"{self.path}: holds no forces; set nstfout, or leave imported.forces out")
            usable &= found.sizes[:, 4] > 0
        return Contents(len(found.time), found.n_atoms, found.time, usable, found.cut)

    @cached_property
    def _frames(self) -> _Frames:
        begin: list[int] = []
        sizes: list[tuple[int, ...]] = []
        times: list[float] = []
        n_atoms = place = 0
        size, cut = self.path.stat().st_size, False
        with self.path.open("rb") as file:
            while place < size:
                file.seek(place)
                head = file.read(_LETTERS + _HEADER.size + 8)
                if len(head) < _LETTERS + _HEADER.size + 8:
                    cut = True
                    break
                if int.from_bytes(head[:4], "big") != _MAGIC:
                    raise SamplingError(f"{self.path}: frame {len(times)} is damaged, or this is no TRR file")
                ir, energy, box, virial, pressure, top, sym, x, v, f, atoms, _, _ = _HEADER.unpack_from(head, _LETTERS)
                if min(ir, energy, box, virial, pressure, top, sym, x, v, f) < 0 or (times and atoms != n_atoms):
                    raise SamplingError(f"{self.path}: frame {len(times)} is damaged: it gives {atoms} atoms")
                double = box == 72 or (atoms > 0 and max(x, v, f) == 24 * atoms)
                start = place + _LETTERS + _HEADER.size + (16 if double else 8)
                place = start + ir + energy + box + virial + pressure + top + sym + x + v + f
                if place > size:
                    if size - start > 2 * max((sum(item) for item in sizes), default=size):
                        raise SamplingError(f"{self.path}: frame {len(times)} is damaged; copy it again")
                    cut = True
                    break
                begin.append(start + ir + energy)
                sizes.append((box, virial + pressure + top + sym, x, v, f))
                times.append(struct.unpack_from(">d" if double else ">f", head, _LETTERS + _HEADER.size)[0])
                n_atoms = atoms
        return _Frames(np.array(begin, int), np.array(sizes, int).reshape(-1, 5), np.array(times), n_atoms, cut)

    def _read(self, frames: range, size: int) -> Iterator[AtomBlock]:
        found = self._frames
        with self.path.open("rb") as file:
            for first in range(0, len(frames), size):
                rows = frames[first : first + size]
                read = [self._frame(file, row) for row in rows]
                forces = [item[2] for item in read] if self.source.forces else None
                boxes = [item[0] for item in read if item[0] is not None]
                yield AtomBlock(
                    np.stack([item[1] for item in read]),
                    found.time[np.array(rows)],
                    None if forces is None else np.stack(forces),
                    np.stack(boxes) if len(boxes) == len(read) else None,
                )

    def _frame(self, file: BinaryIO, row: int) -> tuple[NDArray | None, NDArray, NDArray]:
        """Box, positions and forces of a frame; positions or forces that it lacks are empty."""
        n_atoms = self._frames.n_atoms
        box, other, x, v, f = self._frames.sizes[row]
        kind = ">f8" if box == 72 or max(x, v, f) == 24 * n_atoms else ">f4"
        file.seek(int(self._frames.begin[row]))
        content = file.read(int(box + other + x + v + f))
        cell = np.frombuffer(content[:box], kind).reshape(3, 3) if box else None
        positions = np.frombuffer(content[box + other : box + other + x], kind).reshape(-1, 3)
        forces = np.frombuffer(content[box + other + x + v :], kind).reshape(-1, 3)
        return cell, positions, forces
