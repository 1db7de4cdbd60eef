"""The conditional-equilibration check: does the mean force at given CG coordinates forget where a replica started?

Force matching on biased data is right only when the atoms are in equilibrium at each value of the CG coordinates
(arXiv 2510.11148). A slow mode that the CG coordinates do not show breaks this silently: error bars of replicas that
share a start agree with each other on a wrong answer. Here replicas are grouped by their start, and the mean forces of
the groups are compared in each bin of the collective variables, in units of their statistical error. Bins that hold too
little for that are compared in larger regions; what no two groups visited cannot be compared, and data of which too
little was compared do not pass.

The comparison is sharp for collective variables that are all CG coordinates (model potentials). For molecules it uses
the forces projected on the collective variables, whose bin means also need the beads themselves to be in equilibrium
at given collective variables: a stricter condition than training needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special

from cg_assets.core.statistics.clusters import (
    BinnedMeans,
    Bins,
    as_columns,
    binned_means,
    cluster_frames,
    slopes_inside_bins,
    squared_norms,
)
from cg_assets.core.statistics.contrasts import BinnedFrames, Contrast, contrast
from cg_assets.core.statistics.estimates import time_blocks

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Verdict = Literal["passed", "failed", "cannot be judged"]

TOLERATED_Z_RMS = 1.5
"""A z RMS up to this is tolerated even where more bins would make it significant."""
CONFIDENCE = 0.999
"""Right data exceed the limit with probability 1 - CONFIDENCE at most."""
FEWEST_REPLICAS = 20
"""Groups of fewer replicas are cut into blocks of time: replicas alone would not be enough independent clusters."""
LEAST_COVERAGE = 0.9
"""Fraction of the labelled frames that must be compared; the rest is the rim of what was visited."""
LEAST_GROUP_COVERAGE = 0.5
"""Fraction of those of each group that must be compared: a basin in which one group stays alone is not covered."""


@dataclass(frozen=True)
class Coverage:
    """The part of the labelled frames that was compared.

    Attributes:
        compared: fraction of all, bin by bin or in regions.
        bin_by_bin: fraction of all in bins compared by themselves.
        groups: `(n_groups,)` fraction of each group's; nan where it has none.
        left: `(n_bins,)` frames of each bin that were not compared.
    """

    compared: float
    bin_by_bin: float
    groups: FloatArray
    left: IntArray

    @property
    def enough(self) -> bool:
        """Whether the verdict stands for all of the labels."""
        return self.compared >= LEAST_COVERAGE and not np.any(self.groups < LEAST_GROUP_COVERAGE)

    @classmethod
    def of(
        cls, contrasts: Sequence[Contrast], index: IntArray, member: IntArray, n_bins: int, labelled: BoolArray
    ) -> Coverage:
        """Of frames in bins `index`, -1 outside, and in groups `member`, both `(n_frames,)`."""
        alone, compared = np.zeros((2, n_bins + 1), dtype=bool)  # the last is outside
        for item in contrasts:
            alone[:-1] |= item.alone
            compared[:-1] |= np.isfinite(item.z).any(axis=0)
        groups, total = member[labelled], max(1, int(labelled.sum()))
        found, by_bin = compared[index[labelled]], alone[index[labelled]]
        with np.errstate(invalid="ignore"):
            of_groups = np.bincount(groups, found, int(member.max(initial=-1)) + 1) / np.bincount(
                groups, minlength=int(member.max(initial=-1)) + 1
            )
        left = np.bincount(index[labelled & (index >= 0) & ~compared[index]], minlength=n_bins)
        return cls(float(found.sum() / total), float(by_bin.sum() / total), of_groups, left)


@dataclass(frozen=True)
class Differences:
    """The differences of all comparisons together; nan where there is none.

    The limit of z RMS is the larger of `TOLERATED_Z_RMS` and the `CONFIDENCE` point of χ²/n for the effective number of
    independent z values; that of the largest |z| is the normal deviate that right data exceed anywhere with probability
    1 - CONFIDENCE (Bonferroni).

    Attributes:
        z_rms: root mean square of z; 1 is expected of right data.
        z_rms_spread: standard deviation that z_rms has for right data, correlation between bins included.
        limit: z RMS above which the check fails.
        largest_z: largest |z|, which shows a fault in a few bins that z_rms dilutes.
        largest_limit: largest |z| above which the check fails.
        judged: number of z values.
        effective: how many independent z values they are worth.
        difference_rms: root mean square difference of the groups' mean forces [force unit].
        difference_error: root mean square of the standard errors of those differences [force unit].
    """

    z_rms: float = math.nan
    z_rms_spread: float = math.nan
    limit: float = math.nan
    largest_z: float = math.nan
    largest_limit: float = math.nan
    judged: int = 0
    effective: float = math.nan
    difference_rms: float = math.nan
    difference_error: float = math.nan

    @property
    def agree(self) -> bool:
        """Whether errors explain all differences."""
        return self.z_rms <= self.limit and self.largest_z <= self.largest_limit

    @classmethod
    def of(cls, contrasts: Sequence[Contrast]) -> Differences:
        """Those of some contrasts."""
        z, difference, error = (
            np.concatenate([np.zeros(0), *(getattr(item, name) for item in contrasts)])
            for name in ("values", "difference", "error")
        )
        if not len(z):
            return cls()
        effective = _effective_number(sparse.hstack([item.influence for item in contrasts], format="csr"))
        chi_squared = 2.0 * float(special.gammaincinv(0.5 * effective, CONFIDENCE))
        return cls(
            z_rms=float(np.sqrt(np.mean(z**2))),
            z_rms_spread=math.sqrt(0.5 / effective),
            limit=max(TOLERATED_Z_RMS, math.sqrt(chi_squared / effective)),
            largest_z=float(np.abs(z).max()),
            largest_limit=-float(special.ndtri(0.5 * (1.0 - CONFIDENCE) / len(z))),
            judged=len(z),
            effective=effective,
            difference_rms=float(np.sqrt(np.mean(difference**2))),
            difference_error=float(np.sqrt(np.mean(error**2))),
        )


@dataclass(frozen=True)
class ConditionalEquilibration(Differences):
    """Outcome of the check, beyond its `Differences`.

    Attributes:
        verdict: `passed`, `failed` or `cannot be judged`.
        reason: the reason, in one sentence.
        coverage: the part that was compared.
        groups: label of each group.
        bins: the bins.
        values: `(judged,)` z of each comparison.
        z: `(n_contrasts, n_components, *bins.shape)`; nan where nothing was compared; bins of a region share theirs.
            Two groups make one contrast, more make one each, against all others.
        mean: `(n_groups, n_components, *bins.shape)` mean force of each group at the centre of each bin.
        standard_error: same shape.
    """

    verdict: Verdict = field(kw_only=True)
    reason: str = field(kw_only=True)
    coverage: Coverage = field(kw_only=True)
    groups: tuple[int, ...] = field(kw_only=True)
    bins: Bins = field(kw_only=True)
    values: FloatArray = field(kw_only=True)
    z: FloatArray = field(kw_only=True)
    mean: FloatArray = field(kw_only=True)
    standard_error: FloatArray = field(kw_only=True)

    @property
    def passed(self) -> bool:
        """Whether the data were judged and found in conditional equilibrium."""
        return self.verdict == "passed"

    def to_json(self) -> dict[str, object]:
        """The numbers without the arrays, in plain JSON types; numbers that are not finite become null."""
        numbers = {item.name: getattr(self, item.name) for item in fields(Differences)}
        numbers |= {"coverage": self.coverage.compared, "coverage_bin_by_bin": self.coverage.bin_by_bin}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        of_groups = {str(group): value for group, value in zip(self.groups, self.coverage.groups.tolist(), strict=True)}
        return {"verdict": self.verdict, "reason": self.reason, "coverage_of_groups": of_groups, **finite}


def conditional_equilibration(
    variables: ArrayLike,
    forces: ArrayLike,
    group: ArrayLike,
    replica: ArrayLike,
    time: ArrayLike | None = None,
    *,
    bins: Bins | None = None,
    labelled: ArrayLike | None = None,
    names: Sequence[str] = (),
    groups_are: str = "start",
    min_clusters: float = 10.0,
    few_replicas: int = FEWEST_REPLICAS,
) -> ConditionalEquilibration:
    """Compare the mean force per bin of groups of replicas; the limits are those of `Differences` and `Coverage`.

    Errors come from independent clusters (replicas; blocks of time where a group has few replicas). Bins that hold too
    little for a comparison of their own are compared in regions (`contrast`).

    Args:
        variables: `(n_frames,)` or `(n_frames, k)` collective variables, k of 1 or 2.
        forces: `(n_frames,)` or `(n_frames, m)` forces along CG coordinates or collective variables.
        group: `(n_frames,)` group of each frame: the start of its replica (`Frames.start`), or `halves_in_time`.
        replica: `(n_frames,)`; a replica may be in several groups (halves in time), which its errors then share.
        time: `(n_frames,)`; None takes the frames of a replica to be in order.
        bins: the bins; None for 40 (one variable) or 12 x 12 (two) over the range of the data.
        labelled: `(n_frames,)` bool, frames whose forces become labels, which the coverage is of; None for all.
        names: of the variables, for the place where frames are not compared.
        groups_are: what the groups are, in a word.
        min_clusters: effective clusters that each side of a comparison needs.
        few_replicas: a group of fewer replicas is cut into blocks of time.

    Raises:
        ValueError: variables and forces differ in their frames.
    """
    columns, values = as_columns(variables), as_columns(forces)
    if len(columns) != len(values):
        raise ValueError(f"variables have {len(columns)} frames, forces {len(values)}; give the same frames")
    grid = bins or _default_bins(columns)
    labels, member = np.unique(np.asarray(group), return_inverse=True)
    frames = BinnedFrames(grid, *grid.locate(columns))
    residual = frames.left_over(values)
    cluster = cluster_frames(replica, time, residual, few_replicas, member)
    sides = [member == number for number in range(len(labels))]
    compared = sides if len(sides) > 2 else sides[: len(sides) - 1]
    contrasts = [contrast(frames, residual, cluster, side, min_clusters) for side in compared]
    carries = np.ones(len(member), dtype=bool) if labelled is None else np.asarray(labelled, dtype=bool)
    coverage = Coverage.of(contrasts, frames.index, member, grid.size, carries)
    groups, means = tuple(int(label) for label in labels), _mean_forces(frames, values, cluster, member)
    return _outcome(contrasts, coverage, groups, grid, means, f"{min_clusters:g}", groups_are, names)


def _mean_forces(frames: BinnedFrames, values: FloatArray, cluster: IntArray, member: IntArray) -> list[BinnedMeans]:
    """Mean forces of each group at the centres of the bins."""
    grid, index = frames.grid, frames.index
    slopes = slopes_inside_bins(values, frames.offset, index, grid.size, member)
    level = values - np.einsum("cfk,fk->fc", slopes[:, np.maximum(index, 0)], frames.offset)
    sides = [member == number for number in range(int(member.max(initial=-1)) + 1)]
    return [binned_means(level[side], index[side], grid.size, cluster[side]) for side in sides]


def _outcome(
    contrasts: Sequence[Contrast],
    coverage: Coverage,
    groups: tuple[int, ...],
    grid: Bins,
    means: Sequence[BinnedMeans],
    min_clusters: str,
    groups_are: str,
    names: Sequence[str],
) -> ConditionalEquilibration:
    found = Differences.of(contrasts)
    verdict, reason = _judge(found, coverage, groups_are, groups, min_clusters)
    if names and coverage.left.any():
        place = np.unravel_index(int(coverage.left.argmax()), grid.shape)
        near = [f"{name} {centres[at]:.3g}" for name, centres, at in zip(names, grid.centres, place, strict=True)]
        reason += f"; of the rest most are near {', '.join(near)}"
    shape = (-1, len(means[0].mean), *grid.shape)
    return ConditionalEquilibration(
        **asdict(found),
        verdict=verdict,
        reason=reason,
        coverage=coverage,
        groups=groups,
        bins=grid,
        values=np.concatenate([np.zeros(0), *(item.values for item in contrasts)]),
        z=np.array([item.z for item in contrasts]).reshape(shape),
        mean=np.array([part.mean for part in means]).reshape(shape),
        standard_error=np.sqrt([part.variance for part in means]).reshape(shape),
    )


def _judge(
    found: Differences, coverage: Coverage, groups_are: str, groups: tuple[int, ...], min_clusters: str
) -> tuple[Verdict, str]:
    """The verdict and its reason."""
    if len(groups) < 2:
        return "cannot be judged", f"all frames are of one group ({len(groups)}); add probe replicas from another start"
    if not found.judged:
        why = f"no bin, nor all together, holds {min_clusters} independent samples of two groups"
        return "cannot be judged", why
    numbers = (
        f"z RMS {found.z_rms:.2f} (limit {found.limit:.2f}) and largest |z| {found.largest_z:.1f} (limit "
        f"{found.largest_limit:.1f}) over {found.judged} comparisons of {len(groups)} groups"
    )
    if not found.agree:
        return "failed", f"{numbers}: the mean force depends on where replicas started"
    part = f"{coverage.compared:.1%} of the frames were compared"
    if coverage.enough:
        return "passed", f"{numbers}; {part}"
    lacking = [
        f"{share:.0%} of those of {groups_are} {group}"
        for group, share in zip(groups, coverage.groups, strict=True)
        if share < LEAST_GROUP_COVERAGE
    ]
    needed = f"at least {LEAST_COVERAGE:.0%}, and {LEAST_GROUP_COVERAGE:.0%} of each {groups_are}, are needed"
    return "cannot be judged", f"only {', '.join([part, *lacking])}, where {needed}"


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


def _effective_number(influence: sparse.csr_array) -> float:
    """n² / Σ r²: what n values of z with correlations r are worth, less the noise of the sample correlations."""
    n = influence.shape[1]
    scaled = influence @ sparse.diags_array(1.0 / np.sqrt(squared_norms(influence)))
    squares = scaled.power(2)
    excess = ((scaled.T @ scaled).power(2) - squares.T @ squares).toarray()
    return float(n**2 / (n + max(0.0, float(excess.sum() - np.trace(excess)))))
