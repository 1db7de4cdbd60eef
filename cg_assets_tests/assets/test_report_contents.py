"""What a report and a model card contain: what is there, and all that fails."""

import pytest

from cg_assets.assets.comparison import kept_figures
from cg_assets.assets.report.contents import caption, decisions
from cg_assets.assets.report.model_card import model_card
from cg_assets.assets.stage import Stage
from cg_assets.assets.work import Inputs
from cg_assets.storage.parquet import read_arrays
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system


@pytest.fixture
def inputs(copied):
    return Inputs(ParquetStore(copied.home), load_system("small_wells"))


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("accuracy and speed", "learning curves", "potentials compared"), "potentials compared"),
        (("accuracy and speed", "angular distribution", "diffusion", "errors"), "errors"),
        (("errors", "free energy of helicity", "melting"), "melting"),
        (("accuracy and speed", "free energy of helicity"), "free energy of helicity"),
    ],
)
def test_a_card_names_a_figure_that_is_there(inputs, names, first):
    folder = inputs.store.figure_folder("small_wells", "comparison")
    for path in folder.glob("*.png"):
        path.unlink()
    assert kept_figures(inputs, "comparison") == []
    row = decisions(inputs, {})[0]
    assert ".png" not in model_card(inputs, row["potential"], row, "", "")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name.replace(' ', '_')}.png").touch()
    found = kept_figures(inputs, "comparison")
    assert {path.stem.replace("_", " ") for path in found} == set(names)
    assert found[0].stem.replace("_", " ") == first
    assert f"`report/{found[0].name}`" in model_card(inputs, row["potential"], row, "", found[0].name)


def test_a_verdict_has_failed_checks_of_the_evaluation_and_of_the_data(inputs):
    """As the choice of the champion has: not bounds alone."""

    def verdicts():
        fresh = Inputs(ParquetStore(inputs.store.home), inputs.system)
        return {row["potential"]: row["verdict"] for row in decisions(fresh, {})}

    before, store = verdicts(), inputs.store
    assert before["biased"] == "passes"
    metadata = store.describe("small_wells", "evaluation_biased").metadata
    metadata.extra["failed_checks"] = ["stable_replicas"]
    table = read_arrays(store.file("small_wells", "evaluation_biased"))
    store.write_table(table, metadata)
    assert verdicts() == before | {"biased": "fails: stable_replicas"}
    metadata = store.describe("small_wells", "cg_simulation_biased").metadata
    metadata.extra["failed_checks"] = ["stability"]
    made = store.write_frames(store.read_frames("small_wells", "cg_simulation_biased"), metadata)
    metadata = store.describe("small_wells", "evaluation_biased").metadata
    metadata.upstream_data_versions["small_wells/cg_simulation_biased"] = made.content_hash
    store.write_table(table, metadata)
    assert verdicts()["biased"] == "fails: stable_replicas; small_wells/cg_simulation_biased failed stability"


@pytest.mark.parametrize(("name", "words"), [("PMF", "PMF"), ("CG simulation", "CG simulation"), ("errors", "Errors")])
def test_captions_are_plain_sentences(name, words):
    stage = Stage("samples", "Frames of `small_wells`, **all** of them.", lambda work: None)
    assert caption(name, stage) == f"{words}. Frames of small_wells, all of them."
