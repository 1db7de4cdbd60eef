"""Bond lengths and 1-3 distances of a CG simulation against those of the data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.local_geometry import local_geometry
from cg_assets.core.statistics.metrics import histograms, jensen_shannon_divergences
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.metric import Found, Measure, Metric, OfMolecules
from cg_assets.evaluation.quantity import Drawing, Quantity
from cg_assets.evaluation.settings import FreeEnergySettings

FloatArray = NDArray[np.float64]

MAX_BOND_DIVERGENCE = 0.05
"""Largest Jensen-Shannon divergence of a bond-length distribution that passes."""


class Bonds(OfMolecules, Metric[FreeEnergySettings]):
    """Whether bonds and 1-3 distances are distributed as in the data."""

    measures = (
        Measure("bond_jsd", "Jensen-Shannon divergence of the length of a bond from that in the data", where="bond"),
        Measure("largest_bond_jsd", "largest of all bonds"),
        Measure("largest_1_3_jsd", "largest divergence of a distance over one bead"),
    )

    def checks(self, settings: FreeEnergySettings) -> Mapping[str, str]:
        """The worst bond has a bound."""
        return {"largest_bond_jsd": "Bond lengths of the CG simulation are distributed as in the data."}

    def measure(self, case: Case[FreeEnergySettings]) -> Iterable[Found]:
        """Of the CG simulation without a bias."""
        cg_map, positions, truth = case.beads.cg_map, case.free.positions, case.true_frames.positions
        if not cg_map.bonds:
            return
        weights = case.weights(case.true_frames)
        monitor = bond_monitor(positions, truth, cg_map.bonds, weights=weights)
        for (i, j), divergence in zip(monitor.pairs, monitor.divergence, strict=True):
            where = f"{cg_map.bead_names[i]} - {cg_map.bead_names[j]}"
            yield Quantity("bond_jsd", Estimate(float(divergence), math.nan), where=where)
        worst = Estimate(float(monitor.divergence.max()), math.nan)
        yield Quantity("largest_bond_jsd", worst, bound=MAX_BOND_DIVERGENCE)
        geometry = local_geometry(positions, truth, cg_map.bonds, cg_map.bead_names, weights)
        yield Quantity("largest_1_3_jsd", Estimate(geometry.largest("1-3 distance"), math.nan))
        yield BondsDrawing(monitor, tuple(cg_map.bead_names))


@dataclass(frozen=True)
class BondsDrawing(Drawing):
    """Bond lengths of the CG simulation and of the data."""

    monitor: BondMonitor
    bead_names: tuple[str, ...]


@dataclass(frozen=True)
class BondMonitor:
    """Bond-length distributions of a CG simulation against the data.

    Attributes:
        pairs: the bonds.
        edges: `(n_bonds, n_bins + 1)` edges of the histograms [nm].
        data: `(n_bonds, n_bins)` probabilities in the data.
        simulation: `(n_bonds, n_bins)` in the simulation; what lies beyond the outer edges is in the outer bins.
        divergence: `(n_bonds,)` Jensen-Shannon divergences (natural logarithm).
    """

    pairs: tuple[tuple[int, int], ...]
    edges: FloatArray
    data: FloatArray
    simulation: FloatArray
    divergence: FloatArray


def bond_monitor(
    simulation: ArrayLike,
    data: ArrayLike,
    pairs: Sequence[tuple[int, int]],
    n_bins: int = 60,
    weights: FloatArray | None = None,
) -> BondMonitor:
    """Compare bond-length distributions of a CG simulation with those of the data.

    Args:
        simulation: `(n_frames, n_beads, 3)` [nm].
        data: `(n_data_frames, n_beads, 3)` [nm].
        pairs: bonds.
        n_bins: bins over the mean ± 6 standard deviations of the data.
        weights: `(n_data_frames,)` that remove a bias from the data; None for equal ones.

    Raises:
        ValueError: the two have different numbers of beads, or the simulation has no frame.
    """
    simulated, reference = (np.asarray(item, dtype=np.float64) for item in (simulation, data))
    if simulated.shape[1:] != reference.shape[1:] or not len(simulated):
        raise ValueError(f"simulation {simulated.shape} and data {reference.shape} must hold frames of the same beads")
    bonds = tuple((int(i), int(j)) for i, j in pairs)
    true, mine = (_lengths(frames, bonds) for frames in (reference, simulated))
    mean = np.average(true, axis=1, weights=weights)
    deviation = np.sqrt(np.average((true - mean[:, None]) ** 2, axis=1, weights=weights))
    edges = mean[:, None] + np.maximum(deviation, 1e-6)[:, None] * np.linspace(-6.0, 6.0, n_bins + 1)
    data_histogram, histogram = histograms(true, edges, weights), histograms(mine, edges)
    return BondMonitor(
        pairs=bonds,
        edges=edges,
        data=data_histogram,
        simulation=histogram,
        divergence=jensen_shannon_divergences(histogram, data_histogram),
    )


def _lengths(frames: FloatArray, bonds: Sequence[tuple[int, int]]) -> FloatArray:
    """Lengths `(n_bonds, n_frames)`."""
    pairs = np.asarray(bonds, dtype=np.int64).reshape(-1, 2)
    return np.linalg.norm(frames[:, pairs[:, 0]] - frames[:, pairs[:, 1]], axis=2).T
