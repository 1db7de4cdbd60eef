"""Settings of sampling plans and of imported trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from cg_assets.biases import Bias
from cg_assets.core.nested import listed
from cg_assets.core.replica_exchange import Tempering
from cg_assets.core.settings import (
    KELVIN,
    PICOSECONDS,
    Built,
    Fact,
    Fault,
    Name,
    Scope,
    StartPoint,
    Strict,
    check_multiples,
    check_size,
    distinct,
    is_multiple,
    rising,
)
from cg_assets.sampling.plan_cost import PlanCost

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Numbers = TypeVar("_Numbers", int, "NDArray[np.int64]")


class Probe(Strict):
    """Replicas from other starts, run under the same bias only to test conditional equilibration."""

    replicas: PositiveInt = Field(description="Number of replicas of the test.")
    starts: list[StartPoint] = Field(min_length=1)
    """Values of collective variables that they start from [rad, nm or reduced]."""

    _distinct = field_validator("starts")(distinct)


class SampledLadder(Tempering):
    """A ladder whose frames are kept, of the lowest temperature or of all."""

    kept_rungs: Literal["all"] | None = None
    """`all` keeps the frames of every temperature, each with its own; null those of the lowest alone."""

    @model_serializer(mode="wrap")
    def _without_null(self, plain: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without `kept_rungs` where it is null: runs that were begun before there was such a field continue."""
        return {name: value for name, value in plain(self).items() if value is not None}


class SamplingPlan(Strict):
    """How one batch of frames is sampled. All times [ps, or reduced]."""

    replicas: PositiveInt = Field(description="Independent runs of a batch.")
    starts: Literal["equilibrium"] | list[StartPoint] = "equilibrium"
    """Start states; replica i takes entry i modulo their number. `equilibrium` draws from the exact (biased)
    density of a model potential, or melts a lattice of water; a molecule names collective variables to start from."""
    timestep: PositiveFloat = Field(description="[ps or reduced].")
    friction: PositiveFloat = Field(description="Of the Langevin thermostat [1/ps or reduced].")
    burn_in: float = Field(ge=0.0)
    """Time of each replica before the first frame [ps or reduced]."""
    duration: PositiveFloat
    """Time of each replica over which frames are kept [ps or reduced]."""
    frame_interval: PositiveFloat = Field(description="Time between frames that are kept [ps or reduced].")
    bias: Bias | None = None
    """Energy that drives sampling; null for none."""
    probe: Probe | None = Field(default=None, description="Replicas that test conditional equilibration.")
    tempering: SampledLadder | None = None
    """Replica exchange of a molecule without bias."""

    _distinct = field_validator("starts")(distinct)

    @model_validator(mode="after")
    def _whole_ladders(self) -> SamplingPlan:
        if self.tempering is None:
            return self
        pace, steps = self.tempering.pace, len(self.tempering.temperatures)
        if self.bias is not None or self.probe is not None:
            raise ValueError("tempering excludes a bias and a probe; leave one of them out")
        if self.replicas % steps:
            raise ValueError(f"replicas {self.replicas} is not a multiple of the {steps} temperatures of tempering")
        for name, whole, part in (
            ("tempering.pace", pace, self.frame_interval),
            ("duration", self.duration, pace),
            ("burn_in", self.burn_in, pace),
        ):
            if not is_multiple(whole, part):
                raise ValueError(f"{name} {whole} is not a multiple of {part}: exchanges fall between whole stretches")
        return self

    @model_validator(mode="after")
    def _whole_steps(self) -> SamplingPlan:
        check_size(self.replicas, self.burn_in + self.duration, self.timestep, self.frame_interval)
        if self.timestep > self.frame_interval:
            raise ValueError(
                f"timestep {self.timestep} is longer than frame_interval {self.frame_interval}; times of molecules "
                f"are in {PICOSECONDS}"
            )
        for name in ("duration", "frame_interval", "burn_in"):
            value = getattr(self, name)
            if not is_multiple(value, self.timestep):
                raise ValueError(f"{name} {value} is not a whole number of timesteps of {self.timestep}")
        if self.bias is not None and (deposited := self.bias.deposited) is not None:
            pace, deposition = deposited.pace, deposited.deposition
            if not is_multiple(pace, self.timestep):
                raise ValueError(f"bias.pace {pace} is not a whole number of timesteps of {self.timestep}")
            if not is_multiple(deposition, pace):
                raise ValueError(f"bias.deposition {deposition} is not a whole number of paces of {pace}")
        if not is_multiple(self.duration, self.frame_interval):
            raise ValueError(f"duration {self.duration} is not a whole number of frame intervals {self.frame_interval}")
        if self.starts == []:
            raise ValueError("starts is empty; name at least one start state")
        return self

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Start states that do not fit, windows without replicas, a bias of two CG coordinates."""
        if self.starts == "equilibrium" and not scope.draws_starts:
            yield Fault("starts", "is equilibrium, for model potentials alone; a molecule has start states, or [{}]")
        if scope.temperatures:
            yield from self._temperature_faults(len(scope.temperatures))
        points = [*listed(self.starts), *(self.probe.starts if self.probe else [])]
        known = scope.coordinates or scope.variables
        yield from [*scope.step_faults("timestep", self.timestep)] or scope.friction_faults(
            self.friction, self.timestep
        )
        for point in points:
            if scope.coordinates and set(point) != set(known):
                yield Fault("starts", f"names {point}; it must give each of {sorted(known)}")
            else:
                yield from scope.not_driven("starts", point, known)
                yield from scope.place_faults("starts", point)
        alike = "replicas of different starts are compared, and those would agree whatever they have forgotten"
        yield from scope.same_place_faults("starts", points, alike)
        if self.replicas % self.windows:
            yield Fault("replicas", f"{self.replicas} is not a multiple of the {self.windows} windows of its bias")
        if self.bias is not None and scope.coordinates and len(scope.variables) > 1:
            yield Fault("bias", "needs one CG coordinate, not two; sample without a bias")

    def facts(self, built: Built) -> Iterator[Fact]:
        """Frames, and estimates of time and disk."""
        yield "", str(self.cost(built))

    def cost(self, built: Built) -> PlanCost:
        """What the plan costs, by estimate."""
        kept = self.kept_replicas * self.kept_rungs * self.frames_per_replica
        return PlanCost(built, kept, self.total_time / self.timestep)

    def _temperature_faults(self, number: int) -> Iterator[Fault]:
        """What does not fit replicas at several temperatures, as many at each."""
        if self.replicas % number:
            yield Fault("replicas", f"{self.replicas} is not a multiple of the {number} temperatures")
        for name in ("bias", "probe"):
            if getattr(self, name) is not None:
                yield Fault(name, "is for systems at one temperature; leave it out")

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """A step that is too long for a formula, starts that the molecule cannot reach."""
        yield from built.model.step_faults(built.beads, self.timestep)
        for point in [*listed(self.starts), *(self.probe.starts if self.probe else [])]:
            yield from built.reach_faults("starts", point)

    def comparison_faults(self) -> Iterator[Fault]:
        """Too few replicas for conditional equilibration, which is tested by comparing those from different starts."""
        if self.bias is None or self.starts == "equilibrium" or self.probe:
            return
        judged = "but conditional equilibration is tested by comparing replicas from different starts"
        if len(self.starts[: self.replicas]) < 2:
            yield Fault(
                "starts", f"names one start state for {self.replicas} replicas, {judged}; give at least two, or a probe"
            )
        elif self.windows > 1 and self.replicas < 2 * self.windows:
            yield Fault(
                "replicas",
                f"is {self.replicas} for {self.windows} windows, {judged} in each window; give at least two to each, "
                "of half the duration",
            )

    @property
    def windows(self) -> int:
        """Number of umbrella windows; 1 for other biases."""
        return 1 if self.bias is None else self.bias.n_windows

    @property
    def n_hills(self) -> int:
        """Hills that each replica deposits before its bias is frozen."""
        return self.bias.deposited.n_hills if self.bias is not None and self.bias.deposited else 0

    @property
    def halves(self) -> bool:
        """Whether the halves of replicas in time are compared, which start in equilibrium, not their starts."""
        return self.starts == "equilibrium" and not self.n_hills

    @property
    def hill_steps(self) -> int:
        """Steps between two hills of a replica; 0 without hills."""
        deposited = self.bias.deposited if self.bias is not None else None
        return 0 if deposited is None else round(deposited.pace / self.timestep)

    def window_of(self, replica: NDArray) -> NDArray[np.int32] | None:
        """Window of each replica, in turn; None where the bias has no windows."""
        windowed = self.bias is not None and self.bias.windowed
        return (replica % self.windows).astype("int32") if windowed else None

    def start_of(self, replica: _Numbers) -> _Numbers:
        """Number of the start state of replicas: in turn, and another one for the next replica of the same window."""
        starts = len(listed(self.starts)) or 1
        return (replica % self.windows + replica // self.windows) % starts

    @property
    def kept_replicas(self) -> int:
        """Replicas that frames at the lowest temperature are kept of: one of each ladder, else all of the plan."""
        return self.replicas // len(self.tempering.temperatures) if self.tempering else self.replicas

    @property
    def kept_rungs(self) -> int:
        """Temperatures of a ladder whose frames are kept; 1 without ladders."""
        return len(self.tempering.temperatures) if self.tempering and self.tempering.kept_rungs else 1

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
    def frames(self) -> int:
        """Frames kept of all replicas, probes included."""
        probes = self.probe.replicas if self.probe else 0
        return (self.kept_replicas * self.kept_rungs + probes) * self.frames_per_replica

    @property
    def total_time(self) -> float:
        """Simulated time of all replicas, deposition and probes included [ps or reduced]."""
        deposition = self.bias.deposited.deposition if self.bias is not None and self.bias.deposited else 0.0
        per_replica = self.burn_in + self.duration
        probes = self.probe.replicas if self.probe else 0
        return self.replicas * (per_replica + deposition) + probes * per_replica


class MeanForcePlan(Strict):
    """Mean forces at fixed beads, in configurations from the frames of a sampling plan (docs/systems.md)."""

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

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


class Dynamics(NamedTuple):
    """What dynamics at fixed beads need of a plan.

    Attributes:
        timestep: [ps].
        friction: [1/ps].
    """

    timestep: float
    friction: float


class ConditionalSampling(Strict):
    """The atoms at fixed beads, by replica exchange in temperature: `conditional_samples`. All times [ps]."""

    goes_with: ClassVar[tuple[str, ...]] = ("water", "molecule")

    frames: PositiveInt
    """CG frames of a batch, as many from each temperature of `unbiased`."""
    temperatures: list[PositiveFloat] = Field(min_length=2)
    """The ladder, rising [K]. Neighbours exchange well when they differ by a part of about 1/sqrt(2.5 molecules) in
    water, 1/sqrt(atoms that move) in a molecule."""
    runs: int = Field(default=2, ge=2, le=64)
    """Independent runs of each frame, each a ladder of its own; their agreement validates each label."""
    timestep: PositiveFloat = 0.004
    """[ps]."""
    friction: PositiveFloat = 2.0
    """[1/ps]"""
    pace: PositiveFloat = 0.4
    """Time between two attempts to exchange [ps]."""
    interval: PositiveFloat = 0.1
    """Time between two samples of a replica [ps]."""
    relaxation: PositiveFloat
    """Time of each ladder before the first sample [ps]."""
    duration: PositiveFloat
    """Time of each ladder over which samples are kept [ps]."""

    _rises = field_validator("temperatures")(rising)

    @model_validator(mode="after")
    def _whole_stretches(self) -> ConditionalSampling:
        check_size(1, self.time_each, self.timestep, self.interval)
        check_multiples(
            self, (("interval", "timestep"), ("pace", "interval"), ("relaxation", "pace"), ("duration", "pace"))
        )
        return self

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A step that is too long, and temperatures that are not in K."""
        yield from [*scope.step_faults("timestep", self.timestep)] or scope.friction_faults(
            self.friction, self.timestep
        )
        yield from scope.unlikely("temperatures", self.temperatures[0], 100, 2000, KELVIN)

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """Beads that cannot be held."""
        if reason := built.model.hold_fault(built.structure, built.beads):
            yield Fault("", reason)

    def facts(self, built: Built) -> Iterator[Fact]:
        """Frames, and estimates of time and disk."""
        yield "", str(self.cost(built))

    def cost(self, built: Built) -> PlanCost:
        """What the plan costs, by estimate."""
        return PlanCost(built, self.frames, self.frames * self.time_each / self.timestep)

    @property
    def time_each(self) -> float:
        """Simulated time of a frame, of all its replicas [ps]."""
        return self.runs * len(self.temperatures) * (self.relaxation + self.duration)


class Sampled(NamedTuple):
    """A sampling plan with its stages.

    Attributes:
        name: unbiased, biased, or that of a further plan.
        section: its place in the specification.
        plan: the plan.
        samples: stage of its samples.
        labels: stage of the force labels of single frames.
    """

    name: str
    section: str
    plan: SamplingPlan
    samples: str
    labels: str


class Averaged(NamedTuple):
    """Mean forces at fixed beads.

    Attributes:
        plan: of the averages.
        source: what their configurations come from.
    """

    plan: MeanForcePlan
    source: Sampled


class Sampling(Strict):
    """The sampling plans of a system."""

    unbiased: SamplingPlan | None = None
    """Stages `trajectories` and `mapped_forces`."""
    biased: SamplingPlan | None = None
    """Stages `biased_samples` and `relabelled_forces`."""
    further: dict[Name, SamplingPlan] = Field(default_factory=dict)
    """Further plans by name, biased or on ladders, with the stages `<name>_samples` and `<name>_forces`."""
    mean_forces: dict[Name, MeanForcePlan] = Field(default_factory=dict)
    """Mean forces at fixed beads by name, with the stage `<name>_forces`."""
    conditional: ConditionalSampling | None = None
    """Samples at fixed beads, in frames of `unbiased`, at all temperatures of a ladder: `conditional_samples`."""

    @model_validator(mode="after")
    def _biases(self) -> Sampling:
        if self.unbiased is not None and self.unbiased.bias is not None:
            raise ValueError("unbiased has a bias; move it to biased")
        for where, plan in self.by_section().items():
            ladder = where.startswith("sampling.further.") and plan.tempering is not None
            if plan is not self.unbiased and plan.bias is None and not ladder:
                raise ValueError(f"{where.removeprefix('sampling.')} names no bias")
        reserved = {"unbiased", "biased", "mapped", "relabelled", "imported"}
        for field, taken in (("further", reserved), ("mean_forces", reserved | set(self.further))):
            if clashes := sorted(taken & set(getattr(self, field))):
                raise ValueError(f"{field}.{clashes[0]}: {clashes[0]} is taken; choose another name")
        for name, mean_force in self.mean_forces.items():
            self._check_mean_force(f"mean_forces.{name}", mean_force)
        if self.conditional is not None:
            kept = self.unbiased.frames if self.unbiased else 0
            if self.conditional.frames > kept:
                raise ValueError(
                    f"conditional.frames is {self.conditional.frames}, but unbiased keeps only {kept} frames"
                )
        return self

    def _check_mean_force(self, where: str, mean_force: MeanForcePlan) -> None:
        plans = self.by_name()
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

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Plans whose replicas cannot be compared."""
        for section, plan in self.by_section().items():
            for field, reason in plan.comparison_faults():
                yield Fault(f"{section.removeprefix('sampling.')}.{field}", reason)

    def by_name(self) -> dict[str, SamplingPlan]:
        """Every plan by its own name: unbiased, biased, or that of a further one."""
        return {section.rpartition(".")[2]: plan for section, plan in self.by_section().items()}

    def by_section(self) -> dict[str, SamplingPlan]:
        """Every plan by its place in the specification, for example `sampling.further.umbrella`."""
        named = {"sampling.unbiased": self.unbiased, "sampling.biased": self.biased}
        plans = {section: plan for section, plan in named.items() if plan is not None}
        return plans | {f"sampling.further.{name}": plan for name, plan in self.further.items()}

    @property
    def dynamics(self) -> Dynamics | None:
        """Of the first plan; None without plans."""
        plans = self.by_section().values()
        return next((Dynamics(plan.timestep, plan.friction) for plan in plans), None)

    def by_labels(self) -> dict[str, Sampled]:
        """Stage of force labels to the plan of its samples, with its stages."""
        stages = {"unbiased": ("trajectories", "mapped_forces"), "biased": ("biased_samples", "relabelled_forces")}
        found = {}
        for section, plan in self.by_section().items():
            name = section.rpartition(".")[2]
            samples, labels = stages.get(name, (f"{name}_samples", f"{name}_forces"))
            found[labels] = Sampled(name, section, plan, samples, labels)
        return found

    def by_mean_force_labels(self) -> dict[str, Averaged]:
        """Stage of mean forces to what it is made by."""
        of = {sampled.name: sampled for sampled in self.by_labels().values()}
        return {f"{name}_forces": Averaged(plan, of[plan.of]) for name, plan in self.mean_forces.items()}

    def configurations_of(self, section: str) -> int:
        """Frames with all atoms of a plan whose beads are held fixed later; 0 where there are none."""
        name = section.rpartition(".")[2]
        wanted = [item.configurations for item in self.mean_forces.values() if item.of == name]
        if self.conditional is not None and name == "unbiased":
            wanted.append(self.conditional.frames)
        return max(wanted, default=0)
