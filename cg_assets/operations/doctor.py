"""`cg-assets doctor`: what is wrong with an installation and its home folder, and the repairs that are safe."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import pwd
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster._core.scheduler.instigation import ScheduleInstigatorData
from packaging.requirements import Requirement

from cg_assets import __version__
from cg_assets.core.errors import CgAssetsError, DeviceError, StorageError, TrackingError
from cg_assets.operations.home_folder import prepare_home
from cg_assets.operations.tables import Table
from cg_assets.orchestration.automation import ACTIVE
from cg_assets.orchestration.device import count_gpus
from cg_assets.orchestration.run_locks import dead_runs, end_dead_runs, end_run, place_of
from cg_assets.registry.reconciliation import REGISTERED, disagreements, record_versions
from cg_assets.settings import installation
from cg_assets.storage.atomic import leftovers, remove_leftovers
from cg_assets.storage.catalogue import data_files, differences, misplaced, rebuild
from cg_assets.storage.parquet import OLDER_FOLDER, verify
from cg_assets.storage.sharing import closed_to_group, is_shared
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import find_systems

_SHOWN = ("cg-assets", "dagster", "mlflow", "torch", "openmm", "pyarrow", "duckdb", "numpy")
"""Packages whose versions are reported."""
_CLOCK_SECONDS = 120.0
"""How far clocks of several machines may differ; schedules tick at most once a minute."""


@dataclass
class Finding:
    """What one examination found.

    Attributes:
        subject: what was looked at.
        summary: what there is, in a few words.
        faults: what is wrong, one message each.
        remedy: how to correct the faults.
        repaired: the faults that a repair has removed.
    """

    subject: str
    summary: str
    faults: list[str] = field(default_factory=list)
    remedy: str = ""
    repaired: list[str] = field(default_factory=list)


def examine(home: Path, repair: bool = False) -> list[Finding]:
    """Examine everything; with `repair`, repair what loses nothing: dead runs, their slots, leftovers, the catalogue.

    An empty or missing home folder is left as it is.
    """
    examinations: list[Callable[[Path, bool], Finding]] = [_versions, _devices, _systems]
    if (home / "dagster" / "dagster.yaml").is_file():
        examinations += [_runs, _slots, _clock]
    if (home / "data").is_dir():
        examinations += [_leftovers, _folders, _files, _catalogue]
        if installation().object_store:
            examinations.append(_objects)
    if installation().has_models or any((home / "data").glob(f"*/{REGISTERED}")):
        examinations.append(_models)
    if is_shared(home):
        examinations.append(_sharing)
    return [examination(home, repair) for examination in examinations]


def _versions(home: Path, repair: bool) -> Finding:
    known = {name: importlib.metadata.version(name) for name in _SHOWN if _installed(name)}
    faults = []
    for text in importlib.metadata.requires("cg-assets") or [] if _installed("cg-assets") else []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        if not _installed(needed.name):
            faults.append(f"{needed.name} is not installed")
        elif not needed.specifier.contains(version := importlib.metadata.version(needed.name), prereleases=True):
            faults.append(f"{needed.name} is {version}; it must be {needed.specifier}")
    summary = f"Python {platform.python_version()}, cg_assets {__version__}, "
    summary += ", ".join(f"{name} {version}" for name, version in known.items() if name != "cg-assets")
    return Finding("versions", summary, faults, "install again with the constraints that the README names")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _devices(home: Path, repair: bool) -> Finding:
    from cg_assets.sampling.molecule.platforms import choose_platform

    try:
        gpus, choice = count_gpus(), installation().device
        if choice == "cuda" and not gpus:
            raise DeviceError("CG_DEVICE is cuda, but torch sees no GPU")
        large, _ = choose_platform(10_000, periodic=True)
    except DeviceError as error:
        return Finding("devices", "not known", [str(error)], "set CG_DEVICE=auto or install a CUDA build of torch")
    return Finding("devices", f"{os.cpu_count()} cores, {gpus} GPU(s) for torch, large systems in OpenMM on {large}")


def _systems(home: Path, repair: bool) -> Finding:
    """Files of systems that are wrong, or have the name of another one, and are left out."""
    found = find_systems()
    summary = f"{len(found.systems)} system(s)"
    return Finding("systems", summary, list(found.left_out.values()), "correct the file, rename or remove it")


@contextmanager
def _instance() -> Iterator[dg.DagsterInstance]:
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        yield instance


def end(run_id: str) -> None:
    """End one run whose process has ended where that cannot be seen from here. Errors as in `end_run`."""
    with _instance() as instance:
        end_run(instance, run_id)


def _runs(home: Path, repair: bool) -> Finding:
    """Runs that are active in the database and whose process is gone."""
    with _instance() as instance:
        active = instance.get_runs(dg.RunsFilter(statuses=ACTIVE))
        gone = {run.run_id for run in dead_runs(instance)}
        dead = [f"run {run.run_id} of {run.job_name} has lost its process" for run in active if run.run_id in gone]
        alive = [f"{run.run_id} in {place_of(run)}" for run in active if run.run_id not in gone]
        summary = f"{len(alive)} active, {instance.get_runs_count()} in all" + "".join(f"; {text}" for text in alive)
        if repair and dead:
            end_dead_runs(instance)
            return Finding("runs", summary, repaired=dead)
    return Finding("runs", summary, dead, "cg-assets doctor --repair ends them")


def _slots(home: Path, repair: bool) -> Finding:
    """Slots of pools that are held by runs which have ended: the next step of the pool would wait without end."""
    leaked: dict[str, str] = {}
    with _instance() as instance:
        storage = instance.event_log_storage
        pools = sorted(storage.get_concurrency_keys())
        held = 0
        for pool in pools:
            information = storage.get_concurrency_info(pool)
            for run_id in {slot.run_id for slot in information.claimed_slots}:
                held += 1
                run = instance.get_run_by_id(run_id)
                if run is None or run.status not in ACTIVE:
                    leaked[run_id] = f"pool {pool} is held by run {run_id}, which has ended"
        if repair:
            for run_id in leaked:
                storage.free_concurrency_slots_for_run(run_id)
    summary = f"{len(pools)} pool(s), {held - len(leaked)} slot(s) in use"
    if repair:
        return Finding("pools", summary, repaired=list(leaked.values()))
    return Finding("pools", summary, list(leaked.values()), "cg-assets doctor --repair frees them")


def _clock(home: Path, repair: bool) -> Finding:
    """Schedules with times in the future, left by a clock that was ahead: they would not tick until then."""
    now, faults = time.time(), []
    with _instance() as instance:
        instigators = instance.all_instigator_state()
        for state in instigators:
            identity, data = (state.instigator_origin_id, state.selector_id), state.instigator_data
            ticks = instance.get_ticks(*identity, after=now + _CLOCK_SECONDS)
            times = [tick.timestamp for tick in ticks]
            if isinstance(data, ScheduleInstigatorData):
                times += [data.start_timestamp or 0.0, data.last_iteration_timestamp or 0.0]
            if max(times, default=0.0) <= now + _CLOCK_SECONDS:
                continue
            faults.append(
                f"{state.instigator_name} has ticked or was switched on at {_moment(max(times))}, which lies in "
                "the future: it does not tick until then"
            )
            if repair:
                for tick in ticks:
                    instance.update_tick(tick._replace(tick_data=tick.tick_data._replace(timestamp=now)))
                if isinstance(data, ScheduleInstigatorData):
                    data = ScheduleInstigatorData(data.cron_schedule, start_timestamp=now)
                    instance.update_instigator_state(state.with_data(data))
    summary = f"{_moment(now)}, {len(instigators)} schedule(s) and sensor(s)"
    if repair:
        return Finding("clock", summary, repaired=faults)
    return Finding(
        "clock", summary, faults, "correct the clock, stop the pages; cg-assets doctor --repair dates them now"
    )


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _leftovers(home: Path, repair: bool) -> Finding:
    found = remove_leftovers(home) if repair else list(leftovers(home))
    messages = [f"{path.relative_to(home)} is the leftover of a killed writer" for path in found]
    unfinished = len(list((home / "data").glob("*/*/.pieces*")))
    summary = f"{unfinished} unfinished batch(es), which resume when they are run again"
    if repair:
        return Finding("temporary files", summary, repaired=messages)
    return Finding("temporary files", summary, messages, "cg-assets doctor --repair removes them")


def _folders(home: Path, repair: bool) -> Finding:
    """Folders of batches that are called as in older homes, which pandas and Arrow cannot read."""
    store = ParquetStore(home)
    try:
        folders, faults = store.rename_older_folders() if repair else ([], [])
        older = len(store.older_folders())
    except StorageError as error:
        return Finding("folders", "not known", [str(error)])
    renamed = [f"{path.relative_to(home)} was renamed" for path in folders]
    if older:
        summary = f"{older} are called {OLDER_FOLDER}BATCH, as in older versions, which pandas and Arrow cannot read; "
        summary += "cg-assets doctor --repair renames them"
    else:
        summary = "as pandas, Arrow, Polars and DuckDB read them"
    return Finding("folders", summary, faults, repaired=renamed)


def _files(home: Path, repair: bool) -> Finding:
    """Every data file is read in full and compared with the hash that its writer stored."""
    store, count, size = ParquetStore(home), 0, 0
    faults = [
        f"{path.relative_to(home)} is no place of data (SYSTEM/STAGE/[BATCH/]); move it out of {store.data.name}"
        for path in misplaced(store)
    ]
    for path in data_files(store):
        count, size = count + 1, size + path.stat().st_size
        try:
            verify(path)
        except StorageError as error:
            faults.append(str(error).replace(f"{home}{os.sep}", ""))
    summary = f"{count} file(s), {size / 1e9:.3g} GB, hashes recomputed"
    remedy = "copy them back from a backup, or remove them: cg-assets refresh SYSTEM makes them again"
    return Finding("data", summary, faults, remedy)


def _sharing(home: Path, repair: bool) -> Finding:
    """Files of a shared home that its group cannot change."""
    group = home.stat().st_gid
    faults = (
        [] if home.stat().st_mode & stat.S_ISGID else ["new files in this home get the group of whoever makes them"]
    )
    closed: dict[int, list[Path]] = {}
    for path, found in closed_to_group(home):
        closed.setdefault(found.st_uid, []).append(path)
    for owner, paths in sorted(closed.items()):
        first = paths[0].relative_to(home)
        faults.append(f"{len(paths)} file(s) of user {_user(owner)} are closed to it, such as {first}")
    remedy = (
        f"as their owner: chgrp -R {group} {home}; chmod -R g+rwX {home}; find {home} -type d -exec chmod g+s {{}} +"
    )
    return Finding("sharing", f"home of group {group}", faults, remedy)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _objects(home: Path, repair: bool) -> Finding:
    """Files that differ from their objects, where neither is the newer one."""
    try:
        _, faults = ParquetStore(home).fetch()
    except StorageError as error:
        faults = [str(error)]
    summary = "as the files" if not faults else "differs from the files"
    return Finding("object store", summary, faults, "until then the steps that need these files fail")


def _catalogue(home: Path, repair: bool) -> Finding:
    try:
        faults = differences(home)
    except StorageError as error:
        faults = [str(error)]
    if repair and faults:
        rebuild(home)
        return Finding("catalogue", "rebuilt from the files", repaired=faults)
    summary = "as the files" if not faults else "differs from the files"
    return Finding("catalogue", summary, faults, "cg-assets doctor --repair rebuilds it from the files")


def _models(home: Path, repair: bool) -> Finding:
    """Every registered version is loaded from its files, and compared with the files that name it."""
    from cg_assets.registry.tracking import ModelTracking

    faults, count = [], 0
    try:
        tracking = ModelTracking(installation().tracking_uri, home)
        models = tracking.models()
        repaired = record_versions(ParquetStore(home), models) if repair else []
        faults += disagreements(home, models)
        for model in models:
            for version in model.versions:
                count += 1
                try:
                    tracking.load(model.name, version)
                except CgAssetsError as error:
                    faults.append(f"{model.name} version {version} cannot be loaded: {error}")
    except TrackingError as error:
        return Finding("models", "not known", [str(error)], "start the MLflow server or correct MLFLOW_TRACKING_URI")
    summary = f"{len(models)} model(s), {count} version(s)"
    remedy = "cg-assets refresh SYSTEM makes what is missing; or copy mlflow back from a backup"
    return Finding("models", summary, faults, remedy, repaired)


def findings_table(findings: list[Finding]) -> Table:
    """A row for each subject, or for each of its faults and repairs; the exit status is 1 if a fault is left."""
    rows, lines = [], []
    for finding in findings:
        state = "WRONG" if finding.faults else "repaired" if finding.repaired else "ok"
        lines.append(f"{finding.subject:<16} {state:<7} {finding.summary}")
        messages = [f"repaired: {message}" for message in finding.repaired] + finding.faults
        remedy = finding.remedy if finding.faults else ""
        below = [*messages, f"-> {remedy}"] if remedy else messages
        lines += [f"{'':<16} {message}" for message in below]
        rows += [(finding.subject, state.lower(), finding.summary, message, remedy) for message in messages or [""]]
    status = 1 if any(finding.faults for finding in findings) else 0
    return Table(("subject", "state", "summary", "message", "remedy"), rows, "\n".join(lines), status=status)
