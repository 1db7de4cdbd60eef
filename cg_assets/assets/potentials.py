"""`potential_<name>`: a potential fitted to force labels, registered in MLflow as candidate."""

from __future__ import annotations

import time

import dagster as dg

from cg_assets import checks
from cg_assets.assets.stage import asset_key, describe_file, picture, provenance, record_in_catalogue
from cg_assets.executors import GPU_OP_TAGS, GPU_POOL
from cg_assets.resources import DeviceResource, StoreResource, TrackingResource
from cg_assets.resources.console import log_progress
from cg_assets.systems import SystemSpec

CODE_VERSION = "1"


def build_potential(system: SystemSpec, name: str) -> dg.AssetsDefinition:
    """The asset of one potential; it learns from all batches of its labels."""
    settings = system.potentials[name]
    stage = f"potential_{name}"
    key = asset_key(system, stage)

    @dg.asset(
        key=key,
        deps=[asset_key(system, settings.labels)],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"pytorch", "mlflow"},
        pool=GPU_POOL,
        op_tags=GPU_OP_TAGS,
        description=f"The potential of mean force, learned from {settings.labels}; registered in MLflow as "
        f"`{system.name}.{name}` with the alias candidate.",
        check_specs=checks.potential_specs(key),
    )
    def potential(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        tracking: TrackingResource,
        device: DeviceResource,
    ) -> dg.MaterializeResult:
        from cg_assets.analysis.labels import combined_noise_floor
        from cg_assets.analysis.plots import training_figure
        from cg_assets.training.data import training_data
        from cg_assets.training.loop import train
        from cg_assets.training.setup import network_config

        client = tracking.open()
        files = store.open()
        batches = files.batches(system.name, settings.labels)
        infos = [files.describe(system.name, settings.labels, batch) for batch in batches]
        frames = files.read_frames(system.name, settings.labels, batches)
        upstream = files.upstream(*(f"{system.name}/{settings.labels}/{batch}" for batch in batches))
        floor = combined_noise_floor(infos)
        data = training_data(frames, settings.frames, system.training.seed)
        config = network_config(system, infos[0].metadata)
        tags = {
            "dagster_run_id": context.run.run_id,
            "asset_key": key.to_user_string(),
            "batches": ",".join(batches),
            "code_version": CODE_VERSION,
        }
        started = time.monotonic()
        with (
            device.lease() as leased,
            client.start_training_run(system, name, tags=tags, files=[info.path for info in infos]) as run,
        ):
            run.log_spec(system)
            result = train(
                config,
                system.training,
                data,
                device=leased.torch_name,
                checkpoint=files.stage_folder(system.name, stage) / ".checkpoint.pt",
                tag="/".join([system.content_hash, *upstream.values(), CODE_VERSION]),
                on_epoch=lambda row: run.log_epoch(row | {"noise_floor": floor.value}),
                progress=log_progress(context.log),
            )
            figure = training_figure(system, result.history, floor)
            run.log_figure(figure, "training.png")
            version = run.register(result.module, config, example=frames.positions[:2])
            used = leased.description
        seconds = time.monotonic() - started
        history = {column: [row[column] for row in result.history] for column in result.history[0]}
        files.write_table(
            history,
            provenance(
                context,
                system,
                stage,
                CODE_VERSION,
                upstream=upstream,
                seed=system.training.seed,
                registered_model=version.name,
                version=version.version,
                weights_hash=version.weights_hash,
                noise_floor=floor.to_json(),
            ),
        )
        result.remove_checkpoint()
        record_in_catalogue(files, system, stage)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version.weights_hash),
            metadata=describe_file(files, system, stage)
            | {
                "registered_model": f"{version.name} version {version.version}",
                "frames": len(data),
                "held_out_loss": result.held_out_loss,
                "noise_floor": str(floor),
                "loss_above_floor": result.held_out_loss - floor.value,
                "epochs": len(result.history),
                "seconds": round(seconds, 2),
                "frames_per_second": round(result.frames_per_second),
                "device": used,
                "figure": picture(figure, "training"),
            },
            check_results=checks.judge_potential(result, floor),
        )

    return potential
