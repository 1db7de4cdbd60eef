"""`<name>_kernel` and `<name>_kernel_forces`: flows in MLflow, and force labels of perturbed configurations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cg_assets.assets.common_checks import FINITE_BEADS, finite_verdict
from cg_assets.assets.data import read_source, with_map
from cg_assets.assets.stage import Batches, Check, Figure, FrameContent, Product, Read, Stage, Verdict
from cg_assets.assets.training import ModelTraining, train_and_register
from cg_assets.assets.work import Work
from cg_assets.labels.settings import FlowKernel
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.labels.kernels.run import KernelReport

MAX_STEIN_Z = 4.5
"""Largest of 60 standard normal numbers that passes: right labels are above it once in 2,500 batches."""
MAX_LOCAL_DIVERGENCE = 0.02
"""Largest Jensen-Shannon divergence of bonds and 1-3 distances that passes."""
STEIN = Check("stein_identity", "The labels have the mean force of the perturbed configurations as their mean.")


def local_geometry_check(widens: bool) -> Check:
    """The check of bonds; a warning where the kernel `widens` them, whatever one does."""
    text = "Bonds and 1-3 distances are distributed as in the data."
    return Check("local_geometry", text, blocking=not widens, warns=widens)


def judge_kernel(geometry_check: Check, frames: Frames, report: KernelReport) -> list[Verdict]:
    """Verdicts on one batch of perturbed frames, as it stands in its file."""
    test, geometry = report.stein[report.chosen], report.geometry
    widest = geometry.largest("bond", "1-3 distance", "coordinate")
    return [
        finite_verdict(FINITE_BEADS, frames),
        STEIN.verdict(test.largest <= MAX_STEIN_Z, largest_z=test.largest, limit=MAX_STEIN_Z, fields=len(test.z)),
        geometry_check.verdict(
            widest <= MAX_LOCAL_DIVERGENCE,
            largest_divergence=widest,
            limit=MAX_LOCAL_DIVERGENCE,
            angles=geometry.largest("angle"),
        ),
    ]


def flow_kernel_stage(system: SystemSpec, name: str, kernel: FlowKernel, labels: str) -> Stage:
    """The stage of the flow of one kernel; it learns from all batches of its plan."""
    stage = f"{name}_kernel"

    def make(work: Work) -> Product:
        from cg_assets.figures.plots_kernels import flow_training_plot
        from cg_assets.labels.kernels.flow_training import CHECKPOINT_VERSION, train_flow
        from cg_assets.labels.kernels.run import flow_config
        from cg_assets.training.data import correlated_groups

        source = read_source(work.inputs, labels)
        positions = np.concatenate([part.positions for part in source.frames])
        config, settings = flow_config(system, kernel.noise, kernel.hidden), kernel.training
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
            train=partial(train_flow, config, settings, positions, groups, seed=settings.seed),
            figure=lambda result: flow_training_plot(result.history, title=f"{system.title}: flow of kernel {name}"),
        )
        return train_and_register(work, training)

    return Stage(
        name=stage,
        description=f"The flow that takes noise out of configurations of {labels}, learned from them alone "
        f"(arXiv 2506.19628); registered in MLflow as `{system.name}.{stage}` with the alias candidate.",
        make=make,
        reads=(Read(labels, Batches.ALL),),
        gpu=True,
        kinds=frozenset({"pytorch", "mlflow"}),
    )


def kernel_forces_stage(system: SystemSpec, stage: str) -> Stage:
    """The stage of the perturbed and labelled frames of one kernel."""
    name, kernel, source = system.by_kernel_labels()[stage]
    flow_stage = f"{kernel.flow or name}_kernel" if isinstance(kernel, FlowKernel) else ""
    geometry_check = local_geometry_check(widens=not flow_stage)

    def make(work: Work) -> Product:
        from cg_assets.labels.kernels.run import denoiser, kernel_frames

        (batch,) = work.inputs.sound(source, [str(work.batch)])
        frames = work.inputs.frames(source, batch)
        bias = work.inputs.facts(source, batch)["bias"]
        beads, map_hash, facts = with_map(system)
        if flow_stage:
            trained = work.inputs.facts(flow_stage)
            model = {item: trained[item] for item in ("registered_model", "version")}
            flow, _ = work.open_tracking().load(model["registered_model"], model["version"])
            facts |= model
        else:
            flow = denoiser(system, kernel, frames, work.seed)
        perturbed, found = kernel_frames(system, kernel, frames, flow, work.seed, bias, work.progress)
        facts |= {"kernel": kernel.model_dump(mode="json"), "bias": bias, "noise_floor": found.noise().to_json()}
        return Product(
            FrameContent(perturbed),
            facts,
            lambda stored: judge_kernel(geometry_check, stored.frames(), found),
            lambda _: _report(found, f"{system.title}: labels of kernel {name}") | {"seed": work.seed},
            work.seed,
            beads,
            map_hash,
        )

    return Stage(
        name=stage,
        description=f"Configurations of {source}, perturbed by the kernel {name}, each with a force label, the mean of "
        "which is their mean force (arXiv 2506.19628).",
        make=make,
        reads=(Read(source, Batches.SAME), *([Read(flow_stage, Batches.NONE)] if flow_stage else [])),
        checks=(FINITE_BEADS, STEIN, geometry_check),
        batched=True,
        kinds=frozenset({"parquet", "pytorch"}),
    )


def _report(found: KernelReport, title: str) -> dict[str, Any]:
    from cg_assets.figures.plots_kernels import kernel_plot

    figure = kernel_plot(
        {str(kind): floor for kind, floor in found.noise_floor.items()},
        {str(kind): test.z for kind, test in found.stein.items()},
        found.geometry,
        used=found.chosen,
        title=title,
    )
    return {
        "figure": Figure(figure, "labels of the kernel"),
        "labels": found.rows(),
        "local_geometry": found.geometry.rows(),
        "noise_floor": str(found.noise().floor),
        "dropped_frames": found.dropped,
        "steps_along_the_flow": found.steps,
    }
