"""Write and read Parquet files of frames and of small tables.

A file is complete or not there (`atomic.py`). Its pages carry checksums and its metadata a hash of the content, so that
damage is noticed when it is read and named with the file and the remedy.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.storage.atomic import atomic_file
from cg_assets.storage.column_descriptions import described
from cg_assets.storage.hashing import ContentHash, metadata_hash
from cg_assets.storage.schemas import PREFIX, FileMetadata, frame_schema, list_shape, to_arrays, to_record_batch

DATA_FILE = "part-0.parquet"
"""Name of every data file, in `<home>/data/<system>/<stage>/` or its folder `<batch>`."""
OLDER_FOLDER = "batch="
"""What the folder of a batch begins with in older homes: pandas and Arrow take it for a second column `batch`."""
ROW_GROUP_FRAMES = 8_000
"""Most frames in a row group: one is decoded in a few milliseconds."""
ROW_GROUP_BYTES = 64 * 2**20
"""Most bytes in a row group; what limits large systems."""
_ENCODED = 2**18
"""Numbers that are encoded at once, about a page: with pyarrow's thousand, writing takes a tenth longer."""

Mark = Callable[[Path], Mapping[str, Any]]
"""Checks a file that is written but not visible yet; returns further metadata, none for a sound file."""


@dataclass(frozen=True)
class WrittenFile:
    """What was written.

    Attributes:
        path: the file.
        rows: number of rows.
        content_hash: version of its content (`content_hash`).
        bytes: size of the file.
    """

    path: Path
    rows: int
    content_hash: str
    bytes: int


@dataclass(frozen=True)
class FileInfo:
    """Metadata of a file, read without its rows.

    Attributes:
        path: the file.
        rows: number of rows.
        bytes: size of the file.
        columns: `{"name", "type", "unit", "description"}` of each column; lists also `"shape"`.
        metadata: where the file came from.
        content_hash: version of its content.
        written_at: ISO time of writing (UTC).
    """

    path: Path
    rows: int
    bytes: int
    columns: list[dict[str, Any]]
    metadata: FileMetadata
    content_hash: str
    written_at: str


# --------------------------------------------------------------------------------------- writing


def write_frames(
    path: Path, blocks: Iterable[Frames], metadata: FileMetadata, batch: str | None, mark: Mark | None = None
) -> WrittenFile:
    """Stream blocks of frames into one Parquet file, which appears when it is complete.

    The row groups, hence the bytes of the columns, do not depend on how the frames were cut into blocks.

    Args:
        path: final name of the file.
        blocks: frames with the same columns and sites, one block in memory at a time.
        metadata: where the frames came from.
        batch: value of the column `batch`; None where a stage has no batches.
        mark: checks the written file before it appears; what it returns is added to the metadata.

    Raises:
        StorageError: there are no frames, blocks differ in their columns, or the disk is full.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        schema = None
        for frames in blocks:
            if len(frames):
                schema = schema or frame_schema(frames, metadata)
                yield to_record_batch(frames, schema, batch, str(path))

    return _write(Path(path), batches(), metadata, mark)


def write_table(
    path: Path,
    columns: pa.Table | Mapping[str, ArrayLike],
    metadata: FileMetadata,
    units: Mapping[str, str] | None = None,
    mark: Mark | None = None,
) -> WrittenFile:
    """Write a small table with the same guarantees: an evaluation, a PMF on a grid.

    Args:
        path: final name of the file.
        columns: a table, or name to array `(n_rows, ...)`; arrays of more axes become lists that keep their shape.
        metadata: where the numbers came from.
        units: unit of each column that has one.
        mark: as in `write_frames`.

    Raises:
        StorageError: columns differ in length or have a type that cannot be stored.
    """
    table = columns if isinstance(columns, pa.Table) else _as_table(columns, str(path))
    fields = []
    for item in table.schema:
        facts = {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}
        if units and item.name in units:
            facts["unit"] = units[item.name]
        fields.append(item.with_metadata(facts or None))
    table = table.cast(described(fields, metadata.units)).combine_chunks()
    batches = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return _write(Path(path), iter(batches), metadata, mark)


def _as_table(columns: Mapping[str, ArrayLike], source: str) -> pa.Table:
    arrays, fields, length = [], [], None
    for name, values in columns.items():
        array = np.asarray(values)
        length = len(array) if length is None else length
        if array.ndim == 0 or len(array) != length:
            raise StorageError(f"{source}: column {name} has shape {array.shape} where the first has {length} rows")
        if array.ndim == 1:
            arrays.append(pa.array(array.tolist(), pa.string()) if array.dtype.kind in "OU" else pa.array(array))
            fields.append(pa.field(name, arrays[-1].type))
            continue
        flat = pa.array(np.ascontiguousarray(array).reshape(-1))
        kind = pa.list_(pa.field("element", flat.type, False), math.prod(array.shape[1:]))
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=kind))
        shape = ",".join(str(size) for size in array.shape[1:])
        fields.append(pa.field(name, kind, False, metadata={"shape": shape}))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _write(path: Path, batches: Iterator[pa.RecordBatch], metadata: FileMetadata, mark: Mark | None) -> WrittenFile:
    first = next(batches, None)
    if first is None:
        raise StorageError(f"{path}: there are no frames to write; check the plan's duration and frame interval")
    with atomic_file(path) as temporary:
        rows, content = _fill(temporary, first, batches, metadata)
        if mark is not None and (facts := mark(temporary)):
            marked = replace(metadata, extra={**metadata.extra, **facts})
            with tempfile.TemporaryFile(dir=path.parent) as copy:
                with temporary.open("rb") as written:
                    shutil.copyfileobj(written, copy)
                groups = _stored_batches(pq.ParquetFile(copy))
                rows, content = _fill(temporary, next(groups), groups, marked)
        size = temporary.stat().st_size
    return WrittenFile(path, rows, content, size)


def _stored_batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    for index in range(file.num_row_groups):
        yield from file.read_row_group(index).to_batches()


def _fill(path: Path, first: pa.RecordBatch, rest: Iterator[pa.RecordBatch], metadata: FileMetadata) -> tuple[int, str]:
    """Write a whole file; returns its number of rows and its content hash."""
    key_values, schema = metadata.to_key_values(), first.schema
    digest = ContentHash(schema)
    rows = 0
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=False,
        column_encoding={name: "BYTE_STREAM_SPLIT" for name in _float_leaves(schema)},
        write_statistics=[item.name for item in schema if not pa.types.is_fixed_size_list(item.type)],
        write_page_checksum=True,
        write_batch_size=_ENCODED,
    ) as writer:
        for group in _row_groups(first, rest, _group_rows(schema)):
            writer.write_table(group, row_group_size=max(1, len(group)))
            digest.update(group)
            rows += len(group)
        content = digest.hexdigest(key_values)
        key_values[PREFIX + "content_hash"] = content
        key_values[PREFIX + "rows"] = str(rows)
        key_values[PREFIX + "written_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        key_values[PREFIX + "metadata_hash"] = metadata_hash(key_values, schema)
        writer.add_key_value_metadata(key_values)
    return rows, content


def _float_leaves(schema: pa.Schema) -> Iterator[str]:
    for item in schema:
        if pa.types.is_floating(item.type):
            yield item.name
        elif pa.types.is_fixed_size_list(item.type) and pa.types.is_floating(item.type.value_type):
            yield f"{item.name}.list.element"


def _group_rows(schema: pa.Schema) -> int:
    width = sum(4 * item.type.list_size if pa.types.is_fixed_size_list(item.type) else 8 for item in schema)
    return max(1, min(ROW_GROUP_FRAMES, ROW_GROUP_BYTES // width))


def _row_groups(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Tables of exactly `size` rows (the last may be shorter), whatever the sizes of the batches."""
    waiting, count, exhausted = [first], len(first), False
    if not count:
        yield pa.Table.from_batches(waiting)
        return
    while not (exhausted and count == 0):
        while count < size and not exhausted:
            batch = next(rest, None)
            exhausted = batch is None
            if batch is not None:
                waiting.append(batch)
                count += len(batch)
        table = pa.Table.from_batches(waiting, schema=first.schema)
        cut = count if count < size else count - count % size
        for start in range(0, cut, size):
            yield table.slice(start, min(size, cut - start)).combine_chunks()
        waiting, count = table.slice(cut).to_batches(), count - cut


# --------------------------------------------------------------------------------------- reading


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn every error of reading a file into a StorageError with its name and the remedy."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"{path}: no such file; materialize its asset first") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StorageError(
            f"{path}: is damaged and cannot be read ({reason}); remove it and materialize its asset again"
        ) from error


def open_file(path: Path, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a file of the project with page checksums verified while reading; with its footer it was open before.

    Raises:
        StorageError: the file is missing, empty, truncated, damaged, or not one of this project.
    """
    path = Path(path)
    return open_described(path)[0] if footer is None else _open(path, footer)


def _open(path: Path, footer: pq.FileMetaData | None) -> pq.ParquetFile:
    with explain_damage(path):
        size = path.stat().st_size
        if size == 0:
            raise StorageError(f"{path}: is empty (0 bytes); remove it and materialize its asset again")
        with open(path, "rb") as stream:
            head = stream.read(4)
            stream.seek(max(0, size - 4), os.SEEK_SET)
            tail = stream.read(4)
        if head != b"PAR1":
            raise StorageError(f"{path}: is not a Parquet file (it starts with {head!r}); give the path of a data file")
        if size < 12 or tail != b"PAR1":
            raise StorageError(f"{path}: is truncated ({size} bytes); remove it and materialize its asset again")
        return pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)


def open_described(path: Path) -> tuple[pq.ParquetFile, FileInfo]:
    """Open a file, and what `describe` gives, both from the one file that was opened. Errors as in `open_file`."""
    path = Path(path)
    file = _open(path, None)
    try:
        return file, _checked(path, file)
    except BaseException:
        file.close()
        raise


def _checked(path: Path, file: pq.ParquetFile) -> FileInfo:
    key_values, schema = _key_values(path, file), file.schema_arrow
    if stored := key_values.get(PREFIX + "metadata_hash"):
        rows = key_values.get(PREFIX + "rows")
        with explain_damage(path):
            found = metadata_hash(key_values, schema)
        if stored != found or rows != str(file.metadata.num_rows) or not _columns_in_order(file.metadata):
            raise StorageError(f"{path}: its metadata are damaged; remove it and materialize its asset again")
    metadata = FileMetadata.from_key_values(key_values, str(path))
    _check_place(path, metadata)
    columns = []
    for item in schema:
        facts = {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}
        column: dict[str, Any] = {"name": item.name, "type": _short_type(item.type), "unit": facts.get("unit", "")}
        column["description"] = facts.get("description", "")
        if pa.types.is_fixed_size_list(item.type):
            column["shape"] = list_shape(item)
        columns.append(column)
    return FileInfo(
        path=path,
        rows=file.metadata.num_rows,
        bytes=path.stat().st_size,
        columns=columns,
        metadata=metadata,
        content_hash=key_values[PREFIX + "content_hash"],
        written_at=key_values[PREFIX + "written_at"],
    )


def _columns_in_order(footer: pq.FileMetaData) -> bool:
    """Whether columns are compressed and lie one behind the other, as they were written; no hash covers that."""
    end = 4
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for column in map(group.column, range(footer.num_columns)):
            if not column.num_values:
                continue
            if column.compression != "ZSTD" or column.data_page_offset != end:
                return False
            end += column.total_compressed_size
    return True


def _check_place(path: Path, metadata: FileMetadata) -> None:
    """Refuse a data file at the place of another one: it was copied or moved by hand."""
    *folders, name = path.absolute().parts
    depth = next((depth for depth in (2, 3) if folders[-depth - 1 : -depth] == ["data"]), None)
    if name != DATA_FILE or depth is None:
        return
    there = [*folders[-depth:-1], folders[-1].removeprefix(OLDER_FOLDER)]
    own = [metadata.system, metadata.stage, *([metadata.batch] if metadata.batch else [])]
    if own != there[: len(own)]:  # some older files do not name their batch
        raise StorageError(
            f"{path}: holds {'/'.join(own)}: it was copied or moved there; move it back, or remove it and materialize "
            "the asset again"
        )


def _key_values(path: Path, file: pq.ParquetFile) -> dict[str, str]:
    with explain_damage(path):
        values = file.metadata.metadata or {}
        return {key.decode(): value.decode() for key, value in values.items() if key.startswith(PREFIX.encode())}


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole file as an Arrow table; the schema's fields carry the units. Errors as in `read_described`."""
    return read_described(path, columns)[0]


def read_described(path: Path, columns: list[str] | None = None) -> tuple[pa.Table, FileInfo]:
    """A whole file as an Arrow table, and what `describe` gives, both from the one file that was opened.

    Raises:
        StorageError: the file is missing or damaged, or a column is not in it.
    """
    file, info = open_described(path)
    with file:
        names = file.schema_arrow.names
        if unknown := [name for name in columns or [] if name not in names]:
            raise StorageError(f"{path}: has no column {', '.join(unknown)}; its columns are {', '.join(names)}")
        with explain_damage(path):
            return file.read(columns=columns), info


def read_arrays(path: Path, columns: list[str] | None = None) -> dict[str, NDArray]:
    """A whole file as arrays `(n_rows, ...)`; what `write_table` was given. Errors as in `read_table`."""
    return table_arrays(read_table(path, columns))


def table_arrays(table: pa.Table) -> dict[str, NDArray]:
    """The columns of a table as arrays `(n_rows, ...)`."""
    text = [item.name for item in table.schema if pa.types.is_string(item.type)]
    arrays = to_arrays(table.drop_columns(text)) if text else to_arrays(table)
    return {
        name: np.array(table[name].to_pylist(), object) if name in text else arrays[name] for name in table.column_names
    }


def describe(path: Path) -> FileInfo:
    """Rows, columns with units, and metadata of a file, from its footer alone.

    Raises:
        StorageError: the file is missing, damaged or foreign.
    """
    file, info = open_described(path)
    file.close()
    return info


def file_state(path: Path) -> tuple[int, int, int, int]:
    """What tells a file from another one that replaces it: device, number, size and time of its content.

    Raises:
        StorageError: there is none.
    """
    with explain_damage(path):
        found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _short_type(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"{kind.value_type}[{kind.list_size}]"
    return str(kind)


def content_hash(path: Path) -> str:
    """Version of the file's content as the writer stored it; `verify` recomputes it.

    It depends on columns, units, values and the metadata system, stage, bead types, map, bias and force map, not on
    run ids, code versions, writing times or row groups. Errors as in `describe`.
    """
    return describe(path).content_hash


def verify(path: Path) -> str:
    """Read every row and compare with the content hash that the writer stored.

    Returns:
        The content hash.

    Raises:
        StorageError: the file is missing, damaged or foreign, or its content is not what was written.
    """
    path = Path(path)
    with open_file(path) as file:
        key_values = _key_values(path, file)
        digest = ContentHash(file.schema_arrow)
        with explain_damage(path):
            for index in range(file.num_row_groups):
                digest.update(file.read_row_group(index))
    if (found := digest.hexdigest(key_values)) != key_values[PREFIX + "content_hash"]:
        raise StorageError(
            f"{path}: its content is not what was written (hash {found}, stored "
            f"{key_values[PREFIX + 'content_hash']}); remove it and materialize its asset again"
        )
    return found
