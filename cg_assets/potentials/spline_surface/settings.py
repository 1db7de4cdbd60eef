"""Settings of `SplineSurface`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, model_validator

from cg_assets.core.settings import Fault, Name, Range, Scope, rising_limits
from cg_assets.potentials.settings import PotentialSettings

if TYPE_CHECKING:
    from cg_assets.potentials.settings import PotentialClass

MOST_SPLINES = 5000
"""Coefficients of a spline surface, at most: their normal equations are dense."""


class SplineSurfaceSettings(PotentialSettings):
    """PMF of two CG coordinates: products of cubic B-splines, solved exactly by least squares."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential",)

    type: Literal["spline_surface"]
    range: dict[Name, Range]
    """Interval of each CG coordinate that the splines cover."""
    spacing: PositiveFloat
    """Distance of their knots."""

    @classmethod
    def potential(cls) -> PotentialClass:
        """`SplineSurface`."""
        from cg_assets.potentials.spline_surface.module import SplineSurface

        return SplineSurface

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Another number of CG coordinates than two, or limits of others."""
        if len(scope.variables) != 2:
            yield Fault("type", f"is spline_surface, which is for two CG coordinates, not {len(scope.variables)}")
        elif tuple(self.range) != scope.variables:
            yield Fault("range", f"is {self.range}; give the limits of {' and '.join(scope.variables)} by name")

    @model_validator(mode="after")
    def _not_too_fine(self) -> SplineSurfaceSettings:
        knots = 1.0
        for low, high in (rising_limits(limits) for limits in self.range.values()):
            if self.spacing > high - low:
                raise ValueError(f"spacing {self.spacing} is beyond the range {[low, high]}; lower it")
            knots *= (high - low) / self.spacing + 3.0
        if knots > MOST_SPLINES:
            raise ValueError(f"spacing {self.spacing} makes {knots:.0f} splines, more than {MOST_SPLINES}; raise it")
        return self
