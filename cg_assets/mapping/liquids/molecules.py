"""Liquids of molecules that a force field describes, rigid or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.bonds import complete_bonds
from cg_assets.mapping.chains import connected_groups
from cg_assets.mapping.liquids.liquid import SWITCH, Electrostatics, FloatArray, Liquid
from cg_assets.mapping.pdb import open_pdb
from cg_assets.mapping.topologies.force_fields import matched_system

if TYPE_CHECKING:
    import openmm

    from cg_assets.mapping.topologies.base import CreateArguments

RigidBonds = Literal["none", "h_bonds", "all_bonds"]


@dataclass(frozen=True)
class MolecularLiquid(Liquid):
    """Copies of one molecule in a cubic box, a bead at the centre of mass of each.

    Attributes:
        topology: of one molecule, by OpenMM.
        places: `(n, 3)` its atoms [nm].
        files: force field files.
        named: the files as the specification names them.
        n_molecules: how many.
        box: edge of the box [nm].
        cutoff: of the interactions [nm].
        electrostatics: beyond the cutoff: a dielectric continuum (reaction field), or all images (PME).
        rigid: bonds of fixed length.
    """

    topology: Any
    places: FloatArray
    files: tuple[str, ...]
    named: str
    n_molecules: int
    box: float
    cutoff: float
    electrostatics: Electrostatics
    rigid: RigidBonds

    @cached_property
    def _one(self) -> openmm.System:
        """A molecule alone."""
        return self._created(1)

    @cached_property
    def _masses(self) -> FloatArray:
        """`(n,)` of the force field [amu]."""
        return np.array([self._one.getParticleMass(site)._value for site in range(self._one.getNumParticles())])

    @property
    def bead_weights(self) -> FloatArray:
        """Those of the centre of mass."""
        return self._masses / self.bead_mass

    @property
    def geometry(self) -> FloatArray:
        """That of the file."""
        return self.places - self.bead_weights @ self.places

    @property
    def site_names(self) -> tuple[str, ...]:
        """Those of the file."""
        return tuple(atom.name for atom in self.topology.atoms())

    @property
    def bead_element(self) -> str:
        """The elements of the atoms, sorted."""
        return "".join(sorted(atom.element.symbol for atom in self.topology.atoms() if atom.element is not None))

    @property
    def bead_mass(self) -> float:
        """Mass of a molecule [amu]."""
        return float(self._masses.sum())

    @cached_property
    def stored_constraints(self) -> list[tuple[int, int]]:
        """The rigid bonds of all molecules."""
        n, one = len(self._masses), self._one
        pairs = [one.getConstraintParameters(index)[:2] for index in range(one.getNumConstraints())]
        return [(k * n + int(i), k * n + int(j)) for k in range(self.n_molecules) for i, j in pairs]

    @property
    def n_degrees_of_freedom(self) -> int:
        """Three of each atom with a mass, less the rigid bonds."""
        return 3 * self.n_molecules * int((self._masses > 0).sum()) - len(self.stored_constraints)

    @cached_property
    def charge(self) -> float:
        """Of a molecule [e]."""
        import openmm

        forces = [force for force in self._one.getForces() if isinstance(force, openmm.NonbondedForce)]
        return sum(force.getParticleParameters(site)[0]._value for force in forces for site in range(len(self._masses)))

    def free_system(self) -> openmm.System:
        """All molecules in the box, whose volume is fixed.

        Raises:
            SystemSpecError: the force field holds an implicit solvent.
        """
        import openmm

        system = self._created(self.n_molecules, np.eye(3) * self.box)
        for force in system.getForces():
            if isinstance(force, openmm.CustomGBForce | openmm.GBSAOBCForce):
                raise SystemSpecError(
                    f"model.force_fields: {self.named} hold an implicit solvent, which a liquid in a box cannot have; "
                    "leave it out"
                )
            if isinstance(force, openmm.NonbondedForce):
                force.setUseSwitchingFunction(True)
                force.setSwitchingDistance(SWITCH * self.cutoff)
                force.setUseDispersionCorrection(False)  # at constant volume a constant
        return system

    def _created(self, copies: int, vectors: FloatArray | None = None) -> openmm.System:
        """So many molecules, in a box with a cutoff or alone."""
        from openmm import app, unit

        rigid = {"none": None, "h_bonds": app.HBonds, "all_bonds": app.AllBonds}[self.rigid]
        arguments: CreateArguments = {
            "nonbondedMethod": app.NoCutoff,
            "constraints": rigid,
            "rigidWater": rigid is not None,
            "removeCMMotion": False,
        }
        topology = _copies(self.topology, copies)
        if vectors is not None:
            topology.setPeriodicBoxVectors(vectors)
            arguments["nonbondedMethod"] = app.PME if self.electrostatics == "pme" else app.CutoffPeriodic
            arguments["nonbondedCutoff"] = self.cutoff * unit.nanometer
        return matched_system(self.files, self.named, topology, arguments)


def read_liquid_molecule(path: Path) -> tuple[Any, FloatArray]:
    """Topology and positions `(n, 3)` [nm] of the one molecule of a PDB file.

    Raises:
        SystemSpecError: the file cannot be read, or holds several molecules.
    """
    topology, places, _ = complete_bonds(*open_pdb(path, "model.pdb"), path)
    bonds = [(first.index, second.index) for first, second in topology.bonds()]
    number = len(set(connected_groups(len(places), bonds).tolist()))
    if number > 1:
        raise SystemSpecError(
            f"model.pdb: {path} holds {number} molecules; give one, with CONECT for bonds that no template has"
        )
    return topology, places


def _copies(topology: Any, number: int) -> Any:
    """Topology of so many of a molecule."""
    from openmm import app

    made = app.Topology()
    bonds: Sequence[Any] = list(topology.bonds())
    for _ in range(number):
        chain, new = made.addChain(), {}
        for residue in topology.residues():
            own = made.addResidue(residue.name, chain)
            for atom in residue.atoms():
                new[atom] = made.addAtom(atom.name, atom.element, own)
        for first, second in bonds:
            made.addBond(new[first], new[second])
    return made
