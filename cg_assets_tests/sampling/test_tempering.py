"""Replica exchange: the ensemble of the lowest temperature, crossings of barriers, exact resumption."""

import itertools

import numpy as np
import pytest

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.replica_exchange import TemperatureLadders
from cg_assets.core.units import BOLTZMANN
from cg_assets.sampling.molecule.sampler import MoleculeSampler
from cg_assets.systems import load_system
from cg_assets.systems.spec import SystemSpec

LADDER = [300.0, 380.0, 480.0, 610.0, 770.0]


def tempered(**changes) -> SystemSpec:
    """Capped alanine in implicit solvent on ladders of temperatures."""
    content = load_system("capped_alanine_quick").model_dump()
    content["sampling"]["unbiased"] |= {
        "replicas": 2 * len(LADDER),
        "burn_in": 10.0,
        "duration": 400.0,
        "frame_interval": 0.2,
        "tempering": {"temperatures": LADDER, "pace": 0.4},
    } | changes
    return SystemSpec.model_validate(content)


def all_frames(sampler: MoleculeSampler) -> Frames:
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return Frames.concatenate([part for part in parts if part is not None])


@pytest.fixture(scope="module")
def run():
    system = tempered()
    sampler = system.sampler(system.sampling.unbiased, seed=3)
    return sampler, all_frames(sampler)


def test_frames_are_those_of_the_lowest_temperature(run):
    sampler, frames = run
    summary = sampler.summary()
    assert len(frames) == 2 * 2000 and set(frames.replica) == {0, 1}
    assert abs(summary.kinetic_temperature.value - 300.0) < 4 * summary.kinetic_temperature.standard_error + 3.0
    assert all(0.1 < item < 0.8 for item in summary.exchange_acceptance)
    assert summary.journeys_up_the_ladder > 4
    assert summary.sampled_time >= 10 * 410.0


def test_potential_energy_is_that_of_plain_dynamics(run):
    """The mean potential energy at 300 K, within a basin that both visit, by two methods."""
    _, frames = run
    system = tempered(tempering=None, replicas=4, duration=400.0)
    plain = all_frames(system.sampler(system.sampling.unbiased, seed=4))

    def mean(part: Frames) -> tuple[float, float]:
        inside = part.collective_variables["phi"] < 0
        energy, block = part.potential_energy[inside], (part.replica * 10 + part.time // 40)[inside]
        means = np.array([energy[block == number].mean() for number in np.unique(block)])
        return float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))

    (one, error), (two, other) = mean(frames), mean(plain)
    assert abs(one - two) < 4 * np.hypot(error, other), f"{one:.2f} ± {error:.2f} and {two:.2f} ± {other:.2f} kJ/mol"


def test_barriers_are_crossed(run):
    """In 400 ps at 300 K a replica crosses to positive phi once in hundreds; ladders do so many times."""
    _, frames = run
    positive = frames.collective_variables["phi"] > 0
    assert 0 < positive.mean() < 0.25


def test_resumed_run_is_the_same_bit_for_bit():
    system = tempered(replicas=len(LADDER), duration=8.0, burn_in=0.8)
    plan = system.sampling.unbiased
    whole = all_frames(system.sampler(plan, seed=5))
    first = system.sampler(plan, seed=5)
    parts = [first.next_chunk() for _ in range(first.n_chunks - 1)]
    second = system.sampler(plan, seed=5)
    second.restore(first.state())
    parts.append(second.next_chunk())
    resumed = Frames.concatenate([part for part in parts if part is not None])
    np.testing.assert_array_equal(resumed.positions, whole.positions)
    np.testing.assert_array_equal(resumed.potential_energy, whole.potential_energy)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tempering": {"temperatures": [310.0, 400.0], "pace": 0.4}}, "must begin with the temperature of the system"),
        ({"tempering": {"temperatures": [300.0, 300.0], "pace": 0.4}}, "does not rise"),
        ({"replicas": 7}, "is not a multiple of the 5 temperatures"),
        ({"tempering": {"temperatures": LADDER, "pace": 0.3}}, "is not a multiple of 0.2"),
    ],
)
def test_wrong_ladders_are_refused(changes, message):
    with pytest.raises((SystemSpecError, ValueError), match=message):
        tempered(**changes)


def test_exchanges_draw_permutations_by_their_boltzmann_weights():
    """From any order, one exchange leads to each order with its exact probability: within 4 standard errors."""
    temperatures, energies, n_ladders = np.array([300.0, 320.0, 345.0]), np.array([-20.0, -17.0, -24.0]), 20_000
    ladders = TemperatureLadders(temperatures, n_ladders, seed=3)
    ladders.exchange(np.tile(energies, n_ladders))
    orders = list(itertools.permutations(range(3)))  # the rung of each replica
    weights = np.array([np.exp(-(energies / (BOLTZMANN * temperatures[list(order)])).sum()) for order in orders])
    expected = weights / weights.sum()
    found = np.array([(ladders.rung.reshape(-1, 3) == order).all(axis=1).mean() for order in orders])
    error = np.sqrt(expected * (1 - expected) / n_ladders)
    assert expected.min() > 0.01
    np.testing.assert_array_less(np.abs(found - expected) / error, 4.0)
    scales = np.array([scale for _, scale in ladders.heat()]).reshape(-1, 3)
    np.testing.assert_allclose(scales, np.sqrt(temperatures[ladders.rung.reshape(-1, 3)] / temperatures))
