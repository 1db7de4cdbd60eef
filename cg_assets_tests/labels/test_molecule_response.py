"""Responses of capped alanine at fixed heavy atoms: labels against differences of mean forces, energies, refusals."""

from dataclasses import replace

import numpy as np
import pytest

from cg_assets.api import sample
from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.labels.thermal.build_targets import build_targets, check_frames
from cg_assets.labels.thermal.response import thermal_response
from cg_assets.labels.thermal.samples import ConditionalSamples
from cg_assets.sampling.fixed_bead_ladders import FixedBeadLadders, choose_starts
from cg_assets.sampling.settings import ConditionalSampling
from cg_assets.systems import load_system

LADDER = [300.0, 400.0, 520.0]


@pytest.fixture(scope="module")
def alanine():
    """The system, some frames, and two of them to hold."""
    system = load_system("capped_alanine_quick")
    plan = system.sampling.unbiased.model_copy(update={"burn_in": 2.0, "duration": 20.0, "frame_interval": 0.1})
    system = system.model_copy(update={"sampling": system.sampling.model_copy(update={"unbiased": plan})})
    frames = sample(system, "unbiased", 1).frames
    return system, frames, choose_starts(frames, 2)


def ladders(alanine, **changes):
    system, frames, starts = alanine
    plan = ConditionalSampling(**{"frames": 2, "temperatures": LADDER, "relaxation": 2.0, "duration": 120.0} | changes)
    return FixedBeadLadders(system.held_beads(frames, starts), plan, seed=5)


def run(sampler):
    blocks = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return Frames.concatenate([block for block in blocks if block is not None])


@pytest.fixture(scope="module")
def samples(alanine):
    sampler = ladders(alanine)
    return run(sampler), sampler.summary()


def test_beads_stay_and_the_rest_has_the_temperature_of_its_rung(alanine, samples):
    system, _, starts = alanine
    rows, summary = samples
    assert summary.largest_drift < 1e-5
    assert abs(summary.kinetic_temperature_ratio.z(1.0)) < 4, summary.kinetic_temperature_ratio
    assert summary.kinetic_temperature_ratio.standard_error < 0.01
    assert min(summary.exchange_acceptance) > 0.1
    held = system.beads().cg_map.apply(starts.positions.astype(float))
    np.testing.assert_allclose(rows.positions, held[rows.start], atol=1e-6)
    assert set(np.unique(rows.temperature)) == set(LADDER) and len(rows) == 2 * 2 * 3 * 1200


def test_covariance_labels_are_differences_of_mean_forces(samples):
    """F_1 = Cov(u, f)/(kT²), its mean from 300 to 520 K, against [F(520) - F(300)]/220, component by component.

    Errors are those of the difference of the two, from leaving out blocks of both. Half or twice the label is found.
    """
    rows, _ = samples
    responses = [thermal_response(ConditionalSamples.of_frame(rows, number), LADDER) for number in (0, 1)]
    z = {
        factor: np.sqrt(np.mean([np.square(_deviations(found, factor)) for found in responses]))
        for factor in (1.0, 0.5, 2.0)
    }
    assert 0.75 < z[1.0] < 1.25, z
    assert min(z[0.5], z[2.0]) > 2.5, z


def _deviations(found, factor):
    """Mean of labels times a factor less difference, in standard errors `(n_beads, 3)`."""
    left_out = np.array([_gap(part, factor) for part in found.left_out])
    return _gap(found.value, factor) / np.sqrt((len(left_out) - 1) * left_out.var(axis=0))


def _gap(response, factor):
    """Simpson's mean of labels times a factor, less the difference of mean forces [kJ/mol/nm/K]."""
    low, middle, high = LADDER
    left, right = middle - low, high - middle
    weights = np.array([2 - right / left, (high - low) ** 2 / (left * right), 2 - left / right]) / 6.0
    mean = np.einsum("t,tij->ij", weights, response.first_order)
    return factor * mean - (response.forces[2] - response.forces[0]) / (high - low)


def test_the_variance_of_the_energy_is_the_rise_of_its_mean(samples):
    """C_W from both, within 3 % and errors; some ten atoms move, each direction with about k."""
    rows, _ = samples
    checks = check_frames(rows)
    for check in checks.values():
        assert check.sound_from(2.0) == 300.0, check.fault(2.0)
        for measured, predicted in zip(check.energy_steps, check.heat_steps, strict=True):
            error = np.hypot(measured.standard_error, predicted.standard_error)
            assert abs(measured.value - predicted.value) < 4 * error + 0.03 * measured.value
            assert error < 0.1 * measured.value
    targets = build_targets(rows, checks, {0: 300.0, 1: 300.0}, LADDER, max_disagreement=2.0).targets
    assert targets.positions.shape == (6, 10, 3) and np.isinf(targets.box).all()
    assert (targets.heat_capacity > 0.05).all() and (targets.heat_capacity < 0.4).all()


def test_a_ladder_resumes_bit_for_bit(alanine):
    changes = {"temperatures": [300.0, 400.0], "duration": 1.6, "relaxation": 0.4}
    whole = ladders(alanine, **changes)
    expected = [whole.next_chunk() for _ in range(whole.n_chunks)]
    first = ladders(alanine, **changes)
    for _ in range(3):
        first.next_chunk()
    second = ladders(alanine, **changes)
    second.restore(first.state())
    rest = [second.next_chunk() for _ in range(second.n_chunks - 3)]
    np.testing.assert_array_equal(rest[-1].forces, expected[-1].forces)
    assert second.summary() == whole.summary()


def test_what_cannot_be_held_is_refused(alanine, command):
    system, frames, starts = alanine
    cut = replace(starts, positions=starts.positions[:, :-1], forces=starts.forces[:, :-1])
    with pytest.raises(SamplingError, match=r"shape \(21, 3\), the molecule with its solvent \(22, 3\)"):
        system.held_beads(frames, cut)
    beads = system.beads()
    matrix = beads.cg_map.matrix.copy()
    matrix[3] = (matrix[3] + matrix[4]) / 2
    centre = replace(beads, cg_map=replace(beads.cg_map, matrix=matrix))
    assert f"{beads.cg_map.bead_names[3]} holds several" in system.model.hold_fault(system.structure(), centre)
    assert not system.model.hold_fault(system.structure(), beads)
    with pytest.raises(SamplingError, match="frames are needed, but the run kept only"):
        choose_starts(frames, len(frames) + 1)
    base = "extends: capped_alanine_quick\ntitle: t\nsampling: {conditional: {frames: 2, temperatures: [300, 400], "
    base += "relaxation: 2, duration: 40}}\n"
    command.add_system("name: no_targets\n" + base)
    with pytest.raises(SystemSpecError, match=r"targets is missing, but sampling\.conditional is there for them"):
        load_system("no_targets")
    command.add_system("name: beyond\n" + base + "targets: {temperatures: [300, 350, 410]}\n")
    with pytest.raises(SystemSpecError, match=r"targets.temperatures has 410.0 K, outside the ladder"):
        load_system("beyond")
