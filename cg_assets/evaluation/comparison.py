"""All label sources of a system side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.surfaces import FreeEnergySurface
from cg_assets.core.units import unit
from cg_assets.evaluation.reference import Reference
from cg_assets.systems.spec import SystemSpec


@dataclass(frozen=True)
class Comparison:
    """The evaluations of all potentials of a system.

    Attributes:
        reference: what they were judged against.
        quantities: potential to its figures of merit, each with the reference's.
        grid: values of a one-dimensional CG coordinate; empty for molecules.
        pmfs: potential to its PMF on `grid` [energy].
        surfaces: potential to the free-energy surface of its CG simulation.
    """

    reference: Reference
    quantities: dict[str, dict[str, tuple[Estimate, Estimate | None]]]
    grid: NDArray[np.float64]
    pmfs: dict[str, NDArray[np.float64]]
    surfaces: dict[str, FreeEnergySurface]

    def columns(self) -> dict[str, list[Any]]:
        """One row for each potential and quantity."""
        names = ("potential", "quantity", "result", "reference", "value", "standard_error", "unit")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for potential, quantities in self.quantities.items():
            for quantity, (estimate, known) in quantities.items():
                row = (
                    potential,
                    quantity,
                    str(estimate),
                    "" if known is None else str(known),
                    estimate.value,
                    estimate.standard_error,
                    estimate.unit,
                )
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
        return columns

    def rows(self) -> list[dict[str, str]]:
        """One row for each quantity, one column for each potential."""
        every = list(dict.fromkeys(name for quantities in self.quantities.values() for name in quantities))
        rows = []
        for quantity in every:
            row = {"quantity": quantity}
            known: Estimate | None = None
            for potential, quantities in self.quantities.items():
                estimate, found = quantities.get(quantity, (None, None))
                row[potential] = "" if estimate is None else str(estimate)
                known = found or known
            rows.append(row | {"reference": "" if known is None else str(known)})
        return rows


def compare(
    system: SystemSpec,
    reference: Reference,
    evaluations: Mapping[str, tuple[Mapping[str, NDArray], Mapping[str, Any]]],
) -> Comparison:
    """Put the evaluations of all potentials side by side.

    Args:
        system: the system.
        reference: what they were judged against.
        evaluations: potential to the columns of its evaluation (`EvaluationResult.columns`) and what it draws
            (`EvaluationResult.surface_json`).
    """
    quantities, pmfs, surfaces = {}, {}, {}
    grid = np.empty(0)
    for potential, (columns, drawn) in evaluations.items():
        quantities[potential] = _quantities(columns)
        grid = np.array(drawn["grid"])
        pmfs[potential] = np.array(drawn["model_pmf"])
        probability = np.array(drawn["probability"]).reshape(1, *reference.bins.shape)
        surfaces[potential] = FreeEnergySurface(
            reference.bins, probability, system.thermal_energy, unit("energy", system.units)
        )
    return Comparison(reference, quantities, grid, pmfs, surfaces)


def _quantities(columns: Mapping[str, NDArray]) -> dict[str, tuple[Estimate, Estimate | None]]:
    found: dict[str, tuple[Estimate, Estimate | None]] = {}
    for index, name in enumerate(columns["quantity"]):
        of = str(columns["unit"][index])
        known = float(columns["reference"][index])
        reference = None if math.isnan(known) else Estimate(known, float(columns["reference_error"][index]), of)
        found[str(name)] = (
            Estimate(float(columns["value"][index]), float(columns["standard_error"][index]), of),
            reference,
        )
    return found
