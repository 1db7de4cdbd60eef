"""Tables that other programs read."""

import argparse
import csv
import io
import json
import math
import os
import re

import pytest
import yaml

from cg_assets.cli import main
from cg_assets.cli.parser import command_parser
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.comparison import Comparison
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.evaluation.metric import metrics_of
from cg_assets.evaluation.quantity import Quantity
from cg_assets.operations.demo import DEMOS
from cg_assets.operations.results import SHOWN, print_headlines
from cg_assets.operations.tables import Table
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import change_fields, find_systems, load_system


def test_one_table_in_three_forms():
    columns, rows = ("name", "value"), [["a, b", 1.5], ["c", None]]
    printed = Table(columns, rows).printed
    assert json.loads(printed("json")) == [{"name": "a, b", "value": 1.5}, {"name": "c", "value": None}]
    assert list(csv.reader(io.StringIO(printed("csv")))) == [[*columns], ["a, b", "1.5"], ["c", ""]]
    assert printed().splitlines()[0].split() == [*columns]


WITHOUT = {"new", "schema", "box", "figures", "report", "ui", "export", "trajectory", "reference"}
"""Commands that print no table."""
ASKED = {
    "check": ["small_wells"],
    "docs": ["friction"],
    "lookup": ["small_wells.biased"],
    "lineage": ["small_wells.biased"],
    "query": ["select system, rows from lineage"],
    "demo": ["--dry-run"],
    "run": ["small_wells", "--dry-run", "--force"],
    "refresh": ["small_wells", "--dry-run"],
}
"""Arguments of those that need some."""


def commands():
    """Every command, and whether it prints tables."""
    (parsers,) = (item for item in command_parser()._actions if isinstance(item, argparse._SubParsersAction))
    return {name: "--json" in parser._option_string_actions for name, parser in parsers.choices.items()}


def test_every_command_that_prints_a_table_has_forms():
    assert {name for name, has_forms in commands().items() if not has_forms} == WITHOUT


def refuse(name):
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("name", [name for name, has_forms in commands().items() if has_forms])
def test_tables_of_every_command_are_json_and_csv_that_others_read(finished, monkeypatch, name):
    monkeypatch.setenv("CG_ASSETS_HOME", str(finished.home))
    monkeypatch.setitem(DEMOS, "biased", ["small_wells"])  # others take seconds to build
    options = command_parser().parse_args([name, *ASKED.get(name, [])])
    found = options.action(options)
    header, *rows = csv.reader(io.StringIO(found.printed("csv")))
    assert header == [*found.columns] and len(rows) == len(found.rows)
    assert all(len(row) == len(header) for row in rows) and (rows or name in {"prune", "demo"})
    answer = json.loads(found.printed("json"), parse_constant=refuse)
    assert isinstance(answer, dict) or [[*row] for row in answer] == [header] * len(rows)
    assert found.printed() and "{" not in found.printed().splitlines()[0]


@pytest.mark.parametrize("arguments", [["systems"], ["lookup", "small_wells.biased", "--json"], ["schema"], ["--help"]])
def test_a_closed_pipe_ends_a_command_without_a_traceback(finished, monkeypatch, capsys, arguments):
    monkeypatch.setenv("CG_ASSETS_HOME", str(finished.home))
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        assert main(arguments) == 141
        monkeypatch.undo()
    assert capsys.readouterr().err == "cg-assets: the output was closed before its end\n"


def test_lookup_shows_numbers_by_their_errors_once(finished, monkeypatch, capsys):
    monkeypatch.setenv("CG_ASSETS_HOME", str(finished.home))
    assert main(["lookup", "small_wells.biased"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^  pmf_rmse +0\.\d+ ± 0\.\d+ kT$", text, flags=re.MULTILINE)
    assert re.search(r"^  held_out_loss +[\d.]+ \(reduced energy/length\)²$", text, flags=re.MULTILINE)
    assert text.count("pmf_rmse ") == 1 and not re.search(r"\d\.\d{8}", text)
    assert main(["lookup", "small_wells.biased", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["evaluation"]["pmf_rmse"]["unit"] == "kT"
    assert whole["evaluation"]["pmf_rmse"]["value"] == whole["metrics"]["evaluation/pmf_rmse"]
    assert main(["results", "--json", "--all"]) == 0
    rows = {(row["potential"], row["metric"], row["of"]): row for row in json.loads(capsys.readouterr().out)}
    row = rows["biased", "pmf_rmse", "model"]
    assert {name: row[name] for name in ("value", "standard_error", "unit")} == whole["evaluation"]["pmf_rmse"]


def test_the_metadata_of_a_model_names_units(finished):
    stored = [yaml.safe_load(path.read_text()) for path in (finished.home / "mlflow").rglob("MLmodel")]
    assert len(stored) == 2
    for model in stored:
        assert model["metadata"]["units"]["force"] == "reduced energy/length"


def test_systems_are_listed_for_other_programs(home, capsys):
    names = [*find_systems().systems]
    assert main(["systems", "--json"]) == 0
    assert [row["system"] for row in json.loads(capsys.readouterr().out)] == names
    assert main(["systems", "--csv"]) == 0
    assert [row["system"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == names


def test_answers_of_sql_are_json_and_csv_that_others_read(home, capsys):
    (home / "data").mkdir()
    sql = """select NULL as none, 1.5::DECIMAL(4, 2) as part, sum(3) as whole, 'nan'::DOUBLE as nan, -'inf'::DOUBLE
        as infinite, ['nan'::DOUBLE, 2] as list, {'x': 2.5::DECIMAL(3, 1)} as struct, DATE '2026-01-02' as day"""

    assert main(["query", sql, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    numbers = {"none": None, "part": 1.5, "whole": 3, "nan": None, "infinite": None}
    assert row == numbers | {"list": [None, 2.0], "struct": {"x": 2.5}, "day": "2026-01-02"}
    assert isinstance(row["whole"], int)
    assert main(["query", "select NULL as none, '' as empty, 1.50::DECIMAL(4, 2) as part, 2 as n", "--csv"]) == 0
    assert capsys.readouterr().out == "none,empty,part,n\n,,1.50,2\n"
    assert main(["query", "select 1 as n where false", "--csv"]) == 0
    assert capsys.readouterr().out == "n\n"


def test_answers_of_sql_lose_nothing(home, capsys):
    """Columns of one name, bytes, and nested values, which have a form in CSV as well."""
    (home / "data").mkdir()
    for form in ("--json", "--csv"):
        assert main(["query", "select 1 as a, 2 as a", form]) == 1
        assert "query: several columns are named a; name the columns with AS" in capsys.readouterr().err
    sql = "select '\\x01\\xAB'::BLOB as b, {'x': 1.5, 'y': [1, 2]} as s, [[1, 2], [3]] as n, [1, 2] as f"
    assert main(["query", sql, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"b": "01ab", "s": {"x": 1.5, "y": [1, 2]}, "n": [[1, 2], [3]], "f": [1, 2]}
    ]
    assert main(["query", sql, "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["b"], row["f"]) == ("01ab", "1 2")
    assert json.loads(row["s"]) == {"x": 1.5, "y": [1, 2]} and json.loads(row["n"]) == [[1, 2], [3]]


def test_models_are_listed_for_other_programs(finished, monkeypatch, capsys):
    monkeypatch.setenv("CG_ASSETS_HOME", str(finished.home))
    assert main(["models", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["model"] == "small_wells.biased")
    assert str(row["newest_version"]) == "1" and str(row["aliases"]["candidate"]) == "1"
    assert main(["models"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["model", "newest", "version", "aliases"] and any("candidate 1" in line for line in lines)


def test_results_of_other_settings_are_marked(copied, monkeypatch, capsys):
    monkeypatch.setenv("CG_ASSETS_HOME", str(copied.home))
    monkeypatch.setenv("CG_ASSETS_SET", "{}")
    note = "small_wells: these results are of other settings or code: "
    for change in (False, True):
        if change:
            change_fields("small_wells", ["training.epochs=2"])
        for arguments in (["results"], ["results", "--json"]):
            assert main(arguments) == 0
            err = capsys.readouterr().err
            assert (
                (f"{note}training changed since it was made; cg-assets run small_wells makes" in err)
                if change
                else note not in err
            )
    for command in ("figures", "report"):
        assert main([command, "small_wells"]) == 1, "refused"
        assert "training changed since it was made" in capsys.readouterr().err


def test_the_demo_shows_what_fails_with_its_bound(home, capsys):
    """In its lines, and in one more for what is no headline; of one potential only."""

    def found(rmse, stable):
        return Evaluation(
            (
                Quantity("pmf_rmse", Estimate(rmse, 0.01, "kT"), bound=0.1, decides=True),
                Quantity("population", Estimate(0.5, 0.01), Estimate(0.52, 0.01), headline=True),
                Quantity("stable_replicas", Estimate(stable, 0.0), bound=1.0, at_least=True),
                Quantity("rdf_error", Estimate(0.2, 0.0), temperature=300.0, bound=0.3),
            )
        )

    comparison = Comparison({"unbiased": found(0.3, 0.9), "biased": found(0.05, 1.0)})
    for system in ("chignolin", "muller_brown"):
        ParquetStore(home).write_table(comparison.columns(), FileMetadata(system, "comparison", "reduced"))
    print_headlines(home, ["chignolin", "muller_brown"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.strip().splitlines()]
    assert lines[0] == "system quantity potentials by their labels (error of the last digits) reference bound"
    assert lines[2:] == [
        "chignolin PMF RMSE [kT] unbiased 0.300(10), fails biased 0.050(10) ≤ 0.1",
        "chignolin population unbiased 0.500(10) biased 0.500(10) 0.520(10)",
        "chignolin stable replicas unbiased 0.9, fails biased 1 ≥ 1",
        "muller_brown PMF RMSE [kT] unbiased 0.300(10), fails biased 0.050(10) ≤ 0.1",
        "muller_brown stable replicas unbiased 0.9, fails biased 1 ≥ 1",
    ]


def test_what_the_demo_shows_is_measured():
    """Each key is a quantity of its system's evaluation, of a name that is declared and a place that its file names."""
    for name, keys in SHOWN.items():
        judged = load_system(name).free_energies
        names = {measure.name for metric in metrics_of(judged) for measure in metric.measures}
        places = {
            *judged.basins,
            *(f"T_{kelvin:g}".replace(".", "_") for kelvin in judged.reference.further_temperatures),
        }
        for key in keys:
            quantity, _, where = key.partition(".")
            assert quantity in names and (not where or where in places)


def test_errors_stand_in_the_last_digits():
    numbers = {
        (8.831, 0.54): "8.83(54)",
        (16.21, 1.6): "16.2(1.6)",
        (161.3, 23.4): "161(23)",
        (0.65, 0.007): "0.6500(70)",
    }
    numbers |= {(1.23456e-5, 1.2e-8): "1.23456e-05 ± 1.2e-08", (3e6, 1.2e4): "3e+06 ± 1.2e+04"}
    numbers |= {(0.3, math.nan): "0.3(?)", (0.9838, 0.0): "0.9838", (math.inf, 0.0): "∞"}
    assert {numbers: Estimate(*numbers).concise() for numbers in numbers} == numbers
