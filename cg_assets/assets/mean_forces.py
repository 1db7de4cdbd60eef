"""`<name>_forces` of `sampling.mean_forces`: forces averaged at fixed beads, as labels of their own."""

import time

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.forces import mapped, read_samples
from cg_assets.assets.stage import (
    asset_key,
    mark_failed,
    picture,
    provenance,
    record_in_catalogue,
    with_file,
)
from cg_assets.core.units import unit
from cg_assets.orchestration.automation import batches_of
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.resources import StoreResource
from cg_assets.systems import SystemSpec, seed_of

CODE_VERSION = "1"


def build_mean_forces(system: SystemSpec, stage: str) -> dg.AssetsDefinition:
    """The asset of mean forces in configurations of one kind of samples, partitioned by batch."""
    mean_force, single = system.sampling.by_mean_force_labels()[stage]
    source, section = system.sampling.by_labels()[single]
    key = asset_key(system, stage)

    @dg.asset(
        key=key,
        deps=[asset_key(system, source)],
        group_name=system.name,
        partitions_def=batches_of(system.name),
        code_version=CODE_VERSION,
        kinds={"parquet", "openmm"},
        description=f"Beads of frames of {source}, each with the bead forces averaged over the motion of the other "
        "atoms at fixed beads, and the variance of the average (arXiv 2602.14531).",
        check_specs=checks.force_specs(key),
    )
    def mean_forces(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.figures.stages import label_noise_figure
        from cg_assets.labels.mean_forces import MeanForceSampler
        from cg_assets.labels.quality import LabelNoise
        from cg_assets.mapping.maps import build_map
        from cg_assets.mapping.run import fit_force_map
        from cg_assets.sampling.run import run_sampler

        batch = context.partition_key
        seed = seed_of(system.name, stage, batch)
        started = time.monotonic()
        files = store.open()
        samples, whole, read = read_samples(files, system, source, batch)
        upstream = files.upstream(*read)
        sections = ("model", "temperature", "mapping", section, f"sampling.mean_forces.{stage.removesuffix('_forces')}")
        identity = f"{system.hash_of(*sections)}{upstream}"
        force_map = fit_force_map(system, samples)
        with files.pieces(system.name, stage, batch, identity, seed, CODE_VERSION) as pieces:
            sampler = MeanForceSampler(system, mean_force, system.plan_of(stage), whole, force_map, seed)
            summary = run_sampler(sampler, pieces, log_progress(context.log))
            measured = summary["noise"]
            noise = LabelNoise(
                measured.noise_floor,
                f"scatter of {mean_force.samples} forces at fixed beads, {measured.effective_samples:.1f} of them "
                "independent, in each mean",
                beads=measured,
                bead_names=tuple(build_map(system).bead_names),
                map_kind=force_map.kind,
            )
            metadata = provenance(
                context,
                system,
                stage,
                CODE_VERSION,
                upstream=upstream,
                seed=seed,
                plan=mean_force.model_dump(mode="json"),
                bias=files.describe(system.name, source, batch).metadata.extra["bias"],
                force_map=force_map.to_json(),
                noise_floor=noise.to_json(),
            )
            metadata = mapped(metadata, system)
            pieces.finish(metadata)
        frames = files.read_frames(system.name, stage, [batch])
        check_results = checks.judge_forces(system, frames, force_map, noise)
        mark_failed(files, frames, metadata, batch, check_results)
        record_in_catalogue(files, system, stage, batch)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage, batch)),
            metadata=with_file(
                {
                    "figure": picture(label_noise_figure(system, noise), "noise of the mean forces"),
                    "seed": seed,
                    "sampled_time": f"{summary['sampled_time']:g} {unit('time', system.units)}",
                    "seconds": round(time.monotonic() - started, 2),
                    "device": "CPU",
                    "force_map": force_map.kind,
                    "noise_floor": str(noise.floor),
                    "independent_forces_in_a_mean": round(measured.effective_samples, 2),
                },
                files,
                system,
                stage,
                batch,
            ),
            check_results=check_results,
        )

    return mean_forces
