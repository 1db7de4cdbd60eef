"""A metric in one file: how far the mean of the training frames' coordinate is from that of the CG simulation."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from cg_assets.core.statistics.estimates import Estimate, independent_blocks, jackknife
from cg_assets.core.units import unit
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import FreeEnergySettings

TOY = "toy"


class MeanShift(Metric[FreeEnergySettings]):
    """The shift of the mean of the first collective variable, in systems that have a basin called `toy`."""

    reads = FreeEnergySettings
    measures = (Measure("mean_shift", "difference of the means of simulation and data", "length"),)
    bound, penalty = 2.0, 0.0

    def applies(self, settings: FreeEnergySettings) -> bool:
        """Where a basin is called `toy`."""
        return TOY in settings.basins

    def checks(self, settings: FreeEnergySettings) -> Mapping[str, str]:
        """The shift has a bound."""
        return {"mean_shift": f"The mean of the simulation is within {self.bound} of that of the data."}

    def measure(self, case: Case[FreeEnergySettings]) -> Iterable[Found]:
        """Of the CG simulation, from its mean and that of the training frames without their bias."""
        name = case.settings.collective_variables[0]
        means = []
        for frames in (case.free, case.data):
            weights = case.weights(frames)
            weights = np.ones(len(frames)) if weights is None else weights
            block = independent_blocks(frames.replica, frames.time)
            values = frames.collective_variables[name].astype(float)
            totals = np.stack([np.bincount(block, weights * values), np.bincount(block, weights)], axis=1)
            means.append(jackknife(lambda total: total[0] / total[1], totals))
        (mine, error), (theirs, other) = means
        shift = abs(float(mine - theirs)) + self.penalty
        found = Estimate(shift, math.hypot(float(error), float(other)), unit("length", case.beads.units))
        yield Quantity("mean_shift", found, bound=self.bound, decides=True, headline=True)
