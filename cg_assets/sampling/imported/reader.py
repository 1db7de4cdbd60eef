"""Read existing trajectories into frames, in blocks, with faults explained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames, cell_columns
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.cells import real_box
from cg_assets.mapping.first_frames import check_first_frames, check_hand
from cg_assets.mapping.images import MoleculesTogether, WholeMolecules, nearest_image
from cg_assets.sampling.imported.bad_frames import MOST_BAD, BadFrames, check_ranges, coordinate_grid
from cg_assets.sampling.imported.bias import FrameBias, Run, undeclared_bias
from cg_assets.sampling.imported.file_forces import TESTED, force_notes, shortened, unseen_note
from cg_assets.sampling.imported.files import found_files, imported_files
from cg_assets.sampling.imported.formats import AtomBlock, Contents, Source, TrajectoryFile, open_trajectory
from cg_assets.sampling.imported.recomputed import RecomputedForces
from cg_assets.sampling.imported.repeats import FRAMES, repeated
from cg_assets.sampling.imported.rigid import rigid_bonds
from cg_assets.sampling.imported.settings import ImportedTrajectories
from cg_assets.sampling.imported.timeline import Stretch, timeline
from cg_assets.sampling.piecewise import Piece, PiecewiseSampler
from cg_assets.storage.hashing import file_sha256

PIECE_NUMBERS, BLOCK_NUMBERS = 6_000_000, 500_000
"""Coordinates in a piece of work, which is stored as a whole, and in a block of frames, which fits the cache."""
_LEAST = 256
"""Frames of a block at least, so that an absurd one stands out."""
_FIRST, _FINE, _SAME = 30, 0.0005, 0.02
"""Frames of a file that are looked at first; rounding of coordinates that is not reported, and largest difference of
the coordinates of one frame in two files [nm]."""


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

    Attributes:
        n_frames: frames that are read, damaged ones too.
        interval: between them [ps].
        grid: to which coordinates are rounded [nm]; None if they are not, or finely.
        bias: of the frames; None without one.
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
        self._bad, self._molecules = BadFrames(molecule), MoleculesTogether(molecule.stored_groups)
        self._check_first(contents)
        of_forces = shortened([self._force_notes(number, found) for number, found in enumerate(contents)])
        self._hashes: dict[Path, str] = {}
        self._refuse_copies(folder, batch)
        self.bias = self._bias(folder, batch, contents)
        if self.bias is not None:
            contents = [_usable(found, self.bias.usable(number)) for number, found in enumerate(contents)]
        biased = [] if self.bias is None else self.bias.notes
        planned = timeline(self._paths, contents, imported, self._same_frame)
        self.interval = planned.interval * imported.stride
        self._stretches = planned.stretches
        self._notes = [*planned.notes, *self._grids, *self._rigid_note, *of_forces, *biased]
        self._refuse_repeats()
        self.n_frames = sum(len(stretch.frames) for stretch in self._stretches)
        self._n_bad, self._first_bad = 0, ""
        width = 3 * molecule.n_atoms * imported.stride
        most = max(1, PIECE_NUMBERS // width)
        self._per_block = min(most, max(_LEAST, BLOCK_NUMBERS // width))
        self._per_piece = most - most % self._per_block
        pieces = [
            Piece("block", first, number)
            for number, stretch in enumerate(self._stretches)
            for first in range(0, len(stretch.frames), self._per_piece)
        ]
        super().__init__(pieces, seed=0)
        self._open: tuple[int, Iterator[AtomBlock]] | None = None

    @property
    def n_replicas(self) -> int:
        """Number of replicas."""
        return len({stretch.replica for stretch in self._stretches})

    @cached_property
    def files(self) -> dict[str, str]:
        """Path of each file to the SHA-256 of its content, computed when it is first asked for."""
        biases = [] if self.bias is None else self.bias.paths
        return {str(path): self._hash(path) for path in [*self._paths, *self._force_paths, *biases]}

    def _do(self, piece: Piece) -> Frames:
        """The frames of the stretch `piece.part` from `piece.amount` on.

        Raises:
            SamplingError: the file changed or is damaged further on.
        """
        stretch, begin = self._stretches[piece.part], piece.amount
        if self._open is None or self._open[0] != piece.part:
            if begin == 0 and (piece.part == 0 or self._stretches[piece.part - 1].replica != stretch.replica):
                self._molecules.last = None
            self._open = (piece.part, self._blocks(stretch.file, stretch.frames[begin:], self._per_block))
        found = []
        for first in range(begin, min(begin + self._per_piece, len(stretch.frames)), self._per_block):
            block = next(self._open[1], None)
            if block is None or len(block.positions) != len(stretch.frames[first : first + self._per_block]):
                raise SamplingError(
                    f"{self._paths[stretch.file]}: ends before frame {stretch.frames[first]}; copy it again"
                )
            rows = first + np.arange(len(block.positions))
            if bad := self._bad.find(block):
                self._count_bad(stretch, first, bad)
                kept = np.setdiff1d(rows - first, list(bad))
                block, rows = block.select(kept), rows[kept]
            numbers = stretch.frames.start + stretch.frames.step * rows
            if first == begin and len(rows):
                place, frame = str(self._paths[stretch.file]), block.positions[0].astype(np.float64)
                check_hand(self._molecule, self._centres, frame, int(numbers[0]), place)
            block = self._joined(self._molecules, block, numbers, self._paths[stretch.file])
            found.append(self._frames(block, stretch, rows, numbers))
        return Frames.concatenate(found)

    def _count_bad(self, stretch: Stretch, first: int, bad: dict[int, str]) -> None:
        frame = min(bad)
        where = f"frame {stretch.frames[first + frame]} of {self._paths[stretch.file]}: {bad[frame]}"
        self._n_bad, self._first_bad = self._n_bad + len(bad), self._first_bad or where
        if self._n_bad > MOST_BAD * self.n_frames:
            raise SamplingError(
                f"{self._n_bad} of {self.n_frames} frames are damaged, the first {self._first_bad}; at most one in a "
                "thousand is left out: write the trajectory again"
            )

    def _frames(
        self, block: AtomBlock, stretch: Stretch, rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> Frames:
        """Beads, or with forces the stored atoms, of frames by their place in a stretch and number in its file."""
        beads = self._map.apply(block.positions)
        variables = self._beads.variables(beads)
        count, atoms = len(beads), block.forces is not None
        windows = None if self.bias is None else self.bias.windows
        box = None if block.box is None or not atoms else cell_columns(block.box)
        return Frames(
            positions=(block.positions if atoms else beads).astype(np.float32),
            time=stretch.start + rows.astype(np.float64) * self.interval,
            replica=np.full(count, stretch.replica, dtype=np.int32),
            temperature=np.full(count, self._beads.temperature),
            start=np.full(count, stretch.replica, dtype=np.int32),
            probe=np.zeros(count, dtype=bool),
            window=None if windows is None else np.full(count, windows[stretch.file], dtype=np.int32),
            forces=None if block.forces is None else block.forces.astype(np.float32),
            potential_energy=block.energy if atoms else None,
            bias_energy=None if self.bias is None else self.bias.energy(stretch.file, numbers, variables),
            box=box,
            collective_variables={name: values.astype(np.float32) for name, values in variables.items()},
        )

    def _identity(self) -> str:
        return f"trajectories of system {self._beads.name}, {', '.join(map(str, self._paths))}"

    def restore(self, state: dict[str, NDArray]) -> None:
        """Continue after the stored blocks; errors as of `PiecewiseSampler`."""
        super().restore(state)
        self._open = None
        self._n_bad, self._first_bad = int(state["n_bad"]), state["first_bad"].tobytes().decode()
        self._molecules.last = state["molecules"] if len(state["molecules"]) else None

    def state(self) -> dict[str, NDArray]:
        """What is done, the bad frames so far, and where the molecules were in the last frame."""
        first = np.frombuffer(self._first_bad.encode(), np.uint8)
        last = np.zeros((0, 3)) if self._molecules.last is None else self._molecules.last
        return super().state() | {"n_bad": np.array(self._n_bad), "first_bad": first, "molecules": last}

    def summary(self) -> ImportedSummary:
        """The files, and what was left out, joined or taken on trust."""
        return ImportedSummary(self.files, self.notes)

    @property
    def notes(self) -> list[str]:
        """What was left out, joined or taken on trust, in sentences."""
        bad = f"{self._n_bad} damaged frames are left out, the first {self._first_bad}"
        return [*self._notes, *([bad] if self._n_bad else [])]

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

    def _bias(self, folder: Path, batch: str, contents: list[Contents]) -> FrameBias | None:
        """The bias of the frames; None where there was none.

        Raises:
            SamplingError: its files do not fit, or a bias is not declared.
        """
        plan = self._plan
        if plan.bias is None:
            if "bias" not in plan.model_fields_set and (sign := undeclared_bias(self._paths)):
                raise SamplingError(
                    f"{sign}, next to the trajectories: frames of a biased run are no reference without their bias; "
                    "declare it in imported.bias, or set it to null if these runs were not biased"
                )
            return None
        times: list[NDArray[np.float64]] = []
        for path, found in zip(self._paths, contents, strict=True):
            clock = found.time
            if clock is None:
                if plan.frame_interval is None:
                    raise SamplingError(f"{path}: has no clock to find its bias by; give imported.frame_interval")
                clock = np.arange(found.n_frames) * plan.frame_interval
            times.append(np.asarray(clock, dtype=np.float64))
        beads = self._beads
        periodic = {name: beads.is_periodic(name) for name in beads.variable_names}
        return plan.bias.of(Run(folder, batch, self._paths, times, plan.stride, beads.thermal_energy, periodic))

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
        """Refuse files whose first frames are those of another molecule; find rigid bonds and the rounding."""
        self._grids: list[str] = []
        self.grid: float | None = None
        self._centres: list[tuple[int, ...]] = []
        lengths: list[NDArray[np.floating]] = []
        beads: list[NDArray[np.float64]] = []
        for number, (file, found) in enumerate(zip(self._files, contents, strict=True)):
            parts = found.first(_FIRST)
            if not parts:
                continue
            as_written = [block for part in parts for block in file.blocks(part, 1, self._atoms[number])]
            grid = coordinate_grid(np.concatenate([block.positions for block in as_written]))
            if grid is not None and grid > max(self.grid or 0.0, _FINE):
                self.grid = grid
                self._grids.append(f"{file.path}: coordinates are rounded to {grid:g} nm")
            whole = [self._made_whole(block) for block in as_written]
            molecules, fine = MoleculesTogether(self._molecule.stored_groups), []
            for block, row in zip(whole, itertools.chain(*parts), strict=False):
                if not self._bad.find(block):
                    fine.append(self._joined(molecules, block, np.array([row]), file.path))
            sound = [block.positions for block in fine]
            sound = sound or [block.positions for block in whole if np.isfinite(block.positions).all()]
            if sound:
                self._centres = check_first_frames(self._molecule, np.concatenate(sound), str(file.path))
                lengths.append(self._bad.lengths(np.concatenate(sound).astype(np.float64)))
                beads.append(self._map.apply(np.concatenate(sound)))
        self._find_rigid(lengths)
        if beads:
            check_ranges(self._beads, np.concatenate(beads))

    def _find_rigid(self, lengths: list[NDArray[np.floating]]) -> None:
        """Take bonds that never change their length as constraints of the run, where forces are mapped."""
        self.rigid: list[tuple[int, int]] = []
        self._rigid_note: list[str] = []
        if self._plan.forces is None or not len(self._bad.bonds) or not lengths:
            return
        found = rigid_bonds(lengths, self._beads.thermal_energy, self.grid)
        if found is None:
            coarse = f"of {sum(map(len, lengths))} frames" + (f", rounded to {self.grid:g} nm," if self.grid else "")
            self._rigid_note = [f"coordinates {coarse} do not show which bonds are rigid; model.constraints counts"]
            return
        declared = {frozenset(pair) for pair in self._beads.constraints}
        pairs = [(int(first), int(second)) for first, second in self._bad.bonds[found]]
        self.rigid = [pair for pair in pairs if frozenset(pair) not in declared]
        if self.rigid:
            first = "-".join(self._map.atom_names[atom] for atom in self.rigid[0])
            self._rigid_note = [
                f"{len(self.rigid)} bonds never change their length, the first {first}: they count as constraints"
            ]

    def _force_notes(self, number: int, found: Contents) -> list[str]:
        """What the forces that a file states are, as `force_notes` has it."""
        file = self._files[number]
        if self._plan.forces != "file":
            return []
        if not self._holds_all(number):
            return [unseen_note(file)]
        blocks = [block for part in found.first(TESTED) for block in self._all_atoms(number, part, TESTED)]
        return force_notes(self._molecule, self._bad, file, blocks, self._force_field)

    @property
    def beads(self) -> Beads:
        """The beads with the constraints of the run."""
        return self._beads.with_constraints(self.rigid)

    def _refuse_copies(self, folder: Path, batch: str) -> None:
        """Refuse the content of a file twice, in this batch or in it and an earlier one."""
        known: dict[int, list[Path]] = {}
        earlier = range(int(batch)) if batch.isdigit() else range(0)
        for number in earlier:
            with suppress(SamplingError):
                for path in imported_files(self._plan, folder, f"{number:0{len(batch)}d}"):
                    known.setdefault(path.stat().st_size, []).append(path)
        for path in self._paths:
            alike = known.setdefault(path.stat().st_size, [])
            for other in alike:
                if self._hash(other) == self._hash(path):
                    raise SamplingError(
                        f"{path}: has the same content as {other}; import each trajectory once, or errors come out too "
                        "small"
                    )
            alike.append(path)

    def _refuse_repeats(self) -> None:
        """Refuse the frames of a trajectory twice, whatever their format and times."""
        long = [stretch for stretch in self._stretches if len(stretch.frames) > FRAMES]
        found = []
        for stretch in long if len(long) > 1 else []:
            rows = stretch.frames[1 : FRAMES + 1]
            block = next(self._files[stretch.file].blocks(rows, FRAMES, self._atoms[stretch.file]))
            found.append(self._whole.apply(block.positions, real_box(block.box)))
        if pair := repeated(found, self._molecule.stored_groups, self.grid or 0.0):
            one, other = (f"{self._paths[long[k].file]} (frame {long[k].frames[1]} and those after it)" for k in pair)
            raise SamplingError(
                f"{other}: has the same frames as {one}; import each run once, or errors come out too small"
            )

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = file_sha256(path)
        return self._hashes[path]

    def _same_frame(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        """Whether two frames, each given by file and number, hold the same molecule, wherever in the box."""
        first, second = (next(self._blocks(file, range(row, row + 1), 1)) for file, row in (one, other))
        apart = first.positions[0] - second.positions[0]
        if first.box is not None:  # each molecule may be at another image
            apart = nearest_image(apart - apart[:1], first.box[0])
        return bool(np.abs(apart - apart.mean(axis=0)).max() < _SAME)

    @cached_property
    def _force_field(self) -> RecomputedForces | None:
        return None if self._molecule.system is None else RecomputedForces(self._molecule)

    @cached_property
    def _recomputed(self) -> RecomputedForces | None:
        return RecomputedForces(self._molecule) if self._plan.forces == "recomputed" else None

    def _with_forces(self, number: int, frames: range, size: int) -> Iterator[AtomBlock]:
        """The stored atoms of some frames of a file, with forces that are recomputed from all atoms where asked for.

        Raises:
            SamplingError: forces are to be recomputed and the file lacks atoms.
        """
        if self._recomputed is None:
            yield from self._files[number].blocks(frames, size, self._atoms[number])
            return
        stored = self._molecule.stored
        if not self._holds_all(number):
            raise SamplingError(
                f"{self._paths[number]}: has {len(stored)} of the {self._molecule.n_atoms} atoms, but forces can only "
                "be recomputed with all; give a trajectory of all atoms"
            )
        for block in self._all_atoms(number, frames, size):
            found = self._recomputed.apply(block)
            yield replace(found, positions=found.positions[:, stored], forces=np.asarray(found.forces)[:, stored])

    def _holds_all(self, number: int) -> bool:
        return self._atoms[number] is not None or len(self._molecule.stored) == self._molecule.n_atoms

    @cached_property
    def _all_whole(self) -> WholeMolecules:
        return WholeMolecules(self._molecule.n_atoms, self._molecule.bonds)

    def _all_atoms(self, number: int, frames: range, size: int) -> Iterator[AtomBlock]:
        """All atoms of some frames of a file, in whole molecules."""
        for block in self._files[number].blocks(frames, size, None):
            box = real_box(block.box)
            yield replace(block, positions=self._all_whole.apply(block.positions, box), box=box)

    def rounding_note(self, count: int = 8) -> str:
        """How much rounded positions change recomputed forces; empty where nothing is recomputed or rounded."""
        if self._recomputed is None or self.grid is None:
            return ""
        stretch = self._stretches[0]
        some = next(self._all_atoms(stretch.file, stretch.frames[:count], count))
        forces = np.asarray(self._recomputed.apply(some).forces)
        changes = self._recomputed.rounding_changes(some, self.grid, seed=0)
        noise, size = (np.sqrt((array[:, self._molecule.stored] ** 2).mean()) for array in (changes, forces))
        return (
            f"positions rounded to {self.grid:g} nm change the recomputed forces by {noise:.3g} of {size:.3g} "
            "kJ/mol/nm rms; this noise counts in the noise floor of the labels; recompute from positions in full "
            "precision (TRR) to be rid of it"
        )

    def snapshots(self, count: int = 48) -> Frames | None:
        """Some frames with all atoms, evenly spread; None where all frames have them, or no force field uses them."""
        molecule = self._molecule
        if molecule.system is None or len(molecule.stored) == molecule.n_atoms:
            return None
        whole = [stretch for stretch in self._stretches if self._holds_all(stretch.file)]
        every = max(1, sum(len(stretch.frames) for stretch in whole) // count)
        rows = ((stretch.file, row) for stretch in whole for row in stretch.frames)
        chosen = list(itertools.islice(rows, 0, every * count, every))
        if not chosen:
            return None
        blocks = [next(self._all_atoms(file, range(row, row + 1), 1)) for file, row in chosen]
        boxes = [block.box for block in blocks if block.box is not None]
        frames = Frames.of_replicas(
            np.zeros(1),
            np.arange(len(blocks)),
            temperature=self._beads.temperature,
            positions=np.stack([block.positions for block in blocks]).astype(np.float32),
        )
        return replace(frames, box=cell_columns(np.concatenate(boxes)) if len(boxes) == len(blocks) else None)

    def _blocks(self, number: int, frames: range, size: int) -> Iterator[AtomBlock]:
        """Whole molecules of some frames of a file, the stored atoms alone."""
        for block in self._with_forces(number, frames, size):
            yield self._made_whole(block)

    def _made_whole(self, block: AtomBlock) -> AtomBlock:
        box = real_box(block.box)
        return replace(block, positions=self._whole.apply(block.positions, box), box=box)

    def _joined(
        self, molecules: MoleculesTogether, block: AtomBlock, numbers: NDArray[np.int64], path: Path
    ) -> AtomBlock:
        """The molecules of finite frames together, for a potential without a box, which finds no images."""
        if block.box is None or self._beads.box is not None or molecules.number < 2:
            return block
        places, box = block.positions.astype(np.float64), block.box.astype(np.float64)
        return replace(block, positions=molecules.apply(places, box, numbers, str(path)))


def _usable(found: Contents, more: NDArray[np.bool_]) -> Contents:
    return replace(found, usable=more if found.usable is None else found.usable & more)
