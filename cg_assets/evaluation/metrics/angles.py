"""Angles between neighbours in a liquid of beads."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate, jackknife
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.distributions import (
    Distribution,
    at_temperatures,
    compared,
    error_and_noise,
    mean_of,
    middles,
    sums_per_block,
)
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import LiquidSettings

FloatArray = NDArray[np.float64]


class AngularDistribution(Metric[LiquidSettings]):
    """Angles between neighbours of the beads against those of the atoms, at each temperature."""

    reads = LiquidSettings
    measures = (
        Measure(
            "adf_error",
            "integral of |density of angles - that of the atoms|, compared with that of noise alone",
            noise=True,
        ),
    )

    def measure(self, case: Case[LiquidSettings]) -> Iterable[Found]:
        """At each temperature, infinite where no replica stayed stable, and the mean error over temperatures."""
        errors = []
        for kelvin, own, atoms in case.once(at_temperatures):
            error, noise = Estimate(math.inf, math.nan), None
            if own is not None:
                beads, known = (angular_distribution(item, case.settings.neighbour_distance) for item in (own, atoms))
                yield compared("adf", beads, known, kelvin, "1/rad", "rad")
                error, noise = error_and_noise(beads, known, "")
            errors.append(error)
            yield Quantity("adf_error", error, noise, temperature=kelvin, headline=True)
        yield Quantity("adf_error", mean_of(errors), headline=True)


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
