"""Registered models and their versions, and the references by which they are named."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cg_assets.core.errors import TrackingError
from cg_assets.registry.model_lineage import Ancestor


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model.

    Attributes:
        name: `<system>.<potential>`.
        versions: tags of each version.
        aliases: alias to version.
        updated: when it last changed [ms since 1970].
    """

    name: str
    versions: dict[str, dict[str, str]]
    aliases: dict[str, str]
    updated: int | None

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


def parts_of(reference: str) -> tuple[str, str | None, str | None]:
    """Name, alias and version that a reference names."""
    parts = re.fullmatch(r"(?:models:/)?([^@/]+)(?:@([^@/]+)|/(\d+))?", reference)
    if parts is None:
        raise TrackingError(f"model {reference!r}: write <name>, <name>@<alias> or <name>/<version>")
    name, alias, version = parts.groups()
    return name, alias, version
