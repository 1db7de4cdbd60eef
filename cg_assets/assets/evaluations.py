"""`reference` and `evaluation_<name>`: what a potential is judged against, and the judgement."""

import math
from typing import TYPE_CHECKING, Any

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.simulations import frozen_bias, pooled_frames, training_frames
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
from cg_assets.orchestration.resources import StoreResource, TrackingResource
from cg_assets.systems import SystemSpec, seed_of

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.evaluation.reference import Reference
    from cg_assets.storage.store import ParquetStore

CODE_VERSION = "1"


def read_reference(store: "ParquetStore", system: SystemSpec) -> "Reference":
    """The materialised reference of a system."""
    from cg_assets.evaluation.reference import Reference
    from cg_assets.storage.parquet import read_arrays

    arrays = read_arrays(store.file(system.name, "reference"))
    metadata = store.describe(system.name, "reference").metadata.extra["reference"]
    return Reference.read(system, arrays, metadata)


def build_reference(system: SystemSpec) -> dg.AssetsDefinition:
    """The asset of the reference: exact quadrature, long runs, or the data themselves."""
    stage = "reference"
    read = [system.reference_data] if system.reference_data else []

    @dg.asset(
        key=asset_key(system, stage),
        deps=[asset_key(system, source) for source in read],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"parquet", *({} if read else {"scipy" if system.units == "reduced" else "openmm"})},
        description="The free energy that potentials are judged against, with its standard error.",
    )
    def reference(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.evaluation.reference import compute_reference
        from cg_assets.figures.stages import reference_figure

        files = store.open()
        seed = seed_of(system.name, stage, "0000")
        unfinished = files.stage_folder(system.name, stage) / ".runs"
        data, upstream = None, {}
        if read:
            keys = [f"{system.name}/{read[0]}/{batch}" for batch in sound_batches(files, system, read[0])]
            data, upstream = pooled_frames(files, system, keys), files.upstream(*keys)
        result = compute_reference(system, seed, unfinished, log_progress(context.log), data)
        metadata = provenance(
            context, system, stage, CODE_VERSION, upstream=upstream, seed=seed, reference=result.metadata()
        )
        files.write_table(result.columns(), metadata)
        record_in_catalogue(files, system, stage)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=with_file(
                {
                    "figure": picture(reference_figure(system, result), "reference free energy"),
                    "results": table(result.rows()),
                    "source": result.source,
                },
                files,
                system,
                stage,
            ),
        )

    return reference


def judge_again(
    system: SystemSpec,
    module: Any,
    config: dict[str, Any],
    reference: "Reference",
    data: "Frames",
    bias: Any,
) -> dict[str, float]:
    """Figures of merit, on the present reference, of a version that was judged by an earlier one.

    Its CG simulation is run again, because only that of the newest version is kept. A version for other beads, or one
    that does not stay stable, has an infinite PMF error.
    """
    from cg_assets.core.errors import ExplosionError
    from cg_assets.evaluation.evaluation import evaluate
    from cg_assets.potentials.energies import energy_function
    from cg_assets.simulation.run import run_cg_simulation
    from cg_assets.training.setup import network_config

    unfit = {"pmf_error": math.inf}
    if config["bead_names"] != network_config(system)["bead_names"]:
        return unfit
    try:
        simulated = run_cg_simulation(system, module, data, bias)
    except ExplosionError:
        return unfit
    result = evaluate(system, energy_function(module), reference, simulated.frames, simulated.summary(), data)
    return result.metrics()


def build_evaluation(system: SystemSpec, name: str) -> dg.AssetsDefinition:
    """The asset that judges one potential and decides whether its model becomes champion."""
    stage = f"evaluation_{name}"
    key = asset_key(system, stage)
    labels = system.potentials[name].labels
    true = system.true_frames(labels)
    read = [labels] if true == labels else [labels, true]

    @dg.asset(
        key=key,
        deps=[asset_key(system, source) for source in (f"cg_simulation_{name}", *read, "reference")],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"parquet", "mlflow"},
        description="Free energies, populations, barriers, stability, bonds and chirality of the CG model against the "
        "reference; the registered model becomes champion when it passes and is not worse than the present one.",
        check_specs=checks.evaluation_specs(system, key),
    )
    def evaluation(
        context: dg.AssetExecutionContext, store: StoreResource, tracking: TrackingResource
    ) -> dg.MaterializeResult:
        from cg_assets.evaluation.evaluation import evaluate
        from cg_assets.figures.stages import evaluation_figures
        from cg_assets.potentials.energies import committee_energies, energy_function
        from cg_assets.training.setup import drawn_frames

        files = store.open()
        client = tracking.open()
        simulated = files.describe(system.name, f"cg_simulation_{name}").metadata.extra
        model_name, version = simulated["registered_model"], simulated["version"]
        module, _ = client.load(model_name, version)
        reference = read_reference(files, system)
        frames, data_keys = training_frames(files, system, name)
        data = drawn_frames(system, frames, system.potentials[name].frames)
        truth = frames
        if true != labels:
            true_keys = [f"{system.name}/{true}/{batch}" for batch in sound_batches(files, system, true)]
            truth, data_keys = pooled_frames(files, system, true_keys), [*data_keys, *true_keys]
        result = evaluate(
            system,
            energy_function(module),
            reference,
            simulation=files.read_frames(system.name, f"cg_simulation_{name}"),
            summary=simulated["summary"],
            data=data,
            committee=committee_energies(module),
            truth=truth,
        )
        figures = evaluation_figures(system, name, reference, result, data)
        upstream = files.upstream(f"{system.name}/cg_simulation_{name}", *data_keys, f"{system.name}/reference")
        metadata = provenance(
            context,
            system,
            stage,
            CODE_VERSION,
            upstream=upstream,
            registered_model=model_name,
            version=version,
            drawn=result.surface_json(),
        )
        files.write_table(result.columns(), metadata)
        record_in_catalogue(files, system, stage)
        check_results = checks.judge_evaluation(system, result)
        metrics = result.metrics()
        judged_by = upstream[f"{system.name}/reference"]
        client.log_evaluation(model_name, version, metrics, figures, judged_by)
        error = result.pmf_error.standard_error
        facts: dict[str, Any] = {
            "passed": all(check.passed for check in check_results),
            "reference_hash": judged_by,
            "tolerance": error if math.isfinite(error) else 0.0,
        }
        decision = client.decide_champion(model_name, version, metrics, **facts)
        if decision.rejudge is not None:
            context.log.info(f"champion {decision.rejudge} was judged by another reference; judging it by this one")
            earlier_model = client.load(model_name, decision.rejudge)
            earlier = judge_again(
                system, *earlier_model, reference, data, frozen_bias(files, system, system.cg_simulation)[0]
            )
            decision = client.decide_champion(model_name, version, metrics, **facts, champion_metrics=earlier)
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
