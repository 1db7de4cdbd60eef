"""`cg-assets prune`: remove what is no longer needed; never what a registered model or a later stage was made from."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cg_assets.assets import stages_of
from cg_assets.assets.soundness import failed_checks
from cg_assets.core.errors import StorageError
from cg_assets.operations.tables import Table
from cg_assets.registry.models import RegisteredModel
from cg_assets.registry.reconciliation import REGISTERED, fault_of, lost_run, models_named
from cg_assets.registry.tracking import ModelTracking
from cg_assets.settings import TRACKING, installation
from cg_assets.storage.atomic import atomic_file, is_locked, leftovers
from cg_assets.storage.catalogue import data_files, record
from cg_assets.storage.parquet import FileInfo, describe
from cg_assets.storage.store import PRUNED, ParquetStore
from cg_assets.systems import find_systems

_log = logging.getLogger(__name__)
_MODEL = "registered_model"


@dataclass(frozen=True)
class Prunable:
    """Something that can be removed.

    Attributes:
        path: a file, or a folder.
        reason: why it is not needed.
        bytes: how much it holds.
        failed: checks that a batch failed: it is remembered, since the same seed would fail again.
        written: when it was last changed [ns]; None for whatever is there.
    """

    path: Path
    reason: str
    bytes: int
    failed: tuple[str, ...] = ()
    written: int | None = None


def find_prunable(home: Path) -> list[Prunable]:
    """What is no longer needed: failed batches, stages of no system, pieces of finished batches, leftovers.

    A data file from which a registered model, or a data file that stays, was made is needed, whatever its state. So is
    whatever belongs to a system whose file is wrong, or whose models MLflow lacks: they may be in another one.

    Raises:
        TrackingError: MLflow does not answer, or has none of the models that the data name.
    """
    store = ParquetStore(home)
    found_systems = find_systems()
    wrong = {path.stem for path in found_systems.left_out}
    stages = {name: {stage.name for stage in stages_of(system)} for name, system in found_systems.systems.items()}
    infos = {path: _info(path) for path in data_files(store) if path.relative_to(store.data).parts[0] not in wrong}
    found = {path: item for path, info in infos.items() if (item := _unneeded(store, path, info, stages))}
    models = models_named({name for info in infos.values() if info and (name := info.metadata.extra.get(_MODEL))})
    lacking = _lacking(infos, models)
    kept = {path: info for path, info in infos.items() if path not in found or _system(store, path) in lacking}
    needed = kept.keys() | _needed(store, kept, infos, models)
    return [item for path, item in found.items() if path not in needed] + list(_remains(store))


def _lacking(infos: dict[Path, FileInfo | None], models: dict[str, RegisteredModel]) -> set[str]:
    """Systems of which MLflow lacks a model, or what one learned from, so that what they need is not known."""
    faults: dict[str, str] = {}
    for info in filter(None, infos.values()):
        if fault := fault_of(info.metadata.extra, models):
            faults.setdefault(info.metadata.system, fault)
    for model in models.values():
        for number in model.without_run:
            faults.setdefault(model.name.partition(".")[0], lost_run(model.name, number))
    for system, fault in faults.items():
        _log.warning(
            "%s: nothing is removed: %s; set %s to where it is, refresh the system, or remove its data yourself",
            system,
            fault,
            TRACKING,
        )
    return set(faults)


def _system(store: ParquetStore, path: Path) -> str:
    return path.relative_to(store.data).parts[0]


def _remains(store: ParquetStore) -> Iterator[Prunable]:
    """What killed writers and interrupted finishing left behind."""
    if not store.data.is_dir():
        return
    for path in leftovers(store.data):
        yield Prunable(path, "leftover of a killed writer", path.stat().st_size)
    for path in sorted(store.data.glob("*/*/.pieces*")):
        finished, state = store.path(*store.place(path)), path / "state.npz"
        # Newer pieces are those of a batch that is being made again.
        newer = state.is_file() and finished.is_file() and state.stat().st_mtime_ns > finished.stat().st_mtime_ns
        if finished.is_file() and not newer and not is_locked(path / "lock"):
            yield Prunable(path, "pieces of a batch that is finished", _size(path), written=path.stat().st_mtime_ns)


def remove(home: Path, prunable: Iterable[Prunable]) -> list[Prunable]:
    """Remove these files and folders, but nothing that is in use by another process or has changed since.

    Returns:
        What was removed.
    """
    removed, store = [], ParquetStore(home)
    for item in prunable:
        try:
            with store.lock(*store.place(item.path)):
                if item.written is None or (item.path.exists() and item.path.stat().st_mtime_ns == item.written):
                    _remove(store, item)
                    removed.append(item)
        except StorageError:
            continue  # it is being made
    if files := [item.path for item in removed if item.path.name == "part-0.parquet"]:
        record(home, files)
    return removed


def prunable_table(home: Path, found: list[Prunable], removed: list[Prunable] | None = None) -> Table:
    """What was found and, where it was to be removed (not None), what became of it."""
    rows, lines = [], []
    for item in found:
        state = "removable" if removed is None else "removed" if item in removed else "in use"
        place = str(item.path.relative_to(home))
        rows.append((place, item.bytes, item.reason, state))
        lines.append(f"{item.bytes / 1e6:>10.3f} MB  {place}  ({item.reason})")
    if removed is None:
        lines.append(f"{_total(found)} can be removed: cg-assets prune --remove")
    else:
        left = [place for place, _, _, state in rows if state == "in use"]
        lines += [f"left, for another process works on it: {place}" for place in left]
        lines.append(f"{_total(removed)} removed")
    return Table(("file", "bytes", "reason", "state"), rows, "\n".join(lines))


def _total(items: list[Prunable]) -> str:
    return f"{sum(item.bytes for item in items) / 1e6:.3f} MB in {len(items)} place(s)"


def _remove(store: ParquetStore, item: Prunable) -> None:
    if item.path.is_dir():
        shutil.rmtree(item.path)
        return
    if item.failed:
        with atomic_file(item.path.parent / PRUNED) as temporary:
            temporary.write_text(json.dumps({"failed_checks": item.failed, "reason": item.reason}))
        store.publish(item.path.parent / PRUNED)
    store.remove(item.path)
    with suppress(OSError):  # something else is in the folder
        item.path.parent.rmdir()


def _unneeded(store: ParquetStore, path: Path, info: FileInfo | None, stages: dict[str, set[str]]) -> Prunable | None:
    """A data file that is not needed, and why; None for others."""
    system, stage, batch = store.place(path)
    samples = stage.removesuffix("_snapshots")  # frames with all atoms go with the frames that they belong to
    failed: tuple[str, ...] = ()
    if system not in stages:
        reason = f"no system is named {system}"
    elif samples not in stages[system] and stage != REGISTERED:
        reason = f"{system} has no stage {stage}"
    else:
        own = info if samples == stage else _info(store.path(system, samples, batch))
        # What is made of all batches is made again, not removed; what is damaged is for the doctor.
        failed = () if batch is None or own is None else tuple(failed_checks(own.metadata))
        reason = f"its checks failed: {', '.join(failed)}"
        if not failed:
            return None
    state = path.stat()
    return Prunable(path, reason, state.st_size, failed, state.st_mtime_ns)


def _info(path: Path) -> FileInfo | None:
    try:
        return describe(path)
    except StorageError:
        return None


def _needed(
    store: ParquetStore,
    kept: dict[Path, FileInfo | None],
    infos: dict[Path, FileInfo | None],
    models: dict[str, RegisteredModel],
) -> set[Path]:
    """The files that others, or registered models, were made from, however many steps lie between."""
    needed: set[Path] = set()
    waiting = [key for info in kept.values() for key in _parents(info)]
    waiting += _learned_from(models)
    while waiting:
        try:
            path = store.locate(waiting.pop())
        except StorageError:
            continue
        if path not in needed and path.is_file():
            needed.add(path)
            waiting += _parents(infos.get(path) or _info(path))
    return needed


def _learned_from(models: dict[str, RegisteredModel]) -> list[str]:
    """Keys of the data behind all registered models, as far as MLflow has them."""
    own = installation()
    tracking = ModelTracking(own.tracking_uri, own.home)
    versions = [
        (model.name, number) for model in models.values() for number in model.versions.keys() - model.without_run
    ]
    return [item.data for name, version in versions for item in tracking.lookup(f"{name}/{version}").lineage]


def _parents(info: FileInfo | None) -> list[str]:
    return [] if info is None else list(info.metadata.upstream_data_versions)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
