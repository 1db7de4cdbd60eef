"""The barriers between basins along one coordinate."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.metrics import barrier_height
from cg_assets.evaluation.case import EnergyFunction
from cg_assets.evaluation.free_energies import FreeEnergyCase, line_of, reference_of, scatter
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import FreeEnergySettings


class Barrier(Metric[FreeEnergySettings]):
    """The barrier of a one-dimensional PMF from the first of two basins to the second, or from each to the next."""

    reads = FreeEnergySettings
    measures = (
        Measure(
            "barrier",
            "height of the PMF between two basins above the minimum in the first",
            "energy",
            where="the two basins, where there are more; from low to high values of the coordinate",
        ),
    )

    def applies(self, settings: FreeEnergySettings) -> bool:
        """Where there is an exact PMF along one coordinate with basins."""
        return settings.reference.exact and len(settings.collective_variables) == 1 and len(settings.basins) >= 2

    def measure(self, case: FreeEnergyCase) -> Iterable[Found]:
        """Of the potential; its error is that of the labels' PMF, or else the scatter of its committee."""
        (name,) = reference_of(case).names
        basins = {key: basin.limits[name] for key, basin in case.settings.basins.items()}
        names = list(basins) if len(basins) == 2 else sorted(basins, key=lambda key: basins[key])
        for first, second in pairwise(names):
            where = "" if len(names) == 2 else f"{first} to {second}"
            yield _barrier(case, where, basins[first], basins[second])


def _barrier(case: FreeEnergyCase, where: str, first: tuple[float, float], second: tuple[float, float]) -> Quantity:
    """From one range of the coordinate to another."""
    line, reference, energy = case.once(line_of), reference_of(case), case.beads.energy_unit

    def height(model: EnergyFunction) -> float:
        return barrier_height(line.grid, model(line.grid[:, None, None]), first, second).value

    error = scatter([height(member) for member in case.committee])
    if line.covered:
        labels = line.labels
        along = barrier_height(labels.grid, labels.pmf, first, second, covariance=labels.covariance)
        error = along.standard_error
    exact = barrier_height(line.grid, np.asarray(reference.pmf), first, second)
    found, known = Estimate(height(case.energy), error, energy), Estimate(exact.value, 0.0, energy)
    return Quantity("barrier", found, known, where=where, headline=True)
