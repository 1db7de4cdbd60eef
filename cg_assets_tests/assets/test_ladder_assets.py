"""A ladder as assets: frames of all rungs, their labels, kernels and responses at fixed beads of a molecule."""

import dagster as dg
import numpy as np
import pytest
from test_pipeline import materialize, metadata_of, verdicts_of

from cg_assets.assets.work import Inputs
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.noise import conditional_noise
from cg_assets.core.statistics.stein import stein_test
from cg_assets.core.units import BOLTZMANN
from cg_assets.labels.quality import combined_noise_floor
from cg_assets.mapping.force_maps import ForceMap
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.parquet import read_arrays
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system
from cg_assets.training.thermal_targets import ThermalTargets

LADDER = """
extends: capped_alanine_quick
name: ladder
title: Capped alanine on a ladder of temperatures
sampling:
  unbiased:
    replicas: 8
    tempering: {temperatures: [300, 380, 480, 610], pace: 0.4, kept_rungs: all}
    burn_in: 2
    duration: 40
    frame_interval: 0.1
  conditional: {frames: 4, temperatures: [300, 380, 480, 610], relaxation: 2, duration: 80}
targets: {temperatures: [300, 380, 480, 610]}
labels:
  flow:
    type: flow
    noise: 0.007
    labels: clean
    draws: 2
    hidden: 48
    training: {epochs: 30, batch_size: 256, learning_rate: 0.01}
"""
STAGES = ["trajectories", "mapped_forces"]
KERNELS = ["flow_kernel", "flow_kernel_forces"]
RESPONSES = ["conditional_samples", "thermal_response_targets"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("ladder") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "ladder.yaml").write_text(LADDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        system = load_system("ladder")
        instance = dg.DagsterInstance.ephemeral()
        yield system, ParquetStore(home), materialize(system, home, instance, stages=STAGES)


@pytest.fixture(scope="module")
def kernels(made):
    system, store, _ = made
    return materialize(system, store.home, dg.DagsterInstance.ephemeral(), stages=KERNELS)


@pytest.fixture(scope="module")
def responses(made):
    system, store, _ = made
    return materialize(system, store.home, dg.DagsterInstance.ephemeral(), stages=RESPONSES)


def test_frames_of_every_rung_are_stored_and_mapped(made):
    system, store, result = made
    assert result.success and all(verdicts_of(result).values())
    inputs = Inputs(store, system)
    for stage in ("trajectories", "mapped_forces"):
        every, own = inputs.frames(stage, "0000", every_temperature=True), inputs.frames(stage, "0000")
        assert {float(t): int(n) for t, n in zip(*np.unique(every.temperature, return_counts=True), strict=True)} == {
            300.0: 800, 380.0: 800, 480.0: 800, 610.0: 800,
        }  # fmt: skip
        assert len(own) == 800 and set(own.temperature) == {300.0} and set(own.replica) == {0, 1}
        assert every.forces.shape == every.positions.shape and every.potential_energy.shape == (3200,)
    kinetic = store.describe("ladder", "trajectories", "0000").metadata.extra["kinetic_temperature"]
    assert len(kinetic) == 4


def test_the_noise_is_that_at_the_temperature_of_the_system(made):
    """Forces at 610 K scatter more: their noise is not that of the labels that potentials learn from."""
    system, store, _ = made
    floor = store.describe("ladder", "mapped_forces", "0000").metadata.extra["noise_floor"]
    frames = Inputs(store, system).frames("mapped_forces", "0000", every_temperature=True)
    mean_square = {kelvin: float((frames.at_temperature(kelvin).forces ** 2).mean()) for kelvin in (300.0, 610.0)}
    assert mean_square[610.0] > 1.4 * mean_square[300.0]
    assert floor["value"] < mean_square[300.0]


def test_each_temperature_has_a_noise_floor_of_its_own(made):
    """That at 610 K is what dynamics at 610 K at the beads of its frames give, with other seeds; not that at 300 K."""
    system, store, result = made
    extra = store.describe("ladder", "mapped_forces", "0000").metadata.extra
    floors = {item["temperature"]: item for item in extra["noise_floors"]}
    assert {kelvin: item["rows"] for kelvin, item in floors.items()} == dict.fromkeys((300.0, 380.0, 480.0, 610.0), 800)
    assert floors[300.0]["value"] == extra["noise_floor"]["value"]
    atoms = Inputs(store, system).frames("trajectories", "0000", every_temperature=True).at_temperature(610.0)
    force_map = ForceMap.from_json(extra["force_map"])
    noise = {}
    for kelvin in (300.0, 610.0):
        repeated = system.repeated_labels(atoms, atoms, [force_map], seed=99, temperature=kelvin)
        noise[kelvin] = conditional_noise(repeated.forces[0]).noise_floor
    found = Estimate(floors[610.0]["value"], floors[610.0]["standard_error"])
    assert abs(found.value - noise[610.0].value) < 4 * np.hypot(found.standard_error, noise[610.0].standard_error)
    assert found.value > 1.5 * noise[300.0].value
    rows = metadata_of(result)["mapped_forces"]["noise_floors"].value
    assert rows.count("610") and rows.count("300")
    combined = combined_noise_floor(extra["noise_floors"], [item["rows"] for item in extra["noise_floors"]])
    assert combined.value == pytest.approx(np.mean([item["value"] for item in floors.values()]))


def test_a_kernel_labels_each_frame_at_its_own_temperature(made, kernels):
    """Noise of clean labels grows as kT², one flow serves all temperatures, and readers choose their own."""
    system, store, _ = made
    inputs = Inputs(store, system)
    every, own = (inputs.frames("flow_kernel_forces", "0000", every) for every in (True, False))
    assert set(every.temperature) == {300.0, 380.0, 480.0, 610.0} and set(own.temperature) == {300.0}
    assert len(every) > 0.99 * 6400 and len(own) > 0.99 * 1600  # two draws of each frame
    extra = store.describe("ladder", "flow_kernel_forces", "0000").metadata.extra
    floors = {item["temperature"]: item["value"] for item in extra["noise_floors"]}
    assert extra["noise_floor"]["value"] == floors[300.0]
    for kelvin in (380.0, 480.0, 610.0):
        assert floors[kelvin] / floors[300.0] == pytest.approx((kelvin / 300.0) ** 2, rel=0.15)
        part = every.select(every.temperature == kelvin)
        test = stein_test(part.positions, part.forces, BOLTZMANN * kelvin, seed=3)
        assert test.largest < 4.5, kelvin
    assert verdicts_of(kernels)["flow_kernel_forces", "stein_identity"]


def test_the_registered_kernel_asks_for_a_temperature(made, kernels):
    import mlflow

    system, store, _ = made
    tracking = ModelTracking(None, store.home)
    mlflow.set_tracking_uri(tracking.uri)
    model = mlflow.pyfunc.load_model(tracking.lookup("ladder.flow_kernel").uri)
    frames = Inputs(store, system).frames("mapped_forces", "0000", every_temperature=True)
    frames = frames.select(np.arange(0, 3200, 8))
    found = model.predict({"positions": frames.positions, "temperature": frames.temperature, "seed": 1})
    stored = Inputs(store, system).frames("flow_kernel_forces", "0000", every_temperature=True)
    for kelvin in (300.0, 610.0):  # whose forces scatter 2.2 times as much
        squares = (found["forces"][frames.temperature == kelvin].astype(float) ** 2).mean()
        assert squares == pytest.approx((stored.at_temperature(kelvin).forces.astype(float) ** 2).mean(), rel=0.15)
    alone = model.predict({"positions": frames.positions[:5], "temperature": 300.0})
    assert alone["positions"].shape == (5, 10, 3)
    with pytest.raises(Exception, match="give the temperature"):
        model.predict({"positions": frames.positions[:5]})
    with pytest.raises(Exception, match="temperature is 310; this kernel has 300, 380, 480, 610"):
        model.predict({"positions": frames.positions[:5], "temperature": 310.0})


def test_responses_of_a_molecule_come_from_fixed_beads(made, responses):
    """Frames of all rungs are held; every row has its errors, and forces at 300 K those of the labels' mean."""
    system, store, _ = made
    failed = {name for name, passed in verdicts_of(responses).items() if not passed}
    assert responses.success and failed <= {("conditional_samples", "independent_runs")}, failed  # a warning
    targets = ThermalTargets.from_columns(read_arrays(store.file("ladder", "thermal_response_targets", "0000")))
    assert set(targets.origin_temperature) == {300.0, 380.0, 480.0, 610.0}
    assert set(targets.temperature) == {300.0, 380.0, 480.0, 610.0} and targets.positions.shape[1:] == (10, 3)
    assert (targets.heat_capacity > 0).all() and (targets.first_order_error > 0).all()
    total, error = targets.forces.sum(axis=1), np.sqrt((targets.forces_error**2).sum(axis=1))
    assert np.sqrt(((total / error) ** 2).mean()) < 1.5  # an isolated molecule pulls itself nowhere
    samples = Inputs(store, system).frames("conditional_samples", "0000", every_temperature=True)
    extra = store.describe("ladder", "conditional_samples", "0000").metadata.extra
    assert ForceMap.from_json(extra["force_map"]).kind == "optimal"
    own = targets.select((targets.temperature == 300.0) & (targets.frame == 0))
    plain = samples.forces[(samples.temperature == 300.0) & (samples.start == 0)].astype(float).mean(axis=0)
    z = (own.forces[0] - plain) / own.forces_error[0]
    assert np.sqrt((z**2).mean()) < 2.0  # samples at 300 K alone, which have up to twice the error
