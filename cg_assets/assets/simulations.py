"""`cg_simulation_<name>`: molecular dynamics of the beads with a trained potential."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.stage import asset_key, picture, provenance, record_in_catalogue, sound_batches, with_file
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.executors import GPU_POOL, gpu_op_tags
from cg_assets.orchestration.resources import DeviceResource, StoreResource, TrackingResource
from cg_assets.simulation.settings import CGSimulation
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.storage.store import ParquetStore

CODE_VERSION = "1"


def pooled_frames(files: "ParquetStore", system: SystemSpec, keys: Sequence[str]) -> "Frames":
    """The label frames of these data keys `<system>/<stage>/<batch>`, all of one stage, as one data set."""
    from cg_assets.biases.fixed import UmbrellaBias, bias_from_definition
    from cg_assets.biases.reweighting import pooled_batches

    places = [key.split("/")[1:] for key in keys]
    definitions = [files.describe(system.name, stage, batch).metadata.extra["bias"] for stage, batch in places]
    biases = [bias_from_definition(definition) for definition in definitions if definition]
    windows = [bias for bias in biases if isinstance(bias, UmbrellaBias)]
    batches = [files.read_frames(system.name, stage, [batch]) for stage, batch in places]
    return pooled_batches(batches, system.thermal_energy, windows or None)


def training_frames(files: "ParquetStore", system: SystemSpec, name: str) -> tuple["Frames", list[str]]:
    """Frames of the batches that a potential learned from, and their data keys."""
    learned_from = files.describe(system.name, f"potential_{name}").metadata.upstream_data_versions
    labels = f"{system.name}/{system.potentials[name].labels}/"
    keys = [key for key in learned_from if key.startswith(labels)]
    return pooled_frames(files, system, keys), keys


def frozen_bias(
    files: "ParquetStore", system: SystemSpec, settings: CGSimulation
) -> tuple[Mapping[str, Any] | None, list[str]]:
    """The bias of the enhanced CG run, that of the first biased batch, and the data key of the file that holds it.

    None and no key where the settings ask for no such run.
    """
    if not settings.enhanced_duration:
        return None, []
    first = sound_batches(files, system, "relabelled_forces")[0]
    bias = files.describe(system.name, "relabelled_forces", first).metadata.extra["bias"]
    return bias, [f"{system.name}/relabelled_forces/{first}"]


def build_cg_simulation(system: SystemSpec, name: str) -> dg.AssetsDefinition:
    """The asset of the simulation with one potential."""
    stage = f"cg_simulation_{name}"
    labels = system.potentials[name].labels
    key = asset_key(system, stage)
    read = {labels, "relabelled_forces"} if system.cg_simulation.enhanced_duration else {labels}

    @dg.asset(
        key=key,
        deps=[asset_key(system, source) for source in (f"potential_{name}", *sorted(read))],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"pytorch", "parquet"},
        pool=GPU_POOL,
        op_tags=gpu_op_tags(),
        description="Langevin dynamics of the beads in many replicas with the registered potential: without a bias "
        "and, where the specification asks for it, under the frozen bias of the biased samples.",
        check_specs=checks.simulation_specs(key),
    )
    def cg_simulation(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        tracking: TrackingResource,
        device: DeviceResource,
    ) -> dg.MaterializeResult:
        from cg_assets.figures.stages import cg_simulation_figure
        from cg_assets.simulation.run import run_cg_simulation

        files = store.open()
        trained = files.describe(system.name, f"potential_{name}").metadata.extra
        module, _ = tracking.open().load(trained["registered_model"], trained["version"])
        data, data_keys = training_frames(files, system, name)
        bias, bias_keys = frozen_bias(files, system, system.cg_simulation)
        started = time.monotonic()
        with device.lease() as leased:
            result = run_cg_simulation(
                system, module, data, bias, device=leased.torch_name, progress=log_progress(context.log)
            )
            used = leased.description
        seconds = time.monotonic() - started
        exchange = {}
        if result.exchange_acceptance:
            exchange = {"exchange_acceptance": ", ".join(f"{item:.2f}" for item in result.exchange_acceptance)}
        files.write_frames(
            result.frames,
            provenance(
                context,
                system,
                stage,
                CODE_VERSION,
                upstream=files.upstream(f"{system.name}/potential_{name}", *data_keys, *bias_keys),
                seed=system.cg_simulation.seed,
                registered_model=trained["registered_model"],
                version=trained["version"],
                bias=bias,
                summary=result.summary(),
            ),
        )
        record_in_catalogue(files, system, stage)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=with_file(
                {
                    "figure": picture(cg_simulation_figure(system, result), "CG simulation"),
                    "stability": result.stability,
                    "kinetic_temperature": f"{result.kinetic_temperature:.5g} ± {result.kinetic_temperature_error:.2g}",
                    "replica_steps_per_second": round(result.steps_per_second),
                    "seconds": round(seconds, 2),
                    "device": used,
                    **exchange,
                },
                files,
                system,
                stage,
            ),
            check_results=checks.judge_simulation(system, result),
        )

    return cg_simulation
