"""OpenMM: a script with the System, and Langevin dynamics."""

from __future__ import annotations

from pathlib import Path

from cg_assets.use.export import Model, Written

SCRIPT = '''"""{name} in OpenMM: Langevin dynamics, frames to run.dcd, beads to beads.pdb."""

from pathlib import Path

import openmm
from openmm import app, unit

from cg_assets.use.export import read_model
from cg_assets.use.openmm_system import bead_system, bead_topology

STEPS, TIMESTEP, TEMPERATURE = 1000, 0.002 * unit.picosecond, {temperature} * unit.kelvin

model = read_model(Path(__file__).parent)
topology = bead_topology(model.config, model.box)
system = bead_system(model.potential, model.config, model.box, {thermal})
# For constant pressure add openmm.MonteCarloBarostat(pressure, TEMPERATURE) to the system.
integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1 / unit.picosecond, TIMESTEP)
simulation = app.Simulation(topology, system, integrator)
simulation.context.setPositions(model.positions)
simulation.context.setVelocitiesToTemperature(TEMPERATURE)
with open("beads.pdb", "w") as file:
    app.PDBFile.writeFile(topology, model.positions * unit.nanometer, file)
simulation.reporters.append(app.DCDReporter("run.dcd", 100))
simulation.step(STEPS)
print("energy", simulation.context.getState(energy=True).getPotentialEnergy())
'''
UNITS = [
    ("length", "nm", "nm"),
    ("energy", "kJ/mol", "kJ/mol"),
    ("force", "kJ/mol/nm", "kJ/mol/nm"),
    ("time", "ps", "ps"),
    ("mass", "amu", "amu"),
]


def write(model: Model, folder: Path) -> Written:
    """See `cg_assets.use.targets`."""
    model.write_script(folder, SCRIPT, thermal=repr(model.temperature) if model.is_thermal else "None")
    return Written(
        "Run `python run.py` where `cg_assets` is installed; change the script as you like. The System can be copied,\n"
        "and written by `XmlSerializer`: its XML holds the potential by Python's pickle, so read only files you trust.",
        UNITS,
    )
