"""SIGKILL at random moments: what was finished stays, what was not is made again, with equal content.

`CG_ASSETS_KILLS` is how often each process is killed (20 by default: an hour on two cores for all kills of steps, half
an hour for each server); one that has ended before its moment does not count. The last line of each test is one of the
table of docs/results/operations.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from functools import partial

import dagster as dg
import numpy as np
import pytest
from conftest import Command, kill_group, wait_for
from test_crashes import SAMPLE, TRAIN, folder_of, prepared, results, step_processes
from test_faults import has_started, kill_server, launch
from test_pages import Pages
from test_refresh import TINY

from cg_assets.orchestration.executors import GPU_POOL
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
        # The step of a killed run worker keeps running: it finishes its work, but nothing records it.
        wait_for(lambda: not step_processes(process.pid), 300.0, "the end of the step", interval=0.01)
    finally:
        kill_group(process.pid)
        process.wait()
    return killed


def kill_at_random(own, system, again, whole, longest, seed, remove, strike):
    """Make a system's results again and again, killing a process on the way, until that many kills happened.

    Args:
        own: the home.
        system: name of the system.
        again: arguments of the command that finishes what a kill interrupted.
        whole: what is made without kills (`made`).
        longest: latest moment of the first kill [s].
        seed: of the moments.
        remove: takes away what is to be made.
        strike: starts to make it and kills at a moment [s]; returns the time of the kill, None where all had ended.

    Returns:
        Seconds from each kill to the end of the recovery.
    """
    recoveries = []
    rng = np.random.default_rng(seed)
    while len(recoveries) < KILLS:
        remove()
        moment = rng.uniform(0.0, longest)
        killed = strike(moment)
        assert_nothing_lost(own, system, whole)
        done = own(*again, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        if killed is not None:
            recoveries.append(time.monotonic() - killed)
        longest *= 0.7 if killed is None else 1.1  # not so late the next time
        assert made(own, system) == whole
        print(f"{len(recoveries)}: {'ended before' if killed is None else 'killed after'} {moment:.2f} s", flush=True)
    assert_all_in_order(own)
    return recoveries


@pytest.mark.parametrize("victim", ["step", "run worker"])
@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_at_random_moments(tmp_path, kind, victim):
    own = prepared(tmp_path / "home")
    arguments, system, stage_name = COMMANDS[kind]
    stage = folder_of(own, system, stage_name)
    assert own(*arguments, timeout=900).returncode == 0
    whole = made(own, system)
    remove, strike = partial(shutil.rmtree, stage), partial(kill_at, own, arguments, stage, victim)
    recoveries = kill_at_random(own, system, arguments, whole, 1.0, 20261126, remove, strike)
    print(row(f"{kind} | {victim}", recoveries))


@pytest.mark.parametrize("victim", ["dagster._daemon", "mlflow"])
def test_servers_killed_at_random_moments(tmp_path, victim):
    """During a run launched from the page, from its first step to its last model."""
    own = Command(tmp_path / "home")
    own.add_system(TINY)
    again = ("run", "tiny_wells")
    assert own(*again, timeout=900).returncode == 0
    whole = made(own, "tiny_wells")

    def remove():
        for stage in (own.home / "data" / "tiny_wells").iterdir():
            if stage.name != "registered_models":
                shutil.rmtree(stage)

    def strike(moment):
        pages = Pages(own)
        try:
            pages.wait()
            run = launch(pages)
            wait_for(partial(has_started, pages, run), 240.0, "the run", 0.2)
            time.sleep(moment)
            return kill_server(pages, victim) if has_started(pages, run) else None
        finally:
            pages.stop()

    recoveries = kill_at_random(own, "tiny_wells", again, whole, 20.0, 20261127, remove, strike)
    print(row(f"all of a system | {victim}", recoveries))


def assert_nothing_lost(own, system, whole):
    """Files that stand under their own names are whole, and those that they always are."""
    for path in (own.home / "data").rglob("*.parquet"):
        if not is_temporary(path):
            verify(path)  # partial files have temporary names
    assert whole.items() >= made(own, system).items(), "a finished file is another"


def assert_all_in_order(own):
    """The catalogue agrees with the disk, no run hangs and no slot is taken."""
    assert differences(own.home) == []
    with dg.DagsterInstance.from_config(str(own.home / "dagster")) as instance:
        assert all(run.is_finished for run in instance.get_runs())
        for pool in instance.event_log_storage.get_concurrency_keys() | {GPU_POOL}:
            assert instance.event_log_storage.get_concurrency_info(pool).active_slot_count == 0


def row(what, recoveries):
    """A row of the table: how often, and recovery in seconds."""
    low, middle, high = np.quantile(recoveries, [0, 0.5, 1])
    return f"| {what} | {len(recoveries)} | {middle:.0f} s ({low:.0f}-{high:.0f}) |"
