"""Where to sample next: windows spread out without data, and go where the mean force is known worst with them."""

import dagster as dg
import numpy as np
import pytest
from small_systems import SMALL_WELLS
from test_pipeline import evaluation_of, materialize, metadata_of

from cg_assets.assets.data import training_frames
from cg_assets.assets.work import Inputs
from cg_assets.biases.reweighting import bias_weights
from cg_assets.core.errors import SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.labels.next_batch import concrete_plan, propose
from cg_assets.orchestration.as_asset import build_assets
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

ADAPTIVE = """
extends: small_wells
name: small_adaptive
title: Two wells, windows where they are needed
sampling:
  unbiased: {replicas: 64}
  further:
    adaptive:
      {replicas: 240, starts: equilibrium, timestep: 0.02, friction: 1.0, burn_in: 10, duration: 20, frame_interval: 1,
       bias: {type: adaptive, collective_variables: [x], windows: 12, force_constant: 20, candidates: 24, highest: 6,
              grid_range: {x: [-2, 2]}}}
potentials:
  adaptive: {labels: adaptive_forces}
"""


@pytest.fixture
def adaptive(command):
    command.add_system(SMALL_WELLS)
    command.add_system(ADAPTIVE)
    return command.home


def frames_at(x, noise, seed=0, replicas=40):
    """Label frames at these places, the force being -x with independent noise of this deviation at each."""
    rng = np.random.default_rng(seed)
    n = len(x)
    return Frames(
        positions=x.astype(np.float32)[:, None, None],
        time=(np.arange(n) // replicas).astype(float),
        replica=(np.arange(n) % replicas).astype(np.int32),
        temperature=np.ones(n),
        start=np.zeros(n, np.int32),
        probe=np.zeros(n, bool),
        forces=(-x + noise(x) * rng.normal(size=n)).astype(np.float32)[:, None, None],
        collective_variables={"x": x.astype(np.float32)},
    )


def test_windows_spread_out_where_nothing_is_known(adaptive):
    system = load_system("small_adaptive")
    plan = system.sampling.further["adaptive"]
    centers = np.sort([center["x"] for center in concrete_plan(system.beads(), plan).bias.centers])
    assert len(centers) == 12
    assert np.diff(centers).max() <= 0.5 and centers[0] < -1.6 and centers[-1] > 1.6
    again = [center["x"] for center in concrete_plan(system.beads(), plan).bias.centers]
    assert sorted(again) == list(centers)
    # a plan without an adaptive bias stays as it is
    assert concrete_plan(system.beads(), system.sampling.biased) is system.sampling.biased


def test_windows_go_where_the_mean_force_is_known_worst(adaptive):
    system = load_system("small_adaptive")
    plan = system.sampling.further["adaptive"]
    rng = np.random.default_rng(3)
    # even data on [-1.5, 1.5], ten times noisier around +1: the error there is ten times larger
    x = rng.uniform(-1.5, 1.5, 40_000)
    even = propose(system.beads(), plan, plan.bias, [frames_at(x, lambda x: np.where(np.abs(x - 1.0) < 0.2, 5.0, 0.5))])
    assert np.mean(np.abs(even.centers[:, 0] - 1.0) < 0.3) > 0.7
    known = np.isfinite(even.error)
    assert (even.expected[known] <= even.error[known] + 1e-12).all()
    at = np.argmin(np.abs(even.bins.centres[0] - 1.0))
    left = np.argmin(np.abs(even.bins.centres[0] + 1.0))
    # range 4, noise 5 and 0.5, 40000 * (4 / 24) / 3 frames a bin
    per_bin = 40_000 / 3 * (4 / 24)
    assert even.error[at] == pytest.approx(4 * 5.0 / np.sqrt(per_bin), rel=0.35)
    assert even.error[left] == pytest.approx(4 * 0.5 / np.sqrt(per_bin), rel=0.35)
    # even noise, but few frames around the origin: there
    x = np.concatenate([rng.uniform(-1.5, -0.3, 20_000), rng.uniform(0.3, 1.5, 20_000), rng.uniform(-0.3, 0.3, 60)])
    scarce = propose(system.beads(), plan, plan.bias, [frames_at(x, lambda x: 1.0 + 0 * x)])
    places = np.abs(scarce.centers[:, 0])
    assert np.mean(places < 0.45) > 0.25 and ((places < 0.45) | (places > 1.5)).all()  # and the bins still unseen
    # nothing beyond the neighbours of what was visited
    assert np.abs(scarce.centers).max() < 1.5 + 2 * 4 / 24
    assert np.isnan(scarce.error[0]) and np.isnan(scarce.error[-1])


def test_free_energies_above_the_limit_are_left_alone(adaptive):
    system = load_system("small_adaptive")
    plan = system.sampling.further["adaptive"]
    x = np.concatenate([np.random.default_rng(0).uniform(-1, 0, 100_000), [1.5, 1.55, 1.6]])
    proposal = propose(system.beads(), plan, plan.bias, [frames_at(x, lambda x: 1.0 + 0 * x)])
    assert proposal.free_energy[np.argmin(np.abs(proposal.bins.centres[0] - 1.55))] > 6
    assert proposal.centers.max() < 0.4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("windows: 12", "windows: 7", "240 is not a multiple of the 7 windows"),
        ("grid_range: {x: [-2, 2]}", "grid_range: {}", "grid_range lacks x"),
        ("collective_variables: [x]", "collective_variables: [y]", "known are"),
    ],
)
def test_wrong_settings_are_refused(adaptive, old, new, message):
    path = adaptive / "systems" / "small_adaptive.yaml"
    path.write_text(ADAPTIVE.replace(old, new))
    with pytest.raises(SystemSpecError, match=message):
        load_system("small_adaptive")


def test_only_a_further_plan_can_be_adaptive(adaptive):
    path = adaptive / "systems" / "small_adaptive.yaml"
    bias = "{type: adaptive, collective_variables: [x], windows: 4, force_constant: 9, grid_range: {x: [-2, 2]}}"
    path.write_text(f"extends: small_wells\nname: small_adaptive\ntitle: t\nsampling: {{biased: {{bias: {bias}}}}}\n")
    with pytest.raises(SystemSpecError, match=r"only a plan under sampling\.further can be"):
        load_system("small_adaptive")


def test_a_second_batch_follows_the_proposal_and_is_joined_with_the_first(adaptive):
    system = load_system("small_adaptive")
    keys = {asset.key.path[-1] for asset in build_assets({system.name: system})}
    assert {"adaptive_samples", "adaptive_forces", "next_batch_plan_adaptive"} <= keys
    instance = dg.DagsterInstance.ephemeral()
    stages = ["trajectories", "mapped_forces", "adaptive_samples", "adaptive_forces", "next_batch_plan_adaptive"]
    store = ParquetStore(adaptive)

    first = materialize(system, adaptive, instance, "0000", stages)
    assert first.success
    shown = metadata_of(first)["next_batch_plan_adaptive"]
    assert "(/files/figures/" in shown["figure"].value
    proposed = store.describe("small_adaptive", "next_batch_plan_adaptive").metadata.extra["centers"]
    version = store.data_version("small_adaptive", "next_batch_plan_adaptive")
    assert materialize(system, adaptive, instance, "0001", stages).success
    used = [
        store.describe("small_adaptive", "adaptive_samples", batch).metadata for batch in ("0000", "0001")
    ]  # fmt: skip
    assert used[0].upstream_data_versions == {}
    assert used[1].upstream_data_versions == {"small_adaptive/next_batch_plan_adaptive": version}
    assert used[1].extra["bias"]["centers"] == proposed != used[0].extra["bias"]["centers"]
    rest = ["potential_adaptive", "cg_simulation_adaptive", "reference", "evaluation_adaptive"]
    assert materialize(system, adaptive, instance, stages=rest).success
    frames = training_frames(inputs := Inputs(store, system), system, "adaptive")
    assert [key.rpartition("/")[2] for key in inputs.versions] == ["0000", "0001"]
    x, weights = frames.collective_variables["x"].astype(float), bias_weights(frames.bias_energy, 1.0)
    assert abs(np.average(np.abs(x), weights=weights) - 0.9065) < 0.03
    assert evaluation_of(store, "small_adaptive", "adaptive")["pmf_rmse"].value.value < 0.1
