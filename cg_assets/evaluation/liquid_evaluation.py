"""A CG liquid against the liquid of atoms, at each temperature: structure, energies, diffusion, change with T."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.liquid import (
    Distribution,
    by_temperature,
    half_box,
    mean_distribution,
    mean_energy,
    radial_histograms,
)
from cg_assets.evaluation.liquid_observables import angular_distribution, diffusion, heat_capacity
from cg_assets.evaluation.liquid_response import liquid_energy, radial_slope
from cg_assets.potentials.thermal.base import ThermalPotential
from cg_assets.systems.thermal_spec import ThermalSystem

RADIAL, ANGULAR, SLOPE = "rdf", "adf", "rdf_slope"
CURVES = {RADIAL: "", ANGULAR: "1/rad", SLOPE: "1/K"}
"""Name of each curve to the unit of its values; its coordinate is a distance [nm] or an angle [rad]."""
RADIAL_ERROR, ANGULAR_ERROR = "rdf error", "adf error"
ENERGY, HEAT_CAPACITY, DIFFUSION = "potential energy", "heat capacity", "diffusion"
KINETIC = "kinetic temperature"
COLUMN_UNITS = {"temperature": "K", "coordinate": "nm (rad for adf)"}
"""Units of columns of `LiquidEvaluation.columns` that are the same in every row."""
_BESIDE = {RADIAL_ERROR: "of noise", ANGULAR_ERROR: "of noise", KINETIC: "thermostat"}
"""What a number of the beads stands beside, where it is not the same of the atoms."""
_FRAMES_AT_ONCE = 64
_COLUMNS = ("quantity", "temperature", "coordinate", "value", "standard_error", "reference", "reference_error", "unit")

Pair = tuple[Estimate, Estimate]
Curves = tuple[Distribution, Distribution]


@dataclass(frozen=True)
class LiquidEvaluation:
    """What the beads do beside what the atoms do.

    Attributes:
        temperatures: [K]; curves and numbers are missing where no replica stayed stable.
        curves: name and temperature to the curve of the beads and that of the atoms. `rdf_slope` is dg/dT: the
            covariance of g(r) with U_W in one run of the beads, with the potential energy in one run of the atoms.
        numbers: name and temperature to the number of the beads and that of the atoms. Energies and heat capacities are
            of a molecule, without kinetic energy. The integrals `rdf error` [nm] and `adf error` stand beside what
            noise alone makes of them.
    """

    temperatures: list[float]
    curves: dict[tuple[str, float], Curves]
    numbers: dict[tuple[str, float], Pair]

    def mean(self, name: str) -> Estimate:
        """Mean of a number of the beads over all temperatures; infinite where one is missing."""
        found = [self.numbers[name, kelvin][0] for kelvin in self.temperatures if (name, kelvin) in self.numbers]
        if len(found) < len(self.temperatures):
            return Estimate(math.inf, math.nan)
        error = math.sqrt(sum(item.standard_error**2 for item in found)) / len(found)
        return Estimate(sum(item.value for item in found) / len(found), error, found[0].unit)

    def metrics(self) -> dict[str, float]:
        """For a model's record: mean errors of g(r) and angles, and that of g(r) at each temperature."""
        found = {"rdf_error": self.mean(RADIAL_ERROR).value, "adf_error": self.mean(ANGULAR_ERROR).value}
        for kelvin in self.temperatures:
            pair = self.numbers.get((RADIAL_ERROR, kelvin))
            found[f"rdf_error_{kelvin:g}K"] = math.inf if pair is None else pair[0].value
        return found

    def rows(self) -> list[dict[str, str]]:
        """One row for each number, one column for each temperature: beads (atoms)."""
        names = list(dict.fromkeys(name for name, _ in self.numbers))
        return [
            {"quantity": f"{name} ({_BESIDE.get(name, 'atoms')})"}
            | {f"{kelvin:g} K": self.shown(name, kelvin) for kelvin in self.temperatures}
            for name in names
        ]

    def shown(self, name: str, kelvin: float) -> str:
        """A number of the beads at a temperature, and that of the atoms."""
        pair = self.numbers.get((name, kelvin))
        return "no stable replica" if pair is None else f"{pair[0]} ({pair[1]})"

    def columns(self) -> dict[str, list[Any]]:
        """One row for each point of a curve and each number, whose coordinate is nan."""
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}

        def add(*row: Any) -> None:
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)

        for (name, kelvin), (beads, atoms) in self.curves.items():
            for row in zip(
                beads.grid, beads.values, beads.standard_error, atoms.values, atoms.standard_error, strict=True
            ):
                add(name, kelvin, *map(float, row), CURVES[name])
        for (name, kelvin), (of_beads, of_atoms) in self.numbers.items():
            known = of_atoms.value, of_atoms.standard_error
            add(name, kelvin, math.nan, of_beads.value, of_beads.standard_error, *known, of_beads.unit)
        return columns

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray], temperatures: list[float]) -> LiquidEvaluation:
        """What `columns` gave."""
        names, kelvins = np.asarray(columns["quantity"]).astype(str), np.asarray(columns["temperature"])
        curves: dict[tuple[str, float], Curves] = {}
        numbers: dict[tuple[str, float], Pair] = {}
        for name, kelvin in dict.fromkeys(zip(names.tolist(), kelvins.tolist(), strict=True)):
            rows = (names == name) & (kelvins == kelvin)
            grid, *values = (np.asarray(columns[column])[rows] for column in _COLUMNS[2:7])
            if name in CURVES:
                curves[name, kelvin] = (Distribution(grid, *values[:2]), Distribution(grid, *values[2:]))
            else:
                unit = str(np.asarray(columns["unit"])[rows][0])
                value, error, known, known_error = (float(item[0]) for item in values)
                numbers[name, kelvin] = (Estimate(value, error, unit), Estimate(known, known_error, unit))
        return cls(temperatures, curves, numbers)


def evaluate_liquid(
    system: ThermalSystem,
    module: ThermalPotential,
    atoms: Frames,
    beads: Frames,
    kinetic_temperature: Mapping[float, Estimate],
) -> LiquidEvaluation:
    """Compare a CG simulation with the dynamics of the atoms.

    Args:
        system: the system.
        module: the potential of the simulation.
        atoms: beads of the atoms' dynamics, with potential energies, at each temperature.
        beads: frames of the CG simulation.
        kinetic_temperature: temperature [K] to that of the beads.

    Raises:
        ValueError: frames have no box, or those of the atoms no energies.
    """
    settings = system.evaluation
    reach, bins = half_box(atoms)
    simulated = by_temperature(beads)

    def curves_of(frames: Frames, energies: ArrayLike, kelvin: float) -> dict[str, Distribution]:
        histograms = radial_histograms(frames.positions, _given(frames.box, "a box"), reach, bins)
        return {
            RADIAL: mean_distribution(histograms, reach, frames.replica, frames.time),
            ANGULAR: angular_distribution(frames, settings.neighbour_distance),
            SLOPE: radial_slope(histograms, energies, kelvin, reach, frames.replica, frames.time),
        }

    curves: dict[tuple[str, float], Curves] = {}
    numbers: dict[tuple[str, float], Pair] = {}
    for kelvin, known in by_temperature(atoms).items():
        if kelvin not in simulated:
            continue
        own = simulated[kelvin]
        energy, capacity = _energies(module, own)
        of_beads, of_atoms = (
            curves_of(own, energy, kelvin),
            curves_of(known, _given(known.potential_energy, "energies"), kelvin),
        )
        curves |= {(name, kelvin): (of_beads[name], of_atoms[name]) for name in CURVES}
        whole = liquid_energy(energy, capacity, kelvin, own.replica, own.time)
        each = [_of_each(item, own.n_sites) for item in (whole.energy, whole.heat_capacity)]
        numbers |= {
            (RADIAL_ERROR, kelvin): _error(*curves[RADIAL, kelvin], "nm"),
            (ANGULAR_ERROR, kelvin): _error(*curves[ANGULAR, kelvin], ""),
            (ENERGY, kelvin): (each[0], mean_energy(known)),
            (HEAT_CAPACITY, kelvin): (each[1], heat_capacity(known)),
            (DIFFUSION, kelvin): (
                diffusion(own, settings.longest_lag).coefficient,
                diffusion(known, settings.longest_lag).coefficient,
            ),
            (KINETIC, kelvin): (kinetic_temperature[kelvin], Estimate(kelvin, 0.0, "K")),
        }
    return LiquidEvaluation(list(system.sampling.reference.temperatures), curves, numbers)


def _given(array: NDArray | None, what: str) -> NDArray:
    if array is None:
        raise ValueError(f"frames of a liquid must hold {what}")
    return array


def _energies(module: ThermalPotential, frames: Frames) -> tuple[ArrayLike, ArrayLike]:
    """U_W [kJ/mol] and C_W [kJ/mol/K] of each frame."""
    found = []
    for rows in np.array_split(np.arange(len(frames)), math.ceil(len(frames) / _FRAMES_AT_ONCE)):
        positions, box = torch.as_tensor(frames.positions[rows]), torch.as_tensor(_given(frames.box, "a box")[rows])
        _, energy, capacity = module.energies(positions, float(frames.temperature[0]), box)
        found.append(torch.stack([energy, capacity]).double().cpu().numpy())
    energy, capacity = np.concatenate(found, axis=1)
    return energy, capacity


def _of_each(whole: Estimate, count: int) -> Estimate:
    return Estimate(whole.value / count, whole.standard_error / count, whole.unit)


def _error(beads: Distribution, atoms: Distribution, unit: str) -> Pair:
    found = beads.absolute_error(atoms)
    return Estimate(found.value, found.standard_error, unit), Estimate(beads.noise_floor(atoms), 0.0, unit)


def comparison_columns(evaluations: Mapping[str, LiquidEvaluation]) -> dict[str, list[Any]]:
    """One row for each potential and number, as in the comparison of other systems."""
    names = ("potential", "quantity", "result", "reference", "value", "standard_error", "unit")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for potential, evaluation in evaluations.items():
        for (name, kelvin), (beads, atoms) in evaluation.numbers.items():
            quantity = f"{name} at {kelvin:g} K"
            row = (potential, quantity, str(beads), str(atoms), beads.value, beads.standard_error, beads.unit)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return columns


def error_rows(evaluations: Mapping[str, LiquidEvaluation]) -> list[dict[str, str]]:
    """Errors of g(r) and of angles: one row for each potential, one column for each temperature."""
    return [
        {"error of": {RADIAL_ERROR: "g(r)", ANGULAR_ERROR: "angles"}[name], "potential": potential}
        | {f"{kelvin:g} K": evaluation.shown(name, kelvin) for kelvin in evaluation.temperatures}
        for name in (RADIAL_ERROR, ANGULAR_ERROR)
        for potential, evaluation in evaluations.items()
    ]
