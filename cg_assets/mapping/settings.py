"""Settings of what is simulated, of its beads and of its collective variables."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from numpy.typing import ArrayLike
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cg_assets.core.expressions import parse_expression
from cg_assets.core.family import Family
from cg_assets.core.geometry import FloatArray, distance, torsion
from cg_assets.core.settings import Formula, Name
from cg_assets.mapping.water import WATER_MODELS, Centre, Electrostatics, box_edge

AtomName = Annotated[str, Field(pattern=r"^[0-9]+:[A-Za-z0-9'*]+$")]
"""An atom as `residue number:atom name`, residues counted from 1."""


class Model(Family, family="model"):
    """What is simulated."""


class ModelPotential(Model):
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


class Molecule(Model):
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


class WaterBox(Model):
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


class Mapping(Family, family="mapping"):
    """What the CG coordinates are."""


class LinearMapping(Mapping):
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


class BeadMapping(Mapping):
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


class MoleculeBeads(Mapping):
    """One bead for each molecule."""

    type: Literal["molecules"]
    beads: Centre = "centre_of_mass"


class CollectiveVariable(Family, family="collective variable"):
    """A function of the positions of a few atoms."""

    atoms: tuple[AtomName, ...]

    periodic: ClassVar[bool] = False
    quantity: ClassVar[str] = "length"

    @property
    @abstractmethod
    def limits(self) -> tuple[float, float]:
        """Lower and upper limit of histograms and bias grids."""

    @abstractmethod
    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Its values and their gradients by the sites.

        Args:
            positions: `(n_frames, n_sites, 3)` of whole molecules [nm].
            sites: the sites that its atoms are, in order.

        Returns:
            Values `(n_frames,)` and gradients `(n_frames, len(sites), 3)`.
        """


class Torsion(CollectiveVariable):
    """A dihedral angle of four atoms [rad]."""

    periodic: ClassVar[bool] = True
    quantity: ClassVar[str] = "angle"

    type: Literal["torsion"]
    atoms: tuple[AtomName, AtomName, AtomName, AtomName]

    @property
    def limits(self) -> tuple[float, float]:
        """One turn [rad]."""
        return (-math.pi, math.pi)

    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Angles in (-π, π] [rad] and their gradients [rad/nm]."""
        first, second, third, fourth = sites
        return torsion(positions, (first, second, third, fourth))


class Distance(CollectiveVariable):
    """The distance of two atoms [nm]."""

    type: Literal["distance"]
    atoms: tuple[AtomName, AtomName]
    range: tuple[float, float]
    """Limits of histograms and bias grids [nm]."""

    @property
    def limits(self) -> tuple[float, float]:
        """The range [nm]."""
        return self.range

    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Distances [nm] and their gradients."""
        first, second = sites
        return distance(positions, (first, second))
