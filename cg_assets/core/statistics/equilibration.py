"""The conditional-equilibration check: does the mean force at given CG coordinates forget where a replica started?

Force matching on biased data is right only when the atoms are in equilibrium at each value of the CG coordinates
(arXiv 2510.11148). A slow mode that the CG coordinates do not show breaks this silently: error bars of replicas that
share a start agree with each other on a wrong answer. Here replicas are grouped by their start, and the mean forces of
the groups are compared in each bin of the collective variables, in units of their statistical error.

The comparison is sharp for collective variables that are all CG coordinates (model potentials). For molecules it uses
the forces projected on the collective variables, whose bin means also need the beads themselves to be in equilibrium
at given collective variables: a stricter condition than training needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, stats

from cg_assets.core.statistics.clusters import (
    BinnedMeans,
    Bins,
    as_columns,
    binned_means,
    cluster_frames,
    slopes_inside_bins,
    squared_norms,
)
from cg_assets.core.statistics.estimates import FEW_REPLICAS, time_blocks

Verdict = Literal["passed", "failed", "cannot be judged"]

TOLERATED_Z_RMS = 1.5
"""A z RMS up to this is tolerated even where more bins would make it significant."""
CONFIDENCE = 0.999
"""Right data exceed the limit with probability 1 - CONFIDENCE at most."""


@dataclass(frozen=True)
class ConditionalEquilibration:
    """Outcome of the check.

    Attributes:
        verdict: `passed`, `failed` or `cannot be judged`.
        reason: the reason, in one sentence.
        z_rms: root mean square of z over all judged bins; 1 is expected of right data; nan where none was judged.
        z_rms_spread: standard deviation that z_rms has for right data, correlation between bins included.
        limit: z RMS above which the check fails.
        largest_z: largest |z|, which shows a fault in a few bins that z_rms dilutes.
        largest_limit: largest |z| above which the check fails.
        judged: number of z values that entered.
        effective: how many independent z values they are worth.
        coverage: fraction of all frames in judged bins.
        difference_rms: root mean square difference of the groups' mean forces over judged bins [force unit].
        difference_error: root mean square of the standard errors of those differences [force unit].
        groups: label of each group.
        bins: the bins.
        z: `(n_contrasts, n_components, *bins.shape)`; nan where not judged. Two groups make one contrast, more make
            one each, against all others.
        mean: `(n_groups, n_components, *bins.shape)` mean force of each group at the centre of each bin.
        standard_error: same shape.
    """

    verdict: Verdict
    reason: str
    z_rms: float
    z_rms_spread: float
    limit: float
    largest_z: float
    largest_limit: float
    judged: int
    effective: float
    coverage: float
    difference_rms: float
    difference_error: float
    groups: tuple[int, ...]
    bins: Bins
    z: NDArray[np.float64]
    mean: NDArray[np.float64]
    standard_error: NDArray[np.float64]

    @property
    def passed(self) -> bool:
        """Whether the data were judged and found in conditional equilibrium."""
        return self.verdict == "passed"

    def to_json(self) -> dict[str, Any]:
        """The numbers without the arrays, in plain JSON types; numbers that are not finite become null."""
        names = ["z_rms", "z_rms_spread", "limit", "largest_z", "largest_limit", "effective", "coverage"]
        names += ["difference_rms", "difference_error"]
        numbers = {name: getattr(self, name) for name in names}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return {"verdict": self.verdict, "reason": self.reason, "judged": self.judged, **finite}


def conditional_equilibration(
    variables: ArrayLike,
    forces: ArrayLike,
    group: ArrayLike,
    replica: ArrayLike,
    time: ArrayLike | None = None,
    *,
    bins: Bins | None = None,
    min_clusters: float = 10.0,
    few_replicas: int = FEW_REPLICAS,
) -> ConditionalEquilibration:
    """Compare the mean force per bin of groups of replicas.

    Errors come from independent clusters (replicas; blocks of time where a group has few replicas). A slope of the
    force inside the bin, common to all groups, is taken out first, so that groups that fill a bin unevenly agree. z is
    Student's statistic with Welch's degrees of freedom turned into a normal deviate. The limit of z RMS is the larger
    of `TOLERATED_Z_RMS` and the `CONFIDENCE` point of χ²/n for the effective number of independent z values; that of
    the largest |z| is the normal deviate that right data exceed anywhere with probability 1 - CONFIDENCE (Bonferroni).

    Args:
        variables: `(n_frames,)` or `(n_frames, k)` collective variables, k of 1 or 2.
        forces: `(n_frames,)` or `(n_frames, m)` forces along CG coordinates or collective variables.
        group: `(n_frames,)` group of each frame: the start of its replica (`Frames.start`), or `halves_in_time`.
        replica: `(n_frames,)`; a replica may be in several groups (halves in time), which its errors then share.
        time: `(n_frames,)`; None takes the frames of a replica to be in order.
        bins: the bins; None for 40 (one variable) or 12 x 12 (two) over the range of the data.
        min_clusters: effective clusters that each side of a comparison needs in a bin.
        few_replicas: a group of fewer replicas is cut into blocks of time.

    Returns:
        The verdict and the numbers behind it.
    """
    columns, values = as_columns(variables), as_columns(forces)
    if len(columns) != len(values):
        raise ValueError(f"variables have {len(columns)} frames, forces {len(values)}; give the same frames")
    grid = bins or _default_bins(columns)
    labels, member = np.unique(np.asarray(group), return_inverse=True)
    index, offset = grid.locate(columns)
    slopes = slopes_inside_bins(values, offset, index, grid.size, member)
    level = values - np.einsum("cfk,fk->fc", slopes[:, np.maximum(index, 0)], offset)
    pooled = binned_means(level, index, grid.size, np.zeros(len(level), dtype=np.int64))
    residual = np.where(index[:, None] >= 0, level - np.nan_to_num(pooled.mean).T[np.maximum(index, 0)], 0.0)
    cluster = cluster_frames(replica, time, residual, few_replicas, member)
    n_clusters = int(cluster.max(initial=0)) + 1

    def side(mask: NDArray[np.bool_]) -> BinnedMeans:
        return binned_means(level[mask], index[mask], grid.size, cluster[mask], n_clusters=n_clusters)

    sides = [side(member == i) for i in range(len(labels))]
    shape = (values.shape[1], *grid.shape)
    mean = np.stack([part.mean.reshape(shape) for part in sides]) if sides else np.zeros((0, *shape))
    error = np.stack([np.sqrt(part.variance).reshape(shape) for part in sides]) if sides else np.zeros((0, *shape))
    pairs = [(sides[0], sides[1])] if len(sides) == 2 else []
    if len(sides) > 2:
        pairs = [(part, side(member != i)) for i, part in enumerate(sides)]
    z, influence, difference, spread, used = _compare(pairs, min_clusters, values.shape[1], grid.size)
    judged = int(np.isfinite(z).sum())
    if judged:
        effective = _effective_number(influence)
        z_rms = float(np.sqrt(np.nanmean(z**2)))
        limit = max(TOLERATED_Z_RMS, math.sqrt(float(stats.chi2.ppf(CONFIDENCE, effective)) / effective))
        largest_z = float(np.nanmax(np.abs(z)))
        largest_limit = float(stats.norm.isf(0.5 * (1.0 - CONFIDENCE) / judged))
        verdict: Verdict = "passed" if z_rms <= limit and largest_z <= largest_limit else "failed"
        reason = (
            f"z RMS {z_rms:.2f} (limit {limit:.2f}) and largest |z| {largest_z:.1f} (limit {largest_limit:.1f}) over "
            f"{judged} comparisons of {len(labels)} groups"
        )
        if verdict == "failed":
            reason += ": the mean force depends on where replicas started"
    else:
        effective = z_rms = limit = largest_z = largest_limit = math.nan
        verdict = "cannot be judged"
        reason = (
            f"all frames are of one group ({len(labels)}); add probe replicas from another start"
            if len(labels) < 2
            else f"no bin holds {min_clusters:g} independent samples of two groups; sample longer, use more replicas, "
            "or bias the collective variables"
        )
    return ConditionalEquilibration(
        verdict=verdict,
        reason=reason,
        z_rms=z_rms,
        z_rms_spread=math.sqrt(0.5 / effective),
        limit=limit,
        largest_z=largest_z,
        largest_limit=largest_limit,
        judged=judged,
        effective=effective,
        coverage=float(pooled.count[used].sum() / max(1, len(level))),
        difference_rms=float(np.sqrt(np.mean(difference**2))) if judged else math.nan,
        difference_error=float(np.sqrt(np.mean(spread**2))) if judged else math.nan,
        groups=tuple(int(label) for label in labels),
        bins=grid,
        z=z.reshape(-1, *shape),
        mean=mean,
        standard_error=error,
    )


def halves_in_time(replica: ArrayLike, time: ArrayLike | None = None) -> NDArray[np.int64]:
    """Group 0 for the first and 1 for the second half of each replica.

    For replicas drawn from the equilibrium density of a static bias: they need not forget their
    basin, but the mean force at given CG coordinates must not drift.
    """
    return time_blocks(replica, time, 2)


def _default_bins(columns: NDArray[np.float64]) -> Bins:
    limits = np.stack([columns.min(axis=0), columns.max(axis=0)], axis=1)
    limits[:, 1] = np.maximum(limits[:, 1], limits[:, 0] + 1e-9)
    return Bins.between(limits, 40 if columns.shape[1] == 1 else 12)


def _compare(
    pairs: list[tuple[BinnedMeans, BinnedMeans]], min_clusters: float, n_components: int, n_bins: int
) -> tuple[NDArray[np.float64], ...]:
    """Z `(n_pairs, n_components, n_bins)`, and of the judged ones: influences, differences, errors; bins in use."""
    z = np.full((len(pairs), n_components, n_bins), np.nan)
    used = np.zeros(n_bins, dtype=bool)
    influences, differences, errors = [sparse.csr_array((0, 0))], [np.zeros(0)], [np.zeros(0)]
    for number, (one, other) in enumerate(pairs):
        influence = one.influence - other.influence
        difference = one.mean - other.mean
        error = np.sqrt(squared_norms(influence)).reshape(difference.shape)
        fine = (one.clusters >= min_clusters) & (other.clusters >= min_clusters) & (error > 0) & np.isfinite(difference)
        with np.errstate(invalid="ignore", divide="ignore"):
            freedom = (one.variance + other.variance) ** 2 / (
                one.variance**2 / (one.clusters - 1.0) + other.variance**2 / (other.clusters - 1.0)
            )
            tail = stats.t.sf(np.abs(difference / error), freedom)
            deviate = np.sign(difference) * stats.norm.isf(np.maximum(tail, 1e-300))
        z[number] = np.where(fine, deviate, np.nan)
        used |= fine.any(axis=0)
        influences.append(influence[:, np.flatnonzero(fine)])
        differences.append(difference[fine])
        errors.append(error[fine])
    stacked = sparse.hstack(influences[1:], format="csr") if pairs else influences[0]
    return z, stacked, np.concatenate(differences), np.concatenate(errors), used


def _effective_number(influence: sparse.csr_array) -> float:
    """n² / Σ r²: what n values of z with correlations r are worth, less the noise of the sample correlations."""
    n = influence.shape[1]
    scaled = influence @ sparse.diags_array(1.0 / np.sqrt(squared_norms(influence)))
    squares = scaled.power(2)
    excess = ((scaled.T @ scaled).power(2) - squares.T @ squares).toarray()
    return float(n**2 / (n + max(0.0, float(excess.sum() - np.trace(excess)))))
