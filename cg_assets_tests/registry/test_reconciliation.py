"""MLflow and the files of a home: what is lacking on either side is named, made again, and no number is given twice."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import dagster as dg
import pytest
from conftest import Command
from test_tracking import train

from cg_assets.core.errors import TrackingError
from cg_assets.operations.doctor import examine
from cg_assets.operations.home_folder import prepare_home
from cg_assets.orchestration.automation import batches_of, used_batches
from cg_assets.orchestration.refresh import known_models, next_batch_name, plan_refresh
from cg_assets.registry.champions import Judgement
from cg_assets.registry.reconciliation import REGISTERED, disagreements, last_version, record_versions
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

MODEL = "small_wells.biased"
OF_VERSION = ("model_versions", "model_version_tags")


@pytest.fixture
def own(finished, home):
    """A copy of the finished home, with its models."""
    shutil.copytree(finished.home, home, dirs_exist_ok=True)
    ModelTracking(None, home).check()  # MLflow's places follow the home
    return Command(home)


def change(own: Command, *statements: str) -> None:
    """As a database that was restored, or changed by hand."""
    with closing(sqlite3.connect(own.home / "mlflow" / "mlflow.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def forget(own: Command, *tables: str) -> None:
    change(own, *(f"DELETE FROM {table} WHERE name = '{MODEL}'" for table in tables))


def differences(own: Command) -> list[str]:
    return disagreements(own.home, ModelTracking(None, own.home).models())


def reasons(own: Command, **more) -> dict[str, str]:
    """Why a refresh would make what is there again."""
    store, system = ParquetStore(own.home), load_system("small_wells")
    plan = plan_refresh(store, system, ["0000"], models=known_models(store, system), **more)
    return {part.stage: reason for part, reason in plan.reasons.items() if part.batch is None}


def test_what_agrees_is_left_alone(own):
    assert differences(own) == []
    assert set(reasons(own).values()) <= {""}


@pytest.mark.parametrize(
    "tables", [OF_VERSION, (*OF_VERSION, "registered_model_aliases", "registered_models")], ids=["restored", "deleted"]
)
def test_a_version_that_mlflow_lost_is_trained_again(own, tables):
    forget(own, *tables)
    for stage in ("potential", "cg_simulation", "evaluation"):
        path = f"data/small_wells/{stage}_biased/part-0.parquet"
        assert f"MLflow has no version 1 of {MODEL}, which {path} names" in differences(own)
    found = reasons(own)
    assert found["potential_biased"] == f"MLflow has no version 1 of {MODEL}"
    assert "potential_unbiased" not in found
    assert last_version(ParquetStore(own.home), "small_wells", "biased") == 1, "the next one is 2"


def test_a_version_of_the_same_number_with_other_weights(own):
    change(own, f"UPDATE model_version_tags SET value = 'other' WHERE key = 'weights_hash' AND name = '{MODEL}'")
    assert reasons(own)["potential_biased"] == f"MLflow has another version 1 of {MODEL}"
    with pytest.raises(TrackingError, match="other weights in MLflow than the file that names it"):
        ModelTracking(None, own.home).load(MODEL, "1", "other")


def test_a_judgement_that_was_lost_is_made_again(own):
    change(own, f"DELETE FROM model_version_tags WHERE key LIKE 'evaluation%' AND name = '{MODEL}'")
    assert reasons(own)["evaluation_biased"] == f"MLflow has no judgement of version 1 of {MODEL}"


@pytest.mark.parametrize(
    "statement",
    ["UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid IN ({0})", "DELETE FROM runs WHERE run_uuid IN ({0})"],
    ids=["on the page", "for good"],
)
def test_a_training_run_that_was_deleted(own, statement):
    """Its version is still there and loads, but nothing can be added to it, and what it learned from is lost."""
    change(own, statement.format(f"SELECT run_id FROM model_versions WHERE name = '{MODEL}'"))
    lost = f"MLflow has lost the training run of version 1 of {MODEL}"
    assert lost in differences(own)
    (model,) = [
        item
        for item in ModelTracking(f"sqlite:///{own.home}/mlflow/mlflow.db", own.home).models()
        if item.name == MODEL
    ]
    assert model.without_run == {"1"}, "as MLflow's own interface gives it"
    found = reasons(own)
    assert found["potential_biased"] == lost and "potential_unbiased" not in found
    if statement.startswith("DELETE"):
        ParquetStore(own.home).file("small_wells", REGISTERED, "biased-1").unlink()
        assert record_versions(ParquetStore(own.home), ModelTracking(None, own.home).models()) == []
        with pytest.raises(TrackingError, match=r"its training run .* was deleted from MLflow.* refresh small_wells"):
            ModelTracking(None, own.home).lookup(MODEL)


def test_a_model_of_others_that_has_no_run_stops_nothing(own):
    _, client = ModelTracking(None, own.home)._connection.open()
    client.create_registered_model("theirs")
    client.create_model_version("theirs", str(own.home))
    tracking = ModelTracking(None, own.home)
    assert (tracking.lookup("theirs/1").lineage, tracking.models()[-1].without_run) == ([], frozenset())
    assert record_versions(ParquetStore(own.home), tracking.models()) == []


def test_a_champion_that_is_gone(own):
    change(own, f"UPDATE registered_model_aliases SET version = 7 WHERE alias = 'champion' AND name = '{MODEL}'")
    assert f"alias champion of {MODEL} is version 7, which MLflow does not have" in differences(own)
    assert "the champion of small_wells.biased is version 7" in reasons(own)["evaluation_biased"]
    tracking = ModelTracking(None, own.home)
    with pytest.raises(TrackingError, match="no version 7, which alias champion names; cg-assets refresh small_wells"):
        tracking.lookup(f"{MODEL}@champion")
    decision = tracking.decide_champion(MODEL, "1", Judgement({}, {}, "reference"))
    assert (decision.promoted, decision.champion) == (True, "1")


def test_the_record_of_a_version_is_made_from_mlflow(own):
    """As if the step had ended between the registration and the record."""
    store = ParquetStore(own.home)
    before = store.describe("small_wells", REGISTERED, "biased-1")
    before.path.unlink()
    assert f"the data of {MODEL} version 1 are not recorded" in differences(own)
    (finding,) = [item for item in examine(own.home, repair=True) if item.subject == "models"]
    assert finding.repaired == [f"the data of {MODEL} version 1 were not recorded"] and finding.faults == []
    assert store.data_version("small_wells", REGISTERED, "biased-1") == before.content_hash
    assert record_versions(store, ModelTracking(None, own.home).models()) == []


def test_doctor_names_it(own):
    shutil.rmtree(own.home / "mlflow")
    (finding,) = [item for item in examine(own.home) if item.subject == "models"]
    assert any("MLflow has no version 1 of small_wells.unbiased" in fault for fault in finding.faults)
    store, system = ParquetStore(own.home), load_system("small_wells")
    with pytest.raises(TrackingError, match="has none of the models that the data name"):
        known_models(store, system)


def test_no_version_number_is_given_twice(tmp_path):
    tracking = ModelTracking(None, tmp_path / "home")
    assert train(tracking, tmp_path / "one") == "1"
    assert train(tracking, tmp_path / "two", after=4) == "5"
    assert train(tracking, tmp_path / "three", after=5) == "6"
    assert tracking.versions("toy.pair") == ["1", "5", "6"]


def test_no_batch_number_is_given_twice(own):
    """A batch that was deleted, in Dagster or on the disk, is known by what was made of it."""
    prepare_home()
    system = load_system("small_wells")
    with dg.DagsterInstance.get() as instance:
        key, partitions = dg.AssetKey(["small_wells", "trajectories"]), str(batches_of("small_wells").name)
        instance.add_dynamic_partitions(partitions, ["0003"])
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="0003"))
        instance.delete_dynamic_partition(partitions, "0003")
        assert used_batches(instance, system) == {"0000", "0003"}
    store = ParquetStore(own.home)
    assert plan_refresh(store, system, ["0000"], used={"0000", "0003"}).added == "0004"
    shutil.rmtree(own.home / "data/small_wells/trajectories")
    assert next_batch_name(["0000"]) == "0001"
    assert plan_refresh(store, system, [], used=()).added != "0000"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_refresh_after_a_restored_backup(own):
    """The database lacks a training: it is repeated, as the next version, evaluated, and everything agrees again."""
    forget(own, *OF_VERSION, "registered_model_aliases", "registered_models")
    done = own("refresh", "small_wells", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"potential_biased: MLflow has no version 1 of {MODEL}" in done.stdout
    (model,) = [item for item in ModelTracking(None, own.home).models() if item.name == MODEL]
    assert (set(model.versions), model.aliases["champion"]) == ({"2"}, "2")
    assert differences(own) == []
