"""Energy and heat capacity of a liquid of atoms, from its beads with a potential W(R, T) and from the atoms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate, jackknife
from cg_assets.core.units import BOLTZMANN
from cg_assets.evaluation.case import Case, given
from cg_assets.evaluation.distributions import at_temperatures, sums_per_block
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import LiquidSettings

FloatArray = NDArray[np.float64]


class LiquidEnergies(Metric[LiquidSettings]):
    """Energy and heat capacity of the atoms that a potential W(R, T) implies, without kinetic energy."""

    reads = LiquidSettings
    measures = (
        Measure("potential_energy", "mean potential energy of a molecule", "kJ/mol"),
        Measure(
            "heat_capacity", "heat capacity of a molecule at constant volume, without its kinetic part", "kJ/mol/K"
        ),
    )

    def measure(self, case: Case[LiquidSettings]) -> Iterable[Found]:
        """At each temperature at which a replica stayed stable."""
        for kelvin, own, atoms in case.once(at_temperatures):
            if own is None:
                continue
            whole = liquid_energy(*case.once(frozen_energies)[kelvin], kelvin, own.replica, own.time)
            energy, capacity = (_of_each(item, own.n_sites) for item in (whole.energy, whole.heat_capacity))
            yield Quantity("potential_energy", energy, mean_energy(atoms), temperature=kelvin)
            yield Quantity("heat_capacity", capacity, heat_capacity(atoms), temperature=kelvin)


def frozen_energies(case: Case[LiquidSettings]) -> dict[float, tuple[FloatArray, FloatArray]]:
    """U_W [kJ/mol] and C_W [kJ/mol/K] of each frame of the CG simulation, at each temperature."""
    function = given(case.thermodynamics, "a potential W(R, T)")
    return {kelvin: function(own) for kelvin, own, _ in case.once(at_temperatures) if own is not None}


def _of_each(whole: Estimate, count: int) -> Estimate:
    return Estimate(whole.value / count, whole.standard_error / count, whole.unit)


class LiquidEnergy(NamedTuple):
    """Energies of a liquid of atoms, from its beads."""

    energy: Estimate
    """<U_W> [kJ/mol]."""
    heat_capacity: Estimate
    """At constant volume, without the kinetic part: <C_W> + Var(U_W)/(kT²) [kJ/mol/K]."""


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
        return np.array([first / count, rest / count + variance / (BOLTZMANN * temperature**2)])

    value, error = jackknife(numbers, totals)
    return LiquidEnergy(
        Estimate(float(value[0] + shift), float(error[0]), "kJ/mol"),
        Estimate(float(value[1]), float(error[1]), "kJ/mol/K"),
    )


def mean_energy(frames: Frames) -> Estimate:
    """Mean potential energy of a bead [kJ/mol].

    Raises:
        ValueError: the frames have no potential energies.
    """
    if frames.potential_energy is None:
        raise ValueError("a mean energy needs frames with potential energies")
    each = np.stack([np.ones(len(frames)), frames.potential_energy / frames.n_sites], axis=1)
    value, error = jackknife(lambda total: total[1] / total[0], sums_per_block(each, frames.replica, frames.time))
    return Estimate(float(value), float(error), "kJ/mol")


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
