"""Figures of training and of CG simulations; every function returns a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.metrics.bonds import BondMonitor
from cg_assets.figures.plot_style import (
    COLOURS,
    DATA,
    REFERENCE,
    axis_label,
    drawn,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@drawn
def training_plot(
    history: Sequence[Mapping[str, Any]], noise_floor: Estimate, *, best_epoch: int | None = None, title: str = ""
) -> Figure:
    """Training and held-out loss with the noise floor, and the loss above the floor on a logarithmic axis.

    Args:
        history: one entry per epoch with `epoch`, `training_loss`, `held_out_loss` and `learning_rate`.
        noise_floor: smallest loss that any potential can reach on these labels, with its error and unit.
        best_epoch: epoch whose weights were kept; None for the one of least held-out loss.
        title: title of the figure.
    """
    epoch = np.array([row["epoch"] for row in history])
    training = np.array([row["training_loss"] for row in history])
    held_out = np.array([row["held_out_loss"] for row in history])
    best = int(epoch[np.argmin(held_out)]) if best_epoch is None else best_epoch
    figure = new_figure(10.0, 4.3, title)
    left, right = figure.subplots(1, 2)
    unit = f" [{noise_floor.unit}]" if noise_floor.unit else ""
    value, error = noise_floor.value, np.nan_to_num(noise_floor.standard_error)
    left.axhspan(value - 2 * error, value + 2 * error, color=REFERENCE, alpha=0.13, linewidth=0)
    left.axhline(value, color=REFERENCE, linewidth=1.4, linestyle=(0, (4, 2)), label="noise floor ± 2 standard errors")
    for axes, offset in ((left, 0.0), (right, value)):
        for loss, colour, label in ((training, COLOURS[1], "training"), (held_out, COLOURS[0], "held out")):
            shown = np.where(loss - offset > 0, loss - offset, np.nan)
            axes.plot(epoch, shown, color=colour, marker="o", label=label)
        axes.axvline(best, color=DATA, linewidth=1.2, linestyle=":", label=f"kept: epoch {best}")
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
    spread = max(float(np.median(np.concatenate([training, held_out]))) - value, 4 * error, 1e-9)
    top = max(float(held_out[len(held_out) // 4 :].max()), float(training[len(training) // 4 :].max()), value + spread)
    lowest = min(float(training.min()), float(held_out.min()), value - 2 * error)
    left.set(ylabel=f"force-matching loss{unit}", ylim=(lowest - 0.12 * (top - lowest), top + 0.35 * (top - lowest)))
    left.legend(loc="upper right")
    above = np.concatenate([training - value, held_out - value])
    right.set_ylabel(f"loss − noise floor{unit}")
    if not (above > 0).any():
        right.annotate("all losses are below the noise floor", (0.5, 0.5), xycoords="axes fraction", ha="center")
    else:
        right.set_yscale("log")
        bottom = max(0.6 * above[above > 0].min(), 0.1 * error)
        right.set_ylim(bottom, 2.0 * above.max())
        if 2 * error > bottom:
            right.axhspan(bottom, 2 * error, color=REFERENCE, alpha=0.13, linewidth=0)
            right.annotate("not distinguishable from the floor", (0.03, 0.035), xycoords="axes fraction", fontsize=9)
    return figure


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
def bond_length_plot(
    monitor: BondMonitor,
    bead_names: Sequence[str],
    *,
    unit: str = "nm",
    tolerated: float | None = None,
    title: str = "",
) -> Figure:
    """Bond-length distributions of the CG simulation over those of the data, a panel for each bond.

    Args:
        monitor: the bond monitor; the 12 bonds of largest divergence are drawn.
        bead_names: name of each bead.
        unit: unit of length.
        tolerated: divergence above which a bond is marked; None marks none.
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
        axes.stairs(monitor.simulation[bond] / width, edges, color=COLOURS[0], linewidth=1.7, label="CG simulation")
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
