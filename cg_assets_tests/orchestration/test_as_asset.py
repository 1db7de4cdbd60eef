"""A stage as a Dagster asset: its verdicts belong to each batch, and nothing is visible before it is judged."""

import dagster as dg
import pytest

from cg_assets.assets.soundness import failed_checks
from cg_assets.assets.stage import Figure, Product, Stage, TableContent
from cg_assets.assets.work import Inputs
from cg_assets.core.checks import Check
from cg_assets.core.errors import StorageError
from cg_assets.orchestration.as_asset import as_asset
from cg_assets.orchestration.automation import batches_of
from cg_assets.orchestration.console import step_failure_cause
from cg_assets.orchestration.resources import build_resources
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

POSITIVE = Check("positive", "The number is above zero.")
ROUND = Check("round", "The number is round.", blocking=False, warns=True)
NUMBERS = {"0000": -1.5, "0001": 2.0}


def numbers_stage(judged=lambda path: None):
    def make(work):
        number = NUMBERS[work.batch]

        def judge(stored):
            judged(stored.path)
            return [POSITIVE.verdict(number > 0, number=number), ROUND.verdict(number == round(number), nothing=None)]

        def report(verdicts):
            return {"rows": [{"number": number}], "figure": Figure(b"png", "numbers"), "failed": len(verdicts)}

        return Product(TableContent({"number": [number]}), {"of": "numbers"}, judge, report, seed=3)

    return Stage("numbers", "Numbers.", make, checks=(POSITIVE, ROUND), batched=True)


def materialize(stage, home, instance, batch):
    system = load_system("muller_brown")
    if batch is not None:
        instance.add_dynamic_partitions(str(batches_of(system.name).name), [batch])
    return dg.materialize(
        [as_asset(stage, system)],
        instance=instance,
        resources=build_resources(home),
        partition_key=batch,
        raise_on_error=False,
    )


def test_a_launch_without_a_batch_is_refused_with_what_to_do(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(numbers_stage(), tmp_path, instance, None)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    cause = step_failure_cause(failed)
    assert "muller_brown/numbers: this run was launched without a batch; choose one partition" in cause
    assert "cg-assets run muller_brown --batch NAME" in cause and "\n" not in cause


def test_a_batch_that_passes_does_not_hide_one_that_failed(tmp_path):
    instance = dg.DagsterInstance.ephemeral()
    failed, passed = (materialize(numbers_stage(), tmp_path, instance, batch) for batch in NUMBERS)
    assert not failed.success and passed.success
    verdicts = {check.check_name: check for check in failed.get_asset_check_evaluations()}
    assert verdicts["positive"].metadata["number"].value == -1.5 and not verdicts["positive"].passed
    assert verdicts["round"].severity is dg.AssetCheckSeverity.WARN and "nothing" not in verdicts["round"].metadata
    key = dg.AssetCheckKey(dg.AssetKey(["muller_brown", "numbers"]), "positive")
    states = instance.event_log_storage.get_asset_check_partition_info([key])
    assert {info.partition_key: info.latest_execution_status.value for info in states} == {
        "0000": "FAILED",
        "0001": "SUCCEEDED",
    }


def test_the_file_says_what_failed_and_is_not_read(tmp_path):
    instance = dg.DagsterInstance.ephemeral()
    for batch in NUMBERS:
        materialize(numbers_stage(), tmp_path, instance, batch)
    store, system = ParquetStore(tmp_path), load_system("muller_brown")
    said = [store.describe(system.name, "numbers", batch).metadata for batch in NUMBERS]
    assert [failed_checks(metadata) for metadata in said] == [["positive"], []]
    assert said[0].extra["of"] == "numbers" and said[0].seed == 3
    inputs = Inputs(store, system)
    assert inputs.sound("numbers") == ["0001"]
    with pytest.raises(StorageError, match="no usable batch: muller_brown/numbers/0000 failed positive"):
        inputs.sound("numbers", ["0000"])
    with pytest.raises(StorageError, match=r"muller_brown/numbers/0000 failed positive: .* must not be used"):
        inputs.table("numbers", "0000")


def test_nothing_is_visible_before_it_is_judged(tmp_path):
    store = ParquetStore(tmp_path)
    seen = []

    def judged(path):
        seen.append((path.is_file(), store.file("muller_brown", "numbers", "0001").is_file()))
        raise RuntimeError("the end, between writing and judging")

    assert not materialize(numbers_stage(judged), tmp_path, dg.DagsterInstance.ephemeral(), "0001").success
    assert seen == [(True, False)]
    assert store.batches("muller_brown", "numbers") == []
