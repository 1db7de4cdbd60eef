"""Figures of thermal response labels; every function returns a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cg_assets.figures.style import (
    COLOURS,
    DATA,
    REFERENCE,
    drawn,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cg_assets.labels.thermal.differences import DifferenceTest
    from cg_assets.labels.thermal.frame_checks import FrameCheck
    from cg_assets.training.thermal_targets import ThermalTargets


_ORDERS: Sequence[tuple[str, str, int]] = (
    ("forces", "F", 0),
    ("first_order", "T dF/dT", 1),
    ("second_order", "T²/2 d²F/dT²", 2),
)


def _draw_check(left: Axes, middle: Axes, check: FrameCheck, max_disagreement: float) -> None:
    """Disagreement of the runs of one CG frame, and its heat capacity by two ways."""
    used = check.temperatures >= check.sound_from(max_disagreement)
    left.plot(check.temperatures, check.disagreement, "-", color=DATA, alpha=0.7, zorder=1)
    measured, expected = (np.array([item.value for item in steps]) for steps in (check.energy_steps, check.heat_steps))
    error = [
        np.hypot(a.standard_error, b.standard_error) for a, b in zip(check.energy_steps, check.heat_steps, strict=True)
    ]
    width = np.diff(check.temperatures)
    for part, colour, label in ((used, COLOURS[0], "used"), (~used, COLOURS[1], "not used")):
        if not part.any():
            continue
        known = left.get_legend_handles_labels()[1]
        left.plot(
            check.temperatures[part],
            check.disagreement[part],
            "o",
            color=colour,
            alpha=0.7,
            label=None if label in known else label,
        )
        steps = part[:-1]
        middle.errorbar(
            (expected / width)[steps],
            (measured / width)[steps],
            (error / width)[steps],
            fmt="o",
            color=colour,
            alpha=0.7,
            capsize=2,
        )


@drawn
def conditional_plot(
    checks: Mapping[int, FrameCheck], test: DifferenceTest, max_disagreement: float, *, title: str = ""
) -> Figure:
    """Whether conditional sampling can be trusted: runs against each other, energies, labels against differences.

    Args:
        checks: of each CG frame.
        test: covariance labels against finite differences.
        max_disagreement: largest disagreement that passes.
        title: title of the figure.
    """
    figure = new_figure(13.5, 4.4, title)
    left, middle, right = figure.subplots(1, 3)
    for check in checks.values():
        _draw_check(left, middle, check, max_disagreement)
    left.axhline(1.0, color=REFERENCE, linewidth=1.0)
    left.axhline(max_disagreement, color=REFERENCE, linewidth=1.0, linestyle="--", label="largest that is used")
    left.set(xlabel="temperature [K]", ylabel="difference of independent runs\n[standard errors]", ylim=(0, None))
    left.legend(loc="upper right", bbox_to_anchor=(1.0, 0.95), frameon=True, framealpha=0.9, edgecolor="none")
    _diagonal(middle)
    middle.set(xlabel="Var(u)/(kT²) [kJ/mol/K]", ylabel="d<u>/dT [kJ/mol/K]")
    labels, differences = (item.mean(axis=1).ravel() for item in (test.labels, test.differences))
    shown = slice(None, None, max(1, len(labels) // 3000))
    right.plot(1e3 * differences[shown], 1e3 * labels[shown], ".", color=DATA, markersize=3)
    _diagonal(right)
    right.set(
        xlabel="difference of mean forces / difference of T\n[10⁻³ kJ/mol/nm/K]",
        ylabel="Cov(u, f)/(kT²) [10⁻³ kJ/mol/nm/K]",
    )
    right.text(0.04, 0.93, f"slope {test.slope}", transform=right.transAxes)
    return figure


@drawn
def targets_plot(targets: ThermalTargets, *, title: str = "") -> Figure:
    """Size of the force and of its responses against their errors, by temperature.

    The size is the root mean square over beads with the noise taken out; responses are times T and T²/2, the change of
    the force that they make over a range of T.
    """
    figure = new_figure(9.0, 4.4, title)
    axes = figure.subplots()
    temperatures = np.unique(targets.temperature)
    for (name, label, power), colour in zip(_ORDERS, COLOURS, strict=False):
        values, errors = getattr(targets, name), getattr(targets, name + "_error")
        size, noise = [], []
        for temperature in temperatures:
            rows = targets.temperature == temperature
            scale = temperature**power / (2.0 if power == 2 else 1.0)
            variance = float((errors[rows] ** 2).mean())
            size.append(scale * np.sqrt(max(float((values[rows] ** 2).mean()) - variance, 0.0)))
            noise.append(scale * np.sqrt(variance))
        seen = _or_gap(size)
        if np.isfinite(seen).any():
            axes.plot(temperatures, seen, "o-", color=colour, label=label)
        axes.plot(temperatures, noise, "--", color=colour, label=f"standard error of {label}")
    axes.set_yscale("log")
    axes.set(xlabel="temperature [K]", ylabel="root mean square of a component [kJ/mol/nm]")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _or_gap(values: Sequence[float]) -> NDArray[np.float64]:
    """A gap where the noise is larger than the signal."""
    array = np.array(values)
    return np.where(array > 0, array, np.nan)


def _diagonal(axes: object) -> None:
    """The line of equality over what is shown."""
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])  # type: ignore[attr-defined]
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])  # type: ignore[attr-defined]
    axes.plot([low, high], [low, high], color=REFERENCE, linewidth=1.0, zorder=1)  # type: ignore[attr-defined]
    axes.set(xlim=(low, high), ylim=(low, high))  # type: ignore[attr-defined]
