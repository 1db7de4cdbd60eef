"""Checks of the samples at fixed beads: what is in equilibrium passes, what is stuck does not."""

from dataclasses import replace

import numpy as np
import pytest
from test_thermal_response import draw, exact

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.labels.thermal.build_targets import build_targets, check_frames
from cg_assets.labels.thermal.differences import difference_test
from cg_assets.labels.thermal.frame_checks import check_frame
from cg_assets.labels.thermal.response import response_of_weights
from cg_assets.labels.thermal.samples import ConditionalSamples

LADDER = np.array([300.0, 330.0, 363.0, 400.0, 440.0])


def equilibrated(seed, n_times=200, runs=2):
    return draw(np.random.default_rng(seed), LADDER, n_times, runs=runs)


def test_runs_in_equilibrium_differ_by_their_errors():
    checks = [check_frame(equilibrated(seed)) for seed in range(20)]
    disagreement = np.array([check.disagreement for check in checks])
    assert 0.85 < np.sqrt((disagreement**2).mean()) < 1.2  # 600 differences, with errors from 10 blocks each
    assert not any(check.fault(2.0) for check in checks)
    measured, expected = (
        np.array([[step.value for step in getattr(check, name)] for check in checks])
        for name in ("energy_steps", "heat_steps")
    )
    assert abs(measured.sum() / expected.sum() - 1) < 0.05  # 20 frames, each step of <u> known to about 50 %


def test_runs_that_differ_are_named_with_their_temperature():
    samples = equilibrated(1)
    lost = (samples.run == 1) & (samples.temperature == 330.0)
    moved = replace(samples, forces=samples.forces + 6.0 * lost[:, None, None])
    check = check_frame(moved)
    assert "independent runs differ by" in check.fault(2.0) and "at 330 K" in check.fault(2.0)
    inflation = check.inflation(np.array([330.0, 440.0, 315.0]))
    assert inflation[0] == pytest.approx(check.disagreement[1]) and 1.0 <= inflation[1] < 2.0
    assert inflation[1] < inflation[2] < inflation[0]
    assert set(check.to_json()) == {"temperatures", "disagreement", "slowness", "heat_z", "effective_samples", "common"}


def slow_noise(seed, n_times=1500, correlation=0.0, share=0.5, components=96):
    """Forces of two runs at three temperatures, part of whose noise is slow: its time in samples."""
    generator = np.random.default_rng(seed)
    shape = (2, len(LADDER[:3]), components)
    step = np.exp(-1.0 / correlation) if correlation else 0.0
    slow, values = generator.normal(size=shape), []
    for _ in range(n_times):
        values.append(np.sqrt(share) * slow + np.sqrt(1.0 - share) * generator.normal(size=shape))
        slow = step * slow + np.sqrt(1.0 - step**2) * generator.normal(size=shape)
    run, time, rung = (item.ravel() for item in np.meshgrid(range(2), range(n_times), range(3), indexing="ij"))
    return ConditionalSamples(
        temperature=LADDER[rung],
        energy=10.0 * LADDER[rung] / 300.0 + generator.normal(size=len(run)),
        forces=np.stack(values)[time, run, rung].reshape(len(run), -1, 3),
        run=run,
        time=time.astype(np.float64),
    )


@pytest.mark.parametrize(("correlation", "missed"), [(0.0, 1.0), (40.0, 1.15), (150.0, 1.6)])
def test_noise_that_is_slower_than_a_block_is_in_the_errors(correlation, missed):
    """150 samples to a block, noise that lasts for up to a block: z of the runs' difference is 1 all the same."""
    checks = [check_frame(slow_noise(seed, correlation=correlation)) for seed in range(6)]
    z = np.sqrt(np.mean([check.disagreement**2 for check in checks]))
    factor = np.sqrt(np.mean([check.slowness**2 for check in checks]))
    assert abs(z - 1.0) < 0.08  # 6 x 3 x 96 differences: standard error 0.017, 0.03 with that of the errors themselves
    assert factor > 0.9 * missed
    if correlation:
        assert z * factor > 1.0 + 0.5 * (missed - 1.0)


def test_a_variance_that_is_too_small_is_noticed():
    """Samples that stay near the mean of each temperature, as where orientations are stuck."""
    samples = equilibrated(2)
    energy = samples.energy.copy()
    for temperature in LADDER:
        at = samples.temperature == temperature
        energy[at] = energy[at].mean() + 0.6 * (energy[at] - energy[at].mean())
    assert "the variance of u predicts" in check_frame(replace(samples, energy=energy)).fault(5.0)


def test_samples_that_are_worth_few_are_not_enough():
    slow = draw(np.random.default_rng(8), LADDER, 100, correlation=0.97)
    assert "independent samples at" in check_frame(slow).fault(10.0)


def test_labels_of_some_runs_are_the_differences_of_others():
    frames = [equilibrated(seed, n_times=2500) for seed in range(8)]
    test = difference_test(frames)
    assert abs(test.slope.z(1.0)) < 3 and test.slope.standard_error < 0.1, test.slope
    assert test.temperatures.shape == (3, 3) and test.labels.shape == (8, 2, 3, 2, 3)
    wrong = [replace(item, energy=1.5 * item.energy) for item in frames]  # an energy in other units
    assert difference_test(wrong).slope.value == pytest.approx(1.5 * test.slope.value)
    few = difference_test([equilibrated(9, runs=4)], [300.0, 363.0, 440.0])
    assert np.isfinite(few.slope.standard_error) and few.labels.shape == (1, 4, 1, 2, 3)
    with pytest.raises(ValueError, match="run 0 has no samples at 310 K; there are those at 300, 330"):
        difference_test(frames, [300.0, 310.0, 330.0])


@pytest.mark.parametrize(
    ("n_times", "n_frames", "correlation"), [(400, 2, 0.0), (400, 2, 0.9), (400, 8, 0.9), (1600, 1, 0.9)]
)
def test_the_slope_is_off_by_its_error_however_short_runs_are(n_times, n_frames, correlation):
    """Labels are right, and 400 correlated samples are worth 21: a ratio of means differs from 1 by up to hundreds."""
    slopes = []
    for seed in range(40):
        generator = np.random.default_rng([seed, n_times, n_frames])
        frames = [draw(generator, [300.0, 400.0, 520.0], n_times, correlation) for _ in range(n_frames)]
        slopes.append(difference_test(frames).slope)
    z = np.array([slope.z(1.0) for slope in slopes])
    assert 0.5 < np.sqrt((z**2).mean()) < 1.25 and np.abs(z).max() < 4.0
    if not correlation:
        error = np.median([slope.standard_error for slope in slopes])
        assert 0.7 < error / np.std([slope.value for slope in slopes]) < 1.4 and error < 0.2


def test_labels_and_differences_are_those_of_the_response():
    samples = draw(np.random.default_rng(3), [300.0, 400.0, 520.0], 600)
    test = difference_test([samples])
    for run in (0, 1):
        one = samples.select(samples.run == run)
        at = {kelvin: response_at(one, kelvin) for kelvin in (300.0, 400.0, 520.0)}
        slope = (at[520.0].forces[0] - at[300.0].forces[0]) / 220.0
        np.testing.assert_allclose(test.differences[0, run, 0], slope, rtol=1e-10)
        label = (2 - 1.2) * at[300.0].first_order + 220**2 / 12000 * at[400.0].first_order
        label = (label + (2 - 1 / 1.2) * at[520.0].first_order) / 6
        np.testing.assert_allclose(test.labels[0, run, 0], label[0], rtol=1e-2)


def response_at(samples, kelvin):
    """From the samples of one temperature alone, each worth one."""
    here = samples.select(samples.temperature == kelvin)
    weights = np.full((1, len(here)), 1.0 / len(here))
    return response_of_weights(here, weights, np.array([kelvin]), np.array([float(len(here))]))


def as_frames(parts):
    """Rows as the sampler makes them, of one part for each CG frame."""
    rows = [len(part) for part in parts]
    generator = np.random.default_rng(0)
    beads = generator.normal(size=(len(parts), 2, 3)).astype(np.float32)
    return Frames(
        positions=np.repeat(beads, rows, axis=0),
        time=np.concatenate([part.time for part in parts]),
        replica=np.concatenate([part.run for part in parts]).astype(np.int32),
        temperature=np.concatenate([part.temperature for part in parts]),
        start=np.repeat(np.arange(len(parts), dtype=np.int32), rows),
        probe=np.zeros(sum(rows), dtype=bool),
        forces=np.concatenate([part.forces for part in parts]).astype(np.float32),
        potential_energy=np.concatenate([part.energy for part in parts]),
        box=np.full((sum(rows), 3), 3.0, dtype=np.float32),
    )


def test_targets_leave_out_frames_that_fail_and_widen_errors_of_those_that_differ():
    good, bad = equilibrated(3), equilibrated(4)
    bad = replace(bad, forces=bad.forces + 20.0 * (bad.run == 1)[:, None, None])
    samples = as_frames([bad, good])
    checks = check_frames(samples)
    at = [300.0, 350.0, 400.0, 440.0]
    table = build_targets(samples, checks, {0: 250.0, 1: 700.0}, at, max_disagreement=2.0)
    targets = table.targets
    assert targets.frame.tolist() == [1] * 4 and set(targets.origin_temperature) == {700.0}
    np.testing.assert_allclose(targets.positions[0], samples.positions[-1], rtol=1e-6)
    for name in ("forces", "first_order", "second_order"):
        reference = np.stack([exact(t)[name] for t in at]).reshape(4, 2, 3)
        z = (getattr(targets, name) - reference) / getattr(targets, name + "_error")
        assert np.sqrt((z**2).mean()) < 1.8, name  # 6 independent components at 4 correlated temperatures
    np.testing.assert_array_equal(targets.second_order, table.local_regression[0])
    third = build_targets(samples, checks, {0: 250.0, 1: 700.0}, at, 2.0, second_order="third_moment")
    np.testing.assert_array_equal(third.targets.second_order, table.third_moment[0])
    assert table.columns()["second_order_third_moment"].shape == (4, 2, 3)
    everything = build_targets(samples, checks, {0: 250.0, 1: 700.0}, at, max_disagreement=1000.0)
    assert everything.targets.frame.tolist() == [0] * 4 + [1] * 4
    assert everything.inflation[:4].min() > 5 * everything.inflation[4:].max()
    with pytest.raises(Exception, match="no CG frame passes its checks"):
        build_targets(as_frames([bad]), check_frames(as_frames([bad])), {0: 250.0}, at, max_disagreement=2.0)


def test_a_frame_is_used_from_the_temperature_from_which_up_its_runs_agree():
    """As if its colder rungs had not been sampled."""
    samples = equilibrated(5)
    stuck = (samples.run == 1) & (samples.temperature == 300.0)
    rows = as_frames([replace(samples, forces=samples.forces + 20.0 * stuck[:, None, None])])
    checks = check_frames(rows)
    assert checks[0].sound_from(2.0) == 330.0 and "at 300 K" in checks[0].fault(2.0)
    at = [300.0, 340.0, 390.0, 440.0]
    found = build_targets(rows, checks, {0: 250.0}, at, max_disagreement=2.0).targets
    assert found.temperature.tolist() == at[1:]
    warm = as_frames([samples.select(samples.temperature > 300.0)])
    expected = build_targets(warm, check_frames(warm), {0: 250.0}, at[1:], max_disagreement=2.0).targets
    np.testing.assert_allclose(found.first_order, expected.first_order, rtol=1e-5)
    top = (samples.run == 1) & (samples.temperature > 390.0)
    lost = as_frames([replace(samples, forces=samples.forces + 20.0 * top[:, None, None])])
    assert check_frames(lost)[0].sound_from(2.0) == np.inf
    with pytest.raises(SamplingError, match=r"no CG frame passes its checks \(frame 0: independent runs differ by"):
        build_targets(lost, check_frames(lost), {0: 250.0}, at, max_disagreement=2.0)
