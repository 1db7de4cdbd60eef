"""What editors, `cg-assets docs` and the reference tell about fields is what the settings accept."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import malformed
import pytest
import yaml

from cg_assets.cli import main
from cg_assets.core.errors import SystemSpecError
from cg_assets.evaluation.settings import Basin
from cg_assets.systems import load_system, schema
from cg_assets.systems.load import SHIPPED

FILES = [*sorted(SHIPPED.glob("*.yaml")), *sorted((Path(__file__).parents[2] / "examples").glob("**/*.yaml"))]


@pytest.fixture(scope="module")
def validator():
    found = schema.system_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_files_are_accepted(file, validator):
    validator.validate(yaml.safe_load(file.read_text()))


def of_domain(upper):
    model = {"domain": {"x": [-999, upper]}}
    return {"extends": "muller_brown", "name": "own", "title": "Own", "model": model}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *[("-pi", -math.pi), ("2*pi", 2 * math.pi), ("(1 + pi)/2", (1 + math.pi) / 2), ("pi**2", math.pi**2)],
        *[("1e-3*pi", 1e-3 * math.pi), ("2.5E+1 - pi", 25 - math.pi), ("1.e1*pi", 10 * math.pi)],
    ],
)
def test_formulas_of_pi_are_accepted_by_editors_and_when_read(validator, value, number):
    assert [*validator.iter_errors(of_domain(value))] == []
    assert Basin.model_validate({"limits": {"x": [-999, value]}}).limits["x"] == (-999, pytest.approx(number))


@pytest.mark.parametrize("value", ["tau", "sqrt(pi)", "abs(pi)", "pi*x", "pie", "e*pi", "0x1*pi", "1_0*pi", "0.5", ""])
def test_other_formulas_are_refused_by_editors_and_when_read(validator, value):
    assert len([*validator.iter_errors(of_domain(value))]) == 1
    with pytest.raises(ValueError, match=r"limits\.x\.1"):
        Basin.model_validate({"limits": {"x": [-999, value]}})


def test_malformed_files_are_refused(validator):
    """Every missing and unknown field, and every value of another type; JSON has no numbers that are none."""
    refused = {kind: [] for kind in (malformed.missing_field, malformed.unknown_field, malformed.wrong_value)}
    for kind, results in refused.items():
        draw = malformed.random.Random(1)
        for _ in range(60):
            item = kind(draw)
            if not any(text in item.kind for text in ("= nan", "= inf", "= 100000000000000000000")):
                errors = validator.iter_errors(yaml.safe_load(item.text))
                results.append((item.kind, next(errors, None) is not None))
    assert all(found for kind in (malformed.missing_field, malformed.unknown_field) for _, found in refused[kind])
    values = refused[malformed.wrong_value]
    assert sum(found for _, found in values) > 0.85 * len(values), [kind for kind, found in values if not found]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("temprature: 300", "line 4: temprature (value 300): is not known; is temperature meant?"),
        ("training: {epoch: 3}", "line 4: training.epoch (value 3): is not known; is epochs meant?"),
        ("sampling: {biased: {bias: {widht: 3}}}", "bias.widht (value 3): is not known; is width meant?"),
        ("training:\n  epochs: -3", "line 5: training.epochs (value -3): must be greater than 0"),
        ("potentials:\n  own:\n    lables: a", "line 6: potentials.own.lables (value 'a'): is not known; is labels"),
    ],
)
def test_a_wrong_field_is_named_with_its_line_and_the_nearest_known_one(change, expected, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(f"name: own\nextends: capped_alanine_quick\ntitle: Own\n{change}\n")
    with pytest.raises(SystemSpecError) as error:
        load_system(file)
    assert expected in str(error.value)


def faults_of(tmp_path, fields):
    file = tmp_path / "own.yaml"
    file.write_text(f"name: own\nextends: capped_alanine_quick\ntitle: Own\n{fields}")
    with pytest.raises(SystemSpecError) as error:
        load_system(file)
    return str(error.value).splitlines()


def test_a_fault_of_several_fields_names_the_lines_of_all(tmp_path):
    (line,) = faults_of(tmp_path, "training:\n  epochs: -3\n  batch_size: 64\n  patience: -3\n")
    assert "lines 5, 7: training.epochs, training.patience (value -3): must be greater than 0" in line


def test_of_many_faults_twenty_are_listed(tmp_path):
    lines = faults_of(tmp_path, "potentials:\n" + "".join(f"  p{n}: {{labels: [{n}]}}\n" for n in range(50)))
    assert lines[0].endswith("50 faults") and len(lines) == 22 and lines[-1].strip() == "and 30 more"
    assert "line 5: potentials.p0.labels (value [0])" in lines[1]


WITHOUT_MEANING = """
from cg_assets.systems import schema
print([row.name for section in schema.sections() for row in section.fields if not row.meaning])
"""


def test_every_field_has_a_meaning():
    """In a process of its own: other tests add members of their own to the families."""
    found = subprocess.run([sys.executable, "-c", WITHOUT_MEANING], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    text = schema.reference_markdown()
    assert "| `friction` | number > 0 | needed | Of the Langevin thermostat [1/ps or reduced]. |" in text
    assert "`sampling.unbiased`, `sampling.biased`" in text


def test_every_time_has_a_unit():
    times = re.compile(r"(^|_)(duration|interval|burn_in|timestep|friction|pace|relaxation|lag)$")
    rows = [row for section in schema.sections() for row in section.fields if times.search(row.name)]
    assert len(rows) > 20
    assert [(row.name, row.meaning) for row in rows if "[" not in row.meaning] == []


def test_a_field_is_explained(capsys):
    assert main(["docs", "biased.friction"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  number > 0; needed",
        "  Of the Langevin thermostat [1/ps or reduced].",
    ]
    assert main(["docs", "fricton"]) == 1
    assert "is friction or " in capsys.readouterr().err
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema.system_schema()
