"""Two refreshes at once, a full disk, killed servers: nothing that was finished is lost, and the rest recovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from conftest import REPOSITORY, Command, group_members, kill_group, wait_for
from test_pages import LAUNCH, LOCATIONS, STATUS, Pages
from test_refresh import TINY

from cg_assets.storage.parquet import verify
from cg_assets.storage.store import ParquetStore

FULL_DISK = """
import sys
import numpy as np
from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore

rng = np.random.default_rng(0)
frames = Frames(
    positions=rng.normal(size=(60_000, 5, 3)).astype(np.float32), time=np.arange(60_000.0),
    replica=np.zeros(60_000, np.int32), temperature=np.ones(60_000), start=np.zeros(60_000, np.int32),
    probe=np.zeros(60_000, bool),
)
store = ParquetStore(sys.argv[1])
metadata = FileMetadata("toy", "trajectories", "reduced")
small = store.write_frames(frames.select(np.arange(60_000) < 100), metadata, "0000")
try:
    store.write_frames(frames, metadata, "0001")
except StorageError as error:
    print(error)
print(store.batches("toy", "trajectories"), small.content_hash)
print(sorted(str(path.relative_to(store.data)) for path in store.data.rglob("*") if path.is_file()))
"""


def in_own_mounts(*script: str) -> list[str]:
    """A command in a mount namespace of its own, where anybody may mount a small disk."""
    return ["unshare", "--map-root-user", "--mount", "bash", "-euc", "\n".join(script)]


def can_mount() -> bool:
    try:
        return subprocess.run(in_own_mounts("mount -t tmpfs tmpfs /mnt"), capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(not can_mount(), reason="this machine allows no mount namespaces (unshare --mount)")


@needs_mounts
def test_a_full_disk_is_told_and_leaves_no_partial_file(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "write.py").write_text(FULL_DISK)
    mount = f"mount -t tmpfs -o size=2m tmpfs {folder}"
    done = subprocess.run(
        in_own_mounts(mount, f"exec {sys.executable} {tmp_path}/write.py {folder}"),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    message, batches, files = done.stdout.splitlines()
    assert "0001/part-0.parquet: writing failed" in message and "No space left" in message
    assert batches.startswith("['0000'] ")
    assert files == "['toy/trajectories/0000/part-0.parquet']"


@pytest.mark.slow
@needs_mounts
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(home):
    """The same command, once on a disk of 60 kB and again after it has grown."""
    own = Command(home)
    own.add_system(TINY)
    command = " ".join(own.line("run", "tiny_wells", "--select", "trajectories", "mapped_forces"))
    data = home / "data"
    data.mkdir()
    script = [
        f"mount -t tmpfs -o size=60k tmpfs {data}",
        f"{command} > {home}/first 2>&1 && exit 3",
        f"find {data} -name 'part-0.parquet' > {home}/partial",
        f"mount -o remount,size=100m {data}",
        f"{command} > {home}/second 2>&1",
        f"cp -r {data}/tiny_wells {home}/kept",
    ]
    done = subprocess.run(in_own_mounts(*script), env=own.environment(CG_EXECUTOR="in_process"), cwd=home)
    assert done.returncode == 0, (home / "first").read_text() + (home / "second").read_text()
    assert "writing failed" in (home / "first").read_text()
    assert "Traceback" not in (home / "first").read_text()
    assert "mapped_forces" not in (home / "partial").read_text()
    for path in (home / "kept").rglob("part-0.parquet"):
        verify(path)
    assert len(list((home / "kept").rglob("part-0.parquet"))) == 2


@pytest.mark.slow
def test_two_refreshes_at_once(home):
    """One of them works; the other reports it and changes nothing."""
    own = Command(home)
    own.add_system(TINY)
    first = own.start("refresh", "tiny_wells", CG_EXECUTOR="in_process")
    lock = home / "locks" / "refresh-tiny_wells.lock"
    try:
        wait_for(lock.exists, 200.0, "the lock of the first refresh")
        second = own("refresh", "tiny_wells", CG_EXECUTOR="in_process")
        assert second.returncode == 1
        assert "tiny_wells" in second.stderr and "wait for" in second.stderr and "Traceback" not in second.stderr
        output, errors = first.communicate(timeout=600)
    finally:
        kill_group(first.pid)
    assert first.returncode == 0, errors
    assert "tiny_wells.unbiased version 1 is champion: it passed its checks and there was no champion" in output
    store = ParquetStore(home)
    assert store.batches("tiny_wells", "trajectories") == ["0000"]
    again = own("refresh", "tiny_wells", CG_EXECUTOR="in_process")
    assert again.returncode == 0, again.stderr
    assert store.batches("tiny_wells", "trajectories") == ["0000", "0001"]
    assert "trajectories of batch 0001: not made yet" in again.stdout
    assert "tiny_wells.unbiased version 2 is" in again.stdout


def launch(pages: Pages) -> str:
    (node,) = pages.graphql(LOCATIONS)["repositoriesOrError"]["nodes"]
    selector = {"repositoryName": node["name"], "repositoryLocationName": node["location"]["name"]}
    selector |= {"pipelineName": "tiny_wells_job"}
    tags = [{"key": "dagster/partition", "value": "0000"}]
    parameters = {"selector": selector, "mode": "default", "runConfigData": {}, "executionMetadata": {"tags": tags}}
    answer = pages.graphql(LAUNCH, parameters=parameters)["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]["runId"]


def servers_called(pages: Pages, word: str) -> list[int]:
    """Processes of the servers whose command line has a word."""
    found = []
    for group in pages.servers():
        for process in group_members(group):
            try:
                if word.encode() in Path(f"/proc/{process}/cmdline").read_bytes():
                    found.append(process)
            except OSError:
                continue
    return found


def has_started(pages: Pages, run: str) -> bool:
    return pages.graphql(STATUS, run=run)["runOrError"]["status"] == "STARTED"


def kill_server(pages: Pages, victim: str) -> float:
    """Kill a server and wait until the command has said so and stopped; the time of the kill."""
    for process in servers_called(pages, victim):
        os.kill(process, signal.SIGKILL)
    killed = time.monotonic()
    output, errors = pages.process.communicate(timeout=120)
    assert pages.process.returncode == 1, output
    assert f"the {'MLflow' if victim == 'mlflow' else 'Dagster'} server has stopped" in errors
    return killed


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["dagster._daemon", "mlflow"])
def test_a_killed_server_stops_the_pages_and_the_next_start_finishes_the_work(home, victim):
    """`cg-assets ui` names the server that is gone; what was queued or running is done after the next start."""
    own = Command(home)
    own.add_system(TINY)
    pages = Pages(own)
    try:
        pages.wait()
        run = launch(pages)
        wait_for(lambda: has_started(pages, run), 240.0, "the run", 0.5)
        killed = kill_server(pages, victim)
    finally:
        pages.stop()
    done = own("refresh", "tiny_wells", CG_EXECUTOR="in_process", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"{victim}: finished {time.monotonic() - killed:.0f} s after the kill")
    store = ParquetStore(home)
    for path in (home / "data").rglob("part-0.parquet"):
        verify(path)
    assert store.path("tiny_wells", "comparison").is_file()
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        assert instance.get_run_by_id(run).is_finished
