"""Structure of a liquid of beads: g(r) of beads without and with correlation, and dynamics of water that is resumed."""

import numpy as np
import pytest

from cg_assets.analysis.liquid import radial_distribution, structure_and_energy
from cg_assets.frames import Frames
from cg_assets.sampling.water_reference import WaterReferenceSampler
from cg_assets.systems.thermal_spec import ReferenceSampling
from cg_assets.systems.water import WATER_MODELS, Water, box_edge


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
    found = radial_distribution(frames, np.linspace(0.0, 1.0, 21))
    z = (found.value - 1)[2:] / found.standard_error[2:]  # 18 bins, errors from 20 blocks
    assert 0.6 < np.sqrt((z**2).mean()) < 1.5
    np.testing.assert_allclose(found.value[10:], 1.0, atol=0.05)


def test_pairs_at_one_distance_are_all_in_its_bin_across_the_box():
    positions = np.array([[[0.05, 0.0, 0.0], [1.70, 0.0, 0.0]]])  # 0.35 nm apart through the wall of the box
    found = radial_distribution(frames_of(np.repeat(positions, 4, axis=0)), np.linspace(0.0, 1.0, 11))
    assert np.flatnonzero(found.value).tolist() == [3]
    assert found.value[3] == pytest.approx(2.0**3 / (4 / 3 * np.pi * (0.4**3 - 0.3**3)))


def test_distances_beyond_half_the_box_are_refused():
    frames = frames_of(np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="beyond half the box"):
        radial_distribution(frames, np.linspace(0, 1.2, 5))


def test_water_is_sampled_at_each_temperature_and_goes_on_after_an_interruption():
    parameters = WATER_MODELS["tip4p2005"]
    water = Water(parameters, 16, box_edge(parameters, 16, 997.0), 0.38)
    plan = ReferenceSampling(temperatures=[400.0, 700.0], replicas=2, burn_in=3.0, duration=6.0, frame_interval=0.2)
    first = WaterReferenceSampler(water, plan, seed=3, snapshots=4)
    assert first.next_chunk() is None  # start
    assert first.next_chunk() is None  # burn-in
    second = WaterReferenceSampler(water, plan, seed=3, snapshots=4)
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
    assert structure[400.0].value[:30].max() < 0.05  # no two oxygens nearer than about 0.2 nm
    for temperature, kinetic in zip(plan.temperatures, second.summary()["kinetic_temperature"], strict=True):
        # 96 degrees of freedom: 60 correlated frames tell the temperature to about 4 %
        assert abs(kinetic.value - temperature) < 0.15 * temperature
