"""The conditional-equilibration check: right data pass at the nominal rate, a slow hidden mode fails."""

import numpy as np
import pytest

from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.equilibration import conditional_equilibration, halves_in_time


def walkers(seed, n_replicas, n_frames, switch, correlation=0.9):
    """A CG coordinate x, autocorrelated, and a hidden sign y that flips with probability `switch` in each frame.

    f = -x + y; y starts at +1 for group 0 and -1 for group 1. With a switching y both groups forget their start.
    """
    rng = np.random.default_rng(seed)
    x = np.empty((n_frames, n_replicas))
    x[0] = rng.normal(size=n_replicas)
    for i in range(1, n_frames):
        x[i] = correlation * x[i - 1] + np.sqrt(1 - correlation**2) * rng.normal(size=n_replicas)
    group = np.arange(n_replicas) % 2
    if switch >= 0.5:
        hidden = rng.choice([-1.0, 1.0], size=x.shape)
    else:
        hidden = (1 - 2 * group) * np.cumprod(np.where(rng.random(x.shape) < switch, -1.0, 1.0), axis=0)
    force = -x + hidden + 0.3 * rng.normal(size=x.shape)
    replica = np.broadcast_to(np.arange(n_replicas), x.shape)
    time = np.broadcast_to(np.arange(n_frames)[:, None], x.shape)
    return tuple(a.ravel() for a in (x, force, np.broadcast_to(group, x.shape), replica, time))


BINS = Bins.between([(-2.5, 2.5)], 25)


class TestManyReplicas:
    def test_right_data_pass_at_the_nominal_rate(self):
        results = [conditional_equilibration(*walkers(seed, 100, 100, 0.5), bins=BINS) for seed in range(40)]
        z = np.array([result.z_rms for result in results])
        assert all(result.verdict == "passed" for result in results)
        spread = np.mean([result.z_rms_spread for result in results])
        assert abs((z**2).mean() - 1) < 4 * 2 * spread / np.sqrt(40)  # z of 4; the variance of z² is 4 spread²
        assert z.std() == pytest.approx(spread, rel=4 / np.sqrt(80))

    def test_a_slow_hidden_mode_fails(self):
        result = conditional_equilibration(*walkers(0, 100, 100, 0.001), bins=BINS)
        assert result.verdict == "failed" and not result.passed
        assert result.z_rms > 8
        assert result.difference_rms == pytest.approx(2 * 0.91, rel=0.2)

    def test_slow_but_forgotten_passes(self):
        """The mode flips every 50 frames, after 200 frames of burn-in: correlated, but without memory of the start."""
        for seed in range(5):
            x, force, group, replica, time = walkers(seed, 64, 400, 0.02)
            late = time >= 200
            result = conditional_equilibration(*(a[late] for a in (x, force, group, replica, time)), bins=BINS)
            assert result.passed, result.reason

    def test_force_slopes_in_wide_bins_do_not_fail(self):
        """Two groups that fill wide bins from different sides have the same mean force at the same x."""
        rng = np.random.default_rng(1)
        group = np.repeat([0, 1], 20_000)
        x = rng.normal(np.where(group == 0, -0.7, 0.7), 0.5)
        force = -10 * x + rng.normal(size=x.shape)
        replica = np.arange(40_000) // 100
        result = conditional_equilibration(x, force, group, replica, bins=Bins.between([(-2, 2)], 4))
        assert result.passed and result.z_rms < 1.6

    def test_three_groups_of_which_one_is_wrong(self):
        x, force, _, replica, time = walkers(3, 90, 100, 0.5)
        group = replica % 3
        assert conditional_equilibration(x, force, group, replica, time, bins=BINS).passed
        result = conditional_equilibration(x, force + 0.6 * (group == 2), group, replica, time, bins=BINS)
        assert result.verdict == "failed" and result.z.shape[0] == 3

    def test_replicas_that_agree_in_all_bins_count_once(self):
        """Each replica has its own constant error: all bins err together, so 25 bins are worth about one number."""
        rng = np.random.default_rng(4)
        limits, effective, failed = [], [], 0
        for seed in range(30):
            x, force, group, replica, time = walkers(seed, 60, 300, 0.5, correlation=0.0)
            own = rng.normal(size=60)[replica] * 5
            result = conditional_equilibration(x, force + own, group, replica, time, bins=BINS)
            limits.append(result.limit)
            effective.append(result.effective)
            failed += result.verdict == "failed"
        assert np.mean(effective) < 2.0 and np.mean(limits) > 2.3
        assert failed <= 1

    def test_a_fault_in_one_bin_of_many_fails(self):
        x, force, group, replica, time = walkers(6, 200, 100, 0.5)
        fault = 0.5 * group * ((x > 0.2) & (x < 0.4))
        result = conditional_equilibration(x, force + fault, group, replica, time, bins=BINS)
        assert result.verdict == "failed" and result.z_rms < result.limit and result.largest_z > result.largest_limit

    def test_two_dimensions_and_two_components(self):
        rng = np.random.default_rng(5)
        n = 60_000
        variables = rng.uniform(-np.pi, np.pi, size=(n, 2))
        replica = np.arange(n) // 300
        forces = np.sin(variables) + rng.normal(size=(n, 2))
        bins = Bins.between([(-np.pi, np.pi)] * 2, 8)
        result = conditional_equilibration(variables, forces, replica % 2, replica, bins=bins)
        assert result.passed and result.z.shape == (1, 2, 8, 8) and result.judged == 128
        assert result.coverage.compared == pytest.approx(1.0)
        forces[:, 1] += 0.4 * (replica % 2) * (variables[:, 0] > 0)
        assert not conditional_equilibration(variables, forces, replica % 2, replica, bins=bins).passed


class TestFewReplicas:
    def test_blocks_of_time_pass_right_data(self):
        z = []
        for seed in range(16):
            result = conditional_equilibration(*walkers(seed, 2, 12_000, 0.02), bins=Bins.between([(-2, 2)], 8))
            assert result.passed, result.reason
            z.append(result.z_rms**2)
        assert np.mean(z) == pytest.approx(1.0, abs=0.5)

    def test_blocks_of_time_fail_a_stuck_mode(self):
        result = conditional_equilibration(*walkers(0, 2, 6_000, 0.0), bins=Bins.between([(-2, 2)], 8))
        assert result.verdict == "failed" and result.z_rms > 10

    @pytest.mark.parametrize("n_replicas", [14, 18, 26])
    def test_replicas_that_are_too_few_for_clusters_are_cut_in_time(self, n_replicas):
        """Groups of 8 or 9 replicas once were neither cut nor enough, however long they were."""
        result = conditional_equilibration(*walkers(3, n_replicas, 3_000, 0.2), bins=Bins.between([(-3.5, 3.5)], 14))
        assert result.passed, result.reason


class TestCannotBeJudged:
    def test_one_start(self):
        x, force, _, replica, time = walkers(0, 20, 50, 0.5)
        result = conditional_equilibration(x, force, np.zeros(len(x)), replica, time)
        assert result.verdict == "cannot be judged" and "probe" in result.reason and not result.passed
        assert result.to_json()["z_rms"] is None

    def test_groups_that_never_meet(self):
        x, force, group, replica, time = walkers(0, 40, 50, 0.5)
        result = conditional_equilibration(x + 20 * group, force, group, replica, time)
        assert result.verdict == "cannot be judged" and "no bin" in result.reason

    def test_no_group_has_enough_replicas(self):
        x, force, group, replica, time = walkers(0, 16, 20, 0.5)
        assert conditional_equilibration(x, force, group, replica, time).verdict == "cannot be judged"


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match="same frames"):
        conditional_equilibration(np.zeros(3), np.zeros(4), np.zeros(3), np.zeros(3))


class TestHalvesInTime:
    def test_stuck_replicas_with_the_right_weights_pass_and_drift_fails(self):
        x, force, group, replica, time = walkers(2, 100, 200, 0.0)
        half = halves_in_time(replica, time)
        assert conditional_equilibration(x, force, group, replica, time, bins=BINS).verdict == "failed"
        assert conditional_equilibration(x, force, half, replica, time, bins=BINS).passed
        drifting = force + 0.5 * time / time.max()
        assert conditional_equilibration(x, drifting, half, replica, time, bins=BINS).verdict == "failed"

    def test_order_of_frames_does_not_matter(self):
        replica, time = np.repeat([3, 1], 10), np.tile(np.arange(10), 2)
        shuffled = np.random.default_rng(0).permutation(20)
        assert np.array_equal(halves_in_time(replica, time), np.tile(np.repeat([0, 1], 5), 2))
        assert np.array_equal(
            halves_in_time(replica[shuffled], time[shuffled]), halves_in_time(replica, time)[shuffled]
        )


def basins(seed, visits, fault=0.0, sparse=False):
    """Two groups of 40 replicas: group 1 is left of 0, group 0 to the right of it but for a fraction of visits there.

    The mean force is cos(x) and the same for both, but for a fault of group 0 on the left.
    """
    rng = np.random.default_rng(seed)
    replica = np.repeat(np.arange(80), 25 if sparse else 100)
    group = replica % 2
    left = np.where(group == 1, True, rng.random(len(replica)) < visits)
    x = np.where(left, rng.uniform(-2.5, 0.0, len(replica)), rng.uniform(0.0, 2.5, len(replica)))
    right_too = (group == 1) & (rng.random(len(replica)) < visits)
    x = np.where(right_too, rng.uniform(0.0, 2.5, len(replica)), x)
    force = np.cos(x) + rng.normal(size=len(x)) + fault * (group == 0) * (x < 0)
    return x, force, group, replica


class TestCoverage:
    """What was not compared does not pass."""

    def test_basins_that_one_group_holds_alone_cannot_be_judged(self):
        """4 % of the frames lie where both groups are, and agree: once that was enough."""
        x, force, group, replica = basins(0, 0.0)
        x = np.where(np.arange(len(x)) % 25 == 0, np.random.default_rng(1).uniform(-0.1, 0.1, len(x)), x)
        result = conditional_equilibration(x, np.cos(x) + force - force.mean(), group, replica, bins=BINS, names=["x"])
        assert result.verdict == "cannot be judged" and result.judged > 0 and result.z_rms < result.limit
        assert result.coverage.compared < 0.2
        assert "frames were compared" in result.reason and "of start 0" in result.reason and "near x" in result.reason

    def test_one_of_ten_groups_alone_in_a_small_basin_cannot_be_judged(self):
        """It is 9 % of the frames, so the whole is covered but for it."""
        rng = np.random.default_rng(2)
        replica = np.repeat(np.arange(220), 100)
        group = replica // 20
        x = np.where(group == 10, rng.uniform(1.5, 2.5, len(group)), rng.uniform(-2.5, 1.5, len(group)))
        force = np.cos(x) + rng.normal(size=len(x))
        result = conditional_equilibration(x, force, group, replica, bins=BINS)
        assert result.coverage.compared > 0.9 and result.coverage.groups[10] < 0.1
        assert result.verdict == "cannot be judged" and "0% of those of start 10" in result.reason

    def test_rare_visits_are_compared_in_regions_at_the_nominal_rate(self):
        """Bins hold visits of too few replicas, regions enough; a fault in them is found all the same."""
        results = [conditional_equilibration(*basins(seed, 0.03, sparse=True), bins=BINS) for seed in range(60)]
        assert np.mean([result.coverage.bin_by_bin for result in results]) < 0.1
        assert np.mean([result.coverage.compared for result in results]) > 0.5
        z = np.concatenate([result.values for result in results])
        assert len(z) > 100 and np.mean(z**2) == pytest.approx(1.0, abs=4 * np.sqrt(2 / len(z)))
        assert not any(result.verdict == "failed" for result in results)
        wrong = [conditional_equilibration(*basins(seed, 0.03, 4.0, sparse=True), bins=BINS) for seed in range(10)]
        assert all(result.verdict == "failed" for result in wrong)

    def test_only_frames_that_become_labels_need_to_be_covered(self):
        x, force, group, replica = basins(3, 0.2)
        probe = (group == 0) & (x > 0)
        far = np.where(probe, x + 10.0, x)
        bins = Bins.between([(-2.5, 12.5)], 75)
        assert conditional_equilibration(far, force, group, replica, bins=bins).verdict == "cannot be judged"
        kept = far < 0
        assert conditional_equilibration(far, force, group, replica, bins=bins, labelled=kept).passed
