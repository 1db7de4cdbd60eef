"""Thermal response targets of sampled CG frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.labels.thermal.frame_checks import FrameCheck, check_frame
from cg_assets.labels.thermal.response import second_order_by_regression, thermal_response
from cg_assets.labels.thermal.samples import ConditionalSamples
from cg_assets.training.thermal_targets import UNITS, ThermalTargets

FloatArray = NDArray[np.float64]

_THIRD = "second_order_third_moment"
_SLOPE = "second_order_local_regression"
_FEWEST_TEMPERATURES = 3
"""A slope of F_1 needs as many."""
TABLE_UNITS = (
    UNITS
    | {"force_variance": "(kJ/mol/nm)^2"}
    | {name + suffix: UNITS["second_order"] for name in (_THIRD, _SLOPE) for suffix in ("", "_error")}
)
"""Unit of each column of `TargetTable.columns`."""


@dataclass(frozen=True)
class TargetTable:
    """Targets, and what they were made from.

    Attributes:
        targets: the targets.
        third_moment: F_2 from third moments and its error, `(2, n_rows, n_beads, 3)` [kJ/mol/nm/K²].
        local_regression: F_2 from the slope of F_1 and its error, same shape.
        effective_samples: `(n_rows,)` independent samples that each row is worth.
        force_variance: `(n_rows,)` variance of a component of a single sample's force [(kJ/mol/nm)²].
        inflation: `(n_rows,)` factor by which errors from blocks were enlarged (`FrameCheck.inflation`).
    """

    targets: ThermalTargets
    third_moment: FloatArray
    local_regression: FloatArray
    effective_samples: FloatArray
    force_variance: FloatArray
    inflation: FloatArray

    def columns(self) -> dict[str, NDArray]:
        """All arrays as columns of a table."""
        return self.targets.columns() | {
            _THIRD: self.third_moment[0],
            _THIRD + "_error": self.third_moment[1],
            _SLOPE: self.local_regression[0],
            _SLOPE + "_error": self.local_regression[1],
            "effective_samples": self.effective_samples,
            "force_variance": self.force_variance,
            "inflation": self.inflation,
        }


def check_frames(samples: Frames, progress: Progress | None = None) -> dict[int, FrameCheck]:
    """Number of each CG frame among the rows of `FixedBeadLadders` to the checks of its samples."""
    numbers = [int(number) for number in np.unique(samples.start)]
    found = {}
    for done, number in enumerate(numbers):
        found[number] = check_frame(ConditionalSamples.of_frame(samples, number))
        if progress:
            progress(done + 1, len(numbers), "frames")
    return found


def build_targets(
    samples: Frames,
    checks: Mapping[int, FrameCheck],
    origin_temperature: Mapping[int, float],
    temperatures: Sequence[float],
    max_disagreement: float,
    second_order: str = "local_regression",
    progress: Progress | None = None,
) -> TargetTable:
    """Targets of the CG frames that pass their checks, at each temperature from which up they do.

    Samples at temperatures below that do not enter.

    Args:
        samples: rows of `FixedBeadLadders`.
        checks: of each CG frame, by number.
        origin_temperature: of each CG frame [K].
        temperatures: where targets are wanted [K].
        max_disagreement: largest disagreement of independent runs.
        second_order: `local_regression` or `third_moment`.
        progress: called after each frame.

    Raises:
        SamplingError: no frame passes at three of the temperatures or more.
    """
    wanted = np.asarray(temperatures, dtype=np.float64)
    sound = {}
    for number, check in checks.items():
        lowest = check.sound_from(max_disagreement)
        at = wanted[wanted >= lowest]
        if len(at) >= _FEWEST_TEMPERATURES:
            sound[number] = (lowest, at)
    if not sound:
        why = "; ".join(f"frame {number}: {check.fault(max_disagreement)}" for number, check in checks.items())
        raise SamplingError(f"no CG frame passes its checks ({why}); sample longer or at a higher temperature")
    parts: list[TargetTable] = []
    for done, (number, (lowest, at)) in enumerate(sound.items()):
        rows = np.flatnonzero((samples.start == number) & (samples.temperature >= lowest))
        first = samples.select(rows[:1])
        used = samples.select(rows)
        parts.append(
            _of_frame(
                ConditionalSamples.of_frame(used, number),
                first,
                checks[number],
                origin_temperature[number],
                number,
                at,
                second_order,
            )
        )
        if progress:
            progress(done + 1, len(sound), "frames")
    return _joined(parts)


def _joined(parts: Sequence[TargetTable]) -> TargetTable:
    arrays = [part.targets.columns() for part in parts]
    return TargetTable(
        ThermalTargets(**{name: np.concatenate([item[name] for item in arrays]) for name in arrays[0]}),
        np.concatenate([part.third_moment for part in parts], axis=1),
        np.concatenate([part.local_regression for part in parts], axis=1),
        np.concatenate([part.effective_samples for part in parts]),
        np.concatenate([part.force_variance for part in parts]),
        np.concatenate([part.inflation for part in parts]),
    )


def _of_frame(
    samples: ConditionalSamples,
    first: Frames,
    check: FrameCheck,
    origin: float,
    number: int,
    temperatures: FloatArray,
    second_order: str,
) -> TargetTable:
    found = thermal_response(samples, temperatures)
    factor = check.inflation(temperatures)
    wide = factor[:, None, None]
    third = np.stack([found.value.second_order, wide * found.error.second_order])
    slope, slope_error = second_order_by_regression(found)
    regression = np.stack([slope, wide * slope_error])
    chosen = third if second_order == "third_moment" else regression
    rows = len(temperatures)
    box = np.full(3, np.inf) if first.box is None else first.box[0].astype(np.float64)
    targets = ThermalTargets(
        positions=np.repeat(first.positions.astype(np.float64), rows, axis=0),
        box=np.tile(box, (rows, 1)),
        temperature=temperatures,
        frame=np.full(rows, number, dtype=np.int64),
        origin_temperature=np.full(rows, origin),
        forces=found.value.forces,
        forces_error=wide * found.error.forces,
        first_order=found.value.first_order,
        first_order_error=wide * found.error.first_order,
        second_order=chosen[0],
        second_order_error=chosen[1],
        mean_energy=found.value.mean_energy,
        mean_energy_error=factor * found.error.mean_energy,
        heat_capacity=found.value.heat_capacity,
        heat_capacity_error=factor * found.error.heat_capacity,
    )
    return TargetTable(targets, third, regression, found.effective_samples, found.force_variance, factor)
