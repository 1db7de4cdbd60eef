"""How many replicas of the CG simulation stayed stable, and at which temperature its beads moved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import EvaluationSettings


class Stability(Metric[EvaluationSettings]):
    """Replicas that did not explode, counted, never dropped in silence, and the temperature of the others."""

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
        for run in case.runs:
            found = Quantity("stable_replicas", _share(run.stable, run.replicas), Estimate(1.0, 0.0), where=run.where)
            yield replace(found, temperature=run.temperature, bound=bound, at_least=True)
            if run.kinetic is not None:
                found = Quantity("kinetic_temperature", run.kinetic, Estimate(run.target, 0.0, run.kinetic.unit))
                yield replace(found, where=run.where, temperature=run.temperature)


def _share(part: int, whole: int) -> Estimate:
    share = part / whole
    return Estimate(share, math.sqrt(share * (1 - share) / whole) or 1.0 / whole)
