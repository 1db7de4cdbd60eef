"""Read existing trajectories into frames of beads, in blocks, with faults explained."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.first_frames import check_first_frames
from cg_assets.sampling.piecewise import Piece, PiecewiseSampler
from cg_assets.sampling.settings import ImportedTrajectories

_BLOCK_NUMBERS = 6_000_000
"""Coordinates in a block of frames."""


def imported_files(imported: ImportedTrajectories, folder: Path, batch: str) -> list[Path]:
    """The files of a batch, sorted; each is a replica.

    Args:
        imported: what to import.
        folder: against which paths are read.
        batch: name of the batch.

    Raises:
        SamplingError: there are none, or a further batch would read the files of the first again.
    """
    if batch != "0000" and not any("{batch}" in name for name in imported.files):
        raise SamplingError(
            f"batch {batch} would read the files of batch 0000 again; put {{batch}} into imported.files, for example "
            "run_{batch}_*.xtc"
        )
    found = []
    for name in imported.files:
        pattern = Path(name.replace("{batch}", batch))
        root = Path(pattern.anchor) if pattern.is_absolute() else folder
        paths = sorted(root.glob(str(pattern.relative_to(root) if pattern.is_absolute() else pattern)))
        if not paths:
            raise SamplingError(f"imported.files: no file {root / pattern}; give paths relative to the YAML file")
        found += paths
    return found


@dataclass(frozen=True)
class ImportedSummary:
    """What was read.

    Attributes:
        files: path of each file to the SHA-256 of its content.
    """

    files: dict[str, str]


class ImportedReader(PiecewiseSampler[ImportedSummary]):
    """Frames of beads from the files of a batch.

    Molecules that a periodic box has cut are made whole. Frames are those of one density: time counts from the first
    frame of each file.
    """

    def __init__(
        self, imported: ImportedTrajectories, folder: Path, molecule: MoleculeModel, beads: Beads, batch: str
    ) -> None:
        """Examine all files of a batch before any is read.

        Args:
            imported: what to import.
            folder: against which paths are read.
            molecule: whose trajectories they are.
            beads: its beads.
            batch: name of the batch.

        Raises:
            SamplingError: a file is missing, cannot be read, holds other atoms, or is in other units.
        """
        self._plan, self._molecule, self._beads, self._map = imported, molecule, beads, beads.cg_map
        self._paths = imported_files(imported, folder, batch)
        counts = [self._look_at(path) for path in self._paths]
        self._per_chunk = max(1, _BLOCK_NUMBERS // (3 * self._molecule.n_atoms * self._plan.stride))
        pieces = [
            Piece("block", first, number)
            for number, count in enumerate(counts)
            for first in range(0, math.ceil(count / self._plan.stride), self._per_chunk)
        ]
        super().__init__(pieces, seed=0)
        self._open: tuple[int, Iterator[NDArray[np.float64]]] | None = None

    @cached_property
    def files(self) -> dict[str, str]:
        """Path of each file to the SHA-256 of its content, computed when it is first asked for."""
        return {str(path): _sha256(path) for path in self._paths}

    def _do(self, piece: Piece) -> Frames:
        """A block from frame `piece.amount` on of the file `piece.part`.

        Raises:
            SamplingError: the file changed or is damaged further on.
        """
        replica, first = piece.part, piece.amount
        if self._open is None or self._open[0] != replica:
            self._open = (replica, self._blocks(self._paths[replica], first))
        atoms = next(self._open[1], None)
        if atoms is None:
            raise SamplingError(f"{self._paths[replica]}: ends before frame {first * self._plan.stride}; copy it again")
        positions = self._map.apply(atoms)
        variables = self._beads.variables(positions)
        count, interval = len(positions), self._plan.frame_interval * self._plan.stride
        return Frames(
            positions=positions.astype(np.float32),
            time=(first + np.arange(count, dtype=np.float64)) * interval,
            replica=np.full(count, replica, dtype=np.int32),
            temperature=np.full(count, self._beads.temperature),
            start=np.full(count, replica, dtype=np.int32),
            probe=np.zeros(count, dtype=bool),
            collective_variables={name: values.astype(np.float32) for name, values in variables.items()},
        )

    def _identity(self) -> str:
        return f"trajectories of system {self._beads.name}, {', '.join(map(str, self._paths))}"

    def restore(self, state: dict[str, NDArray]) -> None:
        """Continue after the stored blocks; errors as of `PiecewiseSampler`."""
        super().restore(state)
        self._open = None

    def summary(self) -> ImportedSummary:
        """The files."""
        return ImportedSummary(self.files)

    # ----------------------------------------------------------------------------------- reading

    def _look_at(self, path: Path) -> int:
        """Number of frames of a file that fits the molecule."""
        count = self._count(path)
        first = next(self._blocks(path, 0, 10), None)
        if first is None or count < 2:
            raise SamplingError(f"{path}: holds {count} frame(s); give a trajectory")
        if np.isfinite(first).all():
            check_first_frames(self._molecule, first, str(path))
        return count

    def _count(self, path: Path) -> int:
        if path.suffix == ".npz":
            with self._npz(path) as (shape, _):
                return shape[0]
        import mdtraj

        try:
            with mdtraj.open(str(path)) as file:
                return len(file)
        except (TypeError, NotImplementedError):  # the length of this format is unknown
            return sum(len(block) for block in mdtraj.iterload(str(path), top=self._topologies()[0]))
        except Exception as error:
            raise SamplingError(f"{path}: MDTraj cannot read it: {error}") from error

    def _blocks(self, path: Path, first: int, size: int | None = None) -> Iterator[NDArray[np.float64]]:
        """Positions `(f, n_stored, 3)` of whole molecules [nm], from a frame of those that the stride leaves on."""
        size, stride = size or self._per_chunk, self._plan.stride
        if path.suffix == ".npz":
            with self._npz(path) as (shape, read):
                read(first * stride, 0)
                for begin in range(first * stride, shape[0], size * stride):
                    yield self._stored(read(0, min(size * stride, shape[0] - begin))[::stride].astype(np.float64), path)
            return
        import mdtraj

        stored = self._molecule.stored
        for topology in self._topologies():
            try:
                # Not by the stride of iterload: combined with `skip` it reads rubbish (1.11).
                blocks = mdtraj.iterload(str(path), chunk=size * stride, skip=first * stride, top=topology)
                block = next(blocks, None)
            except Exception as error:
                fault = error
                continue
            while block is not None:
                block = block[::stride]
                if block.n_atoms > len(stored):
                    block = block.atom_slice(stored)
                if block.unitcell_lengths is not None:
                    block.make_molecules_whole(inplace=True)
                yield block.xyz.astype(np.float64)
                block = next(blocks, None)
            return
        raise SamplingError(
            f"{path}: cannot be read with the {self._molecule.n_atoms} atoms of the model, nor with the "
            f"{len(stored)} of the molecules that carry beads: {fault}"
        )

    @contextmanager
    def _npz(self, path: Path) -> Iterator[tuple[tuple[int, ...], Callable[[int, int], NDArray]]]:
        """Shape of the positions of a file, and what skips some frames and reads some: never the whole array."""
        try:
            with zipfile.ZipFile(path) as archive, archive.open("positions.npy") as stream:
                old = np.lib.format.read_magic(stream) == (1, 0)
                header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                shape, by_columns, kind = header(stream)
                if len(shape) != 3 or shape[2] != 3 or by_columns or kind.hasobject:
                    raise SamplingError(
                        f"{path}: positions have shape {shape}; they must be (n_frames, n_atoms, 3), frame after frame"
                    )

                def read(skip: int, count: int) -> NDArray:
                    width = kind.itemsize * math.prod(shape[1:])
                    stream.seek(skip * width, os.SEEK_CUR)
                    content = stream.read(count * width)
                    if len(content) != count * width:
                        raise EOFError(f"it ends after {len(content)} of {count * width} bytes")
                    return np.frombuffer(content, kind).reshape(count, *shape[1:])

                yield shape, read
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise SamplingError(
                f"{path}: needs an array named positions (n_frames, n_atoms, 3) in nm: {error}"
            ) from error

    def _stored(self, positions: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
        stored = self._molecule.stored
        if positions.shape[1] == len(stored):
            return positions
        if positions.shape[1] == self._molecule.n_atoms:
            return positions[:, stored]
        raise SamplingError(
            f"{path}: has {positions.shape[1]} atoms; the model has {self._molecule.n_atoms}, of which {len(stored)} "
            "are in molecules that carry beads"
        )

    def _topologies(self) -> list[Any]:
        """Of all atoms, and of those in molecules that carry beads."""
        import mdtraj

        whole = mdtraj.Topology.from_openmm(self._molecule.topology)
        if not whole.n_bonds:
            for first, second in self._molecule.bonds:
                whole.add_bond(whole.atom(first), whole.atom(second))
        part = whole.subset(self._molecule.stored)
        return [whole] if part.n_atoms == whole.n_atoms else [whole, part]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
