"""Figures of force labels; every function returns a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.local_geometry import LocalGeometry
from cg_assets.core.statistics.noise import BinnedLabels
from cg_assets.core.units import unit
from cg_assets.evaluation.torque_surface import TorqueSurface
from cg_assets.figures.style import (
    COLOURS,
    DATA,
    FREE_ENERGY_MAP,
    REFERENCE,
    axis_label,
    colour_bar,
    connected,
    drawn,
    full_turns,
    heat_map,
    new_figure,
    note_errors,
)
from cg_assets.labels.kernels.run import KernelReport
from cg_assets.labels.label_errors import LabelErrors
from cg_assets.labels.quality import LabelNoise
from cg_assets.mapping.beads import Beads

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_HIGHEST = 12.0
"""Free energy [kT] up to which a surface from forces is shown."""


@singledispatch
def labels_figure(details: Any, title: str) -> bytes | None:
    """The figure of labels with these details; None where there is none for them."""
    return None


@labels_figure.register
def _(details: KernelReport, title: str) -> bytes:
    return kernel_plot(
        {str(kind): floor for kind, floor in details.noise_floor.items()},
        {str(kind): test.z for kind, test in details.stein.items()},
        details.geometry,
        used=details.chosen,
        title=title,
    )


def label_noise_figure(beads: Beads, noise: LabelNoise) -> bytes:
    """The noise of a batch of force labels."""
    force = unit("force", beads.units)
    title = f"{beads.title}: noise of the force labels"
    if noise.bins is not None:
        ((name, of_variable),) = beads.variable_units.items()
        return binned_noise_plot(
            noise.bins,
            noise.floor,
            variable=name,
            variable_unit=of_variable,
            force_unit=force,
            title=title,
        )
    if noise.beads is None:
        raise ValueError("this noise has neither bins nor beads")
    maps = {f"{noise.map_kind} (used)": noise.beads}
    maps |= {f"{kind}{' (not valid)' if fault else ''}": other for kind, (other, fault) in noise.other_maps.items()}
    floors = {
        label: {
            name: Estimate(float(value), float(error), noise.floor.unit)
            for name, value, error in zip(noise.bead_names, one.bead_noise_floor, one.bead_standard_error, strict=True)
        }
        for label, one in maps.items()
    }
    return bead_noise_plot(floors, noise.floor, title=title)


@drawn
def binned_noise_plot(
    noise: BinnedLabels,
    noise_floor: Estimate,
    *,
    variable: str,
    variable_unit: str,
    force_unit: str,
    title: str = "",
) -> Figure:
    """Noise of the force labels by bin of a CG coordinate, with the noise floor that training sees.

    Args:
        noise: binned labels.
        noise_floor: the floor over all bins.
        variable: name of the CG coordinate.
        variable_unit: its unit.
        force_unit: unit of the force.
        title: title of the figure.
    """
    figure = new_figure(10.0, 6.0, title)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, 1.0])
    fine = np.isfinite(noise.mean_force) & (noise.count >= 10)
    x, mean, error = noise.centres[fine], noise.mean_force[fine], noise.standard_error[fine]
    deviation = np.sqrt(np.nan_to_num(noise.variance[fine]))
    top.fill_between(
        x,
        mean - deviation,
        mean + deviation,
        color=COLOURS[5],
        alpha=0.3,
        linewidth=0,
        label="label ± 1 deviation",
    )
    top.fill_between(x, mean - 2 * error, mean + 2 * error, color=COLOURS[0], alpha=0.35, linewidth=0)
    top.plot(x, mean, color=COLOURS[0], label="mean force, ± 2 standard errors")
    top.axhline(0.0, color=DATA, linewidth=0.9)
    top.set_ylabel(f"force [{force_unit}]")
    top.legend(loc="best")
    bottom.plot(x, noise.variance[fine], color=COLOURS[0], label="variance of the label in a bin")
    bottom.axhline(
        noise_floor.value, color=REFERENCE, linestyle=(0, (4, 2)), linewidth=1.4, label=f"noise floor {noise_floor}"
    )
    bottom.set(xlabel=axis_label(variable, variable_unit), ylabel=f"variance [{noise_floor.unit}]")
    bottom.set_ylim(0.0, 1.35 * max(float(np.nanquantile(noise.variance[fine], 0.98)), noise_floor.value))
    bottom.legend(loc="upper right", ncols=2)
    return figure


@drawn
def bead_noise_plot(noise: Mapping[str, Mapping[str, Estimate]], noise_floor: Estimate, *, title: str = "") -> Figure:
    """Noise of the force labels by bead, with the noise floor that training sees.

    Args:
        noise: for each force map the noise floor of each bead [force unit squared]; the first map is the one in use.
        noise_floor: the floor over all beads of the map in use.
        title: title of the figure.
    """
    figure = new_figure(9.0, 4.2, title)
    axes = figure.subplots()
    names = list(next(iter(noise.values())))
    place, width, top = np.arange(len(names)), 0.8 / len(noise), 0.0
    for number, (label, beads) in enumerate(noise.items()):
        values = np.array([beads[name].value for name in names])
        errors = np.array([beads[name].standard_error for name in names])
        where = place + (number - 0.5 * (len(noise) - 1)) * width
        axes.bar(where, values, 0.92 * width, color=COLOURS[number], alpha=0.85, label=label)
        known = np.isfinite(errors)
        axes.errorbar(
            where[known], values[known], 2 * errors[known], fmt="none", ecolor=REFERENCE, capsize=3, elinewidth=1.2
        )
        top = max(top, float(np.nanmax(values + 2 * np.nan_to_num(errors))))
    axes.axhline(
        noise_floor.value, color=COLOURS[0], linestyle=(0, (4, 2)), linewidth=1.6, label=f"noise floor {noise_floor}"
    )
    axes.set_xticks(place, names, rotation=0 if len(names) < 14 else 60)
    axes.set(xlabel="bead", ylabel=f"variance of a force component\n[{noise_floor.unit}]")
    axes.grid(axis="x", visible=False)
    axes.set_ylim(top=1.35 * top)
    axes.legend(loc="upper right", ncols=2)
    note_errors(figure)
    return figure


@drawn
def label_errors_figure(beads: Beads, errors: LabelErrors) -> Figure:
    """What a batch of labels contains of the mean force along the collective variables."""
    quantities = {
        "independent labels in a bin": errors.independent,
        "standard deviation of a label [kT]": errors.noise,
        "standard error of the mean force [kT]": errors.error,
    }
    title = f"{beads.title}: information in the labels (forces times the range of the variable)"
    figure = new_figure(4.3 * len(quantities), 4.2, title)
    shown = {
        name: np.where(np.nan_to_num(values) > 0, values, np.nan).reshape(errors.bins.shape)
        for name, values in quantities.items()
    }
    _over_bins(figure, beads, errors.names, errors.bins, shown, norm="log")
    if len(errors.names) == 1:
        for axes in figure.axes:
            axes.set_yscale("log")
    return figure


@drawn
def torque_surface_figure(beads: Beads, surface: TorqueSurface) -> Figure:
    """The free energy of the torsions from a batch of labels alone, with its standard error."""
    energy = beads.energy_unit
    panels = {
        f"free energy [{energy}]": surface.free_energy,
        f"standard error [{energy}]": surface.standard_error,
    }
    shown = surface.free_energy <= _HIGHEST * beads.thermal_energy
    if shown.any():
        lowest = np.unravel_index(np.nanargmin(np.where(shown, surface.free_energy, np.nan)), shown.shape)
        shown = connected(shown, [int(place) for place in lowest], surface.bins.edges)
    figure = new_figure(5.0 * len(panels), 4.4, f"{beads.title}: free energy from the forces alone")
    hidden = {name: np.where(shown, values, np.nan) for name, values in panels.items()}
    _over_bins(figure, beads, surface.names, surface.bins, hidden, vmin=0.0)
    return figure


def _over_bins(
    figure: Figure,
    beads: Beads,
    names: Sequence[str],
    bins: Bins,
    quantities: Mapping[str, NDArray[np.float64]],
    **settings: Any,
) -> None:
    """A panel for each quantity over the bins of one or two collective variables.

    Args:
        figure: what the panels are drawn on.
        beads: of the system.
        names: of the variables.
        bins: over them.
        quantities: label with unit of each quantity to its values `(*bins)`; nan where there is nothing.
        settings: of the colours of maps over two variables.
    """
    labels, edges = [axis_label(name, beads.variable_units[name]) for name in names], bins.edges
    panels = np.atleast_1d(figure.subplots(1, len(quantities), sharex=True, sharey=len(edges) == 2))
    for axes, (label, values) in zip(panels, quantities.items(), strict=True):
        axes.set(xlabel=labels[0])
        if len(edges) == 1:
            axes.stairs(values, edges[0], color=COLOURS[0], linewidth=1.6, baseline=None)
            axes.set(ylabel=label)
            continue
        known = values[np.isfinite(values)]
        if settings.get("norm") == "log":
            low, high = (known.min(), max(known.max(), 1.01 * known.min())) if len(known) else (1.0, 10.0)
            settings |= {"vmin": low, "vmax": high}
        mesh = heat_map(axes, edges, values, cmap=FREE_ENERGY_MAP, **settings)
        full_turns(axes, edges)
        colour_bar(mesh, axes, label, location="top", pad=0.02, aspect=26)
    if len(edges) == 2:
        panels[0].set_ylabel(labels[1])


@drawn
def kernel_plot(
    noise: Mapping[str, Estimate],
    z: Mapping[str, NDArray[np.float64]],
    geometry: LocalGeometry,
    *,
    used: str,
    title: str = "",
) -> Figure:
    """Noise of each kind of label, Stein's identity, and the local distributions of the perturbed configurations.

    Args:
        noise: noise floor of each kind of label [force unit squared].
        z: Stein's identity of each kind, `(n_fields,)`.
        geometry: divergences from the data.
        used: the kind in use.
        title: title of the figure.
    """
    figure = new_figure(12.0, 4.2, title)
    left, middle, right = figure.subplots(1, 3, width_ratios=[0.9, 1.0, 1.5])
    kinds = list(noise)
    colours = dict(zip(kinds, COLOURS, strict=False))
    for number, kind in enumerate(kinds):
        estimate = noise[kind]
        left.errorbar(number, estimate.value, 2 * estimate.standard_error, fmt="o", color=colours[kind], capsize=4)
    left.set_xticks(range(len(kinds)), [f"{kind}\n(used)" if kind == used else kind for kind in kinds])
    left.set_yscale("log")
    left.set_xlim(-0.6, len(kinds) - 0.4)
    left.set_ylabel(f"noise of a force component\n[{noise[used].unit}]")
    left.grid(axis="x", visible=False)

    limit = max(4.0, *(1.1 * float(np.abs(values).max()) for values in z.values()))
    middle.axhspan(-3.5, 3.5, color=REFERENCE, alpha=0.08, linewidth=0)
    for kind in kinds:
        ordered = np.sort(z[kind])
        middle.plot(np.linspace(0, 1, len(ordered)), ordered, color=colours[kind], label=kind)
    middle.set(xlabel="share of the fields", ylabel="Stein's identity [standard errors]", ylim=(-limit, limit))
    middle.legend(loc="upper left")

    place = np.arange(len(geometry.names))
    right.plot(place, np.maximum(geometry.divergence, 1e-6), "o", color=COLOURS[0], label="perturbed against data")
    right.plot(place, np.maximum(geometry.own, 1e-6), "_", color=DATA, markersize=9, label="halves of the data")
    start = 0
    for kind in dict.fromkeys(geometry.kinds):
        count = geometry.kinds.count(kind)
        right.annotate(
            f"{kind}s", (start + 0.5 * (count - 1), 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom"
        )
        start += count
        right.axvline(start - 0.5, color=DATA, linewidth=0.8)
    right.set_yscale("log")
    right.set(ylabel="Jensen-Shannon divergence", xlim=(-0.7, len(place) - 0.3), ylim=(5e-7, 1.5))
    if len(place) <= 36:
        right.set_xticks(place, geometry.names, rotation=90, fontsize=7.5)
    else:
        right.set_xticks([])
        right.set_xlabel("local coordinate")
    right.grid(axis="x", visible=False)
    right.legend(loc="lower right")
    return figure
