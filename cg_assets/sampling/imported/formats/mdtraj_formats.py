"""Formats that MDTraj reads: XTC and DCD frame by frame, small files whole, others from their beginning."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property
from typing import Any, BinaryIO, ClassVar, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError, library_errors
from cg_assets.sampling.imported.formats.base import AtomBlock, Contents, TrajectoryFile
from cg_assets.sampling.imported.formats.streamed import StreamedFile

_XTC_MAGIC, _XTC_SIZE, _XTC_HEAD = (1995, 2023), 88, 92
"""First number of a frame of an XTC file, where the size of its coordinates stands, length of its header [bytes]."""
_MAPPED = 2**26
"""Bytes of a file that are mapped into memory at once, where they count as used."""


class _SeekedFile(TrajectoryFile):
    """A file whose frames MDTraj finds by number."""

    def _open(self) -> Any:
        import mdtraj

        return mdtraj.formats.registry.FormatRegistry.fileobjects[self.suffixes[0]](str(self.path))

    @cached_property
    def _first(self) -> tuple[int, int]:
        """Number of whole frames, and of atoms."""
        with library_errors(SamplingError, f"{self.path}: MDTraj cannot read it"), self._open() as file:
            count = len(file)
            if count == 0:
                return 0, 0
            return count, file.read(1)[0].shape[1]

    def _read(self, frames: range, size: int) -> Iterator[AtomBlock]:
        step = frames.step
        with library_errors(SamplingError, f"{self.path}: it is damaged, or it was changed"), self._open() as file:
            for first in range(0, len(frames), size):
                rows = frames[first : first + size]
                if file.tell() != rows[0]:
                    file.seek(rows[0])
                block = self._block(file.read(n_frames=rows[-1] - rows[0] + 1))
                yield block if step == 1 else block.select(slice(None, None, step))

    def _block(self, read: Any) -> AtomBlock:
        raise AssertionError("each format has its own")


class XtcFile(_SeekedFile):
    """An XTC file of GROMACS."""

    suffixes: ClassVar[tuple[str, ...]] = (".xtc",)

    @cached_property
    def _first(self) -> tuple[int, int]:
        """As of other files; MDTraj decodes no frame whose header is damaged."""
        head = np.fromfile(self.path, np.uint8, _XTC_HEAD)
        n_atoms = int.from_bytes(head[4:8].tobytes(), "big")
        if len(head) < 56 + 12 * min(n_atoms, 3) or _damaged(head[None], n_atoms).any():
            raise SamplingError(f"{self.path}: frame 0 is damaged, or this is no XTC file")
        with library_errors(SamplingError, f"{self.path}: MDTraj cannot read it"), self._open() as file:
            return len(file), n_atoms

    def contents(self) -> Contents:
        """Frames with their times; the last one may be cut."""
        count, n_atoms = self._first
        with library_errors(SamplingError, f"{self.path}: MDTraj cannot read it"), self._open() as file:
            offsets = np.asarray(file.offsets)
        if not count:
            return Contents(0, n_atoms)
        size = self.path.stat().st_size
        times = []
        edges = np.searchsorted(offsets, np.arange(0, size + _MAPPED, _MAPPED))
        for first, after in itertools.pairwise(edges.tolist()):
            begin = int(offsets[min(first, count - 1)])
            content = np.memmap(self.path, np.uint8, "r", begin, (min(size - begin, 2 * _MAPPED),))
            places = offsets[first:after, None] - begin + np.arange(_XTC_HEAD)
            heads = content[np.minimum(places, len(content) - 1)]
            if (damaged := _damaged(heads, n_atoms)).any():
                self._refuse(first + int(np.argmax(damaged)))
            times.append(heads[:, 12:16].copy().view(">f4")[:, 0])
        last = int(offsets[-1])
        with self.path.open("rb") as stream:
            stream.seek(last)
            end = last + _size_of_xtc_frame(stream.read(96), n_atoms)
        cut = end > size
        largest = np.diff(offsets).max() if count > 1 else end - last
        if size - (last if cut else end) > 2 * largest:  # more follows than a frame
            self._refuse(count - cut)
        return Contents(count - cut, n_atoms, np.concatenate(times)[: count - cut], cut=cut or end < size)

    def _refuse(self, frame: int) -> NoReturn:
        raise SamplingError(f"{self.path}: frame {frame} is damaged; copy it again")

    def _block(self, read: Any) -> AtomBlock:
        positions, time, _, box = read
        return AtomBlock(positions, time.astype(np.float64), box=box)


def _damaged(heads: NDArray[np.uint8], n_atoms: int) -> NDArray[np.bool_]:
    """Which headers `(n_frames, 92)` of XTC frames hold numbers that cannot be.

    Number of the format, atoms, step, time, box, atoms, precision, smallest and largest integer of each axis, index of
    the smallest step, bytes; of at most nine atoms no more than the first five (GROMACS, xdrfile).
    """
    numbers = heads.view(">i4").astype(np.int64)
    wrong = ~np.isin(numbers[:, 0], _XTC_MAGIC) | (numbers[:, 1] != n_atoms) | (numbers[:, 13] != n_atoms)
    if n_atoms > 9:
        low, high, index = numbers[:, 15:18], numbers[:, 18:21], numbers[:, 21]
        wrong |= ~(heads.view(">f4")[:, 14] > 0) | ((high < low) | (high - low >= 2**31 - 1)).any(axis=1)
        size = np.where(numbers[:, 0] == _XTC_MAGIC[0], numbers[:, 22], 1)
        wrong |= (index < 9) | (index > 72) | (size < 1) | (size > 4 * int(3.6 * n_atoms))
    return wrong | (n_atoms < 1)


def _size_of_xtc_frame(head: bytes, n_atoms: int) -> int:
    """Length of a frame from its first 96 bytes; coordinates of at most nine atoms are not compressed."""
    if n_atoms <= 9:
        return 56 + 12 * n_atoms
    number = 8 if int.from_bytes(head[:4], "big") == _XTC_MAGIC[1] else 4
    size = int.from_bytes(head[_XTC_SIZE : _XTC_SIZE + number], "big")
    return _XTC_SIZE + number + 4 * -(-size // 4)


class DcdFile(_SeekedFile):
    """A DCD file of NAMD, CHARMM, LAMMPS or OpenMM; its clock is nonsense in some of them and is not read."""

    suffixes: ClassVar[tuple[str, ...]] = (".dcd",)
    length_unit = "angstrom"

    def contents(self) -> Contents:
        """The whole frames."""
        count, n_atoms = self._first
        begin, kind = self._layout
        return Contents(count, n_atoms, cut=(self.path.stat().st_size - begin) % kind.itemsize != 0)

    @cached_property
    def _layout(self) -> tuple[int, np.dtype]:
        """Where the frames begin, and the records of a frame of the usual kind: cell, x, y and z between their lengths.

        CHARMM documentation, dynamc.
        """
        with self.path.open("rb") as file:
            head = file.read(92)
            order: Literal["little", "big"] = "little" if int.from_bytes(head[:4], "little") == 84 else "big"
            for _ in range(2):  # titles, number of atoms
                file.seek(int.from_bytes(file.read(4), order) + 4, 1)
            begin = file.tell()
        sign = "<" if order == "little" else ">"
        records: list[tuple[str, str, int]] = [("cell", "f8", 6)] if int.from_bytes(head[48:52], order) else []
        records += [(axis, "f4", self._first[1]) for axis in "xyz"]
        fields = [
            field
            for name, number, count in records
            for field in (
                (f"before_{name}", f"{sign}i4"),
                (name, f"{sign}{number}", (count,)),
                (f"after_{name}", f"{sign}i4"),
            )
        ]
        return begin, np.dtype(fields)

    def _read(self, frames: range, size: int) -> Iterator[AtomBlock]:
        begin, kind = self._layout
        count, n_atoms = self._first
        usual = begin + count * kind.itemsize <= self.path.stat().st_size
        with self.path.open("rb") as file:  # not mapped into memory, which would count as used
            first_frame = self._records(file, range(usual))
            if not len(first_frame) or not self._is_sound(first_frame):  # fixed atoms, a fourth coordinate
                yield from super()._read(frames, size)
                return
            for first in range(0, len(frames), size):
                rows = frames[first : first + size]
                part = self._records(file, rows)
                if len(part) != len(rows) or not self._is_sound(part):
                    raise SamplingError(
                        f"{self.path}: is damaged between frames {rows[0]} and {rows[-1]}; copy it again"
                    )
                positions = np.empty((len(part), n_atoms, 3), np.float32)
                for number, axis in enumerate("xyz"):
                    positions[:, :, number] = part[axis]
                yield AtomBlock(positions, box=self._cells(part))

    def _records(self, file: BinaryIO, rows: range) -> NDArray:
        """Frames as they are stored, fewer where the file ends."""
        begin, kind = self._layout
        file.seek(begin + rows.start * kind.itemsize)
        return np.fromfile(file, kind, (rows[-1] - rows[0] + 1) if rows else 0)[:: rows.step]

    def _is_sound(self, part: NDArray) -> bool:
        """Whether each record lies between its lengths."""
        return all((part[f"{end}_{axis}"] == 4 * self._first[1]).all() for axis in "xyz" for end in ("before", "after"))

    def _cells(self, part: NDArray) -> NDArray[np.float64] | None:
        """Vectors of the cells, which are stored as a, gamma, b, beta, alpha, c; angles as such or as their cosines."""
        if "cell" not in (part.dtype.names or ()):
            return None
        a, gamma, b, beta, alpha, c = part["cell"].astype(np.float64).T
        angles = np.stack([alpha, beta, gamma], axis=1)
        if (np.abs(angles) <= 1.0).all():
            angles = np.rad2deg(np.arccos(angles))
        return vectors_of_edges(np.stack([a, b, c], axis=1), angles)

    def _block(self, read: Any) -> AtomBlock:
        positions, lengths, angles = read
        return AtomBlock(positions, box=vectors_of_edges(lengths, angles))


class OtherFile(StreamedFile):
    """A format that MDTraj reads and that has no reader here: from the beginning, block by block."""

    suffixes: ClassVar[tuple[str, ...]] = (
        ".pdb",
        ".pdb.gz",
        ".gro",
        ".arc",
        ".dtr",
        ".binpos",
    )
    _whole: ClassVar[tuple[str, ...]] = (".pdb", ".pdb.gz", ".gro")

    def _stream(self) -> Iterator[AtomBlock]:
        import mdtraj

        name = str(self.path)
        with library_errors(SamplingError, f"{self.path}: MDTraj cannot read it, perhaps because it is cut"):
            if self.path.name.lower().endswith(self._whole):
                yield _of_trajectory(mdtraj.load(name))
                return
            for count in self.source.atom_counts:
                blocks = mdtraj.iterload(name, chunk=1000, top=_plain_topology(count))
                try:
                    block = next(blocks)
                except Exception as error:
                    fault = error
                    continue
                while block is not None:
                    yield _of_trajectory(block)
                    block = next(blocks, None)
                return
        raise SamplingError(f"{self.path}: cannot be read with {self.source.atom_counts} atoms: {fault}")


def _plain_topology(n_atoms: int) -> Any:
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(n_atoms):
        topology.add_atom("X", mdtraj.element.carbon, residue)
    return topology


def _of_trajectory(block: Any) -> AtomBlock:
    vectors = block.unitcell_vectors
    return AtomBlock(block.xyz, block.time.astype(np.float64), box=vectors)


def vectors_of_edges(lengths: NDArray | None, angles: NDArray | None) -> NDArray[np.float64] | None:
    """Vectors `(n_frames, 3, 3)` of cells from edges and angles [degrees], the first along x, the second in xy."""
    if lengths is None or angles is None:
        return None
    a, b, c = np.asarray(lengths, float).T
    alpha, beta, gamma = np.deg2rad(np.asarray(angles, float)).T
    box = np.zeros((len(a), 3, 3))
    box[:, 0, 0] = a
    box[:, 1, 0], box[:, 1, 1] = b * np.cos(gamma), b * np.sin(gamma)
    box[:, 2, 0] = c * np.cos(beta)
    with np.errstate(invalid="ignore", divide="ignore"):
        box[:, 2, 1] = c * (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
        box[:, 2, 2] = np.sqrt(np.maximum(c**2 - box[:, 2, 0] ** 2 - box[:, 2, 1] ** 2, 0.0))
    box[np.abs(box) < 1e-6 * np.maximum(a, 1e-12)[:, None, None]] = 0.0
    return box
