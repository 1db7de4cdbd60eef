"""A home that a group shares: modes of all that is made in it, and two users who take turns."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from conftest import Command
from small_systems import SMALL_WELLS

from cg_assets.core.errors import StorageError
from cg_assets.operations.doctor import examine
from cg_assets.operations.home_folder import prepare_home
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.atomic import acquire_lock, is_locked
from cg_assets.storage.catalogue import record
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.sharing import closed_to_group, follow, open_to_group
from cg_assets.storage.store import ParquetStore

GROUP = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several users")
AS_MEMBER = (
    "--securebits=+no_setuid_fixup",
    "--groups",
    str(GROUP),
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
)
"""Another user, who can read everything (also this Python), and change what the group can."""


@pytest.fixture
def umask():
    """Umask 022, whatever a test sets."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def make_everything(home: Path) -> None:
    """A data file, the catalogue, a lock, Dagster's records with those of a run, and MLflow's."""
    for name in ("DAGSTER_HOME", "CG_ASSETS_HOME"):
        os.environ.pop(name, None)
    os.environ["CG_ASSETS_HOME"] = str(home)
    follow(home)
    prepare_home()
    store = ParquetStore(home)
    metadata = FileMetadata(system="toy", stage="pmf", units="reduced")
    record(home, store.write_table({"x": np.arange(3.0)}, metadata).path)
    os.close(acquire_lock(home / "locks" / "some.lock", 0.0, "some work"))
    with dg.DagsterInstance.get() as instance:
        instance.create_run_for_job(dg.job(name="nothing")(lambda: None))
        instance.report_engine_event("hello", run_id=instance.get_runs()[0].run_id, job_name="nothing")
    ModelTracking(None, home).check()
    open_to_group(home)


def modes(home: Path) -> dict[str, int]:
    return {str(path.relative_to(home)): stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*")}


@pytest.mark.parametrize(("mode", "of_files"), [(0o2770, 0o660), (0o2775, 0o664), (0o755, 0o644), (0o700, 0o644)])
def test_the_mode_of_the_home_decides(home, monkeypatch, umask, mode, of_files):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    (home / "systems").chmod(0o2770 if mode & 0o20 else 0o755)
    home.chmod(mode)
    make_everything(home)
    found = modes(home)
    files = {name: kept for name, kept in found.items() if (home / name).is_file()}
    assert {name for name, kept in files.items() if kept != of_files} == set()
    assert {"dagster/history/runs.db", "mlflow/mlflow.db", "catalog.duckdb", "locks/some.lock"} <= files.keys()
    if mode & stat.S_IWGRP:
        assert {name for name, kept in found.items() if (home / name).is_dir() and not kept & stat.S_ISGID} == set()
        assert closed_to_group(home) == []
        assert [item.faults for item in examine(home) if item.subject == "sharing"] == [[]]
    else:
        assert "sharing" not in {item.subject for item in examine(home)}


def test_doctor_names_what_is_closed(home, umask):
    home.chmod(0o770)
    (home / "data").mkdir(mode=0o700)
    (finding,) = [item for item in examine(home) if item.subject == "sharing"]
    assert finding.faults[0] == "new files in this home get the group of whoever makes them"
    assert "file(s) of user" in finding.faults[1]
    assert "chmod -R g+rwX" in finding.remedy


@needs_root
def test_a_lock_that_is_closed_is_named(umask):
    with tempfile.TemporaryDirectory() as folder:  # those of pytest are closed to other users
        Path(folder).chmod(0o755)
        lock = Path(folder) / "lock"
        os.close(acquire_lock(lock, 0.0, "it"))
        lock.chmod(0o600)
        before = os.geteuid()
        os.seteuid(12345)
        try:
            assert is_locked(lock), "who may not ask must not remove"
            with pytest.raises(StorageError, match="this lock is closed to this user"):
                acquire_lock(lock, 0.0, "it")
        finally:
            os.seteuid(before)


@needs_root
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_users_take_turns(tmp_path):
    """One runs a system, the other adds a batch, the first adds one more; nothing is closed to either."""
    own = Command(tmp_path / "home")
    file = own.add_system(SMALL_WELLS)
    os.chown(file, 12345, GROUP)
    file.chmod(0o660)
    for folder in (own.home, own.home / "systems"):
        os.chown(folder, 12345, GROUP)
        folder.chmod(0o2770)

    def as_user(number: int, *arguments: str) -> str:
        line = ["setpriv", "--reuid", str(number), "--regid", str(number), *AS_MEMBER, *own.line(*arguments)]
        environment = own.environment(HOME=str(tmp_path / f"of {number}"))
        done = subprocess.run(line, env=environment, cwd="/tmp", capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for number in (12345, 12346):
        (tmp_path / f"of {number}").mkdir()
        os.chown(tmp_path / f"of {number}", number, number)
    as_user(12345, "run", "small_wells")
    as_user(12346, "refresh", "small_wells")
    as_user(12345, "refresh", "small_wells")
    assert "WRONG" not in as_user(12346, "doctor")
    assert "trajectories" in as_user(12346, "query", "select stage from lineage where batch = '0002'")
    assert closed_to_group(own.home) == []
    owners = {path.stat().st_uid for path in (own.home / "data").rglob("*.parquet")}
    assert owners == {12345, 12346}
