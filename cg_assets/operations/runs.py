"""Materialise the assets of a system from the command line."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import IntEnum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from cg_assets import __version__
from cg_assets.assets import stages_of
from cg_assets.assets.soundness import Failures, Soundness, explained, key_of
from cg_assets.core.errors import CgAssetsError, StorageError
from cg_assets.core.processes import this_process
from cg_assets.operations.home_folder import prepare_home
from cg_assets.orchestration.automation import (
    FIRST_BATCH,
    REFRESH_TAG,
    active_runs,
    batches_of,
    job_name,
    makes_data,
    register_first_batches,
    used_batches,
)
from cg_assets.orchestration.build import build_definitions
from cg_assets.orchestration.console import failure_of, log_progress, was_interrupted
from cg_assets.orchestration.device import count_gpus
from cg_assets.orchestration.executors import GPU_POOL, build_executor
from cg_assets.orchestration.refresh import Part, RefreshPlan, known_models, plan_refresh, plan_run
from cg_assets.orchestration.run_locks import PROCESS_TAG, end_dead_runs, place_of
from cg_assets.registry.reconciliation import record_versions
from cg_assets.settings import installation
from cg_assets.storage.atomic import file_lock
from cg_assets.storage.catalogue import fetched
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import SystemSpec, load_system, seed_of
from cg_assets.systems.base import validate_batch_name

if TYPE_CHECKING:
    from cg_assets.core.progress import Progress
    from cg_assets.core.statistics.estimates import Estimate


class Outcome(IntEnum):
    """How runs ended; the value is the exit status of the command."""

    SOUND = 0
    """Every step succeeded and every check passed, warnings aside."""
    FAILED = 1
    """A step or a blocking check failed."""
    DOUBTFUL = 3
    """Every step succeeded, but a check that blocks nothing failed."""

    @classmethod
    def of(cls, result: dg.JobExecutionResult, assets: Iterable[dg.AssetKey] | None = None) -> Outcome:
        """How a run ended, or that part of it which makes some assets."""
        events, succeeded = result.all_events, result.success
        if assets is not None:
            steps = {"__".join(key.path) for key in assets}
            events = [event for event in events if event.step_key in steps]
            succeeded = {event.step_key for event in events if event.is_step_success} == steps
        if not succeeded:
            return cls.FAILED
        checks = [event for event in events if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION]
        verdicts = [event.asset_check_evaluation_data for event in checks]
        failed = [item for item in verdicts if not item.passed and item.severity is dg.AssetCheckSeverity.ERROR]
        return cls.DOUBTFUL if failed else cls.SOUND


_COMMAND_TAG = "cg_assets/command"
_SEVERAL = "several_systems"
"""Name of the job of several systems."""


@cache
def systems_job(names: str, content_hashes: str, home: str) -> dg.JobDefinition:
    """The job of one system or of several (`names` with commas), made again in the processes that execute its steps.

    It is another job for another content of a system's file or other values of `--set` (`content_hashes`), and for
    another home folder, to which its resources belong.
    """
    systems = {name: load_system(name) for name in names.split(",")}
    definitions = build_definitions(systems)
    if len(systems) == 1:
        return definitions.resolve_job_def(job_name(names))
    # The only job of Dagster whose assets have partitions of several kinds; its own name is reserved.
    return definitions.resolve_implicit_global_asset_job_def()._copy(name=_SEVERAL)


def arguments_of_job(systems: Sequence[SystemSpec]) -> dict[str, str]:
    """The arguments of `systems_job`."""
    return {
        "names": ",".join(system.name for system in systems),
        "content_hashes": ",".join(system.content_hash for system in systems),
        "home": str(installation().home),
    }


def run_system(name: str, batch: str | None = None, stages: list[str] | None = None, force: bool = False) -> Outcome:
    """Run a system's job for one batch in this process and those of its executor.

    Stages whose data are up to date are not made again, unless they are asked for.

    Args:
        name: the system.
        batch: the batch to sample; the first where None.
        stages: these stages, up to date or not, without those that an interrupted or failed run of the same command
            has finished; where None, all that are not up to date.
        force: make all of them, without those that an interrupted or failed run of the same command has finished.

    Raises:
        CgAssetsError: the system, a stage or the batch name is wrong; nothing has been run.
    """
    system = load_system(name)
    selection = checked_selection(system, stages)
    batch = checked_batch(FIRST_BATCH if batch is None else batch)
    with _ready(system) as instance:
        instance.add_dynamic_partitions(_partitions(name), [batch])
        command = f"{__version__}/{system.content_hash}/{','.join(sorted(stages or []))}{' --force' if force else ''}"
        if stages is None and not force:
            needed = to_be_made(fetched(installation().home), system, batch)
            if not needed:
                return _nothing_to_do(system, batch)
            selection = checked_selection(system, [part.stage for part in needed])
            _print_needed(system, batch, needed)
        else:
            finished = finished_before(instance, system, batch, command)
            remaining = [key for key in selection if key not in finished]
            if finished and remaining:
                print(f"resuming the last run: {len(finished)} of {len(selection)} stages are finished")
            selection = remaining or selection
        print(f"{name}, batch {batch}: {len(selection)} stage(s) to make in {installation().home}", flush=True)
        outcome = Outcome.of(_execute(instance, [system], batch, selection, {_COMMAND_TAG: command}))
        return _with_verdict(outcome, system, batch, stages, selection)


def run_systems(names: Sequence[str]) -> dict[str, Outcome]:
    """Make what is not up to date in the first batch of several systems, in one run.

    Steps of one system use the cores that another one leaves idle; a system that fails stops no other.

    Raises:
        CgAssetsError: a system is wrong; nothing has been run.
    """
    systems = [load_system(name) for name in names]
    outcomes: dict[str, Outcome] = {}
    chosen: dict[str, list[dg.AssetKey]] = {}
    with _ready(*systems) as instance:
        for system in systems:
            instance.add_dynamic_partitions(_partitions(system.name), [FIRST_BATCH])
            if needed := to_be_made(fetched(installation().home), system, FIRST_BATCH):
                chosen[system.name] = checked_selection(system, [part.stage for part in needed])
                _print_needed(system, FIRST_BATCH, needed)
                print(f"{system.name}, batch {FIRST_BATCH}: {len(needed)} stage(s) to make", flush=True)
            else:
                outcomes[system.name] = _nothing_to_do(system, FIRST_BATCH)
        made = [system for system in systems if system.name in chosen]
        if made:
            every = [key for part in chosen.values() for key in part]
            result = _execute(instance, made, FIRST_BATCH, every, {})
            for system in made:
                part = chosen[system.name]
                outcomes[system.name] = _with_verdict(Outcome.of(result, part), system, FIRST_BATCH, None, part)
    return outcomes


def _with_verdict(
    outcome: Outcome, system: SystemSpec, batch: str, stages: list[str] | None, made: Iterable[dg.AssetKey]
) -> Outcome:
    """How a run of some stages (None: of all) ended, with the checks of those that it did not make."""
    if outcome is Outcome.FAILED:
        return outcome
    verdict = _verdict(system, batch, stages, made={key.path[-1] for key in made})
    return verdict if verdict is Outcome.FAILED else max(outcome, verdict)


def to_be_made(store: ParquetStore, system: SystemSpec, batch: str) -> dict[Part, str]:
    """What a run for a batch makes, and why. Errors as in `known_models`."""
    return plan_run(store, system, batch, known_models(store, system))


def _print_needed(system: SystemSpec, batch: str, needed: Mapping[Part, str]) -> None:
    """How many stages need not or cannot be made, and why the others are, unless all are."""
    soundness, stages = Soundness(ParquetStore(installation().home), system), stages_of(system)
    made = {part.stage for part in needed}
    others = [stage for stage in stages if stage.name not in made]
    sound = sum(_is_sound(soundness, stage.name, batch if stage.batched else None) for stage in others)
    if others:
        blocked = f", {len(others) - sound} cannot be made" if len(others) > sound else ""
        print(f"{sound} of {len(stages)} stages are up to date{blocked}")
        print_reasons(needed)


def _nothing_to_do(system: SystemSpec, batch: str) -> Outcome:
    """Report that a batch and what is made of it are there, and how their checks ended."""
    outcome = _verdict(system, batch)
    state = "has nothing to be made" if outcome is Outcome.FAILED else "is up to date"
    print(f"{system.name} {state}; `{_forced(system, batch)}` makes batch {batch} and what follows from it again")
    return outcome


def _forced(system: SystemSpec, batch: str) -> str:
    """The command that makes a batch again."""
    return f"cg-assets run {system.name}{'' if batch == FIRST_BATCH else f' --batch {batch}'} --force"


def _verdict(system: SystemSpec, batch: str, stages: list[str] | None = None, made: Container[str] = ()) -> Outcome:
    """How the checks of some stages (None: of all) ended; print the failures, without those of stages just made."""
    soundness = Soundness(ParquetStore(installation().home), system)
    failures: Failures = {}
    blocking: Failures = {}
    absent = []
    for stage in stages_of(system):
        if stages is not None and stage.name not in stages:
            continue
        part = (stage.name, batch if stage.batched else None)
        try:
            failures |= soundness.failures(*part)
            blocking |= soundness.faults(*part)
        except StorageError:
            absent.append(key_of(system, *part))
    if unsaid := {key: checks for key, checks in failures.items() if key.split("/")[1] not in made}:
        print(f"cg-assets: {explained(unsaid)}", file=sys.stderr)
    if absent:
        remedy = f"`{_forced(system, batch)}` makes it again, or name another --batch"
        print(f"cg-assets: missing, pruned or damaged: {', '.join(absent)}; {remedy}", file=sys.stderr)
    return Outcome.FAILED if blocking or absent else Outcome.DOUBTFUL if failures else Outcome.SOUND


def print_reasons(planned: Mapping[Part, str]) -> None:
    """A line for each part that is made for a reason of its own."""
    for part, reason in planned.items():
        if reason:
            print(f"{part.stage}{f' of batch {part.batch}' if part.batch else ''}: {reason}")


def refresh_system(name: str, batch: str | None = None) -> Outcome:
    """Add a batch of data and rebuild what depends on it; print what is done and which models became champions.

    An interrupted refresh is finished first, and no other batch is added.

    Args:
        name: the system.
        batch: name of the batch; by default the one after the last.

    Raises:
        CgAssetsError: the system or the batch name is wrong, or the system is being run or refreshed already.
    """
    system = load_system(name)
    if batch is not None:
        batch = checked_batch(batch)
    lock = installation().home / "locks" / f"refresh-{name}.lock"
    with _ready(system) as instance, file_lock(lock, 0.0, f"the refresh of {name}"):
        if running := active_runs(instance, name):
            active = instance.get_run_by_id(running[0])
            where = "" if active is None else f" in {place_of(active)}"
            raise CgAssetsError(
                f"{name} is already running (Dagster run {running[0]}{where}); wait for it or end it; if that process "
                f"has ended: cg-assets doctor --repair --run {running[0]}"
            )
        there, store = instance.get_dynamic_partitions(_partitions(name)), fetched(installation().home)
        models = known_models(store, system)
        record_versions(store, models.values())
        plan = plan_refresh(store, system, there, batch, models, used_batches(instance, system))
        for note in notes_of(plan, name):
            print(note)
        print_reasons(plan.reasons)
        if plan.added:
            instance.add_dynamic_partitions(_partitions(name), [plan.added])
        if not plan.runs and not plan.failed:
            print(f"{name} is up to date")
        outcome = Outcome.FAILED if plan.failed else Outcome.SOUND
        for run in plan.runs:
            keys = [dg.AssetKey([name, stage]) for stage in run.stages]
            result = _execute(instance, [system], run.batch, keys, {REFRESH_TAG: "command"})
            _print_champions(result)
            outcome = max(outcome, Outcome.of(result))
            if not result.success:
                return Outcome.FAILED
        return outcome


def notes_of(plan: RefreshPlan, name: str) -> list[str]:
    """Why a refresh adds no batch, and which batches it leaves out."""
    notes = [f"no batch is added: {plan.note}"] if plan.note else []
    for part, change in plan.left_out.items():
        remedy = f"cg-assets refresh {name} --batch {part.batch} samples it again"
        notes.append(f"{part.stage} of batch {part.batch} is left out: {change}; {remedy}")
    return notes


def _print_champions(result: dg.JobExecutionResult) -> None:
    for event in result.get_asset_materialization_events():
        facts = event.materialization.metadata
        if "decision" in facts:
            verdict = "is champion" if facts["champion"].value else "is not champion"
            print(f"{facts['registered_model'].value} {verdict}: {facts['decision'].value}")


def checked_batch(batch: str) -> str:
    """The name of a batch that the command line gives.

    Raises:
        CgAssetsError: it cannot stand in a path.
    """
    try:
        return validate_batch_name(batch)
    except ValueError as error:
        raise CgAssetsError(f"--batch: {error}") from None


def _partitions(name: str) -> str:
    return str(batches_of(name).name)


@contextmanager
def _ready(*systems: SystemSpec) -> Iterator[dg.DagsterInstance]:
    """Check everything that can be checked before a run, clean up after dead runs, and open the instance."""
    build_executor()
    installation().check()
    for system in systems:
        system.check()
    ParquetStore(prepare_home()).remove_leftovers()
    with dg.DagsterInstance.get() as instance:
        end_dead_runs(instance)
        register_first_batches(instance, {system.name: system for system in systems})
        yield instance


def _execute(
    instance: dg.DagsterInstance,
    systems: Sequence[SystemSpec],
    batch: str | None,
    selection: list[dg.AssetKey],
    tags: dict[str, str],
) -> dg.JobExecutionResult:
    """Run some assets of systems for one batch, and print why steps failed."""
    stages = [(system.name, stage) for system in systems for stage in stages_of(system)]
    if any(stage.gpu for name, stage in stages if dg.AssetKey([name, stage.name]) in selection):
        set_gpu_slots(instance)  # which imports torch
    wanted = arguments_of_job(systems)
    if not gc.isenabled():  # see `start_ahead`; a notebook's is left alone
        gc.freeze()
        gc.enable()
    job = dg.build_reconstructable_job("cg_assets.operations.runs", "systems_job", reconstructable_kwargs=wanted)
    partition = {} if batch is None else {"dagster/partition": batch}
    result = dg.execute_job(
        job,
        instance=instance,
        run_config={"loggers": {"console": {}}},
        tags={PROCESS_TAG: str(this_process()), **partition, **tags},
        asset_selection=selection,
    )
    if any(map(was_interrupted, result.all_events)):
        raise KeyboardInterrupt
    # At the end: the output of a step reaches the terminal through another process, which can be late.
    for event in result.all_events:
        if failure := failure_of(event):
            print(f"cg-assets: {failure}", file=sys.stderr)
    return result


def checked_selection(system: SystemSpec, stages: list[str] | None) -> list[dg.AssetKey]:
    """The assets of some stages, or of all.

    Raises:
        CgAssetsError: the system has no such stage.
    """
    known = sorted(stage.name for stage in stages_of(system))
    if unknown := sorted(set(stages or []) - set(known)):
        raise CgAssetsError(f"--select names {', '.join(unknown)}; the stages of {system.name} are {', '.join(known)}")
    return [dg.AssetKey([system.name, stage]) for stage in stages or known]


def finished_before(instance: dg.DagsterInstance, system: SystemSpec, batch: str, command: str) -> set[dg.AssetKey]:
    """Assets, sound and of unchanged inputs, of the runs of the same command since a run of the batch succeeded."""
    soundness = Soundness(ParquetStore(installation().home), system)
    finished: set[dg.AssetKey] = set()
    jobs = (job_name(system.name), _SEVERAL)
    of_batch = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": batch}))
    for run in (run for run in of_batch if run.job_name in jobs and makes_data(run, system.name)):
        if run.status == dg.DagsterRunStatus.SUCCESS:
            break
        several, same = run.job_name == _SEVERAL, run.tags.get(_COMMAND_TAG) == command
        if not (several or same):
            continue
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
        planned, made = (
            {event.asset_key for event in events if event.event_type_value == kind and _is_of(event, system)}
            for kind in ("ASSET_MATERIALIZATION_PLANNED", "ASSET_MATERIALIZATION")
        )
        if several and planned and planned <= made:  # it failed for another system
            break
        if same:
            finished |= {key for key in made if key is not None}
    return {key for key in finished if any(_is_sound(soundness, key.path[-1], part) for part in (batch, None))}


def _is_of(event: dg.DagsterEvent, system: SystemSpec) -> bool:
    return event.asset_key is not None and event.asset_key.path[0] == system.name


def _is_sound(soundness: Soundness, stage: str, batch: str | None) -> bool:
    """Whether a file is there and may be read: a check that only warns, or blocks nothing, calls for no second try."""
    try:
        return not soundness.why_not(stage, batch)
    except StorageError:
        return False


def set_gpu_slots(instance: dg.DagsterInstance) -> None:
    """One slot of the GPU pool for each GPU; without one, a slot for each core."""
    instance.event_log_storage.set_concurrency_slots(GPU_POOL, count_gpus() or os.cpu_count() or 1)


def make_reference(name: str, file: Path) -> None:
    """Run the long reference of a molecule and write its table. Errors as in `System.run_reference`."""
    from cg_assets.evaluation.long_runs import write_reference

    system = load_system(name)
    folder = installation().home / "reference" / name
    with _progress_bar() as report:
        write_reference(file, system.run_reference(seed_of(name, "reference", FIRST_BATCH), folder, report))


def find_box(name: str) -> Estimate:
    """Edge of the box of a solvated molecule at atmospheric pressure [nm]. Errors as in `System.measure_box`.

    An interrupted run resumes from its last picosecond.
    """
    system, home = load_system(name), installation().home
    folder, lock = home / "box" / system.name, home / "locks" / f"box-{system.name}.lock"
    with file_lock(lock, 0.0, f"the search for the box of {system.name}", stays=False), _progress_bar() as report:
        return system.measure_box(seed_of(system.name, "box", FIRST_BATCH), report, folder)


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    """Progress of long work on standard error: a bar on a terminal, else a line at most each minute."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        yield log_progress(partial(print, file=sys.stderr, flush=True), interval=60.0)
        return

    with ExitStack() as stack:
        bars: list[tqdm] = []

        def report(done: int, total: int, counted: str) -> None:
            if not bars:
                bars.append(stack.enter_context(tqdm(file=sys.stderr)))
            (bar,) = bars
            bar.total, bar.n, bar.unit = total, done, f" {counted}"
            bar.refresh()

        yield report
