"""Thermal response estimators against quadrature of a solvable model.

The model has six independent hidden coordinates s_j with energies V_j and forces g_j: u = sum V_j, f_j = g_j(s_j), so
that F, F_1, F_2, <u> and C_W are one-dimensional integrals. Errors come from 20 blocks, hence z has Student's
distribution with 19 degrees of freedom, of root mean square 1.06. The generators are fixed.
"""

import numpy as np
import pytest

from cg_assets.core.units import BOLTZMANN
from cg_assets.labels.thermal.frame_checks import check_frame
from cg_assets.labels.thermal.response import response_of_weights, second_order_by_regression, thermal_response
from cg_assets.labels.thermal.samples import ConditionalSamples

GRID = np.linspace(-3, 3, 1201)
NUMBERS = np.arange(6)[:, None]
ENERGY = (
    (2 + 0.5 * NUMBERS) * (GRID**2 - 1) ** 2 + (0.6 + 0.2 * NUMBERS) * GRID + 1.5 * np.cos((2 + 0.3 * NUMBERS) * GRID)
)
FORCE = 20 * np.sin(1.3 * GRID + 0.3 * NUMBERS) + 4 * NUMBERS * GRID**2
QUANTITIES = ("forces", "first_order", "second_order", "mean_energy", "heat_capacity")


def density(temperature):
    weight = np.exp(-(ENERGY - ENERGY.min(axis=1, keepdims=True)) / (BOLTZMANN * temperature))
    return weight / weight.sum(axis=1, keepdims=True)


def mean_force(temperature):
    return (density(temperature) * FORCE).sum(axis=1)


def exact(temperature):
    """By quadrature; derivatives by differences of the mean force, not by the formulas under test."""
    step = 0.5
    low, middle, high = (mean_force(temperature + shift) for shift in (-step, 0.0, step))
    energy = [(density(temperature + shift) * ENERGY).sum() for shift in (-step, 0.0, step)]
    return {
        "forces": middle,
        "first_order": (high - low) / (2 * step),
        "second_order": (high - 2 * middle + low) / step**2,
        "mean_energy": energy[1],
        "heat_capacity": (energy[2] - energy[0]) / (2 * step),
    }


def draw(generator, ladder, n_times, correlation=0.0, runs=2):
    """Samples of a chain that stays with probability `correlation` and else draws afresh."""
    parts = []
    for temperature in ladder:
        cumulative = np.cumsum(density(temperature), axis=1)
        for run in range(runs):
            energy, forces = np.zeros(n_times), np.zeros((n_times, 6))
            for j in range(6):
                fresh = np.minimum(np.searchsorted(cumulative[j], generator.random(n_times)), len(GRID) - 1)
                stays = generator.random(n_times) < correlation
                stays[0] = False
                chosen = fresh[np.maximum.accumulate(np.where(stays, 0, np.arange(n_times)))]
                energy += ENERGY[j][chosen]
                forces[:, j] = FORCE[j][chosen]
            parts.append((np.full(n_times, temperature), energy, forces, np.full(n_times, run), np.arange(n_times)))
    temperature, energy, forces, run, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ConditionalSamples(temperature, energy, forces.reshape(-1, 2, 3), run, 0.1 * time)


def z_scores(estimates, references):
    """Deviations from quadrature in standard errors, per quantity, over seeds, temperatures and components."""
    return {
        name: np.concatenate(
            [
                (
                    (getattr(estimate.value, name) - np.reshape(reference, getattr(estimate.value, name).shape))
                    / getattr(estimate.error, name)
                ).ravel()
                for estimate, reference in zip(estimates, [r[name] for r in references], strict=True)
            ]
        )
        for name in QUANTITIES
    }


def test_one_temperature_agrees_with_quadrature_within_its_errors():
    at = 400.0
    generator = np.random.default_rng(1)
    estimates = [thermal_response(draw(generator, [at], 500), [at]) for _ in range(150)]
    scores = z_scores(estimates, [exact(at)] * 150)
    for name in ("forces", "first_order", "second_order"):  # 900 independent numbers: 2.4 %
        assert 0.9 < np.sqrt((scores[name] ** 2).mean()) < 1.2, name
        assert abs(scores[name].mean()) < 0.2, name
    for name in ("mean_energy", "heat_capacity"):  # 150 numbers: 6 %
        assert 0.85 < np.sqrt((scores[name] ** 2).mean()) < 1.25, name


def test_correlated_samples_count_for_what_they_are_worth():
    generator = np.random.default_rng(2)
    estimates = [thermal_response(draw(generator, [400.0], 1500, correlation=0.8), [400.0]) for _ in range(60)]
    scores = z_scores(estimates, [exact(400.0)] * 60)
    for name in ("forces", "first_order", "second_order"):  # 360 numbers: 4 %
        assert 0.85 < np.sqrt((scores[name] ** 2).mean()) < 1.2, name
    effective = np.mean([estimate.effective_samples[0] for estimate in estimates])
    assert effective == pytest.approx(3000 * (1 - 0.8) / (1 + 0.8), rel=0.1)


def test_cumulants_of_few_samples_are_unbiased():
    """From 30 independent samples plain moments would be low by 3 % and 10 %."""
    generator = np.random.default_rng(3)
    at, n = np.array([500.0]), 30
    uniform = np.full((1, n), 1.0 / n)
    estimates = [
        response_of_weights(draw(generator, at, n, runs=1), uniform, at, np.array([float(n)])) for _ in range(1500)
    ]
    reference = exact(500.0)
    for name, least in (("heat_capacity", 2.0), ("first_order", 0.0), ("second_order", 0.0)):
        values = np.stack([getattr(estimate, name)[0].ravel() for estimate in estimates])
        error = values.std(axis=0) / np.sqrt(len(values))
        z = (values.mean(axis=0) - reference[name]) / error
        assert np.sqrt((z**2).mean()) < 1.8, (name, z)
        plain = (values.mean(axis=0) * (n - 1) / n - reference[name]) / error
        assert abs(plain).max() > least, (name, plain)  # what the statistics of this test would have shown


def test_all_temperatures_together_by_mbar():
    ladder, at = [250.0, 300, 360, 430, 520, 600, 700], [300.0, 400.0, 550.0]
    generator = np.random.default_rng(4)
    estimates = [thermal_response(draw(generator, ladder, 150), at) for _ in range(10)]
    reference = {name: np.stack([exact(t)[name] for t in at]) for name in QUANTITIES}
    scores = z_scores(estimates, [reference] * 10)
    for name in ("forces", "first_order", "second_order"):  # three correlated times 60 numbers: about 7 %
        assert 0.8 < np.sqrt((scores[name] ** 2).mean()) < 1.2, name
    alone = [thermal_response(draw(generator, [400.0], 150), [400.0]) for _ in range(10)]
    for name in ("first_order", "second_order"):
        together = np.mean([getattr(estimate.error, name)[1] ** 2 for estimate in estimates])
        single = np.mean([getattr(estimate.error, name)[0] ** 2 for estimate in alone])
        assert together < 0.5 * single, name  # neighbours in temperature are worth more than as many samples again


def test_temperatures_that_do_not_touch_are_named():
    """Without a word, weights between them were once whatever the solver stopped at."""
    samples = draw(np.random.default_rng(6), [30.0, 33.0, 600.0, 660.0], 200)
    with pytest.raises(ValueError, match=r"33 K and 600 K have [0-9.]+ independent samples in common"):
        thermal_response(samples, [600.0])
    check = check_frame(samples)
    assert check.common[1] < 3.0 < 20.0 < min(check.common[0], check.common[2])
    assert "33 and 600 K do not touch" in check.fault(100.0) and check.sound_from(100.0) > 33.0


def test_a_run_of_three_samples_leaves_the_others_what_they_are_worth():
    generator = np.random.default_rng(7)
    long = draw(generator, [400.0], 2000, correlation=0.9)
    brief = draw(generator, [400.0], 3, runs=1)
    names = ("temperature", "energy", "forces", "time")
    both = ConditionalSamples(
        run=np.append(long.run, brief.run + 2),
        **{name: np.concatenate([getattr(part, name) for part in (long, brief)]) for name in names},
    )
    assert long.statistical_inefficiency()[0] == pytest.approx(19.0, rel=0.3)
    assert both.statistical_inefficiency() == pytest.approx(long.statistical_inefficiency(), rel=0.02)


def test_second_order_from_the_slope_of_the_first():
    at = np.linspace(250.0, 700.0, 10)
    generator = np.random.default_rng(5)
    estimates = [thermal_response(draw(generator, at, 60), at) for _ in range(5)]
    slopes = [second_order_by_regression(estimate) for estimate in estimates]
    reference = np.stack([exact(t)["second_order"] for t in at]).reshape(10, 2, 3)
    inner = slice(1, -1)
    z = np.stack([(value - reference)[inner] / error[inner] for value, error in slopes])
    assert 0.8 < np.sqrt((z**2).mean()) < 1.25
    # by MBAR the third moment has seen all temperatures already: neither estimate is much the better
    regression = np.mean([error[inner] ** 2 for _, error in slopes])
    moments = np.mean([estimate.error.second_order[inner] ** 2 for estimate in estimates])
    assert regression < 1.5 * moments


def test_regression_of_exact_first_orders_is_biased_by_little():
    at = np.linspace(250.0, 700.0, 10)
    estimate = thermal_response(draw(np.random.default_rng(6), at, 20), at)
    smooth = np.stack([exact(t)["first_order"] for t in at]).reshape(10, 2, 3)
    estimate.value.first_order[:] = smooth
    value, _ = second_order_by_regression(estimate)
    reference = np.stack([exact(t)["second_order"] for t in at]).reshape(10, 2, 3)
    error = np.sqrt(((value - reference)[2:-2] ** 2).mean() / (reference[2:-2] ** 2).mean())
    assert error < 0.12  # where parabolas reach 100 K to both sides of a curve that bends twice within 450 K


def test_too_little_is_refused():
    samples = draw(np.random.default_rng(7), [300.0, 400.0], 30)
    with pytest.raises(ValueError, match="200 K is outside the temperatures that were sampled, 300 to 400 K"):
        thermal_response(samples, [200.0])
    with pytest.raises(ValueError, match="one block"):
        thermal_response(draw(np.random.default_rng(7), [300.0], 30, runs=1), [300.0], n_blocks=1)
    with pytest.raises(ValueError, match="too few for a third moment"):
        thermal_response(draw(np.random.default_rng(7), [300.0], 1), [300.0])
    with pytest.raises(ValueError, match="three temperatures"):
        second_order_by_regression(thermal_response(samples, [300.0, 400.0]))
