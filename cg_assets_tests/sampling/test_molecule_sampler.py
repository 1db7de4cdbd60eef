"""OpenMM sampling: unbiased forces, exact biases, exact resumption, correct temperature."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import app, unit
from scipy.special import rel_entr

from cg_assets.biases import GridBias, OpesBias, bias_from_definition
from cg_assets.biases.grid import GridForce
from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.units import BOLTZMANN
from cg_assets.evaluation.long_runs import block_error, read_reference, run_reference, write_reference
from cg_assets.figures.samples import equilibration_figure
from cg_assets.labels.quality import check_equilibration
from cg_assets.mapping.atom_variables import AtomVariables
from cg_assets.mapping.collective_variables import Distance
from cg_assets.mapping.peptides import build_peptide
from cg_assets.sampling.molecule.sampler import MoleculeSampler
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.systems import SystemSpec, load_system

METADYNAMICS = {
    "type": "metadynamics",
    "collective_variables": ["phi", "psi"],
    "height": 2.0,
    "width": {"phi": 0.35, "psi": 0.35},
    "bias_factor": 6,
    "pace": 0.1,
    "deposition": 1.0,
}
OPES = {
    "type": "opes",
    "collective_variables": ["phi", "psi"],
    "width": {"phi": 0.35, "psi": 0.35},
    "barrier": 30.0,
    "pace": 0.1,
    "deposition": 1.0,
}
UMBRELLA = {
    "type": "umbrella",
    "centers": [{"phi": -2.0}, {"phi": -1.0, "psi": 2.0}, {"phi": 3.0}],
    "force_constant": 300.0,
}
STATIC = {"type": "static", "expression": "4*cos(phi)**2 - sin(psi/2)*-3 + 0.1*abs(phi)**1.5 + pi/exp(-psi)/50"}
BIASES = {"unbiased": None, "metadynamics": METADYNAMICS, "opes": OPES, "umbrella": UMBRELLA, "static": STATIC}


def make_plan(bias=None, **fields):
    content = {
        "replicas": 3,
        "starts": [{}, {"phi": 1.0}],
        "timestep": 0.004,
        "friction": 1.0,
        "burn_in": 0.2,
        "duration": 0.8,
        "frame_interval": 0.04,
        "bias": bias,
    }
    return SamplingPlan.model_validate(content | fields)


@pytest.fixture(scope="module")
def system():
    return load_system("capped_alanine_implicit")


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("CG_ASSETS_THREADS", "1")


def run(sampler):
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return Frames.concatenate([part for part in parts if part is not None])


def assert_equal(first, second):
    for name, values in first.arrays().items():
        assert np.array_equal(values, second.arrays()[name]), name


@pytest.mark.parametrize("kind", BIASES)
def test_bias_energy_is_that_of_the_definition_and_columns_are_complete(system, kind):
    sampler = system.sampler(make_plan(BIASES[kind]), seed=1)
    frames = run(sampler)
    summary = sampler.summary()
    assert len(frames) == 3 * 20
    assert frames.positions.shape == (60, 22, 3)
    assert frames.positions.dtype == frames.forces.dtype == np.float32
    assert list(frames.start) == [0] * 20 + [1] * 20 + [0] * 20
    assert np.allclose(frames.time[:20], 0.04 * np.arange(1, 21))
    # one of two starts is led to, in 12 ps, and so is each window from the start of its replica
    prepared = 12.0 * (1 + (3 if kind == "umbrella" else 0))
    deposited = 1.0 if kind in {"metadynamics", "opes"} else 0.0
    assert summary.sampled_time == pytest.approx(prepared + 3 * (1.0 + deposited))
    if kind == "unbiased":
        assert frames.bias_energy is None
        assert summary.bias is None
        return
    window = frames.window if kind == "umbrella" else None
    exact = bias_from_definition(summary.bias).energy(frames.collective_variables, window)
    assert np.abs(frames.bias_energy).max() > 0.1
    assert np.abs(exact - frames.bias_energy).max() < 2e-4  # the variables are stored as float32


def test_opes_finds_the_free_energy_from_exact_draws(system):
    """Walkers drawn from exp(-(F + V)/kT) at each step: V becomes -(1 - 1/gamma) F, F that of the kernel estimate."""
    thermal_energy, barrier, width = 2.5, 30.0, 0.25
    bias = OpesBias(
        type="opes", collective_variables=["phi"], width={"phi": width}, barrier=barrier, pace=1.0, deposition=1.0
    )
    grid = bias.grid(replace(system.beads(), temperature=thermal_energy / BOLTZMANN))
    assert np.all(np.abs(grid.values + barrier) < 1e-9)
    nodes = np.linspace(-np.pi, np.pi, len(grid.values), endpoint=False)
    free_energy = 8.0 * np.cos(2 * nodes) + 2.0 * np.sin(nodes)  # basins 4 kJ/mol apart, barriers of 16-18
    generator = np.random.default_rng(5)
    for _ in range(4000):
        weights = np.exp(-(free_energy + grid.values) / thermal_energy)
        drawn = generator.choice(len(nodes), size=8, p=weights / weights.sum())
        grid.deposit(nodes[drawn, None], grid.values[drawn])
    distance = np.angle(np.exp(1j * (nodes[:, None] - nodes)))
    smoothed = -thermal_energy * np.log(np.exp(-0.5 * (distance / width) ** 2) @ np.exp(-free_energy / thermal_energy))
    found = -grid.values / (1 - thermal_energy / barrier)
    difference = (found - found.mean()) - (smoothed - smoothed.mean())
    # 32,000 draws, a tenth of them in each width: 2 % of kT, and epsilon adds exp(-5) at the barriers
    assert np.abs(difference).max() < 0.06 * thermal_energy


def test_stored_forces_are_those_of_a_context_that_never_had_a_bias(system):
    sampler = system.sampler(make_plan(METADYNAMICS | {"deposition": 2.0}), seed=2)
    for _ in range(sampler.n_chunks - 1):
        sampler.next_chunk()
    engine = sampler._engines()._engine
    free = openmm.Context(
        sampler.molecule.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    bias_forces = []
    for _ in range(10):
        arrays = engine.record([0], 1, 25)
        state = engine._context.getState(positions=True, forces=True)
        free.setPositions(state.getPositions())
        exact = free.getState(forces=True, energy=True)
        forces = np.array(exact.getForces(asNumpy=True)._value)
        assert np.abs(arrays["forces"][0, 0] - forces).max() < 1e-6 * np.abs(forces).max()
        assert arrays["potential_energy"][0, 0] == pytest.approx(exact.getPotentialEnergy()._value, rel=1e-12)
        biased = np.array(state.getForces(asNumpy=True)._value)
        bias_forces.append(np.abs(biased - forces).max())
    assert max(bias_forces) > 1.0  # there is a bias to be left out


@pytest.mark.parametrize("kind", BIASES)
def test_a_run_that_is_interrupted_after_each_piece_is_the_same_bit_for_bit(system, kind):
    plan = make_plan(BIASES[kind], replicas=2, probe={"replicas": 1, "starts": [{}]})
    whole = system.sampler(plan, seed=3)
    frames = run(whole)
    parts, state = [], None
    for _ in range(whole.n_chunks):
        sampler = system.sampler(plan, seed=3)
        if state is not None:
            sampler.restore(state)
        parts.append(sampler.next_chunk())
        state = {name: value.copy() for name, value in sampler.state().items()}
        sampler.close()
    assert_equal(frames, Frames.concatenate([part for part in parts if part is not None]))
    assert whole.summary() == sampler.summary()
    assert list(np.unique(frames.replica[frames.probe])) == [2]
    assert list(np.unique(frames.start[frames.probe])) == [2]


def test_two_processes_give_the_same_numbers_as_one_and_another_seed_others(system, monkeypatch):
    plan = make_plan(METADYNAMICS)
    frames = run(system.sampler(plan, seed=4))
    monkeypatch.setenv("CG_ASSETS_THREADS", "2")
    parallel = system.sampler(plan, seed=4)
    assert parallel._n_processes == 2
    assert_equal(frames, run(parallel))
    other = run(system.sampler(plan, seed=5))
    assert not np.array_equal(frames.positions, other.positions)


def test_a_lost_process_is_reported(system, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_THREADS", "2")
    sampler = system.sampler(make_plan(), seed=4)
    sampler.next_chunk()
    sampler._engines()._workers[0]._process.kill()
    with pytest.raises(SamplingError, match=r"process ended with code -9.*CG_ASSETS_THREADS=1"):
        sampler.next_chunk()
    sampler.close()


def test_a_foreign_state_is_refused(system):
    state = system.sampler(make_plan(), seed=4).state()
    with pytest.raises(SamplingError, match=r"seed 4.*seed 5"):
        system.sampler(make_plan(), seed=5).restore(state)


def test_umbrella_windows_hold_their_replicas(system):
    frames = run(
        MoleculeSampler(
            system.structure(), system.beads(), make_plan(UMBRELLA, replicas=6, duration=4.0, starts=[{}]), seed=6
        )
    )
    assert list(np.unique(frames.window[frames.replica == 4])) == [1]
    for window, center in enumerate((-2.0, -1.0, 3.0)):
        phi = frames.collective_variables["phi"][frames.window == window].astype(float)
        difference = (phi - center + np.pi) % (2 * np.pi) - np.pi
        assert abs(difference.mean()) < 0.15
        # k of the window alone gives 0.091 rad; the molecule's own stiffness makes it a little less or more.
        assert 0.04 < difference.std() < 0.15
    psi = frames.collective_variables["psi"][frames.window == 1]
    assert abs(psi.mean() - 2.0) < 0.15


def test_replicas_of_a_window_come_from_different_starts_and_are_compared(system):
    """Windows that never overlap are judged; a force that remembers the start is found."""
    starts = [{"phi": -1.4, "psi": 2.6}, {"phi": -1.4, "psi": -0.3}]
    held = UMBRELLA | {"centers": [center | {"psi": 2.0} for center in UMBRELLA["centers"]]}
    plan = make_plan(held, replicas=6, duration=20.0, burn_in=2.0, frame_interval=0.02, starts=starts)
    assert [plan.start_of(replica) for replica in range(6)] == [0, 1, 0, 1, 0, 1]
    even = make_plan(UMBRELLA | {"centers": UMBRELLA["centers"][:2]}, replicas=4, starts=starts)
    assert [even.start_of(replica) for replica in range(4)] == [0, 1, 1, 0]
    frames = run(system.sampler(plan, seed=9))
    result = check_equilibration(system.beads(), system.mapping, plan, frames)
    assert result.passed and len(result.bins.shape) == 1 and result.coverage.compared > 0.9, result.reason
    axis = frames.positions[:, 4] - frames.positions[:, 16]
    pull = 1500.0 * (frames.start == 1)[:, None] * axis / np.linalg.norm(axis, axis=1, keepdims=True)
    forces = frames.forces.copy()
    forces[:, 4] += pull
    forces[:, 16] -= pull
    assert check_equilibration(system.beads(), system.mapping, plan, replace(frames, forces=forces)).verdict == "failed"
    picture = equilibration_figure(system.beads(), result, in_windows=False)
    assert picture.startswith(b"\x89PNG")


def test_kinetic_temperature_is_right_with_its_error(system):
    plan = make_plan(replicas=4, duration=40.0, burn_in=2.0, friction=50.0, starts=[{}])
    sampler = system.sampler(plan, seed=7)
    run(sampler)
    summary = sampler.summary()
    error = summary.kinetic_temperature.standard_error
    # At this friction the 4000 frames are independent: the exact spread of their mean is T sqrt(2/54/4000) = 0.91 K.
    assert 0.6 * 0.91 < error < 1.6 * 0.91
    assert abs(summary.kinetic_temperature.value - 300.0) < 4 * error  # the state's own kinetic energy reads 305.5 K


def test_kinetic_energy_of_the_state_is_exact_for_an_oscillator_at_a_long_timestep():
    """omega h = 1.2: an on-step BAOAB velocity would read 36 % too little, OpenMM's middle velocity reads kT/2."""
    n_particles, mass, timestep = 400, 12.0, 0.004
    stiffness = mass * (1.2 / timestep) ** 2
    system = openmm.System()
    force = openmm.CustomExternalForce(f"{stiffness / 2}*(x^2+y^2+z^2)")
    for index in range(n_particles):
        system.addParticle(mass)
        force.addParticle(index)
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 50.0, timestep)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.zeros((n_particles, 3)))
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(200)
    temperatures = []
    for _ in range(300):
        integrator.step(20)
        kinetic = context.getState(energy=True).getKineticEnergy()._value
        temperatures.append(2 * kinetic / (3 * n_particles * BOLTZMANN))
    blocks = np.mean(np.reshape(temperatures, (30, 10)), axis=1)
    error = blocks.std(ddof=1) / np.sqrt(30)
    assert error < 1.5
    assert abs(blocks.mean() - 300.0) < 4 * error


@pytest.mark.parametrize("names", [["phi"], ["distance"], ["phi", "psi"], ["phi", "distance"], ["distance", "psi"]])
def test_the_grid_force_is_the_spline_of_the_definition(system, names):
    """Energy and force along a random direction against the NumPy spline, at random structures."""
    sampler = system.sampler(make_plan(), seed=1)
    distance = Distance(type="distance", atoms=("1:C", "3:C"), range=(0.4, 0.8))
    known = {**system.collective_variables, "distance": distance}
    variables = AtomVariables(known, [[4, 6, 8, 10], [6, 8, 10, 16], [1, 18]], None)
    angular = [known[name].periodic for name in names]
    generator = np.random.default_rng(3)
    shape = [90 if angle else 41 for angle in angular]
    axes = [np.arange(size) / size * 2 * np.pi for size in shape]
    mesh = np.meshgrid(*axes, indexing="ij")
    values = 5 * np.sin(sum(mesh)) + 3 * np.cos(mesh[0] - 0.3) + 2 * np.sin(2 * mesh[-1])
    definition = {
        "type": "grid",
        "collective_variables": names,
        "limits": [known[name].limits for name in names],
        "periodic": angular,
        "shape": shape,
        "values": np.zeros(values.size).tolist(),
    }
    grid = GridForce(variables, GridBias.from_definition(definition))
    openmm_system = openmm.System()
    for _ in range(22):
        openmm_system.addParticle(1.0)
    openmm_system.addForce(grid.force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(openmm_system, openmm.VerletIntegrator(0.001), platform)
    grid.update(values, context)
    exact = bias_from_definition(definition | {"values": values.ravel().tolist()})

    def energy(positions):
        columns = dict(zip(variables.names, np.atleast_2d(variables.evaluate(positions)).T, strict=True))
        return exact.energy(columns)[0]

    for _ in range(30):
        positions = sampler.molecule.positions + generator.normal(scale=0.08, size=(22, 3))
        context.setPositions(positions)
        state = context.getState(energy=True, forces=True)
        assert state.getPotentialEnergy()._value == pytest.approx(energy(positions), abs=2e-4)
        direction = generator.normal(size=(22, 3))
        slope = (energy(positions + 1e-6 * direction) - energy(positions - 1e-6 * direction)) / 2e-6
        projected = -(np.array(state.getForces(asNumpy=True)._value) * direction).sum()
        assert projected == pytest.approx(slope, rel=2e-3, abs=0.05)


def test_starts_are_reached_or_refused(system):
    starts = [{"phi": 1.0, "psi": 0.8}, {"phi": -2.6, "psi": 2.8}, {"psi": -0.3}]
    sampler = system.sampler(make_plan(starts=starts), seed=8)
    for start, positions in zip(starts, sampler._find_starts(), strict=True):
        values = dict(zip(["phi", "psi"], sampler._variables.evaluate(positions), strict=True))
        for name, target in start.items():
            assert abs(values[name] - target) < 0.2
    distance = {"type": "distance", "atoms": ["1:CH3", "3:C"], "range": [0.2, 1.2]}
    content = system.model_dump(mode="json", exclude={"collective_variables"})
    variables = {name: item.model_dump(mode="json") for name, item in system.collective_variables.items()}
    content["collective_variables"] = variables | {"ends": distance}
    stretched = SystemSpec.model_validate(content | {"folder": system.folder})
    with pytest.raises(SamplingError, match=r"start ends = 2\.5 was not reached"):
        MoleculeSampler(
            stretched.structure(), stretched.beads(), make_plan(starts=[{"ends": 2.5}]), seed=8
        ).next_chunk()


def test_a_simulation_that_blows_up_names_the_timestep(system):
    plan = make_plan(timestep=0.02, burn_in=0.0, duration=20.0)
    sampler = system.sampler(plan, seed=9)
    with pytest.raises(SamplingError, match=r"blew up with timestep 0\.02 ps .*lower timestep"):
        run(sampler)


def test_reference_runs_resume_and_survive_their_file(system, tmp_path):
    plan = make_plan(METADYNAMICS, duration=4.0, starts=[{}])
    reference = system.evaluation.reference.model_copy(update={"plan": plan})
    short = system.model_copy(update={"evaluation": system.evaluation.model_copy(update={"reference": reference})})
    density = run_reference(short.reference_case(), 1, tmp_path / "whole")

    class Interrupted(Exception):
        pass

    def interrupt(done, total, what):
        if done % 2 == 0 and done < total:
            raise Interrupted

    for _ in range(20):
        try:
            resumed = run_reference(short.reference_case(), 1, tmp_path / "parts", interrupt)
            break
        except Interrupted:
            continue
    assert np.array_equal(density.blocks, resumed.blocks)
    write_reference(tmp_path / "reference.parquet", density)
    stored = read_reference(short.reference_case(), tmp_path / "reference.parquet")
    assert np.abs(stored.probability - density.probability).max() < 1e-6
    assert np.allclose(stored.probability.sum(axis=(1, 2)), 1.0)
    limit = -np.pi + 0.3 * 2 * np.pi  # a bin edge
    population, error = stored.population({"phi": (-4.0, limit)})
    centers = stored.centers[0] < limit
    assert np.allclose(population, stored.probability[:, centers].sum(axis=(1, 2)), atol=1e-6)
    assert np.all((error > 0) & (error < 0.5))
    changed = system.model_copy(update={"temperature": 310.0})
    with pytest.raises(Exception, match="its model, plan or histogram changed"):
        read_reference(changed.reference_case(), tmp_path / "reference.parquet")


def test_reference_runs_of_another_model_are_not_resumed(system, tmp_path):
    """Checkpoints stay after the runs; of another mass of hydrogen they would be a reference of the wrong model."""
    plan = make_plan(METADYNAMICS, duration=4.0, starts=[{}])
    reference = system.evaluation.reference.model_copy(update={"plan": plan})
    short = system.model_copy(update={"evaluation": system.evaluation.model_copy(update={"reference": reference})})
    light = short.model_copy(update={"model": short.model.model_copy(update={"hydrogen_mass": 2.0})})
    pieces = []
    for one, made in ((short, True), (short, False), (light, True)):
        pieces.clear()
        density = run_reference(one.reference_case(), 1, tmp_path, lambda *done: pieces.append(done))
        assert bool(pieces) == made
    assert density.reference_hash != run_reference(short.reference_case(), 1, tmp_path / "own").reference_hash


def test_a_periodic_box_of_water_is_sampled(system, tmp_path):
    topology, positions = build_peptide(["ACE", "ALA", "NME"])
    modeller = app.Modeller(topology, unit.Quantity(positions, unit.nanometer))
    field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller.addSolvent(field, boxSize=openmm.Vec3(1.9, 1.9, 1.9) * unit.nanometer, neutralize=False)
    with open(tmp_path / "box.pdb", "w") as stream:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, stream)
    content = system.model_dump(mode="json")
    content["model"] |= {
        "sequence": None,
        "pdb": "box.pdb",
        "force_fields": ["amber14-all.xml", "amber14/tip3p.xml"],
        "implicit_solvent": None,
        "box": 1.9,
        "cutoff": 0.8,
    }
    content["evaluation"]["reference"]["file"] = None
    content["network"]["cutoff"] = 0.9
    boxed = SystemSpec.model_validate(content | {"folder": tmp_path})
    plan = make_plan(METADYNAMICS | {"deposition": 0.2}, replicas=1, burn_in=0.0, duration=0.08, timestep=0.002)
    plan = plan.model_copy(update={"starts": [{}]})
    sampler = MoleculeSampler(boxed.structure(), boxed.beads(), plan, seed=1, platform="CPU")
    frames = run(sampler)
    assert np.allclose(frames.box, 1.9)
    assert np.isfinite(frames.forces).all()
    exact = bias_from_definition(sampler.summary().bias).energy(frames.collective_variables)
    assert np.abs(frames.bias_energy).max() > 0.1
    assert np.abs(exact - frames.bias_energy).max() < 2e-3  # the CPU platform computes in single precision
    assert frames.n_sites == 22  # water carries no beads
    assert sampler.snapshots().n_sites == sampler.molecule.n_atoms > 400


def test_the_committed_reference_belongs_to_its_systems_and_its_runs_agree(system):
    density = read_reference(system.reference_case())
    assert np.array_equal(density.blocks, read_reference(load_system("capped_alanine_quick").reference_case()).blocks)
    population, error = density.population({"phi": (0.0, np.pi)})
    assert np.all(error < 0.002)
    assert abs(population[0] - population[1]) < 4 * np.hypot(*error)
    for value, deviation in density.kinetic_temperature:
        assert abs(value - 300.0) < 1.5 + 2 * deviation  # steps of 4 fs read about 0.7 K high
    middle = density.probability.mean(axis=0)
    divergence = sum(rel_entr(run, middle).sum() for run in density.probability) / 2
    # Runs that differ by their counting noise only have a Jensen-Shannon divergence of sum(s1^2 + s2^2)/8p.
    seen = middle > 0
    noise = (density.standard_error**2).sum(axis=0)[seen] / middle[seen]
    assert divergence < 0.005
    assert 0.6 < divergence / (noise.sum() / 8) < 1.6


@pytest.mark.slow
def test_a_short_batch_reweights_to_the_committed_reference(system):
    """The shipped biased plan: the population of the left-handed basin from its frozen bias against the long runs."""
    plan = system.sampling.biased
    frames = run(system.sampler(plan, seed=11))
    weights = np.exp(frames.bias_energy / system.thermal_energy)
    positive = frames.collective_variables["phi"] > 0
    block = frames.replica * 5 + np.minimum(frames.time // (plan.duration / 5), 4).astype(int)
    table = np.array([[weights[(block == i) & (positive == side)].sum() for side in (True, False)] for i in range(20)])
    population = table[:, 0].sum() / table.sum()
    error = block_error(table)[0]
    exact, exact_error = system_population(system)
    assert error < 0.02
    assert abs(population - exact) < 4 * np.hypot(error, exact_error)


def system_population(system):
    values, errors = read_reference(system.reference_case()).population({"phi": (0.0, np.pi)})
    return values.mean(), np.sqrt((errors**2).sum()) / len(errors)
