"""Exact quadrature against analytic results, a reference calculation of the Müller-Brown PMF, and direct descent."""

from itertools import pairwise

import numpy as np
import pytest
from small_systems import landscape_of

from cg_assets.core.errors import SystemSpecError
from cg_assets.sampling.model_potential.landscape import Landscape
from cg_assets.sampling.model_potential.quadrature import (
    basin_labels,
    equilibrium_draws,
    exact_noise_floor,
    exact_pmf,
    potential_minima,
)
from cg_assets.systems import load_system

BIAS = "-4*exp(-(x-32)**2/50)"


@pytest.fixture(scope="module")
def muller_brown() -> Landscape:
    return landscape_of(load_system("muller_brown"))


def landscape(expression: str, domain: dict, weights: dict, temperature: float = 1.0) -> Landscape:
    system = load_system("muller_brown")
    model = system.model.model_copy(
        update={"coordinates": list(domain), "expression": expression, "domain": domain},
    )
    mapping = system.mapping.model_copy(update={"coordinates": {"s": weights}})
    return landscape_of(system.model_copy(update={"model": model, "mapping": mapping, "temperature": temperature}))


class TestExactPMF:
    @pytest.mark.parametrize(
        ("x", "expected"),
        [(12, 7.628), (15, 5.136), (18, 2.490), (20, 1.004), (22, 0.126), (25, 0.489), (28, 3.151), (30, 5.117),
         (32, 5.282), (34, 5.212), (36, 4.923), (38, 4.311), (40, 3.728), (42, 3.553), (45, 4.714), (48, 8.550)],
    )  # fmt: skip
    def test_muller_brown_agrees_with_an_independent_calculation(self, muller_brown, x, expected):
        assert exact_pmf(muller_brown, [float(x)]).pmf[0] == pytest.approx(expected, abs=6e-4)

    def test_muller_brown_landmarks(self, muller_brown):
        exact = exact_pmf(muller_brown, np.arange(0.0, 60.001, 0.05))
        assert exact.grid[np.argmin(exact.pmf)] == pytest.approx(23.05, abs=0.051)
        middle, right = (exact.grid > 25) & (exact.grid < 40), exact.grid > 36
        assert exact.pmf[middle].max() == pytest.approx(5.299, abs=1e-3)
        assert exact.grid[middle][np.argmax(exact.pmf[middle])] == pytest.approx(31.20, abs=0.051)
        assert exact.pmf[right].min() == pytest.approx(3.540, abs=1e-3)
        assert exact.population(-np.inf, 31.2) == pytest.approx(0.962, abs=5e-4)
        assert exact.population(30, 35) == pytest.approx(0.0048, abs=1.5e-4)
        assert exact.population(0, 60) == pytest.approx(1.0, abs=1e-6)

    def test_population_of_the_biased_ensemble(self, muller_brown):
        assert exact_pmf(muller_brown, np.arange(0.0, 60.001, 0.05), BIAS).population(30, 35) == pytest.approx(
            0.0675, abs=1.5e-3
        )

    def test_diagonal_landmarks(self):
        exact = exact_pmf(landscape_of(load_system("muller_brown_diagonal")), np.arange(-12, 30, 0.02))
        middle, right = (exact.grid > -2) & (exact.grid < 8), exact.grid > 18
        assert exact.grid[np.argmin(exact.pmf)] == pytest.approx(-5.65, abs=0.06)
        assert exact.pmf[middle].max() == pytest.approx(9.14, abs=0.005)
        assert exact.grid[middle][np.argmax(exact.pmf[middle])] == pytest.approx(1.16, abs=0.06)
        assert exact.pmf[right].min() == pytest.approx(4.18, abs=0.005)
        assert exact.grid[right][np.argmin(exact.pmf[right])] == pytest.approx(23.46, abs=0.06)

    @pytest.mark.parametrize("name", ["muller_brown", "muller_brown_diagonal"])
    def test_mean_force_is_minus_the_slope_of_the_pmf(self, name):
        grid = np.arange(-10, 28, 0.02) if "diagonal" in name else np.arange(14, 47, 0.02)
        exact = exact_pmf(landscape_of(load_system(name)), grid)
        assert np.gradient(exact.pmf, grid)[1:-1] == pytest.approx(-exact.mean_force[1:-1], abs=2e-4)

    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_gaussian_in_three_dimensions(self, temperature):
        """V = q·K·q/2 and s = w·q: A = s²/(2 w·K⁻¹·w), var(f|s) = kT (b·K·b - 1/(w·K⁻¹·w)) with b = w/(w·w)."""
        stiffness = np.array([[2.0, 0.6, -0.2], [0.6, 1.5, 0.3], [-0.2, 0.3, 1.0]])
        weights = np.array([1.0, -0.5, 2.0])
        model = landscape(
            "x**2 + 0.75*y**2 + 0.5*z**2 + 0.6*x*y - 0.2*x*z + 0.3*y*z",
            {"x": (-7, 7), "y": (-8, 8), "z": (-8, 8)},
            dict(zip("xyz", weights, strict=True)),
            temperature,
        )
        grid = np.linspace(-3, 3, 7)
        exact = exact_pmf(model, grid)
        spring = 1.0 / (weights @ np.linalg.inv(stiffness) @ weights)
        force_map = weights / (weights @ weights)
        assert exact.pmf == pytest.approx(0.5 * spring * grid**2, abs=1e-6)
        assert exact.mean_force == pytest.approx(-spring * grid, abs=1e-6)
        noise = temperature * (force_map @ stiffness @ force_map - spring)
        assert exact.label_standard_deviation == pytest.approx(np.sqrt(noise), abs=1e-6)
        assert exact_noise_floor(model) == pytest.approx(noise, abs=1e-6)
        assert exact.density == pytest.approx(
            np.sqrt(spring / (2 * np.pi * temperature)) * np.exp(-0.5 * spring * grid**2 / temperature), rel=1e-5
        )

    def test_one_coordinate_has_no_label_noise(self):
        model = landscape("(q**2 - 1)**2", {"q": (-3, 3)}, {"q": 2.0})
        exact = exact_pmf(model, [-2.0, 0.0, 1.0])
        assert exact.pmf == pytest.approx([0.0, 1.0, 0.5625], abs=1e-6)
        assert exact.mean_force[2] == pytest.approx(-4 * 0.5 * (0.25 - 1) / 2, abs=1e-7)
        assert exact_noise_floor(model) == pytest.approx(0.0, abs=1e-12)

    def test_no_weight_outside_the_domain(self, muller_brown):
        assert exact_pmf(muller_brown, [70.0]).pmf[0] == np.inf

    def test_a_domain_that_cuts_weight_off_is_refused(self):
        model = landscape("x**2", {"x": (-1, 3)}, {"x": 1.0})
        with pytest.raises(SystemSpecError, match=r"model\.domain\.x.*widen"):
            exact_pmf(model, [0.0])

    def test_a_molecule_is_refused(self):
        with pytest.raises(SystemSpecError, match="model_potential"):
            exact_pmf(landscape_of(load_system("capped_alanine_implicit")), [0.0])


def test_noise_floors_of_muller_brown(muller_brown):
    assert exact_noise_floor(muller_brown) == pytest.approx(0.420, abs=6e-4)
    assert exact_noise_floor(muller_brown, BIAS) == pytest.approx(0.408, abs=6e-4)


class TestEquilibriumDraws:
    @pytest.mark.parametrize("bias", [None, BIAS])
    def test_histogram_follows_the_exact_density(self, muller_brown, bias):
        n = 200_000
        draws = equilibrium_draws(muller_brown, n, np.random.default_rng(3), bias)
        exact = exact_pmf(muller_brown, np.arange(8, 56.001, 0.05), bias)
        edges = np.concatenate([[8], np.arange(15, 46.1, 0.5), [56]])
        expected = np.array([exact.population(a, b) for a, b in pairwise(edges)])
        counts = np.histogram(draws[:, 0], edges)[0]
        chi2 = ((counts - n * expected) ** 2 / (n * expected)).sum()
        assert abs(chi2 - len(expected)) < 4 * np.sqrt(2 * len(expected))  # z of 4

    def test_labels_of_draws_have_the_exact_mean_and_noise(self, muller_brown):
        n = 100_000
        draws = equilibrium_draws(muller_brown, n, np.random.default_rng(5))
        force = -muller_brown.gradient(draws)[:, 0]
        near = np.abs(draws[:, 0] - 23.0) < 0.1
        exact = exact_pmf(muller_brown, [23.0])
        z = (force[near].mean() - exact.mean_force[0]) * np.sqrt(near.sum()) / exact.label_standard_deviation[0]
        assert abs(z) < 4
        assert force[near].std() == pytest.approx(exact.label_standard_deviation[0], rel=4 / np.sqrt(2 * near.sum()))

    def test_three_dimensions_and_a_bias_as_a_function(self):
        model = landscape("2*x**2 + 0.5*(y-x)**2 + z**2", {"x": (-5, 5), "y": (-7, 7), "z": (-5, 5)}, {"x": 1.0})
        n = 50_000
        draws = equilibrium_draws(model, n, np.random.default_rng(0), lambda cv: 0.5 * cv["s"] ** 2)
        covariance = np.linalg.inv(np.array([[6.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))
        assert np.cov(draws.T) == pytest.approx(covariance, abs=5 * np.sqrt(2 / n))

    def test_seeded(self, muller_brown):
        one, two = (equilibrium_draws(muller_brown, 100, np.random.default_rng(1)) for _ in range(2))
        assert np.array_equal(one, two) and one.shape == (100, 2)


class TestBasins:
    def test_minima_are_stationary_and_sorted(self, muller_brown):
        positions, energies = potential_minima(muller_brown)
        assert positions == pytest.approx(np.array([[23.07, 31.07], [41.90, 8.46], [31.18, 15.48]]), abs=0.01)
        assert np.all(np.diff(energies) > 0)
        assert np.abs(muller_brown.gradient(positions)).max() < 1e-4

    def test_labels_agree_with_descent_in_tiny_steps(self, muller_brown):
        points = np.random.default_rng(2).uniform([18, 0], [48, 36], (60, 2))
        model, (positions, _) = muller_brown, potential_minima(muller_brown)
        walkers = points.copy()
        for _ in range(900):
            gradient = model.gradient(walkers)
            walkers -= np.minimum(0.2, 0.1 / np.linalg.norm(gradient, axis=1).clip(1e-9))[:, None] * gradient
        reached = np.linalg.norm(walkers[:, None] - positions, axis=2)
        settled = reached.min(axis=1) < 1.0
        assert settled.mean() > 0.9
        assert np.array_equal(basin_labels(muller_brown, points)[settled], reached.argmin(axis=1)[settled])

    def test_minima_label_themselves(self, muller_brown):
        positions, _ = potential_minima(muller_brown)
        assert basin_labels(muller_brown, positions).tolist() == [0, 1, 2]

    def test_symmetric_double_well_in_one_dimension(self):
        model = landscape("(q**2 - 1)**2 - 0.1*q", {"q": (-3, 3)}, {"q": 1.0})
        points = np.array([-2.9, -0.5, -0.026, -0.024, 0.5, 9.0])  # the divide is at -0.02506
        assert basin_labels(model, points[:, None]).tolist() == [1, 1, 1, 0, 0, 0]
