"""`potential_<name>`: a potential fitted to force labels, registered in MLflow as candidate."""

import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg

from cg_assets import checks
from cg_assets.assets.stage import asset_key, picture, provenance, record_in_catalogue, sound_batches, with_file
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
        from cg_assets.analysis.figures import training_figure
        from cg_assets.analysis.labels import combined_noise_floor
        from cg_assets.potentials.energies import weights_hash
        from cg_assets.potentials.model_format import save_potential
        from cg_assets.systems.load import specification_text
        from cg_assets.training.committee import train_with_committee
        from cg_assets.training.loop import CHECKPOINT_VERSION
        from cg_assets.training.setup import network_config, training_data

        client = tracking.open()
        files = store.open()
        batches = sound_batches(files, system, settings.labels)
        infos = [files.describe(system.name, settings.labels, batch) for batch in batches]
        frames = [files.read_frames(system.name, settings.labels, [batch]) for batch in batches]
        upstream = files.upstream(*(f"{system.name}/{settings.labels}/{batch}" for batch in batches))
        floor = combined_noise_floor(
            [info.metadata.extra["noise_floor"] for info in infos], [info.rows for info in infos]
        )
        data = training_data(system, frames, settings.frames)
        config = network_config(system)
        tags = {
            "dagster_run_id": context.run.run_id,
            "asset_key": key.to_user_string(),
            "batches": batches,
            "upstream_data_versions": upstream,
            "code_version": CODE_VERSION,
        }
        params = {"frames": len(data), **system.training.model_dump(), "network": system.network.model_dump()}
        identity = (config, params, data.hash(), CODE_VERSION, CHECKPOINT_VERSION)
        checkpoint = checkpoint_path(files.stage_folder(system.name, stage), *identity)
        registered_name = f"{system.name}.{name}"
        started = time.monotonic()
        with (
            device.lease() as leased,
            client.start_training_run(system.name, name, tags, params, [info.path for info in infos]),
            tempfile.TemporaryDirectory() as scratch,
        ):
            client.log_spec(specification_text(system))
            result = train_with_committee(
                config,
                system.training,
                data,
                seed=system.training.seed,
                device=leased.torch_name,
                checkpoint=checkpoint,
                on_epoch=lambda row: client.log_epoch(row, step=int(row["epoch"])),
                progress=log_progress(context.log),
                noise_floor=floor.value,
            )
            client.log_epoch({"registered_held_out_loss": result.held_out_loss}, step=result.best_epoch)
            figure = training_figure(system, name, result.history, floor)
            client.log_figure(figure, "training")
            save_potential(Path(scratch) / "potential", result.module, config)
            version = client.register(Path(scratch) / "potential", registered_name, data.positions[:2], tags)
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
                CODE_VERSION,
                upstream=upstream,
                seed=system.training.seed,
                registered_model=registered_name,
                version=version,
                weights_hash=weights,
                noise_floor=floor.to_json(),
            ),
        )
        checkpoint.unlink(missing_ok=True)
        record_in_catalogue(files, system, stage)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(weights),
            metadata=with_file(
                {
                    "figure": picture(figure, "training"),
                    "registered_model": f"{registered_name} version {version}",
                    "frames": len(data),
                    "held_out_loss": result.held_out_loss,
                    "noise_floor": str(floor),
                    "loss_above_floor": result.held_out_loss - floor.value,
                    "epochs": len(result.history),
                    "best_epoch": result.best_epoch,
                    "seconds": round(seconds, 2),
                    "frames_per_second": round(result.frames_per_second),
                    "device": used,
                },
                files,
                system,
                stage,
            ),
            check_results=checks.judge_potential(result, floor),
        )

    return potential


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
