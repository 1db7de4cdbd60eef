"""The prior of a potential alone, simulated: what the network has to correct, and whether that holds together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import ExplosionError
from cg_assets.core.progress import Progress
from cg_assets.potentials.chain_prior.module import ChainPrior
from cg_assets.simulation.langevin import simulate

if TYPE_CHECKING:
    from cg_assets.simulation.settings import CGSimulation
    from cg_assets.training.priors import PriorFit

STEPS = 20_000
"""Steps of a simulation of the prior alone, at most; the first fifth is left out."""
REPLICAS = 100
"""Replicas of it: fewer would leave the divergence of a bond to chance."""
_FRAMES = 50


@dataclass(frozen=True)
class PriorSimulation:
    """What the prior alone gave.

    Attributes:
        replicas: how many were simulated.
        stable_replicas: those that did not explode.
        histograms: of each term's coordinate; empty where no replica was stable.
        divergence: Jensen-Shannon divergence of each from the data, `(n_terms,)`.
        time: simulated time of each replica [ps].
    """

    replicas: int
    stable_replicas: int
    histograms: list[NDArray[np.float64]]
    divergence: NDArray[np.float64]
    time: float


def simulate_prior(
    fit: PriorFit,
    starts: ArrayLike,
    masses: ArrayLike,
    thermal_energy: float,
    settings: CGSimulation,
    progress: Progress | None = None,
) -> PriorSimulation:
    """Langevin dynamics with the prior alone, at time step and friction of the CG simulation.

    Args:
        fit: the prior.
        starts: `(n_replicas, n_beads, 3)` [nm].
        masses: `(n_beads,)` [amu].
        thermal_energy: k_B T [kJ/mol].
        settings: of the CG simulation.
        progress: called during the steps.
    """
    step = settings.timestep
    kept = max(1, min(STEPS, round(settings.duration / step)) * 4 // 5 // _FRAMES) * _FRAMES
    times = {"burn_in": kept // 4 * step, "duration": kept * step, "frame_interval": kept // _FRAMES * step}
    short = settings.model_copy(update=times | {"tempering": None})
    prior = ChainPrior(fit.config(), thermal_energy)
    replicas, time = len(np.asarray(starts)), 1.25 * kept * step
    try:
        trajectory = simulate(prior, starts, masses, thermal_energy, short, settings.seed, progress=progress)
    except ExplosionError:
        return PriorSimulation(replicas, 0, [], np.full(len(fit.terms), np.nan), time)
    positions = trajectory.stable_frames.positions
    stable = int((~trajectory.exploded).sum())
    if not stable:
        return PriorSimulation(replicas, 0, [], np.full(len(fit.terms), np.nan), time)
    return PriorSimulation(replicas, stable, fit.histograms(positions), fit.divergences(positions), time)
