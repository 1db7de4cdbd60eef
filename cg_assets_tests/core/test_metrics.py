"""Surfaces and figures of merit: exact values, errors against repeated experiments, missing basins."""

import math

import numpy as np
import pytest

from cg_assets.biases import Windows
from cg_assets.biases.reweighting import bias_weights, pooled_batches, umbrella_weights, window_fault
from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.metrics import (
    barrier_height,
    basin_free_energy,
    basin_population,
    jensen_shannon_divergence,
    jsd,
    pmf_error,
    pmf_rmse,
    squared_log_error,
)
from cg_assets.core.statistics.surfaces import FreeEnergySurface, free_energy_surface

BINS = Bins.between([(-np.pi, np.pi)] * 2, 30)


def angles(seed, n=4000, right=0.3):
    """Draws from two wells in two angles, `right` of them at positive φ."""
    rng = np.random.default_rng(seed)
    centre = np.where(rng.random(n)[:, None] < right, [1.0, 0.8], [-1.4, 1.0])
    return centre + rng.normal(scale=0.35, size=(n, 2))


def surface(seed, **settings):
    values = angles(seed, **settings)
    return free_energy_surface(values, BINS, 2.494, np.arange(len(values)) % 40, unit="kJ/mol")


class TestDivergences:
    def test_exact_values(self):
        assert jensen_shannon_divergence([1, 0], [0, 1]) == pytest.approx(np.log(2))
        assert jensen_shannon_divergence([1, 3], [2, 6]) == 0.0
        assert jensen_shannon_divergence([0.5, 0.5], [1, 0]) == pytest.approx(
            0.5 * (0.5 * np.log(2 / 3) + 0.5 * np.log(2)) + 0.5 * np.log(4 / 3)
        )
        p, q = np.array([0.2, 0.8]), np.array([0.4, 0.6])
        expected = 0.3 * np.log(2) ** 2 + 0.7 * np.log(4 / 3) ** 2
        assert squared_log_error(p, q) == pytest.approx(expected)
        assert squared_log_error(7 * p, q) == pytest.approx(expected)

    def test_empty_bins(self):
        assert squared_log_error([1, 0], [1, 0]) == 0.0
        assert squared_log_error([1, 0], [0.98, 0.02]) == pytest.approx(
            0.01 * np.log(0.02 / 1e-10) ** 2 + 0.99 * np.log(0.98) ** 2
        )

    def test_a_missed_basin_of_two_percent_shows_in_the_pmf_error_only(self):
        """The case of capped alanine: population 0.0212 missed, JSD 0.012 to 0.016, PMF error about 2.5."""
        reference, missing = surface(0, n=400_000, right=0.0212), surface(1, n=400_000, right=0.0)
        assert 0.005 < jsd(missing, reference).value < 0.02
        assert 1.5 < pmf_error(missing, reference).value < 3.5
        again = surface(2, n=400_000, right=0.0212)
        assert jsd(again, reference).value < 0.001 and pmf_error(again, reference).value < 0.03

    @pytest.mark.parametrize("metric", [jsd, pmf_error])
    def test_errors_agree_with_repeated_experiments(self, metric):
        bins = Bins.between([(-3, 3)], 12)
        other = np.exp(-0.3 * (bins.centres[0] - 0.4) ** 2)
        estimates = []
        for seed in range(60):
            values = np.random.default_rng(seed).normal(size=4000)
            estimates.append(metric(free_energy_surface(values, bins, 1.0, np.arange(4000) % 40), other))
        scatter = np.std([e.value for e in estimates], ddof=1)
        assert np.mean([e.standard_error for e in estimates]) == pytest.approx(scatter, rel=4 / np.sqrt(120))

    def test_the_error_of_a_sparse_surface_is_on_the_safe_side(self):
        other = surface(999, n=40_000, right=0.6).probability + 1e-4
        estimates = [pmf_error(surface(seed), other) for seed in range(40)]
        scatter = np.std([e.value for e in estimates], ddof=1)
        assert 0.9 * scatter < np.mean([e.standard_error for e in estimates]) < 2 * scatter

    def test_the_error_of_the_reference_counts(self):
        one, other = surface(0), surface(1, right=0.5)
        assert jsd(one, other).standard_error > 1.2 * jsd(one, other.probability).standard_error


class TestSurfaces:
    def test_free_energy_of_a_harmonic_well(self):
        values = np.random.default_rng(0).normal(size=200_000)
        result = free_energy_surface(values, Bins.between([(-2, 2)], 20), 2.0, np.arange(200_000) % 50)
        centres = result.bins.centres[0]
        z = (result.free_energy - result.free_energy.mean()) - (centres**2 - (centres**2).mean())
        assert (z / result.standard_error)[1:-1] == pytest.approx(0.0, abs=4.5)
        assert result.probability.sum() == pytest.approx(1.0)

    def test_weights_take_a_bias_out(self):
        rng = np.random.default_rng(1)
        values = rng.normal(scale=2.0, size=200_000)  # V = x²/2 with kT 1 and a bias -3x²/8 leave x²/8
        weights = bias_weights(-0.375 * values**2, 1.0)
        assert weights.max() == 1.0
        result = free_energy_surface(values, Bins.between([(-2, 2)], 20), 1.0, np.arange(200_000) % 50, weights=weights)
        centres = result.bins.centres[0]
        assert result.free_energy - result.free_energy.mean() == pytest.approx(
            0.5 * (centres**2 - (centres**2).mean()), abs=0.05
        )

    def test_errors_of_probabilities_are_multinomial_for_independent_frames(self):
        p = surface(3, n=40_000)
        some = p.probability > 0.005
        expected = np.sqrt(p.probability[some] / 40_000)
        assert np.mean(p.probability_error[some] / expected) == pytest.approx(1.0, abs=0.12)

    def test_marginal(self):
        p = surface(0)
        assert p.marginal(0).probability == pytest.approx(p.probability.sum(axis=1))
        assert p.marginal(1).probability == pytest.approx(p.probability.sum(axis=0))
        assert p.marginal(1).bins.shape == (30,)

    def test_empty_bins_are_infinite_with_unknown_error(self):
        p = surface(0)
        empty = p.probability == 0
        assert empty.any() and np.isinf(p.free_energy[empty]).all() and np.isnan(p.standard_error[empty]).all()
        assert p.free_energy.min() == 0.0

    def test_pool_gives_each_run_the_same_weight(self):
        one, two = surface(0, n=1000), surface(1, n=9000)
        pooled = FreeEnergySurface.pool([one, two])
        assert pooled.probability == pytest.approx(0.5 * (one.probability + two.probability))
        assert len(pooled.blocks) == 80
        with pytest.raises(ValueError, match="bins"):
            FreeEnergySurface.pool([one, one.marginal(0)])

    def test_frames_outside_are_left_out(self):
        result = free_energy_surface([0.1, 0.2, 5.0, 1.0], Bins.between([(0, 1)], 2), 1.0, [0, 1, 2, 3])
        assert result.blocks.sum(axis=0).tolist() == [2.0, 1.0]
        with pytest.raises(ValueError, match="inside the bins"):
            free_energy_surface([7.0], Bins.between([(0, 1)], 2), 1.0, [0])


class TestOneDimension:
    grid = np.linspace(-2, 2, 401)
    double_well = 5 * (np.linspace(-2, 2, 401) ** 2 - 1) ** 2 + 0.5 * np.linspace(-2, 2, 401)

    def test_rmse_ignores_a_constant_only(self):
        assert pmf_rmse(self.grid, self.double_well + 3, self.double_well, (-1, 1)).value == pytest.approx(0, abs=1e-12)
        tilted = self.double_well + 0.3 * self.grid
        assert pmf_rmse(self.grid, tilted, self.double_well, (-1, 1)).value == pytest.approx(0.3 / np.sqrt(3), rel=1e-3)

    def test_rmse_error_from_covariance_and_from_replicates(self):
        rng = np.random.default_rng(0)
        tilts = 0.3 + 0.05 * rng.normal(size=2000)
        replicates = self.double_well + tilts[:, None] * self.grid
        covariance = 0.05**2 * np.outer(self.grid, self.grid)
        one = pmf_rmse(self.grid, replicates[0], self.double_well, (-1, 1), covariance=covariance)
        assert one.standard_error == pytest.approx(0.05 / np.sqrt(3), rel=1e-2)
        many = pmf_rmse(self.grid, replicates.mean(axis=0), self.double_well, (-1, 1), replicates=replicates)
        assert many.standard_error == pytest.approx(0.05 / np.sqrt(3 * 2000), rel=0.1)

    def test_rmse_refuses_what_is_not_sampled(self):
        hole = np.where(self.grid > 0.5, np.inf, self.double_well)
        with pytest.raises(ValueError, match="not finite"):
            pmf_rmse(self.grid, hole, self.double_well, (-1, 1))
        with pytest.raises(ValueError, match="grid points"):
            pmf_rmse(self.grid, hole, self.double_well, (7, 8))

    def test_barrier(self):
        wells = (-1.5, -0.5), (0.5, 1.5)
        over = barrier_height(self.grid, self.double_well, *wells, covariance=np.eye(401) * 0.01)
        back = barrier_height(self.grid, self.double_well, *reversed(wells))
        assert over.value == pytest.approx(5.506, abs=0.01) and back.value == pytest.approx(4.506, abs=0.01)
        assert over.standard_error == pytest.approx(np.sqrt(0.02))
        hole = np.where(np.abs(self.grid) < 0.1, np.nan, self.double_well)
        assert np.isinf(barrier_height(self.grid, hole, *wells).value)
        with pytest.raises(ValueError, match="no finite PMF"):
            barrier_height(self.grid, self.double_well, (5, 6), (0.5, 1.5))


class TestBasins:
    def test_population_and_free_energy_against_repeated_experiments(self):
        populations, energies = [], []
        for seed in range(60):
            variables = {"phi": angles(seed)[:, 0]}
            replica = np.arange(4000) % 40
            populations.append(basin_population(variables, {"phi": (0, np.pi)}, replica))
            energies.append(basin_free_energy(variables, {"phi": (0, np.pi)}, replica, thermal_energy=2.0))
        for estimates, exact, error in (
            (populations, 0.3, np.sqrt(0.21 / 4000)),
            (energies, 2 * np.log(7 / 3), 2 / np.sqrt(0.21 * 4000)),
        ):
            values = np.array([e.value for e in estimates])
            assert abs(values.mean() - exact) < 4 * error / np.sqrt(60) + 0.004
            assert np.mean([e.standard_error for e in estimates]) == pytest.approx(error, rel=0.1)
            assert values.std(ddof=1) == pytest.approx(error, rel=4 / np.sqrt(120))

    def test_correlated_replicas_widen_the_error(self):
        inside = (np.arange(50) % 4 == 0).astype(float)
        variables, replica = {"x": np.repeat(inside, 100)}, np.repeat(np.arange(50), 100)
        estimate = basin_population(variables, {"x": (0.5, 2)}, replica)
        assert estimate.value == pytest.approx(0.26)
        assert estimate.standard_error == pytest.approx(np.sqrt(0.26 * 0.74 / 49), rel=1e-6)

    def test_a_basin_that_nobody_visited(self):
        variables, replica = {"x": np.zeros(100)}, np.arange(100)
        estimate = basin_population(variables, {"x": (1, 2)}, replica)
        assert estimate.value == 0.0 and estimate.standard_error == pytest.approx(1 / 50)
        assert basin_free_energy(variables, {"x": (1, 2)}, replica, thermal_energy=1.0).value == np.inf

    def test_weights(self):
        variables = {"x": np.tile([0.0, 1.0], 100)}
        weights = np.tile([1.0, 3.0], 100)
        estimate = basin_population(variables, {"x": (0.5, 2)}, np.arange(200), weights=weights)
        assert estimate.value == pytest.approx(0.75)


def window_frames(x, window, replica=None):
    """Frames of one variable x in umbrella windows, in order of time."""
    n = len(x)
    return Frames(
        positions=np.asarray(x, np.float32)[:, None, None],
        time=np.arange(n, dtype=float),
        replica=np.asarray(window if replica is None else replica, np.int32),
        temperature=np.ones(n),
        start=np.zeros(n, np.int32),
        probe=np.zeros(n, bool),
        window=np.asarray(window, np.int32),
        collective_variables={"x": np.asarray(x)},
    )


def draws_in_windows(centers, constant, per_window, seed):
    """A unit normal density under windows: normal with variance 1/(1 + k) and mean c k/(1 + k)."""
    window = np.repeat(np.arange(len(centers)), per_window)
    mean = np.asarray(centers)[window] * constant / (1 + constant)
    draws = np.random.default_rng(seed).normal(mean, 1 / math.sqrt(1 + constant))
    bias = Windows([{"x": float(center)} for center in centers], constant)
    return bias, window_frames(draws, window)


@pytest.mark.parametrize("per_window", [200, 500])
def test_windows_that_do_not_touch_are_named_and_have_no_weights(per_window):
    """Two windows 28 standard deviations apart used to get a ratio of weights of 1.13."""
    centers = [-2.5, -1.5, 26.0, 27.0]
    bias, frames = draws_in_windows(centers, 4.0, per_window, 0)
    fault = window_fault(bias, frames, 1.0)
    assert "window 1 (x -1.5) and window 2 (x 26)" in fault and "window 0" not in fault and "force_constant" in fault
    with pytest.raises(SamplingError, match="do not touch"):
        umbrella_weights(bias, frames, 1.0)
    with pytest.raises(SamplingError, match="do not touch"):
        pooled_batches([frames], 1.0, [bias])
    weights = umbrella_weights(bias, frames, 1.0, apart=True)
    assert weights[frames.window < 2].sum() == pytest.approx(weights[frames.window >= 2].sum())


def test_windows_of_batches_that_close_each_others_gaps_have_weights():
    parts = [draws_in_windows(centers, 4.0, 400, seed) for seed, centers in enumerate([[-2.0, 2.0], [-1.0, 0.0, 1.0]])]
    for bias, frames in parts[:1]:
        assert window_fault(bias, frames, 1.0)
    pooled = pooled_batches([frames for _, frames in parts], 1.0, [bias for bias, _ in parts])
    x, weights = pooled.collective_variables["x"], bias_weights(pooled.bias_energy, 1.0)
    assert np.average(x**2, weights=weights) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("spacing, per_window", [(0.5, 50), (1.0, 100), (1.3, 1000)])
def test_chains_of_windows_that_touch_are_never_refused(spacing, per_window):
    for seed in range(25):
        bias, frames = draws_in_windows(np.arange(-2.6, 2.61, spacing), 4.0, per_window, seed)
        assert window_fault(bias, frames, 1.0) == ""


@pytest.mark.parametrize("batches", [2, 3, 7])
@pytest.mark.parametrize("turn", [0.0, 1e-15], ids=["equal", "equal but for a digit"])
def test_windows_that_are_the_same_touch(batches, turn):
    """One window in several batches: each frame belongs to each of them alike, which is no slow change."""
    parts = [draws_in_windows([0.3 * (1.0 + turn * seed)], 4.0, 300, seed) for seed in range(batches)]
    pooled = pooled_batches([frames for _, frames in parts], 1.0, [bias for bias, _ in parts])
    x, weights = pooled.collective_variables["x"], bias_weights(pooled.bias_energy, 1.0)
    alone = umbrella_weights(parts[0][0], window_frames(x, np.zeros(len(x), int)), 1.0)
    assert weights / weights.sum() == pytest.approx(alone / alone.sum(), rel=1e-6)


def test_one_visit_to_the_next_window_is_no_overlap():
    """Many frames of one slow excursion are worth one independent frame."""
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(-3, 0.3, 3000), rng.normal(3, 0.3, 3000)])
    x[1000:1100] = np.interp(np.arange(100), [0, 30, 70, 99], [-3, 2.5, 2.5, -3])
    bias = Windows([{"x": -3.0}, {"x": 3.0}], 11.0)
    assert "window 0 (x -3) and window 1 (x 3)" in window_fault(bias, window_frames(x, np.repeat([0, 1], 3000)), 1.0)


def test_umbrella_windows_are_joined_by_mbar():
    centers = np.linspace(-2.5, 2.5, 11)
    bias = Windows([{"x": center} for center in centers], 4.0)
    window = np.tile(np.arange(11), 300)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(20):
        # A unit normal density under windows of k = 4: normal with variance 1/(1 + k) and mean c k/(1 + k).
        draws = rng.normal(0.8 * centers[window], math.sqrt(0.2))
        weights = umbrella_weights(bias, window_frames(draws, window), 1.0)
        shares.append(weights[draws > 1.5].sum() / weights.sum())
    error = np.std(shares, ddof=1) / math.sqrt(len(shares))
    exact = 0.5 * math.erfc(1.5 / math.sqrt(2))
    assert error < 0.05 * exact
    assert abs(np.mean(shares) - exact) < 4 * error


def test_batches_of_different_biases_are_pooled_each_with_its_own_weights():
    # p ∝ exp(-x²/2) sampled under -0.375 x² (standard deviation 2) and under +1.5 x² + 40 (standard deviation 1/2)
    rng = np.random.default_rng(1)
    batches = []
    for size, spread, bias in ((20_000, 2.0, lambda x: -0.375 * x**2), (60_000, 0.5, lambda x: 1.5 * x**2 + 40.0)):
        values = rng.normal(scale=spread, size=size)
        batches.append(
            Frames(
                positions=values.astype(np.float32)[:, None, None],
                time=np.arange(size, dtype=float),
                replica=np.zeros(size, np.int32),
                temperature=np.ones(size),
                start=np.zeros(size, np.int32),
                probe=np.zeros(size, bool),
                bias_energy=bias(values),
            )
        )
    pooled = pooled_batches(batches, 1.0)
    weights = bias_weights(pooled.bias_energy, 1.0)
    assert set(pooled.replica) == {0, 1}
    shares = [weights[pooled.replica == number].sum() for number in (0, 1)]
    assert math.isclose(shares[1] / shares[0], 3.0, rel_tol=1e-9)
    inside = np.abs(pooled.positions[:, 0, 0]) < 1.0  # well sampled by both
    for rows in (inside, inside & (pooled.replica == 0), inside & (pooled.replica == 1)):
        x = pooled.positions[rows, 0, 0].astype(float)
        assert abs(np.average(x**2, weights=weights[rows]) - 0.29113) < 0.006  # of a normal cut at one deviation
