"""A ladder as assets: frames of all rungs are stored and mapped, labels have the noise of the lowest."""

import dagster as dg
import numpy as np
import pytest
from test_pipeline import materialize, metadata_of, verdicts_of

from cg_assets.assets.work import Inputs
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.noise import conditional_noise
from cg_assets.labels.quality import combined_noise_floor
from cg_assets.mapping.force_maps import ForceMap
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


def test_each_temperature_has_a_noise_floor_of_its_own(made):
    """That at 610 K is what dynamics at 610 K at the beads of its frames give, with other seeds; not that at 300 K."""
    system, store, result = made
    extra = store.describe("ladder", "mapped_forces", "0000").metadata.extra
    floors = {item["temperature"]: item for item in extra["noise_floors"]}
    assert {kelvin: item["rows"] for kelvin, item in floors.items()} == dict.fromkeys((300.0, 380.0, 480.0, 610.0), 800)
    assert floors[300.0]["value"] == extra["noise_floor"]["value"]
    atoms = Inputs(store, system).frames("trajectories", "0000", every_temperature=True).at_temperature(610.0)
    force_map = ForceMap.from_json(extra["force_map"])
    noise = {}
    for kelvin in (300.0, 610.0):
        repeated = system.repeated_labels(atoms, atoms, [force_map], seed=99, temperature=kelvin)
        noise[kelvin] = conditional_noise(repeated.forces[0]).noise_floor
    found = Estimate(floors[610.0]["value"], floors[610.0]["standard_error"])
    assert abs(found.value - noise[610.0].value) < 4 * np.hypot(found.standard_error, noise[610.0].standard_error)
    assert found.value > 1.5 * noise[300.0].value
    rows = metadata_of(result)["mapped_forces"]["noise_floors"].value
    assert rows.count("610") and rows.count("300")
    combined = combined_noise_floor(extra["noise_floors"], [item["rows"] for item in extra["noise_floors"]])
    assert combined.value == pytest.approx(np.mean([item["value"] for item in floors.values()]))
