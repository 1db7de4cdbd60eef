"""`reference` and `evaluation_<name>`: what a potential is judged against, and the judgement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cg_assets.assets.data import frozen_bias, pooled_frames, training_frames
from cg_assets.assets.simulations import runs_of
from cg_assets.assets.stage import Batches, Figure, Product, Read, Report, Stage, TableContent
from cg_assets.assets.work import Inputs, Work
from cg_assets.core.units import unit
from cg_assets.systems import AnySystem, SystemSpec, seed_of

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.evaluation.evaluation import Evaluation
    from cg_assets.evaluation.reference import Reference
    from cg_assets.registry.champions import ChampionDecision
    from cg_assets.simulation.run import Run


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
            from cg_assets.figures.evaluation import reference_figure

            figure = Figure(reference_figure(system.beads(), result), "reference free energy")
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


def judge(
    system: SystemSpec,
    module: Any,
    reference: Reference,
    simulated: Frames,
    runs: Sequence[Run],
    data: Frames,
    truth: Frames | None = None,
) -> Evaluation:
    """Judge a potential by its CG simulation.

    Args:
        system: the system.
        module: the trained potential.
        reference: what it is judged against.
        simulated: frames of its CG simulation.
        runs: what its CG simulations gave.
        data: CG frames that it was trained on.
        truth: CG frames whose bonds and slow coordinates a molecule should have; `data` where None.
    """
    from cg_assets.evaluation.case import Case
    from cg_assets.evaluation.evaluation import evaluate
    from cg_assets.potentials.energies import committee_energies, energy_function
    from cg_assets.sampling.model_potential.planes import exact_plane

    beads = system.beads()
    at = beads.temperature, beads.edges
    case = Case(
        beads=beads,
        settings=system.evaluation,
        energy=energy_function(module, *at),
        simulation=simulated,
        runs=tuple(runs),
        data=data,
        truth=truth,
        committee=committee_energies(module, *at),
        reference=reference,
        plane=lambda: exact_plane(system.model.landscape(beads), reference.surface.bins),
        domain=system.network.domain,
        folder=system.folder,
    )
    return evaluate(case)


def judge_again(
    system: SystemSpec, module: Any, config: dict[str, Any], reference: Reference, data: Frames, bias: Any
) -> dict[str, float]:
    """Figures of merit, on the present reference, of a version that was judged by an earlier one.

    Its CG simulation is run again, because only that of the newest version is kept. There are none of a version for
    other beads, or of one that does not stay stable.
    """
    from cg_assets.core.errors import ExplosionError
    from cg_assets.simulation.run import run_cg_simulation

    beads = system.beads()
    if config["bead_names"] != beads.cg_map.bead_names:
        return {}
    try:
        simulated = run_cg_simulation(module, beads, system.cg_simulation, data, bias=bias)
    except ExplosionError:
        return {}
    return judge(system, module, reference, simulated.frames, simulated.runs, data).metrics()


def decide(
    work: Work,
    model: str,
    version: str,
    result: Evaluation,
    judged_by: str,
    again: Callable[[Any, dict[str, Any]], dict[str, float]],
) -> ChampionDecision:
    """Whether a version becomes champion.

    Args:
        work: what the evaluation is carried out with.
        model: registered name.
        version: the version.
        result: its evaluation.
        judged_by: hash of what it was judged against.
        again: figures of merit of an earlier version by the same; what they lack is infinitely bad.
    """
    client, metrics, criteria = work.open_tracking(), result.metrics(), result.tolerances
    decision = client.decide_champion(model, version, metrics, result.passed, judged_by, criteria)
    if decision.rejudge is None:
        return decision
    work.log.info(f"champion {decision.rejudge} was judged by another reference; judging it by this one")
    earlier = dict.fromkeys(criteria, math.inf) | again(*client.load(model, decision.rejudge))
    return client.decide_champion(model, version, metrics, result.passed, judged_by, criteria, earlier)


def evaluation_product(
    work: Work,
    system: AnySystem,
    name: str,
    result: Evaluation,
    judged_by: Callable[[], str],
    again: Callable[[Any, dict[str, Any]], dict[str, float]],
) -> Product:
    """The table of an evaluation, with its verdicts, its figures and the decision on the champion.

    Args:
        work: what it is carried out with.
        system: the system.
        name: of the potential.
        result: what was measured of it.
        judged_by: gives the hash of what it was judged against.
        again: see `decide`.
    """
    simulated = work.inputs.facts(f"cg_simulation_{name}")
    model, version = simulated["registered_model"], simulated["version"]

    def report(_: object) -> Report:
        from cg_assets.figures.evaluation import evaluation_figures

        figures = evaluation_figures(name, result, system.title)
        work.open_tracking().log_evaluation(model, version, result.metrics(), figures, judged_by())
        decision = decide(work, model, version, result, judged_by(), again)
        return {title: Figure(figure, title) for title, figure in figures.items()} | {
            "results": result.rows(),
            "registered_model": f"{model} version {version}",
            "champion": decision.promoted,
            "decision": decision.reason,
        }

    speeds = [run["replica_steps_per_second"] for run in simulated["runs"] if not run["biased"]]
    facts = {"registered_model": model, "version": version, "replica_steps_per_second": fmean(speeds)}
    facts["thermal_energy"] = result.thermal_energy
    content = TableContent(result.columns(), {"temperature": unit("temperature", system.units)})
    return Product(content, facts, lambda _: result.verdicts(work.stage.checks), report)


def evaluation_stage(system: SystemSpec, name: str) -> Stage:
    """The stage that judges one potential and decides whether its model becomes champion."""
    from cg_assets.evaluation.evaluation import checks_of

    labels = system.potentials[name].labels
    true = system.true_frames(labels)

    def make(work: Work) -> Product:
        from cg_assets.training.setup import drawn_frames

        inputs = work.inputs
        simulated = inputs.facts(f"cg_simulation_{name}")
        module, _ = work.open_tracking().load(simulated["registered_model"], simulated["version"])
        reference = read_reference(inputs, system)
        frames = training_frames(inputs, system, name)
        data = drawn_frames(frames, system.potentials[name].frames, system.training.seed)
        truth = frames if true == labels else pooled_frames(inputs, system, true, inputs.sound(true))
        beads = inputs.frames(f"cg_simulation_{name}")
        result = judge(system, module, reference, beads, runs_of(simulated), data, truth)

        def again(earlier: Any, config: dict[str, Any]) -> dict[str, float]:
            bias = frozen_bias(Inputs(work.store, system), system.cg_simulation)
            return judge_again(system, earlier, config, reference, data, bias)

        return evaluation_product(
            work, system, name, result, lambda: inputs.versions[f"{system.name}/reference"], again
        )

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
        checks=checks_of(system.evaluation),
        kinds=frozenset({"parquet", "mlflow"}),
    )
