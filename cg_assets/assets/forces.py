"""`mapped_forces`, `relabelled_forces`, `<plan>_forces`: beads, and the forces that their potential is trained on."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.stage import (
    asset_key,
    mark_failed,
    picture,
    provenance,
    record_in_catalogue,
    snapshot_stage,
    sound_batches,
    table,
    with_file,
)
from cg_assets.orchestration.automation import batches_of
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.resources import StoreResource
from cg_assets.storage.schemas import FileMetadata
from cg_assets.systems import SystemSpec, seed_of

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.storage.store import ParquetStore

CODE_VERSION = "1"

_BINS = 24
"""Bins along each collective variable in the figure of label errors."""
_UNBIASED = "Beads and bead forces of the unbiased frames."
_BIASED = (
    "Beads and bead forces of the biased frames: the forces are those without the bias, so their mean at given beads "
    "is the mean force (arXiv 2510.11148)."
)


def build_forces(system: SystemSpec, stage: str) -> dg.AssetsDefinition:
    """The asset of CG frames made from one kind of samples, partitioned by batch."""
    source, _ = system.sampling.by_labels()[stage]
    key = asset_key(system, stage)

    @dg.asset(
        key=key,
        deps=[asset_key(system, source)],
        group_name=system.name,
        partitions_def=batches_of(system.name),
        code_version=CODE_VERSION,
        kinds={"parquet", "numpy"},
        description=_UNBIASED if system.plan_of(stage).bias is None else _BIASED,
        check_specs=checks.force_specs(key),
    )
    def forces(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.evaluation.torque_surface import has_torque_surface, torque_surface
        from cg_assets.figures.stages import label_errors_figure, label_noise_figure, torque_surface_figure
        from cg_assets.labels.label_errors import label_errors, variable_bins
        from cg_assets.labels.quality import measure_label_noise
        from cg_assets.mapping.force_maps import ForceMap
        from cg_assets.mapping.run import fit_force_map, map_frames

        batch = context.partition_key
        started = time.monotonic()
        files = store.open()
        samples, whole, read = read_samples(files, system, source, batch)
        force_map = fit_force_map(system, samples)
        frames = map_frames(system, samples, force_map)
        seed = seed_of(system.name, stage, batch)
        noise = measure_label_noise(system, whole, frames, force_map, seed, log_progress(context.log))
        metadata = provenance(
            context,
            system,
            stage,
            CODE_VERSION,
            upstream=files.upstream(*read),
            seed=seed,
            bias=files.describe(system.name, source, batch).metadata.extra["bias"],
            force_map=force_map.to_json(),
            noise_floor=noise.to_json(),
        )
        metadata = mapped(metadata, system)
        files.write_frames(frames, metadata, batch)
        check_results = checks.judge_forces(
            system,
            files.read_frames(system.name, stage, [batch]),
            ForceMap.from_json(files.describe(system.name, stage, batch).metadata.extra["force_map"]),
            noise,
        )
        mark_failed(files, frames, metadata, batch, check_results)
        record_in_catalogue(files, system, stage, batch)
        report: dict[str, Any] = {"figure": picture(label_noise_figure(system, noise), "noise of the force labels")}
        if rows := noise.map_rows():
            report["force_maps"] = table(rows)
        if system.collective_variables:
            names = system.evaluation.collective_variables
            errors = label_errors(system, names, variable_bins(system, names, _BINS), [frames])
            report["label_errors"] = picture(label_errors_figure(system, errors), "errors of the mean force")
            report["weight_share"] = f"{errors.weight_share:.3g} of the frames count after reweighting"
        if has_torque_surface(system):
            surface = torque_surface(system, [frames], variable_bins(system, names, system.evaluation.bins))
            report["free_energy"] = picture(torque_surface_figure(system, surface), "free energy from the forces")
            for name, basin in system.evaluation.basins.items():
                report[f"free_energy_{name}"] = str(surface.basin_free_energy(basin.limits))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage, batch)),
            metadata=with_file(
                report
                | {
                    "seconds": round(time.monotonic() - started, 2),
                    "device": "CPU",
                    "force_map": force_map.kind,
                    "noise_floor": str(noise.floor),
                },
                files,
                system,
                stage,
                batch,
            ),
            check_results=check_results,
        )

    return forces


def read_samples(
    files: "ParquetStore", system: SystemSpec, source: str, batch: str
) -> tuple["Frames", "Frames", list[str]]:
    """A sound batch of samples without probes, those of its frames that hold all atoms, and the data keys of both.

    Raises:
        StorageError: the batch failed its checks.
    """
    samples = files.read_frames(system.name, source, sound_batches(files, system, source, [batch]))
    samples = samples.select(~samples.probe)
    keys, stored = [f"{system.name}/{source}/{batch}"], snapshot_stage(source)
    if batch not in files.batches(system.name, stored):
        return samples, samples, keys
    return samples, files.read_frames(system.name, stored, [batch]), [*keys, f"{system.name}/{stored}/{batch}"]


def mapped(metadata: FileMetadata, system: SystemSpec) -> FileMetadata:
    """Metadata with the CG map that made the beads."""
    from cg_assets.mapping.maps import build_map

    cg_map = build_map(system)
    extra = metadata.extra | {"cg_map": cg_map.to_json()}
    return replace(metadata, bead_types=list(cg_map.bead_names), map_hash=cg_map.hash, extra=extra)
