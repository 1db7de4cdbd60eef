"""Lazy reading of frames that lie in one or many Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.storage.column_descriptions import content_facts
from cg_assets.storage.parquet import FileInfo, explain_damage, file_state, open_described, open_file
from cg_assets.storage.schemas import frame_columns, list_shape, to_arrays, to_frames


class FrameDataset:
    """Frames of one or many files as one sequence; rows are read when asked for, a row group at a time.

    Attributes:
        paths: the files, in order.
        columns: the columns that are read.
        infos: what `describe` gives of each file, as it was opened.
        row_group_sizes: `(n_row_groups,)` frames in each row group, over all files.
        file_sizes: `(n_files,)` frames in each file.
    """

    def __init__(self, paths: Path | Sequence[Path], columns: list[str] | None = None) -> None:
        """Open the files' footers.

        Args:
            paths: one file or several with the same columns.
            columns: columns to read besides those of all frames (positions, time, replica, temperature, start,
                probe); None for all.

        Raises:
            StorageError: a file is missing or damaged, holds no frames, lacks a column, or the files disagree in
                columns, units or sites.
        """
        self.paths = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
        if not self.paths:
            raise StorageError("no files to read; materialize at least one batch first")
        self.infos: list[FileInfo] = []
        self._footers, self._states = [], []
        self._groups: list[tuple[int, int]] = []
        sizes = []
        for number, path in enumerate(self.paths):
            self._states.append(file_state(path))
            file, info = open_described(path)
            with file:
                if number == 0:
                    self.columns = frame_columns(file.schema_arrow.names, columns, str(path))
                    self._schema = _pick(file.schema_arrow, self.columns, path)
                elif not _pick(file.schema_arrow, self.columns, path).equals(self._schema, check_metadata=True):
                    raise StorageError(
                        f"{path} and {self.paths[0]} differ in columns, units or sites, so they cannot be read as one; "
                        "materialize the older one again with the present system file"
                    )
                self.infos.append(info)
                self._footers.append(file.metadata)
                for group in range(file.num_row_groups):
                    self._groups.append((number, group))
                    sizes.append(file.metadata.row_group(group).num_rows)
        self.row_group_sizes = np.array(sizes, np.int64)
        self.file_sizes = np.array([footer.num_rows for footer in self._footers], np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(self.row_group_sizes)])

    def __len__(self) -> int:
        """Number of frames."""
        return int(self._offsets[-1])

    @property
    def n_row_groups(self) -> int:
        """Number of row groups over all files."""
        return len(self._groups)

    def _arrays(self, group: int) -> dict[str, NDArray]:
        number, index = self._groups[group]
        path = self.paths[number]
        with open_file(path, self._footers[number]) as file, explain_damage(path):
            arrays = to_arrays(file.read_row_group(index, columns=self.columns).select(self.columns))
        if file_state(path) != self._states[number]:
            raise StorageError(f"{path}: was made again while it was read; run this again")
        return arrays

    def row_group(self, group: int) -> Frames:
        """The frames of one row group, lists without a copy (read-only arrays).

        Raises:
            StorageError: the row group is damaged.
        """
        return to_frames(self._arrays(group))

    def __iter__(self) -> Iterator[Frames]:
        """Every row group in order; concatenating these blocks gives `read()`."""
        return (self.row_group(group) for group in range(self.n_row_groups))

    def read(self, rows: ArrayLike | slice | None = None) -> Frames:
        """Frames in memory; only the row groups that hold them are read.

        Args:
            rows: indices in any order, a boolean mask, or a slice; None for all.

        Raises:
            StorageError: a row is beyond the end, or a row group is damaged.
        """
        if rows is None:
            rows = slice(None)
        if isinstance(rows, slice):
            index = np.arange(len(self))[rows]
        else:
            given = np.asarray(rows)
            index = np.flatnonzero(given) if given.dtype == bool else given.astype(np.int64)
            if len(index) and (index.min() < 0 or index.max() >= len(self)):
                raise StorageError(f"{self.paths[0]}: rows {index.min()} to {index.max()} of {len(self)} frames")
        groups = np.searchsorted(self._offsets, index, side="right") - 1
        order = np.argsort(groups, kind="stable")
        picked, starts = np.unique(groups[order], return_index=True)
        if len(picked) == 1 and np.array_equal(index, np.arange(*self._offsets[picked[0] : picked[0] + 2])):
            return self.row_group(int(picked[0]))
        arrays = {item.name: _empty(item, len(index)) for item in self._schema}
        for group, where in zip(picked, np.split(order, starts[1:]), strict=False):
            local = index[where] - self._offsets[group]
            whole = len(where) == self.row_group_sizes[group] and np.array_equal(local, np.arange(len(local)))
            contiguous = whole and where[-1] - where[0] == len(where) - 1
            for name, values in self._arrays(int(group)).items():
                if contiguous:
                    arrays[name][where[0] : where[-1] + 1] = values
                else:
                    arrays[name][where] = values[local]
        return to_frames(arrays)


def _pick(schema: pa.Schema, columns: list[str], path: Path) -> pa.Schema:
    if missing := [name for name in columns if name not in schema.names]:
        raise StorageError(f"{path}: has no column {', '.join(missing)}, which the files before it have")
    return pa.schema([schema.field(name).with_metadata(content_facts(schema.field(name))) for name in columns])


def _empty(item: pa.Field, rows: int) -> NDArray:
    if pa.types.is_fixed_size_list(item.type):
        return np.empty((rows, *list_shape(item)), item.type.value_type.to_pandas_dtype())
    return np.empty(rows, item.type.to_pandas_dtype())


def read_frames(
    paths: Path | Sequence[Path],
    columns: list[str] | None = None,
    rows: ArrayLike | slice | None = None,
    limit: int | None = None,
) -> Frames:
    """Frames of one or many files in memory.

    Args:
        paths: one file or several with the same columns.
        columns: columns besides those of all frames; None for all.
        rows: indices over all files, or a slice; None for all.
        limit: read at most this many frames, evenly spread over all; None for all.

    Raises:
        StorageError: as `FrameDataset`; or rows and limit are both given.
    """
    dataset = FrameDataset(paths, columns)
    if limit is not None:
        if rows is not None:
            raise StorageError("read_frames: give rows or limit, not both")
        if limit < len(dataset):
            rows = np.arange(limit) * len(dataset) // max(1, limit)
    return dataset.read(rows)
