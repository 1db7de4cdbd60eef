"""Checks of conditional sampling, frame by frame: do independent runs agree, and do energies obey thermodynamics?

Orientations of dense water at fixed centres are slow, and so are side chains. A frame whose runs have not come to
equilibrium shows itself in two ways: its runs give different mean forces, and the variance of the energy, which would
be k T² C_W, is not that by which <u> grows with temperature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.mbar import LEAST_COMMON
from cg_assets.core.units import BOLTZMANN
from cg_assets.labels.thermal.response import BLOCKS, ladder_mixture
from cg_assets.labels.thermal.samples import ConditionalSamples

FloatArray = NDArray[np.float64]

MIN_EFFECTIVE = 10.0
"""Least number of independent samples at each rung for meaningful moments and errors."""
MAX_HEAT_Z = 5.0
"""Largest difference of the two heat capacities that passes, in standard errors; it is the largest of a dozen."""
_FEWEST_RUNGS = 3
_LONG_BLOCKS = np.arange(2, 6)
"""Blocks of each run, at least a fifth of it long, that show how much slow noise shorter ones miss."""
HEAT_TOLERANCE = 0.03
"""Part of <u>(T + h) - <u>(T) by which the trapezoidal rule may miss it between two rungs of a ladder."""


@dataclass(frozen=True)
class FrameCheck:
    """Checks on the samples of one CG frame.

    Attributes:
        temperatures: `(n_rungs,)` the ladder [K].
        disagreement: `(n_rungs,)` root mean square difference of the mean forces of independent runs from their mean,
            in standard errors; 1 where the runs differ as their errors predict.
        slowness: `(n_rungs,)` factor by which errors from short blocks are too small, because forces stay correlated
            for longer than a block; at least 1. The errors of `disagreement` are those times it.
        energy_steps: `n_rungs - 1` differences of <u> between neighbours, measured [kJ/mol].
        heat_steps: the same from the variances of u, by the trapezoidal rule [kJ/mol].
        heat_z: `(n_rungs - 1,)` difference of the two beyond the tolerance, in standard errors.
        effective_samples: `(n_rungs,)` independent samples of all runs, from the autocorrelation of the energy.
        common: `(n_rungs - 1,)` independent samples that the ladder up to a rung has in common with the rest of it.
    """

    temperatures: FloatArray
    disagreement: FloatArray
    slowness: FloatArray
    energy_steps: list[Estimate]
    heat_steps: list[Estimate]
    heat_z: FloatArray
    effective_samples: FloatArray
    common: FloatArray

    def sound_from(self, max_disagreement: float) -> float:
        """Temperature from which up the ladder everything is in equilibrium [K]; infinite where fewer than 3 rungs are.

        Hot rungs relax by themselves, so they may be used although colder ones are stuck.
        """
        faults = [self._fault_at(rung, max_disagreement) for rung in range(len(self.temperatures))]
        first = 1 + max((rung for rung, why in enumerate(faults) if why), default=-1)
        return float(self.temperatures[first]) if len(faults) - first >= _FEWEST_RUNGS else math.inf

    def fault(self, max_disagreement: float) -> str:
        """Why temperatures below `sound_from` must not be used, of the highest of them; empty where all may."""
        rungs = range(len(self.temperatures) - 1, -1, -1)
        return next((why for rung in rungs if (why := self._fault_at(rung, max_disagreement))), "")

    def _fault_at(self, rung: int, max_disagreement: float) -> str:
        kelvin = self.temperatures[rung]
        if not self.effective_samples[rung] >= MIN_EFFECTIVE:
            return f"only {self.effective_samples[rung]:.1f} independent samples at {kelvin:g} K"
        if rung < len(self.common) and not self.common[rung] >= LEAST_COMMON:
            return (
                f"{kelvin:g} and {self.temperatures[rung + 1]:g} K do not touch: {self.common[rung]:.2g} independent "
                "samples in common"
            )
        if not self.disagreement[rung] <= max_disagreement:
            return f"independent runs differ by {self.disagreement[rung]:.2f} standard errors at {kelvin:g} K"
        if rung < len(self.heat_z) and not self.heat_z[rung] <= MAX_HEAT_Z:
            return (
                f"<u> grows by {self.energy_steps[rung]} from {kelvin:g} to {self.temperatures[rung + 1]:g} K, the "
                f"variance of u predicts {self.heat_steps[rung]}"
            )
        return ""

    def inflation(self, temperatures: FloatArray) -> FloatArray:
        """Factor for the errors from blocks of labels at some temperatures, at least 1.

        It is what the blocks miss, and how much more than that the runs differ: the scale factor of measurements that
        disagree (Particle Data Group, Review of Particle Physics).
        """
        return np.interp(temperatures, self.temperatures, self.slowness * np.maximum(1.0, self.disagreement))

    def to_json(self) -> dict[str, object]:
        """Plain JSON types."""
        return {
            "temperatures": self.temperatures.tolist(),
            "disagreement": self.disagreement.round(4).tolist(),
            "slowness": self.slowness.round(4).tolist(),
            "heat_z": self.heat_z.round(4).tolist(),
            "effective_samples": self.effective_samples.round(1).tolist(),
            "common": self.common.round(1).tolist(),
        }


def check_frame(samples: ConditionalSamples, n_blocks: int = BLOCKS) -> FrameCheck:
    """Compare the runs of one CG frame, and its energies at neighbouring temperatures.

    Args:
        samples: samples of two or more independent runs on a ladder.
        n_blocks: blocks over all runs, for the errors.

    Raises:
        ValueError: there is only one run.
    """
    runs, ladder = np.unique(samples.run), samples.ladder
    if len(runs) < 2:
        raise ValueError("one run cannot be compared with another; sample at least two")
    block = samples.blocks(n_blocks)
    n_blocks = int(block.max()) + 1
    shape = (n_blocks, len(ladder))
    cell = block * len(ladder) + np.searchsorted(ladder, samples.temperature)
    count = np.bincount(cell, minlength=math.prod(shape)).reshape(shape).astype(np.float64)
    short = _block_variance(_block_means(samples, n_blocks))
    variance = np.maximum(short, _slow_variance(samples, len(runs)))
    scatter = _block_means(samples, len(runs))[:, 0].var(axis=0, ddof=1).mean(axis=-1)
    tiny = np.finfo(np.float64).tiny
    energy = samples.energy - samples.energy.mean()
    first, second = (
        np.bincount(cell, energy**power, math.prod(shape)).reshape(shape).astype(np.float64) for power in (1, 2)
    )
    effective = np.unique(samples.temperature, return_counts=True)[1] / samples.statistical_inefficiency()
    shared = ladder_mixture(samples).common(samples.run, samples.time)
    return FrameCheck(
        ladder,
        np.sqrt(scatter / np.maximum(variance, tiny)),
        np.sqrt(variance / np.maximum(short, tiny)).clip(min=1.0),
        *_heat_steps(ladder, count, first, second),
        effective,
        np.array([shared[:above, above:].sum() for above in range(1, len(ladder))]),
    )


def _block_means(samples: ConditionalSamples, n_blocks: int) -> FloatArray:
    """Mean forces of stretches of time of each run `(n_runs, blocks of a run, n_rungs, components)`."""
    ladder, runs = samples.ladder, np.unique(samples.run)
    block = samples.blocks(n_blocks)
    cell = block * len(ladder) + np.searchsorted(ladder, samples.temperature)
    order = np.argsort(cell, kind="stable")
    starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
    sums = np.add.reduceat(samples.forces.reshape(len(samples), -1)[order], starts)
    means = np.full((n_blocks * len(ladder), sums.shape[1]), np.nan)
    means[cell[order][starts]] = sums / np.diff(starts, append=len(cell))[:, None]
    return means.reshape(len(runs), -1, len(ladder), sums.shape[1])


def _block_variance(means: FloatArray) -> FloatArray:
    """Squared error of a run's mean from the scatter of its blocks, mean over runs and components `(n_rungs,)`."""
    return means.var(axis=1, ddof=1).mean(axis=(0, 2)) / means.shape[1]


def _slow_variance(samples: ConditionalSamples, n_runs: int) -> FloatArray:
    """The same with what blocks miss of noise that is slower than they are long.

    Noise of correlation time τ in a run of length t gives k blocks a squared error of s (1 - (k + 1) τ / t), where that
    of the run's mean is s (1 - τ / t), to first order in τ / t: the straight line in k, at k = 0. Slow noise moves all
    beads together, so it shows in their mean.
    """
    found = [_block_variance(_block_means(samples, int(number) * n_runs)) for number in _LONG_BLOCKS]
    return np.polyfit(_LONG_BLOCKS, np.stack(found), 1)[1]


def _heat_steps(
    ladder: FloatArray, count: FloatArray, first: FloatArray, second: FloatArray
) -> tuple[list[Estimate], list[Estimate], FloatArray]:
    """Steps of <u> up the ladder, and those that the variances give, from sums over blocks `(n_blocks, n_rungs)`."""

    def steps(n: FloatArray, s: FloatArray, ss: FloatArray) -> FloatArray:
        mean = s / n
        heat = (ss / n - mean**2) * n / (n - 1) / (BOLTZMANN * ladder**2)
        return np.stack([np.diff(mean), 0.5 * np.diff(ladder) * (heat[1:] + heat[:-1])])

    totals = [item.sum(axis=0) for item in (count, first, second)]
    value = steps(*totals)
    left_out = np.stack(
        [
            steps(*(total - part[index] for total, part in zip(totals, (count, first, second), strict=True)))
            for index in range(len(count))
        ]
    )
    scale = len(count) - 1
    errors = np.sqrt(scale * left_out.var(axis=0))
    gap_error = np.sqrt(scale * (left_out[:, 0] - left_out[:, 1]).var(axis=0))
    beyond = np.maximum(np.abs(value[0] - value[1]) - HEAT_TOLERANCE * np.abs(value[0]), 0.0)
    energy, heat = (
        [Estimate(float(number), float(error), "kJ/mol") for number, error in zip(*pair, strict=True)]
        for pair in zip(value, errors, strict=True)
    )
    return energy, heat, beyond / np.maximum(gap_error, np.finfo(np.float64).tiny)
