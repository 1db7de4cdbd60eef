"""Information of labels on the mean force in each bin: right noise, right errors also of correlated labels."""

import numpy as np
import pytest

from cg_assets.core.frames import Frames
from cg_assets.labels.label_errors import label_errors, variable_bins
from cg_assets.systems import load_system

REPLICAS, LENGTH, DEVIATION, RANGE = 20, 2000, 0.3, (10.0, 40.0)


def labels(memory, seed, bias_energy=None):
    """Labels of deviation 0.3 about zero, correlated by `memory` from frame to frame; 400 frames at a time in a bin."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(REPLICAS, LENGTH))
    for step in range(1, LENGTH):
        noise[:, step] = memory * noise[:, step - 1] + np.sqrt(1 - memory**2) * noise[:, step]
    n = REPLICAS * LENGTH
    x = np.tile(np.repeat(np.linspace(*RANGE, 5, endpoint=False) + 3.0, LENGTH // 5), REPLICAS)
    return Frames(
        positions=x.astype(np.float32)[:, None, None],
        time=np.tile(np.arange(LENGTH, dtype=np.float64), REPLICAS),
        replica=np.repeat(np.arange(REPLICAS, dtype=np.int32), LENGTH),
        temperature=np.full(n, 0.1),
        start=np.zeros(n, np.int32),
        probe=np.zeros(n, bool),
        forces=(DEVIATION * noise).ravel().astype(np.float32)[:, None, None],
        bias_energy=bias_energy,
        collective_variables={"x": x.astype(np.float32)},
    )


@pytest.fixture(scope="module")
def system():
    return load_system("muller_brown")


@pytest.mark.parametrize("memory, inefficiency", [(0.0, 1.0), (0.8, 9.0)])
def test_noise_and_error_of_each_bin(system, memory, inefficiency):
    bins = variable_bins(system.beads(), ["x"], 5, {"x": RANGE})
    errors = label_errors(system.beads(), ["x"], bins, [labels(memory, seed=1)])
    in_bin = REPLICAS * LENGTH / 5
    energy = (RANGE[1] - RANGE[0]) / system.thermal_energy
    assert list(errors.count) == [in_bin] * 5
    assert errors.noise == pytest.approx(DEVIATION * energy, rel=0.05)
    exact = DEVIATION * energy * np.sqrt(inefficiency / in_bin)
    assert np.sqrt((errors.error**2).mean()) == pytest.approx(exact, rel=0.15)
    assert errors.independent.mean() == pytest.approx(in_bin / inefficiency, rel=0.3)
    assert np.all(errors.independent <= in_bin)
    assert errors.weight_share == 1.0


def test_two_sets_of_labels_and_empty_bins(system):
    bins = variable_bins(system.beads(), ["x"], 10, {"x": (10.0, 70.0)})
    one, two = labels(0.0, seed=2), labels(0.0, seed=3)
    alone, other, both = (label_errors(system.beads(), ["x"], bins, parts) for parts in ([one], [two], [one, two]))
    known = alone.count > 0
    assert list(known) == [True] * 5 + [False] * 5
    assert np.isnan(alone.error[~known]).all() and np.isinf(alone.free_energy[~known]).all()
    assert np.all(alone.independent[~known] == 0.0)
    assert both.error[known] ** -2 == pytest.approx(alone.error[known] ** -2 + other.error[known] ** -2)


def test_share_of_the_weights(system):
    """Half of the frames under a bias that makes them count for nothing."""
    energy = np.where(np.arange(REPLICAS * LENGTH) % 2, 0.0, -100.0 * system.thermal_energy)
    bins = variable_bins(system.beads(), ["x"], 5, {"x": RANGE})
    assert label_errors(system.beads(), ["x"], bins, [labels(0.0, 4, energy)]).weight_share == pytest.approx(0.5)


def test_nothing_is_known_without_labels(system):
    errors = label_errors(system.beads(), ["x"], variable_bins(system.beads(), ["x"], 5, {"x": RANGE}), [])
    assert np.isnan(errors.weight_share) and np.all(errors.independent == 0.0)
