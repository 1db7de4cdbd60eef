"""`potential_<name>`: a potential fitted to force labels, registered in MLflow as candidate."""

from dataclasses import replace
from functools import partial

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.stage import asset_key
from cg_assets.assets.trainings import ModelTraining, read_source, train_and_register
from cg_assets.orchestration.executors import GPU_POOL, gpu_op_tags
from cg_assets.orchestration.resources import DeviceResource, StoreResource, TrackingResource
from cg_assets.systems import SystemSpec

CODE_VERSION = "2"


def build_potential(system: SystemSpec, name: str) -> dg.AssetsDefinition:
    """The asset of one potential; it learns from all batches of its labels."""
    settings, training_settings = system.potentials[name], system.training_of(name)
    stage = f"potential_{name}"
    key = asset_key(system, stage)
    read = [settings.labels, *([f"prior_{name}"] if system.prior else [])]

    @dg.asset(
        key=key,
        deps=[asset_key(system, source) for source in read],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"pytorch", "mlflow"},
        pool=GPU_POOL,
        op_tags=gpu_op_tags(),
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
        from cg_assets.figures.stages import training_figure
        from cg_assets.labels.quality import combined_noise_floor
        from cg_assets.training.committee import train_with_committee
        from cg_assets.training.loop import CHECKPOINT_VERSION
        from cg_assets.training.setup import network_config, training_data

        client, files = tracking.open(), store.open()
        source = read_source(files, system, settings.labels)
        floor = combined_noise_floor(
            [info.metadata.extra["noise_floor"] for info in source.infos], [info.rows for info in source.infos]
        )
        data, config = training_data(system, source.frames, settings.frames), network_config(system)
        if system.prior is not None:
            config["prior"] = files.describe(system.name, f"prior_{name}").metadata.extra["prior"]
            source = replace(source, upstream=source.upstream | files.upstream(f"{system.name}/prior_{name}"))
        training = ModelTraining(
            stage=stage,
            name=name,
            source=source,
            positions=data.positions,
            config=config,
            params={"frames": len(data), **training_settings.model_dump(), "network": system.network.model_dump()},
            seed=training_settings.seed,
            identity=(data.hash(), CHECKPOINT_VERSION),
            train=partial(
                train_with_committee,
                config,
                training_settings,
                data,
                seed=training_settings.seed,
                noise_floor=floor.value,
            ),
            figure=lambda result: training_figure(system, name, result.history, floor),
            metadata=lambda result: {
                "noise_floor": str(floor),
                "loss_above_floor": result.held_out_loss - floor.value,
            },
            facts={"noise_floor": floor.to_json()},
        )
        result, version, metadata = train_and_register(context, system, files, client, device, CODE_VERSION, training)
        return dg.MaterializeResult(
            data_version=version, metadata=metadata, check_results=checks.judge_potential(result, floor)
        )

    return potential
