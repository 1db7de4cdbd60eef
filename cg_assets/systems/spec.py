"""The specification of a system: what is simulated, mapped, trained and evaluated, read from one YAML file.

Every field is validated when the file is loaded, before any work.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
)

from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.core.settings import KELVIN, Built, Fact, Fault, Name, Scope, Strict, Training
from cg_assets.core.units import thermal_energy, unit
from cg_assets.evaluation.settings import (
    FreeEnergySettings,
    LearningCurve,
)
from cg_assets.labels.kernels import sources as _kernels  # noqa: F401  (members of the family)
from cg_assets.labels.source import LabelSource
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.maps import Mapping
from cg_assets.potentials.settings import PotentialSettings
from cg_assets.sampling.settings import IMPORTED, ImportedTrajectories, Sampling, SamplingPlan
from cg_assets.simulation.settings import CGSimulation
from cg_assets.systems.base import Fields, System, within

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.progress import Progress
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.evaluation.learning_curves import Learner
    from cg_assets.evaluation.long_runs import ReferenceDensity
    from cg_assets.evaluation.reference import Reference, ReferenceCase
    from cg_assets.mapping.force_maps import ForceMap
    from cg_assets.sampling.conditional import ConditionalForces
    from cg_assets.sampling.imported import ImportedReader
    from cg_assets.sampling.piecewise import DynamicsSummary, PiecewiseSampler


class Potential(Strict):
    """One potential to train: on which labels, and on how many of their frames."""

    labels: Name
    """Stage of force labels: mapped_forces, relabelled_forces, or that of a further plan, mean forces or a kernel."""
    frames: PositiveInt | None = None
    """Number of frames drawn at random from the labels; null for all."""
    epochs: PositiveInt | None = None
    """Epochs of this potential, where its labels have many more frames than others; null for training.epochs."""


class SystemSpec(System):
    """A whole system at one temperature."""

    temperature: PositiveFloat
    """[K], or reduced."""
    mapping: Mapping
    collective_variables: dict[Name, CollectiveVariable] = Field(default_factory=dict)
    sampling: Sampling = Sampling()
    imported: ImportedTrajectories | None = None
    labels: dict[Name, LabelSource] = Field(default_factory=dict)
    """Further sources of force labels by name; of a kernel with the stage `<name>_kernel_forces` and, for a flow, its
    model `<name>_kernel`."""
    network: PotentialSettings
    training: Training
    cg_simulation: CGSimulation
    potentials: dict[Name, Potential] = Field(min_length=1)
    evaluation: FreeEnergySettings
    learning_curve: LearningCurve | None = None

    def scope(self) -> Scope:
        """What sections can use from each other."""
        variables = self.collective_variables
        return Scope(
            model=self.model.kind,
            units=self.units,
            temperature=self.temperature,
            folder=self.folder,
            variables=tuple(self.variable_names),
            angles=frozenset(name for name, variable in variables.items() if variable.quantity == "angle"),
            coordinates=self.model.coordinate_names,
            box=self.model.bead_box,
            limits=self.model.coordinate_limits | {name: variable.limits for name, variable in variables.items()},
            longest_timestep=self.model.longest_timestep,
        )

    def sampler(self, plan: SamplingPlan, seed: int, snapshots: int = 0) -> PiecewiseSampler[DynamicsSummary]:
        """A sampler of one batch of a plan; errors as in `Model.sampler`."""
        return self.model.sampler(self.structure(), self.beads(), plan, seed, snapshots)

    def repeated_labels(
        self,
        samples: Frames,
        frames: Frames,
        force_maps: Sequence[ForceMap],
        seed: int,
        progress: Progress | None = None,
    ) -> ConditionalForces | None:
        """Force labels at the same bead positions, again and again; see `Model.repeated_labels`."""
        own = self.structure(), self.beads()
        return self.model.repeated_labels(*own, samples, frames, force_maps, self.sampling.dynamics, seed, progress)

    def imported_reader(self, batch: str) -> ImportedReader:
        """A reader of imported trajectories.

        Raises:
            SamplingError: nothing is imported, or a file is missing or does not fit the molecule.
        """
        from cg_assets.sampling.imported import ImportedReader

        if self.imported is None:
            raise SamplingError(f"{self.name}: nothing is imported; give imported.files")
        return ImportedReader(self.imported, self.folder, self.structure(), self.beads(), batch)

    def built(self) -> Built:
        """The molecule or model potential and its beads; errors as in `System.built`."""
        return Built(self.scope(), self.model, self.structure(), self.beads())

    def facts(self, built: Built) -> Iterator[Fact]:
        """The temperature, and the collective variables in the structure that dynamics start from."""
        yield "temperature", f"{self.temperature:g} {unit('temperature', self.units)}"
        values = self.model.start_values(built.structure, built.beads)
        for name, value in values.items():
            yield f"collective variable {name}", f"{value:.4g} {self.variable_units[name]} in the start structure"

    def look_for_files(self, batch: str) -> None:
        """The trajectories that a batch is imported from; errors as in `System.look_for_files`."""
        if self.imported is not None:
            from cg_assets.sampling.imported import imported_files

            imported_files(self.imported, self.folder, batch)

    def imported_files(self, batch: str) -> list[Path]:
        """The trajectories that a batch is imported from; none where they are not there."""
        if self.imported is None:
            return []
        from cg_assets.sampling.imported import imported_files

        try:
            return imported_files(self.imported, self.folder, batch)
        except SamplingError:
            return []

    def run_reference(self, seed: int, folder: Path, progress: Progress | None = None) -> ReferenceDensity:
        """The runs of `evaluation.reference`; errors as in `System.run_reference`."""
        from cg_assets.evaluation.long_runs import run_reference

        return run_reference(self.reference_case(), seed, folder, progress)

    def reference_case(self) -> ReferenceCase:
        """What the reference is computed from."""
        from cg_assets.evaluation.reference import ReferenceCase

        return ReferenceCase(self.beads(), self.evaluation, self.model, self.structure(), self.folder)

    def compute_reference(
        self, seed: int, directory: Path, progress: Progress | None = None, data: Frames | None = None
    ) -> Reference:
        """Compute, read or run the reference; see `Reference.compute` of the settings."""
        return self.evaluation.reference.compute(self.reference_case(), seed, directory, progress, data)

    def learner(self, potential: str) -> Learner:
        """The learning curve of a potential.

        Raises:
            SystemSpecError: the file asks for none.
        """
        from cg_assets.evaluation.learning_curves import Learner

        settings, labels = self.learning_curve, self.potentials[potential].labels
        if settings is None:
            raise SystemSpecError(f"{self.name}: learning_curve is missing; add it to the system's file")
        means, _ = self.sampling.by_mean_force_labels().get(labels, (None, ""))
        return Learner(
            potential=potential,
            beads=self.beads(),
            settings=settings,
            plan=self.plan_of(labels),
            means=means,
            network=self.network,
            training=self.training_of(potential),
            simulation=settings.cg_simulation or self.cg_simulation,
        )

    def measure_box(self, seed: int, progress: Progress | None = None) -> Estimate:
        """Of a solvated molecule; errors as in `System.measure_box`."""
        from cg_assets.sampling.pressure import measure_box

        if self.model.simulated_box is None:
            raise SystemSpecError(f"{self.name}: the model is in no periodic box; only in one there is a pressure")
        return measure_box(self.structure(), self.temperature, self.sampling.dynamics, seed, progress)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Faults between sections."""
        yield from scope.unlikely("temperature", self.temperature, 100, 2000, KELVIN)
        yield from self._variable_faults()
        yield from self._source_faults()
        yield from self._simulation_faults()
        for section, plan in self._plans().items():
            if plan.bias is not None and plan.bias.adaptive and not section.startswith("sampling.further."):
                yield Fault(f"{section}.bias", "is adaptive; only a plan under sampling.further can be")
        for name, source in self.labels.items():
            yield from within(f"labels.{name}", source.source_faults(self.sampling.by_name(), bool(self.imported)))
            yield from within(f"labels.{name}", source.other_faults(name, self.labels))
        if settings := self.evaluation.slow_coordinates:
            yield from within("evaluation.slow_coordinates", settings.time_faults(*self._times()))

    def _variable_faults(self) -> Iterator[Fault]:
        """A molecule without collective variables, or with some that are not functions of its beads."""
        if not self.variable_names:
            yield Fault("collective_variables", "is empty; a molecule needs at least one for its evaluation")
        for name, variable in self.collective_variables.items():
            if outside := [atom for atom in variable.atoms if not self.mapping.holds_atom(atom)]:
                yield Fault(
                    f"collective_variables.{name}",
                    f"uses {outside}, on which no bead sits: it is not a function of the CG coordinates, so biasing it "
                    "would change the mean force; choose atoms that are beads",
                )

    def _source_faults(self) -> Iterator[Fault]:
        """Plans, imported data, labels and a reference that are named and missing."""
        if self.imported is None and not self.sampling.by_section():
            yield Fault("sampling", "names no plan and nothing is imported; give sampling.unbiased or imported")
        if not self.model.is_simulated and (simulated := list(self._plans())):
            yield Fault(
                "model.force_fields", f"is empty, but {simulated[0]} simulates the molecule; name its force field"
            )
        if self.evaluation.reference.is_data and self.reference_data is None:
            yield Fault(
                "evaluation.reference.type",
                "is data, but there are neither imported trajectories nor sampling.unbiased",
            )
        for name, source in self.labels.items():
            if source.stage(name) in {*self.sampling.by_labels(), *self.sampling.by_mean_force_labels()}:
                yield Fault(f"labels.{name}", "has the name of a plan of sampling; choose another name")
        known = [*self.sampling.by_labels(), *self.sampling.by_mean_force_labels()]
        known += [source.stage(name) for name, source in self.labels.items()]
        for name, potential in self.potentials.items():
            if potential.labels not in known:
                yield Fault(
                    f"potentials.{name}.labels",
                    f"is {potential.labels}, but sampling and labels give only {', '.join(known)}; choose one of "
                    "these or add what is missing",
                )

    def _simulation_faults(self) -> Iterator[Fault]:
        """CG simulations without the replicas or the bias that they need."""
        run = self.cg_simulation
        if self.imported is not None and self.learning_curve is not None:
            yield Fault("learning_curve", "needs simulated times, which imported trajectories lack; leave it out")
        if run.kept_replicas < 2:
            yield Fault(
                "cg_simulation.replicas",
                f"is {run.replicas}, so frames of {run.kept_replicas} are kept; give at least 2: their scatter is "
                "the error of the results",
            )
        curve = self.learning_curve.cg_simulation if self.learning_curve else None
        if not run.enhanced_duration and (curve is None or not curve.enhanced_duration):
            return
        if self.sampling.biased is None:
            yield Fault("cg_simulation.enhanced_duration", "needs the bias of sampling.biased, which is missing")
        elif self.sampling.biased.bias is not None and self.sampling.biased.bias.windowed:
            yield Fault(
                "cg_simulation.enhanced_duration",
                "runs under one frozen bias, not under umbrella windows; set it to 0 or sample with metadynamics or "
                "a static bias",
            )

    def _times(self) -> tuple[dict[str, float], dict[str, float]]:
        """Times between frames, and durations, of the CG simulation and the reference data [ps]."""
        intervals = {"cg_simulation.frame_interval": self.cg_simulation.frame_interval}
        durations = {"cg_simulation.duration": self.cg_simulation.duration}
        if self.imported is not None:
            intervals["imported.frame_interval"] = self.imported.frame_interval * self.imported.stride
        elif self.sampling.unbiased is not None:
            intervals["sampling.unbiased.frame_interval"] = self.sampling.unbiased.frame_interval
            durations["sampling.unbiased.duration"] = self.sampling.unbiased.duration
        return intervals, durations

    def by_source_labels(self) -> dict[str, tuple[str, LabelSource, str]]:
        """Stage of a source's labels to its name, the source, and the stage of the frames that it labels."""
        of = {section.rpartition(".")[2]: labels for labels, (_, section) in self.sampling.by_labels().items()}
        of["imported"] = IMPORTED
        return {source.stage(name): (name, source, of[source.of]) for name, source in self.labels.items()}

    def plan_of(self, labels: str) -> SamplingPlan:
        """The sampling plan behind a stage of force labels, single ones, means, or those of a kernel."""
        if labels in (kernels := self.by_source_labels()):
            labels = kernels[labels][2]
        if labels in (means := self.sampling.by_mean_force_labels()):
            _, labels = means[labels]
        return self.sampling.by_section()[self.sampling.by_labels()[labels][1]]

    def _plans(self) -> dict[str, SamplingPlan]:
        reference = self.evaluation.reference.sampled
        return self.sampling.by_section() | ({"evaluation.reference.plan": reference} if reference else {})

    # ----------------------------------------------------------------------------------- derived values

    @property
    def thermal_energy(self) -> float:
        """k_B T [kJ/mol or reduced]."""
        return thermal_energy(self.temperature, self.units)

    @property
    def cg_box(self) -> float | None:
        """Edge of the box of the beads [nm]; None where they are one molecule, isolated or solvated."""
        return self.model.bead_box

    def structure(self) -> Any:
        """What the beads are made of: a built `MoleculeModel`, or the model potential.

        Raises:
            SystemSpecError: the specification does not fit the molecule.
        """
        return self.model.structure(self.mapping, self.collective_variables, self.folder)

    def beads(self) -> Beads:
        """The beads, for which a molecule is built.

        Raises:
            SystemSpecError: the specification does not fit the molecule.
        """
        structure = self.structure()
        return Beads(
            name=self.name,
            title=self.title,
            units=self.units,
            temperature=self.temperature,
            cg_map=self.mapping.cg_map(structure),
            collective_variables=self.collective_variables,
            constraints=structure.stored_constraints,
            box=self.cg_box,
        )

    def training_of(self, potential: str) -> Training:
        """How one of the potentials is trained."""
        epochs = self.potentials[potential].epochs
        return self.training if epochs is None else self.training.model_copy(update={"epochs": epochs})

    @property
    def reference_data(self) -> str | None:
        """Stage of the CG frames that are the reference; None where it is something else."""
        if not self.evaluation.reference.is_data:
            return None
        if self.imported is not None:
            return IMPORTED
        return "mapped_forces" if self.sampling.unbiased is not None else None

    @property
    def domain(self) -> tuple[float, float] | None:
        """Range of the one CG coordinate that potentials are defined on; None where they are defined everywhere."""
        return self.network.domain

    @property
    def reference_stage(self) -> str:
        """The stage of the free energy that potentials are judged against."""
        return "reference"

    def data_stage(self, potential: str) -> str:
        """The labels that it learns from."""
        return self.potentials[potential].labels

    def true_stage(self, potential: str) -> str:
        """That of the labels that it learns from."""
        return self.true_frames(self.potentials[potential].labels)

    def true_frames(self, labels: str) -> str:
        """Stage of the CG frames that models of these labels should look like: never those of a kernel."""
        if self.reference_data is not None:
            return self.reference_data
        sources = self.by_source_labels()
        return sources[labels][2] if labels in sources else labels

    def drawn(self, potential: str) -> tuple[int | None, int]:
        """As many as the potential says."""
        return self.potentials[potential].frames, self.training.seed

    @property
    def variable_names(self) -> list[str]:
        """Names of the collective variables; a model system's are its CG coordinates."""
        return self.mapping.variable_names(self.collective_variables)

    @property
    def variable_quantities(self) -> dict[str, str]:
        """Name of each collective variable to what it is: `angle` or `length`."""
        lengths = dict.fromkeys(self.variable_names, "length")
        return lengths | {name: variable.quantity for name, variable in self.collective_variables.items()}

    def _hashed_content(self) -> Fields:
        return self.model_dump(
            mode="json",
            exclude_none=True,
            exclude={"model": {"pdb"}, "evaluation": {"reference": {"file"}, "native": {"file"}}},
        )

    def outside_files(self) -> dict[str, list[Path]]:
        """Those of the model, of the reference and of the native structure."""
        native = [] if self.evaluation.native is None else [self.evaluation.native.file]
        judged = {"evaluation.native": native, "evaluation.reference": self.evaluation.reference.files}
        return super().outside_files() | {
            place: [self.folder / file for file in files] for place, files in judged.items()
        }


def seed_of(system: str, stage: str, batch: str) -> int:
    """The seed of a batch: the same (system, stage, batch) always gives the same number below 2**31."""
    return int(hashlib.sha256(f"{system}/{stage}/{batch}".encode()).hexdigest()[:8], 16) & 0x7FFFFFFF


def validate_batch_name(batch: str) -> str:
    """A batch name that can be part of a path: letters, digits, dash and underscore."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", batch):
        raise ValueError(f"batch {batch!r} must be 1 to 40 letters, digits, dashes or underscores")
    return batch
