"""Who becomes champion, decided by a real registry: no drift, no luck, and the same after the reference changed."""

from __future__ import annotations

import json
import math
import re

import pytest

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.registry.champions import Judgement
from cg_assets.registry.tracking import ModelTracking


class Registry:
    """Versions that are judged one after the other."""

    def __init__(self, tracking, name):
        self.tracking, self.name, self.results = tracking, name, {}
        _, self.client = tracking._connection.open()
        self.client.create_registered_model(name)

    def judged(self, version, reference, fault=""):
        decisive = self.results[version]
        return Judgement({key: item.value for key, item in decisive.items()}, decisive, reference, fault)

    @property
    def aliases(self):
        return self.client.get_registered_model(self.name).aliases

    def add(self, reference="first", **decisive):
        """A new version with these results; which is champion afterwards."""
        version = str(self.client.create_model_version(self.name, str(self.tracking.home)).version)
        self.results[version] = {key: Estimate(*numbers) for key, numbers in decisive.items()}
        decision = self.tracking.decide_champion(self.name, version, self.judged(version, reference))
        if decision.rejudge:
            earlier = {number: self.judged(number, reference) for number in decision.rejudge}
            decision = self.tracking.decide_champion(self.name, version, self.judged(version, reference), earlier)
        assert not decision.rejudge
        return decision.champion


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    """A store for all of these models: to make one takes seconds."""
    return ModelTracking(None, tmp_path_factory.mktemp("models"))


@pytest.fixture
def registry(tracking, request):
    return Registry(tracking, re.sub(r"\W", "_", request.node.name))


@pytest.mark.parametrize("references", [1, 10], ids=["one reference", "a reference for each version"])
def test_versions_that_are_each_a_little_worse_end_near_the_first(registry, references):
    """Each is worse than the one before by less than the error of one: only the first few can be champion."""
    for number in range(10):
        champion = registry.add(f"{number % references}", pmf_rmse=(0.1 + 0.1 * number, 0.11))
    value = registry.results[champion]["pmf_rmse"].value
    assert 0.1 <= value <= 0.1 + math.sqrt(2) * 0.11, "equally certain: within the error of the difference to the best"


def test_each_criterion_is_compared_with_the_best_in_it(registry):
    """What is gained in one quantity does not pay for a drift in another."""
    for number in range(10):
        step = 0.1 * number
        champion = registry.add(f"{number}", pmf_rmse=(0.1 + step, 0.11), rdf_error=(2.0 - step, 0.11))
    assert champion == "2"


@pytest.mark.parametrize("value", [0.05, 0.1, 0.5, 5.0])
@pytest.mark.parametrize("error", [0.4, 10.0, math.nan])
def test_a_candidate_with_a_huge_or_unknown_error_replaces_nothing(registry, value, error):
    assert registry.add(pmf_rmse=(0.1, 0.02)) == "1"
    assert registry.add(pmf_rmse=(value, error)) == "1"


def test_a_lucky_first_champion_with_a_huge_error_is_no_measure(registry):
    """It is replaced by a certain result, which is then what others are compared with."""
    assert registry.add(pmf_rmse=(0.05, 10.0)) == "1"
    assert registry.add(pmf_rmse=(0.1, 0.01)) == "2"
    assert registry.add(pmf_rmse=(1.0, 0.01)) == "2"


def test_better_and_equal_versions_replace(registry):
    assert registry.add(pmf_rmse=(0.1, 0.02)) == "1"
    assert registry.add(pmf_rmse=(0.1, 0.02)) == "2"
    assert registry.add(pmf_rmse=(0.12, 0.02)) == "3", "worse by less than the error of the difference"
    assert registry.add(pmf_rmse=(0.13, 0.02)) == "3"
    assert registry.add(pmf_rmse=(0.02, 0.06)) == "5", "better by more than the error of the difference"


def test_errors_that_are_never_known_compare_with_each_other(registry):
    assert registry.add(pmf_rmse=(0.1, math.nan)) == "1"
    assert registry.add(pmf_rmse=(0.11, math.nan)) == "1"
    assert registry.add(pmf_rmse=(0.09, math.nan)) == "3"


def test_a_best_version_that_was_deleted_is_no_obstacle(registry):
    registry.add("a", pmf_rmse=(0.1, 0.02))
    assert registry.add("a", pmf_rmse=(0.11, 0.02)) == "2"
    tags = registry.client.get_model_version(registry.name, "2").tags
    assert json.loads(tags["best_versions"]) == ["1"]
    registry.client.delete_model_version(registry.name, "1")
    assert registry.add("b", pmf_rmse=(0.11, 0.02)) == "3"


def test_a_champion_that_fails_when_it_is_judged_again_is_none(registry):
    """The alias names nothing that fails its checks, and a later version need not be better than that."""
    assert registry.add(pmf_rmse=(0.1, 0.02)) == "1"
    again = registry.judged("1", "first", "its evaluation failed bonds")
    decision = registry.tracking.decide_champion(registry.name, "1", again)
    assert (decision.promoted, decision.champion, decision.reason) == (False, None, "its evaluation failed bonds")
    assert registry.aliases == {}
    assert registry.add(pmf_rmse=(0.5, 0.02)) == "2"
    assert json.loads(registry.client.get_model_version(registry.name, "2").tags["best_versions"]) == ["2"]


@pytest.mark.parametrize(("error", "champion"), [(0.11, "3"), (0.5, None)], ids=["good", "worse than the best"])
def test_a_champion_that_fails_on_a_new_reference_is_none(registry, error, champion):
    """It does not stay because the challenger is worse than an even earlier version."""
    registry.add("a", pmf_rmse=(0.1, 0.02))
    assert registry.add("a", pmf_rmse=(0.11, 0.02)) == "2"
    registry.client.create_model_version(registry.name, str(registry.tracking.home))
    registry.results["3"] = {"pmf_rmse": Estimate(error, 0.02)}
    earlier = {"1": registry.judged("1", "b"), "2": registry.judged("2", "b", "its evaluation failed bonds")}
    decision = registry.tracking.decide_champion(registry.name, "3", registry.judged("3", "b"), earlier)
    assert decision.champion == champion and {str(number) for number in registry.aliases.values()} == {champion} - {
        None
    }
