"""Self-diffusion of the beads of a liquid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate, jackknife
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.distributions import at_temperatures
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import LiquidSettings

FloatArray = NDArray[np.float64]


class SelfDiffusion(Metric[LiquidSettings]):
    """Self-diffusion of the beads, compared with the molecules of the atomistic simulation."""

    reads = LiquidSettings
    measures = (Measure("diffusion", "self-diffusion coefficient in the box of the simulation", "nm^2/ps"),)

    def measure(self, case: Case[LiquidSettings]) -> Iterable[Found]:
        """At each temperature at which a replica stayed stable."""
        for kelvin, own, atoms in case.once(at_temperatures):
            if own is not None:
                beads, known = (diffusion(frames, case.settings.longest_lag).coefficient for frames in (own, atoms))
                yield Quantity("diffusion", beads, known, temperature=kelvin)


@dataclass(frozen=True)
class Diffusion:
    """Self-diffusion of the beads.

    Attributes:
        lag: `(n_lags,)` times [ps].
        displacement: `(n_lags,)` mean squared displacement [nm²].
        coefficient: a sixth of its slope over the later half of the lags [nm²/ps].
    """

    lag: FloatArray
    displacement: FloatArray
    coefficient: Estimate


def diffusion(frames: Frames, longest: float, n_blocks: int = 10) -> Diffusion:
    """Self-diffusion coefficient from the mean squared displacement relative to the centre of all beads (Einstein).

    The coefficient of a small box is too small by 2.837 kT / (6 π viscosity edge) (Yeh and Hummer, J. Phys. Chem. B
    108, 15873 (2004)); it is not corrected here, so compare boxes of one size.

    Args:
        frames: beads that are not wrapped into the box, all at one temperature, evenly spaced in time.
        longest: longest lag [ps].
        n_blocks: stretches of time of all replicas for the error; fewer where they would be shorter than twice
            `longest`.

    Raises:
        ValueError: all replicas are shorter than twice the longest lag, or a lag has no frames.
    """
    replicas = np.unique(frames.replica)
    runs = []
    for replica in replicas:
        rows = np.flatnonzero(frames.replica == replica)
        rows = rows[np.argsort(frames.time[rows])]
        positions = frames.positions[rows].astype(np.float64)
        runs.append(positions - positions.mean(axis=1, keepdims=True))
    longest_run = frames.time[frames.replica == replicas[int(np.argmax([len(run) for run in runs]))]]
    interval = float(np.diff(np.sort(longest_run))[0])
    n_lags, n_times = round(longest / interval), max(map(len, runs))
    if n_lags < 4 or n_times < 2 * n_lags:
        raise ValueError(
            f"lags up to {longest} ps need replicas of {2 * longest} ps with frames each {longest / 4} ps at least; "
            f"there are {n_times} frames, {interval} ps apart"
        )
    runs = [run for run in runs if len(run) >= 2 * n_lags]  # the others, cut short, hold no whole block
    stretches = []
    for run in runs:
        pieces = max(1, min(math.ceil(n_blocks / len(runs)), len(run) // (2 * n_lags)))
        edges = [len(run) * index // pieces for index in range(pieces + 1)]
        stretches += [run[low:high] for low, high in itertools.pairwise(edges)]
    blocks = np.array(
        [[((part[lag:] - part[:-lag]) ** 2).sum(axis=-1).mean() for lag in range(1, n_lags + 1)] for part in stretches]
    )
    weight = np.array([len(part) for part in stretches]) / max(map(len, stretches))
    lag = np.asarray(interval * np.arange(1, n_lags + 1), dtype=np.float64)
    later = lag >= 0.5 * lag[-1]
    weights = (lag[later] - lag[later].mean()) / ((lag[later] - lag[later].mean()) ** 2).sum() / 6.0
    value, error = jackknife(
        lambda total: total[:-1][later] @ weights / total[-1], np.column_stack([blocks * weight[:, None], weight])
    )
    displacement = np.asarray(np.average(blocks, axis=0, weights=weight), dtype=np.float64)
    return Diffusion(lag, displacement, Estimate(float(value), float(error), "nm^2/ps"))
