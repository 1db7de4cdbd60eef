"""Collective variables: functions of a few atoms, used to bias sampling and to evaluate models."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import field_validator

from cg_assets.core.family import Family
from cg_assets.core.geometry import FloatArray, distance, torsion
from cg_assets.core.settings import NANOMETRES, AtomName, Fault, Scope, rising_limits


class CollectiveVariable(Family, family="collective variable"):
    """A function of the positions of a few atoms.

    Attributes:
        periodic: whether it is an angle of one turn.
        quantity: `angle` or `length`.
        openmm_function: its name in OpenMM's formulas of particles p1, p2, ...
        stiffness: of the restraint that leads a molecule to a given value [kJ/mol per unit squared].
        tolerance: largest deviation from a given value that counts as reached.
    """

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    atoms: tuple[AtomName, ...]

    periodic: ClassVar[bool] = False
    quantity: ClassVar[str] = "length"
    openmm_function: ClassVar[str]
    stiffness: ClassVar[float]
    tolerance: ClassVar[float]

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

    @abstractmethod
    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Its values `(...)` from the vectors `(..., n_atoms - 1, 3)` from each atom to the next [nm]."""

    def difference(self, value: float, target: float) -> float:
        """Signed difference of a value from a target, to the nearest image of an angle."""
        difference = value - target
        return difference - 2 * math.pi * round(difference / (2 * math.pi)) if self.periodic else difference


class Torsion(CollectiveVariable):
    """A dihedral angle of four atoms [rad]."""

    periodic: ClassVar[bool] = True
    quantity: ClassVar[str] = "angle"
    openmm_function: ClassVar[str] = "dihedral"
    stiffness: ClassVar[float] = 500.0
    tolerance: ClassVar[float] = 0.2

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

    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Angles in (-π, π] [rad]."""
        first, second, third = steps[..., 0, :], steps[..., 1, :], steps[..., 2, :]
        left, right = np.cross(first, second), np.cross(second, third)
        length = np.sqrt((second**2).sum(axis=-1))
        return np.arctan2(length * (first * right).sum(axis=-1), (left * right).sum(axis=-1))


class Distance(CollectiveVariable):
    """The distance of two atoms [nm]."""

    openmm_function: ClassVar[str] = "distance"
    stiffness: ClassVar[float] = 20000.0
    tolerance: ClassVar[float] = 0.03

    type: Literal["distance"]
    atoms: tuple[AtomName, AtomName]
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

    def measure(self, positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Distances [nm] and their gradients."""
        first, second = sites
        return distance(positions, (first, second))

    def from_steps(self, steps: FloatArray) -> FloatArray:
        """Distances [nm]."""
        return np.sqrt((steps**2).sum(axis=(-2, -1)))
