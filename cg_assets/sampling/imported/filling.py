"""Whether a bias was still being built while frames were taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_MOST, _FEWEST = 2000, 20
"""Lines of each part that are compared, at most and at least."""


def filling_fault(
    names: Sequence[str], limits: Sequence[tuple[float, float] | None], places: FloatArray, bias: FloatArray, kt: float
) -> str:
    """How much a bias changed at the same places, in words; empty where nothing shows that it was not frozen.

    Each line of the last third is compared with the line of the first third that is nearest, if that is as near as
    neighbours within the first third are.

    Args:
        names: of the variables.
        limits: range of each that is periodic; None for others.
        places: `(n, n_variables)` values of the variables, in the order of time.
        bias: `(n,)` energies there [kJ/mol].
        kt: thermal energy [kJ/mol].
    """
    third = len(bias) // 3
    if not names or third < _FEWEST:
        return ""
    every = -(-third // _MOST)
    first, last = slice(0, third, every), slice(len(bias) - third, None, every)
    found = _rise(_scaled(places, limits), bias, first, last)
    if found is None or abs(found[0]) <= max(0.5 * kt, 2.0 * found[1]):
        return ""
    return (
        f"at the same {', '.join(names)} changes by {found[0] / kt:.2g} kT from the first to the last third of the run"
    )


def _scaled(places: FloatArray, limits: Sequence[tuple[float, float] | None]) -> FloatArray:
    """Variables `(n, m)` in which distances make sense: cosine and sine of angles, others by their spread."""
    parts = []
    for values, ends in zip(places.T, limits, strict=True):
        if ends is not None:
            angle = 2 * np.pi * (values - ends[0]) / (ends[1] - ends[0])
            parts += [np.cos(angle), np.sin(angle)]
        else:
            parts.append(values / (float(values.std()) or 1.0))
    return np.stack(parts, axis=1)


def _rise(places: FloatArray, bias: FloatArray, first: slice, last: slice) -> tuple[float, float] | None:
    """Median change of the bias, and its median difference between neighbours; None with too few near pairs."""
    from scipy.spatial import cKDTree

    tree = cKDTree(places[first])
    apart, own = tree.query(places[first], k=2)
    distance, nearest = tree.query(places[last])
    near = distance <= np.median(apart[:, 1])
    if near.sum() < _FEWEST:
        return None
    spread = float(np.median(np.abs(bias[first] - bias[first][own[:, 1]])))
    return float(np.median((bias[last] - bias[first][nearest])[near])), spread
