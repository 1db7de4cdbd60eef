"""Rigid water as OpenMM Systems: free molecules, and molecules that rotate about fixed centres.

SPC/E (Berendsen, Grigera and Straatsma, J. Phys. Chem. 91, 6269 (1987)) and TIP4P/2005 (Abascal and Vega, J. Chem.
Phys. 123, 234505 (2005)). A molecule is rigid, so its energy is that of pairs of sites of different molecules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.liquids.liquid import SWITCH, Electrostatics, FloatArray, Liquid

if TYPE_CHECKING:
    import openmm

Centre = Literal["centre_of_mass", "oxygen"]

FROZEN_MASS = 1e17
"""Mass of a centre that must not move [amu]: its thermal motion is some 1e-6 nm in 1 ns."""
_FROZEN_HYDROGEN_MASS = 4.0
"""Mass of a hydrogen that turns about a fixed centre [amu]; the distribution of orientations does not depend on it."""


@dataclass(frozen=True)
class WaterParameters:
    """A water model.

    Attributes:
        oxygen_hydrogen: length of the bond [nm].
        angle: hydrogen, oxygen, hydrogen [rad].
        hydrogen_charge: [e]; the charge of opposite sign sits on the oxygen, or at `charge_distance` from it.
        sigma: Lennard-Jones diameter of the oxygen [nm].
        epsilon: its depth [kJ/mol].
        charge_distance: from the oxygen along the bisector to the negative charge [nm]; 0 on the oxygen.
        oxygen_mass: [amu].
        hydrogen_mass: [amu].
    """

    oxygen_hydrogen: float
    angle: float
    hydrogen_charge: float
    sigma: float
    epsilon: float
    charge_distance: float
    oxygen_mass: float
    hydrogen_mass: float

    @property
    def mass(self) -> float:
        """Mass of a molecule [amu]."""
        return self.oxygen_mass + 2 * self.hydrogen_mass

    @property
    def n_sites(self) -> int:
        """Sites of a molecule: oxygen, two hydrogens and, off the oxygen, the negative charge."""
        return 4 if self.charge_distance else 3

    @property
    def masses(self) -> FloatArray:
        """`(n_sites,)` physical masses [amu]."""
        return np.array([self.oxygen_mass, self.hydrogen_mass, self.hydrogen_mass, 0.0][: self.n_sites])

    @property
    def charges(self) -> FloatArray:
        """`(n_sites,)` [e]."""
        hydrogen, n = self.hydrogen_charge, self.n_sites
        return np.array([-2 * hydrogen if n == 3 else 0.0, hydrogen, hydrogen, -2 * hydrogen][:n])

    @property
    def geometry(self) -> FloatArray:
        """`(n_sites, 3)` sites relative to the centre of mass, in the plane z = 0 [nm]."""
        half = self.angle / 2
        along, across = self.oxygen_hydrogen * math.cos(half), self.oxygen_hydrogen * math.sin(half)
        sites = np.zeros((self.n_sites, 3))
        sites[1, :2], sites[2, :2] = (along, across), (along, -across)
        if self.n_sites == 4:
            sites[3, 0] = self.charge_distance
        return sites - self.masses @ sites / self.mass

    def centre(self, kind: Centre) -> FloatArray:
        """`(n_sites,)` weights of the sites in a molecule's bead."""
        return self.masses / self.mass if kind == "centre_of_mass" else np.eye(self.n_sites)[0]


WATER_MODELS = {
    "spce": WaterParameters(
        oxygen_hydrogen=0.1,
        angle=1.91061193216,
        hydrogen_charge=0.4238,
        sigma=0.31657195050398818,
        epsilon=0.6497752,
        charge_distance=0.0,
        oxygen_mass=15.99943,
        hydrogen_mass=1.007947,
    ),
    "tip4p2005": WaterParameters(
        oxygen_hydrogen=0.09572,
        angle=math.radians(104.52),
        hydrogen_charge=0.5564,
        sigma=0.3158414135551131,
        epsilon=0.7748768,
        charge_distance=0.01546,
        oxygen_mass=15.9994,
        hydrogen_mass=1.008,
    ),
}
"""The numbers of the files spce.xml and charmm36/tip4p2005.xml that OpenMM ships."""


@dataclass(frozen=True)
class Water(Liquid):
    """Rigid water molecules, in a cubic periodic box or isolated.

    Attributes:
        parameters: the water model.
        n_molecules: how many.
        box: edge of the box [nm]; None for an isolated cluster, in which all pairs interact.
        cutoff: of the interactions in a box [nm].
        electrostatics: beyond the cutoff: a dielectric continuum (reaction field), or all images (PME).
        centre: where the bead of a molecule is.
    """

    parameters: WaterParameters
    n_molecules: int
    box: float | None = None
    cutoff: float | None = None
    electrostatics: Electrostatics = "reaction_field"
    centre: Centre = "centre_of_mass"

    def __post_init__(self) -> None:
        """Refuse a box without a cutoff, or with one beyond its half.

        Raises:
            SystemSpecError: the cutoff does not fit the box.
        """
        if self.box is not None and (self.cutoff is None or self.cutoff > self.box / 2):
            raise SystemSpecError(
                f"cutoff {self.cutoff} nm is beyond half the box ({self.box / 2:.4f} nm); lower it or take more "
                "molecules"
            )

    @property
    def bead_weights(self) -> FloatArray:
        """Those of the centre."""
        return self.parameters.centre(self.centre)

    @property
    def geometry(self) -> FloatArray:
        """That of the rigid molecule."""
        return self.parameters.geometry

    @property
    def site_names(self) -> tuple[str, ...]:
        """Oxygen, hydrogens and charge."""
        return ("O", "H1", "H2", "M")[: self.parameters.n_sites]

    @property
    def bead_element(self) -> str:
        """That of water."""
        return "HHO"

    @property
    def bead_mass(self) -> float:
        """Mass of a molecule [amu]."""
        return self.parameters.mass

    @property
    def n_degrees_of_freedom(self) -> int:
        """Six of each molecule."""
        return 6 * self.n_molecules

    @property
    def stored_constraints(self) -> list[tuple[int, int]]:
        """Pairs of sites at fixed distance: each molecule is rigid."""
        n = self.parameters.n_sites
        return [
            (molecule * n + first, molecule * n + second)
            for molecule in range(self.n_molecules)
            for second in range(n)
            for first in range(second)
        ]

    def free_system(self) -> openmm.System:
        """Molecules that move and rotate; sites in the order of the molecules: oxygen, hydrogens, charge."""
        import openmm

        parameters, system = self.parameters, openmm.System()
        force = self._interactions(system)
        for molecule in range(self.n_molecules):
            first = molecule * parameters.n_sites
            for site, (mass, charge) in enumerate(zip(parameters.masses, parameters.charges, strict=True)):
                system.addParticle(mass)
                self._add_site(force, site, charge)
            if parameters.n_sites == 4:
                _place(system, first + 3, [first, first + 1, first + 2], parameters.geometry[[0, 1, 2, 3]])
            _make_rigid(system, [first, first + 1, first + 2], parameters.geometry[:3])
            _exclude(force, range(first, first + parameters.n_sites))
        return system

    def frozen_system(self) -> openmm.System:
        """Molecules that only rotate about their beads; particles as `frozen_positions` orders them.

        The bead is a particle of immense mass that makes a rigid triangle with the two hydrogens; the sites off these
        three are linear combinations of them. So every orientation has the same measure, as in a free molecule, and
        the sum of the forces on a molecule's particles is the force on its bead. Forces of virtual sites have been
        spread to the three: their own rows must not be added.
        """
        import openmm

        parameters, system = self.parameters, openmm.System()
        force = self._interactions(system)
        order, dummy = self._frozen_order()
        geometry = parameters.geometry
        carrier = parameters.centre(self.centre) @ geometry
        triangle = np.stack([carrier, geometry[1], geometry[2]])
        for _ in range(self.n_molecules):
            first = system.getNumParticles()
            system.addParticle(FROZEN_MASS)
            if dummy:
                force.addParticle(0.0, 1.0, 0.0)
            for site in order:
                held = site == 0 and not dummy
                if not held:
                    system.addParticle(_FROZEN_HYDROGEN_MASS if site in (1, 2) else 0.0)
                self._add_site(force, site, parameters.charges[site])
                if site in (0, 3) and not held:
                    three = [first, first + 1, first + 2]
                    _place(system, system.getNumParticles() - 1, three, np.vstack([triangle, geometry[site]]))
            _make_rigid(system, [first, first + 1, first + 2], triangle)
            _exclude(force, range(first, system.getNumParticles()))
        return system

    def frozen_positions(self, positions: NDArray) -> FloatArray:
        """Particles `(n_particles, 3)` of the frozen System from the sites `(n_sites, 3)` of free molecules [nm]."""
        molecules = np.reshape(positions, (self.n_molecules, -1, 3)).astype(np.float64)
        order, dummy = self._frozen_order()
        parts = [molecules[:, order]]
        if dummy:
            parts.insert(0, self.beads(positions)[:, None])
        return np.concatenate(parts, axis=1).reshape(-1, 3)

    def _frozen_order(self) -> tuple[list[int], bool]:
        """Sites of a molecule in the order of its frozen particles, and whether a dummy comes before them."""
        dummy = self.centre == "centre_of_mass"
        order = [1, 2, 0] if dummy else [0, 1, 2]
        return order + ([3] if self.parameters.n_sites == 4 else []), dummy

    def _interactions(self, system: openmm.System) -> openmm.NonbondedForce:
        import openmm

        force = openmm.NonbondedForce()
        if self.box is None or self.cutoff is None:
            force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
        else:
            system.setDefaultPeriodicBoxVectors(*(np.eye(3) * self.box))
            pme = self.electrostatics == "pme"
            force.setNonbondedMethod(openmm.NonbondedForce.PME if pme else openmm.NonbondedForce.CutoffPeriodic)
            force.setCutoffDistance(self.cutoff)
            force.setUseSwitchingFunction(True)
            force.setSwitchingDistance(SWITCH * self.cutoff)
            force.setUseDispersionCorrection(
                False
            )  # at constant volume a constant, which OpenMM takes of all particles
        system.addForce(force)
        return force

    def _add_site(self, force: openmm.NonbondedForce, site: int, charge: float) -> None:
        force.addParticle(charge, self.parameters.sigma, self.parameters.epsilon if site == 0 else 0.0)


def _make_rigid(system: openmm.System, particles: list[int], places: FloatArray) -> None:
    for first, second in ((0, 1), (0, 2), (1, 2)):
        length = float(np.linalg.norm(places[first] - places[second]))
        system.addConstraint(particles[first], particles[second], length)


def _place(system: openmm.System, site: int, three: list[int], places: FloatArray) -> None:
    """Make a particle a virtual site of three others; `places` `(4, 3)` are theirs and its own."""
    import openmm

    axes = (places[1:3] - places[0])[:, :2].T
    second, third = np.linalg.solve(axes, (places[3] - places[0])[:2])
    system.setVirtualSite(site, openmm.ThreeParticleAverageSite(*three, 1 - second - third, second, third))


def _exclude(force: openmm.NonbondedForce, particles: range) -> None:
    """No interactions inside a molecule."""
    for first in particles:
        for second in range(first + 1, particles.stop):
            force.addException(first, second, 0.0, 1.0, 0.0)
