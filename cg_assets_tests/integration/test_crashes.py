"""SIGKILL in the middle of sampling, of a Parquet write and of training: nothing partial is data, a rerun completes.

The processes are first stopped (SIGSTOP) as soon as the condition shows, the condition is looked at again, and only
then are they killed: what is tested is what the test says, whatever the machine's speed.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from conftest import Command, group_members, kill_group, wait_for
from small_systems import SMALL_WELLS

from cg_assets.core.errors import StorageError
from cg_assets.orchestration.executors import GPU_POOL
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.atomic import is_temporary
from cg_assets.storage.catalogue import query
from cg_assets.storage.parquet import content_hash, verify
from cg_assets.storage.store import ParquetStore

# A frame every step: four pieces of half a million frames, seconds of writing and hardly any dynamics.
MANY_FRAMES = """
extends: small_wells
name: many_frames
title: Two wells, a file of a million and more frames
sampling: {unbiased: {replicas: 600, burn_in: 1, duration: 40, frame_interval: 0.02}}
"""
LONG_TRAINING = """
extends: small_wells
name: long_training
title: Two wells, many epochs
training: {epochs: 50, patience: 50, learning_rate: 0.005}
"""
VICTIMS = ["everything killed", "step killed"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A home in which nobody killed the same commands."""
    own = prepared(tmp_path_factory.mktemp("undisturbed") / "home")
    for arguments in (SAMPLE, TRAIN):
        done = own(*arguments)
        assert done.returncode == 0, done.stderr
    return own


SAMPLE = ("run", "many_frames", "--select", "trajectories")
TRAIN = ("run", "long_training", "--select", "trajectories", "mapped_forces", "potential_unbiased")


def prepared(home: Path) -> Command:
    own = Command(home)
    for text in (SMALL_WELLS, MANY_FRAMES, LONG_TRAINING):
        own.add_system(text)
    return own


@pytest.fixture
def own(home):
    return prepared(home)


def results(own: Command, system: str = "") -> dict[str, str]:
    """What must not depend on kills: the content of each file, and the weights of a potential instead of its times."""
    found = {}
    for path in sorted((own.home / "data" / system).rglob("part-0.parquet")):
        facts = pq.read_metadata(path).metadata
        weights = facts.get(b"cg_assets.weights_hash")
        key = str(path.relative_to(own.home / "data").parent)
        found[key] = json.loads(weights) if weights else content_hash(path)
    return found


def step_processes(group: int) -> list[int]:
    """The processes of steps: forked by a process of the fork server."""

    def is_fork_server(process: int) -> bool:
        try:
            return b"multiprocessing.forkserver" in Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            return False

    def parent(process: int) -> int:
        try:
            return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return 0

    return [process for process in group_members(group) if is_fork_server(process) and is_fork_server(parent(process))]


def kill_when(own: Command, arguments: tuple[str, ...], condition, whole_group: bool = True) -> tuple[int, str]:
    """Run a command, and kill its whole group (or its step's process) while a condition holds.

    Returns:
        Its exit status and what it said.
    """
    process = own.start(*arguments)
    try:
        while True:
            wait_for(lambda: condition() or process.poll() is not None, 120.0, "the condition", interval=0.001)
            assert process.poll() is None, f"it ended before the condition held:\n{process.communicate()[1]}"
            os.killpg(process.pid, signal.SIGSTOP)
            if condition():
                break
            os.killpg(process.pid, signal.SIGCONT)
        victims = step_processes(process.pid)
        assert len(victims) == 1
        if whole_group:
            kill_group(process.pid)
        else:
            os.kill(victims[0], signal.SIGKILL)
            os.killpg(process.pid, signal.SIGCONT)
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors
    finally:
        kill_group(process.pid)
        process.wait()


def folder_of(own: Command, system: str, stage: str) -> Path:
    return own.home / "data" / system / stage


def assert_no_partial_data(own: Command, system: str, stage: str, batch: str | None) -> None:
    """No reader sees anything of the stage."""
    store = ParquetStore(own.home)
    assert store.batches(system, stage) == []
    with pytest.raises(StorageError):
        store.read_frames(system, stage, batch and [batch])
    for read in (store.read_table, store.describe):
        with pytest.raises(StorageError):
            read(system, stage, batch)
    for path in (own.home / "data").rglob("*.parquet"):
        if not is_temporary(path):
            verify(path)
    assert query(own.home, f"select count(*) as n from lineage where stage = '{stage}'").to_pylist() == [{"n": 0}]


def assert_nothing_is_stuck(own: Command) -> None:
    """Every run has ended, no pool slot is held or waited for, no temporary file is left."""
    with dg.DagsterInstance.from_config(str(own.home / "dagster")) as instance:
        statuses = [run.status for run in instance.get_runs()]
        assert all(status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE) for status in statuses)
        assert dg.DagsterRunStatus.FAILURE in statuses, "the killed run is on record"
        assert statuses[0] == dg.DagsterRunStatus.SUCCESS
        for pool in instance.event_log_storage.get_concurrency_keys() | {GPU_POOL}:
            info = instance.event_log_storage.get_concurrency_info(pool)
            assert (info.active_slot_count, info.pending_step_count, info.assigned_step_count) == (0, 0, 0), pool
    left = [path for path in (own.home / "data").rglob("*") if path.is_file() and path.name != "part-0.parquet"]
    assert left == []


@pytest.mark.parametrize("whole_group", [pytest.param(True, marks=pytest.mark.slow), False], ids=VICTIMS)
def test_killed_while_sampling(own, undisturbed, whole_group):
    stage = folder_of(own, "many_frames", "trajectories")
    part = stage / "0000"

    def sampling():
        return (stage / ".pieces-0000" / "state.npz").exists() and not part.exists()

    status, errors = kill_when(own, SAMPLE, sampling, whole_group)
    assert status == (-signal.SIGKILL if whole_group else 1), errors
    assert_no_partial_data(own, "many_frames", "trajectories", "0000")
    kept = sorted(path.name for path in (stage / ".pieces-0000").glob("piece-*.npz"))
    assert kept or (stage / ".pieces-0000" / "state.npz").exists()
    done = own(*SAMPLE)
    assert done.returncode == 0, done.stderr
    assert results(own) == results(undisturbed, "many_frames")
    assert_nothing_is_stuck(own)


def test_a_step_ends_when_the_process_of_its_run_was_killed(own, undisturbed):
    """It finishes its work; nobody reads its last events, of which the figure does not fit into a pipe."""
    process = own.start(*SAMPLE)
    try:
        state = folder_of(own, "many_frames", "trajectories") / ".pieces-0000" / "state.npz"
        wait_for(state.exists, 120.0, "the first piece", interval=0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=120)
        wait_for(lambda: not step_processes(process.pid), 120.0, "the end of the step")
    finally:
        kill_group(process.pid)
        process.wait()
    assert results(own) == results(undisturbed, "many_frames")
    done = own(*SAMPLE)
    assert done.returncode == 0, done.stderr
    assert results(own) == results(undisturbed, "many_frames")
    assert_nothing_is_stuck(own)


def test_killed_while_writing(own, undisturbed):
    part = folder_of(own, "many_frames", "trajectories") / "0000"

    def writing():
        try:
            return part.is_dir() and any(is_temporary(path) and path.stat().st_size > 0 for path in part.iterdir())
        except FileNotFoundError:  # it has just been moved to its name
            return False

    status, errors = kill_when(own, SAMPLE, writing)
    assert status == -signal.SIGKILL, errors
    assert [path for path in part.iterdir() if is_temporary(path)], "the temporary file of the killed writer"
    assert_no_partial_data(own, "many_frames", "trajectories", "0000")
    done = own(*SAMPLE)
    assert done.returncode == 0, done.stderr
    assert results(own) == results(undisturbed, "many_frames")
    assert_nothing_is_stuck(own)


@pytest.mark.parametrize("whole_group", [True, pytest.param(False, marks=pytest.mark.slow)], ids=VICTIMS)
def test_killed_while_training(own, undisturbed, whole_group):
    stage = folder_of(own, "long_training", "potential_unbiased")

    def training():
        return any(stage.glob(".checkpoint-*.pt")) and not (stage / "part-0.parquet").exists()

    status, errors = kill_when(own, TRAIN, training, whole_group)
    assert status == (-signal.SIGKILL if whole_group else 1), errors
    assert_no_partial_data(own, "long_training", "potential_unbiased", None)
    assert ModelTracking(None, own.home).models() == [], "an unfinished training is registered"
    (checkpoint,) = stage.glob(".checkpoint-*.pt")
    finished_epochs = epochs_of(checkpoint)
    assert 1 <= finished_epochs < 50
    sampled = ParquetStore(own.home).path("long_training", "trajectories", "0000").stat()
    done = own(*TRAIN)
    assert done.returncode == 0, done.stderr
    assert "resuming the last run: 2 of 3 stages are finished" in done.stdout
    assert ParquetStore(own.home).path("long_training", "trajectories", "0000").stat() == sampled
    assert results(own) == results(undisturbed, "long_training")
    table = ParquetStore(own.home).read_table("long_training", "potential_unbiased")
    assert table.column("epoch").to_pylist() == list(range(1, 51))
    (model,) = ModelTracking(None, own.home).models()
    assert (model.name, model.latest_version) == ("long_training.unbiased", "1")
    assert run_states(own) == ["FINISHED", "KILLED"]
    assert_nothing_is_stuck(own)


def run_states(own) -> list[str]:
    """States of all training runs in MLflow."""
    with sqlite3.connect(own.home / "mlflow" / "mlflow.db") as database:
        return sorted(state for (state,) in database.execute("select status from runs"))


def epochs_of(checkpoint: Path) -> int:
    import torch

    return len(json.loads(torch.load(checkpoint, weights_only=True)["history"]))
