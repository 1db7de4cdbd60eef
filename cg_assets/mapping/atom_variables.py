"""Collective variables as functions of atom positions, in NumPy and as OpenMM forces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.collective_variables import CollectiveVariable

if TYPE_CHECKING:
    import openmm

BIAS_GROUP = 1
"""Force group of every bias and restraint; the unbiased forces are in group 0."""


class AtomVariables:
    """Collective variables of the atoms of an OpenMM System.

    Attributes:
        names: names of the variables.
        atoms: indices of the atoms of each.
        box: edge of the periodic box [nm], or None.
    """

    def __init__(
        self, variables: Mapping[str, CollectiveVariable], atoms: Sequence[Sequence[int]], box: float | None
    ) -> None:
        """Keep the definition."""
        self.names, self.box, self._variables = list(variables), box, dict(variables)
        self.atoms = [list(indices) for indices in atoms]

    @classmethod
    def of(cls, variables: Mapping[str, CollectiveVariable], molecule: MoleculeModel) -> AtomVariables:
        """Some collective variables of a molecule."""
        atoms = [[molecule.atom_index(atom) for atom in variable.atoms] for variable in variables.values()]
        return cls(variables, atoms, molecule.box)

    def to_json(self) -> dict[str, object]:
        """Plain JSON types."""
        variables = {name: variable.model_dump(mode="json") for name, variable in self._variables.items()}
        return {"variables": variables, "atoms": self.atoms, "box": self.box}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AtomVariables:
        """The variables that `to_json` described."""
        variables = content["variables"].items()
        known = {name: CollectiveVariable.model_validate(variable) for name, variable in variables}
        return cls(known, content["atoms"], content["box"])

    def __getitem__(self, name: str) -> CollectiveVariable:
        """A collective variable by name."""
        return self._variables[name]

    def evaluate(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values `(..., n_variables)` [rad or nm] at positions `(..., n_atoms, 3)` [nm]."""
        values = []
        for variable, atoms in zip(self._variables.values(), self.atoms, strict=True):
            steps = np.diff(positions[..., atoms, :], axis=-2)
            if self.box is not None:
                steps -= self.box * np.round(steps / self.box)
            values.append(variable.from_steps(steps))
        return np.stack(values, axis=-1) if values else np.zeros((*positions.shape[:-2], 0))

    def compound_force(self, names: Sequence[str], energy: str) -> openmm.CustomCompoundBondForce:
        """A force over the atoms of some variables whose energy is a Lepton expression of `cv_<name>`."""
        import openmm

        particles: list[int] = []
        definitions = []
        for name in names:
            atoms = self.atoms[self.names.index(name)]
            particles += [atom for atom in atoms if atom not in particles]
            arguments = ",".join(f"p{particles.index(atom) + 1}" for atom in atoms)
            definitions.append(f"cv_{name}={self._variables[name].openmm_function}({arguments})")
        force = openmm.CustomCompoundBondForce(len(particles), "; ".join([energy, *definitions]))
        force.addBond(particles, [])
        force.setUsesPeriodicBoundaryConditions(self.box is not None)
        force.setForceGroup(BIAS_GROUP)
        return force

    def harmonic_force(self, name: str) -> openmm.CustomCompoundBondForce:
        """k/2 (difference)² with global parameters `k_<name>` and `center_<name>`."""
        difference = f"cv_{name}-center_{name}"
        if self._variables[name].periodic:
            difference = f"min(apart, {2 * math.pi!r}-apart); apart=abs(cv_{name}-center_{name})"
        force = self.compound_force([name], f"0.5*k_{name}*apart_{name}^2; apart_{name}={difference}")
        force.addGlobalParameter(f"k_{name}", 0.0)
        force.addGlobalParameter(f"center_{name}", 0.0)
        return force
