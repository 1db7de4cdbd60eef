"""Data on an object store: homes that share nothing else see one another's files. A real S3 server where moto is."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from conftest import Command
from test_crashes import results

from cg_assets.core.errors import StorageError, VersionError
from cg_assets.core.frames import Frames
from cg_assets.operations.doctor import examine
from cg_assets.operations.prune import Prunable, remove
from cg_assets.settings import OBJECT_STORE
from cg_assets.storage import parquet
from cg_assets.storage.catalogue import fetched, query
from cg_assets.storage.dataset import read_frames
from cg_assets.storage.object_store import ObjectStore
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


def write_unpublished(store, number):
    """As a step whose upload fails."""
    parquet.write_frames(store.path(*PLACE), [frames(number)], METADATA, "0000")


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_the_newer_one_wins_whatever_the_clocks(homes, monkeypatch, hours):
    """A home whose upload failed has the newer file, and uploads it when it is asked for again."""
    one, other = homes
    one.write_frames(frames(1.0), METADATA, "0000")
    assert value(other) == 1.0
    with monkeypatch.context() as clock:
        clock.setattr(parquet, "datetime", Clock(hours))
        write_unpublished(other, 3.0)
    assert value(other) == 3.0
    assert value(one) == 3.0
    one.write_frames(frames(4.0), METADATA, "0000")
    assert value(other) == 4.0


class Clock:
    """A clock that is some hours ahead."""

    def __init__(self, hours):
        self.ahead = timedelta(hours=hours)

    def now(self, zone):
        return datetime.now(zone) + self.ahead


def disagree(one, other, published):
    """Both make another version of the file that both had."""
    one.write_frames(frames(1.0), METADATA, "0000")
    assert value(other) == 1.0
    one.write_frames(frames(2.0), replace(METADATA, dagster_run_id="theirs"), "0000")
    mine = replace(METADATA, dagster_run_id="mine")
    if published:
        with pytest.raises(VersionError, match=r"a/|b/"):
            other.write_frames(frames(3.0), mine, "0000")
    else:
        parquet.write_frames(other.path(*PLACE), [frames(3.0)], mine, "0000")


@pytest.mark.parametrize("published", [True, False])
def test_a_conflict_is_refused_and_both_are_named(homes, published):
    one, other = homes
    disagree(one, other, published)
    for ask in (value, lambda store: store.data_version(*PLACE)):
        with pytest.raises(VersionError) as caught:
            ask(other)
        told = str(caught.value)
        assert str(other.path(*PLACE)) in told and "bucket/data/toy/trajectories/0000/part-0.parquet" in told
        assert "by run mine)" in told and "by run theirs)" in told
        assert "remove the one that you do not want" in told
    assert value(one) == 2.0, "what is on the object store stays"
    assert float(read_frames(other.path(*PLACE)).positions[0, 0, 0]) == 3.0, "and so does the other one"
    other.path(*PLACE).unlink()
    assert value(other) == 2.0


def test_the_object_of_a_conflict_is_removed(homes, tmp_path):
    one, other = homes
    disagree(one, other, published=True)
    (tmp_path / "bucket/data/toy/trajectories/0000/part-0.parquet").unlink()
    assert value(other) == 3.0
    assert value(one) == 3.0


def test_a_conflict_stops_nothing_else(homes, caplog):
    one, other = homes
    disagree(one, other, published=False)
    one.write_table({"x": [1.0]}, replace(METADATA, stage="comparison"))
    fetched(other.home)
    assert "were both changed since they were last equal" in caplog.text
    assert query(other.home, "SELECT x FROM toy.comparison")["x"].to_pylist() == [1.0]
    (finding,) = [item for item in examine(other.home) if item.subject == "object store"]
    assert len(finding.faults) == 1 and "by run mine)" in finding.faults[0]


def test_homes_that_never_met(homes):
    """The same batch made twice is the same data; other data of the same name are refused."""
    one, other = homes
    for store in homes:
        write_unpublished(store, 1.0)
    assert value(one) == value(other) == 1.0
    assert one.fetch() == other.fetch() == ([], [])
    place = replace(METADATA, stage="other")
    parquet.write_frames(one.path("toy", "other"), [frames(1.0)], place, None)
    assert one.fetch() == ([], [])
    with pytest.raises(VersionError, match="were both changed"):
        other.write_frames(frames(2.0), place)


def test_a_copied_home_with_other_times_is_no_newer(homes, tmp_path):
    one, other = homes
    one.write_frames(frames(1.0), METADATA, "0000")
    assert value(other) == 1.0
    for path in (other.path(*PLACE), next(other.path(*PLACE).parent.glob(".*.object"))):
        os.utime(path, (1.0, 1.0))
    assert value(other) == 1.0
    one.write_frames(frames(2.0), METADATA, "0000")
    os.utime(other.path(*PLACE), (2.0, 2.0))
    assert value(other) == 2.0
    assert value(one) == 2.0


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-9], lambda content: b"x" * 4000])
def test_a_damaged_file_is_fetched_again(homes, damage):
    one, other = homes
    one.write_frames(frames(1.0), METADATA, "0000")
    assert value(other) == 1.0
    path = other.path(*PLACE)
    path.write_bytes(damage(path.read_bytes()))
    fetched(other.home)
    assert value(other) == 1.0


def test_a_damaged_file_without_an_object_is_named_where_it_is_read(homes):
    one, other = homes
    one.write_table({"x": [1.0]}, replace(METADATA, stage="comparison"))
    write_unpublished(other, 1.0)
    other.path(*PLACE).write_bytes(b"PAR1 and no more")
    fetched(other.home)
    assert query(other.home, "SELECT x FROM toy.comparison")["x"].to_pylist() == [1.0]
    with pytest.raises(StorageError, match=r"part-0\.parquet: is truncated"):
        value(other)
    assert one.batches(*PLACE[:2]) == [], "it is not uploaded"


@pytest.mark.parametrize("content", [b"PAR1 and no more", b"PAR1" + b"x" * 100 + b"\x50\0\0\0PAR1"])
def test_a_damaged_object_is_named_and_replaces_nothing(homes, tmp_path, content):
    one, other = homes
    one.write_frames(frames(1.0), METADATA, "0000")
    assert value(other) == 1.0
    (tmp_path / "bucket/data/toy/trajectories/0000/part-0.parquet").write_bytes(content)
    with pytest.raises(VersionError, match=r"bucket/data/toy/.*: this object is damaged; remove it"):
        value(other)
    assert len(other.fetch()[1]) == 1
    assert read_frames(other.path(*PLACE)).positions[0, 0, 0] == 1.0


def test_a_file_from_before_is_uploaded(homes):
    one, other = homes
    parquet.write_frames(one.path(*PLACE), [frames(4.0)], METADATA, "0000")
    assert other.batches(*PLACE[:2]) == []
    assert one.fetch() == ([], [])
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


def older_name(store):
    return store.stage_folder(*PLACE[:2]) / "batch=0000"


def write_older(store, number):
    older_name(store).mkdir(parents=True, exist_ok=True)
    return store.write_frames(frames(number), METADATA, "0000").path


def objects(tmp_path):
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("bucket/data/*/*/*/*"))


PRESENT = ["bucket/data/toy/trajectories/0000/part-0.parquet"]


@pytest.mark.parametrize("look", [value, lambda store: (store.fetch(), value(store))[1]], ids=["asked for", "fetched"])
def test_what_another_home_renamed_and_wrote_is_seen(homes, tmp_path, look):
    one, other = homes
    assert write_older(one, 1.0) == older_name(one) / "part-0.parquet"
    assert value(other) == 1.0 and older_name(other).is_dir()
    assert one.rename_older_folders() == ([older_name(one)], [])
    assert objects(tmp_path) == PRESENT
    assert look(other) == 1.0
    assert other.rename_older_folders() == ([older_name(other)], []), "a second copy of the same is removed"
    assert not older_name(other).exists()
    one.write_frames(frames(2.0), METADATA, "0000")
    assert look(other) == 2.0
    assert objects(tmp_path) == PRESENT


def test_a_home_that_renames_later_takes_what_was_written_since(homes, tmp_path):
    one, other = homes
    write_older(one, 1.0)
    assert value(other) == 1.0
    one.rename_older_folders()
    one.write_frames(frames(2.0), METADATA, "0000")
    assert other.rename_older_folders() == ([older_name(other)], [])
    assert (value(one), value(other)) == (2.0, 2.0)
    assert objects(tmp_path) == PRESENT


def test_other_content_under_both_names_is_left_and_named(homes):
    one, other = homes
    write_older(one, 1.0)
    assert value(other) == 1.0
    one.rename_older_folders()
    one.write_frames(frames(2.0), METADATA, "0000")
    assert value(other) == 2.0
    renamed, faults = other.rename_older_folders()
    assert renamed == [] and f"{older_name(other)}: 0000 is there with other content; remove one" in faults[0]
    assert (older_name(other) / "part-0.parquet").is_file() and value(other) == 2.0


def test_what_was_written_under_the_older_name_meanwhile_is_kept(homes, tmp_path):
    one, other = homes
    write_older(one, 1.0)
    assert value(other) == 1.0
    write_older(other, 2.0)
    one.rename_older_folders()
    assert (value(one), value(other)) == (2.0, 2.0)
    assert objects(tmp_path) == PRESENT


@pytest.mark.parametrize("fetches", [False, True])
@pytest.mark.parametrize("step", ["push", "remove"])
def test_a_renaming_that_was_killed_is_finished_by_the_next(homes, tmp_path, monkeypatch, step, fetches):
    one, other = homes
    write_older(one, 1.0)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(ObjectStore, step, killed)
        one.rename_older_folders()
    assert value(other) == 1.0, "one of the two names is there at any moment"
    if fetches:
        one.fetch()
    assert one.older_folders() == [older_name(one)]
    assert one.rename_older_folders() == ([older_name(one)], [])
    assert objects(tmp_path) == PRESENT and not older_name(one).exists()
    assert value(one) == 1.0
    shutil.rmtree(other.home)
    assert value(other) == 1.0


def test_a_batch_that_was_pruned_under_the_older_name_is_known_everywhere(homes):
    one, other = homes
    remove(one.home, [Prunable(write_older(one, 1.0), "its checks failed", 1, ("finite",))])
    assert one.is_pruned(*PLACE) and other.is_pruned(*PLACE)
    one.rename_older_folders()
    shutil.rmtree(other.home)
    assert one.is_pruned(*PLACE) and other.is_pruned(*PLACE)


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
