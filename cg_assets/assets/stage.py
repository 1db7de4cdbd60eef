"""What every stage does alike: name its asset, say where its data came from, and report them in the Dagster UI."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from cg_assets.core.errors import StorageError
from cg_assets.storage.schemas import FileMetadata, variable_units
from cg_assets.systems import System

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.storage.store import ParquetStore

_FAILED = "failed_checks"
"""Key of a file's metadata: the names of its checks that failed."""


def asset_key(system: System, stage: str) -> dg.AssetKey:
    """The key `[system, stage]`."""
    return dg.AssetKey([system.name, stage])


def snapshot_stage(stage: str) -> str:
    """The stage of the few frames with all atoms of samples that leave the solvent out."""
    return f"{stage}_snapshots"


def provenance(
    context: dg.AssetExecutionContext,
    system: System,
    stage: str,
    code_version: str,
    upstream: dict[str, str] | None = None,
    seed: int | None = None,
    **extra: Any,
) -> FileMetadata:
    """Where a file comes from, for its metadata."""
    return FileMetadata(
        system=system.name,
        stage=stage,
        units=system.units,
        seed=seed,
        code_version=code_version,
        upstream_data_versions=upstream or {},
        dagster_run_id=context.run.run_id,
        variable_units=variable_units(system),
        extra={"specification": system.content_hash} | extra,
    )


def mark_failed(
    store: ParquetStore,
    frames: Frames | Iterable[Frames],
    metadata: FileMetadata,
    batch: str,
    results: Sequence[dg.AssetCheckResult],
) -> None:
    """Write into the file of a batch which of its blocking checks failed, so that later runs do not use it either."""
    blocking = [result for result in results if result.severity is dg.AssetCheckSeverity.ERROR]
    failed = [str(result.check_name) for result in blocking if not result.passed]
    if failed:
        store.write_frames(frames, replace(metadata, extra=metadata.extra | {_FAILED: failed}), batch)


def failed_checks(metadata: FileMetadata) -> list[str]:
    """Names of the checks that a batch failed."""
    return list(metadata.extra.get(_FAILED, []))


def failed_batches(store: ParquetStore, system: System, stage: str, batches: list[str]) -> dict[str, list[str]]:
    """Those of some batches of which checks failed, and which."""
    found = {batch: failed_checks(store.describe(system.name, stage, batch).metadata) for batch in batches}
    return {batch: checks for batch, checks in found.items() if checks}


def sound_batches(store: ParquetStore, system: System, stage: str, batches: list[str] | None = None) -> list[str]:
    """Those of some batches (None: all) whose checks passed.

    Raises:
        StorageError: there is none.
    """
    known = store.batches(system.name, stage) if batches is None else batches
    failed = failed_batches(store, system, stage, known)
    sound = [batch for batch in known if batch not in failed]
    if not sound:
        why = "; ".join(f"batch {batch} failed {', '.join(checks)}" for batch, checks in failed.items()) or "no data"
        raise StorageError(f"{system.name}/{stage}: nothing to go on with: {why}; sample with another plan or batch")
    return sound


def with_file(
    metadata: dict[str, Any], store: ParquetStore, system: System, stage: str, batch: str | None = None
) -> dict[str, Any]:
    """Asset metadata, followed by rows, place, columns with units and content hash of the finished file."""
    info = store.describe(system.name, stage, batch)
    columns = [
        dg.TableColumn(name=column["name"], type=column["type"], description=column["unit"] or "")
        for column in info.columns
    ]
    return metadata | {
        "dagster/row_count": info.rows,
        "dagster/uri": str(info.path),
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "content_hash": info.content_hash,
        "megabytes": round(info.bytes / 1e6, 3),
    }


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A figure that the Dagster UI shows beside the asset."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(rows: list[dict[str, Any]]) -> dg.MarkdownMetadataValue:
    """A small table that the Dagster UI shows beside the asset."""
    if not rows:
        return dg.MetadataValue.md("none")
    header = list(rows[0])
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(row[name]) for name in header) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def record_in_catalogue(store: ParquetStore, system: System, stage: str, batch: str | None = None) -> None:
    """Make a finished file visible in the DuckDB catalogue."""
    from cg_assets.storage.catalogue import record

    record(store.home, store.path(system.name, stage, batch))
