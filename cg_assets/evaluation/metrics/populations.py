"""Populations of basins, and for molecules their free energies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.metrics import basin_free_energy, basin_population
from cg_assets.evaluation.case import EnergyFunction, given
from cg_assets.evaluation.free_energies import (
    FloatArray,
    FreeEnergyCase,
    committee_weights,
    labels_surface,
    line_of,
    member_planes,
    model_plane,
    reference_of,
    sampled,
    scatter,
    standard_deviation,
    variables_of,
)
from cg_assets.evaluation.metric import Found, Measure, Metric, OfMolecules
from cg_assets.evaluation.quantity import Of, Quantity
from cg_assets.evaluation.settings import FreeEnergySettings

_NODES = 4001
"""Points at which the density of a potential is summed over its whole range."""


class ExactPopulations(Metric[FreeEnergySettings]):
    """Populations of a model potential: of its density, and of its CG simulation, which must agree with it."""

    reads = FreeEnergySettings
    measures = (
        Measure("population", "share of the density in a basin", where="basin"),
        Measure(
            "simulated_population", "share of the CG simulation in a basin, against that of its density", "", "basin"
        ),
    )

    def applies(self, settings: FreeEnergySettings) -> bool:
        """Where the density of a potential is known on a grid."""
        return settings.reference.exact

    def measure(self, case: FreeEnergyCase) -> Iterable[Found]:
        """For each basin: of the density, and of the CG simulation."""
        reference, frames = reference_of(case), case.free
        for name, share in _shares(case):
            arguments = (variables_of(frames), case.settings.basins[name].limits, frames.replica, frames.time)
            yield Quantity("population", share, reference.populations[name], where=name, headline=True)
            found = basin_population(*arguments)
            yield Quantity("simulated_population", found, Estimate(share.value, 0.0), where=name)


def _shares(case: FreeEnergyCase) -> Iterator[tuple[str, Estimate]]:
    """Population of each basin under the density of the potential."""
    if len(case.settings.collective_variables) == 2:
        plane, members = case.once(model_plane), case.once(member_planes)
        for name, basin in case.settings.basins.items():
            error = scatter([member.population(basin.limits) for member in members])
            yield name, Estimate(plane.population(basin.limits), error)
        return
    line, (variable,) = case.once(line_of), case.settings.collective_variables
    low, high = (float(edge) for edge in given(case.domain, "the range of its potential"))
    fine = np.linspace(low, high, _NODES)

    def share(energy: EnergyFunction, inside: NDArray[np.bool_]) -> float:
        energies = energy(fine[:, None, None])
        weight = np.exp(-(energies - energies.min()) / case.beads.thermal_energy)
        return float(weight[inside].sum() / weight.sum())

    density = np.exp(-(line.on_labels - line.model.min())) * np.gradient(line.labels.grid)
    density /= density.sum()
    for name, basin in case.settings.basins.items():
        lowest, highest = basin.limits[variable]
        inside = (fine >= lowest) & (fine <= highest)
        error = scatter([share(member, inside) for member in case.committee])
        if line.covered:
            # The labels' own error to first order, along the model's density.
            there = (line.labels.grid >= lowest) & (line.labels.grid <= highest)
            slope = density * (there - density[there].sum())
            error = math.sqrt(max(0.0, float(slope @ line.covariance @ slope)))
        yield name, Estimate(share(case.energy, inside), error)


class SampledPopulations(OfMolecules, Metric[FreeEnergySettings]):
    """Populations and free energies of basins in the CG simulation of a molecule, in its data and in its labels."""

    measures = (
        Measure("free_energy", "-kT ln(P / (1 - P)) of a basin of population P", "energy", "basin"),
        Measure("population", "share of the density in a basin", where="basin"),
    )

    def measure(self, case: FreeEnergyCase) -> Iterable[Found]:
        """For each basin: of the simulation, of the training data, of their forces, and the committee's scatter."""
        reference, (frames, weights) = reference_of(case), case.once(sampled)
        labels = case.once(labels_surface)
        members = case.once(committee_weights) if case.committee else []
        thermal_energy, energy = case.beads.thermal_energy, case.beads.energy_unit
        for name, basin in case.settings.basins.items():
            known = reference.free_energies[name]
            parts: dict[Of, tuple[Frames, FloatArray | None]] = {
                "model": (frames, weights),
                "data": (case.data, case.weights(case.data)),
            }
            for of, (part, own) in parts.items():
                arguments = (variables_of(part), basin.limits, part.replica, part.time)
                first = of == "model"
                found = basin_free_energy(*arguments, thermal_energy=thermal_energy, weights=own, unit=energy)
                yield Quantity("free_energy", found, known, of=of, where=name, headline=first)
                share = basin_population(*arguments, weights=own)
                yield Quantity("population", share, reference.populations[name], of=of, where=name, headline=first)
            if labels is not None:
                yield Quantity("free_energy", labels.basin_free_energy(basin.limits), known, of="labels", where=name)
            if members:
                arguments = (variables_of(frames), basin.limits, frames.replica, frames.time)
                values = [
                    basin_free_energy(*arguments, thermal_energy=thermal_energy, weights=own).value for own in members
                ]
                scatter = standard_deviation(float(np.std(values, ddof=1)), len(values), energy)
                yield Quantity("free_energy", scatter, of="committee", where=name)
