"""Which version of a registered model is the champion."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cg_assets.core.statistics.estimates import Estimate

CHAMPION = "champion"
BEST = "best_versions"
"""Tag of a version that became champion: the best ones until then, with which candidates are compared."""


@dataclass(frozen=True)
class Judgement:
    """How a version does against a reference.

    Attributes:
        metrics: figures of merit.
        decisive: those that decide, smaller being better, with their standard errors.
        reference_hash: content hash of the reference.
        fault: why the version cannot be champion, whatever its numbers are; empty where nothing forbids it.
    """

    metrics: Mapping[str, float]
    decisive: Mapping[str, Estimate]
    reference_hash: str
    fault: str = ""

    def tags(self) -> dict[str, str]:
        """As tags of the version."""
        errors = {f"evaluation_error.{key}": repr(item.standard_error) for key, item in self.decisive.items()}
        return evaluation_tags(self.metrics, self.reference_hash) | errors


@dataclass(frozen=True)
class ChampionDecision:
    """Decision on the champion.

    Attributes:
        promoted: whether the alias moved to the version.
        champion: version that is champion now; None where there is none.
        reason: why.
        rejudge: versions that must be judged on the new reference before they can be compared; mostly none.
    """

    promoted: bool
    champion: str | None
    reason: str
    rejudge: tuple[str, ...] = ()


def choose_champion(
    client: Any, name: str, version: str, judgement: Judgement, earlier: Mapping[str, Judgement]
) -> ChampionDecision:
    """Decide, move the alias and record the reasons; see `ModelTracking.decide_champion`."""
    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    # The alias can name a version that is not there any more.
    champion = None if champion is None or _tags_of(client, name, str(champion)) is None else str(champion)
    judged = {**earlier, version: judgement}
    for number, found in judged.items():
        tag_version(client, name, number, found.tags())
    rivals = {} if champion is None else _rivals(client, name, champion)
    if champion in judged and judged[champion].fault:
        # Nothing takes its place but a version that passes now.
        client.delete_registered_model_alias(name, CHAMPION)
        client.update_model_version(name, champion, f"is not champion any more: {judged[champion].fault}")
        champion = None
    rivals = {number: tags for number, tags in rivals.items() if number not in judged or not judged[number].fault}
    decision = _decide(rivals, version, judgement, champion)
    if decision.promoted:
        tag_version(client, name, version, {BEST: json.dumps(_best_with(rivals, version, judgement))})
        client.set_registered_model_alias(name, CHAMPION, version)
    told = {"promoted": decision.promoted, "reason": decision.reason, "reference": judgement.reference_hash}
    key = "champion_decision" if champion != version else "champion_judged_again"
    tag_version(client, name, version, {key: json.dumps({**told, "compared_with": champion})})
    if champion != version:
        # The most visible column of the model's page.
        verdict = "became champion" if decision.promoted else "did not become champion"
        client.update_model_version(name, version, f"{verdict}: {decision.reason}")
    if champion is not None and champion != version:
        tag_version(client, name, champion, {"challenge": json.dumps({**told, "challenger": version})})
    return decision


def _rivals(client: Any, name: str, champion: str) -> dict[str, dict[str, str]]:
    """Tags of the champion and of the best versions until it became champion, as far as they are still there."""
    tags = _tags_of(client, name, champion) or {}
    versions = [champion, *json.loads(tags.get(BEST, "[]"))]
    found = {version: _tags_of(client, name, version) for version in versions}
    return {version: tags for version, tags in found.items() if tags is not None}


def _tags_of(client: Any, name: str, version: str) -> dict[str, str] | None:
    """Tags of a version; None where it is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_model_version(name, version).tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return None


def _result(tags: Mapping[str, str], key: str, reference_hash: str) -> Estimate | None:
    """A figure of merit of an earlier version against a reference; None where it was not judged by that."""
    names = (f"evaluation.{key}", f"evaluation_error.{key}")
    if tags.get("evaluation.reference_hash") != reference_hash or any(item not in tags for item in names):
        return None
    return Estimate(float(tags[names[0]]), float(tags[names[1]]))


def _best(rivals: Mapping[str, Mapping[str, str]], key: str, reference_hash: str) -> tuple[str, Estimate] | None:
    """The version that is surely best by one figure of merit: its number with its error is the least."""
    results = {version: _result(tags, key, reference_hash) for version, tags in rivals.items()}
    known = {version: item for version, item in results.items() if item is not None and math.isfinite(item.value)}
    return min(known.items(), key=lambda item: item[1].value + _known(item[1])) if known else None


def _best_with(rivals: Mapping[str, Mapping[str, str]], version: str, judgement: Judgement) -> list[str]:
    """The best version by each figure of merit, the new one among them."""
    everyone = {**rivals, version: judgement.tags()}
    best = [_best(everyone, key, judgement.reference_hash) for key in judgement.decisive]
    return sorted({found[0] for found in best if found is not None}, key=int)


def _known(estimate: Estimate) -> float:
    return estimate.standard_error if math.isfinite(estimate.standard_error) else 0.0


def _decide(
    rivals: Mapping[str, Mapping[str, str]], version: str, judgement: Judgement, champion: str | None
) -> ChampionDecision:
    decisive, reference = judgement.decisive, judgement.reference_hash
    if judgement.fault:
        return ChampionDecision(False, champion, judgement.fault)
    if unknown := [f"its {key} is {item.value}" for key, item in decisive.items() if not math.isfinite(item.value)]:
        return ChampionDecision(False, champion, unknown[0])
    if not rivals:
        return ChampionDecision(True, version, "it passed its checks and there was no champion")
    if champion == version:
        return ChampionDecision(False, version, "it is already the champion")
    if waiting := [
        other for other, tags in rivals.items() if any(_result(tags, key, reference) is None for key in decisive)
    ]:
        reason = (
            f"version {', '.join(waiting)} was not tested by {', '.join(decisive)} on this reference ({reference}); "
            "judge it there and decide again"
        )
        return ChampionDecision(False, champion, reason, tuple(waiting))
    worse, comparisons = [], []
    for key, item in decisive.items():
        best = _best(rivals, key, reference)
        if best is None:
            comparisons.append(f"{key} {item} where earlier versions have none")
            continue
        comparisons.append(f"{key} {item} against {best[1]} of version {best[0]}")
        difference, allowed = _difference(item, best[1])
        if difference > allowed:
            worse.append(f"{comparisons[-1]}: the difference with its error is {difference:.3g}, above {allowed:.3g}")
    if worse:
        return ChampionDecision(False, champion, f"worse or too uncertain: {'; '.join(worse)}")
    return ChampionDecision(True, version, f"not worse: {'; '.join(comparisons)}")


def _difference(new: Estimate, best: Estimate) -> tuple[float, float]:
    """By how much a result may exceed the best, one standard error up; and the most that is allowed.

    That is twice the error of the difference between two results as certain as the best. Of two equally certain ones,
    the new one may thus exceed the best by the error of their difference; a less certain one by less, and in the end it
    must be better by more than that error. An unknown error compares with another unknown one only.
    """
    unknown = 0.0 if not math.isfinite(best.standard_error) else math.inf
    error = new.standard_error if math.isfinite(new.standard_error) else unknown
    return new.value - best.value + math.hypot(error, _known(best)), 2.0 * math.sqrt(2.0) * _known(best)


def tag_version(client: Any, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)


def evaluation_tags(metrics: Mapping[str, float], reference_hash: str) -> dict[str, str]:
    """Metrics as tags of the version that was evaluated."""
    tags = {f"evaluation.{key}": repr(float(value)) for key, value in metrics.items()}
    return {**tags, "evaluation.reference_hash": reference_hash}
