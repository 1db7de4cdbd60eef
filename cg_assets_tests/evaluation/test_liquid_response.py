"""Observables of liquids against exact answers: ideal gases, lattices, harmonic beads; and CG runs of splines."""

import math

import numpy as np
import pytest
import torch
from exact_potential import ExactPotential
from test_thermal_potentials import BOX, lattice, potential
from thermal_models import EDGE, known_potential, liquid

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.units import BOLTZMANN
from cg_assets.evaluation.distributions import Distribution
from cg_assets.evaluation.metrics.angles import angular_distribution
from cg_assets.evaluation.metrics.diffusion import diffusion
from cg_assets.evaluation.metrics.energies import liquid_energy
from cg_assets.evaluation.metrics.rdf import mean_distribution, radial_histograms, radial_slope
from cg_assets.potentials.thermal_splines.engine import SplineEngine
from cg_assets.simulation.engine import engine_of
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation


def _gas(frames, beads, box, seed=0):
    return np.random.default_rng(seed).uniform(size=(frames, beads, 3)) * box


def _frames(positions, box):
    """One replica in order of time."""
    count, zeros = len(positions), np.zeros(len(positions))
    whole = zeros.astype(np.int32)
    edges = np.tile(np.asarray(box, np.float32), (count, 1))
    return Frames(positions.astype(np.float32), np.arange(count) * 1.0, whole, zeros, whole, zeros > 0, box=edges)


def test_ideal_gas_has_no_structure():
    box = np.array([2.0, 2.5, 3.0])
    frames = _gas(400, 40, box) + np.random.default_rng(1).integers(-2, 3, (400, 40, 3)) * box
    found = mean_distribution(radial_histograms(frames, box, 1.0, 20), 1.0, np.arange(400))
    z = (found.values - 1.0) / found.standard_error
    assert np.abs(z[3:]).max() < 4
    assert 0.6 < math.sqrt(np.mean(z[3:] ** 2)) < 1.5


def test_lattice_has_its_shells_and_angles():
    """A simple cubic lattice: 6 neighbours at 0.3 nm, 12 at 0.3 sqrt(2); at a bead 12 angles of 90 and 3 of 180."""
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), axis=3).reshape(1, -1, 3) * 0.3
    bins, reach, box = 75, 0.75, np.full(3, 1.5)
    pairs = radial_histograms(grid, box, reach, bins)[0]
    shells = 4 / 3 * np.pi * np.diff(np.linspace(0, reach, bins + 1) ** 3) * 124 / 1.5**3
    neighbours = np.round(pairs * shells, 6)
    middle = (np.arange(bins) + 0.5) * reach / bins
    assert neighbours[(middle > 0.25) & (middle < 0.35)].sum() == pytest.approx(6)
    assert neighbours[(middle > 0.38) & (middle < 0.46)].sum() == pytest.approx(12)
    angles = angular_distribution(_frames(np.repeat(grid, 2, axis=0), box), 0.35, n_bins=18).values * np.pi / 18
    assert angles[8] + angles[9] == pytest.approx(12 / 15)
    assert angles[17] == pytest.approx(3 / 15)


def test_reach_beyond_half_the_box_is_refused():
    with pytest.raises(ValueError, match="beyond half the box"):
        radial_histograms(_gas(1, 5, 1.0), [1.0, 1.0, 1.0], 0.6, 5)


def test_absolute_error_of_distributions():
    grid = np.linspace(0.05, 0.95, 10)
    one = Distribution(grid, np.ones(10), np.full(10, 0.1))
    two = Distribution(grid, np.full(10, 1.5), np.zeros(10))
    found = one.absolute_error(two)
    assert found.value == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(0.1 * 0.1 * math.sqrt(10))
    with pytest.raises(ValueError, match="different grids"):
        one.absolute_error(Distribution(grid + 1, np.ones(10), np.zeros(10)))


def test_free_beads_diffuse_as_langevin_says():
    """D = kT/(m friction), less one part in 60 about the centre of 60 beads; positions are not wrapped into the box."""
    settings = CGSimulation(replicas=20, timestep=0.05, friction=2.0, burn_in=2.0, duration=40.0, frame_interval=0.2)
    run = simulate(
        ExactPotential(lambda x: 0.0 * x.sum(dim=(1, 2))),
        np.zeros((20, 60, 3)),
        np.full(60, 18.0),
        2.5,
        settings,
        seed=1,
        box=[1.0, 1.0, 1.0],
    )
    found = diffusion(run.frames, 8.0)
    exact = 2.5 / (18.0 * 2.0) * 59 / 60
    assert abs(found.coefficient.z(exact)) < 4
    assert found.coefficient.standard_error < 0.05 * exact
    shape = 6 * exact * (found.lag - (1 - np.exp(-2.0 * found.lag)) / 2.0)
    np.testing.assert_allclose(found.displacement, shape, rtol=0.1)


def test_energy_and_heat_capacity_of_harmonic_beads():
    """Springs k(T) = k_0 (1 - T/T_1): W = k(T) x²/2 has U_W = k_0 x²/2 and C_W = 0, so E and C_v are known."""
    kelvin, stiffness, limit, count = 300.0, 800.0, 1500.0, 30
    generator = np.random.default_rng(4)
    spread = math.sqrt(BOLTZMANN * kelvin / (stiffness * (1 - kelvin / limit)))
    square = (spread * generator.standard_normal((4000, count))) ** 2
    energy = 0.5 * stiffness * square.sum(axis=1)
    found = liquid_energy(energy, np.zeros(4000), kelvin, np.arange(4000) % 40)
    exact = 0.5 * count * BOLTZMANN * kelvin / (1 - kelvin / limit)
    assert abs(found.energy.z(exact)) < 4
    slope = 0.5 * count * BOLTZMANN / (1 - kelvin / limit) ** 2  # of the exact energy by temperature
    assert abs(found.heat_capacity.z(slope)) < 4
    assert found.heat_capacity.standard_error < 0.05 * slope
    shifted = liquid_energy(energy, np.full(4000, 0.25), kelvin, np.arange(4000) % 40)
    assert shifted.heat_capacity.value == pytest.approx(found.heat_capacity.value + 0.25)


def test_structure_changes_with_temperature_as_its_covariance_says():
    """Distances of harmonic pairs at T, and exactly resampled at T ± 25 K: dg/dT from one run and from two."""
    generator = np.random.default_rng(5)
    stiffness, rest = 3000.0, 0.4

    def frames(kelvin, count=20000):
        grid = np.linspace(0.2, 0.6, 2001)
        weight = grid**2 * np.exp(-0.5 * stiffness * (grid - rest) ** 2 / (BOLTZMANN * kelvin))
        distance = np.interp(generator.random(count), np.cumsum(weight) / weight.sum(), grid)
        places = np.zeros((count, 2, 3))
        places[:, 1, 0] = distance
        return places, 0.5 * stiffness * (distance - rest) ** 2

    box, reach, bins, replica = np.full(3, 1.6), 0.6, 12, np.arange(20000) % 40
    places, energy = frames(300.0)
    found = radial_slope(radial_histograms(places, box, reach, bins), energy, 300.0, reach, replica)
    cold, warm = (
        mean_distribution(radial_histograms(frames(kelvin)[0], box, reach, bins), reach, replica)
        for kelvin in (275.0, 325.0)
    )
    difference = (warm.values - cold.values) / 50.0
    error = np.hypot(np.hypot(warm.standard_error, cold.standard_error) / 50.0, found.standard_error)
    seen = error > 0
    z = (found.values - difference)[seen] / error[seen]
    assert np.abs(z).max() < 4
    assert np.abs(found.values[seen] / found.standard_error[seen]).max() > 20


@pytest.mark.parametrize(("changes", "error"), [({}, 1e-6), ({"triple_cutoff": None}, 1e-10)], ids=["triples", "pairs"])
def test_compiled_splines_are_the_potential(changes, error):
    """To rounding, which is that of single precision for triples: below the least distance too, and after moves."""
    module = potential("spline", **changes)
    positions = lattice(3, seed=5)
    positions[1, 1] = positions[1, 0] + torch.tensor([0.17, 0.1, 0.0])
    engine = SplineEngine(module, 390.0, BOX.numpy())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(4):
            exact = module.energy_and_forces(positions, 390.0, BOX)
            for mine, theirs in zip(engine(positions), exact, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=error * float(theirs.abs().max()))
            positions = positions + 0.02 * torch.randn(positions.shape, generator=generator).double()
        without = engine_of(module, 390.0, None, torch.device("cpu"))(positions)
        for mine, theirs in zip(without, module.energy_and_forces(positions, 390.0), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=error * float(theirs.abs().max()))


def test_simulation_needs_what_the_potential_needs():
    module, cpu = potential("spline"), torch.device("cpu")
    with pytest.raises(SamplingError, match="give `temperature`"):
        engine_of(module, None, None, cpu)
    with pytest.raises(SamplingError, match="beyond half the smallest box edge"):
        engine_of(module, 300.0, [1.0, 1.0, 1.0], cpu)


@pytest.fixture(scope="module")
def runs():
    """CG simulations of the known potential at three temperatures."""
    settings = CGSimulation(replicas=8, timestep=0.004, friction=5.0, burn_in=2.0, duration=16.0, frame_interval=0.2)
    module = known_potential()
    found = {}
    for kelvin in (380.0, 420.0, 460.0):
        energy = BOLTZMANN * kelvin
        starts = liquid(8, seed=3)
        masses, box = np.full(27, 18.0), np.full(3, EDGE)
        found[kelvin] = simulate(module, starts, masses, energy, settings, 2, temperature=kelvin, box=box)
    return module, found


def test_liquid_has_the_temperature_of_its_thermostat(runs):
    for kelvin, run in runs[1].items():
        assert not run.exploded.any()
        assert abs(run.kinetic_temperature - kelvin) < max(4 * run.kinetic_temperature_error, 0.01 * kelvin)
        assert run.kinetic_temperature_error < 0.01 * kelvin


def test_one_run_knows_how_energy_and_structure_change(runs):
    """Heat capacity and dg/dT of the run in the middle against the difference of the two others."""
    module, found = runs
    energies, structures = {}, {}
    for kelvin, run in found.items():
        frames = run.frames
        with torch.no_grad():
            response = module.response(torch.as_tensor(frames.positions).double(), kelvin, torch.full((3,), EDGE))
        energy = response.mean_energy.numpy()
        energies[kelvin] = liquid_energy(energy, response.heat_capacity.numpy(), kelvin, frames.replica, frames.time)
        histograms = radial_histograms(frames.positions, frames.box, 0.6, 12)
        structures[kelvin] = radial_slope(histograms, energy, kelvin, 0.6, frames.replica, frames.time)
        curve = mean_distribution(histograms, 0.6, frames.replica, frames.time)
        energies[kelvin, "g"] = curve
    cold, middle, warm = (energies[kelvin] for kelvin in (380.0, 420.0, 460.0))
    slope = (warm.energy.value - cold.energy.value) / 80.0
    error = math.hypot(warm.energy.standard_error, cold.energy.standard_error) / 80.0
    assert abs(middle.heat_capacity.value - slope) < 4 * math.hypot(error, middle.heat_capacity.standard_error)
    one, two = energies[380.0, "g"], energies[460.0, "g"]
    difference = (two.values - one.values) / 80.0
    error = np.hypot(one.standard_error, two.standard_error) / 80.0
    mine = structures[420.0]
    seen = (one.values > 0.05) & (error > 0)
    z = (mine.values - difference)[seen] / np.hypot(error, mine.standard_error)[seen]
    assert math.sqrt(np.mean(z**2)) < 2.0


def test_energy_is_conserved_without_friction():
    """Velocity Verlet with the compiled splines: drift below 1e-3 of the kinetic energy over 2,000 steps."""
    module = known_potential()
    evaluate = engine_of(module, 420.0, np.full(3, EDGE), torch.device("cpu"))
    places = torch.as_tensor(liquid(1, seed=8))
    generator = torch.Generator().manual_seed(1)
    velocities = math.sqrt(BOLTZMANN * 420.0 / 18.0) * torch.randn(places.shape, generator=generator).double()
    _, forces = evaluate(places)
    totals, timestep = [], 0.002
    for _ in range(2000):
        velocities = velocities + 0.5 * timestep / 18.0 * forces
        places = places + timestep * velocities
        energy, forces = evaluate(places)
        velocities = velocities + 0.5 * timestep / 18.0 * forces
        totals.append(float(energy + 0.5 * 18.0 * velocities.square().sum()))
    kinetic = 1.5 * 27 * BOLTZMANN * 420.0
    drift = np.mean(totals[-500:]) - np.mean(totals[:500])
    assert abs(drift) < 1e-3 * kinetic
    assert np.std(totals) < 5e-3 * kinetic
