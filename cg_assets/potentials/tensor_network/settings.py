"""Settings of `TensorNetwork`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from cg_assets.core.settings import LIQUIDS, Size, Training
from cg_assets.potentials.settings import PotentialSettings

if TYPE_CHECKING:
    from cg_assets.potentials.settings import PotentialClass


class TensorNetworkSettings(PotentialSettings):
    """HIP-NN-TS, the message-passing form, trained by descent."""

    goes_with: ClassVar[tuple[str, ...]] = LIQUIDS
    needs_responses: ClassVar[bool] = True

    type: Literal["tensor_network"]
    cutoff: PositiveFloat
    """Largest distance of beads that interact [nm]."""
    soft_cutoff: PositiveFloat
    """Centre of the last sensitivity [nm], at most the cutoff."""
    features: Size = 64
    """Numbers that describe each bead."""
    sensitivities: int = Field(default=20, ge=2, le=1000)
    """Radial functions of a distance."""
    layers: int = Field(default=3, ge=0, le=100)
    """Layers in each block."""
    tensor_order: int = Field(default=2, ge=0, le=2)
    """Highest order of the tensors that describe directions."""
    training: Training
    """How the network is fitted."""

    @classmethod
    def potential(cls) -> PotentialClass:
        """`TensorNetwork`."""
        from cg_assets.potentials.tensor_network.module import TensorNetwork

        return TensorNetwork

    @property
    def reach(self) -> float:
        """The cutoff [nm]."""
        return self.cutoff

    @property
    def own_training(self) -> Training:
        """The training."""
        return self.training

    @model_validator(mode="after")
    def _soft(self) -> TensorNetworkSettings:
        if self.soft_cutoff > self.cutoff:
            raise ValueError(f"soft_cutoff {self.soft_cutoff} is beyond the cutoff {self.cutoff}; lower it")
        return self
