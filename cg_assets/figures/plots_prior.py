"""Figure of a fitted prior; returns a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cg_assets.figures.plot_style import COLOURS, DATA, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cg_assets.training.priors import PriorFit

_COLUMNS = 5
_COORDINATES = {"bonds": "r [nm]", "angles": "cos θ", "dihedrals": "φ [rad]", "repulsion": "r [nm]"}


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
