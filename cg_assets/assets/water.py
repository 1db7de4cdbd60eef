"""Water at many temperatures: `trajectories`, `conditional_samples` and `thermal_response_targets`."""

import math
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
from cg_assets.systems import ThermalSystem, seed_of
from cg_assets.systems.thermal_spec import CONDITIONAL_SAMPLES, TARGETS, TRAJECTORIES

if TYPE_CHECKING:
    from cg_assets.storage.schemas import FileMetadata

CODE_VERSION = "1"
CONDITIONAL_CODE_VERSION = "2"
TARGETS_CODE_VERSION = "4"

_FAILED_FRAMES = "failed_frames"
"""Key of a file's metadata: CG frames that failed their check, and why."""


def build_water_trajectories(system: ThermalSystem) -> dg.AssetsDefinition:
    """The asset of dynamics at several temperatures, partitioned by batch."""
    key = asset_key(system, TRAJECTORIES)
    plan, stage = system.sampling.reference, TRAJECTORIES

    @dg.asset(
        key=key,
        group_name=system.name,
        partitions_def=batches_of(system.name),
        code_version=CODE_VERSION,
        kinds={"parquet", "openmm"},
        description="Beads of free molecules at several temperatures, with the forces on them and the energy of the "
        "atoms; frames with all atoms beside, from each temperature.",
        check_specs=checks.water_trajectory_specs(key),
    )
    def trajectories(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.evaluation.liquid import by_temperature, structure_and_energy
        from cg_assets.evaluation.liquid_observables import angular_distribution, diffusion, heat_capacity
        from cg_assets.figures.plots_thermal import water_plot
        from cg_assets.sampling.run import run_sampler
        from cg_assets.sampling.water_reference import WaterReferenceSampler

        batch, started, files = context.partition_key, time.monotonic(), store.open()
        seed = seed_of(system.name, stage, batch)
        snapshots = system.sampling.conditional.frames
        identity = f"{system.hash_of('model', 'mapping', 'sampling.reference')}{snapshots}"
        with files.pieces(system.name, stage, batch, identity, seed, CODE_VERSION) as pieces:
            sampler = WaterReferenceSampler(system.water, plan, seed, snapshots)
            summary = run_sampler(sampler, pieces, log_progress(context.log))
            metadata = provenance(
                context, system, stage, CODE_VERSION, seed=seed, bias=None, plan=plan.model_dump(mode="json")
            )
            metadata = _of_beads(metadata, system)
            whole = sampler.snapshots()
            if whole is not None:
                files.write_frames(whole, replace(metadata, stage=snapshot_stage(stage), bead_types=None), batch)
            pieces.finish(metadata)
        frames = files.read_frames(system.name, stage, [batch])
        check_results = checks.judge_water_trajectories(system, frames, summary["kinetic_temperature"])
        mark_failed(files, frames, metadata, batch, check_results)
        for name in (stage, snapshot_stage(stage)):
            record_in_catalogue(files, system, name, batch)
        structure, energy = structure_and_energy(frames)
        parts, judged = by_temperature(frames), system.evaluation
        angles = {kelvin: angular_distribution(part, judged.neighbour_distance) for kelvin, part in parts.items()}
        kinetic = summary["kinetic_temperature"]
        rows = [
            {
                "temperature [K]": temperature,
                "kinetic temperature": str(measured),
                "energy per molecule": str(energy[temperature]),
                "heat capacity per molecule": str(heat_capacity(parts[temperature])),
                "diffusion": str(diffusion(parts[temperature], judged.longest_lag).coefficient),
            }
            for temperature, measured in zip(plan.temperatures, kinetic, strict=True)
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage, batch)),
            metadata=with_file(
                {
                    "figure": picture(
                        water_plot(structure, energy, angles, title=system.title), "structure and energy"
                    ),
                    "temperatures": table(rows),
                    "seed": seed,
                    "sampled_time": f"{summary['sampled_time']:g} ps",
                    "seconds": round(time.monotonic() - started, 2),
                    "device": summary["platform"],
                },
                files,
                system,
                stage,
                batch,
            ),
            check_results=check_results,
        )

    return trajectories


def build_conditional_samples(system: ThermalSystem) -> dg.AssetsDefinition:
    """The asset of samples at fixed beads, partitioned by batch."""
    key = asset_key(system, CONDITIONAL_SAMPLES)
    plan, stage = system.sampling.conditional, CONDITIONAL_SAMPLES
    limit = system.targets.max_disagreement

    @dg.asset(
        key=key,
        deps=[asset_key(system, TRAJECTORIES)],
        group_name=system.name,
        partitions_def=batches_of(system.name),
        code_version=CONDITIONAL_CODE_VERSION,
        kinds={"parquet", "openmm"},
        description="Energies and bead forces of the atoms at fixed beads, p(r | R; T): independent runs of each CG "
        "frame, each a ladder of temperatures with replica exchange (arXiv 2602.23198).",
        check_specs=checks.conditional_specs(key),
    )
    def conditional_samples(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.figures.plots_thermal import conditional_plot
        from cg_assets.labels.thermal.build_targets import check_frames
        from cg_assets.labels.thermal.differences import difference_test_of_sound
        from cg_assets.sampling.frozen_water import FrozenWaterSampler, choose_starts
        from cg_assets.sampling.run import run_sampler

        batch, started, files = context.partition_key, time.monotonic(), store.open()
        seed = seed_of(system.name, stage, batch)
        sound_batches(files, system, TRAJECTORIES, [batch])
        source = snapshot_stage(TRAJECTORIES)
        starts = choose_starts(files.read_frames(system.name, source, [batch]), plan.frames)
        upstream = files.upstream(f"{system.name}/{source}/{batch}")
        identity = f"{system.hash_of('model', 'mapping', 'sampling.conditional')}{upstream}"
        with files.pieces(system.name, stage, batch, identity, seed, CONDITIONAL_CODE_VERSION) as pieces:
            sampler = FrozenWaterSampler(system.water, plan, starts.positions, seed)
            summary = run_sampler(sampler, pieces, log_progress(context.log))
            metadata = provenance(
                context,
                system,
                stage,
                CONDITIONAL_CODE_VERSION,
                upstream=upstream,
                seed=seed,
                bias=None,
                plan=plan.model_dump(mode="json"),
                origin_temperature=starts.temperature.tolist(),
            )
            metadata = _of_beads(metadata, system)
            pieces.finish(metadata)
        frames = files.read_frames(system.name, stage, [batch])
        found = check_frames(frames)
        faults = {number: check.fault(limit) for number, check in found.items()}
        lowest = {number: check.sound_from(limit) for number, check in found.items()}
        failed = {str(number): faults[number] for number, kelvin in lowest.items() if not math.isfinite(kelvin)}
        metadata = replace(
            metadata,
            extra=metadata.extra
            | {_FAILED_FRAMES: failed, "frame_checks": {str(number): item.to_json() for number, item in found.items()}},
        )
        files.write_frames(frames, metadata, batch)
        test = difference_test_of_sound(frames, lowest)
        check_results = checks.judge_conditional(system, frames, summary, found, test)
        mark_failed(files, frames, metadata, batch, check_results)
        record_in_catalogue(files, system, stage, batch)
        figure = conditional_plot(found, test, limit, title=f"{system.title}: samples at fixed beads")
        ladder = next(iter(found.values())).temperatures
        rows = [
            {"frame": number, "of [K]": starts.temperature[number], "used from [K]": lowest[number]}
            | {"fault below": faults[number] or "none"}
            | {f"{at:g} K": f"{value:.2f}" for at, value in zip(ladder, check.disagreement, strict=True)}
            for number, check in found.items()
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage, batch)),
            metadata=with_file(
                {
                    "figure": picture(figure, "independent runs, energies, labels against differences"),
                    "difference_of_independent_runs": table(rows),
                    "slope_of_labels_on_differences": str(test.slope),
                    "exchange_acceptance": str(summary["exchange_acceptance"]),
                    "journeys_up_the_ladder": summary["journeys_up_the_ladder"],
                    "rotational_temperature_ratio": str(summary["rotational_temperature_ratio"]),
                    "largest_drift": f"{summary['largest_drift']:.2g} nm",
                    "seed": seed,
                    "sampled_time": f"{summary['sampled_time']:g} ps",
                    "seconds": round(time.monotonic() - started, 2),
                    "device": summary["platform"],
                },
                files,
                system,
                stage,
                batch,
            ),
            check_results=check_results,
        )

    return conditional_samples


def build_targets(system: ThermalSystem) -> dg.AssetsDefinition:
    """The asset of mean forces and their temperature derivatives, partitioned by batch."""
    key = asset_key(system, TARGETS)
    stage, wanted = TARGETS, system.targets

    @dg.asset(
        key=key,
        deps=[asset_key(system, CONDITIONAL_SAMPLES)],
        group_name=system.name,
        partitions_def=batches_of(system.name),
        code_version=TARGETS_CODE_VERSION,
        kinds={"parquet", "numpy"},
        description="Mean forces, their first and second derivatives in temperature, mean energies and heat capacities "
        "of the CG frames that passed their checks, each with its standard error (arXiv 2602.23198).",
        check_specs=checks.target_specs(key),
    )
    def thermal_response_targets(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.figures.plots_thermal import targets_plot
        from cg_assets.labels.thermal.build_targets import TABLE_UNITS, build_targets, check_frames

        batch, started, files = context.partition_key, time.monotonic(), store.open()
        sound_batches(files, system, CONDITIONAL_SAMPLES, [batch])
        samples = files.read_frames(system.name, CONDITIONAL_SAMPLES, [batch])
        facts = files.describe(system.name, CONDITIONAL_SAMPLES, batch).metadata.extra
        found = build_targets(
            samples,
            check_frames(samples),
            dict(enumerate(facts["origin_temperature"])),
            wanted.temperatures,
            wanted.max_disagreement,
            wanted.second_order,
            log_progress(context.log),
        )
        metadata = provenance(
            context,
            system,
            stage,
            TARGETS_CODE_VERSION,
            upstream=files.upstream(f"{system.name}/{CONDITIONAL_SAMPLES}/{batch}"),
            targets=wanted.model_dump(mode="json"),
            left_out=facts[_FAILED_FRAMES],
        )
        files.write_table(found.columns(), _of_beads(metadata, system), batch, TABLE_UNITS)
        record_in_catalogue(files, system, stage, batch)
        targets = found.targets
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage, batch)),
            metadata=with_file(
                {
                    "figure": picture(targets_plot(targets, title=system.title), "responses and their errors"),
                    "frames": len(set(targets.frame.tolist())),
                    "frames_left_out": len(facts[_FAILED_FRAMES]),
                    "least_effective_samples": round(float(found.effective_samples.min()), 1),
                    "largest_factor_on_errors": round(float(found.inflation.max()), 3),
                    "seconds": round(time.monotonic() - started, 2),
                    "device": "CPU",
                },
                files,
                system,
                stage,
                batch,
            ),
            check_results=checks.judge_targets(targets),
        )

    return thermal_response_targets


def _of_beads(metadata: "FileMetadata", system: ThermalSystem) -> "FileMetadata":
    """Metadata that say what the beads are."""
    water: dict[str, Any] = {"water": system.model.model_dump(mode="json"), "beads": system.mapping.beads}
    return replace(metadata, bead_types=["HHO"] * system.model.molecules, extra=metadata.extra | water)
