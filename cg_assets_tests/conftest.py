"""Home folders, the command in a clean environment, and one finished home that tests may read."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

# Before torch is imported: what the tests run in this process shares the cores with the processes that they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from small_systems import SMALL_WELLS

import cg_assets

REPOSITORY = Path(cg_assets.__file__).parents[1]
KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "NUMBA_CACHE_DIR")
"""What the command sees of the tests' own environment."""


class Command:
    """`cg-assets` in its own processes, with a clean environment and a home folder."""

    def __init__(self, home: Path) -> None:
        self.home = Path(home)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of the command."""
        # What OpenBLAS is told changes the last digits: the same in all processes.
        kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("OPENBLAS_")}
        own = {"CG_ASSETS_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        return kept | own | {"CG_DEVICE": "cpu"} | more

    def line(self, *arguments: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "cg_assets.cli", *arguments]

    def __call__(self, *arguments: str, timeout: float = 300.0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        with self.start(*arguments, **more) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except BaseException:
                kill_group(process.pid)
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start the command as leader of its own process group."""
        folder = self.home.parent / "working directory"
        folder.mkdir(exist_ok=True)
        return subprocess.Popen(
            self.line(*arguments),
            env=self.environment(**more),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def add_system(self, text: str) -> Path:
        """Write a system's file into the home folder."""
        (name,) = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("name:")]
        path = self.home / "systems" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def group_members(group: int) -> list[int]:
    """Processes of a process group that are still running."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, process_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # it has just ended
        if int(process_group) == group and state != "Z":
            members.append(int(entry.name))
    return members


def kill_group(group: int) -> None:
    """SIGKILL a whole process group and wait until none of it runs."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_for(lambda: not group_members(group), 30.0, f"the end of process group {group}")


def wait_for(condition, timeout, what, interval=0.05):
    """What a condition gives as soon as it is true."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(interval)
    raise AssertionError(f"waited {timeout:g} s for {what}")


@pytest.fixture(autouse=True)
def no_store_of_another_test(monkeypatch):
    """MLflow sets this variable of the process whenever a store is opened, and no later test means that store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder for this process; Dagster's own settings are cleaned away."""
    folder = tmp_path / "home"
    (folder / "systems").mkdir(parents=True)
    monkeypatch.setenv("CG_ASSETS_HOME", str(folder))
    for name in ("DAGSTER_HOME", "CG_EXECUTOR", "CG_EXECUTOR_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CG_DEVICE", "cpu")
    return folder


@pytest.fixture
def command(home):
    """`cg-assets` on an empty home folder."""
    return Command(home)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A home folder in which `small_wells` has been run by the command; tests must not change it."""
    own = Command(tmp_path_factory.mktemp("finished") / "home")
    own.add_system(SMALL_WELLS)
    done = own("run", "small_wells")
    assert done.returncode == 0, done.stderr
    return own


@pytest.fixture
def copied(finished, home):
    """A copy of the finished home's data and systems, which a test may damage."""
    for part in ("data", "systems"):
        shutil.copytree(finished.home / part, home / part, dirs_exist_ok=True)
    return Command(home)
