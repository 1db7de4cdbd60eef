"""Settings of boxes of liquids whose molecules are beads: rigid water, and molecules of any force field."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.settings import NANOMETRES, Built, Fact, Fault, Scope, distinct
from cg_assets.mapping.bead_mapping import MoleculeBeads
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.liquids.liquid import DALTON_PER_NM3, Electrostatics, Liquid, box_edge
from cg_assets.mapping.liquids.molecules import MolecularLiquid, RigidBonds, read_liquid_molecule
from cg_assets.mapping.liquids.water import WATER_MODELS, Water
from cg_assets.mapping.topologies.force_fields import force_field_files, own_force_fields
from cg_assets.sampling.model import Model
from cg_assets.sampling.molecule.platforms import measured_step

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.progress import Progress
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.sampling.held_beads import HeldBeads
    from cg_assets.sampling.liquid_sampler import LiquidSampler
    from cg_assets.sampling.settings import Dynamics, SamplingPlan


_NEUTRAL = 0.01
"""Largest charge of a molecule that is rounding [e]."""


class LiquidBox(Model):
    """Like molecules in a cubic periodic box of fixed volume, each of them one bead."""

    draws_starts: ClassVar[bool] = True
    is_liquid: ClassVar[bool] = True
    molecules: int = Field(ge=8, le=100_000)
    """In the box."""
    electrostatics: Electrostatics = "reaction_field"
    """Beyond the cutoff a dielectric continuum (`reaction_field`), or all periodic images (`pme`)."""
    cutoff: PositiveFloat
    """Cutoff of non-bonded interactions [nm], at most half the box."""

    @property
    @abstractmethod
    def edge(self) -> float:
        """Edge of the box [nm], the same at all temperatures: responses are derivatives at constant volume."""

    @model_validator(mode="after")
    def _fits(self) -> LiquidBox:
        if self.cutoff > self.edge / 2:
            raise ValueError(
                f"cutoff {self.cutoff} nm is beyond half the box ({self.edge / 2:.4f} nm) of {self.molecules} "
                "molecules; lower it or use more molecules"
            )
        return self

    def step_seconds(self, structure: Liquid, beads: Beads) -> float:
        """Measured for half a second [s]."""
        return measured_step(structure.free_system(), structure.lattice(0), True)

    @property
    def bead_box(self) -> float:
        """Edge of the box [nm]."""
        return self.edge

    def sampler(
        self, structure: Liquid, beads: Beads, plan: SamplingPlan, seed: int, snapshots: int = 0
    ) -> LiquidSampler:
        """Dynamics at several temperatures with OpenMM."""
        from cg_assets.sampling.liquid_sampler import LiquidSampler

        return LiquidSampler(structure, beads.temperatures, plan, seed, snapshots)

    def measured_box(
        self,
        structure: Liquid,
        temperature: float,
        dynamics: Dynamics,
        seed: int,
        progress: Progress | None = None,
        folder: Path | None = None,
    ) -> Estimate:
        """It is given; errors as in `Model.measured_box`."""
        raise SystemSpecError("the box of a liquid is given by model.density or model.box; there is nothing to find")


class WaterBox(LiquidBox):
    """Rigid water, whose beads can be held fixed."""

    type: Literal["water"]
    water_model: Literal["spce", "tip4p2005"] = "spce"
    """A water model that OpenMM ships."""
    density: PositiveFloat = 997.0
    """[kg/m³]"""

    @property
    def edge(self) -> float:
        """Edge of the box [nm]."""
        return box_edge(WATER_MODELS[self.water_model].mass, self.molecules, self.density)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A density in other units."""
        yield from scope.unlikely("density", self.density, 300, 1500, "kg/m³ (1 g/cm³ is 1000 kg/m³)")

    def facts(self, built: Built) -> Iterator[Fact]:
        """Molecules and box."""
        yield "molecules", f"{self.molecules} of {self.water_model}, rigid, {built.structure.n_sites} sites"
        yield "box", f"{self.edge:.4f} nm, {self.density:g} kg/m³"

    @property
    def longest_timestep(self) -> float:
        """That of rigid molecules [ps]."""
        return 0.005

    def hold_fault(self, structure: Water, beads: Beads) -> str:
        """None: centres of rigid molecules can be held."""
        return ""

    def held_beads(
        self, structure: Water, beads: Beads, mapping: MoleculeBeads, samples: Frames | None, starts: Frames
    ) -> HeldBeads:
        """Molecules that rotate about their centres; labels are the total forces on them."""
        from cg_assets.sampling.held_beads import held_water

        return held_water(structure, starts.positions)

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


class MolecularBox(LiquidBox):
    """Molecules of any force field, rigid or not; potentials of their beads learn from ordinary dynamics."""

    type: Literal["liquid"]
    pdb: Path
    """A PDB file of one molecule, with all of its atoms, relative to the folder of the YAML file."""
    force_fields: list[str] = Field(min_length=1)
    """Force field files that OpenMM ships, or own ones in its format, relative to the folder of the YAML file."""
    box: PositiveFloat
    """Edge of the cubic box [nm]."""
    constraints: RigidBonds = "h_bonds"
    """Bonds of fixed length: none, or all with hydrogen."""

    _distinct = field_validator("force_fields")(distinct)

    @property
    def edge(self) -> float:
        """Edge of the box [nm]."""
        return self.box

    @property
    def longest_timestep(self) -> float:
        """That vibrations of hydrogens, or where these are rigid those of angles with hydrogens, allow [ps]."""
        return 0.001 if self.constraints == "none" else 0.0025

    def files(self, folder: Path) -> list[Path]:
        """The molecule, and force fields that are the user's own."""
        return [folder / self.pdb, *own_force_fields(self.force_fields, folder)]

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A PDB file that is missing, and lengths in Å."""
        yield from scope.missing("pdb", self.pdb)
        yield from scope.unlikely("box", self.box, 0.5, 100, NANOMETRES)
        yield from scope.unlikely("cutoff", self.cutoff, 0.3, 5, NANOMETRES)

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """A density that no liquid has, and molecules with a charge."""
        built.structure.free_system()
        if abs(charge := built.structure.charge) > _NEUTRAL:
            yield Fault(
                "force_fields", f"give the molecule a charge of {charge:.3g} e; a liquid of one kind is neutral"
            )
        density = self._density(built.structure)
        if not 200 < density < 5000:
            yield Fault("box", f"{self.box:g} nm gives a density of {density:.0f} kg/m³; correct box or molecules")

    def facts(self, built: Built) -> Iterator[Fact]:
        """Molecules, rigid bonds and box."""
        one, rigid = built.structure, len(built.structure.stored_constraints) // self.molecules
        yield "molecules", f"{self.molecules} of {', '.join(one.site_names)}, {one.bead_mass:.3f} amu each"
        yield "rigid bonds", f"{rigid} in each molecule"
        yield "box", f"{self.box:.4f} nm, {self._density(one):.1f} kg/m³"

    def _density(self, structure: Liquid) -> float:
        """Of the box [kg/m³]."""
        return self.molecules * structure.bead_mass * DALTON_PER_NM3 / self.box**3

    def structure(
        self, mapping: MoleculeBeads, variables: Mapping[str, CollectiveVariable], folder: Path
    ) -> MolecularLiquid:
        """The molecules.

        Raises:
            SystemSpecError: the molecule cannot be read, the force field does not describe it, or its bead is not its
                centre of mass.
        """
        if mapping.beads != "centre_of_mass":
            raise SystemSpecError(f"mapping.beads is {mapping.beads}, which is for water; take centre_of_mass")
        topology, places = read_liquid_molecule(folder / self.pdb)
        return MolecularLiquid(
            topology=topology,
            places=places,
            files=tuple(force_field_files(self.force_fields, folder)),
            named=", ".join(self.force_fields),
            n_molecules=self.molecules,
            box=self.box,
            cutoff=self.cutoff,
            electrostatics=self.electrostatics,
            rigid=self.constraints,
        )
