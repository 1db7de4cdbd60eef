"""`reference` and `evaluation_<name>`: the reference of a system, and potentials compared with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cg_assets.assets.data import (
    frozen_bias,
    learnt_frames,
    pooled_frames,
    reference_frames,
    start_frames,
    training_frames,
)
from cg_assets.assets.simulations import runs_of
from cg_assets.assets.soundness import explained, names_of_failed
from cg_assets.assets.stage import Batches, Figure, Product, Read, Report, Stage, Stored, TableContent
from cg_assets.assets.work import Inputs, Work
from cg_assets.core.checks import Check
from cg_assets.core.units import unit
from cg_assets.systems import SystemSpec, seed_of

if TYPE_CHECKING:
    from cg_assets.core.checks import Verdict
    from cg_assets.core.frames import Frames
    from cg_assets.evaluation.case import Case
    from cg_assets.evaluation.evaluation import Evaluation
    from cg_assets.evaluation.metrics.slow_coordinates import SlowCoordinates
    from cg_assets.evaluation.reference import Reference
    from cg_assets.labels.kernels.flow_network import FlowConfig
    from cg_assets.potentials.base import PotentialConfig
    from cg_assets.registry.champions import ChampionDecision, Judgement
    from cg_assets.simulation.run import Run


AGREEMENT = Check(
    "halves_agree",
    "The two halves of the ladders have the same folded share at each temperature, within the bound.",
    blocking=False,
    remedy="sample longer, or more batches",
)


def read_reference(inputs: Inputs, system: SystemSpec) -> Reference:
    """The materialised reference of a system."""
    from cg_assets.evaluation.reference import Reference

    return Reference.read(system.beads(), inputs.table("reference"), inputs.facts("reference")["reference"])


def agreement_verdict(reference: Reference, bound: float) -> Verdict:
    """Whether the halves of a ladder have the same folded share at each temperature."""
    found = [item for item in reference.quantities if item.name == "folded_share_difference"]
    worst = max(found, key=lambda item: item.value.value)
    facts = {f"{item.temperature:g} K": str(item.value) for item in found}
    return AGREEMENT.verdict(worst.value.value <= bound, largest=worst.value.value, bound=bound, **facts)


def reference_stage(system: SystemSpec) -> Stage:
    """The stage of the reference: exact quadrature, long runs, or the data themselves."""
    source, settings = system.reference_data, system.free_energies.reference
    bound = settings.largest_difference if system.rungs else None

    def make(work: Work) -> Product:
        seed = seed_of(system.name, "reference", "0000")
        unfinished = work.store.stage_folder(system.name, "reference") / ".runs"
        data = reference_frames(work.inputs, system)
        result = system.compute_reference(seed, unfinished, work.progress, data)

        def report(_: object) -> Report:
            from cg_assets.figures.evaluation import reference_figure
            from cg_assets.figures.temperatures import reference_melting_plot

            figure = Figure(reference_figure(system.beads(), result), "reference free energy")
            shown: Report = {"figure": figure, "results": result.rows(), "source": result.source}
            if result.rungs:
                melting = reference_melting_plot(result.quantities, f"{system.title}: reference")
                shown["melting"] = Figure(melting, "melting of the reference")
            return shown

        def judge(_: Stored) -> list[Verdict]:
            return [agreement_verdict(result, bound)] if bound else []

        return Product(TableContent(result.columns()), {"reference": result.metadata()}, judge, report, seed)

    made_by = [] if source else ["scipy" if system.units == "reduced" else "openmm"]
    return Stage(
        name="reference",
        description="The reference free energy, with its standard error.",
        make=make,
        reads=(Read(source, Batches.ALL),) if source else (),
        checks=(AGREEMENT,) if bound else (),
        kinds=frozenset({"parquet", *made_by}),
        sections=(
            *("model", "temperature", "collective_variables"),
            *(["mapping"] if system.free_energies.reference.exact else []),
            *(f"evaluation.{part}" for part in ("reference", "collective_variables", "bins", "basins")),
            *(["evaluation.native", "evaluation.slow_coordinates"] if system.rungs else []),
        ),
    )


def judge(
    system: SystemSpec,
    module: Any,
    reference: Reference | None,
    simulated: Frames,
    runs: Sequence[Run],
    data: Frames,
    truth: Frames | None = None,
    dynamics: Frames | None = None,
) -> Evaluation:
    """Evaluate a potential by its CG simulation.

    Args:
        system: the system.
        module: the trained potential.
        reference: what it is judged against; None where that is `truth`.
        simulated: frames of its CG simulation.
        runs: what its CG simulations gave.
        data: CG frames that it was trained on.
        truth: CG frames that those of the simulation should look like, at all temperatures; `data` where None.
        dynamics: CG frames whose time scales are those of the atoms; `truth` where None.
    """
    from cg_assets.evaluation.at_temperatures import evaluate_all
    from cg_assets.evaluation.evaluation import evaluate

    moving = {} if dynamics is None else dynamics.by_temperature()

    def case(temperature: float | None = None, slow: SlowCoordinates | None = None) -> Case[Any]:
        own = _case(system, module, reference, simulated, runs, data, truth, temperature)
        at = dynamics if dynamics is None or temperature is None else moving[temperature]
        return replace(own, slow=slow, dynamics=at)

    if (kelvins := system.cg_simulation.temperatures) is None:
        return evaluate(case())
    slow = _slow_coordinates(system, truth)
    return evaluate_all({kelvin: case(kelvin, slow) for kelvin in kelvins})


def _case(
    system: SystemSpec,
    module: Any,
    reference: Reference | None,
    simulated: Frames,
    runs: Sequence[Run],
    data: Frames,
    truth: Frames | None,
    temperature: float | None,
) -> Case[Any]:
    """A potential with all that it is judged by, at one of several temperatures [K] or (None) as it is."""
    from cg_assets.evaluation.case import AtTemperature, Case, given
    from cg_assets.potentials.energies import committee_energies, energy_function, thermodynamics
    from cg_assets.sampling.model_potential.planes import exact_plane
    from cg_assets.sampling.model_potential.quadrature import exact_pmf

    beads = system.beads()
    if temperature is not None:
        beads = beads.at_temperature(temperature)
        runs = [run for run in runs if run.temperature == temperature]
        truth = None if truth is None else truth.select(truth.temperature == temperature)
        simulated = simulated.select(simulated.temperature == temperature)
        own = data.select(data.temperature == temperature)
        data = own if len(own) or truth is None else truth
    if reference is not None and reference.rungs:
        reference = reference.at(beads.temperature)
    at = (None, None) if system.temperatures else (beads.temperature, beads.edges)

    def heated(other: float) -> AtTemperature:
        landscape = system.model.landscape(beads.at_temperature(other))
        exact = exact_pmf(landscape, given(reference, "a reference").bins.centres[0]).pmf
        return AtTemperature(energy_function(module, other), committee_energies(module, other), exact)

    return Case(
        beads=beads,
        settings=system.evaluation,
        energy=energy_function(module, *at),
        simulation=simulated,
        runs=tuple(runs),
        data=data,
        truth=truth,
        committee=committee_energies(module, *at),
        reference=reference,
        plane=None if reference is None else lambda: exact_plane(system.model.landscape(beads), reference.surface.bins),
        heated=heated,
        domain=system.domain,
        thermodynamics=thermodynamics(module) if "temperature" in module.conditions else None,
        native=system.native_beads(),
    )


def _slow_coordinates(system: SystemSpec, truth: Frames | None) -> SlowCoordinates | None:
    """Those of frames at all temperatures; None where they are not asked for."""
    from cg_assets.evaluation.metrics.slow_coordinates import SlowCoordinates

    settings = system.free_energies.slow_coordinates
    if settings is None or truth is None:
        return None
    return SlowCoordinates(system.beads().cg_map, truth, settings.lag)


def decide(
    work: Work,
    model: str,
    version: str,
    judgement: Judgement,
    again: Callable[[Any, Any], Judgement],
) -> ChampionDecision:
    """Whether a version becomes champion.

    Args:
        work: what the evaluation is carried out with.
        model: registered name.
        version: the version.
        judgement: how it did.
        again: how an earlier version does against the same reference.
    """
    client = work.open_tracking()
    decision = client.decide_champion(model, version, judgement)
    if not decision.rejudge:
        return decision
    work.log.info(f"{model} version {', '.join(decision.rejudge)}: judged by another reference; judging by this one")
    earlier = {number: again(*client.load(model, number)) for number in decision.rejudge}
    return client.decide_champion(model, version, judgement, earlier)


def evaluation_stage(system: SystemSpec, name: str) -> Stage:
    """The stage that evaluates one potential and decides whether its model becomes champion."""
    from cg_assets.evaluation.evaluation import checks_of

    stages = dict.fromkeys([system.data_stage(name), system.true_stage(name)])
    stages |= {} if system.dynamics_stage is None else {system.dynamics_stage: None}
    reference = [Read(system.reference_stage, Batches.NONE)] if system.reference_stage else []
    return Stage(
        name=f"evaluation_{name}",
        description="The CG model against the reference, by every metric that fits the system; the registered model "
        "becomes champion when it passes and is not worse than the present one.",
        make=lambda work: _make_evaluation(work, system, name),
        reads=(
            Read(f"cg_simulation_{name}", Batches.NONE),
            *(Read(stage, Batches.CHOSEN) for stage in stages),
            *reference,
        ),
        checks=checks_of(system.evaluation),
        kinds=frozenset({"parquet", "mlflow"}),
        sections=("evaluation",),
    )


def _make_evaluation(work: Work, system: SystemSpec, name: str) -> Product:
    from cg_assets.figures.evaluation import evaluation_figures
    from cg_assets.registry.champions import Judgement

    inputs, true = work.inputs, system.true_stage(name)
    simulated = inputs.facts(f"cg_simulation_{name}")
    model, version = simulated["registered_model"], simulated["version"]
    module, _ = work.open_tracking().load(model, version, simulated.get("weights_hash"))
    reference = read_reference(inputs, system) if system.reference_stage else None
    every = training_frames(inputs, system, name, every_temperature=system.network.needs_temperature)
    data = learnt_frames(system, name, every)
    if system.cg_simulation.temperatures:
        truth = reference_frames(inputs, system)
    else:
        frames = system.at_own_temperature(every)
        truth = frames if true == system.data_stage(name) else pooled_frames(inputs, system, true, inputs.sound(true))
    beads = inputs.frames(f"cg_simulation_{name}", every_temperature=True)
    dynamics, moving = None, system.dynamics_stage
    if moving is not None:
        dynamics = pooled_frames(inputs, system, moving, inputs.sound(moving), every_temperature=True)
        dynamics = dynamics if system.cg_simulation.temperatures else system.at_own_temperature(dynamics)

    def against(module: Any, simulated: Frames, runs: Sequence[Run]) -> Evaluation:
        return judge(system, module, reference, simulated, runs, data, truth, dynamics)

    result, judged_by = against(module, beads, runs_of(simulated)), _judged_by(inputs, system, name)
    verdicts = result.verdicts(work.stage.checks)
    # Before the file is visible: an evaluation that is there has been decided on.
    figures = evaluation_figures(name, result, system.title, list(system.potentials))
    work.open_tracking().log_evaluation(model, version, result.estimates(), figures, judged_by)
    judgement = Judgement(result.metrics(), result.criteria, judged_by, _fault(verdicts, inputs))
    decision = decide(work, model, version, judgement, partial(_judge_again, work, name, against, judgement))

    def report(_: object) -> Report:
        return {title: Figure(figure, title) for title, figure in figures.items()} | {
            "results": result.rows(),
            "registered_model": f"{model} version {version}",
            "champion": decision.promoted,
            "decision": decision.reason,
        }

    free = [run for run in simulated["runs"] if not run["biased"] and run["stable_replicas"]]
    speeds = [run["replica_steps_per_second"] for run in free]
    facts = {"registered_model": model, "version": version, "replica_steps_per_second": fmean(speeds)}
    facts |= {"thermal_energy": result.thermal_energy, "judged_by": judged_by}
    content = TableContent(result.columns(), {"temperature": unit("temperature", system.units)})
    return Product(content, facts, lambda _: verdicts, report)


def _judge_again(
    work: Work,
    name: str,
    against: Callable[[Any, Frames, Sequence[Run]], Evaluation],
    new: Judgement,
    earlier: Any,
    config: PotentialConfig | FlowConfig,
) -> Judgement:
    """How an earlier version does, whose CG simulation is run again: only that of the newest version is kept.

    Infinitely bad where it is for other beads, does not stay stable or fails a check.
    """
    from cg_assets.core.errors import ExplosionError
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.registry.champions import Judgement
    from cg_assets.simulation.run import run_cg_simulation

    system, own = work.system, work.system.beads()
    lost = {key: Estimate(math.inf, math.nan) for key in new.decisive}
    worst = Judgement(dict.fromkeys(lost, math.inf), lost, new.reference_hash)
    if config.get("bead_names", own.cg_map.bead_names) != own.cg_map.bead_names:
        return replace(worst, fault="it is for other beads")
    settings = system.cg_simulation
    bias = frozen_bias(Inputs(work.store, system), settings, system.biased_labels)
    try:
        starts = start_frames(work.inputs, system, name)
        run = run_cg_simulation(earlier, own, settings, starts, system.simulated_temperatures, bias)
    except ExplosionError as error:
        return replace(worst, fault=str(error))
    found = against(earlier, run.frames, run.runs)
    if failed := names_of_failed(found.verdicts(work.stage.checks)):
        return replace(worst, fault=f"its evaluation failed {', '.join(failed)}")
    return Judgement({**worst.metrics, **found.metrics()}, lost | found.criteria, new.reference_hash)


def _fault(verdicts: Sequence[Verdict], inputs: Inputs) -> str:
    """Why a version cannot be champion: checks that its evaluation failed, or something that it was made of."""
    if failed := names_of_failed(verdicts):
        return f"its evaluation failed {', '.join(failed)}"
    return explained(inputs.failures)


def _judged_by(inputs: Inputs, system: SystemSpec, name: str) -> str:
    """Hash of what a potential is judged against: the reference and at which of several temperatures, or the frames."""
    from cg_assets.training.checkpoints import identity_of

    if system.reference_stage:
        reference = inputs.versions[f"{system.name}/{system.reference_stage}"]
        kelvins = system.cg_simulation.temperatures
        return reference if kelvins is None else identity_of((reference, tuple(kelvins)))
    true = f"{system.name}/{system.true_stage(name)}/"
    data = [version for key, version in inputs.versions.items() if key.startswith(true)]
    return identity_of(data)
