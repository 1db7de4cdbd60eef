"""`<name>_kernel_forces`, `<name>_labels`: force labels from a source for CG frames; `<name>_kernel`: its flow."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from cg_assets.assets.data import read_source, with_map
from cg_assets.assets.stage import Batches, Figure, FrameContent, Product, Read, Report, Stage
from cg_assets.assets.training import ModelTraining, train_and_register
from cg_assets.assets.work import Work
from cg_assets.core.errors import TrainingError
from cg_assets.labels.kernels.sources import FlowKernel
from cg_assets.labels.source import LabelSource
from cg_assets.systems import SystemSpec

_OF_MODEL = ("registered_model", "version", "weights_hash")


def _code_version(system: SystemSpec, source: LabelSource, frames: str) -> str:
    """Another one for ladders that keep several rungs: files from before hold labels of one temperature alone."""
    sampled = system.sampling.by_labels().get(frames)
    several = source.every_temperature and sampled is not None and sampled.plan.kept_rungs > 1
    return "2" if several else "1"


def labels_stage(system: SystemSpec, stage: str) -> Stage:
    """The stage of the labelled frames of one source."""
    made = system.by_source_labels()[stage]
    name, source, frames_stage = made.name, made.source, made.frames
    model_stage = source.model_stage(name)

    def make(work: Work) -> Product:
        from cg_assets.labels.quality import noise_floors
        from cg_assets.labels.source import LabelInputs

        (batch,) = work.inputs.sound(frames_stage, [str(work.batch)])
        frames = work.inputs.frames(frames_stage, batch, source.every_temperature)
        of_frames = work.inputs.facts(frames_stage, batch)
        bias = of_frames["bias"]
        if fault := source.rounding_fault(of_frames.get("grid")):
            raise TrainingError(f"{system.name}/{frames_stage}/{batch}: {fault}")
        beads, map_hash, facts = with_map(system)
        model = None
        if model_stage:
            trained = work.inputs.facts(model_stage)
            facts |= {item: trained[item] for item in _OF_MODEL[:2]}
            model, _ = work.open_tracking().load(*(trained[item] for item in _OF_MODEL))
        labelled = source.label(LabelInputs(frames, system.beads(), bias, work.seed, model, work.progress))
        facts |= {
            "label_source": source.model_dump(mode="json"),
            "bias": bias,
            "noise_floor": labelled.noise.to_json(),
        }
        if labelled.noise_floors:
            facts["noise_floors"] = noise_floors(labelled.frames, labelled.noise_floors)

        def report(_: object) -> Report:
            from cg_assets.figures.labels import labels_figure

            shown: dict[str, Any] = {"noise_floor": str(labelled.noise.floor), "seed": work.seed}
            png = labels_figure(labelled.details, f"{system.title}: labels of {name}")
            if png is not None:
                shown["figure"] = Figure(png, "labels")
            return shown | dict(labelled.report)

        content = FrameContent(labelled.frames)
        return Product(
            content, facts, lambda stored: labelled.judge(stored.frames()), report, work.seed, beads, map_hash
        )

    return Stage(
        name=stage,
        description=source.description(name, frames_stage),
        make=make,
        reads=(Read(frames_stage, Batches.SAME), *([Read(model_stage, Batches.NONE)] if model_stage else [])),
        checks=source.checks,
        batched=True,
        kinds=frozenset({"parquet", "pytorch"}),
        code_version=_code_version(system, source, frames_stage),
        sections=(f"labels.{name}",),
    )


def flow_kernel_stage(system: SystemSpec, name: str, kernel: FlowKernel, labels: str) -> Stage:
    """The stage of the flow of one kernel; it learns from all batches of its plan."""
    stage = f"{name}_kernel"

    def make(work: Work) -> Product:
        from cg_assets.figures.training import flow_training_plot
        from cg_assets.labels.kernels.flow_training import CHECKPOINT_VERSION, train_flow
        from cg_assets.labels.kernels.run import flow_config
        from cg_assets.training.data import correlated_groups

        source = read_source(work.inputs, labels, kernel.every_temperature)
        positions = np.concatenate([part.positions for part in source.frames])
        temperature = np.concatenate([part.temperature for part in source.frames])
        config = flow_config(system.beads(), kernel.noise, kernel.hidden, temperature)
        settings, several = kernel.training, "temperatures" in config
        params = {"frames": len(positions), "noise": kernel.noise, "hidden": kernel.hidden}
        groups = correlated_groups(source.frames)
        training = ModelTraining(
            name=stage,
            source=source,
            positions=positions,
            config=config,
            params=params | settings.model_dump(),
            seed=settings.seed,
            identity=(dict(work.inputs.versions), CHECKPOINT_VERSION),
            train=partial(train_flow, config, settings, positions, groups, settings.seed, temperature=temperature),
            figure=lambda result: flow_training_plot(result.history, title=f"{system.title}: flow of kernel {name}"),
            conditions={"temperature": temperature[:2]} if several else {},
        )
        return train_and_register(work, training)

    return Stage(
        name=stage,
        description=f"The flow that removes noise from configurations of {labels}, learned from them alone "
        f"(arXiv 2506.19628); registered in MLflow as `{system.name}.{stage}` with the alias candidate.",
        make=make,
        reads=(Read(labels, Batches.ALL),),
        gpu=True,
        kinds=frozenset({"pytorch", "mlflow"}),
        code_version=_code_version(system, kernel, labels),
        sections=(f"labels.{name}",),
    )
