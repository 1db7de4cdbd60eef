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

from cg_assets.analysis.clusters import Bins, binned_means, cluster_frames
from cg_assets.analysis.collective_variables import projected_forces
from cg_assets.analysis.surfaces import bias_weights
from cg_assets.frames import Frames
from cg_assets.mapping.maps import build_map
from cg_assets.systems.spec import AdaptiveBias, SamplingPlan, SystemSpec, Torsion, UmbrellaBias

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


def candidate_bins(system: SystemSpec, bias: AdaptiveBias) -> Bins:
    """Equal bins over the whole range of the adaptive bias's collective variables."""
    limits = []
    for name in bias.collective_variables:
        variable = system.collective_variables.get(name)
        limits.append((-math.pi, math.pi) if isinstance(variable, Torsion) else bias.grid_range[name])
    return Bins.between(limits, bias.candidates)


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
    bins = candidate_bins(system, bias)
    count, variance, energy = _known(system, bias, bins, batches)
    visited = count >= 1.0
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


def _known(
    system: SystemSpec, bias: AdaptiveBias, bins: Bins, batches: Sequence[Frames]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Frames, variance of the mean force times frames [kT²] and free energy [kT] of each bin."""
    count, variance = np.zeros(bins.size), np.zeros(bins.size)
    weight = np.zeros(bins.size)
    cg_map = build_map(system)
    columns = [system.variable_names.index(name) for name in bias.collective_variables]
    ranges = np.array([edges[-1] - edges[0] for edges in bins.edges])
    precision = np.zeros(bins.size)
    for frames in batches:
        values = np.stack([frames.collective_variables[name] for name in bias.collective_variables], axis=1)
        index, _ = bins.locate(values.astype(np.float64))
        forces = projected_forces(system, cg_map, frames.positions, np.asarray(frames.forces))[:, columns]
        scaled = forces * ranges / system.thermal_energy
        everything = binned_means(scaled, index, bins.size, np.zeros(len(index), dtype=np.int64))
        residual = np.where(index[:, None] >= 0, scaled - np.nan_to_num(everything.mean).T[np.maximum(index, 0)], 0.0)
        cluster = cluster_frames(frames.replica, frames.time, residual)
        means = binned_means(scaled, index, bins.size, cluster)
        squared = np.nan_to_num(means.variance.sum(axis=0))
        spread = np.bincount(index[index >= 0], (residual[index >= 0] ** 2).sum(axis=1), minlength=bins.size)
        at_least = spread / np.maximum(everything.count, 1.0) ** 2  # of independent frames; also where one cluster is
        squared = np.where(everything.count > 0, np.maximum(squared, at_least), np.inf)
        precision += np.where(squared > 0, 1.0 / np.maximum(squared, 1e-300), 0.0)
        count += everything.count
        bias_energy = frames.bias_energy
        own = np.ones(len(index)) if bias_energy is None else bias_weights(bias_energy, system.thermal_energy)
        own = own / own.sum() * len(own)
        weight += np.bincount(index[index >= 0], own[index >= 0], minlength=bins.size)
    known = (count > 0) & (precision > 0)
    variance[known] = count[known] / precision[known]
    with np.errstate(divide="ignore"):
        energy = -np.log(weight / weight.max()) if weight.any() else np.full(bins.size, np.inf)
    return count, variance, energy


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
