"""How many replicas of the CG simulation stayed stable, and at which temperature its beads moved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.case import BIASED, Case
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import EvaluationSettings


class Stability(Metric[EvaluationSettings]):
    """The share of replicas that did not explode, and their temperature."""

    reads = EvaluationSettings
    measures = (
        Measure("stable_replicas", "share of the replicas that did not explode", where="run"),
        Measure("kinetic_temperature", "kinetic temperature of the stable replicas", "temperature", "run"),
    )

    def checks(self, settings: EvaluationSettings) -> Mapping[str, str]:
        """Where no replica may explode."""
        return {"stable_replicas": "No replica of the CG simulation exploded."} if settings.all_must_be_stable else {}

    def measure(self, case: Case[EvaluationSettings]) -> Iterable[Found]:
        """Of each run, without a bias and under it, at each temperature."""
        bound = 1.0 if case.settings.all_must_be_stable else None
        several = len({run.temperature for run in case.runs}) > 1
        for run in case.runs:
            where, temperature = BIASED if run.biased else "", run.temperature if several else None
            share = _share(run.stable_replicas, run.replicas)
            found = Quantity("stable_replicas", share, where=where)
            yield replace(found, temperature=temperature, bound=bound, at_least=True)
            if run.stable_replicas and not run.biased:
                target = Estimate(run.temperature, 0.0, run.kinetic_temperature.unit)
                found = Quantity("kinetic_temperature", run.kinetic_temperature, target)
                yield replace(found, where=where, temperature=temperature)


def _share(part: int, whole: int) -> Estimate:
    share = part / whole
    return Estimate(share, math.sqrt(share * (1 - share) / whole) or 1.0 / whole)
