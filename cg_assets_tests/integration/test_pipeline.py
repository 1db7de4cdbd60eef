"""The whole graph of a small system in one process: files, metadata, checks, data versions, batches, gates."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
from types import SimpleNamespace
from urllib.parse import unquote

import dagster as dg
import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import kill_group, wait_for
from small_systems import LEFT_ONLY, SMALL_WELLS

from cg_assets.assets.data import training_frames
from cg_assets.assets.samples import EQUILIBRATION
from cg_assets.assets.work import Inputs
from cg_assets.biases.reweighting import bias_weights
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.labels.quality import check_equilibration
from cg_assets.operations.runs import Outcome
from cg_assets.orchestration.as_asset import build_assets
from cg_assets.orchestration.console import failure_of, step_failure_cause
from cg_assets.orchestration.resources import build_resources
from cg_assets.orchestration.served_files import content_of
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.parquet import content_hash, read_arrays, verify
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system, seed_of

BATCHED = ("trajectories", "biased_samples", "mapped_forces", "relabelled_forces")
WINDOWS = """
extends: small_wells
name: small_windows
title: Two wells in umbrella windows
sampling:
  further:
    umbrella:
      {replicas: 280, starts: equilibrium, timestep: 0.02, friction: 1.0, burn_in: 10, duration: 40, frame_interval: 1,
       bias: {type: umbrella, force_constant: 10,
              centers: [{x: -1.5}, {x: -1.0}, {x: -0.5}, {x: 0.0}, {x: 0.5}, {x: 1.0}, {x: 1.5}]}}
potentials:
  umbrella: {labels: umbrella_forces}
"""
FRAMES = (*BATCHED, "cg_simulation_unbiased", "cg_simulation_biased")
STAGES = (
    *FRAMES,
    *("reference", "potential_unbiased", "potential_biased", "evaluation_unbiased", "evaluation_biased", "comparison"),
    "report",
)
PARENTS = {
    "trajectories": [],
    "biased_samples": [],
    "reference": [],
    "mapped_forces": ["trajectories/0000"],
    "relabelled_forces": ["biased_samples/0000"],
    "potential_unbiased": ["mapped_forces/0000"],
    "potential_biased": ["relabelled_forces/0000"],
    "cg_simulation_unbiased": ["mapped_forces/0000", "potential_unbiased"],
    "cg_simulation_biased": ["potential_biased", "relabelled_forces/0000"],
    "evaluation_unbiased": ["cg_simulation_unbiased", "mapped_forces/0000", "reference"],
    "evaluation_biased": ["cg_simulation_biased", "reference", "relabelled_forces/0000"],
    "comparison": ["evaluation_biased", "evaluation_unbiased"],
    "report": ["comparison", "evaluation_biased", "evaluation_unbiased"],
}


def materialize(system, folder, instance, batch="0000", stages=None):
    instance.add_dynamic_partitions(f"{system.name}_batches", [batch])
    batched = {stage for item in system.sampling.by_labels().values() for stage in (item.labels, item.samples)}
    batched |= {*system.sampling.by_mean_force_labels(), *system.by_source_labels(), "conditional_samples"}
    return dg.materialize(
        build_assets({system.name: system}),
        instance=instance,
        resources=build_resources(folder),
        partition_key=batch if stages is None or set(stages) & batched else None,
        selection=[dg.AssetKey([system.name, stage]) for stage in stages] if stages else None,
        raise_on_error=False,
    )


def metadata_of(result):
    """Stage to the metadata of its materialisation."""
    events = result.get_asset_materialization_events()
    return {event.asset_key.path[-1]: event.materialization.metadata for event in events}


def evaluation_of(store, system, potential):
    """The evaluation of a potential, read back from its table."""
    return Evaluation.from_columns(read_arrays(store.file(system, f"evaluation_{potential}")))


def versions_of(result):
    """Stage to its data version."""
    events = result.get_asset_materialization_events()
    return {event.asset_key.path[-1]: event.materialization.tags["dagster/data_version"] for event in events}


def verdicts_of(result):
    return {
        (check.asset_key.path[-1], check.check_name): check.passed for check in result.get_asset_check_evaluations()
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The graph of `small_wells`: once, and with a second batch."""
    folder = tmp_path_factory.mktemp("pipeline") / "home"
    (folder / "systems").mkdir(parents=True)
    (folder / "systems" / "small_wells.yaml").write_text(SMALL_WELLS)
    instance = dg.DagsterInstance.ephemeral()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(folder))
        patch.setenv("CG_DEVICE", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        system = load_system("small_wells")
        first = materialize(system, folder, instance)
        store = ParquetStore(folder)
        files = {stage: pq.read_metadata(path_of(store, stage)).metadata for stage in STAGES}
        kept = {stage: content_hash(path_of(store, stage)) for stage in STAGES}
        columns = {stage: pq.read_schema(path_of(store, stage)).names for stage in STAGES}
        rows = {stage: pq.read_metadata(path_of(store, stage)).num_rows for stage in STAGES}
        second = materialize(system, folder, instance, "0001")
    return SimpleNamespace(
        **{"folder": folder, "store": store, "system": system, "first": first, "second": second},
        **{"files": files, "hashes": kept, "columns": columns, "rows": rows},
    )


def path_of(store, stage, batch="0000"):
    return store.path("small_wells", stage, batch if stage in BATCHED else None)


def test_every_stage_is_there(run):
    assert run.first.success
    assert set(metadata_of(run.first)) == set(STAGES)
    for stage in STAGES:
        verify(path_of(run.store, stage))


def test_files_say_where_they_came_from(run):
    for stage in STAGES:
        facts = {key.decode(): value.decode() for key, value in run.files[stage].items()}
        assert facts["cg_assets.system"] == "small_wells"
        assert facts["cg_assets.stage"] == stage
        assert facts["cg_assets.units"] == "reduced"
        assert json.loads(facts["cg_assets.dagster_run_id"]) == run.first.run_id
        assert json.loads(facts["cg_assets.code_version"])
        assert json.loads(facts["cg_assets.specification"]) == run.system.content_hash
        upstream = json.loads(facts["cg_assets.upstream_data_versions"])
        assert sorted(upstream) == sorted(f"small_wells/{parent}" for parent in PARENTS[stage])
        for parent, version in upstream.items():
            assert version == run.hashes[parent.split("/")[1]]
        if stage in (*BATCHED, "reference"):
            assert json.loads(facts["cg_assets.seed"]) == seed_of("small_wells", stage, "0000")


@pytest.mark.parametrize("stage", FRAMES)
def test_columns_carry_units(run, stage):
    schema = pq.read_schema(path_of(run.store, stage))
    needed = {"batch", "replica", "window", "time", "temperature", "positions", "cv_x"}
    if stage in BATCHED:
        needed |= {"forces"}
    if stage in ("biased_samples", "relabelled_forces"):
        needed |= {"bias_energy"}
    assert needed <= set(schema.names)
    for name in needed & {"time", "temperature", "positions", "forces", "bias_energy", "cv_x"}:
        assert b"unit" in (schema.field(name).metadata or {}), name


def test_asset_metadata_of_the_contract(run):
    for stage, metadata in metadata_of(run.first).items():
        assert metadata["dagster/row_count"].value == run.rows[stage]
        assert metadata["dagster/uri"].value == str(path_of(run.store, stage))
        assert metadata["content_hash"].value == run.hashes[stage]
        columns = [column.name for column in metadata["dagster/column_schema"].value.columns]
        assert columns == run.columns[stage]
    for stage in (*BATCHED, "potential_biased", "cg_simulation_biased"):
        metadata = metadata_of(run.first)[stage]
        assert metadata["seconds"].value >= 0
        assert metadata["device"].value.startswith("CPU")
    assert metadata_of(run.first)["biased_samples"]["sampled_time"].value.startswith("12800 ")


def test_figures_are_pictures(run):
    for stage, metadata in metadata_of(run.first).items():
        pictures = [
            found[1]
            for value in metadata.values()
            if isinstance(value, dg.MarkdownMetadataValue) and (found := re.search(r"\(/files/(.*)\?", value.value))
        ]
        assert pictures, f"{stage} shows no figure"
        for name in pictures:
            content, _ = content_of(run.store.home, unquote(name), {})
            pixels = matplotlib.image.imread(io.BytesIO(content), format="png")
            assert min(pixels.shape[:2]) >= 200
            colours = (pixels[:, :, :3] * 255).astype(np.int64) @ np.array([1, 256, 65536])
            assert len(np.unique(colours)) > 20, f"{stage}: an empty figure"


def test_checks_are_evaluated(run):
    expected = {
        (str(spec.key.asset_key.path[-1]), spec.name)
        for asset in build_assets({"small_wells": run.system})
        for spec in asset.check_specs
    }
    verdicts = verdicts_of(run.first)
    assert set(verdicts) == expected
    assert len(expected) >= 20
    failed = [check for check, passed in verdicts.items() if not passed]
    assert not failed


def test_data_versions_are_content_hashes(run):
    versions = versions_of(run.first)
    for stage in STAGES:
        if stage.startswith("potential_"):
            weights = json.loads(run.files[stage][b"cg_assets.weights_hash"])
            assert versions[stage] == weights
        else:
            assert versions[stage] == run.hashes[stage]


def test_the_same_seed_gives_the_same_data_versions_under_any_executor(run, finished):
    """`finished` was made by the command, each step in a process of its own; `run` was made in this process."""
    made = ParquetStore(finished.home)
    assert {stage: content_hash(path_of(made, stage)) for stage in STAGES} == run.hashes
    for name in ("unbiased", "biased"):
        weights = made.describe("small_wells", f"potential_{name}").metadata.extra["weights_hash"]
        assert weights == versions_of(run.first)[f"potential_{name}"]


def test_a_second_batch_is_appended(run):
    assert run.second.success
    assert run.store.batches("small_wells", "mapped_forces") == ["0000", "0001"]
    assert content_hash(path_of(run.store, "trajectories")) == run.hashes["trajectories"], "batch 0000 was changed"
    one, two = (run.store.read_frames("small_wells", "trajectories", [batch]) for batch in ("0000", "0001"))
    assert len(one) == len(two) == 256 * 40
    drawn = np.concatenate([one.positions[:, 0], two.positions[:, 0]])
    assert len(np.unique(drawn, axis=0)) == len(drawn), "a frame occurs twice"
    assert metadata_of(run.second)["potential_unbiased"]["frames"].value == 2 * 256 * 40


def test_models_are_registered_with_their_lineage(run):
    tracking = ModelTracking(None, run.folder)
    models = {item.name: item for item in tracking.models()}
    assert set(models) == {"small_wells.unbiased", "small_wells.biased"}
    for name, model in models.items():
        assert model.latest_version == "2"
        assert model.aliases["candidate"] == "2"
        assert "champion" in model.aliases, "it passed its checks and is no champion"
        labels = "mapped_forces" if name.endswith("unbiased") else "relabelled_forces"
        source = "trajectories" if name.endswith("unbiased") else "biased_samples"
        found = tracking.lookup(f"{name}/2", check_content=True)
        assert json.loads(found.tags["batches"]) == ["0000", "0001"]
        assert {entry.data: entry.status for entry in found.lineage} == {
            f"small_wells/{stage}/{batch}": "same" for stage in (labels, source) for batch in ("0000", "0001")
        }
        for entry in found.lineage:
            assert entry.content_hash == content_hash(run.folder / entry.file)


def test_a_champion_is_judged_again_when_the_reference_changes(run, tmp_path, monkeypatch):
    folder = shutil.copytree(run.folder, tmp_path / "home")
    monkeypatch.setenv("CG_ASSETS_HOME", str(folder))
    monkeypatch.setenv("CG_DEVICE", "cpu")
    finer = run.system.evaluation.model_copy(update={"bins": 2 * run.system.evaluation.bins})
    system = run.system.model_copy(update={"evaluation": finer})
    stages = ["reference", "potential_biased", "cg_simulation_biased", "evaluation_biased"]
    result = materialize(system, folder, dg.DagsterInstance.ephemeral(), stages=stages)
    assert result.success
    tracking = ModelTracking(None, folder)
    champion = run.second.asset_materializations_for_node("small_wells__evaluation_biased")[0]
    assert champion.metadata["champion"].value, "the test needs version 2 as champion"
    earlier = tracking.lookup("small_wells.biased/2").tags
    newest = tracking.lookup("small_wells.biased/3").tags
    assert earlier["evaluation.reference_hash"] == newest["evaluation.reference_hash"]
    assert (
        newest["evaluation.reference_hash"] == versions_of(result)["reference"] != versions_of(run.second)["reference"]
    )
    decision = json.loads(newest["champion_decision"])
    assert decision["compared_with"] == "2"
    assert "against" in decision["reason"]
    errors = [float(tags["evaluation.pmf_rmse"]) for tags in (earlier, newest)]
    assert all(0 < error < 0.5 for error in errors), errors


def test_a_bias_that_leaves_a_hidden_barrier_is_stopped(home):
    (home / "systems" / "left_only.yaml").write_text(LEFT_ONLY)
    system = load_system("left_only")
    instance = dg.DagsterInstance.ephemeral()
    result = materialize(system, home, instance, stages=["biased_samples", "relabelled_forces", "potential_biased"])
    assert not result.success
    verdicts = verdicts_of(result)
    assert verdicts.pop(("biased_samples", "conditional_equilibration")) is False
    assert all(verdicts.values())
    assert set(metadata_of(result)) == {"biased_samples"}
    store = ParquetStore(home)
    assert store.path("left_only", "biased_samples", "0000").is_file(), "the frames are kept to be looked at"
    assert not store.path("left_only", "relabelled_forces", "0000").exists()
    assert ModelTracking(None, home).models() == []
    later = materialize(system, home, instance, stages=["relabelled_forces", "potential_biased"])
    assert not later.success
    (failure,) = [event for event in later.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "biased_samples/0000 failed conditional_equilibration" in step_failure_cause(failure)


def test_ctrl_c_while_steps_run_ends_in_one_line(command):
    """The terminal interrupts the whole group: no process of it prints a traceback, and the same command resumes."""
    command.add_system(SMALL_WELLS)
    process = command.start("run", "small_wells")
    try:
        wait_for(lambda: list(command.home.glob("data/*/*/.pieces-*/*")), 240.0, "a step", 0.01)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        kill_group(process.pid)
    assert process.returncode == 130, errors
    assert "Traceback" not in output + errors
    said = [line for line in errors.splitlines() if line.startswith("cg-assets:")]
    assert said == ["cg-assets: interrupted; the same command resumes from the last finished piece"]


@pytest.mark.parametrize(
    ("blocking", "severity", "outcome"),
    [
        (True, dg.AssetCheckSeverity.ERROR, Outcome.FAILED),
        (False, dg.AssetCheckSeverity.ERROR, Outcome.DOUBTFUL),
        (False, dg.AssetCheckSeverity.WARN, Outcome.SOUND),
    ],
)
def test_exit_status_tells_checks_that_failed(blocking, severity, outcome):
    @dg.asset(check_specs=[dg.AssetCheckSpec("good", asset="made", blocking=blocking)])
    def made():
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False, severity=severity)])

    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions([made], jobs=[dg.define_asset_job("job", [made])]).resolve_job_def("job")
        assert Outcome.of(job.execute_in_process(instance=instance, raise_on_error=False)) is outcome


def test_what_a_step_prints_is_kept_for_its_page(finished):
    """In files of the home, and only there; Dagster's own class also starts four processes to copy it."""
    with dg.DagsterInstance.from_config(str(finished.home / "dagster")) as instance:
        assert type(instance.compute_log_manager).__name__ == "StepLogs"
    kept = list((finished.home / "dagster" / "storage").glob("*/compute_logs/*.complete"))
    assert kept and all(path.with_suffix(".err").is_file() for path in kept)


def test_a_failed_check_is_printed_once_with_numbers_and_remedy(home):
    (home / "systems" / "left_only.yaml").write_text(LEFT_ONLY)
    result = materialize(load_system("left_only"), home, dg.DagsterInstance.ephemeral(), stages=["biased_samples"])
    (line,) = filter(None, map(failure_of, result.all_events))
    assert line.startswith("left_only/biased_samples: check conditional_equilibration failed: z RMS")
    assert "(limit " in line
    assert line.endswith(EQUILIBRATION.remedy)
    assert Outcome.of(result) is Outcome.FAILED


@pytest.mark.parametrize(
    "name", ["muller_brown", "muller_brown_diagonal", pytest.param("capped_alanine_quick", marks=pytest.mark.slow)]
)
def test_shipped_biased_plans_are_in_conditional_equilibrium(name):
    from cg_assets.core.frames import Frames

    system = load_system(name)
    plan = system.sampling.biased
    sampler = system.sampler(plan, seed_of(name, "biased_samples", "0000"))
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    verdict = check_equilibration(
        system.beads(), system.mapping, plan, Frames.concatenate([part for part in parts if part is not None])
    )
    assert verdict.passed, verdict.to_json()


def test_an_umbrella_batch_whose_windows_do_not_touch_is_stopped(command):
    command.add_system(SMALL_WELLS)
    apart = WINDOWS.replace("force_constant: 10", "force_constant: 400")
    command.add_system(apart.replace("small_windows", "windows_apart"))
    system = load_system("windows_apart")
    result = materialize(system, command.home, dg.DagsterInstance.ephemeral(), stages=["umbrella_samples"])
    verdicts = verdicts_of(result)
    assert verdicts.pop(("umbrella_samples", "umbrella_windows")) is False and all(verdicts.values())
    (found,) = [item for item in result.get_asset_check_evaluations() if item.check_name == "umbrella_windows"]
    assert "window 0 (x -1.5) and window 1 (x -1)" in found.metadata["fault"].value


def test_a_further_plan_has_its_own_stages_and_its_batches_are_joined(command):
    command.add_system(SMALL_WELLS)
    command.add_system(WINDOWS)
    system = load_system("small_windows")
    keys = {asset.key.path[-1] for asset in build_assets({system.name: system})}
    assert {"umbrella_samples", "umbrella_forces", "potential_umbrella", "evaluation_umbrella"} <= keys
    instance = dg.DagsterInstance.ephemeral()
    for batch in ("0000", "0001"):
        assert materialize(system, command.home, instance, batch, ["umbrella_samples", "umbrella_forces"]).success
    stages = ["potential_umbrella", "cg_simulation_umbrella", "reference", "evaluation_umbrella"]
    assert materialize(system, command.home, instance, stages=stages).success
    store = ParquetStore(command.home)
    frames = training_frames(inputs := Inputs(store, system), system, "umbrella")
    assert list(inputs.versions) == ["small_windows/umbrella_forces/0000", "small_windows/umbrella_forces/0001"]
    assert len(frames) == 2 * 280 * 40 and len(np.unique(frames.replica)) == 2 * 280
    assert evaluation_of(store, "small_windows", "umbrella")["pmf_rmse"].value.value < 0.05
    # the frames themselves, without their windows: x has one half of its weight on each side
    x, weights = frames.collective_variables["x"].astype(float), bias_weights(frames.bias_energy, 1.0)
    halves = [np.average(x[rows] > 0, weights=weights[rows]) for rows in np.array_split(np.arange(len(x)), 2)]
    assert np.abs(np.array(halves) - 0.5).max() < 0.05
    assert abs(np.average(np.abs(x), weights=weights) - 0.9065) < 0.02
