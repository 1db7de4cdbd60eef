"""Learning curves: parts of batches, ratios of data for equal error, and the asset that resumes where it stopped."""

import json
import math
from dataclasses import replace

import dagster as dg
import numpy as np
import pytest
from small_systems import SMALL_WELLS
from test_pipeline import materialize, metadata_of

from cg_assets.assets.learning_curves import read_points
from cg_assets.assets.work import Inputs
from cg_assets.core.errors import SystemSpecError
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.learning_curves import (
    Learner,
    LearningPoint,
    Part,
    data_ratio,
    data_ratios,
    mean_curve,
)
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import LearningCurve
from cg_assets.figures.comparison import learning_curves_figure
from cg_assets.sampling.settings import MeanForcePlan
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

CURVES = """
extends: small_wells
name: small_curves
title: Two wells, learning curves
learning_curve: {fractions: [0.05, 1.0], frames: [300, 3000]}
"""


def error(value):
    return Quantity("pmf_rmse", Estimate(value, 0.1, "kT"), bound=0.3, decides=True)


def points_of(potential, scale, amounts=(1, 10, 100), batches=3, axis="time", noise=0.0):
    """Points of an error scale / sqrt(amount), with some scatter between batches."""
    rng = np.random.default_rng(0)
    return [
        LearningPoint(
            potential,
            f"{batch:04d}",
            axis,
            float(amount),
            int(amount),
            (error(scale / math.sqrt(amount) * math.exp(noise * rng.normal())),),
        )
        for batch in range(batches)
        for amount in amounts
    ]


def test_ratio_of_data_for_equal_error():
    # errors 3 / sqrt(t) and 1 / sqrt(t): nine times the data, between two amounts of the faster one
    ratio, bound = data_ratio(points_of("slow", 3.0), points_of("fast", 1.0), "time")
    assert math.isclose(ratio.value, 9.0, rel_tol=1e-9) and ratio.standard_error < 1e-9 and not bound
    # error of the ratio from the scatter between batches
    noisy, _ = data_ratio(points_of("slow", 3.0, batches=40, noise=0.2), points_of("fast", 1.0, batches=40), "time")
    assert abs(noisy.z(9.0)) < 4 and math.isclose(noisy.standard_error, 9 * 0.4 / math.sqrt(40), rel_tol=0.4)
    # better with its least data than the other with all: a lower bound
    ratio, bound = data_ratio(points_of("slow", 100.0), points_of("fast", 1.0), "time")
    assert math.isclose(ratio.value, 100.0) and bound
    # never as good
    assert math.isnan(data_ratio(points_of("slow", 1.0), points_of("fast", 100.0), "time")[0].value)
    rows = data_ratios(points_of("slow", 3.0) + points_of("fast", 1.0))
    assert [row["equal error"] for row in rows] == ["slow / fast"]
    assert rows[0]["time"].startswith("9") and rows[0]["frames"] == ""


def test_mean_curve_over_batches():
    points = points_of("one", 2.0, batches=2)
    amounts, errors, spread = mean_curve(points, "time")
    np.testing.assert_allclose(amounts, [1, 10, 100])
    np.testing.assert_allclose(errors, 2.0 / np.sqrt([1, 10, 100]))
    np.testing.assert_allclose(spread, 0.0, atol=1e-12)
    assert np.isnan(mean_curve(points[:3], "time")[2]).all()
    assert len(mean_curve(points, "frames")[0]) == 0


@pytest.mark.filterwarnings("error:constrained_layout")
def test_figure():
    points = points_of("unbiased", 30.0, (100, 300, 2400), noise=0.2) + points_of("biased", 4.0, (900, 2400), noise=0.2)
    points[0] = replace(points[0], quantities=(Quantity("stable_replicas", Estimate(0.0, math.nan)),))
    assert points[0].error == math.inf
    points += points_of("biased", 4.0, (500, 5000), axis="frames")
    picture = learning_curves_figure(points, "ps", "alanine")
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


def test_points_survive_json():
    point = points_of("one", 2.0)[0]
    lost = Quantity("jsd", Estimate(math.inf, math.nan), of="data")
    again = LearningPoint.from_json(
        json.loads(json.dumps(replace(point, quantities=(*point.quantities, lost)).to_json()))
    )
    assert again.quantities[0] == point.quantities[0]
    assert again.quantities[1].value.value == math.inf and math.isnan(again.quantities[1].value.standard_error)


def test_time_counts_everything_that_was_simulated():
    system = load_system("capped_alanine_water")
    plan = system.sampling.biased
    # four replicas of 20 ps burn-in, 201.6 ps deposition and 100 of 400 ps of frames
    # and 12 ps of restrained dynamics to each of the four starts
    quarter = 4 * (12 + 20 + 201.6 + 100)
    curve = LearningCurve(fractions=[0.5, 1.0], frames=[20, 100])
    system = system.model_copy(update={"learning_curve": curve})
    learner = system.learner("biased")
    assert math.isclose(learner.time_of(Part("time", 100.0), 20_000), quarter)
    assert math.isclose(learner.time_of(Part("frames", 10), 10), 4 * 12 + plan.total_time)
    assert [part.amount for part in learner.parts()] == [200.0, 400.0, 20, 100]
    # mean forces cost the samples that their configurations come from, and the time at fixed beads
    means = {"of": "biased", "configurations": 40, "relaxation": 1.0, "duration": 2.0, "interval": 0.1}
    sampling = system.sampling.model_copy(update={"mean_forces": {"fixed": MeanForcePlan.model_validate(means)}})
    potential = system.potentials["biased"].model_copy(update={"labels": "fixed_forces"})
    learner = system.model_copy(update={"sampling": sampling, "potentials": {"fixed": potential}}).learner("fixed")
    assert math.isclose(learner.time_of(Part("time", 100.0), 10), quarter + 10 * 3)
    assert [part.amount for part in learner.parts()] == [200.0, 400.0, 20]
    with pytest.raises(SystemSpecError, match="learning_curve is missing"):
        load_system("capped_alanine_quick").learner("biased")


@pytest.fixture
def small(command):
    command.add_system(SMALL_WELLS)
    command.add_system(CURVES)
    return command.home


def test_wrong_fractions_are_refused(small):
    path = small / "systems" / "small_curves.yaml"
    path.write_text(CURVES.replace("0.05, 1.0", "0.05, 1.5"))
    with pytest.raises(SystemSpecError, match=r"learning_curve\.fractions.*1\.5 is not a fraction"):
        load_system("small_curves")


def test_the_asset_goes_on_where_it_stopped_and_the_comparison_shows_it(small, monkeypatch):
    system = load_system("small_curves")
    assert [part.amount for part in system.learner("unbiased").parts()] == [2.0, 40.0, 300, 3000]
    instance = dg.DagsterInstance.ephemeral()
    real, calls = Learner.learn, []

    def counted(*arguments, **more):
        if len(calls) == 3:
            calls.append(None)
            raise KeyboardInterrupt
        calls.append(arguments[2])
        return real(*arguments, **more)

    monkeypatch.setattr(Learner, "learn", counted)

    stages = ("trajectories", "mapped_forces", "reference", "learning_curve_unbiased")
    assert not materialize(system, small, instance, stages=stages).success
    assert len(calls) == 4
    result = materialize(system, small, instance)
    assert result.success
    assert len(calls) == 4 + 1 + 4  # three points of the killed run were kept
    store = ParquetStore(small)
    points = {name: read_points(Inputs(store, system), name) for name in ("unbiased", "biased")}
    for found in points.values():
        assert [(point.axis, point.frames) for point in found] == [
            ("time", 512), ("time", 10240), ("frames", 300), ("frames", 3000)]  # fmt: skip
        assert found[0].sampled_time == 256 * 12
        assert found[1].error < found[0].error < 1.0
    table = store.read_table("small_curves", "learning_curve_biased")
    assert {"batch", "axis", "sampled_time", "frames", "metric", "value", "standard_error"} <= set(table.column_names)
    assert not list((small / "data" / "small_curves").rglob(".points"))
    shown = metadata_of(result)["comparison"]
    assert "(/files/figures/" in shown["learning_curves"].value
    assert "unbiased / biased" in shown["data_for_equal_error"].value


@pytest.mark.parametrize(
    ("kept", "curve", "message"),
    [
        ([], {}, r"(?s)learning_curve.*but cg_simulation\.temperatures is set"),
        (["temperatures"], {}, r"(?s)learning_curve.*but potentials\.one\.temperatures is set"),
        (["learns"], {}, r"(?s)learning_curve.*but potentials\.one\.learns is set"),
        (["own"], {"temperatures": [280, 304]}, r"(?s)learning_curve\.cg_simulation\.temperatures.*is not for"),
    ],
)
def test_a_learning_curve_at_several_temperatures_is_refused(kept, curve, message):
    """Its parts are trained and judged at the temperature of the system alone: every error would be infinite."""
    helix = load_system("helix")
    content = helix.model_dump(mode="json", exclude_unset=True)
    own = {"temperatures": {"temperatures": [280]}, "learns": {"learns": "energies"}}
    content["potentials"] = {"one": {"labels": "mapped_forces"} | own.get(kept[0] if kept else "", {})}
    simulation = content["cg_simulation"]
    if kept:
        content["cg_simulation"] = {name: value for name, value in simulation.items() if name != "temperatures"}
    content["learning_curve"] = {"fractions": [0.5, 1.0]} | ({"cg_simulation": simulation | curve} if curve else {})
    with pytest.raises((ValueError, SystemSpecError), match=message):
        type(helix).model_validate(content | {"folder": helix.folder})
