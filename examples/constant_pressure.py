"""Beads of water at constant pressure in OpenMM: at the pressure of the potential they keep the density of the data.

cg-assets demo --system water
cg-assets export water_quick.splines --to openmm --repeat 2 water
python examples/constant_pressure.py water
"""

import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

from cg_assets.core.units import BOLTZMANN
from cg_assets.use.export import read_model
from cg_assets.use.openmm_system import bead_system

SAMPLES, STEPS, TIMESTEP = int([*sys.argv, 200][2]), 50, 0.004  # ps
BAR = 0.0602214  # kJ/mol/nm³
model = read_model(Path(sys.argv[1]))
kelvin, ideal = model.temperature, len(model.positions) * BOLTZMANN * model.temperature


def run(*barostats: openmm.Force) -> tuple[np.ndarray, np.ndarray]:
    """Volumes [nm³] and pressures [bar] of a run, without its first quarter."""
    system = bead_system(model.potential, model.config, model.box, model.beads.temperature)
    for barostat in barostats:
        system.addForce(barostat)
    integrator, found = openmm.LangevinMiddleIntegrator(kelvin, 1.0, TIMESTEP), []
    context = openmm.Context(system, integrator)
    context.setPositions(model.positions)
    for _ in range(SAMPLES):
        integrator.step(STEPS)
        state = context.getState(positions=True)
        box = state.getPeriodicBoxVectors(asNumpy=True)._value.diagonal()
        virial = model.beads.virial(state.getPositions(asNumpy=True)._value, box)
        found.append([box.prod(), (ideal + virial.trace() / 3.0) / box.prod() / BAR])
    return tuple(np.array(found[SAMPLES // 4 :]).T)


pressure = run()[1].mean()
print(f"pressure at the volume of the data: {pressure:.0f} bar")
volumes, _ = run(openmm.MonteCarloBarostat(pressure * unit.bar, kelvin, 10))
print(f"density at this pressure: {model.box.prod() / volumes.mean():.3f} of that of the data")
