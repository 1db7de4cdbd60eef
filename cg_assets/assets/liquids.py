"""`cg_simulation_<name>`, `evaluation_<name>` and `comparison` of water, at every temperature of its reference."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

from cg_assets.assets.common_checks import temperatures_verdict
from cg_assets.assets.data import frames_of_atoms
from cg_assets.assets.evaluations import decide, shown_decision
from cg_assets.assets.simulations import CHECKS, STABILITY, TEMPERATURE
from cg_assets.assets.stage import Batches, Figure, FrameContent, Product, Read, Report, Stage, TableContent
from cg_assets.assets.work import Inputs, Work
from cg_assets.core.checks import Check, Verdict
from cg_assets.systems import ThermalSystem
from cg_assets.systems.thermal_spec import TRAJECTORIES

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.evaluation.liquid_evaluation import LiquidEvaluation
    from cg_assets.simulation.liquid import LiquidSimulation


def judge_liquid_simulation(result: LiquidSimulation) -> list[Verdict]:
    """Verdicts on the CG simulations of a liquid."""
    stable = {f"stable_at_{kelvin:g}_K": count for kelvin, count in result.stable_replicas.items()}
    passed = all(count == result.replicas for count in result.stable_replicas.values())
    return [
        temperatures_verdict(TEMPERATURE, result.kinetic_temperature),
        STABILITY.verdict(passed, replicas=result.replicas, **stable),
    ]


def liquid_simulation_stage(system: ThermalSystem, name: str) -> Stage:
    """The stage of the simulations with one potential."""

    def make(work: Work) -> Product:
        from cg_assets.simulation.liquid import run_liquid_simulation

        trained = work.inputs.facts(f"potential_{name}")
        model = {item: trained[item] for item in ("registered_model", "version")}
        module, _ = work.open_tracking().load(model["registered_model"], model["version"])
        atoms = frames_of_atoms(work.inputs, TRAJECTORIES, system.sampling.reference.replicas)
        with work.leased() as device:
            result = run_liquid_simulation(system, module, atoms, device, work.progress)

        def report(_: object) -> Report:
            from cg_assets.evaluation.liquid import structure_and_energy
            from cg_assets.figures.plots_thermal import water_plot

            rows = [
                {
                    "temperature [K]": kelvin,
                    "kinetic temperature": str(measured),
                    "stable replicas": f"{result.stable_replicas[kelvin]} of {result.replicas}",
                }
                for kelvin, measured in result.kinetic_temperature.items()
            ]
            png = water_plot(*structure_and_energy(result.frames), of="W", title=f"{system.title}: {name}")
            return {
                "figure": Figure(png, "structure and energy"),
                "temperatures": rows,
                "replica_steps_per_second": round(result.replica_steps_per_second),
            }

        facts, seed = model | {"summary": result.summary()}, system.cg_simulation.seed
        return Product(FrameContent(result.frames), facts, lambda _: judge_liquid_simulation(result), report, seed)

    return Stage(
        name=f"cg_simulation_{name}",
        description="Langevin dynamics of the beads with the registered potential, at each temperature of the atoms' "
        "dynamics and from their frames.",
        make=make,
        reads=(Read(f"potential_{name}", Batches.NONE), Read(TRAJECTORIES, Batches.CHOSEN)),
        checks=CHECKS,
        gpu=True,
        kinds=frozenset({"pytorch", "parquet"}),
    )


def rdf_check(system: ThermalSystem) -> Check:
    """The check of an evaluation: a model that fails it never becomes champion."""
    text = f"At every temperature, g(r) less its noise errs by at most {system.evaluation.max_rdf_error} nm."
    return Check("rdf_error", text, blocking=False)


def judge_liquid_evaluation(system: ThermalSystem, result: LiquidEvaluation) -> list[Verdict]:
    """Verdict on a potential of a liquid; a temperature at which no replica was stable fails it."""
    errors = {kelvin: pair for (name, kelvin), pair in result.numbers.items() if name == "rdf error"}
    above = [found.value - floor.value for found, floor in errors.values()]
    passed = len(errors) == len(result.temperatures) and max(above) <= system.evaluation.max_rdf_error
    measured = {f"{kelvin:g} K": f"{found} (of noise: {floor.value:.4f})" for kelvin, (found, floor) in errors.items()}
    return [rdf_check(system).verdict(passed, **measured, bound=system.evaluation.max_rdf_error)]


def _judge_again(system: ThermalSystem, module: Any, atoms: Frames) -> dict[str, float]:
    """Figures of merit of an earlier version by these data; an infinite error where it does not stay stable."""
    from cg_assets.core.errors import ExplosionError
    from cg_assets.evaluation.liquid_evaluation import evaluate_liquid
    from cg_assets.simulation.liquid import run_liquid_simulation

    try:
        run = run_liquid_simulation(system, module, atoms)
        return evaluate_liquid(system, module, atoms, run.frames, run.kinetic_temperature).metrics()
    except ExplosionError:
        return {"rdf_error": math.inf}


def liquid_evaluation_stage(system: ThermalSystem, name: str) -> Stage:
    """The stage that judges one potential and decides whether its model becomes champion."""

    def make(work: Work) -> Product:
        from cg_assets.core.statistics.estimates import Estimate
        from cg_assets.evaluation.liquid_evaluation import COLUMN_UNITS, RADIAL_ERROR, evaluate_liquid

        inputs, client = work.inputs, work.open_tracking()
        simulated = inputs.facts(f"cg_simulation_{name}")
        model, version, summary = (simulated[item] for item in ("registered_model", "version", "summary"))
        beads = inputs.frames(f"cg_simulation_{name}")
        atoms = frames_of_atoms(inputs, TRAJECTORIES, system.sampling.reference.replicas)
        module, _ = client.load(model, version)
        kinetic = [Estimate.from_json(item) for item in summary["kinetic_temperature"]]
        at = dict(zip(summary["temperatures"], kinetic, strict=True))
        result = evaluate_liquid(system, module, atoms, beads, at)

        def report(verdicts: Any) -> Report:
            from cg_assets.figures.plots_response import liquid_figures

            figures = liquid_figures({name: result}, system.title)
            data = [value for key, value in inputs.versions.items() if key.startswith(f"{system.name}/{TRAJECTORIES}/")]
            judged_by = hashlib.sha256(json.dumps(data).encode()).hexdigest()
            client.log_evaluation(model, version, result.metrics(), figures, judged_by)
            decision = decide(
                work,
                model,
                version,
                result.metrics(),
                lambda earlier, _: _judge_again(system, earlier, atoms),
                passed=all(item.passed for item in verdicts),
                reference_hash=judged_by,
                criterion="rdf_error",
                tolerance=result.mean(RADIAL_ERROR).standard_error,
            )
            return shown_decision(figures, result.rows(), model, version, decision)

        facts = {"registered_model": model, "version": version}
        content = TableContent(result.columns(), COLUMN_UNITS)
        return Product(content, facts, lambda _: judge_liquid_evaluation(system, result), report)

    return Stage(
        name=f"evaluation_{name}",
        description="Structure, its change with temperature, energies and diffusion of the beads against the atoms'; "
        "the registered model becomes champion when it passes and is not worse than the present one.",
        make=make,
        reads=(Read(f"cg_simulation_{name}", Batches.NONE), Read(TRAJECTORIES, Batches.CHOSEN)),
        checks=(rdf_check(system),),
        kinds=frozenset({"parquet", "mlflow"}),
    )


def read_evaluations(inputs: Inputs, system: ThermalSystem) -> dict[str, LiquidEvaluation]:
    """The materialised evaluations of all potentials of a system.

    Raises:
        StorageError: one of them is missing.
    """
    from cg_assets.evaluation.liquid_evaluation import LiquidEvaluation

    kelvins = list(system.sampling.reference.temperatures)
    return {
        name: LiquidEvaluation.from_columns(inputs.table(f"evaluation_{name}"), kelvins) for name in system.potentials
    }


def liquid_comparison_stage(system: ThermalSystem) -> Stage:
    """The stage that puts the evaluations of all potentials side by side."""
    read = [f"{part}_{name}" for name in system.potentials for part in ("evaluation", "cg_simulation")]

    def make(work: Work) -> Product:
        from cg_assets.evaluation.liquid_evaluation import RADIAL_ERROR, comparison_columns, error_rows

        evaluations = read_evaluations(work.inputs, system)
        summaries = {name: work.inputs.facts(f"cg_simulation_{name}")["summary"] for name in evaluations}
        speed = {name: summary["replica_steps_per_second"] for name, summary in summaries.items()}

        def report(_: object) -> Report:
            from cg_assets.figures.plots_response import accuracy_against_speed_plot, liquid_figures

            figures = liquid_figures(evaluations, system.title)
            errors = {name: item.mean(RADIAL_ERROR) for name, item in evaluations.items()}
            axis = "mean error of g(r) [nm]"
            figures["accuracy and speed"] = accuracy_against_speed_plot(speed, errors, axis, title=system.title)
            shown: Report = {title: Figure(figure, title) for title, figure in figures.items()}
            return shown | {"results": error_rows(evaluations)}

        return Product(TableContent(comparison_columns(evaluations)), report=report)

    return Stage(
        name="comparison",
        description="The potentials of all methods against the atoms at each temperature, in one table and figures.",
        make=make,
        reads=tuple(Read(stage, Batches.NONE) for stage in read),
        kinds=frozenset({"parquet", "matplotlib"}),
    )
