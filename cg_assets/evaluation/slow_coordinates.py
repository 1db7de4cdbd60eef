"""The slowest coordinates of a molecule, for those whose collective variables do not tell its states.

Time-lagged independent component analysis (Molgedey and Schuster, Phys. Rev. Lett. 72, 3634 (1994); Pérez-Hernández et
al., J. Chem. Phys. 139, 015102 (2013)) finds the linear combinations of bead distances and dihedrals that stay
correlated longest in the reference. Free energies of CG models are compared in the first two.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.geometry import torsion
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.estimates import Estimate, independent_blocks, jackknife
from cg_assets.core.statistics.metrics import basin_population, jsd, pmf_error
from cg_assets.core.statistics.surfaces import FreeEnergySurface, free_energy_surface
from cg_assets.core.units import unit
from cg_assets.evaluation.native import native_beads, rmsd
from cg_assets.evaluation.reference import halves
from cg_assets.mapping.chains import chain_terms
from cg_assets.systems.spec import SystemSpec

FloatArray = NDArray[np.float64]
TICS = ("TIC 1", "TIC 2")
_RMSD_BINS = 40
_REACH = 0.02
"""Margin beyond the reference's range in the histograms; what lies beyond counts in the outer bins."""


@dataclass(frozen=True)
class SlowComparison:
    """A CG model and its reference in the slow coordinates.

    Attributes:
        quantities: name to the model's estimate and the reference's (None where it has none).
        surfaces: `reference` and `CG model` in the two slowest coordinates.
        rmsd_surfaces: the same of the deviation from the folded structure; empty without one.
    """

    quantities: dict[str, tuple[Estimate, Estimate | None]]
    surfaces: dict[str, FreeEnergySurface]
    rmsd_surfaces: dict[str, FreeEnergySurface]


class SlowCoordinates:
    """The two slowest coordinates of some trajectories."""

    def __init__(self, system: SystemSpec, frames: Frames, lag: float) -> None:
        """Find them.

        Args:
            system: a molecule.
            frames: CG frames, evenly spaced in the time of each replica.
            lag: [ps].

        Raises:
            ValueError: no trajectory is longer than the lag.
        """
        from deeptime.decomposition import TICA

        cg_map = system.beads().cg_map
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


def lag_steps(frames: Frames, lag: float) -> int:
    """Frames in a lag [ps], at least one."""
    times = np.unique(np.round(frames.time, 6))
    interval = float(np.diff(times).min()) if len(times) > 1 else lag
    return max(1, round(lag / interval))


def _by_replica(frames: Frames) -> list[NDArray[np.int64]]:
    """Rows of each replica in order of time."""
    order = np.lexsort((frames.time, frames.replica))
    return np.split(order, np.flatnonzero(np.diff(frames.replica[order])) + 1)


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


def compare_slow(system: SystemSpec, reference: Frames, simulation: Frames) -> SlowComparison:
    """Judge a CG simulation in the slow coordinates of the reference, and by its distance from the folded structure.

    Args:
        system: a molecule with `evaluation.slow_coordinates`.
        reference: CG frames of the reference, whose halves disagree by its error.
        simulation: frames of the CG simulation without a bias.
    """
    settings = system.evaluation.slow_coordinates
    if settings is None:
        raise ValueError(f"{system.name} has no evaluation.slow_coordinates")
    slow = SlowCoordinates(system, reference, settings.lag)
    parts = halves(reference)
    own = [slow(part.positions) for part in parts]
    model = slow(simulation.positions)
    low, high = np.concatenate(own).min(axis=0), np.concatenate(own).max(axis=0)
    margin = _REACH * (high - low)
    bins = Bins.between(np.stack([low - margin, high + margin], axis=1), settings.bins)
    surfaces = [_surface(system, values, bins, part) for values, part in zip(own, parts, strict=True)]
    found, pooled = _surface(system, model, bins, simulation), FreeEnergySurface.pool(surfaces)
    ((one, two),) = pairwise(surfaces)
    quantities: dict[str, tuple[Estimate, Estimate | None]] = {
        "JSD in the slow coordinates": (jsd(found, pooled), jsd(one, two)),
        "PMF error in the slow coordinates": (pmf_error(found, pooled), pmf_error(one, two)),
    }
    whole = slow(reference.positions)
    for axis, name in enumerate(TICS):
        quantities[f"time scale of {name}"] = (
            time_scale(model[:, axis], simulation, settings.lag),
            time_scale(whole[:, axis], reference, settings.lag),
        )
    rmsd_surfaces: dict[str, FreeEnergySurface] = {}
    if system.evaluation.native is not None:
        quantities |= _against_native(system, reference, simulation, rmsd_surfaces)
    return SlowComparison(quantities, {"reference": pooled, "CG model": found}, rmsd_surfaces)


def _surface(system: SystemSpec, values: FloatArray, bins: Bins, frames: Frames) -> FreeEnergySurface:
    """Free energy; what lies beyond the bins counts in the outer ones."""
    ends = np.array([edges[[0, -1]] for edges in bins.edges])
    inside = np.clip(values.reshape(len(values), -1), ends[:, 0], ends[:, 1])
    energy = unit("energy", system.units)
    return free_energy_surface(inside, bins, system.thermal_energy, frames.replica, frames.time, unit=energy)


def _against_native(
    system: SystemSpec, reference: Frames, simulation: Frames, surfaces: dict[str, FreeEnergySurface]
) -> dict[str, tuple[Estimate, Estimate | None]]:
    native: Any = system.evaluation.native
    target = native_beads(system)
    values = {"reference": rmsd(reference.positions, target), "CG model": rmsd(simulation.positions, target)}
    bins = Bins.between([(0.0, 1.05 * float(values["reference"].max()))], _RMSD_BINS)
    folded, mean = [], []
    for (name, deviation), frames in zip(values.items(), (reference, simulation), strict=True):
        surfaces[name] = _surface(system, deviation, bins, frames)
        folded.append(
            basin_population({"rmsd": deviation}, {"rmsd": (0.0, native.folded_rmsd)}, frames.replica, frames.time)
        )
        block = independent_blocks(frames.replica, frames.time)
        totals = np.stack([np.bincount(block, deviation), np.bincount(block)], axis=1)
        value, error = jackknife(lambda total: total[0] / total[1], totals)
        mean.append(Estimate(float(value), float(error), "nm"))
    return {"folded fraction": (folded[1], folded[0]), "mean RMSD to the native structure": (mean[1], mean[0])}
