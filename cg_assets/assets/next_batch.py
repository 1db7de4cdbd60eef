"""`next_batch_plan_<plan>`: where to sample the next batch of an adaptive plan."""

from __future__ import annotations

from cg_assets.assets.data import pooled_frames
from cg_assets.assets.stage import Batches, Figure, Product, Read, Stage, TableContent
from cg_assets.assets.work import Inputs, Work
from cg_assets.biases import AdaptiveBias
from cg_assets.sampling.settings import Sampled
from cg_assets.systems import SystemSpec


def _stage_of(section: str) -> str:
    return f"next_batch_plan_{section.rpartition('.')[2]}"


def proposed_centers(inputs: Inputs, section: str) -> list[dict[str, float]] | None:
    """The window centres that were proposed last for a plan; None before the first proposal for the present model.

    The samples read it but do not depend on it in the graph, since it depends on the samples of earlier batches.
    """
    stage = _stage_of(section)
    return inputs.facts(stage)["centers"] if inputs.has(stage) and not inputs.soundness.changed(stage) else None


def next_batch_stage(system: SystemSpec, sampled: Sampled, bias: AdaptiveBias) -> Stage:
    """The stage that proposes windows from all force labels of a system."""
    sources = list(system.sampling.by_labels())

    def make(work: Work) -> Product:
        from cg_assets.figures.samples import next_batch_figure
        from cg_assets.labels.next_batch import propose

        batches = []
        for source in sources:
            if sound := work.inputs.soundness.batches(source):
                batches.append(pooled_frames(work.inputs, system, source, sound, apart=True))
        beads = system.beads()
        proposal = propose(beads, sampled.plan, bias, batches)
        rows = [{name: f"{value:.3f}" for name, value in point.items()} for point in proposal.points()]
        return Product(
            TableContent(proposal.columns()),
            {"centers": proposal.points()},
            report=lambda _: {
                "figure": Figure(next_batch_figure(beads, proposal), "next batch"),
                "windows": rows,
                "outside_grid_range": f"{proposal.outside:.1%} of the frames so far",
            },
        )

    return Stage(
        name=_stage_of(sampled.section),
        description="Umbrella windows for the next batch, placed where the error of the mean force is largest.",
        make=make,
        reads=tuple(Read(source, Batches.ALL) for source in sources),
        kinds=frozenset({"parquet", "numpy"}),
        sections=(),
    )
