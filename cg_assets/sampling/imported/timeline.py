"""Which frames of which files make up which replica, from the clocks of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cg_assets.sampling.imported.formats import Contents
from cg_assets.sampling.imported.settings import ImportedTrajectories


@dataclass(frozen=True)
class Stretch:
    """Frames of a file at equal intervals, the strides already taken.

    Attributes:
        file: number of the file.
        frames: numbers of the frames in it.
        replica: that they belong to.
        start: time of the first since the first frame of the replica [ps].
    """

    file: int
    frames: range
    replica: int
    start: float


@dataclass(frozen=True)
class Timeline:
    """All stretches of a batch.

    Attributes:
        stretches: in the order in which they are read.
        interval: between frames of the files [ps].
        notes: what was left out, joined or taken on trust, in sentences.
    """

    stretches: list[Stretch]
    interval: float
    notes: list[str]


def timeline(paths: Sequence[Path], contents: Sequence[Contents], imported: ImportedTrajectories) -> Timeline:
    """Order the frames of a batch into replicas."""
    interval = imported.frame_interval or 1.0
    stretches, notes = [], []
    for number, (path, found) in enumerate(zip(paths, contents, strict=True)):
        rows = np.arange(found.n_frames) if found.usable is None else np.flatnonzero(found.usable)
        if len(rows) < found.n_frames:
            notes.append(f"{path}: {found.n_frames - len(rows)} of {found.n_frames} frames lack positions or forces")
        start = 0.0
        for part in _regular(rows):
            stretches.append(Stretch(number, part[:: imported.stride], number, start))
            start += len(part) * interval
    return Timeline(stretches, interval, notes)


def _regular(rows: np.ndarray) -> list[range]:
    """Numbers of frames as ranges."""
    if len(rows) < 2:
        return [range(int(row), int(row) + 1) for row in rows]
    breaks = np.flatnonzero(np.diff(np.diff(rows)) != 0) + 2
    return [
        range(int(part[0]), int(part[-1]) + 1, int(part[1] - part[0]) if len(part) > 1 else 1)
        for part in np.split(rows, breaks)
        if len(part)
    ]
