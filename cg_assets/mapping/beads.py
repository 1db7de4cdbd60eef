"""The beads of a system and their conditions: the part of a system that most of the science needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cg_assets.core.geometry import FloatArray, array_library, projected_force
from cg_assets.core.units import UnitSystem, thermal_energy, unit
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.maps import CGMap


@dataclass(frozen=True)
class Beads:
    """The CG coordinates of a system.

    Attributes:
        name: of the system, for messages.
        title: of the system, for figures.
        units: `molar` for molecules, `reduced` for model potentials.
        temperature: [K or reduced]; the lowest where there are several.
        cg_map: which combination of atoms each bead is.
        collective_variables: of the beads; empty where these are the CG coordinates themselves (model potentials).
        constraints: pairs of atoms of the map whose distance is fixed.
        box: edge of the periodic box of the beads [nm]; None where they are one molecule.
        temperatures: all of them, where there are several [K].
    """

    name: str
    title: str
    units: UnitSystem
    temperature: float
    cg_map: CGMap
    collective_variables: Mapping[str, CollectiveVariable] = field(default_factory=dict)
    constraints: list[tuple[int, int]] = field(default_factory=list)
    box: float | None = None
    temperatures: tuple[float, ...] = ()
    _sites: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def with_constraints(self, pairs: Sequence[Sequence[int]]) -> Beads:
        """The same beads of atoms that have further constraints.

        Args:
            pairs: of atoms of the map.
        """
        further = [(int(first), int(second)) for first, second in pairs]
        return replace(self, constraints=[*self.constraints, *further]) if further else self

    def at_temperature(self, temperature: float) -> Beads:
        """The same beads at another temperature [K or reduced]."""
        return self if temperature == self.temperature else replace(self, temperature=temperature)

    @property
    def thermal_energy(self) -> float:
        """k_B T [kJ/mol or reduced]."""
        return thermal_energy(self.temperature, self.units)

    @property
    def energy_unit(self) -> str:
        """Unit of energies."""
        return unit("energy", self.units)

    @property
    def edges(self) -> FloatArray | None:
        """`(3,)` edges of the box [nm]; None without one."""
        return None if self.box is None else np.full(3, self.box)

    @property
    def variable_names(self) -> list[str]:
        """Names of the collective variables; of a model potential, of its CG coordinates."""
        return list(self.collective_variables) or list(self.cg_map.bead_names)

    @property
    def variable_quantities(self) -> dict[str, str]:
        """Name of each collective variable to what it is: `angle` or `length`."""
        known = self.collective_variables
        return {name: known[name].quantity if name in known else "length" for name in self.variable_names}

    @property
    def variable_units(self) -> dict[str, str]:
        """Name of each collective variable to its unit."""
        return {name: unit(quantity, self.units) for name, quantity in self.variable_quantities.items()}

    def is_periodic(self, name: str) -> bool:
        """Whether a collective variable is an angle of one turn."""
        return name in self.collective_variables and self.collective_variables[name].periodic

    @property
    def torsions(self) -> list[list[int]]:
        """Four beads of each collective variable that is a torsion.

        Raises:
            SystemSpecError: a collective variable uses an atom on which no bead sits.
        """
        return [self.sites_of(name) for name, variable in self.collective_variables.items() if variable.periodic]

    def sites_of(self, name: str) -> list[int]:
        """Beads of a collective variable, in order; the bead of a coordinate of a model potential.

        Raises:
            SystemSpecError: it uses an atom on which no bead sits.
        """
        if name not in self._sites:
            known = self.collective_variables
            own = map(self.cg_map.site, known[name].atoms) if name in known else [self.cg_map.bead_names.index(name)]
            self._sites[name] = list(own)
        return self._sites[name]

    def variables(self, positions: ArrayLike) -> dict[str, FloatArray]:
        """Values of all collective variables.

        Args:
            positions: `(n_frames, n_beads, dimension)` of whole molecules.

        Returns:
            Name to `(n_frames,)` [rad, nm or reduced].

        Raises:
            SystemSpecError: a collective variable uses an atom on which no bead sits.
        """
        arrays, points = array_library(positions)
        if arrays is not np:
            return self.variable_gradients(positions)[0]
        known, names = self.collective_variables, self.cg_map.bead_names
        return {
            name: known[name].values(points, self.sites_of(name)) if name in known else points[:, names.index(name), 0]
            for name in self.variable_names
        }

    def variable_gradients(
        self, positions: ArrayLike, names: Sequence[str] | None = None
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Values of collective variables and their gradients by bead positions.

        Args:
            positions: `(n_frames, n_beads, dimension)` of whole molecules; of a torch tensor results are tensors.
            names: which variables; all where None.

        Returns:
            Name to values `(n_frames,)`, and name to gradients `(n_frames, n_beads, dimension)`.

        Raises:
            SystemSpecError: a collective variable uses an atom on which no bead sits.
        """
        arrays, points = array_library(positions)
        values: dict[str, FloatArray] = {}
        gradients: dict[str, FloatArray] = {}
        for name in self.variable_names if names is None else names:
            gradients[name] = arrays.zeros_like(points)
            values[name], local = self.measure(points, name)
            for slot, site in enumerate(self.sites_of(name)):
                gradients[name][:, site] += local[:, slot]
        return values, gradients

    def measure(self, points: Any, name: str) -> tuple[Any, Any]:
        """A collective variable of positions `(f, n, d)` in float64.

        Returns:
            Values `(f,)`, and gradients `(f, k, d)` by the `k` beads of `sites_of`.

        Raises:
            SystemSpecError: it uses an atom on which no bead sits.
        """
        sites = self.sites_of(name)
        if name in self.collective_variables:
            return self.collective_variables[name].measure(points, sites)
        return points[:, sites[0], 0], points[:, sites] ** 0

    def projected_forces(self, positions: ArrayLike, forces: ArrayLike) -> FloatArray:
        """Generalised forces `(n_frames, n_variables)` along each collective variable, in the order of their names.

        Args:
            positions: `(n_frames, n_beads, dimension)` of whole molecules.
            forces: bead forces, same shape.
        """
        gradients = self.variable_gradients(positions)[1]
        return np.stack([projected_force(forces, gradients[name]) for name in self.variable_names], axis=1)
