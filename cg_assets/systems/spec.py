"""The specification of a system: what is simulated, mapped, trained and judged, read from one YAML file.

Every field is validated when the file is loaded, so that a wrong value stops nothing but the loading.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from cg_assets.biases.settings import AdaptiveBias, DepositedBias, OpesBias, StaticBias, UmbrellaBias
from cg_assets.core.expressions import parse_expression
from cg_assets.core.settings import Name, Strict, Training, is_multiple
from cg_assets.core.units import UnitSystem, thermal_energy
from cg_assets.evaluation.settings import (
    DataReference,
    Evaluation,
    LearningCurve,
    LongRunReference,
    QuadratureReference,
)
from cg_assets.labels.settings import FlowKernel, Kernel
from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.maps import LinearMapping, Mapping
from cg_assets.potentials.settings import (
    ChainPrior,
    MessagePassingNetwork,
    Network,
    RadialBasisNetwork,
    SplineSurfaceNetwork,
)
from cg_assets.sampling.model import Model
from cg_assets.sampling.model_potential.model import ModelPotential
from cg_assets.sampling.molecule.model import Molecule
from cg_assets.sampling.settings import IMPORTED, ImportedTrajectories, Sampling, SamplingPlan
from cg_assets.simulation.settings import CGSimulation, Tempering
from cg_assets.systems.base import System

# --------------------------------------------------------------------------------------- potentials


class Potential(Strict):
    """One potential to train: on which labels, and on how many of their frames."""

    labels: Name
    """Stage of force labels: mapped_forces, relabelled_forces, or that of a further plan, mean forces or a kernel."""
    frames: PositiveInt | None = None
    """Number of frames drawn at random from the labels; null for all."""
    epochs: PositiveInt | None = None
    """Epochs of this potential, where its labels have many more frames than others; null for training.epochs."""


# --------------------------------------------------------------------------------------- system


class SystemSpec(System):
    """A whole system at one temperature."""

    temperature: PositiveFloat
    """[K], or reduced."""
    model: Model
    mapping: Mapping
    collective_variables: dict[Name, CollectiveVariable] = Field(default_factory=dict)
    sampling: Sampling = Sampling()
    imported: ImportedTrajectories | None = None
    kernels: dict[Name, Kernel] = Field(default_factory=dict)
    """Kernels by name, with the stage `<name>_kernel_forces` and, for a flow, its model `<name>_kernel`."""
    network: Network
    training: Training
    cg_simulation: CGSimulation
    potentials: dict[Name, Potential] = Field(min_length=1)
    evaluation: Evaluation
    learning_curve: LearningCurve | None = None

    @model_validator(mode="after")
    def _parts_agree(self) -> SystemSpec:
        if isinstance(self.model, ModelPotential):
            self._check_model_system(self.model)
        elif isinstance(self.model, Molecule):
            self._check_molecule(self.model)
        known = set(self.variable_names)
        self._check_known("evaluation.collective_variables", set(self.evaluation.collective_variables), known)
        for name, basin in self.evaluation.basins.items():
            self._check_known(f"evaluation.basins.{name}", set(basin.limits), known)
        for name, plan in self._plans().items():
            self._check_plan(name, plan)
        for name, kernel in self.kernels.items():
            self._check_kernel(name, kernel)
        for name, potential in self.potentials.items():
            known_labels = [*self.sampling.by_labels(), *self.sampling.by_mean_force_labels(), *self.by_kernel_labels()]
            if potential.labels not in known_labels:
                raise ValueError(
                    f"potentials.{name}.labels is {potential.labels}, but sampling and kernels give only "
                    f"{', '.join(known_labels)}; choose one of these or add what is missing"
                )
        if self.imported is None and not self.sampling.by_section():
            raise ValueError("sampling names no plan and nothing is imported; give sampling.unbiased or imported")
        if self.imported is not None and self.learning_curve is not None:
            raise ValueError("learning_curve counts simulated time, which imported trajectories do not tell; leave it")
        if self.cg_simulation.kept_replicas < 2:
            raise ValueError(
                f"cg_simulation.replicas is {self.cg_simulation.replicas}, so that frames of "
                f"{self.cg_simulation.kept_replicas} are kept; give at least 2, whose scatter is the error of the "
                "results"
            )
        tempered = self.cg_simulation.tempering
        if tempered is not None and tempered.temperatures[0] != self.temperature:
            raise ValueError(
                f"cg_simulation.tempering.temperatures begins with {tempered.temperatures[0]}; it must begin with the "
                f"temperature of the system, {self.temperature}"
            )
        curve = self.learning_curve.cg_simulation if self.learning_curve else None
        if self.cg_simulation.enhanced_duration or (curve is not None and curve.enhanced_duration):
            if self.sampling.biased is None:
                raise ValueError("cg_simulation.enhanced_duration needs the bias of sampling.biased, which is missing")
            if isinstance(self.sampling.biased.bias, UmbrellaBias):
                raise ValueError(
                    "cg_simulation.enhanced_duration runs under one frozen bias, and umbrella windows are many; set it "
                    "to 0 or sample with metadynamics or a static bias"
                )
        return self

    @staticmethod
    def _check_known(where: str, used: set[str], known: set[str]) -> None:
        if used - known:
            raise ValueError(f"{where} uses {sorted(used - known)}; known are {sorted(known)}")

    def _check_model_system(self, model: ModelPotential) -> None:
        if not isinstance(self.mapping, LinearMapping):
            raise ValueError("mapping.type must be linear for a model potential")
        names = list(self.mapping.coordinates)
        if len(names) == 1 and not isinstance(self.network, RadialBasisNetwork):
            raise ValueError("network.type must be radial_basis for a model potential with one CG coordinate")
        if len(names) == 2 and not isinstance(self.network, SplineSurfaceNetwork):
            raise ValueError("network.type must be spline_surface for a model potential with two CG coordinates")
        if not isinstance(self.evaluation.reference, QuadratureReference):
            raise ValueError("evaluation.reference.type must be quadrature for a model potential")
        self._check_ranges(names, self.evaluation.reference)
        if self.collective_variables:
            raise ValueError("collective_variables of a model potential are its CG coordinates; leave the field out")
        if self.imported is not None:
            raise ValueError("imported needs a molecule, whose trajectories they are")
        if self.sampling.mean_forces:
            raise ValueError("sampling.mean_forces needs a molecule, whose other atoms move at fixed beads")
        for name, weights in self.mapping.coordinates.items():
            self._check_known(f"mapping.coordinates.{name}", set(weights), set(model.coordinates))
            if not any(weights.values()):
                raise ValueError(f"mapping.coordinates.{name} has no weight other than zero")

    def _check_ranges(self, names: list[str], reference: QuadratureReference) -> None:
        """Of a model potential: two CG coordinates, in order, wherever something is said of each."""
        given = {"evaluation.reference.range": reference.range}
        if isinstance(self.network, SplineSurfaceNetwork):
            given["network.range"] = self.network.range
        for where, value in given.items():
            named = list(value) if isinstance(value, dict) else []
            if named != (names if len(names) == 2 else []):
                expected = f"the limits of {' and '.join(names)} by name" if len(names) == 2 else "two numbers"
                raise ValueError(f"{where} is {value}; give {expected}")
        if len(names) == 1:
            return
        if self.evaluation.collective_variables != names:
            raise ValueError(f"evaluation.collective_variables must be {names}, the CG coordinates")
        biased = [section for section, plan in self.sampling.by_section().items() if plan.bias is not None]
        if biased:
            raise ValueError(f"{biased[0]}.bias needs one CG coordinate, not two; sample without a bias")

    def _check_molecule(self, model: Molecule) -> None:
        if not isinstance(self.mapping, BeadMapping):
            raise ValueError("mapping.type must be beads for a molecule")
        if not isinstance(self.network, MessagePassingNetwork):
            raise ValueError("network.type must be message_passing for a molecule")
        if isinstance(self.evaluation.reference, QuadratureReference):
            raise ValueError("evaluation.reference.type must be long_runs or data for a molecule")
        if isinstance(self.evaluation.reference, DataReference) and self.reference_data is None:
            raise ValueError(
                "evaluation.reference.type is data, but there are neither imported trajectories nor sampling.unbiased"
            )
        if not model.force_fields and (simulated := list(self._plans())):
            raise ValueError(
                f"model.force_fields is empty, but {simulated[0]} simulates the molecule; name its force field"
            )
        if not self.collective_variables:
            raise ValueError("collective_variables is empty; a molecule needs at least one to be judged by")
        for name, variable in self.collective_variables.items():
            outside = [atom for atom in variable.atoms if not self.mapping.holds_atom(atom)]
            if outside:
                raise ValueError(
                    f"collective_variables.{name} uses {outside}, on which no bead sits: it is not a function of the "
                    "CG coordinates, so biasing it would change the mean force; choose atoms that are beads"
                )
        box, cutoff = self.cg_box, self.network.cutoff
        if box is not None and self.network.prior is not None:
            raise ValueError("network.prior is for the beads of one molecule, not for a box of beads; leave it out")
        if box is not None and cutoff is None:
            raise ValueError(
                f"network.cutoff is null, but the molecule is in a periodic box of {box} nm: give a cutoff of at most "
                f"{box / 2} nm"
            )
        if box is not None and cutoff is not None and cutoff > box / 2:
            raise ValueError(f"network.cutoff {cutoff} nm is beyond half the box ({box / 2} nm); lower it")
        self._check_slow_coordinates()
        if model.pdb is not None and not (self.folder / model.pdb).is_file():
            raise ValueError(f"model.pdb: no file {self.folder / model.pdb}; give a path relative to the YAML file")

    def _check_slow_coordinates(self) -> None:
        settings, native = self.evaluation.slow_coordinates, self.evaluation.native
        if native is not None and not (self.folder / native.file).is_file():
            raise ValueError(
                f"evaluation.native.file: no file {self.folder / native.file}; give a path relative to the YAML file"
            )
        if settings is None:
            return
        intervals = {"cg_simulation.frame_interval": self.cg_simulation.frame_interval}
        durations = {"cg_simulation.duration": self.cg_simulation.duration}
        if self.imported is not None:
            intervals["imported.frame_interval"] = self.imported.frame_interval * self.imported.stride
        elif self.sampling.unbiased is not None:
            intervals["sampling.unbiased.frame_interval"] = self.sampling.unbiased.frame_interval
            durations["sampling.unbiased.duration"] = self.sampling.unbiased.duration
        where = f"evaluation.slow_coordinates.lag {settings.lag}"
        for name, interval in intervals.items():
            if not is_multiple(settings.lag, interval):
                raise ValueError(f"{where} is not a multiple of {name} {interval}")
        for name, duration in durations.items():
            if duration <= settings.lag:
                raise ValueError(f"{where} is not shorter than {name} {duration}; lower it")

    def _check_kernel(self, name: str, kernel: Kernel) -> None:
        where, taken = f"kernels.{name}", {*self.sampling.by_labels(), *self.sampling.by_mean_force_labels()}
        plans = {section.rpartition(".")[2]: plan for section, plan in self.sampling.by_section().items()}
        known = [*plans, *(["imported"] if self.imported else [])]
        if f"{name}_kernel_forces" in taken:
            raise ValueError(f"{where}: {name} is taken by a plan of sampling; choose another name")
        if kernel.of not in known:
            raise ValueError(f"{where}.of is {kernel.of}; there are {', '.join(known)}")
        if kernel.of == "imported" and kernel.needs_forces:
            raise ValueError(f"{where}.labels is {kernel.labels}, but imported trajectories have no forces; take clean")
        if self.cg_box is not None:
            raise ValueError(f"{where} needs the beads of one molecule that is not in a box of beads")
        if kernel.of in plans and plans[kernel.of].windows > 1:
            raise ValueError(
                f"{where}.of is {kernel.of}, whose umbrella windows have no common density; take frames of a plan with "
                "one bias, or without"
            )
        if isinstance(kernel, FlowKernel) and kernel.flow is not None:
            other = self.kernels.get(kernel.flow)
            if not isinstance(other, FlowKernel) or other.flow is not None:
                raise ValueError(f"{where}.flow is {kernel.flow}, which is no flow kernel with a flow of its own")
            if (other.of, other.noise) != (kernel.of, kernel.noise):
                raise ValueError(f"{where}.flow is {kernel.flow}, which has another plan or other noise")

    def by_kernel_labels(self) -> dict[str, tuple[str, Kernel, str]]:
        """Stage of a kernel's labels to its name, the kernel, and the stage of the frames that it perturbs."""
        of = {section.rpartition(".")[2]: labels for labels, (_, section) in self.sampling.by_labels().items()}
        of["imported"] = IMPORTED
        return {f"{name}_kernel_forces": (name, kernel, of[kernel.of]) for name, kernel in self.kernels.items()}

    def plan_of(self, labels: str) -> SamplingPlan:
        """The sampling plan behind a stage of force labels, single ones, means, or those of a kernel."""
        if labels in (kernels := self.by_kernel_labels()):
            labels = kernels[labels][2]
        if labels in (means := self.sampling.by_mean_force_labels()):
            _, labels = means[labels]
        return self.sampling.by_section()[self.sampling.by_labels()[labels][1]]

    def _plans(self) -> dict[str, SamplingPlan]:
        plans = self.sampling.by_section()
        if isinstance(self.evaluation.reference, LongRunReference):
            plans["evaluation.reference.plan"] = self.evaluation.reference.plan
        return plans

    def _check_plan(self, where: str, plan: SamplingPlan) -> None:
        known = set(self.variable_names)
        reduced = self.units == "reduced"
        points = list(plan.starts) if isinstance(plan.starts, list) else []
        points += plan.probe.starts if plan.probe else []
        if plan.starts == "equilibrium" and not reduced:
            raise ValueError(f"{where}.starts: equilibrium needs a model potential; list start states for a molecule")
        start_names = set(self.model.start_names(self.variable_names))
        for point in points:
            if set(point) != start_names and reduced:
                raise ValueError(f"{where}.starts: {point} must give each of {sorted(start_names)}")
            self._check_known(f"{where}.starts", set(point), start_names)
        if plan.tempering is not None:
            self._check_tempering(where, plan.tempering)
        if where.startswith("sampling.") and plan.bias is not None and plan.starts != "equilibrium":
            self._check_comparable(where, plan)
        match plan.bias:
            case StaticBias(expression=expression):
                used = parse_expression(expression).names
                hidden = sorted(used & start_names - known)
                if hidden:
                    raise ValueError(
                        f"{where}.bias uses {hidden}: it is not a function of the CG coordinate {sorted(known)}, so it "
                        "would change the mean force; write it in the CG coordinate"
                    )
                self._check_known(f"{where}.bias.expression", set(used), known)
            case UmbrellaBias(centers=centers):
                for center in centers:
                    self._check_known(f"{where}.bias.centers", set(center), known)
                if plan.replicas % plan.windows:
                    raise ValueError(
                        f"{where}.replicas {plan.replicas} is not a multiple of the {plan.windows} umbrella windows"
                    )
            case DepositedBias() | AdaptiveBias() as bias:
                if isinstance(bias, OpesBias):
                    self._check_opes(where, bias)
                if isinstance(bias, AdaptiveBias) and not where.startswith("sampling.further."):
                    raise ValueError(f"{where}.bias is adaptive; only a plan under sampling.further can be")
                if isinstance(bias, AdaptiveBias) and plan.replicas % bias.windows:
                    raise ValueError(
                        f"{where}.replicas {plan.replicas} is not a multiple of the {bias.windows} windows"
                    )
                self._check_known(f"{where}.bias.collective_variables", set(bias.collective_variables), known)
                for name in bias.collective_variables:
                    angle = name in self.collective_variables and self.collective_variables[name].periodic
                    if not angle and name not in bias.grid_range:
                        raise ValueError(f"{where}.bias.grid_range lacks {name}; give its lower and upper limit")

    def _check_tempering(self, where: str, tempering: Tempering) -> None:
        if isinstance(self.model, ModelPotential):
            raise ValueError(f"{where}.tempering needs a molecule; a model potential can start from equilibrium")
        if tempering.temperatures[0] != self.temperature:
            raise ValueError(
                f"{where}.tempering.temperatures begins with {tempering.temperatures[0]} K; it must begin with the "
                f"temperature of the system, {self.temperature} K"
            )

    @staticmethod
    def _check_comparable(where: str, plan: SamplingPlan) -> None:
        """Conditional equilibration is judged by comparing replicas from different starts, in each window."""
        if plan.probe:
            return
        if len(plan.starts[: plan.replicas]) < 2:
            raise ValueError(
                f"{where}.starts names one start state for {plan.replicas} replicas, but conditional equilibration is "
                "judged by comparing replicas from different starts; give at least two, or a probe"
            )
        if plan.windows > 1 and plan.replicas < 2 * plan.windows:
            raise ValueError(
                f"{where}.replicas is {plan.replicas} for {plan.windows} windows, but conditional equilibration is "
                "judged by comparing replicas from different starts in each window; give at least two to each, of half "
                "the duration"
            )

    def _check_opes(self, where: str, bias: OpesBias) -> None:
        if isinstance(self.model, ModelPotential):
            raise ValueError(f"{where}.bias.type is opes, which needs a molecule; take metadynamics")
        if not bias.barrier > self.thermal_energy:
            raise ValueError(
                f"{where}.bias.barrier {bias.barrier} kJ/mol is not above kT ({self.thermal_energy:.3g} kJ/mol); no "
                "bias is needed then"
            )

    # ----------------------------------------------------------------------------------- derived values

    @property
    def units(self) -> UnitSystem:
        """`molar` for molecules, `reduced` for model potentials."""
        return self.model.units

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
    def prior(self) -> ChainPrior | None:
        """Force field that networks correct; None without one."""
        return self.network.prior if isinstance(self.network, MessagePassingNetwork) else None

    @property
    def reference_data(self) -> str | None:
        """Stage of the CG frames that are the reference; None where it is something else."""
        if not isinstance(self.evaluation.reference, DataReference):
            return None
        if self.imported is not None:
            return IMPORTED
        return "mapped_forces" if self.sampling.unbiased is not None else None

    def true_frames(self, labels: str) -> str:
        """Stage of the CG frames that models of these labels should look like: never those of a kernel."""
        if self.reference_data is not None:
            return self.reference_data
        kernels = self.by_kernel_labels()
        return kernels[labels][2] if labels in kernels else labels

    @property
    def variable_names(self) -> list[str]:
        """Names of the collective variables; a model system's are its CG coordinates."""
        return self.mapping.variable_names(self.collective_variables)

    @property
    def variable_quantities(self) -> dict[str, str]:
        """Name of each collective variable to what it is: torsions are angles, all others lengths."""
        known = self.collective_variables
        return {name: known[name].quantity if name in known else "length" for name in self.variable_names}

    def _hashed_content(self) -> dict[str, Any]:
        return self.model_dump(
            mode="json", exclude_none=True, exclude={"model": {"pdb"}, "evaluation": {"reference": {"file"}}}
        )

    def _hashed_bytes(self) -> bytes:
        if isinstance(self.model, Molecule) and self.model.pdb:
            return (self.folder / self.model.pdb).read_bytes()
        return b""


def seed_of(system: str, stage: str, batch: str) -> int:
    """The seed of a batch: the same (system, stage, batch) always gives the same number below 2**31."""
    return int(hashlib.sha256(f"{system}/{stage}/{batch}".encode()).hexdigest()[:8], 16) & 0x7FFFFFFF


def validate_batch_name(batch: str) -> str:
    """A batch name as it may stand in a path: letters, digits, dash and underscore."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", batch):
        raise ValueError(f"batch {batch!r} must be 1 to 40 letters, digits, dashes or underscores")
    return batch
