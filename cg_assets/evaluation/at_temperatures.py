"""The evaluation of one potential of a molecule at several temperatures, from a CG simulation at each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.distributions import mean_of
from cg_assets.evaluation.evaluation import Evaluation, evaluate
from cg_assets.evaluation.metric import metrics_of
from cg_assets.evaluation.metrics.stability import Stability
from cg_assets.evaluation.quantity import Quantity

FOLDED = "folded_share"
HALF = 0.5
"""Folded share at the melting temperature."""


def evaluate_all(cases: Mapping[float, Case[Any]]) -> Evaluation:
    """Evaluate a potential at each temperature by all metrics, and by what only all temperatures together have.

    What decides at one temperature decides by its mean over all. At a temperature without a stable replica, whatever
    has a bound or decides is infinitely wrong.

    Args:
        cases: temperature [K] to the potential and its simulation there, from the lowest up.
    """
    found = {kelvin: _measured(case) for kelvin, case in cases.items()}
    # What the data and labels look like has no part in a comparison of temperatures.
    quantities = {
        kelvin: [item for item in own.quantities if item.of in ("model", "committee")] for kelvin, own in found.items()
    }
    names = {item.key: item for own in quantities.values() for item in own}
    means = [_mean(item, quantities) for item in names.values() if item.decides]
    at = [
        replace(item, temperature=kelvin, decides=False)
        for kelvin, own in quantities.items()
        for item in [*own, *_lost(own, names)]
    ]
    every = [*means, *_over_temperatures(quantities), *at]
    every.sort(key=lambda item: (not item.decides, not item.headline))
    profiles = [replace(item, temperature=kelvin) for kelvin, own in found.items() for item in own.profiles]
    drawings = [replace(item, temperature=kelvin) for kelvin, own in found.items() for item in own.drawings]
    return Evaluation(tuple(every), tuple(profiles), tuple(drawings), next(iter(cases.values())).beads.thermal_energy)


def _measured(case: Case[Any]) -> Evaluation:
    """What the metrics give at one temperature; where no replica stayed stable, how many did."""
    stable = len(case.simulation) > 0
    return evaluate(case, metrics_of(case.settings) if stable else [Stability()])


def _lost(own: Sequence[Quantity], names: Mapping[str, Quantity]) -> Iterator[Quantity]:
    """Infinite errors in place of quantities with a bound that were not measured."""
    known = {item.key for item in own}
    for key, item in names.items():
        if key not in known and (item.bound is not None or item.decides) and not item.at_least:
            yield replace(item, value=Estimate(math.inf, math.nan, item.value.unit), reference=None)


def _mean(item: Quantity, quantities: Mapping[float, Sequence[Quantity]]) -> Quantity:
    """The mean of a quantity over temperatures; infinite where one of them lacks it.

    Simulations of the beads are independent. References at all temperatures are of the same ladders: the error of
    their mean is at most the mean of their errors, which is taken.
    """
    own = [other for at in quantities.values() for other in at if other.key == item.key]
    known = [other.reference for other in own if other.reference is not None]
    reference = None
    if len(known) == len(own):
        reference = replace(mean_of(known), standard_error=fmean(one.standard_error for one in known))
    if len(own) < len(quantities):
        return replace(item, value=Estimate(math.inf, math.nan, item.value.unit), reference=reference, bound=None)
    whole = np.array([other.value.standard_error for other in own])
    part = np.array([other.value.standard_error if other.own_error is None else other.own_error for other in own])
    shared = np.sqrt(np.maximum(whole**2 - part**2, 0.0)).mean()
    mean = mean_of([other.value for other in own])
    error = math.hypot(float(np.linalg.norm(part)) / len(own), float(shared))
    return replace(item, value=replace(mean, standard_error=error), reference=reference, bound=None)


def _over_temperatures(quantities: Mapping[float, Sequence[Quantity]]) -> Iterator[Quantity]:
    """Melting temperature, largest error of the folded share, and whether its slopes are those of its differences."""
    folded = {kelvin: item for kelvin, own in quantities.items() for item in own if item.key == FOLDED}
    slopes = {kelvin: item.value for kelvin, own in quantities.items() for item in own if item.key == f"{FOLDED}_slope"}
    if not folded or len(quantities) < 2:
        return
    if len(folded) < len(quantities):
        # Without the temperatures that were lost, a potential would seem better than it is.
        yield Quantity("melting_temperature", Estimate(math.inf, math.nan, "K"), headline=True)
        yield Quantity("folded_share_error", Estimate(math.inf, math.nan), headline=True)
        if slopes:
            yield Quantity("folded_share_slope_error", Estimate(math.inf, math.nan, "1/K"), Estimate(0.0, 0.0, "1/K"))
        return
    model = {kelvin: item.value for kelvin, item in folded.items()}
    atoms = {kelvin: item.reference for kelvin, item in folded.items() if item.reference is not None}
    yield Quantity(
        "melting_temperature", melting_temperature(model), melting_temperature(atoms, shared=True), headline=True
    )
    errors = [
        Estimate(abs(value.value - atoms[kelvin].value), math.hypot(value.standard_error, atoms[kelvin].standard_error))
        for kelvin, value in model.items()
        if kelvin in atoms
    ]
    yield Quantity("folded_share_error", max(errors, key=lambda item: item.value), headline=True)
    if slopes.keys() == model.keys():
        yield Quantity("folded_share_slope_error", slope_error(model, slopes), Estimate(0.0, 0.0, "1/K"))


def melting_temperature(shares: Mapping[float, Estimate], shared: bool = False) -> Estimate:
    """Highest temperature at which the folded share falls through one half [K]; nan where it does not.

    By linear interpolation between temperatures. The error is that of the two shares, through the slope between them.

    Args:
        shares: temperature [K] to folded share, from the lowest temperature up.
        shared: whether all shares are of the same samples, those of ladders by MBAR, so that neighbours err alike and
            their errors add up; else the samples of each temperature are independent.
    """
    for (low, above), (high, below) in reversed(list(pairwise(shares.items()))):
        if above.value >= HALF >= below.value and above.value != below.value:
            part = (above.value - HALF) / (above.value - below.value)
            errors = (1.0 - part) * above.standard_error, part * below.standard_error
            steepness = (above.value - below.value) / (high - low)
            error = sum(errors) if shared else math.hypot(*errors)
            return Estimate(low + part * (high - low), error / steepness, "K")
    return Estimate(math.nan, math.nan, "K")


def slope_error(values: Mapping[float, Estimate], slopes: Mapping[float, Estimate]) -> Estimate:
    """Root mean square of difference quotients between neighbouring temperatures less the mean of their two slopes.

    Both are the same to second order in the step between temperatures (trapezoidal rule).

    Args:
        values: temperature [K] to a mean.
        slopes: temperature to its derivative by temperature [1/K].
    """
    found, variances = [], []
    for low, high in pairwise(values):
        quotient = (values[high].value - values[low].value) / (high - low)
        found.append(quotient - 0.5 * (slopes[low].value + slopes[high].value))
        of_values = math.hypot(values[low].standard_error, values[high].standard_error) / (high - low)
        of_slopes = 0.5 * math.hypot(slopes[low].standard_error, slopes[high].standard_error)
        variances.append(of_values**2 + of_slopes**2)
    size = math.sqrt(float(np.mean(np.square(found))))
    return Estimate(size, math.sqrt(float(np.mean(variances))), "1/K")
