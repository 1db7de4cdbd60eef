"""Splines from response labels: known potentials are recovered within their errors; comparators; what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from thermal_models import CONFIG, EDGE, ORIGIN, fit_splines, known_potential, labels, liquid

from cg_assets.core.errors import TrainingError
from cg_assets.potentials.thermal_splines.solve import STRENGTHS
from cg_assets.training.response import Deviation, ResponseWeights, deviation, deviations, method

TEMPERATURES = [300.0, ORIGIN, 600.0]


@pytest.fixture(autouse=True)
def _no_graphs():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def known():
    return known_potential()


@pytest.fixture(scope="module")
def fitted(known):
    return fit_splines(CONFIG, labels(known, 30, TEMPERATURES))


def test_known_potential_is_recovered_within_errors(known, fitted):
    """Forces on new frames at temperatures between and beyond: z of all components from the fit's own covariance.

    27 coefficients of each order are free, fewer where regularisation holds them, so that the root mean square of z has
    a standard error of 0.15 to 0.4, the largest for the second order.
    """
    places = torch.as_tensor(liquid(4, seed=50))
    box = torch.full((3,), EDGE).double()
    _, designs, _ = fitted.module.force_functions(places, box)
    covariance = torch.as_tensor(fitted.covariance).reshape(3, fitted.module.n_functions, 3, -1)
    for kelvin in (300.0, 450.0, 650.0):
        weights = fitted.module.dependence.coefficients(torch.tensor([kelvin]))[:, 0]
        for order, name in enumerate(("forces", "first_order", "second_order")):
            mine, theirs = (getattr(each.response(places, kelvin, box), name) for each in (fitted.module, known))
            spread = torch.einsum("p,paqb,q->ab", weights[order], covariance, weights[order])
            error = torch.einsum("fnxa,ab,fnxb->fnx", designs, spread, designs).sqrt()
            z = (mine - theirs) / error
            assert 0.5 < float(z.square().mean().sqrt()) < (1.6, 1.6, 2.2)[order], (kelvin, name)
            assert float((mine - theirs).std()) < 0.1 * float(theirs.std()), (kelvin, name)
    assert fitted.strengths[0] < 1e-3
    assert all(abs(fitted.misfit[name]) < 0.03 * noise**2 for name, noise in (("forces", 10.0), ("first_order", 0.06)))
    assert fitted.held_out_loss / fitted.noise_floor == pytest.approx(1.0, abs=0.05)


def test_deviation_leaves_the_error_of_the_potential(known, fitted):
    """Labels with four times the noise, frames that it was not fitted to: excess is that of exact labels."""
    noisy, exact = (labels(known, 20, TEMPERATURES, seed=7, noise=noise) for noise in (4.0, 0.0))
    for name, found in deviations(fitted.module, noisy).items():
        truth = deviations(fitted.module, exact)[name]
        assert truth.noise_floor == 0.0
        assert abs(found.excess.z(truth.excess)) < 4, name
        assert found.reduced_chi_square == pytest.approx(1.0, abs=0.1 if name != "mean_energy" else 0.5)
    assert deviations(fitted.module, exact)["forces"].explained > 0.98


def test_deviation_of_known_numbers():
    """A potential that is wrong by 3 everywhere, labels with noise 2: excess 9 within its error."""
    generator = np.random.default_rng(0)
    noise = 2.0 * generator.standard_normal((400, 5, 3))
    found = deviation(3.0 + noise, noise, np.full_like(noise, 2.0), np.arange(400) // 2)
    assert isinstance(found, Deviation)
    assert abs(found.excess.z(9.0)) < 4
    assert found.excess.standard_error == pytest.approx(np.sqrt((2 * 16 + 4 * 9 * 4) / noise.size), rel=0.2)
    assert found.root.value == pytest.approx(3.0, abs=0.2)


def test_noisy_labels_count_less(known):
    """Half of the labels are nonsense with errors to match: the fit hardly changes."""
    targets = labels(known, 16, [ORIGIN])
    spoilt = np.arange(16) % 2 == 0
    forces, error = targets.forces.copy(), targets.forces_error.copy()
    forces[spoilt] += 1000.0 * np.random.default_rng(3).standard_normal(forces[spoilt].shape)
    error[spoilt] = 1000.0
    weights = ResponseWeights(first_order=0, second_order=0)
    config = CONFIG | {"temperature_dependence": {"form": "taylor_temperature", "origin": ORIGIN, "order": 0}}
    fit = fit_splines(config, replace(targets, forces=forces, forces_error=error), weights)
    exact = labels(known, 10, [ORIGIN], seed=9, noise=0.0)
    assert deviations(fit.module, exact)["forces"].explained > 0.97


def test_anchored_form_is_fitted_too(known):
    config = CONFIG | {"temperature_dependence": {"form": "anchored", "anchors": [300.0, 450.0, 600.0]}}
    fit = fit_splines(config, labels(known, 20, [300.0, 450.0, 600.0]))
    between = deviations(fit.module, labels(known, 8, [360.0, 540.0], seed=3, noise=0.0))
    assert between["forces"].explained > 0.85
    assert between["first_order"].explained > 0.8


def test_comparators_on_the_same_data(known, fitted):
    """At the ends of the range forces of T_0 alone are the worst; energy matching has the first order.

    Close contacts, which few frames have, make up most of the squared errors, so that a factor of two means nothing.
    """
    targets = labels(known, 30, TEMPERATURES)
    dependence = CONFIG["temperature_dependence"]
    ends = labels(known, 10, [300.0, 600.0], seed=8, noise=0.0)
    middle = labels(known, 10, [ORIGIN], seed=8, noise=0.0)
    error = {"response": deviations(fitted.module, ends)["forces"].excess.value}
    # One energy for each frame teaches little: energy matching gets more frames, with less noise.
    many = labels(known, 150, [ORIGIN], seed=2, noise=0.2)
    for name in ("force_matching", "multi_temperature", "energy_matching"):
        way = method(name, many if name == "energy_matching" else targets, dependence)
        assert set(way.data.targets.temperature) == ({ORIGIN} if name != "multi_temperature" else set(TEMPERATURES))
        fit = fit_splines(CONFIG | {"temperature_dependence": way.dependence}, way.data.targets, way.data.weights)
        error[name] = deviations(fit.module, ends)["forces"].excess.value
        assert deviations(fit.module, middle)["forces"].explained > 0.95, name
    assert error["response"] < 3 * error["multi_temperature"]
    assert 3 * max(error["response"], error["multi_temperature"]) < error["force_matching"]
    assert error["energy_matching"] < error["force_matching"]
    with pytest.raises(TrainingError, match="one of response"):
        method("guessing", targets, dependence)
    with pytest.raises(TrainingError, match="there are labels at 300, 420, 600 K"):
        method("force_matching", targets, {"form": "taylor_temperature", "origin": 350.0})


def test_same_data_same_splines(known):
    one, two = (fit_splines(CONFIG, labels(known, 4, TEMPERATURES)) for _ in range(2))
    assert torch.equal(one.module.coefficients, two.module.coefficients)
    assert set(one.strengths) <= set(STRENGTHS)


def test_what_cannot_be_fitted_is_refused(known):
    with pytest.raises(TrainingError, match="at least 2, label more frames"):
        fit_splines(CONFIG, labels(known, 1, TEMPERATURES))
    with pytest.raises(TrainingError, match="beyond half the smallest box edge"):
        fit_splines(CONFIG | {"pair_cutoff": 0.7}, labels(known, 2, TEMPERATURES))
    with pytest.raises(TrainingError, match="not all of them 0"):
        ResponseWeights(0, 0, 0, 0)
