"""Potentials of water as assets: registered with their dependence on temperature, and wrong files."""

import os
import subprocess
import sys

import dagster as dg
import numpy as np
import pytest
import torch
from test_pipeline import metadata_of, verdicts_of
from thermal_models import EDGE, NOISE, ORIGIN, dynamics, known_potential, labels, liquid

from cg_assets.core.errors import SystemSpecError
from cg_assets.labels.thermal.build_targets import TABLE_UNITS
from cg_assets.orchestration.as_asset import build_assets
from cg_assets.orchestration.resources import build_resources
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

SD = 30.0

# At this density the box of 27 molecules has the edge of the labels.
WATER = f"""
extends: water
name: known_water
title: Labels of a known potential
model: {{molecules: 27, density: 467.4, cutoff: 0.58}}
targets: {{temperatures: [300, {ORIGIN}, 600]}}
temperatures: [350, 500]
sampling: {{unbiased: {{replicas: 2, frame_interval: 0.05}}, conditional: {{frames: 2}}}}
temperature_dependence: {{origin: {ORIGIN}}}
unconstrained_frames: 0
network: {{pair_cutoff: 0.58, pair_functions: 10, triple_cutoff: 0.5, triple_functions: 3, triple_degree: 2}}
cg_simulation: {{replicas: 2, timestep: 0.002, friction: 9, burn_in: 0, duration: 0.6, frame_interval: 0.05}}
evaluation: {{longest_lag: 0.25, max_rdf_error: 5}}
potentials:
  splines: {{unconstrained_frames: 60}}
  products: null
  pairs: null
  network:
    temperature_dependence: {{form: taylor_temperature, origin: {ORIGIN}, order: 1}}
    network:
      type: tensor_network
      cutoff: 0.58
      soft_cutoff: 0.5
      features: 8
      sensitivities: 6
      layers: 1
      training: {{epochs: 2, batch_size: 8, learning_rate: 0.01, held_out_fraction: 0.2}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("response") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "known_water.yaml").write_text(WATER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.setenv("CG_DEVICE", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it
        system, store, truth = load_system("known_water"), ParquetStore(home), known_potential()
        for number in (0, 1):
            metadata = FileMetadata("known_water", "thermal_response_targets", "molar", seed=1, code_version="1")
            columns = labels(truth, 8, [300.0, ORIGIN, 600.0], seed=number).columns()
            columns["force_variance"] = np.full(len(columns["temperature"]), SD**2)
            store.write_table(columns, metadata, f"000{number}", TABLE_UNITS)
        frames = dynamics(truth, liquid(100, seed=6), [350.0, 500.0], sd=SD)  # two replicas of 5 ps
        store.write_frames(
            frames, FileMetadata("known_water", "trajectories", "molar", seed=1, code_version="1"), "0000"
        )
        made = {"potential_splines", "potential_network", "cg_simulation_splines", "evaluation_splines"}
        assets = [asset for asset in build_assets({system.name: system}) if asset.key.path[-1] in made]
        result = dg.materialize(assets, instance=dg.DagsterInstance.ephemeral(), resources=build_resources(home))
        yield home, system, store, truth, result


def test_potentials_are_fitted_judged_and_registered(made):
    _, _, store, _, result = made
    assert result.success
    failed = {name for name, passed in verdicts_of(result).items() if not passed}
    assert failed <= {("cg_simulation_splines", "kinetic_temperature")}, failed  # too short to determine it
    for name in ("splines", "network"):
        metadata = metadata_of(result)[f"potential_{name}"]
        assert metadata["frames"].value == 48
        assert "(/files/figures/" in metadata["figure"].value
        assert "explained first_order" in metadata["errors_on_held_out_frames"].value
        facts = store.describe("known_water", f"potential_{name}").metadata
        batches = {f"known_water/thermal_response_targets/000{number}" for number in (0, 1)}
        beside = {"known_water/trajectories/0000"} if name == "splines" else set()
        assert set(facts.upstream_data_versions) == batches | beside
        assert facts.extra["registered_model"] == f"known_water.{name}"
    floor, loss = (metadata_of(result)["potential_splines"][key].value for key in ("noise_floor", "held_out_loss"))
    assert 0.8 * floor < loss < 1.5 * floor
    assert 0.5 * NOISE["forces"] ** 2 < floor


def test_beads_are_simulated_and_judged_at_each_temperature(made):
    _, _, store, _, result = made
    frames = store.read_frames("known_water", "cg_simulation_splines")
    assert len(frames) == 2 * 2 * 12 and set(frames.temperature) == {350.0, 500.0}
    assert set(frames.replica) == {0, 1, 2, 3}
    judged = metadata_of(result)["evaluation_splines"]
    for text in ("rdf_error", "heat_capacity", "diffusion", "350 K", "500 K"):
        assert text in judged["results"].value
    for figure in ("errors", "radial distribution", "angular distribution", "energies", "diffusion"):
        assert "(/files/figures/" in judged[figure].value
    # The simulation may be too short to determine its temperature; then its potential is no champion.
    thermal = verdicts_of(result)["cg_simulation_splines", "kinetic_temperature"]
    assert judged["champion"].value == thermal, judged["decision"].value
    read = store.describe("known_water", "evaluation_splines").metadata.upstream_data_versions
    assert set(read) == {"known_water/cg_simulation_splines", "known_water/trajectories/0000"}


def test_registered_models_take_temperature_and_box_without_the_package(made, tmp_path):
    home, _, _, truth, _ = made
    exact = labels(truth, 3, [350.0, 500.0], seed=9, noise=0.0)
    np.savez(tmp_path / "inputs.npz", positions=exact.positions, temperature=exact.temperature, box=exact.box)
    script = f"""
import sys
sys.modules["cg_assets"] = None
import mlflow, numpy
mlflow.set_tracking_uri("sqlite:///{home}/mlflow/mlflow.db")
given = dict(numpy.load("inputs.npz"))
for name in ("splines", "network"):
    model = mlflow.pyfunc.load_model(f"models:/known_water.{{name}}@candidate")
    numpy.savez(f"{{name}}.npz", **model.predict(given))
try:
    model.predict({{"positions": given["positions"]}})
except Exception as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=600, capture_output=True, env=environment
    )
    assert b"give `temperature`" in done.stdout
    for name, least in (("splines", 0.95), ("network", -1.0)):
        found = np.load(tmp_path / f"{name}.npz")
        assert found["energy"].shape == (6,)
        error = ((found["forces"] - exact.forces) ** 2).mean() / (exact.forces**2).mean()
        assert 1 - error > least, name


def test_registered_model_is_the_one_that_was_solved_for(made):
    home, _, store, _, _ = made
    facts = store.describe("known_water", "potential_splines").metadata.extra
    module, config = ModelTracking(None, home).load(facts["registered_model"], facts["version"])
    assert config["temperature_dependence"]["form"] == "constant_heat_capacity"
    assert config["bead_masses"][0] == pytest.approx(18.015, abs=0.01)
    with torch.no_grad():
        energy = module(torch.zeros(1, 27, 3).uniform_(0, EDGE), 400.0, torch.full((3,), EDGE))
    assert torch.isfinite(energy).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("splines: {network: {pair_cutoff: 0.63}}", r"cutoff of 0.63 nm, beyond half the box \(0.6215 nm\)"),
        ("splines: {method: guessing}", "potentials.splines.method"),
        ("splines: {method: force_matching, temperature_dependence: {origin: 460}}", "needs targets at T_0 = 460"),
        (
            "splines: {network: {type: tensor_network, cutoff: 0.6, soft_cutoff: 0.5, training: {epochs: 1, "
            "batch_size: 8, learning_rate: 0.01}}}",
            "potentials.splines: unconstrained_frames is 600, but only splines learn from them; set it to 0",
        ),
        ("products: {unconstrained_frames: 0}", "method product_response needs unconstrained_frames; set their number"),
        (
            "products: {temperature_dependence: {origin: 450}}",
            r"unconstrained_frames needs trajectories at T_0 = 450.0 K; take one of \[250.0, 300.0",
        ),
        ("splines: {temperature_dependence: {form: anchored}}", "needs at least two anchors"),
        ("splines: {temperature_dependence: {anchors: [300, 400]}}", "needs an origin, and no anchors"),
    ],
)
def test_a_wrong_potential_is_refused_with_what_is_allowed(home, change, message):
    text = f"extends: water\nname: own_water\ntitle: Own\npotentials:\n  {change}\n"
    (home / "systems" / "own_water.yaml").write_text(text)
    with pytest.raises(SystemSpecError, match=message):
        load_system("own_water")
