"""`reference` and `evaluation_<name>`: what a potential is judged against, and the judgement."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cg_assets.assets.common_checks import stability_verdict
from cg_assets.assets.data import frozen_bias, pooled_frames, training_frames
from cg_assets.assets.stage import Batches, Figure, Product, Read, Report, Stage, TableContent
from cg_assets.assets.work import Inputs, Work
from cg_assets.core.checks import Check, Verdict
from cg_assets.mapping.maps import LinearMapping
from cg_assets.systems import SystemSpec, seed_of

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.evaluation.evaluation import EvaluationResult
    from cg_assets.evaluation.reference import Reference
    from cg_assets.registry.champions import ChampionDecision

STABILITY = Check("stability", "No replica of the CG simulation exploded.", blocking=False)
BONDS = Check("bonds", "Bond lengths of the CG simulation are distributed as in the data.", blocking=False)
CHIRALITY = Check("chirality", "No chiral centre of the CG simulation has flipped.", blocking=False)


def read_reference(inputs: Inputs, system: SystemSpec) -> Reference:
    """The materialised reference of a system."""
    from cg_assets.evaluation.reference import Reference

    return Reference.read(system, inputs.table("reference"), inputs.facts("reference")["reference"])


def reference_stage(system: SystemSpec) -> Stage:
    """The stage of the reference: exact quadrature, long runs, or the data themselves."""
    source = system.reference_data

    def make(work: Work) -> Product:
        from cg_assets.evaluation.reference import compute_reference

        seed = seed_of(system.name, "reference", "0000")
        unfinished = work.store.stage_folder(system.name, "reference") / ".runs"
        data = pooled_frames(work.inputs, system, source, work.inputs.sound(source)) if source else None
        result = compute_reference(system, seed, unfinished, work.progress, data)

        def report(_: object) -> Report:
            from cg_assets.figures.stages import reference_figure

            figure = Figure(reference_figure(system, result), "reference free energy")
            return {"figure": figure, "results": result.rows(), "source": result.source}

        return Product(TableContent(result.columns()), {"reference": result.metadata()}, report=report, seed=seed)

    made_by = [] if source else ["scipy" if system.units == "reduced" else "openmm"]
    return Stage(
        name="reference",
        description="The free energy that potentials are judged against, with its standard error.",
        make=make,
        reads=(Read(source, Batches.ALL),) if source else (),
        kinds=frozenset({"parquet", *made_by}),
    )


def evaluation_checks(system: SystemSpec) -> dict[str, Check]:
    """Checks of `evaluation_<name>`: a model that fails one never becomes champion; the comparison is made anyway."""
    bound = f"The PMF error is at most {system.evaluation.max_pmf_error}."
    checks = [Check("pmf_error", bound, blocking=False), STABILITY]
    if not isinstance(system.mapping, LinearMapping):
        checks += [BONDS, CHIRALITY]
    return {check.name: check for check in checks}


def judge_evaluation(system: SystemSpec, result: EvaluationResult) -> list[Verdict]:
    """Verdicts on a potential."""
    error, bound = result.pmf_error, system.evaluation.max_pmf_error
    verdicts = [
        evaluation_checks(system)["pmf_error"].verdict(
            math.isfinite(error.value) and error.value <= bound,
            pmf_error=error.value,
            standard_error=error.standard_error,
            bound=bound,
            unit=error.unit,
        ),
        stability_verdict(STABILITY, result.stability),
    ]
    if (monitors := result.monitors) is not None:
        verdicts += [
            BONDS.verdict(monitors.bonds_ok, **monitors.bonds_json()),
            CHIRALITY.verdict(monitors.chirality_ok, **monitors.chirality_json()),
        ]
    return verdicts


def judge_again(
    system: SystemSpec, module: Any, config: dict[str, Any], reference: Reference, data: Frames, bias: Any
) -> dict[str, float]:
    """Figures of merit, on the present reference, of a version that was judged by an earlier one.

    Its CG simulation is run again, because only that of the newest version is kept. A version for other beads, or one
    that does not stay stable, has an infinite PMF error.
    """
    from cg_assets.core.errors import ExplosionError
    from cg_assets.evaluation.evaluation import evaluate
    from cg_assets.potentials.energies import energy_function
    from cg_assets.simulation.run import run_cg_simulation

    unfit, beads = {"pmf_error": math.inf}, system.beads()
    if config["bead_names"] != beads.cg_map.bead_names:
        return unfit
    try:
        simulated = run_cg_simulation(system, module, data, bias)
    except ExplosionError:
        return unfit
    energy = energy_function(module, beads.temperature, beads.edges)
    return evaluate(system, energy, reference, simulated.frames, simulated.summary(), data).metrics()


def decide(
    work: Work,
    model: str,
    version: str,
    metrics: dict[str, float],
    again: Callable[[Any, dict[str, Any]], dict[str, float]],
    **facts: Any,
) -> ChampionDecision:
    """Whether a version becomes champion; the present champion is judged `again` where that was on other data."""
    client = work.open_tracking()
    decision = client.decide_champion(model, version, metrics, **facts)
    if decision.rejudge is None:
        return decision
    work.log.info(f"champion {decision.rejudge} was judged by another reference; judging it by this one")
    earlier = again(*client.load(model, decision.rejudge))
    return client.decide_champion(model, version, metrics, **facts, champion_metrics=earlier)


def evaluation_stage(system: SystemSpec, name: str) -> Stage:
    """The stage that judges one potential and decides whether its model becomes champion."""
    labels = system.potentials[name].labels
    true = system.true_frames(labels)

    def make(work: Work) -> Product:
        from cg_assets.evaluation.evaluation import evaluate
        from cg_assets.potentials.energies import committee_energies, energy_function
        from cg_assets.training.setup import drawn_frames

        inputs, client = work.inputs, work.open_tracking()
        simulated = inputs.facts(f"cg_simulation_{name}")
        model, version = simulated["registered_model"], simulated["version"]
        module, _ = client.load(model, version)
        beads = system.beads()
        at = beads.temperature, beads.edges
        reference = read_reference(inputs, system)
        frames = training_frames(inputs, system, name)
        data = drawn_frames(frames, system.potentials[name].frames, system.training.seed)
        truth = frames if true == labels else pooled_frames(inputs, system, true, inputs.sound(true))
        result = evaluate(
            system,
            energy_function(module, *at),
            reference,
            simulation=inputs.frames(f"cg_simulation_{name}"),
            summary=simulated["summary"],
            data=data,
            committee=committee_energies(module, *at),
            truth=truth,
        )

        def report(verdicts: Any) -> Report:
            from cg_assets.figures.stages import evaluation_figures

            figures = evaluation_figures(system, name, reference, result, data)
            judged_by, error = inputs.versions[f"{system.name}/reference"], result.pmf_error.standard_error
            client.log_evaluation(model, version, result.metrics(), figures, judged_by)
            bias = frozen_bias(Inputs(work.store, system), system.cg_simulation)
            decision = decide(
                work,
                model,
                version,
                result.metrics(),
                lambda module, config: judge_again(system, module, config, reference, data, bias),
                passed=all(item.passed for item in verdicts),
                reference_hash=judged_by,
                tolerance=error if math.isfinite(error) else 0.0,
            )
            return shown_decision(figures, result.rows(), model, version, decision)

        facts = {"registered_model": model, "version": version, "drawn": result.surface_json()}
        return Product(TableContent(result.columns()), facts, lambda _: judge_evaluation(system, result), report)

    return Stage(
        name=f"evaluation_{name}",
        description="Free energies, populations, barriers, stability, bonds and chirality of the CG model against the "
        "reference; the registered model becomes champion when it passes and is not worse than the present one.",
        make=make,
        reads=(
            Read(f"cg_simulation_{name}", Batches.NONE),
            *(Read(source, Batches.CHOSEN) for source in dict.fromkeys([labels, true])),
            Read("reference", Batches.NONE),
        ),
        checks=tuple(evaluation_checks(system).values()),
        kinds=frozenset({"parquet", "mlflow"}),
    )


def shown_decision(
    figures: dict[str, bytes], rows: list[dict[str, Any]], model: str, version: str, decision: ChampionDecision
) -> Report:
    """What the page of an evaluation shows."""
    return {title: Figure(figure, title) for title, figure in figures.items()} | {
        "results": rows,
        "registered_model": f"{model} version {version}",
        "champion": decision.promoted,
        "decision": decision.reason,
    }
