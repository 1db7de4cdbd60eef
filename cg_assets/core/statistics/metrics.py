"""Figures of merit of a free energy against a reference, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate, independent_blocks, jackknife
from cg_assets.core.statistics.surfaces import FreeEnergySurface

FloatArray = NDArray[np.float64]

EMPTY_BIN = 1e-10
"""Probability of an empty bin where ln p is needed: 23 kT, beyond the reach of any run."""


def jensen_shannon_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """Jensen-Shannon divergence of two histograms, natural logarithm, between 0 and ln 2.

    Args:
        p: probabilities of any shape; normalised here.
        q: same shape.
    """
    one, other = _normalised(p), _normalised(q)
    middle = 0.5 * (one + other)
    return 0.5 * (_relative_entropy(one, middle) + _relative_entropy(other, middle))


def histograms(values: FloatArray, edges: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Probabilities `(n, n_bins)` of rows of values `(n, m)` between edges of their own `(n, n_bins + 1)`.

    Values beyond the outer edges, and nan, are in the outer bins. Columns have weights `(m,)`, or equal ones.
    """
    known = np.clip(np.where(np.isnan(values), edges[:, -1:], values), edges[:, :1], edges[:, -1:])
    total = values.shape[1] if weights is None else weights.sum()
    return (
        np.array([np.histogram(row, edge, weights=weights)[0] for row, edge in zip(known, edges, strict=True)]) / total
    )


def jensen_shannon_divergences(p: FloatArray, q: FloatArray) -> FloatArray:
    """`jensen_shannon_divergence` of each row of `(n, n_bins)` histograms."""
    return np.array([jensen_shannon_divergence(one, other) for one, other in zip(p, q, strict=True)])


def squared_log_error(p: ArrayLike, q: ArrayLike, empty_bin: float = EMPTY_BIN) -> float:
    """PMF error Σ m (ln p - ln q)², m = (p + q)/2 (arXiv 2602.10637): mass-weighted square of ΔA/kT.

    A bin that is empty on one side enters with the probability `empty_bin` there, so a missed basin of population P
    costs about (P/2) ln²(p/empty_bin); a bin empty on both sides costs nothing.

    Args:
        p: probabilities of any shape; normalised here.
        q: same shape.
        empty_bin: floor of both probabilities inside the logarithm.
    """
    one, other = _normalised(p), _normalised(q)
    difference = np.log(np.maximum(one, empty_bin)) - np.log(np.maximum(other, empty_bin))
    return float((0.5 * (one + other) * difference**2).sum())


def jsd(surface: FreeEnergySurface, reference: FreeEnergySurface | ArrayLike) -> Estimate:
    """Jensen-Shannon divergence of two surfaces; the reference may be exact probabilities."""
    return _against(jensen_shannon_divergence, surface, reference)


def pmf_error(
    surface: FreeEnergySurface, reference: FreeEnergySurface | ArrayLike, empty_bin: float = EMPTY_BIN
) -> Estimate:
    """Mass-weighted squared error of ln p of two surfaces (`squared_log_error`) [(kT)²]."""
    found = _against(lambda p, q: squared_log_error(p, q, empty_bin), surface, reference)
    return replace(found, unit="(kT)²")


def pmf_rmse(
    grid: ArrayLike,
    pmf: ArrayLike,
    reference: ArrayLike,
    interval: tuple[float, float],
    *,
    covariance: ArrayLike | None = None,
    replicates: ArrayLike | None = None,
    unit: str = "kT",
) -> Estimate:
    """Root mean square difference of two PMFs on an interval after the constant shift that makes it smallest.

    Args:
        grid: `(n,)` increasing values of the CG coordinate; the mean is by the trapezoidal rule.
        pmf: `(n,)`.
        reference: `(n,)` on the same grid.
        interval: ends of the interval.
        covariance: `(n, n)` of the PMF, for the error of the RMSE to first order.
        replicates: `(n_replicates, n)` independent PMFs of the same kind; the error is then that of their mean RMSE's
            scatter, standard deviation over √n_replicates.
        unit: unit of the PMFs.

    Raises:
        ValueError: the interval holds fewer than two grid points, or a PMF is not finite there.
    """
    nodes = np.asarray(grid, dtype=np.float64)
    inside = (nodes >= interval[0]) & (nodes <= interval[1])
    if inside.sum() < 2:
        raise ValueError(f"interval {interval} holds {int(inside.sum())} grid points of {nodes[0]} to {nodes[-1]}")
    weight = np.gradient(nodes[inside])
    weight[[0, -1]] *= 0.5
    weight /= weight.sum()

    def rmse(values: FloatArray) -> tuple[float, FloatArray]:
        difference = (values - np.asarray(reference, dtype=np.float64))[inside]
        if not np.isfinite(difference).all():
            raise ValueError(f"a PMF is not finite on {interval}; sample the whole interval or narrow it")
        difference = difference - weight @ difference
        return float(math.sqrt(weight @ difference**2)), difference

    value, difference = rmse(np.asarray(pmf, dtype=np.float64))
    error = math.nan
    if replicates is not None:
        scatter = [rmse(row)[0] for row in np.asarray(replicates, dtype=np.float64)]
        error = float(np.std(scatter, ddof=1) / math.sqrt(len(scatter))) if len(scatter) > 1 else math.nan
    elif covariance is not None and value > 0:
        gradient = weight * difference / value
        matrix = np.asarray(covariance, dtype=np.float64)[np.ix_(inside, inside)]
        error = float(math.sqrt(max(0.0, gradient @ matrix @ gradient)))
    return Estimate(value, error, unit)


def barrier_height(
    grid: ArrayLike,
    pmf: ArrayLike,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    covariance: ArrayLike | None = None,
    unit: str = "kT",
) -> Estimate:
    """Height of a one-dimensional barrier above the minimum that it is climbed from.

    Args:
        grid: `(n,)` increasing values of the CG coordinate.
        pmf: `(n,)`; bins without samples are inf or nan.
        start: ends of the basin that is left.
        end: ends of the basin that is reached.
        covariance: `(n, n)` of the PMF, for the standard error.
        unit: unit of the PMF.

    Returns:
        The highest value between the two minima less the minimum in `start`; inf where the path holds empty bins.
    """
    nodes, values = np.asarray(grid, dtype=np.float64), np.asarray(pmf, dtype=np.float64)
    values = np.where(np.isnan(values), np.inf, values)
    bottoms = []
    for low, high in (start, end):
        inside = np.flatnonzero((nodes >= low) & (nodes <= high))
        if not len(inside) or not np.isfinite(values[inside].min()):
            raise ValueError(f"basin {low} to {high} holds no finite PMF on the grid {nodes[0]} to {nodes[-1]}")
        bottoms.append(int(inside[np.argmin(values[inside])]))
    between = np.arange(min(bottoms), max(bottoms) + 1)
    top = int(between[np.argmax(values[between])])
    error = math.nan
    if covariance is not None:
        matrix = np.asarray(covariance, dtype=np.float64)
        error = math.sqrt(max(0.0, matrix[top, top] + matrix[bottoms[0], bottoms[0]] - 2.0 * matrix[top, bottoms[0]]))
    return Estimate(float(values[top] - values[bottoms[0]]), error, unit)


def basin_population(
    variables: Mapping[str, ArrayLike],
    limits: Mapping[str, tuple[float, float]],
    replica: ArrayLike,
    time: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    n_blocks: int = 50,
) -> Estimate:
    """Weighted fraction of frames inside the limits of a basin.

    Args:
        variables: name to `(n_frames,)`.
        limits: name to lower (included) and upper (excluded) limit.
        replica: `(n_frames,)`.
        time: `(n_frames,)`; None takes the frames of a replica to be in order.
        weights: `(n_frames,)`, for example `bias_weights`.
        n_blocks: number of independent blocks at most.

    Returns:
        Population with its jackknife error; where all frames are on one side, the error is one over the number of
        blocks, since what no block has seen may well be that likely.
    """
    blocks = _basin_blocks(variables, limits, replica, time, weights, n_blocks)
    value, error = jackknife(lambda total: total[1] / total.sum(), blocks)
    one_sided = float(value) in (0.0, 1.0)
    return Estimate(float(value), 1.0 / len(blocks) if one_sided else float(error))


def basin_free_energy(
    variables: Mapping[str, ArrayLike],
    limits: Mapping[str, tuple[float, float]],
    replica: ArrayLike,
    time: ArrayLike | None = None,
    *,
    thermal_energy: float,
    weights: ArrayLike | None = None,
    n_blocks: int = 50,
    unit: str = "",
) -> Estimate:
    """Free energy of a basin against all the rest, -kT ln(P / (1 - P)); arguments as for `basin_population`.

    Returns:
        The difference with its jackknife error; inf or -inf with unknown error where a side has no frame.
    """
    blocks = _basin_blocks(variables, limits, replica, time, weights, n_blocks)
    total = blocks.sum(axis=0)
    if not total.all():
        return Estimate(math.inf if total[1] == 0 else -math.inf, math.nan, unit)

    def statistic(sums: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore"):
            return -thermal_energy * np.log(sums[1] / sums[0])

    value, error = jackknife(statistic, blocks)
    return Estimate(float(value), float(error), unit)


def within_limits(variables: Mapping[str, ArrayLike], limits: Mapping[str, tuple[float, float]]) -> NDArray[np.bool_]:
    """Which frames `(n_frames,)` are in a basin, whose upper limits lie outside."""
    parts = [np.asarray(variables[name], dtype=np.float64) for name in limits]
    pairs = zip(parts, limits.values(), strict=True)
    return np.logical_and.reduce([(values >= low) & (values < high) for values, (low, high) in pairs])


def _basin_blocks(
    variables: Mapping[str, ArrayLike],
    limits: Mapping[str, tuple[float, float]],
    replica: ArrayLike,
    time: ArrayLike | None,
    weights: ArrayLike | None,
    n_blocks: int,
) -> FloatArray:
    """Weight outside and inside the basin `(n_blocks, 2)`."""
    block = independent_blocks(replica, time, n_blocks)
    inside = within_limits(variables, limits)
    weight = np.ones(len(block)) if weights is None else np.asarray(weights, dtype=np.float64)
    n = int(block.max()) + 1
    return np.bincount(2 * block + inside, weight, minlength=2 * n).astype(np.float64).reshape(n, 2)


def _normalised(histogram: ArrayLike) -> FloatArray:
    values = np.asarray(histogram, dtype=np.float64)
    return values / values.sum()


def _relative_entropy(p: FloatArray, q: FloatArray) -> float:
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def _against(
    function: Callable[[FloatArray, FloatArray], float],
    surface: FreeEnergySurface,
    reference: FreeEnergySurface | ArrayLike,
) -> Estimate:
    """A statistic of two independent surfaces; the jackknife errors of both sides add in square."""
    known = (
        reference.probability if isinstance(reference, FreeEnergySurface) else np.asarray(reference, dtype=np.float64)
    )
    value, error = jackknife(lambda total: function(total, known), surface.blocks)
    if isinstance(reference, FreeEnergySurface):
        mine = surface.probability
        error = np.hypot(error, jackknife(lambda total: function(mine, total), reference.blocks)[1])
    return Estimate(float(value), float(error))
