"""Tables that other programs read."""

import csv
import io
import json

from cg_assets.cli import main
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.comparison import Comparison
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.evaluation.quantity import Quantity
from cg_assets.operations.results import print_headlines
from cg_assets.operations.tables import printed
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import find_systems


def test_one_table_in_three_forms():
    columns, rows = ("name", "value"), [["a, b", 1.5], ["c", None]]
    assert json.loads(printed(columns, rows, "json")) == [{"name": "a, b", "value": 1.5}, {"name": "c", "value": None}]
    assert list(csv.reader(io.StringIO(printed(columns, rows, "csv")))) == [[*columns], ["a, b", "1.5"], ["c", ""]]
    assert printed(columns, rows).splitlines()[0].split() == [*columns]


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

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert main(["query", sql, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    numbers = {"none": None, "part": 1.5, "whole": 3, "nan": None, "infinite": None}
    assert row == numbers | {"list": [None, 2.0], "struct": {"x": 2.5}, "day": "2026-01-02"}
    assert isinstance(row["whole"], int)
    assert main(["query", "select NULL as none, '' as empty, 1.50::DECIMAL(4, 2) as part, 2 as n", "--csv"]) == 0
    assert capsys.readouterr().out == "none,empty,part,n\n,,1.50,2\n"
    assert main(["query", "select 1 as n where false", "--csv"]) == 0
    assert capsys.readouterr().out == "n\n"


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
    ParquetStore(home).write_table(comparison.columns(), FileMetadata("muller_brown", "comparison", "reduced"))
    print_headlines(home, ["muller_brown"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.strip().splitlines()]
    assert lines[0] == "system quantity potentials by their labels reference bound"
    assert lines[2:] == [
        "muller_brown PMF RMSE [kT] unbiased 0.300 ± 0.010, fails biased 0.050 ± 0.010 ≤ 0.1",
        "muller_brown population unbiased 0.500 ± 0.010 biased 0.500 ± 0.010 0.520 ± 0.010",
        "muller_brown stable replicas unbiased 0.9, fails biased 1 ≥ 1",
    ]
