"""`doctor`, `prune`, `lineage`, and home folders that are copied to another place."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import asdict, replace

import dagster as dg
import numpy as np
import pytest
from conftest import Command
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    LoadableTargetOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from small_systems import SMALL_WELLS

from cg_assets.cli import main
from cg_assets.core.errors import CgAssetsError, TrackingError
from cg_assets.operations.doctor import examine
from cg_assets.operations.home_folder import prepare_home
from cg_assets.operations.lineage import answer
from cg_assets.operations.prune import find_prunable, remove
from cg_assets.orchestration.automation import job_name
from cg_assets.orchestration.executors import GPU_POOL
from cg_assets.orchestration.refresh import plan_refresh
from cg_assets.orchestration.run_locks import PROCESS_TAG, end_dead_runs
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.atomic import atomic_file
from cg_assets.storage.catalogue import query
from cg_assets.storage.parquet import content_hash
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

TRAJECTORIES = ("small_wells", "trajectories", "0000")


@pytest.fixture
def moved(finished, home, monkeypatch):
    """The finished home, copied twice: what it was copied from is gone, as on another machine."""
    between = home.with_name("between")
    shutil.copytree(finished.home, between, symlinks=True)
    ModelTracking(None, between).check()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it
    shutil.rmtree(home)
    between.rename(home)
    return Command(home)


def found_by(home, repair=False):
    """Subject to its finding."""
    return {finding.subject: finding for finding in examine(home, repair)}


def faults(home, repair=False):
    return {subject: finding.faults for subject, finding in found_by(home, repair).items() if finding.faults}


# --------------------------------------------------------------------------------------- moving


def test_a_home_folder_that_was_moved_works(moved, finished, monkeypatch):
    """Models, lineage, the catalogue and Dagster's own records follow the folder; the first one is not touched."""
    assert faults(moved.home) == {}
    tracking = ModelTracking(None, moved.home)
    entry = tracking.lookup("small_wells.biased@champion")
    assert {item.status for item in entry.lineage} == {"same"}
    module, _ = tracking.load("small_wells.biased", "1")
    assert module is not None
    rows = query(moved.home, "select count(*) as n from small_wells.trajectories").to_pylist()
    assert rows == [{"n": 256 * 40}]
    _, client = tracking._connection.open()
    run = client.get_run(entry.run_id)
    assert run.info.artifact_uri.startswith((moved.home / "mlflow" / "artifacts").as_uri())
    assert [item.path for item in client.list_artifacts(run.info.run_id, "figures")]
    code = (
        "import mlflow, numpy, sys\n"
        f"mlflow.set_tracking_uri('sqlite:///{moved.home}/mlflow/mlflow.db')\n"
        "model = mlflow.pyfunc.load_model('models:/small_wells.biased@champion')\n"
        "print(model.predict({'positions': numpy.zeros((2, 1, 1))})['forces'].shape)\n"
    )
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-I", "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(2, 1, 1)\n"), done.stderr
    own = ModelTracking(None, finished.home).lookup("small_wells.biased")
    assert own.lineage == entry.lineage


def test_what_was_lost_on_the_way_is_named(moved):
    """Though the catalogue names absolute paths of the old place."""
    file = ParquetStore(moved.home).path("small_wells", "relabelled_forces", "0000")
    file.unlink()
    (fault,) = faults(moved.home)["catalogue"]
    assert fault == f"{file.relative_to(moved.home)} is in the catalogue, but missing"


def test_a_read_only_home_can_be_looked_at(moved):
    """As a backup is: nothing is written to it, and no copy stays behind."""
    mount = "mount --bind {0} {0} && mount -o remount,ro,bind {0} && exec {1}"
    if os.getuid() == 0:
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            pytest.skip("root writes everywhere, and here it may not mount a folder read-only")
    else:
        moved.home.chmod(0o555)

    def run(*arguments):
        line = moved.line(*arguments)
        if os.getuid() == 0:
            line = ["unshare", "-m", "sh", "-c", mount.format(shlex.quote(str(moved.home)), shlex.join(line))]
        return subprocess.run(line, env=moved.environment(TMPDIR=str(temporary)), capture_output=True, text=True)

    temporary = moved.home.with_name("temporary")
    temporary.mkdir()
    before = {path: path.stat().st_mtime_ns for path in moved.home.rglob("*")}
    folder = moved.home.with_name("figures")
    looks = ("doctor", "models", "lookup small_wells.biased", "lineage small_wells.biased", "prune")
    looks += ("run small_wells --dry-run", "refresh small_wells --dry-run")
    for words in (*looks, f"figures small_wells --folder {folder}"):
        arguments = words.split()
        done = run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        assert done.stderr == f"cg-assets: {moved.home} is read-only; its databases are read from a temporary copy\n"
    assert [*map(str, folder.glob("small_wells.png"))] == [done.stdout.splitlines()[0]]
    changes = ("doctor --repair", "prune --remove", "run small_wells", "refresh small_wells")
    for words in (*changes, "report small_wells", "figures small_wells"):
        arguments = words.split()
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), (arguments, done.stdout, done.stderr)
        assert f"home folder {moved.home}: this user cannot write to it" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    moved.home.chmod(0o755)
    assert before == {path: path.stat().st_mtime_ns for path in moved.home.rglob("*")}
    assert list(temporary.glob("cg_assets_*")) == []


@pytest.mark.parametrize("name", ["what?", "100%25", "back\\slash"])
def test_a_home_whose_path_no_address_can_hold_is_refused(name, tmp_path, capsys):
    assert main(["--home", str(tmp_path / name), "models"]) == 1
    assert main(["--home", str(tmp_path / name), "run", "muller_brown"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("its path contains" in error and "choose another folder with --home" in error for error in errors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/home"])
@pytest.mark.parametrize("command", [["systems"], ["run", "muller_brown"], ["doctor"]])
def test_a_home_that_is_a_file_is_named(command, name, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["--home", str(tmp_path / name), *command]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/file is a file; choose another folder" in error


def test_a_copy_of_data_among_the_data_stops_nothing(copied, capsys):
    data = copied.home / "data"
    shutil.copytree(data / "small_wells", data / "backup" / "small_wells")
    for number in range(2):  # with and without a catalogue
        assert main(["query", "select count(*) as n from small_wells.reference"]) == 0, number
    assert main(["lineage", str(data / "small_wells" / "trajectories" / "0000" / "part-0.parquet")]) == 0
    found = faults(copied.home)["data"]
    assert len(found) == len(list((data / "backup").rglob("part-0.parquet")))
    assert all("data/backup/small_wells/" in fault for fault in found)
    assert all("is no place of data" in fault or "was copied or moved there" in fault for fault in found)
    shutil.rmtree(data / "backup")
    assert "data" not in faults(copied.home)


# --------------------------------------------------------------------------------------- the doctor


def test_the_doctor_of_an_empty_home_leaves_it_empty(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CG_DEVICE", "cpu")
    assert list(found_by(tmp_path / "home")) == ["versions", "devices", "systems"]
    assert not (tmp_path / "home").exists()
    monkeypatch.setenv("CG_DEVICE", "tpu")
    assert "CG_DEVICE is 'tpu'" in faults(tmp_path / "home")["devices"][0]


def test_the_doctor_renames_around_a_batch_in_work(home):
    store, older = ParquetStore(home), []
    for batch in ("0000", "0001"):
        written = store.write_table({"x": [1.0]}, FileMetadata("small_wells", "trajectories", "reduced"), batch)
        older.append(written.path.parent.rename(written.path.parent.with_name(f"batch={batch}")))
    with store.lock("small_wells", "trajectories", "0001"):
        found = found_by(home, repair=True)["folders"]
    assert found.repaired == [f"{older[0].relative_to(home)} was renamed"]
    assert len(found.faults) == 1 and "small_wells/trajectories/0001 is in use by" in found.faults[0]
    found = found_by(home, repair=True)["folders"]
    assert (found.repaired, found.faults) == ([f"{older[1].relative_to(home)} was renamed"], [])


def test_the_doctor_finds_what_is_wrong(copied, capsys):
    """Each kind of damage is named with its file; repairing mends the harmless kinds and leaves the others."""
    home = copied.home
    store = ParquetStore(home)
    query(home, "select 1")
    flipped = store.path("small_wells", "trajectories", "0000")
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    empty = store.path("small_wells", "comparison")
    empty.write_bytes(b"")
    shutil.rmtree(store.path("small_wells", "reference").parent)
    with atomic_file(flipped.parent / "killed.parquet") as temporary:
        leftover = shutil.copyfile(temporary, temporary.with_name(f"{temporary.name}0"))
    found = faults(home)
    assert set(found) == {"temporary files", "data", "catalogue", "models"}
    assert "MLflow has no version 1 of small_wells.biased" in found["models"][0], "data were copied without models"
    assert [
        path for path in (flipped, empty) if not any(str(path.relative_to(home)) in text for text in found["data"])
    ] == []
    assert len(found["data"]) == 2
    assert found["temporary files"] == [f"{leftover.relative_to(home)} is the leftover of a killed writer"]
    gone = "data/small_wells/reference/part-0.parquet is in the catalogue, but missing"
    assert gone in found["catalogue"]
    assert main(["--home", str(home), "doctor", "--repair"]) == 1
    shown = capsys.readouterr().out
    assert "WRONG" in shown and f"repaired: {gone}" in shown
    assert set(faults(home)) == {"data", "models"}
    assert flipped.read_bytes() == content, "a damaged file is left for its owner"


@pytest.fixture
def instance(home):
    prepare_home()
    with dg.DagsterInstance.get() as opened:
        yield opened


def test_the_doctor_ends_dead_runs_and_frees_their_slots(home, instance):
    (home / "systems" / "small_wells.yaml").write_text(SMALL_WELLS)
    job = dg.define_asset_job(job_name("small_wells"), selection="*")
    definitions = dg.Definitions(assets=[dg.asset(key=["small_wells", "trajectories"])(lambda: None)], jobs=[job])
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = f"{os.uname().nodename}:{gone.pid}"
    run = instance.create_run_for_job(
        definitions.resolve_job_def(job_name("small_wells")),
        status=dg.DagsterRunStatus.STARTED,
        tags={PROCESS_TAG: host},
    )
    instance.event_log_storage.set_concurrency_slots(GPU_POOL, 1)
    assert instance.event_log_storage.claim_concurrency_slot(GPU_POOL, run.run_id, "step").is_claimed
    assert faults(home) == {"runs": [f"run {run.run_id} of small_wells_job has lost its process"]}
    instance.report_run_failed(run)
    assert faults(home) == {"pools": [f"pool {GPU_POOL} is held by run {run.run_id}, which has ended"]}
    assert found_by(home, repair=True)["pools"].repaired
    assert faults(home) == {}
    assert instance.event_log_storage.claim_concurrency_slot(GPU_POOL, "another", "step").is_claimed
    assert end_dead_runs(instance) == 0


def test_the_doctor_finds_a_schedule_of_the_future(home, instance):
    """As a clock that was ahead leaves it: Dagster lets it tick only after the newest of its times."""
    repository = RemoteRepositoryOrigin(InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file="x.py")), "r")
    state = InstigatorState(
        RemoteInstigatorOrigin(repository, "mine_refresh"),
        InstigatorType.SCHEDULE,
        InstigatorStatus.RUNNING,
        ScheduleInstigatorData("* * * * *", start_timestamp=time.time() + 399 * 86400.0),
    )
    instance.add_instigator_state(state)
    identity = {"instigator_origin_id": state.instigator_origin_id, "selector_id": state.selector_id}
    for ahead in (-60.0, 400 * 86400.0):
        data = TickData(
            instigator_name="mine_refresh",
            instigator_type=InstigatorType.SCHEDULE,
            status=TickStatus.SKIPPED,
            timestamp=time.time() + ahead,
            **identity,
        )
        instance.create_tick(data)
    (fault,) = faults(home)["clock"]
    assert "mine_refresh has ticked or was switched on" in fault and "which lies in the future" in fault
    assert len(found_by(home, repair=True)["clock"].repaired) == 1
    assert faults(home) == {}
    newest, _ = instance.get_ticks(state.instigator_origin_id, state.selector_id)
    assert abs(newest.timestamp - time.time()) < 60
    (kept,) = instance.all_instigator_state()
    assert (kept.status, kept.instigator_data.cron_schedule) == (InstigatorStatus.RUNNING, "* * * * *")


# --------------------------------------------------------------------------------------- pruning


def test_pruning_removes_what_nothing_needs_and_nothing_else(moved, capsys):
    """A failed batch, a stage of no system and leftovers go; what models came from stays in any case."""
    home, store = moved.home, ParquetStore(moved.home)
    assert find_prunable(home) == []
    frames = store.read_frames("small_wells", "biased_samples", ["0000"])
    metadata = store.describe("small_wells", "biased_samples", "0000").metadata
    metadata.extra["failed_checks"] = ["conditional_equilibration"]
    failed = store.write_frames(frames, metadata, "0001").path
    used = store.path("small_wells", "biased_samples", "0000")
    store.write_frames(frames, metadata, "0000")  # marked as failed, and yet a model came from it
    reference = store.describe("small_wells", "reference").metadata
    other = store.write_table({"number": [1.0]}, replace(reference, stage="old_stage")).path
    pieces = store.stage_folder("small_wells", "trajectories") / ".pieces-0000"
    pieces.mkdir()
    (pieces / "lock").touch()
    assert {item.path for item in find_prunable(home)} == {failed, other, pieces}
    assert main(["--home", str(home), "prune"]) == 0
    assert "can be removed: cg-assets prune --remove" in capsys.readouterr().out
    assert failed.is_file() and other.is_file() and pieces.is_dir(), "a dry run removes nothing"
    before = {
        path: content_hash(path) for path in home.rglob("data/*/**/part-0.parquet") if path not in (failed, other)
    }
    remove(home, find_prunable(home))
    assert not failed.exists() and not other.exists() and not pieces.exists()
    assert {path: content_hash(path) for path in before} == before
    assert used in before
    assert query(home, "select count(*) as n from lineage where batch = '0001'").to_pylist() == [{"n": 0}]
    system = load_system("small_wells")
    plan = plan_refresh(store, system, ["0000", "0001"])
    stages = {stage for run in plan.runs for stage in run.stages if run.batch == "0001"}
    assert "trajectories" in stages and "biased_samples" not in stages, (
        "what failed would fail again: the seed is the same"
    )
    (home / "systems" / "small_wells.yaml").unlink()
    removable = {item.path.relative_to(home / "data" / "small_wells").parts[0] for item in find_prunable(home)}
    assert "comparison" in removable
    assert not removable & {"trajectories", "mapped_forces", "biased_samples", "relabelled_forces"}


def test_what_is_pruned_while_a_system_is_away_has_not_failed(moved):
    """Its file comes back, and its batches are sampled again."""
    home, store, path = moved.home, ParquetStore(moved.home), moved.home / "systems" / "small_wells.yaml"
    metadata = store.describe(*TRAJECTORIES).metadata
    extra = store.write_frames(store.read_frames("small_wells", "trajectories", ["0000"]), metadata, "0001").path
    text = path.read_text()
    path.unlink()
    assert extra in {item.path for item in remove(home, find_prunable(home))} and not extra.exists()
    path.write_text(text)
    assert not store.is_pruned("small_wells", "trajectories", "0001")
    plan = plan_refresh(store, load_system("small_wells"), ["0000", "0001"])
    assert plan.reasons[("trajectories", "0001")] == "not made yet"


def test_nothing_of_a_system_whose_file_is_wrong_is_pruned(moved):
    store = ParquetStore(moved.home)
    metadata = store.describe(*TRAJECTORIES).metadata
    metadata.extra["failed_checks"] = ["finite"]
    store.write_table({"number": [1.0]}, metadata, "0001")
    assert len(find_prunable(moved.home)) == 1
    (moved.home / "systems" / "small_wells.yaml").write_text("name: small_wells\n")
    assert find_prunable(moved.home) == []


def test_a_batch_that_is_being_made_is_not_pruned(moved, capsys):
    """Neither its pieces nor its file, even where they were listed before; nor pieces newer than the file."""
    home, store = moved.home, ParquetStore(moved.home)
    metadata = store.describe(*TRAJECTORIES).metadata
    metadata.extra["failed_checks"] = ["finite"]
    failed = store.write_table({"number": [1.0]}, metadata, "0001").path
    pieces = store.pieces("small_wells", "trajectories", "0000", "plan", 1, "1")
    with pieces:
        pieces.resume()
        pieces.append(None, {"done": np.array(1)})
        assert pieces.folder not in {item.path for item in find_prunable(home)}
    assert pieces.folder not in {item.path for item in find_prunable(home)}, "an interrupted run resumes from them"
    os.utime(pieces.folder / "state.npz", (0, 0))
    listed = find_prunable(home)
    assert {item.path for item in listed} == {failed, pieces.folder}
    with store.lock(*TRAJECTORIES), store.lock("small_wells", "trajectories", "0001"):
        assert remove(home, listed) == []
        assert main(["--home", str(home), "prune", "--remove"]) == 0
    assert "left, for another process works on it: data/small_wells/trajectories" in capsys.readouterr().out
    store.write_table({"number": [2.0]}, metadata, "0001")
    assert [item.path for item in remove(home, listed)] == [pieces.folder], "the file is another one by now"


def test_pruning_refuses_an_mlflow_without_the_models(moved, monkeypatch, tmp_path):
    """Their data would seem to be needed by nothing."""
    address = f"sqlite:///{moved.home}/elsewhere.db"
    (moved.home / "mlflow" / "mlflow.db").rename(moved.home / "elsewhere.db")
    with pytest.raises(
        TrackingError, match=r"MLFLOW_TRACKING_URI is not set .* none of the models .*small_wells\.biased"
    ):
        find_prunable(moved.home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/another.db")
    with pytest.raises(TrackingError, match="the MLflow of this address has none of the models"):
        find_prunable(moved.home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert find_prunable(moved.home) == []


def test_pruning_keeps_what_a_model_of_another_mlflow_may_need(moved, caplog):
    """One of two models is here: nothing shows what the other one was made of."""
    with closing(sqlite3.connect(moved.home / "mlflow" / "mlflow.db")) as connection, connection:
        for table in ("model_version_tags", "model_versions", "registered_model_aliases", "registered_models"):
            connection.execute(f"DELETE FROM {table} WHERE name = 'small_wells.unbiased'")
    (moved.home / "systems" / "small_wells.yaml").rename(moved.home / "away.yaml")
    assert find_prunable(moved.home) == []
    assert "small_wells: nothing is removed: MLflow has no version 1 of small_wells.unbiased" in caplog.text


# --------------------------------------------------------------------------------------- lineage


def test_lineage_answers_from_mlflow_and_in_sql(moved, capsys):
    tracking = ModelTracking(None, moved.home)
    path = ParquetStore(moved.home).path("small_wells", "biased_samples", "0000")
    for subject in (str(path), str(path.relative_to(moved.home)), "small_wells/biased_samples/0000"):
        found = answer(tracking, subject)
        assert [(item.model, item.version) for item in found.models] == [("small_wells.biased", "1")]
        assert (found.models[0].trained_on, found.models[0].status) == (False, "same")
    assert answer(tracking, "small_wells/comparison").models == []
    files = answer(tracking, "small_wells.biased@champion").files
    assert [item.data for item in files] == ["small_wells/relabelled_forces/0000", "small_wells/biased_samples/0000"]
    sql = "select model, version, trained_on, content_hash from small_wells.registered_models where file = '{}'"
    rows = query(moved.home, sql.format(path.relative_to(moved.home))).to_pylist()
    assert rows == [
        {"model": "small_wells.biased", "version": 1, "trained_on": False, "content_hash": content_hash(path)}
    ]
    sql = "select data from small_wells.registered_models where model = 'small_wells.unbiased' order by trained_on"
    assert [row["data"] for row in query(moved.home, sql).to_pylist()] == [
        "small_wells/trajectories/0000",
        "small_wells/mapped_forces/0000",
    ]
    found = answer(tracking, "small_wells.unbiased/1", "small_wells.biased/1").changes
    assert {item.name for item in found if item.kind == "data"} == {
        f"small_wells/{stage}/0000"
        for stage in ("trajectories", "mapped_forces", "biased_samples", "relabelled_forces")
    }
    assert not [item for item in found if item.kind == "specification"], "both are of one specification"
    assert answer(tracking, "small_wells.biased/1", "small_wells.biased@champion").changes == []
    assert main(["--home", str(moved.home), "lineage", "small_wells.biased", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [asdict(file) for file in files]
    for wrong in ("nowhere.parquet", "small_wells.none", "a/b/c/d", "small_wells.biased/9"):
        with pytest.raises(CgAssetsError):
            answer(tracking, wrong)
