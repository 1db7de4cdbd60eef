"""Where the files of a home folder lie."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from numpy.typing import ArrayLike

from cg_assets.core.errors import StorageError, VersionError
from cg_assets.core.frames import Frames
from cg_assets.settings import installation
from cg_assets.storage import parquet
from cg_assets.storage.atomic import file_lock, remove_leftovers
from cg_assets.storage.dataset import read_frames
from cg_assets.storage.object_store import ObjectStore
from cg_assets.storage.parquet import OLDER_FOLDER
from cg_assets.storage.pieces import PieceStore
from cg_assets.storage.schemas import FileMetadata

PRUNED = "pruned.json"
"""In the folder of a batch whose file was removed: the reason, so that it is not made again."""
_FILE = parquet.DATA_FILE
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


def data_key(system: str, stage: str, batch: str | None) -> str:
    """The key of a file in lineage: `<system>/<stage>`, or `<system>/<stage>/<batch>`."""
    return f"{system}/{stage}" + ("" if batch is None else f"/{batch}")


class ParquetStore:
    """The data files under `<home>/data/<system>/<stage>/`, one file for each batch.

    Attributes:
        home: the folder that holds everything of an installation (`$CG_ASSETS_HOME`).
    """

    def __init__(self, home: Path) -> None:
        """A store in a home folder, which need not exist yet."""
        self.home = Path(home).absolute()
        address = installation().object_store
        self._objects = ObjectStore(address, self.data) if address else None

    @property
    def data(self) -> Path:
        """The folder of all data files."""
        return self.home / "data"

    def stage_folder(self, system: str, stage: str) -> Path:
        """The folder of a stage.

        Raises:
            StorageError: a name cannot stand in a path.
        """
        return self.data / _checked("system", system) / _checked("stage", stage)

    def figure_folder(self, system: str, stage: str) -> Path:
        """The folder of the figures of a stage, those of its newest batch. Errors as in `stage_folder`."""
        return self.home / "figures" / _checked("system", system) / _checked("stage", stage)

    def path(self, system: str, stage: str, batch: str | None = None) -> Path:
        """Where the file of a batch lies, or of a stage without batches. Errors as in `stage_folder`."""
        folder = self.stage_folder(system, stage)
        if batch is None:
            return folder / _FILE
        path, older = folder / _checked("batch", batch) / _FILE, folder / f"{OLDER_FOLDER}{batch}" / _FILE
        return older if older.parent.is_dir() and not path.is_file() else path

    def file(self, system: str, stage: str, batch: str | None = None) -> Path:
        """The same for reading: fetched from the object store, if that has a newer one. It need not be there."""
        return self._fetched(self.path(system, stage, batch), batch)

    def _fetched(self, path: Path, batch: str | None) -> Path:
        if not self._objects:
            return path
        present = path if batch is None else path.parents[1] / batch / path.name
        self._objects.pull(present)
        if batch is None or present.is_file():
            return present
        older = path.parents[1] / f"{OLDER_FOLDER}{batch}" / path.name
        self._objects.pull(older)
        return older if older.parent.is_dir() else present

    def fetch(self) -> tuple[list[Path], list[str]]:
        """Fetch all files of the object store that are newer than those here, and upload those that are missing there.

        Returns:
            The data files that were fetched or changed here; and what is wrong with files that were left as they are.

        Raises:
            StorageError: the store cannot be reached.
        """
        if not self._objects:
            return [], []
        here = {path: path.stat().st_mtime_ns for path in self.data.glob(f"*/*/**/{_FILE}")}
        faults = []
        known = here.keys() | set(self._objects.paths(self.data))
        for path in sorted(known):
            renamed = _is_older(path.parent) and _renamed(path.parent) / path.name in known
            if not renamed and not any(part.startswith(".") for part in path.relative_to(self.data).parts):
                try:
                    self._objects.pull(path)
                except VersionError as error:
                    faults.append(str(error))
        changed = [path for path in self.data.glob(f"*/*/**/{_FILE}") if here.get(path) != path.stat().st_mtime_ns]
        return changed, faults

    def remove(self, path: Path) -> None:
        """Remove a file, here and on the object store."""
        path.unlink(missing_ok=True)
        if self._objects:
            self._objects.remove(path)

    def publish(self, path: Path) -> None:
        """Upload a finished file, where there is an object store."""
        if self._objects:
            self._objects.push(path)

    def batches(self, system: str, stage: str) -> list[str]:
        """Names of the batches that are there, sorted."""
        folder = self.stage_folder(system, stage)
        files = set(folder.glob(f"[!.]*/{_FILE}"))
        if self._objects:
            files |= {path for path in self._objects.paths(folder) if path.name == _FILE and path.parent != folder}
        return sorted({file.parent.name.removeprefix(OLDER_FOLDER) for file in files})

    def pruned(self, system: str, stage: str) -> list[str]:
        """Names of the batches of which a file was removed because nothing needs it, sorted."""
        folders = [path for path in self.stage_folder(system, stage).glob("[!.]*") if path.is_dir()]
        names = {path.name.removeprefix(OLDER_FOLDER) for path in folders}
        return sorted(name for name in names if self.is_pruned(system, stage, name))

    def place(self, path: Path) -> tuple[str, str, str | None]:
        """System, stage and batch of a data file, its folder, or the pieces of one that is being made.

        Raises:
            StorageError: the path lies outside the folder of data.
        """
        if not path.absolute().is_relative_to(self.data):
            raise StorageError(f"{path}: lies outside {self.data}; only files there are data")
        system, stage, name, *_ = (*path.absolute().relative_to(self.data).parts, "", "")
        name = name.removeprefix(OLDER_FOLDER).removeprefix(".pieces-")
        return system, stage, None if name in ("", _FILE) or name.startswith(".") else name

    def older_folders(self) -> list[Path]:
        """Folders of batches that are called as in older homes, here or in the object store, sorted.

        Raises:
            StorageError: the object store cannot be reached.
        """
        folders = {path for path in self.data.glob(f"*/*/{OLDER_FOLDER}*") if path.is_dir()}
        if self._objects:
            there = {path.parent for path in self._objects.paths(self.data)}
            folders |= {path for path in there if _is_older(path) and len(path.relative_to(self.data).parts) == 3}
        return sorted(folders)

    def rename_older_folders(self) -> tuple[list[Path], list[str]]:
        """Give the folders of batches of an older home their present names, in the object store as well.

        Returns:
            The folders that were renamed; and why others were left, such as that of a batch that a process works on.

        Raises:
            StorageError: the object store cannot be reached.
        """
        renamed, faults = [], []
        for folder in self.older_folders():
            try:
                with self.lock(*self.place(folder)):
                    self._rename(folder, _renamed(folder))
                renamed.append(folder)
            except StorageError as error:
                faults.append(str(error))
        return renamed, faults

    def _rename(self, folder: Path, target: Path) -> None:
        older = self._objects.paths(folder) if self._objects else []  # removed last: a kill loses nothing
        if not target.exists():
            for path in older:
                self._fetched(path, None)
            folder.rename(target)
        elif folder.is_dir():
            if not all(_same(path, target / path.name) for path in _shown(folder)):
                raise StorageError(f"{folder}: {target.name} is there with other content; remove one of the two")
            shutil.rmtree(folder)
        if self._objects:
            there = self._objects.paths(target)
            for path in _shown(target):
                self._objects.pull(path) if path in there else self._objects.push(path)
            for path in older:
                self._objects.remove(path)

    def is_pruned(self, system: str, stage: str, batch: str | None) -> bool:
        """Whether the file of a batch was removed because nothing needs it."""
        path = self.file(system, stage, batch)
        return not path.is_file() and self._fetched(path.with_name(PRUNED), batch).is_file()

    def files(self, system: str, stage: str, batches: Iterable[str] | None = None) -> list[Path]:
        """The files of some batches (None: of all that are there, or the one file of a stage without batches).

        Raises:
            StorageError: there is none, or a named batch is missing.
        """
        if batches is None:
            single = self.file(system, stage)
            files = [single] if single.is_file() else []
            files += [self.file(system, stage, batch) for batch in self.batches(system, stage)]
        else:
            files = [self.file(system, stage, batch) for batch in batches]
        if not files:
            raise StorageError(f"{system}/{stage}: no data in {self.stage_folder(system, stage)}; materialize it first")
        if missing := [str(file) for file in files if not file.is_file()]:
            raise StorageError(f"{system}/{stage}: no file {', '.join(missing)}; materialize these batches first")
        return files

    def locate(self, key: str) -> Path:
        """The file of a data key `<system>/<stage>` or `<system>/<stage>/<batch>`, as upstream versions name it.

        Raises:
            StorageError: the key has another form.
        """
        return self.path(*self._parts(key))

    def relative_file(self, key: str) -> str | None:
        """The same relative to the home folder; None for a key of something else, such as a registered model."""
        try:
            return str(self.locate(key).relative_to(self.home))
        except StorageError:
            return None

    @staticmethod
    def _parts(key: str) -> list[str]:
        parts = key.split("/")
        if len(parts) not in (2, 3):
            raise StorageError(f"data key {key!r}: must be <system>/<stage> or <system>/<stage>/<batch>")
        return parts

    def write_frames(
        self,
        frames: Iterable[Frames] | Frames,
        metadata: FileMetadata,
        batch: str | None = None,
        mark: parquet.Mark | None = None,
    ) -> parquet.WrittenFile:
        """Write frames to the file of the metadata's system and stage; see `parquet.write_frames`."""
        blocks, metadata = [frames] if isinstance(frames, Frames) else frames, replace(metadata, batch=batch)
        path = self.path(metadata.system, metadata.stage, batch)
        written = parquet.write_frames(path, blocks, metadata, batch, mark)
        self.publish(written.path)
        return written

    def write_table(
        self,
        columns: pa.Table | Mapping[str, ArrayLike],
        metadata: FileMetadata,
        batch: str | None = None,
        units: Mapping[str, str] | None = None,
        mark: parquet.Mark | None = None,
    ) -> parquet.WrittenFile:
        """Write a small table to the file of the metadata's system and stage; see `parquet.write_table`."""
        path = self.path(metadata.system, metadata.stage, batch)
        written = parquet.write_table(path, columns, replace(metadata, batch=batch), units, mark)
        self.publish(written.path)
        return written

    def read_frames(
        self, system: str, stage: str, batches: Iterable[str] | None = None, columns: list[str] | None = None
    ) -> Frames:
        """The frames of some batches in memory (None: all)."""
        return read_frames(self.files(system, stage, batches), columns)

    def read_table(self, system: str, stage: str, batch: str | None = None) -> pa.Table:
        """A small table."""
        return parquet.read_table(self.file(system, stage, batch))

    def describe(self, system: str, stage: str, batch: str | None = None) -> parquet.FileInfo:
        """Rows, columns, units and metadata of a file."""
        return parquet.describe(self.file(system, stage, batch))

    def data_version(self, system: str, stage: str, batch: str | None = None) -> str:
        """The content hash of a file: the data version of the asset."""
        return self.describe(system, stage, batch).content_hash

    def upstream(self, *keys: str) -> dict[str, str]:
        """Data keys (see `locate`) to the content hashes that they have now, for `FileMetadata`."""
        return {key: self.data_version(*self._parts(key)) for key in keys}

    def pieces(
        self, system: str, stage: str, batch: str | None, plan_hash: str, seed: int | None, code_version: str
    ) -> PieceStore:
        """The pieces of a batch that is being sampled, tagged with what they follow from."""
        tag = f"{plan_hash}/{seed}/{code_version}"
        return PieceStore(self.path(system, stage, batch), batch, tag, self.publish)

    def lock(self, system: str, stage: str, batch: str | None, timeout: float = 0.0) -> AbstractContextManager[None]:
        """Hold the right to make or remove the file of a batch, which one process has at a time.

        Args:
            system: of the file.
            stage: of the file.
            batch: of the file.
            timeout: longest wait for another process [s].

        Raises:
            StorageError: another process, which is named, has it.
        """
        key = data_key(system, stage, batch)
        path = self.home / "locks" / "data" / f"{key.replace('/', '.')}.lock"
        return file_lock(path, timeout, f"{self.home}: {key}", stays=False)

    def remove_leftovers(self) -> list[Path]:
        """Remove the temporary files of killed writers; files being written stay."""
        return remove_leftovers(self.data) if self.data.is_dir() else []


def _is_older(folder: Path) -> bool:
    return folder.name.startswith(OLDER_FOLDER)


def _renamed(folder: Path) -> Path:
    return folder.with_name(folder.name.removeprefix(OLDER_FOLDER))


def _shown(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*"))


def _same(path: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(path, other, shallow=False)


def _checked(what: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StorageError(f"{what} {name!r}: must be letters, digits, dashes and underscores to stand in a path")
    return name
