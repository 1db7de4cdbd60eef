"""Settings of a box of rigid water."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.settings import Built, Fact, Fault, Scope
from cg_assets.mapping.bead_mapping import MoleculeBeads
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.water import WATER_MODELS, Electrostatics, Water, box_edge
from cg_assets.sampling.model import Model
from cg_assets.sampling.molecule.platforms import measured_step

if TYPE_CHECKING:
    from cg_assets.core.progress import Progress
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.sampling.settings import Dynamics, SamplingPlan
    from cg_assets.sampling.water_reference import WaterReferenceSampler


class WaterBox(Model):
    """Rigid water in a cubic periodic box of fixed volume."""

    draws_starts: ClassVar[bool] = True
    is_liquid: ClassVar[bool] = True
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
                "molecules; lower it or use more molecules"
            )
        return self

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A density in other units."""
        yield from scope.unlikely("density", self.density, 300, 1500, "kg/m³ (1 g/cm³ is 1000 kg/m³)")

    def facts(self, built: Built) -> Iterator[Fact]:
        """Molecules and box."""
        yield "molecules", f"{self.molecules} of {self.water_model}, rigid, {built.structure.n_sites} sites"
        yield "box", f"{self.edge:.4f} nm, {self.density:g} kg/m³"

    def step_seconds(self, structure: Water, beads: Beads) -> float:
        """Measured for half a second [s]."""
        return measured_step(structure.free_system(), structure.lattice(0), True)

    @property
    def longest_timestep(self) -> float:
        """That of rigid molecules [ps]."""
        return 0.005

    @property
    def simulated_box(self) -> float:
        """Edge of the box [nm]."""
        return self.edge

    @property
    def bead_box(self) -> float:
        """Edge of the box [nm]."""
        return self.edge

    def sampler(
        self, structure: Water, beads: Beads, plan: SamplingPlan, seed: int, snapshots: int = 0
    ) -> WaterReferenceSampler:
        """Dynamics at several temperatures with OpenMM."""
        from cg_assets.sampling.water_reference import WaterReferenceSampler

        return WaterReferenceSampler(structure, beads.temperatures, plan, seed, snapshots)

    def measured_box(
        self, structure: Water, temperature: float, dynamics: Dynamics, seed: int, progress: Progress | None = None
    ) -> Estimate:
        """It is known; errors as in `Model.measured_box`."""
        raise SystemSpecError("the box of water follows from model.density; there is nothing to find")

    def structure(self, mapping: MoleculeBeads, variables: Mapping[str, CollectiveVariable], folder: Path) -> Water:
        """The molecules."""
        return Water(
            parameters=WATER_MODELS[self.water_model],
            n_molecules=self.molecules,
            box=self.edge,
            cutoff=self.cutoff,
            electrostatics=self.electrostatics,
            centre=mapping.beads,
        )
