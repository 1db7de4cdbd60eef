"""Which data may be read: of the present specification, checks passed, and made of such data only."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from cg_assets.assets.stage import Stage
from cg_assets.core.checks import Verdict
from cg_assets.core.errors import StorageError
from cg_assets.storage.hashing import file_sha256
from cg_assets.storage.parquet import FileInfo
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore, data_key
from cg_assets.systems import SystemSpec

FAILED = "failed_checks"
"""Key of a file's metadata: the names of its checks that failed, without those that only warn."""

RECIPE = "recipe"
"""Key of a file's metadata: part to its version."""
IMPORTED_FILES, STAMPS = "files", "file_stamps"
"""Keys of the metadata of imported beads: path to SHA-256 of each file, and to its size and time of writing."""
_CODE, _WHOLE = "code of ", "specification"

Failures = dict[str, list[str]]
"""Data key `<system>/<stage>[/<batch>]` to the names of checks that failed."""


def failed_checks(metadata: FileMetadata) -> list[str]:
    """Names of the checks that a file failed, without those that only warn."""
    return list(metadata.extra.get(FAILED, []))


def names_of_failed(verdicts: Iterable[Verdict]) -> list[str]:
    """Names of the checks that failed, without those that only warn."""
    return [item.check.name for item in verdicts if not item.passed and not item.check.warns]


def key_of(system: SystemSpec, stage: str, batch: str | None) -> str:
    """The data key of a file."""
    return data_key(system.name, stage, batch)


def place_of(key: str) -> tuple[str, str | None]:
    """Stage and batch of a data key of the same system."""
    _, stage, *batch = key.split("/")
    return stage, batch[0] if batch else None


def explained(failures: Failures) -> str:
    """Which data failed which checks, in words."""
    return "; ".join(f"{key} failed {', '.join(checks)}" for key, checks in failures.items())


def stamps(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Size and time of writing of files that need not be there: they are hashed only when these differ."""
    found = {str(path): path.stat() for path in paths if path.is_file()}
    return {path: [state.st_size, state.st_mtime_ns] for path, state in found.items()}


class Recipes:
    """The recipes that the files of a system have by its present specification and code.

    A file whose recipe is another one is of another model: it is never pooled with others.
    """

    def __init__(self, system: SystemSpec) -> None:
        """Nothing is hashed yet; versions are those of the moment when they are first asked for."""
        self._system = system
        self._versions: dict[str, str | None] = {}

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """The stages of the system by name."""
        from cg_assets.assets import stages_of

        return {stage.name: stage for stage in stages_of(self._system)}

    def of(self, stage: Stage) -> dict[str, str]:
        """The recipe of a stage: its own parts and those of all stages that it reads, however indirectly."""
        parts: set[str] = set()
        waiting, seen = [stage], {stage.name}
        while waiting:
            item = waiting.pop()
            parts |= {_CODE + item.name, *item.sections}
            for read in item.reads:
                if read.stage in self.stages and read.stage not in seen:
                    seen.add(read.stage)
                    waiting.append(self.stages[read.stage])
        versions = {part: self._version(part) for part in parts} | {_CODE + stage.name: stage.code_version}
        return {part: version for part, version in versions.items() if version is not None}

    def changes(self, metadata: FileMetadata, batch: str | None) -> list[str]:
        """The parts that have changed since a file was made; none for one whose metadata name no specification."""
        recorded = metadata.extra.get(RECIPE)
        if recorded is None:
            whole = metadata.extra.get(_WHOLE)
            recorded = {} if whole is None else {_WHOLE: whole}
        changed = [part for part, version in sorted(recorded.items()) if self._version(part) not in (None, version)]
        known = metadata.extra.get(IMPORTED_FILES)
        if known is not None and self._other_files(known, metadata.extra.get(STAMPS, {}), batch):
            changed.append("the content of imported.files")
        return changed

    def _version(self, part: str) -> str | None:
        """The present version of a part; None for the code of a stage that the graph does not have."""
        if part not in self._versions:
            if part.startswith(_CODE):
                stage = self.stages.get(part.removeprefix(_CODE))
                self._versions[part] = None if stage is None else stage.code_version
            else:
                self._versions[part] = self._system.content_hash if part == _WHOLE else self._system.hash_of(part)
        return self._versions[part]

    def _other_files(self, known: dict[str, str], stamped: dict[str, list[int]], batch: str | None) -> bool:
        """Whether the files of an imported batch are others now; files that were moved away after it are no change."""
        paths = self._system.imported_files(batch or "")
        if not paths or (stamped and stamps(paths) == stamped):
            return False
        return [file_sha256(path) for path in paths] != list(known.values())


class Soundness:
    """The verdicts on the data of a system and on everything that they were made of, as their files record it.

    Files that were replaced since count no more: what was made of their earlier content was judged with that.
    """

    def __init__(self, store: ParquetStore, system: SystemSpec) -> None:
        """The verdicts on files of a store; each file is looked at once."""
        self.store, self.system, self.recipes = store, system, Recipes(system)
        self._infos: dict[tuple[str, str | None], FileInfo] = {}
        self._failures: dict[tuple[str, str | None], Failures] = {}

    def failures(self, stage: str, batch: str | None = None) -> Failures:
        """Checks that a file failed, or data that it was made of, without those that only warn.

        Raises:
            StorageError: the file is missing or damaged.
        """
        place = (stage, batch)
        if place not in self._failures:
            metadata = self.info(*place).metadata
            own = failed_checks(metadata)
            found = {key_of(self.system, stage, batch): own} if own else {}
            for key, version in metadata.upstream_data_versions.items():
                found |= self._failures_of(key, version)
            self._failures[place] = found
        return self._failures[place]

    def _failures_of(self, key: str, version: str) -> Failures:
        place = place_of(key)
        try:
            return self.failures(*place) if self.info(*place).content_hash == version else {}
        except StorageError:
            return {}  # a file that is no longer there

    def faults(self, stage: str, batch: str | None = None) -> Failures:
        """The blocking ones among the failures: nothing may read the file if there are any. Errors as in `failures`."""
        found = {
            key: [check for check in checks if check not in self._tolerated.get(key.split("/")[1], ())]
            for key, checks in self.failures(stage, batch).items()
        }
        return {key: checks for key, checks in found.items() if checks}

    def changed(self, stage: str, batch: str | None = None) -> str:
        """Why a file is of another model than the present one; empty where it is not. Errors as in `failures`.

        A batch is, too, if one of the same name that it was made of is, or was made again since.
        """
        metadata = self.info(stage, batch).metadata
        if parts := self.recipes.changes(metadata, batch):
            return f"{' and '.join(parts)} changed since it was made"
        for key, version in metadata.upstream_data_versions.items() if batch is not None else ():
            parent, same = place_of(key)
            if same != batch or not self.store.file(self.system.name, parent, batch).is_file():
                continue
            if self.info(parent, batch).content_hash != version:
                return f"{key} was made again since"
            if why := self.changed(parent, batch):
                return f"{key}: {why}"
        return ""

    def why_not(self, stage: str, batch: str | None = None) -> str:
        """Why a file must not be read; empty where it may. Errors as in `failures`."""
        if faults := self.faults(stage, batch):
            return explained(faults)
        changed = self.changed(stage, batch)
        return changed and f"{key_of(self.system, stage, batch)} is out of date: {changed}"

    def batches(self, stage: str, batches: list[str] | None = None) -> list[str]:
        """Those of some batches (None: all) that may be read. Errors as in `failures`."""
        known = self.store.batches(self.system.name, stage) if batches is None else batches
        return [batch for batch in known if not self.why_not(stage, batch)]

    def info(self, stage: str, batch: str | None = None) -> FileInfo:
        """The metadata of a file as they were when it was first looked at. Errors as in `failures`."""
        place = (stage, batch)
        if place not in self._infos:
            self._infos[place] = self.store.describe(self.system.name, stage, batch)
        return self._infos[place]

    @cached_property
    def _tolerated(self) -> dict[str, set[str]]:
        """Stage to its checks that do not block."""
        stages = self.recipes.stages.values()
        return {stage.name: {check.name for check in stage.checks if not check.blocking} for stage in stages}
