"""Biases from PLUMED's files, hills of metadynamics and grids, as the frozen bias on a grid of this project."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.deposited import NODES_PER_WIDTH
from cg_assets.biases.grid import GridBias
from cg_assets.biases.plumed_files import PlumedTable, is_backup, read_plumed
from cg_assets.core.errors import SamplingError

FloatArray = NDArray[np.float64]

_CUT = 6.25
"""Half the squared distance in widths beyond which PLUMED's Gaussians are zero."""
_MOST_NODES = 1_000_000


@dataclass(frozen=True)
class Hills:
    """Hills of metadynamics, in the order of time.

    Attributes:
        names: of the variables, in PLUMED's words.
        periods: of each variable; None where it is not periodic.
        time: `(n,)` [ps].
        centers: `(n, n_variables)` [rad or nm].
        precision: `(n, n_variables, n_variables)` inverse covariance of each Gaussian.
        heights: `(n,)` of the bias [kJ/mol], the factor of well-tempered files removed.
        stretched: whether Gaussians are stretched so that they end at zero (kerneltype stretched-gaussian).
    """

    names: tuple[str, ...]
    periods: tuple[float | None, ...]
    time: FloatArray
    centers: FloatArray
    precision: FloatArray
    heights: FloatArray
    stretched: bool

    def energy(self, points: FloatArray, since: float = -math.inf) -> FloatArray:
        """Sum `(m,)` [kJ/mol] of the hills later than a time, at points `(m, n_variables)`."""
        energy = np.zeros(len(points))
        scale = 1.0 / -math.expm1(-_CUT) if self.stretched else 1.0
        offset = math.exp(-_CUT) if self.stretched else 0.0
        for number in np.flatnonzero(self.time > since):
            difference = points - self.centers[number]
            for axis, period in enumerate(self.periods):
                if period is not None:
                    difference[:, axis] -= period * np.round(difference[:, axis] / period)
            half = 0.5 * np.einsum("mi,ij,mj->m", difference, self.precision[number], difference)
            energy += np.where(half < _CUT, self.heights[number] * scale * (np.exp(-half) - offset), 0.0)
        return energy

    def drift(self, since: float) -> float:
        """Standard deviation [kJ/mol] of the bias built after a time, over the places where it was built."""
        late = self.centers[self.time > since]
        return float(self.energy(late, since).std()) if len(late) else 0.0

    def widths(self) -> FloatArray:
        """Smallest standard deviation `(n_variables,)` of a Gaussian along each variable, the others held."""
        return 1.0 / np.sqrt(np.diagonal(self.precision, axis1=1, axis2=2).max(axis=0))


def read_hills(
    paths: Sequence[Path], energy: float = 1.0, length: float = 1.0, time: float = 1.0
) -> tuple[Hills, list[str]]:
    """The hills of a run or of all its walkers.

    Heights of well-tempered runs are stored times gamma/(gamma - 1), so that their negative sum is the free energy;
    this factor is removed (PLUMED, METAD). Where a restart lays hills again from an earlier time on, a file's earlier
    hills of these times count no longer.

    Args:
        paths: files `HILLS`, one for each walker.
        energy: unit of energy of the files [kJ/mol].
        length: unit of lengths of the files [nm].
        time: unit of time of the files [ps].

    Raises:
        SamplingError: a file cannot be read, lacks a column, or files do not fit each other.
    """
    notes: list[str] = []
    parts: list[Hills] = []
    for path in paths:
        if is_backup(path):
            notes.append(f"{path}: a backup of an earlier run, left out; name it alone to use it")
            continue
        tables, found = read_plumed(path)
        notes += found
        own: list[Hills] = []
        for table in tables:
            part = _hills(table, energy, length, time)
            dropped = sum(int((before.time >= part.time[0]).sum()) for before in own)
            if dropped:
                notes.append(f"{path}, line {table.lines[0]}: a restart lays {dropped} hills again; the later count")
            own = [_chosen(before, before.time < part.time[0]) for before in own] + [part]
        parts += own
    if not parts:
        raise SamplingError(f"no file of hills among {', '.join(map(str, paths))}")
    first = parts[0]
    for part in parts[1:]:
        if (part.names, part.periods, part.stretched) != (first.names, first.periods, first.stretched):
            raise SamplingError(
                f"hills of {part.names} with periods {part.periods} and of {first.names} with {first.periods} (or of "
                "other kernels) cannot be summed; name the files of one bias"
            )
    together = replace(
        first,
        time=np.concatenate([part.time for part in parts]),
        centers=np.concatenate([part.centers for part in parts]),
        precision=np.concatenate([part.precision for part in parts]),
        heights=np.concatenate([part.heights for part in parts]),
    )
    return _chosen(together, np.argsort(together.time, kind="stable")), notes


def _chosen(hills: Hills, index: NDArray) -> Hills:
    return replace(
        hills,
        time=hills.time[index],
        centers=hills.centers[index],
        precision=hills.precision[index],
        heights=hills.heights[index],
    )


def _hills(table: PlumedTable, energy: float, length: float, time: float) -> Hills:
    sigmas = [name for name in table.fields if name.startswith("sigma_")]
    if "height" not in table.fields or not sigmas or table.fields[0] != "time":
        raise SamplingError(f"{table.path}: columns {', '.join(table.fields)} are not those of hills (METAD)")
    names = table.fields[1 : table.fields.index(sigmas[0])]
    periods = tuple(_period(table, name) for name in names)
    units = np.array([length if period is None else 1.0 for period in periods])
    kernel = table.constants.get("kerneltype", "gaussian")
    if kernel not in ("gaussian", "stretched-gaussian"):
        raise SamplingError(f"{table.path}: kerneltype {kernel} is not known; gaussian and stretched-gaussian are")
    if interval := [name for name in ("lower_int", "upper_int") if name in table.constants]:
        raise SamplingError(f"{table.path}: hills with {' and '.join(interval)} (INTERVAL) are not read; give its grid")
    factor = table.column("biasf") if "biasf" in table.fields else np.full(len(table.rows), -1.0)
    # 1 is plain metadynamics in files before PLUMED 2.4, -1 since; since then 1 also means "no bias, only -F stored"
    scale = np.where(factor > 1.0, (factor - 1.0) / np.where(factor > 1.0, factor, 1.0), 1.0)
    centers = np.stack([table.column(name) for name in names], axis=1)
    lower = np.zeros((len(table.rows), len(names), len(names)))
    if table.constants.get("multivariate", "false") == "true":
        for row, first in enumerate(names):
            for column, second in enumerate(names[: row + 1]):
                lower[:, row, column] = table.column(f"sigma_{first}_{second}")
    else:
        for row, name in enumerate(names):
            lower[:, row, row] = table.column(f"sigma_{name}")
    lower *= units[:, None]
    if (np.diagonal(lower, axis1=1, axis2=2) <= 0.0).any():
        raise SamplingError(f"{table.path}: a hill has a width of zero or less; write the file again")
    inverse = np.linalg.inv(lower)
    return Hills(
        names,
        periods,
        table.column("time") * time,
        centers * units,
        np.swapaxes(inverse, 1, 2) @ inverse,
        table.column("height") * scale * energy,
        kernel == "stretched-gaussian",
    )


def _period(table: PlumedTable, name: str) -> float | None:
    limits = table.limits(name)
    if limits is None or table.constants.get(f"periodic_{name}", "true") == "false":
        return None
    if not math.isclose(limits[1] - limits[0], 2 * math.pi, rel_tol=1e-6):
        raise SamplingError(
            f"{table.path}: {name} has the period {limits[1] - limits[0]:g}; only angles in radians are periodic here"
        )
    return 2 * math.pi


def hills_bias(hills: Hills, variables: Mapping[str, str], ranges: Mapping[str, tuple[float, float]]) -> GridBias:
    """The sum of hills on a grid of at least five nodes a width, which the spline joins.

    Args:
        hills: of one or two variables.
        variables: name in PLUMED to that of the system's collective variable.
        ranges: limits of variables that are not periodic, by the names of the system.

    Raises:
        SamplingError: more than two variables, a range is missing, or the grid would be too large.
    """
    if len(hills.names) > 2:
        raise SamplingError(f"hills of {', '.join(hills.names)}: one or two variables can be used; give COLVAR instead")
    mine = [variables.get(name, name) for name in hills.names]
    limits, nodes = [], []
    for name, period, width, column in zip(mine, hills.periods, hills.widths(), hills.centers.T, strict=True):
        low, high = (
            (-math.pi, math.pi) if period else ranges.get(name, (column.min() - 4 * width, column.max() + 4 * width))
        )
        count = max(24, math.ceil(NODES_PER_WIDTH * (high - low) / width))
        limits.append((float(low), float(high)))
        nodes.append(np.linspace(low, high, count if period else count + 1, endpoint=not period))
    if math.prod(map(len, nodes)) > _MOST_NODES:
        raise SamplingError(
            f"a grid for hills as narrow as {hills.widths()} would have too many nodes; give their grid"
        )
    points = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
    values = hills.energy(points.reshape(-1, len(mine))).reshape(points.shape[:-1])
    return GridBias(mine, limits, [period is not None for period in hills.periods], values)


def read_grid_bias(path: Path, variables: Mapping[str, str], energy: float = 1.0, length: float = 1.0) -> GridBias:
    """The bias of a grid file (GRID_WFILE, EXTERNAL), the last of the file where there are several.

    The first variable runs fastest; `nbins` counts nodes along a periodic variable and intervals along others.
    Derivatives are not used: the spline through the values has its own.

    Args:
        path: of the file.
        variables: name in PLUMED to that of the system's collective variable.
        energy: unit of energy of the file [kJ/mol].
        length: unit of lengths of the file [nm].

    Raises:
        SamplingError: it is no grid of one or two variables, or lines are missing.
    """
    tables, _ = read_plumed(path)
    table = tables[-1]
    names = [name for name in table.fields if f"nbins_{name}" in table.constants]
    if len(names) not in (1, 2) or len(table.fields) <= len(names) or tuple(names) != table.fields[: len(names)]:
        raise SamplingError(f"{path}: is no grid of one or two variables; its header needs `#! SET nbins_...` of each")
    limits, periodic, shape = [], [], []
    for name in names:
        found, flag = table.limits(name), table.constants.get(f"periodic_{name}")
        text = table.constants[f"nbins_{name}"]
        if found is None or flag not in ("true", "false") or not text.isdigit():
            raise SamplingError(f"{path}: the header needs min_, max_, nbins_ and periodic_ of {name}")
        is_periodic = flag == "true"
        unit = 1.0 if is_periodic else length
        limits.append((found[0] * unit, found[1] * unit))
        periodic.append(is_periodic)
        shape.append(int(text) + (not is_periodic))
    if len(table.rows) != math.prod(shape):
        raise SamplingError(
            f"{path}: has {len(table.rows)} nodes where its header gives {shape}; it was cut, write it again"
        )
    _check_nodes(table, names, shape, limits, length)
    values = table.column(table.fields[len(names)]).reshape(shape[::-1]).T * energy
    return GridBias([variables.get(name, name) for name in names], limits, periodic, values)


def _check_nodes(
    table: PlumedTable, names: list[str], shape: list[int], limits: list[tuple[float, float]], length: float
) -> None:
    """Refuse nodes that are not where the header puts them: another order, or another number of bins."""
    for axis, (name, (low, high)) in enumerate(zip(names, limits, strict=True)):
        periodic = _period(table, name) is not None
        unit = 1.0 if periodic else length
        nodes = np.linspace(low, high, shape[axis], endpoint=not periodic)
        steps = [1] * len(shape)
        steps[-1 - axis] = -1
        places = table.column(name).reshape(shape[::-1]) * unit
        if np.abs(places - nodes.reshape(steps)).max() > 1e-3 * (nodes[1] - nodes[0]):
            raise SamplingError(
                f"{table.path}: nodes along {name} are not where min, max and nbins put them, the first variable "
                "running fastest; write the grid with PLUMED"
            )
