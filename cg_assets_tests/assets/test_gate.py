"""Every blocking check of every stage of every shipped system: what failed it is refused by all that would read it.

The files hold one number each, with the lineage of a finished home; a stage that read one without looking at its
verdict would fail in another way. Stages that read sound data, too, may come to those first: only the gate is asked.
"""

from __future__ import annotations

import pytest
from plain_runs import made_of, make, stage_of

from cg_assets.assets import stages_of
from cg_assets.assets.work import Inputs
from cg_assets.core.errors import StorageError
from cg_assets.orchestration.refresh import plan_refresh
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_all_systems, load_system

QUICK = {"capped_alanine_quick", "water_quick", "muller_brown_plane"}
SHIPPED = sorted(load_all_systems())


def write(store, system, stage, failed=()):
    """The file of a stage, made of those of its parents as they are now."""
    parents = [f"{system.name}/{read.stage}{batch_of(system, read.stage)}" for read in stage.reads]
    there = {key: version for key in parents for version in store.upstream(key).values()}
    metadata = FileMetadata(system.name, stage.name, system.units, upstream_data_versions=there)
    if failed:
        metadata.extra["failed_checks"] = list(failed)
    store.write_table({"number": [1.0]}, metadata, "0000" if stage.batched else None)


def batch_of(system, name):
    return "/0000" if stage_of(system, name).batched else ""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SHIPPED]
)
def test_what_failed_a_blocking_check_is_refused_by_all_that_follows(home, name):
    system, store, cases = load_system(name), ParquetStore(home), 0
    stages = stages_of(system)
    for stage in stages:
        write(store, system, stage)
    for stage in stages:
        for check in [item for item in stage.checks if item.blocking]:
            write(store, system, stage, [check.name])
            cause = f"{name}/{stage.name}{batch_of(system, stage.name)} failed {check.name}"
            for follower in made_of(system, stage.name):
                asked = stage_of(system, follower)
                with pytest.raises(StorageError, match=cause):
                    Inputs(store, system).peek(follower, "0000" if asked.batched else None)
                if {read.stage for read in asked.reads} <= {stage.name, *made_of(system, stage.name)}:
                    with pytest.raises(StorageError, match=cause):
                        make(home, system, follower)
                cases += 1
            plan = plan_refresh(store, system, ["0000"])
            assert plan.added == ("0001" if stage.batched else None)
            again = {made for run in plan.runs if run.batch == "0000" for made in run.stages}
            followers = {item for item in made_of(system, stage.name) if stage_of(system, item).batched}
            assert stage.name in again or not again & followers, "unless it is made again itself, with a new kernel"
        write(store, system, stage)
    assert plan_refresh(store, system, ["0000"]).added == "0001"
    print(f"{name}: {cases} readers of failed data refused")
