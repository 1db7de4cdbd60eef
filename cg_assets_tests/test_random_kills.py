"""SIGKILL at random moments of a step: what was finished stays, what was not is made again, with equal content.

`CG_ASSETS_KILLS` is how often each process is killed (20 by default: half an hour on two cores). The table at the end
of each test is that of docs/operations.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import time

import dagster as dg
import numpy as np
import pytest
from conftest import kill_group, wait_for
from test_crashes import SAMPLE, TRAIN, folder_of, prepared, results, step_processes

from cg_assets.executors import GPU_POOL
from cg_assets.storage.atomic import is_temporary
from cg_assets.storage.catalogue import differences
from cg_assets.storage.parquet import verify

KILLS = int(os.environ.get("CG_ASSETS_KILLS", "20"))
COMMANDS = {
    "sampling": (SAMPLE, "many_frames", "trajectories"),
    "training": (TRAIN, "long_training", "potential_unbiased"),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def made(own, system):
    """What is equal however often it is made: a model that is trained again is registered again."""
    return {name: version for name, version in results(own, system).items() if "/registered_models/" not in name}


def has_begun(stage):
    """Whether a step has left its first trace on the disk."""
    return any(stage.glob(".pieces-*/*")) or any(stage.glob(".checkpoint-*.pt"))


def kill_at(own, arguments, stage, victim, moment):
    """Run a command and kill a process of it, a moment after the first trace of its step [s].

    Returns:
        The time of the kill; None where the step had ended before.
    """
    process = own.start(*arguments)
    killed = None
    try:
        wait_for(lambda: has_begun(stage) or process.poll() is not None, 300.0, "the step", interval=0.002)
        end = time.monotonic() + moment
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.001)
        steps = step_processes(process.pid)
        if process.poll() is None and steps:
            os.kill(steps[0] if victim == "step" else process.pid, signal.SIGKILL)
            killed = time.monotonic()
        process.communicate(timeout=300)
        # The step of a run worker that was killed goes on: it finishes its work, and nobody hears of it.
        wait_for(lambda: not step_processes(process.pid), 300.0, "the end of the step", interval=0.01)
    finally:
        kill_group(process.pid)
        process.wait()
    return killed


@pytest.mark.parametrize("victim", ["step", "run worker"])
@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_at_random_moments(tmp_path, kind, victim):
    own = prepared(tmp_path / "home")
    arguments, system, stage_name = COMMANDS[kind]
    stage = folder_of(own, system, stage_name)
    assert own(*arguments, timeout=900).returncode == 0
    whole = made(own, system)
    longest, recoveries = 1.0, []
    rng = np.random.default_rng(20261126)
    for number in range(KILLS):
        shutil.rmtree(stage)
        moment = rng.uniform(0.0, longest)
        killed = kill_at(own, arguments, stage, victim, moment)
        for path in (own.home / "data").rglob("*.parquet"):
            if not is_temporary(path):
                verify(path)  # partial files have temporary names
        assert whole.items() >= made(own, system).items(), "a finished file is another"
        if killed is None:
            longest *= 0.7  # not so late the next time
        else:
            longest *= 1.1
            done = own(*arguments, timeout=900)
            assert done.returncode == 0, done.stderr
            recoveries.append(time.monotonic() - killed)
        assert made(own, system) == whole
        print(f"{kind}, {victim} {number + 1}: {f'after {moment:.2f} s' if killed else 'ended before'}", flush=True)
    assert differences(own.home) == []
    with dg.DagsterInstance.from_config(str(own.home / "dagster")) as instance:
        assert all(run.is_finished for run in instance.get_runs())
        for pool in instance.event_log_storage.get_concurrency_keys() | {GPU_POOL}:
            assert instance.event_log_storage.get_concurrency_info(pool).active_slot_count == 0
    low, middle, high = np.quantile(recoveries, [0, 0.5, 1]) if recoveries else [np.nan] * 3
    print(f"| {kind} | {victim} | {len(recoveries)} of {KILLS} | nothing | {middle:.0f} s ({low:.0f}-{high:.0f}) |")
