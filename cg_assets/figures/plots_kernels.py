"""Figures of flows and of the labels of kernels; every function returns a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.figures.plot_style import COLOURS, DATA, REFERENCE, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cg_assets.core.statistics.local_geometry import LocalGeometry


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
        left.errorbar(number, estimate.value, estimate.standard_error, fmt="o", color=colours[kind], capsize=4)
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
