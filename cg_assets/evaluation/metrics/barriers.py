"""The barrier between two basins along one coordinate."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.metrics import barrier_height
from cg_assets.evaluation.case import EnergyFunction
from cg_assets.evaluation.free_energies import FreeEnergyCase, line_of, reference_of, scatter
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import FreeEnergySettings


class Barrier(Metric[FreeEnergySettings]):
    """The barrier of a one-dimensional PMF, from the first basin to the second."""

    reads = FreeEnergySettings
    measures = (Measure("barrier", "height of the PMF between two basins above the minimum in the first", "energy"),)

    def applies(self, settings: FreeEnergySettings) -> bool:
        """Where there is an exact PMF along one coordinate with two basins."""
        return settings.reference.exact and len(settings.collective_variables) == 1 and len(settings.basins) == 2

    def measure(self, case: FreeEnergyCase) -> Iterable[Found]:
        """Of the potential; its error is that of the labels' PMF, or else the scatter of its committee."""
        line, reference, energy = case.once(line_of), reference_of(case), case.beads.energy_unit
        (name,) = reference.names
        first, second = (basin.limits[name] for basin in case.settings.basins.values())

        def height(model: EnergyFunction) -> float:
            return barrier_height(line.grid, model(line.grid[:, None, None]), first, second).value

        error = scatter([height(member) for member in case.committee])
        if line.covered:
            labels = line.labels
            along = barrier_height(labels.grid, labels.pmf, first, second, covariance=labels.covariance)
            error = along.standard_error
        exact = barrier_height(line.grid, np.asarray(reference.pmf), first, second)
        yield Quantity(
            "barrier", Estimate(height(case.energy), error, energy), Estimate(exact.value, 0.0, energy), headline=True
        )
