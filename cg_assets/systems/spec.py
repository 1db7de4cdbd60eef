"""The specification of a system: what is simulated, mapped, trained and evaluated, read from one YAML file.

Every field is validated when the file is loaded, before any work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, field_validator, model_validator

from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.core.nested import fields_of, listed
from cg_assets.core.settings import Built, Fact, Fault, Name, Scope, Training, rising
from cg_assets.core.units import thermal_energy, unit
from cg_assets.evaluation.settings import EvaluationSettings, FreeEnergySettings, LearningCurve
from cg_assets.labels.kernels import sources as _kernels  # noqa: F401  (members of the family)
from cg_assets.labels.source import LabelSource
from cg_assets.labels.thermal import product_source as _products  # noqa: F401
from cg_assets.labels.thermal.settings import Targets
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.maps import Mapping
from cg_assets.potentials.settings import PotentialSettings
from cg_assets.sampling.imported.settings import IMPORTED_SAMPLES, ImportedTrajectories
from cg_assets.sampling.model import Model
from cg_assets.sampling.settings import Dynamics, Sampling, SamplingPlan
from cg_assets.simulation.settings import CGSimulation
from cg_assets.systems.atom_names import with_plain_atoms
from cg_assets.systems.base import Fields, System, merge
from cg_assets.systems.default_variables import with_variables
from cg_assets.systems.faults import faults_of
from cg_assets.training.settings import LearntPotential

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.progress import Progress
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.evaluation.learning_curves import Learner
    from cg_assets.evaluation.long_runs import ReferenceDensity
    from cg_assets.evaluation.reference import Reference, ReferenceCase
    from cg_assets.mapping.force_maps import ForceMap
    from cg_assets.sampling.conditional import ConditionalForces
    from cg_assets.sampling.held_beads import HeldBeads
    from cg_assets.sampling.imported.reader import ImportedReader
    from cg_assets.sampling.piecewise import DynamicsSummary, PiecewiseSampler


OF_RESPONSES = ("network", "temperature_dependence", "unconstrained_frames")
"""Fields of a file of a liquid that are the defaults of all its potentials."""


_TIMESTEP, _FRICTION = 0.002, 1.0
"""Of dynamics at fixed beads where nothing else is given [ps], [1/ps]."""


class Made(NamedTuple):
    """Labels of a source.

    Attributes:
        name: of the source.
        source: its settings.
        frames: stage of the frames that it labels.
    """

    name: str
    source: LabelSource
    frames: str


class SystemSpec(System):
    """A whole system: a model potential, or atoms."""

    temperature: PositiveFloat
    """[K], or reduced; where there are several, the lowest."""
    temperatures: list[PositiveFloat] = Field(default_factory=list)
    """Of a liquid, instead of `temperature`: those of its dynamics, its CG simulations and their evaluation [K]."""
    mapping: Mapping
    """Which atoms become which beads, and how forces are mapped."""
    collective_variables: dict[Name, CollectiveVariable] = Field(default_factory=dict)
    """By name: what molecules are biased along and judged by."""
    sampling: Sampling = Sampling()
    """Plans of molecular dynamics."""
    imported: ImportedTrajectories | None = None
    """Trajectories of other programs."""
    labels: dict[Name, LabelSource] = Field(default_factory=dict)
    """Further sources of force labels by name; of a kernel with the stage `<name>_kernel_forces` and, for a flow, its
    model `<name>_kernel`."""
    network: PotentialSettings
    """The potential that is learnt."""
    training: Training | None = None
    """How potentials are fitted to force labels."""
    targets: Targets | None = None
    """Of thermal response, at fixed beads."""
    cg_simulation: CGSimulation
    """At each of several temperatures."""
    potentials: dict[Name, LearntPotential] = Field(default_factory=dict)
    """In a file of a liquid, `network`, `temperature_dependence` and `unconstrained_frames` are the defaults of all."""
    evaluation: EvaluationSettings
    """How potentials are judged."""
    learning_curve: LearningCurve | None = None
    """Errors against the amount of data; null for none."""

    _rises = field_validator("temperatures")(rising)

    @model_validator(mode="before")
    @classmethod
    def _types_that_follow(cls, content: Any) -> Any:
        """Fill in what follows from the model: the lowest temperature, how potentials learn and are judged.

        null removes an inherited potential or source of labels.
        """
        content = with_variables(with_plain_atoms(fields_of(content)))
        model = Model.members().get(str(fields_of(content.get("model")).get("type")))
        liquid = model is not None and model.is_liquid
        shared = {name: content[name] for name in OF_RESPONSES if liquid and name in content}
        kind: Fields = {"type": "response" if liquid else "forces"}
        content = {name: value for name, value in content.items() if name not in shared or name == "network"}
        if temperatures := listed(content.get("temperatures")):
            content = {"temperature": temperatures[0]} | content
        judged, potentials = content.get("evaluation", {} if liquid else None), content.get("potentials")
        if isinstance(judged, dict):
            content["evaluation"] = {"type": "liquid" if liquid else "free_energies"} | judged
        if isinstance(labels := content.get("labels"), dict):
            content["labels"] = {name: own for name, own in labels.items() if own is not None}
        if isinstance(potentials, dict):
            wanted = {name: merge(shared, own) for name, own in potentials.items() if own is not None}
            content["potentials"] = {name: kind | own if isinstance(own, dict) else own for name, own in wanted.items()}
        return content

    def scope(self) -> Scope:
        """What sections can use from each other."""
        variables = self.collective_variables
        return Scope(
            model=self.model.kind,
            units=self.units,
            temperature=self.temperature,
            temperatures=tuple(self.temperatures),
            folder=self.folder,
            variables=tuple(self.variable_names),
            angles=frozenset(name for name, variable in variables.items() if variable.periodic),
            undriven=frozenset(name for name, variable in variables.items() if not variable.drivable),
            coordinates=tuple(self.model.coordinate_limits),
            box=self.cg_box,
            limits=self.model.coordinate_limits | {name: variable.limits for name, variable in variables.items()},
            longest_timestep=self.model.longest_timestep,
            draws_starts=self.model.draws_starts,
        )

    def sampler(self, plan: SamplingPlan, seed: int, snapshots: int = 0) -> PiecewiseSampler[DynamicsSummary]:
        """A sampler of one batch of a plan; errors as in `Model.sampler`."""
        return self.model.sampler(self.structure(), self.beads(), plan, seed, snapshots)

    def at_own_temperature(self, frames: Frames) -> Frames:
        """Those at its temperature of frames from all rungs of a ladder; all where it has several temperatures."""
        return frames if self.temperatures else frames.at_temperature(self.temperature)

    def repeated_labels(
        self,
        samples: Frames,
        frames: Frames,
        force_maps: Sequence[ForceMap],
        seed: int,
        progress: Progress | None = None,
        temperature: float | None = None,
    ) -> ConditionalForces | None:
        """Force labels at the same bead positions, again and again, at the system's temperature or another one.

        See `Model.repeated_labels`.
        """
        own = self.structure(), self.beads().at_temperature(temperature or self.temperature)
        return self.model.repeated_labels(*own, samples, frames, force_maps, self.dynamics, seed, progress)

    def held_beads(self, samples: Frames | None, starts: Frames) -> HeldBeads:
        """The atoms about the fixed beads of some frames; see `Model.held_beads`."""
        return self.model.held_beads(self.structure(), self.beads(), self.mapping, samples, starts)

    def imported_reader(self, batch: str) -> ImportedReader:
        """A reader of imported trajectories.

        Raises:
            SamplingError: nothing is imported, or a file is missing or does not fit the molecule.
        """
        from cg_assets.sampling.imported.reader import ImportedReader

        if self.imported is None:
            raise SamplingError(f"{self.name}: nothing is imported; give imported.files")
        return ImportedReader(self.imported, self.folder, self.structure(), self.beads(), batch)

    def built(self) -> Built:
        """The molecule or model potential and its beads; errors as in `System.built`."""
        return Built(self.scope(), self.model, self.structure(), self.beads(), self.mapping)

    def native_beads(self) -> NDArray[np.float64] | None:
        """Bead positions `(n_beads, 3)` of the native structure [nm]; None without one; errors as of `beads_in`."""
        judged = self.evaluation.free_energies
        return None if judged is None or judged.native is None else judged.native.beads(self.built())[0]

    def facts(self, built: Built) -> Iterator[Fact]:
        """The temperature, and the collective variables in the structure that dynamics start from."""
        kelvins = ", ".join(f"{item:g}" for item in self.temperatures or [self.temperature])
        yield "temperature", f"{kelvins} {unit('temperature', self.units)}"
        values = self.model.start_values(built.structure, built.beads)
        for name, value in values.items():
            yield f"collective variable {name}", f"{value:.4g} {self.variable_units[name]} in the start structure"

    def look_for_files(self, batch: str) -> None:
        """Look for the trajectories that a batch is imported from, if it is imported.

        Raises:
            SamplingError: there are none.
        """
        if self.imported is not None:
            from cg_assets.sampling.imported.files import imported_files

            imported_files(self.imported, self.folder, batch)

    def imported_files(self, batch: str) -> list[Path]:
        """All files that a batch is imported from; none where they are not there."""
        if self.imported is None:
            return []
        from cg_assets.sampling.imported.files import read_files

        try:
            return read_files(self.imported, self.folder, batch)
        except SamplingError:
            return []

    def run_reference(self, seed: int, folder: Path, progress: Progress | None = None) -> ReferenceDensity:
        """Run the long reference; a run that was interrupted is continued from its folder.

        Raises:
            CgAssetsError: the reference is not made of long runs.
        """
        from cg_assets.evaluation.long_runs import run_reference

        return run_reference(self.reference_case(), seed, folder, progress)

    def reference_case(self) -> ReferenceCase:
        """What the reference is computed from; errors as in `free_energies`."""
        from cg_assets.evaluation.reference import ReferenceCase

        case = ReferenceCase(self.beads(), self.free_energies, self.model, self.structure(), self.folder)
        return replace(case, native=self.native_beads())

    def compute_reference(
        self, seed: int, directory: Path, progress: Progress | None = None, data: Frames | None = None
    ) -> Reference:
        """Compute, read or run the reference; see `Reference.compute` of the settings."""
        return self.free_energies.reference.compute(self.reference_case(), seed, directory, progress, data)

    def learner(self, potential: str) -> Learner:
        """The learning curve of a potential.

        Raises:
            SystemSpecError: the file asks for none.
        """
        from cg_assets.evaluation.learning_curves import Learner

        settings, labels = self.learning_curve, self.potentials[potential].labels
        if settings is None:
            raise SystemSpecError(f"{self.name}: learning_curve is missing; add it to the system's file")
        averaged = self.sampling.by_mean_force_labels().get(labels)
        return Learner(
            potential=potential,
            beads=self.beads(),
            settings=settings,
            plan=self.plan_of(labels),
            means=averaged.plan if averaged else None,
            network=self.network,
            training=self.training_of(potential),
            simulation=settings.cg_simulation or self.cg_simulation,
        )

    def measure_box(self, seed: int, progress: Progress | None = None, folder: Path | None = None) -> Estimate:
        """Edge of the box at atmospheric pressure [nm]; arguments and errors as in `Model.measured_box`."""
        try:
            return self.model.measured_box(self.structure(), self.temperature, self.dynamics, seed, progress, folder)
        except SystemSpecError as error:
            raise SystemSpecError(f"{self.name}: {error}") from None

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Faults between sections."""
        return faults_of(self, scope)

    def by_source_labels(self) -> dict[str, Made]:
        """Stage of a source's labels to what makes them."""
        of = {sampled.name: labels for labels, sampled in self.sampling.by_labels().items()}
        of |= {} if self.imported is None else {"imported": self.imported.stage}
        return {source.stage(name): Made(name, source, of[source.of]) for name, source in self.labels.items()}

    @property
    def dynamics(self) -> Dynamics:
        """Of further dynamics: those of the first plan, or for imported trajectories half the longest time step."""
        return self.sampling.dynamics or Dynamics(0.5 * (self.model.longest_timestep or _TIMESTEP), _FRICTION)

    @property
    def biased_labels(self) -> str | None:
        """Stage of the frames whose frozen bias CG simulations can run under; None without any."""
        if self.sampling.biased is not None:
            return "relabelled_forces"
        declared = None if self.imported is None else self.imported.bias
        return self.imported.stage if self.imported and declared and declared.is_function else None

    def samples_of(self, labels: str) -> str:
        """The stage of the atoms that the labels of single frames are mapped from."""
        own = self.sampling.by_labels()
        return own[labels].samples if labels in own else IMPORTED_SAMPLES

    def plan_of(self, labels: str) -> SamplingPlan:
        """The sampling plan behind a stage of force labels, single ones, means, or those of a kernel."""
        if labels in (kernels := self.by_source_labels()):
            labels = kernels[labels].frames
        if labels in (means := self.sampling.by_mean_force_labels()):
            return means[labels].source.plan
        return self.sampling.by_labels()[labels].plan

    def plans(self) -> dict[str, SamplingPlan]:
        """Every plan of molecular dynamics by its place in the specification, that of the reference too."""
        judged = self.evaluation.free_energies
        reference = judged.reference.sampled if judged else None
        return self.sampling.by_section() | ({"evaluation.reference.plan": reference} if reference else {})

    # ----------------------------------------------------------------------------------- derived values

    @property
    def thermal_energy(self) -> float:
        """k_B T [kJ/mol or reduced]."""
        return thermal_energy(self.temperature, self.units)

    @property
    def cg_box(self) -> float | None:
        """Edge of the box of the beads [nm]; None where they are one molecule, isolated or solvated."""
        return None if self.model.is_solvated(self.mapping, self.folder) else self.model.bead_box

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
        cg_map = self.mapping.cg_map(structure)
        variables = {
            name: variable.bound(structure, cg_map, self.folder) for name, variable in self.collective_variables.items()
        }
        return Beads(
            name=self.name,
            title=self.title,
            units=self.units,
            temperature=self.temperature,
            cg_map=cg_map,
            collective_variables=variables,
            constraints=structure.stored_constraints,
            box=self.cg_box,
            temperatures=tuple(self.temperatures),
        )

    def training_of(self, potential: str) -> Training:
        """How one of the potentials is trained.

        Raises:
            SystemSpecError: the file does not say so.
        """
        own = {name: getattr(self.potentials[potential], name) for name in ("epochs", "seed")}
        return self.fit.model_copy(update={name: value for name, value in own.items() if value is not None})

    @property
    def fit(self) -> Training:
        """How potentials are fitted to force labels.

        Raises:
            SystemSpecError: the file does not say so.
        """
        if self.training is None:
            raise SystemSpecError(f"{self.name}: training is missing; give its epochs, batch_size and learning_rate")
        return self.training

    @property
    def free_energies(self) -> FreeEnergySettings:
        """How potentials are judged by free energies.

        Raises:
            SystemSpecError: they are judged as those of a liquid.
        """
        judged = self.evaluation.free_energies
        if judged is None:
            raise SystemSpecError(
                f"{self.name}: a liquid is judged by its own dynamics, the stage trajectories; it has no reference"
            )
        return judged

    @property
    def reference_data(self) -> str | None:
        """Stage of the CG frames that are the reference; None where it is something else."""
        judged = self.evaluation.free_energies
        if judged is None or not judged.reference.is_data:
            return None
        if self.imported is not None:
            return self.imported.stage
        return "mapped_forces" if self.sampling.unbiased is not None else None

    @property
    def rungs(self) -> list[float]:
        """Temperatures of the frames that are the reference, where a ladder keeps those of all its rungs [K]."""
        plan = self.sampling.unbiased
        if self.reference_data is None or self.imported is not None or plan is None or plan.kept_rungs == 1:
            return []
        return list(plan.tempering.temperatures) if plan.tempering else []

    @property
    def dynamics_stage(self) -> str | None:
        """Stage of the CG frames whose time scales are those of the atoms; None where the reference has them."""
        judged = self.evaluation.free_energies
        slow = None if judged is None else judged.slow_coordinates
        if slow is None or slow.dynamics is None:
            return None
        return next(labels for labels, plan in self.sampling.by_labels().items() if plan.name == slow.dynamics)

    @property
    def simulated_temperatures(self) -> list[float]:
        """Temperatures of CG simulations and their evaluation, where there are several [K]."""
        return self.temperatures or self.cg_simulation.temperatures or []

    @property
    def domain(self) -> tuple[float, float] | None:
        """Range of the one CG coordinate that potentials are defined on; None where they are defined everywhere."""
        return self.network.domain

    @property
    def reference_stage(self) -> str | None:
        """The stage of the free energy that potentials are judged against; None of a liquid."""
        return "reference" if self.evaluation.free_energies else None

    def data_stage(self, potential: str) -> str:
        """Stage of the CG frames that simulations with a potential start from."""
        return self.potentials[potential].data_stage

    def true_stage(self, potential: str) -> str:
        """Stage of the CG frames that those of a potential should look like."""
        return self.true_frames(self.data_stage(potential))

    def true_frames(self, labels: str) -> str:
        """Stage of the CG frames that models of these labels should look like: never those of a kernel."""
        if self.reference_data is not None:
            return self.reference_data
        sources = self.by_source_labels()
        return sources[labels].frames if labels in sources else labels

    def drawn(self, potential: str) -> tuple[int | None, int]:
        """How many frames a potential learns from (None: all), and the seed that draws them."""
        return self.potentials[potential].frames, self.training_of(potential).seed if self.training else 0

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
        """Those of the model, of the collective variables, of the reference and of the native structure."""
        variables = [file for variable in self.collective_variables.values() for file in variable.files]
        found = {"collective_variables": variables} if variables else {}
        if (judged := self.evaluation.free_energies) is not None:
            found["evaluation.native"] = [] if judged.native is None else [judged.native.file]
            found["evaluation.reference"] = judged.reference.files
        return super().outside_files() | {
            place: [self.folder / file for file in files] for place, files in found.items()
        }
