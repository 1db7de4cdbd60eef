"""`comparison`: all label sources of a system in one table and one figure."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from cg_assets.assets.evaluations import read_reference
from cg_assets.assets.learning_curves import read_points
from cg_assets.assets.stage import asset_key, picture, provenance, record_in_catalogue, table, with_file
from cg_assets.orchestration.resources import StoreResource
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.evaluation.comparison import Comparison
    from cg_assets.storage.store import ParquetStore

CODE_VERSION = "1"


def read_comparison(store: "ParquetStore", system: SystemSpec) -> "Comparison":
    """The materialised evaluations of all potentials of a system, side by side.

    Raises:
        StorageError: one of them is missing.
    """
    from cg_assets.evaluation.comparison import compare
    from cg_assets.storage.parquet import read_arrays

    evaluations = {}
    for name in system.potentials:
        stage = f"evaluation_{name}"
        drawn = store.describe(system.name, stage).metadata.extra["drawn"]
        evaluations[name] = (read_arrays(store.file(system.name, stage)), drawn)
    return compare(system, read_reference(store, system), evaluations)


def build_comparison(system: SystemSpec) -> dg.AssetsDefinition:
    """The asset that puts the evaluations of all potentials side by side."""
    stage = "comparison"
    inputs = [*(f"evaluation_{name}" for name in system.potentials), "reference"]
    curves = [f"learning_curve_{name}" for name in system.potentials] if system.learning_curve else []
    inputs += curves

    @dg.asset(
        key=asset_key(system, stage),
        deps=[asset_key(system, source) for source in inputs],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"parquet", "matplotlib"},
        description="The potentials of all label sources against the reference, in one table and one figure.",
    )
    def comparison(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.evaluation.learning_curves import data_ratios
        from cg_assets.figures.stages import comparison_figure, learning_curves_figure

        files = store.open()
        result = read_comparison(files, system)
        upstream = files.upstream(*(f"{system.name}/{source}" for source in inputs))
        files.write_table(result.columns(), provenance(context, system, stage, CODE_VERSION, upstream=upstream))
        record_in_catalogue(files, system, stage)
        learned: dict[str, Any] = {}
        if curves:
            points = [point for name in system.potentials for point in read_points(files, system, name)]
            learned["learning_curves"] = picture(learning_curves_figure(system, points), "learning curves")
            learned["data_for_equal_error"] = table(data_ratios(points))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=with_file(
                {
                    "figure": picture(comparison_figure(system, result), "comparison of label sources"),
                    "results": table(result.rows()),
                }
                | learned,
                files,
                system,
                stage,
            ),
        )

    return comparison
