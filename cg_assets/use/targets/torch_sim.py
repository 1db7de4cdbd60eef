"""torch-sim: a script with the model, and Langevin dynamics of many copies at once."""

from __future__ import annotations

from pathlib import Path

from cg_assets.use.export import Model, Written

SCRIPT = '''"""{name} in torch-sim: Langevin dynamics of {copies} copies at once."""

from pathlib import Path

import numpy as np
import torch_sim
from torch_sim.units import MetalUnits

from cg_assets.use.export import read_model
from cg_assets.use.torch_sim_model import BeadModel, bead_state

COPIES, STEPS, TIMESTEP, TEMPERATURE = {copies}, 1000, 0.002, {temperature}  # ps, K

model = read_model(Path(__file__).parent)
state = bead_state(model.config, np.repeat(model.positions[None], COPIES, axis=0), model.box)
state = torch_sim.integrate(
    state,
    BeadModel(model.potential, {thermal}),
    integrator=torch_sim.Integrator.nvt_langevin,
    n_steps=STEPS,
    temperature=TEMPERATURE,
    timestep=TIMESTEP,
    gamma=1.0,  # 1/ps
)
kelvin = torch_sim.calc_temperature(masses=state.masses, momenta=state.momenta, system_idx=state.system_idx)
print("energies", state.energy.tolist(), "eV; temperatures", kelvin.tolist(), "K")
'''
COPIES = 4
UNITS = [
    ("length", "Å", "nm"),
    ("energy", "eV", "kJ/mol"),
    ("force", "eV/Å", "kJ/mol/nm"),
    ("stress", "eV/Å³, minus the pressure", "virial in kJ/mol"),
    ("time", "ps in `integrate`; Å √(amu/eV) = 10.18 fs within", "ps"),
    ("mass", "amu", "amu"),
]


def write(model: Model, folder: Path) -> Written:
    """See `cg_assets.use.targets`."""
    model.write_script(folder, SCRIPT, copies=COPIES, thermal="TEMPERATURE" if model.is_thermal else "None")
    return Written(
        "Run `python run.py` where `cg_assets` and `torch-sim-atomistic>=0.6` (Python 3.12) are installed; change the\n"
        "script as you like. Neighbours are found among all pairs of beads, so that it suits many small systems.",
        UNITS,
    )
