"""Passwords and keys: in no file of the home, no database, no command line, no output.

The whole test needs PostgreSQL (see test_postgres.py) and moto's S3 server; a few minutes.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import urllib.request
import zlib
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from conftest import Command, free_port
from test_postgres import needs_postgres, server  # noqa: F401

from cg_assets.settings import DATABASE, OBJECT_STORE, TRACKING

SECRET = "n0b0dy-knows"
KEY = "AKIA0KEY0OF0NOBODY"
MARKS = (SECRET, KEY)


def holds_a_secret(value) -> bool:
    """Whether a value of a database does; Dagster compresses some."""
    if isinstance(value, memoryview):
        value = bytes(value)
    if isinstance(value, bytes):
        with suppress(zlib.error):
            value = zlib.decompress(value)
        return any(mark.encode() in value for mark in MARKS)
    return any(mark in str(value) for mark in MARKS)


def places(folder: Path) -> list[str]:
    """Files below a folder, and tables of SQLite databases there, that hold a secret."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        found += [str(path)] * holds_a_secret(content)
        if content.startswith(b"SQLite format 3"):
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                for table in tables:
                    rows = connection.execute(f'SELECT * FROM "{table}"')
                    found += [f"{path}: {table}"] * any(holds_a_secret(value) for row in rows for value in row)
    return found


@contextmanager
def watched():
    """All command lines of the machine that hold a secret, while the block runs."""
    found: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue  # it has just ended
                if holds_a_secret(line):
                    found.add(line.replace(b"\0", b" ").decode(errors="replace"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_training_whose_server_is_away_leaves_no_password(copied, scheme):
    """Its error is shown, and Dagster stores it together with the settings of the run."""
    if scheme == "postgresql":
        pytest.importorskip("psycopg2", reason="the extra `postgres` is not installed")
    address = f"{scheme}://somebody:{SECRET}@127.0.0.1:1/mlflow"
    with watched() as lines:
        done = copied("run", "small_wells", "--select", "potential_biased", **{TRACKING: address})
    assert done.returncode == 1
    assert f"{scheme}" in done.stderr and ":***@127.0.0.1:1/mlflow" in done.stderr
    assert not holds_a_secret(done.stdout + done.stderr)
    assert places(copied.home) == []
    assert lines == set()


@pytest.mark.parametrize(
    ("name", "address", "told"),
    [
        (
            OBJECT_STORE,
            f"s3://{KEY}:{SECRET}/4@b/data?endpoint_override=127.0.0.1:9&scheme=http",
            "is 's3://***@b/data",
        ),
        (OBJECT_STORE, f"ftp://somebody:{SECRET}@host/data", "is 'ftp://somebody:***@host/data'"),
        (TRACKING, f"http://somebody:{SECRET}/4@127.0.0.1:1", "MLflow at http://somebody:***@127.0.0.1:1"),
        (TRACKING, f"nothing://somebody:{SECRET}@host/mlflow", "MLflow at nothing://somebody:***@host/mlflow"),
    ],
)
def test_wrong_addresses_are_shown_without_their_passwords(copied, name, address, told):
    done = copied("doctor", **{name: address, "AWS_EC2_METADATA_DISABLED": "true"})
    assert done.returncode == 1
    assert told in done.stdout + done.stderr
    assert not holds_a_secret(done.stdout + done.stderr)
    assert "Traceback" not in done.stderr


@needs_postgres
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_databases_and_object_stores_with_passwords(finished, server, tmp_path):  # noqa: F811
    import psycopg2

    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed").ThreadedMotoServer(port=0)
    moto.start()
    try:
        import boto3

        _, port = moto.get_host_and_port()
        endpoint = f"127.0.0.1:{port}"
        bucket = boto3.resource(
            "s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1", aws_access_key_id="a",
            aws_secret_access_key="b",
        ).create_bucket(Bucket="simulations")  # fmt: skip
        with_password = server.replace("postgres@", f"postgres:{SECRET}%2F4@")
        more = {
            DATABASE: f"{with_password}/dagster",
            TRACKING: f"{with_password}/mlflow",
            OBJECT_STORE: f"s3://{KEY}:{SECRET}%2F4@simulations/data?endpoint_override={endpoint}&scheme=http",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        own = Command(tmp_path / "home")
        own.add_system((finished.home / "systems" / "small_wells.yaml").read_text())
        with watched() as lines:
            done = [own("run", "small_wells", timeout=500, **more)]
            assert done[0].returncode == 0, done[0].stdout + done[0].stderr
            done += [own(*words, **more) for words in (("doctor",), ("lookup", "small_wells.unbiased"), ("models",))]
            assert [item.returncode for item in done] == [0] * 4, done[1].stdout
            done += [own("run", "small_wells", "--select", "potential_biased", **more | wrong) for wrong in (
                {TRACKING: f"{with_password}/nothing_there"},
                {DATABASE: f"{with_password}/nothing_there"},
                {OBJECT_STORE: more[OBJECT_STORE].replace(endpoint, "127.0.0.1:9")},
            )]  # fmt: skip
            assert [item.returncode for item in done[4:]] == [1] * 3
            ports = free_port(), free_port()
            with own.start("ui", "--port", str(ports[0]), "--mlflow-port", str(ports[1]), **more) as pages:
                try:
                    pages.stdout.readline()
                    shown = _page_of_runs(ports[0])
                finally:
                    pages.send_signal(signal.SIGINT)
                    output = "".join(pages.communicate(timeout=60))
        assert "small_wells" in shown
        for text in (shown, output, *(item.stdout + item.stderr for item in done)):
            assert not holds_a_secret(text), text
        assert lines == set()
        assert places(own.home) == []
        assert [item.key for item in bucket.objects.all() if holds_a_secret(item.get()["Body"].read())] == []
        for name in ("dagster", "mlflow"):
            with closing(psycopg2.connect(f"{server}/{name}")) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
                tables = [table for (table,) in cursor.fetchall()]
                assert len(tables) > 10
                for table in tables:
                    cursor.execute(f'SELECT * FROM "{table}"')
                    assert not any(holds_a_secret(value) for row in cursor.fetchall() for value in row), table
    finally:
        moto.stop()


def _page_of_runs(port: int) -> str:
    """What the pages show of the runs, their settings and their errors."""
    query = """{ runsOrError { ... on Runs { results { pipelineName runConfigYaml tags { key value }
        eventConnection(limit: 1000) { events { __typename ... on MessageEvent { message }
        ... on ExecutionStepFailureEvent { error { message stack causes { message stack } } } } } } } } }"""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()
