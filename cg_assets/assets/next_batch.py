"""`next_batch_plan_<plan>`: where the next batch of an adaptive plan should be sampled."""

from typing import TYPE_CHECKING

import dagster as dg

from cg_assets.assets.stage import asset_key, failed_batches, picture, provenance, record_in_catalogue, table, with_file
from cg_assets.orchestration.resources import StoreResource
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.storage.store import ParquetStore

CODE_VERSION = "1"


def _stage_of(section: str) -> str:
    return f"next_batch_plan_{section.rpartition('.')[2]}"


def proposed_centers(
    files: "ParquetStore", system: SystemSpec, section: str
) -> tuple[list[dict[str, float]] | None, dict[str, str]]:
    """The window centres that were proposed last for a plan, and the data version of the proposal.

    None and nothing before the first proposal. The samples read it without depending on it in the graph, for it
    depends on the samples of the batches before.
    """
    stage = _stage_of(section)
    if not files.file(system.name, stage).is_file():
        return None, {}
    centers = files.describe(system.name, stage).metadata.extra["centers"]
    return centers, files.upstream(f"{system.name}/{stage}")


def build_next_batch_plan(system: SystemSpec, labels: str) -> dg.AssetsDefinition:
    """The asset that proposes windows from all force labels of a system."""
    _, section = system.sampling.by_labels()[labels]
    stage = _stage_of(section)
    plan = system.plan_of(labels)
    sources = list(system.sampling.by_labels())

    @dg.asset(
        key=asset_key(system, stage),
        deps=[asset_key(system, source) for source in sources],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"parquet", "numpy"},
        description="Umbrella windows for the next batch, placed where the error of the mean force is largest.",
    )
    def next_batch_plan(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.assets.simulations import pooled_frames
        from cg_assets.figures.stages import next_batch_figure
        from cg_assets.labels.next_batch import propose

        files = store.open()
        keys, batches = [], []
        for source in sources:
            known = files.batches(system.name, source)
            failed = failed_batches(files, system, source, known)
            if mine := [f"{system.name}/{source}/{batch}" for batch in known if batch not in failed]:
                batches.append(pooled_frames(files, system, mine))
                keys += mine
        proposal = propose(system, plan, batches)
        metadata = provenance(
            context, system, stage, CODE_VERSION, upstream=files.upstream(*keys), centers=proposal.points()
        )
        files.write_table(proposal.columns(), metadata)
        record_in_catalogue(files, system, stage)
        rows = [{name: f"{value:.3f}" for name, value in point.items()} for point in proposal.points()]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=with_file(
                {"figure": picture(next_batch_figure(system, proposal), "next batch"), "windows": table(rows)},
                files,
                system,
                stage,
            ),
        )

    return next_batch_plan
