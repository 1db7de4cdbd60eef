"""Data files on an object store, for machines that share no file system: S3, or what else Arrow reads and writes.

The home folder is then this machine's copy. A file is uploaded when it is complete, and fetched when it is asked for
and the object is newer; objects appear whole, as files do (`atomic.py`). Which of two is newer stands in the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from cg_assets.core.errors import StorageError
from cg_assets.settings import OBJECT_STORE, masked
from cg_assets.storage.atomic import atomic_file
from cg_assets.storage.schemas import PREFIX


class ObjectStore:
    """Objects of the same names as the files of a folder."""

    def __init__(self, address: str, folder: Path) -> None:
        """The objects under an address, of the files of a folder.

        Raises:
            StorageError: Arrow does not support the address.
        """
        shown = masked(address)
        try:
            self._objects, self._root = fs.FileSystem.from_uri(address)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = masked(str(error))
            raise StorageError(f"{OBJECT_STORE} is {shown!r}: {reason}; give s3://BUCKET/FOLDER") from None
        self._address, self._folder = shown, folder

    def push(self, path: Path) -> None:
        """Upload a file.

        Raises:
            StorageError: the store cannot be reached or refuses it.
        """
        with self._explained(path):
            key = self._key(path)
            if isinstance(self._objects, fs.LocalFileSystem):  # a mounted folder has no objects that appear whole
                self._objects.create_dir(key.rpartition("/")[0], recursive=True)
                with atomic_file(Path(key)) as temporary:
                    fs.copy_files(str(path), str(temporary))
            else:
                fs.copy_files(str(path), key, fs.LocalFileSystem(), self._objects)
            self._remember(path, self._objects.get_file_info(key))

    def pull(self, path: Path) -> None:
        """Make a file the newer one of itself and its object; without an object, a file that had none is uploaded.

        Raises:
            StorageError: the store cannot be reached.
        """
        with self._explained(path):
            key = self._key(path)
            found = self._objects.get_file_info(key)
            theirs = _version(found) if found.type == fs.FileType.File else None
            mine = _version(fs.LocalFileSystem().get_file_info(str(path))) if path.is_file() else None
            known = self._remembered(path)
            if theirs is None:  # never uploaded, or removed elsewhere since this file was fetched
                if mine and known[:1] != [mine]:
                    self.push(path)
            elif known != [mine, theirs]:
                if mine and _stamp(path, fs.LocalFileSystem()) > _stamp(key, self._objects):
                    self.push(path)
                    return
                with atomic_file(path) as temporary:
                    fs.copy_files(key, str(temporary), self._objects, fs.LocalFileSystem())
                self._remember(path, found)

    def remove(self, path: Path) -> None:
        """Remove the object of a file, if there is one, and what is remembered of it.

        Raises:
            StorageError: the store cannot be reached.
        """
        with self._explained(path), suppress(FileNotFoundError):
            _note(path).unlink(missing_ok=True)
            self._objects.delete_file(self._key(path))

    def paths(self, folder: Path) -> list[Path]:
        """The files that have objects anywhere below a folder, sorted.

        Raises:
            StorageError: the store cannot be reached.
        """
        with self._explained(folder):
            selector = fs.FileSelector(self._key(folder), allow_not_found=True, recursive=True)
            found = [item.path for item in self._objects.get_file_info(selector) if item.type == fs.FileType.File]
        return sorted(self._folder / Path(path).relative_to(self._root) for path in found)

    def _key(self, path: Path) -> str:
        return "/".join([self._root, *path.relative_to(self._folder).parts])

    def _remember(self, path: Path, found: fs.FileInfo) -> None:
        here = fs.LocalFileSystem().get_file_info(str(path))
        with atomic_file(_note(path)) as temporary:
            temporary.write_text(json.dumps([_version(here), _version(found)]), encoding="utf-8")

    def _remembered(self, path: Path) -> list[list[int]]:
        try:
            return json.loads(_note(path).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return []

    @contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = masked(str(error).splitlines()[0])
            raise StorageError(
                f"{path}: the object store {self._address} does not answer as it should ({reason}); check "
                f"{OBJECT_STORE}, the permissions and the network, then run again"
            ) from None  # the pages of Dagster keep causes as they are


def _note(path: Path) -> Path:
    """Next to a file: size and time of it and of the object when they were equal."""
    return path.with_name(f".{path.name}.object")


def _version(found: fs.FileInfo) -> list[int]:
    return [found.size, found.mtime_ns]


def _stamp(path: Path | str, files: fs.FileSystem) -> str:
    """When a Parquet file was written; of others it does not matter which one is kept."""
    if not str(path).endswith(".parquet"):
        return ""
    with files.open_input_file(str(path)) as stream:
        values = pq.ParquetFile(stream).metadata.metadata or {}
    return values.get(f"{PREFIX}written_at".encode(), b"").decode()
