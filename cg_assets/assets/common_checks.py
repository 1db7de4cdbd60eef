"""Checks that several stages share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cg_assets.core.checks import Check, Verdict
from cg_assets.core.units import unit

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.core.units import UnitSystem

TEMPERATURE_Z = 5.0
"""Standard errors by which a kinetic temperature may miss its target, beyond the integrator's own 1 %."""

SCHEMA = Check(
    "schema",
    "The file can be read back and holds the planned number of frames.",
    remedy="remove the file and run the stage again",
)
FINITE = Check(
    "finite",
    "Every position, force and energy is a finite number, and none is ten thousand times the median.",
    remedy="the dynamics is unstable: use a shorter step, or look for overlapping atoms in the start structure",
)


def schema_verdict(frames: Frames, expected: int) -> Verdict:
    """Whether there are as many frames as planned."""
    return SCHEMA.verdict(len(frames) == expected, frames=len(frames), planned=expected)


def is_thermal(value: float, error: float, target: float) -> bool:
    """Whether a kinetic temperature is the target within its error and the integrator's own."""
    return math.isfinite(value) and abs(value - target) <= TEMPERATURE_Z * error + 0.01 * target


def temperature_verdict(check: Check, kinetic: Mapping[float, Estimate], units: UnitSystem) -> Verdict:
    """Whether each kinetic temperature is its target, the key [K or reduced]."""
    right = all(is_thermal(item.value, item.standard_error, target) for target, item in kinetic.items())
    if len(kinetic) > 1:
        return check.verdict(right, **{f"{target:g} K": str(item) for target, item in kinetic.items()})
    ((target, measured),) = kinetic.items()
    return check.verdict(
        right,
        kinetic_temperature=measured.value,
        standard_error=measured.standard_error,
        target=target,
        unit=unit("temperature", units),
    )
