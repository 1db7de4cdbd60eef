"""`trajectories`, `biased_samples`, `<plan>_samples`: atomistic frames with their unbiased forces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cg_assets.assets.common_checks import (
    FINITE,
    SCHEMA,
    schema_verdict,
    temperature_verdict,
)
from cg_assets.assets.next_batch import proposed_centers
from cg_assets.assets.stage import Figure, FrameContent, PieceContent, Product, Report, Stage, Stored
from cg_assets.assets.work import Work, snapshot_stage
from cg_assets.core.checks import Check, Verdict, finite_verdict
from cg_assets.core.units import unit
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.statistics.equilibration import ConditionalEquilibration
    from cg_assets.evaluation.settings import LiquidSettings
    from cg_assets.labels.quality import ImportedReplicas
    from cg_assets.mapping.beads import Beads
    from cg_assets.sampling.piecewise import DynamicsSummary
    from cg_assets.sampling.settings import Sampled, SamplingPlan

TEMPERATURE = Check(
    "kinetic_temperature",
    "The kinetic temperature is that of the system, within its error.",
    remedy="use a shorter step, or more friction",
)
EQUILIBRATION = Check(
    "conditional_equilibration",
    "Replicas from different starts agree on the mean force in each bin of the collective variables: what the "
    "bias does not drive has reached equilibrium.",
    remedy="sample longer, start more replicas where frames were not compared, or bias the slow coordinate, too",
)
WINDOWS = Check(
    "umbrella_windows",
    "Frames of neighbouring umbrella windows have enough in common to determine the free energies of all windows.",
    remedy="put windows between them, lower force_constant, or sample for longer",
)
_EXCHANGE = ("exchange_acceptance", "journeys_up_the_ladder")
_UNBIASED = "Frames of unbiased dynamics with their forces."
_LIQUID = (
    "Beads of free molecules at several temperatures, with the forces on them and the energy of the atoms; some frames "
    "with all atoms in a file of their own, from each temperature."
)
_BIASED = (
    "Frames of dynamics under a bias of the CG coordinates, with the *unbiased* forces and the energy of the bias "
    "(arXiv 2510.11148)."
)


def samples_stage(system: SystemSpec, sampled: Sampled) -> Stage:
    """The stage of the samples of a plan."""
    name, section, specified = sampled.samples, sampled.section, sampled.plan
    biased = specified.bias is not None
    held = ["sampling.conditional.frames"] if system.sampling.conditional else []
    # Windows of an adaptive plan need to touch in all batches together, not in each.
    windowed = specified.bias is not None and specified.bias.windowed and not specified.bias.adaptive

    def make(work: Work) -> Product:
        from cg_assets.labels.next_batch import concrete_plan
        from cg_assets.labels.quality import check_equilibration

        centers = proposed_centers(work.inputs, section) if specified.bias and specified.bias.adaptive else None
        beads = system.beads()
        molecules = beads.cg_map.bead_elements if system.model.is_liquid else None
        plan = concrete_plan(beads, specified, centers)
        configurations = system.sampling.configurations_of(section)
        arguments = plan, work.seed, configurations
        pieces, sampler, summary = work.sample(str(configurations), lambda: system.sampler(*arguments), work.seed)
        facts = {"plan": plan.model_dump(mode="json"), "bias": summary.bias, "kinetic_temperature": _pairs(summary)}
        work.device = summary.platform or work.device
        if (whole := sampler.snapshots()) is not None:
            work.keep(FrameContent(whole), stage=snapshot_stage(name), batch=work.batch, seed=work.seed, facts=facts)
        found: dict[str, Any] = {}

        def judge(stored: Stored) -> list[Verdict]:
            frames = found["frames"] = stored.frames()
            thermal = temperature_verdict(TEMPERATURE, summary.kinetic, system.units)
            verdicts = [schema_verdict(frames, plan.frames), finite_verdict(FINITE, frames), thermal]
            if biased:
                checked = found["equilibration"] = check_equilibration(beads, system.mapping, plan, frames)
                verdicts.append(EQUILIBRATION.verdict(checked.passed, **checked.to_json()))
            if windowed:
                verdicts.append(windows_verdict(system, summary.bias, frames))
            return verdicts

        def report(_: object) -> Report:
            shown = _report(system, name, beads, system.at_own_temperature(found["frames"]), summary)
            if biased:
                shown["conditional_equilibration"] = shown_equilibration(beads, found["equilibration"], plan)
            shown |= _beyond_the_grid(summary.bias, found["frames"])
            if plan.tempering:
                shown |= {name: str(getattr(summary, name)) for name in _EXCHANGE}
            return shown | {"seed": work.seed, "sampled_time": f"{summary.sampled_time:g} {unit('time', system.units)}"}

        return Product(PieceContent(pieces), facts, judge, report, work.seed, molecules)

    return Stage(
        name=name,
        description=_BIASED if biased else _LIQUID if system.model.is_liquid else _UNBIASED,
        make=make,
        checks=(SCHEMA, FINITE, TEMPERATURE, *([EQUILIBRATION] if biased else []), *([WINDOWS] if windowed else [])),
        batched=True,
        raw=True,
        kinds=frozenset({"parquet", "openmm" if system.units == "molar" else "numba"}),
        sections=("model", "temperature", "temperatures", "mapping", "collective_variables", section, *held),
        made_again=False,
    )


def _pairs(summary: DynamicsSummary) -> list[list[float]]:
    """Each kinetic temperature and its standard error."""
    return [[item.value, item.standard_error] for item in summary.kinetic.values()]


def shown_equilibration(beads: Beads, found: ConditionalEquilibration, plan: SamplingPlan | ImportedReplicas) -> Figure:
    """The figure of the check of conditional equilibration."""
    from cg_assets.figures.samples import equilibration_figure
    from cg_assets.labels.quality import compares_windows

    png = equilibration_figure(beads, found, compares_windows(plan))
    return Figure(png, "mean forces of replicas from different starts")


def _report(system: SystemSpec, stage: str, beads: Beads, frames: Frames, summary: DynamicsSummary) -> Report:
    """What was sampled: collective variables, or the structure and the energies of a liquid."""
    from cg_assets.figures.samples import sampling_figure

    if system.evaluation.liquid is not None:
        return _liquid_report(f"{system.title}: {stage}", system.evaluation.liquid, frames, summary)
    return {
        "figure": Figure(sampling_figure(beads, frames, stage), "sampled collective variables"),
        "kinetic_temperature": str(summary.kinetic_temperature),
    }


def _liquid_report(title: str, settings: LiquidSettings, frames: Frames, summary: DynamicsSummary) -> Report:
    from cg_assets.evaluation.metrics.angles import angular_distribution
    from cg_assets.evaluation.metrics.diffusion import diffusion
    from cg_assets.evaluation.metrics.energies import heat_capacity
    from cg_assets.evaluation.metrics.rdf import structure_and_energy
    from cg_assets.figures.simulation import water_plot

    structure, energy = structure_and_energy(frames)
    parts = frames.by_temperature()
    angles = {kelvin: angular_distribution(part, settings.neighbour_distance) for kelvin, part in parts.items()}
    rows = [
        {
            "temperature [K]": temperature,
            "kinetic temperature": str(measured),
            "energy per molecule": str(energy[temperature]),
            "heat capacity per molecule": str(heat_capacity(parts[temperature])),
            "diffusion": str(diffusion(parts[temperature], settings.longest_lag).coefficient),
        }
        for temperature, measured in summary.kinetic.items()
    ]
    png = water_plot(structure, energy, angles, title=title)
    return {"figure": Figure(png, "structure and energy"), "temperatures": rows}


def windows_verdict(system: SystemSpec, bias: Mapping[str, Any] | None, frames: Frames) -> Verdict:
    """Whether the umbrella windows of a batch touch."""
    from cg_assets.biases import bias_from_definition
    from cg_assets.biases.reweighting import window_fault

    fault = window_fault(bias_from_definition(bias), frames, system.thermal_energy) if bias else ""
    return WINDOWS.verdict(not fault, fault=fault or "none")


def _beyond_the_grid(bias: Mapping[str, Any] | None, frames: Frames) -> Report:
    """How much of the time was spent where a bias with limits has no slope."""
    from cg_assets.biases import bias_from_definition

    beyond = bias_from_definition(bias).outside(frames.collective_variables) if bias else None
    return {} if beyond is None else {"outside_grid_range": f"{beyond.mean():.1%} of the frames have no bias force"}
