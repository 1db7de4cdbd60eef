"""Water from free molecules to thermal response targets, as assets of a small box; and wrong files."""

import dagster as dg
import numpy as np
import pytest
import yaml
from test_pipeline import metadata_of, verdicts_of

from cg_assets.core.errors import SystemSpecError
from cg_assets.orchestration.as_asset import build_assets
from cg_assets.orchestration.resources import build_resources
from cg_assets.storage.parquet import read_arrays
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import SystemSpec, load_system
from cg_assets.systems.load import SHIPPED
from cg_assets.training.thermal_targets import ThermalTargets

SMALL_WATER = """
extends: water
name: small_water
title: Twelve molecules of hot water
model: {molecules: 12, cutoff: 0.35}
temperatures: [500, 700]
sampling:
  unbiased: {replicas: 2, burn_in: 3, duration: 5, frame_interval: 0.2}
  conditional: {frames: 2, temperatures: [500, 590, 700], interval: 0.1, relaxation: 2.4, duration: 16}
targets: {temperatures: [500, 600, 700], max_disagreement: 4.0}
temperature_dependence: {origin: 500}
network: {pair_cutoff: 0.35, pair_functions: 8, triple_cutoff: 0.35, triple_functions: 3}
evaluation: {longest_lag: 2}
"""
STAGES = ("trajectories", "conditional_samples", "thermal_response_targets")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("water") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "small_water.yaml").write_text(SMALL_WATER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.setenv("CG_DEVICE", "cpu")
        patch.setenv("CG_ASSETS_THREADS", "1")
        system = load_system("small_water")
        instance = dg.DagsterInstance.ephemeral()
        instance.add_dynamic_partitions("small_water_batches", ["0000"])
        result = dg.materialize(
            [asset for asset in build_assets({"small_water": system}) if asset.key.path[-1] in STAGES],
            instance=instance,
            resources=build_resources(home),
            partition_key="0000",
            raise_on_error=False,
        )
        yield system, ParquetStore(home), result


def test_every_stage_passes_its_blocking_checks(made):
    _, _, result = made
    assert result.success
    failed = {name for name, passed in verdicts_of(result).items() if not passed}
    assert failed <= {("conditional_samples", "independent_runs")}, failed
    for stage in STAGES:
        assert "(/files/figures/" in metadata_of(result)[stage]["figure"].value


def test_targets_have_units_errors_and_the_temperature_that_frames_came_from(made):
    system, store, _ = made
    path = store.path("small_water", "thermal_response_targets", "0000")
    targets = ThermalTargets.from_columns(read_arrays(path))
    frames = len(set(targets.frame.tolist()))
    assert len(targets) == 3 * frames and targets.n_beads == 12
    assert targets.temperature.tolist() == [500, 600, 700] * frames
    assert set(targets.origin_temperature) <= {500.0, 700.0}
    np.testing.assert_allclose(targets.box, system.model.edge, rtol=1e-6)
    # action and reaction: no net force on all molecules, at any order
    for name in ("forces", "first_order", "second_order"):
        scale = np.abs(getattr(targets, name)).max()
        assert np.abs(getattr(targets, name).sum(axis=1)).max() < 1e-3 * scale * 12, name
    assert (targets.heat_capacity > 0).all()
    units = {column["name"]: column["unit"] for column in store.describe("small_water", STAGES[2], "0000").columns}
    assert units["first_order"] == "kJ/mol/nm/K" and units["second_order_third_moment"] == "kJ/mol/nm/K^2"


def test_samples_say_where_they_come_from(made):
    system, store, _ = made
    metadata = store.describe("small_water", "conditional_samples", "0000").metadata
    assert set(metadata.upstream_data_versions) == {"small_water/trajectories_snapshots/0000"}
    assert metadata.extra["origin_temperature"] == [500.0, 700.0]
    assert metadata.bead_types == ["HHO"] * 12
    samples = store.read_frames("small_water", "conditional_samples", ["0000"])
    assert len(samples) == 2 * 2 * 3 * 160
    assert (np.ptp(samples.positions[samples.start == 1], axis=0) == 0).all()  # beads are fixed
    beads = system.structure().beads(store.read_frames("small_water", "trajectories_snapshots", ["0000"]).positions)
    np.testing.assert_allclose(samples.positions[samples.start == 0][0], beads[0], atol=1e-5)


def test_another_plan_for_labels_leaves_the_reference_as_it_is():
    content = yaml.safe_load((SHIPPED / "water.yaml").read_text())
    one = SystemSpec.model_validate(content)
    content["sampling"]["conditional"]["duration"] = 400
    two = SystemSpec.model_validate(content)
    assert one.hash_of("sampling.unbiased") == two.hash_of("sampling.unbiased")
    assert one.content_hash != two.content_hash


def test_an_inherited_potential_can_be_taken_out():
    assert set(load_system("water").potentials) - set(load_system("water_quick").potentials) == {"pairs", "products"}


@pytest.mark.parametrize("name", ["water", "water_quick"])
def test_shipped_water_is_ready_to_run(name):
    load_system(name).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model: {cutoff: 0.7}", r"cutoff 0.7 nm is beyond half the box \(0.6215 nm\) of 64 molecules"),
        ("model: {water_model: spc}", "model.water_model .value 'spc'.: must be 'spce' or 'tip4p2005'"),
        ("targets: {temperatures: [200, 300, 400]}", "targets.temperatures has 200.0 K, outside the ladder"),
        ("sampling: {unbiased: {replicas: 5}}", "unbiased.replicas 5 is not a multiple of the 6 temperatures"),
        ("sampling: {conditional: {frames: 9001}}", "frames is 9001, but unbiased keeps only 9000"),
        ("sampling: {conditional: {temperatures: [300, 250]}}", "does not rise"),
        ("targets: {max_disagreement: 0.5}", "greater than 1"),
        ("temperature: 320", "temperature is 320.0, but temperatures begins with 250.0; leave it out"),
        ("temperatures: [300]", "temperatures lists fewer than two"),
        ("temperatures: [400, 300]", "does not rise"),
        ("targets: null", "targets is missing, but potentials.splines learns from them"),
        ("sampling: {conditional: null}", "targets.temperatures .*give the ladder"),
        (
            "sampling: {unbiased: {tempering: {temperatures: [300, 310], pace: 2}}}",
            "tempering is for model.type molecule",
        ),
        ("cg_simulation: {enhanced_duration: 5}", "cg_simulation.enhanced_duration is for molecules, not for liquids"),
        ("evaluation: {longest_lag: 400}", "longest_lag 400.0 ps is not between 4 frame_intervals"),
        ("evaluation: {neighbour_distance: 0.7}", r"neighbour_distance 0.7 nm is beyond half the box \(0.6215 nm\)"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_allowed(home, change, message):
    text = f"extends: water\nname: own_water\ntitle: Own\n{change}\n"
    (home / "systems" / "own_water.yaml").write_text(text)
    with pytest.raises(SystemSpecError, match=message):
        load_system("own_water")
