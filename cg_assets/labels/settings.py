"""Settings of kernels and of thermal response targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from cg_assets.core.family import Family
from cg_assets.core.settings import Fault, Name, Scope, Strict, Training, rising
from cg_assets.sampling.settings import SamplingPlan


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

    def flow_of(self, name: str) -> str | None:
        """Name of the kernel, this one or another, whose trained flow this one of a given name uses; None for none."""
        return None

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Beads in a box."""
        if scope.box is not None:
            yield Fault("", "needs the beads of one molecule that is not in a box of beads")

    def source_faults(self, plans: Mapping[str, SamplingPlan], imported: bool) -> Iterator[Fault]:
        """Frames that are not there or cannot be perturbed."""
        known = [*plans, *(["imported"] if imported else [])]
        if self.of not in known:
            yield Fault("of", f"is {self.of}; there are {', '.join(known)}")
        elif self.of == "imported" and self.needs_forces:
            yield Fault("labels", f"is {self.labels}, but imported trajectories have no forces; take clean")
        elif self.of in plans and plans[self.of].windows > 1:
            yield Fault(
                "of",
                f"is {self.of}, whose umbrella windows have no common density; take frames of a plan with one bias, or "
                "without",
            )

    def flow_faults(self, name: str, kernels: Mapping[str, Kernel]) -> Iterator[Fault]:
        """A flow of another kernel that cannot be used."""
        used = self.flow_of(name)
        if used is None or used == name:
            return
        other = kernels.get(used)
        if other is None or other.flow_of(used) != used:
            yield Fault("flow", f"is {used}, which is no flow kernel with a flow of its own")
        elif (other.of, other.noise) != (self.of, self.noise):
            yield Fault("flow", f"is {used}, which has another plan or other noise")


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

    def flow_of(self, name: str) -> str | None:
        """The kernel that `flow` names, else this one."""
        return self.flow or name


class Targets(Strict):
    """Thermal response targets: where, and how the second order is made."""

    temperatures: list[PositiveFloat] = Field(min_length=3)
    """[K], within the ladder of `sampling.conditional`."""
    second_order: Literal["local_regression", "third_moment"] = "local_regression"
    """From the slope of the first order over neighbouring temperatures, or from third moments; both are stored."""
    max_disagreement: float = Field(default=2.0, gt=1.0)
    """Root mean square difference of a frame's independent runs, in standard errors: where it is larger at a
    temperature, the frame is used above that only."""

    def ladder_faults(self, ladder: list[float]) -> Iterator[Fault]:
        """Temperatures outside the ladder of the samples [K]."""
        outside = [item for item in self.temperatures if not ladder[0] <= item <= ladder[-1]]
        if outside:
            yield Fault(
                "temperatures",
                f"has {outside[0]} K, outside the ladder of sampling.conditional, {ladder[0]} to {ladder[-1]} K; "
                "lengthen the ladder",
            )

    _rises = field_validator("temperatures")(rising)
