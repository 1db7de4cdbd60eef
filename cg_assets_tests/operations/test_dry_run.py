"""What a run would make and cost, settings given on the command line, and runs that have nothing to do."""

import json
import os
import re
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from cg_assets.assets import stages_of
from cg_assets.cli import main
from cg_assets.core.checks import Check
from cg_assets.core.errors import SystemSpecError
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import change_fields, load_system

TRAINED = {"potential_biased", "potential_unbiased"}
FOLLOWS = TRAINED | {f"{stage}_{name}" for stage in ("evaluation", "cg_simulation") for name in ("biased", "unbiased")}
FOLLOWS |= {"comparison", "report"}


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    """The settings of one test are not those of the next."""
    monkeypatch.setenv("CG_ASSETS_SET", "{}")


@pytest.fixture
def finished_home(finished, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_HOME", str(finished.home))
    monkeypatch.setenv("CG_EXECUTOR", "in_process")
    return finished.home


@pytest.fixture
def copied_home(finished_home, home, monkeypatch):
    """All of the finished home, which a test may change."""
    shutil.copytree(finished_home, home, dirs_exist_ok=True)
    monkeypatch.setenv("CG_ASSETS_HOME", str(home))
    return home


def rows(capsys, *arguments):
    assert main([*arguments, "--dry-run", "--json"]) == 0
    return {(row["stage"], row["batch"]): row for row in json.loads(capsys.readouterr().out)}


def test_a_finished_system_is_not_run_again(finished_home, capsys):
    assert rows(capsys, "run", "small_wells") == {}
    assert main(["run", "small_wells", "--dry-run"]) == 0
    assert capsys.readouterr().out == "nothing is to be made\n"
    before = {path: path.stat().st_mtime_ns for path in (finished_home / "data").rglob("*.parquet")}
    assert main(["run", "small_wells"]) == 0
    text = "small_wells is up to date; `cg-assets run small_wells --force` makes batch 0000 and what follows"
    assert text in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (finished_home / "data").rglob("*.parquet")}
    forced = rows(capsys, "run", "small_wells", "--force")
    assert len(forced) == 13 and ("trajectories", "0000") in forced
    assert set(rows(capsys, "run", "small_wells", "--select", "reference")) == {("reference", "")}


@pytest.fixture
def changed_home(finished, home, monkeypatch):
    """A copy of the finished home that a test may change."""
    for part in ("data", "systems", "mlflow"):
        shutil.copytree(finished.home / part, home / part, dirs_exist_ok=True)
    monkeypatch.setenv("CG_EXECUTOR", "in_process")
    return home


def test_a_pruned_batch_is_not_up_to_date(changed_home, capsys):
    store = ParquetStore(changed_home)
    for stage in ("trajectories", "mapped_forces", "biased_samples", "relabelled_forces"):
        path = store.file("small_wells", stage, "0000")
        path.unlink()
        path.with_name("pruned.json").write_text("{}")
    for stage in ("evaluation_biased", "comparison", "report"):
        store.file("small_wells", stage).unlink()
    assert main(["run", "small_wells"]) == 1
    shown = capsys.readouterr()
    assert "up to date" not in shown.out
    assert "small_wells/trajectories/0000" in shown.err and "small_wells/evaluation_biased" in shown.err
    assert "`cg-assets run small_wells --force` makes it again, or name another --batch" in shown.err


def test_what_is_not_made_again_counts_in_the_exit_status(changed_home, capsys):
    """The evaluation failed a check that blocks nothing; only the report is made again."""
    store = ParquetStore(changed_home)
    metadata = store.describe("small_wells", "evaluation_biased").metadata
    metadata.extra["failed_checks"] = ["pmf_rmse"]
    store.write_table(store.read_table("small_wells", "evaluation_biased"), metadata)
    store.file("small_wells", "report").unlink()
    assert main(["run", "small_wells"]) == 3
    shown = capsys.readouterr()
    assert "1 stage(s) to make" in shown.out and "12 of 13 stages are up to date\n" in shown.out
    assert "small_wells/evaluation_biased failed pmf_rmse" in shown.err
    assert main(["run", "small_wells"]) == 3


def test_what_cannot_be_made_is_not_up_to_date(changed_home, capsys):
    store = ParquetStore(changed_home)
    metadata = store.describe("small_wells", "biased_samples", "0000").metadata
    metadata.extra["failed_checks"] = ["finite"]
    store.write_table(store.read_table("small_wells", "biased_samples", "0000"), metadata, "0000")
    store.file("small_wells", "reference").unlink()
    assert main(["run", "small_wells"]) == 1
    assert re.search(r"(\d+) of 13 stages are up to date, (\d+) cannot be made", capsys.readouterr().out)


def test_each_run_of_a_process_has_its_own_settings(changed_home, capsys):
    for bound, status in [("1e-6", 3), ("0.4", 0)]:
        assert main(["run", "small_wells", "--set", f"evaluation.max_pmf_error={bound}"]) == status
    assert main(["run", "small_wells", "--set", "evaluation.max_pmf_error=0.4"]) == 0
    assert "small_wells is up to date" in capsys.readouterr().out


def test_a_forced_run_that_failed_is_finished(changed_home, monkeypatch, capsys):
    forced = ["run", "small_wells", "--force", "--select", "biased_samples", "relabelled_forces"]
    judged = Check.verdict
    with monkeypatch.context() as patch:
        patch.setattr(
            Check, "verdict", lambda self, ok, **more: judged(self, ok and self.name != "noise_floor", **more)
        )
        assert main(forced) == 1
    assert main(forced) == 0
    assert "resuming the last run: 1 of 2 stages are finished" in capsys.readouterr().out
    assert main(forced) == 0
    assert "resuming" not in capsys.readouterr().out, "the last one has succeeded"


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--dry-run"], ["refresh"], ["refresh", "--dry-run"], ["report"]]
)
def test_a_file_outside_the_folder_of_systems_is_refused(home, tmp_path, capsys, arguments):
    text = "extends: muller_brown\nname: mine\ntitle: Mine\n"
    (tmp_path / "mine.yaml").write_text(text)
    name, *options = arguments
    assert main([name, str(tmp_path / "mine.yaml"), *options]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and f"mine.yaml: lies outside {home / 'systems'}; put it there" in shown.err


def test_a_file_in_the_folder_of_systems_is_its_name(home, capsys):
    path = home / "systems" / "mine.yaml"
    path.write_text("extends: muller_brown\nname: mine\ntitle: Mine\n")
    named = rows(capsys, "run", "mine")
    assert named and rows(capsys, "run", str(path)) == named


def test_what_other_settings_would_make_again(finished_home, capsys):
    found = rows(capsys, "run", "small_wells", "--set", "training.epochs=2")
    assert {stage for stage, _ in found} == FOLLOWS
    for stage in TRAINED:
        row = found[stage, ""]
        assert row["reason"] == "training changed since it was made"
    for row in found.values():  # what follows is of other settings, too
        assert row["seconds"] is None and row["megabytes"] is None
        assert re.fullmatch(r"not known; .+ in the run of [-\d]+, with other settings or code", row["known from"])
    assert found["comparison", ""]["reason"]


def test_numbers_of_other_settings_are_in_no_total(finished_home, capsys):
    """Also where all is asked for, and of what follows only."""
    plain = rows(capsys, "run", "small_wells", "--force")
    assert all(row["known from"].startswith("wall time of the run of ") for row in plain.values())
    assert main(["run", "small_wells", "--force", "--dry-run"]) == 0
    assert re.search(r"^in all (?!at least)", capsys.readouterr().out, re.M)
    change = ["--set", "sampling.unbiased.duration=10000"]
    found = rows(capsys, "run", "small_wells", "--force", *change)
    longer = found["trajectories", "0000"]
    assert longer["known from"] == "its steps, by measured rates"
    assert (
        longer["seconds"]
        > 100
        * rows(capsys, "run", "small_wells", "--set", "sampling.unbiased.duration=20")["trajectories", "0000"][
            "seconds"
        ]
    )
    assert found["evaluation_unbiased", ""]["seconds"] is None, "it reads these samples"
    assert main(["run", "small_wells", "--force", "--dry-run", *change]) == 0
    assert re.search(r"^in all at least .* and at least ", capsys.readouterr().out, re.M)


def test_a_dry_run_has_the_words_of_the_run(finished_home, capsys):
    for command in ("run", "refresh"):
        messages = []
        for dry in (["--dry-run"], []):
            assert main([command, "small_wells", "--batch", "a b", *dry]) == 1
            messages.append(capsys.readouterr().err)
        assert messages[0] == messages[1] and "--batch: " in messages[0]
    change = ["--set", "sampling.unbiased.duration=20"]
    assert main(["refresh", "small_wells", "--dry-run", *change]) == 0
    text = "trajectories of batch 0000 is left out: sampling.unbiased changed since it was made; cg-assets refresh"
    assert text in capsys.readouterr().out


def test_a_dry_run_of_a_refresh_that_fails_fails(copied_home, capsys):
    """As the refresh does that adds no batch after a training that failed its checks."""
    store = ParquetStore(copied_home)
    info = store.describe("small_wells", "potential_unbiased")
    check = next(
        check.name
        for stage in stages_of(load_system("small_wells"))
        if stage.name == "potential_unbiased"
        for check in stage.checks
        if check.blocking
    )
    metadata = replace(info.metadata, extra={**info.metadata.extra, "failed_checks": [check]})
    store.write_table(pq.read_table(info.path), metadata)
    assert main(["refresh", "small_wells", "--dry-run"]) == 1
    assert "no batch is added: " in capsys.readouterr().out


def test_a_dry_run_leaves_the_object_store_alone(copied_home, tmp_path, monkeypatch, capsys):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    monkeypatch.setenv("CG_ASSETS_OBJECT_STORE", bucket.as_uri())
    before = {path: path.stat().st_mtime_ns for path in (copied_home / "data").rglob("*")}
    for command in ("run", "refresh"):
        assert main([command, "small_wells", "--dry-run"]) == 0
        assert "what only the object store has counts as not made" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (copied_home / "data").rglob("*")}
    assert not [*bucket.iterdir()] and os.environ["CG_ASSETS_OBJECT_STORE"] == bucket.as_uri()


def test_samples_of_other_settings_are_never_pooled(finished_home, capsys):
    change = ["--set", "sampling.unbiased.duration=20"]
    row = rows(capsys, "run", "small_wells", *change)["trajectories", "0000"]
    assert row["reason"] == "sampling.unbiased changed since it was made"
    assert row["known from"] == "its steps, by measured rates", "the last run was twice as long"
    again = rows(capsys, "refresh", "small_wells", *change)
    assert ("trajectories", "0001") in again and ("trajectories", "0000") not in again


def test_costs_of_a_system_that_never_ran_are_estimates(home, capsys):
    found = rows(capsys, "run", "muller_brown")
    sampled = found["biased_samples", "0000"]
    assert sampled["known from"] == "its steps, by measured rates" and sampled["seconds"] > 0.5
    assert sampled["megabytes"] == pytest.approx(204800 * 2 * 4e-6 * 3)
    assert found["potential_biased", ""]["seconds"] is None
    assert main(["run", "muller_brown", "--dry-run"]) == 0
    assert "; 11 stage(s) of unknown cost\n" in capsys.readouterr().out
    assert [path.name for path in home.rglob("*")] == ["systems"]


def test_settings_of_the_command_line_count_like_those_of_the_file(home):
    plain, other = load_system("muller_brown"), load_system("muller_brown_plane").content_hash
    given = ["training.epochs=3", "model.domain.x=[0, 20*pi]", "sampling.biased=null"]
    given += ["potentials.biased=null", "title=a=b"]
    change_fields("muller_brown", given)
    changed = load_system("muller_brown")
    assert (changed.training.epochs, changed.title, set(changed.potentials)) == (3, "a=b", {"unbiased"})
    assert changed.training.learning_rate == plain.training.learning_rate
    for section in ("model", "training", "sampling.biased"):
        assert changed.hash_of(section) != plain.hash_of(section)
    assert changed.hash_of("sampling.unbiased") == plain.hash_of("sampling.unbiased")
    assert load_system("muller_brown_plane").content_hash == other


def test_settings_of_one_command_are_not_those_of_the_next(home, capsys):
    plain = load_system("muller_brown").content_hash
    assert main(["check", "muller_brown", "--set", "training.epochs=77"]) == 0
    assert load_system("muller_brown").content_hash == plain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("trainig.epochs=3", "--set trainig.epochs: trainig: is not known; is training meant?"),
        ("training.epochs=-3", "muller_brown.yaml with --set training.epochs: training.epochs (value -3): must be"),
        ("training.epochs", "--set training.epochs: write FIELD=VALUE"),
        ("=3", "write FIELD=VALUE"),
        ("training.epochs=[3", "--set training.epochs: is not valid YAML"),
        ("training.epochs=010", "--set training.epochs"),
        ("name=other", "name is 'other'"),
    ],
)
def test_wrong_settings_of_the_command_line_are_named(home, capsys, change, words):
    assert main(["run", "muller_brown", "--set", change]) == 1
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1
    assert main(["run", "muller_brown", "--set", "training=3", "--set", "training.epochs=3"]) == 1
    assert "contradicts" in capsys.readouterr().err


def test_a_form_without_a_table_is_refused(home, capsys):
    assert main(["run", "muller_brown", "--json"]) == 1
    assert "add --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["epochs=3", "[1]", '{"small_wells": 3}'])
def test_a_variable_of_changes_that_is_wrong_is_named(monkeypatch, text):
    monkeypatch.setenv("CG_ASSETS_SET", text)
    with pytest.raises(SystemSpecError, match=r"CG_ASSETS_SET is .*: unset it"):
        load_system("muller_brown")


def test_an_empty_variable_of_changes_changes_nothing(monkeypatch):
    monkeypatch.setenv("CG_ASSETS_SET", "")
    assert load_system("muller_brown").name == "muller_brown"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["training.epochs=3", "training=null"], "--set training: contradicts"),
        (["training=null", "training.epochs=3"], "--set training.epochs: contradicts"),
        (["extends=water"], "--set extends: cannot be set; it belongs in the file"),
    ],
)
def test_changes_that_cannot_be_made_are_refused(given, words):
    with pytest.raises(SystemSpecError, match=words):
        change_fields("muller_brown", given)
