"""`comparison`: all potentials of a system in one table and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cg_assets.assets.learning_curves import read_points
from cg_assets.assets.stage import Batches, Figure, Product, Read, Report, Stage, TableContent
from cg_assets.assets.work import Inputs, Work
from cg_assets.core.units import unit
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.evaluation.comparison import Comparison


FIRST = "potentials compared"
"""The figure that shows most of a system at one temperature."""
_ORDER = (FIRST, "melting", "errors", "", "accuracy and speed", "learning curves")
"""Names of figures by how much they show; the empty one is for all others."""


def kept_figures(inputs: Inputs, stage: str) -> list[Path]:
    """The figures of a stage that were kept as PNG files, those that show most first."""

    def place(path: Path) -> tuple[int, str]:
        name = path.stem.replace("_", " ")
        return _ORDER.index(name if name in _ORDER else ""), name

    return sorted(inputs.store.figure_folder(inputs.system.name, stage).glob("*.png"), key=place)


def read_comparison(inputs: Inputs, potentials: Iterable[str]) -> Comparison:
    """The materialised evaluations of potentials side by side.

    Raises:
        StorageError: one of them is missing.
    """
    from cg_assets.evaluation.comparison import Comparison
    from cg_assets.evaluation.evaluation import Evaluation

    stages = {name: f"evaluation_{name}" for name in potentials}
    facts = {name: inputs.facts(stage) for name, stage in stages.items()}
    return Comparison(
        {name: Evaluation.from_columns(inputs.table(stage)) for name, stage in stages.items()},
        {name: float(fact["replica_steps_per_second"]) for name, fact in facts.items()},
        next((float(fact["thermal_energy"]) for fact in facts.values()), math.nan),
    )


def comparison_stage(system: SystemSpec, curves: Sequence[str] = ()) -> Stage:
    """The stage that puts the evaluations of all potentials side by side.

    Args:
        system: the system.
        curves: potentials that have a learning curve.
    """
    read = [*(f"evaluation_{name}" for name in system.potentials), *(f"learning_curve_{name}" for name in curves)]

    def make(work: Work) -> Product:
        result = read_comparison(work.inputs, system.potentials)
        points = [point for name in curves for point in read_points(work.inputs, name)]

        def report(_: object) -> Report:
            from cg_assets.evaluation.learning_curves import data_ratios
            from cg_assets.figures.comparison import comparison_figures, learning_curves_figure

            figures = comparison_figures(result, system.title)
            names = {"figure": FIRST}
            shown: Report = {title: Figure(figure, names.get(title, title)) for title, figure in figures.items()}
            shown["results"] = result.rows()
            if points:
                figure = learning_curves_figure(points, unit("time", system.units), system.title)
                shown["learning_curves"] = Figure(figure, "learning curves")
                shown["data_for_equal_error"] = data_ratios(points)
            return shown

        return Product(TableContent(result.columns()), report=report)

    return Stage(
        name="comparison",
        description="All potentials against the reference, in one table and figures.",
        make=make,
        reads=tuple(Read(stage, Batches.NONE) for stage in read),
        kinds=frozenset({"parquet", "matplotlib"}),
        sections=(),
    )
