"""Torsions and cubic splines compiled, for tensors of few rows: calls of torch cost more than their arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cg_assets.core.compilation import kept

FloatArray = NDArray[np.float64]


def torsions(points: Tensor, sites: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Angles `(f,)` and gradients `(f, 4, 3)` as `cg_assets.core.geometry.torsion`, of positions in float64."""
    angles, gradients = np.empty(len(points)), np.empty((len(points), 4, 3))
    _torsions(points.contiguous().numpy(), np.array(sites), angles, gradients)
    return torch.from_numpy(angles), torch.from_numpy(gradients)


def tables_of_rows(tables: FloatArray) -> FloatArray:
    """Tables `(2, 2, n, m)` of `cubic` from those of a `GridSpline`; one variable gets another of a single node."""
    if tables.ndim == 2:
        tables = np.stack([tables, np.zeros_like(tables)], axis=1)[..., None]
    return np.ascontiguousarray(tables)


def cubic(tables: FloatArray, places: Sequence[Tensor], wraps: Sequence[bool]) -> tuple[Tensor, list[Tensor]]:
    """Values `(k,)` and derivatives `(k,)` of a spline of one or two variables, as `GridSpline.at`.

    Args:
        tables: `(2, 2, n, m)` of `tables_of_rows`.
        places: `(k,)` of each variable, in units of the node spacing.
        wraps: whether each is periodic.
    """
    columns = [place.contiguous().numpy() for place in places]
    if len(columns) == 1:
        columns, wraps = [*columns, np.zeros_like(columns[0])], [*wraps, True]
    found = np.empty((3, len(columns[0])))
    _cubic(tables, *columns, *wraps, found)
    value, *slopes = torch.from_numpy(found)
    return value, slopes[: len(places)]


@kept(error_model="numpy")
def _torsions(points: Any, sites: Any, angles: Any, gradients: Any) -> None:
    for row in range(points.shape[0]):
        i, j, k, m = points[row, sites[0]], points[row, sites[1]], points[row, sites[2]], points[row, sites[3]]
        fx, fy, fz = i[0] - j[0], i[1] - j[1], i[2] - j[2]
        gx, gy, gz = j[0] - k[0], j[1] - k[1], j[2] - k[2]
        hx, hy, hz = m[0] - k[0], m[1] - k[1], m[2] - k[2]
        ax, ay, az = fy * gz - fz * gy, fz * gx - fx * gz, fx * gy - fy * gx
        bx, by, bz = hy * gz - hz * gy, hz * gx - hx * gz, hx * gy - hy * gx
        square = gx * gx + gy * gy + gz * gz
        length = math.sqrt(square)
        sine = ((by * az - bz * ay) * gx + (bz * ax - bx * az) * gy + (bx * ay - by * ax) * gz) / length
        angles[row] = math.atan2(sine, ax * bx + ay * by + az * bz)
        of_a, of_b = -length / (ax * ax + ay * ay + az * az), length / (bx * bx + by * by + bz * bz)
        along_a, along_b = (fx * gx + fy * gy + fz * gz) / square, (hx * gx + hy * gy + hz * gz) / square
        for axis, (a, b) in enumerate(((ax * of_a, bx * of_b), (ay * of_a, by * of_b), (az * of_a, bz * of_b))):
            gradients[row, 0, axis] = a
            gradients[row, 1, axis] = -a - along_a * a - along_b * b
            gradients[row, 2, axis] = along_a * a + along_b * b - b
            gradients[row, 3, axis] = b


@kept(error_model="numpy")
def _weights(place: float, size: int, wraps: bool, values: Any, slopes: Any) -> Any:
    """The cell of a place: its nodes; weights of value and slope at both are left in the arrays `(2, 2)`."""
    place = place - math.floor(place / size) * size if wraps else place
    left = min(max(math.floor(place), 0), size - 1 if wraps else size - 2)
    t = place - left
    values[0, 0], values[0, 1] = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
    values[1, 0], values[1, 1] = t * (1 - t) ** 2, t * t * (t - 1)
    slopes[0, 0], slopes[0, 1] = 6 * t * (t - 1), 6 * t * (1 - t)
    slopes[1, 0], slopes[1, 1] = (1 - t) * (1 - 3 * t), t * (3 * t - 2)
    return left, (left + 1) % size


@kept(error_model="numpy")
def _cubic(tables: Any, first: Any, second: Any, wraps_first: bool, wraps_second: bool, found: Any) -> None:
    one, one_slopes, two, two_slopes = np.empty((2, 2)), np.empty((2, 2)), np.empty((2, 2)), np.empty((2, 2))
    for row in range(len(first)):
        nodes = _weights(first[row], tables.shape[2], wraps_first, one, one_slopes)
        others = _weights(second[row], tables.shape[3], wraps_second, two, two_slopes)
        value, by_first, by_second = 0.0, 0.0, 0.0
        for kind in range(2):
            for end in range(2):
                along, slope = 0.0, 0.0
                for other_kind in range(2):
                    for other_end in range(2):
                        entry = tables[kind, other_kind, nodes[end], others[other_end]]
                        along += two[other_kind, other_end] * entry
                        slope += two_slopes[other_kind, other_end] * entry
                value += one[kind, end] * along
                by_first += one_slopes[kind, end] * along
                by_second += one[kind, end] * slope
        found[0, row], found[1, row], found[2, row] = value, by_first, by_second
