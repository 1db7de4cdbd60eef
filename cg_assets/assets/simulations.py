"""`cg_simulation_<name>`: molecular dynamics of the beads with a trained potential."""

from __future__ import annotations

from cg_assets.assets.common_checks import stability_verdict, temperature_verdict
from cg_assets.assets.data import frozen_bias, training_frames
from cg_assets.assets.stage import Batches, Figure, FrameContent, Product, Read, Report, Stage, Stored
from cg_assets.assets.work import Work
from cg_assets.core.checks import Check, Verdict
from cg_assets.systems import SystemSpec

TEMPERATURE = Check(
    "kinetic_temperature", "The beads have the temperature of the system, within its error.", blocking=False
)
STABILITY = Check("stability", "No replica exploded.", blocking=False)
CHECKS = (TEMPERATURE, STABILITY)
"""They do not block, so that a bad potential is still judged and compared."""


def cg_simulation_stage(system: SystemSpec, name: str) -> Stage:
    """The stage of the simulation with one potential."""
    labels, settings = system.potentials[name].labels, system.cg_simulation
    read = sorted({labels, "relabelled_forces"} if settings.enhanced_duration else {labels})

    def make(work: Work) -> Product:
        from cg_assets.simulation.run import run_cg_simulation

        trained = work.inputs.facts(f"potential_{name}")
        model = {item: trained[item] for item in ("registered_model", "version")}
        module, _ = work.open_tracking().load(model["registered_model"], model["version"])
        data, bias = training_frames(work.inputs, system, name), frozen_bias(work.inputs, settings)
        with work.leased() as device:
            result = run_cg_simulation(system, module, data, bias, device=device, progress=work.progress)

        def judge(_: Stored) -> list[Verdict]:
            value, error = result.kinetic_temperature, result.kinetic_temperature_error
            return [
                temperature_verdict(TEMPERATURE, system, system.temperature, value, error),
                stability_verdict(STABILITY, result.summary()),
            ]

        def report(_: object) -> Report:
            from cg_assets.figures.stages import cg_simulation_figure

            shown: Report = {
                "figure": Figure(cg_simulation_figure(system, result), "CG simulation"),
                "stability": result.stability,
                "kinetic_temperature": f"{result.kinetic_temperature:.5g} ± {result.kinetic_temperature_error:.2g}",
                "replica_steps_per_second": round(result.steps_per_second),
            }
            if result.exchange_acceptance:
                shown["exchange_acceptance"] = ", ".join(f"{item:.2f}" for item in result.exchange_acceptance)
            return shown

        facts = model | {"bias": bias, "summary": result.summary()}
        return Product(FrameContent(result.frames), facts, judge, report, settings.seed)

    return Stage(
        name=f"cg_simulation_{name}",
        description="Langevin dynamics of the beads in many replicas with the registered potential: without a bias "
        "and, where the specification asks for it, under the frozen bias of the biased samples.",
        make=make,
        reads=(Read(f"potential_{name}", Batches.NONE), *(Read(source, Batches.CHOSEN) for source in read)),
        checks=CHECKS,
        gpu=True,
        kinds=frozenset({"pytorch", "parquet"}),
    )
