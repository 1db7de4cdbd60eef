"""A registered potential in ASE and OpenMM: energies, forces and a short run without a thermostat are our own."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from thermal_models import EDGE, known_potential, liquid

from cg_assets.cli import main
from cg_assets.core.errors import SamplingError
from cg_assets.core.units import BOLTZMANN
from cg_assets.potentials.model_format import save_potential
from cg_assets.potentials.settings import build_potential
from cg_assets.registry.tracking import ModelTracking
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation
from cg_assets.use.export import read_model, registered_model

THERMAL_ENERGY = 2.494
MASSES = [12.011, 14.007, 15.999, 28.01]
CONFIG = {
    **{"type": "message_passing", "bead_types": [0, 1, 0, 2], "features": 8, "interactions": 2, "basis_functions": 6},
    **{"cutoff": None, "thermal_energy": THERMAL_ENERGY, "bead_masses": MASSES, "bead_names": ["A", "B", "A", "C"]},
    **{"temperature": 300.0, "units": "molar"},
}
STEPS, TIMESTEP = 200, 0.001


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A home folder with a registered network of random weights, and configurations at which it is not flat."""
    torch.manual_seed(0)
    module = build_potential(CONFIG)
    positions = 0.3 * np.random.default_rng(1).normal(size=(40, 4, 3))
    if hasattr(module, "fit_statistics"):
        module.fit_statistics(torch.as_tensor(positions, dtype=torch.float32))
    with torch.no_grad():
        for weights in module.parameters():
            weights.add_(0.3 * torch.randn(weights.shape))
    folder = tmp_path_factory.mktemp("use")
    save_potential(folder / "potential", module, CONFIG)
    tracking = ModelTracking(None, folder / "home")
    with tracking.start_training_run("toy", "network", {}, {}, []):
        tracking.register(folder / "potential", "toy.network", positions[:2], {})
    return tracking, positions


@pytest.fixture(scope="module")
def registered(registry):
    """The network as it comes back from MLflow, and a configuration."""
    tracking, positions = registry
    return *tracking.load("toy.network", "1"), positions[0]


@pytest.fixture(scope="module")
def own(registered):
    """Ours: friction 0 makes BAOAB the velocity Verlet integrator; the velocities are the first numbers of the seed."""
    module, config, positions = registered
    settings = CGSimulation(
        replicas=1, timestep=TIMESTEP, friction=1e-30, duration=STEPS * TIMESTEP, frame_interval=TIMESTEP
    )
    frames = simulate(module, positions[None], config["bead_masses"], THERMAL_ENERGY, settings, seed=3).frames
    noise = torch.randn((1, 4, 3), generator=torch.Generator().manual_seed(3))[0].numpy()
    velocities = np.sqrt(THERMAL_ENERGY / np.array(MASSES))[:, None] * noise
    return frames, velocities


def distances(positions):
    """What does not depend on the centre of mass, which our frames are moved to."""
    return np.linalg.norm(positions[..., :, None, :] - positions[..., None, :, :], axis=-1)


def velocity_verlet():
    """The integrator of our own runs without friction, in OpenMM."""
    integrator = openmm.CustomIntegrator(TIMESTEP * unit.picosecond)
    for variable, expression in (("v", "v + 0.5*dt*f/m"), ("x", "x + dt*v"), ("v", "v + 0.5*dt*f/m")):
        integrator.addComputePerDof(variable, expression)
    return integrator


def assert_same_run(own, positions, energies):
    """Positions in nm and potential energies [kJ/mol] of each step; single precision, amplified over the run."""
    frames, _ = own
    expected = distances(frames.positions)
    travelled = np.abs(expected - expected[0]).max()
    assert travelled > 0.05, "the beads must move for the comparison to mean something"
    assert np.abs(distances(positions) - expected).max() < 2e-4 * travelled
    spread = np.ptp(frames.potential_energy)
    assert np.abs(np.array(energies) - frames.potential_energy).max() < 1e-3 * spread


def test_the_command_writes_what_the_registry_holds(registry, tmp_path, monkeypatch, capsys):
    tracking, positions = registry
    monkeypatch.setenv("CG_ASSETS_HOME", str(tracking.home))
    folder = tmp_path / "ase"
    assert main(["export", "toy.network", "--to", "ase", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(folder / "README.md")
    model = read_model(folder)
    assert (model.name, model.temperature, model.box) == ("toy.network/1", 300.0, None)
    np.testing.assert_array_equal(model.positions, positions[0])
    same, _ = tracking.load("toy.network", "1")
    points = torch.as_tensor(positions[:1], dtype=torch.float32)
    np.testing.assert_allclose(model.beads(positions[0])[1], same.energy_and_forces(points)[1][0], rtol=1e-4, atol=1e-3)
    text = (folder / "README.md").read_text()
    assert "toy.network/1 in ase" in text and "4 beads" in text and "| force | eV/Å | kJ/mol/nm |" in text
    assert registered_model(tracking, "toy.network/1", 450.0).temperature == 450.0
    other = str(tmp_path / "other")
    for arguments, reason in (
        (["toy.network", "--to", "ase", str(folder)], "is not empty; name a new folder"),
        (["toy.network", "--to", "gromacs", other], "choose one of ase, lammps, openmm, torch-sim"),
        (["toy.nothing", "--to", "ase", other], "no model 'toy.nothing' is registered"),
    ):
        assert main(["export", *arguments]) == 1
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "other").exists()


def test_ase(registered, own):
    from ase import units
    from ase.md.verlet import VelocityVerlet

    from cg_assets.use.ase_calculator import BeadCalculator, bead_atoms

    module, config, start = registered
    atoms = bead_atoms(config, start)
    atoms.calc = BeadCalculator(module)
    energy, forces = module.energy_and_forces(torch.as_tensor(start[None], dtype=torch.float32))
    kilojoule = units.kJ / units.mol
    assert atoms.get_potential_energy() / kilojoule == pytest.approx(float(energy[0]), rel=1e-6)
    found = atoms.get_forces() / kilojoule * units.nm
    np.testing.assert_allclose(found, forces[0], rtol=1e-5, atol=1e-4)
    atoms.set_velocities(own[1] * units.nm / (1000 * units.fs))
    run = VelocityVerlet(atoms, timestep=TIMESTEP * 1000 * units.fs)
    positions, energies, totals = [], [], []
    for _ in range(STEPS):
        run.run(1)
        positions.append(atoms.positions / units.nm)
        energies.append(atoms.get_potential_energy() / kilojoule)
        totals.append(atoms.get_total_energy() / kilojoule)
    assert_same_run(own, np.array(positions), energies)
    assert np.ptp(totals) < 0.02 * np.ptp(energies)
    atoms.pbc = [True, False, False]
    with pytest.raises(SamplingError, match="periodic in all directions"):
        atoms.get_potential_energy()


def test_openmm(registered, own):
    from cg_assets.use.openmm_system import bead_system

    module, config, start = registered
    integrator = velocity_verlet()
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(bead_system(module, config), integrator, platform)
    context.setPositions(start)
    context.setVelocities(own[1])
    state = context.getState(energy=True, forces=True)
    energy, forces = module.energy_and_forces(torch.as_tensor(start[None], dtype=torch.float32))
    kilojoule = unit.kilojoule_per_mole
    assert state.getPotentialEnergy().value_in_unit(kilojoule) == pytest.approx(float(energy[0]), rel=1e-6)
    found = state.getForces(asNumpy=True).value_in_unit(kilojoule / unit.nanometer)
    np.testing.assert_allclose(found, forces[0], rtol=1e-5, atol=1e-4)
    positions, energies, totals = [], [], []
    for _ in range(STEPS):
        integrator.step(1)
        state = context.getState(energy=True, positions=True)
        positions.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        energies.append(state.getPotentialEnergy().value_in_unit(kilojoule))
        totals.append(energies[-1] + state.getKineticEnergy().value_in_unit(kilojoule))
    assert_same_run(own, np.array(positions), energies)
    assert np.ptp(totals) < 0.02 * np.ptp(energies)


def water_run(module, positions):
    """Our own run at 500 K of beads in a box, and the velocities that it began with."""
    settings = CGSimulation(
        replicas=1, timestep=TIMESTEP, friction=1e-30, duration=STEPS * TIMESTEP, frame_interval=TIMESTEP
    )
    masses, level = np.full(len(positions), 18.0), BOLTZMANN * 500.0
    run = simulate(module, positions[None], masses, level, settings, 3, temperature=500.0, box=np.full(3, EDGE))
    noise = torch.randn((1, len(positions), 3), generator=torch.Generator().manual_seed(3))[0].numpy()
    return run.frames, np.sqrt(level / masses)[:, None] * noise


def test_potentials_that_depend_on_temperature_in_a_box():
    """In both programs energies, forces and 200 steps without a thermostat are our own, at the same temperature."""
    from ase import units
    from ase.md.verlet import VelocityVerlet

    from cg_assets.use.ase_calculator import BeadCalculator, bead_atoms
    from cg_assets.use.openmm_system import bead_system

    module, start, box = known_potential(), liquid(1)[0], np.full(3, EDGE)
    config = {"bead_masses": [18.0] * len(start)}
    with torch.no_grad():
        exact, forces = module.energy_and_forces(torch.as_tensor(start[None]), 500.0, torch.as_tensor(box))
        elsewhere = module(torch.as_tensor(start[None]), 300.0, torch.as_tensor(box))
    assert abs(float(exact[0]) - float(elsewhere[0])) > 1.0
    frames, velocities = water_run(module, start)
    kilojoule = units.kJ / units.mol

    atoms = bead_atoms(config, start, box)
    atoms.calc = BeadCalculator(module, temperature=500.0)
    assert atoms.get_potential_energy() / kilojoule == pytest.approx(float(exact[0]), rel=1e-5)
    np.testing.assert_allclose(atoms.get_forces() / kilojoule * units.nm, forces[0], rtol=1e-4, atol=1e-2)
    atoms.set_velocities(velocities * units.nm / (1000 * units.fs))
    positions, energies = [], []
    run = VelocityVerlet(atoms, timestep=TIMESTEP * 1000 * units.fs)
    for _ in range(STEPS):
        run.run(1)
        positions.append(atoms.positions / units.nm)
        energies.append(atoms.get_potential_energy() / kilojoule)
    assert_same_run((frames, velocities), np.array(positions), energies)
    atoms.calc = BeadCalculator(module)
    with pytest.raises(SamplingError, match="give `temperature`"):
        atoms.get_potential_energy()

    integrator = velocity_verlet()
    system = bead_system(module, config, box, temperature=500.0)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start)
    context.setVelocities(velocities)
    state = context.getState(energy=True, forces=True)
    assert state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) == pytest.approx(float(exact[0]), rel=1e-5)
    found = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    np.testing.assert_allclose(found, forces[0], rtol=1e-4, atol=1e-2)
    positions, energies = [], []
    for _ in range(STEPS):
        integrator.step(1)
        state = context.getState(energy=True, positions=True)
        positions.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
    assert_same_run((frames, velocities), np.array(positions), energies)
    with pytest.raises(SamplingError, match="beyond half"):
        bead_system(module, config, 0.5 * box, temperature=500.0)
