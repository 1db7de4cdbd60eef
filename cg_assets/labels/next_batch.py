"""Where to sample next: umbrella windows where the mean force along the collective variables is known worst.

The error of a free energy is that of the mean force integrated along the way, so frames are best spent where the mean
force has the largest error. In bin b it is v_b / n_b after n_b frames, v_b being the variance of the force times the
length of its correlations; a new window adds frames around its centre. Windows are placed one after the other where
the error that is left is largest. Bins with too few frames have the median variance, and those that nobody has visited
count as one frame; candidates are the bins within `highest` kT of the minimum and those beside them, or all bins as
long as there are no data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.settings import AdaptiveBias, UmbrellaBias
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins
from cg_assets.labels.label_errors import label_errors, variable_bins
from cg_assets.mapping.collective_variables import Torsion
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.systems.spec import SystemSpec

FloatArray = NDArray[np.float64]
_FEW = 5
"""Fewer frames in a bin do not tell the variance of the force there."""


@dataclass(frozen=True)
class Proposal:
    """Windows of the next batch.

    Attributes:
        names: the collective variables.
        bins: candidates for centres are the middles of these bins.
        centers: `(n_windows, n_variables)` proposed centres [rad, nm or reduced].
        count: `(n_bins,)` frames so far.
        free_energy: `(n_bins,)` free energy above the minimum [kT]; inf where no frame is.
        error: `(n_bins,)` standard error of the mean force so far, root of the sum over the variables, each relative
            to the range of its variable [kT]; nan in bins that are no candidates.
        expected: the same after the proposed batch.
    """

    names: list[str]
    bins: Bins
    centers: FloatArray
    count: FloatArray
    free_energy: FloatArray
    error: FloatArray
    expected: FloatArray

    def points(self) -> list[dict[str, float]]:
        """The centres as they stand in an umbrella bias."""
        return [dict(zip(self.names, map(float, center), strict=True)) for center in self.centers]

    def columns(self) -> dict[str, list[Any]]:
        """The centres as columns of a table."""
        return {f"cv_{name}": self.centers[:, axis].tolist() for axis, name in enumerate(self.names)}


def propose(system: SystemSpec, plan: SamplingPlan, batches: Sequence[Frames]) -> Proposal:
    """Windows of the next batch of an adaptive plan.

    Args:
        system: the system.
        plan: a plan with an adaptive bias.
        batches: labelled CG frames so far, each set as `pooled_batches` joins batches of one plan; may be empty.
    """
    bias = plan.bias
    if not isinstance(bias, AdaptiveBias):
        raise TypeError("only a plan with an adaptive bias has windows to propose")
    bins = variable_bins(system, bias.collective_variables, bias.candidates, bias.grid_range)
    known = label_errors(system, bias.collective_variables, bins, batches)
    count, energy = known.count, known.free_energy
    visited = count >= 1.0
    variance = known.count * known.error**2
    measured = (count >= _FEW) & (variance > 0.0)
    worthwhile = np.ones(bins.size, dtype=bool)
    if visited.any():
        worthwhile = energy <= bias.highest
        worthwhile |= _neighbours(system, bias, bins, worthwhile)
    typical = float(np.median(variance[measured])) if measured.any() else 1.0
    variance = np.where(measured, variance, typical)
    spread = _spread(system, bias, bins)
    per_window = plan.frames_per_replica * plan.replicas / bias.windows
    reached = np.maximum(count, 1.0)
    chosen = []
    for _ in range(bias.windows):
        left = np.where(worthwhile, variance / reached, -1.0)
        best = int(np.argmax(left))
        chosen.append(best)
        reached = reached + per_window * spread[best]
    middles = np.stack(np.meshgrid(*bins.centres, indexing="ij"), axis=-1).reshape(-1, len(bins.edges))
    return Proposal(
        names=list(bias.collective_variables),
        bins=bins,
        centers=middles[chosen],
        count=count,
        free_energy=energy,
        error=np.where(worthwhile, np.sqrt(variance / np.maximum(count, 1.0)), np.nan),
        expected=np.where(worthwhile, np.sqrt(variance / reached), np.nan),
    )


def concrete_plan(
    system: SystemSpec, plan: SamplingPlan, centers: list[dict[str, float]] | None = None
) -> SamplingPlan:
    """A plan with umbrella windows in the place of an adaptive bias; other plans as they are.

    Args:
        system: the system.
        plan: the plan.
        centers: proposed centres of the windows; None to spread them over the whole range.
    """
    if not isinstance(plan.bias, AdaptiveBias):
        return plan
    points = centers if centers is not None else propose(system, plan, []).points()
    windows = UmbrellaBias(type="umbrella", centers=points, force_constant=plan.bias.force_constant)
    return plan.model_copy(update={"bias": windows})


def _offsets(system: SystemSpec, bias: AdaptiveBias, bins: Bins) -> list[FloatArray]:
    """Difference `(n_bins_i, n_bins_i)` of bin middles along each variable, to the nearest image of an angle."""
    offsets = []
    for name, centres in zip(bias.collective_variables, bins.centres, strict=True):
        difference = centres[:, None] - centres[None]
        if isinstance(system.collective_variables.get(name), Torsion):
            difference = difference - 2 * math.pi * np.round(difference / (2 * math.pi))
        offsets.append(difference)
    return offsets


def _spread(system: SystemSpec, bias: AdaptiveBias, bins: Bins) -> FloatArray:
    """Share `(n_bins, n_bins)` of a window's frames in each bin: a normal density of variance kT/k."""
    spread = np.ones((1, 1))
    for difference in _offsets(system, bias, bins):
        share = np.exp(-0.5 * bias.force_constant / system.thermal_energy * difference**2)
        spread = np.kron(spread, share / share.sum(axis=1, keepdims=True))
    return spread


def _neighbours(system: SystemSpec, bias: AdaptiveBias, bins: Bins, of: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bins next to some bins, along one variable."""
    grid = of.reshape(bins.shape)
    found = np.zeros_like(grid)
    for axis, name in enumerate(bias.collective_variables):
        angle = isinstance(system.collective_variables.get(name), Torsion)
        for step in (1, -1):
            moved = np.roll(grid, step, axis=axis)
            if not angle:
                edge = [slice(None)] * grid.ndim
                edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
                moved[tuple(edge)] = False
            found |= moved
    return found.ravel()
