"""A kind of system defined outside the package is sampled, trained on, judged and registered."""

import dagster as dg
import toys.two_springs  # noqa: F401  (a kind that is found by being defined)
from small_systems import SMALL_WELLS
from test_pipeline import materialize, verdicts_of

from cg_assets.registry.tracking import ModelTracking
from cg_assets.systems import load_system


def test_a_toy_kind_makes_a_registered_potential(tmp_path, monkeypatch):
    model = SMALL_WELLS[SMALL_WELLS.index("model:") : SMALL_WELLS.index("mapping:")]
    text = SMALL_WELLS.replace(model, "model: {type: toy_springs, stiffness: 2.0}\n").replace(
        "small_wells", "toy_springs"
    )
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "toy_springs.yaml").write_text(text)
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    of_potential = [f"{stage}_unbiased" for stage in ("potential", "cg_simulation", "evaluation")]
    stages, instance = ["trajectories", "mapped_forces", "reference", *of_potential], dg.DagsterInstance.ephemeral()
    result = materialize(load_system("toy_springs"), tmp_path, instance, stages=stages)
    assert result.success and all(verdicts_of(result).values())
    assert ModelTracking(None, tmp_path).load("toy_springs.unbiased", "1")
