"""Structure of a liquid of beads: g(r) of beads without and with correlation, and dynamics of water that is resumed."""

from dataclasses import replace

import numpy as np
import pytest

from cg_assets.core.frames import Frames
from cg_assets.core.units import BOLTZMANN
from cg_assets.evaluation.metrics.angles import angular_distribution
from cg_assets.evaluation.metrics.diffusion import diffusion
from cg_assets.evaluation.metrics.energies import heat_capacity
from cg_assets.evaluation.metrics.rdf import radial_distribution, structure_and_energy
from cg_assets.mapping.liquids.liquid import box_edge
from cg_assets.mapping.liquids.water import WATER_MODELS, Water
from cg_assets.sampling.liquid_sampler import LiquidSampler
from cg_assets.sampling.settings import SamplingPlan


def frames_of(positions, box=2.0, temperature=300.0):
    n = len(positions)
    return Frames(
        positions=np.asarray(positions, np.float32),
        time=np.arange(n, dtype=float),
        replica=np.zeros(n, np.int32),
        temperature=np.full(n, temperature),
        start=np.zeros(n, np.int32),
        probe=np.zeros(n, bool),
        potential_energy=np.arange(n, dtype=float),
        box=np.full((n, 3), box, np.float32),
    )


def test_beads_without_correlation_have_one_everywhere():
    generator = np.random.default_rng(0)
    frames = frames_of(generator.uniform(-5.0, 5.0, size=(200, 40, 3)))
    found = radial_distribution(frames, 1.0, 20)
    z = (found.values - 1)[2:] / found.standard_error[2:]  # 18 bins, errors from 50 blocks
    assert 0.6 < np.sqrt((z**2).mean()) < 1.5
    np.testing.assert_allclose(found.values[10:], 1.0, atol=0.05)


def test_pairs_at_one_distance_are_all_in_its_bin_across_the_box():
    positions = np.array([[[0.05, 0.0, 0.0], [1.70, 0.0, 0.0]]])  # 0.35 nm apart through the wall of the box
    found = radial_distribution(frames_of(np.repeat(positions, 4, axis=0)), 1.0, 10)
    assert np.flatnonzero(found.values).tolist() == [3]
    assert found.values[3] == pytest.approx(2.0**3 / (4 / 3 * np.pi * (0.4**3 - 0.3**3)))


def test_distances_beyond_half_the_box_are_refused():
    frames = frames_of(np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="beyond half the box"):
        radial_distribution(frames, 1.2, 5)


def test_angles_of_random_neighbours_are_those_of_random_directions():
    generator = np.random.default_rng(1)
    found = angular_distribution(frames_of(generator.uniform(0.0, 2.0, size=(60, 60, 3))), 0.6, n_bins=12)
    z = (found.values - _mean_density(12)) / found.standard_error
    assert np.sqrt((z**2).mean()) < 1.6
    assert (found.values * np.pi / 12).sum() == pytest.approx(1.0)
    chain = np.array([[[1.9, 0.0, 0.0], [0.1, 0.0, 0.0], [0.1, 0.2, 0.0]]])  # a right angle through the wall
    found = angular_distribution(frames_of(np.repeat(chain, 3, axis=0)), 0.25, n_bins=9)
    assert np.flatnonzero(found.values).tolist() == [4]
    with pytest.raises(ValueError, match="no bead has two neighbours"):
        angular_distribution(frames_of(chain), 0.05)


def _mean_density(n_bins):
    edges = np.linspace(0.0, np.pi, n_bins + 1)
    return 0.5 * (np.cos(edges[:-1]) - np.cos(edges[1:])) / np.diff(edges)


def test_brownian_beads_have_their_diffusion_coefficient():
    """D = 2.3e-3 nm²/ps, known to about 2 %; whole frames jump by a box now and then, which must not matter."""
    generator = np.random.default_rng(2)
    steps = generator.normal(size=(600, 50, 3)) * np.sqrt(2 * 2.3e-3 * 1.0)
    path = np.cumsum(steps, axis=0)
    path -= path.mean(axis=1, keepdims=True) - 2.0 * generator.integers(-1, 2, size=(600, 1, 3))
    found = diffusion(frames_of(path), longest=20.0)
    exact = 2.3e-3 * 49 / 50  # relative to the centre of 50 beads
    assert found.coefficient.standard_error < 0.06 * exact
    assert abs(found.coefficient.z(exact)) < 3, found.coefficient
    assert found.displacement[0] == pytest.approx(6 * exact, rel=0.03)
    with pytest.raises(ValueError, match="need replicas of 800"):
        diffusion(frames_of(path), longest=400.0)
    whole = frames_of(path)
    brief = replace(whole.select(np.arange(3)), replica=np.full(3, 1, np.int32))
    for parts in ([whole, brief], [replace(brief, replica=brief.replica - 2), whole]):
        beside = diffusion(Frames.concatenate(parts), longest=20.0)  # a run of 3 frames once ended it
        assert beside.coefficient.value == pytest.approx(found.coefficient.value, rel=0.05)


def test_heat_capacity_is_the_variance_of_the_energy():
    generator = np.random.default_rng(3)
    frames = frames_of(np.zeros((4000, 5, 3)))
    sigma = 12.0
    frames.potential_energy[:] = -500.0 + sigma * generator.normal(size=4000)
    exact = sigma**2 / (BOLTZMANN * 300.0**2) / 5
    found = heat_capacity(frames)
    assert abs(found.z(exact)) < 3 and found.standard_error < 0.04 * exact
    with pytest.raises(ValueError, match="at one temperature, not at 2"):
        heat_capacity(Frames.concatenate([frames, frames_of(np.zeros((5, 5, 3)), temperature=400.0)]))


def test_the_same_seed_gives_the_same_water():
    parameters = WATER_MODELS["spce"]
    water = Water(parameters, 16, box_edge(parameters.mass, 16, 997.0), 0.38)
    plan = SamplingPlan(replicas=2, timestep=0.002, friction=0.1, burn_in=0.4, duration=1.0, frame_interval=0.2)
    runs = []
    for _ in range(2):
        sampler = LiquidSampler(water, [400.0, 500.0], plan, seed=3, snapshots=1)
        runs.append(Frames.concatenate([part for _ in range(sampler.n_chunks) if (part := sampler.next_chunk())]))
    np.testing.assert_array_equal(runs[0].positions, runs[1].positions)
    np.testing.assert_array_equal(runs[0].potential_energy, runs[1].potential_energy)


def test_water_is_sampled_at_each_temperature_and_goes_on_after_an_interruption():
    parameters = WATER_MODELS["tip4p2005"]
    water = Water(parameters, 16, box_edge(parameters.mass, 16, 997.0), 0.38)
    # A strong thermostat, for with the usual one the kinetic energy forgets in 10 ps only.
    plan = SamplingPlan(replicas=2, timestep=0.002, friction=5.0, burn_in=3.0, duration=6.0, frame_interval=0.2)
    first = LiquidSampler(water, [400.0, 700.0], plan, seed=3, snapshots=4)
    assert first.next_chunk() is None  # start
    assert first.next_chunk() is None  # burn-in
    second = LiquidSampler(water, [400.0, 700.0], plan, seed=3, snapshots=4)
    second.restore(first.state())
    first.close()
    frames = Frames.concatenate([second.next_chunk() for _ in range(2, second.n_chunks)])
    assert len(frames) == 2 * 30
    assert np.allclose(np.unique(frames.time), np.arange(1, 31) * 0.2)
    whole = second.snapshots()
    assert whole.temperature.tolist() == [400.0, 400.0, 700.0, 700.0] and whole.n_sites == 64
    # the beads of a snapshot are those of the frame at its time, but for whole boxes
    rows = [
        int(np.flatnonzero((frames.replica == r) & np.isclose(frames.time, t))[0])
        for r, t in zip(whole.replica, whole.time, strict=True)
    ]
    apart = water.beads(whole.positions) - frames.positions[rows]
    apart -= water.box * np.round(apart / water.box)
    assert np.abs(apart).max() < 1e-4
    structure, energy = structure_and_energy(frames)
    assert list(structure) == [400.0, 700.0]
    assert energy[400.0].value + 3 * energy[400.0].standard_error < energy[700.0].value < -10.0
    assert structure[400.0].values[:30].max() < 0.05  # no two oxygens nearer than about 0.2 nm
    kinetics = second.summary().kinetic
    assert list(kinetics) == [400.0, 700.0]
    for temperature, kinetic in kinetics.items():
        # 96 degrees of freedom: 30 frames tell the temperature to about 3 %
        assert abs(kinetic.value - temperature) < 0.15 * temperature
