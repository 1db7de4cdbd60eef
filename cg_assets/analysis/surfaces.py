"""Probabilities and free-energy surfaces on fixed bins from weighted frames, kept in independent blocks."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from cg_assets.analysis.clusters import Bins, as_columns
from cg_assets.analysis.estimates import independent_blocks, jackknife
from cg_assets.frames import Frames
from cg_assets.sampling.biases import UmbrellaBias, Variables

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FreeEnergySurface:
    """A weighted histogram in independent blocks, and the free energy that it stands for.

    Attributes:
        bins: the bins, over one or two collective variables.
        blocks: `(n_blocks, *bins.shape)` weight of each block; blocks are independent, for error bars.
        thermal_energy: kT [energy unit].
        unit: unit of the free energy.
    """

    bins: Bins
    blocks: FloatArray
    thermal_energy: float
    unit: str = ""

    @property
    def probability(self) -> FloatArray:
        """Probability of each bin, summing to 1."""
        total = self.blocks.sum(axis=0)
        return total / total.sum()

    @property
    def probability_error(self) -> FloatArray:
        """Jackknife standard error of each probability; nan for one block."""
        return jackknife(lambda total: total / total.sum(), self.blocks)[1]

    @property
    def free_energy(self) -> FloatArray:
        """-kT ln p, lowest value 0, inf in empty bins."""
        with np.errstate(divide="ignore"):
            energy = -self.thermal_energy * np.log(self.probability)
        return energy - energy.min()

    @property
    def standard_error(self) -> FloatArray:
        """Standard error kT σ(p)/p of -kT ln p at fixed normalisation; nan in empty bins."""
        with np.errstate(divide="ignore", invalid="ignore"):
            error = self.thermal_energy * self.probability_error / self.probability
        return np.where(self.probability > 0, error, np.nan)

    def marginal(self, axis: int) -> FreeEnergySurface:
        """The surface of one of the variables, the others summed over."""
        others = tuple(1 + i for i in range(len(self.bins.edges)) if i != axis)
        return FreeEnergySurface(
            Bins((self.bins.edges[axis],)), self.blocks.sum(axis=others), self.thermal_energy, self.unit
        )

    @staticmethod
    def pool(surfaces: Sequence[FreeEnergySurface]) -> FreeEnergySurface:
        """Average of independent runs, each with the same weight; their blocks stay apart for the error bar.

        Raises:
            ValueError: no surfaces, or their bins differ.
        """
        if not surfaces or any(surface.bins.shape != surfaces[0].bins.shape for surface in surfaces):
            raise ValueError("surfaces to pool must share their bins")
        blocks = np.concatenate([surface.blocks / surface.blocks.sum() for surface in surfaces])
        return FreeEnergySurface(surfaces[0].bins, blocks, surfaces[0].thermal_energy, surfaces[0].unit)


def pooled_batches(
    batches: Sequence[Frames], thermal_energy: float, windows: Sequence[UmbrellaBias] | None = None
) -> Frames:
    """Frames of several batches, each under its own bias, as one data set in which `bias_weights` are right.

    A frozen bias is known up to a constant. It is chosen so that the weights of each batch have the mean 1: a batch
    counts by its number of frames. Umbrella windows are joined over all batches, and `bias_energy` becomes the energy
    whose weights are theirs. Replicas are numbered anew, for those of two batches are independent.

    Args:
        batches: frames of each batch, with the same columns.
        thermal_energy: kT [energy unit].
        windows: the umbrella windows of each batch, with one force constant; None for other biases or none.
    """
    parts, offset, first_window = [], 0, 0
    for number, frames in enumerate(batches):
        part = replace(frames, replica=frames.replica + np.int32(offset))
        if windows is not None and frames.window is not None:
            part = replace(part, window=frames.window + np.int32(first_window))
            first_window += len(windows[number].centers)
        elif frames.bias_energy is not None:
            reduced = frames.bias_energy / thermal_energy
            shift = float(logsumexp(reduced)) - math.log(len(reduced))
            part = replace(part, bias_energy=frames.bias_energy - thermal_energy * shift)
        parts.append(part)
        offset += int(frames.replica.max(initial=-1)) + 1
    pooled = Frames.concatenate(parts)
    if windows is None or pooled.window is None:
        return pooled
    every = [center for bias in windows for center in bias.centers]
    joined = UmbrellaBias(every, windows[0].force_constant, windows[0].periodic)
    weights = umbrella_weights(joined, pooled.collective_variables, pooled.window, thermal_energy)
    return replace(pooled, bias_energy=thermal_energy * np.log(np.maximum(weights, 1e-300)), window=None)


def bias_weights(bias_energy: ArrayLike, thermal_energy: float) -> FloatArray:
    """Weights exp(+V/kT) that take the bias V of a frozen-bias run out, the largest being 1.

    Args:
        bias_energy: `(n_frames,)` [energy unit].
        thermal_energy: kT [energy unit].
    """
    reduced = np.asarray(bias_energy, dtype=np.float64) / thermal_energy
    return np.exp(reduced - reduced.max())


def umbrella_weights(bias: UmbrellaBias, variables: Variables, window: ArrayLike, thermal_energy: float) -> FloatArray:
    """Weights that take umbrella windows out of their frames (MBAR: Shirts and Chodera, J. Chem. Phys. 129, 124105).

    Args:
        bias: the windows.
        variables: name to `(n_frames,)` collective variables.
        window: `(n_frames,)` window of each frame.
        thermal_energy: kT [energy unit].

    Returns:
        `(n_frames,)`, the largest being 1.
    """
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # it would advertise another package
    from pymbar import MBAR

    numbers = np.asarray(window, dtype=np.int64)
    order = np.argsort(numbers, kind="stable")
    sorted_variables = {name: np.asarray(values, dtype=np.float64)[order] for name, values in variables.items()}
    states = range(len(bias.centers))
    reduced = [bias.energy(sorted_variables, np.full(len(order), state)) / thermal_energy for state in states]
    reduced.append(np.zeros(len(order)))  # the state without a bias, of which there are no frames
    counts = np.bincount(numbers, minlength=len(reduced))
    weights = np.empty(len(order))
    weights[order] = MBAR(np.stack(reduced), counts).W_nk[:, -1]
    return weights / weights.max()


def free_energy_surface(
    variables: ArrayLike,
    bins: Bins,
    thermal_energy: float,
    replica: ArrayLike,
    time: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    unit: str = "",
    n_blocks: int = 50,
) -> FreeEnergySurface:
    """Histogram frames in independent blocks (replicas; stretches of time where replicas are few).

    Args:
        variables: `(n_frames,)` or `(n_frames, k)` collective variables.
        bins: the bins; frames outside are left out.
        thermal_energy: kT [energy unit].
        replica: `(n_frames,)`.
        time: `(n_frames,)`; None takes the frames of a replica to be in order.
        weights: `(n_frames,)`, for example `bias_weights`; None for equal ones.
        unit: unit of the free energy.
        n_blocks: number of blocks at most.

    Raises:
        ValueError: no frame is inside the bins.
    """
    columns = as_columns(variables)
    index, _ = bins.locate(columns)
    block = independent_blocks(replica, time, n_blocks)
    inside = index >= 0
    if not inside.any():
        raise ValueError(f"none of {len(columns)} frames is inside the bins {[(e[0], e[-1]) for e in bins.edges]}")
    weight = np.ones(len(columns)) if weights is None else np.asarray(weights, dtype=np.float64)
    n = int(block.max()) + 1
    flat = np.bincount(block[inside] * bins.size + index[inside], weight[inside], minlength=n * bins.size)
    return FreeEnergySurface(bins, flat.astype(np.float64).reshape(n, *bins.shape), thermal_energy, unit)
