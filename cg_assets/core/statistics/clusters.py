"""Means per bin of a collective variable from correlated frames, with errors from independent clusters of frames.

A cluster is a replica, or a stretch of time of one. The mean of a bin is a ratio of two cluster totals, so cluster c
moves it by its influence e_c = (S_c - N_c m) / N, and the covariance of any two bins is the sum of products of their
influences (linearised ratio estimator; W. G. Cochran, Sampling Techniques, chapter 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import FEW_REPLICAS, autocorrelation_time, time_blocks

if TYPE_CHECKING:
    from scipy import sparse

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BLOCK_LENGTH = 10.0
"""Length of a block of time in integrated autocorrelation times."""


@dataclass(frozen=True)
class Bins:
    """A rectangular grid of bins over one or two collective variables.

    Attributes:
        edges: edges `(n_bins_i + 1,)` along each variable.
    """

    edges: tuple[FloatArray, ...]

    @classmethod
    def between(cls, limits: ArrayLike, n_bins: int | tuple[int, ...]) -> Bins:
        """Equal bins between limits `(n_variables, 2)`; one number of bins serves all variables."""
        pairs = np.atleast_2d(np.asarray(limits, dtype=np.float64))
        counts = (n_bins,) * len(pairs) if isinstance(n_bins, int) else tuple(n_bins)
        return cls(
            tuple(
                np.linspace(float(low), float(high), count + 1)
                for (low, high), count in zip(pairs, counts, strict=True)
            )
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of bins along each variable."""
        return tuple(len(edge) - 1 for edge in self.edges)

    @property
    def size(self) -> int:
        """Number of bins."""
        return int(np.prod(self.shape))

    @property
    def centres(self) -> tuple[FloatArray, ...]:
        """Centres of the bins along each variable."""
        return tuple(0.5 * (edge[1:] + edge[:-1]) for edge in self.edges)

    def locate(self, values: ArrayLike) -> tuple[IntArray, FloatArray]:
        """Flat bin index `(n,)`, -1 outside, and offset from the bin's centre `(n, n_variables)`."""
        points = as_columns(values)
        index, inside = np.zeros(len(points), dtype=np.int64), np.ones(len(points), dtype=bool)
        offset = np.empty_like(points)
        for axis, edge in enumerate(self.edges):
            column = points[:, axis]
            cell = np.searchsorted(edge, column, side="right") - 1
            cell[column == edge[-1]] = len(edge) - 2
            inside &= (cell >= 0) & (cell < len(edge) - 1)
            cell = np.clip(cell, 0, len(edge) - 2)
            offset[:, axis] = column - self.centres[axis][cell]
            index = index * (len(edge) - 1) + cell
        return np.where(inside, index, -1), offset


def as_columns(values: ArrayLike) -> FloatArray:
    """`(n,)` or `(n, k)` as `(n, k)` in double precision."""
    array = np.asarray(values, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array


def cluster_frames(
    replica: ArrayLike,
    time: ArrayLike | None,
    residual: FloatArray,
    few_replicas: int = FEW_REPLICAS,
    group: ArrayLike | None = None,
) -> IntArray:
    """Number the independent clusters: replicas, or blocks of `BLOCK_LENGTH` autocorrelation times where they are few.

    Args:
        replica: `(n_frames,)`.
        time: `(n_frames,)`; None takes the frames of a replica to be in order.
        residual: `(n_frames, k)` what is averaged, less its bin's mean; its autocorrelation time sets the blocks.
        few_replicas: a group of fewer replicas than this is cut into blocks.
        group: `(n_frames,)` groups whose replicas are counted separately; None for one group.

    Returns:
        `(n_frames,)` cluster numbers 0, 1, ...
    """
    replica = np.asarray(replica)
    groups = np.zeros(len(replica), dtype=np.int64) if group is None else np.unique(group, return_inverse=True)[1]
    member = np.unique(replica, return_inverse=True)[1].astype(np.int64)
    piece = np.zeros(len(replica), dtype=np.int64)
    series: list[IntArray] = []
    for number in range(int(groups.max(initial=-1)) + 1):
        rows = np.flatnonzero(groups == number)
        if len(np.unique(member[rows])) >= few_replicas:
            continue
        moment = np.arange(len(rows)) if time is None else np.asarray(time)[rows]
        order = rows[np.lexsort((moment, member[rows]))]
        lengths = np.bincount(member[order])
        lengths = lengths[lengths > 0]
        series += np.split(order, np.cumsum(lengths)[:-1])
    if series:
        times = [autocorrelation_time(residual[rows].T) for rows in series]
        block = int(np.ceil(BLOCK_LENGTH * np.average(times, weights=[len(rows) for rows in series])))
        for rows in series:
            piece[rows] = time_blocks(np.zeros(len(rows), dtype=np.int64), None, max(1, len(rows) // block))
    return np.unique(member * (int(piece.max(initial=0)) + 1) + piece, return_inverse=True)[1]


@dataclass(frozen=True)
class BinnedMeans:
    """Means per bin with the influence of each cluster.

    Attributes:
        count: `(n_bins,)` frames.
        mean: `(n_components, n_bins)`; nan in empty bins.
        influence: sparse `(n_clusters, n_components * n_bins)`, with the factor for the finite number of clusters; a
            cluster influences only the bins that it visits.
        clusters: `(n_bins,)` effective number of clusters, (Σ N_c)² / Σ N_c².
    """

    count: FloatArray
    mean: FloatArray
    influence: sparse.csr_array
    clusters: FloatArray

    @property
    def variance(self) -> FloatArray:
        """Squared standard errors `(n_components, n_bins)`; nan where fewer than two clusters meet."""
        return np.where(self.clusters > 1.0 + 1e-9, squared_norms(self.influence).reshape(self.mean.shape), np.nan)


def squared_norms(columns: sparse.csr_array) -> FloatArray:
    """Sum of squares `(m,)` of each column of a sparse `(n, m)`."""
    return np.bincount(columns.indices, columns.data**2, minlength=columns.shape[1]).astype(np.float64)


def binned_means(
    values: FloatArray,
    bin_index: IntArray,
    n_bins: int,
    cluster: IntArray,
    weights: FloatArray | None = None,
    n_clusters: int | None = None,
) -> BinnedMeans:
    """Weighted means `(n_components, n_bins)` of values `(n_frames, n_components)` with their cluster influences.

    Args:
        values: `(n_frames, n_components)`.
        bin_index: `(n_frames,)` flat bin index, negative to leave a frame out.
        n_bins: number of bins.
        cluster: `(n_frames,)` cluster numbers from 0.
        weights: `(n_frames,)`; None for equal weights.
        n_clusters: number of clusters, of which some may have no frame here; None for the largest number plus one.
    """
    from scipy import sparse

    inside = bin_index >= 0
    rows = int(cluster.max(initial=0)) + 1 if n_clusters is None else n_clusters
    weight = np.ones(int(inside.sum())) if weights is None else weights[inside]
    slots, slot = np.unique(cluster[inside] * n_bins + bin_index[inside], return_inverse=True)
    visitor, visited = np.divmod(slots, n_bins)  # which cluster was in which bin
    n_components = values.shape[1]

    def per_slot(column: FloatArray) -> FloatArray:
        return np.bincount(slot, column, minlength=len(slots)).astype(np.float64)

    def per_bin(column: FloatArray) -> FloatArray:
        return np.bincount(visited, column, minlength=n_bins).astype(np.float64)

    share = per_slot(weight)
    count = per_bin(share)
    with np.errstate(invalid="ignore", divide="ignore"):
        clusters = np.nan_to_num(count**2 / per_bin(share**2))
        factor = np.where(clusters > 1.0 + 1e-9, np.sqrt(clusters / (clusters - 1.0)), 1.0)
        sums = np.stack([per_slot(weight * values[inside, component]) for component in range(n_components)])
        mean = np.stack([per_bin(column) for column in sums]) / count
        influence = np.nan_to_num((sums - share * mean[:, visited]) * (factor / count)[visited])
    columns = np.arange(n_components)[:, None] * n_bins + visited
    places = (np.tile(visitor, n_components), columns.ravel())
    matrix = sparse.csr_array((influence.ravel(), places), shape=(rows, n_components * n_bins))
    return BinnedMeans(count, mean, matrix, clusters)


def slopes_inside_bins(
    values: FloatArray, offset: FloatArray, bin_index: IntArray, n_bins: int, group: IntArray | None = None
) -> FloatArray:
    """Slope of each component with the collective variables inside each bin, common to all groups.

    Args:
        values: `(n_frames, n_components)`.
        offset: `(n_frames, n_variables)` distance from the centre of the bin.
        bin_index: `(n_frames,)`, negative to leave a frame out.
        n_bins: number of bins.
        group: `(n_frames,)` groups whose means may differ.

    Returns:
        `(n_components, n_bins, n_variables)`; 0 where a bin holds too few frames.
    """
    inside = bin_index >= 0
    groups = np.zeros(len(values), dtype=np.int64) if group is None else group
    cell = (groups * n_bins + bin_index)[inside]
    n_cells = (int(groups.max(initial=0)) + 1) * n_bins
    count = np.maximum(np.bincount(cell, minlength=n_cells), 1)

    def centred(column: FloatArray) -> FloatArray:
        return column - (np.bincount(cell, column, minlength=n_cells) / count)[cell]

    x = np.stack([centred(column) for column in offset[inside].T])
    y = np.stack([centred(column) for column in values[inside].T])
    n_variables = len(x)
    where = bin_index[inside]
    square = np.empty((n_bins, n_variables, n_variables))
    cross = np.empty((len(y), n_bins, n_variables))
    for i in range(n_variables):
        for j in range(n_variables):
            square[:, i, j] = np.bincount(where, x[i] * x[j], minlength=n_bins)
        for component in range(len(y)):
            cross[component, :, i] = np.bincount(where, x[i] * y[component], minlength=n_bins)
    enough = np.bincount(where, minlength=n_bins) >= 5 * (n_variables + 1)
    ridge = 1e-9 * np.trace(square, axis1=1, axis2=2)[:, None, None] + 1e-300
    square = np.where(enough[:, None, None], square, 0.0) + ridge * np.eye(n_variables)
    return np.where(enough[:, None], np.linalg.solve(square, cross[..., None])[..., 0], 0.0)
