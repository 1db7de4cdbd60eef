"""`cg_simulation_<name>`: molecular dynamics of the beads with a trained potential."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cg_assets.assets.common_checks import temperature_verdict
from cg_assets.assets.data import frozen_bias, start_frames
from cg_assets.assets.stage import Batches, Figure, FrameContent, Product, Read, Report, Stage
from cg_assets.assets.work import Work
from cg_assets.core.checks import Check, Verdict
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.mapping.beads import Beads
    from cg_assets.simulation.run import CGSimulationResult, Run

TEMPERATURE = Check(
    "kinetic_temperature",
    "The beads have the temperature of the system, within its error.",
    blocking=False,
    remedy="use a shorter step in `cg_simulation`",
)
STABILITY = Check(
    "stability",
    "No replica exploded.",
    blocking=False,
    remedy="use a shorter step in `cg_simulation`, a prior, or data that cover where the replicas went",
)
CHECKS = (TEMPERATURE, STABILITY)
"""They do not block, so that a bad potential is still evaluated and compared."""


def runs_of(facts: Mapping[str, Any]) -> tuple[Run, ...]:
    """What each run gave, from the facts in the file of a CG simulation."""
    from cg_assets.simulation.run import Run

    return tuple(Run.from_json(content) for content in facts["runs"])


def judge_simulation(system: SystemSpec, runs: Sequence[Run]) -> list[Verdict]:
    """Verdicts on the runs of a CG simulation: their temperatures without a bias, and the stability of all."""
    free = [run for run in runs if not run.biased]
    names = ("stable_replicas", "replicas")
    kinetic = {run.temperature: run.kinetic_temperature for run in free}
    thermal = temperature_verdict(TEMPERATURE, kinetic, system.units)
    if len(free) == 1:
        counts = {f"{'enhanced_' if run.biased else ''}{name}": getattr(run, name) for run in runs for name in names}
    else:
        counts = {f"stable_at_{run.temperature:g}_K": run.stable_replicas for run in free}
        counts["replicas"] = free[0].replicas
    return [thermal, STABILITY.verdict(all(run.is_stable for run in runs), **counts)]


def cg_simulation_stage(system: SystemSpec, name: str) -> Stage:
    """The stage of the simulations with one potential."""
    data, settings = system.data_stage(name), system.cg_simulation
    also = system.biased_labels if settings.enhanced_duration else None
    also = system.reference_data if settings.temperatures else also
    read = sorted({data, also or data})

    def make(work: Work) -> Product:
        from cg_assets.simulation.run import run_cg_simulation

        trained = work.inputs.facts(f"potential_{name}")
        model = {item: trained[item] for item in ("registered_model", "version", "weights_hash")}
        potential, _ = work.open_tracking().load(*model.values())
        frames = start_frames(work.inputs, system, name)
        bias = frozen_bias(work.inputs, settings, system.biased_labels)
        with work.leased() as device:
            result = run_cg_simulation(
                potential,
                system.beads(),
                settings,
                frames,
                system.simulated_temperatures,
                bias,
                device,
                work.progress,
            )
        verdicts = judge_simulation(system, result.runs)
        of_bias = {} if system.simulated_temperatures else {"bias": bias}
        facts = model | of_bias | {"runs": [run.to_json() for run in result.runs]}

        def report(_: object) -> Report:
            return _report(result, system.beads(), name)

        return Product(FrameContent(result.frames), facts, lambda _: verdicts, report, settings.seed)

    return Stage(
        name=f"cg_simulation_{name}",
        description="Langevin dynamics of the beads in many replicas with the registered potential at each temperature "
        "where it is judged and, if the system asks for it, under the frozen bias of the biased samples.",
        make=make,
        reads=(Read(f"potential_{name}", Batches.NONE), *(Read(source, Batches.CHOSEN) for source in read)),
        checks=CHECKS,
        gpu=True,
        kinds=frozenset({"pytorch", "parquet"}),
        sections=("cg_simulation",),
    )


def _report(result: CGSimulationResult, beads: Beads, name: str) -> Report:
    from cg_assets.figures.simulation import cg_simulation_figure

    free = result.runs[0]
    shown: Report = {
        "figure": Figure(cg_simulation_figure(beads, result, name), "CG simulation"),
        "stability": result.stability,
        "temperatures": [
            {
                "run": "under the bias" if run.biased else "free",
                f"temperature [{free.kinetic_temperature.unit}]": f"{run.temperature:g}",
                "kinetic temperature": str(run.kinetic_temperature),
                "stable replicas": f"{run.stable_replicas} of {run.replicas}",
            }
            for run in result.runs
        ],
        "replica_steps_per_second": round(result.steps_per_second),
    }
    if free.exchange_acceptance:
        shown["exchange_acceptance"] = ", ".join(f"{item:.2f}" for item in free.exchange_acceptance)
    return shown
