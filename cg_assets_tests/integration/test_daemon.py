"""A running daemon refreshes by its schedule: new batches, training where data changed, champions with their reasons.

All of it takes ten minutes on two cores, many of them waiting for the minutes at which the schedule ticks.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise

import mdtraj
import numpy as np
import pytest
from conftest import Command, kill_group, wait_for
from test_imported import MINE
from test_pages import LOCATIONS, Pages, assert_full, browser, location_of, needs_browser  # noqa: F401
from test_refresh import TINY

from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.parquet import content_hash, verify
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

pytestmark = pytest.mark.slow

EACH_MINUTE = 'refresh: {schedule: "* * * * *"}'
SWITCH = """
mutation Switch($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) {
    __typename
    ... on ScheduleStateResult { scheduleState { id status } }
    ... on PythonError { message }
  }
}
"""
STOP = """
mutation Stop($id: String!) {
  stopRunningSchedule(id: $id) { __typename ... on ScheduleStateResult { scheduleState { status } } }
}
"""
TICKS = """
query Ticks($selector: InstigationSelector!) {
  instigationStateOrError(instigationSelector: $selector) {
    ... on InstigationState { ticks { timestamp status skipReason runIds error { message } } }
  }
}
"""
RUNS = """
query {
  runsOrError(limit: 20) {
    ... on Runs { results { runId status startTime endTime tags { key value } assetSelection { path } } }
  }
}
"""


def selector_of(pages, schedule):
    (node,) = pages.graphql(LOCATIONS)["repositoriesOrError"]["nodes"]
    return {"repositoryName": node["name"], "repositoryLocationName": node["location"]["name"], "name": schedule}


def switch_on(pages, system) -> str:
    """Switch a system's schedule on; the id by which it is switched off."""
    selector = selector_of(pages, f"{system}_refresh")
    selector["scheduleName"] = selector.pop("name")
    answer = pages.graphql(SWITCH, selector=selector)["startSchedule"]
    assert answer["__typename"] == "ScheduleStateResult", answer
    assert answer["scheduleState"]["status"] == "RUNNING"
    return answer["scheduleState"]["id"]


def ticks_of(pages, system) -> list[dict]:
    """Ticks of a system's schedule, oldest first."""
    found = pages.graphql(TICKS, selector=selector_of(pages, f"{system}_refresh"))
    return found["instigationStateOrError"]["ticks"][::-1]


def scheduled_runs(pages, system) -> list[dict]:
    """Runs that a schedule asked for, oldest first."""
    runs = pages.graphql(RUNS)["runsOrError"]["results"][::-1]
    for run in runs:
        run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
        run["stages"] = {key["path"][-1] for key in run["assetSelection"] or []}
    return [run for run in runs if run["tags"].get("dagster/schedule_name") == f"{system}_refresh"]


def import_a_run(own: Command) -> None:
    """The system `my_alanine` of a trajectory that was made elsewhere, run to its end; no further files are there."""
    quick = load_system("capped_alanine_quick")
    plan = quick.sampling.unbiased.model_copy(
        update={"replicas": 4, "burn_in": 2.0, "duration": 100.0, "frame_interval": 0.1}
    )
    sampler, molecule = quick.sampler(plan, seed=3), quick.structure()
    chunks = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    positions = np.concatenate([chunk.positions for chunk in chunks if chunk is not None])
    topology = mdtraj.Topology.from_openmm(molecule.topology)
    path = own.add_system(f"{MINE}{EACH_MINUTE}\n")
    mdtraj.Trajectory(positions[:1], topology).save_pdb(str(path.with_name("alanine.pdb")))
    mdtraj.Trajectory(positions, topology).save_dcd(str(path.with_name("run_0000_a.dcd")))
    done = own("run", "my_alanine", timeout=900)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of a home of two systems, whose schedules are switched on and off again after two batches."""
    own = Command(tmp_path_factory.mktemp("daemon") / "home")
    own.add_system(re.sub(r"(?m)^refresh:.*$", EACH_MINUTE, TINY))
    import_a_run(own)
    opened = Pages(own)
    try:
        opened.wait()
        switches = [switch_on(opened, system) for system in ("tiny_wells", "my_alanine")]

        def two_batches():
            runs = scheduled_runs(opened, "tiny_wells")
            assert not [run for run in runs if run["status"] in ("FAILURE", "CANCELED")], runs
            return len([run for run in runs if run["status"] == "SUCCESS"]) >= 2

        wait_for(two_batches, 600.0, "two refreshes by the schedule", interval=2.0)
        for switch in switches:
            opened.graphql(STOP, id=switch)
        yield opened
    finally:
        opened.stop()


def test_two_refreshes_by_the_schedule(pages):
    """Each tick without a run in progress adds a batch, trains on all, and gives its reason for the champion."""
    expected = None
    store, tracking = ParquetStore(pages.own.home), ModelTracking(pages.mlflow, pages.own.home)
    first, second = scheduled_runs(pages, "tiny_wells")[:2]
    assert [run["tags"]["dagster/partition"] for run in (first, second)] == ["0000", "0001"]
    assert first["stages"] - second["stages"] == {"reference"}, "the reference depends on no data"
    assert second["stages"] >= {"trajectories", "mapped_forces", "potential_unbiased", "evaluation_unbiased"}
    assert store.batches("tiny_wells", "trajectories")[:2] == ["0000", "0001"]
    for number, run in enumerate((first, second), start=1):
        entry = tracking.lookup(f"tiny_wells.unbiased/{number}")
        assert entry.tags["dagster_run_id"] == run["runId"]
        batches = [f"000{count}" for count in range(number)]
        assert {item.data for item in entry.lineage} == {
            f"tiny_wells/{stage}/{batch}" for stage in ("mapped_forces", "trajectories") for batch in batches
        }
        decision = json.loads(entry.tags["champion_decision"])
        print(f"version {number}: {decision}")
        assert decision["compared_with"] == (None if number == 1 else "1")
        assert ("there was no champion" if number == 1 else "against") in decision["reason"]
        expected = str(number) if decision["promoted"] else expected
    if tracking.lookup("tiny_wells.unbiased@candidate").version == "2":
        assert tracking.lookup("tiny_wells.unbiased@champion").version == expected


def test_ticks_while_a_run_goes_on_say_so(pages):
    """No tick fails, and none adds a batch during a run of its system."""
    ticks = ticks_of(pages, "tiny_wells")
    assert {tick["status"] for tick in ticks} <= {"SUCCESS", "SKIPPED", "STARTED"}, ticks
    for tick in ticks:
        if tick["status"] == "SKIPPED":
            assert re.fullmatch(r"tiny_wells is already running \(run [0-9a-f-]+\)", tick["skipReason"])
    asked = [run_id for tick in ticks for run_id in tick["runIds"]]
    runs = scheduled_runs(pages, "tiny_wells")
    assert [run["runId"] for run in runs] == asked
    for run, following in pairwise(runs):
        assert run["endTime"] <= following["startTime"]


def test_where_no_data_are_new_nothing_is_trained(pages):
    ticks = ticks_of(pages, "my_alanine")
    assert len(ticks) >= 2
    for tick in ticks:
        assert (tick["status"], tick["runIds"]) == ("SKIPPED", []), tick
        assert "imported.files: no file" in tick["skipReason"] and "run_0001_" in tick["skipReason"]
    assert scheduled_runs(pages, "my_alanine") == []
    tracking = ModelTracking(pages.mlflow, pages.own.home)
    assert {model.name: model.latest_version for model in tracking.models()}["my_alanine.flow"] == "1"
    assert ParquetStore(pages.own.home).batches("my_alanine", "imported_beads") == ["0000"]


def test_everything_on_the_disk_is_whole(pages):
    for path in (pages.own.home / "data").rglob("part-0.parquet"):
        assert verify(path) == content_hash(path)


@needs_browser
@pytest.mark.parametrize(
    ("name", "address", "texts"),
    [
        ("timeline", "overview/activity/timeline", ["tiny_wells_job"]),
        ("runs", "runs", ["tiny_wells_job", "Success"]),
        ("schedule", "locations/{location}/schedules/tiny_wells_refresh", ["tiny_wells_refresh"]),
        ("freshness", "assets/tiny_wells/trajectories", ["trajectories", "0001"]),
    ],
)
def test_pictures_of_the_pages(pages, browser, tmp_path, name, address, texts):  # noqa: F811
    browser.open(f"{pages.dagster}/{address.format(location=location_of(pages))}")
    browser.wait_for_text(*texts)
    if name == "timeline":
        browser.value_of("[...document.querySelectorAll('button')].find(item => item.innerText == '1hr').click()")
    assert_full(browser.screenshot(tmp_path / f"refreshed_{name}.png"))


@needs_browser
@pytest.mark.parametrize("address", ["models/tiny_wells.unbiased", "models/tiny_wells.unbiased/versions/2"])
def test_pictures_of_the_model(pages, browser, tmp_path, address):  # noqa: F811
    """Both versions with their aliases, and the reason of the decision."""
    browser.open(f"{pages.mlflow}/#/{address}")
    browser.wait_for_text("tiny_wells.unbiased", "Version 2", "champion", "became champion: ")
    assert_full(browser.screenshot(tmp_path / f"refreshed_{address.rpartition('/')[2]}.png"))


def test_two_daemons_on_one_home(tmp_path):
    """A second daemon, started by hand next to the pages: each tick is done once or its second run is refused."""
    own = Command(tmp_path / "home")
    own.add_system(re.sub(r"(?m)^refresh:.*$", EACH_MINUTE, TINY))
    opened, second = Pages(own), None
    try:
        opened.wait()
        environment = own.environment(DAGSTER_HOME=str(own.home / "dagster"), MLFLOW_TRACKING_URI=opened.mlflow)
        with open(tmp_path / "second.log", "wb") as log:
            second = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-m", "cg_assets.orchestration.definitions"],
                env=environment,
                cwd=own.home / "logs",
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(
            lambda: b"Instance is configured" in (tmp_path / "second.log").read_bytes(), 120.0, "the second daemon", 0.5
        )
        switch = switch_on(opened, "tiny_wells")
        store, kept = ParquetStore(own.home), {}

        def two_batches():
            for batch in store.batches("tiny_wells", "trajectories"):
                kept.setdefault(batch, content_hash(store.path("tiny_wells", "trajectories", batch)))
            runs = scheduled_runs(opened, "tiny_wells")
            return len({run["tags"]["dagster/partition"] for run in runs if run["status"] == "SUCCESS"}) >= 2

        wait_for(two_batches, 600.0, "two batches", interval=2.0)
        opened.graphql(STOP, id=switch)
        wait_for(
            lambda: all(run["status"] in ("SUCCESS", "FAILURE") for run in scheduled_runs(opened, "tiny_wells")),
            300.0,
            "the end of all runs",
            interval=2.0,
        )
        runs = scheduled_runs(opened, "tiny_wells")
        print([(run["tags"]["dagster/partition"], run["status"]) for run in runs])
        for batch, version in kept.items():
            assert verify(store.path("tiny_wells", "trajectories", batch)) == version
        tracking = ModelTracking(opened.mlflow, own.home)
        assert {item.status for item in tracking.lookup("tiny_wells.unbiased@champion").lineage} == {"same"}
    finally:
        if second is not None:
            kill_group(second.pid)
            second.wait()
        opened.stop()
    done = own("doctor")
    assert done.returncode == 0, done.stdout
