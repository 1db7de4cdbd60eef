"""Formats that MDTraj reads: XTC and DCD frame by frame, small files whole, others from their beginning."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError, library_errors
from cg_assets.sampling.imported.formats.base import AtomBlock, Contents, TrajectoryFile
from cg_assets.sampling.imported.formats.streamed import StreamedFile

_XTC_TIME = 12
"""Where the time of a frame stands, after its begin [bytes]."""
_CHUNK = 1_000_000


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

    def contents(self) -> Contents:
        """Frames with their times; the last one may be cut."""
        count, n_atoms = self._first
        with library_errors(SamplingError, f"{self.path}: MDTraj cannot read it"), self._open() as file:
            offsets = np.asarray(file.offsets)
            cut = count > 1 and not self._reads(file, count - 1)
        content = np.memmap(self.path, np.uint8, "r")
        times = [
            content[offsets[first : first + _CHUNK, None] + np.arange(_XTC_TIME, _XTC_TIME + 4)].view(">f4")[:, 0]
            for first in range(0, count, _CHUNK)
        ]
        return Contents(count - cut, n_atoms, np.concatenate(times)[: count - cut] if times else None, cut=cut)

    def _reads(self, file: Any, frame: int) -> bool:
        try:
            file.seek(frame)
            return len(file.read(1)[0]) == 1
        except (OSError, RuntimeError, ValueError):
            return False

    def _block(self, read: Any) -> AtomBlock:
        positions, time, _, box = read
        return AtomBlock(positions, time.astype(np.float64), box=box)


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
        count = self._first[0]
        usual = begin + count * kind.itemsize <= self.path.stat().st_size
        content = np.memmap(self.path, kind, "r", offset=begin, shape=(count,)) if usual else None
        if content is None or any(content[0][f"before_{axis}"] != 4 * self._first[1] for axis in "xyz"):
            yield from super()._read(frames, size)  # fixed atoms, a fourth coordinate
            return
        for first in range(0, len(frames), size):
            rows = frames[first : first + size]
            part = content[rows.start : rows.stop : rows.step]
            if not all(
                (part[f"{end}_{axis}"] == 4 * self._first[1]).all() for axis in "xyz" for end in ("before", "after")
            ):
                raise SamplingError(f"{self.path}: is damaged between frames {rows[0]} and {rows[-1]}; copy it again")
            yield AtomBlock(np.stack([part[axis] for axis in "xyz"], axis=2), box=self._cells(part))

    def _cells(self, part: NDArray) -> NDArray[np.float64] | None:
        """Vectors of the cells, which are stored as a, gamma, b, beta, alpha, c; angles as such or as their cosines."""
        if "cell" not in (part.dtype.names or ()):
            return None
        a, gamma, b, beta, alpha, c = part["cell"].astype(np.float64).T
        angles = np.stack([alpha, beta, gamma], axis=1)
        if (np.abs(angles) <= 1.0).all():
            angles = np.rad2deg(np.arccos(angles))
        return cell_vectors(np.stack([a, b, c], axis=1), angles)

    def _block(self, read: Any) -> AtomBlock:
        positions, lengths, angles = read
        return AtomBlock(positions, box=cell_vectors(lengths, angles))


class OtherFile(StreamedFile):
    """A format that MDTraj reads and that has no reader here: from the beginning, block by block."""

    suffixes: ClassVar[tuple[str, ...]] = (
        ".pdb",
        ".pdb.gz",
        ".gro",
        ".mdcrd",
        ".crd",
        ".arc",
        ".dtr",
        ".binpos",
    )
    _whole: ClassVar[tuple[str, ...]] = (".pdb", ".pdb.gz", ".gro")

    def _stream(self) -> Iterator[AtomBlock]:
        import mdtraj

        name = str(self.path)
        with library_errors(SamplingError, f"{self.path}: MDTraj cannot read it"):
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


def cell_vectors(lengths: NDArray | None, angles: NDArray | None) -> NDArray[np.float64] | None:
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
