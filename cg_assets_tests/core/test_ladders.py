"""MBAR over the rungs of ladders, against energies whose thermodynamics is known."""

import numpy as np
import pytest
from two_states import TEMPERATURES, exact, folded_share, two_states

from cg_assets.core.statistics.ladders import LadderSamples


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
