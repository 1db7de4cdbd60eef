"""Kernels of capped alanine as assets: flow in MLflow, labels in Parquet, a potential from configurations alone."""

import dagster as dg
import numpy as np
import pytest
from test_pipeline import materialize, metadata_of, verdicts_of

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.statistics.stein import stein_test
from cg_assets.labels.kernels.run import kernel_frames
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

KERNELS = """
extends: capped_alanine_quick
name: kernel_alanine
title: Capped alanine, forces from kernels
sampling:
  unbiased: {duration: 80, frame_interval: 0.04}
labels:
  noise: {type: noise, noise: 0.005, labels: clean}
  flow: {type: flow, noise: 0.007, hidden: 64, training: {epochs: 30, batch_size: 256, learning_rate: 0.01}}
  paper: {type: flow, noise: 0.007, labels: noised, flow: flow}
  biased_noise: {type: noise, of: biased, noise: 0.005}
network: {features: 16, interactions: 1, basis_functions: 8}
training: {epochs: 2, batch_size: 100}
potentials:
  flow: {labels: flow_kernel_forces, epochs: 3}
"""
STAGES = ["trajectories", "biased_samples", "mapped_forces", "relabelled_forces"]
KERNEL_STAGES = [
    "flow_kernel",
    *(f"{name}_kernel_forces" for name in ("noise", "flow", "paper", "biased_noise")),
    "potential_flow",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("kernels") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "kernel_alanine.yaml").write_text(KERNELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.setenv("CG_DEVICE", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        system = load_system("kernel_alanine")
        yield (
            system,
            ParquetStore(home),
            materialize(system, home, dg.DagsterInstance.ephemeral(), stages=[*STAGES, *KERNEL_STAGES]),
        )


def test_all_checks_pass_but_the_bonds_that_noise_widens(made):
    _, _, result = made
    assert result.success
    failed = {name for name, passed in verdicts_of(result).items() if not passed}
    assert failed == {(f"{name}_kernel_forces", "local_geometry") for name in ("noise", "biased_noise")}
    assert "(/files/figures/" in metadata_of(result)["flow_kernel_forces"]["figure"].value
    assert metadata_of(result)["potential_flow"]["epochs"].value == 3


def test_labels_say_where_they_come_from(made):
    system, store, _ = made
    metadata = store.describe(system.name, "paper_kernel_forces", "0000").metadata
    assert set(metadata.upstream_data_versions) == {"kernel_alanine/mapped_forces/0000", "kernel_alanine/flow_kernel"}
    assert metadata.extra["registered_model"] == "kernel_alanine.flow_kernel"
    assert metadata.extra["label_source"]["labels"] == "noised"
    frames = store.read_frames(system.name, "paper_kernel_forces", ["0000"])
    assert len(frames) == len(store.read_frames(system.name, "mapped_forces", ["0000"]))
    floors = {
        name: store.describe(system.name, f"{name}_kernel_forces", "0000").metadata.extra["noise_floor"]["value"]
        for name in ("flow", "paper")
    }
    assert floors["flow"] < 0.35 * floors["paper"]


def test_a_bias_is_taken_out_of_the_labels(made):
    """Labels of biased frames obey Stein's identity with the bias put back; without it they are those of the PMF."""
    from cg_assets.labels.kernels.run import bias_forces

    system, store, _ = made
    frames = store.read_frames(system.name, "biased_noise_kernel_forces", ["0000"])
    bias = store.describe(system.name, "biased_noise_kernel_forces", "0000").metadata.extra["bias"]
    energy, pull = bias_forces(system.beads(), bias, frames.positions)
    np.testing.assert_allclose(frames.bias_energy, energy)
    assert np.std(pull) > 5.0
    block = frames.replica * 1000 + (frames.time // 8).astype(np.int64)
    test = stein_test(frames.positions, frames.forces + pull, system.thermal_energy, seed=1, cluster=block)
    assert test.largest < 4.0


def test_the_registered_kernel_runs_by_itself(made):
    import mlflow

    system, store, _ = made
    tracking = ModelTracking(None, store.home)
    facts = tracking.lookup("kernel_alanine.flow_kernel")
    mlflow.set_tracking_uri(tracking.uri)
    model = mlflow.pyfunc.load_model(facts.uri)
    positions = store.read_frames(system.name, "mapped_forces", ["0000"]).positions[:200]
    first, again, other = (model.predict({"positions": positions, "seed": seed}) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["forces"], again["forces"])
    assert not np.array_equal(first["positions"], other["positions"])
    assert first["forces"].shape == positions.shape
    np.testing.assert_allclose(first["forces"].sum(axis=1), 0.0, atol=1.0)
    moved = np.abs(first["positions"] - positions).max(axis=(1, 2))
    assert (moved > 0.001).all() and (moved < 0.07).all()
    with pytest.raises(Exception, match="must be"):
        model.predict({"positions": positions[:, :4]})


def test_configurations_alone_are_enough(made):
    system, store, _ = made
    frames = store.read_frames(system.name, "mapped_forces", ["0000"])
    trained = store.describe(system.name, "flow_kernel").metadata.extra
    flow, _ = ModelTracking(None, store.home).load(trained["registered_model"], trained["version"])
    kernel = system.labels["flow"].model_copy(update={"labels": "clean"})
    bare = type(frames)(
        **{name: getattr(frames, name) for name in ("positions", "time", "replica", "temperature")},
        start=frames.start,
        probe=frames.probe,
    )
    with_forces, report = kernel_frames(system.beads(), kernel, frames, flow, seed=5)
    without, _ = kernel_frames(system.beads(), kernel, bare, flow, seed=5)
    np.testing.assert_array_equal(with_forces.forces, without.forces)
    assert report.noise_floor["mixed"].value < report.noise_floor["clean"].value < report.noise_floor["noised"].value


def test_draws_of_a_configuration_have_noise_of_their_own(made):
    system, store, _ = made
    frames = store.read_frames(system.name, "mapped_forces", ["0000"])
    trained = store.describe(system.name, "flow_kernel").metadata.extra
    flow, _ = ModelTracking(None, store.home).load(trained["registered_model"], trained["version"])
    kernel = system.labels["noise"].model_copy(update={"draws": 3, "noise": flow.noise})
    perturbed, report = kernel_frames(system.beads(), kernel, frames, flow, seed=5)
    np.testing.assert_array_equal(perturbed.time, np.repeat(frames.time, 3))
    labels = perturbed.forces.reshape(len(frames), 3, *frames.positions.shape[1:]).astype(np.float64)
    assert abs((labels**2).mean() / (system.thermal_energy / flow.noise) ** 2 - 0.9) < 0.02  # nine of ten are no centre
    for one, other in ((0, 1), (0, 2), (1, 2)):
        product = (labels[:, one] * labels[:, other]).mean(axis=(1, 2))  # a noise kernel's label is noise at given R
        assert abs(product.mean()) < 4.0 * product.std(ddof=1) / np.sqrt(len(product))
    assert report.stein["clean"].largest < 4.5


@pytest.mark.parametrize(
    "change, message",
    [
        ("other: {type: flow, noise: 0.007, of: sideways}", "of is sideways; there are unbiased, biased"),
        ("other: {type: flow, noise: 0.005, flow: flow}", "has another plan or other noise"),
        ("other: {type: flow, noise: 0.007, flow: noise}", "which is not a flow kernel with its own flow"),
        ("other: {type: flow, noise: 0.007, flow: flow, hidden: 3}", "leave both out here"),
        ("other: {type: noise, noise: -1}", "greater than 0"),
    ],
)
def test_wrong_kernels_are_refused(command, change, message):
    command.add_system(KERNELS.replace("network:", f"  {change}\nnetwork:"))
    with pytest.raises(SystemSpecError, match=message):
        load_system("kernel_alanine")
