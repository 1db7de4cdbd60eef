"""Settings of CG simulations."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from cg_assets.core.replica_exchange import Tempering
from cg_assets.core.settings import (
    NANOMETRES,
    PICOSECONDS,
    Fault,
    Scope,
    Strict,
    check_size,
    is_multiple,
    rising,
)

UNBIASED, ENHANCED = 0, 1
"""Value of `Frames.window` in CG simulations: without a bias, and under the frozen bias of the biased samples."""


class CGSimulation(Strict):
    """Langevin dynamics of the beads with the trained potential. All times [ps, or reduced]."""

    replicas: PositiveInt
    """Independent CG simulations."""
    timestep: PositiveFloat
    """[ps or reduced]."""
    friction: PositiveFloat
    """Of the Langevin thermostat [1/ps or reduced]."""
    burn_in: float = Field(default=0.0, ge=0.0)
    """Time before frames are kept [ps or reduced]."""
    duration: PositiveFloat
    """Time in which frames are kept [ps or reduced]."""
    frame_interval: PositiveFloat
    """Time between frames [ps or reduced]."""
    enhanced_duration: float = Field(default=0.0, ge=0.0)
    """Length of a second run [ps or reduced] under the frozen bias of the samples, reweighted exactly; 0 for none."""
    enhanced_frame_interval: PositiveFloat | None = None
    """Time between its frames [ps or reduced], of which reweighting makes few count; null for frame_interval."""
    displacement: float = Field(default=0.0, ge=0.0)
    """Standard deviation of random displacements of a molecule's beads at the start, along each axis [nm]: replicas
    then come from far off equilibrium; 0 starts them from frames as they are."""
    tempering: Tempering | None = None
    """Replica exchange in temperature of the run without a bias: replicas are then those of all ladders together, and
    frames are kept at the lowest temperature, that of the system."""
    temperatures: list[PositiveFloat] | None = None
    """Of a molecule whose ladder keeps the frames of all rungs, those of them at which the beads are simulated, one
    after the other, and judged [K]; null for that of the system."""
    seed: int = Field(default=0, ge=0)
    """Of velocities and noise."""

    _rises = field_validator("temperatures")(rising)

    @property
    def enhanced(self) -> CGSimulation:
        """Settings of the run under the bias."""
        interval = self.enhanced_frame_interval or self.frame_interval
        update = {"duration": self.enhanced_duration, "frame_interval": interval, "tempering": None}
        return self.model_copy(update=update)

    @property
    def kept_replicas(self) -> int:
        """Replicas that frames are kept of: one of each ladder of temperatures, else all."""
        return self.replicas // len(self.tempering.temperatures) if self.tempering else self.replicas

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Times and lengths in other units, and a friction that leaves no dynamics."""
        slips = list(scope.unlikely("timestep", self.timestep, 1e-6, 0.05, PICOSECONDS))
        yield from slips or scope.friction_faults(self.friction, self.timestep)
        yield from scope.unlikely("displacement", self.displacement, 0, 0.5, NANOMETRES)

    @model_validator(mode="after")
    def _whole_ladders(self) -> CGSimulation:
        if self.tempering is None:
            return self
        rungs = len(self.tempering.temperatures)
        if self.replicas % rungs:
            raise ValueError(f"replicas {self.replicas} is not a multiple of the {rungs} temperatures of tempering")
        if not is_multiple(self.tempering.pace, self.timestep):
            raise ValueError(f"tempering.pace {self.tempering.pace} is not a whole number of timesteps {self.timestep}")
        return self

    @model_validator(mode="after")
    def _alone(self) -> CGSimulation:
        others = [name for name in ("tempering", "enhanced_duration", "displacement") if getattr(self, name)]
        if self.temperatures and others:
            raise ValueError(f"temperatures excludes {others[0]}, which is for one temperature; leave one of them out")
        return self

    @model_validator(mode="after")
    def _long_enough(self) -> CGSimulation:
        check_size(self.replicas, self.burn_in + self.duration, self.timestep, self.frame_interval)
        enhanced = "enhanced_frame_interval" if self.enhanced_frame_interval else "frame_interval"
        for name, interval in (("duration", "frame_interval"), ("enhanced_duration", enhanced)):
            value, least = getattr(self, name), getattr(self, interval)
            if 0 < value < least:
                raise ValueError(f"{name} {value} is shorter than {interval} {least}")
        return self
