"""Products of energies and forces as labels of dF/dT and d²F/dT², against quadrature; what the check catches."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from coupled_wells import BIAS, DOMAIN, ORIGIN, SYSTEM, bias_force, drawn, exact, landscape

from cg_assets.core.errors import TrainingError
from cg_assets.labels.source import LabelInputs
from cg_assets.labels.thermal.product_labels import energy_test, product_labels, response_products
from cg_assets.systems.spec import SystemSpec

COUNT = 40_000


def system(**changes):
    return SystemSpec.model_validate(yaml.safe_load(SYSTEM) | changes)


SOURCE = system().labels["products"]
DEFINITION = system().sampling.biased.bias.function(system().beads()).definition()


def labelled(frames, definition=DEFINITION, seed=0):
    return SOURCE.label(LabelInputs(frames, system().beads(), definition, seed))


def verdict(made, frames=None):
    return next(item for item in made.judge(made.frames if frames is None else frames) if item.check.name != "finite")


@pytest.fixture(scope="module")
def frames():
    return drawn(COUNT, seed=1)


def test_means_of_products_are_responses_and_their_errors_are_of_second_order():
    """Exact averages over y at given x: with wrong estimates the means change by products of two errors only."""
    places, y = np.linspace(-1.5, 1.4, 7), np.linspace(*DOMAIN["y"], 4001)
    points = np.stack(np.meshgrid(places, y, indexing="ij"), axis=-1)
    energy, forces = (array.reshape(7, -1) for array in _plane(points))
    weight = np.exp(-(energy - energy.min(axis=1, keepdims=True)) / ORIGIN)
    weight /= weight.sum(axis=1, keepdims=True)

    def mean(values):
        return (weight * values).sum(axis=1, keepdims=True)

    scale, du, df = ORIGIN**2, energy - mean(energy), forces - mean(forces)
    capacity, response = mean(du**2) / scale, mean(du * df) / scale
    found = [mean(item)[:, 0] for item in response_products(du, df, capacity, response, ORIGIN, 1.0)]
    known = exact(places)
    np.testing.assert_allclose(found[0], known.first_order, atol=2e-3 * np.abs(known.first_order).max())
    np.testing.assert_allclose(found[1], known.second_order, atol=1e-2 * np.abs(known.second_order).max())
    for small in (1e-3, 1e-4):
        wrong = du - small, df + small, capacity + small, response - small
        moved = [mean(item)[:, 0] for item in response_products(*wrong, ORIGIN, 1.0)]
        for one, other in zip(moved, found, strict=True):
            assert np.abs(one - other).max() < 20 * small**2
    np.testing.assert_allclose(  # the first-order label errs by the product, and by nothing else
        mean(response_products(du - 0.3, df + 0.5, capacity, response, ORIGIN, 1.0)[0])[:, 0],
        found[0] - 0.15 / scale,
        atol=1e-9,
    )


def _plane(points):
    energy, forces = landscape().energy_and_forces(points.reshape(-1, 2))
    return energy, forces[:, 0]


@pytest.mark.parametrize("bias", [BIAS, None])
def test_labels_of_single_frames_have_the_right_means(bias):
    """Mean of g (label - exact) over frames for fields g of x, in units of its error; biased frames or not."""
    frames = drawn(COUNT, seed=2, bias=bias)
    x = frames.positions[:, 0, 0].astype(float)
    grid = np.linspace(x.min(), x.max(), 400)
    known, block = exact(grid), np.arange(COUNT) % 200
    found = product_labels(x, frames.forces[:, 0, 0].astype(float), frames.potential_energy, block, ORIGIN, 1.0, seed=3)
    z = []
    for name in ("first_order", "second_order"):
        left = getattr(found, name) - np.interp(x, grid, getattr(known, name))
        for wave in range(12):
            term = np.cos(wave * x + wave) * left
            z.append(term.mean() / (term.std() / np.sqrt(COUNT)))
    assert np.abs(z).max() < 4.0 and 0.4 < np.sqrt(np.mean(np.square(z))) < 1.6, np.round(z, 1)


def test_the_source_labels_biased_frames_and_passes_its_own_check(frames):
    made = labelled(frames)
    assert verdict(made).passed and verdict(made).facts["limit"] == 4.5
    assert made.frames.first_order.shape == made.frames.second_order.shape == frames.positions.shape
    np.testing.assert_array_equal(made.frames.forces, frames.forces)
    rows = {row["label"]: row["noise floor"] for row in made.report["noise"]}
    assert set(rows) == {"forces", "first_order", "second_order"}
    again = labelled(frames)
    np.testing.assert_array_equal(made.frames.first_order, again.frames.first_order)


def test_the_noise_floor_is_that_of_quadrature(frames):
    """The mean variance of the force at given x over the biased density."""
    from cg_assets.sampling.model_potential.quadrature import exact_noise_floor

    floor = labelled(frames).noise.floor
    assert abs(floor.value - exact_noise_floor(landscape(), BIAS)) < 4 * floor.standard_error + 0.01 * floor.value
    assert floor.standard_error < 0.03 * floor.value


MISTAKES = {
    "sign of the first order": lambda f: {"first_order": -f.first_order},
    "sign of the second order": lambda f: {"second_order": -f.second_order},
    "kT in the place of kT²": lambda f: {"first_order": f.first_order * ORIGIN},
    "half of the second order": lambda f: {"second_order": 0.5 * f.second_order},
}


@pytest.fixture(scope="module")
def many():
    return labelled(drawn(2 * COUNT, seed=4))


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_wrong_labels_are_caught(many, mistake):
    made = many
    found = verdict(made, replace(made.frames, **MISTAKES[mistake](made.frames)))
    assert not found.passed, found.message


def test_energies_that_do_not_belong_to_the_forces_are_caught(frames):
    """The energy with the bias, the force with it, a bias that is not declared, energies of other frames."""
    energy = frames.potential_energy + frames.bias_energy
    assert not verdict(labelled(replace(frames, potential_energy=energy))).passed
    pull = bias_force(frames.positions.astype(float)).astype(np.float32)
    assert not verdict(labelled(replace(frames, forces=frames.forces + pull))).passed
    assert not verdict(labelled(frames, definition=None)).passed
    assert not verdict(labelled(replace(frames, potential_energy=1.1 * frames.potential_energy))).passed
    other = np.random.default_rng(0).permutation(COUNT)
    assert not verdict(labelled(replace(frames, potential_energy=frames.potential_energy[other]))).passed


def test_frames_of_another_temperature_are_caught(frames):
    """Refused where they are declared; by the check where they are not."""
    hot = drawn(COUNT, seed=5, temperature=1.5)
    with pytest.raises(TrainingError, match=r"a frame is at temperature 1.5, and these labels are those at 1.2"):
        labelled(hot)
    assert not verdict(labelled(replace(hot, temperature=frames.temperature))).passed


def test_the_check_of_right_labels_is_standard_normal():
    """z of 24 fields of forces and of both orders over 20 data sets."""
    z = []
    for seed in range(20):
        part = drawn(4000, seed=100 + seed)
        x, f = (array[:, 0, 0].astype(float) for array in (part.positions, part.forces))
        block = np.arange(len(x)) % 200
        found = product_labels(x, f, part.potential_energy, block, ORIGIN, 1.0, seed)
        test = energy_test(x, f, found, bias_force(x), block, ORIGIN, 1.0, seed)
        z.append(np.concatenate(list(test.values())))
    assert 0.75 < np.sqrt(np.mean(np.square(z))) < 1.25 and np.abs(z).max() < 4.5


def test_what_cannot_be_labelled_is_refused(frames):
    with pytest.raises(TrainingError, match="need the forces and potential energies"):
        labelled(replace(frames, potential_energy=None))
    with pytest.raises(TrainingError, match="frames are too few for conditional means"):
        labelled(frames.select(np.arange(300)))
    with pytest.raises(TrainingError, match="1 independent stretches are too few"):
        x = frames.positions[:, 0, 0].astype(float)
        product_labels(x, x, x, np.zeros(COUNT, int), ORIGIN, 1.0, 0)


def test_systems_without_such_labels_are_refused():
    content = yaml.safe_load(SYSTEM)
    content["mapping"]["coordinates"]["y"] = {"y": 1.0}
    with pytest.raises(ValueError, match="is product, which is for one CG coordinate, not 2"):
        SystemSpec.model_validate(content)
