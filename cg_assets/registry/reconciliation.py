"""Whether MLflow has what the files name, and the files what MLflow has: databases are restored, models deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cg_assets.core.errors import StorageError, TrackingError
from cg_assets.registry.champions import CHAMPION
from cg_assets.registry.model_lineage import ancestor_columns
from cg_assets.registry.models import RegisteredModel
from cg_assets.registry.tracking import ModelTracking
from cg_assets.settings import TRACKING, installation
from cg_assets.storage.catalogue import data_files, record
from cg_assets.storage.parquet import describe
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore

REGISTERED = "registered_models"
"""Stage of the records of the data behind each registered version; a batch is `<potential>-<version>`."""


def models_named(named: Iterable[str]) -> dict[str, RegisteredModel]:
    """All registered models, by name.

    Args:
        named: models that files name.

    Raises:
        TrackingError: MLflow has none of them: it is another one than they were registered in; or it does not answer.
    """
    own, names = installation(), set(named)
    models = ModelTracking(own.tracking_uri, own.home).models() if own.has_models else []
    if names and not names & {model.name for model in models}:
        where = "the MLflow of this address" if own.tracking_uri else f"{TRACKING} is not set and the home folder"
        raise TrackingError(
            f"{where} has none of the models that the data name ({', '.join(sorted(names)[:3])}), so what they were "
            f"made from is unknown; set {TRACKING} to the server or database where they are registered, or train one "
            "again (cg-assets run SYSTEM --select potential_NAME)"
        )
    return {model.name: model for model in models}


def fault_of(facts: Mapping[str, Any], models: Mapping[str, RegisteredModel]) -> str:
    """What MLflow lacks of the version that a file names in its metadata; empty where it names none or all is there."""
    name, number = facts.get("registered_model"), str(facts.get("version"))
    if name is None:
        return ""
    model = models.get(name)
    if model is None or number not in model.versions:
        return f"MLflow has no version {number} of {name}"
    if number in model.without_run:
        return lost_run(name, number)
    tags = model.versions[number]
    weights = facts.get("weights_hash")
    if weights and tags.get("weights_hash", weights) != weights:
        return f"MLflow has another version {number} of {name}"
    if "judged_by" in facts:
        if "evaluation.reference_hash" not in tags:
            return f"MLflow has no judgement of version {number} of {name}"
        if CHAMPION in dangling(model):
            return f"the champion of {name} is version {model.aliases[CHAMPION]}, which MLflow does not have"
    return ""


def lost_run(name: str, number: str) -> str:
    """That the training run of a version was deleted, in words."""
    return f"MLflow has lost the training run of version {number} of {name}"


def dangling(model: RegisteredModel) -> list[str]:
    """Aliases of versions that are not there."""
    return sorted(alias for alias, number in model.aliases.items() if number not in model.versions)


def recorded_versions(store: ParquetStore, system: str) -> dict[str, set[str]]:
    """Versions of the models of a system whose data are recorded, by the model's name."""
    found: dict[str, set[str]] = {}
    for batch in store.batches(system, REGISTERED):
        potential, _, number = batch.rpartition("-")
        found.setdefault(f"{system}.{potential}", set()).add(number)
    return found


def last_version(store: ParquetStore, system: str, potential: str) -> int:
    """The highest version of a model that was ever recorded; 0 where there is none."""
    return max(map(int, recorded_versions(store, system).get(f"{system}.{potential}", ())), default=0)


def unrecorded(store: ParquetStore, models: Iterable[RegisteredModel]) -> list[tuple[str, str]]:
    """Models and versions whose data are not recorded for SQL."""
    known: dict[str, dict[str, set[str]]] = {}
    missing = []
    for model in models:
        system = model.name.partition(".")[0]
        records = known.setdefault(system, recorded_versions(store, system))
        missing += [(model.name, number) for number in model.versions if number not in records.get(model.name, set())]
    return sorted(missing, key=lambda item: (item[0], int(item[1])))


def record_versions(store: ParquetStore, models: Iterable[RegisteredModel]) -> list[str]:
    """Record the data of versions for which that was not done; a step can end between the two.

    Returns:
        What was recorded, one message each.

    Raises:
        TrackingError: MLflow does not answer.
    """
    own, recorded = installation(), []
    models = list(models)
    lost = {(model.name, number) for model in models for number in model.without_run}
    for name, number in unrecorded(store, models):
        if (name, number) in lost:
            continue  # what it learned from is not known any more
        lineage = ModelTracking(own.tracking_uri, own.home).lookup(f"{name}/{number}").lineage
        first = next((store.home / item.file for item in lineage if item.status == "same"), None)
        if first is None:
            continue  # data of another home, or none that is left
        system, _, potential = name.partition(".")
        metadata = FileMetadata(system=system, stage=REGISTERED, units=describe(first).metadata.units)
        written = store.write_table(ancestor_columns(name, number, lineage), metadata, f"{potential}-{number}")
        record(store.home, written.path)
        recorded.append(f"the data of {name} version {number} were not recorded")
    return recorded


def disagreements(home: Path, models: Iterable[RegisteredModel]) -> list[str]:
    """Where MLflow and the files of a home folder disagree, one message each."""
    store, by_name = ParquetStore(home), {model.name: model for model in models}
    faults = []
    for path in data_files(store):
        try:
            info = describe(path)
        except StorageError:
            continue  # damaged, which is another fault
        if fault := fault_of(info.metadata.extra, by_name):
            faults.append(f"{fault}, which {path.relative_to(store.home)} names")
    for model in by_name.values():
        faults += [
            f"alias {alias} of {model.name} is version {model.aliases[alias]}, which MLflow does not have"
            for alias in dangling(model)
        ]
        faults += [lost_run(model.name, number) for number in sorted(model.without_run, key=int)]
    faults += [
        f"the data of {name} version {number} are not recorded" for name, number in unrecorded(store, by_name.values())
    ]
    return list(dict.fromkeys(faults))
