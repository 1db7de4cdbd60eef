"""Settings of thermal response targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, field_validator

from cg_assets.core.settings import Fault, Strict, rising


class Targets(Strict):
    """Thermal response targets: where, and how the second order is made."""

    goes_with: ClassVar[tuple[str, ...]] = ("water", "molecule")

    temperatures: list[PositiveFloat] = Field(min_length=3)
    """[K], within the ladder of `sampling.conditional`."""
    second_order: Literal["local_regression", "third_moment"] = "local_regression"
    """From the slope of the first order over neighbouring temperatures, or from third moments; both are stored."""
    max_disagreement: float = Field(default=2.0, gt=1.0)
    """Root mean square difference of a frame's independent runs, in standard errors: where it is larger at a
    temperature, the frame is used above that only."""

    def ladder_faults(self, ladder: Sequence[float]) -> Iterator[Fault]:
        """Temperatures outside the ladder of the samples [K]."""
        if not ladder:
            yield Fault("temperatures", "needs sampling.conditional, which is missing; give the ladder of the samples")
            return
        outside = [item for item in self.temperatures if not ladder[0] <= item <= ladder[-1]]
        if outside:
            yield Fault(
                "temperatures",
                f"has {outside[0]} K, outside the ladder of sampling.conditional, {ladder[0]} to {ladder[-1]} K; "
                "lengthen the ladder",
            )

    _rises = field_validator("temperatures")(rising)
