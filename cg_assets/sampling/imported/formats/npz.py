"""Archives of NumPy: `positions`, and where they are there `forces`, `box` and `time`."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import NoForcesError, SamplingError, one_line
from cg_assets.core.frames import cell_vectors_of
from cg_assets.sampling.imported.formats.base import AtomBlock, Contents, TrajectoryFile

_WHOLE = 500_000_000
"""Bytes of an array in column order, which must be read whole, at most."""


class _Header(NamedTuple):
    shape: tuple[int, ...]
    by_columns: bool
    kind: np.dtype


class NpzFile(TrajectoryFile):
    """`positions` (n_frames, n_atoms, 3) or (n_frames, 3 n_atoms) [nm], `forces` alike, `box` of edges or vectors."""

    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    gives_forces = True

    def contents(self) -> Contents:
        """Shapes of the arrays, and the times where the archive holds them."""
        with self._readable() as archive:
            shape = self._shape(archive, "positions")
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if self.source.forces and "forces" not in names:
                raise NoForcesError(f"{self.path}: holds {', '.join(names)}, but no forces")
            if self.source.forces and self._shape(archive, "forces") != shape:
                raise SamplingError(f"{self.path}: forces and positions differ in shape")
            time = self._whole(archive, "time", shape[0]) if "time" in names else None
            return Contents(shape[0], shape[1], time)

    def _read(self, frames: range, size: int) -> Iterator[AtomBlock]:
        with self._readable() as archive, ExitStack() as streams:
            n_frames, n_atoms, _ = self._shape(archive, "positions")
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            wanted = ["positions", *(["forces"] if self.source.forces else [])]
            arrays = {name: _Rows(streams, archive, name) for name in wanted}
            box = self._whole(archive, "box", n_frames) if "box" in names else None
            for first in range(0, len(frames), size):
                rows = frames[first : first + size]
                read = {name: array.take(rows).reshape(len(rows), n_atoms, 3) for name, array in arrays.items()}
                yield AtomBlock(
                    read["positions"],
                    forces=read.get("forces"),
                    box=None if box is None else cell_vectors_of(box[rows.start : rows.stop : rows.step]),
                )

    def _shape(self, archive: zipfile.ZipFile, name: str) -> tuple[int, int, int]:
        with archive.open(f"{name}.npy") as stream:
            shape, _, kind = _header(stream)
        if len(shape) == 2 and shape[1] % 3 == 0 and shape[1] > 3:
            shape = (shape[0], shape[1] // 3, 3)
        if len(shape) != 3 or shape[2] != 3 or kind.kind not in "fiu":
            raise SamplingError(
                f"{self.path}: {name} have shape {shape} of {kind}; they must be numbers (n_frames, n_atoms, 3), frame "
                "after frame"
            )
        return shape

    def _whole(self, archive: zipfile.ZipFile, name: str, n_frames: int) -> NDArray[np.float64]:
        with archive.open(f"{name}.npy") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
        if name == "box" and len(array) != n_frames:
            array = np.broadcast_to(array, (n_frames, *array.shape))
        if len(array) != n_frames or (name == "time" and array.ndim != 1):
            raise SamplingError(f"{self.path}: {name} has shape {array.shape} where positions have {n_frames} frames")
        return array.astype(np.float64)

    @contextmanager
    def _readable(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise SamplingError(
                f"{self.path}: needs an array named positions (n_frames, n_atoms, 3) in nm: {one_line(error)}"
            ) from error


class _Rows:
    """Rows of an array in an archive, from its first to its last, without ever holding it whole."""

    def __init__(self, streams: ExitStack, archive: zipfile.ZipFile, name: str) -> None:
        self._stream = streams.enter_context(archive.open(f"{name}.npy"))
        self._shape, by_columns, self._kind = _header(self._stream)
        self._width = self._kind.itemsize * math.prod(self._shape[1:])
        self._place, self._all = 0, None
        if by_columns:
            if self._width * self._shape[0] > _WHOLE:
                raise ValueError(f"{name} lies column after column; save numpy.ascontiguousarray of it")
            self._all = self._numbers(self._shape[0]).reshape(self._shape[::-1]).T

    def take(self, rows: range) -> NDArray:
        if self._all is not None:
            return self._all[rows.start : rows.stop : rows.step]
        self._stream.seek((rows.start - self._place) * self._width, 1)
        self._place = min(rows.start + len(rows) * rows.step, self._shape[0])
        return self._numbers(self._place - rows.start).reshape(-1, *self._shape[1:])[:: rows.step]

    def _numbers(self, count: int) -> NDArray:
        content = self._stream.read(count * self._width)
        if len(content) != count * self._width:
            raise EOFError(f"it ends after {len(content)} of {count * self._width} bytes")
        return np.frombuffer(content, self._kind)


def _header(stream: IO[bytes]) -> _Header:
    old = np.lib.format.read_magic(stream) == (1, 0)
    header = _Header(*(np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0)(stream))
    if header.kind.hasobject:
        raise ValueError("it holds Python objects, not numbers")
    return header
