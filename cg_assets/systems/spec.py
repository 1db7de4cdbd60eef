"""The specification of a system: what is simulated, mapped, trained and judged, read from one YAML file.

Every field is validated when the file is loaded, so that a wrong value stops nothing but the loading.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from cg_assets.errors import ExpressionError
from cg_assets.systems.base import Name, Strict, System, is_multiple
from cg_assets.systems.expressions import parse_expression
from cg_assets.units import UnitSystem, thermal_energy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Numbers = TypeVar("_Numbers", int, "NDArray[np.int64]")
AtomName = Annotated[str, Field(pattern=r"^[0-9]+:[A-Za-z0-9'*]+$")]
"""An atom as `residue number:atom name`, residues counted from 1."""


def _parsed(text: str) -> str:
    try:
        parse_expression(text)
    except ExpressionError as error:
        raise ValueError(str(error)) from None
    return text


Formula = Annotated[str, AfterValidator(_parsed)]
"""A formula that has been parsed (never evaluated as Python)."""


# --------------------------------------------------------------------------------------- atomistic models


class ModelPotential(Strict):
    """An analytic potential energy of a few coordinates, in reduced units (k_B = 1)."""

    type: Literal["model_potential"]
    coordinates: list[Name] = Field(min_length=1, max_length=3)
    expression: Formula
    """Potential energy as a formula of the coordinates."""
    domain: dict[Name, tuple[float, float]]
    """Range of each coordinate that holds the Boltzmann weight; used for quadrature and plots."""
    mass: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _names_agree(self) -> ModelPotential:
        unknown = parse_expression(self.expression).names - set(self.coordinates)
        if unknown:
            raise ValueError(f"expression uses {sorted(unknown)}; the coordinates are {self.coordinates}")
        if set(self.domain) != set(self.coordinates):
            raise ValueError(f"domain gives {sorted(self.domain)}; it must give each of {self.coordinates}")
        for name, (low, high) in self.domain.items():
            if not low < high:
                raise ValueError(f"domain of {name} is [{low}, {high}]; the first number must be the smaller")
        return self


class Molecule(Strict):
    """A molecule built from its sequence or read from a PDB file, with an OpenMM force field where it is simulated."""

    type: Literal["molecule"]
    sequence: list[str] | None = None
    """Residues of a peptide, capped as [ACE, ALA, NME] or with free ends as [TYR, ASP, GLY]; built extended."""
    pdb: Path | None = None
    """A PDB file relative to the folder of the YAML file, with all hydrogens where there is a force field."""
    force_fields: list[str] = Field(default_factory=list)
    """Force field files that OpenMM ships, for example amber14-all.xml; none where frames are only imported."""
    implicit_solvent: Literal["OBC2"] | None = None
    constraints: Literal["h_bonds", "none"] = "h_bonds"
    hydrogen_mass: PositiveFloat | None = 4.0
    """Mass of each hydrogen after repartitioning [amu]; null keeps the force field's masses."""
    cutoff: PositiveFloat | None = None
    """Cutoff of non-bonded interactions [nm]; null for none. A periodic box needs one."""
    box: PositiveFloat | None = None
    """Edge of the cubic periodic box [nm]; null for an isolated molecule."""
    waters: PositiveInt | None = None
    """Water molecules to put around the molecule; a force field file must know them. The edge of the box at
    atmospheric pressure comes from `cg-assets box`."""

    @model_validator(mode="after")
    def _one_source(self) -> Molecule:
        if (self.sequence is None) == (self.pdb is None):
            raise ValueError("give exactly one of sequence and pdb")
        if self.waters is not None and self.box is None:
            raise ValueError(f"waters is {self.waters}, but box is null; water needs a periodic box [nm]")
        if self.box is not None:
            if self.cutoff is None:
                raise ValueError("a periodic box needs a cutoff [nm]")
            if self.cutoff > self.box / 2:
                raise ValueError(
                    f"cutoff {self.cutoff} nm is beyond half the box ({self.box / 2} nm); lower it or enlarge the box"
                )
            if self.implicit_solvent:
                raise ValueError("implicit_solvent needs an isolated molecule; set box to null")
        return self


# --------------------------------------------------------------------------------------- mapping


class LinearMapping(Strict):
    """One or two CG coordinates of a model potential."""

    type: Literal["linear"]
    coordinates: dict[Name, dict[Name, float]] = Field(min_length=1, max_length=2)
    """Name of each CG coordinate to its weights, for example {s: {x: 0.7071, y: -0.7071}}. Where there are two, each is
    one coordinate of the model potential: {x: {x: 1}, y: {y: 1}}."""

    @model_validator(mode="after")
    def _two_are_kept_whole(self) -> LinearMapping:
        kept = [name for weights in self.coordinates.values() for name, weight in weights.items() if weight]
        if len(self.coordinates) == 2 and (
            len(set(kept)) != 2 or any([*weights.values()] != [1.0] for weights in self.coordinates.values())
        ):
            raise ValueError(
                f"coordinates are {self.coordinates}; of two CG coordinates, each must be another coordinate of the "
                "model potential with weight 1"
            )
        return self


class BeadMapping(Strict):
    """Beads placed on atoms or at centres of mass of groups of atoms."""

    type: Literal["beads"]
    beads: Literal["heavy_atoms", "alpha_carbons"] | dict[str, list[AtomName]]
    """`heavy_atoms` (not those of water), `alpha_carbons`, or bead name to its atoms (one atom: placed on it; several:
    at their centre of mass)."""
    force_map: Literal["slice", "group", "optimal"] = "optimal"
    """How atomistic forces become bead forces: docs/force_maps.md."""
    bead_types: Literal["element", "unique"] = "unique"
    """Which beads share parameters: those of one element, or none."""

    def holds_atom(self, atom: str) -> bool:
        """Whether a bead sits exactly on this atom, as far as names tell."""
        if self.beads == "alpha_carbons":
            return atom.split(":")[1] == "CA"
        if self.beads == "heavy_atoms":
            return not atom.split(":")[1].lstrip("0123456789").upper().startswith("H")
        return any(members == [atom] for members in self.beads.values())


class Torsion(Strict):
    """A dihedral angle of four atoms [rad]."""

    type: Literal["torsion"]
    atoms: tuple[AtomName, AtomName, AtomName, AtomName]


class Distance(Strict):
    """The distance of two atoms [nm]."""

    type: Literal["distance"]
    atoms: tuple[AtomName, AtomName]
    range: tuple[float, float]
    """Limits of histograms and bias grids [nm]."""


CollectiveVariable = Annotated[Torsion | Distance, Field(discriminator="type")]


# --------------------------------------------------------------------------------------- sampling

StartPoint = dict[Name, float]


class StaticBias(Strict):
    """A fixed bias given as a formula of the collective variables."""

    type: Literal["static"]
    expression: Formula


class UmbrellaBias(Strict):
    """Harmonic windows, one for each replica in turn."""

    type: Literal["umbrella"]
    centers: list[StartPoint] = Field(min_length=1)
    """One entry per window: a value for each collective variable."""
    force_constant: PositiveFloat
    """k of k/2 (difference)^2 [kJ/mol/rad^2, kJ/mol/nm^2 or reduced]."""


class DepositedBias(Strict):
    """A bias that all walkers build together while they move, and that is then frozen."""

    collective_variables: list[Name] = Field(min_length=1, max_length=2)
    width: dict[Name, PositiveFloat]
    """Standard deviation of a hill or kernel along each collective variable."""
    pace: PositiveFloat
    """Time between two hills or kernels of a walker [ps or reduced]."""
    deposition: PositiveFloat
    """Time for which each walker deposits before the bias is frozen [ps or reduced]."""
    grid_range: dict[Name, tuple[float, float]] = Field(default_factory=dict)
    """Range of the bias grid for collective variables that are not angles."""

    @model_validator(mode="after")
    def _widths_given(self) -> DepositedBias:
        if set(self.width) != set(self.collective_variables):
            raise ValueError(f"width gives {sorted(self.width)}; it must give each of {self.collective_variables}")
        if self.deposition < self.pace:
            raise ValueError(f"deposition {self.deposition} is shorter than pace {self.pace}: nothing would be laid")
        return self


class MetadynamicsBias(DepositedBias):
    """Well-tempered metadynamics."""

    type: Literal["metadynamics"]
    height: PositiveFloat
    """First height of a hill [kJ/mol or reduced]."""
    bias_factor: float = Field(gt=1.0)


class OpesBias(DepositedBias):
    """On-the-fly probability enhanced sampling: the bias follows a running estimate of the probability."""

    type: Literal["opes"]
    barrier: PositiveFloat
    """Highest barrier to be crossed [kJ/mol]: the bias goes no deeper, and its bias factor is barrier / kT."""


class AdaptiveBias(Strict):
    """Umbrella windows that the asset `next_batch_plan` places anew for each batch, where data are needed most."""

    type: Literal["adaptive"]
    collective_variables: list[Name] = Field(min_length=1, max_length=2)
    windows: PositiveInt
    """Number of windows; replicas are dealt out to them in turn."""
    force_constant: PositiveFloat
    """k of k/2 (difference)^2 [kJ/mol/rad^2, kJ/mol/nm^2 or reduced]."""
    candidates: int = Field(default=16, ge=3, le=100)
    """Number of places for a window along each collective variable."""
    highest: PositiveFloat = 10.0
    """Free energy [kT] above the minimum up to which data are wanted."""
    grid_range: dict[Name, tuple[float, float]] = Field(default_factory=dict)
    """Range of collective variables that are not angles."""


Bias = Annotated[StaticBias | UmbrellaBias | MetadynamicsBias | OpesBias | AdaptiveBias, Field(discriminator="type")]


class Probe(Strict):
    """Replicas from other starts, run under the same bias only to test conditional equilibration."""

    replicas: PositiveInt
    starts: list[StartPoint] = Field(min_length=1)


class Tempering(Strict):
    """Replica exchange in temperature: replicas climb a ladder of temperatures and come back over barriers."""

    temperatures: list[PositiveFloat] = Field(min_length=2)
    """The ladder, rising from the temperature of the system, at which frames are kept [K]."""
    pace: PositiveFloat
    """Time between two attempts to exchange neighbours on the ladder [ps]."""

    @field_validator("temperatures")
    @classmethod
    def _climbs(cls, value: list[float]) -> list[float]:
        if any(high <= low for low, high in itertools.pairwise(value)):
            raise ValueError(f"{value} does not rise; list the temperatures from the lowest up, each once")
        return value


class SamplingPlan(Strict):
    """How one batch of frames is sampled. All times [ps, or reduced]."""

    replicas: PositiveInt
    starts: Literal["equilibrium"] | list[StartPoint] = "equilibrium"
    """Start states; replica i takes entry i modulo their number. `equilibrium` draws from the exact (biased)
    density of a model potential; a molecule names collective variables or coordinates to start from."""
    timestep: PositiveFloat
    friction: PositiveFloat
    burn_in: float = Field(ge=0.0)
    """Time of each replica before the first frame."""
    duration: PositiveFloat
    """Time of each replica over which frames are kept."""
    frame_interval: PositiveFloat
    bias: Bias | None = None
    probe: Probe | None = None
    tempering: Tempering | None = None
    """Replica exchange of a molecule without bias; each ladder of replicas keeps one replica's frames."""

    @model_serializer(mode="wrap")
    def _hash_as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without tempering a plan reads, and hashes, as it did before plans could have it."""
        content = handler(self)
        return content if self.tempering else {name: value for name, value in content.items() if name != "tempering"}

    @model_validator(mode="after")
    def _whole_ladders(self) -> SamplingPlan:
        if self.tempering is None:
            return self
        pace, steps = self.tempering.pace, len(self.tempering.temperatures)
        if self.bias is not None or self.probe is not None:
            raise ValueError("tempering goes without bias and probe; leave one of them out")
        if self.replicas % steps:
            raise ValueError(f"replicas {self.replicas} is not a multiple of the {steps} temperatures of tempering")
        for name, whole, part in (
            ("tempering.pace", pace, self.frame_interval),
            ("duration", self.duration, pace),
            ("burn_in", self.burn_in, pace),
        ):
            if not is_multiple(whole, part):
                raise ValueError(f"{name} {whole} is not a multiple of {part}: exchanges come between whole stretches")
        return self

    @model_validator(mode="after")
    def _whole_steps(self) -> SamplingPlan:
        for name in ("duration", "frame_interval", "burn_in"):
            value = getattr(self, name)
            if not is_multiple(value, self.timestep):
                raise ValueError(f"{name} {value} is not a whole number of timesteps of {self.timestep}")
        if isinstance(self.bias, DepositedBias):
            pace, deposition = self.bias.pace, self.bias.deposition
            if not is_multiple(pace, self.timestep):
                raise ValueError(f"bias.pace {pace} is not a whole number of timesteps of {self.timestep}")
            if not is_multiple(deposition, pace):
                raise ValueError(f"bias.deposition {deposition} is not a whole number of paces of {pace}")
        if not is_multiple(self.duration, self.frame_interval):
            raise ValueError(f"duration {self.duration} is not a whole number of frame intervals {self.frame_interval}")
        if self.starts == []:
            raise ValueError("starts is empty; name at least one start state")
        return self

    @property
    def windows(self) -> int:
        """Number of umbrella windows; 1 for other biases."""
        match self.bias:
            case UmbrellaBias(centers=centers):
                return len(centers)
            case AdaptiveBias(windows=windows):
                return windows
        return 1

    def start_of(self, replica: _Numbers) -> _Numbers:
        """Number of the start state of replicas: in turn, and another one for the next replica of the same window."""
        starts = len(self.starts) if isinstance(self.starts, list) else 1
        return (replica % self.windows + replica // self.windows) % starts

    @property
    def kept_replicas(self) -> int:
        """Replicas that frames are kept of: one of each ladder of temperatures, else all of the plan."""
        return self.replicas // len(self.tempering.temperatures) if self.tempering else self.replicas

    @property
    def frame_steps(self) -> int:
        """Steps between two frames."""
        return round(self.frame_interval / self.timestep)

    @property
    def burn_in_steps(self) -> int:
        """Steps before the first frame."""
        return round(self.burn_in / self.timestep)

    @property
    def frames_per_replica(self) -> int:
        """Frames kept of each replica."""
        return round(self.duration / self.frame_interval)

    @property
    def total_time(self) -> float:
        """Simulated time of all replicas, deposition and probes included [ps or reduced]."""
        deposition = self.bias.deposition if isinstance(self.bias, DepositedBias) else 0.0
        per_replica = self.burn_in + self.duration
        probes = self.probe.replicas if self.probe else 0
        return self.replicas * (per_replica + deposition) + probes * per_replica


class MeanForcePlan(Strict):
    """Mean forces at fixed beads, in configurations from the frames of a sampling plan (docs/systems.md)."""

    of: Name
    """The plan that the configurations come from: unbiased, biased, or a further one."""
    configurations: PositiveInt
    """How many, evenly spread over the time of the plan's replicas."""
    relaxation: float = Field(ge=0.0)
    """Time at fixed beads before the average begins [ps]."""
    duration: PositiveFloat
    """Time of the average [ps]."""
    interval: PositiveFloat
    """Time between two forces of the average [ps]."""

    @property
    def samples(self) -> int:
        """Forces that are averaged."""
        return round(self.duration / self.interval)

    @property
    def time_each(self) -> float:
        """Simulated time of a configuration [ps]."""
        return self.relaxation + self.duration


IMPORTED = "imported_beads"
"""Stage of imported trajectories."""


class ImportedTrajectories(Strict):
    """Trajectories without forces that exist already, with the stage `imported_beads` (docs/operator_forces.md)."""

    files: list[str] = Field(min_length=1)
    """Files that MDTraj reads, or npz with `positions` [nm], relative to the folder of the YAML file; each a replica.
    Wildcards are filled in, and `{batch}` by the name of the batch."""
    frame_interval: PositiveFloat
    """Time between two frames of the files [ps]."""
    stride: PositiveInt = 1
    """Every how many frames one is taken."""


class Sampling(Strict):
    """The sampling plans of a system."""

    unbiased: SamplingPlan | None = None
    """Stages `trajectories` and `mapped_forces`."""
    biased: SamplingPlan | None = None
    """Stages `biased_samples` and `relabelled_forces`."""
    further: dict[Name, SamplingPlan] = Field(default_factory=dict)
    """Further biased plans by name, with the stages `<name>_samples` and `<name>_forces`."""
    mean_forces: dict[Name, MeanForcePlan] = Field(default_factory=dict)
    """Mean forces at fixed beads by name, with the stage `<name>_forces`."""

    @model_validator(mode="after")
    def _biases(self) -> Sampling:
        if self.unbiased is not None and self.unbiased.bias is not None:
            raise ValueError("unbiased has a bias; move it to biased")
        for where, plan in self.by_section().items():
            if plan is not self.unbiased and plan.bias is None:
                raise ValueError(f"{where.removeprefix('sampling.')} names no bias")
        reserved = {"unbiased", "biased", "mapped", "relabelled", "imported"}
        for field, taken in (("further", reserved), ("mean_forces", reserved | set(self.further))):
            if clashes := sorted(taken & set(getattr(self, field))):
                raise ValueError(f"{field}.{clashes[0]}: {clashes[0]} is taken; choose another name")
        for name, mean_force in self.mean_forces.items():
            self._check_mean_force(f"mean_forces.{name}", mean_force)
        return self

    def _check_mean_force(self, where: str, mean_force: MeanForcePlan) -> None:
        plans = {section.rpartition(".")[2]: plan for section, plan in self.by_section().items()}
        if mean_force.of not in plans:
            raise ValueError(f"{where}.of is {mean_force.of}; the plans are {', '.join(plans)}")
        plan = plans[mean_force.of]
        for name in ("relaxation", "interval"):
            value = getattr(mean_force, name)
            if not is_multiple(value, plan.timestep):
                raise ValueError(f"{where}.{name} {value} is not a whole number of timesteps of {plan.timestep}")
        if not is_multiple(mean_force.duration, mean_force.interval) or mean_force.samples < 4:
            raise ValueError(
                f"{where}.duration {mean_force.duration} is not a whole number, of at least 4, of intervals of "
                f"{mean_force.interval}"
            )
        if mean_force.configurations > plan.kept_replicas * plan.frames_per_replica:
            raise ValueError(
                f"{where}.configurations is {mean_force.configurations}, but {mean_force.of} keeps only "
                f"{plan.kept_replicas * plan.frames_per_replica} frames"
            )

    def by_section(self) -> dict[str, SamplingPlan]:
        """Every plan by its place in the specification, for example `sampling.further.umbrella`."""
        named = {"sampling.unbiased": self.unbiased, "sampling.biased": self.biased}
        plans = {section: plan for section, plan in named.items() if plan is not None}
        return plans | {f"sampling.further.{name}": plan for name, plan in self.further.items()}

    @property
    def dynamics(self) -> SamplingPlan:
        """The first plan, whose time step and friction further dynamics take."""
        return next(iter(self.by_section().values()))

    def by_labels(self) -> dict[str, tuple[str, str]]:
        """Stage of force labels to the stage of their samples and the place of their plan in the specification."""
        stages = {"sampling.unbiased": ("trajectories", "mapped_forces")}
        stages["sampling.biased"] = ("biased_samples", "relabelled_forces")
        found = {}
        for section in self.by_section():
            name = section.rpartition(".")[2]
            samples, labels = stages.get(section, (f"{name}_samples", f"{name}_forces"))
            found[labels] = (samples, section)
        return found

    def by_mean_force_labels(self) -> dict[str, tuple[MeanForcePlan, str]]:
        """Stage of mean forces to what it is made by, and to the stage of single force labels of the same plan."""
        of = {section.rpartition(".")[2]: labels for labels, (_, section) in self.by_labels().items()}
        return {f"{name}_forces": (mean_force, of[mean_force.of]) for name, mean_force in self.mean_forces.items()}

    def configurations_of(self, section: str) -> int:
        """Frames with all atoms of a plan that mean forces are made from; 0 where there are none."""
        name = section.rpartition(".")[2]
        return max((item.configurations for item in self.mean_forces.values() if item.of == name), default=0)


# --------------------------------------------------------------------------------------- potentials


MOST_SPLINES = 5000
"""Coefficients of a spline surface, at most: their normal equations are dense."""


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if not limits[0] < limits[1]:
        raise ValueError(f"{list(limits)} does not rise; give the lower limit first")
    return limits


class RadialBasisNetwork(Strict):
    """One-dimensional PMF: Gaussian basis functions of the CG coordinate and a small dense network."""

    type: Literal["radial_basis"]
    range: tuple[float, float]
    """Interval of the CG coordinate that the basis functions cover."""
    basis_functions: PositiveInt = 100
    basis_width: PositiveFloat
    hidden: list[PositiveInt] = Field(default_factory=lambda: [128, 128])

    _rises = field_validator("range")(_rising)


class SplineSurfaceNetwork(Strict):
    """PMF of two CG coordinates: products of cubic B-splines, solved exactly by least squares."""

    type: Literal["spline_surface"]
    range: dict[Name, tuple[float, float]]
    """Interval of each CG coordinate that the splines cover."""
    spacing: PositiveFloat
    """Distance of their knots."""

    @model_validator(mode="after")
    def _not_too_fine(self) -> SplineSurfaceNetwork:
        knots = 1.0
        for low, high in (_rising(limits) for limits in self.range.values()):
            knots *= (high - low) / self.spacing + 3.0
        if knots > MOST_SPLINES:
            raise ValueError(f"spacing {self.spacing} makes {knots:.0f} splines, more than {MOST_SPLINES}; raise it")
        return self


class ChainPrior(Strict):
    """Terms of a classical force field, fitted to the training configurations (docs/training.md)."""

    terms: list[Literal["bonds", "angles", "dihedrals", "repulsion"]] = Field(
        default=["bonds", "angles", "dihedrals", "repulsion"]
    )
    """Harmonic bonds, polynomials in the cosines of angles, Fourier series of dihedrals, (sigma/r)^6 of pairs more than
    three bonds apart."""
    dihedral_order: int = Field(default=3, ge=1, le=8)
    """Order of the Fourier series."""

    @field_validator("terms")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if not value or len(set(value)) < len(value):
            raise ValueError(f"{value} must name at least one term, and each once; leave prior out for none")
        return value


class MessagePassingNetwork(Strict):
    """Many-body potential of beads by message passing over bead distances."""

    type: Literal["message_passing"]
    features: PositiveInt = 32
    interactions: PositiveInt = 2
    basis_functions: PositiveInt = 4
    cutoff: PositiveFloat | None = None
    """Largest bead distance that interacts [nm]; null for all pairs."""
    torsion_order: int = Field(default=6, ge=0, le=12)
    """Order of the Fourier series in those collective variables that are torsions about bonds of beads. After training
    it makes the potential's PMF of them that of the labels, for which replicas of 5 ps are simulated; 0 for none."""
    prior: ChainPrior | None = None
    """A force field of the chain that the network corrects; null for the network alone."""

    @model_serializer(mode="wrap")
    def _hash_as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a prior a network reads, and hashes, as it did before networks could have one."""
        content = handler(self)
        return content if self.prior else {name: value for name, value in content.items() if name != "prior"}


Network = Annotated[RadialBasisNetwork | SplineSurfaceNetwork | MessagePassingNetwork, Field(discriminator="type")]


class Training(Strict):
    """How a potential is fitted to forces."""

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    patience: PositiveInt = 10
    """Epochs without a better held-out loss before training stops."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=10.0)
    """Part by which weight matrices shrink in each step, divided by the learning rate: keeps networks that learn from
    noisy labels smooth beyond their data."""
    held_out_fraction: float = Field(default=0.1, gt=0.0, lt=0.5)
    committee: int = Field(default=0, ge=0, le=64)
    """Further networks, each trained on stretches of time drawn with replacement; their scatter is the uncertainty of
    the potential. 0 for none."""
    seed: int = Field(default=0, ge=0)

    @field_validator("committee")
    @classmethod
    def _scatter(cls, value: int) -> int:
        if value == 1:
            raise ValueError("committee is 1; one network has no scatter, give at least 2 or 0 for none")
        return value


class CGSimulation(Strict):
    """Langevin dynamics of the beads with the trained potential. All times [ps, or reduced]."""

    replicas: PositiveInt
    timestep: PositiveFloat
    friction: PositiveFloat
    burn_in: float = Field(default=0.0, ge=0.0)
    duration: PositiveFloat
    frame_interval: PositiveFloat
    enhanced_duration: float = Field(default=0.0, ge=0.0)
    """Length of a second run under the frozen bias of the biased samples, reweighted exactly; 0 for none."""
    enhanced_frame_interval: PositiveFloat | None = None
    """Time between its frames, of which reweighting makes few count; null for frame_interval."""
    displacement: float = Field(default=0.0, ge=0.0)
    """Standard deviation of random displacements of a molecule's beads at the start, along each axis [nm]: replicas
    then come from far off equilibrium; 0 starts them from frames as they are."""
    tempering: Tempering | None = None
    """Replica exchange in temperature of the run without a bias: replicas are then those of all ladders together, and
    frames are kept at the lowest temperature, that of the system."""
    seed: int = Field(default=0, ge=0)

    @model_serializer(mode="wrap")
    def _hash_as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without tempering a simulation reads, and hashes, as it did before simulations could have it."""
        content = handler(self)
        return content if self.tempering else {name: value for name, value in content.items() if name != "tempering"}

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
    def _long_enough(self) -> CGSimulation:
        enhanced = "enhanced_frame_interval" if self.enhanced_frame_interval else "frame_interval"
        for name, interval in (("duration", "frame_interval"), ("enhanced_duration", enhanced)):
            value, least = getattr(self, name), getattr(self, interval)
            if 0 < value < least:
                raise ValueError(f"{name} {value} is shorter than {interval} {least}")
        return self


# --------------------------------------------------------------------------------------- kernels


class _Kernel(Strict):
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


class NoiseKernel(_Kernel):
    """Gaussian noise on each bead."""

    type: Literal["noise"]


class FlowKernel(_Kernel):
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


Kernel = Annotated[NoiseKernel | FlowKernel, Field(discriminator="type")]


class Potential(Strict):
    """One potential to train: on which labels, and on how many of their frames."""

    labels: Name
    """Stage of force labels: mapped_forces, relabelled_forces, or that of a further plan, mean forces or a kernel."""
    frames: PositiveInt | None = None
    """Number of frames drawn at random from the labels; null for all."""
    epochs: PositiveInt | None = None
    """Epochs of this potential, where its labels have many more frames than others; null for training.epochs."""


# --------------------------------------------------------------------------------------- evaluation


class QuadratureReference(Strict):
    """The exact PMF of a model potential by numerical quadrature."""

    type: Literal["quadrature"]
    range: tuple[float, float] | dict[Name, tuple[float, float]]
    """Interval of the CG coordinate over which errors are measured; of two CG coordinates, that of each by name."""

    @field_validator("range")
    @classmethod
    def _rises(cls, value: Any) -> Any:
        for limits in value.values() if isinstance(value, dict) else [value]:
            _rising(limits)
        return value


class LongRunReference(Strict):
    """Independent long runs, each with its own frozen bias or ladders of temperatures; they disagree by the error."""

    type: Literal["long_runs"]
    runs: int = Field(default=2, ge=2)
    plan: SamplingPlan
    file: Path | None = None
    """A finished reference (Parquet) relative to the folder of the YAML file; null to run the plan."""


class DataReference(Strict):
    """The imported trajectories, or else the unbiased frames, themselves; their halves disagree by the error."""

    type: Literal["data"]


Reference = Annotated[QuadratureReference | LongRunReference | DataReference, Field(discriminator="type")]


class Basin(Strict):
    """A region of collective-variable space whose population is reported."""

    limits: dict[Name, tuple[float, float]] = Field(min_length=1)

    @field_validator("limits")
    @classmethod
    def _limits_rise(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        return {name: _rising(limits) for name, limits in value.items()}


class SlowCoordinates(Strict):
    """The two slowest coordinates of the reference, by time-lagged independent component analysis."""

    lag: PositiveFloat
    """Lag time [ps], a multiple of the time between frames of the reference and of the CG simulation."""
    bins: int = Field(default=20, ge=5, le=200)
    """Bins along each in histograms."""


class NativeStructure(Strict):
    """The folded structure of a molecule."""

    file: Path
    """A PDB file with the atoms of all beads, relative to the folder of the YAML file."""
    folded_rmsd: PositiveFloat = 0.2
    """Root mean square deviation of the beads up to which a configuration counts as folded [nm]."""


class Evaluation(Strict):
    """How a trained potential is judged, and when it may become champion."""

    reference: Reference
    collective_variables: list[Name] = Field(min_length=1, max_length=2)
    bins: int = Field(default=60, ge=10, le=400)
    basins: dict[Name, Basin] = Field(default_factory=dict)
    max_pmf_error: PositiveFloat
    """Bound of the blocking check: PMF root mean square error [kT] of a model potential, or the
    mass-weighted squared error of ln p for a molecule (docs/evaluation.md)."""
    slow_coordinates: SlowCoordinates | None = None
    """Also judge a molecule in the slowest coordinates of its data; null not to."""
    native: NativeStructure | None = None
    """Also judge a molecule by its distance from this structure; null not to."""

    @model_serializer(mode="wrap")
    def _hash_as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without these two an evaluation reads, and hashes, as it did before evaluations could have them."""
        later = {"slow_coordinates", "native"}
        return {name: value for name, value in handler(self).items() if name not in later or value is not None}

    @model_validator(mode="after")
    def _has_data(self) -> Evaluation:
        if self.slow_coordinates is not None and not isinstance(self.reference, DataReference):
            raise ValueError("slow_coordinates needs reference.type data, whose frames tell what is slow")
        if self.native is not None and self.slow_coordinates is None:
            raise ValueError("native needs slow_coordinates beside it; give their lag")
        return self


class LearningCurve(Strict):
    """Potentials trained anew on parts of each batch, to see how their error falls with the data."""

    fractions: list[float] = Field(min_length=2)
    """Parts of the kept time of each replica, from its beginning."""
    frames: list[PositiveInt] = Field(default_factory=list)
    """Numbers of frames drawn at random from a whole batch."""
    cg_simulation: CGSimulation | None = None
    """CG simulation of these potentials; null for that of the others."""

    @field_validator("fractions")
    @classmethod
    def _parts(cls, value: list[float]) -> list[float]:
        if wrong := [fraction for fraction in value if not 0 < fraction <= 1]:
            raise ValueError(f"{wrong[0]} is no part of a whole; give numbers above 0 and up to 1")
        return value


# --------------------------------------------------------------------------------------- system


class SystemSpec(System):
    """A whole system at one temperature."""

    temperature: PositiveFloat
    """[K], or reduced."""
    model: Annotated[ModelPotential | Molecule, Field(discriminator="type")]
    mapping: Annotated[LinearMapping | BeadMapping, Field(discriminator="type")]
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
        else:
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

    def _check_kernel(self, name: str, kernel: NoiseKernel | FlowKernel) -> None:
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

    def by_kernel_labels(self) -> dict[str, tuple[str, NoiseKernel | FlowKernel, str]]:
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
        start_names = set(self.model.coordinates) if isinstance(self.model, ModelPotential) else known
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
                    angular = isinstance(self.collective_variables.get(name), Torsion)
                    if not angular and name not in bias.grid_range:
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
        return "reduced" if isinstance(self.model, ModelPotential) else "molar"

    @property
    def thermal_energy(self) -> float:
        """k_B T [kJ/mol or reduced]."""
        return thermal_energy(self.temperature, self.units)

    @property
    def cg_box(self) -> float | None:
        """Edge of the box of the beads [nm]; None where they are one molecule, isolated or solvated."""
        return self.model.box if isinstance(self.model, Molecule) and self.model.waters is None else None

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
        if isinstance(self.mapping, LinearMapping):
            return list(self.mapping.coordinates)
        return list(self.collective_variables)

    @property
    def variable_quantities(self) -> dict[str, str]:
        """Name of each collective variable to what it is: torsions are angles, all others lengths."""
        kinds = {name: variable.type for name, variable in self.collective_variables.items()}
        return {name: "angle" if kinds.get(name) == "torsion" else "length" for name in self.variable_names}

    def _hashed_content(self) -> dict[str, Any]:
        return self.model_dump(
            mode="json", exclude={"model": {"pdb": True}, "evaluation": {"reference": {"file": True}}}
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
