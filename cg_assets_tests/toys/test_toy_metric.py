"""A metric in one file outside the package is part of evaluations, checks, registered models and champions."""

import json

import dagster as dg
from small_systems import SMALL_WELLS
from test_pipeline import evaluation_of, materialize, metadata_of, verdicts_of
from toys.metric import MeanShift

from cg_assets.assets.comparison import read_comparison
from cg_assets.assets.work import Inputs
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

TOY_WELLS = """
extends: small_wells
name: toy_wells
title: Two wells with a metric of their own
training: {epochs: 5}
evaluation: {basins: {toy: {limits: {x: [-1, 1]}}}}
"""


def test_a_metric_appears_wherever_quantities_do(command, monkeypatch):
    command.add_system(SMALL_WELLS)
    command.add_system(TOY_WELLS.replace("epochs: 5}", "epochs: 5}\npotentials: {unbiased: {labels: mapped_forces}}"))
    system, store = load_system("toy_wells"), ParquetStore(command.home)
    instance = dg.DagsterInstance.ephemeral()
    result = materialize(system, command.home, instance)
    assert result.success
    assert verdicts_of(result)["evaluation_unbiased", "mean_shift"]
    found = evaluation_of(store, "toy_wells", "unbiased")
    shift = found["mean_shift"]
    assert shift.decides and shift.headline and shift.bound == MeanShift.bound
    assert shift.value.value < 6 * shift.value.standard_error and shift.value.unit == "reduced length"
    assert [item.key for item in found.decisive] == ["pmf_rmse", "mean_shift"]
    assert "mean_shift" in [row["metric"] for row in read_comparison(Inputs(store, system), system.potentials).rows()]
    assert "mean_shift" in metadata_of(result)["comparison"]["results"].value
    tracking = ModelTracking(None, command.home)
    model = tracking.lookup("toy_wells.unbiased@champion")
    assert model.version == "1"
    assert model.metrics["evaluation/mean_shift"] == shift.value.value

    # The same potential again, worse in the toy alone: within its bound, and yet no champion.
    judged = ["potential_unbiased", "cg_simulation_unbiased", "evaluation_unbiased"]
    monkeypatch.setattr(MeanShift, "penalty", 10 * shift.value.standard_error)
    assert materialize(system, command.home, instance, stages=judged).success
    assert found["pmf_rmse"] == evaluation_of(store, "toy_wells", "unbiased")["pmf_rmse"]
    decision = json.loads(tracking.lookup("toy_wells.unbiased/2").tags["champion_decision"])
    assert not decision["promoted"] and decision["reason"].startswith("worse or too uncertain: mean_shift")

    # Beyond its bound it fails its check.
    monkeypatch.setattr(MeanShift, "penalty", 5.0)
    result = materialize(system, command.home, instance, stages=["evaluation_unbiased"])
    assert not verdicts_of(result)["evaluation_unbiased", "mean_shift"]
    decision = json.loads(tracking.lookup("toy_wells.unbiased/2").tags["champion_decision"])
    assert decision["reason"] == "its evaluation failed mean_shift"
    assert tracking.lookup("toy_wells.unbiased@champion").version == "1"
