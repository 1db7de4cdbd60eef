"""A potential in one file, without touching the package: trained, simulated, judged, registered, loaded elsewhere."""

import subprocess
import sys

import dagster as dg
import numpy as np
import pytest
import torch
import toys.polynomial  # noqa: F401  (a potential that is found by being defined)
from small_systems import SMALL_WELLS
from test_pipeline import evaluation_of, materialize
from test_tracking import environment

from cg_assets.core.errors import SystemSpecError
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

TOY_WELLS = (
    SMALL_WELLS.replace("name: small_wells", "name: toy_wells")
    .replace(
        "{type: radial_basis, range: [-3, 3], basis_functions: 30, basis_width: 0.3, hidden: [32, 32]}",
        "{type: toy_polynomial, range: [-3, 3]}",
    )
    .replace("  unbiased: {labels: mapped_forces}\n", "")
)
ELSEWHERE = """
import sys
sys.modules["cg_assets"] = sys.modules["toys"] = None
import mlflow, numpy as np
mlflow.set_tracking_uri({uri!r})
answer = mlflow.pyfunc.load_model("models:/toy_wells.biased/1").predict({{"positions": np.load("given.npy")}})
np.savez("found.npz", **answer)
"""


def test_a_potential_in_one_file_goes_all_the_way(command, tmp_path):
    command.add_system(TOY_WELLS)
    system = load_system("toy_wells")
    assert materialize(system, command.home, dg.DagsterInstance.ephemeral()).success
    store, tracking = ParquetStore(command.home), ModelTracking(None, command.home)
    found = evaluation_of(store, system.name, "biased")
    # W(x) = 3 (x² - 1)², a polynomial of fourth order, is recovered within the noise of a few thousand labels
    error = next(item for item in found.quantities if item.decides).value
    assert error.value < 0.1 and all(item.passed for item in found.quantities)
    module, _ = tracking.load("toy_wells.biased", "1")
    positions = np.linspace(-1.3, 1.3, 9)[:, None, None]
    with torch.no_grad():
        energy, forces = module.energy_and_forces(torch.as_tensor(positions).float())
    np.save(tmp_path / "given.npy", positions)
    code = ELSEWHERE.format(uri=tracking.uri)
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, env=environment(), check=True)
    with np.load(tmp_path / "found.npz") as answer:
        np.testing.assert_allclose(answer["energy"], energy, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(answer["forces"], forces, rtol=1e-5, atol=1e-5)


def test_it_is_one_of_those_that_a_molecule_is_refused(command):
    command.add_system(TOY_WELLS)
    changed = {"network": {"type": "toy_polynomial", "range": [-3, 3]}}
    molecule = load_system("capped_alanine_quick").model_dump(mode="json") | changed
    with pytest.raises((SystemSpecError, ValueError), match=r"toy_polynomial, which does not fit model\.type"):
        type(load_system("capped_alanine_quick")).model_validate(molecule)
