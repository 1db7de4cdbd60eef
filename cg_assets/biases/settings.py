"""Settings of biases."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cg_assets.core.family import Family
from cg_assets.core.settings import Formula, Name, StartPoint


class Bias(Family, family="bias"):
    """A bias of the CG coordinates."""


class StaticBias(Bias):
    """A fixed bias given as a formula of the collective variables."""

    type: Literal["static"]
    expression: Formula


class UmbrellaBias(Bias):
    """Harmonic windows, one for each replica in turn."""

    type: Literal["umbrella"]
    centers: list[StartPoint] = Field(min_length=1)
    """One entry per window: a value for each collective variable."""
    force_constant: PositiveFloat
    """k of k/2 (difference)^2 [kJ/mol/rad^2, kJ/mol/nm^2 or reduced]."""


class DepositedBias(Bias):
    """A bias that all walkers build together while they move, and that is then frozen."""

    collective_variables: list[Name] = Field(min_length=1, max_length=2)
    width: dict[Name, PositiveFloat]
    """Standard deviation of a hill or kernel along each collective variable."""
    pace: PositiveFloat
    """Time between two hills or kernels of a walker [ps or reduced]."""
    deposition: PositiveFloat
    """Time for which each walker deposits before the bias is frozen [ps or reduced]."""
    grid_range: dict[Name, tuple[float, float]] = Field(default_factory=dict)
    """Range of the bias grid for collective variables that are not angles."""

    @model_validator(mode="after")
    def _widths_given(self) -> DepositedBias:
        if set(self.width) != set(self.collective_variables):
            raise ValueError(f"width gives {sorted(self.width)}; it must give each of {self.collective_variables}")
        if self.deposition < self.pace:
            raise ValueError(f"deposition {self.deposition} is shorter than pace {self.pace}: nothing would be laid")
        return self


class MetadynamicsBias(DepositedBias):
    """Well-tempered metadynamics."""

    type: Literal["metadynamics"]
    height: PositiveFloat
    """First height of a hill [kJ/mol or reduced]."""
    bias_factor: float = Field(gt=1.0)


class OpesBias(DepositedBias):
    """On-the-fly probability enhanced sampling: the bias follows a running estimate of the probability."""

    type: Literal["opes"]
    barrier: PositiveFloat
    """Highest barrier to be crossed [kJ/mol]: the bias goes no deeper, and its bias factor is barrier / kT."""


class AdaptiveBias(Bias):
    """Umbrella windows that the asset `next_batch_plan` places anew for each batch, where data are needed most."""

    type: Literal["adaptive"]
    collective_variables: list[Name] = Field(min_length=1, max_length=2)
    windows: PositiveInt
    """Number of windows; replicas are dealt out to them in turn."""
    force_constant: PositiveFloat
    """k of k/2 (difference)^2 [kJ/mol/rad^2, kJ/mol/nm^2 or reduced]."""
    candidates: int = Field(default=16, ge=3, le=100)
    """Number of places for a window along each collective variable."""
    highest: PositiveFloat = 10.0
    """Free energy [kT] above the minimum up to which data are wanted."""
    grid_range: dict[Name, tuple[float, float]] = Field(default_factory=dict)
    """Range of collective variables that are not angles."""
