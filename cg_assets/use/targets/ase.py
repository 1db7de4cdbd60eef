"""ASE: a script with the calculator, and Langevin dynamics."""

from __future__ import annotations

from pathlib import Path

from cg_assets.use.export import Model, Written

SCRIPT = '''"""{name} in ASE: Langevin dynamics, frames to run.traj."""

from pathlib import Path

import numpy
from ase import units
from ase.md.langevin import Langevin

from cg_assets.use.ase_calculator import BeadCalculator, bead_atoms
from cg_assets.use.export import read_model

STEPS, TIMESTEP, TEMPERATURE = 1000, 2.0 * units.fs, {temperature}  # K

model = read_model(Path(__file__).parent)
atoms = bead_atoms(model.config, model.positions, model.box)
atoms.calc = BeadCalculator(model.potential, {thermal})
widths = numpy.sqrt(atoms.get_masses()[:, None] * units.kB * TEMPERATURE)
atoms.set_momenta(widths * numpy.random.default_rng().standard_normal((len(atoms), 3)))
run = Langevin(  # fixcm=True would sample too hot
    atoms,
    TIMESTEP,
    temperature_K=TEMPERATURE,
    friction=0.001 / units.fs,
    fixcm=False,
    trajectory="run.traj",
    loginterval=100,
)
run.run(STEPS)
print(f"energy {{atoms.get_potential_energy():.6f}} eV, temperature {{atoms.get_temperature():.1f}} K")
'''
UNITS = [
    ("length", "Å", "nm"),
    ("energy", "eV", "kJ/mol"),
    ("force", "eV/Å", "kJ/mol/nm"),
    ("stress", "eV/Å³, minus the pressure", "virial in kJ/mol"),
    ("time", "Å √(amu/eV) = 10.18 fs; `ase.units.fs`", "ps"),
    ("mass", "amu", "amu"),
]


def write(model: Model, folder: Path) -> Written:
    """See `cg_assets.use.targets`."""
    model.write_script(folder, SCRIPT, thermal="TEMPERATURE" if model.is_thermal else "None")
    return Written("Run `python run.py` where `cg_assets` is installed; change the script as you like.", UNITS)
