"""A ladder as assets: frames of all rungs are stored and mapped, labels have the noise of the lowest."""

import dagster as dg
import numpy as np
import pytest
from test_pipeline import materialize, verdicts_of

from cg_assets.assets.work import Inputs
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

LADDER = """
extends: capped_alanine_quick
name: ladder
title: Capped alanine on a ladder of temperatures
sampling:
  unbiased:
    replicas: 8
    tempering: {temperatures: [300, 380, 480, 610], pace: 0.4, kept_rungs: all}
    burn_in: 2
    duration: 40
    frame_interval: 0.1
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("ladder") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "ladder.yaml").write_text(LADDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        system = load_system("ladder")
        stages = ["trajectories", "mapped_forces"]
        yield system, ParquetStore(home), materialize(system, home, dg.DagsterInstance.ephemeral(), stages=stages)


def test_frames_of_every_rung_are_stored_and_mapped(made):
    system, store, result = made
    assert result.success and all(verdicts_of(result).values())
    inputs = Inputs(store, system)
    for stage in ("trajectories", "mapped_forces"):
        every, own = inputs.frames(stage, "0000", every_temperature=True), inputs.frames(stage, "0000")
        assert {float(t): int(n) for t, n in zip(*np.unique(every.temperature, return_counts=True), strict=True)} == {
            300.0: 800, 380.0: 800, 480.0: 800, 610.0: 800,
        }  # fmt: skip
        assert len(own) == 800 and set(own.temperature) == {300.0} and set(own.replica) == {0, 1}
        assert every.forces.shape == every.positions.shape and every.potential_energy.shape == (3200,)
    kinetic = store.describe("ladder", "trajectories", "0000").metadata.extra["kinetic_temperature"]
    assert len(kinetic) == 4


def test_the_noise_is_that_at_the_temperature_of_the_system(made):
    """Forces at 610 K scatter more: their noise is not that of the labels that potentials learn from."""
    system, store, _ = made
    floor = store.describe("ladder", "mapped_forces", "0000").metadata.extra["noise_floor"]
    frames = Inputs(store, system).frames("mapped_forces", "0000", every_temperature=True)
    mean_square = {kelvin: float((frames.at_temperature(kelvin).forces ** 2).mean()) for kelvin in (300.0, 610.0)}
    assert mean_square[610.0] > 1.4 * mean_square[300.0]
    assert floor["value"] < mean_square[300.0]
