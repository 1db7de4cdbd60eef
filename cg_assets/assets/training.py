"""Common to all stages of trained models: train under a device lease, track in MLflow, register, keep the record."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_assets.assets.data import Source
from cg_assets.assets.soundness import names_of_failed
from cg_assets.assets.stage import Figure, Product, Report, TableContent
from cg_assets.assets.work import Work
from cg_assets.core.checks import Verdict
from cg_assets.core.units import unit
from cg_assets.registry.mlflow_records import LOSS_UNIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cg_assets.labels.kernels.flow_network import FlowConfig
    from cg_assets.potentials.base import PotentialConfig
    from cg_assets.training.training_run import TrainingResult


UNITS_OF_MODELS = ("length", "energy", "force", "temperature", "mass")
"""Quantities whose units the metadata of a registered model name."""


@dataclass(frozen=True)
class ModelTraining:
    """A training as its stage describes it.

    Attributes:
        name: of the model, registered as `<system>.<name>`.
        source: what it learns from.
        positions: `(n_frames, n_beads, dimension)` the configurations among these.
        config: of the network.
        params: settings for MLflow.
        seed: of the training.
        identity: together with these, identifies an unfinished training as this one.
        train: fits the network; called with `device`, `checkpoint`, `on_epoch` and `progress`.
        figure: draws a training.
        report: of a result, for the asset's page.
        judge: its verdicts.
        facts: for the metadata of the file.
        conditions: further inputs of the registered model's example.
        loss_unit: unit of its losses; empty where they have none.
    """

    name: str
    source: Source
    positions: NDArray
    config: PotentialConfig | FlowConfig
    params: dict[str, Any]
    seed: int
    identity: tuple[Any, ...]
    train: Callable[..., TrainingResult]
    figure: Callable[[Any], bytes]
    report: Callable[[Any], Report] = lambda result: {}
    judge: Callable[[Any], list[Verdict]] = lambda result: []
    facts: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, NDArray] = field(default_factory=dict)
    loss_unit: str = ""


def _tags(work: Work, training: ModelTraining) -> dict[str, object]:
    """Provenance of a model, for MLflow."""
    return {
        "dagster_run_id": work.run_id,
        "asset_key": f"{work.system.name}/{work.stage.name}",
        "batches": training.source.batches,
        "upstream_data_versions": dict(work.inputs.versions),
        "code_version": work.stage.code_version,
        LOSS_UNIT: training.loss_unit,
    }


def train_and_register(work: Work, training: ModelTraining) -> Product:
    """Train, and register the model as candidate; the history becomes the file of the stage.

    An interrupted training continues from its checkpoint when the stage is carried out again. The data version
    is the hash of the weights.
    """
    from cg_assets.potentials.energies import weights_hash
    from cg_assets.potentials.model_format import save_potential
    from cg_assets.registry.reconciliation import last_version
    from cg_assets.systems.load import specification_text

    client, system, stage = work.open_tracking(), work.system, work.stage
    tags = _tags(work, training)
    identity = (training.config, training.params, stage.code_version, *training.identity)
    checkpoint = checkpoint_path(work.store.stage_folder(system.name, stage.name), *identity)
    model = f"{system.name}.{training.name}"
    with (
        work.leased() as device,
        client.start_training_run(system.name, training.name, tags, training.params, training.source.infos),
        tempfile.TemporaryDirectory() as scratch,
    ):
        client.log_spec(specification_text(system))
        result = training.train(
            device=device,
            checkpoint=checkpoint,
            on_epoch=lambda row: client.log_epoch(row, step=int(row["epoch"])),
            progress=work.progress,
        )
        client.log_epoch({"registered_held_out_loss": result.held_out_loss}, step=result.best_epoch)
        verdicts, figure = training.judge(result), training.figure(result)
        client.log_figure(figure, "training")
        folder = Path(scratch) / "potential"
        save_potential(folder, result.module, training.config)
        weights = weights_hash(result.module)
        version = client.register(
            *(folder, model, training.positions[:2], tags | {"weights_hash": weights}),
            metadata={"units": {name: unit(name, system.units) for name in UNITS_OF_MODELS}},
            conditions=training.conditions,
            failed_checks=names_of_failed(verdicts),
            after=last_version(work.store, system.name, training.name),
        )
    _record_ancestors(work, training, model, version)

    def report(_: Sequence[Verdict]) -> Report:
        checkpoint.unlink(missing_ok=True)
        return {
            "figure": Figure(figure, "training"),
            "registered_model": f"{model} version {version}",
            "frames": len(training.positions),
            "held_out_loss": result.held_out_loss,
            **training.report(result),
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "frames_per_second": round(result.frames_per_second),
        }

    # Without the seconds: the same training gives the same file.
    columns = {column: [row[column] for row in result.history] for column in result.history[0] if column != "seconds"}
    facts = {"registered_model": model, "version": version, "weights_hash": weights} | dict(training.facts)
    return Product(TableContent(columns), facts, lambda _: verdicts, report, training.seed, version=weights)


def _record_ancestors(work: Work, training: ModelTraining, model: str, version: str) -> None:
    """One row for each data file that a registered version came from, for SQL; MLflow keeps the training data, too."""
    from cg_assets.registry.model_lineage import ancestor_columns, file_key, trace
    from cg_assets.registry.reconciliation import REGISTERED

    home = work.store.home
    datasets = [(*file_key(home, info), info.content_hash) for info in training.source.infos]
    columns = ancestor_columns(model, version, trace(home, model, datasets))
    work.keep(TableContent(columns), stage=REGISTERED, batch=f"{training.name}-{version}")


def checkpoint_path(folder: Path, *identity: Any) -> Path:
    """Where an unfinished training keeps its state; another data set or other settings have another file.

    Checkpoints of other trainings of this stage are removed; those of the same training's committee lie next to it.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = folder / f".checkpoint-{digest}.pt"
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.glob(".checkpoint-*.pt"):
        if not other.name.startswith(path.stem):
            other.unlink(missing_ok=True)
    return path
