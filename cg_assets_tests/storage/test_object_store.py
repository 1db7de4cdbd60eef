"""Data on an object store: homes that share nothing else see one another's files. A real S3 server where moto is."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import Command
from test_crashes import results

from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.operations.prune import Prunable, remove
from cg_assets.settings import OBJECT_STORE
from cg_assets.storage import parquet
from cg_assets.storage.catalogue import fetched, query
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore

PLACE = ("toy", "trajectories", "0000")
METADATA = FileMetadata(system="toy", stage="trajectories", units="reduced", seed=5, code_version="1")


def frames(value, count=10):
    return Frames(
        positions=np.full((count, 2, 3), value, np.float32),
        time=np.arange(float(count)),
        replica=np.zeros(count, np.int32),
        temperature=np.ones(count),
        start=np.zeros(count, np.int32),
        probe=np.zeros(count, bool),
    )


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """Two homes that share a folder as if it were a bucket."""
    monkeypatch.setenv(OBJECT_STORE, f"file://{tmp_path}/bucket/data")
    return ParquetStore(tmp_path / "a"), ParquetStore(tmp_path / "b")


def value(store):
    return float(store.read_frames(*PLACE[:2]).positions[0, 0, 0])


def test_what_one_writes_the_other_reads(homes):
    one, other = homes
    assert other.batches(*PLACE[:2]) == []
    one.write_frames(frames(1.0), METADATA, "0000")
    assert other.batches(*PLACE[:2]) == ["0000"]
    assert value(other) == 1.0
    assert other.data_version(*PLACE) == one.data_version(*PLACE)
    one.write_frames(frames(2.0), METADATA, "0000")
    assert value(other) == 2.0
    other.write_table({"x": [1.0]}, replace(METADATA, stage="comparison"))
    assert one.read_table("toy", "comparison")["x"].to_pylist() == [1.0]


def test_a_file_that_is_equal_is_not_fetched_again(homes):
    one, other = homes
    one.write_frames(frames(1.0), METADATA, "0000")
    when = other.file(*PLACE).stat().st_mtime_ns
    assert other.file(*PLACE).stat().st_mtime_ns == when


def test_the_newer_one_wins(homes):
    """A home whose upload failed has the newer file, and uploads it when it is asked for again."""
    one, other = homes
    one.write_frames(frames(1.0), METADATA, "0000")
    assert value(other) == 1.0
    time.sleep(1.1)  # times stand in the files to the second
    parquet.write_frames(other.path(*PLACE), [frames(3.0)], METADATA, "0000")
    assert value(other) == 3.0
    assert value(one) == 3.0


def test_a_file_from_before_is_uploaded(homes):
    one, other = homes
    parquet.write_frames(one.path(*PLACE), [frames(4.0)], METADATA, "0000")
    assert other.batches(*PLACE[:2]) == []
    assert one.fetch() == []
    assert value(other) == 4.0


def test_questions_are_about_all_files(homes):
    one, other = homes
    one.write_frames(frames(1.0), METADATA, "0000")
    one.write_frames(frames(2.0, 15), METADATA, "0001")
    assert fetched(other.home).home == other.home
    assert query(other.home, "SELECT count(*) AS n FROM toy.trajectories")["n"].to_pylist() == [25]
    one.write_frames(frames(2.0, 20), METADATA, "0001")
    fetched(other.home)
    assert query(other.home, "SELECT count(*) AS n FROM toy.trajectories")["n"].to_pylist() == [30]


def test_what_is_pruned_is_gone_everywhere(homes):
    one, other = homes
    one.write_frames(frames(1.0), METADATA, "0000")
    remove(one.home, [Prunable(one.path(*PLACE), "its checks failed", 1, ("finite",))])
    assert other.batches(*PLACE[:2]) == []
    assert one.is_pruned(*PLACE) and other.is_pruned(*PLACE)
    assert [path.name for path in one.path(*PLACE).parent.iterdir() if not path.name.startswith(".pruned")] == [
        "pruned.json"
    ]


@pytest.mark.parametrize("address", ["bucket", "ftp://host/folder"])
def test_a_wrong_address_is_refused(tmp_path, monkeypatch, address):
    monkeypatch.setenv(OBJECT_STORE, address)
    with pytest.raises(StorageError, match=rf"{OBJECT_STORE} is '{address}': .*; give s3://BUCKET/FOLDER"):
        ParquetStore(tmp_path)


def test_a_store_that_is_away_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(OBJECT_STORE, "s3://bucket/data?endpoint_override=127.0.0.1:9&scheme=http")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    store = ParquetStore(tmp_path)
    with pytest.raises(StorageError, match=r"the object store s3://bucket/data.* does not answer as it should"):
        store.write_frames(frames(1.0), METADATA, "0000")
    assert store.path(*PLACE).is_file(), "what was made is kept, and uploaded when the store is back"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_homes_share_a_bucket_of_a_real_server(finished, tmp_path):
    """One samples, the other maps, trains, simulates and judges; all files are those of a home alone."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed").ThreadedMotoServer(port=0)
    server.start()
    try:
        import boto3

        address = "http://{}:{}".format(*server.get_host_and_port()).replace("0.0.0.0", "127.0.0.1")
        keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": address}
        boto3.client(
            "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        ).create_bucket(Bucket="simulations")
        more = keys | {OBJECT_STORE: "s3://simulations/data", "AWS_DEFAULT_REGION": "us-east-1"}
        more["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
        one, other = (Command(tmp_path / name / "home") for name in ("one", "other"))
        for own in (one, other):
            own.home.mkdir(parents=True)
            own.add_system((finished.home / "systems" / "small_wells.yaml").read_text())
        sampled = ("trajectories", "biased_samples")
        done = one("run", "small_wells", "--select", *sampled, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.rmtree(one.home / "data")
        stages = sorted(
            {name.split("/")[1] for name in results(finished, "small_wells")} - {*sampled, "registered_models"}
        )
        done = other("run", "small_wells", "--select", *stages, timeout=600, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        told = one("query", "SELECT count(*) AS files FROM lineage", **more)
        assert told.returncode == 0, told.stderr
        theirs = results(finished, "small_wells")
        assert results(one, "small_wells") == results(other, "small_wells") == theirs
        assert f"{len(theirs)}" in told.stdout
        told = one("lookup", "small_wells.unbiased@champion", **more)
        assert told.returncode == 0 and "missing" not in told.stdout, told.stdout + told.stderr
    finally:
        server.stop()
