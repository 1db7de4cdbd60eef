"""The specification of a water system, whose potential depends on temperature: boxes, temperatures, sampling plans."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from cg_assets.systems.base import Name, Strict, System, is_multiple, merge
from cg_assets.systems.spec import CGSimulation, Training
from cg_assets.systems.water import WATER_MODELS, Centre, Electrostatics, Water, box_edge

TRAJECTORIES, CONDITIONAL_SAMPLES, TARGETS = "trajectories", "conditional_samples", "thermal_response_targets"
"""Stages of a water system."""
AT_ONE_TEMPERATURE = ("force_matching", "energy_matching", "product_response")
"""Methods that see data of T_0 alone."""


def _rising(value: list[float]) -> list[float]:
    if any(high <= low for low, high in itertools.pairwise(value)):
        raise ValueError(f"{value} does not rise; list the temperatures from the lowest up, each once")
    return value


def _check_multiples(plan: Strict, pairs: tuple[tuple[str, str], ...]) -> None:
    for name, part in pairs:
        value, least = getattr(plan, name), getattr(plan, part)
        if not is_multiple(value, least):
            raise ValueError(f"{name} {value} is not a whole number of {part}s of {least}")


class WaterBox(Strict):
    """Rigid water in a cubic periodic box of fixed volume."""

    type: Literal["water"]
    water_model: Literal["spce", "tip4p2005"] = "spce"
    molecules: int = Field(ge=8, le=100_000)
    density: PositiveFloat = 997.0
    """[kg/m³], the same at all temperatures: thermal response forces are derivatives at constant volume."""
    electrostatics: Electrostatics = "reaction_field"
    """Beyond the cutoff a dielectric continuum (`reaction_field`), or all periodic images (`pme`)."""
    cutoff: PositiveFloat
    """Cutoff of non-bonded interactions [nm], at most half the box."""

    @property
    def edge(self) -> float:
        """Edge of the box [nm]."""
        return box_edge(WATER_MODELS[self.water_model], self.molecules, self.density)

    @model_validator(mode="after")
    def _fits(self) -> WaterBox:
        if self.cutoff > self.edge / 2:
            raise ValueError(
                f"cutoff {self.cutoff} nm is beyond half the box ({self.edge / 2:.4f} nm) of {self.molecules} "
                "molecules; lower it or take more molecules"
            )
        return self


class MoleculeBeads(Strict):
    """One bead for each molecule."""

    type: Literal["molecules"]
    beads: Centre = "centre_of_mass"


class ReferenceSampling(Strict):
    """Dynamics of the atoms at several temperatures, with the stage `trajectories`. All times [ps]."""

    temperatures: list[PositiveFloat] = Field(min_length=2)
    """[K]; replica i is at temperature i modulo their number."""
    replicas: PositiveInt
    """In all; as many at each temperature."""
    timestep: PositiveFloat = 0.002
    friction: PositiveFloat = 0.1
    """[1/ps]; little, so that molecules diffuse as they would without thermostat."""
    burn_in: PositiveFloat
    duration: PositiveFloat
    frame_interval: PositiveFloat

    _rises = field_validator("temperatures")(_rising)

    @model_validator(mode="after")
    def _whole(self) -> ReferenceSampling:
        _check_multiples(
            self, (("burn_in", "timestep"), ("frame_interval", "timestep"), ("duration", "frame_interval"))
        )
        if self.replicas % len(self.temperatures):
            raise ValueError(f"replicas {self.replicas} is not a multiple of the {len(self.temperatures)} temperatures")
        return self

    @property
    def frames_per_replica(self) -> int:
        """Frames kept of each replica."""
        return round(self.duration / self.frame_interval)


class ConditionalSampling(Strict):
    """Orientations at fixed beads, by replica exchange in temperature: `conditional_samples`. All times [ps]."""

    frames: PositiveInt
    """CG frames of a batch, as many from each temperature of the reference."""
    temperatures: list[PositiveFloat] = Field(min_length=2)
    """The ladder, rising [K]. Neighbours exchange well when they differ by a part of about 1/sqrt(2.5 molecules)."""
    runs: int = Field(default=2, ge=2, le=64)
    """Independent runs of each frame, each a ladder of its own; that they agree is the proof of each label."""
    timestep: PositiveFloat = 0.004
    friction: PositiveFloat = 2.0
    """[1/ps]"""
    pace: PositiveFloat = 0.4
    """Time between two attempts to exchange."""
    interval: PositiveFloat = 0.1
    """Time between two samples of a replica."""
    relaxation: PositiveFloat
    """Time of each ladder before the first sample."""
    duration: PositiveFloat
    """Time of each ladder over which samples are kept."""

    _rises = field_validator("temperatures")(_rising)

    @model_validator(mode="after")
    def _whole_stretches(self) -> ConditionalSampling:
        _check_multiples(
            self, (("interval", "timestep"), ("pace", "interval"), ("relaxation", "pace"), ("duration", "pace"))
        )
        return self

    @property
    def time_each(self) -> float:
        """Simulated time of a frame, of all its replicas [ps]."""
        return self.runs * len(self.temperatures) * (self.relaxation + self.duration)


class ThermalSampling(Strict):
    """The sampling plans of a water system."""

    reference: ReferenceSampling
    conditional: ConditionalSampling


class Targets(Strict):
    """Thermal response targets: where, and how the second order is made."""

    temperatures: list[PositiveFloat] = Field(min_length=3)
    """[K], within the ladder of `sampling.conditional`."""
    second_order: Literal["local_regression", "third_moment"] = "local_regression"
    """From the slope of the first order over neighbouring temperatures, or from third moments; both are stored."""
    max_disagreement: float = Field(default=2.0, gt=1.0)
    """Root mean square difference of a frame's independent runs, in standard errors: where it is larger at a
    temperature, the frame is used above that only."""

    _rises = field_validator("temperatures")(_rising)


class Splines(Strict):
    """Cubic splines of pairs and triples, solved for: the fast form."""

    type: Literal["spline"]
    pair_cutoff: PositiveFloat
    """[nm], at most half the box, as all cutoffs."""
    pair_functions: int = Field(default=20, ge=4)
    triple_cutoff: PositiveFloat | None = None
    """[nm]; null for pairs alone."""
    triple_functions: PositiveInt = 5
    triple_degree: int = Field(default=4, ge=0, le=6)
    """Degree of the Legendre polynomials in the cosine of the angle."""

    @property
    def cutoff(self) -> float:
        """The longer of the two cutoffs [nm]."""
        return max(self.pair_cutoff, self.triple_cutoff or 0.0)


class TensorNetwork(Strict):
    """HIP-NN-TS, the message-passing form, trained by descent."""

    type: Literal["tensor_network"]
    cutoff: PositiveFloat
    soft_cutoff: PositiveFloat
    """Centre of the last sensitivity [nm], at most the cutoff."""
    features: PositiveInt = 64
    sensitivities: int = Field(default=20, ge=2)
    layers: int = Field(default=3, ge=0)
    tensor_order: int = Field(default=2, ge=0, le=2)
    training: Training

    @model_validator(mode="after")
    def _soft(self) -> TensorNetwork:
        if self.soft_cutoff > self.cutoff:
            raise ValueError(f"soft_cutoff {self.soft_cutoff} is beyond the cutoff {self.cutoff}; lower it")
        return self


class TemperatureForm(Strict):
    """How a potential depends on temperature (docs/thermal_potentials.md)."""

    form: Literal["taylor_temperature", "taylor_inverse_temperature", "constant_heat_capacity", "anchored"]
    origin: PositiveFloat | None = None
    """T_0 of the first three forms [K], best in the middle of the range."""
    order: int = Field(default=2, ge=0, le=2)
    anchors: list[PositiveFloat] = Field(default_factory=list)
    """Temperatures between which `anchored` interpolates [K]."""

    _rises = field_validator("anchors")(_rising)

    @model_validator(mode="after")
    def _of_form(self) -> TemperatureForm:
        if self.form == "anchored" and (len(self.anchors) < 2 or self.origin is not None):
            raise ValueError("the form anchored needs at least two anchors, and no origin")
        if self.form != "anchored" and (self.origin is None or self.anchors):
            raise ValueError(f"the form {self.form} needs an origin, and no anchors")
        return self


class ResponsePotential(Strict):
    """One temperature-dependent potential: `potential_<name>`."""

    method: Literal["response", "force_matching", "multi_temperature", "energy_matching", "product_response"] = (
        "response"
    )
    """Which labels it is fitted to; all but `response` are there to compare with."""
    temperature_dependence: TemperatureForm
    network: Annotated[Splines | TensorNetwork, Field(discriminator="type")]
    unconstrained_frames: int = Field(default=0, ge=0)
    """Frames of `trajectories`, at most, whose forces and energies splines learn beside the targets."""
    seed: int = Field(default=0, ge=0)


class LiquidJudgement(Strict):
    """How CG simulations are judged against the dynamics of the atoms, at each temperature of the reference."""

    max_rdf_error: PositiveFloat = 0.03
    """Largest integral of |g(r) - g(r) of the atoms|, less what noise makes of it, that passes [nm]."""
    neighbour_distance: PositiveFloat = 0.35
    """Beads so near make the angles of the angular distribution function [nm]; about the first minimum of g(r)."""
    longest_lag: PositiveFloat = 10.0
    """Longest time of the mean squared displacement [ps]."""


_SHARED = ("network", "temperature_dependence", "unconstrained_frames")


class ThermalSystem(System):
    """A water system at many temperatures."""

    model: WaterBox
    mapping: MoleculeBeads
    sampling: ThermalSampling
    targets: Targets
    potentials: dict[Name, ResponsePotential] = Field(default_factory=dict)
    """In a file, `network`, `temperature_dependence` and `unconstrained_frames` beside them hold for all that do not
    say otherwise."""
    cg_simulation: CGSimulation
    """At each temperature of `sampling.reference`; `replicas` of them at each."""
    evaluation: LiquidJudgement = LiquidJudgement()

    @model_validator(mode="before")
    @classmethod
    def _shared_settings(cls, content: Any) -> Any:
        """Write what holds for all potentials into each; null takes an inherited one out."""
        if not isinstance(content, dict) or not isinstance(content.get("potentials"), dict):
            return content
        shared = {name: content[name] for name in _SHARED if name in content}
        rest = {name: value for name, value in content.items() if name not in shared}
        potentials = content["potentials"].items()
        wanted = {name: own for name, own in potentials if own is not None}
        return rest | {
            "potentials": {n: merge(shared, own) if isinstance(own, dict) else own for n, own in wanted.items()}
        }

    @model_validator(mode="after")
    def _potentials_fit(self) -> ThermalSystem:
        for name, potential in self.potentials.items():
            where, half = f"potentials.{name}", self.model.edge / 2
            if potential.network.cutoff > half:
                raise ValueError(
                    f"{where}.network has a cutoff of {potential.network.cutoff} nm, beyond half the box "
                    f"({half:.4f} nm), where neighbours would be lost; lower it"
                )
            if potential.unconstrained_frames and potential.network.type != "spline":
                raise ValueError(
                    f"{where}.unconstrained_frames is {potential.unconstrained_frames}, but only splines learn from "
                    "them; set it to 0"
                )
            dependence, known = potential.temperature_dependence, self.targets.temperatures
            middle = dependence.origin or dependence.anchors[len(dependence.anchors) // 2]
            if potential.method in {"force_matching", "energy_matching"} and middle not in known:
                raise ValueError(
                    f"{where}.method {potential.method} needs targets at T_0 = {middle} K; take one of {known}"
                )
            if potential.method == "product_response" and not potential.unconstrained_frames:
                raise ValueError(f"{where}.method product_response needs unconstrained_frames; set their number")
            sampled = self.sampling.reference.temperatures
            if potential.method in AT_ONE_TEMPERATURE and potential.unconstrained_frames and middle not in sampled:
                raise ValueError(
                    f"{where}.unconstrained_frames needs sampling.reference at T_0 = {middle} K; take one of {sampled}"
                )
        return self

    @model_validator(mode="after")
    def _within_the_ladder(self) -> ThermalSystem:
        ladder = self.sampling.conditional.temperatures
        outside = [item for item in self.targets.temperatures if not ladder[0] <= item <= ladder[-1]]
        if outside:
            raise ValueError(
                f"targets.temperatures has {outside[0]} K, outside the ladder of sampling.conditional, {ladder[0]} to "
                f"{ladder[-1]} K; lengthen the ladder"
            )
        reference = self.sampling.reference
        if self.sampling.conditional.frames > reference.replicas * reference.frames_per_replica:
            raise ValueError(
                f"sampling.conditional.frames is {self.sampling.conditional.frames}, but sampling.reference keeps only "
                f"{reference.replicas * reference.frames_per_replica} frames"
            )
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> ThermalSystem:
        run, lag = self.cg_simulation, self.evaluation.longest_lag
        for name in ("tempering", "enhanced_duration", "displacement"):
            if getattr(run, name):
                raise ValueError(f"cg_simulation.{name} is for molecules, not for water; remove it")
        for name, plan in (("cg_simulation", run), ("sampling.reference", self.sampling.reference)):
            if plan.duration < 2 * lag or lag < 4 * plan.frame_interval:
                raise ValueError(
                    f"evaluation.longest_lag {lag} ps is not between 4 frame_intervals ({4 * plan.frame_interval} ps) "
                    f"and half the duration ({plan.duration / 2} ps) of {name}; set another"
                )
        if self.evaluation.neighbour_distance > self.model.edge / 2:
            raise ValueError(
                f"evaluation.neighbour_distance {self.evaluation.neighbour_distance} nm is beyond half the box "
                f"({self.model.edge / 2:.4f} nm); lower it"
            )
        return self

    @property
    def water(self) -> Water:
        """The molecules and their beads."""
        model = self.model
        return Water(
            parameters=WATER_MODELS[model.water_model],
            n_molecules=model.molecules,
            box=model.edge,
            cutoff=model.cutoff,
            electrostatics=model.electrostatics,
            centre=self.mapping.beads,
        )
