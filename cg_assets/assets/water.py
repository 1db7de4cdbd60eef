"""Water at many temperatures: `trajectories`, `conditional_samples` and `thermal_response_targets`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cg_assets.assets.common_checks import (
    FINITE,
    SCHEMA,
    TEMPERATURE_Z,
    schema_verdict,
    temperatures_verdict,
)
from cg_assets.assets.stage import (
    Batches,
    Figure,
    FrameContent,
    PieceContent,
    Product,
    Read,
    Report,
    Stage,
    Stored,
    TableContent,
)
from cg_assets.assets.work import Work, snapshot_stage
from cg_assets.core.checks import Check, Verdict, finite_verdict
from cg_assets.systems import ThermalSystem
from cg_assets.systems.thermal_spec import CONDITIONAL_SAMPLES, TARGETS, TRAJECTORIES

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.labels.thermal.differences import DifferenceTest
    from cg_assets.labels.thermal.frame_checks import FrameCheck
    from cg_assets.sampling.frozen_water import FrozenSummary
    from cg_assets.training.thermal_targets import ThermalTargets

MAX_DRIFT = 1e-5
"""Largest drift of a fixed bead in a nanosecond [nm]."""
TELLING_ERROR = 0.25
"""Standard error of the slope of labels on differences above which the slope is not determined."""
SLOPE_TOLERANCE = 0.05
"""Part by which labels may differ from finite differences, which curve between the rungs of a ladder."""
_FAILED_FRAMES = "failed_frames"
"""Key of a file's metadata: CG frames that failed their check, and why."""

TEMPERATURES = Check("kinetic_temperature", "The kinetic temperatures are those of the plan, within their errors.")
SAMPLES = Check(SCHEMA.name, "The file can be read back and holds the planned number of samples.")
ROTATIONS = Check("rotational_temperature", "Rotations have the temperature of the thermostat within 1 %.")
FIXED_BEADS = Check("fixed_beads", "No bead drifts by more than 1e-5 nm in a nanosecond.")
SOUND_FRAMES = Check("sound_frames", "At least one CG frame passes its checks; others are left out of the targets.")
INDEPENDENT_RUNS = Check(
    "independent_runs",
    "Independent runs of every CG frame agree on the mean forces, at every temperature.",
    blocking=False,
    warns=True,
)
HEAT_CAPACITY = Check(
    "heat_capacity",
    "In every CG frame the variance of the energy agrees with the rise of its mean with temperature.",
    blocking=False,
    warns=True,
)
DIFFERENCES = Check("labels_and_differences", "Covariance labels agree with mean-force differences of other runs.")
KNOWN_ERRORS = Check("known_errors", "Every target has a standard error above zero.")
CONCAVE = Check("concave", "No heat capacity is below zero: the free energy is concave in temperature.")


def _beads(system: ThermalSystem) -> tuple[list[str], dict[str, Any]]:
    """The beads in the metadata: their types, and facts."""
    facts = {"water": system.model.model_dump(mode="json"), "beads": system.mapping.beads}
    return ["HHO"] * system.model.molecules, facts


# --------------------------------------------------------------------------------------- dynamics


def water_trajectories_stage(system: ThermalSystem) -> Stage:
    """The stage of dynamics at several temperatures."""
    plan = system.sampling.reference

    def make(work: Work) -> Product:
        from cg_assets.sampling.water_reference import WaterReferenceSampler

        snapshots = system.sampling.conditional.frames
        pieces, sampler, summary = work.sample(
            "", lambda: WaterReferenceSampler(system.water, plan, work.seed, snapshots), work.seed
        )
        beads, facts = _beads(system)
        facts |= {"bias": None, "plan": plan.model_dump(mode="json")}
        if (whole := sampler.snapshots()) is not None:
            name = snapshot_stage(TRAJECTORIES)
            work.keep(FrameContent(whole), stage=name, batch=work.batch, seed=work.seed, facts=facts)
        kinetic = dict(zip(plan.temperatures, summary.kinetic_temperature, strict=True))
        found: dict[str, Frames] = {}

        def judge(stored: Stored) -> list[Verdict]:
            frames = found["frames"] = stored.frames()
            return [
                schema_verdict(frames, plan.replicas * plan.frames_per_replica),
                finite_verdict(FINITE, frames),
                temperatures_verdict(TEMPERATURES, kinetic),
            ]

        def report(_: object) -> Report:
            return _dynamics_report(system, found["frames"], kinetic) | {
                "seed": work.seed,
                "sampled_time": f"{summary.sampled_time:g} ps",
            }

        work.device = summary.platform
        return Product(PieceContent(pieces), facts, judge, report, work.seed, beads)

    return Stage(
        name=TRAJECTORIES,
        description="Beads of free molecules at several temperatures, with the forces on them and the energy of the "
        "atoms; some frames with all atoms in a file of their own, from each temperature.",
        make=make,
        checks=(SCHEMA, FINITE, TEMPERATURES),
        batched=True,
        kinds=frozenset({"parquet", "openmm"}),
        sections=("model", "mapping", "sampling.reference", "sampling.conditional.frames"),
        made_again=False,
    )


def _dynamics_report(system: ThermalSystem, frames: Frames, kinetic: Mapping[float, Estimate]) -> Report:
    from cg_assets.evaluation.distributions import by_temperature
    from cg_assets.evaluation.metrics.angles import angular_distribution
    from cg_assets.evaluation.metrics.diffusion import diffusion
    from cg_assets.evaluation.metrics.energies import heat_capacity
    from cg_assets.evaluation.metrics.rdf import structure_and_energy
    from cg_assets.figures.simulation import water_plot

    structure, energy = structure_and_energy(frames)
    parts, judged = by_temperature(frames), system.evaluation
    angles = {kelvin: angular_distribution(part, judged.neighbour_distance) for kelvin, part in parts.items()}
    rows = [
        {
            "temperature [K]": temperature,
            "kinetic temperature": str(measured),
            "energy per molecule": str(energy[temperature]),
            "heat capacity per molecule": str(heat_capacity(parts[temperature])),
            "diffusion": str(diffusion(parts[temperature], judged.longest_lag).coefficient),
        }
        for temperature, measured in kinetic.items()
    ]
    png = water_plot(structure, energy, angles, title=system.title)
    return {"figure": Figure(png, "structure and energy"), "temperatures": rows}


# --------------------------------------------------------------------------------------- samples at fixed beads


def judge_conditional(
    system: ThermalSystem,
    frames: Frames,
    summary: FrozenSummary,
    found: Mapping[int, FrameCheck],
    test: DifferenceTest,
) -> list[Verdict]:
    """Verdicts on one batch of samples at fixed beads."""
    from cg_assets.labels.thermal.frame_checks import MAX_HEAT_Z

    plan, limit = system.sampling.conditional, system.targets.max_disagreement
    expected = plan.frames * plan.runs * len(plan.temperatures) * round(plan.duration / plan.interval)
    ratio, slope = summary.rotational_temperature_ratio, test.slope
    drift_limit = MAX_DRIFT * max(1.0, (plan.relaxation + plan.duration) / 1000.0)
    sound = [math.isfinite(check.sound_from(limit)) for check in found.values()]
    disagreement = np.stack([check.disagreement for check in found.values()])
    heat = float(max(check.heat_z.max() for check in found.values()))
    by_temperature = np.sqrt((disagreement**2).mean(axis=0))
    faults = {f"frame_{number}": why for number, check in found.items() if (why := check.fault(limit))}
    at = {f"{kelvin:g} K": float(value) for kelvin, value in zip(plan.temperatures, by_temperature, strict=True)}
    return [
        SAMPLES.verdict(len(frames) == expected, samples=len(frames), planned=expected),
        finite_verdict(FINITE, frames),
        ROTATIONS.verdict(
            abs(ratio.value - 1) <= 0.01 + TEMPERATURE_Z * ratio.standard_error,
            measured_over_target=ratio.value,
            standard_error=ratio.standard_error,
        ),
        FIXED_BEADS.verdict(
            summary.largest_drift <= drift_limit,
            largest_drift=summary.largest_drift,
            limit=drift_limit,
            unit="nm",
        ),
        SOUND_FRAMES.verdict(any(sound), frames=len(sound), sound=sum(sound), **faults),
        INDEPENDENT_RUNS.verdict(bool((disagreement <= limit).all()), limit=limit, **at),
        HEAT_CAPACITY.verdict(heat <= MAX_HEAT_Z, largest_z=heat, limit=MAX_HEAT_Z),
        DIFFERENCES.verdict(
            abs(slope.value - 1) <= SLOPE_TOLERANCE + 4 * slope.standard_error,
            slope=slope.value,
            standard_error=slope.standard_error,
            tolerance=SLOPE_TOLERANCE,
            samples_can_tell=slope.standard_error < TELLING_ERROR,
        ),
    ]


def conditional_samples_stage(system: ThermalSystem) -> Stage:
    """The stage of samples at fixed beads."""
    plan, limit = system.sampling.conditional, system.targets.max_disagreement

    def make(work: Work) -> Product:
        from cg_assets.labels.thermal.build_targets import check_frames
        from cg_assets.labels.thermal.differences import difference_test_of_sound
        from cg_assets.sampling.frozen_water import FrozenWaterSampler, choose_starts

        (batch,) = work.inputs.sound(TRAJECTORIES, [str(work.batch)])
        starts = choose_starts(work.inputs.frames(snapshot_stage(TRAJECTORIES), batch), plan.frames)
        pieces, _, summary = work.sample(
            "", lambda: FrozenWaterSampler(system.water, plan, starts.positions, work.seed), work.seed
        )
        frames = pieces.frames()
        found = check_frames(frames)
        faults = {number: check.fault(limit) for number, check in found.items()}
        lowest = {number: check.sound_from(limit) for number, check in found.items()}
        test = difference_test_of_sound(frames, lowest)
        beads, facts = _beads(system)
        facts |= {
            "bias": None,
            "plan": plan.model_dump(mode="json"),
            "origin_temperature": starts.temperature.tolist(),
            _FAILED_FRAMES: {str(n): faults[n] for n, kelvin in lowest.items() if not math.isfinite(kelvin)},
            "frame_checks": {str(number): item.to_json() for number, item in found.items()},
        }

        def report(_: object) -> Report:
            from cg_assets.figures.thermal import conditional_plot

            png = conditional_plot(found, test, limit, title=f"{system.title}: samples at fixed beads")
            ladder = next(iter(found.values())).temperatures
            rows = [
                {"frame": number, "of [K]": starts.temperature[number], "used from [K]": lowest[number]}
                | {"fault below": faults[number] or "none"}
                | {f"{at:g} K": f"{value:.2f}" for at, value in zip(ladder, check.disagreement, strict=True)}
                for number, check in found.items()
            ]
            return {
                "figure": Figure(png, "independent runs, energies, labels against differences"),
                "difference_of_independent_runs": rows,
                "slope_of_labels_on_differences": str(test.slope),
                "exchange_acceptance": str(summary.exchange_acceptance),
                "journeys_up_the_ladder": summary.journeys_up_the_ladder,
                "rotational_temperature_ratio": str(summary.rotational_temperature_ratio),
                "largest_drift": f"{summary.largest_drift:.2g} nm",
                "seed": work.seed,
                "sampled_time": f"{summary.sampled_time:g} ps",
            }

        def judge(stored: Stored) -> list[Verdict]:
            return judge_conditional(system, stored.frames(), summary, found, test)

        work.device = summary.platform
        return Product(PieceContent(pieces), facts, judge, report, work.seed, beads)

    return Stage(
        name=CONDITIONAL_SAMPLES,
        description="Energies and bead forces of the atoms at fixed beads, p(r | R; T): independent runs of each CG "
        "frame, each a ladder of temperatures with replica exchange (arXiv 2602.23198).",
        make=make,
        reads=(Read(TRAJECTORIES, Batches.SAME),),
        checks=(
            *(SAMPLES, FINITE, ROTATIONS, FIXED_BEADS, SOUND_FRAMES, INDEPENDENT_RUNS, HEAT_CAPACITY, DIFFERENCES),
        ),
        batched=True,
        kinds=frozenset({"parquet", "openmm"}),
        code_version="2",
        sections=("sampling.conditional", "targets.max_disagreement"),
    )


# --------------------------------------------------------------------------------------- targets


def judge_targets(targets: ThermalTargets) -> list[Verdict]:
    """Verdicts on one batch of targets."""
    errors = {name: values for name, values in targets.columns().items() if name.endswith("_error")}
    unknown = {name: int((values <= 0).sum()) for name, values in errors.items()}
    lowest = float(targets.heat_capacity.min())
    return [
        KNOWN_ERRORS.verdict(not any(unknown.values()), **{f"{name}_zero": count for name, count in unknown.items()}),
        CONCAVE.verdict(lowest >= 0, lowest_heat_capacity=lowest, unit="kJ/mol/K"),
    ]


def targets_stage(system: ThermalSystem) -> Stage:
    """The stage of mean forces and their temperature derivatives."""
    wanted = system.targets

    def make(work: Work) -> Product:
        from cg_assets.labels.thermal.build_targets import TABLE_UNITS, build_targets, check_frames

        (batch,) = work.inputs.sound(CONDITIONAL_SAMPLES, [str(work.batch)])
        samples, sampled = work.inputs.frames(CONDITIONAL_SAMPLES, batch), work.inputs.facts(CONDITIONAL_SAMPLES, batch)
        found = build_targets(
            samples,
            check_frames(samples),
            dict(enumerate(sampled["origin_temperature"])),
            wanted.temperatures,
            wanted.max_disagreement,
            wanted.second_order,
            work.progress,
        )
        left_out = sampled[_FAILED_FRAMES]
        beads, facts = _beads(system)
        facts |= {"targets": wanted.model_dump(mode="json"), "left_out": left_out}

        def report(_: object) -> Report:
            from cg_assets.figures.thermal import targets_plot

            return {
                "figure": Figure(targets_plot(found.targets, title=system.title), "responses and their errors"),
                "frames": len(set(found.targets.frame.tolist())),
                "frames_left_out": len(left_out),
                "least_effective_samples": round(float(found.effective_samples.min()), 1),
                "largest_factor_on_errors": round(float(found.inflation.max()), 3),
            }

        content = TableContent(found.columns(), TABLE_UNITS)
        return Product(content, facts, lambda _: judge_targets(found.targets), report, bead_types=beads)

    return Stage(
        name=TARGETS,
        description="Mean forces, their first and second derivatives in temperature, mean energies and heat capacities "
        "of the CG frames that passed their checks, each with its standard error (arXiv 2602.23198).",
        make=make,
        reads=(Read(CONDITIONAL_SAMPLES, Batches.SAME),),
        checks=(KNOWN_ERRORS, CONCAVE),
        batched=True,
        kinds=frozenset({"parquet", "numpy"}),
        code_version="4",
        sections=("targets",),
    )
