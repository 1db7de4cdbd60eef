"""Probabilities and free-energy surfaces on fixed bins from weighted frames, kept in independent blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.clusters import Bins, as_columns
from cg_assets.core.statistics.estimates import independent_blocks, jackknife

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
