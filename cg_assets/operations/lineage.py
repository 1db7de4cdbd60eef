"""`cg-assets lineage`: which models came from a file, which files a model came from, what changed between versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cg_assets.core.errors import CgAssetsError
from cg_assets.registry.mlflow_records import flat, text
from cg_assets.registry.model_lineage import file_key
from cg_assets.storage.store import ParquetStore

if TYPE_CHECKING:
    from cg_assets.registry.tracking import ModelTracking

_OF_A_RUN = ("batches", "dagster_run_id", "upstream_data_versions", "process", "asset_key")
"""Tags that name a run, or that the data and their versions say already."""


def answer(tracking: ModelTracking, subject: str, other: str | None = None) -> dict[str, Any]:
    """Answer one of three questions.

    Args:
        tracking: the models.
        subject: a data file, its key `<system>/<stage>[/<batch>]`, or a model as in `ModelTracking.lookup`.
        other: another version of a model that `subject` names.

    Returns:
        `models` made from a file; or `files` that a model came from; or the `changes` between two versions.

    Raises:
        CgAssetsError: the file or model is not there, or MLflow does not answer.
    """
    if other is not None:
        return {"changes": changes(tracking.lookup(subject), tracking.lookup(other), tracking)}
    key = _data_key(tracking.home, subject)
    if key is not None:
        return {"data": key, "models": models_from(tracking, key)}
    found = tracking.lookup(subject)
    return {"model": f"{found['name']}/{found['version']}", "files": found["lineage"]}


def _data_key(home: Path, subject: str) -> str | None:
    """The key of the data that are meant; None where a model is."""
    path = Path(subject)
    for place in (path, home / path):
        if place.is_file():
            return file_key(home, place)[0]
    if path.suffix == ".parquet":
        raise CgAssetsError(f"no file {subject}; give a path, also one relative to the home folder, or a data key")
    first = subject.split("/")[0]
    if "/" not in subject or "." in first or "@" in subject or ":" in subject:
        return None
    ParquetStore(home).locate(subject)
    return subject


def models_from(tracking: ModelTracking, key: str) -> list[dict[str, Any]]:
    """All registered versions that came from some data, newest first, and whether these are still the same."""
    found = []
    for model in tracking.models():
        for version in reversed(tracking.versions(model["name"])):
            entry = tracking.lookup(f"{model['name']}/{version}")
            found += [
                {
                    "model": model["name"],
                    "version": version,
                    "aliases": entry["aliases"],
                    "trained_on": item["child"] == model["name"],
                    "content_hash": item["content_hash"],
                    "status": item["status"],
                }
                for item in entry["lineage"]
                if item["data"] == key
            ]
    return found


def changes(one: dict[str, Any], other: dict[str, Any], tracking: ModelTracking) -> list[dict[str, str]]:
    """What differs between two versions: data, specification, settings, code, figures of merit."""
    sides = []
    for found in (one, other):
        specification = yaml.safe_load(tracking.specification(found["run_id"])) or {}
        tags = {key: value for key, value in found["run_tags"].items() if key not in _OF_A_RUN}
        sides.append(
            {
                "data": {item["data"]: item["content_hash"] for item in found["lineage"]},
                "specification": text(flat(specification)),
                "setting": found["params"],
                "tag": tags,
                "metric": {key: f"{value:.6g}" for key, value in found["metrics"].items()},
            }
        )
    before, after = sides
    return [
        {"kind": kind, "name": name, "before": before[kind].get(name, ""), "after": after[kind].get(name, "")}
        for kind in before
        for name in sorted({*before[kind], *after[kind]})
        if before[kind].get(name) != after[kind].get(name)
    ]


def print_answer(found: dict[str, Any]) -> None:
    """The answer as lines of text."""
    if "models" in found:
        if not found["models"]:
            print(f"no registered model came from {found['data']}")
        for item in found["models"]:
            how = "trained on it" if item["trained_on"] else "made from it"
            aliases = f" ({', '.join(item['aliases'])})" if item["aliases"] else ""
            print(
                f"{item['model']} version {item['version']}{aliases}: {how}, {item['content_hash']}  {item['status']}"
            )
    elif "files" in found:
        print(found["model"])
        for item in found["files"]:
            print(f"  {item['data']:<50} {item['content_hash']}  {item['status']}\n    {item['file']}")
    else:
        if not found["changes"]:
            print("nothing")
        for item in found["changes"]:
            print(f"{item['kind']:<14} {item['name']}: {item['before'] or 'none'} -> {item['after'] or 'none'}")
