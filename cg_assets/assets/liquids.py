"""`cg_simulation_<name>` and `evaluation_<name>` of water, at every temperature of its reference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cg_assets.assets.data import frames_of_atoms
from cg_assets.assets.evaluations import evaluation_product
from cg_assets.assets.simulations import CHECKS, judge_simulation, runs_of, simulated
from cg_assets.assets.stage import Batches, Figure, FrameContent, Product, Read, Report, Stage
from cg_assets.assets.work import Work
from cg_assets.systems import ThermalSystem
from cg_assets.systems.thermal_spec import TRAJECTORIES

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.evaluation.evaluation import Evaluation
    from cg_assets.simulation.run import Run


def liquid_simulation_stage(system: ThermalSystem, name: str) -> Stage:
    """The stage of the simulations with one potential."""

    def make(work: Work) -> Product:
        reference = system.sampling.reference
        atoms = frames_of_atoms(work.inputs, TRAJECTORIES, reference.replicas)
        result, facts = simulated(work, system, name, atoms, reference.temperatures)

        def report(_: object) -> Report:
            from cg_assets.evaluation.metrics.rdf import structure_and_energy
            from cg_assets.figures.simulation import water_plot

            rows = [
                {
                    "temperature [K]": run.temperature,
                    "kinetic temperature": str(run.kinetic_temperature),
                    "stable replicas": f"{run.stable_replicas} of {run.replicas}",
                }
                for run in result.runs
            ]
            png = water_plot(*structure_and_energy(result.frames), of="W", title=f"{system.title}: {name}")
            return {
                "figure": Figure(png, "structure and energy"),
                "temperatures": rows,
                "replica_steps_per_second": round(result.steps_per_second),
            }

        verdicts, seed = judge_simulation(system, result.runs), system.cg_simulation.seed
        return Product(FrameContent(result.frames), facts, lambda _: verdicts, report, seed)

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


def judge_liquid(
    system: ThermalSystem, module: Any, atoms: Frames, simulated: Frames, runs: Sequence[Run]
) -> Evaluation:
    """Judge a potential of a liquid by its CG simulations.

    Args:
        system: the system.
        module: a potential W(R, T).
        atoms: beads of the atoms' dynamics, with potential energies, at each temperature.
        simulated: frames of the CG simulations.
        runs: what these gave.
    """
    from cg_assets.evaluation.case import Case
    from cg_assets.evaluation.evaluation import evaluate
    from cg_assets.potentials.energies import energy_function, thermodynamics

    case = Case(
        beads=system.beads(),
        settings=system.evaluation,
        energy=energy_function(module),
        simulation=simulated,
        runs=tuple(runs),
        data=atoms,
        truth=atoms,
        thermodynamics=thermodynamics(module),
    )
    return evaluate(case)


def _judge_again(system: ThermalSystem, module: Any, atoms: Frames) -> dict[str, float]:
    """Figures of merit of an earlier version by these data; none where it does not stay stable."""
    from cg_assets.core.errors import ExplosionError
    from cg_assets.simulation.run import run_cg_simulation

    kelvins = system.sampling.reference.temperatures
    try:
        found = run_cg_simulation(module, system.beads(), system.cg_simulation, atoms, kelvins)
    except ExplosionError:
        return {}
    return judge_liquid(system, module, atoms, found.frames, found.runs).metrics()


def liquid_evaluation_stage(system: ThermalSystem, name: str) -> Stage:
    """The stage that judges one potential and decides whether its model becomes champion."""
    from cg_assets.evaluation.evaluation import checks_of

    def make(work: Work) -> Product:
        inputs = work.inputs
        facts = inputs.facts(f"cg_simulation_{name}")
        beads = inputs.frames(f"cg_simulation_{name}")
        atoms = frames_of_atoms(inputs, TRAJECTORIES, system.sampling.reference.replicas)
        module, _ = work.open_tracking().load(facts["registered_model"], facts["version"])
        result = judge_liquid(system, module, atoms, beads, runs_of(facts))

        def judged_by() -> str:
            data = [value for key, value in inputs.versions.items() if key.startswith(f"{system.name}/{TRAJECTORIES}/")]
            return hashlib.sha256(json.dumps(data).encode()).hexdigest()

        return evaluation_product(
            work, system, name, result, judged_by, lambda item, _: _judge_again(system, item, atoms)
        )

    return Stage(
        name=f"evaluation_{name}",
        description="Structure, its change with temperature, energies and diffusion of the beads against the atoms'; "
        "the registered model becomes champion when it passes and is not worse than the present one.",
        make=make,
        reads=(Read(f"cg_simulation_{name}", Batches.NONE), Read(TRAJECTORIES, Batches.CHOSEN)),
        checks=checks_of(system.evaluation),
        kinds=frozenset({"parquet", "mlflow"}),
    )
