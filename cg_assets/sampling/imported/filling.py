"""Whether a bias was still being built while frames were taken, and whether two runs had the same."""

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
    changes, spread = _changes(_scaled(places, limits), bias, first, last)
    if len(changes) < _FEWEST or abs(rise := float(np.median(changes))) <= max(0.5 * kt, 2.0 * spread):
        return ""
    return f"at the same {', '.join(names)} changes by {rise / kt:.2g} kT from the first to the last third of the run"


def difference_fault(
    names: Sequence[str],
    limits: Sequence[tuple[float, float] | None],
    one: tuple[FloatArray, FloatArray],
    other: tuple[FloatArray, FloatArray],
    kt: float,
) -> str | None:
    """How much the biases of two runs differ at the same places, in words; empty where they do not.

    None where the runs share too few places to compare.

    Args:
        names: of the variables.
        limits: range of each that is periodic; None for others.
        one: `(n, n_variables)` values of the variables and `(n,)` energies there [kJ/mol].
        other: those of the other run.
        kt: thermal energy [kJ/mol].
    """
    if not names:
        return None
    places, bias = (np.concatenate(parts) for parts in zip(one, other, strict=True))
    count = len(one[1])
    every = -(-max(count, len(bias) - count) // _MOST)
    changes, spread = _changes(_scaled(places, limits), bias, slice(0, count, every), slice(count, None, every))
    if len(changes) < _FEWEST:
        return None
    if (apart := float(np.median(np.abs(changes)))) <= max(0.5 * kt, 2.0 * spread):
        return ""
    return f"differ by {apart / kt:.2g} kT at the same {', '.join(names)}"


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


def _changes(places: FloatArray, bias: FloatArray, first: slice, last: slice) -> tuple[FloatArray, float]:
    """Changes of the bias from one part to the other at near places, and its median difference between neighbours."""
    from scipy.spatial import cKDTree

    tree = cKDTree(places[first])
    apart, own = tree.query(places[first], k=2)
    distance, nearest = tree.query(places[last])
    near = distance <= np.median(apart[:, 1])
    spread = float(np.median(np.abs(bias[first] - bias[first][own[:, 1]])))
    return (bias[last] - bias[first][nearest])[near], spread
