"""`prior_<name>`: a force field of the chain, fitted to configurations, which the network of a potential corrects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cg_assets.assets.data import learnt_source
from cg_assets.assets.stage import Batches, Figure, Product, Read, Report, Stage, TableContent
from cg_assets.assets.work import Work
from cg_assets.core.checks import Check, Verdict
from cg_assets.core.units import thermal_energy
from cg_assets.systems import SystemSpec
from cg_assets.training.settings import TARGETS

if TYPE_CHECKING:
    from cg_assets.training.prior_simulation import PriorSimulation
    from cg_assets.training.priors import PriorFit

PRIOR_ALONE = Check(
    "prior_alone",
    "No replica of the prior alone explodes, and its bonds are distributed as in the data.",
    remedy="sample more frames, or simulate the prior with a shorter step",
)


def judge_prior(fit: PriorFit, simulated: PriorSimulation) -> list[Verdict]:
    """Verdict on a prior."""
    from cg_assets.evaluation.metrics.bonds import MAX_BOND_DIVERGENCE

    bonds = [float(value) for term, value in zip(fit.terms, simulated.divergence, strict=True) if term.kind == "bonds"]
    passed = simulated.stable_replicas == simulated.replicas and all(value <= MAX_BOND_DIVERGENCE for value in bonds)
    return [
        PRIOR_ALONE.verdict(
            passed,
            stable_replicas=simulated.stable_replicas,
            replicas=simulated.replicas,
            limit=MAX_BOND_DIVERGENCE,
            largest_bond_divergence=max(bonds) if simulated.stable_replicas and bonds else None,
        )
    ]


def prior_stage(system: SystemSpec, name: str) -> Stage:
    """The stage of the prior of one potential; it learns from all batches of its labels, but not from the labels."""
    learnt = system.potentials[name]
    stages = [stage for stage in learnt.stages if stage != TARGETS]

    def make(work: Work) -> Product:
        from cg_assets.training.prior_simulation import REPLICAS, simulate_prior
        from cg_assets.training.setup import fitted_prior, prior_positions

        source = learnt_source(work.inputs, system, name)
        settings, beads = system.cg_simulation, system.beads()
        fit = fitted_prior(system.network, beads, source.frames)
        positions, kelvin = prior_positions(system.network, source.frames)
        if fit is None:
            raise TypeError(f"{system.name} has no network.prior")
        rows = np.random.default_rng(settings.seed).integers(len(positions), size=REPLICAS)
        masses, energy = beads.cg_map.bead_masses, thermal_energy(kelvin, beads.units)
        simulated = simulate_prior(fit, positions[rows], masses, energy, settings, work.progress)

        def report(_: object) -> Report:
            from cg_assets.figures.training import prior_plot

            png = prior_plot(fit, simulated.histograms, title=f"{system.title}: prior of potential {name}")
            return {
                "figure": Figure(png, "prior"),
                "terms": fit.rows(),
                "prior_alone": f"{simulated.stable_replicas} of {simulated.replicas} replicas stable for "
                f"{simulated.time:g} ps",
                "frames": len(positions),
            }

        columns = fit.columns() | {"divergence_alone": simulated.divergence}
        facts = {"prior": fit.config()}
        return Product(TableContent(columns), facts, lambda _: judge_prior(fit, simulated), report, settings.seed)

    return Stage(
        name=f"prior_{name}",
        description=f"Bonds, angles, dihedrals and repulsion fitted to the configurations of {', '.join(stages)}, and "
        "simulated without a network.",
        make=make,
        reads=tuple(Read(stage, Batches.ALL) for stage in stages),
        checks=(PRIOR_ALONE,),
        kinds=frozenset({"numpy", "parquet"}),
        code_version="3" if system.network.needs_temperature else "2",
        sections=(
            "network",
            *(f"cg_simulation.{part}" for part in ("timestep", "friction", "seed")),
            *(f"potentials.{name}.{part}" for part in ("temperatures", "also") if getattr(learnt, part) is not None),
        ),
    )
