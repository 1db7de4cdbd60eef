"""Read existing trajectories into frames, in blocks, with faults explained."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.first_frames import check_first_frames
from cg_assets.mapping.images import keep_together
from cg_assets.sampling.imported.files import found_files, imported_files
from cg_assets.sampling.imported.formats import AtomBlock, Contents, Source, TrajectoryFile, open_trajectory
from cg_assets.sampling.imported.settings import ImportedTrajectories
from cg_assets.sampling.imported.timeline import Stretch, timeline
from cg_assets.sampling.imported.whole import WholeMolecules, real_box
from cg_assets.sampling.piecewise import Piece, PiecewiseSampler

BLOCK_NUMBERS = 6_000_000
"""Coordinates in a block of frames."""


@dataclass(frozen=True)
class ImportedSummary:
    """What was read.

    Attributes:
        files: path of each file to the SHA-256 of its content.
        notes: what was left out, joined or taken on trust, in sentences.
    """

    files: dict[str, str]
    notes: list[str] = field(default_factory=list)


class ImportedReader(PiecewiseSampler[ImportedSummary]):
    """Frames from the files of a batch: beads, or with forces the atoms that are stored.

    Molecules that a periodic box has cut are made whole. Frames are those of one density: time counts from the first
    frame of each replica.
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
        self._force_paths = self._forces_of(folder, batch)
        self._whole = WholeMolecules(len(molecule.stored), molecule.stored_pairs(molecule.bonds))
        self._files = [self._opened(number) for number in range(len(self._paths))]
        contents = [file.contents() for file in self._files]
        self._atoms = [self._look_at(file, found) for file, found in zip(self._files, contents, strict=True)]
        self._check_first(contents)
        planned = timeline(self._paths, contents, imported)
        self.interval, self._stretches, self._notes = (
            planned.interval * imported.stride,
            planned.stretches,
            planned.notes,
        )
        self._per_chunk = max(1, BLOCK_NUMBERS // (3 * molecule.n_atoms * imported.stride))
        pieces = [
            Piece("block", first, number)
            for number, stretch in enumerate(self._stretches)
            for first in range(0, math.ceil(len(stretch.frames) / self._per_chunk))
        ]
        super().__init__(pieces, seed=0)
        self._open: tuple[int, Iterator[AtomBlock]] | None = None

    @cached_property
    def files(self) -> dict[str, str]:
        """Path of each file to the SHA-256 of its content, computed when it is first asked for."""
        return {str(path): _sha256(path) for path in [*self._paths, *self._force_paths]}

    def _do(self, piece: Piece) -> Frames:
        """Block `piece.amount` of the stretch `piece.part`.

        Raises:
            SamplingError: the file changed or is damaged further on.
        """
        stretch, first = self._stretches[piece.part], piece.amount * self._per_chunk
        if self._open is None or self._open[0] != piece.part:
            self._open = (piece.part, self._blocks(stretch.file, stretch.frames[first:], self._per_chunk))
        block = next(self._open[1], None)
        if block is None or len(block.positions) != len(stretch.frames[first : first + self._per_chunk]):
            raise SamplingError(
                f"{self._paths[stretch.file]}: ends before frame {stretch.frames[first]}; copy it again"
            )
        return self._frames(block, stretch, first)

    def _frames(self, block: AtomBlock, stretch: Stretch, first: int) -> Frames:
        """Beads, or with forces the stored atoms, of a block of whole molecules."""
        beads = self._map.apply(block.positions)
        variables = self._beads.variables(beads)
        count, atoms = len(beads), block.forces is not None
        box = None if block.box is None or not atoms else np.diagonal(block.box, axis1=1, axis2=2).astype(np.float32)
        return Frames(
            positions=(block.positions if atoms else beads).astype(np.float32),
            time=stretch.start + (first + np.arange(count, dtype=np.float64)) * self.interval,
            replica=np.full(count, stretch.replica, dtype=np.int32),
            temperature=np.full(count, self._beads.temperature),
            start=np.full(count, stretch.replica, dtype=np.int32),
            probe=np.zeros(count, dtype=bool),
            forces=None if block.forces is None else block.forces.astype(np.float32),
            potential_energy=block.energy if atoms else None,
            box=box,
            collective_variables={name: values.astype(np.float32) for name, values in variables.items()},
        )

    def _identity(self) -> str:
        return f"trajectories of system {self._beads.name}, {', '.join(map(str, self._paths))}"

    def restore(self, state: dict[str, NDArray]) -> None:
        """Continue after the stored blocks; errors as of `PiecewiseSampler`."""
        super().restore(state)
        self._open = None

    def summary(self) -> ImportedSummary:
        """The files, and what was left out, joined or taken on trust."""
        return ImportedSummary(self.files, self.notes)

    @property
    def notes(self) -> list[str]:
        """What was left out, joined or taken on trust, in sentences."""
        return list(self._notes)

    # ----------------------------------------------------------------------------------- reading

    def _forces_of(self, folder: Path, batch: str) -> list[Path]:
        if self._plan.force_files is None:
            return []
        found = found_files("force_files", self._plan.force_files, folder, batch)
        if len(found) != len(self._paths):
            raise SamplingError(
                f"imported.force_files: {len(found)} files of forces for {len(self._paths)} trajectories; give one for "
                "each, in the same order"
            )
        return found

    def _opened(self, number: int) -> TrajectoryFile:
        plan, molecule = self._plan, self._molecule
        return open_trajectory(
            Source(
                path=self._paths[number],
                forces=plan.forces == "file",
                force_file=self._force_paths[number] if self._force_paths else None,
                length_unit=plan.length_unit,
                force_unit=plan.force_unit,
                atom_counts=tuple(dict.fromkeys((molecule.n_atoms, len(molecule.stored)))),
            )
        )

    def _look_at(self, file: TrajectoryFile, found: Contents) -> NDArray[np.int64] | None:
        """Atoms of a file that are stored, None for all; its number of atoms fits the molecule."""
        stored, whole = self._molecule.stored, self._molecule.n_atoms
        if found.n_frames < 2:
            raise SamplingError(f"{file.path}: holds {found.n_frames} frame(s); give a trajectory")
        if found.n_atoms not in (len(stored), whole):
            remedy = (
                "give model.pdb with every atom of the trajectory, in its order, or write the molecule alone "
                "(gmx trjconv, cpptraj strip)"
                if found.n_atoms > whole
                else "write all atoms of the model, or those of the molecules that carry beads"
            )
            raise SamplingError(
                f"{file.path}: has {found.n_atoms} atoms; the model has {whole}, of which {len(stored)} are in "
                f"molecules that carry beads: it cannot be read with the {whole} atoms of the model; {remedy}"
            )
        return None if found.n_atoms == len(stored) else stored

    def _check_first(self, contents: list[Contents]) -> None:
        """Refuse files whose first frames are not those of the molecule."""
        for number, (file, found) in enumerate(zip(self._files, contents, strict=True)):
            usable = np.arange(10) if found.usable is None else np.flatnonzero(found.usable)[:10]
            rows = [int(row) for row in usable if row < found.n_frames]
            first = [next(self._blocks(number, range(row, row + 1), 1)).positions for row in rows]
            if first and np.isfinite(np.concatenate(first)).all():
                check_first_frames(self._molecule, np.concatenate(first), str(file.path))

    def _blocks(self, number: int, frames: range, size: int) -> Iterator[AtomBlock]:
        """Whole molecules of some frames of a file, the stored atoms alone."""
        for block in self._files[number].blocks(frames, size, self._atoms[number]):
            box = real_box(block.box)
            positions = self._whole.apply(block.positions, box)
            if box is not None and self._beads.box is None:  # a potential without a box finds no images
                places, vectors = (values.astype(np.float64, copy=False) for values in (positions, box))
                positions = keep_together(places, self._molecule.stored_groups, vectors, str(self._paths[number]))
            yield AtomBlock(positions, block.time, block.forces, box, block.energy)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
