"""Differences of two sides' mean forces in bins, and in regions of bins that hold too little alone.

A linear model gives each bin a mean and slopes of its own, and each region one effect of the side: bins that the sides
fill unevenly do not bias it. By the theorem of Frisch, Waugh and Lovell the effect is Σ t f / Σ t², where f and t are
what bins and slopes leave of the forces and of the side (1 or 0). Its error is robust to correlation within clusters
(Liang and Zeger, Biometrika 73, 13 (1986)); in a bin without slope it is that of two means in `binned_means`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.statistics.clusters import Bins, binned_means, slopes_inside_bins, squared_norms

if TYPE_CHECKING:
    from scipy import sparse

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class BinnedFrames:
    """Frames in bins of the collective variables.

    Attributes:
        grid: the bins.
        index: `(n_frames,)` bin of each, -1 outside.
        offset: `(n_frames, n_variables)` distance from the centre of the bin.
    """

    grid: Bins
    index: IntArray
    offset: FloatArray

    def left_over(self, values: FloatArray) -> FloatArray:
        """What the mean and the slopes of each bin leave of values `(n_frames, n_components)`; 0 outside the bins."""
        place = np.maximum(self.index, 0)
        slopes = slopes_inside_bins(values, self.offset, self.index, self.grid.size)
        level = values - np.einsum("cfk,fk->fc", slopes[:, place], self.offset)
        mean = binned_means(level, self.index, self.grid.size, np.zeros(len(level), dtype=np.int64)).mean
        return np.where(self.index[:, None] >= 0, level - np.nan_to_num(mean).T[place], 0.0)


@dataclass(frozen=True)
class Contrast:
    """Comparisons of two sides.

    Attributes:
        z: `(n_components, n_bins)`, the bins of a region sharing theirs; nan where nothing was compared.
        alone: `(n_bins,)` bool, bins compared by themselves.
        values: `(n,)` z of each comparison: Student's statistic with Welch's degrees of freedom as a normal deviate.
        difference: `(n,)`.
        error: `(n,)` standard errors.
        influence: sparse `(n_clusters, n)` of each cluster on each difference.
    """

    z: FloatArray
    alone: BoolArray
    values: FloatArray
    difference: FloatArray
    error: FloatArray
    influence: sparse.csr_array


def contrast(
    frames: BinnedFrames, residual: FloatArray, cluster: IntArray, side: BoolArray, min_clusters: float
) -> Contrast:
    """Compare a side with the rest in each bin, and what is left in regions of ever more of the bins that both visited.

    Args:
        frames: the frames.
        residual: `(n_frames, n_components)` what bins leave of the forces.
        cluster: `(n_frames,)` independent clusters.
        side: `(n_frames,)` the side.
        min_clusters: effective clusters that each side of a comparison needs.
    """
    from scipy import sparse

    grid, index = frames.grid, frames.index
    lever = frames.left_over(side[:, None].astype(np.float64))[:, 0]
    left = np.logical_and(*(np.bincount(index[part & (index >= 0)], minlength=grid.size) > 0 for part in (side, ~side)))
    z, alone = np.full((residual.shape[1], grid.size), np.nan), np.zeros(grid.size, dtype=bool)
    values, differences, errors, influences, width = [], [], [], [], 1
    while left.any() and width < 2 * max(grid.shape):
        region = np.where(left, _regions(grid, width), -1)
        found = _Differences.of(residual, lever, np.where(index >= 0, region[index], -1), cluster, side)
        fine = found.comparable(min_clusters)
        deviate = np.where(fine, found.deviate(), np.nan)
        done = left & np.append(np.any(fine, axis=0), False)[region]
        z[:, done] = deviate[:, region[done]]
        alone |= done & (width == 1)
        values.append(deviate[fine])
        differences.append(found.difference[fine])
        errors.append(found.error[fine])
        influences.append(found.influence[:, np.flatnonzero(fine)])
        left, width = left & ~done, 2 * width
    none = np.zeros(0)
    return Contrast(
        z,
        alone,
        np.concatenate([none, *values]),
        np.concatenate([none, *differences]),
        np.concatenate([none, *errors]),
        sparse.hstack([sparse.csr_array((int(cluster.max(initial=0)) + 1, 0)), *influences], format="csr"),
    )


def _regions(grid: Bins, width: int) -> IntArray:
    """Number `(n_bins,)` of the square of `width` bins along each variable that a bin is in."""
    squares = np.meshgrid(*(np.arange(size) // width for size in grid.shape), indexing="ij")
    return np.ravel_multi_index([square.ravel() for square in squares], grid.shape)


@dataclass(frozen=True)
class _Differences:
    """Effect of the side in each region.

    Attributes:
        difference: `(n_components, n_regions)`.
        influence: sparse `(n_clusters, n_components * n_regions)`.
        variance: `(2, n_components, n_regions)` of the part of each side.
        clusters: `(2, n_regions)` effective clusters of each side.
    """

    difference: FloatArray
    influence: sparse.csr_array
    variance: FloatArray
    clusters: FloatArray

    @classmethod
    def of(
        cls, residual: FloatArray, lever: FloatArray, region: IntArray, cluster: IntArray, side: BoolArray
    ) -> _Differences:
        """Fit the effects; `region` `(n_frames,)` is negative for frames left out, `lever` the rest of `side`."""
        from scipy import sparse

        n_clusters, n_regions = int(cluster.max(initial=0)) + 1, int(region.max()) + 1
        n_components, inside = residual.shape[1], region >= 0

        def per_region(values: FloatArray) -> FloatArray:
            return np.bincount(region[inside], values[inside], minlength=n_regions).astype(np.float64)

        norm = per_region(lever**2)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = np.stack([per_region(lever * column) for column in residual.T]) / norm
            moved = lever[:, None] * (residual - lever[:, None] * difference.T[region]) / norm[region][:, None]
        parts, clusters = [], []
        for mine in (np.flatnonzero(inside & side), np.flatnonzero(inside & ~side)):
            row, where = cluster[mine], region[mine]
            pull = sparse.csr_array((np.abs(lever[mine]), (row, where)), shape=(n_clusters, n_regions))
            with np.errstate(invalid="ignore", divide="ignore"):
                effective = np.nan_to_num(np.asarray(pull.sum(axis=0)) ** 2 / squared_norms(pull))
                factor = np.where(effective > 1.0 + 1e-9, np.sqrt(effective / (effective - 1.0)), 1.0)
            columns = (np.arange(n_components)[:, None] * n_regions + where).ravel()
            scaled = (moved[mine] * factor[where][:, None]).T.ravel()
            shape = (n_clusters, n_components * n_regions)
            parts.append(sparse.csr_array((np.nan_to_num(scaled), (np.tile(row, n_components), columns)), shape=shape))
            clusters.append(effective)
        variance = np.stack([squared_norms(part).reshape(difference.shape) for part in parts])
        return cls(difference, parts[0] + parts[1], variance, np.stack(clusters))

    @property
    def error(self) -> FloatArray:
        """Standard errors `(n_components, n_regions)`; the parts of clusters on both sides are correlated."""
        return np.sqrt(squared_norms(self.influence)).reshape(self.difference.shape)

    def comparable(self, min_clusters: float) -> BoolArray:
        """`(n_components, n_regions)` whether the error of a difference is known."""
        return (self.clusters >= min_clusters).all(axis=0) & (self.error > 0) & np.isfinite(self.difference)

    def deviate(self) -> FloatArray:
        """Normal deviates `(n_components, n_regions)`."""
        from scipy import special

        with np.errstate(invalid="ignore", divide="ignore"):
            each = self.variance**2 / (self.clusters[:, None] - 1.0)
            freedom = self.variance.sum(axis=0) ** 2 / each.sum(axis=0)
            tail = special.stdtr(freedom, -np.abs(self.difference / self.error))
            return -np.sign(self.difference) * special.ndtri(np.maximum(tail, 1e-300))
