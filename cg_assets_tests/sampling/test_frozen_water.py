"""Orientations at fixed centres: exact averages, no drift, the right temperature, and covariance labels of F_1."""

import numpy as np
import openmm
import pytest
from scipy.spatial.transform import Rotation

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.units import BOLTZMANN
from cg_assets.labels.thermal.differences import difference_test
from cg_assets.labels.thermal.response import thermal_response
from cg_assets.labels.thermal.samples import ConditionalSamples
from cg_assets.mapping.liquids.liquid import box_edge
from cg_assets.mapping.liquids.water import WATER_MODELS, Water
from cg_assets.sampling.fixed_bead_ladders import FixedBeadLadders
from cg_assets.sampling.held_beads import held_water
from cg_assets.sampling.settings import ConditionalSampling

COULOMB = 138.935458
"""1/(4 pi epsilon_0) [kJ/mol nm/e^2]."""


def sample(water, plan, starts, seed=1):
    sampler = FixedBeadLadders(held_water(water, starts), plan, seed)
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return Frames.concatenate([part for part in parts if part is not None]), sampler.summary()


def dimer(distance):
    parameters = WATER_MODELS["spce"]
    return Water(parameters, 2), (parameters.geometry[None] + [[[0, 0, 0]], [[distance, 0, 0]]]).reshape(1, -1, 3)


def exact_dimer(distance, temperatures, n=400_000):
    """F, F_1, <u> and C_W from orientations drawn uniformly, and the force on the second molecule."""
    parameters = WATER_MODELS["spce"]
    generator = np.random.default_rng(0)
    one, two = (
        np.einsum("nij,sj->nsi", Rotation.random(n, rng=generator).as_matrix(), parameters.geometry) for _ in range(2)
    )
    apart = two[:, :, None] - one[:, None] + [distance, 0, 0]
    r = np.sqrt((apart**2).sum(axis=-1))
    charge = COULOMB * np.outer(parameters.charges, parameters.charges)
    energy, slope = charge / r, charge / r**3
    sixth = (parameters.sigma / r[:, 0, 0]) ** 6
    energy[:, 0, 0] += 4 * parameters.epsilon * (sixth**2 - sixth)
    slope[:, 0, 0] += 24 * parameters.epsilon * (2 * sixth**2 - sixth) / r[:, 0, 0] ** 2
    u, f = energy.sum(axis=(1, 2)), (slope[..., None] * apart).sum(axis=(1, 2))[:, 0]
    found = []
    for temperature in temperatures:
        weight = np.exp(-(u - u.min()) / (BOLTZMANN * temperature))
        weight /= weight.sum()
        mean, force = weight @ u, weight @ f
        square = BOLTZMANN * temperature**2
        found.append((force, (weight * (u - mean)) @ f / square, mean, weight @ (u - mean) ** 2 / square))
    return np.array(found).T


def test_a_dimer_has_the_averages_of_all_orientations():
    """The reference's own errors are 0.3 % of F and 0.7 % of F_1; those of the samples are tested."""
    distance, temperatures = 0.40, [450.0, 600.0]
    water, start = dimer(distance)
    plan = ConditionalSampling(
        frames=1, temperatures=temperatures, runs=4, pace=0.8, interval=0.2, relaxation=4.0, duration=80.0
    )
    frames, _ = sample(water, plan, start)
    found = thermal_response(ConditionalSamples.of_frame(frames, 0), temperatures)
    force, first, energy, heat = exact_dimer(distance, temperatures)
    for name, exact in (("forces", force), ("first_order", first)):
        value, error = (getattr(part, name)[:, 1, 0] for part in (found.value, found.error))
        assert np.all(np.abs(value - exact) < 4 * error + 0.01 * abs(exact)), (name, value, exact, error)
        assert np.all(error < 0.15 * abs(exact)), name
    np.testing.assert_allclose(found.value.forces.sum(axis=1), 0.0, atol=1e-3)  # action and reaction
    for name, exact in (("mean_energy", energy), ("heat_capacity", heat)):
        value, error = getattr(found.value, name), getattr(found.error, name)
        assert np.all(np.abs(value - exact) < 4 * error + 0.01 * abs(exact)), (name, value, exact, error)


def test_an_interrupted_run_goes_on_bit_for_bit():
    water, start = dimer(0.35)
    plan = ConditionalSampling(frames=2, temperatures=[300.0, 400.0], relaxation=0.8, duration=1.6)
    starts = np.concatenate([start, start * [1.0, 1.1, 1.0]])
    whole = FixedBeadLadders(held_water(water, starts), plan, 7)
    expected = [whole.next_chunk() for _ in range(whole.n_chunks)]
    assert whole.n_chunks == 4
    for cut in (1, 2, 3):
        first = FixedBeadLadders(held_water(water, starts), plan, 7)
        for _ in range(cut):
            first.next_chunk()
        second = FixedBeadLadders(held_water(water, starts), plan, 7)
        second.restore(first.state())
        first.close()
        rest = [second.next_chunk() for _ in range(cut, second.n_chunks)]
        for one, two in zip(rest, expected[cut:], strict=True):
            assert (one is None) == (two is None)
            if one is not None:
                np.testing.assert_array_equal(one.forces, two.forces)
                np.testing.assert_array_equal(one.temperature, two.temperature)
                assert one.start.tolist() == two.start.tolist()
        assert second.summary() == whole.summary()
    other = FixedBeadLadders(held_water(water, starts[:1]), plan, 7)
    with pytest.raises(SamplingError, match="delete the checkpoint"):
        other.restore(whole.state())


def test_starts_of_another_water_are_refused():
    water, start = dimer(0.35)
    with pytest.raises(SamplingError, match=r"have shape \(5, 3\), the water \(6, 3\)"):
        held_water(water, start[:, :5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperatures": [300.0, 300.0]}, "does not rise"),
        ({"runs": 1}, "greater than or equal to 2"),
        ({"duration": 1.0}, "duration 1.0 is not a whole number of paces of 0.4"),
        ({"interval": 0.16}, "pace 0.4 is not a whole number of intervals of 0.16"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ConditionalSampling(**{"frames": 1, "temperatures": [300, 400], "relaxation": 0.8, "duration": 0.8} | change)


# --------------------------------------------------------------------------------------- eight molecules


def eight_molecules(scale):
    """Sites of eight neighbours in liquid SPC/E, their centres of mass scaled about their middle."""
    parameters = WATER_MODELS["spce"]
    box = Water(parameters, 64, box_edge(parameters.mass, 64, 997.0), 0.6)
    system = box.free_system()
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, integrator, platform, {"Threads": "1"})
    context.setPositions(box.lattice(1))
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(4000)
    sites = context.getState(positions=True).getPositions(asNumpy=True)._value
    beads = box.beads(sites)
    shift = box.box * np.round((beads - beads[0]) / box.box)
    near = np.argsort(((beads - beads[0] - shift) ** 2).sum(axis=1))[:8]
    molecules = (np.asarray(sites).reshape(64, 3, 3) - shift[:, None])[near]
    water = Water(parameters, 8)
    centres = water.beads(molecules.reshape(-1, 3))
    return water, (molecules + (scale - 1) * (centres - centres.mean(axis=0))[:, None]).reshape(1, -1, 3)


def compare(scale, temperature, width, runs, duration):
    water, starts = eight_molecules(scale)
    plan = ConditionalSampling(
        frames=1,
        temperatures=[temperature - width, temperature, temperature + width],
        runs=runs,
        pace=1.0,
        interval=0.2,
        relaxation=20.0,
        duration=duration,
    )
    frames, summary = sample(water, plan, starts)
    test = difference_test(
        [ConditionalSamples.of_frame(frames, 0)], (temperature - width, temperature, temperature + width)
    )
    return test, summary, duration + 22.0


def test_labels_are_the_slope_of_the_mean_force_quickly():
    """As the slow tests, at distances and temperatures where a short run suffices: slope 1 with an error of 15 %."""
    test, summary, _ = compare(1.2, 550.0, 110.0, runs=6, duration=40.0)
    print(f"slope {test.slope}; {summary}")
    assert abs(test.slope.z(1.0)) < 3, test.slope
    assert test.slope.standard_error < 0.25
    assert summary.largest_drift < 1e-5
    ratio = summary.kinetic_temperature_ratio
    assert abs(ratio.value - 1) < 0.01 + 3 * ratio.standard_error
    assert min(summary.exchange_acceptance) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "temperature", "width"), [(1.6, 300.0, 30.0), (1.0, 600.0, 60.0)])
def test_labels_are_the_slope_of_the_mean_force(scale, temperature, width):
    """Covariance labels against finite differences of independent runs: about 5 CPU minutes each."""
    test, summary, time = compare(scale, temperature, width, runs=16, duration=1000.0)
    print(f"centres x {scale}, {temperature} +- {width} K: slope {test.slope}; {summary}")
    assert test.slope.standard_error <= 0.03
    assert abs(test.slope.z(1.0)) < 2, test.slope
    assert summary.largest_drift < 1e-5 * max(1.0, time / 1000.0)
    assert abs(summary.kinetic_temperature_ratio.value - 1) < 0.01
