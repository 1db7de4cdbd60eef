"""Energies of the bias of imported trajectories in columns of COLVAR."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from cg_assets.biases.base import BiasFunction
from cg_assets.biases.plumed_files import TIME_UNITS, PlumedTable, read_plumed
from cg_assets.core.errors import SamplingError
from cg_assets.core.geometry import within_half_turn
from cg_assets.core.statistics.estimates import effective_samples
from cg_assets.sampling.imported.bias import FloatArray, FrameBias, ImportedBias, Run
from cg_assets.sampling.imported.files import run_name
from cg_assets.sampling.imported.filling import difference_fault, filling_fault
from cg_assets.sampling.imported.restraints import Restraint, fitted_restraint

_SAME_ANGLE = 0.15
"""Difference [rad] that rounded coordinates may make."""


@dataclass(frozen=True)
class Colvar:
    """A file and the run that it is of.

    Attributes:
        path: of the file.
        used: the columns whose sum is the bias.
        names: of PLUMED's variables, the columns without a dot in their names.
        limits: range of each that is periodic; None for others.
        time: `(n,)` of its lines, rising [ps].
        energy: `(n,)` of the bias [kJ/mol].
        places: `(n, n_names)` values of the variables.
        trajectories: numbers of the parts of the run.
        since: lines before this time do not count [ps].
    """

    path: Path
    used: list[str]
    names: list[str]
    limits: list[tuple[float, float] | None]
    time: FloatArray
    energy: FloatArray
    places: FloatArray
    trajectories: list[int]
    since: float

    @property
    def late(self) -> tuple[FloatArray, FloatArray]:
        """Places and energies of the lines that count."""
        rows = self.time >= self.since
        return self.places[rows], self.energy[rows]

    @property
    def angles(self) -> list[str]:
        """The variables that are periodic."""
        return [name for name, ends in zip(self.names, self.limits, strict=True) if ends is not None]

    def restraint(self, kt: float, first: Sequence[str] = ()) -> Restraint | None:
        """The harmonic restraint that its energies are, preferably of some variables; None for another bias."""
        places, energy = self.late
        order = sorted(self.names, key=lambda name: name not in first)
        return fitted_restraint({name: places[:, self.names.index(name)] for name in order}, self.angles, energy, kt)


class ColvarFiles(ImportedBias):
    """A bias by its energies in COLVAR, at the times of the frames."""

    is_function: ClassVar[bool] = False

    columns: list[str] = Field(min_length=1)
    """Columns whose sum is the bias: `metad.bias`, `metad.rbias` of a bias that was still being built, `*.bias`."""

    def _read(self, run: Run, notes: list[str]) -> list[Colvar]:
        """The files, each with its run."""
        paths, left = self._found(run)
        notes += left
        found = []
        for path, trajectories in zip(paths, _runs(len(paths), run), strict=True):
            tables, left = read_plumed(path)
            notes += left
            used = self._used(path, tables[0].fields, notes)
            names = [name for name in tables[0].fields if "." not in name and name != "time"]
            rows = self._rows(path, tables, used, names, self._energy(run), notes)
            limits = [tables[0].limits(name) for name in names]
            columns = rows[:, 0], rows[:, 1], rows[:, 2:]
            found.append(Colvar(path, used, names, limits, *columns, trajectories, self.since))
        return found

    def _energies(self, run: Run, colvars: Sequence[Colvar], notes: list[str]) -> ColvarEnergies:
        """Energies matched to the frames by their times, each within a hundredth of the interval of COLVAR."""
        parts = {number: colvar for colvar in colvars for number in colvar.trajectories}
        energies, usable, angles = [], [], []
        for number, colvar in sorted(parts.items()):
            energy, covered, line = _matched(run, number, colvar, notes)
            periodic = [(i, name) for i, name in enumerate(colvar.names) if run.periodic.get(name)]
            angles.append({name: colvar.places[line, i] for i, name in periodic})
            energies.append(energy)
            usable.append(covered)
        paths = [colvar.path for colvar in colvars]
        return ColvarEnergies(energies, usable, angles, [parts[number].path for number in sorted(parts)], paths, notes)

    def _used(self, path: Path, names: Sequence[str], notes: list[str]) -> list[str]:
        """The columns whose sum is the bias."""
        for pattern in self.columns:
            if not fnmatch.filter(names, pattern):
                raise SamplingError(f"{path}: no column {pattern}; its columns are {', '.join(names)}")
        used = list(dict.fromkeys(name for pattern in self.columns for name in fnmatch.filter(names, pattern)))
        if both := [name for name in used if name.endswith(".bias") and name[:-4] + "rbias" in used]:
            raise SamplingError(f"{path}: {both[0]} and its rbias are the same bias; name one of them in columns")
        stems = {name.rsplit(".", 1)[0] for name in used}
        if left := [name for name in names if name.endswith(".bias") and name.rsplit(".", 1)[0] not in stems]:
            notes.append(f"{path}: the bias leaves out {', '.join(left)}; name them in columns if they acted")
        return used

    def _rows(
        self,
        path: Path,
        tables: Sequence[PlumedTable],
        used: list[str],
        names: list[str],
        unit: float,
        notes: list[str],
    ) -> FloatArray:
        """Time, energy and variables of the lines of all headers; those that a restart repeats from the later run."""
        parts: list[FloatArray] = []
        for table in tables:
            time = table.column("time") * TIME_UNITS[self.time_unit]
            if (np.diff(time) <= 0.0).any():
                line = table.lines[int(np.argmax(np.diff(time) <= 0.0)) + 1]
                raise SamplingError(
                    f"{path}, line {line}: time does not rise; restarts need their header `#! FIELDS ...`"
                )
            before = sum(map(len, parts))
            parts = [part[part[:, 0] < time[0] - 1e-9] for part in parts]
            if dropped := before - sum(map(len, parts)):
                notes.append(f"{path}, line {table.lines[0]}: a restart repeats {dropped} times; its lines count")
            energy = unit * np.sum([table.column(name) for name in used], axis=0)
            parts.append(np.column_stack([time, energy, *(table.column(name) for name in names)]))
        return np.concatenate(parts)


class ColvarBias(ColvarFiles):
    """One bias of all runs."""

    type: Literal["colvar"]

    def of(self, run: Run) -> ColvarEnergies:
        """Energies of the frames, of a bias that was one in all runs and all the time."""
        notes: list[str] = []
        colvars = self._read(run, notes)
        found = self._energies(run, colvars, notes)
        kt = run.thermal_energy
        for number, colvar in enumerate(colvars):
            _judge_filling(colvar, kt)
            if number:
                _judge_sameness(colvars[:number], colvar, kt, notes)
            kept = np.concatenate([found.energies[item] for item in colvar.trajectories])
            kept = kept[np.isfinite(kept)]
            effective = effective_samples(np.exp((kept - kept.max()) / kt))
            notes.append(
                f"{colvar.path}: bias {' + '.join(colvar.used)} from {kept.min():.4g} to {kept.max():.4g} kJ/mol; its "
                f"weights leave {effective:.0f} effective of {len(kept)} frames"
            )
        return found


def _judge_filling(colvar: Colvar, kt: float) -> None:
    """Refuse a bias that was still being built; rbias is corrected for that."""
    if any(name.endswith(".rbias") for name in colvar.used):
        return
    if fault := filling_fault(colvar.names, colvar.limits, *colvar.late, kt):
        raise SamplingError(
            f"{colvar.path}: {' + '.join(colvar.used)} {fault}: the bias was still being built; take the column "
            "metad.rbias (CALC_RCT), set bias.start to a time after the filling, or run on with the bias frozen"
        )


def _judge_sameness(before: Sequence[Colvar], colvar: Colvar, kt: float, notes: list[str]) -> None:
    """Refuse runs under different biases, such as umbrella windows: their frames are not of one density."""
    known = f"{before[0].path} to {before[-1].path.name}" if len(before) > 1 else str(before[0].path)
    if all(other.names == colvar.names for other in before):
        earlier = [np.concatenate(parts) for parts in zip(*(other.late for other in before), strict=True)]
        fault = difference_fault(colvar.names, colvar.limits, (earlier[0], earlier[1]), colvar.late, kt)
        if fault:
            raise SamplingError(
                f"{known} and {colvar.path}: their biases {fault}: the runs were under different biases; umbrella "
                "windows are of bias.type umbrella, other biases need systems of their own"
            )
        if fault is not None:
            return
    mine = colvar.restraint(kt)
    for other in before if mine is not None else []:
        theirs = other.restraint(kt)
        if mine is not None and theirs is not None and not mine.same(theirs, colvar.angles, kt):
            raise SamplingError(
                f"{other.path} and {colvar.path}: are umbrella windows, at {theirs} and at {mine}, which share no "
                "places: set bias.type to umbrella"
            )
    notes.append(
        f"{colvar.path}: shares no places with {known}; that its run was under the same bias is taken on trust"
    )


def _runs(number: int, run: Run) -> list[list[int]]:
    """The trajectories of each of some COLVAR files: one each, or the parts of a run by their names or times.

    Raises:
        SamplingError: their number fits neither.
    """
    alone = [[item] for item in range(len(run.paths))]
    named: dict[str, list[int]] = {}
    for item, path in enumerate(run.paths):
        named.setdefault(run_name(path), []).append(item)
    timed: list[list[int]] = []
    for item in range(len(run.paths)):
        if timed and _continues(run.times[timed[-1][-1]], run.times[item]):
            timed[-1].append(item)
        else:
            timed.append([item])
    by_name = list(named.values())
    for groups in (alone, by_name if all(_in_turn(run, group) for group in by_name) else alone, timed):
        if len(groups) == number:
            return groups
    raise SamplingError(
        f"imported.bias.files: {number} COLVAR files for {len(run.paths)} trajectories; give one for each, or for the "
        "parts of each run, in the same order (a file that a restart continued is one file)"
    )


def _continues(one: FloatArray, other: FloatArray) -> bool:
    """Whether times begin within those of another trajectory, or a frame later, and end later."""
    return bool(one[0] < other[0] <= one[-1] + 1.01 * np.diff(one).max() and other[-1] > one[-1])


def _in_turn(run: Run, group: Sequence[int]) -> bool:
    order = sorted((run.times[item] for item in group), key=lambda time: float(time[0]))
    return all(one[0] < other[0] and one[-1] < other[-1] for one, other in pairwise(order))


def _matched(
    run: Run, number: int, colvar: Colvar, notes: list[str]
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.int64]]:
    """Energy at each time of a trajectory, NaN without a line, which frames COLVAR covers, and their lines.

    Raises:
        SamplingError: a frame that is taken has no line, other than those after the last one of a killed run.
    """
    path, known, times, trajectory = colvar.path, colvar.time, run.times[number], run.paths[number]
    if times[-1] < colvar.since:
        raise SamplingError(f"{trajectory}: ends at {times[-1]:g} ps, before bias.start; leave it out")
    if len(known) < 2:
        raise SamplingError(f"{path}: holds {len(known)} line(s); give the COLVAR of the whole trajectory")
    nearest = np.clip(np.searchsorted(known, times), 1, len(known) - 1)
    nearest -= times - known[nearest - 1] < known[nearest] - times
    # trajectories hold times in single precision
    tolerance = 0.01 * np.diff(known).min() + 2.0**-22 * np.abs(times)
    matched = np.abs(known[nearest] - times) <= tolerance
    behind = times > known[-1] + tolerance
    if behind.sum() > len(times) / 2:
        raise SamplingError(
            f"{path}: ends at {known[-1]:g} ps, before {int(behind.sum())} of {len(times)} frames of {trajectory}, "
            f"which ends at {times[-1]:g} ps; correct bias.time_unit, frame_interval, or the order of the files"
        )
    covered = ~behind & (times >= colvar.since)
    taken = np.flatnonzero(covered)[:: run.stride]
    missing = taken[~matched[taken]]
    if len(missing) or not len(taken):
        first = missing[0] if len(missing) else 0
        raise SamplingError(
            f"{path}: no line at time {times[first]:g} ps of frame {first} of {trajectory} (the nearest is at "
            f"{known[nearest[first]]:g} ps), nor for {max(len(missing), len(times) * (not len(taken))) - 1} further "
            "frames; set imported.stride so that frames fall on lines (PRINT's STRIDE), or correct bias.time_unit, "
            "frame_interval, or the order of the files"
        )
    if behind.any():
        notes.append(f"{path}: ends before {int(behind.sum())} frames of {trajectory}, which are left out")
    return np.where(matched & covered, colvar.energy[nearest], np.nan), covered, nearest


@dataclass
class ColvarEnergies(FrameBias):
    """Energies of frames, NaN where they are not known; see `FrameBias`."""

    energies: list[FloatArray]
    covered: list[NDArray[np.bool_]]
    angles: list[dict[str, FloatArray]]
    sources: list[Path]
    paths: list[Path]
    notes: list[str]
    function: BiasFunction | None = None
    windows: Sequence[int] | None = None

    def usable(self, file: int) -> NDArray[np.bool_]:
        """Those that COLVAR covers."""
        return self.covered[file]

    def energy(self, file: int, frames: NDArray[np.int64], variables: Mapping[str, ArrayLike]) -> FloatArray:
        """By the number of the frame.

        Raises:
            SamplingError: a frame has none, or angles of the same name show that COLVAR is of another run.
        """
        energy, path = self.energies[file][frames], self.sources[file]
        if len(missing := np.flatnonzero(~np.isfinite(energy))):
            raise SamplingError(f"{path}: has no line for frame {frames[missing[0]]}; set another stride")
        for name, angle in self.angles[file].items():
            apart = np.abs(within_half_turn(angle[frames] - np.asarray(variables[name], dtype=np.float64)))
            if (typical := float(np.median(apart))) > _SAME_ANGLE:
                raise SamplingError(
                    f"{path}: {name} differs by {typical:.2g} rad (median) from that of the frames at the "
                    f"same times, from frame {frames[0]} of trajectory {file} on: it is of another run, or {name} is "
                    "another angle there; correct the order of bias.files, or the name of the collective variable"
                )
        return energy
