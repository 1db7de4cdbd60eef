"""Data files on an object store, for machines that share no file system: S3, or what else Arrow reads and writes.

The home folder is then this machine's copy. A file is uploaded when it is complete, and fetched when it is asked for
and the object is newer; objects appear whole, as files do (`atomic.py`). Clocks decide nothing: the note of a
file records the version that it and its object had when they were last equal, and what differs from that is newer.
Where both have other content, neither is touched.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from cg_assets.core.errors import StorageError, VersionError
from cg_assets.settings import OBJECT_STORE, masked
from cg_assets.storage.atomic import atomic_file
from cg_assets.storage.schemas import PREFIX

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Version:
    """What a file holds.

    Attributes:
        content: content hash.
        identity: hash that also depends on its origin: run, versions of its inputs, verdicts.
        written_at: for messages.
        run_id: for messages.
    """

    content: str
    identity: str
    written_at: str = ""
    run_id: str = ""

    def __str__(self) -> str:
        return f"content {self.content}, written at {self.written_at} by run {self.run_id}"


@dataclass(frozen=True)
class _Note:
    """State of a file and of its object when they were last equal, and the identity of their version."""

    file: list[int] | None = None
    object: list[int] | None = None
    identity: str = ""


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
        """Upload a file that has been made here.

        Raises:
            StorageError: the object was changed elsewhere meanwhile, or the store cannot be reached or refuses it.
        """
        with self._explained(path):
            found, note = self._found(path), _noted(path)
            if found and note.object != _state(found) and self._is_newer(path, _version_of(path), note):
                raise self._conflict(path)
            self._upload(path)

    def pull(self, path: Path) -> None:
        """Make a file the newer one of itself and its object; without an object, a file that had none is uploaded.

        Raises:
            StorageError: both were changed; or the store cannot be reached.
        """
        with self._explained(path):
            found, note = self._found(path), _noted(path)
            mine = _state_of(path)
            if found is None:  # never uploaded, or removed elsewhere since this file was fetched
                if mine and note.file != mine and _version_of(path):
                    self._upload(path)
                return
            if mine is None:
                self._download(path, found)
            elif [note.file, note.object] != [mine, _state(found)]:
                self._reconcile(path, found, note, mine)

    def _reconcile(self, path: Path, found: fs.FileInfo, note: _Note, mine: list[int]) -> None:
        version = _version_of(path)
        if version is None:
            _log.warning("%s is damaged; it is fetched from the object store again", path)
            self._download(path, found)
        elif note.object == _state(found):
            self._remember(path, found) if version.identity == note.identity else self._upload(path)
        elif note.file == mine or version.identity == note.identity:
            self._download(path, found)
        elif self._is_newer(path, version, note):
            raise self._conflict(path)
        elif version.content == self._version_there(path).content:
            self._download(path, found)
        else:
            self._upload(path)

    def _is_newer(self, path: Path, version: _Version | None, note: _Note) -> bool:
        """Whether an object has content that neither this file has nor the version that both come from."""
        there = self._version_there(path)
        known = {version.content} if version else set()
        return path.suffix == ".parquet" and there.content not in known and there.identity != note.identity

    def _version_there(self, path: Path) -> _Version:
        key = self._key(path)
        try:
            with self._objects.open_input_file(key) as stream:
                return _read_version(stream, key)
        except pa.ArrowInvalid:
            raise self._damaged(path) from None

    def _damaged(self, path: Path) -> VersionError:
        return VersionError(
            f"{self._shown(path)}: this object is damaged; remove it: a home that has the file uploads it again"
        )

    def _conflict(self, path: Path) -> VersionError:
        return VersionError(
            f"{path} ({_version_of(path)}) and its object {self._shown(path)} ({self._version_there(path)}) were both "
            "changed since they were last equal; remove the one that you do not want, then run again"
        )

    def _shown(self, path: Path) -> str:
        return f"{self._address.partition('?')[0].rstrip('/')}/{path.relative_to(self._folder)}"

    def _upload(self, path: Path) -> None:
        key = self._key(path)
        if isinstance(self._objects, fs.LocalFileSystem):  # a mounted folder has no objects that appear whole
            self._objects.create_dir(key.rpartition("/")[0], recursive=True)
            with atomic_file(Path(key)) as temporary:
                fs.copy_files(str(path), str(temporary))
        else:
            fs.copy_files(str(path), key, fs.LocalFileSystem(), self._objects)
        self._remember(path, self._objects.get_file_info(key))

    def _download(self, path: Path, found: fs.FileInfo) -> None:
        with atomic_file(path) as temporary:
            fs.copy_files(self._key(path), str(temporary), self._objects, fs.LocalFileSystem())
            if _version_of(temporary, path.suffix) is None:
                raise self._damaged(path)
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

    def _found(self, path: Path) -> fs.FileInfo | None:
        found = self._objects.get_file_info(self._key(path))
        return found if found.type == fs.FileType.File else None

    def _remember(self, path: Path, found: fs.FileInfo) -> None:
        version = _version_of(path)
        with atomic_file(_note(path)) as temporary:
            known = [_state_of(path), _state(found), version.identity if version else ""]
            temporary.write_text(json.dumps(known), encoding="utf-8")

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
    """Next to a file: a `_Note`."""
    return path.with_name(f".{path.name}.object")


def _noted(path: Path) -> _Note:
    try:
        return _Note(*json.loads(_note(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return _Note()


def _state(found: fs.FileInfo) -> list[int]:
    return [found.size, found.mtime_ns]


def _state_of(path: Path) -> list[int] | None:
    return _state(fs.LocalFileSystem().get_file_info(str(path))) if path.is_file() else None


def _version_of(path: Path, suffix: str = "") -> _Version | None:
    """The version of a file here; None for a damaged one. A temporary file has the suffix of another."""
    try:
        with open(path, "rb") as stream:
            return _read_version(stream, path.name + suffix)
    except (pa.ArrowInvalid, OSError):
        return None


def _read_version(stream: BinaryIO | pa.NativeFile, name: str) -> _Version:
    """The version of a data file, from its footer; of another one, from its bytes.

    Raises:
        pyarrow.ArrowInvalid: it is damaged.
        OSError: it cannot be read.
    """
    if not name.endswith(".parquet"):
        digest = hashlib.sha256(stream.read()).hexdigest()
        return _Version(digest, digest)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 8))
    stream.seek(max(0, size - 8 - int.from_bytes(stream.read(4), "little")))
    try:
        values = pq.ParquetFile(pa.BufferReader(stream.read())).metadata.metadata or {}
    except OSError as error:
        raise pa.ArrowInvalid(str(error)) from None
    content, identity, written_at, run_id = (
        values.get(f"{PREFIX}{key}".encode(), b"").decode()
        for key in ("content_hash", "metadata_hash", "written_at", "dagster_run_id")
    )
    if not content:
        raise pa.ArrowInvalid(f"{name} has no content hash")
    return _Version(content, identity, written_at, run_id.strip('"'))
