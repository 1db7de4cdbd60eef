"""A source of labels in one file: the exact mean force of two wells, trained on, judged and registered."""

import dagster as dg
import toys.exact_wells  # noqa: F401  (a source that is found by being defined)
from small_systems import SMALL_WELLS
from test_pipeline import materialize, verdicts_of

from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.parquet import read_arrays
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

SYSTEM = SMALL_WELLS.replace("small_wells", "toy_wells").replace(
    "potentials:", "labels: {exact: {type: exact_wells, height: 3.0}}\npotentials:\n  exact: {labels: exact_labels}"
)


def test_a_toy_source_makes_a_registered_potential(tmp_path, monkeypatch):
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "toy_wells.yaml").write_text(SYSTEM)
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    system = load_system("toy_wells")
    needed = ("trajectories", "mapped_forces", "exact_labels", "potential_exact", "cg_simulation_exact")
    stages = [*needed, "reference", "evaluation_exact"]
    result = materialize(system, tmp_path, dg.DagsterInstance.ephemeral(), stages=stages)
    assert result.success and verdicts_of(result)["exact_labels", "finite"]
    rows = read_arrays(ParquetStore(tmp_path).file(system.name, "evaluation_exact"))
    assert len(rows) and verdicts_of(result)["evaluation_exact", "pmf_rmse"]
    model, _ = ModelTracking(None, tmp_path).load("toy_wells.exact", "1")
    assert model is not None
