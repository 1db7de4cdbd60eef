"""The one place where a stage becomes a Dagster asset."""

import base64
import warnings
from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any

import dagster as dg

from cg_assets.assets import stages_of
from cg_assets.assets.stage import Figure, Stage
from cg_assets.assets.work import Done, Work, carry_out
from cg_assets.core.checks import Check, Verdict
from cg_assets.core.errors import CgAssetsError
from cg_assets.orchestration.automation import batches_of, freshness_of, when_data_changed
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.executors import GPU_POOL, gpu_op_tags
from cg_assets.orchestration.resources import DeviceResource, StoreResource, TrackingResource
from cg_assets.orchestration.served_files import address, figure_link
from cg_assets.settings import installation
from cg_assets.systems import SystemSpec

# The pages do not need the previewed part of it: the batch of each verdict is enough.
warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", dg.PreviewWarning)


def build_assets(systems: Mapping[str, SystemSpec]) -> list[dg.AssetsDefinition]:
    """The graph of every system, as its specification asks."""
    return [as_asset(stage, system) for system in systems.values() for stage in stages_of(system)]


def as_asset(stage: Stage, system: SystemSpec) -> dg.AssetsDefinition:
    """The asset `[system, stage]`, which carries the stage out for one batch."""
    key = dg.AssetKey([system.name, stage.name])
    partitions = batches_of(system.name) if stage.batched else None

    @dg.asset(
        key=key,
        deps=[dg.AssetKey([system.name, read.stage]) for read in stage.reads],
        group_name=system.name,
        partitions_def=partitions,
        code_version=stage.code_version,
        freshness_policy=freshness_of(system) if stage.raw else None,
        # Derived assets are re-materialised automatically when the sensor is on.
        automation_condition=when_data_changed() if stage.reads else None,
        kinds=set(stage.kinds),
        pool=GPU_POOL if stage.gpu else None,
        op_tags=gpu_op_tags() if stage.gpu else None,
        description=stage.description,
        check_specs=[_check_spec(key, check, partitions) for check in stage.checks],
    )
    def asset(
        context: dg.AssetExecutionContext, store: StoreResource, tracking: TrackingResource, device: DeviceResource
    ) -> dg.MaterializeResult:
        work = Work(
            stage=stage,
            system=system,
            store=store.open(),
            batch=_batch_of(context, key) if stage.batched else None,
            run_id=context.run.run_id,
            log=context.log,
            progress=log_progress(context.log.info),
            open_tracking=tracking.open,
            lease=device.lease,
        )
        done = carry_out(work)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(done.version),
            metadata=_metadata(done, work),
            check_results=[_check_result(verdict) for verdict in done.verdicts],
        )

    return asset


def _batch_of(context: dg.AssetExecutionContext, key: dg.AssetKey) -> str:
    """The batch that a run works on.

    Raises:
        CgAssetsError: it was launched without one, or with several at once.
    """
    if not context.has_partition_key:
        raise CgAssetsError(
            f"{key.to_user_string()}: this run was launched without a batch; choose one partition where you "
            f"materialise it, or use cg-assets run {key.path[0]} --batch NAME"
        )
    return context.partition_key


def _check_spec(key: dg.AssetKey, check: Check, partitions: dg.PartitionsDefinition | None) -> dg.AssetCheckSpec:
    """A check of a stage with batches has them too: a batch that passes does not hide another that failed."""
    return dg.AssetCheckSpec(
        check.name, asset=key, description=check.description, blocking=check.blocking, partitions_def=partitions
    )


def _check_result(verdict: Verdict) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.WARN if verdict.check.warns else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        check_name=verdict.check.name,
        passed=verdict.passed,
        severity=severity,
        metadata={name: _rounded(value) for name, value in verdict.plain_facts.items()},
        description=verdict.message,
    )


def _rounded(value: Any) -> Any:
    """A number with the digits that a reader can use."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _metadata(done: Done, work: Work) -> dict[str, dg.MetadataValue]:
    """The report, followed by rows, place, columns with units and content hash of the file."""
    info = done.info
    columns = [
        dg.TableColumn(
            name=column["name"],
            type=column["type"],
            description=column["description"] + (f" [{column['unit']}]" if column["unit"] else ""),
        )
        for column in info.columns
    ]
    return {name: _shown(value, work) for name, value in done.report.items()} | {
        "dagster/row_count": info.rows,
        "dagster/uri": str(info.path),
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "content_hash": info.content_hash,
        "megabytes": round(info.bytes / 1e6, 3),
    }


@singledispatch
def _shown(value: Any, work: Work) -> Any:
    """A value of a report as Dagster's pages show it."""
    return value


@_shown.register
def _(value: Figure, work: Work) -> dg.MarkdownMetadataValue:
    """A link to the figure that was kept: pages show at once what is short. Other machines get the figure itself."""
    if installation().object_store:
        return dg.MetadataValue.md(f"![{value.title}](data:image/png;base64,{base64.b64encode(value.png).decode()})")
    about = f"{value.title}: cg-assets ui shows it until it is made again"
    return figure_link(about, "figures", work.system.name, work.stage.name, value.file, content=value.png)


@_shown.register
def _(value: Path, work: Work) -> dg.UrlMetadataValue:
    return dg.MetadataValue.url(address(*value.relative_to(work.store.home).parts))


@_shown.register
def _(value: list, work: Work) -> dg.MarkdownMetadataValue:
    if not value:
        return dg.MetadataValue.md("none")
    header = list(value[0])
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_unbroken(str(row[name])) for name in header) + " |" for row in value]
    return dg.MetadataValue.md("\n".join(lines))


def _unbroken(text: str, longest: int = 28) -> str:
    """A number with its error and unit stays on one line."""
    is_number = text.lstrip("-≤")[:1].isdigit()
    return text.replace(" ", "\u00a0") if is_number and len(text) <= longest else text
