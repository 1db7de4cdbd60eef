"""Liquids of beads with a potential W(R, T): energy and heat capacity of the atoms, change of structure with T.

All errors are jackknives over independent pieces: replicas, or stretches of time where replicas are few
(`cg_assets.core.statistics.estimates.independent_blocks`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate, jackknife
from cg_assets.core.units import BOLTZMANN
from cg_assets.evaluation.liquid import Distribution, middles, sums_per_block

FloatArray = NDArray[np.float64]


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
    totals = sums_per_block(np.hstack([ones, energy[:, None], rows, energy[:, None] * rows]), replica, time)
    bins = rows.shape[1]

    def slope(total: FloatArray) -> FloatArray:
        count = total[0]
        product, mean = total[2 + bins :] / count, total[1] / count * total[2 : 2 + bins] / count
        return (product - mean) * count / (count - 1.0) / (BOLTZMANN * temperature**2)

    return Distribution(middles(reach, bins), *jackknife(slope, totals))


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
    totals = sums_per_block(np.stack([np.ones(len(energy)), moved, moved**2, frozen], axis=1), replica, time)

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
