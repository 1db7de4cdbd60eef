"""The slowest coordinates of a molecule, for those whose collective variables do not separate its states.

Time-lagged independent component analysis (Molgedey and Schuster, Phys. Rev. Lett. 72, 3634 (1994); Pérez-Hernández et
al., J. Chem. Phys. 139, 015102 (2013)) finds the linear combinations of bead distances and dihedrals that stay
correlated longest in the reference. Free energies of CG models are compared in the first two.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.biases.reweighting import weights_of
from cg_assets.core.frames import Frames
from cg_assets.core.geometry import torsion
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.estimates import Estimate, independent_blocks, jackknife, ratio
from cg_assets.core.statistics.metrics import jsd, pmf_error
from cg_assets.core.statistics.surfaces import FreeEnergySurface, free_energy_surface
from cg_assets.evaluation.case import Case, given
from cg_assets.evaluation.free_energies import SurfacesDrawing
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.reference import halves
from cg_assets.evaluation.settings import FreeEnergySettings
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.chains import chain_terms
from cg_assets.mapping.maps import CGMap

FloatArray = NDArray[np.float64]
TICS = ("TIC 1", "TIC 2")
SLOW = "slow coordinates"
_REACH = 0.02
"""Margin beyond the reference's range in the histograms; what lies beyond counts in the outer bins."""


class SlowFreeEnergy(Metric[FreeEnergySettings]):
    """Free energy and time scales of the CG simulation in the two slowest coordinates of the data."""

    reads = FreeEnergySettings
    measures = (
        Measure(
            "pmf_error",
            "mass-weighted squared error of ln p over the bins of the slow coordinates",
            "(kT)²",
            "coordinates",
            noise=True,
        ),
        Measure(
            "jsd", "Jensen-Shannon divergence of the density in the slow coordinates", "", "coordinates", noise=True
        ),
        Measure("time_scale", "implied time scale of a slow coordinate", "ps", "coordinate"),
        Measure("speed_up", "time scale of the atoms over that of the beads", "", "coordinate"),
    )

    def applies(self, settings: FreeEnergySettings) -> bool:
        """Where the settings ask for slow coordinates."""
        return settings.slow_coordinates is not None

    def measure(self, case: Case[FreeEnergySettings]) -> Iterable[Found]:
        """Of the CG simulation without a bias; the halves of the data disagree by the error.

        Biased data have weights, but no time scales of their own: their dynamics are those under the bias.
        """
        settings = given(case.settings.slow_coordinates, "slow coordinates")
        truth, simulation = case.truth, case.free
        if truth is None:
            return
        slow = case.slow or SlowCoordinates(case.beads.cg_map, truth, settings.lag)
        model = slow(simulation.positions)
        one, two = surfaces = surfaces_of_halves(case.beads, slow, truth, settings.bins)
        found, pooled = clipped_surface(case.beads, model, simulation, one.bins), FreeEnergySurface.pool(surfaces)
        yield Quantity("pmf_error", pmf_error(found, pooled), pmf_error(one, two), where=SLOW, headline=True)
        yield Quantity("jsd", jsd(found, pooled), jsd(one, two), where=SLOW, headline=True)
        moving = truth if case.dynamics is None else case.dynamics
        whole, biased = slow(moving.positions), case.weights(moving) is not None
        for axis, name in enumerate(TICS):
            scale = time_scale(model[:, axis], simulation, settings.lag)
            known = None if biased else time_scale(whole[:, axis], moving, settings.lag)
            yield Quantity("time_scale", scale, known, where=name)
            if case.dynamics is not None and known is not None:
                yield Quantity("speed_up", ratio(known, scale), where=name)
        yield SurfacesDrawing({"reference": pooled, "CG model": found}, TICS, ("", ""), maps="slow coordinates")


class SlowCoordinates:
    """The two slowest coordinates of some trajectories."""

    def __init__(self, cg_map: CGMap, frames: Frames, lag: float) -> None:
        """Find them.

        Args:
            cg_map: of a molecule.
            frames: CG frames, evenly spaced in the time of each replica.
            lag: [ps].

        Raises:
            ValueError: no trajectory is longer than the lag.
        """
        from deeptime.decomposition import TICA

        _, self._dihedrals, self._pairs = chain_terms(cg_map.bonds, cg_map.n_beads)
        values = self._features(frames.positions)
        self._mean, self._scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-9)
        standard = (values - self._mean) / self._scale
        steps = lag_steps(frames, lag)
        trajectories = [standard[rows] for rows in _by_replica(frames)]
        long_enough = [rows for rows in trajectories if len(rows) > steps]
        if not long_enough:
            raise ValueError(f"no trajectory is longer than the lag of {lag:g} ps")
        self._model = TICA(lagtime=steps, dim=2).fit_fetch(long_enough)

    def __call__(self, positions: ArrayLike) -> FloatArray:
        """Slow coordinates `(n_frames, 2)` of bead positions `(n_frames, n_beads, 3)` [nm]."""
        return np.asarray(self._model.transform((self._features(positions) - self._mean) / self._scale))

    def _features(self, positions: ArrayLike) -> FloatArray:
        """Distances of pairs more than three bonds apart, cosines and sines of dihedrals: `(n_frames, n_features)`."""
        points = np.asarray(positions, dtype=np.float64)
        columns = [np.linalg.norm(points[:, i] - points[:, j], axis=1) for i, j in self._pairs]
        for sites in self._dihedrals:
            angle = torsion(points, sites)[0]
            columns += [np.cos(angle), np.sin(angle)]
        return np.stack(columns, axis=1)


def surfaces_of_halves(beads: Beads, slow: SlowCoordinates, data: Frames, n_bins: int) -> list[FreeEnergySurface]:
    """Free energy of the two halves of data in slow coordinates, without their bias."""
    parts = halves(data)
    own = [slow(part.positions) for part in parts]
    low, high = np.concatenate(own).min(axis=0), np.concatenate(own).max(axis=0)
    margin = _REACH * (high - low)
    bins = Bins.between(np.stack([low - margin, high + margin], axis=1), n_bins)
    return [
        clipped_surface(beads, values, part, bins, weights_of(part, beads.thermal_energy))
        for values, part in zip(own, parts, strict=True)
    ]


def lag_steps(frames: Frames, lag: float) -> int:
    """Frames in a lag [ps], at least one."""
    times = np.unique(np.round(frames.time, 6))
    interval = float(np.diff(times).min()) if len(times) > 1 else lag
    return max(1, round(lag / interval))


def _by_replica(frames: Frames) -> list[NDArray[np.int64]]:
    """Rows of each replica, and of each rung of a ladder, in order of time."""
    order = np.lexsort((frames.time, frames.replica, frames.temperature))
    breaks = np.diff(frames.replica[order]) | (np.diff(frames.temperature[order]) != 0)
    return np.split(order, np.flatnonzero(breaks) + 1)


def time_scale(values: ArrayLike, frames: Frames, lag: float) -> Estimate:
    """Implied time scale -lag / ln C(lag) [ps] of a coordinate with normalised autocorrelation C.

    It is nan where the correlation is not between 0 and 1, or no replica is longer than the lag. Under replica exchange
    it is that of the exchange.

    Args:
        values: `(n_frames,)`.
        frames: the frames that they are of.
        lag: [ps].
    """
    series, steps = np.asarray(values, dtype=np.float64), lag_steps(frames, lag)
    block = independent_blocks(frames.replica, frames.time)
    totals = np.zeros((int(block.max()) + 1, 6))
    for rows in _by_replica(frames):
        early, late = series[rows[:-steps]], series[rows[steps:]]
        products = np.stack([early * late, early, late, early**2, late**2, np.ones_like(early)], axis=1)
        np.add.at(totals, block[rows[:-steps]], products)

    def statistic(total: FloatArray) -> float:
        product, first, second, square, other, count = total
        if not count:
            return float("nan")
        mean = (first + second) / (2.0 * count)
        variance = (square + other) / (2.0 * count) - mean**2
        correlation = (product / count - mean**2) / variance
        return -lag / float(np.log(correlation)) if 0.0 < correlation < 1.0 else float("nan")

    value, error = jackknife(statistic, totals)
    return Estimate(float(value), float(error), "ps")


def clipped_surface(
    beads: Beads, values: FloatArray, frames: Frames, bins: Bins, weights: FloatArray | None = None
) -> FreeEnergySurface:
    """Free energy of weighted frames; what lies beyond the bins counts in the outer ones."""
    ends = np.array([edges[[0, -1]] for edges in bins.edges])
    inside = np.clip(values.reshape(len(values), -1), ends[:, 0], ends[:, 1])
    return free_energy_surface(
        inside, bins, beads.thermal_energy, frames.replica, frames.time, weights=weights, unit=beads.energy_unit
    )
