"""Batches, jobs and schedules of a system."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import dagster as dg

from cg_assets.assets import stages_of
from cg_assets.assets.report import OVERVIEW
from cg_assets.assets.stage import Figure
from cg_assets.orchestration.served_files import address, figure_link
from cg_assets.systems import System, SystemSpec

FIRST_BATCH = "0000"


REFRESH_TAG = "cg_assets/refresh"
"""Tag of the runs of a refresh: what started it."""
ACTIVE = [
    *(dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING),
    *(dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING),
]
"""States of runs that have not ended."""


def batches_of(system: str) -> dg.DynamicPartitionsDefinition:
    """The partitions of a system: one batch of sampled frames each."""
    return dg.DynamicPartitionsDefinition(name=f"{system}_batches")


def job_name(system: str) -> str:
    """Name of the job that materialises all assets of a system."""
    return f"{system}_job"


def build_jobs(systems: Mapping[str, System]) -> list[dg.UnresolvedAssetJobDefinition]:
    """One job per system, which materialises its whole graph for one batch; its page shows the report of the system.

    Groups of assets have neither description nor metadata, jobs have both.
    """
    return [
        dg.define_asset_job(
            job_name(name),
            selection=dg.AssetSelection.groups(name),
            description=f"Sample one batch of {system.title} and bring everything that depends on it up to date.",
            metadata={
                "report": dg.MetadataValue.url(address("reports", f"{name}.html")),
                "figure": figure_link("no results yet", "figures", name, "report", Figure(b"", OVERVIEW).file),
            },
        )
        for name, system in systems.items()
    ]


def makes_data(run: dg.DagsterRun, system: str) -> bool:
    """Whether a run makes data of a system: one of its job, of several systems, or by a click on its assets."""
    return run.job_name == job_name(system) or any(key.path[0] == system for key in run.asset_selection or ())


def active_runs(instance: dg.DagsterInstance, system: str) -> list[str]:
    """Ids of the unfinished runs that make data of a system."""
    return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=ACTIVE)) if makes_data(run, system)]


def used_batches(instance: dg.DagsterInstance, system: SystemSpec) -> set[str]:
    """Batches that were ever made: Dagster takes one that was deleted and is added again for made."""
    return {
        batch
        for stage in stages_of(system)
        if stage.batched and not stage.reads
        for batch in instance.get_materialized_partitions(dg.AssetKey([system.name, stage.name]))
    }


def freshness_of(system: System) -> dg.FreshnessPolicy:
    """When the pages show data as stale: the newest batch is older than the system allows."""
    age = timedelta(days=system.refresh.max_age)
    return dg.FreshnessPolicy.time_window(fail_window=age, warn_window=age / 2)


def when_data_changed() -> dg.AutomationCondition:
    """Re-materialise what was made from data whose content has changed; `eager()` would also react to equal content."""
    condition = dg.AutomationCondition
    changed = condition.any_deps_match(condition.data_version_changed())
    handled = condition.newly_requested() | condition.newly_updated()
    waiting = condition.any_deps_missing() | condition.any_deps_in_progress() | condition.in_progress()
    return changed.since(handled) & ~waiting


def build_schedules(systems: Mapping[str, SystemSpec]) -> list[dg.ScheduleDefinition]:
    """One schedule per system, off by default, that does what `cg-assets refresh` does."""
    return [_schedule(system) for system in systems.values()]


def _schedule(system: SystemSpec) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{system.name}_refresh",
        cron_schedule=system.refresh.schedule,
        job_name=job_name(system.name),
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Add a batch and rebuild what depends on it; finish an unfinished batch first.",
    )
    def refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        from cg_assets.orchestration.refresh import known_models, plan_refresh
        from cg_assets.orchestration.run_locks import end_dead_runs
        from cg_assets.settings import installation
        from cg_assets.storage.catalogue import fetched

        end_dead_runs(context.instance)
        if running := active_runs(context.instance, system.name):
            return dg.SkipReason(f"{system.name} is already running (run {running[0]})")
        partitions = str(batches_of(system.name).name)
        store, there = fetched(installation().home), context.instance.get_dynamic_partitions(partitions)
        used = used_batches(context.instance, system)
        plan = plan_refresh(store, system, there, models=known_models(store, system), used=used)
        if not plan.runs:
            return dg.SkipReason(plan.note or f"{system.name} is up to date")
        if plan.added:
            context.instance.add_dynamic_partitions(partitions, [plan.added])
        # What needs a further run, such as labels of other batches by a retrained kernel, is left to the next tick.
        run = plan.runs[0]
        return dg.RunRequest(
            partition_key=run.batch,
            asset_selection=[dg.AssetKey([system.name, stage]) for stage in run.stages],
            tags={REFRESH_TAG: "schedule"},
        )

    return refresh


def build_sensors(systems: Mapping[str, System]) -> list[dg.AutomationConditionSensorDefinition]:
    """One sensor per system, off by default: re-materialises what depends on changed data, whatever changed them."""
    return [
        dg.AutomationConditionSensorDefinition(
            f"{name}_changed_data",
            target=dg.AssetSelection.groups(name),
            default_status=dg.DefaultSensorStatus.STOPPED,
            description="Re-materialise, stage by stage, what was made from data that have since changed.",
            run_tags={REFRESH_TAG: "sensor"},
        )
        for name in systems
    ]


def register_first_batches(instance: dg.DagsterInstance, systems: Mapping[str, System]) -> None:
    """Give every system its first batch, so that a first click on "materialise" has a batch to work on.

    On a new home folder several processes do this at the same time.
    """
    from sqlalchemy.exc import IntegrityError

    for name in systems:
        partitions = batches_of(name).name
        if partitions and not instance.get_dynamic_partitions(partitions):
            try:
                instance.add_dynamic_partitions(partitions, [FIRST_BATCH])
            except IntegrityError:  # another process was faster
                if not instance.get_dynamic_partitions(partitions):
                    raise
