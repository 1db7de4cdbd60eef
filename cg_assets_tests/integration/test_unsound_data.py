"""Whatever check fails, and whoever asks for stages afterwards: nothing reads what failed, and no champion comes of it.

Every check of every stage is forced to fail in turn, in a home where everything else is finished. Then a run asks for
all that is made of the failed data, a refresh and a schedule plan, and a sensor asks for what new data call for.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import dagster as dg
import pytest
from plain_runs import made_of, make, stage_of, system_of
from small_systems import SMALL_WELLS

from cg_assets.assets import stages_of
from cg_assets.assets.soundness import failed_checks
from cg_assets.core.checks import Check
from cg_assets.core.errors import StorageError
from cg_assets.orchestration.as_asset import build_assets
from cg_assets.orchestration.automation import build_jobs, build_schedules
from cg_assets.orchestration.refresh import plan_refresh
from cg_assets.orchestration.resources import build_resources
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

SYSTEM = system_of(SMALL_WELLS)
CASES = [(stage.name, check.name) for stage in stages_of(SYSTEM) for check in stage.checks]
QUICK = {
    ("biased_samples", "conditional_equilibration"),
    ("relabelled_forces", "noise_floor"),
    ("potential_biased", "loss_and_noise_floor"),
    ("cg_simulation_biased", "kinetic_temperature"),
}


class Failed:
    """A home where one check of one stage failed; everything else is finished, and nobody is champion."""

    def __init__(self, home, stage, check):
        self.home, self.system, self.stage = home, load_system("small_wells"), stage_of(SYSTEM, stage)
        self.check = next(item for item in self.stage.checks if item.name == check)
        self.store, self.tracking = ParquetStore(home), ModelTracking(None, home)
        self.batch = "0000" if self.stage.batched else None
        self.followers = made_of(SYSTEM, stage)

    def champions(self):
        return {model.name for model in self.tracking.models() if "champion" in model.aliases}

    def unsound(self):
        """Models that must not become champion."""
        return {
            f"small_wells.{name}"
            for name in self.system.potentials
            if f"evaluation_{name}" in [self.stage.name, *self.followers]
        }


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, id="-".join(case), marks=[] if case in QUICK else pytest.mark.slow) for case in CASES],
)
def failed(request, finished, tmp_path_factory):
    stage, check = request.param
    home = tmp_path_factory.mktemp("failed") / "home"
    for part in ("data", "systems", "mlflow"):
        shutil.copytree(finished.home / part, home / part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.setenv("CG_DEVICE", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        own = Failed(home, stage, check)
        _, client = own.tracking._connection.open()
        for name in own.champions():
            client.delete_registered_model_alias(name, "champion")
        judged = Check.verdict
        with pytest.MonkeyPatch.context() as force:
            force.setattr(
                Check, "verdict", lambda self, passed, **facts: judged(self, passed and self.name != check, **facts)
            )
            done = make(home, own.system, stage)
        assert [verdict.check.name for verdict in done.verdicts if not verdict.passed] == [check]
        yield own


def test_the_file_records_it(failed):
    assert failed_checks(failed.store.describe("small_wells", failed.stage.name, failed.batch).metadata) == [
        failed.check.name
    ]
    assert not failed.champions() & failed.unsound()
    if failed.stage.name.startswith("potential_"):
        facts = failed.store.describe("small_wells", failed.stage.name).metadata.extra
        made = failed.tracking.lookup(f"{facts['registered_model']}/{facts['version']}")
        assert (made.aliases, made.tags["failed_checks"]) == ([], f'["{failed.check.name}"]')
        assert failed.tracking.lookup(f"{facts['registered_model']}@candidate").version != made.version


def test_run(failed):
    """A step for each stage that follows is refused before it begins; what may be judged makes no champion."""
    for name in failed.followers:
        before = failed.store.data_version("small_wells", name, "0000" if stage_of(SYSTEM, name).batched else None)
        if not failed.check.blocking:
            make(failed.home, failed.system, name)
            continue
        with pytest.raises(StorageError, match=f"{failed.stage.name}.* failed {failed.check.name}"):
            make(failed.home, failed.system, name)
        after = failed.store.data_version("small_wells", name, "0000" if stage_of(SYSTEM, name).batched else None)
        assert before == after
    assert not failed.champions() & failed.unsound()


def asked_for(failed, plan_runs):
    """What of these runs would read the failed data."""
    return {
        (run.batch, stage)
        for run in plan_runs
        for stage in set(run.stages) & set(failed.followers)
        if not failed.stage.batched or (stage_of(SYSTEM, stage).batched and run.batch == "0000")
    }


def test_refresh(failed):
    """It makes nothing of the failed data; after a failed training it adds no batch either."""
    plan = plan_refresh(failed.store, failed.system, ["0000"])
    if not failed.check.blocking:
        assert plan.added == "0001"
        return
    assert not asked_for(failed, plan.runs)
    if failed.stage.batched:
        assert plan.added == "0001"
    else:
        assert (plan.added, plan.runs) == (None, [])
        assert plan.note.startswith(f"small_wells/{failed.stage.name} failed {failed.check.name}; ")
        assert plan_refresh(failed.store, failed.system, ["0000"], add="more").added == "more"


def test_schedule(failed):
    (schedule,) = build_schedules({"small_wells": failed.system})
    repository = dg.Definitions(
        assets=build_assets({"small_wells": failed.system}),
        jobs=build_jobs({"small_wells": failed.system}),
        resources=build_resources(failed.home),
    ).get_repository_def()
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("small_wells_batches", ["0000"])
        moment = datetime(2026, 1, 5, 3, tzinfo=UTC)
        with dg.build_schedule_context(
            instance=instance, scheduled_execution_time=moment, repository_def=repository
        ) as context:
            ticked = schedule.evaluate_tick(context)
    if failed.check.blocking and not failed.stage.batched:
        assert not ticked.run_requests
        assert f"failed {failed.check.name}" in ticked.skip_message
    else:
        (request,) = ticked.run_requests
        assert request.partition_key == "0001"


def test_sensor(failed):
    """It asks for what follows from the new data, and the step for it is refused."""
    assets = build_assets({"small_wells": failed.system})
    definitions = dg.Definitions(assets=assets, resources=build_resources(failed.home))
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("small_wells_batches", ["0000"])

        def report(stage, version):
            partition = "0000" if stage_of(SYSTEM, stage).batched else None
            tags = {"dagster/data_version": version}
            event = dg.AssetMaterialization(["small_wells", stage], partition=partition, tags=tags)
            instance.report_runless_asset_event(event)

        for stage in stages_of(SYSTEM):
            report(stage.name, "before")
        first = dg.evaluate_automation_conditions(definitions, instance)
        report(failed.stage.name, "after")
        result = dg.evaluate_automation_conditions(definitions, instance, cursor=first.cursor)
        keys = definitions.resolve_asset_graph().get_all_asset_keys()
        requested = {key.path[-1] for key in keys if result.get_num_requested(key)}
    readers = {stage.name for stage in stages_of(SYSTEM) if failed.stage.name in [read.stage for read in stage.reads]}
    assert requested and requested <= readers if readers else not requested
    for name in requested if failed.check.blocking else ():
        with pytest.raises(StorageError, match=f"failed {failed.check.name}"):
            make(failed.home, failed.system, name)
    assert not failed.champions() & failed.unsound()
