"""Tables that other programs read."""

import csv
import io
import json

from cg_assets.cli import main
from cg_assets.operations.tables import printed
from cg_assets.systems import find_systems


def test_one_table_in_three_forms():
    columns, rows = ("name", "value"), [["a, b", 1.5], ["c", None]]
    assert json.loads(printed(columns, rows, "json")) == [{"name": "a, b", "value": 1.5}, {"name": "c", "value": None}]
    assert list(csv.reader(io.StringIO(printed(columns, rows, "csv")))) == [[*columns], ["a, b", "1.5"], ["c", ""]]
    assert printed(columns, rows).splitlines()[0].split() == [*columns]


def test_systems_are_listed_for_other_programs(capsys):
    names = [*find_systems().systems]
    assert main(["systems", "--json"]) == 0
    assert [row["system"] for row in json.loads(capsys.readouterr().out)] == names
    assert main(["systems", "--csv"]) == 0
    assert [row["system"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == names
