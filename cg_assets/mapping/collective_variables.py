"""Collective variables: functions of a few beads, used to bias sampling and to evaluate models."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, PositiveInt, field_validator, model_validator

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.family import Family
from cg_assets.core.geometry import (
    FloatArray,
    angle,
    centre_distance,
    deviation,
    distance,
    radius_of_gyration,
    torsion,
    torsion_angles,
)
from cg_assets.core.settings import NANOMETRES, Fault, Scope, SiteName, rising_limits

if TYPE_CHECKING:
    from cg_assets.mapping.builders import MoleculeModel
    from cg_assets.mapping.maps import CGMap


class CollectiveVariable(Family, family="collective variable"):
    """A function of the positions of a few beads, given by name or by the atom that they sit on.

    Attributes:
        periodic: whether it is an angle of one turn.
        quantity: `angle` or `length`.
        stiffness: of the restraint that leads a molecule to a given value [kJ/mol per unit squared].
        tolerance: largest deviation from a given value that counts as reached.
        drivable: whether OpenMM can bias the atoms along it.
    """

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    atoms: tuple[SiteName, ...]

    periodic: ClassVar[bool] = False
    quantity: ClassVar[str] = "length"
    stiffness: ClassVar[float]
    tolerance: ClassVar[float]
    drivable: ClassVar[bool] = True

    @property
    def files(self) -> list[Path]:
        """Files that it names, relative to the folder of the YAML file."""
        return []

    def bound(self, molecule: MoleculeModel, cg_map: CGMap, folder: Path) -> CollectiveVariable:
        """The variable with all that it needs of a molecule; errors as of `beads_in`."""
        return self

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

    def values(self, positions: FloatArray, sites: Sequence[int]) -> FloatArray:
        """Its values alone `(n_frames,)`; arguments as of `measure`."""
        return self.measure(positions, sites)[0]

    @abstractmethod
    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Its values `(...)` from the vectors `(..., n_atoms - 1, 3)` from each atom to the next [nm]."""

    @abstractmethod
    def openmm_formula(self, points: Sequence[str]) -> str:
        """Its formula in OpenMM, of the names of the particles or groups that its atoms are."""

    def difference(self, value: float, target: float) -> float:
        """Signed difference of a value from a target, to the nearest image of an angle."""
        difference = value - target
        return difference - 2 * math.pi * round(difference / (2 * math.pi)) if self.periodic else difference


class Torsion(CollectiveVariable):
    """A dihedral angle of four atoms [rad]."""

    periodic: ClassVar[bool] = True
    quantity: ClassVar[str] = "angle"
    stiffness: ClassVar[float] = 500.0
    tolerance: ClassVar[float] = 0.2

    type: Literal["torsion"]
    atoms: tuple[SiteName, SiteName, SiteName, SiteName]
    """Four beads, or atoms on which beads sit, in order along the chain."""

    @property
    def limits(self) -> tuple[float, float]:
        """One turn [rad]."""
        return (-math.pi, math.pi)

    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Angles in (-π, π] [rad] and their gradients [rad/nm]."""
        first, second, third, fourth = sites
        return torsion(positions, (first, second, third, fourth))

    def values(self, positions: FloatArray, sites: Sequence[int]) -> FloatArray:
        """Angles in (-π, π] [rad]."""
        return torsion_angles(positions, sites)

    def openmm_formula(self, points: Sequence[str]) -> str:
        """A dihedral angle."""
        return f"dihedral({','.join(points)})"

    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Angles in (-π, π] [rad]."""
        first, second, third = steps[..., 0, :], steps[..., 1, :], steps[..., 2, :]
        left, right = np.cross(first, second), np.cross(second, third)
        length = np.sqrt((second**2).sum(axis=-1))
        return np.arctan2(length * (first * right).sum(axis=-1), (left * right).sum(axis=-1))


class Length(CollectiveVariable):
    """A length with a range [nm]."""

    stiffness: ClassVar[float] = 20000.0
    tolerance: ClassVar[float] = 0.03

    range: tuple[float, float]
    """Limits of histograms and bias grids [nm]."""

    _rises = field_validator("range")(rising_limits)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A range in other units."""
        for limit in self.range:
            yield from scope.unlikely("range", limit, 0, 20, NANOMETRES)

    @property
    def limits(self) -> tuple[float, float]:
        """The range [nm]."""
        return self.range


class Distance(Length):
    """The distance of two beads [nm]."""

    type: Literal["distance"]
    atoms: tuple[SiteName, SiteName]
    """Two beads, or atoms on which beads sit."""

    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Distances [nm] and their gradients."""
        first, second = sites
        return distance(positions, (first, second))

    def openmm_formula(self, points: Sequence[str]) -> str:
        """A distance."""
        return f"distance({','.join(points)})"

    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Distances [nm]."""
        return np.sqrt((steps**2).sum(axis=(-2, -1)))


class GroupDistance(Length):
    """The distance of the geometric centres of two groups of beads [nm]."""

    type: Literal["group_distance"]
    atoms: tuple[SiteName, ...] = Field(min_length=2)
    """Those of the first group, then those of the second."""
    first: PositiveInt
    """How many of them are the first group."""

    @model_validator(mode="after")
    def _two_groups(self) -> GroupDistance:
        if self.first >= len(self.atoms):
            raise ValueError(
                f"first is {self.first} of {len(self.atoms)} atoms; leave at least one to the second group"
            )
        return self

    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Distances [nm] and their gradients."""
        return centre_distance(positions, sites[: self.first], sites[self.first :])

    def openmm_formula(self, points: Sequence[str]) -> str:
        """By squared distances: the centres are apart by their mean between groups less half those within each."""
        groups = points[: self.first], points[self.first :]
        between = _mean_square(itertools.product(*groups), len(groups[0]) * len(groups[1]))
        within = [_mean_square(itertools.combinations(group, 2), len(group) ** 2) for group in groups]
        return f"sqrt({'-'.join([between, *(part for part in within if part)])})"

    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Distances [nm]."""
        points = _points(steps)
        apart = points[..., self.first :, :].mean(axis=-2) - points[..., : self.first, :].mean(axis=-2)
        return np.sqrt((apart**2).sum(axis=-1))


class RadiusOfGyration(Length):
    """The root mean square distance of beads, all of equal weight, from their centre [nm]."""

    type: Literal["radius_of_gyration"]
    atoms: tuple[SiteName, ...] = Field(min_length=2)
    """Beads, or atoms on which beads sit."""

    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Radii [nm] and their gradients."""
        return radius_of_gyration(positions, sites)

    def openmm_formula(self, points: Sequence[str]) -> str:
        """The root of the mean square distance of pairs, over two."""
        return f"sqrt({_mean_square(itertools.combinations(points, 2), len(points) ** 2)})"

    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Radii [nm]."""
        points = _points(steps)
        return np.sqrt(((points - points.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-1).mean(axis=-1))


class RootMeanSquareDeviation(Length):
    """The root mean square deviation of beads, all of equal weight, from a structure after the best rotation [nm]."""

    drivable: ClassVar[bool] = False

    type: Literal["rmsd"]
    atoms: tuple[SiteName, ...] = Field(min_length=3)
    """Beads, or atoms on which beads sit."""
    file: Path | None = None
    """A PDB file, relative to the folder of the YAML file; null for the structure that the model starts from."""
    reference: tuple[tuple[float, float, float], ...] | None = None
    """Positions of its beads in that structure [nm]; null to take them from there."""

    @model_validator(mode="after")
    def _one_structure(self) -> RootMeanSquareDeviation:
        if self.reference is not None and len(self.reference) != len(self.atoms):
            raise ValueError(f"reference has {len(self.reference)} positions for {len(self.atoms)} atoms")
        return self

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A range in other units, and a file that is missing."""
        yield from super().faults(scope)
        yield from scope.missing("file", self.file)

    @property
    def files(self) -> list[Path]:
        """That of the structure."""
        return [] if self.file is None else [self.file]

    def bound(self, molecule: MoleculeModel, cg_map: CGMap, folder: Path) -> CollectiveVariable:
        """With the positions of its beads in the structure."""
        from cg_assets.mapping.other_structure import beads_in

        if self.reference is not None:
            return self
        if self.file is None:
            places = cg_map.apply(molecule.positions[molecule.stored])
        else:
            places = beads_in(molecule, cg_map, folder / self.file, "collective_variables: file")[0]
        mine = places[[cg_map.site(atom) for atom in self.atoms]]
        return self.model_copy(update={"reference": tuple(map(tuple, mine.tolist()))})

    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Deviations [nm] and their gradients.

        Raises:
            SystemSpecError: it is not `bound` to a structure.
        """
        if self.reference is None:
            raise SystemSpecError("the variable has no structure yet; take it from the beads of a system")
        return deviation(positions, sites, self.reference)

    def openmm_formula(self, points: Sequence[str]) -> str:
        """None.

        Raises:
            SystemSpecError: always.
        """
        raise SystemSpecError("a deviation from a structure can be evaluated but not biased; take another variable")

    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Deviations [nm]."""
        points = _points(steps)
        return self.measure(points.reshape(-1, *points.shape[-2:]), range(len(self.atoms)))[0].reshape(steps.shape[:-2])


class Angle(CollectiveVariable):
    """The angle at the second of three beads [rad]; it has no gradient where they are in line."""

    quantity: ClassVar[str] = "angle"
    stiffness: ClassVar[float] = 500.0
    tolerance: ClassVar[float] = 0.1

    type: Literal["angle"]
    atoms: tuple[SiteName, SiteName, SiteName]
    """Three beads, or atoms on which beads sit, in order along the angle."""
    range: tuple[float, float] = (0.0, math.pi)
    """Limits of histograms and bias grids [rad]."""

    _rises = field_validator("range")(rising_limits)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A range in degrees."""
        if not -1e-6 <= self.range[0] < self.range[1] <= math.pi + 1e-6:
            yield Fault("range", f"is {list(self.range)}; an angle of three beads is between 0 and pi radians")

    @property
    def limits(self) -> tuple[float, float]:
        """The range [rad]."""
        return self.range

    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Angles in [0, π] [rad] and their gradients [rad/nm]."""
        first, second, third = sites
        return angle(positions, (first, second, third))

    def openmm_formula(self, points: Sequence[str]) -> str:
        """An angle."""
        return f"angle({','.join(points)})"

    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Angles in [0, π] [rad]."""
        one, other = -steps[..., 0, :], steps[..., 1, :]
        across = np.cross(one, other)
        return np.arctan2(np.sqrt((across**2).sum(axis=-1)), (one * other).sum(axis=-1))


def _points(steps: FloatArray) -> FloatArray:
    """Positions `(..., n_atoms, 3)` from the first atom on."""
    return np.concatenate([np.zeros_like(steps[..., :1, :]), np.cumsum(steps, axis=-2)], axis=-2)


def _mean_square(pairs: Iterable[tuple[str, str]], number: int) -> str:
    """Sum of squared distances of pairs over a number, in OpenMM; empty without pairs."""
    terms = "+".join(f"distance({one},{other})^2" for one, other in pairs)
    return f"({terms})/{number}" if terms else ""
