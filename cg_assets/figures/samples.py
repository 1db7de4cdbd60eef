"""Figures of samples; every function returns a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.equilibration import ConditionalEquilibration
from cg_assets.core.units import unit
from cg_assets.figures.style import (
    COLOURS,
    DATA,
    DIFFERENCE_MAP,
    FREE_ENERGY_MAP,
    REFERENCE,
    angular_ticks,
    axis_label,
    colour_bar,
    drawn,
    full_turns,
    heat_map,
    in_radians,
    new_figure,
    spoken,
)
from cg_assets.labels.next_batch import Proposal
from cg_assets.mapping.beads import Beads

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LEAST = 20
"""Frames of a replica that a line joins: fewer are too far apart to look like a path."""


def sampling_figure(beads: Beads, frames: Frames, stage: str) -> bytes:
    """Where a batch of samples of a stage went."""
    units = beads.variable_units
    return sampling_plot(
        frames.time,
        frames.replica,
        {name: frames.collective_variables[name] for name in units},
        variable_units=units,
        time_unit=unit("time", beads.units),
        start=frames.start,
        limits={name: (-np.pi, np.pi) for name in units if beads.is_periodic(name)},
        title=f"{beads.title}: {spoken(stage)}",
    )


def equilibration_figure(beads: Beads, result: ConditionalEquilibration, in_windows: bool) -> bytes:
    """The conditional-equilibration check of a biased batch.

    Args:
        beads: of the system.
        result: outcome of the check.
        in_windows: whether replicas were compared within umbrella windows.
    """
    names = beads.variable_names[:2]
    lengths = all(beads.variable_quantities[name] == "length" for name in names)
    force = unit("force", beads.units) if lengths else f"{beads.energy_unit} per unit of the variable"
    return equilibration_plot(
        result,
        variables=["bin of a window"] if in_windows else names,
        variable_units=[""] if in_windows else [beads.variable_units[name] for name in names],
        force_unit=force,
        title=f"{beads.title}: conditional equilibration",
    )


def _draw_series(axes: Axes, time: NDArray, values: NDArray, colour: str, label: str | None, turns: bool) -> None:
    """A collective variable of one replica against time; of an angle, which turns over, or of few frames as dots."""
    axes.plot(
        time,
        values,
        "." if turns or len(time) < _LEAST else "-",
        markersize=3.0 if len(time) >= _LEAST else 6.0,
        markeredgewidth=0,
        linewidth=0.9,
        color=colour,
        alpha=0.7,
        rasterized=True,
        label=label,
    )


@drawn
def sampling_plot(
    time: ArrayLike,
    replica: ArrayLike,
    variables: Mapping[str, ArrayLike],
    *,
    variable_units: Mapping[str, str],
    time_unit: str,
    start: ArrayLike | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    n_replicas: int = 6,
    title: str = "",
) -> Figure:
    """Collective variables against time for some replicas, coloured by start, next to the histogram of all frames.

    Args:
        time: `(n_frames,)`.
        replica: `(n_frames,)`.
        variables: name to `(n_frames,)`.
        variable_units: name to unit.
        time_unit: unit of time.
        start: `(n_frames,)` start index, for the colours; None colours by replica.
        limits: name to limits of its axis; None for the range of the data.
        n_replicas: how many replicas to draw.
        title: title of the figure.
    """
    moments, member = np.asarray(time), np.asarray(replica)
    colour = member if start is None else np.asarray(start)
    few = len(moments) < _LEAST * len(np.unique(member))
    chosen = _spread_choice(member, colour, 60 if few else n_replicas)
    shades = {value: COLOURS[i % len(COLOURS)] for i, value in enumerate(np.unique(colour))}
    figure = new_figure(11.0, 2.5 * len(variables) + 0.9, title)
    panels = figure.subplots(len(variables), 2, width_ratios=[4.0, 1.0], squeeze=False, sharey="row", sharex="col")
    named: set[Any] = set()
    for row, (name, column) in zip(panels, variables.items(), strict=True):
        values = np.asarray(column)
        low, high = (limits or {}).get(name, (float(values.min()), float(values.max())))
        for number in chosen:
            mine = np.flatnonzero(member == number)
            mine = mine[np.argsort(moments[mine])][:: max(1, len(mine) // 1500)]
            group = colour[mine[0]]
            label = None if group in named or start is None else f"start {group}"
            named.add(group)
            _draw_series(row[0], moments[mine], values[mine], shades[group], label, in_radians(low, high))
        edges = np.linspace(low, high, 91)
        row[1].hist(values, edges, orientation="horizontal", histtype="stepfilled", color=DATA, alpha=0.35)
        if start is not None and 1 < len(shades) <= len(COLOURS):
            for group, shade in shades.items():
                part = values[colour == group]
                row[1].hist(part, edges, orientation="horizontal", histtype="step", color=shade, linewidth=1.2)
        row[0].set(ylabel=axis_label(name, variable_units[name]), ylim=(low, high))
        row[0].margins(x=0.01)
        angular_ticks(row[0].yaxis, (low, high))
    panels[-1, 0].set_xlabel(axis_label("time", time_unit))
    panels[-1, 1].set(xlabel="frames", xscale="log")
    if start is not None and named:
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=6, markerscale=1 if few else 4)
    return figure


def _spread_choice(member: NDArray, colour: NDArray, count: int) -> list[Any]:
    """Replicas to draw, as evenly as can be from all starts."""
    first = np.unique(member, return_index=True)
    starts = colour[first[1]]
    queues = [list(first[0][starts == value]) for value in np.unique(starts)]
    chosen: list[Any] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


@drawn
def equilibration_plot(
    result: ConditionalEquilibration,
    *,
    variables: Sequence[str],
    variable_units: Sequence[str],
    force_unit: str,
    group_labels: Mapping[int, str] | None = None,
    title: str = "",
) -> Figure:
    """The conditional-equilibration check: mean forces of the groups, z per bin, and z against the normal density.

    Args:
        result: outcome of the check over one or two collective variables.
        variables: names of the collective variables.
        variable_units: their units.
        force_unit: unit of the mean force.
        group_labels: what to call each group; None for `start 0`, ...
        title: title of the figure.
    """
    figure = new_figure(11.0, 6.4 if len(result.bins.shape) == 1 else 4.4, title)
    mark = {"passed": COLOURS[2], "failed": COLOURS[1], "cannot be judged": DATA}[result.verdict]
    if len(result.bins.shape) == 1:
        grid = figure.add_gridspec(2, 2, width_ratios=[2.6, 1.0], height_ratios=[1.5, 1.0])
        top, bottom = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
        side = figure.add_subplot(grid[:, 1])
        _one_dimension(top, bottom, result, group_labels)
        top.set_ylabel(f"mean force [{force_unit}]")
        bottom.set(xlabel=axis_label(variables[0], variable_units[0]), ylabel="z of the difference")
        top.sharex(bottom)
        top.tick_params(labelbottom=False)
    else:
        n_components = result.z.shape[1]
        grid = figure.add_gridspec(1, n_components + 1, width_ratios=[1.25] * n_components + [1.0])
        side = figure.add_subplot(grid[0, -1])
        for component in range(n_components):
            axes = figure.add_subplot(grid[0, component])
            values = _largest(result.z[:, component])
            mesh = heat_map(axes, result.bins.edges, values, cmap=DIFFERENCE_MAP, vmin=-4, vmax=4)
            full_turns(axes, result.bins.edges)
            axes.set(
                xlabel=axis_label(variables[0], variable_units[0]),
                title=f"force along {axis_label(variables[component])}" if n_components == len(variables) else "",
            )
            if component == 0:
                axes.set_ylabel(axis_label(variables[1], variable_units[1]))
        maps = figure.axes[1:]
        colour_bar(mesh, maps, "z of the difference", shrink=0.85, pad=0.02, aspect=24, extend="both")
    _z_histogram(side, result, mark)
    return figure


def _one_dimension(
    top: Axes, bottom: Axes, result: ConditionalEquilibration, group_labels: Mapping[int, str] | None
) -> None:
    centres = result.bins.centres[0]
    for i, group in enumerate(result.groups):
        label = (group_labels or {}).get(group, f"start {group}")
        fine = np.isfinite(result.mean[i, 0]) & np.isfinite(result.standard_error[i, 0])
        top.errorbar(
            centres[fine],
            result.mean[i, 0][fine],
            2 * result.standard_error[i, 0][fine],
            fmt="o-",
            markersize=3.2,
            linewidth=1.1,
            elinewidth=1.0,
            color=COLOURS[i % len(COLOURS)],
            label=label,
        )
    judged = result.mean[:, 0][:, np.isfinite(result.z[:, 0]).any(axis=0)] if len(result.z) else result.mean[:, 0]
    if np.isfinite(judged).any():
        low, high = np.nanmin(judged), np.nanmax(judged)
        top.set_ylim(low - 0.15 * (high - low) - 1e-9, high + 0.3 * (high - low) + 1e-9)
    top.legend(loc="upper right", ncols=3)
    bottom.set_xlim(result.bins.edges[0][0], result.bins.edges[0][-1])
    bottom.axhspan(-2, 2, color="#dcdcdc", alpha=0.7, linewidth=0, zorder=0)
    bottom.axhline(0.0, color=REFERENCE, linewidth=1.0)
    for i, z in enumerate(result.z[:, 0]):
        bottom.plot(
            centres, z, "o", color=COLOURS[i % len(COLOURS)] if len(result.z) > 1 else COLOURS[0], markersize=3.8
        )
    largest = np.nanmax(np.abs(result.z)) if result.judged else 0.0
    bottom.set_ylim(-max(4.0, 1.1 * largest), max(4.0, 1.1 * largest))


def _largest(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The z of largest size over the contrasts in each bin; nan where none was judged."""
    if not len(z):
        return np.full(z.shape[1:], np.nan)
    pick = np.argmax(np.nan_to_num(np.abs(z), nan=-1.0), axis=0)[None]
    return np.take_along_axis(z, pick, axis=0)[0]


def _z_histogram(axes: Axes, result: ConditionalEquilibration, mark: str) -> None:
    z, limit = result.values, 6.0
    if len(z):
        edges = np.linspace(-limit, limit, 31 if len(z) > 100 else 19).tolist()
        inside = np.clip(z, -0.999 * limit, 0.999 * limit)
        axes.hist(inside, edges, density=True, color=mark, alpha=0.45, edgecolor="white", label="this data set")
    if (np.abs(z) > limit).any():
        note = f"outer bins:\nall |z| > {limit:g}"
        axes.annotate(note, (0.97, 0.80), xycoords="axes fraction", fontsize=8.5, ha="right", va="top")
    line = np.linspace(-limit, limit, 401)
    axes.plot(line, np.exp(-0.5 * line**2) / np.sqrt(2 * np.pi), color=REFERENCE, linewidth=1.5, label="expected")
    axes.set(xlabel="z", ylabel="probability density", xlim=(-limit, limit))
    axes.set_ylim(0.0, 1.35 * axes.get_ylim()[1])
    axes.legend(loc="upper left")
    lines: list[str] = [result.verdict]
    if result.judged:
        lines += [f"z RMS {result.z_rms:.2f}, limit {result.limit:.2f}"]
        lines += [f"largest |z| {result.largest_z:.1f}, limit {result.largest_limit:.1f}"]
    axes.set_title("\n".join(lines), color=mark, fontsize=10.0)


@drawn
def next_batch_figure(beads: Beads, proposal: Proposal) -> Figure:
    """The error of the mean force before and after the next batch, and where its windows are."""
    edges, shape, centers = proposal.bins.edges, proposal.bins.shape, proposal.centers
    error, expected = proposal.error.reshape(shape), proposal.expected.reshape(shape)
    labels = [axis_label(name, beads.variable_units[name]) for name in proposal.names]
    title, top = f"{beads.title}: next batch", float(np.nanmax(error))
    if len(edges) == 1:
        figure = new_figure(8.2, 4.2, title)
        axes = figure.subplots()
        axes.stairs(error, edges[0], color=COLOURS[0], label="so far", linewidth=1.6, baseline=None)
        axes.stairs(expected, edges[0], color=COLOURS[1], label="expected after it", linewidth=1.6, baseline=None)
        places, counts = np.unique(centers[:, 0], return_counts=True)
        axes.scatter(places, np.zeros(len(places)), 22 * counts, color=REFERENCE, marker="^", label="windows", zorder=4)
        axes.set(xlabel=labels[0], ylabel="error of the mean force [kT]", ylim=(-0.06 * top, 1.12 * top))
        axes.legend(loc="best")
        return figure
    figure = new_figure(10.0, 4.6, title)
    panels = figure.subplots(1, 2, sharey=True)
    parts = {"so far, and the new windows": error, "expected after them": expected}
    for axes, (name, values) in zip(panels, parts.items(), strict=True):
        mesh = heat_map(axes, edges, values, cmap=FREE_ENERGY_MAP, vmin=0.0, vmax=top)
        axes.set(title=name, xlabel=labels[0])
    panels[0].set_ylabel(labels[1])
    places, counts = np.unique(centers, axis=0, return_counts=True)
    panels[0].scatter(*places.T, 16 * counts, facecolors="none", edgecolors="white", linewidths=1.4)
    colour_bar(mesh, list(panels), "error of the mean force [kT]", pad=0.015, aspect=26)
    return figure
