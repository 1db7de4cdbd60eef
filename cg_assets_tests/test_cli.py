"""The command: what it prints, and how it refuses wrong input before any work."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from small_systems import GLYCINE, SMALL_WELLS

from cg_assets.cli import main
from cg_assets.systems import load_system

STAGES = (
    *("biased_samples", "cg_simulation_biased", "cg_simulation_unbiased", "comparison", "evaluation_biased"),
    *("evaluation_unbiased", "mapped_forces", "potential_biased", "potential_unbiased", "reference"),
    *("registered_models", "registered_models", "relabelled_forces", "report", "trajectories"),
)


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(done, *words: str) -> None:
    """One clear message on stderr, exit status 1, no traceback."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("cg-assets: ")
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr


# --------------------------------------------------------------------------------------- documentation


def test_examples_of_the_documentation_load(home):
    pages = [
        (REPOSITORY / "docs" / page).read_text(encoding="utf-8") for page in ("systems.md", "tutorials/own_surface.md")
    ]
    blocks = re.findall(r"^```yaml\n(.*?)^```", "\n".join(pages), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        name = yaml.safe_load(block)["name"]
        (home / "systems" / f"{name}.yaml").write_text(block, encoding="utf-8")
    for block in blocks:
        assert load_system(yaml.safe_load(block)["name"]).title


# --------------------------------------------------------------------------------------- what it prints


def test_systems_are_listed(command):
    command.add_system(SMALL_WELLS)
    done = command("systems")
    assert done.returncode == 0
    listed = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert {"muller_brown", "muller_brown_diagonal", "capped_alanine_quick", "small_wells"} <= set(listed)
    assert listed["small_wells"].endswith("Two wells, small")


UNDERSTOOD = {
    "muller_brown": [
        r"temperature +1 reduced temperature",
        r"coordinates +x from 0 to 60, y from -10 to 60",
        r"beads +1: x",
        r"sampling.biased +204800 frames from 1.54e\+08 steps; estimated: .* of one core or GPU, 4.9 MB",
    ],
    "capped_alanine_quick": [
        r"temperature +300 K",
        r"molecules +1, of 3 residue\(s\), 22 atoms: 1 ACE, 1 ALA, 1 NME",
        r"conformer +extended, built from the sequence",
        r"box +none, isolated",
        r"forces +HarmonicBondForce, .*GBSAOBCForce",
        r"beads +10: 1:CH3, 1:C, .*3:C",
        r"bonds of beads +9: 1:CH3-1:C, .*2:C-3:N, 3:N-3:C",
        r"collective variable phi +-1.4 rad in the start structure",
        r"collective variable psi +2.6 rad in the start structure",
        r"sampling.unbiased +80000 frames from 4.2e\+05 steps; estimated: .*, 61 MB",
        r"reference +.*_reference.parquet: its plan is not run",
    ],
}


@pytest.mark.parametrize("name", list(UNDERSTOOD))
def test_a_good_system_is_printed_back(command, name):
    done = command("check", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"\n{name}: ready to run\n")
    for line in UNDERSTOOD[name]:
        assert re.search(f"^{line}$", done.stdout, re.MULTILINE), line
    assert everything_below(command.home) == {}


@pytest.mark.parametrize("command_name", ["check", "run"])
def test_what_cannot_be_built_is_refused_before_any_work(command, command_name):
    command.add_system("extends: muller_brown\nname: cut\ntitle: Cut\nmodel: {domain: {y: [10, 60]}}\n")
    done = command(command_name, "cut")
    assert done.returncode == 1
    assert done.stderr.startswith("cg-assets: model.domain.y: at y = 10.0 the Boltzmann factor is still")
    assert len(done.stderr.splitlines()) == 1
    assert not (command.home / "data").exists()


def test_a_basin_that_the_reference_does_not_reach_is_refused(command):
    done = command("check", "muller_brown", "--set", "evaluation.basins.right.limits={x: [60, 62]}")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "evaluation.basins.right holds no bin of reference.range; widen that, move the basin" in done.stderr


@pytest.mark.parametrize(("timestep", "accepted"), [(0.4, True), (2.0, False)])
def test_a_step_too_long_for_the_formula_is_refused(command, timestep, accepted):
    done = command("check", "muller_brown", "--set", f"sampling.unbiased.timestep={timestep}")
    assert (done.returncode == 0) == accepted
    if not accepted:
        assert "sampling.unbiased.timestep is 2, but the curvature of model.expression" in done.stderr
        assert "allows at most 0.85; lower it" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_run_prints_one_line_a_step(finished):
    done = finished("run", "small_wells", "--select", "reference", CG_EXECUTOR="in_process")
    assert done.returncode == 0, done.stderr
    assert re.search(r"small_wells/reference +Finished execution", done.stderr)
    assert done.stdout.splitlines()[0].startswith("small_wells, batch 0000: 1 stage(s) to make in ")
    assert "Traceback" not in done.stderr


def test_results(finished):
    done = finished("results")
    assert done.returncode == 0
    assert "Two wells, small" in done.stdout
    assert re.search(r"^ *metric +where +unbiased +biased +reference +bound$", done.stdout, flags=re.MULTILINE)
    lines = done.stdout.splitlines()
    assert lines[4].startswith("pmf_rmse ") and "≤" in lines[4]  # what decides stands first
    for quantity in ("barrier", "population +left"):
        assert re.search(rf"^ *{quantity} +\d.* +\d", done.stdout, flags=re.MULTILINE), quantity
    everything = finished("results", "small_wells", "--all").stdout
    for quantity in ("simulated_population", "stable_replicas"):
        assert quantity not in done.stdout and quantity in everything


def test_report(finished):
    done = finished("report", "small_wells")
    assert done.returncode == 0, done.stderr
    html = Path(done.stdout.strip()).read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:image|#)""", html)
    for words in ("Two wells, small", "small_wells.biased", "champion", "Potentials compared", "arXiv 2510.11148"):
        assert words in html, words
    assert html.count("<img ") > 8 and "relabelled_forces</text>" in html
    refused = finished("report", "muller_brown")
    assert refused.returncode == 1 and "evaluation_unbiased/part-0.parquet: no such file" in refused.stderr


def test_the_card_of_a_reported_model_has_a_snippet_that_runs(finished, tmp_path):
    with closing(sqlite3.connect(finished.home / "mlflow" / "mlflow.db")) as database:
        ask = "SELECT description FROM registered_models WHERE name = 'small_wells.biased'"
        ((card,),) = database.execute(ask).fetchall()
    for words in ("Two wells, small", "`relabelled_forces`", "PMF RMSE", "bound ≤", "is champion", "| pmf_rmse"):
        assert words in card, words
    figure, run = re.search(r"path=report/(.*?)&run_id=(\w+)\)", card).groups()
    (shown,) = (finished.home / "mlflow").rglob(f"{run}/artifacts/report/{figure}")
    assert shown.read_bytes().startswith(b"<svg") and shown.with_name("report.html").is_file()
    assert f"/runs/{run}/artifacts/report/report.html)" in card
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "energy" in done.stdout and "forces" in done.stdout


def test_models_and_lookup(finished):
    listed = finished("models")
    assert listed.returncode == 0
    assert re.search(r"^small_wells\.biased .*candidate 1.*champion 1", listed.stdout, flags=re.MULTILINE)
    shown = finished("lookup", "small_wells.biased@champion")
    assert shown.returncode == 0
    for words in ("small_wells.biased version 1", "noise_floor", "data/small_wells/biased_samples/0000", "same"):
        assert words in shown.stdout
    found = json.loads(finished("lookup", "small_wells.biased", "--json").stdout)
    assert found["aliases"] == ["candidate", "champion"]
    assert [entry["data"] for entry in found["lineage"]] == [
        "small_wells/relabelled_forces/0000",
        "small_wells/biased_samples/0000",
    ]


def test_query(finished):
    done = finished("query", "select stage, rows from lineage where system = 'small_wells' order by stage")
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["stage", "rows"]
    assert tuple(row[0] for row in rows[1:]) == STAGES
    assert ["trajectories", "10240"] in rows
    assert_refused(finished("query", "drop table lineage"), "query: got DROP")


def test_models_of_an_empty_home(command):
    done = command("models")
    assert done.returncode == 0
    assert "no models are registered yet" in done.stdout


def test_home_as_an_option(command, tmp_path):
    other = tmp_path / "other home"
    (other / "systems").mkdir(parents=True)
    (other / "systems" / "small_wells.yaml").write_text(SMALL_WELLS)
    assert "small_wells" in command("--home", str(other), "systems").stdout


# --------------------------------------------------------------------------------------- wrong input


def test_a_terminal_that_shows_ascii_alone(command):
    done = command("systems", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Muller-Brown potential, CG coordinate s = (x - y)/sqrt2" in done.stdout


@pytest.mark.parametrize(("output", "status", "words"), [("pipe", 141, "closed"), ("/dev/full", 1, "no space left")])
def test_output_that_goes_nowhere_has_one_line(command, output, status, words):
    if output == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(output, os.O_WRONLY)
    line, environment = command.line("systems"), command.environment()
    done = subprocess.run(line, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == status
    (error,) = done.stderr.splitlines()
    assert error.startswith("cg-assets: ")
    assert words in error


@pytest.fixture
def refuse(home, capsys):
    """Call the command in this process: exit status 1, words on stderr, nothing on stdout, nothing changed on disk."""
    (home / "systems" / "small_wells.yaml").write_text(SMALL_WELLS)

    def call(*arguments: str) -> str:
        before = everything_below(home)
        status = main(list(arguments))  # an error that is no CgAssetsError comes out here
        output = capsys.readouterr()
        assert (status, output.out) == (1, "")
        assert output.err.startswith("cg-assets: ")
        assert everything_below(home) == before
        return output.err

    return call


def test_arguments_too_many_are_named_with_the_usage_of_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["new", "mine", "--from", "pdb", "mine.pdb"])
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert "usage: cg-assets new" in message and "unrecognized arguments: mine.pdb" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nonsense"], ["no system named 'nonsense'", "muller_brown"]),
        (["check", "nonsense"], ["no system named 'nonsense'"]),
        (["run", "small_wells", "--select", "trajektories"], ["trajektories", "--select", "trajectories"]),
        (["run", "small_wells", "--batch", "a/b"], ["--batch", "'a/b'", "letters"]),
        (["run", "small_wells", "--batch", ""], ["--batch", "''"]),
        (["refresh", "nonsense"], ["no system named 'nonsense'"]),
        (["refresh", "small_wells", "--batch", "a/b"], ["--batch", "'a/b'", "letters"]),
        (["lineage", "nowhere.parquet"], ["no file nowhere.parquet"]),
        (["lineage", "small_wells.biased"], ["small_wells.biased", "none is registered"]),
        (["query", "select 1"], ["no data", "run a system first"]),
        (["check", "nowhere.yaml"], ["nowhere.yaml", "cannot be read"]),
        (["results", "muller_brown"], ["muller_brown", "comparison"]),
        (["results", "nonsense"], ["nonsense"]),
        (["reference", "muller_brown", "reference.parquet"], ["quadrature"]),
    ],
)
def test_wrong_input_changes_nothing(refuse, arguments, words):
    message = refuse(*arguments)
    assert [word for word in words if word not in message] == []
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("CG_EXECUTOR", "pbs", ["CG_EXECUTOR is 'pbs'", "multiprocess"]),
        ("CG_DEVICE", "tpu", ["CG_DEVICE is 'tpu'", "auto"]),
    ],
)
def test_wrong_environment_changes_nothing(refuse, monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    message = refuse("run", "small_wells")
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("temperature: 1.0", "temperature: -1.0", ["temperature", "-1.0", "greater than 0"]),
        ("temperature: 1.0", "temperature: 1.0\ntemprature: 2", ["temprature"]),
        ('expression: "2*exp(-x**2)"', 'expression: "2*exp(-y**2)"', ["sampling.biased", "'y'"]),
        ("expression: 3*(x**2 - 1)**2", "expression: 3*(z**2 - 1)**2", ["'z'", "coordinates"]),
        ("name: small_wells", "name: other_wells", ["other_wells", "small_wells"]),
        ("title: Two wells, small", "title: [", ["not valid YAML"]),
    ],
)
def test_wrong_fields_are_named(refuse, home, old, new, words):
    assert old in SMALL_WELLS
    path = home / "systems" / "small_wells.yaml"
    path.write_text(SMALL_WELLS.replace(old, new))
    message = refuse("run", "small_wells")
    assert [word for word in (str(path), *words) if word not in message] == []


def test_a_refusal_from_the_shell(command):
    """The same through a process: exit status and streams are the shell's."""
    done = command("run", "nonsense")
    assert_refused(done, "no system named 'nonsense'")
    assert not command.home.joinpath("dagster").exists()
    assert_refused(command("lookup", "a b@c@d"), "write <name>")


def test_missing_and_damaged_pdb(refuse, home):
    (home / "systems" / "own_glycine.yaml").write_text(GLYCINE)
    message = refuse("run", "own_glycine")
    for words in ("model.pdb", "own_glycine.pdb", "relative to the YAML file"):
        assert words in message
    (home / "systems" / "own_glycine.pdb").write_text("ATOM      1  N   ALA A   1      11.1  nonsense\n")
    message = refuse("run", "own_glycine")
    assert "model.pdb" in message
    assert "own_glycine.pdb" in message


def test_mlflow_server_away(copied):
    """The model cannot be registered: reported within seconds, with the remedy."""
    started = time.monotonic()
    done = copied(
        *("run", "small_wells", "--select", "potential_unbiased"),
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        CG_EXECUTOR="in_process",
    )
    assert done.returncode == 1
    assert "MLflow at http://127.0.0.1:9 cannot be reached" in done.stderr
    assert "MLFLOW_TRACKING_URI" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 60, "the command's start and 5 s for an answer"


@pytest.mark.parametrize("damage", ["truncated", "empty", "overwritten"])
def test_damaged_parquet_file_is_named(copied, damage):
    path = copied.home / "data" / "small_wells" / "trajectories" / "0000" / "part-0.parquet"
    content = path.read_bytes()
    kept = {"truncated": content[: len(content) // 2], "empty": b"", "overwritten": b"x" * len(content)}
    path.write_bytes(kept[damage])
    forces = copied.home / "data" / "small_wells" / "mapped_forces" / "0000" / "part-0.parquet"
    before = forces.read_bytes()
    done = copied("run", "small_wells", "--select", "mapped_forces", CG_EXECUTOR="in_process")
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert forces.read_bytes() == before


def test_missing_upstream_is_named(command):
    command.add_system(SMALL_WELLS)
    done = command("run", "small_wells", "--select", "mapped_forces", CG_EXECUTOR="in_process")
    assert done.returncode == 1
    assert "small_wells/trajectories" in done.stderr
    assert "materialize" in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_are_written_as_png_files(finished, tmp_path):
    done = finished("figures", "small_wells", "--folder", str(tmp_path / "figures"))
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    assert [file.name for file in files] == ["small_wells.png", "small_wells_accuracy_and_speed.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    other = finished("figures", "muller_brown", "--folder", str(tmp_path / "figures"))
    assert other.returncode == 1
    assert "evaluation_unbiased" in other.stderr
    assert "Traceback" not in other.stderr
