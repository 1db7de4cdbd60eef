"""Checks of data: what they ask, and their verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cg_assets.core.statistics.estimates import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cg_assets.core.frames import Frames


@dataclass(frozen=True)
class Check:
    """A check of what a stage makes.

    Attributes:
        name: of the check.
        description: what it asks, in a sentence.
        blocking: whether nothing downstream uses what fails it.
        warns: whether failing it is a warning, not an error.
        remedy: what to do when it fails.
    """

    name: str
    description: str
    blocking: bool = True
    warns: bool = False
    remedy: str = "see the figures on the page of the stage"

    def verdict(self, passed: bool, **facts: Any) -> Verdict:
        """The outcome, with the numbers behind it: plain types or an `Estimate`; those that are None are left out."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in facts.items()}
        return Verdict(self, bool(passed), {name: value for name, value in plain.items() if value is not None})


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check."""

    check: Check
    passed: bool
    facts: dict[str, Any]

    @property
    def plain_facts(self) -> dict[str, Any]:
        """The facts in plain types: an estimate is its value, with `NAME_standard_error` and `NAME_unit`."""
        plain: dict[str, Any] = {}
        for name, fact in self.facts.items():
            if not isinstance(fact, Estimate):
                plain[name] = fact
                continue
            plain |= {name: fact.value, f"{name}_standard_error": fact.standard_error, f"{name}_unit": fact.unit}
        return plain

    @property
    def message(self) -> str:
        """The outcome in a line: the check, the numbers behind it, and the remedy where it failed."""
        shown = {name: _short(value) for name, value in self.facts.items() if value != ""}
        if shown.get("standard_error") == "nan":
            shown["standard_error"] = "unknown"
        numbers = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())
        found = self.facts.get("reason") or numbers
        if self.passed:
            return f"{self.check.name} passed: {found}"
        return f"{self.check.name} failed: {found}; {self.check.remedy}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


FINITE_BEADS = Check(
    "finite",
    "Every bead position and force is a finite number, and none is ten thousand times the median.",
    remedy="look for overlapping atoms in the frames that they were made from, and sample those again",
)


ABSURD = 1e4
"""Times the median of all frames beyond which the largest position or force of a frame is no result of dynamics."""


def absurd(numbers: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which frames of `(n_frames, ...)` hold a number that is not finite, or absurd next to those of other frames."""
    if numbers.size == 0:
        return np.zeros(len(numbers), dtype=bool)
    flat = numbers.reshape(len(numbers), -1)
    top = np.float64(max(flat.max(), -flat.min()))
    if top < np.inf and top <= ABSURD * np.float64(np.median(np.abs(flat[:, :1]))):  # the usual case, fast
        return np.zeros(len(flat), dtype=bool)
    largest = np.abs(flat).max(axis=1)
    finite = np.isfinite(largest)
    median = float(np.median(largest[finite])) if finite.any() else 0.0
    return ~finite | (largest > np.float64(ABSURD * median if median > 0.0 else np.inf))


def frame_fault(frames: Frames) -> str:
    """The first number that no dynamics gives, with its frame, and how many frames hold such; empty for none."""
    arrays = {
        "positions": frames.positions,
        "forces": frames.forces,
        "force_variance": frames.force_variance,
        "first_order": frames.first_order,
        "second_order": frames.second_order,
        "potential_energy": frames.potential_energy,
        "bias_energy": frames.bias_energy,
        "temperature": frames.temperature,
        "time": frames.time,
        "box": frames.box,
    }
    for name, array in arrays.items():
        if array is None or not len(array):
            continue
        flat = array.reshape(len(array), -1)
        bad = absurd(flat) if name in {"positions", "forces"} else ~np.isfinite(flat).all(axis=1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            sizes = np.abs(flat[row])
            place = int(np.argmax(np.where(np.isnan(sizes), np.inf, sizes)))
            value, site = flat[row, place], place * frames.n_sites // flat.shape[1]
            of_site = f" of site {site}" if array.ndim > 1 and name != "box" else ""
            return (
                f"{name}{of_site} in frame {row} (replica {frames.replica[row]}, time {frames.time[row]:g}) is "
                f"{value:.4g}; {int(bad.sum())} of {len(array)} frames hold such numbers"
            )
    return ""


def finite_verdict(check: Check, frames: Frames) -> Verdict:
    """Whether every number of frames is finite and none absurd; the first frame where one is not."""
    fault = frame_fault(frames)
    return check.verdict(not fault, fault=fault or "none")
