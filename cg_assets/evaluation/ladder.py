"""The reference of a molecule at every temperature of its ladders, from the frames of all rungs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.ladders import LadderSamples
from cg_assets.core.statistics.metrics import basin_population, jsd
from cg_assets.evaluation.case import given
from cg_assets.evaluation.metrics.energies import liquid_energy
from cg_assets.evaluation.metrics.slow_coordinates import SLOW, SlowCoordinates, surfaces_of_halves
from cg_assets.evaluation.metrics.thermodynamics import States, states_of
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.reference import Reference, ReferenceCase, of_data, second_half
from cg_assets.mapping.beads import Beads

FloatArray = NDArray[np.float64]


def of_ladder(case: ReferenceCase, data: Frames) -> Reference:
    """The reference at each temperature: halves of its frames as runs, populations and energies by MBAR over all rungs.

    An error is that of the jackknife over blocks of time, or half the difference of the two halves of the data, each
    with all its rungs, where that is larger.

    Args:
        case: of the system, at its own temperature.
        data: frames of beads at all temperatures with their potential energies.

    Raises:
        SamplingError: rungs have too little in common, or frames lack energies.
    """
    averages = _Averages(data)
    states = states_of(case.settings, case.native, data)
    rungs, found = {}, []
    for kelvin, frames in data.by_temperature().items():
        beads = case.beads.at_temperature(kelvin)
        own = of_data(replace(case, beads=beads), frames)
        shares = {name: averages.mean(states["population", name], kelvin) for name in case.settings.basins}
        energies = {name: _free_energy(share, beads) for name, share in shares.items()}
        rungs[kelvin] = replace(own, populations=shares, free_energies=energies)
        at = [*_states_at(averages, states, kelvin, data), *_energies_at(averages, kelvin, frames)]
        found += [replace(item, temperature=kelvin, of="data") for item in at]
    found += _slow_coordinates(case, data)
    source = f"two halves of the data, {len(data):,} frames of {len(rungs)} temperatures, joined by MBAR"
    return replace(rungs[case.beads.temperature], source=source, rungs=rungs, quantities=tuple(found))


class _Averages:
    """Averages over all rungs at a temperature, whose error includes what the two halves differ by."""

    def __init__(self, data: Frames) -> None:
        if data.potential_energy is None:
            raise SamplingError("frames of several temperatures need their potential energies; sample them again")
        self.energy = data.potential_energy
        second = second_half(data)
        rows = [np.arange(len(data)), np.flatnonzero(~second), np.flatnonzero(second)]
        self._parts = [(part, self._ladder(data, part)) for part in rows]

    def _ladder(self, data: Frames, rows: NDArray[np.int64]) -> LadderSamples:
        ladder = LadderSamples(self.energy[rows], data.temperature[rows], data.replica[rows], data.time[rows])
        if ladder.fault:
            raise SamplingError(
                f"temperatures of the ladder do not touch, so that MBAR cannot join them: {ladder.fault}; put "
                "temperatures between them (sampling.unbiased.tempering.temperatures)"
            )
        return ladder

    def mean(self, values: FloatArray, kelvin: float, unit: str = "") -> Estimate:
        """Mean of values of all frames."""
        return _agreed([ladder.mean(values[rows], kelvin, unit) for rows, ladder in self._parts])

    def slope(self, values: FloatArray, kelvin: float, unit: str) -> Estimate:
        """Derivative of their mean by temperature."""
        return _agreed([ladder.slope(values[rows], self.energy[rows], kelvin, unit) for rows, ladder in self._parts])


def _agreed(estimates: Sequence[Estimate]) -> Estimate:
    """The first, of all data, with the larger of its error and half the difference of the others, of the halves."""
    whole, one, two = estimates
    return replace(whole, standard_error=max(whole.standard_error, 0.5 * abs(one.value - two.value)))


def _free_energy(share: Estimate, beads: Beads) -> Estimate:
    """-kT ln(P / (1 - P)) of a population."""
    if not 0.0 < share.value < 1.0:
        return Estimate(math.inf if share.value <= 0.0 else -math.inf, math.nan, beads.energy_unit)
    odds = share.value * (1.0 - share.value)
    value = -beads.thermal_energy * math.log(share.value / (1.0 - share.value))
    return Estimate(value, beads.thermal_energy * share.standard_error / odds, beads.energy_unit)


def _states_at(averages: _Averages, states: States, kelvin: float, data: Frames) -> Iterator[Quantity]:
    """Share of each state, next to that of the frames at this temperature alone, and its slope."""
    own = data.temperature == kelvin
    frames = data.select(own)
    second = second_half(frames)
    for (name, where), values in states.items():
        yield Quantity(name, averages.mean(values, kelvin), _share(values[own], frames), where=where)
        yield Quantity(f"{name}_slope", averages.slope(values, kelvin, "1/K"), where=where)
        one, two = (_share(values[own][rows], frames.select(rows)) for rows in (~second, second))
        error = math.hypot(one.standard_error, two.standard_error)
        yield Quantity(f"{name}_difference", Estimate(abs(one.value - two.value), error), where=where)


def _share(inside: FloatArray, frames: Frames) -> Estimate:
    """Share of the frames in a state, 1 or 0 for each."""
    return basin_population({"state": inside}, {"state": (0.5, 1.5)}, frames.replica, frames.time)


def _energies_at(averages: _Averages, kelvin: float, frames: Frames) -> Iterator[Quantity]:
    """Mean potential energy and heat capacity, next to those of the frames at this temperature alone."""
    own = given(frames.potential_energy, "potential energies")
    alone = liquid_energy(own, np.zeros(len(own)), kelvin, frames.replica, frames.time)
    yield Quantity("potential_energy", averages.mean(averages.energy, kelvin, "kJ/mol"), alone.energy)
    yield Quantity("heat_capacity", averages.slope(averages.energy, kelvin, "kJ/mol/K"), alone.heat_capacity)


def _slow_coordinates(case: ReferenceCase, data: Frames) -> Iterator[Quantity]:
    """Divergence of the halves in the slow coordinates of all frames, at each temperature."""
    settings = case.settings.slow_coordinates
    if settings is None:
        return
    slow = SlowCoordinates(case.beads.cg_map, data, settings.lag)
    for kelvin, frames in data.by_temperature().items():
        one, two = surfaces_of_halves(case.beads.at_temperature(kelvin), slow, frames, settings.bins)
        yield Quantity("jsd", jsd(one, two), of="data", where=SLOW, temperature=kelvin)
