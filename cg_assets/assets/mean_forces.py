"""`<name>_forces` of `sampling.mean_forces`: forces averaged at fixed beads, as labels of their own."""

from __future__ import annotations

from cg_assets.assets.data import read_samples, with_map
from cg_assets.assets.forces import CHECKS, judge_forces
from cg_assets.assets.stage import Batches, Figure, PieceContent, Product, Read, Report, Stage, Stored
from cg_assets.assets.work import Work
from cg_assets.core.checks import Verdict
from cg_assets.core.units import unit
from cg_assets.systems import SystemSpec


def mean_forces_stage(system: SystemSpec, name: str) -> Stage:
    """The stage of mean forces in configurations of one kind of samples."""
    averaged = system.sampling.by_mean_force_labels()[name]
    mean_force, source = averaged.plan, averaged.source.samples

    def make(work: Work) -> Product:
        from cg_assets.labels.mean_forces import MeanForceSampler
        from cg_assets.labels.quality import LabelNoise
        from cg_assets.mapping.run import fit_force_map

        samples, whole = read_samples(work.inputs, source, work.batch)
        of_system = system.beads()
        force_map = fit_force_map(system.mapping, of_system, samples)
        arguments = system.structure(), of_system, mean_force, averaged.source.plan, whole, force_map, work.seed
        pieces, _, summary = work.sample("", lambda: MeanForceSampler(*arguments), work.seed)
        measured = summary.noise
        beads, map_hash, facts = with_map(system)
        how = (
            f"scatter of {mean_force.samples} forces at fixed beads, {measured.effective_samples:.1f} of them "
            "independent, in each mean"
        )
        noise = LabelNoise(measured.noise_floor, how, beads=measured, bead_names=tuple(beads), map_kind=force_map.kind)
        facts |= {
            "plan": mean_force.model_dump(mode="json"),
            "bias": work.inputs.facts(source, work.batch)["bias"],
            "force_map": force_map.to_json(),
            "noise_floor": noise.to_json(),
        }

        def report(_: object) -> Report:
            from cg_assets.figures.labels import label_noise_figure

            return {
                "figure": Figure(label_noise_figure(of_system, noise), "noise of the mean forces"),
                "seed": work.seed,
                "sampled_time": f"{summary.sampled_time:g} {unit('time', system.units)}",
                "force_map": force_map.kind,
                "noise_floor": str(noise.floor),
                "independent_forces_in_a_mean": round(measured.effective_samples, 2),
            }

        def judge(stored: Stored) -> list[Verdict]:
            return judge_forces(system.beads(), stored.frames(), force_map, noise)

        return Product(PieceContent(pieces), facts, judge, report, work.seed, beads, map_hash)

    return Stage(
        name=name,
        description=f"Beads of frames of {source}, each with the bead forces averaged over the motion of the other "
        "atoms at fixed beads, and the variance of the average (arXiv 2602.14531).",
        make=make,
        reads=(Read(source, Batches.SAME),),
        checks=CHECKS,
        batched=True,
        kinds=frozenset({"parquet", "openmm"}),
        sections=(f"sampling.mean_forces.{name.removesuffix('_forces')}",),
    )
