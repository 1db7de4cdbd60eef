"""Figures of free energies: PMFs, maps in two collective variables, marginals, and label sources side by side.

Every function returns a PNG; bands are two standard errors. Figures of samples and labels are
in `plots_samples`, those of training and simulations in `plots_simulation`; both can be had from here as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.surfaces import FreeEnergySurface
from cg_assets.figures.plot_style import (
    DATA,
    DIFFERENCE_MAP,
    FREE_ENERGY_MAP,
    REFERENCE,
    Curve,
    above_lowest,
    angular_ticks,
    axis_label,
    band,
    colours_of,
    drawn,
    in_radians,
    new_figure,
    nice_ceiling,
)
from cg_assets.figures.plots_samples import equilibration_plot, label_noise_plot, sampling_plot
from cg_assets.figures.plots_simulation import bond_length_plot, cg_simulation_plot, training_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Curve",
    "bond_length_plot",
    "cg_simulation_plot",
    "comparison_plot",
    "equilibration_plot",
    "free_energy_maps",
    "label_noise_plot",
    "marginals_plot",
    "pmf_plot",
    "sampling_plot",
    "training_plot",
]

HIGHEST = 8.0
"""Free energies are drawn up to this many kT."""


def _aligned(curve: Curve, reference: Curve, interval: tuple[float, float]) -> Curve:
    """A curve shifted by the constant that brings it nearest to the reference on an interval."""
    inside = (curve.grid >= interval[0]) & (curve.grid <= interval[1]) & np.isfinite(curve.values)
    known = np.interp(curve.grid, reference.grid, reference.values)
    inside &= np.isfinite(known)
    shift = float(np.mean(curve.values[inside] - known[inside])) if inside.any() else 0.0
    return Curve(curve.label, curve.grid, curve.values - shift, curve.standard_error)


@drawn
def pmf_plot(
    reference: Curve,
    models: Sequence[Curve],
    *,
    variable: str,
    variable_unit: str,
    energy_unit: str,
    interval: tuple[float, float],
    samples: Mapping[str, ArrayLike] | None = None,
    title: str = "",
    highest: float | None = None,
) -> Figure:
    """One-dimensional PMFs against the reference, their residuals, and where the training data lie.

    Args:
        reference: the reference PMF.
        models: PMFs to compare; each is shifted by the constant that brings it nearest to the reference.
        variable: name of the CG coordinate.
        variable_unit: its unit.
        energy_unit: unit of the PMFs.
        interval: interval over which errors are measured; shaded outside.
        samples: label to CG coordinate of training frames, for the histogram panel.
        title: title of the figure.
        highest: upper end of the energy axis; None for a little above the reference on the interval.
    """
    figure = new_figure(10.0, 7.4 if samples else 6.2, title)
    ratios = [3.2, 1.3, 1.0] if samples else [3.2, 1.3]
    panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    colours = colours_of([model.label for model in models])
    inside = (reference.grid >= interval[0]) & (reference.grid <= interval[1]) & np.isfinite(reference.values)
    floor = float(reference.values[inside].min())
    base = Curve(reference.label, reference.grid, reference.values - floor, reference.standard_error)
    top = highest or 1.25 * float(base.values[inside].max())
    margin = 0.06 * (interval[1] - interval[0])
    band(panels[0], base, REFERENCE, zorder=2.5, linewidth=2.6, alpha=0.85)
    largest = 0.0
    for model in models:
        moved = _aligned(model, base, interval)
        band(panels[0], moved, colours[model.label], zorder=4, linewidth=1.6)
        residual = moved.values - np.interp(moved.grid, base.grid, base.values)
        band(panels[1], Curve(model.label, moved.grid, residual, moved.standard_error), colours[model.label])
        near = (moved.grid >= interval[0]) & (moved.grid <= interval[1]) & np.isfinite(residual)
        if near.any():
            largest = max(largest, float(np.quantile(np.abs(residual[near]), 0.97)))
    panels[0].set(ylim=(-0.07 * top, top), ylabel=f"PMF A({variable}) [{energy_unit}]")
    panels[0].legend(loc="upper center", ncols=min(4, len(models) + 1))
    limit = nice_ceiling(1.3 * max(largest, 1e-6))
    panels[1].axhline(0.0, color=REFERENCE, linewidth=1.4, zorder=2.5)
    panels[1].set(ylim=(-limit, limit), ylabel=f"model − reference\n[{energy_unit}]")
    if samples:
        edges = np.linspace(interval[0] - margin, interval[1] + margin, 121)
        every = {**colours, **{label: DATA for label in samples if label not in colours}}
        for label, values in samples.items():
            panels[2].hist(
                np.asarray(values), edges, histtype="stepfilled", color=every[label], alpha=0.25, linewidth=0
            )
            panels[2].hist(np.asarray(values), edges, histtype="step", color=every[label], linewidth=1.3, label=label)
        panels[2].set(yscale="log", ylabel="training\nframes")
        panels[2].legend(loc="upper right", ncols=len(samples))
    for axes in panels:
        axes.axvspan(interval[0] - 2 * margin, interval[0], color="#f1f1f1", zorder=0, linewidth=0)
        axes.axvspan(interval[1], interval[1] + 2 * margin, color="#f1f1f1", zorder=0, linewidth=0)
    panels[-1].set(xlabel=axis_label(variable, variable_unit), xlim=(interval[0] - margin, interval[1] + margin))
    return figure


def _map(axes: Axes, surface: FreeEnergySurface, values: NDArray[np.float64], **settings: Any) -> Any:
    """A map over two collective variables; the first runs to the right."""
    x, y = surface.bins.edges
    mesh = axes.pcolormesh(x, y, np.ma.masked_invalid(values.T), rasterized=True, **settings)
    for axis, edges in ((axes.xaxis, x), (axes.yaxis, y)):
        angular_ticks(axis, (float(edges[0]), float(edges[-1])))
    axes.grid(False)
    if in_radians(float(x[0]), float(x[-1])) and in_radians(float(y[0]), float(y[-1])):
        axes.set_aspect("equal")
    axes.set_facecolor("#ececec")
    return mesh


@drawn
def free_energy_maps(
    surfaces: Mapping[str, FreeEnergySurface],
    *,
    variables: tuple[str, str],
    variable_units: tuple[str, str],
    reference: str | None = None,
    difference_of: str | None = None,
    title: str = "",
    highest: float = HIGHEST,
) -> Figure:
    """Free energies over two collective variables side by side, on one colour scale, with a map of the difference.

    Args:
        surfaces: label to surface, drawn in this order (reference, data, model, ...), on the same bins.
        variables: names of the two collective variables.
        variable_units: their units.
        reference: label of the surface that the difference is taken from; None for no difference.
        difference_of: label of the surface whose difference is drawn; None for the last.
        title: title of the figure.
        highest: upper end of the colour scale [kT]; bins without samples are grey.
    """
    labels = list(surfaces)
    target = difference_of or labels[-1]
    n_panels = len(labels) + (reference is not None)
    width = min(12.7, 3.25 * n_panels + 1.1)
    figure = new_figure(width, 0.86 * width / n_panels + (1.0 if title else 0.7), title)
    panels = np.atleast_1d(figure.subplots(1, n_panels, sharey=True))
    first = surfaces[labels[0]]
    top, unit = highest * first.thermal_energy, first.unit or "kT"
    levels = np.arange(1, max(2, int(highest) - 2)) * first.thermal_energy
    mesh: Any = None
    for axes, label in zip(panels, labels, strict=False):
        surface = surfaces[label]
        energy = np.where(np.isfinite(surface.free_energy), surface.free_energy, np.nan)
        mesh = _map(axes, surface, energy, cmap=FREE_ENERGY_MAP, vmin=0.0, vmax=top)
        axes.contour(
            *surface.bins.centres, np.ma.masked_invalid(energy).T, levels=levels, colors="white", linewidths=0.6
        )
        axes.set_title(label)
        axes.set_xlabel(axis_label(variables[0], variable_units[0]))
    panels[0].set_ylabel(axis_label(variables[1], variable_units[1]))
    bar = figure.colorbar(mesh, ax=list(panels[: len(labels)]), pad=0.015, aspect=26, extend="max")
    bar.set_label(f"free energy [{unit}]")
    bar.outline.set_visible(False)
    if reference is not None:
        known, model = surfaces[reference], surfaces[target]
        both = (known.probability > 0) & (model.probability > 0)
        both &= np.minimum(known.free_energy, model.free_energy) < top
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = -known.thermal_energy * np.log(model.probability / known.probability)
        limit = 3.0 * known.thermal_energy
        axes = panels[-1]
        mesh = _map(axes, known, np.where(both, difference, np.nan), cmap=DIFFERENCE_MAP, vmin=-limit, vmax=limit)
        axes.set_title(f"{target} − {reference}")
        axes.set_xlabel(axis_label(variables[0], variable_units[0]))
        bar = figure.colorbar(mesh, ax=axes, pad=0.03, aspect=26, extend="both")
        bar.set_label(f"difference [{unit}]")
        bar.outline.set_visible(False)
    return figure


@drawn
def marginals_plot(
    surfaces: Mapping[str, FreeEnergySurface],
    *,
    variables: Sequence[str],
    variable_units: Sequence[str],
    reference: str | None = None,
    title: str = "",
    highest: float = HIGHEST,
) -> Figure:
    """Free energy along each collective variable, all others summed over, with bands of two standard errors.

    Args:
        surfaces: label to surface over one or two collective variables.
        variables: names of the collective variables.
        variable_units: their units.
        reference: label of the reference, drawn in black.
        title: title of the figure.
        highest: upper end of the energy axis [kT].
    """
    figure = new_figure(10.0 if len(variables) > 1 else 8.2, 4.4, title)
    panels = np.atleast_1d(figure.subplots(1, len(variables), sharey=True))
    colours = colours_of([label for label in surfaces if label != reference])
    for axis, axes in enumerate(panels):
        for label, surface in surfaces.items():
            line = surface if len(surface.bins.edges) == 1 else surface.marginal(axis)
            width = line.bins.edges[0][1] - line.bins.edges[0][0]
            with np.errstate(divide="ignore"):
                energy = -line.thermal_energy * np.log(line.probability / width)
            curve = Curve(label, line.bins.centres[0], above_lowest(energy), line.standard_error)
            if label == reference:
                band(axes, curve, REFERENCE, zorder=2.5, linewidth=2.6, alpha=0.85)
            else:
                band(axes, curve, colours[label])
        edges = line.bins.edges[0]
        axes.set(xlabel=axis_label(variables[axis], variable_units[axis]), xlim=(edges[0], edges[-1]))
        angular_ticks(axes.xaxis, (float(edges[0]), float(edges[-1])))
    first = next(iter(surfaces.values()))
    panels[0].set(
        ylabel=f"free energy [{first.unit or 'kT'}]",
        ylim=(-0.03 * highest * first.thermal_energy, highest * first.thermal_energy),
    )
    panels[-1].legend(loc="best")
    return figure


@drawn
def comparison_plot(
    figures_of_merit: Mapping[str, Mapping[str, Estimate]],
    *,
    references: Mapping[str, Estimate] | None = None,
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
            known = reference_curves.get(label)
            if known is not None:
                known = Curve(known.label, known.grid, above_lowest(known.values), known.standard_error)
                band(axes, known, REFERENCE, zorder=2.5, linewidth=2.6, alpha=0.85)
            for line in lines:
                moved = Curve(line.label, line.grid, above_lowest(line.values), line.standard_error)
                if known is not None and interval is not None:
                    moved = _aligned(line, known, interval)
                band(axes, moved, colours[line.label], linewidth=1.6)
            axes.set_xlabel(label)
            limits = (float(lines[0].grid[0]), float(lines[0].grid[-1])) if interval is None else interval
            axes.set_xlim(*limits)
            step = float(lines[0].grid[1] - lines[0].grid[0])
            angular_ticks(axes.xaxis, (limits[0] - 0.5 * step, limits[1] + 0.5 * step))
        panels[0].set_ylabel(f"free energy [{energy_unit}]" if energy_unit else "free energy")
        if highest is not None:
            panels[0].set_ylim(-0.03 * highest, highest)
        panels[-1].legend(loc="best")
    bars = np.atleast_1d(rows[-1].subplots(1, max(1, len(figures_of_merit))))
    for axes, (name, values) in zip(bars, figures_of_merit.items(), strict=False):
        place = np.arange(len(values))
        height = np.array([estimate.value for estimate in values.values()])
        error = np.array([estimate.standard_error for estimate in values.values()])
        axes.bar(place, np.nan_to_num(height, posinf=0.0), 0.62, color=[colours[source] for source in values], zorder=2)
        known = np.isfinite(error)  # an unknown error has no bar, not one of length zero
        axes.errorbar(
            place[known], height[known], error[known], fmt="none", ecolor="#1a1a1a", capsize=5, elinewidth=1.4
        )
        if name in references:
            target = references[name]
            axes.axhline(target.value, color=REFERENCE, linewidth=1.3, linestyle=(0, (4, 2)), zorder=3)
            if np.isfinite(target.standard_error):
                low, high = target.value - 2 * target.standard_error, target.value + 2 * target.standard_error
                axes.axhspan(low, high, color=REFERENCE, alpha=0.12, linewidth=0, zorder=1)
        for x, estimate in zip(place, values.values(), strict=True):
            axes.annotate(
                f"{estimate.value:.3g}",
                (x, max(0.0, np.nan_to_num(estimate.value)) + np.nan_to_num(estimate.standard_error)),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        unit = next(iter(values.values())).unit
        axes.set_xticks(place, [source.replace("_", " ") for source in values])
        axes.set_title(textwrap.fill(f"{name} [{unit}]" if unit else name, 22))
        axes.set_xlim(-0.6, len(values) - 0.4)
        axes.margins(y=0.18)
        axes.grid(axis="x", visible=False)
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
                label=line.label.replace("_", " "),
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
