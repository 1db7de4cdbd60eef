"""Which runs still have a process: each holds a lock of its own while it is executed.

The kernel frees the lock when the process ends, however it ends, so that neither a host name (a container has another
one at each start) nor a process number that was given again matters. Where a lock was taken under another kernel, its
file system may not show it here: then the run is dead when its holder no longer touches the file.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from cg_assets.core.errors import CgAssetsError
from cg_assets.core.processes import Process, started_at
from cg_assets.orchestration.automation import ACTIVE
from cg_assets.settings import installation
from cg_assets.storage.atomic import file_lock, is_locked, lock_holder

PROCESS_TAG = "cg_assets/process"
_BEAT_SECONDS, _SILENT_SECONDS = 20.0, 300.0
_LAUNCH_SECONDS = 30.0
"""Time from the start of a process to the lock of its run."""


def _lock_of(run_id: str) -> Path:
    return installation().home / "locks" / "runs" / f"{run_id}.lock"


@contextmanager
def held_run(run_id: str) -> Iterator[None]:
    """Hold the lock of a run, and touch it, until the block ends."""
    path, ended = _lock_of(run_id), threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            with suppress(FileNotFoundError):  # the run was ended from outside
                os.utime(path)

    with file_lock(path, _BEAT_SECONDS, f"run {run_id}", stays=False):
        thread = threading.Thread(target=beat, name=f"beat of run {run_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Held(dg.Executor):
    """An executor that holds the lock of the run meanwhile."""

    def __init__(self, inner: dg.Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> Any:
        return self._inner.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        with held_run(plan_context.run_id):
            yield from self._inner.execute(plan_context, execution_plan)


def holding(definition: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    """The same executor, whose runs hold their locks."""

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        make: Any = definition.executor_creation_fn
        return _Held(make(context))

    schema: Any = definition.config_schema
    return dg.ExecutorDefinition(
        name=definition.name,
        config_schema=schema,
        requirements=definition.get_requirements,
        executor_creation_fn=create,
    )


def dead_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs that have not ended and whose process is gone, wherever it was."""
    return [run for run in instance.get_runs(dg.RunsFilter(statuses=ACTIVE)) if _is_dead(instance, run)]


def _is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    path = _lock_of(run.run_id)
    holder = lock_holder(path)
    if not path.exists():
        return _was_never_executed(instance, run)
    if is_locked(path):
        return False
    # A file that names nobody was cut short by a power failure.
    return (holder is not None and holder.shares_kernel) or _silence(path) > _SILENT_SECONDS


def _silence(path: Path) -> float:
    """How long a file was not touched [s], by the clock of its file system; 0 for one that is gone by now."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent) as made:
            now = os.fstat(made.fileno()).st_mtime
    except OSError:  # a read-only copy
        now = time.time()
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _was_never_executed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the process that was to execute a run ended before it took the lock.

    A run that the daemon launches here has a process of its own, whose number is in its first events.
    """
    if PROCESS_TAG in run.tags or not isinstance(instance.run_launcher, dg.DefaultRunLauncher):
        process = Process.parse(run.tags.get(PROCESS_TAG, ""))
        return process is not None and process.is_gone
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        pid = entry.dagster_event.engine_event_data.metadata.get("pid") if entry.dagster_event else None
        if pid is not None and time.time() - entry.timestamp > _LAUNCH_SECONDS:
            started = started_at(int(str(pid.value)))
            return started is None or started > entry.timestamp + 2.0  # a later process was given the same number
    return False


def end_dead_runs(instance: dg.DagsterInstance) -> int:
    """Mark runs whose process is gone as failed and free the pool slots they held.

    Returns:
        Number of runs that were ended.
    """
    dead = dead_runs(instance)
    for run in dead:
        _end(instance, run, "the process that executed this run is gone")
    return len(dead)


def end_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """End one run that has no process any more, where that cannot be seen from here.

    Raises:
        CgAssetsError: there is no such run, it has ended, or its process is at work.
    """
    run, path = instance.get_run_by_id(run_id), _lock_of(run_id)
    if run is None or run.status not in ACTIVE:
        why = "there is no such run" if run is None else f"it has ended ({run.status.value})"
        raise CgAssetsError(f"--run {run_id}: {why}; cg-assets doctor names those that are active")
    if is_locked(path):
        raise CgAssetsError(f"--run {run_id}: {place_of(run)} executes it; end that first")
    _end(instance, run, "ended by cg-assets doctor --repair --run")


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    instance.report_run_failed(run, reason)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    _lock_of(run.run_id).unlink(missing_ok=True)


def place_of(run: dg.DagsterRun) -> str:
    """Where a run is executed, as far as that is known."""
    process = lock_holder(_lock_of(run.run_id)) or Process.parse(run.tags.get(PROCESS_TAG, ""))
    return "an unknown process" if process is None else process.name
