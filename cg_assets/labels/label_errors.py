"""How well force labels determine the mean force along the collective variables, bin by bin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.reweighting import bias_weights
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins, binned_means, cluster_frames
from cg_assets.core.statistics.estimates import effective_samples
from cg_assets.mapping.beads import Beads

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LabelErrors:
    """Labels of the mean force along collective variables.

    Forces along different variables are made comparable by the ranges of the variables: a force times the range is an
    energy, given in kT; several variables are joined by the root of the sum of squares.

    Attributes:
        names: the collective variables.
        bins: bins over their whole range.
        count: `(n_bins,)` frames.
        noise: `(n_bins,)` standard deviation of one label [kT]; nan in empty bins.
        error: `(n_bins,)` standard error of the mean force [kT], correlation in time included; nan in empty bins.
        free_energy: `(n_bins,)` free energy above the minimum [kT]; inf in empty bins.
        weight_share: effective sample size of the weights that undo the bias, over the number of frames; 1 without a
            bias.
    """

    names: list[str]
    bins: Bins
    count: FloatArray
    noise: FloatArray
    error: FloatArray
    free_energy: FloatArray
    weight_share: float

    @property
    def independent(self) -> FloatArray:
        """Independent labels `(n_bins,)` that would have the same error; 0 in empty bins."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(np.minimum(self.count, (self.noise / self.error) ** 2))


def variable_bins(
    beads: Beads, names: Sequence[str], number: int, ranges: Mapping[str, tuple[float, float]] | None = None
) -> Bins:
    """Equal bins over the whole range of collective variables; `ranges` gives those of model potentials."""
    limits = []
    for name in names:
        variable = beads.collective_variables.get(name)
        of_itself = variable is not None and (variable.periodic or name not in (ranges or {}))
        limits.append(variable.limits if variable is not None and of_itself else (ranges or {})[name])
    return Bins.between(limits, number)


def label_errors(beads: Beads, names: Sequence[str], bins: Bins, batches: Sequence[Frames]) -> LabelErrors:
    """Noise and error of the mean force in each bin.

    Args:
        beads: the beads.
        names: collective variables of the bins.
        bins: where the mean force is wanted.
        batches: labelled CG frames; each set as `pooled_batches` joins batches of one plan. May be empty.
    """
    names = list(names)
    count, precision, weight = np.zeros(bins.size), np.zeros(bins.size), np.zeros(bins.size)
    squares = np.zeros(bins.size)
    total, kish = 0, 0.0
    columns = [beads.variable_names.index(name) for name in names]
    ranges = np.array([edges[-1] - edges[0] for edges in bins.edges])
    for frames in batches:
        values = np.stack([frames.collective_variables[name] for name in names], axis=1)
        index, _ = bins.locate(values.astype(np.float64))
        forces = beads.projected_forces(frames.positions, np.asarray(frames.forces))[:, columns]
        scaled = forces * ranges / beads.thermal_energy
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
        squares += spread
        energy = frames.bias_energy
        own = np.ones(len(index)) if energy is None else bias_weights(energy, beads.thermal_energy)
        kish += effective_samples(own)
        total += len(own)
        own = own / own.sum() * len(own)
        weight += np.bincount(index[index >= 0], own[index >= 0], minlength=bins.size)
    known = (count > 0) & (precision > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        free_energy = -np.log(weight / weight.max()) if weight.any() else np.full(bins.size, np.inf)
        noise = np.where(count > 0, np.sqrt(squares / count), np.nan)
        error = np.where(known, 1.0 / np.sqrt(precision), np.nan)
    return LabelErrors(
        names=names,
        bins=bins,
        count=count,
        noise=noise,
        error=error,
        free_energy=free_energy,
        weight_share=kish / total if total else math.nan,
    )
