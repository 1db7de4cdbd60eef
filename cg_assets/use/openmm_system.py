"""A registered potential as a System of OpenMM (P. Eastman et al., J. Phys. Chem. B 128, 109 (2024))."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import ArrayLike, NDArray
from openmm import unit

from cg_assets.core.errors import SamplingError
from cg_assets.potentials.base import Potential
from cg_assets.simulation.engine import engine_of


def bead_system(
    potential: Potential,
    config: Mapping[str, Any],
    box: ArrayLike | None = None,
    temperature: float | None = None,
) -> openmm.System:
    """Beads with their masses and the potential as the only force, for any integrator and platform of OpenMM.

    Args:
        potential: in nm and kJ/mol, as `ModelTracking.load` gives it.
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
    engine = engine_of(potential, temperature, box)

    def compute(state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        places = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        with torch.no_grad():
            energy, forces = engine(torch.as_tensor(np.array(places[None], dtype=np.float32)))
        return float(energy[0]), forces[0].double().numpy()

    force = openmm.PythonForce(compute)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*np.diag(np.asarray(box, dtype=float)))
        force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    return system
