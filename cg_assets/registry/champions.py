"""Which version of a registered model is the champion."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHAMPION = "champion"


@dataclass(frozen=True)
class ChampionDecision:
    """Decision on the champion.

    Attributes:
        promoted: whether the alias moved to the version.
        champion: version that is champion now; None where there is none.
        reason: why.
        rejudge: version that must be judged on the new reference before the two can be compared; None mostly.
    """

    promoted: bool
    champion: str | None
    reason: str
    rejudge: str | None = None


def choose_champion(
    client: Any,
    name: str,
    version: str,
    metrics: Mapping[str, float],
    passed: bool,
    reference_hash: str,
    criteria: Mapping[str, float],
    champion_metrics: Mapping[str, float] | None,
) -> ChampionDecision:
    """Decide, move the alias and write the reasons down; see `ModelTracking.decide_champion`."""
    model = client.get_registered_model(name)
    champion = model.aliases.get(CHAMPION)
    champion = None if champion is None else str(champion)
    tag_version(client, name, version, evaluation_tags(metrics, reference_hash))
    if champion is not None and champion != version and champion_metrics is not None:
        tag_version(client, name, champion, evaluation_tags(champion_metrics, reference_hash))
    decision = _decide(client, name, version, metrics, passed, reference_hash, criteria, champion)
    if decision.promoted:
        client.set_registered_model_alias(name, CHAMPION, version)
    told = {"promoted": decision.promoted, "reason": decision.reason, "reference": reference_hash}
    key = "champion_decision" if champion != version else "champion_judged_again"
    tag_version(client, name, version, {key: json.dumps({**told, "compared_with": champion})})
    if champion != version:
        # The most visible column of the model's page.
        verdict = "became champion" if decision.promoted else "did not become champion"
        client.update_model_version(name, version, f"{verdict}: {decision.reason}")
    if champion is not None and champion != version:
        tag_version(client, name, champion, {"challenge": json.dumps({**told, "challenger": version})})
    return decision


def _decide(
    client: Any,
    name: str,
    version: str,
    metrics: Mapping[str, float],
    passed: bool,
    reference_hash: str,
    criteria: Mapping[str, float],
    champion: str | None,
) -> ChampionDecision:
    if not passed:
        return ChampionDecision(False, champion, "a blocking check of its evaluation failed")
    if unknown := [f"its {key} is {metrics[key]}" for key in criteria if not math.isfinite(metrics[key])]:
        return ChampionDecision(False, champion, unknown[0])
    if champion is None:
        return ChampionDecision(True, version, "it passed its checks and there was no champion")
    if champion == version:
        return ChampionDecision(False, version, "it is already the champion")
    tags = client.get_model_version(name, champion).tags
    judged = [key for key in criteria if f"evaluation.{key}" in tags]
    if tags.get("evaluation.reference_hash") != reference_hash or judged != list(criteria):
        reason = (
            f"champion {champion} was not tested by {', '.join(criteria)} on this reference ({reference_hash}); judge "
            "it there and decide again with champion_metrics"
        )
        return ChampionDecision(False, champion, reason, rejudge=champion)
    worse, comparisons = [], []
    for key, tolerance in criteria.items():
        value, best = metrics[key], float(tags[f"evaluation.{key}"])
        comparisons.append(f"{key} {value:.6g} against {best:.6g} of champion {champion}, tolerance {tolerance:.3g}")
        if not (math.isnan(best) or value <= best + tolerance):
            worse.append(comparisons[-1])
    if worse:
        return ChampionDecision(False, champion, f"worse: {'; '.join(worse)}")
    return ChampionDecision(True, version, f"not worse: {'; '.join(comparisons)}")


def tag_version(client: Any, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)


def evaluation_tags(metrics: Mapping[str, float], reference_hash: str) -> dict[str, str]:
    """Metrics as tags of the version that was evaluated."""
    tags = {f"evaluation.{key}": repr(float(value)) for key, value in metrics.items()}
    return {**tags, "evaluation.reference_hash": reference_hash}
