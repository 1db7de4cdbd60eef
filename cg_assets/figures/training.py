"""Figures of priors and of training; every function returns a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.figures.style import (
    COLOURS,
    DATA,
    REFERENCE,
    Curve,
    band,
    drawn,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cg_assets.training.priors import PriorFit


_COLUMNS = 5
_COORDINATES = {"bonds": "r [nm]", "angles": "cos θ", "dihedrals": "φ [rad]", "repulsion": "r [nm]"}


@drawn
def training_plot(
    history: Sequence[Mapping[str, Any]], noise_floor: Estimate, *, best_epoch: int | None = None, title: str = ""
) -> Figure:
    """Training and held-out loss with the noise floor, and the loss above the floor on a logarithmic axis.

    Args:
        history: one entry per epoch with `epoch`, `held_out_loss` and, unless it was solved for, `training_loss`.
        noise_floor: smallest loss that any potential can reach on these labels, with its error and unit.
        best_epoch: epoch whose weights were kept; None for the one of least held-out loss.
        title: title of the figure.
    """
    epoch = np.array([row["epoch"] for row in history])
    training = np.array([row.get("training_loss", row["held_out_loss"]) for row in history])
    held_out = np.array([row["held_out_loss"] for row in history])
    best = int(epoch[np.argmin(held_out)]) if best_epoch is None else best_epoch
    figure = new_figure(10.0, 4.3, title)
    left, right = figure.subplots(1, 2)
    unit = f" [{noise_floor.unit}]" if noise_floor.unit else ""
    value, error = noise_floor.value, np.nan_to_num(noise_floor.standard_error)
    left.axhspan(value - 2 * error, value + 2 * error, color=REFERENCE, alpha=0.13, linewidth=0)
    left.axhline(
        value,
        color=REFERENCE,
        linewidth=1.4,
        linestyle=(0, (4, 2)),
        label="noise floor" + (" ± 2 standard errors" if error > 0 else ""),
    )
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
def flow_training_plot(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Flow-matching loss by epoch, training and held out."""
    figure = new_figure(6.5, 4.0, title)
    axes = figure.subplots()
    epoch = [row["epoch"] for row in history]
    for name, colour, label in (
        ("training_loss", COLOURS[1], "training"),
        ("held_out_loss", COLOURS[0], "held out, the same noise each time"),
    ):
        axes.plot(epoch, [row[name] for row in history], color=colour, marker="o", label=label)
    axes.set(xlabel="epoch", ylabel="flow-matching loss [noise²], 1 for no flow")
    axes.locator_params(axis="x", integer=True)
    axes.legend(loc="upper right")
    return figure


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
    noise = np.sqrt([held_out[each]["forces"].noise_floor for each in kelvin])
    name = "error of the potential" if noise.any() else "deviation, noise included"
    band(left, Curve(name, kelvin, np.array([root.value for root in roots]), error), COLOURS[0])
    if noise.any():
        left.plot(kelvin, noise, color=REFERENCE, linestyle=":", label="noise of the labels")
    left.set(xlabel="temperature [K]", ylabel="force error [kJ/mol/nm]", title="Mean force")
    left.set_ylim(bottom=0.0)
    names = {"forces": "forces", "first_order": "first order", "second_order": "second order"}
    explained: list[NDArray[np.float64]] = []
    for colour, (quantity, label) in zip(COLOURS, names.items(), strict=False):
        if quantity not in held_out[kelvin[0]]:
            continue
        part = np.array([held_out[each][quantity].explained for each in kelvin])
        if not np.isfinite(part).any():
            continue
        explained.append(part[np.isfinite(part)])
        right.plot(kelvin, part, color=colour, marker="o", label=label)
    right.set(xlabel="temperature [K]", ylabel="explained part of the signal", title="Forces and responses")
    # Of a signal that its noise hides, the part that is explained has no bounds.
    low, high = np.quantile(np.concatenate(explained), [0.0, 1.0]) if explained else (0.0, 1.0)
    right.set_ylim(max(-2.0, min(0.0, low)) - 0.05, min(3.0, max(1.0, high)) + 0.05)
    for axes in (left, right):
        axes.legend()
    return figure


@drawn
def prior_plot(fit: PriorFit, simulated: Sequence[NDArray[np.float64]], *, title: str = "") -> Figure:
    """The worst terms of each kind: data, fit, and the simulation of the prior alone.

    Args:
        fit: the prior.
        simulated: probabilities in the simulation of each term, in order; empty where it failed.
        title: title of the figure.
    """
    kinds = list(dict.fromkeys(term.kind for term in fit.terms))
    figure = new_figure(12.0, 2.4 * len(kinds) + 0.6, title)
    grid = figure.subplots(len(kinds), _COLUMNS, squeeze=False)
    for row, kind in zip(grid, kinds, strict=True):
        of_kind = [index for index, term in enumerate(fit.terms) if term.kind == kind]
        of_kind.sort(key=lambda index: -np.nan_to_num(fit.terms[index].divergence))
        for axes, index in zip(row, of_kind, strict=False):
            term = fit.terms[index]
            centres, width = 0.5 * (term.edges[1:] + term.edges[:-1]), np.diff(term.edges)
            axes.fill_between(centres, term.data / width, color=DATA, alpha=0.35, linewidth=0, label="data")
            if len(term.model):
                axes.plot(centres, term.model / width, color=COLOURS[0], label="fit")
            if len(simulated):
                axes.plot(centres, simulated[index] / width, color=COLOURS[1], linewidth=1.0, label="prior alone")
            if kind == "repulsion":
                axes.axvline(term.numbers[0], color=COLOURS[0], label="σ")
            axes.set_title(term.name, fontsize=8)
            axes.set_xlabel(_COORDINATES[kind], fontsize=8)
            axes.set_yticks([])
            axes.tick_params(labelsize=7.5)
        for axes in row[len(of_kind) :]:
            axes.set_axis_off()
        row[0].set_ylabel(f"{kind}\n({min(len(of_kind), _COLUMNS)} of {len(of_kind)})")
        row[0].legend(fontsize=7, loc="best")
    return figure
