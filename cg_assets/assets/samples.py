"""`trajectories`, `biased_samples`, `<plan>_samples`: atomistic frames with their unbiased forces."""

from __future__ import annotations

from typing import Any

from cg_assets.assets.common_checks import (
    FINITE,
    SCHEMA,
    schema_verdict,
    temperature_verdict,
)
from cg_assets.assets.next_batch import proposed_centers
from cg_assets.assets.stage import Figure, FrameContent, PieceContent, Product, Stage, Stored
from cg_assets.assets.work import Work, snapshot_stage
from cg_assets.core.checks import Check, Verdict, finite_verdict
from cg_assets.core.units import unit
from cg_assets.systems import SystemSpec

TEMPERATURE = Check("kinetic_temperature", "The kinetic temperature is that of the system, within its error.")
EQUILIBRATION = Check(
    "conditional_equilibration",
    "Replicas from different starts agree on the mean force in each bin of the collective variables: what the "
    "bias does not drive has reached equilibrium.",
)
_EXCHANGE = ("exchange_acceptance", "journeys_up_the_ladder")
_UNBIASED = "Frames of unbiased dynamics with their forces."
_BIASED = (
    "Frames of dynamics under a bias of the CG coordinates, with the *unbiased* forces and the energy of the bias "
    "(arXiv 2510.11148)."
)


def samples_stage(system: SystemSpec, labels: str) -> Stage:
    """The stage of the sampling plan behind a stage of force labels."""
    name, section = system.sampling.by_labels()[labels]
    specified = system.plan_of(labels)
    biased = specified.bias is not None

    def make(work: Work) -> Product:
        from cg_assets.figures.samples import equilibration_figure, sampling_figure
        from cg_assets.labels.next_batch import concrete_plan
        from cg_assets.labels.quality import check_equilibration, compares_windows

        adaptive = specified.bias is not None and specified.bias.adaptive
        centers = proposed_centers(work.inputs, section) if adaptive else None
        beads = system.beads()
        plan = concrete_plan(beads, specified, centers)
        configurations = system.sampling.configurations_of(section)
        pieces, sampler, summary = work.sample(
            str(configurations), lambda: system.sampler(plan, work.seed, configurations), work.seed
        )
        facts = {
            "plan": plan.model_dump(mode="json"),
            "bias": summary.bias,
            "kinetic_temperature": [summary.kinetic_temperature, summary.kinetic_temperature_error],
        }
        if (snapshots := sampler.snapshots()) is not None:
            content = FrameContent(snapshots)
            work.keep(content, stage=snapshot_stage(name), batch=work.batch, seed=work.seed, facts=facts)
        found: dict[str, Any] = {}

        def judge(stored: Stored) -> list[Verdict]:
            frames = found["frames"] = stored.frames()
            expected = (plan.kept_replicas + (plan.probe.replicas if plan.probe else 0)) * plan.frames_per_replica
            value, error = summary.kinetic_temperature, summary.kinetic_temperature_error
            verdicts = [
                schema_verdict(frames, expected),
                finite_verdict(FINITE, frames),
                temperature_verdict(TEMPERATURE, system, system.temperature, value, error),
            ]
            if biased:
                found["equilibration"] = check_equilibration(system.beads(), system.mapping, plan, frames)
                passed, numbers = found["equilibration"].passed, found["equilibration"].to_json()
                verdicts.append(EQUILIBRATION.verdict(passed, **numbers))
            return verdicts

        def report(_: object) -> dict[str, Any]:
            value, error = summary.kinetic_temperature, summary.kinetic_temperature_error
            shown = {"figure": Figure(sampling_figure(beads, found["frames"]), "sampled collective variables")}
            if biased:
                png = equilibration_figure(beads, found["equilibration"], compares_windows(plan))
                shown["conditional_equilibration"] = Figure(png, "mean forces of replicas from different starts")
            exchange = {name: str(getattr(summary, name)) for name in _EXCHANGE} if plan.tempering else {}
            return shown | {
                "seed": work.seed,
                "sampled_time": f"{summary.sampled_time:g} {unit('time', system.units)}",
                **exchange,
                "kinetic_temperature": f"{value:.5g} ± {error:.2g} {unit('temperature', system.units)}",
            }

        return Product(PieceContent(pieces), facts, judge, report, seed=work.seed)

    return Stage(
        name=name,
        description=_BIASED if biased else _UNBIASED,
        make=make,
        checks=(SCHEMA, FINITE, TEMPERATURE, *([EQUILIBRATION] if biased else [])),
        batched=True,
        raw=True,
        kinds=frozenset({"parquet", "openmm" if system.units == "molar" else "numba"}),
        sections=("model", "temperature", "mapping", "collective_variables", section),
        made_again=False,
    )
