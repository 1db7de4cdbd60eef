"""Sources of force labels for the CG frames of another stage, and the checks on the labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cg_assets.core.checks import Check, Verdict
from cg_assets.core.errors import TrainingError
from cg_assets.core.family import Family
from cg_assets.core.settings import Fault, Name

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.progress import Progress
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.labels.kernels.sources import FlowKernel
    from cg_assets.labels.quality import LabelNoise
    from cg_assets.mapping.beads import Beads
    from cg_assets.sampling.imported.settings import ImportedTrajectories
    from cg_assets.sampling.settings import SamplingPlan


@dataclass(frozen=True)
class LabelInputs:
    """The inputs of a label source.

    Attributes:
        frames: CG frames of one batch.
        beads: what they are frames of.
        bias: definition of the frozen bias that they were sampled under; None for none.
        seed: of random numbers.
        model: the trained model that the source reads; None where it reads none.
        progress: called during the frames.
    """

    frames: Frames
    beads: Beads
    bias: Mapping[str, Any] | None
    seed: int
    model: Any = None
    progress: Progress | None = None

    def refuse_other_temperatures(self) -> None:
        """Refuse frames at another temperature than that of the beads.

        Raises:
            TrainingError: there are some.
        """
        kelvin, own = self.frames.temperature, self.beads.temperature
        if (other := kelvin[kelvin != own]).size:
            raise TrainingError(
                f"a frame is at temperature {other[0]:g}, and these labels are those at {own:g}; take the frames of "
                "one temperature with `Frames.at_temperature`"
            )


@dataclass(frozen=True)
class Labelled:
    """CG frames with force labels, and their quality.

    Attributes:
        frames: with the forces that potentials learn from.
        noise: of the labels.
        judge: verdicts on the frames as they can be read back.
        report: what else their page shows.
        details: what a figure of their own is drawn from; None for none.
        noise_floors: of the labels at each temperature, where there are several.
    """

    frames: Frames
    noise: LabelNoise
    judge: Callable[[Frames], list[Verdict]]
    report: Mapping[str, Any] = field(default_factory=dict)
    details: Any = None
    noise_floors: Mapping[float, Estimate] = field(default_factory=dict)


class LabelSource(Family, family="label source"):
    """A source of force labels for the CG frames of a sampling plan, or of imported trajectories.

    Attributes:
        responds: whether its frames carry labels of dF/dT, too.
        every_temperature: whether it labels the frames of all rungs of a ladder, each at its own temperature, or those
            at the system's temperature alone.
        has_energies: whether its frames carry the energies of the atoms.
    """

    responds: ClassVar[bool] = False
    every_temperature: ClassVar[bool] = False
    has_energies: ClassVar[bool] = True
    of: Name = "unbiased"
    """Where the configurations come from: the plan unbiased, biased, or a further one, or `imported`."""

    @property
    def needs_forces(self) -> bool:
        """Whether it uses the mapped forces of the atoms."""
        return False

    def own_flow(self) -> FlowKernel | None:
        """The kernel whose flow is trained for it, on the frames of all batches; None where nothing is trained."""
        return None

    @property
    @abstractmethod
    def checks(self) -> tuple[Check, ...]:
        """The checks on its labels."""

    def stage(self, name: str) -> str:
        """The stage of the labels of the source with this name."""
        return f"{name}_labels"

    def model_stage(self, name: str) -> str:
        """The stage of the trained model that it reads; empty where it reads none."""
        return ""

    def source_faults(
        self, plans: Mapping[str, SamplingPlan], imported: ImportedTrajectories | None
    ) -> Iterator[Fault]:
        """Frames that are missing or cannot be labelled.

        Args:
            plans: the sampling plans of the system by name.
            imported: imported trajectories; None without any.
        """
        known = [*plans, *(["imported"] if imported else [])]
        if self.of not in known:
            yield Fault("of", f"is {self.of}; there are {', '.join(known)}")
        elif self.of == "imported" and self.needs_forces and imported and imported.forces is None:
            yield Fault("of", "is imported, but imported.forces is null; these labels need forces")

    def rounding_fault(self, grid: float | None) -> str | None:
        """What is wrong with labels of coordinates that are rounded to a grid [nm]; None for nothing."""
        return None

    def other_faults(self, name: str, others: Mapping[str, LabelSource]) -> Iterator[Fault]:
        """What does not fit the other sources of the system."""
        return iter(())

    def description(self, name: str, frames: str) -> str:
        """What its stage holds, made of the stage `frames`."""
        return f"Configurations of {frames} with force labels of the source {name}."

    @abstractmethod
    def label(self, inputs: LabelInputs) -> Labelled:
        """Label the frames of one batch.

        Raises:
            TrainingError: they cannot be labelled.
        """
