"""A run without a process is recognised, whatever the names of hosts and the numbers of processes."""

import os
import subprocess
import sys
import time

import dagster as dg
import pytest
from conftest import Command
from small_systems import SMALL_WELLS
from test_refresh import TINY

from cg_assets.cli import main
from cg_assets.core.errors import CgAssetsError
from cg_assets.core.processes import Process, started_at, this_process
from cg_assets.operations.home_folder import prepare_home
from cg_assets.orchestration.as_asset import build_assets
from cg_assets.orchestration.automation import build_jobs, build_schedules, job_name, register_first_batches
from cg_assets.orchestration.resources import build_resources
from cg_assets.orchestration.run_locks import PROCESS_TAG, _lock_of, dead_runs, end_run, holding
from cg_assets.settings import installation
from cg_assets.storage.atomic import acquire_lock, is_locked, lock_holder
from cg_assets.systems import load_system


@pytest.fixture
def instance(home):
    prepare_home()
    with dg.DagsterInstance.get() as opened:
        yield opened


def run_of(instance, system="small_wells", **tags):
    job = dg.define_asset_job(job_name(system), selection="*")
    definitions = dg.Definitions(assets=[dg.asset(key=[system, "trajectories"])(lambda: None)], jobs=[job])
    return instance.create_run_for_job(
        definitions.resolve_job_def(job_name(system)), status=dg.DagsterRunStatus.STARTED, tags=tags
    )


def left_by(run, process, age=0.0):
    """The file of the lock of a run that a process held until it was killed."""
    path = _lock_of(run.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(process))
    os.utime(path, (time.time() - age,) * 2)
    return path


def is_dead(instance, run):
    return run.run_id in {item.run_id for item in dead_runs(instance)}


HOLD = """
import sys, time
from cg_assets.orchestration.run_locks import held_run
with held_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_run_is_alive_while_its_process_is(instance):
    run = run_of(instance)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, run.run_id], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert not is_dead(instance, run)
        with pytest.raises(CgAssetsError, match=f"process {holder.pid} on .* executes it; end that first"):
            end_run(instance, run.run_id)
    finally:
        holder.kill()
        holder.wait()
    assert is_dead(instance, run)


def test_the_next_start_of_a_container_is_not_blocked(instance):
    """Its host has another name, and the number of the process is that of another one by now."""
    mine = this_process()
    run = run_of(instance, **{PROCESS_TAG: "old-container 1 77 boot pid:[1]"})
    path = left_by(run, Process("old-container", os.getpid(), "77", mine.boot, "pid:[1]"))
    assert is_dead(instance, run)
    lock = acquire_lock(path, 0.0, "as the run of a container that is alive")
    path.write_text(str(Process("other-container", 1, "99", mine.boot, "pid:[2]")))
    assert not is_dead(instance, run)
    os.close(lock)


def test_under_another_kernel_silence_decides(instance):
    run = run_of(instance)
    elsewhere = Process("far", 1, "99", "another-boot", "pid:[1]")
    left_by(run, elsewhere, age=60.0)
    assert not is_dead(instance, run), "its locks may not be seen here"
    left_by(run, elsewhere, age=400.0)
    assert is_dead(instance, run)


def test_a_lock_that_names_nobody_blocks_nothing_for_ever(instance):
    """As a power failure leaves it, in a container that has another name when it starts again."""
    run = run_of(instance, **{PROCESS_TAG: "old-container 1 77 boot pid:[1]"})
    left_by(run, "", age=60.0)
    assert not is_dead(instance, run)
    left_by(run, "", age=400.0)
    assert is_dead(instance, run)


def test_process_numbers_that_are_given_again(instance):
    mine = this_process()
    assert mine.start and Process.parse(str(mine)) == mine and not mine.is_gone
    earlier = Process(mine.host, mine.number, str(int(mine.start) - 1), mine.boot, mine.numbering)
    assert is_dead(instance, run_of(instance, **{PROCESS_TAG: str(earlier)}))
    assert not is_dead(instance, run_of(instance, **{PROCESS_TAG: str(mine)}))
    assert is_dead(instance, run_of(instance, **{PROCESS_TAG: str(Process(mine.host, 1, "1", "an-earlier-boot"))}))
    assert not is_dead(instance, run_of(instance, **{PROCESS_TAG: f"{mine.host}:{mine.number}"})), (
        "as it was once written"
    )
    assert abs(started_at(os.getpid()) - time.time()) < 3600


def test_a_run_is_ended_by_its_name(instance, home, capsys):
    run = run_of(instance, **{PROCESS_TAG: "far 1 99 boot pid:[1]"})
    assert main(["--home", str(home), "doctor", "--run", run.run_id]) == 1
    assert "add --repair" in capsys.readouterr().err
    with pytest.raises(CgAssetsError, match="there is no such run"):
        end_run(instance, "nothing")
    assert not is_dead(instance, run), "nobody here can know"
    assert main(["--home", str(home), "doctor", "--repair", "--run", run.run_id]) == 0
    assert f"run {run.run_id} is ended" in capsys.readouterr().err
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
    with pytest.raises(CgAssetsError, match="it has ended"):
        end_run(instance, run.run_id)


@dg.op
def looks(context: dg.OpExecutionContext):
    assert is_locked(_lock_of(context.run_id))
    assert lock_holder(_lock_of(context.run_id)) == this_process()


@dg.job(executor_def=holding(dg.in_process_executor).configured({"retries": {"disabled": {}}}))
def looking():
    looks()


def test_the_lock_is_held_while_a_run_is_executed(instance):
    result = dg.execute_job(dg.reconstructable(looking), instance=instance)
    assert result.success
    assert not list((installation().home / "locks" / "runs").iterdir())


def test_a_dead_run_does_not_stop_the_schedule(instance, home):
    (home / "systems" / "tiny_wells.yaml").write_text(TINY)
    system = load_system("tiny_wells")
    register_first_batches(instance, {system.name: system})
    run = run_of(instance, "tiny_wells")
    (schedule,) = build_schedules({system.name: system})
    definitions = dg.Definitions(
        assets=build_assets({system.name: system}),
        jobs=build_jobs({system.name: system}),
        resources=build_resources(home),
    )

    def ticked():
        with dg.build_schedule_context(instance=instance, repository_def=definitions.get_repository_def()) as context:
            return schedule.evaluate_tick(context)

    assert "already running" in ticked().skip_message
    left_by(run, Process("old-container", 1, "77", this_process().boot, "pid:[1]"))
    assert ticked().run_requests
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE


def test_a_refresh_names_the_process_that_runs_the_system(home, instance):
    Command(home).add_system(SMALL_WELLS)
    run = run_of(instance, **{PROCESS_TAG: "far 7 99 boot pid:[1]"})
    from cg_assets.operations.runs import refresh_system

    with pytest.raises(
        CgAssetsError, match=rf"run {run.run_id} in process 7 on far\).*doctor --repair --run {run.run_id}"
    ):
        refresh_system("small_wells")
