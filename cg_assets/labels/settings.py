"""Settings of kernels and of thermal response targets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from cg_assets.core.family import Family
from cg_assets.core.settings import Name, Strict, Training, rising


class Kernel(Family, family="kernel"):
    """A kernel that perturbs the frames of a sampling plan and labels them (docs/operator_forces.md)."""

    of: Name = "unbiased"
    """Where the configurations come from: the plan unbiased, biased, or a further one, or `imported`."""
    noise: PositiveFloat
    """Standard deviation of the noise on each Cartesian component [nm or reduced]."""
    labels: Literal["mixed", "clean", "noised", "atomistic"] = "mixed"
    """Which force label: `clean` and `noised` come from the kernel alone, `atomistic` from the mapped forces, `mixed`
    is the least noisy mixture of clean and atomistic."""
    draws: PositiveInt = 1
    """Perturbed configurations of each frame, with noise of their own: potentials average it out."""

    @property
    def needs_forces(self) -> bool:
        """Whether the labels use mapped forces of the atoms."""
        return self.labels in {"mixed", "atomistic"}


class NoiseKernel(Kernel):
    """Gaussian noise on each bead."""

    type: Literal["noise"]


class FlowKernel(Kernel):
    """Gaussian noise, and a flow that takes it out again without going back."""

    type: Literal["flow"]
    hidden: PositiveInt = 128
    """Hidden units of the velocity field."""
    training: Training = Training(epochs=20, batch_size=512, learning_rate=0.01)
    flow: Name | None = None
    """Another flow kernel, of the same plan and noise, whose trained flow this one uses; null to train its own."""

    @model_validator(mode="after")
    def _one_flow(self) -> FlowKernel:
        if self.training.committee:
            raise ValueError(f"training.committee is {self.training.committee}; a flow has none, set it to 0")
        if self.flow is not None and {"hidden", "training"} & self.model_fields_set:
            raise ValueError(f"flow is {self.flow}, whose own hidden and training count; leave both out here")
        return self


class Targets(Strict):
    """Thermal response targets: where, and how the second order is made."""

    temperatures: list[PositiveFloat] = Field(min_length=3)
    """[K], within the ladder of `sampling.conditional`."""
    second_order: Literal["local_regression", "third_moment"] = "local_regression"
    """From the slope of the first order over neighbouring temperatures, or from third moments; both are stored."""
    max_disagreement: float = Field(default=2.0, gt=1.0)
    """Root mean square difference of a frame's independent runs, in standard errors: where it is larger at a
    temperature, the frame is used above that only."""

    _rises = field_validator("temperatures")(rising)
