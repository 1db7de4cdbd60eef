"""`trajectories`, `biased_samples`, `<plan>_samples`: atomistic frames with their unbiased forces."""

import time
from dataclasses import replace

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.next_batch import proposed_centers
from cg_assets.assets.stage import (
    asset_key,
    mark_failed,
    picture,
    provenance,
    record_in_catalogue,
    snapshot_stage,
    with_file,
)
from cg_assets.biases.settings import AdaptiveBias
from cg_assets.core.units import unit
from cg_assets.orchestration.automation import batches_of, freshness_of
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.resources import StoreResource
from cg_assets.systems import SystemSpec, seed_of

CODE_VERSION = "1"

_EXCHANGE = ("exchange_acceptance", "journeys_up_the_ladder")
_UNBIASED = "Frames of unbiased dynamics with their forces."
_BIASED = (
    "Frames of dynamics under a bias of the CG coordinates, with the *unbiased* forces and the energy of the bias "
    "(arXiv 2510.11148)."
)


def build_samples(system: SystemSpec, labels: str) -> dg.AssetsDefinition:
    """The asset of the sampling plan behind a stage of force labels, partitioned by batch."""
    stage, section = system.sampling.by_labels()[labels]
    specified = system.plan_of(labels)
    adaptive = isinstance(specified.bias, AdaptiveBias)
    key = asset_key(system, stage)

    @dg.asset(
        key=key,
        group_name=system.name,
        partitions_def=batches_of(system.name),
        code_version=CODE_VERSION,
        freshness_policy=freshness_of(system),
        kinds={"parquet", "openmm" if system.units == "molar" else "numba"},
        description=_UNBIASED if specified.bias is None else _BIASED,
        check_specs=checks.sampling_specs(key, specified),
    )
    def samples(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.figures.stages import equilibration_figure, sampling_figure
        from cg_assets.labels.next_batch import concrete_plan
        from cg_assets.labels.quality import check_equilibration
        from cg_assets.sampling.build import build_sampler
        from cg_assets.sampling.run import run_sampler

        batch = context.partition_key
        seed = seed_of(system.name, stage, batch)
        started = time.monotonic()
        files = store.open()
        centers, upstream = proposed_centers(files, system, section) if adaptive else (None, {})
        plan = concrete_plan(system, specified, centers)
        configurations = system.sampling.configurations_of(section)
        sections = ("model", "temperature", "mapping", "collective_variables", section)
        identity = f"{system.hash_of(*sections)}{upstream}{configurations or ''}"
        with files.pieces(system.name, stage, batch, identity, seed, CODE_VERSION) as pieces:
            sampler = build_sampler(system, plan, seed, snapshots=configurations)
            summary = run_sampler(sampler, pieces, log_progress(context.log))
            metadata = provenance(
                context,
                system,
                stage,
                CODE_VERSION,
                upstream=upstream,
                seed=seed,
                plan=plan.model_dump(mode="json"),
                bias=summary["bias"],
                kinetic_temperature=[summary["kinetic_temperature"], summary["kinetic_temperature_error"]],
            )
            snapshots = sampler.snapshots()
            if snapshots is not None:
                files.write_frames(snapshots, replace(metadata, stage=snapshot_stage(stage)), batch)
            pieces.finish(metadata)
        seconds = time.monotonic() - started
        frames = files.read_frames(system.name, stage, [batch])
        equilibration = None if plan.bias is None else check_equilibration(system, plan, frames)
        check_results = checks.judge_samples(system, plan, frames, summary, equilibration)
        mark_failed(files, frames, metadata, batch, check_results)
        record_in_catalogue(files, system, stage, batch)
        if snapshots is not None:
            record_in_catalogue(files, system, snapshot_stage(stage), batch)
        figures = {"figure": picture(sampling_figure(system, frames), "sampled collective variables")}
        if equilibration is not None:
            figures["conditional_equilibration"] = picture(
                equilibration_figure(system, plan, equilibration), "mean forces of replicas from different starts"
            )
        time_unit = unit("time", system.units)
        exchange = {name: summary[name] for name in _EXCHANGE if name in summary}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage, batch)),
            metadata=with_file(
                figures
                | {
                    "seed": seed,
                    "sampled_time": f"{summary['sampled_time']:g} {time_unit}",
                    "seconds": round(seconds, 2),
                    "device": "CPU",
                    **{name: str(value) for name, value in exchange.items()},
                    "kinetic_temperature": f"{summary['kinetic_temperature']:.5g} ± "
                    f"{summary['kinetic_temperature_error']:.2g} {unit('temperature', system.units)}",
                },
                files,
                system,
                stage,
                batch,
            ),
            check_results=check_results,
        )

    return samples
