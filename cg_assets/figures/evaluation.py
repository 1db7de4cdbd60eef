"""Figures of evaluations, of their comparison and of learning curves, drawn from quantities and profiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch

import numpy as np

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.comparison import Comparison
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.evaluation.free_energies import LineDrawing, SurfacesDrawing
from cg_assets.evaluation.learning_curves import Axis, LearningPoint, mean_curve
from cg_assets.evaluation.metrics.bonds import MAX_BOND_DIVERGENCE, BondsDrawing
from cg_assets.evaluation.quantity import Drawing, Profile
from cg_assets.figures import plots
from cg_assets.figures.plot_style import Curve
from cg_assets.figures.plots_response import accuracy_against_speed_plot, temperature_figures

_MOST_BARS = 4


def evaluation_figures(potential: str, evaluation: Evaluation, title: str) -> dict[str, bytes]:
    """The figures of an evaluation by name.

    Args:
        potential: name of the potential.
        evaluation: what was measured of it.
        title: of the system.
    """
    figures: dict[str, bytes] = {}
    for drawing in evaluation.drawings:
        figures |= draw(drawing, f"{title}: potential {potential}")
    return figures | (temperature_figures({potential: evaluation}, title) if evaluation.temperatures else {})


@singledispatch
def draw(drawing: Drawing, title: str) -> dict[str, bytes]:
    """The figures of a drawing by name.

    Raises:
        TypeError: no figure of such drawings is known.
    """
    raise TypeError(f"no figure of {type(drawing).__name__} is known; register one with `draw.register`")


@draw.register
def _line(drawing: LineDrawing, title: str) -> dict[str, bytes]:
    pmf, labels = drawing.pmf, drawing.labels
    figure = plots.pmf_plot(
        Curve("exact", pmf.grid, pmf.reference),
        [
            Curve("model", pmf.grid, pmf.values, pmf.standard_error),
            Curve("binned labels", labels.grid, labels.pmf, labels.standard_error),
        ],
        variable=pmf.where,
        variable_unit=pmf.coordinate_unit,
        energy_unit=pmf.unit,
        interval=drawing.interval,
        samples={"training frames": drawing.samples},
        title=title,
    )
    return {"PMF": figure}


@draw.register
def _surfaces(drawing: SurfacesDrawing, title: str) -> dict[str, bytes]:
    names, units, figures = drawing.variables, drawing.variable_units, {}
    if drawing.maps:
        figures[drawing.maps] = plots.free_energy_maps(
            drawing.surfaces,
            variables=(names[0], names[1]),
            variable_units=(units[0], units[1]),
            reference="reference",
            title=title,
        )
    if drawing.marginals:
        figures[drawing.marginals] = plots.marginals_plot(
            drawing.surfaces, variables=names, variable_units=units, reference="reference", title=title
        )
    return figures


@draw.register
def _bonds(drawing: BondsDrawing, title: str) -> dict[str, bytes]:
    figure = plots.bond_length_plot(drawing.monitor, drawing.bead_names, tolerated=MAX_BOND_DIVERGENCE, title=title)
    return {"bonds": figure}


def comparison_figures(comparison: Comparison, title: str) -> dict[str, bytes]:
    """All potentials of a system side by side, by name of the figure.

    Args:
        comparison: their evaluations.
        title: of the system.
    """
    evaluations = comparison.evaluations
    first = next(iter(evaluations.values()))
    figures = (
        temperature_figures(evaluations, title) if first.temperatures else {"figure": _side_by_side(comparison, title)}
    )
    decisive = {name: item.decisive[0] for name, item in evaluations.items() if item.decisive}
    if len(decisive) == len(comparison.speeds) > 0:
        label, errors = next(iter(decisive.values())), {name: item.value for name, item in decisive.items()}
        axis = f"{label.label} [{label.value.unit}]" if label.value.unit else label.label
        figures["accuracy and speed"] = accuracy_against_speed_plot(comparison.speeds, errors, axis, title=title)
    return figures


def _side_by_side(comparison: Comparison, title: str) -> bytes:
    """Profiles of all potentials, and the headlines as bars."""
    evaluations = comparison.evaluations
    first = next(iter(evaluations.values()))
    bars: dict[str, dict[str, Estimate]] = {}
    known: dict[str, Estimate] = {}
    for potential, evaluation in evaluations.items():
        for item in evaluation.quantities:
            if item.headline and (item.label in bars or len(bars) < _MOST_BARS):
                bars.setdefault(item.label, {})[potential] = item.value
                if item.reference is not None:
                    known[item.label] = item.reference
    lines: dict[str, list[Curve]] = {}
    exact: dict[str, Curve] = {}
    for potential, evaluation in evaluations.items():
        for profile in evaluation.profiles:
            label = f"{profile.where} [{profile.coordinate_unit}]"
            lines.setdefault(label, []).append(_curve(potential, profile.grid, profile.values, profile.standard_error))
            name = "reference" if np.any(profile.reference_error) else "exact"
            exact[label] = _curve(name, profile.grid, profile.reference, profile.reference_error)
    pmf = next((profile for profile in first.profiles if profile.name == "pmf"), None)
    limited = math.isfinite(comparison.thermal_energy)
    highest = plots.HIGHEST * comparison.thermal_energy if limited else None
    if pmf is not None:
        highest = 1.3 * float(np.ptp(pmf.reference))
    return plots.comparison_plot(
        bars,
        references=known,
        curves=lines,
        reference_curves=exact,
        energy_unit=next((profile.unit for profile in first.profiles), ""),
        interval=None if pmf is None else _interval(pmf),
        title=title,
        highest=highest,
    )


def _curve(label: str, grid: np.ndarray, values: np.ndarray, error: np.ndarray) -> Curve:
    return Curve(label, grid, np.where(np.isfinite(values), values, np.nan), error)


def _interval(profile: Profile) -> tuple[float, float]:
    """From the outer edge of the first bin to that of the last."""
    half = 0.5 * float(profile.grid[1] - profile.grid[0])
    return float(profile.grid[0]) - half, float(profile.grid[-1]) + half


def learning_curves_figure(points: Sequence[LearningPoint], time_unit: str, title: str) -> bytes:
    """Errors of potentials against sampled time and number of frames.

    Args:
        points: of all potentials.
        time_unit: unit of the sampled time.
        title: of the system.
    """
    potentials = list(dict.fromkeys(point.potential for point in points))
    axes: dict[Axis, str] = {"time": f"atomistic time [{time_unit}]", "frames": "training frames"}
    curves: dict[str, list[Curve]] = {}
    for axis, label in axes.items():
        for potential in potentials:
            mine = [point for point in points if point.potential == potential]
            amounts, errors, spread = mean_curve(mine, axis)
            if len(amounts):
                curves.setdefault(label, []).append(Curve(potential, amounts, errors, errors * spread))
    decisive = next((point.decisive for point in points if point.decisive is not None), None)
    return plots.learning_curves_plot(
        curves,
        error=decisive.label if decisive else "error",
        error_unit=decisive.value.unit if decisive else "",
        bound=decisive.bound if decisive else None,
        title=f"{title}: learning curves",
    )
