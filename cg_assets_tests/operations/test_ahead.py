"""A command that runs systems can be stopped, however it was started."""

import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from importlib.util import find_spec
from multiprocessing import forkserver

import pytest
import sqlalchemy
from dagster._utils.interrupts import capture_interrupts

from cg_assets.operations import built_ahead
from cg_assets.operations.ahead import start_ahead
from cg_assets.operations.runs import arguments_of_job, systems_job
from cg_assets.orchestration.preload import modules_of
from cg_assets.systems import load_system


@pytest.fixture
def in_the_background():
    """A shell starts a command in the background with SIGINT ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("in_the_background")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_kill_ends_a_command_between_runs(number, tmp_path, monkeypatch):
    """After a run Dagster gives SIGTERM the handler of SIGINT."""
    for name, value in {"CG_ASSETS_HOME": str(tmp_path), "CG_EXECUTOR": "in_process", "DAGSTER_HOME": ""}.items():
        monkeypatch.setenv(name, value)
    start_ahead([])
    with capture_interrupts():  # as during a run
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
        time.sleep(5)


@pytest.mark.usefixtures("in_the_background")
def test_steps_of_a_run_have_a_thread_each(home, monkeypatch):
    """What they fork from is started before the home is prepared."""
    seen = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: seen.append(os.environ.get("OMP_NUM_THREADS")))
    start_ahead(["muller_brown"])
    assert seen == ["1"]


@pytest.mark.parametrize("names", [["muller_brown"], ["muller_brown", "melting_wells"]])
def test_steps_find_the_job_of_their_systems_built(home, monkeypatch, names):
    monkeypatch.setenv("CG_ASSETS_AHEAD", json.dumps({"systems": names, "stages": None}))
    importlib.reload(built_ahead)
    before = systems_job.cache_info()
    job = systems_job(**arguments_of_job([load_system(name) for name in names]))
    assert systems_job.cache_info().hits == before.hits + 1
    assert {key.path[0] for key in job.asset_layer.executable_asset_keys} == set(names)


@pytest.mark.parametrize("ahead", ["", '{"systems": ["no_such_system"], "stages": null}'])
def test_what_steps_fork_from_leaves_faults_to_the_command(home, monkeypatch, ahead):
    monkeypatch.setenv("CG_ASSETS_AHEAD", ahead)
    importlib.reload(built_ahead)


class InterruptedConnection(sqlite3.Connection):
    """A signal comes while it is closed."""

    def close(self):
        super().close()
        raise KeyboardInterrupt


@pytest.mark.usefixtures("in_the_background")
def test_a_signal_while_a_database_is_closed_logs_nothing(tmp_path, monkeypatch, caplog):
    for name, value in {"CG_ASSETS_HOME": str(tmp_path), "CG_EXECUTOR": "in_process", "DAGSTER_HOME": ""}.items():
        monkeypatch.setenv(name, value)
    start_ahead([])
    engine = sqlalchemy.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(":memory:", factory=InterruptedConnection),
        poolclass=sqlalchemy.NullPool,
    )
    with pytest.raises(KeyboardInterrupt), engine.connect():
        pass
    assert caplog.records == []


def test_what_steps_need_is_there():
    """The process that steps fork from passes over modules that it cannot find."""
    names = modules_of()
    assert names[0] == "cg_assets.orchestration.step_server", "it must come first: it leaves Ctrl-C to the run"
    assert [name for name in names if find_spec(name) is None] == []
    assert "torch._dynamo" not in modules_of(["numba", "parquet"])


def test_what_steps_fork_from_has_made_numba_ready():
    """Each step would spend 0.3 s on it: kernels are declared, and next to none is left to declare."""
    program = """
import sys
from importlib import import_module
from cg_assets.orchestration.preload import modules_of
for name in modules_of(["numba"]):
    import_module(name)
before = set(sys.modules)
from cg_assets.sampling.model_potential.sampler import ModelPotentialSampler
from numba.core.registry import cpu_target
declared = len(cpu_target.target_context._defns)
cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()
assert declared > 0.95 * len(cpu_target.target_context._defns) > 0
assert not {name for name in set(sys.modules) - before if name.startswith("numba")}
"""
    subprocess.run([sys.executable, "-c", program], check=True)
