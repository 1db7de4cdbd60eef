"""`potential_<name>`: a potential fitted to force labels, registered in MLflow as candidate."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cg_assets.assets.data import Source, learnt_source
from cg_assets.assets.stage import Batches, Product, Read, Stage
from cg_assets.assets.training import ModelTraining, train_and_register
from cg_assets.assets.work import Work
from cg_assets.core.checks import Check, Verdict
from cg_assets.core.errors import TrainingError
from cg_assets.systems import SystemSpec
from cg_assets.training.settings import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from cg_assets.core.statistics.estimates import Estimate, EstimateJson
    from cg_assets.storage.parquet import FileInfo
    from cg_assets.training.thermal_targets import ThermalTargets
    from cg_assets.training.training_run import TrainingResult

LOSS = Check(
    "loss_and_noise_floor",
    "The held-out loss is finite and not below the noise floor by more than its error (otherwise frames have leaked).",
    remedy="a loss that is not finite: lower the learning rate; one below the floor: look for frames that repeat",
)


def judge_potential(result: TrainingResult, floor: Estimate | None) -> list[Verdict]:
    """Verdict on a training. For the error of the held-out loss each frame is one independent number.

    Args:
        result: of the training.
        floor: noise floor of its labels; None where it is not known, and only a loss that is not finite is found.
    """
    loss = result.held_out_loss
    held_out_error = loss * math.sqrt(2.0 / result.n_held_out)
    facts: dict[str, object] = {"held_out_loss": loss, "held_out_loss_standard_error": held_out_error}
    if floor is None:
        return [LOSS.verdict(math.isfinite(loss), **facts)]
    allowed = floor.value - 5.0 * math.hypot(floor.standard_error, held_out_error)
    facts |= {"noise_floor": floor.value, "noise_floor_standard_error": floor.standard_error}
    facts |= {"loss_above_floor": loss - floor.value, "unit": floor.unit}
    return [LOSS.verdict(math.isfinite(loss) and loss >= allowed, **facts)]


def _noise_floor(source: Source, several: bool = False, targets: ThermalTargets | None = None) -> Estimate:
    """Of all batches together, those of ladders with the noise of each temperature that is learnt from.

    Of several sources each label has the weight of its own noise, targets at fixed beads too.

    Raises:
        TrainingError: a file has frames at several temperatures and the noise of one alone, or targets have no noise.
    """
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.labels.quality import combined_noise_floor

    floors: list[EstimateJson] = []
    rows: list[float] = []
    for info, frames in zip(source.infos, source.frames, strict=True):
        of_rungs = info.metadata.extra.get("noise_floors", [])
        if not of_rungs and len(np.unique(frames.temperature)) > 1:
            raise TrainingError(f"{info.path}: has the noise of its labels at one temperature alone; make it again")
        at_each = [floor for floor in of_rungs if floor["temperature"] in frames.temperature]
        floors += at_each or [info.metadata.extra["noise_floor"]]
        rows += [floor["rows"] for floor in at_each] or [info.rows]
    if targets is not None:
        noise = targets.force_noise
        if not (noise > 0).all():
            raise TrainingError(
                f"{TARGETS}: row {int(np.argmin(noise))} has mean forces without an error; leave it out"
            )
        value = 1.0 / float((1.0 / noise).mean())
        floors.append(Estimate(value, value * math.sqrt(2.0 / len(noise)), floors[0]["unit"]).to_json())
        rows.append(len(noise))
    if several:
        rows = [number / Estimate.from_json(floor).value for number, floor in zip(rows, floors, strict=True)]
    return combined_noise_floor(floors, rows)


def _label_noise(source: Source) -> list[NDArray[np.float64]]:
    """Variance of the force label of each frame of each batch: the noise floor of its file at its temperature.

    Raises:
        TrainingError: it is not above zero.
    """
    from cg_assets.core.statistics.estimates import Estimate

    found = []
    for info, frames in zip(source.infos, source.frames, strict=True):
        noise = np.full(len(frames), Estimate.from_json(info.metadata.extra["noise_floor"]).value)
        for floor in info.metadata.extra.get("noise_floors", []):
            noise[frames.temperature == floor["temperature"]] = Estimate.from_json(floor).value
        if not (noise > 0).all():
            raise TrainingError(f"{info.path}: a noise floor of its labels is not above zero: they cannot be weighed")
        found.append(noise)
    return found


def targets_of(path: Path, columns: Mapping[str, NDArray]) -> ThermalTargets:
    """The targets of one file.

    Raises:
        TrainingError: they cannot train.
    """
    from cg_assets.training.thermal_targets import ThermalTargets

    try:
        return ThermalTargets.from_columns(columns)
    except ValueError as error:
        raise TrainingError(f"{path}: {error}") from None


def _fixed_bead_labels(work: Work) -> tuple[ThermalTargets, list[FileInfo]]:
    """All sound batches of targets, and their files; frames of different batches are different ones.

    Raises:
        TrainingError: they cannot train.
    """
    from cg_assets.training.thermal_targets import ThermalTargets

    batches = work.inputs.sound(TARGETS)
    infos = [work.inputs.info(TARGETS, batch) for batch in batches]
    pairs = zip(infos, batches, strict=True)
    tables = [targets_of(info.path, work.inputs.table(TARGETS, batch)) for info, batch in pairs]
    return ThermalTargets.concatenate(tables), infos


def potential_stage(system: SystemSpec, name: str) -> Stage:
    """The stage of one potential; it learns from all batches of its labels."""
    settings, fit = system.potentials[name], system.training_of(name)
    prior = f"prior_{name}" if system.network.chain_prior else ""

    def make(work: Work) -> Product:
        from cg_assets.figures.training import training_plot
        from cg_assets.training.loop import CHECKPOINT_VERSION
        from cg_assets.training.setup import potential_config, training_data
        from cg_assets.training.train import train

        source = learnt_source(work.inputs, system, name)
        several = bool(settings.also)
        targets, more = _fixed_bead_labels(work) if TARGETS in settings.stages else (None, [])
        floor, noise = _noise_floor(source, several, targets), _label_noise(source) if several else None
        learns = settings.learns or "forces"
        about = settings.frames, fit.seed, floor.value, learns, noise, targets
        data = training_data(system.network, source.frames, *about)
        source = replace(source, infos=[*source.infos, *more])
        labels = data.labels()
        box = None if labels.box is None or labels.box.isinf().all() else labels.box
        given = {"temperature": labels.temperature, "box": box}
        config = potential_config(system.network, system.beads(), fit.committee, source.frames, learns, targets)
        if prior:
            config["prior"] = work.inputs.facts(prior)["prior"]
        training = ModelTraining(
            name=name,
            source=source,
            positions=labels.positions.numpy(),
            config=config,
            params={"frames": len(data), **fit.model_dump(), "network": system.network.model_dump()},
            seed=fit.seed,
            identity=(data.hash(), CHECKPOINT_VERSION),
            train=partial(train, config, fit, data, fit.seed),
            figure=lambda result: training_plot(result.history, floor, title=f"{system.title}: potential {name}"),
            report=lambda result: {
                "noise_floor": str(floor),
                "loss_above_floor": result.held_out_loss - floor.value,
            },
            judge=lambda result: judge_potential(result, floor),
            facts={"noise_floor": floor.to_json()},
            conditions={name: value[:2].numpy() for name, value in given.items() if value is not None},
            loss_unit=floor.unit,
        )
        return train_and_register(work, training)

    return Stage(
        name=f"potential_{name}",
        description=f"The potential of mean force, learned from {', '.join(settings.stages)}; registered in MLflow as "
        f"`{system.name}.{name}` with the alias candidate.",
        make=make,
        reads=(
            *(Read(stage, Batches.ALL) for stage in settings.stages),
            *([Read(prior, Batches.NONE)] if prior else []),
        ),
        checks=(LOSS,),
        gpu=True,
        kinds=frozenset({"pytorch", "mlflow"}),
        code_version="2" if not (prior and system.network.needs_temperature) else "3" if not settings.learns else "4",
        sections=("network", "training", f"potentials.{name}"),
    )
