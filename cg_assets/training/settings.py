"""What the potentials of a system learn from: force labels, or thermal response targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from cg_assets.core.family import Family
from cg_assets.core.settings import LIQUIDS, Fault, Name, distinct
from cg_assets.potentials.settings import PotentialSettings
from cg_assets.potentials.thermal.settings import TemperatureForm

AT_ONE_TEMPERATURE = ("force_matching", "energy_matching", "product_response")
"""Methods that see data of T_0 alone."""


TRAJECTORIES: Final = "trajectories"
TARGETS: Final = "thermal_response_targets"
"""Stages that response potentials learn from."""


class LearntPotential(Family, family="learnt potential"):
    """One potential to train, with the stage `potential_<name>`. Its `type` follows from the model."""

    labels: Name
    """Stage of what it learns from."""
    also: list[Name] | None = None
    """Further stages of labels that it learns from, each label with the weight of its own noise: other force labels, or
    thermal_response_targets for a potential at all temperatures."""
    frames: PositiveInt | None = None
    """Number of frames drawn at random from the labels; null for all."""
    epochs: PositiveInt | None = None
    """Epochs of this potential, where its labels have many more frames than others; null for training.epochs."""
    seed: int | None = Field(default=None, ge=0)
    """Seed of this training, whose scatter several of the same labels show; null for training.seed."""
    learns: Literal["energies", "products"] | None = None
    """What a potential at all temperatures learns besides forces: energies of the frames; or these and labels of dF/dT,
    products of what potentials of half of the frames leave over of forces and energies."""
    temperatures: list[PositiveFloat] | None = None
    """Temperatures of the frames that a potential at all temperatures learns from [K]; null for all."""

    _distinct = field_validator("temperatures", "also")(distinct)

    @model_validator(mode="after")
    def _of_all(self) -> Self:
        if self.also and self.labels in self.also:
            raise ValueError(f"also names {self.labels}, which is labels; leave it out there")
        if self.also and self.frames is not None:
            raise ValueError("frames are drawn from the labels of one stage; leave out frames or also")
        return self

    @property
    def stages(self) -> list[str]:
        """All stages of labels that it learns from."""
        return [self.labels, *(self.also or ())]

    @property
    def response(self) -> ResponsePotential | None:
        """Its settings, where it learns from thermal response targets."""
        return None

    @property
    def data_stage(self) -> str:
        """Stage of the CG frames that simulations with it start from."""
        return self.labels


class Potential(LearntPotential):
    """A potential at one temperature, from force labels: mapped_forces, relabelled_forces, mean forces, a kernel..."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential", "molecule")
    type: Literal["forces"]


class ResponsePotential(LearntPotential):
    """A potential of a liquid that depends on temperature, from samples at fixed beads, ordinary dynamics, or both."""

    goes_with: ClassVar[tuple[str, ...]] = LIQUIDS
    type: Literal["response"]
    labels: Literal["thermal_response_targets", "trajectories"] = TARGETS
    """`trajectories` for ordinary dynamics alone."""
    also: None = None
    frames: None = None
    epochs: None = None
    learns: None = None
    temperatures: None = None
    method: Literal["response", "force_matching", "multi_temperature", "energy_matching", "product_response"] = (
        "response"
    )
    """Which labels it is fitted to; all but `response` are there to compare with."""
    temperature_dependence: TemperatureForm
    """How the potential depends on the temperature."""
    network: PotentialSettings
    """The potential that is learnt; by default that of the file."""
    unconstrained_frames: int = Field(default=0, ge=0)
    """Largest number of frames of `trajectories` whose forces and energies splines learn with the targets."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights and of the order of the frames."""

    @property
    def response(self) -> ResponsePotential:
        """It."""
        return self

    @property
    def data_stage(self) -> str:
        """The dynamics of the atoms."""
        return TRAJECTORIES

    @model_validator(mode="after")
    def _learns_from_them(self) -> ResponsePotential:
        if self.unconstrained_frames and not self.network.learns_unconstrained:
            raise ValueError(
                f"unconstrained_frames is {self.unconstrained_frames}, but only splines learn from them; set it to 0"
            )
        if self.method == "response" and self.labels == TRAJECTORIES:
            raise ValueError("method response needs thermal_response_targets; choose product_response, or another one")
        if (self.method == "product_response" or self.labels == TRAJECTORIES) and not self.unconstrained_frames:
            raise ValueError(f"method {self.method} needs unconstrained_frames; set their number")
        return self

    def data_faults(self, targets: Sequence[float], sampled: Sequence[float]) -> Iterator[Fault]:
        """A T_0 without data: neither among the temperatures of the targets nor among those of the trajectories [K]."""
        middle = self.temperature_dependence.middle
        fixed = self.labels == TARGETS and self.method in {"force_matching", "energy_matching"}
        if fixed and middle not in targets:
            yield Fault("method", f"{self.method} needs targets at T_0 = {middle} K; take one of {list(targets)}")
        if self.method in AT_ONE_TEMPERATURE and self.unconstrained_frames and middle not in sampled:
            yield Fault("unconstrained_frames", f"needs trajectories at T_0 = {middle} K; take one of {list(sampled)}")
