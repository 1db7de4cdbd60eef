"""Other programs open every dataset by its folder, with their defaults, and see the same table."""

import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from cg_assets.core.frames import Frames
from cg_assets.registry.model_lineage import trace
from cg_assets.storage import catalogue
from cg_assets.storage.column_descriptions import DESCRIPTION
from cg_assets.storage.dataset import read_frames
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore

DOCS = Path(__file__).parents[2] / "docs"
READERS = {
    "pandas": lambda folder: pa.Table.from_pandas(pandas.read_parquet(folder), preserve_index=False),
    "read_table": pyarrow.parquet.read_table,
    "dataset": lambda folder: pyarrow.dataset.dataset(folder).to_table(),
    "hive": lambda folder: pyarrow.dataset.dataset(folder, partitioning="hive").to_table(),
    "polars": lambda folder: polars.read_parquet(folder).to_arrow(),
    "duckdb": lambda folder: duckdb.sql(f"from read_parquet('{folder}/**/*.parquet')").to_arrow_table(),
}


def block(seed):
    draw = np.random.default_rng(seed)
    positions = draw.normal(size=(7, 2, 3)).astype(np.float32)
    return Frames(
        positions=positions,
        forces=-positions,
        time=np.arange(7.0),
        replica=np.zeros(7, np.int32),
        temperature=np.full(7, 300.0),
        start=np.zeros(7, np.int32),
        probe=np.zeros(7, bool),
        collective_variables={"r": draw.normal(size=7).astype(np.float32)},
    )


def fill(home):
    """Two batches of frames, two of a table, and a table without batches."""
    store = ParquetStore(home)
    place = {"units": "molar", "variable_units": {"r": "nm"}}
    for number, batch in enumerate(("0000", "more-7")):
        store.write_frames(block(number), FileMetadata("muller_brown", "trajectories", **place), batch)
        store.write_table({"file": [f"a{number}", "b"]}, FileMetadata("muller_brown", "models", **place), batch)
    store.write_frames(block(2), FileMetadata("muller_brown", "trajectories", **place), "0001")
    store.write_table({"pmf": [0.0, 1.0], "blocks": np.eye(2)}, FileMetadata("muller_brown", "reference", **place))
    return store


def plain(table):
    """Rows of a table under their names, in any order, whatever types its reader gives lists and text."""
    rows = table.to_pylist()
    return table.column_names, sorted(repr(row) for row in rows)


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_opens_with_defaults(reader, tmp_path):
    store = fill(tmp_path)
    for stage, rows in {"trajectories": 21, "models": 4, "reference": 2}.items():
        found = READERS[reader](str(store.stage_folder("muller_brown", stage)))
        expected = pa.concat_tables(
            [pyarrow.parquet.ParquetFile(file).read() for file in store.files("muller_brown", stage)]
        )
        assert len(found) == rows
        assert plain(found) == plain(expected)


def test_the_snippets_of_the_docs_run(tmp_path, monkeypatch):
    fill(tmp_path / "cg_assets_home")
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (DOCS / "data.md").read_text(), re.DOTALL)
    assert len(snippets) == 7
    sizes = []
    for snippet in snippets:
        names = {}
        exec(snippet, names)
        sizes.append(len(names.get("frames", [])))
    assert sizes[:5] == [21] * 5
    np.testing.assert_array_equal(names["positions"][:7], block(0).positions)


def test_columns_carry_descriptions_that_leave_the_content_hash_alone(tmp_path):
    store = fill(tmp_path)
    for stage in ("trajectories", "models", "reference"):
        for file in store.files("muller_brown", stage):
            for field in pyarrow.parquet.read_schema(file):
                assert field.metadata[DESCRIPTION], field.name
    described = {column["name"]: column for column in store.describe("muller_brown", "reference").columns}
    assert described["pmf"]["description"] == "potential of mean force [kJ/mol], 0 at its minimum"
    # As computed by the version before columns had descriptions.
    assert store.data_version("muller_brown", "trajectories", "0000") == "d965434cda0a83e16636cb5c03b0e0e7"
    assert store.data_version("muller_brown", "reference") == "8038d2cef3aea4cb50ea933bfc089320"


def older(store):
    """Rename the folders of batches as they were called."""
    for stage in ("trajectories", "models"):
        folder = store.stage_folder("muller_brown", stage)
        for batch in store.batches("muller_brown", stage):
            (folder / batch).rename(folder / f"batch={batch}")


def test_older_folders_are_read_continued_and_renamed(tmp_path):
    store = fill(tmp_path)
    versions = {batch: store.data_version("muller_brown", "trajectories", batch) for batch in ("0000", "more-7")}
    older(store)
    shutil.rmtree(store.path("muller_brown", "trajectories", "0001").parent)
    assert store.batches("muller_brown", "trajectories") == ["0000", "more-7"]
    assert {batch: store.data_version("muller_brown", "trajectories", batch) for batch in versions} == versions
    place = FileMetadata("muller_brown", "trajectories", units="molar", variable_units={"r": "nm"})
    store.write_frames(block(2), place, "0001")
    store.write_frames(block(0), place, "0000")
    folder = store.stage_folder("muller_brown", "trajectories")
    assert sorted(path.name for path in folder.iterdir()) == ["0001", "batch=0000", "batch=more-7"]
    assert len(read_frames(store.files("muller_brown", "trajectories"))) == 21
    count = "select batch, count(*) as n from muller_brown.trajectories group by 1 order by 1"
    rows = [{"batch": batch, "n": 7} for batch in ("0000", "0001", "more-7")]
    assert catalogue.query(tmp_path, count).to_pylist() == rows
    assert len(store.older_folders()) == 4
    with store.lock("muller_brown", "trajectories", "0000"):
        renamed, faults = store.rename_older_folders()
    assert len(renamed) == 3
    assert [fault.partition(" (lock")[0].partition(": ")[2].split(" is in use by ")[0] for fault in faults] == [
        "muller_brown/trajectories/0000"
    ]
    assert store.rename_older_folders() == ([folder / "batch=0000"], [])
    assert store.older_folders() == []
    assert catalogue.query(tmp_path, count).to_pylist() == rows
    assert len(pandas.read_parquet(folder)) == 21
    before = "data/muller_brown/trajectories/batch=0000/part-0.parquet"
    (found,) = trace(tmp_path, "a_model", [("muller_brown/trajectories/0000", before, versions["0000"])])
    assert (found.status, found.file) == ("same", before.replace("batch=", ""))


def test_a_folder_with_a_dot_is_no_batch_for_sql_either(tmp_path):
    store = fill(tmp_path)
    catalogue.rebuild(tmp_path)
    folder = store.stage_folder("muller_brown", "trajectories")
    shutil.copytree(folder / "0000", folder / ".kept")
    assert store.batches("muller_brown", "trajectories") == ["0000", "0001", "more-7"]
    count = "select count(*) as n from muller_brown.trajectories"
    assert catalogue.query(tmp_path, count).to_pylist() == [{"n": 21}]


@pytest.mark.parametrize("relative", [False, True])
def test_a_home_that_is_reached_through_a_link(relative, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = Path() if relative else tmp_path
    home, link = base / "home", base / "link"
    home.mkdir()
    link.symlink_to("home", target_is_directory=True)
    store = fill(link)
    catalogue.record(link, store.files("muller_brown", "trajectories"))
    made = (home / "catalog.duckdb").stat().st_ino
    count = "select count(*) as n from muller_brown.trajectories"
    for folder in (link, home):
        assert catalogue.query(folder, count).to_pylist() == [{"n": 21}]
        file = ParquetStore(folder).path("muller_brown", "trajectories", "0000")
        assert catalogue.query(folder, f"select count(*) as n from '{file}'").to_pylist() == [{"n": 7}]
        with duckdb.connect(str(folder / "catalog.duckdb"), read_only=True) as connection:
            assert connection.sql(count).fetchall() == [(21,)]
    assert catalogue.differences(link) == []
    assert (home / "catalog.duckdb").stat().st_ino == made, "both names are of one home: nothing is rebuilt"
    # The link is moved to a copy, which then has batches of its own.
    shutil.copytree(home, base / "copy")
    link.unlink()
    link.symlink_to("copy", target_is_directory=True)
    shutil.rmtree(store.path("muller_brown", "trajectories", "0001").parent)
    with (
        duckdb.connect(str(link / "catalog.duckdb"), read_only=True) as connection,
        pytest.raises(duckdb.Error, match=r"was made for .*home/catalog.duckdb"),
    ):
        connection.sql(count).fetchall()
    assert catalogue.query(link, count).to_pylist() == [{"n": 14}]
    assert catalogue.query(home, count).to_pylist() == [{"n": 21}]


def test_a_copied_catalogue_does_not_read_the_original(tmp_path):
    store = fill(tmp_path / "home")
    catalogue.rebuild(store.home)
    shutil.copytree(store.home, tmp_path / "copy")
    count = "select count(*) from muller_brown.trajectories"
    with duckdb.connect(str(store.home / "catalog.duckdb"), read_only=True) as connection:
        assert connection.sql(count).fetchall() == [(21,)]
    refusal = pytest.raises(duckdb.Error, match=r"was made for .*home/catalog.duckdb; .*doctor --repair")
    with duckdb.connect(str(tmp_path / "copy" / "catalog.duckdb"), read_only=True) as connection, refusal:
        connection.sql(count).fetchall()
    assert catalogue.query(tmp_path / "copy", "select count(*) as n from muller_brown.trajectories").to_pylist() == [
        {"n": 21}
    ]
    with duckdb.connect(str(tmp_path / "copy" / "catalog.duckdb"), read_only=True) as connection:
        assert connection.sql(count).fetchall() == [(21,)]
