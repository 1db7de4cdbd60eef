"""Product labels of biased frames as assets: labels, a potential at all temperatures, its simulation and evaluation."""

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from coupled_wells import ORIGIN, SYSTEM, exact
from test_pipeline import materialize, metadata_of, verdicts_of

from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.parquet import describe
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

STAGES = [
    *("biased_samples", "relabelled_forces", "products_labels", "potential_products", "cg_simulation_products"),
    *("reference", "evaluation_products"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("products") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "coupled_wells.yaml").write_text(SYSTEM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.setenv("CG_DEVICE", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        system = load_system("coupled_wells")
        yield system, ParquetStore(home), materialize(system, home, dg.DagsterInstance.ephemeral(), stages=STAGES)


def test_labels_are_stored_with_units_noise_and_verdict(made):
    system, store, result = made
    assert result.success
    assert verdicts_of(result)["products_labels", "energies_and_responses"]
    path = store.file(system.name, "products_labels", "0000")
    schema = pq.read_schema(path)
    units = {name: schema.field(name).metadata[b"unit"].decode() for name in ("first_order", "second_order")}
    assert units == {
        "first_order": "reduced energy/length/(reduced temperature)",
        "second_order": "reduced energy/length/(reduced temperature)^2",
    }
    shown = metadata_of(result)["products_labels"]
    assert "second_order" in str(shown["noise"].value)
    assert describe(path).metadata.extra["noise_floor"]["value"] > 0


def test_the_registered_potential_takes_a_temperature(made):
    """Its forces and their slope in temperature at that of the frames, against quadrature; loss is at its floor."""
    _, store, result = made
    assert verdicts_of(result)["potential_products", "loss_and_noise_floor"]
    module, config = ModelTracking(None, store.home).load("coupled_wells.products", "1")
    assert module.conditions == {"temperature"} and config["temperature_dependence"]["origin"] == ORIGIN
    places = np.linspace(-1.3, 1.2, 11)
    found = module.response(torch.as_tensor(places)[:, None, None], ORIGIN)
    known = exact(places)
    assert np.abs(found.forces.detach().numpy().ravel() - known.forces).max() < 0.8
    assert np.abs(found.first_order.detach().numpy().ravel() - known.first_order).max() < 1.2


def test_its_simulation_has_the_exact_free_energy(made):
    _, _, result = made
    assert verdicts_of(result)["evaluation_products", "pmf_rmse"]
    assert all(verdicts_of(result).values())
