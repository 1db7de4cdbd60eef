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
    """

    name: str
    description: str
    blocking: bool = True
    warns: bool = False

    def verdict(self, passed: bool, **facts: Any) -> Verdict:
        """The outcome, with the numbers behind it; those that are None are left out."""
        return Verdict(self, bool(passed), {name: value for name, value in facts.items() if value is not None})


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check."""

    check: Check
    passed: bool
    facts: dict[str, Any]


FINITE_BEADS = Check("finite", "Every bead position and force is a finite number.")


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
