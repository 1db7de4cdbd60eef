"""Settings of potentials that are fitted to thermal response labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from cg_assets.core.settings import Fault, Strict
from cg_assets.potentials.settings import PotentialSettings
from cg_assets.potentials.thermal.settings import TemperatureForm

AT_ONE_TEMPERATURE = ("force_matching", "energy_matching", "product_response")
"""Methods that see data of T_0 alone."""


class ResponsePotential(Strict):
    """One temperature-dependent potential: `potential_<name>`."""

    method: Literal["response", "force_matching", "multi_temperature", "energy_matching", "product_response"] = (
        "response"
    )
    """Which labels it is fitted to; all but `response` are there to compare with."""
    temperature_dependence: TemperatureForm
    network: PotentialSettings
    unconstrained_frames: int = Field(default=0, ge=0)
    """Largest number of frames of `trajectories` whose forces and energies splines learn with the targets."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _learns_from_them(self) -> ResponsePotential:
        if self.unconstrained_frames and not self.network.learns_unconstrained:
            raise ValueError(
                f"unconstrained_frames is {self.unconstrained_frames}, but only splines learn from them; set it to 0"
            )
        if self.method == "product_response" and not self.unconstrained_frames:
            raise ValueError("method product_response needs unconstrained_frames; set their number")
        return self

    def data_faults(self, targets: list[float], sampled: list[float]) -> Iterator[Fault]:
        """A T_0 without data: neither among the temperatures of the targets nor among those of the trajectories [K]."""
        middle = self.temperature_dependence.middle
        if self.method in {"force_matching", "energy_matching"} and middle not in targets:
            yield Fault("method", f"{self.method} needs targets at T_0 = {middle} K; take one of {targets}")
        if self.method in AT_ONE_TEMPERATURE and self.unconstrained_frames and middle not in sampled:
            yield Fault("unconstrained_frames", f"needs sampling.reference at T_0 = {middle} K; take one of {sampled}")
