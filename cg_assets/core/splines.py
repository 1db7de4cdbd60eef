"""One cubic spline over regular grids of one or two variables, for arrays of NumPy and of torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_KIND, _SIDE = [0, 0, 1, 1], [0, 1, 0, 1]
"""Of the four numbers that make a cubic: node value (0) or slope (1), at the left (0) or right (1) end of the cell."""


class GridSpline:
    """A natural or periodic cubic spline through values on a grid, twice continuously differentiable.

    It is the spline that OpenMM's `Continuous1DFunction` and `Continuous2DFunction` fit to the same nodes. Outside the
    limits of a variable that is not periodic it keeps its value at the limit.

    Attributes:
        limits: lower and upper limit of each variable. Nodes lie at both; at the lower one only of a periodic variable.
        periodic: whether each variable is periodic over its limits.
        values: `(n,)` or `(n, m)` node values.
        slopes: `(n,)` slopes of the spline at the nodes, per node spacing, of one variable; of two, along the first.
    """

    def __init__(self, limits: Sequence[tuple[float, float]], periodic: Sequence[bool], values: ArrayLike) -> None:
        """Fit the spline."""
        self.limits, self.periodic = list(limits), list(periodic)
        self.values = np.array(values, dtype=np.float64)
        self._spacing = [
            (high - low) / (size if flag else size - 1)
            for (low, high), size, flag in zip(self.limits, self.values.shape, self.periodic, strict=True)
        ]
        matrices = [slope_matrix(size, flag) for size, flag in zip(self.values.shape, self.periodic, strict=True)]
        self.slopes = matrices[0] @ self.values
        along_first = np.stack([self.values, self.slopes])
        # indexed by value or slope along each variable, then by the nodes
        self._tables: Any = along_first
        if len(matrices) == 2:
            self._tables = np.stack([along_first, along_first @ matrices[1].T], axis=1)
        self._arrays: Any = np
        self._kind: Any = np.array(_KIND)
        self._compiled: Any = None  # the tables of a spline for torch on a CPU

    def on(self, device: Any) -> Self:
        """The same spline for torch tensors on a device."""
        import torch

        moved = copy.copy(self)
        moved._arrays = torch
        moved._tables = torch.as_tensor(np.ascontiguousarray(self._tables)).to(device)
        moved._kind = torch.tensor(_KIND, device=device)
        if moved._tables.device.type == "cpu":
            from cg_assets.core.compiled_rows import tables_of_rows

            moved._compiled = tables_of_rows(self._tables)
        return moved

    def __call__(self, columns: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Values `(n,)` and derivatives `(n,)` by each variable, for columns `(n,)` of the variables in float64."""
        arrays, places, scales = self._arrays, [], []
        for (low, _), size, flag, spacing, column in zip(
            self.limits, self.values.shape, self.periodic, self._spacing, columns, strict=True
        ):
            place, inside = (column - low) / spacing, 1.0
            if not flag:
                inside = arrays.asarray((place >= 0.0) & (place <= size - 1), dtype=arrays.float64)
                place = arrays.clip(place, 0.0, size - 1)
            places.append(place)
            scales.append(inside / spacing)
        value, slopes = self.at(places)
        return value, [slope * scale for slope, scale in zip(slopes, scales, strict=True)]

    def at(self, places: Sequence[Any]) -> tuple[Any, list[Any]]:
        """As `__call__`, with places `(n,)` and derivatives in units of the node spacing; places lie on the grid."""
        if self._compiled is not None:
            from cg_assets.core.compiled_rows import cubic

            return cubic(self._compiled, places, self.periodic)
        nodes, values, slopes = zip(*(self._cell(axis, place) for axis, place in enumerate(places)), strict=True)
        if len(nodes) == 1:
            table = self._tables[self._kind[:, None], nodes[0]]
            return (values[0] * table).sum(0), [(slopes[0] * table).sum(0)]
        table = self._tables[self._kind[:, None, None], self._kind[:, None], nodes[0][:, None], nodes[1]]
        along_second = (values[1] * table).sum(1)
        by_second = (slopes[1] * table).sum(1)
        value = (values[0] * along_second).sum(0)
        return value, [(slopes[0] * along_second).sum(0), (values[0] * by_second).sum(0)]

    def _cell(self, axis: int, place: Any) -> tuple[Any, Any, Any]:
        """Nodes `(4, n)` of the numbers that make the cubic at each place, and their weights in value and slope."""
        arrays, size = self._arrays, self.values.shape[axis]
        place = arrays.remainder(place, size) if self.periodic[axis] else place
        left = arrays.clip(arrays.floor(place), 0, size - 1 if self.periodic[axis] else size - 2)
        t = place - left
        left = arrays.asarray(left, dtype=arrays.int64)
        ends = (left, (left + 1) % size)
        values = arrays.stack([(1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t), t * (1 - t) ** 2, t * t * (t - 1)])
        slopes = arrays.stack([6 * t * (t - 1), 6 * t * (1 - t), (1 - t) * (1 - 3 * t), t * (3 * t - 2)])
        return arrays.stack([ends[side] for side in _SIDE]), values, slopes

    def slope_parabolas(self) -> FloatArray:
        """Of one variable that is not periodic: `(n - 1, 3)` coefficients of 1, t and t² of the slope in each cell.

        t is the fraction of the cell, the slope that per node spacing.
        """
        rise, first, last = np.diff(self.values), self.slopes[:-1], self.slopes[1:]
        return np.stack([first, 2 * (3 * rise - 2 * first - last), 3 * (first + last - 2 * rise)], axis=1)


@lru_cache(maxsize=16)
def slope_matrix(size: int, periodic: bool) -> FloatArray:
    """Matrix `(size, size)` from node values to the slopes of their cubic spline, per node spacing.

    Natural spline (no curvature at the ends), or periodic.
    """
    nodes = np.arange(size)
    left, right = np.zeros((size, size)), np.zeros((size, size))
    left[nodes, nodes] = 4.0
    for shift, sign in ((1, 3.0), (-1, -3.0)):
        neighbour = (nodes + shift) % size
        left[nodes, neighbour] += 1.0
        right[nodes, neighbour] += sign
    if not periodic:
        for end, inner, sign in ((0, 1, 1.0), (size - 1, size - 2, -1.0)):
            left[end], right[end] = 0.0, 0.0
            left[end, [end, inner]] = 2.0, 1.0
            right[end, [end, inner]] = -3.0 * sign, 3.0 * sign
    matrix = np.linalg.solve(left, right).astype(np.float64)
    matrix.setflags(write=False)
    return matrix
