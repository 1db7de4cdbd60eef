"""Figures of the labels of a source, drawn from what the source says of them; every function returns a PNG."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from cg_assets.figures.plots_kernels import kernel_plot
from cg_assets.labels.kernels.run import KernelReport


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
