"""Structure of a liquid of beads: the radial distribution function and its change with temperature."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate, jackknife
from cg_assets.evaluation.case import Case, given
from cg_assets.evaluation.distributions import (
    Distribution,
    at_temperatures,
    compared,
    error_and_noise,
    mean_of,
    middles,
    sums_per_block,
    temperature_slopes,
)
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.metrics.energies import frozen_energies, mean_energy
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import LiquidSettings

FloatArray = NDArray[np.float64]
_DISTANCES_AT_ONCE = 4_000_000
BIN_WIDTH = 0.005
"""Width of the bins of g(r) [nm]."""


class RadialDistribution(Metric[LiquidSettings]):
    """g(r) of the beads against that of the atoms at each temperature, and its change with temperature.

    dg/dT is the covariance of g(r) with U_W in one run of the beads, with the potential energy in one of the atoms.
    """

    reads = LiquidSettings
    measures = (
        Measure("rdf_error", "integral of |g(r) - g(r) of the atoms|, compared with noise alone", "nm", noise=True),
        Measure("rdf_excess", "the same less what noise alone makes of it", "nm"),
    )

    def checks(self, settings: LiquidSettings) -> Mapping[str, str]:
        """What is above the noise has a bound."""
        text = f"At every temperature, g(r) less its noise errs by at most {settings.max_rdf_error} nm."
        return {"rdf_excess": text}

    def measure(self, case: Case[LiquidSettings]) -> Iterable[Found]:
        """At each temperature, infinite where no replica stayed stable, and the mean error over temperatures."""
        reach, bins = half_box(case.true_frames)
        errors = []
        for kelvin, own, atoms in case.once(at_temperatures):
            error = excess = Estimate(math.inf, math.nan, "nm")
            noise = None
            if own is not None:
                energy, _ = case.once(frozen_energies)[kelvin]
                beads = _structure(own, energy, kelvin, reach, bins)
                known = _structure(atoms, given(atoms.potential_energy, "energies of the atoms"), kelvin, reach, bins)
                for name, of_beads, of_atoms in zip(("rdf", "rdf_slope"), beads, known, strict=True):
                    yield compared(name, of_beads, of_atoms, kelvin, _UNITS[name], "nm")
                error, noise = error_and_noise(beads[0], known[0], "nm")
                excess = Estimate(error.value - noise.value, error.standard_error, "nm")
            errors.append(error)
            yield Quantity("rdf_error", error, noise, temperature=kelvin, headline=True)
            yield Quantity("rdf_excess", excess, temperature=kelvin, bound=case.settings.max_rdf_error)
        yield Quantity("rdf_error", mean_of(errors), decides=True, headline=True)


_UNITS = {"rdf": "", "rdf_slope": "1/K"}


def _structure(
    frames: Frames, energy: ArrayLike, kelvin: float, reach: float, bins: int
) -> tuple[Distribution, Distribution]:
    """g(r) and dg/dT of frames at one temperature, with the energy of the atoms that belongs to each frame."""
    histograms = radial_histograms(frames.positions, given(frames.box, "a periodic box"), reach, bins)
    return (
        mean_distribution(histograms, reach, frames.replica, frames.time),
        radial_slope(histograms, energy, kelvin, reach, frames.replica, frames.time),
    )


def radial_histograms(positions: ArrayLike, box: ArrayLike, reach: float, bins: int) -> FloatArray:
    """g(r) of each frame `(n_frames, bins)`, pairs over those of an ideal gas, up to `reach` [nm].

    Args:
        positions: `(n_frames, n_beads, 3)` [nm], wrapped or not.
        box: edges `(3,)` or `(n_frames, 3)` [nm].
        reach: largest distance [nm].
        bins: their number, all of the same width.

    Raises:
        ValueError: `reach` is beyond half the box.
    """
    places, edges = _in_boxes(positions, box, reach)
    count = places.shape[1]
    one, two = np.triu_indices(count, 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(np.linspace(0.0, reach, bins + 1) ** 3)
    result = np.empty((len(places), bins))
    chunk = max(1, _DISTANCES_AT_ONCE // max(1, len(one)))
    for begin in range(0, len(places), chunk):
        part, size = places[begin : begin + chunk], edges[begin : begin + chunk, None]
        gap = part[:, one] - part[:, two]
        gap -= size * np.round(gap / size)
        distance = np.sqrt((gap**2).sum(axis=2))
        inside = distance < reach
        frame = np.broadcast_to(np.arange(len(part))[:, None], distance.shape)[inside]
        number = np.minimum((distance[inside] * (bins / reach)).astype(np.int64), bins - 1)
        counts = np.bincount(frame * bins + number, minlength=len(part) * bins).reshape(len(part), bins)
        result[begin : begin + chunk] = counts / (len(one) * shells / size.prod(axis=2))
    return result


def mean_distribution(
    histograms: ArrayLike, reach: float, replica: ArrayLike, time: ArrayLike | None = None
) -> Distribution:
    """Mean of the histograms of frames, with its errors.

    Args:
        histograms: `(n_frames, bins)` of `radial_histograms`.
        reach: largest distance of the histograms [nm].
        replica: `(n_frames,)` replica of each frame.
        time: `(n_frames,)`; frames of a replica are in order where None.
    """
    rows = np.asarray(histograms, np.float64)
    totals = sums_per_block(np.hstack([np.ones((len(rows), 1)), rows]), replica, time)
    return Distribution(middles(reach, rows.shape[1]), *jackknife(lambda total: total[1:] / total[0], totals))


def radial_distribution(frames: Frames, reach: float, bins: int) -> Distribution:
    """g(r) of all pairs of beads in a periodic box, by the nearest image, up to `reach` [nm].

    Args:
        frames: beads with their box, all at one temperature.
        reach: largest distance [nm], at most half the box.
        bins: their number.

    Raises:
        ValueError: the frames have no box, or `reach` is beyond half of it.
    """
    if frames.box is None:
        raise ValueError("g(r) needs a periodic box, since it is relative to the density")
    histograms = radial_histograms(frames.positions, frames.box, reach, bins)
    return mean_distribution(histograms, reach, frames.replica, frames.time)


def half_box(frames: Frames) -> tuple[float, int]:
    """Half the smallest edge of the boxes [nm], and the number of bins of g(r) up to it.

    Raises:
        ValueError: the frames have no box.
    """
    if frames.box is None:
        raise ValueError("a liquid needs frames with a periodic box")
    reach = float(frames.box.min()) / 2
    return reach, max(1, round(reach / BIN_WIDTH))


def radial_slope(
    histograms: ArrayLike,
    mean_energy: ArrayLike,
    temperature: float,
    reach: float,
    replica: ArrayLike,
    time: ArrayLike | None = None,
) -> Distribution:
    """dg(r)/dT from one simulation: Cov(g, U_W)/(kT²), exact for a potential W(R, T) whose mean energy U_W is [1/K].

    Args:
        histograms: `(n_frames, bins)` of `radial_histograms`.
        mean_energy: `(n_frames,)` U_W = W - T dW/dT [kJ/mol].
        temperature: of the simulation [K].
        reach: largest distance of the histograms [nm].
        replica: `(n_frames,)` replica of each frame.
        time: `(n_frames,)`; frames of a replica are in order where None.
    """
    rows = np.asarray(histograms, np.float64)
    return Distribution(
        middles(reach, rows.shape[1]), *temperature_slopes(rows, mean_energy, temperature, replica, time)
    )


def structure_and_energy(frames: Frames) -> tuple[dict[float, Distribution], dict[float, Estimate]]:
    """g(r) up to half the box, and potential energy per bead [kJ/mol], at each temperature of some frames.

    Raises:
        ValueError: the frames have no box or no potential energies.
    """
    reach, bins = half_box(frames)
    parts = frames.by_temperature()
    return (
        {kelvin: radial_distribution(part, reach, bins) for kelvin, part in parts.items()},
        {kelvin: mean_energy(part) for kelvin, part in parts.items()},
    )


def _in_boxes(positions: ArrayLike, box: ArrayLike, reach: float) -> tuple[FloatArray, FloatArray]:
    places = np.asarray(positions, np.float64)
    edges = np.broadcast_to(np.asarray(box, np.float64), (len(places), 3))
    if reach > 0.5 * edges.min() * (1.0 + 1e-6):
        raise ValueError(f"distances up to {reach:g} nm were asked for, beyond half the box of {edges.min():g} nm")
    return places, edges
