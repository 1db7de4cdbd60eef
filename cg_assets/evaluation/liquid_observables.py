"""What a liquid of beads is judged by at each temperature: angles of neighbours, diffusion, heat capacity."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate, jackknife
from cg_assets.core.units import BOLTZMANN
from cg_assets.evaluation.liquid import Distribution, middles, sums_per_block

FloatArray = NDArray[np.float64]


def angular_distribution(frames: Frames, cutoff: float, n_bins: int = 60) -> Distribution:
    """Density of the angle that two neighbours of a bead make at it [1/rad]; sin(angle)/2 for random directions.

    Args:
        frames: beads with their box, all at one temperature.
        cutoff: largest distance of a neighbour [nm], for example the first minimum of g(r).
        n_bins: bins over 0 to π.

    Raises:
        ValueError: the frames have no box, the cutoff is beyond half of it, or no bead has two neighbours.
    """
    if frames.box is None or cutoff > frames.box.min() / 2:
        raise ValueError(f"neighbours up to {cutoff} nm need a periodic box of at least twice that")
    edges = np.linspace(0.0, math.pi, n_bins + 1)
    counts = np.zeros((len(frames), n_bins))
    for count, positions, box in zip(counts, frames.positions.astype(np.float64), frames.box, strict=True):
        apart = positions[None] - positions[:, None]
        apart -= box * np.round(apart / box)
        distance = np.sqrt((apart**2).sum(axis=-1))
        np.fill_diagonal(distance, np.inf)
        for direction, length in zip(apart, distance, strict=True):
            near = np.flatnonzero(length < cutoff)
            unit = direction[near] / length[near, None]
            cosine = (unit @ unit.T)[np.triu_indices(len(near), 1)]
            count += np.histogram(np.arccos(np.clip(cosine, -1.0, 1.0)), edges)[0]
    if not counts.any():
        raise ValueError(f"no bead has two neighbours within {cutoff} nm; enlarge the cutoff")
    width = edges[1] - edges[0]
    totals = sums_per_block(counts, frames.replica, frames.time)
    value, error = jackknife(lambda total: total / (total.sum() * width), totals)
    return Distribution(middles(math.pi, n_bins), value, error)


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
        ValueError: the replicas are shorter than twice the longest lag, or a lag has no frames.
    """
    replicas = np.unique(frames.replica)
    runs = []
    for replica in replicas:
        rows = np.flatnonzero(frames.replica == replica)
        rows = rows[np.argsort(frames.time[rows])]
        positions = frames.positions[rows].astype(np.float64)
        runs.append(positions - positions.mean(axis=1, keepdims=True))
    times = np.sort(frames.time[frames.replica == replicas[0]])
    interval = float(times[1] - times[0])
    n_lags, n_times = round(longest / interval), min(map(len, runs))
    if n_lags < 4 or n_times < 2 * n_lags:
        raise ValueError(
            f"lags up to {longest} ps need replicas of {2 * longest} ps with frames each {longest / 4} ps at least; "
            f"there are {n_times} frames, {interval} ps apart"
        )
    pieces = max(1, min(math.ceil(n_blocks / len(runs)), n_times // (2 * n_lags)))
    edges = [n_times * index // pieces for index in range(pieces + 1)]
    blocks = np.array(
        [
            [((run[low + lag : high] - run[low : high - lag]) ** 2).sum(axis=-1).mean() for lag in range(1, n_lags + 1)]
            for run in runs
            for low, high in itertools.pairwise(edges)
        ]
    )
    lag = np.asarray(interval * np.arange(1, n_lags + 1), dtype=np.float64)
    later = lag >= 0.5 * lag[-1]
    weights = (lag[later] - lag[later].mean()) / ((lag[later] - lag[later].mean()) ** 2).sum() / 6.0
    value, error = jackknife(
        lambda total: total[:-1][later] @ weights / total[-1], np.column_stack([blocks, np.ones(len(blocks))])
    )
    displacement = np.asarray(blocks.mean(axis=0), dtype=np.float64)
    return Diffusion(lag, displacement, Estimate(float(value), float(error), "nm^2/ps"))


def heat_capacity(frames: Frames) -> Estimate:
    """Potential part of the heat capacity at constant volume, Var(u)/(kT²) for each bead [kJ/mol/K].

    A rigid molecule has 3 k more from its kinetic energy.

    Args:
        frames: frames with potential energies, all at one temperature.

    Raises:
        ValueError: the frames have no potential energies, or several temperatures.
    """
    temperatures = np.unique(frames.temperature)
    if frames.potential_energy is None or len(temperatures) != 1:
        raise ValueError(f"a heat capacity needs potential energies at one temperature, not at {len(temperatures)}")
    energy = frames.potential_energy - frames.potential_energy.mean()
    powers = np.stack([energy**power for power in (0, 1, 2)], axis=1)
    sums = sums_per_block(powers, frames.replica, frames.time)
    scale = 1.0 / (BOLTZMANN * temperatures[0] ** 2 * frames.n_sites)
    value, error = jackknife(lambda total: (total[2] / total[0] - (total[1] / total[0]) ** 2) * scale, sums)
    return Estimate(float(value), float(error), "kJ/mol/K")
