"""The content hash of a table: equal data have equal hashes, whenever they were written and in whatever row groups."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from cg_assets.core.errors import StorageError
from cg_assets.storage.column_descriptions import content_facts
from cg_assets.storage.schemas import CONTENT_KEYS, PREFIX

HASH_LENGTH = 32
"""Hexadecimal digits kept of a content hash (128 bits)."""


class ContentHash:
    """SHA-256 of the schema (names, types, units), the values column by column, and the metadata that are content."""

    def __init__(self, schema: pa.Schema) -> None:
        """Start with no rows.

        Raises:
            StorageError: a column has a type that the project does not store.
        """
        self._schema = schema
        self._columns = [_ColumnHash(item) for item in schema]
        self._rows = 0

    def update(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Add rows of the schema."""
        for batch in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
            self._rows += len(batch)
            for column, array in zip(self._columns, batch.columns, strict=True):
                column.update(array)

    def hexdigest(self, key_values: Mapping[str, str]) -> str:
        """The hash, with the metadata of the file."""
        digest = hashlib.sha256(f"{self._rows}\n".encode())
        for item, column in zip(self._schema, self._columns, strict=True):
            digest.update(f"{_field_text(item, content_facts(item))}\t{column.hexdigest()}\n".encode())
        for key in CONTENT_KEYS:
            digest.update(f"{key}\t{key_values.get(key)}\n".encode())
        return digest.hexdigest()[:HASH_LENGTH]


class _ColumnHash:
    def __init__(self, item: pa.Field) -> None:
        kind = item.type.value_type if pa.types.is_fixed_size_list(item.type) else item.type
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        text = pa.types.is_string(item.type)
        if not (numeric or text):
            raise StorageError(f"column {item.name} has type {item.type}; numbers, booleans and text can be stored")
        self._text = text
        self._values, self._valid, self._lengths = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()

    def update(self, array: pa.Array) -> None:
        valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else np.ones(len(array), bool)
        self._valid.update(valid.tobytes())
        if self._text:
            array = array.fill_null("") if array.null_count else array
            _, offsets, text = array.buffers()
            edges = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
            self._lengths.update(np.diff(edges).tobytes())
            if text is not None and len(array):
                self._values.update(memoryview(text)[int(edges[0]) : int(edges[-1])])
            return
        if pa.types.is_fixed_size_list(array.type):
            if array.null_count:
                raise StorageError("a list column has missing rows; write numbers (NaN) instead")
            array = array.flatten()
        if array.null_count:
            array = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
        self._values.update(np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).data)

    def hexdigest(self) -> str:
        return "/".join(part.hexdigest() for part in (self._valid, self._lengths, self._values))


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"list[{kind.list_size}] of {kind.value_type}"
    return str(kind)


def _field_text(item: pa.Field, facts: Mapping[bytes, bytes]) -> str:
    return f"{item.name}\t{_type_name(item.type)}\t{sorted(facts.items())}"


def metadata_hash(key_values: Mapping[str, str], schema: pa.Schema) -> str:
    """Hash of the schema and of all metadata of the project but this hash itself; detects a damaged footer."""
    digest = hashlib.sha256("\n".join(_field_text(item, item.metadata or {}) for item in schema).encode())
    for key in sorted(key_values):
        if key.startswith(PREFIX) and key != PREFIX + "metadata_hash":
            digest.update(f"{key}\t{key_values[key]}\n".encode())
    return digest.hexdigest()[:HASH_LENGTH]


def file_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, run ids and writing time included.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error}; materialize its asset") from error
