"""Checks of data: what they ask, and their verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
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
        """The outcome, with the numbers behind it; those that are None are left out."""
        return Verdict(self, bool(passed), {name: value for name, value in facts.items() if value is not None})


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check."""

    check: Check
    passed: bool
    facts: dict[str, Any]

    @property
    def message(self) -> str:
        """The outcome in a line: the check, the numbers behind it, and the remedy where it failed."""
        numbers = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in self.facts.items())
        found = self.facts.get("reason") or numbers
        if self.passed:
            return f"{self.check.name} passed: {found}"
        return f"{self.check.name} failed: {found}; {self.check.remedy}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


FINITE_BEADS = Check(
    "finite",
    "Every bead position and force is a finite number.",
    remedy="look for overlapping atoms in the frames that they were made from, and sample those again",
)


def finite_verdict(check: Check, frames: Frames) -> Verdict:
    """Whether every number of frames is finite; counts those that are not."""
    arrays = {
        "positions": frames.positions,
        "forces": frames.forces,
        "potential_energy": frames.potential_energy,
        "bias_energy": frames.bias_energy,
    }
    bad = {name: int((~np.isfinite(array)).sum()) for name, array in arrays.items() if array is not None}
    return check.verdict(not any(bad.values()), **{f"{name}_not_finite": count for name, count in bad.items()})
