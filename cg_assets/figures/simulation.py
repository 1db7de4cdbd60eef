"""Figures of CG simulations and of the dynamics of liquids; every function returns a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import unit
from cg_assets.evaluation.distributions import Distribution
from cg_assets.evaluation.metrics.rdf import structure_and_energy
from cg_assets.figures.style import (
    COLOURS,
    REFERENCE,
    Curve,
    axis_label,
    band,
    drawn,
    error_bars,
    new_figure,
)
from cg_assets.mapping.beads import Beads
from cg_assets.simulation.run import CGSimulationResult
from cg_assets.simulation.settings import UNBIASED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def cg_simulation_figure(beads: Beads, result: CGSimulationResult, name: str) -> bytes:
    """Temperature and energies of a CG simulation with a potential; of a liquid at several, structure and energy.

    Of a molecule at several temperatures, the lowest is shown at which a replica stayed stable.
    """
    if beads.temperatures:
        return water_plot(*structure_and_energy(result.frames), of="W", title=f"{beads.title}: CG simulation {name}")
    run = next(run for run in result.runs if run.stable_replicas)
    free = result.frames.of_window(UNBIASED)
    free = free.select(free.temperature == run.temperature)
    replicas, member = np.unique(free.replica, return_inverse=True)
    times, moment = np.unique(np.round(free.time, 9), return_inverse=True)
    energies = np.full((len(replicas), len(times)), np.nan)
    if free.potential_energy is not None:
        energies[member, moment] = free.potential_energy
    energies -= np.nanmedian(energies)
    return cg_simulation_plot(
        result.replica_temperatures,
        run.temperature,
        run.kinetic_temperature.unit,
        mean=run.kinetic_temperature,
        time=times,
        energies=energies,
        time_unit=unit("time", beads.units),
        energy_unit=beads.energy_unit,
        stability=result.stability,
        title=f"{beads.title}: CG simulation {name}",
    )


@drawn
def cg_simulation_plot(
    kinetic_temperatures: ArrayLike,
    target_temperature: float,
    temperature_unit: str,
    *,
    mean: Estimate,
    time: ArrayLike | None = None,
    energies: ArrayLike | None = None,
    time_unit: str = "",
    energy_unit: str = "",
    stability: str = "",
    title: str = "",
) -> Figure:
    """Kinetic temperature of each replica against the target, and the potential energy along the CG simulation.

    Args:
        kinetic_temperatures: `(n_replicas,)` time averages; NaN for replicas that exploded.
        target_temperature: temperature of the thermostat.
        temperature_unit: its unit.
        mean: mean over stable replicas with its error.
        time: `(n_times,)` of the energies.
        energies: `(n_replicas, n_times)` potential energies; None for no such panel.
        time_unit: unit of time.
        energy_unit: unit of energy.
        stability: how many replicas were stable, in words.
        title: title of the figure.
    """
    figure = new_figure(10.5, 4.2, title)
    lines = np.empty((0, 0)) if energies is None else np.asarray(energies, dtype=np.float64)
    lines = lines[np.isfinite(lines).any(axis=1)]
    panels = figure.subplots(1, 2 if lines.size else 1, squeeze=False)[0]
    axes = panels[0]
    values = np.asarray(kinetic_temperatures, dtype=np.float64)
    lost = np.isnan(values)
    place = np.arange(len(values))
    axes.plot(place[~lost], values[~lost], "o", color=COLOURS[0], markersize=3.6, alpha=0.75, label="replica")
    if lost.any():
        at_target = np.full(int(lost.sum()), target_temperature)
        axes.plot(
            place[lost], at_target, "X", color=COLOURS[1], markersize=9, markeredgecolor="white", zorder=5,
            label="exploded replica",
        )  # fmt: skip
    axes.set_xlabel("replica")
    axes.set_title(stability.replace(", ", "\n"), fontsize=9.5, fontweight="normal")
    error = 2 * float(np.nan_to_num(mean.standard_error))
    axes.axhline(target_temperature, color=REFERENCE, linewidth=1.5, label=f"target {target_temperature:g}")
    axes.axhspan(mean.value - error, mean.value + error, color=COLOURS[2], alpha=0.35, linewidth=0)
    axes.axhline(mean.value, color=COLOURS[2], linestyle=(0, (4, 2)), linewidth=1.5, label=f"mean {mean}")
    axes.set_ylabel(f"kinetic temperature [{temperature_unit}]")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.25 * (high - low))
    axes.legend(loc="upper right", ncols=2)
    if lines.size:
        _energies(panels[1], lines, np.arange(lines.shape[1]) if time is None else np.asarray(time))
        panels[1].set(xlabel=axis_label("time", time_unit), ylabel=f"potential energy [{energy_unit}]")
    return figure


def _energies(axes: Axes, lines: NDArray[np.float64], moments: NDArray) -> None:
    """Median and middle 90 % over replicas of energies `(n_replicas, n_times)`, with a few replicas."""
    known = np.isfinite(lines).any(axis=0)
    lines, moments = lines[:, known], moments[known]
    low, median, high = np.nanquantile(lines, [0.05, 0.5, 0.95], axis=0)
    axes.fill_between(moments, low, high, color=COLOURS[5], alpha=0.35, linewidth=0, label="90 % of replicas")
    for line in lines[:: max(1, len(lines) // 4)][:4]:
        axes.plot(moments, line, color=COLOURS[5], linewidth=0.5, alpha=0.8)
    axes.plot(moments, median, color=COLOURS[0], label="median")
    axes.legend(loc="upper right", ncols=2)
    spread = float(high.max() - low.min()) + 1e-9
    axes.set_ylim(low.min() - 0.4 * spread, high.max() + 0.6 * spread)


@drawn
def water_plot(
    structure: Mapping[float, Distribution],
    energy: Mapping[float, Estimate],
    angles: Mapping[float, Distribution] | None = None,
    *,
    of: str = "potential energy",
    title: str = "",
) -> Figure:
    """g(r) of the beads, angles between neighbours and an energy of a molecule, at each temperature.

    Args:
        structure: g(r) by temperature [K].
        energy: energy of a molecule by temperature [kJ/mol].
        angles: angular distribution by temperature [K]; no panel where None.
        of: what the energy is.
        title: title of the figure.
    """
    import matplotlib

    panels = {"distance of two beads [nm]": (structure, "g(r)", 1.0)}
    if angles is not None:
        panels["angle of two neighbours [°]"] = (angles, "density [1/rad]", float(np.degrees(1.0)))
    figure = new_figure(6.3 + 4.2 * len(panels), 4.2, title)
    *places, right = figure.subplots(1, len(panels) + 1, width_ratios=[1.5] * len(panels) + [1.0])
    shades = matplotlib.colormaps["plasma"](np.linspace(0.0, 0.85, len(structure)))
    for axes, (name, (curves, height, scale)) in zip(places, panels.items(), strict=True):
        for (temperature, found), shade in zip(curves.items(), shades, strict=True):
            label = f"{temperature:g} K"
            band(axes, Curve(label, scale * found.grid, found.values, found.standard_error), shade)
        axes.set(xlabel=name, ylabel=height, ylim=(0, None))
    places[0].legend(loc="upper right", ncols=1 if len(structure) < 7 else 2)
    error_bars(right, list(energy), energy.values(), COLOURS[0])
    right.set(xlabel="temperature [K]", ylabel=f"{of} of a molecule [kJ/mol]")
    return figure
