"""Noise floors, binned mean forces and integrated PMFs against exact quadrature and known noise."""

import numpy as np
import pytest
from small_systems import landscape_of

from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.estimates import (
    Estimate,
    autocorrelation_time,
    effective_samples,
    independent_blocks,
    jackknife,
    time_blocks,
)
from cg_assets.core.statistics.metrics import pmf_rmse
from cg_assets.core.statistics.noise import bin_labels, conditional_noise, integrate_mean_force
from cg_assets.sampling.model_potential.quadrature import equilibrium_draws, exact_noise_floor, exact_pmf
from cg_assets.systems import load_system

BIAS = "-4*exp(-(x-32)**2/50)"


def autoregressive(rng, shape, memory):
    """AR(1) series of unit variance along the last axis; τ = 1/2 + memory / (1 - memory)."""
    series = rng.normal(size=shape)
    for i in range(1, shape[-1]):
        series[..., i] = memory * series[..., i - 1] + np.sqrt(1 - memory**2) * series[..., i]
    return series


class TestBinnedLabels:
    @pytest.fixture(scope="class")
    @classmethod
    def draws(cls):
        system = load_system("muller_brown")
        points = equilibrium_draws(landscape_of(system), 200_000, np.random.default_rng(0), BIAS)
        return points[:, 0], -landscape_of(system).gradient(points)[:, 0], np.arange(len(points)) % 1000

    def test_noise_floor_of_the_biased_density(self, draws):
        labels = bin_labels(*draws, bins=Bins.between([(0, 60)], 100), unit="kT²")
        exact = exact_noise_floor(landscape_of(load_system("muller_brown")), BIAS)
        assert abs(labels.noise_floor.z(exact)) < 4
        assert labels.noise_floor.standard_error < 0.005
        assert labels.noise_floor.unit == "kT²"

    def test_wide_bins_do_not_count_the_slope_of_the_force_as_noise(self, draws):
        labels = bin_labels(*draws, bins=Bins.between([(0, 60)], 30))
        assert labels.noise_floor.value == pytest.approx(
            exact_noise_floor(landscape_of(load_system("muller_brown")), BIAS), rel=0.03
        )

    def test_mean_force_and_its_error(self, draws):
        labels = bin_labels(*draws, bins=Bins.between([(16, 45)], 100))
        exact = exact_pmf(landscape_of(load_system("muller_brown")), labels.centres)
        assert labels.count.min() > 30
        z = (labels.mean_force - exact.mean_force) / labels.standard_error
        assert (z**2).mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / 100))
        many = labels.count > 1000
        assert np.sqrt(labels.variance[many]) == pytest.approx(exact.label_standard_deviation[many], rel=0.1)

    def test_integrated_pmf_and_its_error(self, draws):
        pmf = integrate_mean_force(bin_labels(*draws, bins=Bins.between([(15, 46)], 100)))
        exact = exact_pmf(landscape_of(load_system("muller_brown")), pmf.grid).pmf
        error = (pmf.pmf - pmf.pmf.mean()) - (exact - exact.mean())
        assert pmf_rmse(pmf.grid, pmf.pmf, exact, (15, 46)).value == pytest.approx(0.016, abs=0.016)
        assert np.abs(error / pmf.standard_error).max() < 4

    def test_errors_follow_the_replicas(self):
        """Each replica carries its own constant error of unit variance: 50 of them, however many frames."""
        rng = np.random.default_rng(1)
        replica = np.repeat(np.arange(50), 2000)
        variable = rng.uniform(0, 1, len(replica))
        force = rng.normal(size=50)[replica]
        labels = bin_labels(variable, force, replica, bins=Bins.between([(0, 1)], 5))
        assert labels.standard_error == pytest.approx(1 / np.sqrt(50), rel=0.3)
        pmf = integrate_mean_force(labels)
        assert pmf.standard_error[[0, -1]] == pytest.approx(0.4 / np.sqrt(50), rel=0.3)

    def test_blocks_of_time_follow_the_correlation(self):
        rng = np.random.default_rng(2)
        force = autoregressive(rng, (2, 20_000), 0.9).ravel()
        variable, replica = rng.uniform(0, 1, len(force)), np.repeat([0, 1], 20_000)
        labels = bin_labels(variable, force, replica, bins=Bins.between([(0, 1)], 1))
        assert labels.standard_error[0] == pytest.approx(np.sqrt(19 / 40_000), rel=0.25)

    def test_empty_bins_are_left_out(self):
        rng = np.random.default_rng(3)
        variable = np.concatenate([rng.uniform(0, 2, 500), rng.uniform(3, 8, 5000)])
        labels = bin_labels(variable, np.ones(5500), np.arange(5500), bins=Bins.between([(0, 10)], 20))
        assert np.isnan(labels.mean_force[4])
        pmf = integrate_mean_force(labels)
        assert (pmf.grid[0], pmf.grid[-1]) == (3.25, 7.75)
        assert pmf.pmf == pytest.approx(7.75 - pmf.grid, abs=1e-9)
        with pytest.raises(ValueError, match="four neighbouring bins"):
            integrate_mean_force(bin_labels(variable, np.ones(5500), np.arange(5500), bins=Bins.between([(0, 10)], 3)))


class TestConditionalNoise:
    @pytest.mark.parametrize("memory", [0.0, 0.9])
    def test_known_noise(self, memory):
        """Beads of standard deviation 1, 2, 3, and configurations that differ in noise by a known factor."""
        results = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            scale = rng.uniform(0.5, 1.5, 60)
            noise = autoregressive(rng, (60, 3, 3, 200), memory).transpose(0, 3, 1, 2)
            mean = rng.normal(size=(60, 1, 3, 3))
            forces = mean + scale[:, None, None, None] * noise * np.array([1.0, 2.0, 3.0])[:, None]
            result = conditional_noise(forces, "kJ²")
            results.append(result)
            expected = np.mean([1, 4, 9]) * (scale**2).mean()
            assert result.noise_floor.value == pytest.approx(expected, rel=0.12)
            assert 200 / result.effective_samples == pytest.approx(1 + 2 * memory / (1 - memory), rel=0.25)
            z = (result.mean_force - mean[:, 0]) / np.sqrt(result.mean_force_variance)[..., None]
            assert (z**2).mean() == pytest.approx(1.0, abs=0.35)
            assert result.bead_noise_floor / (scale**2).mean() == pytest.approx([1, 4, 9], rel=0.15)
        ratio = np.array([r.noise_floor.value for r in results]) / (14 / 3 * 13 / 12)  # mean of scale² is 13/12
        assert ratio.mean() == pytest.approx(1.0, abs=0.1)
        errors = np.array([r.noise_floor.standard_error for r in results]) / (14 / 3)
        assert errors.mean() == pytest.approx(ratio.std(ddof=1), rel=1.0)

    def test_a_slow_part_under_much_fast_noise_is_in_the_error_of_the_mean(self):
        """Fast noise of 1 and slow noise of 0.2 with a memory of 15 samples: runs differ as their errors predict."""
        squares, naive = [], []
        for seed in range(4):
            rng = np.random.default_rng(seed)
            runs = [
                rng.normal(size=(16, 300, 10, 3))
                + 0.2 * autoregressive(rng, (16, 10, 3, 300), 1 - 1 / 15).transpose(0, 3, 1, 2)
                for _ in range(2)
            ]
            one, two = (conditional_noise(run) for run in runs)
            together = autocorrelation_time(runs[0].transpose(0, 2, 3, 1).reshape(-1, 300))
            assert together < 1.0  # which is all that the sum of the autocorrelation sees
            error = np.sqrt(one.mean_force_variance + two.mean_force_variance)[..., None]
            squares.append(np.mean(((one.mean_force - two.mean_force) / error) ** 2))
            naive.append(np.mean((one.mean_force - two.mean_force) ** 2) / (2 * one.noise_floor.value / 300))
        assert np.mean(naive) > 1.6
        assert np.sqrt(np.mean(squares)) == pytest.approx(1.0, abs=0.1)  # of 1,920 numbers

    def test_one_configuration_has_no_error(self):
        result = conditional_noise(np.random.default_rng(0).normal(size=(1, 1000, 2, 3)))
        assert result.noise_floor.value == pytest.approx(1.0, rel=0.1)
        assert np.isnan(result.noise_floor.standard_error)

    def test_wrong_input_is_refused(self):
        with pytest.raises(ValueError, match="n_configurations"):
            conditional_noise(np.zeros((3, 4, 5)))

    def test_samples_that_are_too_short_say_so(self):
        slow = np.cumsum(np.random.default_rng(0).normal(size=(2, 30, 2, 3)), axis=1)
        assert conditional_noise(slow).effective_samples == 2.0
        assert conditional_noise(np.random.default_rng(0).normal(size=(2, 30, 2, 3))).effective_samples > 2.0


class TestEstimates:
    def test_text(self):
        assert str(Estimate(0.02123, 0.00041)) == "0.02123 ± 0.00041"
        assert str(Estimate(5.2994, 0.012, "kT")) == "5.299 ± 0.012 kT"
        assert str(Estimate(1234.5, 21.0, "kJ/mol")) == "1234 ± 21 kJ/mol"
        assert str(Estimate(0.42, 0.0)) == "0.42"
        assert str(Estimate(np.inf, np.nan, "kJ/mol")) == "∞" and str(Estimate(-np.inf, 1.0)) == "-∞"
        assert str(Estimate(np.nan, np.nan, "kJ/mol")) == "unknown"
        assert str(Estimate(-0.000001, 0.0002, "nm")) == "0.00000 ± 0.00020 nm"
        assert str(Estimate(-0.0, 0.0)) == "0" and str(Estimate(-0.3, np.nan)) == "-0.3 ± ?"

    def test_json(self):
        estimate = Estimate(1.5, 0.25, "kT")
        assert Estimate.from_json(estimate.to_json()) == estimate
        assert Estimate(np.inf, np.nan).to_json() == {"value": None, "standard_error": None, "unit": ""}

    @pytest.mark.parametrize("memory", [0.0, 0.5, 0.95])
    def test_autocorrelation_time(self, memory):
        series = autoregressive(np.random.default_rng(0), (20, 5000), memory)
        assert autocorrelation_time(series) == pytest.approx(0.5 + memory / (1 - memory), rel=0.15)

    def test_constant_series(self):
        assert autocorrelation_time(np.ones((2, 10))) == 0.5

    def test_series_of_unequal_length_each_count_with_their_length(self):
        """A run of 3 frames once cut two of 5,000 to the shortest: 1/2 instead of 40."""
        memory = 1 - 1 / 40.0
        long, other, brief = *autoregressive(np.random.default_rng(3), (2, 5000), memory), [0.3, -0.1, 0.4]
        both = autocorrelation_time([long, other])
        assert both == autocorrelation_time(np.stack([long, other])) == pytest.approx(39.5, rel=0.25)
        assert autocorrelation_time([long, other, np.array(brief)]) == pytest.approx(both, rel=0.02)
        assert autocorrelation_time([np.array(brief), long, other, np.zeros(1)]) == pytest.approx(both, rel=0.02)

    def test_many_short_series_of_unequal_length(self):
        """Their own means hide part of the correlation, which is put back for each length."""
        whole = autoregressive(np.random.default_rng(4), (600, 90), 0.8)
        pieces = [row[: 30 + 20 * (number % 4)] for number, row in enumerate(whole)]
        assert autocorrelation_time(pieces) == pytest.approx(0.5 + 0.8 / 0.2, rel=0.1)

    def test_jackknife_of_a_mean_is_the_textbook_error(self):
        values = np.random.default_rng(0).normal(size=40)
        blocks = np.stack([values, np.ones(40)], axis=1)
        value, error = jackknife(lambda total: total[0] / total[1], blocks)
        assert value == pytest.approx(values.mean()) and error == pytest.approx(values.std(ddof=1) / np.sqrt(40))
        assert np.isnan(jackknife(lambda total: total[0], blocks[:1])[1])

    def test_blocks(self):
        replica, time = np.tile(np.arange(100), 5), np.repeat(np.arange(5), 100)
        block = independent_blocks(replica, time, 50)
        assert np.array_equal(np.bincount(block), np.full(50, 10)) and np.array_equal(block, replica // 2)
        few = independent_blocks(np.repeat([7, 3], 50), np.tile(np.arange(50), 2), 10)
        assert np.array_equal(np.bincount(few), np.full(10, 10)) and few[0] == 5 and few[50] == 0
        assert time_blocks([0, 0, 0, 0], [3, 2, 1, 0], 2).tolist() == [1, 1, 0, 0]

    def test_effective_samples(self):
        assert effective_samples([1, 1, 1, 1]) == 4.0
        assert effective_samples([1, 0, 0]) == 1.0
        assert effective_samples([0.0]) == 0.0
