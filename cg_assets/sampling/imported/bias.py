"""The bias under which imported trajectories were run, from files of PLUMED."""

from __future__ import annotations

import fnmatch
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from cg_assets.biases.grid import GridBias
from cg_assets.biases.plumed_biases import hills_bias, read_grid_bias, read_hills
from cg_assets.biases.plumed_files import (
    ENERGY_UNITS,
    LENGTH_UNITS,
    TIME_UNITS,
    PlumedTable,
    is_backup,
    read_plumed,
)
from cg_assets.core.errors import SamplingError
from cg_assets.core.family import Family
from cg_assets.core.settings import Name
from cg_assets.core.statistics.estimates import effective_samples
from cg_assets.sampling.imported.files import found_files
from cg_assets.sampling.imported.filling import difference_fault, filling_fault

FloatArray = NDArray[np.float64]
EnergyUnit = Literal["kJ/mol", "kcal/mol", "eV", "kT"]

_ACTIONS = ("METAD", "OPES", "RESTRAINT", "WALLS", "EXTERNAL", "BIASVALUE", "ABMD", "DRR", "VES", "PBMETAD", "MAXENT")
"""Parts of the names of PLUMED's biases, in its input."""

_SAME_ANGLE = 0.15
"""Difference [rad] that rounded coordinates may make."""


@dataclass(frozen=True)
class Run:
    """The trajectories of a batch, as a bias needs them.

    Attributes:
        folder: against which paths are read.
        batch: its name.
        paths: of the trajectories.
        times: `(n_frames,)` of each trajectory by its own clock [ps].
        stride: every how many frames one is taken.
        thermal_energy: kT [kJ/mol].
        periodic: name of each collective variable of the system to whether it is an angle.
    """

    folder: Path
    batch: str
    paths: Sequence[Path]
    times: Sequence[FloatArray]
    stride: int
    thermal_energy: float
    periodic: Mapping[str, bool]


class FrameBias(ABC):
    """The bias of the frames of a batch.

    Attributes:
        paths: its files.
        notes: what was left out or taken on trust, in sentences.
        function: as a function of the collective variables; None where only its energies are known.
    """

    paths: list[Path]
    notes: list[str]
    function: GridBias | None

    @abstractmethod
    def usable(self, file: int) -> NDArray[np.bool_]:
        """Whether each frame `(n_frames,)` of a file may be taken."""

    @abstractmethod
    def energy(self, file: int, frames: NDArray[np.int64], variables: Mapping[str, ArrayLike]) -> FloatArray:
        """Energies `(n,)` [kJ/mol] of some frames of a file with their collective variables `(n,)`.

        Raises:
            SamplingError: a frame has none.
        """


class ImportedBias(Family, family="imported bias"):
    """The bias of imported trajectories."""

    is_function: ClassVar[bool] = True
    """Whether it is known as a function of the collective variables, not only by its energies."""

    files: list[str] = Field(min_length=1)
    """Files of PLUMED, relative to the folder of the YAML file; wildcards and `{batch}` as in `imported.files`."""
    energy_unit: EnergyUnit = "kJ/mol"
    """That of the files; PLUMED's `UNITS ENERGY`."""
    time_unit: Literal["ps", "fs", "ns"] = "ps"
    """That of the files; PLUMED's `UNITS TIME`."""
    start: float | None = None
    """Frames before this time of the trajectories' clock [ps] are left out, as those of a bias still being built."""

    @abstractmethod
    def of(self, run: Run) -> FrameBias:
        """The bias of the frames of a batch.

        Raises:
            SamplingError: a file is missing or does not fit, or the bias was still being built.
        """

    @property
    def since(self) -> float:
        """Time from which frames count [ps]."""
        return -math.inf if self.start is None else self.start

    def own_files(self, folder: Path, batch: str) -> list[Path]:
        """Its files of a batch, without the backups that a wildcard caught.

        Raises:
            SamplingError: there are none.
        """
        named = {folder / name.replace("{batch}", batch) for name in self.files}
        found = found_files("bias.files", self.files, folder, batch)
        return [path for path in found if path in named or not is_backup(path)]

    def _found(self, run: Run) -> tuple[list[Path], list[str]]:
        """Its files, without the backups that a wildcard caught, and a sentence on each of these."""
        kept = self.own_files(run.folder, run.batch)
        left = [path for path in found_files("bias.files", self.files, run.folder, run.batch) if path not in kept]
        notes = [f"{path}: a backup of an earlier run, left out; name it without wildcards to use it" for path in left]
        return kept, notes

    def _energy(self, run: Run) -> float:
        return run.thermal_energy if self.energy_unit == "kT" else ENERGY_UNITS[self.energy_unit]


class ColvarBias(ImportedBias):
    """Energies of the bias in columns of COLVAR, at the times of the frames."""

    is_function: ClassVar[bool] = False

    type: Literal["colvar"]
    columns: list[str] = Field(min_length=1)
    """Columns whose sum is the bias: `metad.bias`, `metad.rbias` of a bias that was still being built, `*.bias`."""

    def of(self, run: Run) -> ColvarEnergies:
        """Energies matched to the frames by their times, each within a hundredth of the interval of COLVAR."""
        paths, notes = self._found(run)
        if len(paths) != len(run.paths):
            raise SamplingError(
                f"imported.bias.files: {len(paths)} COLVAR files for {len(run.paths)} trajectories; give one for each, "
                "in the same order (a file that a restart continued is one file)"
            )
        energies, usable, angles = [], [], []
        before: tuple[Path, Series] | None = None
        for number, path in enumerate(paths):
            tables, found = read_plumed(path)
            notes += found
            used = self._used(path, tables[0].fields, notes)
            series = self._series(path, tables, used, self._energy(run), notes)
            energy, covered, line = _matched(path, run, number, self.since, series, notes)
            angles.append({n: series.places[line, i] for i, n in enumerate(series.names) if run.periodic.get(n)})
            energies.append(energy)
            usable.append(covered)
            self._judge_filling(path, tables[0], used, series, run.thermal_energy)
            if before is not None:
                self._judge_sameness(before, (path, series), tables[0], run.thermal_energy)
            before = before or (path, series)
            kept = energy[np.isfinite(energy)]
            effective = effective_samples(np.exp((kept - kept.max()) / run.thermal_energy))
            notes.append(
                f"{path}: bias {' + '.join(used)} from {kept.min():.4g} to {kept.max():.4g} kJ/mol; its weights leave "
                f"{effective:.0f} effective of {len(kept)} frames"
            )
        return ColvarEnergies(energies, usable, angles, paths, notes)

    def _judge_filling(
        self, path: Path, table: PlumedTable, used: list[str], series: Series, thermal_energy: float
    ) -> None:
        """Refuse a bias that was still being built; rbias is corrected for that."""
        if any(name.endswith(".rbias") for name in used):
            return
        late = series.time >= self.since
        limits = [table.limits(name) for name in series.names]
        if fault := filling_fault(series.names, limits, series.places[late], series.energy[late], thermal_energy):
            raise SamplingError(
                f"{path}: {' + '.join(used)} {fault}: the bias was still being built; take the column metad.rbias "
                "(CALC_RCT), set bias.start to a time after the filling, or run on with the bias frozen"
            )

    def _judge_sameness(
        self, one: tuple[Path, Series], other: tuple[Path, Series], table: PlumedTable, thermal_energy: float
    ) -> None:
        """Refuse runs under different biases, such as umbrella windows: their frames are not of one density."""
        series = [item for _, item in (one, other)]
        limits = [table.limits(name) for name in series[0].names]
        late = [(item.places[item.time >= self.since], item.energy[item.time >= self.since]) for item in series]
        if series[0].names == series[1].names and (
            fault := difference_fault(series[0].names, limits, late[0], late[1], thermal_energy)
        ):
            raise SamplingError(
                f"{one[0]} and {other[0]}: their biases {fault}: the runs were under different biases, such as "
                "umbrella windows, whose frames have no common weights; import the runs of one bias"
            )

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

    def _series(
        self, path: Path, tables: Sequence[PlumedTable], used: list[str], unit: float, notes: list[str]
    ) -> Series:
        """The lines of all headers, those that a restart repeats taken from the later run."""
        names = [name for name in tables[0].fields if "." not in name and name != "time"]
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
        rows = np.concatenate(parts)
        return Series(rows[:, 0], rows[:, 1], names, rows[:, 2:])


@dataclass(frozen=True)
class Series:
    """Lines of COLVAR at rising times.

    Attributes:
        time: `(n,)` [ps].
        energy: `(n,)` of the bias [kJ/mol].
        names: of PLUMED's variables, the columns without a dot in their names.
        places: `(n, n_names)` their values.
    """

    time: FloatArray
    energy: FloatArray
    names: list[str]
    places: FloatArray


def _matched(
    path: Path, run: Run, number: int, start: float, series: Series, notes: list[str]
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.int64]]:
    """Energy at each time of a trajectory, NaN without a line, which frames COLVAR covers, and their lines.

    Raises:
        SamplingError: a frame that is taken has no line, other than those after the last one of a killed run.
    """
    known, energy, times, trajectory = series.time, series.energy, run.times[number], run.paths[number]
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
    covered = ~behind & (times >= start)
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
    return np.where(matched & covered, energy[nearest], np.nan), covered, nearest


@dataclass
class ColvarEnergies(FrameBias):
    """Energies of frames, NaN where they are not known; see `FrameBias`."""

    energies: list[FloatArray]
    covered: list[NDArray[np.bool_]]
    angles: list[dict[str, FloatArray]]
    paths: list[Path]
    notes: list[str]
    function: GridBias | None = None

    def usable(self, file: int) -> NDArray[np.bool_]:
        """Those that COLVAR covers."""
        return self.covered[file]

    def energy(self, file: int, frames: NDArray[np.int64], variables: Mapping[str, ArrayLike]) -> FloatArray:
        """By the number of the frame.

        Raises:
            SamplingError: a frame has none, or angles of the same name show that COLVAR is of another run.
        """
        energy = self.energies[file][frames]
        if len(missing := np.flatnonzero(~np.isfinite(energy))):
            raise SamplingError(f"{self.paths[file]}: has no line for frame {frames[missing[0]]}; set another stride")
        for name, angle in self.angles[file].items():
            apart = np.abs(np.angle(np.exp(1j * (angle[frames] - np.asarray(variables[name], dtype=np.float64)))))
            if (typical := float(np.median(apart))) > _SAME_ANGLE:
                raise SamplingError(
                    f"{self.paths[file]}: {name} differs by {typical:.2g} rad (median) from that of the frames at the "
                    f"same times, from frame {frames[0]} of trajectory {file} on: it is of another run, or {name} is "
                    "another angle there; correct the order of bias.files, or the name of the collective variable"
                )
        return energy


@dataclass
class FrozenBias(FrameBias):
    """A bias that is a function of the collective variables; see `FrameBias`."""

    function: GridBias
    paths: list[Path]
    notes: list[str]
    times: Sequence[FloatArray]
    since: float = -math.inf

    def usable(self, file: int) -> NDArray[np.bool_]:
        """Those from the start on."""
        return self.times[file] >= self.since

    def energy(self, file: int, frames: NDArray[np.int64], variables: Mapping[str, ArrayLike]) -> FloatArray:
        """The function at the collective variables.

        Raises:
            SamplingError: a frame lies beyond the grid.
        """
        outside = self.function.outside(variables)
        if outside is not None and outside.any():
            first = int(np.argmax(outside))
            place = {name: float(np.asarray(variables[name])[first]) for name in self.function.collective_variables}
            raise SamplingError(
                f"imported.bias: frame {frames[first]} of trajectory {file} lies beyond the grid of the bias, at "
                f"{place}; give a wider grid (bias.grid_range of hills), or correct the units"
            )
        return self.function.energy(variables)


class _FunctionBias(ImportedBias):
    variables: dict[str, Name] = Field(default_factory=dict)
    """PLUMED's name of each variable to the system's collective variable, where they differ."""
    length_unit: Literal["nm", "angstrom"] = "nm"
    """That of the files; PLUMED's `UNITS LENGTH`."""

    def _checked(self, run: Run, function: GridBias) -> GridBias:
        names = function.collective_variables
        for name, periodic in zip(names, function.spline.periodic, strict=True):
            if name not in run.periodic:
                raise SamplingError(
                    f"imported.bias: acts on {name}, but the collective variables are {', '.join(run.periodic)}; give "
                    f"bias.variables, PLUMED's name to the system's"
                )
            if periodic != run.periodic[name]:
                raise SamplingError(
                    f"imported.bias: {name} is {'' if periodic else 'not '}periodic in {', '.join(self.files)} and "
                    f"{'' if run.periodic[name] else 'not '}in the system; is it the same variable?"
                )
        return function


class HillsBias(_FunctionBias):
    """The hills of metadynamics, summed on a grid, as the bias of frames that were run under all of them."""

    type: Literal["hills"]
    frozen: bool = False
    """Whether they are of an earlier run, after which the bias stayed as it was."""
    grid_range: dict[Name, tuple[float, float]] = Field(default_factory=dict)
    """Range of the grid for collective variables that are not angles; by default what the hills reach."""

    def of(self, run: Run) -> FrozenBias:
        """All hills; of a run that laid them itself, those after its first frame may change the bias little only."""
        paths, notes = self._found(run)
        hills, found = read_hills(paths, self._energy(run), LENGTH_UNITS[self.length_unit], TIME_UNITS[self.time_unit])
        first = max(self.since, min(float(times.min()) for times in run.times))
        drift = 0.0 if self.frozen else hills.drift(first)
        if drift > run.thermal_energy:
            raise SamplingError(
                f"imported.bias: hills after {first:g} ps change the bias by {drift:.3g} kJ/mol (standard deviation, "
                f"kT is {run.thermal_energy:.3g}): it was still being built; set bias.start to a time after the "
                "filling, or take metad.rbias of COLVAR; if the hills are of an earlier run, set bias.frozen to true"
            )
        function = self._checked(run, hills_bias(hills, self.variables, self.grid_range))
        notes += [*found, f"bias: {len(hills.time)} hills; those after {first:g} ps change it by {drift:.3g} kJ/mol"]
        return FrozenBias(function, paths, notes, run.times, self.since)


class GridFileBias(_FunctionBias):
    """A bias on a grid that stayed as it was (EXTERNAL, or the grid that metadynamics wrote last)."""

    type: Literal["grid"]

    def of(self, run: Run) -> FrozenBias:
        """The grid."""
        paths, notes = self._found(run)
        if len(paths) != 1:
            raise SamplingError(f"imported.bias.files: {len(paths)} grids; the trajectories were run under one")
        grid = read_grid_bias(paths[0], self.variables, self._energy(run), LENGTH_UNITS[self.length_unit])
        return FrozenBias(self._checked(run, grid), paths, notes, run.times, self.since)


def undeclared_bias(trajectories: Sequence[Path]) -> str:
    """Which file next to the trajectories shows that they were biased, in a sentence; empty where none does."""
    for folder in dict.fromkeys(path.parent for path in trajectories):
        for path in sorted(folder.iterdir()):
            if path in trajectories or not path.is_file() or path.stat().st_size > 1 << 30:
                continue
            if path.suffix == ".dat" and "plumed" in path.name.lower():
                words = [line.split("#")[0].upper() for line in _head(path, 1000)]
                if any(action in line for action in _ACTIONS for line in words):
                    return f"{path} is a PLUMED input with a bias"
            header = next(iter(_head(path, 1)), "")
            if header.startswith("#! FIELDS"):
                names = header.split()[2:]
                if any(name.endswith((".bias", ".rbias")) for name in names) or {"height", "biasf"} <= set(names):
                    return f"{path} holds a bias (columns {', '.join(names)})"
    return ""


def _head(path: Path, lines: int) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        return [file.readline(500) for _ in range(lines)]
