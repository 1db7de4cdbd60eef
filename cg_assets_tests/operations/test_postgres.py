"""Records in PostgreSQL: the same data from a real server on this machine, and a home that keeps to its database.

Needs root and Debian's package postgresql, which the tests do not install; about a minute.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from conftest import Command, free_port
from test_crashes import results

from cg_assets.core.errors import CgAssetsError
from cg_assets.operations import home_folder
from cg_assets.operations.home_folder import prepare_home
from cg_assets.settings import DATABASE

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
needs_postgres = pytest.mark.skipif(os.geteuid() != 0 or not PROGRAMS, reason="needs root and postgresql")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server without databases of its own."""
    pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")
    # Its user must reach the folder, which those of pytest do not allow.
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    programs = PROGRAMS[-1].parent

    def as_postgres(*command: str) -> None:
        subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, cwd="/", stdout=subprocess.DEVNULL)

    as_postgres(str(programs / "initdb"), "-D", str(folder / "data"), "--auth=trust")
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    control = [str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w", "-l", str(folder / "log")]
    as_postgres(*control, "-o", options, "start")
    try:
        for name in ("dagster", "mlflow"):
            as_postgres(str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), name)
        yield f"postgresql://postgres@127.0.0.1:{port}"
    finally:
        as_postgres(*control, "-m", "fast", "stop")
        shutil.rmtree(folder)


@needs_postgres
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_system_run_with_its_records_in_postgresql(finished, server, tmp_path):
    own = Command(tmp_path / "home")
    own.add_system((finished.home / "systems" / "small_wells.yaml").read_text())
    more = {DATABASE: f"{server}/dagster", "MLFLOW_TRACKING_URI": f"{server}/mlflow"}
    done = own("run", "small_wells", timeout=500, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(own, "small_wells") == results(finished, "small_wells")
    assert not list((own.home / "dagster").rglob("*.db")), "Dagster has written SQLite files"
    assert not (own.home / "mlflow" / "mlflow.db").exists()
    assert list((own.home / "mlflow" / "artifacts" / "small_wells").iterdir())
    for arguments in (("lookup", "small_wells.unbiased@champion"), ("results", "small_wells"), ("doctor",)):
        told = own(*arguments, **more)
        assert told.returncode == 0, told.stdout + told.stderr
    with own.start("ui", "--port", str(free_port()), "--mlflow-port", str(free_port()), **more) as pages:
        try:
            told = [pages.stdout.readline() for _ in range(2)]
            (address,) = [line.split()[1] for line in told if line.startswith("MLflow")]
            with urllib.request.urlopen(f"{address}/api/2.0/mlflow/registered-models/search", timeout=20) as answer:
                assert "small_wells.unbiased" in {item["name"] for item in json.load(answer)["registered_models"]}
        finally:
            pages.send_signal(signal.SIGINT)
            pages.communicate(timeout=60)
    without = own("run", "small_wells")
    assert without.returncode != 0
    assert f"are in PostgreSQL; set {DATABASE} to its address" in without.stderr
    assert "Traceback" not in without.stderr
    away = own("run", "small_wells", **more | {DATABASE: "postgresql://postgres@127.0.0.1:1/dagster"})
    assert away.returncode != 0
    assert f"{DATABASE}: the database cannot be reached" in away.stderr
    assert "Traceback" not in away.stderr


def test_a_home_keeps_to_its_database(home, monkeypatch):
    monkeypatch.delenv(DATABASE, raising=False)
    for name in ("DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "yes")  # what prepare_home sets is taken back with it
    prepare_home()
    settings = home / "dagster" / "dagster.yaml"
    assert "storage:" not in settings.read_text()
    monkeypatch.setenv(DATABASE, "postgresql://somewhere/dagster")
    monkeypatch.setattr(home_folder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CgAssetsError, match=r"needs dagster-postgres; install it with: pip install 'cg-assets\[post"):
        prepare_home()
    monkeypatch.setattr(home_folder.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(home_folder, "_ask", lambda address: None)
    with pytest.raises(CgAssetsError, match="are in SQLite files; unset it"):
        prepare_home()
    settings.unlink()
    prepare_home()
    assert f"env: {DATABASE}" in settings.read_text()
    assert "somewhere" not in settings.read_text()
    prepare_home()
    monkeypatch.delenv(DATABASE)
    with pytest.raises(CgAssetsError, match=f"are in PostgreSQL; set {DATABASE}"):
        prepare_home()
