"""`cg-assets lineage`: which models came from a file, which files a model came from, what changed between versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from cg_assets.core.errors import CgAssetsError
from cg_assets.operations.tables import Table
from cg_assets.registry.mlflow_records import flat, text
from cg_assets.registry.model_lineage import Ancestor, Status, file_key
from cg_assets.storage.parquet import describe
from cg_assets.storage.store import ParquetStore

if TYPE_CHECKING:
    from cg_assets.registry.models import ModelVersion
    from cg_assets.registry.tracking import ModelTracking

_OF_A_RUN = ("batches", "dagster_run_id", "upstream_data_versions", "process", "asset_key")
"""Tags that name a run, or repeat the data and their versions."""


@dataclass(frozen=True)
class Descendant:
    """A version of a model that came from some data.

    Attributes:
        model: its name.
        version: its number.
        aliases: those that name the version.
        trained_on: whether it was trained on these data, not on others made from them.
        content_hash: version of the data that it came from.
        status: whether the file there now has this version.
    """

    model: str
    version: str
    aliases: list[str]
    trained_on: bool
    content_hash: str
    status: Status


@dataclass(frozen=True)
class ModelsOfData:
    """All registered versions made from some data, newest first."""

    data: str
    models: list[Descendant]

    def table(self) -> Table:
        """A row for each."""
        return _table(self, Descendant, self.models, self._lines())

    def _lines(self) -> Iterator[str]:
        if not self.models:
            yield f"no registered model came from {self.data}"
        for item in self.models:
            how = "trained on it" if item.trained_on else "made from it"
            aliases = f" ({', '.join(item.aliases)})" if item.aliases else ""
            yield f"{item.model} version {item.version}{aliases}: {how}, {item.content_hash}  {item.status}"


@dataclass(frozen=True)
class FilesOfModel:
    """The files that a version of a model came from, nearest first."""

    model: str
    files: list[Ancestor]

    def table(self) -> Table:
        """A row for each."""
        return _table(self, Ancestor, self.files, self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.model
        for item in self.files:
            yield f"  {item.data:<50} {item.content_hash}  {item.status}"
            yield f"    {item.file}"


@dataclass(frozen=True)
class Change:
    """What differs between two versions: data, specification, setting, tag or metric; empty where there is none."""

    kind: str
    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Changes:
    """The differences between two versions."""

    changes: list[Change]

    def table(self) -> Table:
        """A row for each."""
        return _table(self, Change, self.changes, self._lines())

    def _lines(self) -> Iterator[str]:
        if not self.changes:
            yield "nothing"
        for item in self.changes:
            yield f"{item.kind:<14} {item.name}: {item.before or 'none'} -> {item.after or 'none'}"


Answer = ModelsOfData | FilesOfModel | Changes


def _table(
    whole: ModelsOfData | FilesOfModel | Changes, kind: type, items: Sequence[object], lines: Iterator[str]
) -> Table:
    """Items of a kind as rows, and all of an answer for JSON."""
    columns = [field.name for field in dataclasses.fields(kind)]
    cells = [[getattr(item, column) for column in columns] for item in items]
    rows = [[", ".join(cell) if isinstance(cell, list) else cell for cell in row] for row in cells]
    return Table(columns, rows, "\n".join(lines), dataclasses.asdict(whole))


def answer(tracking: ModelTracking, subject: str, other: str | None = None) -> Answer:
    """Answer one of three questions.

    Args:
        tracking: the models.
        subject: a data file, its key `<system>/<stage>[/<batch>]`, or a model as in `ModelTracking.lookup`.
        other: another version of a model that `subject` names.

    Returns:
        The models made from a file; or the files that a model came from; or the changes between two versions.

    Raises:
        CgAssetsError: the file or model is not there, or MLflow does not answer.
    """
    if other is not None:
        return changes(tracking.lookup(subject), tracking.lookup(other), tracking)
    key = _data_key(tracking.home, subject)
    if key is not None:
        return models_from(tracking, key)
    found = tracking.lookup(subject)
    return FilesOfModel(f"{found.name}/{found.version}", found.lineage)


def _data_key(home: Path, subject: str) -> str | None:
    """The data key of the subject; None for a model."""
    path = Path(subject)
    for place in (path, home / path):
        if place.is_file():
            return file_key(home, describe(place))[0]
    if path.suffix == ".parquet":
        raise CgAssetsError(f"no file {subject}; give a path, also one relative to the home folder, or a data key")
    first = subject.split("/")[0]
    if "/" not in subject or "." in first or "@" in subject or ":" in subject:
        return None
    ParquetStore(home).locate(subject)
    return subject


def models_from(tracking: ModelTracking, key: str) -> ModelsOfData:
    """All registered versions made from some data, and whether the data are still the same."""
    entries = [
        tracking.lookup(f"{model.name}/{version}")
        for model in tracking.models()
        for version in reversed(tracking.versions(model.name))
    ]
    found = [
        Descendant(entry.name, entry.version, entry.aliases, item.child == entry.name, item.content_hash, item.status)
        for entry in entries
        for item in entry.lineage
        if item.data == key
    ]
    return ModelsOfData(key, found)


def changes(one: ModelVersion, other: ModelVersion, tracking: ModelTracking) -> Changes:
    """What differs between two versions."""
    before, after = _facts(one, tracking), _facts(other, tracking)
    return Changes(
        [
            Change(kind, name, before[kind].get(name, ""), after[kind].get(name, ""))
            for kind in before
            for name in sorted({*before[kind], *after[kind]})
            if before[kind].get(name) != after[kind].get(name)
        ]
    )


def _facts(found: ModelVersion, tracking: ModelTracking) -> dict[str, dict[str, str]]:
    """By kind and name, everything in which two versions can differ."""
    specification = yaml.safe_load(tracking.specification(found.run_id)) or {}
    return {
        "data": {item.data: item.content_hash for item in found.lineage},
        "specification": text(flat(specification)),
        "setting": found.params,
        "tag": {key: value for key, value in found.run_tags.items() if key not in _OF_A_RUN},
        "metric": {key: f"{value:.6g}" for key, value in found.metrics.items()},
    }
