"""`imported_beads`, or `imported_samples` with forces: existing trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.assets.common_checks import FINITE
from cg_assets.assets.data import with_map
from cg_assets.assets.samples import EQUILIBRATION, WINDOWS, shown_equilibration, windows_verdict
from cg_assets.assets.soundness import IMPORTED_FILES, STAMPS, stamps
from cg_assets.assets.stage import Figure, FrameContent, PieceContent, Product, Report, Stage, Stored
from cg_assets.assets.work import Work, snapshot_stage
from cg_assets.core.checks import Check, Verdict, absurd
from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.sampling.imported.settings import IMPORTED, IMPORTED_SAMPLES, ImportedTrajectories
from cg_assets.systems import SystemSpec

FINITE_POSITIONS = Check(
    FINITE.name,
    "Every position is a finite number, and none is ten thousand times the median.",
    remedy="write the trajectory again; some of its frames are damaged",
)
FRAMES_DIFFER = Check(
    "frames_differ",
    "No frame repeats the one before it, as when a trajectory was written twice or stood still.",
    remedy="join the parts of the trajectory without overlap, or set a stride",
)
CHECKS = FINITE_POSITIONS, FRAMES_DIFFER
_BEADS = "Beads of existing trajectories without forces; kernels make force labels for them."
_ATOMS = "Atoms of existing trajectories with their forces."
_DRAWN = 500_000
"""About as many frames are in the figure."""


class ImportJudge:
    """Judges one batch of imported frames, which come in blocks: they may not fit into memory."""

    def __init__(self, files: Sequence[str] = (), n_frames: int = 0) -> None:
        """Takes the file that each replica is from, to name it, and the number of frames to come."""
        self._files, self._bad, self._same, self._first = files, 0, 0, "none"
        self._every, self._drawn = -(-n_frames // _DRAWN) or 1, list[Frames]()
        self._last: NDArray | None = None

    def see(self, frames: Frames) -> None:
        """The next block."""
        flat = frames.positions.reshape(len(frames), -1)
        broken = np.flatnonzero(absurd(flat))
        if len(broken) and not self._bad:
            replica = int(frames.replica[broken[0]])
            file = [*self._files, replica][min(replica, len(self._files))]
            self._first = f"the frame at time {frames.time[broken[0]]:g} of {file}"
        self._bad += len(broken)
        alike = 1 + np.flatnonzero(flat[1:, 0] == flat[:-1, 0])  # few, of which the rest is compared
        self._same += int((flat[alike] == flat[alike - 1]).all(axis=1).sum())
        self._same += int(self._last is not None and np.array_equal(flat[0], self._last))
        self._last = flat[-1].copy()
        drawn = replace(frames, positions=frames.positions[:, :0], forces=None)
        self._drawn.append(drawn.select(np.arange(0, len(frames), self._every)))

    @property
    def drawn(self) -> Frames:
        """Frames for a figure, evenly spread: their times and collective variables, without positions."""
        return Frames.concatenate(self._drawn)

    def verdicts(self) -> list[Verdict]:
        """Verdicts on the blocks so far."""
        return [
            FINITE_POSITIONS.verdict(not self._bad, frames_not_finite_or_absurd=self._bad, first=self._first),
            FRAMES_DIFFER.verdict(not self._same, frames_like_the_one_before=self._same),
        ]


def _compared(system: SystemSpec, frames: Frames) -> tuple[Verdict, object]:
    """Whether biased replicas agree at equal beads, and how it is shown."""
    from cg_assets.labels.quality import ImportedReplicas, check_equilibration

    replicas = ImportedReplicas.of(frames)
    checked = check_equilibration(system.beads(), system.mapping, replicas, frames)
    shown = shown_equilibration(system.beads(), checked, replicas)
    return EQUILIBRATION.verdict(checked.passed, **checked.to_json()), shown


def imported_stage(system: SystemSpec, imported: ImportedTrajectories) -> Stage:
    """The stage of imported trajectories: of beads, or of atoms where there are forces."""
    stage = IMPORTED if imported.forces is None else IMPORTED_SAMPLES
    compared = imported.forces is not None and imported.bias is not None
    windowed = imported.bias is not None and imported.bias.windowed

    def make(work: Work) -> Product:
        found: dict[str, Any] = {}
        reader = system.imported_reader(str(work.batch))
        stamped = stamps(system.imported_files(str(work.batch)))
        pieces, _, _ = work.sample(f"{reader.files}{reader.n_chunks}", lambda: reader, None)
        if stamps(system.imported_files(str(work.batch))) != stamped:
            raise StorageError(f"{', '.join(reader.files)}: changed while they were imported; import them again")
        notes = [*reader.notes, *filter(None, [reader.rounding_note()])]
        for note in notes:
            work.log.warning(note)
        beads, map_hash, facts = with_map(system)
        function = None if reader.bias is None else reader.bias.function
        bias = None if function is None else function.definition()
        facts |= {"bias": bias, IMPORTED_FILES: reader.files, STAMPS: stamped, "notes": notes, "grid": reader.grid}
        facts |= {"rigid": reader.rigid} if reader.rigid else {}
        if imported.forces is not None and (whole := reader.snapshots()) is not None:
            work.keep(FrameContent(whole), stage=snapshot_stage(stage), batch=work.batch, facts=facts)

        seen = ImportJudge(list(reader.files), reader.n_frames)  # what is written, not read again: it may be gigabytes

        def judge(stored: Stored) -> list[Verdict]:
            verdicts = seen.verdicts()
            frames = stored.frames() if compared or windowed else None
            if frames is not None and compared:
                verdict, found["equilibration"] = _compared(system, frames)
                verdicts.append(verdict)
            return verdicts + ([windows_verdict(system, bias, frames)] if frames is not None and windowed else [])

        def report(_: object) -> Report:
            from cg_assets.figures.samples import sampling_figure

            png = sampling_figure(system.beads(), seen.drawn, stage)
            return found | {
                "figure": Figure(png, "collective variables of the trajectories"),
                "left out, joined or taken on trust": [{"note": note} for note in notes] or "nothing",
                "files": [{"file": name, "SHA-256": digest} for name, digest in reader.files.items()],
            }

        content = PieceContent(pieces, seen.see)
        if imported.forces is not None:
            return Product(content, facts, judge, report)
        return Product(content, facts, judge, report, bead_types=beads, map_hash=map_hash)

    return Stage(
        name=stage,
        description=_BEADS if imported.forces is None else _ATOMS,
        make=make,
        checks=(*CHECKS, *([EQUILIBRATION] if compared else []), *([WINDOWS] if windowed else [])),
        batched=True,
        raw=True,
        kinds=frozenset({"parquet", "mdtraj"}),
        sections=("model", "temperature", "mapping", "collective_variables", "imported"),
    )
