"""From a registered model back to every data file it came from, and whether those files are still the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cg_assets.core.errors import StorageError
from cg_assets.storage.parquet import OLDER_FOLDER, FileInfo, describe, verify
from cg_assets.storage.store import ParquetStore

Status = Literal["same", "changed", "missing", "damaged"]


@dataclass(frozen=True)
class Ancestor:
    """One data file among the ancestors of a model.

    Attributes:
        data: its key, `<system>/<stage>[/<batch>]`.
        file: its path, relative to the home folder where it lies there.
        content_hash: version that the model, or the file made from it, came from.
        child: key of the data made from it, or the model's name.
        status: whether the file there now has this version.
    """

    data: str
    file: str
    content_hash: str
    child: str
    status: Status


def trace(home: Path, model: str, datasets: list[tuple[str, str, str]], check_content: bool = False) -> list[Ancestor]:
    """All ancestors of a model, nearest first.

    Args:
        home: the home folder.
        model: the model's name.
        datasets: key, file and content hash of each training file.
        check_content: read every row and recompute the hashes instead of trusting those stored in the files.
    """
    store = ParquetStore(home)
    found: list[Ancestor] = []
    seen: set[tuple[str, str]] = set()
    waiting = [(data, file, version, model) for data, file, version in datasets]
    while waiting:
        data, file, version, child = waiting.pop(0)
        if (data, version) in seen:
            continue
        seen.add((data, version))
        if not Path(file).is_absolute() and not (store.home / file).is_file():
            file = store.relative_file(data) or file  # its folder was renamed since the model was registered
        path = store.home / file  # an absolute file stays as it is
        if f"/{OLDER_FOLDER}" in file and not path.is_file():  # renamed since
            file = file.replace(f"/{OLDER_FOLDER}", "/")
            path = store.home / file
        status, upstream = _look(path, version, check_content)
        found.append(Ancestor(data, file, version, child, status))
        for parent, parent_version in sorted(upstream.items()):
            if place := store.relative_file(parent):
                waiting.append((parent, place, parent_version, data))
    return found


def ancestor_columns(
    model: str, version: str, ancestors: list[Ancestor]
) -> dict[str, list[str] | list[int] | list[bool]]:
    """The record of the data behind a registered version, for SQL: a row for each file."""
    return {
        "model": [model] * len(ancestors),
        "version": [int(version)] * len(ancestors),
        "data": [item.data for item in ancestors],
        "file": [item.file for item in ancestors],
        "content_hash": [item.content_hash for item in ancestors],
        "made_into": [item.child for item in ancestors],
        "trained_on": [item.child == model for item in ancestors],
    }


def _look(path: Path, version: str, check_content: bool) -> tuple[Status, dict[str, str]]:
    if not path.is_file():
        return "missing", {}
    try:
        info = describe(path)
        if info.content_hash != version:
            return "changed", {}  # its parents are those of other data
        if check_content:
            verify(path)
    except StorageError:
        return "damaged", {}
    return "same", info.metadata.upstream_data_versions


def file_key(home: Path, info: FileInfo) -> tuple[str, str]:
    """Data key of a file, and its path relative to the home folder (absolute where it lies elsewhere)."""
    path = info.path
    key = f"{info.metadata.system}/{info.metadata.stage}"
    older = path.parent.name.removeprefix(OLDER_FOLDER) if path.parent.name.startswith(OLDER_FOLDER) else None
    if batch := info.metadata.batch or older:
        key += f"/{batch}"
    absolute = path.absolute()
    root = Path(home).absolute()
    return key, str(absolute.relative_to(root) if absolute.is_relative_to(root) else absolute)
