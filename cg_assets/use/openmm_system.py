"""A registered potential as a System of OpenMM (P. Eastman et al., J. Phys. Chem. B 128, 109 (2024))."""

from __future__ import annotations

import numpy as np
import openmm
from numpy.typing import ArrayLike, NDArray
from openmm import app, unit

from cg_assets.core.errors import SamplingError
from cg_assets.potentials.base import Potential, PotentialConfig
from cg_assets.use.beads import BeadEnergy, edges_of_vectors


class StateForce:
    """What a PythonForce computes; OpenMM pickles it where a System is copied or serialised."""

    def __init__(self, beads: BeadEnergy, periodic: bool) -> None:
        """Take a potential, and whether the beads are in a box."""
        self.beads, self.periodic = beads, periodic

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """Energy [kJ/mol] and forces `(n, 3)` [kJ/mol/nm] of a State, in its own box.

        Raises:
            SamplingError: its box is not rectangular, or too small for the cutoff of the potential.
        """
        places = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        if not self.periodic:
            return self.beads(places)
        vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        return self.beads(places, edges_of_vectors(vectors))


def bead_system(
    potential: Potential,
    config: PotentialConfig,
    box: ArrayLike | None = None,
    temperature: float | None = None,
) -> openmm.System:
    """Beads with their masses and the potential, for any integrator, barostat and platform of OpenMM.

    Bonds have no strength of their own: by them barostats and reporters keep molecules whole. The box is that of the
    State, whose default is `box`. A copy (`copy.deepcopy`, `pickle`, `XmlSerializer`) has the potential in it.

    Args:
        potential: in nm and kJ/mol, as `cg_assets.use.export.read_model` gives it.
        config: returned with the potential.
        box: `(3,)` edges of the periodic box [nm].
        temperature: at which a potential that depends on temperature is taken [K].

    Raises:
        SamplingError: this OpenMM has no PythonForce, or the potential does not fit the box or needs a temperature.
    """
    if not hasattr(openmm, "PythonForce"):
        raise SamplingError(f"OpenMM {openmm.__version__} has no PythonForce; install openmm>=8.4")
    system = openmm.System()
    for mass in config["bead_masses"]:
        system.addParticle(mass)
    beads = BeadEnergy(potential, temperature)
    beads.fit(box)
    forces = [openmm.PythonForce(StateForce(beads, box is not None))]
    if config.get("bonds"):
        forces.append(openmm.HarmonicBondForce())
        for one, other in config["bonds"]:
            forces[-1].addBond(one, other, 0.0, 0.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*np.diag(np.asarray(box, dtype=float)))
    for force in forces:
        force.setUsesPeriodicBoundaryConditions(box is not None)
        system.addForce(force)
    return system


def bead_topology(config: PotentialConfig, box: ArrayLike | None = None) -> app.Topology:
    """Names and bonds of the beads, for `openmm.app.Simulation` and its reporters; each bead is a residue.

    Args:
        config: returned with the potential.
        box: `(3,)` edges of the periodic box [nm].
    """
    topology = app.Topology()
    names = config.get("bead_names") or [str(number + 1) for number in range(len(config["bead_masses"]))]
    if box is not None:
        topology.setPeriodicBoxVectors(np.diag(np.asarray(box, dtype=float)) * unit.nanometer)
    chain = topology.addChain()
    beads = [topology.addAtom(name, None, topology.addResidue("CG", chain)) for name in names]
    for one, other in config.get("bonds", []):
        topology.addBond(beads[one], beads[other])
    return topology
