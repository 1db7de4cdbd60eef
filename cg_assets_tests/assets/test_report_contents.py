"""What a report and a model card contain: what is there, and all that fails."""

import re

import pytest

from cg_assets.assets.comparison import kept_figures
from cg_assets.assets.report.contents import caption, citations, data_files, decisions, report_page
from cg_assets.assets.report.model_card import model_card
from cg_assets.assets.stage import Stage
from cg_assets.assets.work import Inputs
from cg_assets.registry.models import ReportPlace
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
    place = ReportPlace("3", "a1b2")
    assert "![" not in model_card(inputs, row["potential"], row, "", place, "")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name.replace(' ', '_')}.png").touch()
    found = kept_figures(inputs, "comparison")
    assert {path.stem.replace("_", " ") for path in found} == set(names)
    assert found[0].stem.replace("_", " ") == first
    card = model_card(inputs, row["potential"], row, "", place, "overview.svg")
    assert "](get-artifact?path=report/overview.svg&run_id=a1b2)" in card
    assert "](#/experiments/3/runs/a1b2/artifacts/report/report.html)" in card


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


def test_figures_of_older_code_are_marked(inputs):
    """The comparison was drawn by other code, its numbers are unchanged; the figures of all else are of now."""

    def page():
        fresh = Inputs(ParquetStore(inputs.store.home), inputs.system)
        return report_page(fresh, decisions(fresh, {}), data_files(fresh))

    store = inputs.store
    for stage in ("comparison", "evaluation_biased"):
        folder = store.figure_folder("small_wells", stage)
        folder.mkdir(parents=True)
        (folder / "figure.png").touch()
    assert "out of date" not in page().lower()
    metadata = store.describe("small_wells", "comparison").metadata
    metadata.extra["recipe"]["code of comparison"] = "other"
    store.write_table(read_arrays(store.file("small_wells", "comparison")), metadata)
    html = page()
    why = "code of comparison changed since it was made"
    assert html.count(f"<p>Out of date: {why}.</p>") == 1 and html.count('rect class="changed"') == 1
    assert f"<h3>comparison</h3>\n<p>Out of date: {why}.</p>" in html and "<h3>evaluation biased</h3>\n<fig" in html
    assert "Out of date, with a coloured edge: comparison." in html


@pytest.mark.parametrize(
    ("name", "papers"),
    [
        ("muller_brown", ["2510.11148"]),
        ("muller_brown_plane", ["2506.19628"]),
        ("melting_wells", ["2510.11148", "2602.23198"]),
        ("capped_alanine_quick", ["2510.11148", "2302.07071", "2602.10637"]),
    ],
)
def test_the_papers_are_those_of_the_methods_that_are_used(name, papers):
    assert re.findall(r"arXiv ([0-9.]+)", citations(load_system(name))) == papers
