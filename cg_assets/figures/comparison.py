"""Figures of potentials side by side: evaluations, learning curves, accuracy against speed."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.comparison import Comparison
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.evaluation.learning_curves import Axis, LearningPoint, mean_curve
from cg_assets.evaluation.metric import measures_of_noise
from cg_assets.evaluation.quantity import Profile
from cg_assets.figures.style import (
    DATA,
    HIGHEST,
    REFERENCE,
    Curve,
    above_lowest,
    aligned,
    angular_ticks,
    axis_label,
    band,
    colours_of,
    drawn,
    error_bars,
    new_figure,
    note_errors,
    spoken,
)
from cg_assets.figures.temperatures import temperature_figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BARS = 4


def comparison_figures(comparison: Comparison, title: str) -> dict[str, bytes]:
    """All potentials of a system side by side, by name of the figure.

    Args:
        comparison: their evaluations.
        title: of the system.
    """
    evaluations = comparison.evaluations
    first = next(iter(evaluations.values()))
    if first.temperatures:
        figures = temperature_figures(evaluations, title)
    else:
        figures = {"figure": _side_by_side(comparison, f"{title}: potentials compared")}
    decisive = {name: item.decisive[0] for name, item in evaluations.items() if item.decisive}
    if len(decisive) == len(comparison.speeds) > 1:  # a single point compares nothing
        label, errors = next(iter(decisive.values())), {name: item.value for name, item in decisive.items()}
        axis = f"{label.label} [{label.value.unit}]" if label.value.unit else label.label
        figures["accuracy and speed"] = accuracy_against_speed_plot(
            comparison.speeds, errors, axis, title=f"{title}:\naccuracy and speed"
        )
    return figures


def overview_figure(comparisons: Mapping[str, Comparison]) -> bytes | None:
    """The first free energy of several systems with those of all their potentials, a panel each; None without any.

    Args:
        comparisons: title of a system to its comparison.
    """
    panels = {title: _profiles(comparison) for title, comparison in comparisons.items()}
    shown = {title: found for title, found in panels.items() if found is not None}
    return overview_plot(shown) if shown else None


@dataclass(frozen=True)
class _Panel:
    """Free energies of potentials along one axis.

    Attributes:
        label: of the axis.
        unit: of the energies.
        lines: of the potentials.
        known: of the reference.
        interval: that curves are aligned on; None where each is taken less its lowest value.
        highest: upper end of the energy axis; None where it is not limited.
    """

    label: str
    unit: str
    lines: list[Curve]
    known: Curve
    interval: tuple[float, float] | None
    highest: float | None


def _free_energy(evaluation: Evaluation) -> Profile | None:
    """The PMF, at the last of several temperatures, or else the first free energy; None without any."""
    pmfs = [line for line in evaluation.profiles if line.name == "pmf"]
    others = [line for line in evaluation.profiles if line.name == "free_energy"]
    return next(iter(pmfs[-1:] + others), None)


def _profiles(comparison: Comparison) -> _Panel | None:
    """The free energy of all potentials; None where there is none."""
    every = {name: _free_energy(found) for name, found in comparison.evaluations.items()}
    first = next((line for line in every.values() if line is not None), None)
    if first is None:
        return None
    finite, limited = first.reference[np.isfinite(first.reference)], math.isfinite(comparison.thermal_energy)
    top = HIGHEST * comparison.thermal_energy if limited else None
    return _Panel(
        label=axis_label(first.where, first.coordinate_unit),
        unit=first.unit,
        lines=[_curve(name, line.grid, line.values, line.standard_error) for name, line in every.items() if line],
        known=_reference_curve(first),
        interval=_interval(first) if first.name == "pmf" else None,
        highest=1.3 * float(np.ptp(finite)) if first.name == "pmf" else top,
    )


def _reference_curve(profile: Profile) -> Curve:
    name = "reference" if np.nan_to_num(profile.reference_error).any() else "exact"
    return _curve(name, profile.grid, profile.reference, profile.reference_error)


@drawn
def overview_plot(panels: Mapping[str, _Panel]) -> Figure:
    """Free energies of several systems: title to panel."""
    columns = min(len(panels), 3 if len(panels) > 4 else 2)
    rows = -(-len(panels) // columns)
    figure = new_figure(5.2 * columns + 0.6, 3.7 * rows + 0.4)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, panel) in zip(places, panels.items(), strict=False):
        colours = colours_of([line.label for line in panel.lines])
        _draw_curves(axes, panel.label, panel.lines, panel.known, colours, panel.interval)
        axes.set_title(textwrap.fill(title.replace(" - ", "\u00a0\u2212\u00a0"), 46))  # a formula stays on one line
        axes.set_ylabel(f"free energy [{panel.unit}]")
        if panel.highest is not None:
            axes.set_ylim(-0.03 * panel.highest, panel.highest)
        axes.legend(loc="best")
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    note_errors(figure)
    return figure


def _side_by_side(comparison: Comparison, title: str) -> bytes:
    """Profiles of all potentials, and the headlines as bars."""
    evaluations = comparison.evaluations
    first = next(iter(evaluations.values()))
    bars: dict[str, dict[str, Estimate]] = {}
    known: dict[str, Estimate] = {}
    noise = measures_of_noise()
    of_noise = {item.label for found in evaluations.values() for item in found.quantities if item.name in noise}
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
            label = axis_label(profile.where, profile.coordinate_unit)
            lines.setdefault(label, []).append(_curve(potential, profile.grid, profile.values, profile.standard_error))
            exact[label] = _reference_curve(profile)
    pmf = next((profile for profile in first.profiles if profile.name == "pmf"), None)
    limited = math.isfinite(comparison.thermal_energy)
    highest = HIGHEST * comparison.thermal_energy if limited else None
    if pmf is not None:
        highest = 1.3 * float(np.ptp(pmf.reference))
    return comparison_plot(
        bars,
        references=known,
        of_noise=of_noise,
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
    return learning_curves_plot(
        curves,
        error=decisive.label if decisive else "error",
        error_unit=decisive.value.unit if decisive else "",
        bound=decisive.bound if decisive else None,
        title=f"{title}: learning curves",
    )


def _draw_curves(
    axes: Axes,
    label: str,
    lines: Sequence[Curve],
    known: Curve | None,
    colours: Mapping[str, str],
    interval: tuple[float, float] | None,
) -> None:
    """Free energies of all label sources along one axis, and the reference."""
    if known is not None:
        known = Curve(known.label, known.grid, above_lowest(known.values), known.standard_error)
        band(axes, known, REFERENCE, zorder=2.5, linewidth=2.6, alpha=0.85)
    for line in lines:
        moved = Curve(line.label, line.grid, above_lowest(line.values), line.standard_error)
        if known is not None and interval is not None:
            moved = aligned(line, known, interval)
        band(axes, moved, colours[line.label], linewidth=1.6)
    axes.set_xlabel(label)
    limits = (float(lines[0].grid[0]), float(lines[0].grid[-1])) if interval is None else interval
    axes.set_xlim(*limits)
    step = float(lines[0].grid[1] - lines[0].grid[0])
    angular_ticks(axes.xaxis, (limits[0] - 0.5 * step, limits[1] + 0.5 * step))


def _draw_bars(
    axes: Axes,
    name: str,
    values: Mapping[str, Estimate],
    target: Estimate | None,
    colours: Mapping[str, str],
    noise: bool,
) -> None:
    """A figure of merit of each label source, with its error, and that of the reference."""
    place = np.arange(len(values))
    height = np.array([estimate.value for estimate in values.values()])
    error = 2.0 * np.array([estimate.standard_error for estimate in values.values()])
    axes.bar(place, np.nan_to_num(height, posinf=0.0), 0.62, color=[colours[source] for source in values], zorder=2)
    known = np.isfinite(error)  # an unknown error has no bar, not one of length zero
    axes.errorbar(place[known], height[known], error[known], fmt="none", ecolor="#1a1a1a", capsize=5, elinewidth=1.4)
    if target is not None:
        label = "noise alone" if noise else "exact" if target.standard_error == 0 else "reference"
        dashes = (0, (1, 2)) if noise else (0, (4, 2))
        axes.axhline(target.value, color=REFERENCE, linewidth=1.5, linestyle=dashes, zorder=3, label=label)
        if np.isfinite(target.standard_error):
            low, high = target.value - 2 * target.standard_error, target.value + 2 * target.standard_error
            axes.axhspan(low, high, color=REFERENCE, alpha=0.12, linewidth=0, zorder=1)
    tops = np.maximum(0.0, np.nan_to_num(height, posinf=0.0)) + np.nan_to_num(error)
    if target is not None:
        tops = np.where(tops < target.value, np.maximum(tops, target.value), tops)  # no number on the dashed line
    for x, top, estimate in zip(place, tops, values.values(), strict=True):
        axes.annotate(
            f"{estimate.value:.3g}",
            (x, top),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    unit = next(iter(values.values())).unit
    axes.set_xticks(place, [textwrap.fill(spoken(source), 12) for source in values])
    axes.set_title(textwrap.fill(f"{name} [{unit}]" if unit else name, 22))
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.margins(y=0.18)
    axes.set_ylim(bottom=min(0.0, float(np.nan_to_num(height, posinf=0.0).min())))
    axes.grid(axis="x", visible=False)


@drawn
def comparison_plot(
    figures_of_merit: Mapping[str, Mapping[str, Estimate]],
    *,
    references: Mapping[str, Estimate] | None = None,
    of_noise: Collection[str] = (),
    curves: Mapping[str, Sequence[Curve]] | None = None,
    reference_curves: Mapping[str, Curve] | None = None,
    energy_unit: str = "",
    interval: tuple[float, float] | None = None,
    title: str = "",
    highest: float | None = None,
) -> Figure:
    """All label sources side by side: free energies on top, figures of merit as bars with their errors below.

    Args:
        figures_of_merit: name of a figure of merit to {label source: estimate}; one bar panel each (up to four fit).
        references: name of a figure of merit to the reference's own value, drawn as a line with its error.
        of_noise: figures of merit whose reference is what noise alone would give.
        curves: axis label to one curve for each label source; one panel for each entry.
        reference_curves: axis label to the reference curve.
        energy_unit: unit of the curves.
        interval: interval that curves are aligned on; None takes each less its lowest value.
        title: title of the figure.
        highest: upper end of the energy axes.
    """
    curves, reference_curves, references = curves or {}, reference_curves or {}, references or {}
    sources = list(dict.fromkeys(source for values in figures_of_merit.values() for source in values))
    sources += [c.label for line in curves.values() for c in line if c.label not in sources]
    colours = colours_of(list(dict.fromkeys(sources)))
    figure = new_figure(11.5, 7.4 if curves else 4.0, title)
    rows: list[Any] = list(figure.subfigures(2, 1, height_ratios=[1.5, 1.0])) if curves else [figure]  # type: ignore[arg-type]
    if curves:
        panels = np.atleast_1d(rows[0].subplots(1, len(curves), sharey=True))
        for axes, (label, lines) in zip(panels, curves.items(), strict=True):
            _draw_curves(axes, label, lines, reference_curves.get(label), colours, interval)
        panels[0].set_ylabel(f"free energy [{energy_unit}]" if energy_unit else "free energy")
        if highest is not None:
            panels[0].set_ylim(-0.03 * highest, highest)
        panels[-1].legend(loc="best")
    bars = np.atleast_1d(rows[-1].subplots(1, max(1, len(figures_of_merit))))
    for axes, (name, values) in zip(bars, figures_of_merit.items(), strict=False):
        _draw_bars(axes, name, values, references.get(name), colours, name in of_noise)
    dashed = {label: line for axes in bars for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if dashed:
        rows[-1].legend(dashed.values(), dashed.keys(), loc="outside upper right", ncols=len(dashed))
    note_errors(figure)
    return figure


@drawn
def learning_curves_plot(
    curves: Mapping[str, Sequence[Curve]],
    *,
    error: str = "error",
    error_unit: str = "",
    bound: float | None = None,
    title: str = "",
) -> Figure:
    """Errors of potentials against amounts of data, both on logarithmic axes.

    Args:
        curves: axis label to one curve for each potential; infinite errors are drawn at the top as crosses.
        error: what the error is called.
        error_unit: its unit.
        bound: the error that a champion may have, drawn as a line.
        title: title of the figure.
    """
    figure = new_figure(5.6 * len(curves) + 0.6, 4.6, title)
    panels = np.atleast_1d(figure.subplots(1, len(curves), sharey=True))
    colours = colours_of(list(dict.fromkeys(line.label for lines in curves.values() for line in lines)))
    finite = [line.values[np.isfinite(line.values)] for lines in curves.values() for line in lines]
    top = 1.6 * max((float(values.max()) for values in finite if len(values)), default=1.0)
    for axes, (label, lines) in zip(panels, curves.items(), strict=True):
        for line in lines:
            known = np.isfinite(line.values)
            bar = np.zeros(len(line.grid)) if line.standard_error is None else np.nan_to_num(line.standard_error)
            axes.errorbar(
                line.grid[known],
                line.values[known],
                bar[known],
                color=colours[line.label],
                label=spoken(line.label),
                marker="o",
                capsize=3,
            )
            if len(lost := line.grid[~known]):
                axes.plot(lost, np.full(len(lost), top), "x", color=colours[line.label], label="unstable", markersize=8)
        if bound is not None:
            axes.axhline(bound, color=DATA, linewidth=1.2, linestyle=(0, (4, 2)), label="bound", zorder=1)
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.grid(which="minor", alpha=0.35)
    panels[0].set_ylabel(f"{error} [{error_unit}]" if error_unit else error)
    panels[-1].legend(loc="best")
    return figure


@drawn
def accuracy_against_speed_plot(
    speed: Mapping[str, float],
    error: Mapping[str, Estimate],
    quantity: str,
    atoms: float | None = None,
    title: str = "",
) -> Figure:
    """Error of potentials against the CG steps that they make in a second; atomistic steps as a line.

    Args:
        speed: label to steps per second.
        error: label to error.
        quantity: what the error is of, with its unit.
        atoms: atomistic steps per second of the same molecules.
        title: of the figure.
    """
    figure = new_figure(6.0, 3.8, title)
    axes = figure.subplots()
    for label, colour in colours_of(list(speed)).items():
        error_bars(axes, speed[label], [error[label]], colour, label=label)
    if atoms is not None:
        axes.axvline(atoms, color=REFERENCE, linestyle=":", label="atoms (steps/s)")
    powers = np.log10([*speed.values(), *([] if atoms is None else [atoms])])
    axes.set(xlabel="steps per second", ylabel=quantity, xscale="log")
    axes.set_xlim(10.0 ** np.floor(powers.min()), 10.0 ** np.ceil(powers.max()))
    axes.set_ylim(bottom=0.0)
    axes.legend()
    return figure
