"""A source of labels in one file: the exact mean force of two wells, trained on, judged and registered."""

from dataclasses import replace
from typing import Literal

import dagster as dg
import numpy as np
from small_systems import SMALL_WELLS
from test_pipeline import materialize, verdicts_of

from cg_assets.core.checks import Check, finite_verdict
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.labels.quality import LabelNoise
from cg_assets.labels.source import Labelled, LabelSource
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.parquet import read_arrays
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

FINITE = Check("finite", "Every force is a finite number.")


class ExactWells(LabelSource):
    """-dW/dx of W(x) = height (x² - 1)²."""

    type: Literal["exact_wells"]
    height: float

    @property
    def checks(self):
        return (FINITE,)

    def label(self, inputs):
        x = inputs.frames.positions.astype(np.float64)
        frames = replace(inputs.frames, forces=(-4.0 * self.height * x * (x**2 - 1.0)).astype(np.float32))
        noise = LabelNoise(Estimate(0.0, 0.0), "exact")
        return Labelled(frames, noise, lambda stored: [finite_verdict(FINITE, stored)], {"height": self.height})


SYSTEM = SMALL_WELLS.replace("small_wells", "toy_wells").replace(
    "potentials:", "labels: {exact: {type: exact_wells, height: 3.0}}\npotentials:\n  exact: {labels: exact_labels}"
)


def test_a_toy_source_makes_a_registered_potential(tmp_path, monkeypatch):
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "toy_wells.yaml").write_text(SYSTEM)
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    system = load_system("toy_wells")
    needed = ("trajectories", "mapped_forces", "exact_labels", "potential_exact", "cg_simulation_exact")
    stages = [*needed, "reference", "evaluation_exact"]
    result = materialize(system, tmp_path, dg.DagsterInstance.ephemeral(), stages=stages)
    assert result.success and verdicts_of(result)["exact_labels", "finite"]
    rows = read_arrays(ParquetStore(tmp_path).file(system.name, "evaluation_exact"))
    assert len(rows) and verdicts_of(result)["evaluation_exact", "pmf_rmse"]
    model, _ = ModelTracking(None, tmp_path).load("toy_wells.exact", "1")
    assert model is not None
