"""Refreshes: the next batch, only what its data change, and which model is champion afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import dagster as dg
import pytest
from conftest import REPOSITORY
from small_systems import SMALL_WELLS

from cg_assets.core.errors import SystemSpecError
from cg_assets.orchestration.as_asset import build_assets
from cg_assets.orchestration.automation import (
    FIRST_BATCH,
    REFRESH_TAG,
    build_jobs,
    build_schedules,
    register_first_batches,
)
from cg_assets.orchestration.refresh import Part, next_batch_name, plan_refresh, plan_run
from cg_assets.orchestration.resources import build_resources
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.parquet import content_hash
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

BATCHED = {"trajectories", "mapped_forces", "biased_samples", "relabelled_forces"}
UNBATCHED = {
    f"{kind}_{name}" for kind in ("potential", "cg_simulation", "evaluation") for name in ("unbiased", "biased")
}


@pytest.fixture
def instance():
    """A real instance of its own, as the daemon needs one."""
    with dg.instance_for_test() as made:
        yield made


@pytest.mark.parametrize(
    ("known", "name"),
    [([], "0000"), (["0000"], "0001"), (["0000", "0009", "mine"], "0010"), (["9999"], "10000"), (["b"], "0000")],
)
def test_names_of_batches_go_on(known, name):
    assert next_batch_name(known) == name


@pytest.mark.parametrize("schedule", ["* * * *", "60 3 * * 1", "0 3 * * monday", "5-1 * * * *", "0 3 0 * *", ""])
def test_wrong_schedules_are_refused(home, schedule):
    (home / "systems" / "small_wells.yaml").write_text(f"{SMALL_WELLS}refresh: {{schedule: '{schedule}'}}\n")
    with pytest.raises(SystemSpecError, match=r"refresh.schedule.*must be five numbers"):
        load_system("small_wells")


def test_how_data_are_refreshed_is_no_part_of_what_they_are(home):
    path = home / "systems" / "small_wells.yaml"
    path.write_text(SMALL_WELLS)
    before = load_system("small_wells").content_hash
    path.write_text(f"{SMALL_WELLS}refresh: {{schedule: '*/15 1-5 1,15 * 0', max_age: 1.5}}\n")
    assert load_system("small_wells").content_hash == before


# --------------------------------------------------------------------------------------- what is out of date


@pytest.fixture
def stored(copied):
    """The finished home's data, which may be changed, and its system."""
    return ParquetStore(copied.home), load_system("small_wells")


def planned(stored, *batches, **more):
    plan = plan_refresh(*stored, batches or [FIRST_BATCH], **more)
    return plan.added, [(run.batch, set(run.stages)) for run in plan.runs]


def test_a_new_batch_and_what_depends_on_it(stored):
    """The reference depends on no data: it is not run again."""
    assert planned(stored) == ("0001", [("0001", BATCHED | UNBATCHED | {"comparison", "report"})])
    assert planned(stored, "0000", add="monday")[0] == "monday"


def test_an_unfinished_batch_is_finished_first(stored):
    store, _ = stored
    for stage in ("trajectories", "biased_samples"):
        metadata = store.describe("small_wells", stage, "0000").metadata
        store.write_frames(store.read_frames("small_wells", stage), metadata, "0001")
    rest = BATCHED - {"trajectories", "biased_samples"}
    assert planned(stored, "0000", "0001") == (None, [("0001", rest | UNBATCHED | {"comparison", "report"})])


@pytest.mark.parametrize("lost", ["potential_biased", "cg_simulation_biased", "evaluation_biased", "comparison"])
def test_what_is_unfinished_is_finished_before_a_batch_is_added(stored, lost):
    """Otherwise a training that fails would get one more batch at each tick."""
    store, _ = stored
    store.path("small_wells", lost).unlink()
    added, [(_, stages)] = planned(stored)
    assert added is None and lost in stages and not stages & BATCHED


def test_an_empty_home_begins_with_the_first_batch(home):
    (home / "systems" / "small_wells.yaml").write_text(SMALL_WELLS)
    stored = ParquetStore(home), load_system("small_wells")
    everything = BATCHED | UNBATCHED | {"comparison", "reference", "report"}
    assert planned(stored) == (None, [("0000", everything)])


def test_only_what_was_made_of_changed_data(stored):
    """A damaged or changed file is made again with all that follows from it, and nothing else."""
    store, system = stored
    path = store.path("small_wells", "relabelled_forces", "0000")
    path.write_bytes(path.read_bytes()[:-100])
    plan = plan_refresh(store, system, ["0000"])
    biased = {"relabelled_forces", "potential_biased", "cg_simulation_biased", "evaluation_biased"}
    biased |= {"comparison", "report"}
    assert [(run.batch, set(run.stages)) for run in plan.runs] == [("0000", biased)]
    assert plan.reasons[Part("relabelled_forces", "0000")] == "damaged"
    assert plan.reasons[Part("potential_biased", None)] == "small_wells/relabelled_forces/0000 changed"
    store.path("small_wells", "reference").unlink()
    evaluations = {"reference", "evaluation_unbiased"}
    assert planned(stored) == (None, [("0000", biased | evaluations)])


def test_a_batch_that_failed_its_checks_trains_nothing(stored):
    store, _ = stored
    frames = store.read_frames("small_wells", "biased_samples", ["0000"])
    metadata = store.describe("small_wells", "biased_samples", "0000").metadata
    metadata.extra["failed_checks"] = ["conditional_equilibration"]
    store.write_frames(frames, metadata, "0001")
    _, runs = planned(stored, "0000", "0001")
    unbiased = {"potential_unbiased", "cg_simulation_unbiased", "evaluation_unbiased", "comparison", "report"}
    assert runs == [("0001", {"trajectories", "mapped_forces"} | unbiased)]


def test_no_batch_is_added_where_one_after_the_other_fails(stored):
    """Else each tick of a schedule would add one more batch that nothing can use."""
    store, system = stored
    known, metadata = ["0000"], {}
    for batch in ("0001", "0002", "0003"):
        known.append(batch)
        assert planned(stored, *known[:-1])[0] == batch
        for stage in ("trajectories", "biased_samples"):
            metadata[stage] = store.describe("small_wells", stage, "0000").metadata
            metadata[stage].extra["failed_checks"] = ["finite"]
            store.write_frames(store.read_frames("small_wells", stage, ["0000"]), metadata[stage], batch)
    plan = plan_refresh(store, system, known)
    assert (plan.added, plan.runs, plan.failed) == (None, [], True)
    assert "small_wells/biased_samples/0003 failed finite" in plan.note and "name the batch to add" in plan.note
    assert planned(stored, *known, add="0004")[0] == "0004"
    for stage, changed in metadata.items():
        changed.extra["recipe"] = dict.fromkeys(changed.extra["recipe"], "another")
        store.write_frames(store.read_frames("small_wells", stage, ["0000"]), changed, "0003")
    assert planned(stored, *known)[0] == "0004", "settings have changed since"


def test_what_was_made_of_a_batch_that_failed_later_is_made_without_it(stored):
    """A check failed when a batch was made again, with the same content: a model of it and others is trained again."""
    store, system = stored
    table, metadata = store.read_table("small_wells", "mapped_forces", "0000"), {}
    for stage, batch in (("mapped_forces", "0000"), ("potential_unbiased", None)):
        metadata[stage] = store.describe("small_wells", stage, batch).metadata
    store.write_table(table, metadata["mapped_forces"], "0001")
    metadata["mapped_forces"].extra["failed_checks"] = ["finite"]
    store.write_table(table, metadata["mapped_forces"], "0000")
    version = store.data_version("small_wells", "mapped_forces", "0000")
    both = {f"small_wells/mapped_forces/{batch}": version for batch in ("0000", "0001")}
    metadata["potential_unbiased"].upstream_data_versions.update(both)
    history = store.read_table("small_wells", "potential_unbiased")
    store.write_table(history, metadata["potential_unbiased"])
    plan = plan_refresh(store, system, ["0000", "0001"])
    assert plan.reasons[Part("potential_unbiased", None)] == "small_wells/mapped_forces/0000 failed its checks"


def test_a_run_makes_what_follows_from_other_batches_where_its_own_was_pruned(stored):
    store, system = stored
    for stage in BATCHED:
        table = store.read_table("small_wells", stage, "0000")
        store.write_table(table, store.describe("small_wells", stage, "0000").metadata, "0001")
        metadata = store.describe("small_wells", stage, "0001").metadata
        keys = dict(metadata.upstream_data_versions)
        metadata.upstream_data_versions.clear()
        metadata.upstream_data_versions.update({key.replace("/0000", "/0001"): keys[key] for key in keys})
        store.write_table(table, metadata, "0001")
    everything = UNBATCHED | {"comparison", "report"}
    for part, batch in [(stage, "0000") for stage in BATCHED] + [(stage, None) for stage in everything]:
        path = store.file("small_wells", part, batch)
        path.unlink()
        if batch:
            path.with_name("pruned.json").write_text("{}")
    planned = plan_run(store, system, "0000")
    assert {part.stage for part in planned} == everything
    assert {part.stage for part in plan_run(store, system, "0001")} == everything
    assert set(plan_run(store, system, "0002")) >= {Part(stage, "0002") for stage in BATCHED}
    assert not {part for part in plan_run(store, system, "0002") if part.batch in ("0000", "0001")}


KERNELS = """
extends: capped_alanine_kernels
name: own_kernels
title: Labels of a flow that is trained again for each batch
"""


def test_labels_of_a_kernel_follow_its_flow(command):
    """The flow learns from all batches, and labels of all of them are made with it before a potential is trained."""
    command.add_system(KERNELS)
    system = load_system("own_kernels")
    plan = plan_refresh(ParquetStore(command.home), system, ["0000", "0001"])
    first, second, third = plan.runs
    assert (first.batch, second.batch, third.batch) == ("0000", "0001", "0000")
    flow = next(stage for stage in second.stages if stage.endswith("_kernel"))
    assert f"{flow}_forces" in second.stages and f"{flow}_forces" in third.stages
    assert "trajectories" in first.stages and "trajectories" in second.stages
    made = [stage for run in plan.runs for stage in run.stages if not run.batch or stage.startswith("potential_")]
    assert len(made) == len(set(made)), "a potential is trained twice"


# --------------------------------------------------------------------------------------- real refreshes
TINY = (REPOSITORY / "benchmarks" / "systems" / "tiny_wells.yaml").read_text(encoding="utf-8")


def executed_tick(instance, system, folder):
    """Evaluate the schedule as the daemon does, and execute what it asks for; the request (or why there is none)."""
    (schedule,) = build_schedules({system.name: system})
    definitions = dg.Definitions(
        assets=build_assets({system.name: system}),
        jobs=build_jobs({system.name: system}),
        resources=build_resources(folder),
    )
    repository = definitions.get_repository_def()
    moment = datetime(2026, 1, 5, 3, tzinfo=UTC)
    # Left open, the context would hand its instance to whatever loads definitions after this test.
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=moment, repository_def=repository
    ) as context:
        ticked = schedule.evaluate_tick(context)
    if not ticked.run_requests:
        return None, ticked.skip_message
    (request,) = ticked.run_requests
    job = definitions.resolve_job_def(f"{system.name}_job")
    result = job.execute_in_process(
        instance=instance,
        partition_key=request.partition_key,
        asset_selection=request.asset_selection,
        tags=request.tags,
        raise_on_error=False,
    )
    return request, result


@pytest.mark.parametrize("ticks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_scheduled_refreshes(home, instance, ticks):
    """Each adds its batch and trains again; the champion moves or stays, and the reason is recorded."""
    (home / "systems" / "tiny_wells.yaml").write_text(TINY)
    system, store, tracking = load_system("tiny_wells"), ParquetStore(home), ModelTracking(None, home)
    register_first_batches(instance, {system.name: system})
    reference, champion = None, None
    for number, batch in enumerate(("0000", "0001", "0002")[:ticks], start=1):
        known = store.batches("tiny_wells", "trajectories")
        kept = {name: content_hash(store.path("tiny_wells", "trajectories", name)) for name in known}
        request, result = executed_tick(instance, system, home)
        assert result.success
        assert (request.partition_key, request.tags[REFRESH_TAG]) == (batch, "schedule")
        assert store.batches("tiny_wells", "mapped_forces") == [*known, batch]
        assert {name: content_hash(store.path("tiny_wells", "trajectories", name)) for name in known} == kept
        upstream = store.describe("tiny_wells", "potential_unbiased").metadata.upstream_data_versions
        assert sorted(upstream) == [f"tiny_wells/mapped_forces/{name}" for name in (*known, batch)]
        unchanged, reference = reference, store.path("tiny_wells", "reference").stat()
        assert unchanged in (None, reference), "the reference depends on no data"
        decision = json.loads(tracking.lookup(f"tiny_wells.unbiased/{number}").tags["champion_decision"])
        assert decision["compared_with"] == champion
        assert ("against" if champion else "there was no champion") in decision["reason"]
        champion = str(number) if decision["promoted"] else champion
        assert tracking.lookup("tiny_wells.unbiased@champion").version == champion
    assert tracking.lookup("tiny_wells.unbiased@candidate").version == str(ticks)


def test_stages_follow_changed_data_where_the_sensor_is_on(home, instance):
    """The condition of each stage asks for it when the content of what it was made of changes, and only then."""
    (home / "systems" / "tiny_wells.yaml").write_text(TINY)
    system = load_system("tiny_wells")
    instance.add_dynamic_partitions("tiny_wells_batches", [FIRST_BATCH])
    definitions = dg.Definitions(assets=build_assets({system.name: system}), resources=build_resources(home))

    def report(stage, version, partition=None):
        tags = {"dagster/data_version": version}
        event = dg.AssetMaterialization(["tiny_wells", stage], partition=partition, tags=tags)
        instance.report_runless_asset_event(event)

    def requested(cursor):
        result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
        keys = [key for key in definitions.resolve_asset_graph().get_all_asset_keys()]
        return {key.path[-1] for key in keys if result.get_num_requested(key)}, result.cursor

    made = ("reference", "potential_unbiased", "cg_simulation_unbiased", "evaluation_unbiased", "comparison", "report")
    for stage in made:
        report(stage, "a")
    for stage in ("trajectories", "mapped_forces"):
        report(stage, "a", FIRST_BATCH)
    _, cursor = requested(None)
    assert requested(cursor)[0] == set()
    report("trajectories", "b", FIRST_BATCH)
    found, cursor = requested(cursor)
    assert found == {"mapped_forces"}
    report("mapped_forces", "a", FIRST_BATCH)  # made again, with equal content
    found, cursor = requested(cursor)
    assert found == set()
    report("mapped_forces", "b", FIRST_BATCH)
    found, cursor = requested(cursor)
    assert "potential_unbiased" in found and "reference" not in found


def test_a_schedule_waits_for_a_run_of_its_system(home, instance):
    (home / "systems" / "small_wells.yaml").write_text(SMALL_WELLS)
    system = load_system("small_wells")
    register_first_batches(instance, {system.name: system})
    run = instance.create_run_for_job(
        dg.Definitions(
            assets=build_assets({system.name: system}),
            jobs=build_jobs({system.name: system}),
            resources=build_resources(home),
        ).resolve_job_def("small_wells_job"),
        status=dg.DagsterRunStatus.STARTED,
    )
    request, message = executed_tick(instance, system, home)
    assert request is None
    assert message == f"small_wells is already running (run {run.run_id})"


_REGISTER = """
import sys, time
import dagster as dg
from cg_assets.orchestration.automation import register_first_batches
with dg.DagsterInstance.get() as instance:
    print("ready", flush=True)
    sys.stdin.readline()
    register_first_batches(instance, dict.fromkeys(f"system_{number}" for number in range(80)))
"""


def test_processes_give_first_batches_on_one_new_home_at_once(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", _REGISTER],
                env=os.environ | {"DAGSTER_HOME": str(tmp_path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for one in started:
            assert one.stdout.readline() == "ready\n", one.stderr.read()
        for one in started:
            one.stdin.write("\n")
            one.stdin.flush()
        for one in started:
            _, errors = one.communicate(timeout=120)
            assert one.returncode == 0, errors
