"""Bond lengths, angles and distances over an angle: how their distributions differ between two sets of frames.

Of a model potential, whose beads are coordinates, these are the coordinates themselves, their sums and differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.metrics import histograms, jensen_shannon_divergences

FloatArray = NDArray[np.float64]
_BINS = 60
_MOST_PAIRED = 20
"""Beads of which all pairs are taken where none is bonded; of more, neighbours in order."""
_COORDINATE_BINS = 200
"""A coordinate of a model potential may be stiff in each of several basins far apart."""


@dataclass(frozen=True)
class LocalGeometry:
    """Distributions of local coordinates in some frames against those in the data.

    Attributes:
        names: of each coordinate, its beads joined by dashes.
        kinds: `bond`, `angle`, `1-3 distance`, `pair distance` (where no beads are bonded) or `coordinate` of each.
        divergence: `(n,)` Jensen-Shannon divergences (natural logarithm).
        own: `(n,)` those of the first half of the data from the second: what sampling alone does.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    divergence: FloatArray
    own: FloatArray

    def rows(self) -> list[dict[str, str]]:
        """Mean and largest divergence of each kind, as rows of a table."""
        rows = []
        for kind in dict.fromkeys(self.kinds):
            of_kind = np.array([item == kind for item in self.kinds])
            worst = int(np.flatnonzero(of_kind)[np.argmax(self.divergence[of_kind])])
            rows.append(
                {
                    "coordinate": f"{kind}s ({int(of_kind.sum())})",
                    "mean JSD": f"{self.divergence[of_kind].mean():.2g}",
                    "largest JSD": f"{self.divergence[worst]:.2g} ({self.names[worst]})",
                    "halves of the data": f"{self.own[of_kind].mean():.2g}",
                }
            )
        return rows

    def largest(self, *kinds: str) -> float:
        """Largest divergence of some kinds; 0 where there are none."""
        return max(
            (float(d) for d, kind in zip(self.divergence, self.kinds, strict=True) if kind in kinds), default=0.0
        )


def local_geometry(
    positions: ArrayLike,
    data: ArrayLike,
    bonds: Sequence[tuple[int, int]],
    bead_names: Sequence[str],
    weights: FloatArray | None = None,
) -> LocalGeometry:
    """Compare bonds, angles and 1-3 distances of frames with those of the data; distances of pairs without bonds.

    Args:
        positions: `(n_frames, n_beads, 3)` [nm], or `(n_frames, n_beads, 1)` of a model potential.
        data: the same of the data, in order of time.
        bonds: pairs of bonded beads.
        bead_names: of all beads.
        weights: `(n_data_frames,)` that remove a bias from the data; None for equal ones.
    """
    neighbours: dict[int, list[int]] = {}
    for i, j in bonds:
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    angles = [(i, k, j) for k in sorted(neighbours) for i in sorted(neighbours[k]) for j in neighbours[k] if i < j]
    frames, true_frames = (np.asarray(item, dtype=np.float64) for item in (positions, data))
    flat, number = frames.shape[2] == 1, len(bead_names)
    pairs = list(bonds) or [
        pair for pair in combinations(range(number), 2) if number <= _MOST_PAIRED or pair[1] - pair[0] == 1
    ]
    mine, true = (_values(item, pairs, angles) for item in (frames, true_frames))
    mean, deviation = true.mean(axis=1), np.maximum(true.std(axis=1), 1e-6)
    edges = mean[:, None] + deviation[:, None] * np.linspace(-5.0, 5.0, (_COORDINATE_BINS if flat else _BINS) + 1)
    half = true.shape[1] // 2
    found, reference, first, second = (
        histograms(values, edges, own)
        for values, own in (
            (mine, None),
            (true, weights),
            (true[:, :half], None if weights is None else weights[:half]),
            (true[:, half:], None if weights is None else weights[half:]),
        )
    )
    members = [*pairs, *angles, *((i, j) for i, _, j in angles)]
    names = [" - ".join(bead_names[bead] for bead in beads) for beads in members]
    kinds = (
        ["bond" if bonds else "pair distance"] * len(pairs) + ["angle"] * len(angles) + ["1-3 distance"] * len(angles)
    )
    if flat:
        names = [*bead_names, *(f"{a} {sign} {b}" for a, b in combinations(bead_names, 2) for sign in "+-")]
        kinds = ["coordinate"] * len(names)
    return LocalGeometry(
        names=tuple(names),
        kinds=tuple(kinds),
        divergence=jensen_shannon_divergences(found, reference),
        own=jensen_shannon_divergences(first, second),
    )


def _values(points: FloatArray, pairs: Sequence[tuple[int, int]], angles: list[tuple[int, int, int]]) -> FloatArray:
    """All local coordinates `(n, n_frames)`."""
    if points.shape[2] == 1:
        single = points[:, :, 0].T
        return np.stack([*single, *(a + sign * b for a, b in combinations(single, 2) for sign in (1.0, -1.0))])
    rows = [np.linalg.norm(points[:, i] - points[:, j], axis=1) for i, j in pairs]
    for i, k, j in angles:
        one, two = points[:, i] - points[:, k], points[:, j] - points[:, k]
        cosine = np.einsum("fd,fd->f", one, two) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        rows.append(np.arccos(np.clip(cosine, -1.0, 1.0)))
    rows += [np.linalg.norm(points[:, i] - points[:, j], axis=1) for i, _, j in angles]
    return np.stack(rows)
