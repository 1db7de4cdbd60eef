"""Thermal response of a liquid or a molecule: `conditional_samples`, and `thermal_response_targets` made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cg_assets.assets.common_checks import (
    FINITE,
    SCHEMA,
    TEMPERATURE_Z,
)
from cg_assets.assets.stage import (
    Batches,
    Figure,
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
from cg_assets.systems import SystemSpec
from cg_assets.training.settings import TARGETS, TRAJECTORIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cg_assets.core.frames import Frames
    from cg_assets.labels.thermal.differences import DifferenceTest
    from cg_assets.labels.thermal.frame_checks import FrameCheck
    from cg_assets.labels.thermal.settings import Targets
    from cg_assets.sampling.fixed_bead_ladders import FixedBeadSummary
    from cg_assets.sampling.settings import ConditionalSampling
    from cg_assets.training.thermal_targets import ThermalTargets

CONDITIONAL_SAMPLES = "conditional_samples"
"""Stage of samples at fixed beads."""
MAX_DRIFT = 1e-5
"""Largest drift of a fixed bead in a nanosecond [nm]."""
TELLING_ERROR = 0.25
"""Standard error of the slope of labels on differences above which the slope is not determined."""
SLOPE_TOLERANCE = 0.05
"""Part by which labels may differ from finite differences, which curve between the rungs of a ladder."""
_FAILED_FRAMES = "failed_frames"
"""Key of a file's metadata: CG frames that failed their check, and why."""

_SHORTER_STEP = "use a shorter step"
_LONGER_RUNS = "make the runs at fixed beads longer"
SAMPLES = Check(SCHEMA.name, "The file can be read back and holds the planned number of samples.", remedy=SCHEMA.remedy)
TEMPERATURE = Check(
    "kinetic_temperature", "What moves has the temperature of the thermostat within 1 %.", remedy=_SHORTER_STEP
)
FIXED_BEADS = Check("fixed_beads", "No bead drifts by more than 1e-5 nm in a nanosecond.", remedy=_SHORTER_STEP)
SOUND_FRAMES = Check(
    "sound_frames",
    "At least one CG frame passes its checks; others are left out of the targets.",
    remedy=_LONGER_RUNS,
)
INDEPENDENT_RUNS = Check(
    "independent_runs",
    "Independent runs of every CG frame agree on the mean forces, at every temperature.",
    blocking=False,
    warns=True,
    remedy=_LONGER_RUNS,
)
HEAT_CAPACITY = Check(
    "heat_capacity",
    "In every CG frame the variance of the energy agrees with the rise of its mean with temperature.",
    blocking=False,
    warns=True,
    remedy=_LONGER_RUNS,
)
DIFFERENCES = Check(
    "labels_and_differences",
    "Covariance labels agree with mean-force differences of other runs.",
    remedy=_LONGER_RUNS,
)
CONDITIONAL = (SAMPLES, FINITE, TEMPERATURE, FIXED_BEADS, SOUND_FRAMES, INDEPENDENT_RUNS, HEAT_CAPACITY, DIFFERENCES)
"""Of samples at fixed beads."""
KNOWN_ERRORS = Check("known_errors", "Every target has a standard error above zero.", remedy=_LONGER_RUNS)
CONCAVE = Check(
    "concave", "No heat capacity is below zero: the free energy is concave in temperature.", remedy=_LONGER_RUNS
)


# --------------------------------------------------------------------------------------- samples at fixed beads


def judge_conditional(
    plan: ConditionalSampling,
    limit: float,
    frames: Frames,
    summary: FixedBeadSummary,
    found: Mapping[int, FrameCheck],
    test: DifferenceTest,
) -> list[Verdict]:
    """Verdicts on one batch of samples at fixed beads; independent runs may differ by `limit` standard errors."""
    from cg_assets.labels.thermal.frame_checks import MAX_HEAT_Z

    expected = plan.frames * plan.runs * len(plan.temperatures) * round(plan.duration / plan.interval)
    ratio, slope = summary.kinetic_temperature_ratio, test.slope
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
        TEMPERATURE.verdict(
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


def _rows(found: Mapping[int, FrameCheck], origins: NDArray[np.float64], limit: float) -> list[dict[str, object]]:
    """A row for each CG frame: where it comes from, from where up it is used, and how far its runs disagree."""
    return [
        {"frame": number, "of [K]": origins[number], "used from [K]": check.sound_from(limit)}
        | {"fault below": check.fault(limit) or "none"}
        | {f"{at:g} K": f"{value:.2f}" for at, value in zip(check.temperatures, check.disagreement, strict=True)}
        for number, check in found.items()
    ]


def conditional_samples_stage(system: SystemSpec, plan: ConditionalSampling, limit: float) -> Stage:
    """The stage of samples at fixed beads, whose independent runs may differ by `limit` standard errors."""

    def make(work: Work) -> Product:
        from cg_assets.labels.thermal.build_targets import check_frames
        from cg_assets.labels.thermal.differences import difference_test_of_sound
        from cg_assets.sampling.fixed_bead_ladders import FixedBeadLadders, choose_starts

        (batch,) = work.inputs.sound(TRAJECTORIES, [str(work.batch)])
        snapshots = snapshot_stage(TRAJECTORIES)
        of_atoms = snapshots if work.inputs.has(snapshots, batch) else TRAJECTORIES
        whole = work.inputs.frames(of_atoms, batch, every_temperature=True)
        samples = work.inputs.frames(TRAJECTORIES, batch) if system.mapping.needs_frames else None
        starts = choose_starts(whole.select(~whole.probe), plan.frames)
        held = system.held_beads(samples, starts)
        pieces, _, summary = work.sample("", lambda: FixedBeadLadders(held, plan, work.seed), work.seed)
        frames = pieces.frames()
        found = check_frames(frames)
        faults = {number: check.fault(limit) for number, check in found.items()}
        lowest = {number: check.sound_from(limit) for number, check in found.items()}
        test = difference_test_of_sound(frames, lowest)
        facts = {
            "bias": None,
            "plan": plan.model_dump(mode="json"),
            "origin_temperature": starts.temperature.tolist(),
            _FAILED_FRAMES: {str(n): faults[n] for n, kelvin in lowest.items() if not math.isfinite(kelvin)},
            "frame_checks": {str(number): item.to_json() for number, item in found.items()},
            **held.facts,
        }

        def report(_: object) -> Report:
            from cg_assets.figures.thermal import conditional_plot

            png = conditional_plot(found, test, limit, title=f"{system.title}: samples at fixed beads")
            return {
                "figure": Figure(png, "independent runs, energies, labels against differences"),
                "difference_of_independent_runs": _rows(found, starts.temperature, limit),
                "slope_of_labels_on_differences": str(test.slope),
                "exchange_acceptance": str(summary.exchange_acceptance),
                "journeys_up_the_ladder": summary.journeys_up_the_ladder,
                "kinetic_temperature_ratio": str(summary.kinetic_temperature_ratio),
                "largest_drift": f"{summary.largest_drift:.2g} nm",
                "seed": work.seed,
                "sampled_time": f"{summary.sampled_time:g} ps",
            }

        def judge(stored: Stored) -> list[Verdict]:
            return judge_conditional(plan, limit, stored.frames(), summary, found, test)

        work.device = summary.platform
        return Product(PieceContent(pieces), facts, judge, report, work.seed, system.beads().cg_map.bead_elements)

    return Stage(
        name=CONDITIONAL_SAMPLES,
        description="Energies and bead forces of the atoms at fixed beads, p(r | R; T): independent runs of each CG "
        "frame, each a ladder of temperatures with replica exchange (arXiv 2602.23198).",
        make=make,
        reads=(Read(TRAJECTORIES, Batches.SAME),),
        checks=CONDITIONAL,
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


def targets_stage(system: SystemSpec, wanted: Targets) -> Stage:
    """The stage of mean forces and their temperature derivatives."""

    def make(work: Work) -> Product:
        from cg_assets.labels.thermal.build_targets import TABLE_UNITS, build_targets, check_frames

        (batch,) = work.inputs.sound(CONDITIONAL_SAMPLES, [str(work.batch)])
        samples = work.inputs.frames(CONDITIONAL_SAMPLES, batch, every_temperature=True)
        sampled = work.inputs.facts(CONDITIONAL_SAMPLES, batch)
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
        facts = {"targets": wanted.model_dump(mode="json"), "left_out": left_out}

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
        molecules = system.beads().cg_map.bead_elements
        return Product(content, facts, lambda _: judge_targets(found.targets), report, bead_types=molecules)

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
