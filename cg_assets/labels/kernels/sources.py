"""Kernels as sources of labels: Gaussian noise, which a flow can remove again (docs/operator_forces.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from cg_assets.core.checks import FINITE_BEADS, Check, Verdict, finite_verdict
from cg_assets.core.settings import Fault, Name, Scope, Size, Training
from cg_assets.labels.source import LabelInputs, Labelled, LabelSource
from cg_assets.sampling.imported.bad_frames import grid_fault

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.settings import Built
    from cg_assets.labels.kernels.run import KernelReport
    from cg_assets.sampling.imported.settings import ImportedTrajectories
    from cg_assets.sampling.settings import SamplingPlan

STEIN_FIELDS = 60
MAX_STEIN_Z = 4.5
"""Largest of as many standard normal numbers that passes: right labels are above it once in 2,500 batches."""


def largest_stein_z(n_temperatures: int) -> float:
    """The limit for the numbers of several temperatures together, which right labels exceed as rarely."""
    normal = NormalDist()
    return -round(normal.inv_cdf(normal.cdf(-MAX_STEIN_Z) / n_temperatures), 3)


_STREAM = 2**32
"""Difference of the seeds of two temperatures: seeds of stages are smaller."""
MAX_LOCAL_DIVERGENCE = 0.02
"""Largest Jensen-Shannon divergence of bonds and 1-3 distances that passes."""
STEIN = Check(
    "stein_identity",
    "The labels have the mean force of the perturbed configurations as their mean.",
    remedy="train the flow for longer, or use less noise",
)


class Kernel(LabelSource):
    """A kernel that perturbs the frames of a sampling plan and labels them.

    Attributes:
        restores: whether the noise is removed from the configurations again, so that bonds stay as in the data.
    """

    every_temperature: ClassVar[bool] = True
    has_energies: ClassVar[bool] = False
    restores: ClassVar[bool] = False
    noise: PositiveFloat
    """Standard deviation of the noise on each Cartesian component [nm or reduced]."""
    labels: Literal["mixed", "clean", "noised", "atomistic"] = "mixed"
    """Which force label: `clean` and `noised` come from the kernel alone, `atomistic` from the mapped forces, `mixed`
    is the least noisy mixture of clean and atomistic."""
    draws: Size = 1
    """Perturbed configurations of each frame, with noise of their own: potentials average it out."""

    @property
    def needs_forces(self) -> bool:
        """Whether the labels use mapped forces of the atoms."""
        return self.labels in {"mixed", "atomistic"}

    @property
    def _geometry(self) -> Check:
        """Noise alone necessarily widens bonds: that is a warning."""
        text = "Bonds and 1-3 distances are distributed as in the data."
        remedy = "use less noise"
        return Check("local_geometry", text, blocking=self.restores, warns=not self.restores, remedy=remedy)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Finite numbers, Stein's identity and local geometry."""
        return (FINITE_BEADS, STEIN, self._geometry)

    def flow_of(self, name: str) -> str | None:
        """Name of the kernel, this one or another, whose trained flow this one of a given name uses; None for none."""
        return None

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Beads in a box."""
        if scope.box is not None:
            yield Fault("", "needs the beads of one molecule that is not in a box of beads")

    def source_faults(
        self, plans: Mapping[str, SamplingPlan], imported: ImportedTrajectories | None
    ) -> Iterator[Fault]:
        """Frames that are not there or cannot be perturbed."""
        if self.of == "imported" and imported and imported.forces is None and self.needs_forces:
            yield Fault("labels", f"is {self.labels}, but imported.forces is null; use clean, or import forces")
            return
        yield from super().source_faults(plans, imported)
        if self.of == "imported" and imported and imported.bias and not imported.bias.is_function:
            yield Fault(
                "of",
                "is imported, whose frames have no one density with a known bias force, which the kernel takes out of "
                "its labels; give imported.bias as hills or a grid, or import forces and train on imported_forces",
            )
        if self.of in plans and plans[self.of].windows > 1:
            yield Fault(
                "of",
                f"is {self.of}, whose umbrella windows have no common density; take frames of a plan with one bias, or "
                "without",
            )

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """Imported coordinates as coarse as the noise, where their files were examined."""
        reader = built.examined.get("imported") if self.of == "imported" else None
        if reader is not None and (fault := self.rounding_fault(reader.grid)):
            yield Fault("noise", f"is {self.noise:g} nm: {fault}")
        yield from super().built_faults(built)

    def rounding_fault(self, grid: float | None) -> str | None:
        """Coordinates as coarse as the noise, whose rounding the kernel would learn."""
        return grid_fault(grid, self.noise)

    def other_faults(self, name: str, others: Mapping[str, LabelSource]) -> Iterator[Fault]:
        """A flow of another kernel that cannot be used."""
        used = self.flow_of(name)
        if used is None or used == name:
            return
        other = others.get(used)
        if not isinstance(other, Kernel) or other.flow_of(used) != used:
            yield Fault("flow", f"is {used}, which is not a flow kernel with its own flow")
        elif (other.of, other.noise) != (self.of, self.noise):
            yield Fault("flow", f"is {used}, which has another plan or other noise")

    def stage(self, name: str) -> str:
        """`<name>_kernel_forces`."""
        return f"{name}_kernel_forces"

    def description(self, name: str, frames: str) -> str:
        """What the stage holds."""
        return (
            f"Configurations of {frames}, perturbed by the kernel {name}, each with a force label whose mean "
            "is their mean force (arXiv 2506.19628)."
        )

    def label(self, inputs: LabelInputs) -> Labelled:
        """Perturb the frames of one batch and label them, each at its own temperature.

        Raises:
            TrainingError: the labels need forces that the frames do not have, the flow is of other temperatures, or
                too many frames are lost.
        """
        from cg_assets.core.frames import Frames
        from cg_assets.labels.kernels.flow_training import flow_at
        from cg_assets.labels.kernels.run import denoiser, kernel_frames

        beads, frames, seed = inputs.beads, inputs.frames, inputs.seed
        model = denoiser(beads, self, frames, seed) if inputs.model is None else inputs.model
        parts, found = [], {}
        for number, (kelvin, own) in enumerate(frames.by_temperature().items()):
            at = beads.at_temperature(kelvin)
            flow, stream = flow_at(model, kelvin), seed + _STREAM * number
            part, found[kelvin] = kernel_frames(at, self, own, flow, stream, inputs.bias, inputs.progress)
            parts.append(part)
        shown = found.get(beads.temperature, next(iter(found.values())))
        several = len(found) > 1
        label = {kelvin: {"temperature": f"{kelvin:g}"} if several else {} for kelvin in found}
        report = {
            "labels": [label[kelvin] | row for kelvin, item in found.items() for row in item.rows()],
            "local_geometry": [label[kelvin] | row for kelvin, item in found.items() for row in item.geometry.rows()],
            "dropped_frames": sum(item.dropped for item in found.values()),
            "steps_along_the_flow": max(item.steps for item in found.values()),
        }
        floors = {kelvin: item.noise().floor for kelvin, item in found.items()} if several else {}
        return Labelled(
            Frames.concatenate(parts),
            shown.noise(),
            lambda stored: self._judge(inputs, stored, found),
            report,
            shown,
            floors,
        )

    def _judge(self, inputs: LabelInputs, frames: Frames, found: Mapping[float, KernelReport]) -> list[Verdict]:
        from cg_assets.labels.kernels.run import stein_of_frames

        tests = stein_of_frames(inputs.beads, frames, self.labels, inputs.bias, inputs.seed)
        largest, limit = max(test.largest for test in tests.values()), largest_stein_z(len(tests))
        at = {f"at_{kelvin:g}": test.largest for kelvin, test in tests.items()} if len(tests) > 1 else {}
        geometry = [item.geometry for item in found.values()]
        widest = max(item.largest("bond", "1-3 distance", "pair distance", "coordinate") for item in geometry)
        return [
            finite_verdict(FINITE_BEADS, frames),
            STEIN.verdict(largest <= limit, largest_z=largest, limit=limit, fields=STEIN_FIELDS, **at),
            self._geometry.verdict(
                widest <= MAX_LOCAL_DIVERGENCE,
                largest_divergence=widest,
                limit=MAX_LOCAL_DIVERGENCE,
                angles=max(item.largest("angle") for item in geometry),
            ),
        ]


class NoiseKernel(Kernel):
    """Gaussian noise on each bead."""

    type: Literal["noise"]


class FlowTraining(Training):
    """How a flow is fitted: as a potential, with defaults."""

    epochs: PositiveInt = 20
    """Most passes over the training frames."""
    batch_size: PositiveInt = 512
    """Frames in each step of the optimiser."""
    learning_rate: PositiveFloat = 0.01
    """First step size of the optimiser, which falls during training."""


class FlowKernel(Kernel):
    """Gaussian noise, and a flow that removes it without returning to the configuration."""

    restores: ClassVar[bool] = True
    type: Literal["flow"]
    hidden: Size = 128
    """Hidden units of the velocity field."""
    training: FlowTraining = FlowTraining()
    """How the flow is fitted."""
    flow: Name | None = None
    """Another flow kernel, of the same plan and noise, whose trained flow this one uses; null to train its own."""

    def own_flow(self) -> FlowKernel | None:
        """Itself, unless it uses the flow of another kernel."""
        return self if self.flow is None else None

    def flow_of(self, name: str) -> str | None:
        """The kernel that `flow` names, else this one."""
        return self.flow or name

    def model_stage(self, name: str) -> str:
        """`<name>_kernel`, of the kernel whose flow this one uses."""
        return f"{self.flow_of(name)}_kernel"

    @model_validator(mode="after")
    def _one_flow(self) -> FlowKernel:
        if self.training.committee:
            raise ValueError(f"training.committee is {self.training.committee}; a flow has none, set it to 0")
        if self.flow is not None and {"hidden", "training"} & self.model_fields_set:
            raise ValueError(f"flow is {self.flow}, whose hidden and training apply; leave both out here")
        return self
