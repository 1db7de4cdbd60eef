"""What assets of trained models do alike: train under a device lease, track in MLflow, register, keep the record."""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from cg_assets.assets.stage import picture, provenance, record_in_catalogue, sound_batches, with_file
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.resources import DeviceResource
from cg_assets.systems import System, SystemSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cg_assets.core.frames import Frames
    from cg_assets.registry.tracking import ModelTracking
    from cg_assets.storage.parquet import FileInfo
    from cg_assets.storage.store import ParquetStore
    from cg_assets.training.training_run import TrainingResult


REGISTERED = "registered_models"
"""Stage of the records of what each registered version came from; a batch is one version."""


@dataclass(frozen=True)
class Source:
    """The sound batches of a stage that a model learns from."""

    batches: list[str]
    infos: list["FileInfo"]
    frames: list["Frames"]
    upstream: dict[str, str]


def read_source(files: "ParquetStore", system: SystemSpec, stage: str) -> Source:
    """All sound batches of a stage.

    Raises:
        StorageError: there is none.
    """
    batches = sound_batches(files, system, stage)
    return Source(
        batches,
        [files.describe(system.name, stage, batch) for batch in batches],
        [files.read_frames(system.name, stage, [batch]) for batch in batches],
        files.upstream(*(f"{system.name}/{stage}/{batch}" for batch in batches)),
    )


@dataclass(frozen=True)
class ModelTraining:
    """A training as its asset describes it.

    Attributes:
        stage: of the asset.
        name: of the model, registered as `<system>.<name>`.
        source: what it learns from.
        positions: `(n_frames, n_beads, dimension)` the configurations among these.
        config: of the network.
        params: settings for MLflow.
        seed: of the training.
        identity: what decides, beside these, whether an unfinished training is this one.
        train: fits the network; called with `device`, `checkpoint`, `on_epoch` and `progress`.
        figure: draws a training.
        metadata: of a result, for the asset's page.
        facts: for the metadata of the file.
        conditions: further inputs of the registered model's example.
    """

    stage: str
    name: str
    source: Source
    positions: "NDArray"
    config: dict[str, Any]
    params: dict[str, Any]
    seed: int
    identity: tuple[Any, ...]
    train: Callable[..., "TrainingResult"]
    figure: Callable[[Any], bytes]
    metadata: Callable[[Any], dict[str, Any]] = lambda result: {}
    facts: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, "NDArray"] = field(default_factory=dict)


def train_and_register(
    context: dg.AssetExecutionContext,
    system: System,
    files: "ParquetStore",
    client: "ModelTracking",
    device: DeviceResource,
    code_version: str,
    training: ModelTraining,
) -> tuple["TrainingResult", dg.DataVersion, dict[str, Any]]:
    """Train, register the model as candidate, and write its history as the file of the stage.

    A training that was interrupted goes on from its checkpoint when the asset is materialised again.

    Returns:
        The result, the asset's data version (the hash of the weights), and its metadata.
    """
    from cg_assets.potentials.energies import weights_hash
    from cg_assets.potentials.model_format import save_potential
    from cg_assets.systems.load import specification_text

    source, stage = training.source, training.stage
    tags = {
        "dagster_run_id": context.run.run_id,
        "asset_key": context.asset_key.to_user_string(),
        "batches": source.batches,
        "upstream_data_versions": source.upstream,
        "code_version": code_version,
    }
    identity = (training.config, training.params, code_version, *training.identity)
    checkpoint = checkpoint_path(files.stage_folder(system.name, stage), *identity)
    registered_name = f"{system.name}.{training.name}"
    datasets = [info.path for info in source.infos]
    started = time.monotonic()
    with (
        device.lease() as leased,
        client.start_training_run(system.name, training.name, tags, training.params, datasets),
        tempfile.TemporaryDirectory() as scratch,
    ):
        client.log_spec(specification_text(system))
        result = training.train(
            device=leased.torch_name,
            checkpoint=checkpoint,
            on_epoch=lambda row: client.log_epoch(row, step=int(row["epoch"])),
            progress=log_progress(context.log),
        )
        client.log_epoch({"registered_held_out_loss": result.held_out_loss}, step=result.best_epoch)
        figure = training.figure(result)
        client.log_figure(figure, "training")
        save_potential(Path(scratch) / "potential", result.module, training.config)
        version = client.register(
            Path(scratch) / "potential",
            registered_name,
            training.positions[:2],
            tags,
            conditions=training.conditions,
        )
        used = leased.description
    seconds = time.monotonic() - started
    weights = weights_hash(result.module)
    files.write_table(
        # Without the seconds: the same training gives the same file.
        {column: [row[column] for row in result.history] for column in result.history[0] if column != "seconds"},
        provenance(
            context,
            system,
            stage,
            code_version,
            upstream=source.upstream,
            seed=training.seed,
            registered_model=registered_name,
            version=version,
            weights_hash=weights,
            **training.facts,
        ),
    )
    checkpoint.unlink(missing_ok=True)
    record_in_catalogue(files, system, stage)
    _record_ancestors(context, system, files, code_version, training, version)
    metadata = {
        "figure": picture(figure, "training"),
        "registered_model": f"{registered_name} version {version}",
        "frames": len(training.positions),
        "held_out_loss": result.held_out_loss,
        **training.metadata(result),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "seconds": round(seconds, 2),
        "frames_per_second": round(result.frames_per_second),
        "device": used,
    }
    return result, dg.DataVersion(weights), with_file(metadata, files, system, stage)


def _record_ancestors(
    context: dg.AssetExecutionContext,
    system: System,
    files: "ParquetStore",
    code_version: str,
    training: ModelTraining,
    version: str,
) -> None:
    """One row for each data file that a registered version came from, for SQL; MLflow keeps the training data, too."""
    from cg_assets.registry.model_lineage import file_key, trace

    model = f"{system.name}.{training.name}"
    datasets = [(*file_key(files.home, info.path), info.content_hash) for info in training.source.infos]
    ancestors = trace(files.home, model, datasets)
    columns: dict[str, list[Any]] = {
        "model": [model] * len(ancestors),
        "version": [int(version)] * len(ancestors),
        "data": [item.data for item in ancestors],
        "file": [item.file for item in ancestors],
        "content_hash": [item.content_hash for item in ancestors],
        "made_into": [item.child for item in ancestors],
        "trained_on": [item.child == model for item in ancestors],
    }
    batch = f"{training.name}-{version}"
    upstream = training.source.upstream
    files.write_table(columns, provenance(context, system, REGISTERED, code_version, upstream=upstream), batch)
    record_in_catalogue(files, system, REGISTERED, batch)


def checkpoint_path(folder: Path, *identity: Any) -> Path:
    """Where an unfinished training keeps its state; another data set or other settings have another file.

    Checkpoints of other trainings of this stage are removed; those of the same training's committee lie beside it.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = folder / f".checkpoint-{digest}.pt"
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.glob(".checkpoint-*.pt"):
        if not other.name.startswith(path.stem):
            other.unlink(missing_ok=True)
    return path
