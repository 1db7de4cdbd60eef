"""Several systems in one run, and two commands for one system."""

import shutil

import pytest

from cg_assets.core.errors import StorageError
from cg_assets.operations.runs import Outcome, find_box, run_systems
from cg_assets.storage.atomic import file_lock
from cg_assets.storage.store import ParquetStore

WILD = """
extends: small_wells
name: wild_wells
title: Two wells with too long a step
sampling: {unbiased: {timestep: 1.0}, biased: null}
potentials: {biased: null}
"""


def test_a_system_that_fails_stops_no_other(finished, copied, monkeypatch, capsys):
    monkeypatch.setenv("CG_EXECUTOR", "in_process")
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


def test_a_second_search_for_the_same_box_is_refused(home):
    """Both would write one file."""
    lock = home / "locks" / "box-capped_alanine_water.lock"
    with file_lock(lock, 0.0, "the first"), pytest.raises(StorageError, match="search for the box of capped_alanine_w"):
        find_box("capped_alanine_water")
