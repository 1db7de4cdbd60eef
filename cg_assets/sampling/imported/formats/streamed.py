"""Formats that are read from their beginning only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import NoForcesError, SamplingError
from cg_assets.sampling.imported.formats.base import AtomBlock, Contents, TrajectoryFile

CHUNK = 200
"""Frames that are parsed before they become a block."""


class StreamedFile(TrajectoryFile):
    """A file without an index of its frames: read once to count them, then once more."""

    cut = False

    @abstractmethod
    def _stream(self) -> Iterator[AtomBlock]:
        """All frames in blocks of any length; sets `cut` where the file ends within a frame."""

    @cached_property
    def _contents(self) -> Contents:
        count, n_atoms, clocked = 0, 0, True
        times: list[NDArray[np.float64]] = []
        usable: list[NDArray[np.bool_]] = []
        for block in self._stream():
            if count and block.positions.shape[1] != n_atoms:
                raise SamplingError(
                    f"{self.path}: frame {count} has {block.positions.shape[1]} atoms where others have {n_atoms}"
                )
            count, n_atoms = count + len(block.positions), block.positions.shape[1]
            clocked &= block.time is not None
            if block.time is not None:
                times.append(block.time)
            usable.append(np.full(len(block.positions), not self.source.forces or block.forces is not None))
        clock = np.concatenate(times) if clocked and times else None
        mask = np.concatenate(usable) if usable else np.zeros(0, bool)
        if count and not mask.any():
            raise NoForcesError(f"{self.path}: holds no forces; write them, or leave imported.forces out")
        return Contents(count, n_atoms, clock, None if mask.all() else mask, self.cut)

    def contents(self) -> Contents:
        """What the file holds, by reading it once."""
        return self._contents

    def _read(self, frames: range, size: int) -> Iterator[AtomBlock]:
        place, waiting, n_waiting = 0, [], 0
        for block in self._stream():
            index = np.arange(place, place + len(block.positions))
            place += len(block.positions)
            chosen = (index >= frames.start) & (index < frames.stop) & ((index - frames.start) % frames.step == 0)
            if chosen.any():
                waiting.append(block.select(np.flatnonzero(chosen)))
                n_waiting += int(chosen.sum())
            while n_waiting >= size:
                whole = joined(waiting)
                yield whole.select(slice(0, size))
                waiting, n_waiting = [whole.select(slice(size, None))], n_waiting - size
            if place >= frames.stop:
                break
        if n_waiting:
            yield joined(waiting)


def joined_in_turn(frames: Iterable[AtomBlock]) -> Iterator[AtomBlock]:
    """Blocks of `CHUNK` frames that follow each other, of fewer in the last."""
    coming = iter(frames)
    while waiting := list(islice(coming, CHUNK)):
        yield joined(waiting)


def joined(blocks: list[AtomBlock]) -> AtomBlock:
    """Blocks one after the other; what one of them lacks is left out."""
    if len(blocks) == 1:
        return blocks[0]
    columns: dict[str, NDArray | None] = {}
    for name in ("time", "forces", "box", "energy"):
        arrays = [getattr(block, name) for block in blocks]
        columns[name] = None if any(array is None for array in arrays) else np.concatenate(arrays)
    return AtomBlock(np.concatenate([block.positions for block in blocks]), **columns)
