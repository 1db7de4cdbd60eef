"""`comparison`: all label sources of a system in one table and one figure."""

from __future__ import annotations

import dagster as dg

from cg_assets.assets.stage import asset_key, describe_file, picture, provenance, record_in_catalogue, table
from cg_assets.resources import StoreResource
from cg_assets.systems import SystemSpec

CODE_VERSION = "1"


def build_comparison(system: SystemSpec) -> dg.AssetsDefinition:
    """The asset that puts the evaluations of all potentials side by side."""
    stage = "comparison"
    evaluations = [f"evaluation_{name}" for name in system.potentials]

    @dg.asset(
        key=asset_key(system, stage),
        deps=[asset_key(system, evaluation) for evaluation in evaluations],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"parquet", "matplotlib"},
        description="The potentials of all label sources against the reference, in one table and one figure.",
    )
    def comparison(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.analysis.comparison import compare
        from cg_assets.analysis.plots import comparison_figure

        files = store.open()
        result = compare(
            system,
            reference=files.read_table(system.name, "reference"),
            evaluations={
                name: (
                    files.read_table(system.name, f"evaluation_{name}"),
                    files.describe(system.name, f"evaluation_{name}").metadata.extra,
                )
                for name in system.potentials
            },
        )
        upstream = files.upstream(*(f"{system.name}/{evaluation}" for evaluation in evaluations))
        files.write_table(result.columns(), provenance(context, system, stage, CODE_VERSION, upstream=upstream))
        record_in_catalogue(files, system, stage)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=describe_file(files, system, stage)
            | {
                "results": table(result.rows()),
                "figure": picture(comparison_figure(system, result), "comparison of label sources"),
            },
        )

    return comparison
