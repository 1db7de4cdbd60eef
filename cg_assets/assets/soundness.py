"""Which data may be read: those that passed their blocking checks and were made of such data only."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from cg_assets.core.checks import Verdict
from cg_assets.core.errors import StorageError
from cg_assets.storage.parquet import FileInfo
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import AnySystem

FAILED = "failed_checks"
"""Key of a file's metadata: the names of its checks that failed, without those that only warn."""

Failures = dict[str, list[str]]
"""Data key `<system>/<stage>[/<batch>]` to the names of checks that failed."""


def failed_checks(metadata: FileMetadata) -> list[str]:
    """Names of the checks that a file failed, without those that only warn."""
    return list(metadata.extra.get(FAILED, []))


def names_of_failed(verdicts: Iterable[Verdict]) -> list[str]:
    """Names of the checks that failed, without those that only warn."""
    return [item.check.name for item in verdicts if not item.passed and not item.check.warns]


def key_of(system: AnySystem, stage: str, batch: str | None) -> str:
    """The data key of a file."""
    return f"{system.name}/{stage}" + ("" if batch is None else f"/{batch}")


def place_of(key: str) -> tuple[str, str | None]:
    """Stage and batch of a data key of the same system."""
    _, stage, *batch = key.split("/")
    return stage, batch[0] if batch else None


def explained(failures: Failures) -> str:
    """Which data failed which checks, in words."""
    return "; ".join(f"{key} failed {', '.join(checks)}" for key, checks in failures.items())


class Soundness:
    """The verdicts on the data of a system and on everything that they were made of, as their files record it.

    Files that were replaced since count no more: what was made of their earlier content was judged with that.
    """

    def __init__(self, store: ParquetStore, system: AnySystem) -> None:
        """The verdicts on files of a store; each file is looked at once."""
        self.store, self.system = store, system
        self._infos: dict[tuple[str, str | None], FileInfo] = {}
        self._failures: dict[tuple[str, str | None], Failures] = {}

    def failures(self, stage: str, batch: str | None = None) -> Failures:
        """Checks that a file failed, or data that it was made of, without those that only warn.

        Raises:
            StorageError: the file is missing or damaged.
        """
        place = (stage, batch)
        if place not in self._failures:
            metadata = self._info(*place).metadata
            own = failed_checks(metadata)
            found = {key_of(self.system, stage, batch): own} if own else {}
            for key, version in metadata.upstream_data_versions.items():
                found |= self._failures_of(key, version)
            self._failures[place] = found
        return self._failures[place]

    def _failures_of(self, key: str, version: str) -> Failures:
        place = place_of(key)
        try:
            return self.failures(*place) if self._info(*place).content_hash == version else {}
        except StorageError:
            return {}  # a file that is no longer there

    def faults(self, stage: str, batch: str | None = None) -> Failures:
        """The blocking ones among the failures: nothing may read the file if there are any. Errors as in `failures`."""
        found = {
            key: [check for check in checks if check not in self._tolerated.get(key.split("/")[1], ())]
            for key, checks in self.failures(stage, batch).items()
        }
        return {key: checks for key, checks in found.items() if checks}

    def batches(self, stage: str, batches: list[str] | None = None) -> list[str]:
        """Those of some batches (None: all) that may be read. Errors as in `failures`."""
        known = self.store.batches(self.system.name, stage) if batches is None else batches
        return [batch for batch in known if not self.faults(stage, batch)]

    def _info(self, stage: str, batch: str | None) -> FileInfo:
        place = (stage, batch)
        if place not in self._infos:
            self._infos[place] = self.store.describe(self.system.name, stage, batch)
        return self._infos[place]

    @cached_property
    def _tolerated(self) -> dict[str, set[str]]:
        """Stage to its checks that do not block."""
        from cg_assets.assets import stages_of

        return {
            stage.name: {check.name for check in stage.checks if not check.blocking} for stage in stages_of(self.system)
        }
