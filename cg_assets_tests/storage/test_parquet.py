"""Parquet files: exact round trips, atomic writing, stable content hashes, and damage that is named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.storage import atomic
from cg_assets.storage.dataset import FrameDataset, read_frames
from cg_assets.storage.hashing import file_sha256
from cg_assets.storage.parquet import content_hash, describe, read_arrays, read_table, verify, write_frames, write_table
from cg_assets.storage.schemas import FileMetadata

METADATA = FileMetadata(
    system="toy",
    stage="mapped_forces",
    units="molar",
    bead_types=["C", "O", "N"],
    map_hash="abc",
    seed=7,
    code_version="1",
    upstream_data_versions={"toy/trajectories/0000": "f" * 32},
    dagster_run_id="run-1",
    variable_units={"phi": "rad"},
    extra={"bias": {"type": "static", "expression": "2*phi"}},
)


def make_frames(n_frames=50, n_sites=3, dimension=3, seed=0, full=True) -> Frames:
    generator = np.random.default_rng(seed)
    shape = (n_frames, n_sites, dimension)
    optional = {
        "forces": generator.normal(size=shape).astype(np.float32),
        "force_variance": generator.random((n_frames, n_sites)).astype(np.float32),
        "window": generator.integers(0, 4, n_frames).astype(np.int32),
        "bias_energy": generator.normal(size=n_frames),
        "potential_energy": generator.normal(size=n_frames),
        "box": generator.random((n_frames, 3)).astype(np.float32),
        "collective_variables": {"phi": generator.normal(size=n_frames).astype(np.float32)},
    }
    return Frames(
        positions=generator.normal(size=shape).astype(np.float32),
        time=np.arange(n_frames) * 0.5,
        replica=(np.arange(n_frames) % 4).astype(np.int32),
        temperature=np.full(n_frames, 300.0),
        start=(np.arange(n_frames) % 2).astype(np.int32),
        probe=np.arange(n_frames) % 3 == 0,
        **(optional if full else {}),
    )


def assert_same(first: Frames, second: Frames) -> None:
    left, right = first.arrays(), second.arrays()
    assert set(left) == set(right)
    for name, values in left.items():
        assert values.dtype == right[name].dtype, name
        np.testing.assert_array_equal(values, right[name], err_msg=name)


def write(path, frames, metadata=METADATA, batch="0000"):
    return write_frames(path, frames if isinstance(frames, list) else [frames], metadata, batch)


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr("cg_assets.storage.parquet.ROW_GROUP_FRAMES", 64)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(("n_sites", "dimension"), [(1, 1), (1, 2), (10, 3)])
def test_round_trip_is_exact(tmp_path, full, n_sites, dimension):
    frames = make_frames(200, n_sites, dimension, full=full)
    path = tmp_path / "part-0.parquet"
    written = write(path, frames)
    assert_same(read_frames(path), frames)
    assert written.rows == 200
    assert written.content_hash == content_hash(path) == verify(path)
    assert describe(path).metadata == METADATA
    assert os.listdir(tmp_path) == ["part-0.parquet"]


@pytest.mark.parametrize("cell", [np.array([2.0, 2.5, 3.0]), np.array([[3.0, 0, 0], [0, 3.0, 0], [1.5, 1.5, 2.12]])])
def test_boxes_of_any_shape_are_read_as_they_were_written(tmp_path, cell):
    frames = make_frames(n_frames=5)
    box = np.repeat(cell[None], 5, axis=0).astype(np.float32) * np.linspace(1, 1.1, 5).reshape(-1, *[1] * cell.ndim)
    frames = replace(frames, box=box.astype(np.float32))
    write(tmp_path / "part-0.parquet", frames)
    np.testing.assert_array_equal(read_frames([tmp_path / "part-0.parquet"]).box, frames.box)


def test_schema_follows_the_contract(tmp_path):
    path = tmp_path / "part-0.parquet"
    write(path, make_frames(10))
    schema = pq.read_schema(path)
    assert schema.names[:7] == ["batch", "replica", "window", "start", "probe", "time", "temperature"]
    units = {item.name: item.metadata[b"unit"].decode() for item in schema if b"unit" in item.metadata}
    assert units == {
        "time": "ps",
        "temperature": "K",
        "bias_energy": "kJ/mol",
        "potential_energy": "kJ/mol",
        "positions": "nm",
        "forces": "kJ/mol/nm",
        "force_variance": "(kJ/mol/nm)^2",
        "box": "nm",
        "cv_phi": "rad",
    }
    assert schema.field("forces").type.list_size == 9
    assert schema.field("forces").metadata[b"n_sites"] == b"3"
    assert schema.field("forces").metadata[b"dimension"] == b"3"
    values = {key.decode() for key in pq.read_metadata(path).metadata}
    for key in ("schema_version", "system", "stage", "bead_types", "map_hash", "seed", "code_version"):
        assert f"cg_assets.{key}" in values
    assert {"cg_assets.upstream_data_versions", "cg_assets.dagster_run_id", "cg_assets.bias"} <= values
    column = pq.read_metadata(path).row_group(0).column(schema.names.index("positions"))
    assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert not column.has_dictionary_page


def test_reduced_units_and_missing_units(tmp_path):
    frames = make_frames(5, 1, 1)
    reduced = FileMetadata(system="toy", stage="s", units="reduced")
    write(tmp_path / "a.parquet", frames, reduced)
    units = {column["name"]: column["unit"] for column in describe(tmp_path / "a.parquet").columns}
    assert units["cv_phi"] == "reduced length"
    assert units["forces"] == "reduced energy/length"
    with pytest.raises(StorageError, match=r"collective variable 'phi'.*variable_units"):
        write(tmp_path / "b.parquet", frames, FileMetadata(system="toy", stage="s", units="molar"))
    with pytest.raises(StorageError, match="units is 'imperial'"):
        FileMetadata(system="toy", stage="s", units="imperial")


def test_variable_units_of_shipped_systems():
    from cg_assets.systems.load import load_all_systems

    found = {name: system.variable_units for name, system in load_all_systems().items()}
    assert found["capped_alanine_implicit"] == {"phi": "rad", "psi": "rad"}
    assert found["muller_brown"] == {"x": "reduced length"}
    assert set(found["chignolin"].values()) == {"nm"}, "distances"
    assert found["water"] == {}, "no collective variables"
    assert {unit for units in found.values() for unit in units.values()} == {"rad", "nm", "reduced length"}


def test_blocks_of_any_size_give_the_same_file(tmp_path, small_groups):
    frames = make_frames(333)
    hashes, contents = set(), set()
    for number, cuts in enumerate([[], [1], [63, 64, 65], [64, 128, 192, 256, 320], list(range(0, 333, 7))]):
        path = tmp_path / f"{number}.parquet"
        write(path, [frames.select(part) for part in np.split(np.arange(333), cuts)])
        hashes.add(content_hash(path))
        table = pq.ParquetFile(path).metadata
        contents.add(tuple(table.row_group(i).num_rows for i in range(table.num_row_groups)))
        assert_same(read_frames(path), frames)
    assert len(hashes) == 1
    assert contents == {(64, 64, 64, 64, 64, 13)}


def test_content_hash_depends_on_content_only(tmp_path, monkeypatch):
    frames = make_frames(100)

    def hash_of(frames=frames, batch="0000", **changes):
        from dataclasses import replace

        write(tmp_path / "x.parquet", frames, replace(METADATA, **changes), batch)
        return content_hash(tmp_path / "x.parquet")

    base = hash_of()
    sha = file_sha256(tmp_path / "x.parquet")
    assert hash_of(dagster_run_id="other", code_version="2", seed=8, upstream_data_versions={}) == base
    assert file_sha256(tmp_path / "x.parquet") != sha
    monkeypatch.setattr("cg_assets.storage.parquet.ROW_GROUP_FRAMES", 30)
    assert hash_of() == base
    changed = frames.positions.copy()
    changed[50, 1, 2] = np.nextafter(changed[50, 1, 2], np.float32(9))
    from dataclasses import replace

    others = [
        hash_of(replace(frames, positions=changed)),
        hash_of(batch="0001"),
        hash_of(map_hash="other"),
        hash_of(extra={"bias": None}),
        hash_of(units="reduced"),
        hash_of(frames.select(np.arange(99))),
        hash_of(replace(frames, window=None)),
        hash_of(replace(frames, positions=frames.forces, forces=frames.positions)),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_reading_columns_rows_and_groups(tmp_path, small_groups):
    frames = make_frames(300)
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    write(paths[0], frames.select(np.arange(100)))
    write(paths[1], frames.select(np.arange(100, 300)), batch="0001")
    dataset = FrameDataset(paths)
    assert len(dataset) == 300
    assert dataset.n_row_groups == 2 + 4
    assert list(dataset.file_sizes) == [100, 200]
    assert_same(Frames.concatenate(list(dataset)), frames)
    rows = np.random.default_rng(1).integers(0, 300, 500)
    assert_same(dataset.read(rows), frames.select(rows))
    assert_same(dataset.read(slice(70, 250, 3)), frames.select(np.arange(70, 250, 3)))
    assert_same(dataset.read(np.arange(64)), frames.select(np.arange(64)))
    assert_same(dataset.read(frames.probe), frames.select(frames.probe))
    assert len(dataset.read([])) == 0
    limited = read_frames(paths, limit=10)
    assert_same(limited, frames.select(np.arange(10) * 30))
    few = read_frames(paths, columns=["cv_phi"])
    assert few.forces is None
    np.testing.assert_array_equal(few.collective_variables["phi"], frames.collective_variables["phi"])
    with pytest.raises(StorageError, match="no column cv_psi"):
        read_frames(paths, columns=["cv_psi"])
    with pytest.raises(StorageError, match="300 frames"):
        dataset.read([300])
    with pytest.raises(StorageError, match="rows or limit"):
        read_frames(paths, rows=[1], limit=2)


def test_a_row_group_is_read_without_a_copy(tmp_path):
    write(tmp_path / "x.parquet", make_frames(100))
    block = FrameDataset(tmp_path / "x.parquet").row_group(0)
    assert not block.positions.flags.owndata
    assert not block.positions.flags.writeable
    assert block.positions.flags.c_contiguous


def test_files_that_disagree_are_not_read_as_one(tmp_path):
    write(tmp_path / "a.parquet", make_frames(10, 3))
    write(tmp_path / "b.parquet", make_frames(10, 4))
    with pytest.raises(StorageError, match=r"b\.parquet and .*a\.parquet differ"):
        FrameDataset([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    with pytest.raises(StorageError, match="no files"):
        FrameDataset([])


def test_wrong_blocks_leave_nothing_behind(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(StorageError, match="no frames"):
        write(path, [])
    with pytest.raises(StorageError, match="the blocks before it"):
        write(path, [make_frames(5), make_frames(5, full=False)])
    with pytest.raises(StorageError, match="positions has 12 numbers a frame"):
        write(path, [make_frames(5, 3), make_frames(5, 4)])

    def failing():
        yield make_frames(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(path, failing(), METADATA, "0000")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="extra has 'seed'"):
        write(path, make_frames(5), FileMetadata("toy", "s", "reduced", extra={"seed": 1}))
    with pytest.raises(StorageError, match="plan cannot be stored"):
        write(path, make_frames(5), FileMetadata("toy", "s", "reduced", extra={"plan": object()}))


def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "x.parquet"
    write(path, make_frames(5, seed=1))
    before = file_sha256(path)

    def looking():
        yield make_frames(500, seed=2)
        assert file_sha256(path) == before
        assert len(list(tmp_path.iterdir())) == 2
        yield make_frames(500, seed=3)

    write_frames(path, looking(), METADATA, "0000")
    assert describe(path).rows == 1000


WRITER = """
import sys, time
sys.path.insert(0, {tests!r})
from test_parquet import METADATA, make_frames
from cg_assets.storage.parquet import write_frames
def blocks():
    while True:
        yield make_frames(9000, 10)
        print("block", flush=True)
write_frames({path!r}, blocks(), METADATA, "0000")
"""


def test_killed_writer_leaves_only_a_removable_leftover(tmp_path):
    path = tmp_path / "stage" / "part-0.parquet"
    code = WRITER.format(tests=os.path.dirname(__file__), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        process.stdout.readline()
        assert atomic.remove_leftovers(tmp_path) == []  # the writer is alive
        assert not path.exists()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    (leftover,) = path.parent.iterdir()
    assert atomic.is_temporary(leftover)
    assert leftover.stat().st_size > 0
    assert atomic.remove_leftovers(tmp_path) == [leftover]
    assert list(path.parent.iterdir()) == []


def test_missing_empty_truncated_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(StorageError, match=r"x\.parquet: no such file; materialize"):
        read_frames(path)
    path.write_bytes(b"")
    with pytest.raises(StorageError, match=r"x\.parquet: is empty.*materialize"):
        read_frames(path)
    path.write_bytes(b"time,x\n1,2\n")
    with pytest.raises(StorageError, match=r"x\.parquet: is not a Parquet file"):
        read_frames(path)
    write(path, make_frames(1000))
    whole = path.read_bytes()
    for size in (4, 11, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StorageError, match=r"x\.parquet: is truncated.*materialize"):
            read_frames(path)
    pq.write_table(pa.table({"x": [1.0]}), path)
    with pytest.raises(StorageError, match=r"x\.parquet: .*not one of cg_assets"):
        read_frames(path)
    write_table(path, {"x": np.arange(3.0)}, METADATA)
    with pytest.raises(StorageError, match=r"x\.parquet: holds no frames"):
        read_frames(path)


def test_bit_flips_never_give_wrong_frames(tmp_path, small_groups):
    path = tmp_path / "x.parquet"
    frames = make_frames(150)
    write(path, frames)
    whole = path.read_bytes()
    generator = np.random.default_rng(3)
    noticed = 0
    places = generator.integers(4, len(whole) - 4, 400)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            assert_same(read_frames(path), frames)  # a flip in a place that nothing reads
        except StorageError as error:
            noticed += 1
            assert "x.parquet" in str(error)
    assert noticed > 0.8 * len(places)


def test_page_checksums_notice_a_flip_in_the_data(tmp_path):
    path = tmp_path / "x.parquet"
    write(path, make_frames(1000))
    column = pq.read_metadata(path).row_group(0).column(9)
    whole = bytearray(path.read_bytes())
    whole[column.data_page_offset + column.total_compressed_size // 2] ^= 4
    path.write_bytes(whole)
    with pytest.raises(StorageError, match=r"x\.parquet: is damaged .*remove it and materialize"):
        read_frames(path)


def test_small_tables(tmp_path):
    path = tmp_path / "pmf.parquet"
    surface = np.arange(12.0).reshape(2, 2, 3)
    columns = {"s": np.array([0.5, 1.5]), "surface": surface, "name": ["a", "b"], "ok": [True, False], "n": [1, 2]}
    written = write_table(path, columns, METADATA, {"s": "nm"})
    again = read_arrays(path)
    np.testing.assert_array_equal(again["surface"], surface)
    np.testing.assert_array_equal(again["s"], columns["s"])
    assert list(again["name"]) == ["a", "b"]
    assert list(again["ok"]) == [True, False]
    assert verify(path) == written.content_hash
    assert {column["name"]: column["unit"] for column in describe(path).columns}["s"] == "nm"
    table = read_table(path, ["s", "name"])
    assert write_table(tmp_path / "b.parquet", table, METADATA).rows == 2
    assert read_table(tmp_path / "b.parquet").equals(table)
    assert write_table(tmp_path / "c.parquet", {"s": np.zeros(0)}, METADATA).rows == 0
    assert read_table(tmp_path / "c.parquet").num_rows == 0
    with pytest.raises(StorageError, match="column b has shape"):
        write_table(path, {"a": [1, 2], "b": [1]}, METADATA)
    with pytest.raises(StorageError, match="type list"):
        write_table(path, pa.table({"a": [[1], [1, 2]]}), METADATA)
    with pytest.raises(StorageError, match="no column z"):
        read_table(path, ["z"])


def test_locks_end_with_their_holder(tmp_path):
    lock = tmp_path / "lock"
    code = (
        "import sys,time; from pathlib import Path; from cg_assets.storage.atomic import acquire_lock\n"
        f"acquire_lock(Path({str(lock)!r}), 1.0, 'test'); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        with (
            pytest.raises(StorageError, match=f"in use by process {process.pid}"),
            atomic.file_lock(lock, 0.1, "the toy"),
        ):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    begin = time.monotonic()
    with atomic.file_lock(lock, 5.0, "the toy"):
        assert time.monotonic() - begin < 1.0
