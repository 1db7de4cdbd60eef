"""Settings of how a potential depends on temperature."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from cg_assets.core.settings import Strict, rising


class TemperatureForm(Strict):
    """How a potential depends on temperature (docs/thermal_potentials.md)."""

    form: Literal["taylor_temperature", "taylor_inverse_temperature", "constant_heat_capacity", "anchored"]
    """Functions of the temperature."""
    origin: PositiveFloat | None = None
    """T_0 of the first three forms [K], best in the middle of the range."""
    order: int = Field(default=2, ge=0, le=2)
    """Highest power in the temperature."""
    anchors: list[PositiveFloat] = Field(default_factory=list)
    """Temperatures between which `anchored` interpolates [K]."""

    _rises = field_validator("anchors")(rising)

    @property
    def middle(self) -> float:
        """T_0; of anchors, the one in the middle [K]."""
        return self.origin or self.anchors[len(self.anchors) // 2]

    @property
    def n_terms(self) -> int:
        """Number of energies W_k."""
        return 2 * len(self.anchors) if self.anchors else self.order + 1

    @model_validator(mode="after")
    def _of_form(self) -> TemperatureForm:
        if self.form == "anchored" and (len(self.anchors) < 2 or self.origin is not None):
            raise ValueError("the form anchored needs at least two anchors, and no origin")
        if self.form != "anchored" and (self.origin is None or self.anchors):
            raise ValueError(f"the form {self.form} needs an origin, and no anchors")
        return self
