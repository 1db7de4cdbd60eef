"""Figures of evaluations at several temperatures, of one or several potentials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cg_assets.core.statistics.estimates import Estimate, ratio
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.evaluation.quantity import Quantity
from cg_assets.figures.style import (
    DATA,
    REFERENCE,
    Curve,
    axis_label,
    band,
    colours_of,
    drawn,
    error_bars,
    new_figure,
    note_errors,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MELTING = {
    ("folded_share", ""): "folded share",
    ("heat_capacity", ""): "heat capacity without kinetic part\n[kJ/mol/K]",
    ("potential_energy", ""): "potential energy of the atoms [kJ/mol]",
}
"""What melts, with the label of its axis."""
_AXES = {
    "rdf": ("distance [nm]", "g(r)", 1.0, 1.0),
    "adf": ("angle [°]", "density [1/rad]", float(np.degrees(1.0)), 1.0),
    "rdf_slope": ("distance [nm]", "dg/dT [10⁻³/K]", 1.0, 1e3),
}
"""Profile to the labels of its axes, and what its coordinate and its values are multiplied with."""


def temperature_figures(
    evaluations: Mapping[str, Evaluation], title: str, colours: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """Figures at several temperatures: name to PNG, one or several potentials in each.

    Args:
        evaluations: potential to its evaluation.
        title: of the figures.
        colours: of the potentials; None for one after the other.
    """
    first = next(iter(evaluations.values()))
    draw = _of_liquid if first.at_temperatures("rdf_error") else _of_molecule
    return draw(evaluations, title, colours or colours_of(list(evaluations)))


def _of_liquid(evaluations: Mapping[str, Evaluation], title: str, colours: Mapping[str, str]) -> dict[str, bytes]:
    diffusion: dict[str, dict[float, Estimate]] = {label: {} for label in ("atoms", *evaluations)}
    for label, evaluation in evaluations.items():
        for kelvin, item in evaluation.at_temperatures("diffusion").items():
            diffusion[label][kelvin] = item.value
            if item.reference is not None:
                diffusion["atoms"][kelvin] = item.reference
    errors = {("rdf_error", ""): "error of g(r) [nm]", ("adf_error", ""): "error of angles"}
    energies = {
        ("potential_energy", ""): "potential energy of a molecule [kJ/mol]",
        ("heat_capacity", ""): "heat capacity without kinetic part\n[kJ/mol/K]",
    }
    return {
        "errors": against_temperature(evaluations, errors, f"{title}, errors", colours=colours, noise=True),
        "radial distribution": profiles_plot(evaluations, "rdf", f"{title}, structure", colours=colours),
        "angular distribution": profiles_plot(evaluations, "adf", f"{title}, angles", colours=colours),
        "energies": against_temperature(evaluations, energies, f"{title}, energies", colours=colours),
        "diffusion": diffusion_plot(diffusion, "atoms", f"{title}, diffusion", colours=colours),
        "change of structure with temperature": profiles_plot(
            evaluations, "rdf_slope", f"{title}, change of structure with temperature", colours=colours
        ),
    }


def _of_molecule(evaluations: Mapping[str, Evaluation], title: str, colours: Mapping[str, str]) -> dict[str, bytes]:
    """Melting, energies and errors of a molecule, and its free energies at each temperature."""
    every = [item for evaluation in evaluations.values() for item in evaluation.quantities]
    there = {(item.name, item.where) for item in every if item.temperature is not None}
    basins = {
        ("population", where): f"population of {where.replace('_', ' ')}"
        for name, where in there
        if name == "population"
    }
    melting = _MELTING | dict(sorted(basins.items()))
    errors = {
        ("pmf_error", ""): "PMF error",
        ("jsd", "slow coordinates"): "divergence in the slow coordinates",
        ("time_scale", "TIC 1"): "slowest time scale [ps]",
    }
    figures = {}
    for name, labels, noise in (("melting", melting, False), ("errors", errors, True)):
        if shown := {key: label for key, label in labels.items() if key in there}:
            figures[name] = against_temperature(evaluations, shown, f"{title}, {name}", colours=colours, noise=noise)
    first = next(iter(evaluations.values()))
    for along in dict.fromkeys(line.where for line in first.profiles if line.name == "free_energy"):
        name = f"free energy of {along}"
        figures[name] = profiles_plot(evaluations, "free_energy", f"{title}, {name}", along, colours=colours)
    return figures


@drawn
def profiles_plot(
    evaluations: Mapping[str, Evaluation],
    name: str,
    title: str = "",
    where: str = "",
    *,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """One profile of all potentials at each temperature, that of the atoms in black, with their differences below.

    Args:
        evaluations: potential to its evaluation.
        name: `rdf`, `adf`, `rdf_slope` or `free_energy`.
        title: of the figure.
        where: the collective variable that it runs along; empty where the name includes it.
        colours: of the potentials; None for one after the other.
    """
    kelvins = next(iter(evaluations.values())).temperatures
    columns = min(3, len(kelvins))
    rows = math.ceil(len(kelvins) / columns)
    figure = new_figure(3.6 * columns, 3.4 * rows, title)
    panels = figure.subplots(2 * rows, columns, squeeze=False, sharex=True, height_ratios=[2, 1] * rows)
    colours = colours or colours_of(list(evaluations))
    along, height, scale, size = _AXES.get(name, (axis_label(where), "free energy [kJ/mol]", 1.0, 1.0))
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        upper, lower = panels[2 * row, column], panels[2 * row + 1, column]
        if number >= len(kelvins):
            upper.set_axis_off()
            lower.set_axis_off()
            continue
        kelvin, black = kelvins[number], False
        for label, evaluation in evaluations.items():
            line = evaluation.profile(name, where, kelvin)
            if line is None:
                continue
            grid = line.grid * scale
            if not black:
                known = Curve("atoms", grid, size * line.reference, size * line.reference_error)
                band(upper, known, REFERENCE, zorder=2.5)
                black = True
            band(upper, Curve(label, grid, size * line.values, size * line.standard_error), colours[label])
            error = np.hypot(line.standard_error, line.reference_error)
            with np.errstate(invalid="ignore"):  # bins that neither has
                rest = Curve(label, grid, size * (line.values - line.reference), size * error)
            band(lower, rest, colours[label])
        upper.set_title(f"{kelvin:g} K")
        lower.axhline(0.0, color=REFERENCE, linewidth=0.8)
        if column == 0:
            upper.set_ylabel(height)
            lower.set_ylabel("difference")
        if row == rows - 1:
            lower.set_xlabel(along)
        if black and not figure.legends:
            figure.legend(*upper.get_legend_handles_labels(), loc="outside right upper")
    return figure


@drawn
def against_temperature(
    evaluations: Mapping[str, Evaluation],
    labels: Mapping[tuple[str, str], str],
    title: str = "",
    *,
    colours: Mapping[str, str] | None = None,
    noise: bool = False,
) -> Figure:
    """Quantities against temperature, a panel for each.

    Args:
        evaluations: potential to its evaluation.
        labels: name and place of a quantity to the label of its axis.
        title: of the figure.
        colours: of the potentials; None for one after the other.
        noise: whether the references are what noise alone would give, dotted for each potential, and not the numbers of
            the atoms, in black.
    """
    figure = new_figure(4.5 * len(labels), 3.6, title)
    panels = figure.subplots(1, len(labels), squeeze=False)[0]
    chosen = colours or colours_of(list(evaluations))
    for axes, ((name, where), label) in zip(panels, labels.items(), strict=True):
        atoms: dict[float, Estimate] = {}
        for potential, evaluation in evaluations.items():
            colour, found = chosen[potential], evaluation.at_temperatures(name, where)
            known = {kelvin: item.reference for kelvin, item in found.items() if item.reference is not None}
            error_bars(axes, list(found), (item.value for item in found.values()), colour, label=potential)
            if noise:
                axes.plot(list(known), [item.value for item in known.values()], ":", color=colour, linewidth=1.0)
            atoms |= known
        if not noise:
            error_bars(axes, list(atoms), atoms.values(), REFERENCE, label="atoms")
        axes.set(xlabel="temperature [K]", ylabel=label)
        if noise:
            axes.plot([], [], ":", color=DATA, linewidth=1.0, label="noise alone")
            axes.set_ylim(bottom=0.0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    note_errors(figure)
    return figure


@drawn
def reference_melting_plot(quantities: Sequence[Quantity], title: str = "") -> Figure:
    """Folded share and energies of the atoms against temperature: by all temperatures (MBAR), and by each alone.

    Args:
        quantities: of a reference at several temperatures.
        title: of the figure.
    """
    there = {(item.name, item.where) for item in quantities}
    shown = {key: label for key, label in _MELTING.items() if key in there}
    figure = new_figure(4.5 * len(shown), 3.6, title)
    for axes, (key, label) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        own = [item for item in quantities if (item.name, item.where) == key]
        kelvin = np.array([item.temperature for item in own])
        alone = [item.reference or Estimate(math.nan, math.nan) for item in own]
        beside = kelvin + 0.06 * np.diff(kelvin).min()
        error_bars(axes, beside, alone, DATA, label="this temperature alone", linestyle="")
        error_bars(axes, kelvin, (item.value for item in own), REFERENCE, label="all temperatures")
        axes.set(xlabel="temperature [K]", ylabel=label)
        axes.legend()
    return figure


@drawn
def diffusion_plot(
    diffusion: Mapping[str, Mapping[float, Estimate]],
    reference: str,
    title: str = "",
    *,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Diffusion coefficients against 1/T, and how much faster beads are than the molecules of the reference.

    Args:
        diffusion: label to temperature [K] to D [nm²/ps].
        reference: label of the atomistic simulation.
        title: of the figure.
        colours: of the others; None for one after the other.
    """
    figure = new_figure(9.0, 3.6, title)
    left, right = figure.subplots(1, 2)
    others = colours or colours_of([label for label in diffusion if label != reference])
    shades = {**others, reference: REFERENCE}
    for label, values in diffusion.items():
        kelvin = np.array(sorted(values))
        error_bars(left, 1000.0 / kelvin, [values[each] for each in kelvin], shades[label], label=label)
        both = [each for each in kelvin if each in diffusion[reference] and label != reference]
        if both:
            ratios = [ratio(values[each], diffusion[reference][each]) for each in both]
            error_bars(right, both, ratios, shades[label], label=label)
    left.set(xlabel="1000 K / T", ylabel="D [nm²/ps]", yscale="log", title="Diffusion")
    right.set(xlabel="temperature [K]", ylabel="D of beads / D of atoms", title="Factor between time scales")
    right.set_ylim(bottom=0.0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper")
    note_errors(figure)
    return figure
