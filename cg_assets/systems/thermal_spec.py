"""The specification of a water system, whose potential depends on temperature: boxes, temperatures, sampling plans."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from cg_assets.core.settings import Name
from cg_assets.evaluation.settings import LiquidJudgement
from cg_assets.labels.settings import Targets
from cg_assets.mapping.bead_mapping import MoleculeBeads
from cg_assets.mapping.water import Water
from cg_assets.sampling.settings import ThermalSampling
from cg_assets.sampling.water_box import WaterBox
from cg_assets.simulation.settings import CGSimulation
from cg_assets.systems.base import System, merge
from cg_assets.training.settings import AT_ONE_TEMPERATURE, ResponsePotential

TRAJECTORIES, CONDITIONAL_SAMPLES, TARGETS = "trajectories", "conditional_samples", "thermal_response_targets"
"""Stages of a water system."""


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
            if potential.network.reach > half:
                raise ValueError(
                    f"{where}.network has a cutoff of {potential.network.reach} nm, beyond half the box "
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
        return self.model.structure(self.mapping, {}, self.folder)
