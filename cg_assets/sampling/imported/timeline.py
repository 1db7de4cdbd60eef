"""Which frames of which files make up which replica, from the clocks of the files."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.sampling.imported.files import run_name
from cg_assets.sampling.imported.formats import Contents
from cg_assets.sampling.imported.settings import ImportedTrajectories

_TOLERANCE = 0.01
"""Largest deviation of a time between frames from another, relative to it."""
_MOST_BREAKS = 0.01
"""Of frames after which the time between frames changes, beyond which a clock is irregular."""
_RESOLUTION = 2.0 * float(np.finfo(np.float32).eps)
"""Of times, which most formats store as float32."""

SameFrame = Callable[[tuple[int, int], tuple[int, int]], bool]
"""Whether two frames, each given by file and number, hold the same molecule in the same place."""


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


@dataclass(frozen=True)
class _Part:
    """Frames of a file at equal intervals, the first at a time [ps]."""

    file: int
    frames: range
    start: float

    def end(self, interval: float) -> float:
        return self.start + (len(self.frames) - 1) * interval


@dataclass
class _Run:
    """The parts of a replica, in the order of time."""

    parts: list[_Part] = field(default_factory=list)
    clocked: bool = True

    def end(self, interval: float) -> float:
        return self.parts[-1].end(interval)


def timeline(
    paths: Sequence[Path], contents: Sequence[Contents], imported: ImportedTrajectories, same_frame: SameFrame
) -> Timeline:
    """Order the frames of a batch into replicas.

    A file is a replica. It is cut at gaps of its clock, and joined to the file whose times it continues; of frames
    that both hold, those of the later part are kept.

    Args:
        paths: the files.
        contents: of each.
        imported: the user's word on them.
        same_frame: whether two frames are one.

    Raises:
        SamplingError: clocks contradict each other or the user, are irregular, or are missing without the user's word.
    """
    notes: list[str] = []
    rows, clocks = [], []
    for path, found in zip(paths, contents, strict=True):
        rows.append(_usable(path, found, imported, notes))
        clocks.append(_clock(path, found, rows[-1], imported.frame_interval, notes))
    interval = _interval(paths, clocks, imported.frame_interval)
    builder = _Builder(paths, interval, same_frame, notes)
    for number in sorted(range(len(paths)), key=lambda item: _order(paths[item], clocks[item])):
        builder.add(number, rows[number], clocks[number])
    if (alone := sum(not run.clocked for run in builder.runs)) > 1:
        notes.append(
            f"{alone} files without a clock count as independent replicas; join those that are parts of one run"
        )
    runs = sorted(builder.runs, key=lambda run: (run.parts[0].file, run.parts[0].frames.start))
    stretches = [item for replica, run in enumerate(runs) for item in _strided(run, replica, interval, imported.stride)]
    return Timeline(stretches, interval, notes)


def _usable(path: Path, found: Contents, imported: ImportedTrajectories, notes: list[str]) -> NDArray[np.int64]:
    """Numbers of the frames that have all that is read."""
    rows = np.arange(found.n_frames) if found.usable is None else np.flatnonzero(found.usable)
    lacking = "positions or forces" if imported.forces == "file" else "positions"
    lacking += "" if imported.bias is None else " or a known bias"
    if len(rows) < found.n_frames:
        notes.append(f"{path}: {found.n_frames - len(rows)} of {found.n_frames} frames lack {lacking} and are left out")
    if found.cut:
        notes.append(f"{path}: is cut within its last frame; its {found.n_frames} whole frames are used")
    if len(rows) < 2:
        raise SamplingError(f"{path}: {len(rows)} of its {found.n_frames} frames have {lacking}; at least 2 are needed")
    return rows


def _clock(
    path: Path, found: Contents, rows: NDArray[np.int64], given: float | None, notes: list[str]
) -> NDArray[np.float64] | None:
    """Times of the frames that are used; None where they mean nothing."""
    if found.time is None:
        why = "has no clock"
    else:
        time = np.asarray(found.time, np.float64)[rows]
        steps = np.diff(time)
        if not np.isfinite(time).all() or not steps.any():
            why = f"has the time {time[0]:g} in every frame"
        elif not (steps > 0).any():
            why = f"has times that never rise, from {time[0]:g} to {time[-1]:g} ps"
        elif given is not None and not math.isclose(given, 1.0) and np.array_equal(time, rows):
            why = "has the numbers of its frames for times"
        elif _RESOLUTION * np.abs(time).max() > 0.3 * np.median(steps[steps > 0]):
            why = f"has times of {np.abs(time).max():g} ps, which float32 cannot tell apart"
        else:
            if given is None and np.array_equal(time, rows):
                notes.append(f"{path}: has the times 0, 1, 2, ...; if these number the frames, give frame_interval")
            return time
    if given is None:
        raise SamplingError(f"{path}: {why}; give imported.frame_interval [ps]")
    notes.append(f"{path}: {why}; imported.frame_interval counts, {given:g} ps")
    return None


def _interval(paths: Sequence[Path], clocks: Sequence[NDArray | None], given: float | None) -> float:
    """Time between two frames [ps], on which all files and the user agree."""
    known, source = given, "imported.frame_interval gives"
    for path, time in zip(paths, clocks, strict=True):
        if time is None:
            continue
        steps = np.diff(time)
        usual = float(np.median(steps[steps > 0]))
        tolerance = max(_TOLERANCE * usual, 2 * _RESOLUTION * float(np.abs(time).max()))
        regular = np.abs(steps - usual) <= tolerance
        if (~regular).sum() > max(10, _MOST_BREAKS * len(steps)):
            raise SamplingError(
                f"{path}: its times are irregular, from {steps.min():g} to {steps.max():g} ps between frames; write "
                "frames at one interval"
            )
        usual = float(steps[regular].mean())
        if known is None:
            known, source = usual, f"{path.name} has"
        elif abs(usual - known) > max(_TOLERANCE * known, tolerance):
            raise SamplingError(
                f"{path}: its frames are {usual:.6g} ps apart, where {source} {known:.6g} ps; correct "
                "imported.frame_interval (or leave it out), or write all files at one interval"
            )
    return 1.0 if known is None else known


class _Builder:
    """Joins and cuts the files into runs."""

    def __init__(self, paths: Sequence[Path], interval: float, same_frame: SameFrame, notes: list[str]) -> None:
        self._paths, self._interval, self._same_frame, self._notes = paths, interval, same_frame, notes
        self.runs: list[_Run] = []

    def add(self, number: int, rows: NDArray[np.int64], time: NDArray[np.float64] | None) -> None:
        """Add a file: its frames that are used, and their times."""
        run, shift = None, 0.0
        for part in self._parts(number, rows, time):
            if time is None:
                if run is None and (run := self._followed(part)) is not None:
                    shift = run.end(self._interval) - part.start
                    part = replace(part, frames=part.frames[1:], start=part.start + self._interval)
                run = run or self._begin(clocked=False)
                part = replace(part, start=part.start + shift)
            elif run is None:
                run = self._continued(part) or self._begin()
            elif not self._fits(run, part):
                start, end = part.start, run.end(self._interval)
                what = f"a gap of {start - end:g} ps" if start > end else f"the time goes back to {start:g} ps"
                self._notes.append(f"{self._paths[number]}: {what} before frame {part.frames.start}: cut into replicas")
                run = self._begin()
            self._append(run, part)

    def _begin(self, clocked: bool = True) -> _Run:
        self.runs.append(_Run(clocked=clocked))
        return self.runs[-1]

    def _parts(self, number: int, rows: NDArray[np.int64], time: NDArray | None) -> list[_Part]:
        if time is None:
            parts = _regular(rows)
            before = np.cumsum([0, *map(len, parts)])
            return [_Part(number, part, n * self._interval) for part, n in zip(parts, before.tolist(), strict=False)]
        tolerance = self._tolerance(float(np.abs(time).max()))
        breaks = np.flatnonzero(np.abs(np.diff(time) - self._interval) > tolerance) + 1
        found = []
        for block in np.split(np.arange(len(rows)), breaks):
            place = int(block[0])
            for part in _regular(rows[block]):
                found.append(_Part(number, part, float(time[place])))
                place += len(part)
        return found

    def _tolerance(self, time: float) -> float:
        return max(_TOLERANCE * self._interval, 2 * _RESOLUTION * abs(time))

    def _fits(self, run: _Run, part: _Part) -> bool:
        """Whether the times of a part continue those of a run, or overlap with their end."""
        tolerance, end = self._tolerance(part.start), run.end(self._interval)
        after = part.start > run.parts[0].start + tolerance and part.end(self._interval) > end + tolerance
        return after and part.start <= end + self._interval + tolerance

    def _continued(self, part: _Part) -> _Run | None:
        """The run of other files that a file continues."""
        path, found = self._paths[part.file], []
        for run in self.runs:
            if not run.clocked or not self._fits(run, part):
                continue
            other = self._paths[run.parts[-1].file]
            common = self._common(run, part)
            same = common is not None and self._same_frame(common, (part.file, part.frames.start))
            named = run_name(path) == run_name(other)
            overlapping = part.start <= run.end(self._interval) + self._tolerance(part.start)
            if overlapping and not same and not named:
                self._notes.append(f"{path}: has times of {other.name}, but other frames: another replica")
                continue
            found.append((same, named, _common_letters(path.name, other.name), run))
        if not found:
            return None
        best = max(item[:3] for item in found)
        chosen = [item[3] for item in found if item[:3] == best]
        if len(chosen) > 1:
            names = " and ".join(self._paths[run.parts[-1].file].name for run in chosen)
            raise SamplingError(f"{path}: its times continue {names} alike; begin its name as that of its run")
        self._notes.append(f"{path}: continues {self._paths[chosen[0].parts[-1].file].name}: one replica")
        return chosen[0]

    def _followed(self, part: _Part) -> _Run | None:
        """The last run without a clock, where a file without one begins with its last frame."""
        if not self.runs or self.runs[-1].clocked or len(part.frames) < 2:
            return None
        last = self.runs[-1].parts[-1]
        if not self._same_frame((last.file, last.frames[-1]), (part.file, part.frames[0])):
            return None
        before = self._paths[last.file].name
        self._notes.append(f"{self._paths[part.file]}: begins with the last frame of {before}: one replica without it")
        return self.runs[-1]

    def _common(self, run: _Run, part: _Part) -> tuple[int, int] | None:
        """File and number of the frame of a run at the time at which a part starts."""
        for item in run.parts:
            steps = (part.start - item.start) / self._interval
            if abs(steps - round(steps)) < 0.1 and 0 <= round(steps) < len(item.frames):
                return item.file, item.frames[round(steps)]
        return None

    def _append(self, run: _Run, part: _Part) -> None:
        """Add a part to its run; frames of the run at its times and later are left out."""
        dropped = 0
        while run.parts and run.clocked:
            last = run.parts[-1]
            steps = (part.start - self._tolerance(part.start) - last.start) / self._interval
            kept = min(len(last.frames), max(0, math.ceil(steps)))
            dropped += len(last.frames) - kept
            if kept == len(last.frames):
                break
            run.parts.pop()
            if kept:
                run.parts.append(_Part(last.file, last.frames[:kept], last.start))
                break
        if dropped:
            self._notes.append(f"{self._paths[part.file]}: repeats the times of {dropped} frames, which are left out")
        run.parts.append(part)


def _order(path: Path, time: NDArray | None) -> tuple[float, list[tuple[bool, int, str]]]:
    """Files by their first time, then by name, numbers in names as numbers."""
    words = [(not word.isdigit(), int(word) if word.isdigit() else 0, word) for word in re.split(r"(\d+)", path.name)]
    return (-math.inf if time is None else float(time[0]), words)


def _common_letters(one: str, other: str) -> int:
    """Length of the beginning that two names share."""
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def _strided(run: _Run, replica: int, interval: float, stride: int) -> list[Stretch]:
    found, count = [], 0
    for part in run.parts:
        first = -count % stride
        frames = part.frames[first::stride]
        if len(frames):
            start = part.start + first * interval - run.parts[0].start
            found.append(Stretch(part.file, frames, replica, start))
        count += len(part.frames)
    return found


def _regular(rows: NDArray[np.int64]) -> list[range]:
    """Numbers of frames as ranges."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:  # all of them; no further arrays of tens of millions
        return [range(int(rows[0]), int(rows[-1]) + 1)]
    found: list[range] = []
    begin = 0
    steps = np.diff(rows)
    while begin < len(rows):
        step = int(steps[begin]) if begin < len(steps) else 1
        others = np.flatnonzero(steps[begin:] != step)
        end = begin + 1 + (int(others[0]) if len(others) else len(steps) - begin)
        found.append(range(int(rows[begin]), int(rows[end - 1]) + 1, step))
        begin = end
    return found
