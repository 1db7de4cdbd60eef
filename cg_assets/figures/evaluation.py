"""Figures of references and of evaluations; every function returns a PNG, or PNGs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cg_assets.core.statistics.surfaces import FreeEnergySurface
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.evaluation.free_energies import LineDrawing, SurfacesDrawing
from cg_assets.evaluation.metrics.bonds import MAX_BOND_DIVERGENCE, BondMonitor, BondsDrawing
from cg_assets.evaluation.metrics.slow_coordinates import TICS
from cg_assets.evaluation.quantity import Drawing
from cg_assets.evaluation.reference import Reference
from cg_assets.figures.style import (
    COLOURS,
    DATA,
    DIFFERENCE_MAP,
    FREE_ENERGY_MAP,
    HIGHEST,
    REFERENCE,
    Curve,
    above_lowest,
    aligned,
    angular_ticks,
    axis_label,
    band,
    colour_bar,
    colours_of,
    drawn,
    full_turns,
    heat_map,
    new_figure,
    nice_ceiling,
    note_errors,
)
from cg_assets.figures.temperatures import temperature_figures
from cg_assets.mapping.beads import Beads

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def evaluation_figures(
    potential: str, evaluation: Evaluation, title: str, potentials: Sequence[str] = ()
) -> dict[str, bytes]:
    """The figures of an evaluation by name.

    Args:
        potential: name of the potential.
        evaluation: what was measured of it.
        title: of the system.
        potentials: all of the system, so that each has the colour that it has in their comparison.
    """
    figures: dict[str, bytes] = {}
    shown, kelvins = f"{title}: potential {potential}", evaluation.temperatures
    colours = colours_of([*potentials] or [potential])
    drawings = [item for item in evaluation.drawings if item.temperature in (None, *kelvins[:1])]
    for drawing in drawings:
        at = "" if drawing.temperature is None else f", {drawing.temperature:g} K"
        figures |= draw(drawing, f"{shown}{at}", colours[potential])
    figures |= temperature_figures({potential: evaluation}, shown, colours) if kelvins else {}
    slow = {
        item.temperature: item.surfaces
        for item in evaluation.drawings
        if isinstance(item, SurfacesDrawing) and item.temperature is not None and item.variables == TICS
    }
    if slow:
        three = [list(slow)[place] for place in sorted({0, len(slow) // 2, len(slow) - 1})]
        maps = {kelvin: slow[kelvin] for kelvin in three}
        figures["slow coordinates at three temperatures"] = temperature_maps(
            maps, TICS, title=f"{shown}, slow coordinates"
        )
    return figures


@singledispatch
def draw(drawing: Drawing, title: str, colour: str) -> dict[str, bytes]:
    """The figures of a drawing by name, the potential in its colour.

    Raises:
        TypeError: no figure of such drawings is known.
    """
    raise TypeError(f"no figure of {type(drawing).__name__} is known; register one with `draw.register`")


@draw.register
def _line(drawing: LineDrawing, title: str, colour: str) -> dict[str, bytes]:
    pmf, labels = drawing.pmf, drawing.labels
    figure = pmf_plot(
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
        colours={"model": colour, "binned labels": DATA},
        title=f"{title}, PMF",
    )
    return {"PMF": figure}


@draw.register
def _surfaces(drawing: SurfacesDrawing, title: str, colour: str) -> dict[str, bytes]:
    names, units, figures = drawing.variables, drawing.variable_units, {}
    if drawing.maps:
        figures[drawing.maps] = free_energy_maps(
            drawing.surfaces,
            variables=names,
            variable_units=units,
            reference="reference",
            title=f"{title}, {drawing.maps}",
        )
    if drawing.marginals:
        figures[drawing.marginals] = marginals_plot(
            drawing.surfaces,
            variables=names,
            variable_units=units,
            reference="reference",
            colours={list(drawing.surfaces)[-1]: colour},
            title=f"{title}, {drawing.marginals}",
        )
    return figures


@draw.register
def _bonds(drawing: BondsDrawing, title: str, colour: str) -> dict[str, bytes]:
    figure = bond_length_plot(
        drawing.monitor, drawing.bead_names, tolerated=MAX_BOND_DIVERGENCE, colour=colour, title=f"{title}, bonds"
    )
    return {"bonds": figure}


def reference_figure(beads: Beads, reference: Reference) -> bytes:
    """The reference free energy."""
    title, units = f"{beads.title}: reference", [beads.variable_units[name] for name in reference.names]
    surfaces = {f"run {number + 1}": run for number, run in enumerate(reference.runs)}
    if reference.exact:
        surfaces = {"exact": reference.surface}
    if len(reference.names) == 1:
        return marginals_plot(
            surfaces,
            variables=reference.names,
            variable_units=units,
            reference="exact" if reference.exact else None,
            title=title,
            highest=12.0,
        )
    return free_energy_maps(
        surfaces,
        variables=reference.names,
        variable_units=units,
        reference=None if reference.exact else "run 1",
        title=title,
    )


def _draw_samples(
    axes: Axes, samples: Mapping[str, ArrayLike], edges: Sequence[float], colours: Mapping[str, str]
) -> None:
    """Where the training frames lie, as histograms."""
    every = {**colours, **{label: DATA for label in samples if label not in colours}}
    for label, values in samples.items():
        axes.hist(np.asarray(values), edges, histtype="stepfilled", color=every[label], alpha=0.25, linewidth=0)
        axes.hist(np.asarray(values), edges, histtype="step", color=every[label], linewidth=1.3, label=label)
    axes.set(yscale="log", ylabel="training\nframes")
    axes.legend(loc="upper right", ncols=len(samples))


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
    colours: Mapping[str, str] | None = None,
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
        colours: label to colour; None for one after the other.
        title: title of the figure.
        highest: upper end of the energy axis; None for a little above the reference on the interval.
    """
    figure = new_figure(10.0, 7.4 if samples else 6.2, title)
    ratios = [3.2, 1.3, 1.0] if samples else [3.2, 1.3]
    panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    colours = colours or colours_of([model.label for model in models])
    inside = (reference.grid >= interval[0]) & (reference.grid <= interval[1]) & np.isfinite(reference.values)
    floor = float(reference.values[inside].min())
    base = Curve(reference.label, reference.grid, reference.values - floor, reference.standard_error)
    top = highest or 1.25 * float(base.values[inside].max())
    margin = 0.06 * (interval[1] - interval[0])
    band(panels[0], base, REFERENCE, zorder=2.5, linewidth=2.6, alpha=0.85)
    largest = 0.0
    for model in models:
        moved = aligned(model, base, interval)
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
        _draw_samples(panels[2], samples, edges.tolist(), colours)
    for axes in panels:
        axes.axvspan(interval[0] - 2 * margin, interval[0], color="#f1f1f1", zorder=0, linewidth=0)
        axes.axvspan(interval[1], interval[1] + 2 * margin, color="#f1f1f1", zorder=0, linewidth=0)
    panels[-1].set(xlabel=axis_label(variable, variable_unit), xlim=(interval[0] - margin, interval[1] + margin))
    return figure


@drawn
def free_energy_maps(
    surfaces: Mapping[str, FreeEnergySurface],
    *,
    variables: Sequence[str],
    variable_units: Sequence[str],
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
        mesh = heat_map(axes, surface.bins.edges, energy, cmap=FREE_ENERGY_MAP, vmin=0.0, vmax=top)
        full_turns(axes, surface.bins.edges)
        axes.contour(
            *surface.bins.centres, np.ma.masked_invalid(energy).T, levels=levels, colors="white", linewidths=0.6
        )
        axes.set_title(label)
        axes.set_xlabel(axis_label(variables[0], variable_units[0]))
    panels[0].set_ylabel(axis_label(variables[1], variable_units[1]))
    colour_bar(mesh, list(panels[: len(labels)]), f"free energy [{unit}]", pad=0.015, aspect=26, extend="max")
    if reference is not None:
        known, model = surfaces[reference], surfaces[target]
        both = (known.probability > 0) & (model.probability > 0)
        both &= np.minimum(known.free_energy, model.free_energy) < top
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = -known.thermal_energy * np.log(model.probability / known.probability)
        limit, edges = 3.0 * known.thermal_energy, known.bins.edges
        axes, shown = panels[-1], np.where(both, difference, np.nan)
        mesh = heat_map(axes, edges, shown, cmap=DIFFERENCE_MAP, vmin=-limit, vmax=limit)
        full_turns(axes, edges)
        axes.set_title(f"{target} − {reference}")
        axes.set_xlabel(axis_label(variables[0], variable_units[0]))
        colour_bar(mesh, axes, f"difference [{unit}]", pad=0.03, aspect=26, extend="both")
    return figure


@drawn
def temperature_maps(
    surfaces: Mapping[float, Mapping[str, FreeEnergySurface]], variables: Sequence[str], *, title: str = ""
) -> Figure:
    """Free energies over two variables, a row for each temperature [K], each relative to its lowest value [kT].

    Args:
        surfaces: temperature to label to surface, all temperatures with the same labels.
        variables: names of the two variables.
        title: of the figure.
    """
    labels = list(next(iter(surfaces.values())))
    figure = new_figure(3.6 * len(labels) + 1.0, 3.0 * len(surfaces) + 0.5, title)
    panels = figure.subplots(len(surfaces), len(labels), squeeze=False, sharex=True, sharey=True)
    mesh: Any = None
    for row, (kelvin, of_labels) in enumerate(surfaces.items()):
        for axes, (label, surface) in zip(panels[row], of_labels.items(), strict=True):
            energy = np.where(np.isfinite(surface.free_energy), surface.free_energy, np.nan) / surface.thermal_energy
            mesh = heat_map(axes, surface.bins.edges, energy, cmap=FREE_ENERGY_MAP, vmin=0.0, vmax=HIGHEST)
            axes.set_title(f"{label}, {kelvin:g} K")
        panels[row, 0].set_ylabel(variables[1])
    for axes in panels[-1]:
        axes.set_xlabel(variables[0])
    colour_bar(mesh, list(panels.ravel()), "free energy [kT]", pad=0.015, aspect=30, extend="max")
    return figure


@drawn
def marginals_plot(
    surfaces: Mapping[str, FreeEnergySurface],
    *,
    variables: Sequence[str],
    variable_units: Sequence[str],
    reference: str | None = None,
    colours: Mapping[str, str] | None = None,
    title: str = "",
    highest: float = HIGHEST,
) -> Figure:
    """Free energy along each collective variable, all others summed over, with bands of two standard errors.

    Args:
        surfaces: label to surface over one or two collective variables.
        variables: names of the collective variables.
        variable_units: their units.
        reference: label of the reference, drawn in black.
        colours: label to colour, others grey; None for one after the other.
        title: title of the figure.
        highest: upper end of the energy axis [kT].
    """
    figure = new_figure(10.0 if len(variables) > 1 else 8.2, 4.4, title)
    panels = np.atleast_1d(figure.subplots(1, len(variables), sharey=True))
    colours = colours or colours_of([label for label in surfaces if label != reference])
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
                band(axes, curve, colours.get(label, DATA))
        edges = line.bins.edges[0]
        axes.set(xlabel=axis_label(variables[axis], variable_units[axis]), xlim=(edges[0], edges[-1]))
        angular_ticks(axes.xaxis, (float(edges[0]), float(edges[-1])))
    first = next(iter(surfaces.values()))
    panels[0].set(
        ylabel=f"free energy [{first.unit or 'kT'}]",
        ylim=(-0.03 * highest * first.thermal_energy, highest * first.thermal_energy),
    )
    panels[-1].legend(loc="best")
    note_errors(figure)
    return figure


@drawn
def bond_length_plot(
    monitor: BondMonitor,
    bead_names: Sequence[str],
    *,
    unit: str = "nm",
    tolerated: float | None = None,
    colour: str = COLOURS[0],
    title: str = "",
) -> Figure:
    """Bond-length distributions of the CG simulation over those of the data, a panel for each bond.

    Args:
        monitor: the bond monitor; the 12 bonds of largest divergence are drawn.
        bead_names: name of each bead.
        unit: unit of length.
        tolerated: divergence above which a bond is marked; None marks none.
        colour: of the CG simulation.
        title: title of the figure.
    """
    shown = np.sort(np.argsort(monitor.divergence)[::-1][:12])
    columns = min(5 if len(shown) > 8 else 4, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = new_figure(min(12.5, 2.9 * columns + 0.6), 2.2 * rows + 0.7, title)
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes, bond in zip(panels, shown, strict=False):
        edges = monitor.edges[bond]
        width = edges[1] - edges[0]
        axes.stairs(monitor.data[bond] / width, edges, fill=True, color=DATA, alpha=0.5, label="data")
        axes.stairs(monitor.simulation[bond] / width, edges, color=colour, linewidth=1.7, label="CG simulation")
        i, j = monitor.pairs[bond]
        bad = tolerated is not None and monitor.divergence[bond] > tolerated
        axes.set_title(
            f"{bead_names[i]} – {bead_names[j]}   JSD {monitor.divergence[bond]:.2g}",
            fontsize=9.5,
            color=COLOURS[1] if bad else REFERENCE,
        )
        axes.set_yticks([])
        axes.grid(False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(labelsize=8.5)
        axes.locator_params(axis="x", nbins=4)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    for axes in panels[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel(f"bond length [{unit}]")
    if len(shown):
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", ncols=2)
    return figure
