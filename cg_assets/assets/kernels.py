"""`<name>_kernel` and `<name>_kernel_forces`: flows in MLflow, and force labels of perturbed configurations."""

import time
from functools import partial

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.forces import mapped
from cg_assets.assets.stage import (
    asset_key,
    mark_failed,
    picture,
    provenance,
    record_in_catalogue,
    sound_batches,
    table,
    with_file,
)
from cg_assets.assets.trainings import ModelTraining, read_source, train_and_register
from cg_assets.labels.settings import FlowKernel, NoiseKernel
from cg_assets.orchestration.automation import batches_of
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.executors import GPU_POOL, gpu_op_tags
from cg_assets.orchestration.resources import DeviceResource, StoreResource, TrackingResource
from cg_assets.systems import SystemSpec, seed_of

CODE_VERSION = "1"


def build_flow_kernel(system: SystemSpec, name: str) -> dg.AssetsDefinition:
    """The asset of the flow of one kernel; it learns from all batches of its plan."""
    _, kernel, labels = system.by_kernel_labels()[f"{name}_kernel_forces"]
    if not isinstance(kernel, FlowKernel):
        raise TypeError(f"kernel {name} has no flow")
    stage = f"{name}_kernel"
    key = asset_key(system, stage)

    @dg.asset(
        key=key,
        deps=[asset_key(system, labels)],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"pytorch", "mlflow"},
        pool=GPU_POOL,
        op_tags=gpu_op_tags(),
        description=f"The flow that takes noise out of configurations of {labels}, learned from them alone "
        f"(arXiv 2506.19628); registered in MLflow as `{system.name}.{stage}` with the alias candidate.",
    )
    def flow_kernel(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        tracking: TrackingResource,
        device: DeviceResource,
    ) -> dg.MaterializeResult:
        import numpy as np

        from cg_assets.figures.plots_kernels import flow_training_plot
        from cg_assets.labels.kernels.flow_training import CHECKPOINT_VERSION, train_flow
        from cg_assets.labels.kernels.run import flow_config
        from cg_assets.training.data import correlated_groups

        client, files = tracking.open(), store.open()
        source = read_source(files, system, labels)
        positions = np.concatenate([part.positions for part in source.frames])
        config, settings = flow_config(system, kernel.noise, kernel.hidden), kernel.training
        params = {"frames": len(positions), "noise": kernel.noise, "hidden": kernel.hidden}
        training = ModelTraining(
            stage=stage,
            name=stage,
            source=source,
            positions=positions,
            config=config,
            params=params | settings.model_dump(),
            seed=settings.seed,
            identity=(source.upstream, CHECKPOINT_VERSION),
            train=partial(
                train_flow, config, settings, positions, correlated_groups(source.frames), seed=settings.seed
            ),
            figure=lambda result: flow_training_plot(result.history, title=f"{system.title}: flow of kernel {name}"),
        )
        _, version, metadata = train_and_register(context, system, files, client, device, CODE_VERSION, training)
        return dg.MaterializeResult(data_version=version, metadata=metadata)

    return flow_kernel


def build_kernel_forces(system: SystemSpec, stage: str) -> dg.AssetsDefinition:
    """The asset of the perturbed and labelled frames of one kernel, partitioned by batch."""
    name, kernel, source = system.by_kernel_labels()[stage]
    key = asset_key(system, stage)
    flow_stage = f"{kernel.flow or name}_kernel" if isinstance(kernel, FlowKernel) else ""
    read = [source, flow_stage] if flow_stage else [source]

    @dg.asset(
        key=key,
        deps=[asset_key(system, item) for item in read],
        group_name=system.name,
        partitions_def=batches_of(system.name),
        code_version=CODE_VERSION,
        kinds={"parquet", "pytorch"},
        description=f"Configurations of {source}, perturbed by the kernel {name}, each with a force label, the mean of "
        "which is their mean force (arXiv 2506.19628).",
        check_specs=checks.kernel_specs(key, kernel),
    )
    def kernel_forces(
        context: dg.AssetExecutionContext, store: StoreResource, tracking: TrackingResource
    ) -> dg.MaterializeResult:
        from cg_assets.figures.plots_kernels import kernel_plot
        from cg_assets.labels.kernels.run import denoiser, kernel_frames

        batch = context.partition_key
        seed = seed_of(system.name, stage, batch)
        started = time.monotonic()
        files = store.open()
        frames = files.read_frames(system.name, source, sound_batches(files, system, source, [batch]))
        keys, facts = [f"{system.name}/{source}/{batch}"], {}
        if not isinstance(kernel, NoiseKernel):
            trained = files.describe(system.name, flow_stage).metadata.extra
            flow, _ = tracking.open().load(trained["registered_model"], trained["version"])
            keys.append(f"{system.name}/{flow_stage}")
            facts = {"registered_model": trained["registered_model"], "version": trained["version"]}
        else:
            flow = denoiser(system, kernel, frames, seed)
        bias = files.describe(system.name, source, batch).metadata.extra["bias"]
        perturbed, report = kernel_frames(system, kernel, frames, flow, seed, bias, log_progress(context.log))
        metadata = provenance(
            context,
            system,
            stage,
            CODE_VERSION,
            upstream=files.upstream(*keys),
            seed=seed,
            kernel=kernel.model_dump(mode="json"),
            bias=bias,
            noise_floor=report.noise().to_json(),
            **facts,
        )
        metadata = mapped(metadata, system)
        files.write_frames(perturbed, metadata, batch)
        check_results = checks.judge_kernel(kernel, files.read_frames(system.name, stage, [batch]), report)
        mark_failed(files, perturbed, metadata, batch, check_results)
        record_in_catalogue(files, system, stage, batch)
        figure = kernel_plot(
            {str(kind): floor for kind, floor in report.noise_floor.items()},
            {str(kind): test.z for kind, test in report.stein.items()},
            report.geometry,
            used=report.chosen,
            title=f"{system.title}: labels of kernel {name}",
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage, batch)),
            metadata=with_file(
                {
                    "figure": picture(figure, "labels of the kernel"),
                    "labels": table(report.rows()),
                    "local_geometry": table(report.geometry.rows()),
                    "noise_floor": str(report.noise().floor),
                    "dropped_frames": report.dropped,
                    "steps_along_the_flow": report.steps,
                    "seed": seed,
                    "seconds": round(time.monotonic() - started, 2),
                    "device": "CPU",
                },
                files,
                system,
                stage,
                batch,
            ),
            check_results=check_results,
        )

    return kernel_forces
