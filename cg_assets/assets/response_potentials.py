"""`potential_<name>` of water: a potential W(R, T) fitted to thermal response targets, registered in MLflow."""

from functools import partial

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.liquids import frames_of_atoms
from cg_assets.assets.stage import asset_key, sound_batches, table
from cg_assets.assets.trainings import ModelTraining, Source, train_and_register
from cg_assets.orchestration.executors import GPU_POOL, gpu_op_tags
from cg_assets.orchestration.resources import DeviceResource, StoreResource, TrackingResource
from cg_assets.systems import ThermalSystem
from cg_assets.systems.thermal_spec import TARGETS, TRAJECTORIES
from cg_assets.training.settings import AT_ONE_TEMPERATURE

CODE_VERSION = "2"


def build_response_potential(system: ThermalSystem, name: str) -> dg.AssetsDefinition:
    """The asset of one potential; it learns from all batches of targets."""
    settings, stage = system.potentials[name], f"potential_{name}"
    key, number = asset_key(system, stage), settings.unconstrained_frames

    @dg.asset(
        key=key,
        deps=[asset_key(system, TARGETS), *([asset_key(system, TRAJECTORIES)] if number else [])],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"pytorch", "mlflow"},
        pool=GPU_POOL,
        op_tags=gpu_op_tags(),
        description=f"The potential of mean force at all temperatures, by {settings.method.replace('_', ' ')}; "
        f"registered in MLflow as `{system.name}.{name}` with the alias candidate. It takes `temperature` and `box`.",
        check_specs=checks.potential_specs(key),
    )
    def potential(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        tracking: TrackingResource,
        device: DeviceResource,
    ) -> dg.MaterializeResult:
        import numpy as np

        from cg_assets.core.statistics.estimates import Estimate
        from cg_assets.figures.plots_response import response_training_plot
        from cg_assets.storage.parquet import read_arrays
        from cg_assets.training.response import SAME_TEMPERATURE, middle_of
        from cg_assets.training.response_fit import fit_response, potential_config
        from cg_assets.training.thermal_targets import ThermalTargets
        from cg_assets.training.unconstrained import unconstrained_targets

        client, files = tracking.open(), store.open()
        batches = sound_batches(files, system, TARGETS)
        tables = [read_arrays(files.file(system.name, TARGETS, batch)) for batch in batches]
        targets = ThermalTargets.concatenate([ThermalTargets.from_columns(columns) for columns in tables])
        keys = [f"{system.name}/{TARGETS}/{batch}" for batch in batches]
        config = potential_config(settings, targets.n_beads) | {
            "units": system.units,
            "system": system.name,
            "bead_masses": [system.water.parameters.mass] * targets.n_beads,
        }
        unconstrained = None
        if number:
            atoms, atoms_keys = frames_of_atoms(files, system)
            if settings.method in AT_ONE_TEMPERATURE:
                middle = middle_of(config["temperature_dependence"])
                atoms = atoms.select(np.abs(atoms.temperature - middle) < SAME_TEMPERATURE)
            noise = np.concatenate([columns["force_variance"] for columns in tables])
            unconstrained = unconstrained_targets(atoms, number, targets.temperature, noise, targets.heat_capacity)
            keys += atoms_keys
        upstream = files.upstream(*keys)
        training = ModelTraining(
            stage=stage,
            name=name,
            source=Source(batches, [files.describe(system.name, TARGETS, batch) for batch in batches], [], upstream),
            positions=targets.positions,
            config=config,
            params={
                "rows": len(targets),
                "unconstrained_rows": 0 if unconstrained is None else len(unconstrained),
                **settings.model_dump(mode="json"),
            },
            seed=settings.seed,
            identity=(sorted(upstream.items()),),
            train=partial(fit_response, settings, targets, unconstrained),
            figure=lambda result: response_training_plot(result.held_out, f"{system.title}: {name}"),
            metadata=lambda result: {
                "noise_floor": result.history[result.best_epoch - 1]["noise_floor"],
                "least_heat_capacity": f"{result.least_heat_capacity:.4g} kJ/mol/K",
                "errors_on_held_out_frames": table(
                    [
                        {"temperature [K]": kelvin, "force error [kJ/mol/nm]": str(found["forces"].root)}
                        | {f"explained {quantity}": round(item.explained, 3) for quantity, item in found.items()}
                        for kelvin, found in result.held_out.items()
                    ]
                ),
            },
            conditions={"temperature": targets.temperature[:2], "box": targets.box[:2]},
        )
        result, version, metadata = train_and_register(context, system, files, client, device, CODE_VERSION, training)
        value = result.history[result.best_epoch - 1]["noise_floor"]
        floor = Estimate(value, value * (2.0 / result.n_held_out) ** 0.5, "(kJ/mol/nm)^2")
        return dg.MaterializeResult(
            data_version=version, metadata=metadata, check_results=checks.judge_potential(result, floor)
        )

    return potential
