"""Settings of `ThermalCurve`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, field_validator

from cg_assets.core.settings import Fault, Scope, rising_limits
from cg_assets.potentials.settings import PotentialSettings
from cg_assets.potentials.thermal.settings import TemperatureForm

if TYPE_CHECKING:
    from cg_assets.potentials.settings import PotentialClass


class ThermalCurveSettings(PotentialSettings):
    """PMF of one CG coordinate at all temperatures: cubic B-splines, solved by least squares."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential",)
    needs_responses: ClassVar[bool] = True

    type: Literal["thermal_curve"]
    range: tuple[float, float]
    """Interval of the CG coordinate that the splines cover."""
    spacing: PositiveFloat
    """Distance of their knots."""
    temperature_dependence: TemperatureForm
    """How the potential depends on the temperature."""

    _rises = field_validator("range")(rising_limits)

    @classmethod
    def potential(cls) -> PotentialClass:
        """`ThermalCurve`."""
        from cg_assets.potentials.thermal_curve.module import ThermalCurve

        return ThermalCurve

    @property
    def domain(self) -> tuple[float, float]:
        """The range."""
        return self.range

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """More than one CG coordinate."""
        if len(scope.variables) != 1:
            yield Fault("type", f"is thermal_curve, which is for one CG coordinate, not {len(scope.variables)}")
