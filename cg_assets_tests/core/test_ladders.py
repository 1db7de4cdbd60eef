"""MBAR over the rungs of ladders, against energies whose thermodynamics is known."""

import numpy as np
import pytest
from two_states import TEMPERATURES, exact, folded_share, two_states

from cg_assets.core.statistics.ladders import LadderSamples
from cg_assets.core.units import BOLTZMANN


def test_two_states_at_all_temperatures_and_between_them():
    """Ten repetitions: no bias, and errors that are those of the scatter."""
    deviations = []
    for seed in range(10):
        energy, kelvin, folded, replica, time = two_states(seed, 1500)
        ladder = LadderSamples(energy, kelvin, replica, time)
        assert not ladder.fault
        for at in (280.0, 305.0, 390.0, 430.0):
            known = exact(at)
            found = {
                "share": ladder.mean(folded, at),
                "energy": ladder.mean(energy, at),
                "slope": ladder.slope(folded, energy, at),
                "capacity": ladder.slope(energy, energy, at),
            }
            deviations.append([found[name].z(known[name]) for name in known])
    scatter = np.array(deviations).reshape(10, -1)
    assert 0.75 < np.sqrt((scatter**2).mean()) < 1.25
    assert np.abs(scatter.mean(axis=0)).max() < 4 / np.sqrt(10)


def test_all_rungs_err_less_than_one():
    energy, kelvin, folded, replica, time = two_states(0)
    ladder = LadderSamples(energy, kelvin, replica, time)
    alone = np.sqrt(folded_share(330.0) * (1 - folded_share(330.0)) / 5000)
    assert ladder.mean(folded, 330.0).standard_error < 0.85 * alone


def test_rungs_that_do_not_touch_are_named():
    samples = two_states(0, 500, temperatures=np.array([280.0, 1400.0]))
    fault = LadderSamples(samples[0], samples[1], *samples[3:]).fault
    assert "280 K and 1400 K have" in fault and "5 are needed" in fault


def test_many_samples_are_thinned_evenly():
    energy, kelvin, folded, replica, time = two_states(3, 30_000)
    ladder = LadderSamples(energy, kelvin, replica, time)
    assert len(ladder.rows) == 40_000
    assert set(np.bincount(np.searchsorted(TEMPERATURES, kelvin[ladder.rows]))) == {10_000}
    assert ladder.mean(folded, 330.0).z(folded_share(330.0)) == pytest.approx(0.0, abs=4)


def wandering(seed, tau, length=400):
    """Of two ladders of two rungs: averages of values that are 0 on average, and correlated over `tau` times."""
    generator, kelvin = np.random.default_rng(seed), np.repeat([300.0, 330.0], 2 * length)
    decay = np.exp(-1.0 / tau)
    values = generator.normal(size=(4, length))
    for number in range(1, length):
        values[:, number] = decay * values[:, number - 1] + np.sqrt(1 - decay**2) * values[:, number]
    replica, time = np.tile(np.repeat([0, 1], length), 2), np.tile(np.arange(float(length)), 4)
    ladder = LadderSamples(generator.gamma(30.0, BOLTZMANN * kelvin), kelvin, replica, time)
    return ladder.mean(values.ravel(), 310.0)


@pytest.mark.parametrize("tau", [0.1, 7.0, 20.0])
def test_blocks_of_time_that_are_not_long_enough_err_as_they_should(tau):
    """A block has 20 times; without more ado the last would err by 1.9 of its errors."""
    scatter = np.sqrt(np.mean([wandering(seed, tau).z(0.0) ** 2 for seed in range(40)]))
    assert 1 - 4 / np.sqrt(80) < scatter < 1 + 4 / np.sqrt(80)


@pytest.mark.parametrize("kelvin", [279.0, 600.0])
def test_temperatures_without_samples_are_refused(kelvin):
    energy, known, folded, replica, time = two_states(0, 200)
    with pytest.raises(ValueError, match=f"{kelvin:g} K is not between 280 and 460 K"):
        LadderSamples(energy, known, replica, time).mean(folded, kelvin)
