"""How potentials depend on temperature: exact derivatives, the forms at their origin, thermodynamic closure."""

import math

import pytest
import torch

from cg_assets.potentials.thermal.temperature import TemperatureDependence

ORIGIN = 420.0
ANCHORS = [250.0, 400.0, 520.0, 700.0]
SERIES = ["taylor_temperature", "taylor_inverse_temperature", "constant_heat_capacity"]
CONFIGS = [{"form": form, "origin": ORIGIN, "order": order} for form in SERIES for order in (0, 1, 2)]
CONFIGS.append({"form": "anchored", "anchors": ANCHORS})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config['form']}-{config.get('order', '')}")
def test_derivatives_agree_with_finite_differences(config):
    """To 1e-6 of the size of each function. Across an anchor the second derivative jumps: none is asked for there."""
    dependence = TemperatureDependence(config)
    kelvin = torch.tensor([200.0, 251.0, 333.0, 420.0, 519.0, 640.0, 720.0], dtype=torch.float64)
    step = 0.01
    below, here, above = (dependence.coefficients(kelvin + shift) for shift in (-step, 0.0, step))
    assert here.shape == (3, len(kelvin), dependence.n_terms)
    for order in (0, 1):
        scale = here[order + 1].abs().max().clamp_min(1e-12)
        assert float(((above[order] - below[order]) / (2 * step) - here[order + 1]).abs().max() / scale) < 1e-6


@pytest.mark.parametrize("form", SERIES)
def test_terms_are_the_scaled_derivatives_at_the_origin(form):
    dependence = TemperatureDependence({"form": form, "origin": ORIGIN})
    at_origin = dependence.coefficients(torch.tensor([ORIGIN]))[:, 0]
    expected = torch.diag(torch.tensor([1.0, 1 / ORIGIN, 1 / ORIGIN**2], dtype=torch.float64))
    torch.testing.assert_close(at_origin, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("form", SERIES)
def test_forms_reproduce_what_they_are_exact_for(form):
    """A function of T that lies in the form's own space is given back at all T."""
    exact = {
        "taylor_temperature": lambda t: 3.0 - 0.02 * t + 4e-5 * t**2,
        "taylor_inverse_temperature": lambda t: 3.0 - 500.0 / t + 9e4 / t**2,
        "constant_heat_capacity": lambda t: 3.0 - 0.2 * t - 0.03 * (t * math.log(t / ORIGIN) - (t - ORIGIN)),
    }[form]
    h = 0.5
    value = exact(ORIGIN)
    first = (exact(ORIGIN + h) - exact(ORIGIN - h)) / (2 * h)
    second = (exact(ORIGIN + h) - 2 * value + exact(ORIGIN - h)) / h**2
    terms = torch.tensor([value, ORIGIN * first, ORIGIN**2 * second], dtype=torch.float64)
    dependence = TemperatureDependence({"form": form, "origin": ORIGIN})
    for kelvin in (250.0, 400.0, 700.0):
        predicted = float(dependence.coefficients(torch.tensor([kelvin]))[0, 0] @ terms)
        assert predicted == pytest.approx(exact(kelvin), abs=2e-5)


def test_constant_heat_capacity_has_it():
    dependence = TemperatureDependence({"form": "constant_heat_capacity", "origin": ORIGIN})
    kelvin = torch.linspace(200, 800, 7).double()
    heat_capacity = -kelvin * (dependence.coefficients(kelvin)[2] @ torch.tensor([5.0, 2.0, -7.0]).double())
    torch.testing.assert_close(heat_capacity, torch.full_like(kelvin, 7.0 / ORIGIN))


def test_anchors_are_met_and_continued_linearly():
    """Cubics are interpolated exactly between anchors; W and dW/dT have no jump where the outer ones end."""
    dependence = TemperatureDependence({"form": "anchored", "anchors": ANCHORS})
    knots = torch.tensor(ANCHORS).double()
    cubic = lambda t: 2.0 - 0.01 * t + 3e-5 * t**2 - 2e-8 * t**3  # noqa: E731
    slope = lambda t: -0.01 + 6e-5 * t - 6e-8 * t**2  # noqa: E731
    terms = torch.cat([cubic(knots), dependence.origin * slope(knots)])
    kelvin = torch.linspace(250, 700, 46).double()
    value, first, _ = dependence.coefficients(kelvin) @ terms
    torch.testing.assert_close(value, cubic(kelvin), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(first, slope(kelvin), rtol=1e-12, atol=1e-12)
    outside = torch.tensor([200.0, 800.0]).double()
    value, first, second = dependence.coefficients(outside) @ terms
    ends = knots[[0, -1]]
    torch.testing.assert_close(value, cubic(ends) + slope(ends) * (outside - ends))
    torch.testing.assert_close(first, slope(ends))
    assert not second.any()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"form": "quadratic"}, "must be one of"),
        ({"form": "taylor_temperature"}, "origin is 0.0"),
        ({"form": "taylor_temperature", "origin": 300, "order": 3}, "order is 3"),
        ({"form": "anchored", "anchors": [300]}, "at least two"),
        ({"form": "anchored", "anchors": [400, 300]}, "rising"),
    ],
)
def test_wrong_configs_are_explained(config, message):
    with pytest.raises(ValueError, match=message):
        TemperatureDependence(config)


def test_temperatures_must_be_positive():
    with pytest.raises(ValueError, match="must be positive"):
        TemperatureDependence({"form": "taylor_temperature", "origin": 300}).coefficients(torch.tensor([300.0, 0.0]))
