"""The checks of each stage: what they are called, and how results become their verdicts.

A check runs inside the step that makes its asset, on the data as they are read back from the finished file, so that it
costs no further process. A failed blocking check keeps everything downstream from running.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from cg_assets.core.units import unit
from cg_assets.labels.settings import FlowKernel, Kernel
from cg_assets.mapping.settings import LinearMapping
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.systems.spec import SystemSpec
from cg_assets.systems.thermal_spec import ThermalSystem

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.statistics.equilibration import ConditionalEquilibration
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.evaluation.evaluation import EvaluationResult
    from cg_assets.evaluation.liquid_evaluation import LiquidEvaluation
    from cg_assets.labels.kernels.run import KernelReport
    from cg_assets.labels.quality import LabelNoise
    from cg_assets.labels.thermal.differences import DifferenceTest
    from cg_assets.labels.thermal.frame_checks import FrameCheck
    from cg_assets.mapping.force_maps import ForceMap
    from cg_assets.simulation.liquid import LiquidSimulation
    from cg_assets.simulation.run import CGSimulationResult
    from cg_assets.training.prior_simulation import PriorSimulation
    from cg_assets.training.priors import PriorFit
    from cg_assets.training.thermal_targets import ThermalTargets
    from cg_assets.training.training_run import TrainingResult

TEMPERATURE_Z = 5.0
"""Standard errors by which a kinetic temperature may miss its target, beyond the integrator's own 1 %."""
MAX_STEIN_Z = 4.5
"""Largest of 60 standard normal numbers that passes: right labels are above it once in 2,500 batches."""
MAX_LOCAL_DIVERGENCE = 0.02
"""Largest Jensen-Shannon divergence of bonds and 1-3 distances that passes."""
MAX_DRIFT = 1e-5
"""Largest drift of a fixed bead in a nanosecond [nm]."""
TELLING_ERROR = 0.25
"""Standard error of the slope of labels on differences beyond which few samples tell nothing of it."""
SLOPE_TOLERANCE = 0.05
"""Part by which labels may differ from finite differences, which curve between the rungs of a ladder."""


def _spec(key: dg.AssetKey, name: str, description: str, blocking: bool = True) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=key, description=description, blocking=blocking)


def _result(name: str, passed: bool, metadata: dict[str, Any], warn: bool = False) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(check_name=name, passed=bool(passed), severity=severity, metadata=metadata)


# --------------------------------------------------------------------------------------- samples


def sampling_specs(key: dg.AssetKey, plan: SamplingPlan) -> list[dg.AssetCheckSpec]:
    """Checks of `trajectories` and `biased_samples`."""
    specs = [
        _spec(key, "schema", "The file can be read back and holds as many frames as the plan asks for."),
        _spec(key, "finite", "Every position, force and energy is a finite number."),
        _spec(key, "kinetic_temperature", "The kinetic temperature is that of the system, within its error."),
    ]
    if plan.bias is not None:
        text = (
            "Replicas from different starts agree on the mean force in each bin of the collective variables: what the "
            "bias does not drive has come to equilibrium."
        )
        specs.append(_spec(key, "conditional_equilibration", text))
    return specs


def judge_samples(
    system: SystemSpec,
    plan: SamplingPlan,
    frames: Frames,
    summary: dict[str, Any],
    equilibration: ConditionalEquilibration | None,
) -> list[dg.AssetCheckResult]:
    """Verdicts of the checks of one batch of samples."""
    replicas = plan.kept_replicas + (plan.probe.replicas if plan.probe else 0)
    expected = replicas * plan.frames_per_replica
    results = [
        _result("schema", len(frames) == expected, {"frames": len(frames), "planned": expected}),
        _finite(frames),
        _temperature(system, summary["kinetic_temperature"], summary["kinetic_temperature_error"]),
    ]
    if equilibration is not None:
        results.append(
            _result("conditional_equilibration", equilibration.passed, _without_nothing(equilibration.to_json()))
        )
    return results


def _finite(frames: Frames) -> dg.AssetCheckResult:
    arrays = {
        "positions": frames.positions,
        "forces": frames.forces,
        "potential_energy": frames.potential_energy,
        "bias_energy": frames.bias_energy,
    }
    bad = {name: int((~np.isfinite(array)).sum()) for name, array in arrays.items() if array is not None}
    return _result("finite", not any(bad.values()), {f"{name}_not_finite": count for name, count in bad.items()})


def _temperature(system: SystemSpec, value: float, error: float) -> dg.AssetCheckResult:
    allowed = TEMPERATURE_Z * error + 0.01 * system.temperature
    return _result(
        "kinetic_temperature",
        math.isfinite(value) and abs(value - system.temperature) <= allowed,
        {
            "kinetic_temperature": value,
            "standard_error": error,
            "target": system.temperature,
            "unit": unit("temperature", system.units),
        },
    )


def import_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of `imported_beads`."""
    return [
        _spec(key, "finite", "Every position is a finite number."),
        _spec(key, "frames_differ", "No frame is that before it: a trajectory was not written twice, nor stood still."),
    ]


def judge_import(blocks: Iterable[Frames]) -> list[dg.AssetCheckResult]:
    """Verdicts of the checks of one batch of imported frames, which come in blocks: they may not fit into memory."""
    bad = same = 0
    last = None
    for frames in blocks:
        positions = frames.positions if last is None else np.concatenate([last, frames.positions])
        bad += int((~np.isfinite(frames.positions)).sum())
        same += int((positions[1:] == positions[:-1]).all(axis=(1, 2)).sum())
        last = positions[-1:]
    return [
        _result("finite", not bad, {"positions_not_finite": bad}),
        _result("frames_differ", not same, {"frames_like_the_one_before": same}),
    ]


# --------------------------------------------------------------------------------------- force labels


def force_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of `mapped_forces` and `relabelled_forces`."""
    return [
        _spec(key, "finite", "Every bead position and force is a finite number."),
        _spec(key, "force_map", "The force map has the mean force as its conditional mean under the constraints."),
        _spec(key, "noise_floor", "The noise floor of the labels is known to 10 % and below their mean square."),
    ]


def judge_forces(
    system: SystemSpec, frames: Frames, force_map: ForceMap, noise: LabelNoise
) -> list[dg.AssetCheckResult]:
    """Verdicts of the checks of one batch of force labels, as it stands in its file."""
    from cg_assets.mapping.run import force_map_fault

    fault = force_map_fault(system, force_map)
    floor = noise.floor
    forces = np.asarray(frames.forces, dtype=np.float64)
    mean_square = float((forces**2).mean())
    known = math.isfinite(floor.value) and floor.standard_error <= 0.1 * floor.value + 1e-12
    return [
        _finite(frames),
        _result("force_map", not fault, {"kind": force_map.kind, "hash": force_map.hash, "fault": fault or "none"}),
        _result(
            "noise_floor",
            known and floor.value <= mean_square,
            {
                "noise_floor": floor.value,
                "standard_error": floor.standard_error,
                "mean_square_force": mean_square,
                "unit": floor.unit,
                "method": noise.method,
            },
        ),
    ]


# --------------------------------------------------------------------------------------- water


def water_trajectory_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of the `trajectories` of water."""
    return [
        _spec(key, "schema", "The file can be read back and holds as many frames as the plan asks for."),
        _spec(key, "finite", "Every position, force and energy is a finite number."),
        _spec(key, "kinetic_temperature", "The kinetic temperatures are those of the plan, within their errors."),
    ]


def judge_water_trajectories(
    system: ThermalSystem, frames: Frames, kinetic: list[Estimate]
) -> list[dg.AssetCheckResult]:
    """Verdicts of the checks of one batch."""
    plan = system.sampling.reference
    expected = plan.replicas * plan.frames_per_replica
    return [
        _result("schema", len(frames) == expected, {"frames": len(frames), "planned": expected}),
        _finite(frames),
        _temperatures(dict(zip(plan.temperatures, kinetic, strict=True))),
    ]


def _temperatures(kinetic: Mapping[float, Estimate]) -> dg.AssetCheckResult:
    """Whether kinetic temperatures are those that they should be [K], within their errors."""
    right = [
        abs(item.value - target) <= TEMPERATURE_Z * item.standard_error + 0.01 * target
        for target, item in kinetic.items()
    ]
    return _result("kinetic_temperature", all(right), {f"{target:g} K": str(item) for target, item in kinetic.items()})


def conditional_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of `conditional_samples`."""
    return [
        _spec(key, "schema", "The file can be read back and holds as many samples as the plan asks for."),
        _spec(key, "finite", "Every position, force and energy is a finite number."),
        _spec(key, "rotational_temperature", "Rotations have the temperature of the thermostat within 1 %."),
        _spec(key, "fixed_beads", "No bead drifts by more than 1e-5 nm in a nanosecond."),
        _spec(key, "sound_frames", "At least one CG frame passes its checks; what fails reaches no target."),
        _spec(
            key,
            "independent_runs",
            "Independent runs of every CG frame agree on the mean forces, at every temperature.",
            blocking=False,
        ),
        _spec(
            key,
            "heat_capacity",
            "In every CG frame the variance of the energy is the heat capacity by which its mean grows.",
            blocking=False,
        ),
        _spec(key, "labels_and_differences", "Covariance labels are the differences of mean forces of other runs."),
    ]


def judge_conditional(
    system: ThermalSystem,
    frames: Frames,
    summary: dict[str, Any],
    found: Mapping[int, FrameCheck],
    test: DifferenceTest,
) -> list[dg.AssetCheckResult]:
    """Verdicts of the checks of one batch of samples at fixed beads."""
    from cg_assets.labels.thermal.frame_checks import MAX_HEAT_Z

    plan, limit = system.sampling.conditional, system.targets.max_disagreement
    expected = plan.frames * plan.runs * len(plan.temperatures) * round(plan.duration / plan.interval)
    ratio, slope = summary["rotational_temperature_ratio"], test.slope
    drift_limit = MAX_DRIFT * max(1.0, (plan.relaxation + plan.duration) / 1000.0)
    lowest = {number: check.sound_from(limit) for number, check in found.items()}
    disagreement = np.stack([check.disagreement for check in found.values()])
    heat = float(max(check.heat_z.max() for check in found.values()))
    by_temperature = np.sqrt((disagreement**2).mean(axis=0))
    return [
        _result("schema", len(frames) == expected, {"samples": len(frames), "planned": expected}),
        _finite(frames),
        _result(
            "rotational_temperature",
            abs(ratio.value - 1) <= 0.01 + TEMPERATURE_Z * ratio.standard_error,
            {"measured_over_target": ratio.value, "standard_error": ratio.standard_error},
        ),
        _result(
            "fixed_beads",
            summary["largest_drift"] <= drift_limit,
            {"largest_drift": summary["largest_drift"], "limit": drift_limit, "unit": "nm"},
        ),
        _result(
            "sound_frames",
            any(math.isfinite(kelvin) for kelvin in lowest.values()),
            {"frames": len(lowest), "sound": sum(math.isfinite(kelvin) for kelvin in lowest.values())}
            | {f"frame_{number}": why for number, check in found.items() if (why := check.fault(limit))},
        ),
        _result(
            "independent_runs",
            bool((disagreement <= limit).all()),
            {"limit": limit}
            | {f"{at:g} K": float(value) for at, value in zip(plan.temperatures, by_temperature, strict=True)},
            warn=True,
        ),
        _result("heat_capacity", heat <= MAX_HEAT_Z, {"largest_z": heat, "limit": MAX_HEAT_Z}, warn=True),
        _result(
            "labels_and_differences",
            abs(slope.value - 1) <= SLOPE_TOLERANCE + 4 * slope.standard_error,
            {
                "slope": slope.value,
                "standard_error": slope.standard_error,
                "tolerance": SLOPE_TOLERANCE,
                "samples_can_tell": slope.standard_error < TELLING_ERROR,
            },
        ),
    ]


def target_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of `thermal_response_targets`."""
    return [
        _spec(key, "known_errors", "Every target has a standard error above zero."),
        _spec(key, "concave", "No heat capacity is below zero: the free energy is concave in temperature."),
    ]


def judge_targets(targets: ThermalTargets) -> list[dg.AssetCheckResult]:
    """Verdicts of the checks of one batch of targets."""
    errors = {name: values for name, values in targets.columns().items() if name.endswith("_error")}
    unknown = {name: int((values <= 0).sum()) for name, values in errors.items()}
    lowest = float(targets.heat_capacity.min())
    return [
        _result("known_errors", not any(unknown.values()), {f"{name}_zero": count for name, count in unknown.items()}),
        _result("concave", lowest >= 0, {"lowest_heat_capacity": lowest, "unit": "kJ/mol/K"}),
    ]


# --------------------------------------------------------------------------------------- kernels


def kernel_specs(key: dg.AssetKey, kernel: Kernel) -> list[dg.AssetCheckSpec]:
    """Checks of `<name>_kernel_forces`."""
    flow = isinstance(kernel, FlowKernel)
    return [
        _spec(key, "finite", "Every bead position and force is a finite number."),
        _spec(key, "stein_identity", "The labels have the mean force of the perturbed configurations as their mean."),
        _spec(key, "local_geometry", "Bonds and 1-3 distances are distributed as in the data.", blocking=flow),
    ]


def judge_kernel(kernel: Kernel, frames: Frames, report: KernelReport) -> list[dg.AssetCheckResult]:
    """Verdicts of the checks of one batch of perturbed frames, as it stands in its file.

    Noise alone widens bonds, whatever one does: for a noise kernel that is a warning.
    """
    test, geometry = report.stein[report.chosen], report.geometry
    widest = geometry.largest("bond", "1-3 distance", "coordinate")
    return [
        _finite(frames),
        _result(
            "stein_identity",
            test.largest <= MAX_STEIN_Z,
            {"largest_z": test.largest, "limit": MAX_STEIN_Z, "fields": len(test.z)},
        ),
        _result(
            "local_geometry",
            widest <= MAX_LOCAL_DIVERGENCE,
            {"largest_divergence": widest, "limit": MAX_LOCAL_DIVERGENCE, "angles": geometry.largest("angle")},
            warn=not isinstance(kernel, FlowKernel),
        ),
    ]


# --------------------------------------------------------------------------------------- priors


def prior_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of `prior_<name>`."""
    stable = "No replica of a simulation with the prior alone explodes, and its bonds are those of the data."
    return [_spec(key, "prior_alone", stable)]


def judge_prior(fit: PriorFit, simulated: PriorSimulation) -> list[dg.AssetCheckResult]:
    """Verdict on a prior."""
    from cg_assets.evaluation.evaluation import MAX_BOND_DIVERGENCE

    bonds = [float(value) for term, value in zip(fit.terms, simulated.divergence, strict=True) if term.kind == "bonds"]
    passed = simulated.stable_replicas == simulated.replicas and all(value <= MAX_BOND_DIVERGENCE for value in bonds)
    facts: dict[str, Any] = {
        "stable_replicas": simulated.stable_replicas,
        "replicas": simulated.replicas,
        "limit": MAX_BOND_DIVERGENCE,
    }
    if simulated.stable_replicas and bonds:
        facts["largest_bond_divergence"] = max(bonds)
    return [_result("prior_alone", passed, facts)]


# --------------------------------------------------------------------------------------- potentials


def potential_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of `potential_<name>`."""
    text = "The held-out loss is finite and not below the noise floor beyond its error (else frames have leaked)."
    return [_spec(key, "loss_and_noise_floor", text)]


def judge_potential(result: TrainingResult, floor: Estimate) -> list[dg.AssetCheckResult]:
    """Verdict on a training. The error of the held-out loss counts each frame as one independent number."""
    loss = result.held_out_loss
    held_out_error = loss * math.sqrt(2.0 / result.n_held_out)
    allowed = floor.value - 5.0 * math.hypot(floor.standard_error, held_out_error)
    return [
        _result(
            "loss_and_noise_floor",
            math.isfinite(loss) and loss >= allowed,
            {
                "held_out_loss": loss,
                "held_out_loss_standard_error": held_out_error,
                "noise_floor": floor.value,
                "noise_floor_standard_error": floor.standard_error,
                "loss_above_floor": loss - floor.value,
                "unit": floor.unit,
            },
        )
    ]


# --------------------------------------------------------------------------------------- CG simulation


def simulation_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of `cg_simulation_<name>`; they do not block, so that a bad potential is still judged and compared."""
    return [
        _spec(key, "kinetic_temperature", "The beads have the temperature of the system, within its error.", False),
        _spec(key, "stability", "No replica exploded.", False),
    ]


def judge_simulation(system: SystemSpec, result: CGSimulationResult) -> list[dg.AssetCheckResult]:
    """Verdicts on a CG simulation."""
    return [
        _temperature(system, result.kinetic_temperature, result.kinetic_temperature_error),
        _stability(result.summary()),
    ]


def _stability(counts: Mapping[str, int]) -> dg.AssetCheckResult:
    names = ("stable_replicas", "replicas", "enhanced_stable_replicas", "enhanced_replicas")
    stable, replicas, enhanced_stable, enhanced = numbers = [counts[name] for name in names]
    passed = stable == replicas and enhanced_stable == enhanced
    return _result("stability", passed, dict(zip(names, numbers, strict=True)))


# --------------------------------------------------------------------------------------- evaluation


def evaluation_specs(system: SystemSpec, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of `evaluation_<name>`: a model that fails one never becomes champion; the comparison is made anyway."""
    specs = [
        _spec(key, "pmf_error", f"The PMF error is at most {system.evaluation.max_pmf_error}.", False),
        _spec(key, "stability", "No replica of the CG simulation exploded.", False),
    ]
    if not isinstance(system.mapping, LinearMapping):
        specs += [
            _spec(key, "bonds", "Bond lengths of the CG simulation are distributed as in the data.", False),
            _spec(key, "chirality", "No chiral centre of the CG simulation has flipped.", False),
        ]
    return specs


def judge_evaluation(system: SystemSpec, result: EvaluationResult) -> list[dg.AssetCheckResult]:
    """Verdicts on a potential."""
    error = result.pmf_error
    results = [
        _result(
            "pmf_error",
            math.isfinite(error.value) and error.value <= system.evaluation.max_pmf_error,
            {
                "pmf_error": error.value,
                "standard_error": error.standard_error,
                "bound": system.evaluation.max_pmf_error,
                "unit": error.unit,
            },
        ),
        _stability(result.stability),
    ]
    if result.monitors is not None:
        monitors = result.monitors
        results += [
            _result("bonds", monitors.bonds_ok, monitors.bonds_json()),
            _result("chirality", monitors.chirality_ok, monitors.chirality_json()),
        ]
    return results


# --------------------------------------------------------------------------------------- liquids


def judge_liquid_simulation(result: LiquidSimulation) -> list[dg.AssetCheckResult]:
    """Verdicts on the CG simulations of a liquid; their specs are `simulation_specs`."""
    stable = {f"stable_at_{kelvin:g}_K": count for kelvin, count in result.stable_replicas.items()}
    passed = all(count == result.replicas for count in result.stable_replicas.values())
    return [
        _temperatures(result.kinetic_temperature),
        _result("stability", passed, {"replicas": result.replicas} | stable),
    ]


def liquid_evaluation_specs(system: ThermalSystem, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Checks of `evaluation_<name>` of a liquid: a model that fails one never becomes champion."""
    text = f"At every temperature, g(r) less its noise errs by at most {system.evaluation.max_rdf_error} nm."
    return [_spec(key, "rdf_error", text, False)]


def judge_liquid_evaluation(system: ThermalSystem, result: LiquidEvaluation) -> list[dg.AssetCheckResult]:
    """Verdict on a potential of a liquid; a temperature at which no replica was stable fails it."""
    errors = {kelvin: pair for (name, kelvin), pair in result.numbers.items() if name == "rdf error"}
    above = [found.value - floor.value for found, floor in errors.values()]
    passed = len(errors) == len(result.temperatures) and max(above) <= system.evaluation.max_rdf_error
    measured = {f"{kelvin:g} K": f"{found} (of noise: {floor.value:.4f})" for kelvin, (found, floor) in errors.items()}
    return [_result("rdf_error", passed, measured | {"bound": system.evaluation.max_rdf_error})]


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
