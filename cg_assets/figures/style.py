"""One look for all figures: fonts, colours safe for the colour-blind, axes in multiples of π, PNG bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Parameters = ParamSpec("Parameters")

DPI = 110
REFERENCE = "#1a1a1a"
DATA = "#8c8c8c"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, in the order in which models are drawn."""
_ALWAYS = {"unbiased": 0, "atomistic": 0, "forces": 0, "biased": 1, "flow": 2, "products": 2, "noise": 3, "mixed": 4}
"""Usual names of potentials and their colours, the same in the figures of all systems."""
HIGHEST = 8.0
"""Free energies are drawn up to this many kT."""
FREE_ENERGY_MAP = "viridis"
DIFFERENCE_MAP = "RdBu_r"

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#333333",
    "axes.labelcolor": "#1a1a1a",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.titlesize": 12.5,
    "figure.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


@dataclass(frozen=True)
class Curve:
    """A labelled curve with an optional error band.

    Attributes:
        label: name in the legend.
        grid: `(n,)`.
        values: `(n,)`; not finite where nothing is known.
        standard_error: `(n,)`; None for exact curves.
    """

    label: str
    grid: NDArray[np.float64]
    values: NDArray[np.float64]
    standard_error: NDArray[np.float64] | None = None


def drawn(function: Callable[Parameters, Figure]) -> Callable[Parameters, bytes]:
    """Give a function that makes a figure the common style, and return PNG bytes instead of the figure."""

    @wraps(function)
    def draw(*args: Parameters.args, **kwargs: Parameters.kwargs) -> bytes:
        import matplotlib

        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            figure = function(*args, **kwargs)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()

    return draw


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure [inches] outside matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def axis_label(name: str, unit: str = "") -> str:
    """`φ [rad]`: Greek names are drawn as letters, units in brackets."""
    letters = {"phi": "φ", "psi": "ψ", "omega": "ω", "chi": "χ", "theta": "θ"}
    shown = letters.get(name, spoken(name))
    return f"{shown} [{unit}]" if unit else shown


def spoken(name: str) -> str:
    """A name as legends show it: `all temperatures` for `all_temperatures`."""
    return name.replace("_", " ")


def note_errors(figure: Figure) -> None:
    """Name the size of bands and error bars at the foot of a figure."""
    figure.supxlabel("bands and error bars: two standard errors", x=0.99, ha="right", fontsize=8.5, color="#555555")


def in_radians(low: float, high: float) -> bool:
    """Whether limits are a full turn from -π to π."""
    return abs(low + math.pi) < 0.05 and abs(high - math.pi) < 0.05


def angular_ticks(axis: Any, limits: tuple[float, float]) -> None:
    """Ticks at -π, -π/2, 0, π/2 and π on an axis that covers a full turn."""
    if in_radians(*limits):
        axis.set_ticks([-math.pi, -math.pi / 2, 0.0, math.pi / 2, math.pi], ["−π", "−π/2", "0", "π/2", "π"])


def band(axes: Axes, curve: Curve, colour: str, zorder: float = 3.0, **line: Any) -> None:
    """A curve with a band of two standard errors; gaps where it is not finite."""
    values = np.where(np.isfinite(curve.values), curve.values, np.nan)
    axes.plot(curve.grid, values, color=colour, label=spoken(curve.label), zorder=zorder, **line)
    if curve.standard_error is not None and np.isfinite(curve.standard_error).any():
        error = 2.0 * np.where(np.isfinite(curve.standard_error), curve.standard_error, np.nan)
        axes.fill_between(
            curve.grid, values - error, values + error, color=colour, alpha=0.22, linewidth=0, zorder=zorder - 1
        )


def colours_of(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label: that of `_ALWAYS` unless an earlier one has it, or else the next that is free."""
    fixed: dict[str, str] = {}
    for label in labels:
        if label in _ALWAYS and (colour := COLOURS[_ALWAYS[label]]) not in fixed.values():
            fixed[label] = colour
    free = [colour for colour in COLOURS if colour not in fixed.values()] or list(COLOURS)
    others = [label for label in labels if label not in fixed]
    found = fixed | {label: free[i % len(free)] for i, label in enumerate(others)}
    return {label: found[label] for label in labels}


def above_lowest(values: ArrayLike) -> NDArray[np.float64]:
    """Values less the lowest finite one."""
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    return array - (finite.min() if len(finite) else 0.0)


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    if not (math.isfinite(value) and value > 0):
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(scale * step for step in (1.0, 2.0, 2.5, 5.0, 10.0) if scale * step >= value * (1 - 1e-9))


def heat_map(axes: Axes, edges: Sequence[NDArray[np.float64]], values: ArrayLike, **settings: Any) -> Any:
    """Values `(n, m)` over two variables, of which the first runs to the right; grey where they are masked or nan."""
    x, y = edges
    mesh = axes.pcolormesh(x, y, np.ma.masked_invalid(np.ma.asarray(values).T), rasterized=True, **settings)
    axes.set_facecolor("#ececec")
    axes.grid(False)
    return mesh


def full_turns(axes: Axes, edges: Sequence[NDArray[np.float64]]) -> None:
    """Multiples of π on axes that cover a full turn, drawn to the same scale where both do."""
    ends = [(float(item[0]), float(item[-1])) for item in edges]
    for axis, limits in zip((axes.xaxis, axes.yaxis), ends, strict=True):
        angular_ticks(axis, limits)
    if all(in_radians(*limits) for limits in ends):
        axes.set_aspect("equal")


def colour_bar(mesh: Any, axes: Any, label: str, **settings: Any) -> None:
    """A colour bar without a frame."""
    first = axes[0] if isinstance(axes, list) else axes
    bar = first.figure.colorbar(mesh, ax=axes, **settings)
    bar.set_label(label)
    bar.outline.set_visible(False)


def error_bars(axes: Axes, x: ArrayLike, estimates: Iterable[Estimate], colour: str, **settings: Any) -> None:
    """Estimates as dots with bars of two standard errors."""
    found = list(estimates)
    settings |= {"label": spoken(settings["label"])} if "label" in settings else {}
    values, errors = ([getattr(item, name) for item in found] for name in ("value", "standard_error"))
    drawn_as: dict[str, Any] = {"marker": "o", "capsize": 2, **settings}
    axes.errorbar(x, values, 2 * np.array(errors), color=colour, **drawn_as)


def connected(there: NDArray[np.bool_], home: Sequence[int], edges: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """The bins that can be reached from the bin `home` through sides of bins that are there; full turns are closed.

    Beyond a gap, free energies from forces have an unknown constant: such islands are noise.
    """
    reached = np.zeros_like(there)
    reached[tuple(home)] = True
    while True:
        grown = reached.copy()
        for axis, edge in enumerate(edges):
            closed = in_radians(float(edge[0]), float(edge[-1]))
            for step in (1, -1):
                moved = np.roll(reached, step, axis)
                if not closed:
                    np.moveaxis(moved, axis, 0)[0 if step == 1 else -1] = False
                grown |= moved
        grown &= there
        if (grown == reached).all():
            return reached
        reached = grown


def aligned(curve: Curve, reference: Curve, interval: tuple[float, float]) -> Curve:
    """A curve shifted by the constant that brings it nearest to the reference on an interval."""
    inside = (curve.grid >= interval[0]) & (curve.grid <= interval[1]) & np.isfinite(curve.values)
    known = np.interp(curve.grid, reference.grid, reference.values)
    inside &= np.isfinite(known)
    shift = float(np.mean(curve.values[inside] - known[inside])) if inside.any() else 0.0
    return Curve(curve.label, curve.grid, curve.values - shift, curve.standard_error)
