"""The noise floor of force labels, and mean forces and PMFs from binned labels.

A force-matching loss is (error of the model)² + noise floor, the floor being <|f - <f>_R|²> per force component. A
loss without its floor means nothing; the estimators here give the floor from the labels alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.clusters import Bins, as_columns, binned_means, cluster_frames, slopes_inside_bins
from cg_assets.core.statistics.estimates import FEW_REPLICAS, Estimate, autocorrelation_time

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class BinnedLabels:
    """Labels of a one-dimensional CG coordinate by bin.

    Attributes:
        centres: `(n_bins,)` of the bins.
        count: `(n_bins,)` frames.
        mean_force: `(n_bins,)` at the centre; nan in empty bins.
        covariance: `(n_bins, n_bins)` of the mean forces, correlation through shared replicas included.
        variance: `(n_bins,)` of the label about its mean in the bin; nan where fewer than three frames are.
        noise_floor: frame average of the variance [force unit squared].
    """

    centres: FloatArray
    count: FloatArray
    mean_force: FloatArray
    covariance: FloatArray
    variance: FloatArray
    noise_floor: Estimate

    @property
    def standard_error(self) -> FloatArray:
        """Standard error `(n_bins,)` of the mean force."""
        return np.sqrt(np.diag(self.covariance))


@dataclass(frozen=True)
class IntegratedPMF:
    """A PMF integrated from binned mean forces.

    Attributes:
        grid: `(n,)` values of the CG coordinate.
        pmf: `(n,)`, lowest value 0.
        covariance: `(n, n)` of the PMF with its mean over the grid held fixed, as after an optimal shift.
    """

    grid: FloatArray
    pmf: FloatArray
    covariance: FloatArray

    @property
    def standard_error(self) -> FloatArray:
        """Standard error `(n,)` relative to the mean over the grid."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))


@dataclass(frozen=True)
class ConditionalNoise:
    """Noise of bead-force labels from repeated samples at fixed beads.

    Attributes:
        noise_floor: mean over configurations, beads and components [force unit squared].
        bead_noise_floor: `(n_beads,)` of each bead.
        bead_standard_error: `(n_beads,)` of those.
        mean_force: `(n_configurations, n_beads, dimension)` conditional mean.
        mean_force_variance: `(n_configurations, n_beads)` squared standard error of each of its components.
        effective_samples: independent samples in each configuration, mean over beads, taken as 2 where they are fewer:
            the floor is then a lower bound and the sampling too short.
    """

    noise_floor: Estimate
    bead_noise_floor: FloatArray
    bead_standard_error: FloatArray
    mean_force: FloatArray
    mean_force_variance: FloatArray
    effective_samples: float

    def with_changes(self, changes: ArrayLike) -> ConditionalNoise:
        """The noise of labels that hold further errors, independent of what is here.

        Args:
            changes: `(n, n_beads, dimension)` errors of labels, drawn independently of each other [force unit].
        """
        further = (np.asarray(changes, dtype=np.float64) ** 2).mean(axis=2)
        root = math.sqrt(len(further))
        error = float(further.mean(axis=1).std(ddof=1)) / root if len(further) > 1 else 0.0
        floor = self.noise_floor
        return replace(
            self,
            noise_floor=Estimate(
                floor.value + float(further.mean()), math.hypot(floor.standard_error, error), floor.unit
            ),
            bead_noise_floor=self.bead_noise_floor + further.mean(axis=0),
            bead_standard_error=np.hypot(self.bead_standard_error, further.std(axis=0) / root),
        )


def bin_labels(
    variable: ArrayLike,
    force: ArrayLike,
    replica: ArrayLike,
    time: ArrayLike | None = None,
    *,
    bins: Bins,
    unit: str = "",
    few_replicas: int = FEW_REPLICAS,
) -> BinnedLabels:
    """Mean force, its error and the label noise by bin of a one-dimensional CG coordinate.

    The slope of the force inside each bin is fitted and taken out, so that it counts neither as noise nor shifts the
    mean away from the centre. Errors come from independent clusters (replicas, or blocks of time).

    Args:
        variable: `(n_frames,)` CG coordinate.
        force: `(n_frames,)` label along it.
        replica: `(n_frames,)`.
        time: `(n_frames,)`; None takes the frames of a replica to be in order.
        bins: one-dimensional bins; frames outside are left out.
        unit: unit of the squared force, for the noise floor.
        few_replicas: fewer replicas are cut into blocks of time.

    Raises:
        ValueError: no frame is in a bin with two others.
    """
    values = as_columns(force)
    index, offset = bins.locate(variable)
    slopes = slopes_inside_bins(values, offset, index, bins.size)
    level = values - np.einsum("cfk,fk->fc", slopes[:, np.maximum(index, 0)], offset)
    everything = binned_means(level, index, bins.size, np.zeros(len(level), dtype=np.int64))
    residual = np.where(index[:, None] >= 0, level - np.nan_to_num(everything.mean).T[np.maximum(index, 0)], 0.0)
    cluster = cluster_frames(replica, time, residual, few_replicas)
    means = binned_means(level, index, bins.size, cluster)
    fitted = 1.0 + np.any(slopes[0] != 0.0, axis=1)  # numbers fitted in each bin: mean and slope
    with np.errstate(invalid="ignore", divide="ignore"):
        correction = np.where(means.count > fitted, means.count / (means.count - fitted), np.nan)
    squared = residual**2 * correction[np.maximum(index, 0), None]
    squares = binned_means(squared, index, bins.size, cluster)
    usable = (index >= 0) & np.isfinite(squared[:, 0])
    if not usable.any():
        raise ValueError("no bin holds three frames; use wider bins or more frames")
    overall = binned_means(squared, np.where(usable, 0, -1), 1, cluster)
    covariance = (means.influence.T @ means.influence).toarray()
    covariance[~np.isfinite(means.mean[0])] = np.nan
    covariance[:, ~np.isfinite(means.mean[0])] = np.nan
    return BinnedLabels(
        centres=bins.centres[0],
        count=means.count,
        mean_force=means.mean[0],
        covariance=covariance,
        variance=squares.mean[0],
        noise_floor=Estimate(float(overall.mean[0, 0]), float(np.sqrt(overall.variance[0, 0])), unit),
    )


def integrate_mean_force(labels: BinnedLabels) -> IntegratedPMF:
    """PMF A(s) = -∫ <f | s> ds by the cubic spline through the bins' mean forces, with propagated errors.

    Args:
        labels: binned labels; the longest run of bins that hold frames is used.

    Raises:
        ValueError: fewer than four neighbouring bins hold frames.
    """
    from scipy.interpolate import CubicSpline

    filled = np.isfinite(labels.mean_force)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], filled.astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts)) if len(starts) else 0
    if not len(starts) or ends[longest] - starts[longest] < 4:
        raise ValueError("fewer than four neighbouring bins hold frames; widen the bins or sample more")
    run = slice(int(starts[longest]), int(ends[longest]))
    grid = labels.centres[run]
    integral = -CubicSpline(grid, np.eye(len(grid))).antiderivative()(grid)  # a linear operator on the mean forces
    operator = integral - integral.mean(axis=0)
    pmf = operator @ labels.mean_force[run]
    return IntegratedPMF(grid, pmf - pmf.min(), operator @ labels.covariance[run, run] @ operator.T)


def conditional_noise(forces: ArrayLike, unit: str = "") -> ConditionalNoise:
    """Noise floor and conditional mean of bead forces from repeated samples at fixed bead positions.

    The variance within a configuration is unbiased for correlated samples: s² is divided by 1 - 2τ/n. The error of the
    floor is the scatter between configurations, which should be drawn at random from the training frames.

    A small slow part of the noise, as that of a solvent, hides under a large fast part when the autocorrelation is
    summed, yet dominates the error of the mean; vibrations, on the other hand, cancel. The error of the mean is
    therefore that by which means of parts of the samples scatter, bead by bead.

    Args:
        forces: `(n_configurations, n_samples, n_beads, dimension)`, samples of one configuration in order of time.
        unit: unit of the squared force.

    Raises:
        ValueError: the shape is wrong.
    """
    samples = np.asarray(forces, dtype=np.float64)
    if samples.ndim != 4 or samples.shape[1] < 4:
        raise ValueError(
            f"forces have shape {samples.shape}; they must be (n_configurations, n_samples >= 4, n_beads, dimension)"
        )
    n_samples = samples.shape[1]
    tau = autocorrelation_time(samples.transpose(0, 2, 3, 1).reshape(-1, n_samples))
    effective = np.maximum(2.0, n_samples / _inefficiency(samples, 2.0 * tau))
    variance = samples.var(axis=1) / (1.0 - 1.0 / effective)[:, None]
    per_bead = variance.mean(axis=2)
    independent = min(float(effective.mean()), max(2.0, n_samples / (2.0 * tau)))
    return noise_of_labels(per_bead, samples.mean(axis=1), per_bead / effective, independent, unit)


def _inefficiency(samples: FloatArray, pooled: float) -> FloatArray:
    """Variance of a mean over that of as many independent samples `(n_beads,)`, from the scatter of means of parts.

    Parts that are not much longer than the memory scatter too little by an amount that falls as one over their length,
    so that fifths and tenths together determine the whole. `pooled`, from the autocorrelation of all beads, counts
    as much as one configuration, since the scatter of a few means is itself poorly determined.
    """
    n_configurations, n_samples = samples.shape[:2]
    if n_samples < 20:
        return np.full(samples.shape[2], pooled)
    within = samples.var(axis=1, ddof=1).mean(axis=(0, 2))
    scatter = []
    for parts in (5, 10):
        length = n_samples // parts
        means = samples[:, : parts * length].reshape(n_configurations, parts, length, *samples.shape[2:]).mean(axis=2)
        scatter.append(length * means.var(axis=1, ddof=1).mean(axis=(0, 2)) / np.where(within > 0, within, 1.0))
    fifths, tenths = scatter
    return (n_configurations * np.maximum(fifths, 2.0 * fifths - tenths) + pooled) / (n_configurations + 1)


def noise_of_labels(
    variance: FloatArray,
    mean_force: FloatArray,
    mean_force_variance: FloatArray,
    effective_samples: float,
    unit: str,
) -> ConditionalNoise:
    """The noise of labels from the variance of each.

    Args:
        variance: `(n_configurations, n_beads)` variance of a label's component, of single forces or of means.
        mean_force: `(n_configurations, n_beads, dimension)` conditional mean.
        mean_force_variance: `(n_configurations, n_beads)` squared standard error of its components.
        effective_samples: independent forces at each configuration.
        unit: unit of the squared force.
    """
    per_configuration, scale = variance.mean(axis=1), math.sqrt(len(variance))
    known = len(variance) > 1
    return ConditionalNoise(
        noise_floor=Estimate(
            float(per_configuration.mean()),
            float(per_configuration.std(ddof=1) / scale) if known else math.nan,
            unit,
        ),
        bead_noise_floor=variance.mean(axis=0),
        bead_standard_error=variance.std(axis=0, ddof=1) / scale if known else np.full(variance.shape[1], np.nan),
        mean_force=mean_force,
        mean_force_variance=mean_force_variance,
        effective_samples=effective_samples,
    )
