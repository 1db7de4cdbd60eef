"""Figures of temperature-dependent potentials and of the liquids that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cg_assets.analysis.plot_style import COLOURS, REFERENCE, Curve, band, colours_of, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cg_assets.analysis.estimates import Estimate
    from cg_assets.analysis.liquid import Distribution


@drawn
def response_training_plot(held_out: Mapping[float, Mapping[str, Any]], title: str = "") -> Figure:
    """Errors of a potential on held-out frames against temperature, the noise of the labels subtracted.

    Args:
        held_out: temperature [K] to quantity to `cg_assets.training.response.Deviation`.
        title: of the figure.
    """
    figure = new_figure(9.0, 3.4, title)
    left, right = figure.subplots(1, 2)
    kelvin = np.array(sorted(held_out))
    roots = [held_out[each]["forces"].root for each in kelvin]
    error = np.array([root.standard_error for root in roots])
    band(left, Curve("error of the potential", kelvin, np.array([root.value for root in roots]), error), COLOURS[0])
    noise = np.sqrt([held_out[each]["forces"].noise_floor for each in kelvin])
    left.plot(kelvin, noise, color=REFERENCE, linestyle=":", label="noise of the labels")
    left.set(xlabel="temperature [K]", ylabel="force error [kJ/mol/nm]", title="Mean force")
    left.set_ylim(bottom=0.0)
    names = {"forces": "forces", "first_order": "first order", "second_order": "second order"}
    for colour, (quantity, label) in zip(COLOURS, names.items(), strict=False):
        part = np.array([held_out[each][quantity].explained for each in kelvin])
        right.plot(kelvin, part, color=colour, marker="o", label=label)
    right.set(xlabel="temperature [K]", ylabel="explained part of the signal", title="Forces and responses")
    right.set_ylim(-0.05, 1.05)
    for axes in (left, right):
        axes.legend()
    return figure


@drawn
def structure_plot(
    radial: Mapping[str, Distribution], angular: Mapping[str, Distribution], reference: str, title: str = ""
) -> Figure:
    """Radial and angular distributions of several liquids, the reference in black, and their differences from it.

    Args:
        radial: label to g(r).
        angular: label to the distribution of angles.
        reference: label of the reference.
        title: of the figure.
    """
    figure = new_figure(10.0, 5.6, title)
    panels = figure.subplots(2, 2, sharex="col", height_ratios=[2, 1])
    colours = colours_of([label for label in radial if label != reference]) | {reference: REFERENCE}
    kinds = ((radial, "distance [nm]", "g(r)"), (angular, "angle [°]", "density [1/rad]"))
    for column, (curves, axis, height) in enumerate(kinds):
        scale = np.degrees(1.0) if column else 1.0
        exact = curves[reference]
        for label, curve in curves.items():
            line: dict[str, Any] = {"zorder": 4.0 if label == reference else 3.0}
            whole = Curve(label, curve.grid * scale, curve.values, curve.standard_error)
            band(panels[0, column], whole, colours[label], **line)
            if label != reference:
                error = np.hypot(curve.standard_error, exact.standard_error)
                rest = Curve(label, curve.grid * scale, curve.values - exact.values, error)
                band(panels[1, column], rest, colours[label])
        panels[0, column].set(ylabel=height)
        panels[1, column].axhline(0.0, color=REFERENCE, linewidth=0.8)
        panels[1, column].set(xlabel=axis, ylabel="difference")
    panels[0, 0].legend()
    return figure


@drawn
def diffusion_plot(diffusion: Mapping[str, Mapping[float, Estimate]], reference: str, title: str = "") -> Figure:
    """Diffusion coefficients against 1/T, and how much faster beads are than the molecules of the reference.

    Args:
        diffusion: label to temperature [K] to D [nm²/ps].
        reference: label of the atomistic simulation.
        title: of the figure.
    """
    figure = new_figure(9.0, 3.6, title)
    left, right = figure.subplots(1, 2)
    colours = colours_of([label for label in diffusion if label != reference]) | {reference: REFERENCE}
    for label, values in diffusion.items():
        kelvin = np.array(sorted(values))
        found = np.array([values[each].value for each in kelvin])
        error = np.array([values[each].standard_error for each in kelvin])
        left.errorbar(1000.0 / kelvin, found, 2 * error, color=colours[label], marker="o", capsize=2, label=label)
        if label == reference:
            continue
        both = np.array([each for each in kelvin if each in diffusion[reference]])
        slow = [diffusion[reference][each] for each in both]
        fast = [values[each] for each in both]
        ratio = np.array([one.value / two.value for one, two in zip(fast, slow, strict=True)])
        relative = [
            np.hypot(one.standard_error / one.value, two.standard_error / two.value)
            for one, two in zip(fast, slow, strict=True)
        ]
        right.errorbar(both, ratio, 2 * ratio * relative, color=colours[label], marker="o", capsize=2, label=label)
    left.set(xlabel="1000 K / T", ylabel="D [nm²/ps]", yscale="log", title="Diffusion")
    right.set(xlabel="temperature [K]", ylabel="D of beads / D of atoms", title="Factor between time scales")
    right.set_ylim(bottom=0.0)
    left.legend()
    return figure


@drawn
def slope_plot(one_run: Distribution, two_runs: Distribution, temperature: float, title: str = "") -> Figure:
    """dg(r)/dT from the covariance with U_W in one run, and from the difference of two runs."""
    figure = new_figure(6.0, 3.4, title)
    axes = figure.subplots()
    pairs = (("difference of two runs", two_runs, REFERENCE), ("covariance in one run", one_run, COLOURS[0]))
    for label, curve, colour in pairs:
        band(axes, Curve(label, curve.grid, 1e3 * curve.values, 1e3 * curve.standard_error), colour)
    axes.axhline(0.0, color=REFERENCE, linewidth=0.8)
    axes.set(xlabel="distance [nm]", ylabel="dg/dT [10⁻³/K]", title=f"Change of structure at {temperature:g} K")
    axes.legend()
    return figure


@drawn
def accuracy_against_speed_plot(
    speed: Mapping[str, float], error: Mapping[str, Estimate], atoms: float | None = None, title: str = ""
) -> Figure:
    """Force error of potentials against the CG steps that they make in a second; atomistic steps as a line.

    Args:
        speed: label to steps per second.
        error: label to force error [kJ/mol/nm].
        atoms: atomistic steps per second of the same molecules.
        title: of the figure.
    """
    figure = new_figure(6.0, 3.8, title)
    axes = figure.subplots()
    for label, colour in colours_of(list(speed)).items():
        bar: ArrayLike = 2 * error[label].standard_error
        axes.errorbar(speed[label], error[label].value, bar, color=colour, marker="o", capsize=2, label=label)
    if atoms is not None:
        axes.axvline(atoms, color=REFERENCE, linestyle=":", label="atoms (steps/s)")
    powers = np.log10([*speed.values(), *([] if atoms is None else [atoms])])
    axes.set(xlabel="steps per second", ylabel="force error [kJ/mol/nm]", xscale="log")
    axes.set_xlim(10.0 ** np.floor(powers.min()), 10.0 ** np.ceil(powers.max()))
    axes.set_ylim(bottom=0.0)
    axes.legend()
    return figure
