"""What LAMMPS and torch-sim make of exported folders; this file also runs in their environments."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

TIMESTEP, STEPS = 0.002, 5000
"""Of a run without a thermostat [ps]: 10 ps."""
EVERY = 10


def in_lammps(folder: Path) -> dict[str, np.ndarray]:
    """Run the exported script, then evaluate `configurations.npz` and simulate without a thermostat."""
    from cg_assets.use.export import read_model
    from cg_assets.use.lammps_force import ANGSTROM, KILOCALORIE, LammpsForce, open_lammps

    given = np.load(folder / "configurations.npz")
    engine = open_lammps(["-log", "none", "-screen", "none"])
    engine.file(str(folder / "in.lammps"))
    external = (folder / "run.py").is_file()
    command = LammpsForce(engine, read_model(folder).beads).command if external else engine.command
    constant = 0.0 if external else engine.extract_variable("constant")
    command("unfix thermostat")
    command("undump frames")
    command("thermo 1")
    found = {"energy": [], "forces": [], "pressure": [], "total": []}

    def place(positions, velocities):
        for name, values in (("x", positions / ANGSTROM), ("v", velocities / ANGSTROM / 1000.0)):
            flat = np.ascontiguousarray(values, dtype=float).ravel()
            engine.scatter_atoms(name, 1, 3, np.ctypeslib.as_ctypes(flat))

    for positions in given["positions"]:
        place(positions, 0.0 * positions)
        command("run 0 post no")
        found["energy"].append((engine.get_thermo("pe") + constant) * KILOCALORIE)
        forces = np.ctypeslib.as_array(engine.gather_atoms("f", 1, 3)).reshape(-1, 3)
        found["forces"].append(forces * KILOCALORIE / ANGSTROM)
        found["pressure"].append(engine.get_thermo("press"))
    place(given["positions"][0], given["velocities"])
    command("run 0 post no")
    for _ in range(STEPS // EVERY):
        command(f"run {EVERY} post no")
        found["total"].append((engine.get_thermo("pe") + constant + engine.get_thermo("ke")) * KILOCALORIE)
    return {name: np.array(values) for name, values in found.items()}


def in_torch_sim(folder: Path) -> dict[str, np.ndarray]:
    """Evaluate `configurations.npz` and simulate without a thermostat."""
    import torch
    import torch_sim
    from ase import units

    from cg_assets.use.export import read_model
    from cg_assets.use.torch_sim_model import BeadModel, bead_state

    given, model = np.load(folder / "configurations.npz"), read_model(folder)
    network = BeadModel(model.potential, model.beads.temperature, compute_stress=model.box is not None)
    state = bead_state(model.config, given["positions"], model.box)
    answer = network(state)
    kilojoule = units.kJ / units.mol
    found = {
        "energy": answer["energy"] / kilojoule,
        "forces": answer["forces"].reshape(given["positions"].shape) / kilojoule * units.nm,
        "masses": state.masses,
    }
    if model.box is not None:
        found["pressure"] = -torch.stack([stress.trace() for stress in answer["stress"]]) / 3 / units.bar / 1.01325
    state = bead_state(model.config, given["positions"][:1], model.box)
    state = torch_sim.nve_init(state, network, kT=torch.tensor(0.01, dtype=torch.float64))
    state.momenta = torch.as_tensor(given["velocities"] * units.nm / (1000 * units.fs)) * state.masses[:, None]
    total = []
    for _ in range(STEPS // EVERY):
        for _ in range(EVERY):
            state = torch_sim.nve_step(state, network, dt=torch.tensor(TIMESTEP * 1000 * units.fs))
        kinetic = (state.momenta.square().sum(dim=1) / (2 * state.masses)).sum()
        total.append(float(state.energy[0] + kinetic) / kilojoule)
    return {name: np.asarray(values) for name, values in found.items()} | {"total": np.array(total)}


if __name__ == "__main__":
    place = Path(sys.argv[2])
    np.savez(place / "found.npz", **{"lammps": in_lammps, "torch-sim": in_torch_sim}[sys.argv[1]](place))
