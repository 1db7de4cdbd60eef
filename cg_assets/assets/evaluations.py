"""`reference` and `evaluation_<name>`: the reference of a system, and potentials compared with it."""

from __future__ import annotations

import hashlib
import json
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


def read_reference(inputs: Inputs, system: AnySystem) -> Reference:
    """The materialised reference of a system."""
    from cg_assets.evaluation.reference import Reference

    return Reference.read(system.beads(), inputs.table("reference"), inputs.facts("reference")["reference"])


def reference_stage(system: SystemSpec) -> Stage:
    """The stage of the reference: exact quadrature, long runs, or the data themselves."""
    source = system.reference_data

    def make(work: Work) -> Product:
        seed = seed_of(system.name, "reference", "0000")
        unfinished = work.store.stage_folder(system.name, "reference") / ".runs"
        data = pooled_frames(work.inputs, system, source, work.inputs.sound(source)) if source else None
        result = system.compute_reference(seed, unfinished, work.progress, data)

        def report(_: object) -> Report:
            from cg_assets.figures.evaluation import reference_figure

            figure = Figure(reference_figure(system.beads(), result), "reference free energy")
            return {"figure": figure, "results": result.rows(), "source": result.source}

        return Product(TableContent(result.columns()), {"reference": result.metadata()}, report=report, seed=seed)

    made_by = [] if source else ["scipy" if system.units == "reduced" else "openmm"]
    return Stage(
        name="reference",
        description="The reference free energy, with its standard error.",
        make=make,
        reads=(Read(source, Batches.ALL),) if source else (),
        kinds=frozenset({"parquet", *made_by}),
    )


def judge(
    system: AnySystem,
    module: Any,
    reference: Reference | None,
    simulated: Frames,
    runs: Sequence[Run],
    data: Frames,
    truth: Frames | None = None,
) -> Evaluation:
    """Evaluate a potential by its CG simulation.

    Args:
        system: the system.
        module: the trained potential.
        reference: what it is judged against; None where that is `truth`.
        simulated: frames of its CG simulation.
        runs: what its CG simulations gave.
        data: CG frames that it was trained on.
        truth: CG frames that those of the simulation should look like; `data` where None.
    """
    from cg_assets.evaluation.case import Case
    from cg_assets.evaluation.evaluation import evaluate
    from cg_assets.potentials.energies import committee_energies, energy_function, thermodynamics
    from cg_assets.sampling.model_potential.planes import exact_plane

    beads, many = system.beads(), bool(system.temperatures)
    at = (None, None) if many else (beads.temperature, beads.edges)
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
        plane=None if reference is None else lambda: exact_plane(system.model.landscape(beads), reference.surface.bins),
        domain=system.domain,
        thermodynamics=thermodynamics(module) if many else None,
        folder=system.folder,
    )
    return evaluate(case)


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
        judged_by: hash of the reference.
        again: figures of merit of an earlier version by the same; what they lack is infinitely bad.
    """
    client, metrics, criteria = work.open_tracking(), result.metrics(), result.tolerances
    decision = client.decide_champion(model, version, metrics, result.passed, judged_by, criteria)
    if decision.rejudge is None:
        return decision
    work.log.info(f"champion {decision.rejudge} was compared with another reference; comparing it with this one")
    earlier = dict.fromkeys(criteria, math.inf) | again(*client.load(model, decision.rejudge))
    return client.decide_champion(model, version, metrics, result.passed, judged_by, criteria, earlier)


def evaluation_stage(system: AnySystem, name: str) -> Stage:
    """The stage that evaluates one potential and decides whether its model becomes champion."""
    from cg_assets.evaluation.evaluation import checks_of

    stages = dict.fromkeys([system.data_stage(name), system.true_stage(name)])
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
    )


def _make_evaluation(work: Work, system: AnySystem, name: str) -> Product:
    from cg_assets.core.errors import ExplosionError
    from cg_assets.simulation.run import run_cg_simulation
    from cg_assets.training.setup import drawn_frames

    inputs, true = work.inputs, system.true_stage(name)
    simulated = inputs.facts(f"cg_simulation_{name}")
    model, version = simulated["registered_model"], simulated["version"]
    module, _ = work.open_tracking().load(model, version)
    reference = read_reference(inputs, system) if system.reference_stage else None
    frames = training_frames(inputs, system, name)
    data = drawn_frames(frames, *system.drawn(name))
    truth = frames if true == system.data_stage(name) else pooled_frames(inputs, system, true, inputs.sound(true))
    beads = inputs.frames(f"cg_simulation_{name}")
    result = judge(system, module, reference, beads, runs_of(simulated), data, truth)
    judged_by = _judged_by(inputs, system, name)

    def again(earlier: Any, config: dict[str, Any]) -> dict[str, float]:
        """Of an earlier version, whose CG simulation is run again, because only that of the newest version is kept.

        There are none of a version for other beads, or of one that does not stay stable.
        """
        own = system.beads()
        if config.get("bead_names", own.cg_map.bead_names) != own.cg_map.bead_names:
            return {}
        bias, settings = frozen_bias(Inputs(work.store, system), system.cg_simulation), system.cg_simulation
        try:
            run = run_cg_simulation(earlier, own, settings, data, system.temperatures, bias)
        except ExplosionError:
            return {}
        return judge(system, earlier, reference, run.frames, run.runs, data, truth).metrics()

    def report(_: object) -> Report:
        from cg_assets.figures.evaluation import evaluation_figures

        figures = evaluation_figures(name, result, system.title)
        work.open_tracking().log_evaluation(model, version, result.metrics(), figures, judged_by)
        decision = decide(work, model, version, result, judged_by, again)
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


def _judged_by(inputs: Inputs, system: AnySystem, name: str) -> str:
    """Hash of what a potential is judged against: the reference, or the frames that it should look like."""
    if system.reference_stage:
        return inputs.versions[f"{system.name}/{system.reference_stage}"]
    true = f"{system.name}/{system.true_stage(name)}/"
    data = [version for key, version in inputs.versions.items() if key.startswith(true)]
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
