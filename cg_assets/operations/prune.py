"""`cg-assets prune`: remove what is no longer needed; never what a registered model or a later stage was made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cg_assets.assets import stages_of
from cg_assets.assets.soundness import failed_checks
from cg_assets.assets.training import REGISTERED
from cg_assets.core.errors import StorageError
from cg_assets.settings import installation
from cg_assets.storage.atomic import atomic_file, leftovers
from cg_assets.storage.catalogue import data_files, record
from cg_assets.storage.parquet import describe
from cg_assets.storage.store import PRUNED, ParquetStore
from cg_assets.systems import find_systems


@dataclass(frozen=True)
class Prunable:
    """Something that can be removed.

    Attributes:
        path: a file, or a folder.
        reason: why it is not needed.
        bytes: how much it holds.
    """

    path: Path
    reason: str
    bytes: int


def find_prunable(home: Path) -> list[Prunable]:
    """What is no longer needed: failed batches, stages of no system, pieces of finished batches, leftovers.

    A data file from which a registered model, or a data file that stays, was made is needed, whatever its state.

    Data of a system whose file is wrong stay.

    Raises:
        TrackingError: MLflow does not answer, so the data of its models are unknown.
    """
    store = ParquetStore(home)
    systems = find_systems()
    stages = {name: {stage.name for stage in stages_of(system)} for name, system in systems.systems.items()}
    unknown = {file.stem for file in systems.left_out} - set(stages)
    candidates = [path for path in data_files(store) if path.relative_to(store.data).parts[0] not in unknown]
    found = {path: reason for path in candidates if (reason := _reason(store, path, stages))}
    needed = _needed(store, [path for path in data_files(store) if path not in found])
    prunable = [Prunable(path, reason, path.stat().st_size) for path, reason in found.items() if path not in needed]
    if store.data.is_dir():
        for path in leftovers(store.data):
            prunable.append(Prunable(path, "leftover of a killed writer", path.stat().st_size))
        for path in sorted(store.data.glob("*/*/.pieces*")):
            batch = path.name.removeprefix(".pieces").removeprefix("-") or None
            if store.path(path.parts[-3], path.parts[-2], batch).is_file():
                prunable.append(Prunable(path, "pieces of a batch that is finished", _size(path)))
    return prunable


def remove(home: Path, prunable: Iterable[Prunable]) -> None:
    """Remove these files and folders; batches that failed are remembered, so that they are not sampled again."""
    files, store = [], ParquetStore(home)
    for item in prunable:
        if item.path.is_dir():
            shutil.rmtree(item.path)
            continue
        if item.path.name == "part-0.parquet":
            files.append(item.path)
            if item.path.parent.name.startswith("batch="):
                checks = _failed(item.path)
                with atomic_file(item.path.parent / PRUNED) as temporary:
                    temporary.write_text(json.dumps({"failed_checks": checks, "reason": item.reason}))
                store.publish(item.path.parent / PRUNED)
            store.remove(item.path)
        else:
            item.path.unlink(missing_ok=True)
        if not any(item.path.parent.iterdir()):
            item.path.parent.rmdir()
    if files:
        record(home, files)


def _reason(store: ParquetStore, path: Path, stages: dict[str, set[str]]) -> str:
    """Why a data file is not needed; None where it is."""
    system, stage = path.relative_to(store.data).parts[:2]
    if system not in stages:
        return f"no system is named {system}"
    samples = stage.removesuffix("_snapshots")  # frames with all atoms go with the frames that they belong to
    if samples not in stages[system] and stage != REGISTERED:
        return f"{system} has no stage {stage}"
    if checks := _failed(store.data / system / samples / path.relative_to(store.stage_folder(system, stage))):
        return f"its checks failed: {', '.join(checks)}"
    return ""


def _failed(path: Path) -> list[str]:
    """Checks that a batch failed; what is made of all batches is made again, not removed."""
    if not path.parent.name.startswith("batch="):
        return []
    try:
        return failed_checks(describe(path).metadata)
    except StorageError:
        return []  # damaged: for the doctor


def _needed(store: ParquetStore, kept: Iterable[Path]) -> set[Path]:
    """The files that others, or registered models, were made from, however many steps lie between."""
    from cg_assets.registry.tracking import ModelTracking

    needed = set()
    waiting = [key for path in kept for key in _parents(path)]
    own = installation()
    if own.has_models:
        tracking = ModelTracking(own.tracking_uri, own.home)
        for model in tracking.models():
            for version in tracking.versions(model.name):
                waiting += [item.data for item in tracking.lookup(f"{model.name}/{version}").lineage]
    while waiting:
        try:
            path = store.locate(waiting.pop())
        except StorageError:
            continue
        if path not in needed and path.is_file():
            needed.add(path)
            waiting += _parents(path)
    return needed


def _parents(path: Path) -> list[str]:
    try:
        return list(describe(path).metadata.upstream_data_versions)
    except StorageError:
        return []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
