"""Several systems in one run, and two commands for one system."""

import math
import shutil
from types import SimpleNamespace

import dagster as dg
import pytest

from cg_assets.core.errors import StorageError
from cg_assets.operations.runs import Outcome, find_box, finished_before, run_systems
from cg_assets.sampling.model_potential.landscape import Landscape
from cg_assets.storage.atomic import file_lock
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

WILD = """
extends: small_wells
name: wild_wells
title: Two wells with too long a step
sampling: {unbiased: {timestep: 1.0}, biased: null}
potentials: {biased: null}
"""


def test_a_system_that_fails_stops_no_other(finished, copied, monkeypatch, capsys):
    monkeypatch.setenv("CG_EXECUTOR", "in_process")
    monkeypatch.setattr(Landscape, "longest_timestep", lambda *_: math.inf)  # it would be refused beforehand
    shutil.copytree(finished.home / "mlflow", copied.home / "mlflow")
    report = ParquetStore(copied.home).path("small_wells", "report")
    report.unlink()
    copied.add_system(WILD)
    names = ["wild_wells", "small_wells"]
    for up_to_date in (False, True):
        assert run_systems(names) == {"wild_wells": Outcome.FAILED, "small_wells": Outcome.SOUND}
        printed = capsys.readouterr()
        assert f"wild_wells, batch 0000: {7 if up_to_date else 8} stage(s) to make" in printed.out.splitlines()
        assert ("small_wells is up to date" in printed.out) is up_to_date
        assert ("small_wells, batch 0000: 1 stage(s) to make" in printed.out.splitlines()) is not up_to_date
        assert "cg-assets: wild_wells/trajectories failed: SamplingError" in printed.err and report.is_file()


@pytest.mark.parametrize(
    ("system", "status"), [("small_wells", "SUCCESS"), ("small_wells", "FAILURE"), ("wild_wells", "SUCCESS")]
)
def test_a_run_of_several_systems_ends_what_a_command_resumes(copied, system, status):
    """`run --force` resumes what it was interrupted in, but not what a later run has finished, though others failed."""
    own = dg.AssetKey(["small_wells", "comparison"])
    batch = {"dagster/partition": "0000"}
    command = batch | {"cg_assets/command": "a"}
    interrupted = dg.DagsterRun("small_wells_job", status=dg.DagsterRunStatus.FAILURE, tags=command)
    made = frozenset({dg.AssetKey([system, "report"])})
    later = dg.DagsterRun("several_systems", status=dg.DagsterRunStatus[status], tags=batch, asset_selection=made)
    kinds = ("ASSET_MATERIALIZATION_PLANNED", "ASSET_MATERIALIZATION")
    events = [SimpleNamespace(dagster_event=SimpleNamespace(event_type_value=kind, asset_key=own)) for kind in kinds]
    records = SimpleNamespace(get_runs=lambda filters: [later, interrupted], all_logs=lambda run_id: events)
    found = finished_before(records, load_system("small_wells"), "0000", "a")
    assert found == (set() if system == "small_wells" else {own})


def test_a_second_search_for_the_same_box_is_refused(home):
    """Both would write one file."""
    lock = home / "locks" / "box-capped_alanine_water.lock"
    with file_lock(lock, 0.0, "the first"), pytest.raises(StorageError, match="search for the box of capped_alanine_w"):
        find_box("capped_alanine_water")
