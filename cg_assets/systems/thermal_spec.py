"""The specification of a water system, whose potential depends on temperature: boxes, temperatures, sampling plans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.settings import Built, Fault, Name, Scope
from cg_assets.core.units import thermal_energy
from cg_assets.evaluation.settings import LiquidSettings
from cg_assets.labels.thermal.settings import Targets
from cg_assets.mapping.bead_mapping import MoleculeBeads
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.water import Water
from cg_assets.sampling.settings import ThermalSampling
from cg_assets.sampling.water_box import WaterBox
from cg_assets.simulation.settings import CGSimulation
from cg_assets.systems.base import System, fields_of, merge, within
from cg_assets.training.settings import ResponsePotential

if TYPE_CHECKING:
    from cg_assets.core.progress import Progress
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.evaluation.long_runs import ReferenceDensity
    from cg_assets.mapping.beads import Beads

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
    """In a file, `network`, `temperature_dependence` and `unconstrained_frames` next to them are the defaults
    of all."""
    cg_simulation: CGSimulation
    """At each temperature of `sampling.reference`; `replicas` of them at each."""
    evaluation: LiquidSettings = LiquidSettings()

    @model_validator(mode="before")
    @classmethod
    def _shared_settings(cls, content: Any) -> Any:
        """Copy the defaults of all potentials into each; null removes an inherited potential."""
        given = fields_of(content).get("potentials")
        potentials = fields_of(given)
        if potentials != given:
            return content
        shared = {name: content[name] for name in _SHARED if name in content}
        rest = {name: value for name, value in content.items() if name not in shared}
        wanted = {name: merge(shared, own) for name, own in potentials.items() if own is not None}
        return rest | {"potentials": wanted}

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Those of the atoms' dynamics [K]."""
        return tuple(self.sampling.reference.temperatures)

    @property
    def thermal_energy(self) -> float:
        """k_B T at the lowest temperature [kJ/mol]."""
        return thermal_energy(self.temperatures[0], self.units)

    @property
    def domain(self) -> None:
        """Potentials are defined everywhere."""
        return None

    @property
    def reference_stage(self) -> None:
        """The atoms' dynamics themselves are the reference."""
        return None

    def data_stage(self, potential: str) -> str:
        """The atoms' dynamics."""
        return TRAJECTORIES

    def true_stage(self, potential: str) -> str:
        """The atoms' dynamics."""
        return TRAJECTORIES

    def drawn(self, potential: str) -> tuple[int | None, int]:
        """All of them."""
        return None, 0

    def scope(self) -> Scope:
        """What sections can use from each other."""
        longest = self.model.longest_timestep
        return Scope(self.model.kind, self.units, None, self.folder, box=self.model.bead_box, longest_timestep=longest)

    def built(self) -> Built:
        """The molecules and their beads; errors as in `System.built`."""
        return Built(self.scope(), self.model, self.water, self.beads())

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """None, where molecules about fixed beads can be built; errors as in `System.built`."""
        self.water.frozen_system()
        return iter(())

    def run_reference(self, seed: int, folder: Path, progress: Progress | None = None) -> ReferenceDensity:
        """There is none; errors as in `System.run_reference`."""
        raise SystemSpecError(
            f"{self.name}: water is its own reference, the stage trajectories; there is nothing to run"
        )

    def measure_box(self, seed: int, progress: Progress | None = None) -> Estimate:
        """It is known; errors as in `System.measure_box`."""
        raise SystemSpecError(f"{self.name}: the box of water follows from model.density; there is nothing to find")

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Faults between sections."""
        run, reference = self.cg_simulation, self.sampling.reference
        for name, potential in self.potentials.items():
            faults = potential.data_faults(self.targets.temperatures, reference.temperatures)
            yield from within(f"potentials.{name}", faults)
        yield from within("targets", self.targets.ladder_faults(self.sampling.conditional.temperatures))
        for name in ("enhanced_duration", "displacement"):
            if getattr(run, name):
                yield Fault(f"cg_simulation.{name}", "is for molecules, not for water; remove it")
        for name, duration, interval in (
            ("cg_simulation", run.duration, run.frame_interval),
            ("sampling.reference", reference.duration, reference.frame_interval),
        ):
            yield from within("evaluation", self.evaluation.time_faults(name, duration, interval))

    @property
    def water(self) -> Water:
        """The molecules and their beads."""
        return self.model.structure(self.mapping, {}, self.folder)

    def beads(self) -> Beads:
        """The beads, one for each molecule, at the lowest temperature of the reference."""
        temperature = self.sampling.reference.temperatures[0]
        cg_map = self.mapping.cg_map(self.water)
        return Beads(self.name, self.title, self.units, temperature, cg_map, box=self.model.edge)
