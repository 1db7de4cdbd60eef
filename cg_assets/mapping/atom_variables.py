"""Collective variables as functions of atom positions, in NumPy and as OpenMM forces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.images import nearest_image
from cg_assets.mapping.maps import CGMap

if TYPE_CHECKING:
    import openmm

BIAS_GROUP = 1
"""Force group of every bias and restraint; the unbiased forces are in group 0."""


class AtomVariables:
    """Collective variables of the atoms of an OpenMM System.

    Attributes:
        names: names of the variables.
        atoms: indices of the atoms of each; -1, -2, ... stand for the centres.
        box: `(3, 3)` vectors of the periodic box [nm], or None.
        centres: atoms and weights of beads of several atoms.
    """

    def __init__(
        self,
        variables: Mapping[str, CollectiveVariable],
        atoms: Sequence[Sequence[int]],
        box: float | NDArray | None,
        centres: Sequence[tuple[Sequence[int], Sequence[float]]] = (),
    ) -> None:
        """Keep the definition."""
        self.centres = [(list(members), list(weights)) for members, weights in centres]
        self.names, self._variables = list(variables), dict(variables)
        self.box: NDArray[np.float64] | None = None
        if box is not None:
            self.box = np.eye(3) * box if np.ndim(box) == 0 else np.array(box)
        self.atoms = [list(indices) for indices in atoms]

    @classmethod
    def of(
        cls, variables: Mapping[str, CollectiveVariable], molecule: MoleculeModel, cg_map: CGMap | None = None
    ) -> AtomVariables:
        """Some collective variables of a molecule; those of beads by name need the map."""
        centres: list[tuple[list[int], list[float]]] = []
        known: dict[str, int] = {}
        for site in (site for variable in variables.values() for site in variable.atoms):
            if site in known:
                continue
            if cg_map is None or site not in cg_map.bead_names:
                known[site] = molecule.atom_index(site)
                continue
            weights = cg_map.matrix[cg_map.bead_names.index(site)]
            members = np.flatnonzero(weights)
            atoms = molecule.stored[members].tolist()
            if len(atoms) > 1:
                centres.append((atoms, weights[members].tolist()))
            known[site] = atoms[0] if len(atoms) == 1 else -len(centres)
        sites = [[known[site] for site in variable.atoms] for variable in variables.values()]
        return cls(variables, sites, molecule.box, centres)

    def to_json(self) -> dict[str, object]:
        """Plain JSON types."""
        variables = {name: variable.model_dump(mode="json") for name, variable in self._variables.items()}
        box = None if self.box is None else self.box.tolist()
        return {"variables": variables, "atoms": self.atoms, "box": box, "centres": self.centres}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AtomVariables:
        """The variables that `to_json` described."""
        variables = content["variables"].items()
        known = {name: CollectiveVariable.model_validate(variable) for name, variable in variables}
        return cls(known, content["atoms"], content["box"], content["centres"])

    def __getitem__(self, name: str) -> CollectiveVariable:
        """A collective variable by name."""
        return self._variables[name]

    def evaluate(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values `(..., n_variables)` [rad or nm] at positions `(..., n_atoms, 3)` [nm]."""
        values = []
        for variable, atoms in zip(self._variables.values(), self.atoms, strict=True):
            points = np.stack([self._point(positions, atom) for atom in atoms], axis=-2)
            values.append(variable.from_steps(self._nearest(np.diff(points, axis=-2))))
        return np.stack(values, axis=-1) if values else np.zeros((*positions.shape[:-2], 0))

    def _nearest(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        return steps if self.box is None else nearest_image(steps, self.box)

    def _point(self, positions: NDArray[np.float64], atom: int) -> NDArray[np.float64]:
        """Where an atom or a centre is `(..., 3)`."""
        if atom >= 0:
            return positions[..., atom, :]
        members, weights = self.centres[-atom - 1]
        first = positions[..., members[:1], :]
        return first[..., 0, :] + np.asarray(weights) @ self._nearest(positions[..., members, :] - first)

    def compound_force(self, names: Sequence[str], energy: str) -> openmm.Force:
        """A force over the atoms of some variables whose energy is a Lepton expression of `cv_<name>`."""
        import openmm

        particles: list[int] = []
        definitions = []
        grouped = any(atom < 0 for name in names for atom in self.atoms[self.names.index(name)])
        for name in names:
            atoms = self.atoms[self.names.index(name)]
            particles += [atom for atom in dict.fromkeys(atoms) if atom not in particles]
            points = [f"{'g' if grouped else 'p'}{particles.index(atom) + 1}" for atom in atoms]
            definitions.append(f"cv_{name}={self._variables[name].openmm_formula(points)}")
        expression = "; ".join([energy, *definitions])
        if grouped:
            force = openmm.CustomCentroidBondForce(len(particles), expression)
            for atom in particles:
                force.addGroup(*(([atom], [1.0]) if atom >= 0 else self.centres[-atom - 1]))
            force.addBond(list(range(len(particles))), [])
        else:
            force = openmm.CustomCompoundBondForce(len(particles), expression)
            force.addBond(particles, [])
        force.setUsesPeriodicBoundaryConditions(self.box is not None)
        force.setForceGroup(BIAS_GROUP)
        return force

    def harmonic_force(self, name: str) -> openmm.Force:
        """k/2 (difference)² with global parameters `k_<name>` and `center_<name>`."""
        difference = f"cv_{name}-center_{name}"
        if self._variables[name].periodic:
            difference = f"min(apart, {2 * math.pi!r}-apart); apart=abs(cv_{name}-center_{name})"
        force = self.compound_force([name], f"0.5*k_{name}*apart_{name}^2; apart_{name}={difference}")
        force.addGlobalParameter(f"k_{name}", 0.0)
        force.addGlobalParameter(f"center_{name}", 0.0)
        return force
