"""Registered models and their versions, and the references by which they are named."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cg_assets.core.errors import TrackingError
from cg_assets.core.machine import sqlite_remedy
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.registry.mlflow_records import read_results
from cg_assets.registry.model_lineage import Ancestor


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model.

    Attributes:
        name: `<system>.<potential>`.
        versions: tags of each version.
        aliases: alias to version.
        without_run: versions whose training run was deleted: they cannot be judged, and what they learned from is lost.
    """

    name: str
    versions: dict[str, dict[str, str]]
    aliases: dict[str, str]
    without_run: frozenset[str] = frozenset()

    @property
    def latest_version(self) -> str:
        """The newest version; 0 where there is none."""
        return str(max(map(int, self.versions), default=0))


@dataclass(frozen=True)
class ModelVersion:
    """All information on a version of a registered model.

    Attributes:
        name: `<system>.<potential>`.
        version: its number.
        uri: by which MLflow loads it.
        aliases: those that name this version.
        run_id: MLflow run of its training.
        metrics: of its training and evaluations.
        params: settings of its training.
        tags: of the version, its evaluations and decisions among them.
        run_tags: of the training.
        lineage: the files that it came from, nearest first.
    """

    name: str
    version: str
    uri: str
    aliases: list[str]
    run_id: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    run_tags: dict[str, str]
    lineage: list[Ancestor]

    @property
    def evaluation(self) -> dict[str, Estimate]:
        """Its figures of merit with their errors and units."""
        return read_results(self.metrics, self.run_tags)


@dataclass(frozen=True)
class ReportPlace:
    """The run to which a report is attached."""

    experiment: str
    run: str

    def page(self, file: str) -> str:
        """The address of a file of the report on MLflow's pages, relative to them."""
        return f"#/experiments/{self.experiment}/runs/{self.run}/artifacts/report/{file}"

    def content(self, file: str) -> str:
        """The address of the file itself, relative to MLflow's pages."""
        return f"get-artifact?path=report/{file}&run_id={self.run}"


def read_models(database: Path) -> list[RegisteredModel]:
    """All registered models of MLflow's SQLite database, by name, without the two seconds that MLflow needs to start.

    Raises:
        TrackingError: the database cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            ask = connection.execute
            names = [name for (name,) in ask("SELECT name FROM registered_models ORDER BY name")]
            versions: dict[str, dict[str, dict[str, str]]] = {name: {} for name in names}
            aliases: dict[str, dict[str, str]] = {name: {} for name in names}
            lost: dict[str, set[str]] = {name: set() for name in names}
            for name, number, run, stage in ask(
                "SELECT v.name, version, run_id, lifecycle_stage FROM model_versions v "
                "LEFT JOIN runs ON run_uuid = run_id WHERE current_stage != 'Deleted_Internal' ORDER BY version"
            ):
                versions[name][str(number)] = {}
                if run and stage != "active":
                    lost[name].add(str(number))
            for name, number, key, value in ask("SELECT name, version, key, value FROM model_version_tags"):
                if str(number) in versions[name]:
                    versions[name][str(number)][key] = value
            for name, alias, number in ask("SELECT name, alias, version FROM registered_model_aliases"):
                aliases[name][alias] = str(number)
    except sqlite3.Error as error:
        remedy = sqlite_remedy(error) or "copy it back from a backup of the home folder"
        raise TrackingError(f"{database}: cannot be read: {error}; {remedy}") from error
    return [RegisteredModel(name, versions[name], aliases[name], frozenset(lost[name])) for name in names]


def parts_of(reference: str) -> tuple[str, str | None, str | None]:
    """Name, alias and version that a reference names."""
    parts = re.fullmatch(r"(?:models:/)?([^@/]+)(?:@([^@/]+)|/(\d+))?", reference)
    if parts is None:
        raise TrackingError(f"model {reference!r}: write <name>, <name>@<alias> or <name>/<version>")
    name, alias, version = parts.groups()
    return name, alias, version
