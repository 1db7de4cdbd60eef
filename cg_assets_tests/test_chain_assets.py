"""A chain of alpha carbons as assets: replica exchange, data as reference, prior, tempered beads, slow coordinates."""

import dagster as dg
import numpy as np
import pytest
from test_pipeline import materialize, metadata_of, verdicts_of

from cg_assets.errors import SystemSpecError
from cg_assets.resources.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

CHAIN = """
extends: chignolin
name: small_chain
title: Six glycines
temperature: 500.0
model: {sequence: [GLY, GLY, GLY, GLY, GLY, GLY]}
collective_variables:
  end_to_end: {type: distance, atoms: ["1:CA", "6:CA"], range: [0.2, 2.2]}
  turn: {type: distance, atoms: ["1:CA", "5:CA"], range: [0.2, 1.8]}
sampling:
  unbiased: {burn_in: 4, duration: 40, frame_interval: 0.2, tempering: {temperatures: [500, 600], pace: 1}}
kernels:
  noise: {type: noise, noise: 0.005, labels: clean}
  flow: {type: flow, noise: 0.007, labels: clean, hidden: 16}
network: {features: 8, interactions: 1}
training: {epochs: 2, batch_size: 64}
cg_simulation:
  replicas: 16
  burn_in: 1
  duration: 6
  frame_interval: 0.2
  tempering: {temperatures: [500, 700], pace: 0.2}
evaluation:
  slow_coordinates: {lag: 0.4, bins: 10}
  native: null
"""
STAGES = ["trajectories", "mapped_forces", "reference", "prior_atomistic", "potential_atomistic"]
STAGES += ["cg_simulation_atomistic", "evaluation_atomistic"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("chain") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "small_chain.yaml").write_text(CHAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.setenv("CG_DEVICE", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        system = load_system("small_chain")
        result = materialize(system, home, dg.DagsterInstance.ephemeral(), stages=STAGES)
        yield system, ParquetStore(home), result


def test_the_prior_is_checked_and_shipped(made):
    system, store, result = made
    assert result.success
    assert verdicts_of(result)["prior_atomistic", "prior_alone"]
    metadata = metadata_of(result)["prior_atomistic"]
    assert "data:image/png" in metadata["figure"].value
    assert "16 of 16 replicas stable" in str(metadata["prior_alone"].value)
    fitted = store.describe(system.name, "prior_atomistic").metadata
    assert set(fitted.upstream_data_versions) == {"small_chain/mapped_forces/0000"}
    assert [len(fitted.extra["prior"][kind]) for kind in ("bonds", "angles", "dihedrals", "repulsion")] == [5, 4, 3, 3]
    trained = store.describe(system.name, "potential_atomistic").metadata
    assert set(trained.upstream_data_versions) == {"small_chain/mapped_forces/0000", "small_chain/prior_atomistic"}
    facts = trained.extra
    module, config = ModelTracking(None, store.home).load(facts["registered_model"], facts["version"])
    assert config["prior"] == fitted.extra["prior"]
    assert module.prior is not None


def test_the_registered_model_holds_the_prior(made):
    import mlflow
    import torch

    system, store, _ = made
    tracking = ModelTracking(None, store.home)
    facts = tracking.lookup("small_chain.atomistic")
    mlflow.set_tracking_uri(tracking.uri)
    model = mlflow.pyfunc.load_model(facts["uri"])
    positions = store.read_frames(system.name, "mapped_forces", ["0000"]).positions[:20]
    trained = store.describe(system.name, "potential_atomistic").metadata.extra
    module, _ = tracking.load(trained["registered_model"], trained["version"])
    with torch.no_grad():
        energy, forces = module.energy_and_forces(torch.as_tensor(positions))
    found = model.predict({"positions": positions})
    np.testing.assert_allclose(found["energy"], energy.numpy(), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found["forces"], forces.numpy(), rtol=1e-4, atol=1e-2)


def test_the_beads_are_tempered_and_judged(made):
    system, store, result = made
    summary = store.describe(system.name, "cg_simulation_atomistic").metadata.extra["summary"]
    assert summary["replicas"] == 8
    (share,) = summary["exchange_acceptance"]
    assert 0.1 < share < 1.0
    assert set(store.read_frames(system.name, "cg_simulation_atomistic").replica) <= set(range(8))
    metadata = metadata_of(result)
    assert str(metadata["cg_simulation_atomistic"]["exchange_acceptance"].value) == f"{share:.2f}"
    assert "data:image/png" in metadata["evaluation_atomistic"]["slow coordinates"].value
    table = metadata["evaluation_atomistic"]["results"].value
    for quantity in ("JSD in the slow coordinates", "time scale of TIC 1", "largest 1-3 distance JSD"):
        assert quantity in table
    assert "two halves of the data" in str(metadata["reference"]["source"].value)


def test_models_of_a_kernel_are_compared_with_what_was_sampled():
    system = load_system("chignolin")
    assert system.true_frames("noise_kernel_forces") == "mapped_forces"
    assert load_system("capped_alanine_kernels").true_frames("flow_kernel_forces") == "relabelled_forces"
    assert load_system("capped_alanine_implicit").true_frames("mapped_forces") == "mapped_forces"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("network: {", "network: {prior: {terms: []}, ", "must name at least one term"),
        ("temperatures: [500, 700]", "temperatures: [510, 700]", "it must begin with the temperature of the system"),
        ("replicas: 16", "replicas: 2", "give at least 2"),
    ],
)
def test_wrong_settings_are_refused(command, old, new, message):
    command.add_system(CHAIN.replace(old, new))
    with pytest.raises(SystemSpecError, match=message):
        load_system("small_chain")
