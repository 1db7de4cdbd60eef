"""Whether two trajectories are one: the same run in two formats, at other times, or turned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FRAMES = 3
"""Consecutive frames that are compared, after the first: replicas may start from one structure."""
_DISTANCES, _FEWEST, _CLEAR = 16, 8, 5.0
"""Distances of a frame that are compared, at most and at least, and how far they change between the frames at least,
relative to the tolerance: a molecule that hardly moved looks alike in every replica."""


def repeated(frames: Sequence[NDArray[np.floating]], groups: NDArray[np.int64], grid: float) -> tuple[int, int] | None:
    """Numbers of two trajectories whose frames are the same; None where all differ.

    Args:
        frames: of each trajectory `(FRAMES, n_atoms, 3)` [nm].
        groups: `(n_atoms,)` the molecule of each atom.
        grid: to which coordinates are rounded [nm], 0 if they are not.
    """
    from scipy.spatial import cKDTree

    lag = max(1, min(7, len(groups) // 3))
    first = np.flatnonzero(groups[lag:] == groups[:-lag])
    if len(first) < _FEWEST or len(frames) < 2:
        return None
    first = first[np.unique(np.linspace(0, len(first) - 1, _DISTANCES).astype(int))]
    places = np.stack([part[:, first + lag] - part[:, first] for part in frames])
    distances = np.linalg.norm(places, axis=-1)
    tolerance = 0.002 + 2 * grid
    moved = np.flatnonzero((np.ptp(distances, axis=1) > _CLEAR * tolerance).any(axis=1))
    tree = cKDTree(distances[moved].reshape(len(moved), -1))
    pairs = tree.query_pairs(tolerance, p=np.inf)
    return tuple(moved[list(min(pairs))].tolist()) if pairs else None
