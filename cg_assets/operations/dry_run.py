"""`--dry-run`: what a command would make, and what it would cost, without making anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import dagster as dg

from cg_assets.assets import stages_of
from cg_assets.assets.soundness import RECIPE, Soundness
from cg_assets.core.errors import StorageError
from cg_assets.core.settings import Built
from cg_assets.operations.home_folder import prepare_home, readable_home
from cg_assets.operations.runs import Outcome, checked_batch, checked_selection, notes_of, to_be_made
from cg_assets.operations.tables import Table, table
from cg_assets.orchestration.automation import FIRST_BATCH, batches_of, used_batches
from cg_assets.orchestration.refresh import Part, known_models, plan_refresh
from cg_assets.sampling.plan_cost import PlanCost, duration
from cg_assets.settings import OBJECT_STORE, installation, set_variables
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import SystemSpec, load_system

COLUMNS = ("system", "stage", "batch", "reason", "seconds", "megabytes", "known from")


def planned_runs(
    names: list[str], batch: str | None = None, stages: list[str] | None = None, force: bool = False
) -> Table:
    """What `run` would make of each system, with time and disk. Errors as in `run_system`."""
    rows: list[Row] = []
    wanted = FIRST_BATCH if batch is None else checked_batch(batch)
    with _records() as (store, instance, notes):
        for name in names:
            system = load_system(name)
            built = system.check()
            everything = {Part(stage.name, wanted if stage.batched else None): "" for stage in stages_of(system)}
            if stages is not None:
                chosen = {key.path[-1] for key in checked_selection(system, stages)}
                planned = {part: "asked for" for part in everything if part.stage in chosen}
            else:
                planned = dict.fromkeys(everything, "asked for") if force else to_be_made(store, system, wanted)
            rows += _rows(system, built, planned, store, instance)
    return _table(rows, notes)


def planned_refresh(name: str, batch: str | None) -> Table:
    """What `refresh` would make of a system, with time and disk. Errors as in `refresh_system`."""
    add = None if batch is None else checked_batch(batch)
    with _records() as (store, instance, notes):
        system = load_system(name)
        built = system.check()
        there = [] if instance is None else instance.get_dynamic_partitions(str(batches_of(name).name))
        used = set() if instance is None else used_batches(instance, system)
        plan = plan_refresh(store, system, there, add, known_models(store, system), used)
        batched = {stage.name for stage in stages_of(system) if stage.batched}
        places = [(stage, run.batch if stage in batched else None) for run in plan.runs for stage in run.stages]
        parts = [Part(*place) for place in places]
        rows = list(_rows(system, built, {part: plan.reasons.get(part, "") for part in parts}, store, instance))
    found = _table(rows, [*notes, *notes_of(plan, name)])
    return replace(found, status=Outcome.FAILED) if plan.failed else found


Row = tuple[str, str, str, str, float | None, float | None, str]


@contextmanager
def _records() -> Iterator[tuple[ParquetStore, dg.DagsterInstance | None, list[str]]]:
    """The data and Dagster's records of earlier runs, of a home folder that stays as it is, and notes on them.

    There are no records (None) in a folder where nothing ran. An object store is not asked: that fetches and uploads.
    """
    address = installation().object_store
    notes = ["what only the object store has counts as not made: a dry run fetches nothing"] if address else []
    if address:
        set_variables({OBJECT_STORE: ""})
    try:
        with readable_home() as home:
            if not (home / "dagster" / "dagster.yaml").is_file():
                yield ParquetStore(home), None, notes
                return
            prepare_home()
            with dg.DagsterInstance.get() as instance:
                yield ParquetStore(home), instance, notes
    finally:
        if address:
            set_variables({OBJECT_STORE: address})


def _rows(
    system: SystemSpec,
    built: Built,
    planned: Mapping[Part, str],
    store: ParquetStore,
    instance: dg.DagsterInstance | None,
) -> Iterator[Row]:
    """A row for each part; of a stage whose last run had other settings only sampling has a time, by its plan."""
    costs, soundness = _plans(system, built), Soundness(store, system)
    for part, reason in planned.items():
        earlier = None if instance is None else _earlier(instance, soundness, part.stage)
        seconds: float | None = None
        megabytes: float | None = None
        if earlier is not None and earlier.alike:
            seconds, megabytes, source = earlier.seconds, earlier.megabytes, f"wall time of the {earlier.when}"
        elif part.stage in costs:
            cost = costs[part.stage]
            seconds, megabytes, source = cost.seconds, cost.megabytes, "its steps, by measured rates"
        elif earlier is not None:
            source = f"not known; {duration(earlier.seconds)} in the {earlier.when}, with other settings or code"
        else:
            source = "not known before it was run once"
        yield system.name, part.stage, part.batch or "", reason or "follows", seconds, megabytes, source


def _plans(system: SystemSpec, built: Built) -> dict[str, PlanCost]:
    """Stage to the cost of the plan that it samples."""
    sampling = system.sampling
    found = {item.samples: item.plan.cost(built) for item in sampling.by_labels().values()}
    return found | ({} if sampling.conditional is None else {"conditional_samples": sampling.conditional.cost(built)})


class _Earlier(NamedTuple):
    """The last time that a stage was made: wall time, size of its file [MB], date, and whether by the same recipe."""

    seconds: float
    megabytes: float | None
    when: str
    alike: bool


def _earlier(instance: dg.DagsterInstance, soundness: Soundness, stage: str) -> _Earlier | None:
    """The last time that a stage was made; None where it never was."""
    event = instance.get_latest_materialization_event(dg.AssetKey([soundness.system.name, stage]))
    if event is None or event.step_key is None or event.asset_materialization is None:
        return None
    steps = instance.get_run_step_stats(event.run_id, [event.step_key])
    times = [(step.start_time, step.end_time) for step in steps]
    if not times or None in times[0]:
        return None
    start, end = times[0]
    recipes, batch = soundness.recipes, event.asset_materialization.partition
    batch = batch if recipes.stages[stage].batched else None
    megabytes, alike = None, False
    with suppress(StorageError):  # a file that is gone or damaged: what it was made by is not known
        info = soundness.info(stage, batch)
        megabytes = info.path.stat().st_size / 1e6
        alike = info.metadata.extra.get(RECIPE) == recipes.of(recipes.stages[stage])
    when = f"run of {datetime.fromtimestamp(event.timestamp, UTC):%Y-%m-%d}"
    return _Earlier((end or 0.0) - (start or 0.0), megabytes, when, alike)


def _table(rows: list[Row], notes: list[str]) -> Table:
    """The parts with a line for all of them."""
    shown = [
        (*row[:4], "?" if row[4] is None else duration(row[4]), "?" if row[5] is None else f"{row[5]:.2g} MB", row[6])
        for row in rows
    ]
    if not rows:
        return Table(COLUMNS, rows, "\n".join([*notes, "nothing is to be made"]))
    seconds, megabytes = sum(row[4] or 0.0 for row in rows), sum(row[5] or 0.0 for row in rows)
    unknown = sum(row[4] is None for row in rows)
    least = "at least " if unknown else ""
    total = f"in all {least}{duration(seconds)}, one stage after the other, and {least}{megabytes:.2g} MB"
    total += f"; {unknown} stage(s) of unknown cost" if unknown else ""
    header = ("system", "stage", "batch", "reason", "time", "disk", "known from")
    return Table(COLUMNS, rows, "\n".join([*notes, table(header, shown), total]))
