"""Settings of potentials that are fitted to thermal response labels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cg_assets.core.settings import Strict
from cg_assets.potentials.settings import TemperatureForm, ThermalNetwork

AT_ONE_TEMPERATURE = ("force_matching", "energy_matching", "product_response")
"""Methods that see data of T_0 alone."""


class ResponsePotential(Strict):
    """One temperature-dependent potential: `potential_<name>`."""

    method: Literal["response", "force_matching", "multi_temperature", "energy_matching", "product_response"] = (
        "response"
    )
    """Which labels it is fitted to; all but `response` are there to compare with."""
    temperature_dependence: TemperatureForm
    network: ThermalNetwork
    unconstrained_frames: int = Field(default=0, ge=0)
    """Frames of `trajectories`, at most, whose forces and energies splines learn beside the targets."""
    seed: int = Field(default=0, ge=0)
