"""What a liquid of like molecules is, each of them one bead."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError

if TYPE_CHECKING:
    import openmm

FloatArray = NDArray[np.float64]
Electrostatics = Literal["reaction_field", "pme"]

SWITCH = 0.85
"""Part of the cutoff from which Lennard-Jones energies are switched to zero, so that they have no step there."""
DALTON_PER_NM3 = 1.66053906660
"""kg/m³ in 1 amu/nm³."""


class Liquid(ABC):
    """Like molecules in a cubic periodic box, sites in the order of the molecules.

    Attributes:
        n_molecules: how many.
        box: edge of the box [nm]; None for an isolated cluster.
    """

    n_molecules: int
    box: float | None

    @property
    @abstractmethod
    def bead_weights(self) -> FloatArray:
        """`(n,)` weights of the n sites of a molecule in its bead."""

    @property
    @abstractmethod
    def geometry(self) -> FloatArray:
        """`(n, 3)` sites of a molecule relative to its centre of mass, where dynamics start [nm]."""

    @property
    @abstractmethod
    def site_names(self) -> tuple[str, ...]:
        """Names of the n sites."""

    @property
    @abstractmethod
    def bead_element(self) -> str:
        """The elements of a molecule's atoms, sorted."""

    @property
    @abstractmethod
    def bead_mass(self) -> float:
        """Mass of a molecule [amu]."""

    @property
    @abstractmethod
    def stored_constraints(self) -> list[tuple[int, int]]:
        """Pairs of sites at fixed distance."""

    @property
    @abstractmethod
    def n_degrees_of_freedom(self) -> int:
        """Momenta of all molecules that carry kinetic energy."""

    @abstractmethod
    def free_system(self) -> openmm.System:
        """Molecules that move freely."""

    @cached_property
    def n_sites(self) -> int:
        """Number of sites of all molecules."""
        return self.n_molecules * len(self.bead_weights)

    def beads(self, positions: NDArray) -> FloatArray:
        """Beads `(..., n_molecules, 3)` of sites `(..., n_sites, 3)`."""
        molecules = np.reshape(positions, (*positions.shape[:-2], self.n_molecules, -1, 3))
        return np.einsum("s,...msd->...md", self.bead_weights, molecules.astype(np.float64))

    def lattice(self, seed: int) -> FloatArray:
        """Sites `(n_sites, 3)` of molecules on a simple cubic lattice in the box, each turned at random [nm].

        Raises:
            SystemSpecError: there is no box to fill.
        """
        from scipy.spatial.transform import Rotation

        if self.box is None:
            raise SystemSpecError("an isolated cluster has no box to be filled; give its positions")
        generator = np.random.default_rng(seed)
        edge = math.ceil(round(self.n_molecules ** (1 / 3), 9))
        places = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        chosen = np.sort(generator.choice(len(places), self.n_molecules, replace=False))
        turns = Rotation.random(self.n_molecules, rng=generator).as_matrix()
        turned = np.einsum("mij,sj->msi", turns, self.geometry)
        return (turned + (places[chosen] + 0.5)[:, None] * self.box / edge).reshape(-1, 3)


def box_edge(molecule_mass: float, n_molecules: int, density: float) -> float:
    """Edge of the cubic box [nm] of some molecules of a mass [amu] at a density [kg/m³]."""
    return (n_molecules * molecule_mass * DALTON_PER_NM3 / density) ** (1 / 3)
