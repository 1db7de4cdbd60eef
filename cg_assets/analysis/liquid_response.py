"""Liquids of beads with a potential W(R, T): energy and heat capacity of the atoms, structure and its change with T.

All errors are jackknives over independent pieces: replicas, or stretches of time where replicas are few
(`cg_assets.analysis.estimates.independent_blocks`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.analysis.estimates import Estimate, independent_blocks, jackknife
from cg_assets.units import BOLTZMANN

FloatArray = NDArray[np.float64]
_DISTANCES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Distribution:
    """A curve with its errors.

    Attributes:
        grid: `(n_bins,)` middle of each bin [nm or rad].
        values: `(n_bins,)`.
        standard_error: `(n_bins,)`; nan where there is but one independent piece.
    """

    grid: FloatArray
    values: FloatArray
    standard_error: FloatArray

    def absolute_error(self, reference: Distribution) -> Estimate:
        """Integral of |values - reference| over the grid, the figure of merit of an RDF or ADF.

        The error is that of bins as independent; noise alone makes the integral positive.

        Raises:
            ValueError: the grids differ.
        """
        if self.grid.shape != reference.grid.shape or not np.allclose(self.grid, reference.grid):
            raise ValueError("the two distributions have different grids; make both with the same bins")
        width = self.grid[1] - self.grid[0]
        difference = np.abs(self.values - reference.values)
        error = width * np.sqrt(np.nansum(self.standard_error**2 + reference.standard_error**2))
        return Estimate(float(width * difference.sum()), float(error))


@dataclass(frozen=True)
class LiquidEnergy:
    """Energies of a liquid of atoms, from its beads.

    Attributes:
        energy: <U_W> [kJ/mol].
        heat_capacity: at constant volume, without the kinetic part: <C_W> + Var(U_W)/(kT²) [kJ/mol/K].
        of_frozen_beads: its part <C_W>.
        temperature: [K].
    """

    energy: Estimate
    heat_capacity: Estimate
    of_frozen_beads: Estimate
    temperature: float


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
    totals = _per_block(np.hstack([np.ones((len(rows), 1)), rows]), replica, time)
    return Distribution(_middles(reach, rows.shape[1]), *jackknife(lambda total: total[1:] / total[0], totals))


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
    rows, energy = np.asarray(histograms, np.float64), np.asarray(mean_energy, np.float64)
    energy = energy - energy.mean()
    ones = np.ones((len(rows), 1))
    totals = _per_block(np.hstack([ones, energy[:, None], rows, energy[:, None] * rows]), replica, time)
    bins = rows.shape[1]

    def slope(total: FloatArray) -> FloatArray:
        count = total[0]
        product, mean = total[2 + bins :] / count, total[1] / count * total[2 : 2 + bins] / count
        return (product - mean) * count / (count - 1.0) / (BOLTZMANN * temperature**2)

    return Distribution(_middles(reach, bins), *jackknife(slope, totals))


def liquid_energy(
    mean_energy: ArrayLike,
    heat_capacity: ArrayLike,
    temperature: float,
    replica: ArrayLike,
    time: ArrayLike | None = None,
) -> LiquidEnergy:
    """Energy and heat capacity of the atoms: E = <U_W> and C_v = <C_W> + Var(U_W)/(kT²), both without kinetic energy.

    Args:
        mean_energy: `(n_frames,)` U_W = W - T dW/dT of each frame, not W [kJ/mol].
        heat_capacity: `(n_frames,)` C_W = -T d²W/dT² [kJ/mol/K].
        temperature: of the simulation [K].
        replica: `(n_frames,)` replica of each frame.
        time: `(n_frames,)`; frames of a replica are in order where None.
    """
    energy, frozen = np.asarray(mean_energy, np.float64), np.asarray(heat_capacity, np.float64)
    shift = energy.mean()
    moved = energy - shift
    totals = _per_block(np.stack([np.ones(len(energy)), moved, moved**2, frozen], axis=1), replica, time)

    def numbers(total: FloatArray) -> FloatArray:
        count, first, second, rest = total
        variance = (second / count - (first / count) ** 2) * count / (count - 1.0)
        return np.array([first / count, rest / count + variance / (BOLTZMANN * temperature**2), rest / count])

    value, error = jackknife(numbers, totals)
    return LiquidEnergy(
        Estimate(float(value[0] + shift), float(error[0]), "kJ/mol"),
        Estimate(float(value[1]), float(error[1]), "kJ/mol/K"),
        Estimate(float(value[2]), float(error[2]), "kJ/mol/K"),
        temperature,
    )


def _in_boxes(positions: ArrayLike, box: ArrayLike, reach: float) -> tuple[FloatArray, FloatArray]:
    places = np.asarray(positions, np.float64)
    edges = np.broadcast_to(np.asarray(box, np.float64), (len(places), 3))
    if reach > 0.5 * edges.min() * (1.0 + 1e-6):
        raise ValueError(f"distances up to {reach:g} nm were asked for, beyond half the box of {edges.min():g} nm")
    return places, edges


def _middles(reach: float, bins: int) -> FloatArray:
    return (np.arange(bins) + 0.5) * reach / bins


def _per_block(rows: FloatArray, replica: ArrayLike, time: ArrayLike | None) -> FloatArray:
    """Sums of rows over each independent piece."""
    block = independent_blocks(replica, time)
    totals = np.zeros((int(block.max()) + 1, rows.shape[1]))
    np.add.at(totals, block, rows)
    return totals
