"""`comparison`: all label sources of a system in one table and one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cg_assets.assets.evaluations import read_reference
from cg_assets.assets.learning_curves import read_points
from cg_assets.assets.stage import Batches, Figure, Product, Read, Report, Stage, TableContent
from cg_assets.assets.work import Inputs, Work
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.evaluation.comparison import Comparison


def read_comparison(inputs: Inputs, system: SystemSpec) -> Comparison:
    """The materialised evaluations of all potentials of a system, side by side.

    Raises:
        StorageError: one of them is missing.
    """
    from cg_assets.evaluation.comparison import compare

    evaluations = {}
    for name in system.potentials:
        stage = f"evaluation_{name}"
        evaluations[name] = (inputs.table(stage), inputs.facts(stage)["drawn"])
    return compare(system, read_reference(inputs, system), evaluations)


def comparison_stage(system: SystemSpec) -> Stage:
    """The stage that puts the evaluations of all potentials side by side."""
    curves = list(system.potentials) if system.learning_curve else []
    read = [*(f"evaluation_{name}" for name in system.potentials), "reference"]
    read += [f"learning_curve_{name}" for name in curves]

    def make(work: Work) -> Product:
        result = read_comparison(work.inputs, system)
        points = [point for name in curves for point in read_points(work.inputs, name)]

        def report(_: object) -> Report:
            from cg_assets.evaluation.learning_curves import data_ratios
            from cg_assets.figures.stages import comparison_figure, learning_curves_figure

            shown: Report = {
                "figure": Figure(comparison_figure(system, result), "comparison of label sources"),
                "results": result.rows(),
            }
            if points:
                shown["learning_curves"] = Figure(learning_curves_figure(system, points), "learning curves")
                shown["data_for_equal_error"] = data_ratios(points)
            return shown

        return Product(TableContent(result.columns()), report=report)

    return Stage(
        name="comparison",
        description="The potentials of all label sources against the reference, in one table and one figure.",
        make=make,
        reads=tuple(Read(stage, Batches.NONE) for stage in read),
        kinds=frozenset({"parquet", "matplotlib"}),
    )
