"""A chain of alpha carbons as assets: data as reference, prior, tempered beads, slow coordinates."""

from dataclasses import replace

import dagster as dg
import numpy as np
import pytest
import torch
from test_pipeline import materialize, metadata_of, verdicts_of
from test_priors import THERMAL_ENERGY, chains  # noqa: F401

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import BOLTZMANN
from cg_assets.labels.quality import LabelNoise, noise_floors
from cg_assets.potentials.chain_prior.module import ChainPrior
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system
from cg_assets.training.priors import fit_prior

CHAIN = """
extends: chignolin
name: small_chain
title: Five glycines
temperature: 300.0
model: {sequence: [GLY, GLY, GLY, GLY, GLY]}
collective_variables:
  end_to_end: {type: distance, atoms: ["1:CA", "5:CA"], range: [0.2, 1.8]}
  turn: {type: distance, atoms: ["1:CA", "4:CA"], range: [0.2, 1.4]}
sampling:
  unbiased: {tempering: {temperatures: [300, 360], pace: 2, kept_rungs: all}}
network: {features: 8, interactions: 1}
training: {epochs: 2, batch_size: 200}
cg_simulation:
  replicas: 16
  burn_in: 0
  duration: 2
  frame_interval: 0.2
  tempering: {temperatures: [300, 400], pace: 0.1}
evaluation:
  slow_coordinates: {lag: 0.4, bins: 10}
  native: null
"""
STAGES = ["reference", "prior_atomistic", "potential_atomistic", "cg_simulation_atomistic", "evaluation_atomistic"]
NOISE = 300.0
"""Standard deviation of the labels about the forces of the prior [kJ/mol/nm]."""


def _write_labels(system, store, positions, stretch=2.0):
    """A batch of labels of two ladders, as `mapped_forces` writes it: forces of a prior, with noise.

    Frames of the hotter rung are stretched: twice as large, they would spoil everything that is made of them.
    """
    count, generator = len(positions), np.random.default_rng(0)
    cg_map = system.beads().cg_map
    fit = fit_prior(positions, cg_map.bonds, cg_map.bead_names, system.network.prior)
    alone = ChainPrior(fit.config(), THERMAL_ENERGY)
    forces = alone.energy_and_forces(torch.as_tensor(positions).float())[1].numpy()
    variables = system.beads().variables(positions)
    frames = Frames(
        positions=positions.astype(np.float32),
        time=np.tile(0.2 * (1.0 + np.arange(count // 2)), 2),
        replica=np.repeat(np.arange(2, dtype=np.int32), count // 2),
        temperature=np.full(count, 300.0),
        start=np.zeros(count, np.int32),
        probe=np.zeros(count, bool),
        forces=(forces + generator.normal(0, NOISE, forces.shape)).astype(np.float32),
        collective_variables={name: values.astype(np.float32) for name, values in variables.items()},
    )
    hot = replace(frames, positions=np.float32(stretch) * frames.positions, temperature=np.full(count, 360.0))
    frames = Frames.concatenate([frames, hot])
    frames = replace(frames, potential_energy=generator.gamma(20.0, BOLTZMANN * frames.temperature))
    floor = Estimate(NOISE**2, 0.01 * NOISE**2, "(kJ/mol/nm)²")
    extra = {"bias": None, "noise_floor": LabelNoise(floor, "as they were made").to_json()}
    extra["noise_floors"] = noise_floors(frames, {300.0: floor, 360.0: floor})
    units = system.variable_units
    metadata = FileMetadata(system=system.name, stage="mapped_forces", units="molar", variable_units=units, extra=extra)
    store.write_frames(frames, metadata, "0000")


@pytest.fixture(scope="module")
def made(tmp_path_factory, chains):  # noqa: F811
    home = tmp_path_factory.mktemp("chain") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "small_chain.yaml").write_text(CHAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.setenv("CG_DEVICE", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        system, store = load_system("small_chain"), ParquetStore(home)
        _write_labels(system, store, chains[:2000])
        yield system, store, materialize(system, home, dg.DagsterInstance.ephemeral(), stages=STAGES)


def test_the_prior_is_checked_and_shipped(made):
    system, store, result = made
    assert result.success
    assert verdicts_of(result)["prior_atomistic", "prior_alone"]
    metadata = metadata_of(result)["prior_atomistic"]
    assert "(/files/figures/" in metadata["figure"].value
    assert "100 of 100 replicas stable" in str(metadata["prior_alone"].value)
    fitted = store.describe(system.name, "prior_atomistic").metadata
    assert set(fitted.upstream_data_versions) == {"small_chain/mapped_forces/0000"}
    assert [len(fitted.extra["prior"][kind]) for kind in ("bonds", "angles", "dihedrals", "repulsion")] == [4, 3, 2, 1]
    trained = store.describe(system.name, "potential_atomistic").metadata
    assert set(trained.upstream_data_versions) == {"small_chain/mapped_forces/0000", "small_chain/prior_atomistic"}
    facts = trained.extra
    module, config = ModelTracking(None, store.home).load(facts["registered_model"], facts["version"])
    assert config["prior"] == fitted.extra["prior"]
    assert module["prior"] is not None


def test_the_registered_model_holds_the_prior(made):
    import mlflow

    system, store, _ = made
    tracking = ModelTracking(None, store.home)
    facts = tracking.lookup("small_chain.atomistic")
    mlflow.set_tracking_uri(tracking.uri)
    model = mlflow.pyfunc.load_model(facts.uri)
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
    (run,) = store.describe(system.name, "cg_simulation_atomistic").metadata.extra["runs"]
    assert run["replicas"] == 8
    (share,) = run["exchange_acceptance"]
    assert 0.1 < share < 1.0
    assert set(store.read_frames(system.name, "cg_simulation_atomistic").replica) <= set(range(8))
    metadata = metadata_of(result)
    assert str(metadata["cg_simulation_atomistic"]["exchange_acceptance"].value) == f"{share:.2f}"
    assert "(/files/figures/" in metadata["evaluation_atomistic"]["slow coordinates"].value
    table = metadata["evaluation_atomistic"]["results"].value
    for quantity in ("| jsd | model | slow coordinates |", "| time_scale | model | TIC 1 |", "largest_1_3_jsd"):
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
        ("temperatures: [300, 400]", "temperatures: [310, 400]", "it must begin with the temperature of the system"),
        ("replicas: 16", "replicas: 2", "give at least 2"),
    ],
)
def test_wrong_settings_are_refused(command, old, new, message):
    command.add_system(CHAIN.replace(old, new))
    with pytest.raises(SystemSpecError, match=message):
        load_system("small_chain")
