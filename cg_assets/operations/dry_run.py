"""`--dry-run`: what a command would make, and what it would cost, without making anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg

from cg_assets.assets import stages_of
from cg_assets.core.settings import Built
from cg_assets.operations.home_folder import prepare_home
from cg_assets.operations.runs import checked_selection, to_be_made
from cg_assets.operations.tables import Table, table
from cg_assets.orchestration.automation import FIRST_BATCH, batches_of, used_batches
from cg_assets.orchestration.refresh import Part, known_models, plan_refresh
from cg_assets.sampling.plan_cost import PlanCost, duration
from cg_assets.settings import installation
from cg_assets.storage.catalogue import fetched
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import SystemSpec, load_system

COLUMNS = ("system", "stage", "batch", "reason", "seconds", "megabytes", "known from")


def planned_runs(
    names: list[str], batch: str | None = None, stages: list[str] | None = None, force: bool = False
) -> Table:
    """What `run` would make of each system, with time and disk. Errors as in `run_system`."""
    rows: list[Row] = []
    with _records() as instance:
        for name in names:
            system = load_system(name)
            built, wanted = system.check(), batch or FIRST_BATCH
            everything = {Part(stage.name, wanted if stage.batched else None): "" for stage in stages_of(system)}
            if stages is not None:
                chosen = {key.path[-1] for key in checked_selection(system, stages)}
                planned = {part: "asked for" for part in everything if part.stage in chosen}
            else:
                planned = dict.fromkeys(everything, "asked for") if force else to_be_made(system, wanted)
            rows += _rows(system, built, planned, instance)
    return _table(rows, [])


def planned_refresh(name: str, batch: str | None) -> Table:
    """What `refresh` would make of a system, with time and disk. Errors as in `refresh_system`."""
    system = load_system(name)
    built, store = system.check(), fetched(installation().home)
    with _records() as instance:
        there = [] if instance is None else instance.get_dynamic_partitions(str(batches_of(name).name))
        used = set() if instance is None else used_batches(instance, system)
        plan = plan_refresh(store, system, there, batch, known_models(store, system), used)
        batched = {stage.name for stage in stages_of(system) if stage.batched}
        places = [(stage, run.batch if stage in batched else None) for run in plan.runs for stage in run.stages]
        parts = [Part(*place) for place in places]
        rows = list(_rows(system, built, {part: plan.reasons.get(part, "") for part in parts}, instance))
    return _table(rows, [f"no batch is added: {plan.note}"] if plan.note else [])


Row = tuple[str, str, str, str, float | None, float | None, str]


@contextmanager
def _records() -> Iterator[dg.DagsterInstance | None]:
    """Dagster's records of earlier runs; None in a home folder that has none yet, which stays as it is."""
    if not (installation().home / "dagster" / "dagster.yaml").is_file():
        yield None
        return
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        yield instance


def _rows(
    system: SystemSpec, built: Built, planned: Mapping[Part, str], instance: dg.DagsterInstance | None
) -> Iterator[Row]:
    costs = _plans(system, built)
    store = ParquetStore(installation().home)
    for part, reason in planned.items():
        earlier = None if instance is None else _earlier(instance, store, system, part.stage)
        changed = "changed" in reason  # the last run had other settings
        seconds: float | None
        megabytes: float | None
        if part.stage in costs and (earlier is None or changed):
            cost = costs[part.stage]
            seconds, megabytes, source = cost.seconds, cost.megabytes, "its steps, by measured rates"
        elif earlier is not None:
            seconds, megabytes, source = earlier
            source += ", with other settings" if changed else ""
        else:
            seconds, megabytes, source = None, None, "not known before it was run once"
        yield system.name, part.stage, part.batch or "", reason or "follows", seconds, megabytes, source


def _plans(system: SystemSpec, built: Built) -> dict[str, PlanCost]:
    """Stage to the cost of the plan that it samples."""
    sampling = system.sampling
    found = {item.samples: item.plan.cost(built) for item in sampling.by_labels().values()}
    return found | ({} if sampling.conditional is None else {"conditional_samples": sampling.conditional.cost(built)})


def _earlier(
    instance: dg.DagsterInstance, store: ParquetStore, system: SystemSpec, stage: str
) -> tuple[float, float | None, str] | None:
    """Seconds and megabytes of the last time that a stage was made, and when; None where it never was."""
    event = instance.get_latest_materialization_event(dg.AssetKey([system.name, stage]))
    if event is None or event.step_key is None:
        return None
    steps = instance.get_run_step_stats(event.run_id, [event.step_key])
    times = [(step.start_time, step.end_time) for step in steps]
    if not times or None in times[0]:
        return None
    start, end = times[0]
    sizes = [path.stat().st_size / 1e6 for path in store.stage_folder(system.name, stage).rglob("part-0.parquet")]
    when = f"run of {datetime.fromtimestamp(event.timestamp, UTC):%Y-%m-%d}"
    return (end or 0.0) - (start or 0.0), max(sizes, default=None), when


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
    total = f"in all {least}{duration(seconds)} of one core or GPU and {least}{megabytes:.2g} MB"
    total += f"; {unknown} stage(s) of unknown cost" if unknown else ""
    header = ("system", "stage", "batch", "reason", "time", "disk", "known from")
    return Table(COLUMNS, rows, "\n".join([*notes, table(header, shown), total]))
