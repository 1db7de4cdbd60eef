"""The catalogue: views and lineage that always agree with the files, under many writers and readers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import duckdb
import numpy as np
import pytest

from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.storage import catalogue
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore


def make_frames(n=10, seed=0):
    generator = np.random.default_rng(seed)
    return Frames(
        positions=generator.normal(size=(n, 1, 2)).astype(np.float32),
        time=np.arange(n, dtype=float),
        replica=np.zeros(n, np.int32),
        temperature=np.ones(n),
        start=np.zeros(n, np.int32),
        probe=np.zeros(n, bool),
        collective_variables={"s": generator.normal(size=n).astype(np.float32)},
    )


def metadata(stage="trajectories", **more):
    return FileMetadata("toy", stage, "reduced", seed=3, code_version="1", dagster_run_id="run-9", **more)


def fill(home):
    store = ParquetStore(home)
    for number, batch in enumerate(("0000", "0001")):
        catalogue.record(home, store.write_frames(make_frames(10, number), metadata(), batch).path)
    upstream = store.upstream("toy/trajectories/0000", "toy/trajectories/0001")
    written = store.write_frames(make_frames(20), metadata("mapped_forces", upstream_data_versions=upstream), "0000")
    catalogue.record(home, written.path)
    catalogue.record(home, store.write_table({"x": [1.0, 2.0]}, metadata("pmf")).path)
    return store


def lineage(home):
    return catalogue.query(home, "SELECT * FROM lineage ORDER BY file").to_pylist()


def test_views_and_lineage(tmp_path):
    store = fill(tmp_path)
    counts = catalogue.query(tmp_path, "SELECT batch, count(*) AS n FROM toy.trajectories GROUP BY 1 ORDER BY 1")
    assert counts.to_pylist() == [{"batch": "0000", "n": 10}, {"batch": "0001", "n": 10}]
    first = catalogue.query(tmp_path, "SELECT positions[2] AS y FROM toy.trajectories LIMIT 1").to_pylist()[0]["y"]
    assert first == make_frames().positions[0, 0, 1]
    assert catalogue.query(tmp_path, "SELECT sum(x) AS total FROM toy.pmf").to_pylist() == [{"total": 3.0}]
    rows = {row["file"]: row for row in lineage(tmp_path)}
    assert len(rows) == 4
    row = rows["data/toy/mapped_forces/0000/part-0.parquet"]
    assert (row["system"], row["stage"], row["batch"]) == ("toy", "mapped_forces", "0000")
    assert (row["run_id"], row["code_version"], row["seed"], row["rows"]) == ("run-9", "1", 3, 20)
    assert row["content_hash"] == store.data_version("toy", "mapped_forces", "0000")
    assert row["upstream"] == [
        {
            "data": f"toy/trajectories/{batch}",
            "file": f"data/toy/trajectories/{batch}/part-0.parquet",
            "content_hash": store.data_version("toy", "trajectories", batch),
        }
        for batch in ("0000", "0001")
    ]
    joined = catalogue.query(
        tmp_path,
        "SELECT p.rows FROM lineage c, UNNEST(c.upstream) AS u(up) JOIN lineage p ON p.file = up.file "
        "AND p.content_hash = up.content_hash WHERE c.stage = 'mapped_forces'",
    )
    assert joined["rows"].to_pylist() == [10, 10]


def test_rebuilt_from_the_files_alone(tmp_path):
    store = fill(tmp_path)
    before = lineage(tmp_path)
    catalogue.catalogue_path(tmp_path).unlink()
    assert catalogue.rebuild(tmp_path) == []
    assert lineage(tmp_path) == before
    # damage, leftovers and unfinished pieces
    store.path("toy", "pmf").write_bytes(b"PAR1")
    pieces = store.pieces("toy", "trajectories", "0002", "plan", 1, "1")
    pieces.append(make_frames(), {"x": 1})
    (problem,) = catalogue.rebuild(tmp_path)
    assert "pmf" in problem
    assert "truncated" in problem
    assert len(lineage(tmp_path)) == 3
    catalogue.catalogue_path(tmp_path).write_bytes(b"no database")
    assert len(lineage(tmp_path)) == 3


def test_a_rewritten_or_removed_file(tmp_path):
    store = fill(tmp_path)
    catalogue.record(tmp_path, store.write_frames(make_frames(5), metadata(), "0001").path)
    assert len(lineage(tmp_path)) == 4
    assert catalogue.query(tmp_path, "SELECT count(*) AS n FROM toy.trajectories").to_pylist() == [{"n": 15}]
    store.path("toy", "pmf").unlink()
    catalogue.record(tmp_path, store.path("toy", "pmf"))
    with pytest.raises(StorageError, match="pmf"):
        catalogue.query(tmp_path, "SELECT * FROM toy.pmf")
    with pytest.raises(StorageError, match="lies outside"):
        catalogue.record(tmp_path, tmp_path / "x.parquet")
    with pytest.raises(StorageError, match="not the path of a data file"):
        catalogue.record(tmp_path, tmp_path / "data/toy/trajectories/x.parquet")


def test_a_moved_home(tmp_path):
    fill(tmp_path / "old's home")
    shutil.move(tmp_path / "old's home", tmp_path / "new")
    assert catalogue.query(tmp_path / "new", "SELECT count(*) AS n FROM toy.trajectories").to_pylist() == [{"n": 20}]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE lineage",
        "DELETE FROM lineage",
        "COPY (SELECT 1) TO 'x.csv'",
        "SELECT 1; DROP TABLE lineage",
        "INSTALL httpfs",
        "CREATE TABLE t AS SELECT 1",
        "",
        "SELEC 1",
        "SELECT * FROM toy.nothing",
    ],
)
def test_questions_change_nothing(tmp_path, sql):
    catalogue.rebuild(tmp_path)
    with pytest.raises(StorageError, match="query: "):
        catalogue.query(tmp_path, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{data}/new.csv'",
        "WITH one AS (COPY (SELECT 1) TO '{data}/new.csv') SELECT * FROM one",
        "SELECT * FROM (WITH one AS (COPY (SELECT 1) TO '{data}/new.csv') SELECT * FROM one)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{data}/new.csv'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{data}/new.csv'",
        "EXPORT DATABASE '{data}/new.csv'",
        "ATTACH '{data}/new.csv'",
        "CREATE TEMP TABLE new AS SELECT 1",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "PRAGMA threads = 1",
        "SET VARIABLE x = 1",
        "CALL pragma_version()",
    ],
)
def test_a_query_writes_and_changes_nothing(tmp_path, sql):
    fill(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError, match=r"query: got .*; one SELECT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN"):
        catalogue.query(tmp_path, sql.format(data=tmp_path / "data"))
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{outside}')",
        "SELECT * FROM '{outside}'",
        "SELECT * FROM read_text('{home}/data/../../notes.csv')",
        "SELECT * FROM glob('{outside}*')",
        "SELECT * FROM read_parquet('{home}/mine.parquet')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/notes.csv')",
        "SELECT * FROM toy.elsewhere",
    ],
)
def test_a_query_reads_the_data_of_the_home_alone(tmp_path, sql):
    """Other files of the home are closed, too, and so are views that a damaged catalogue points elsewhere."""
    home, outside = tmp_path / "home", tmp_path / "notes.csv"
    store = fill(home)
    outside.write_text("note\nharmless\n")
    shutil.copy(next(catalogue.data_files(store)), home / "mine.parquet")
    with duckdb.connect(str(home / "catalog.duckdb")) as connection:
        connection.execute(f"CREATE VIEW toy.elsewhere AS SELECT * FROM read_csv('{outside}')")
    with pytest.raises(StorageError, match="query: ") as caught:
        catalogue.query(home, sql.format(home=home, outside=outside))
    assert "harmless" not in str(caught.value)
    assert f"only files under {home / 'data'} can be read" in str(caught.value) or "does not exist" in str(caught.value)


def test_a_query_of_a_home_with_any_name(tmp_path):
    """Characters of patterns in the path of the home mean themselves."""
    fill(tmp_path / "a [b]*")
    assert catalogue.query(tmp_path / "a [b]*", "FROM toy.trajectories").num_rows == 20


def test_a_query_has_no_settings_to_change(tmp_path):
    fill(tmp_path)
    asked = "SELECT current_setting('lock_configuration') AS locked, current_setting('enable_external_access') AS open"
    assert catalogue.query(tmp_path, asked).to_pylist() == [{"locked": True, "open": False}]


def test_other_statements_that_only_read(tmp_path):
    fill(tmp_path)
    assert "cv_s" in catalogue.query(tmp_path, "DESCRIBE toy.trajectories")["column_name"].to_pylist()
    assert catalogue.query(tmp_path, "SHOW ALL TABLES").num_rows >= 4
    assert catalogue.query(tmp_path, "EXPLAIN SELECT 1").num_rows >= 1
    assert catalogue.query(tmp_path, "explain analyze FROM toy.pmf").num_rows >= 1
    ranked = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n UNION SELECT 4"
    )
    assert catalogue.query(tmp_path, ranked).num_rows == 4
    assert catalogue.query(tmp_path, """SELECT '{"type": "COPY_NODE"}' AS text""").num_rows == 1
    assert catalogue.query(tmp_path, "SUMMARIZE toy.pmf").num_rows == 1


def test_leftovers_of_killed_writers_go(tmp_path):
    store = fill(tmp_path)
    leftover = tmp_path / ".catalog.duckdb.writing-1-abc.wal"
    leftover.write_bytes(b"x")
    catalogue.record(tmp_path, store.path("toy", "pmf"))
    assert not leftover.exists()


def test_readers_do_not_block_writers(tmp_path):
    """A connection left open (a notebook) neither stops a writer nor changes under its reader."""
    store = fill(tmp_path)
    code = (
        "import duckdb\n"
        f"c = duckdb.connect({str(catalogue.catalogue_path(tmp_path))!r}, read_only=True)\n"
        "q = lambda: c.execute('select count(*) from lineage').fetchone()[0]\n"
        "print(q(), flush=True); input(); print(q(), flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout.readline() == "4\n"
    catalogue.record(tmp_path, store.write_frames(make_frames(), metadata(), "0002").path)
    output, _ = process.communicate("\n")
    assert output == "4\n"
    assert len(lineage(tmp_path)) == 5
    with duckdb.connect(str(catalogue.catalogue_path(tmp_path)), read_only=True) as connection:
        assert connection.execute("select count(*) from toy.trajectories").fetchone() == (30,)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_catalogue import ParquetStore, catalogue, make_frames, metadata
store = ParquetStore({home!r})
for number in range(4):
    path = store.write_frames(make_frames(), metadata(), "{name}" + str(number)).path
    catalogue.record({home!r}, path)
"""


def test_several_writers_at_once(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER.format(tests=os.path.dirname(__file__), home=str(tmp_path), name=name)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    while any(process.poll() is None for process in processes):
        catalogue.query(tmp_path, "SELECT count(*) FROM lineage")
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert len(lineage(tmp_path)) == 12
    assert catalogue.query(tmp_path, "SELECT count(*) AS n FROM toy.trajectories").to_pylist() == [{"n": 120}]
    left = {item.name for item in tmp_path.iterdir()}
    assert left == {"data", "catalog.duckdb", ".catalog.lock"}


def reads_of(home, view):
    """What a view reads, according to its comment."""
    with duckdb.connect(str(catalogue.catalogue_path(home)), read_only=True) as connection:
        (comment,) = connection.execute("SELECT comment FROM duckdb_views() WHERE view_name = ?", [view]).fetchone()
    return comment


def test_a_view_need_not_be_changed_for_a_batch(tmp_path):
    """It reads what is there, also in a folder whose name is a pattern."""
    home = tmp_path / "home [a] *"
    store = fill(home)
    before = reads_of(home, "trajectories")
    catalogue.record(home, store.write_frames(make_frames(), metadata(), "0002").path)
    assert reads_of(home, "trajectories") == before
    assert before.endswith("/data/toy/trajectories/[!.]*/part-0.parquet'")
    assert catalogue.query(home, "SELECT count(*) AS n FROM toy.trajectories").to_pylist() == [{"n": 30}]


def test_a_view_leaves_out_what_is_damaged(tmp_path):
    store = fill(tmp_path)
    path = store.path("toy", "trajectories", "0000")
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    (problem,) = catalogue.rebuild(tmp_path)
    assert "0000" in problem and "truncated" in problem
    count = "SELECT count(*) AS n FROM toy.trajectories"
    assert catalogue.query(tmp_path, count).to_pylist() == [{"n": 10}]
    catalogue.record(tmp_path, store.write_frames(make_frames(), metadata(), "0002").path)
    assert catalogue.query(tmp_path, count).to_pylist() == [{"n": 20}]
    path.write_bytes(whole)
    catalogue.record(tmp_path, path)
    assert catalogue.query(tmp_path, count).to_pylist() == [{"n": 30}]
    assert catalogue.rebuild(tmp_path) == []
    assert "*" in reads_of(tmp_path, "trajectories")
