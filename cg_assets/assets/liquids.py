"""`cg_simulation_<name>`, `evaluation_<name>` and `comparison` of water, at every temperature of its reference."""

import hashlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.stage import (
    asset_key,
    picture,
    provenance,
    record_in_catalogue,
    sound_batches,
    table,
    with_file,
)
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.executors import GPU_POOL, gpu_op_tags
from cg_assets.orchestration.resources import DeviceResource, StoreResource, TrackingResource
from cg_assets.systems import ThermalSystem
from cg_assets.systems.thermal_spec import TRAJECTORIES

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.evaluation.liquid_evaluation import LiquidEvaluation
    from cg_assets.storage.store import ParquetStore

CODE_VERSION = "1"


def frames_of_atoms(files: "ParquetStore", system: ThermalSystem) -> tuple["Frames", list[str]]:
    """The dynamics of the atoms in all sound batches, replicas numbered over all of them, and their data keys."""
    from cg_assets.core.frames import Frames

    batches, plan = sound_batches(files, system, TRAJECTORIES), system.sampling.reference
    parts = [files.read_frames(system.name, TRAJECTORIES, [batch]) for batch in batches]
    numbered = [replace(part, replica=part.replica + number * plan.replicas) for number, part in enumerate(parts)]
    return Frames.concatenate(numbered), [f"{system.name}/{TRAJECTORIES}/{batch}" for batch in batches]


def build_liquid_simulation(system: ThermalSystem, name: str) -> dg.AssetsDefinition:
    """The asset of the simulations with one potential."""
    stage = f"cg_simulation_{name}"
    key = asset_key(system, stage)

    @dg.asset(
        key=key,
        deps=[asset_key(system, f"potential_{name}"), asset_key(system, TRAJECTORIES)],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"pytorch", "parquet"},
        pool=GPU_POOL,
        op_tags=gpu_op_tags(),
        description="Langevin dynamics of the beads with the registered potential, at each temperature of the atoms' "
        "dynamics and from their frames.",
        check_specs=checks.simulation_specs(key),
    )
    def cg_simulation(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        tracking: TrackingResource,
        device: DeviceResource,
    ) -> dg.MaterializeResult:
        from cg_assets.evaluation.liquid import structure_and_energy
        from cg_assets.figures.plots_thermal import water_plot
        from cg_assets.simulation.liquid import run_liquid_simulation

        files, started = store.open(), time.monotonic()
        trained = files.describe(system.name, f"potential_{name}").metadata.extra
        module, _ = tracking.open().load(trained["registered_model"], trained["version"])
        atoms, data_keys = frames_of_atoms(files, system)
        with device.lease() as leased:
            result = run_liquid_simulation(system, module, atoms, leased.torch_name, log_progress(context.log))
            used = leased.description
        metadata = provenance(
            context,
            system,
            stage,
            CODE_VERSION,
            upstream=files.upstream(f"{system.name}/potential_{name}", *data_keys),
            seed=system.cg_simulation.seed,
            registered_model=trained["registered_model"],
            version=trained["version"],
            summary=result.summary(),
        )
        files.write_frames(result.frames, metadata)
        record_in_catalogue(files, system, stage)
        rows = [
            {
                "temperature [K]": kelvin,
                "kinetic temperature": str(measured),
                "stable replicas": f"{result.stable_replicas[kelvin]} of {result.replicas}",
            }
            for kelvin, measured in result.kinetic_temperature.items()
        ]
        figure = water_plot(*structure_and_energy(result.frames), of="W", title=f"{system.title}: {name}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=with_file(
                {
                    "figure": picture(figure, "structure and energy"),
                    "temperatures": table(rows),
                    "replica_steps_per_second": round(result.replica_steps_per_second),
                    "seconds": round(time.monotonic() - started, 2),
                    "device": used,
                },
                files,
                system,
                stage,
            ),
            check_results=checks.judge_liquid_simulation(result),
        )

    return cg_simulation


def build_liquid_evaluation(system: ThermalSystem, name: str) -> dg.AssetsDefinition:
    """The asset that judges one potential and decides whether its model becomes champion."""
    stage = f"evaluation_{name}"
    key = asset_key(system, stage)

    @dg.asset(
        key=key,
        deps=[asset_key(system, f"cg_simulation_{name}"), asset_key(system, TRAJECTORIES)],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"parquet", "mlflow"},
        description="Structure, its change with temperature, energies and diffusion of the beads against the atoms'; "
        "the registered model becomes champion when it passes and is not worse than the present one.",
        check_specs=checks.liquid_evaluation_specs(system, key),
    )
    def evaluation(
        context: dg.AssetExecutionContext, store: StoreResource, tracking: TrackingResource
    ) -> dg.MaterializeResult:
        from cg_assets.core.errors import ExplosionError
        from cg_assets.core.statistics.estimates import Estimate
        from cg_assets.evaluation.liquid_evaluation import COLUMN_UNITS, RADIAL_ERROR, evaluate_liquid
        from cg_assets.figures.plots_response import liquid_figures
        from cg_assets.simulation.liquid import run_liquid_simulation

        files, client = store.open(), tracking.open()
        simulated = files.describe(system.name, f"cg_simulation_{name}").metadata.extra
        model_name, version, summary = (simulated[item] for item in ("registered_model", "version", "summary"))
        atoms, data_keys = frames_of_atoms(files, system)
        module, _ = client.load(model_name, version)
        kinetic = [Estimate.from_json(item) for item in summary["kinetic_temperature"]]
        result = evaluate_liquid(
            system,
            module,
            atoms,
            files.read_frames(system.name, f"cg_simulation_{name}"),
            dict(zip(summary["temperatures"], kinetic, strict=True)),
        )
        figures = liquid_figures({name: result}, system.title)
        upstream = files.upstream(f"{system.name}/cg_simulation_{name}", *data_keys)
        metadata = provenance(
            context, system, stage, CODE_VERSION, upstream=upstream, registered_model=model_name, version=version
        )
        files.write_table(result.columns(), metadata, units=COLUMN_UNITS)
        record_in_catalogue(files, system, stage)
        check_results = checks.judge_liquid_evaluation(system, result)
        judged_by = hashlib.sha256(json.dumps([upstream[key] for key in data_keys]).encode()).hexdigest()
        client.log_evaluation(model_name, version, result.metrics(), figures, judged_by)
        facts: dict[str, Any] = {
            "passed": all(check.passed for check in check_results),
            "reference_hash": judged_by,
            "criterion": "rdf_error",
            "tolerance": result.mean(RADIAL_ERROR).standard_error,
        }
        decision = client.decide_champion(model_name, version, result.metrics(), **facts)
        if decision.rejudge is not None:
            context.log.info(f"champion {decision.rejudge} was judged by other data; judging it by these")
            earlier, _ = client.load(model_name, decision.rejudge)
            try:
                run = run_liquid_simulation(system, earlier, atoms)
                judged = evaluate_liquid(system, earlier, atoms, run.frames, run.kinetic_temperature).metrics()
            except ExplosionError:
                judged = {"rdf_error": float("inf")}
            decision = client.decide_champion(model_name, version, result.metrics(), **facts, champion_metrics=judged)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=with_file(
                {title: picture(figure, title) for title, figure in figures.items()}
                | {
                    "results": table(result.rows()),
                    "registered_model": f"{model_name} version {version}",
                    "champion": decision.promoted,
                    "decision": decision.reason,
                },
                files,
                system,
                stage,
            ),
            check_results=check_results,
        )

    return evaluation


def read_evaluations(store: "ParquetStore", system: ThermalSystem) -> dict[str, "LiquidEvaluation"]:
    """The materialised evaluations of all potentials of a system.

    Raises:
        StorageError: one of them is missing.
    """
    from cg_assets.evaluation.liquid_evaluation import LiquidEvaluation
    from cg_assets.storage.parquet import read_arrays

    kelvins = list(system.sampling.reference.temperatures)
    return {
        name: LiquidEvaluation.from_columns(read_arrays(store.file(system.name, f"evaluation_{name}")), kelvins)
        for name in system.potentials
    }


def build_liquid_comparison(system: ThermalSystem) -> dg.AssetsDefinition:
    """The asset that puts the evaluations of all potentials side by side."""
    stage = "comparison"
    inputs = [f"{part}_{name}" for name in system.potentials for part in ("evaluation", "cg_simulation")]

    @dg.asset(
        key=asset_key(system, stage),
        deps=[asset_key(system, source) for source in inputs],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"parquet", "matplotlib"},
        description="The potentials of all methods against the atoms at each temperature, in one table and figures.",
    )
    def comparison(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.evaluation.liquid_evaluation import RADIAL_ERROR, comparison_columns, error_rows
        from cg_assets.figures.plots_response import accuracy_against_speed_plot, liquid_figures

        files = store.open()
        evaluations = read_evaluations(files, system)
        speed = {
            name: files.describe(system.name, f"cg_simulation_{name}").metadata.extra["summary"][
                "replica_steps_per_second"
            ]
            for name in evaluations
        }
        upstream = files.upstream(*(f"{system.name}/{source}" for source in inputs))
        metadata = provenance(context, system, stage, CODE_VERSION, upstream=upstream)
        files.write_table(comparison_columns(evaluations), metadata)
        record_in_catalogue(files, system, stage)
        figures = liquid_figures(evaluations, system.title)
        errors = {name: item.mean(RADIAL_ERROR) for name, item in evaluations.items()}
        figures["accuracy and speed"] = accuracy_against_speed_plot(
            speed, errors, "mean error of g(r) [nm]", title=system.title
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=with_file(
                {title: picture(figure, title) for title, figure in figures.items()}
                | {"results": table(error_rows(evaluations))},
                files,
                system,
                stage,
            ),
        )

    return comparison
