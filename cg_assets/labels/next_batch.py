"""Where to sample next: an adaptive bias puts its windows where the mean force is least certain so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cg_assets.biases.adaptive import AdaptiveBias, Proposal
from cg_assets.core.frames import Frames
from cg_assets.labels.label_errors import label_errors, variable_bins
from cg_assets.mapping.beads import Beads
from cg_assets.sampling.settings import SamplingPlan


def propose(beads: Beads, plan: SamplingPlan, bias: AdaptiveBias, batches: Sequence[Frames]) -> Proposal:
    """Windows of the next batch of an adaptive plan.

    Args:
        beads: the beads.
        plan: the plan.
        bias: its bias.
        batches: labelled CG frames so far, each set as `pooled_batches` joins batches of one plan; may be empty.
    """
    bins = variable_bins(beads, bias.collective_variables, bias.candidates, bias.grid_range)
    known = label_errors(beads, bias.collective_variables, bins, batches)
    per_window = plan.frames_per_replica * plan.replicas / bias.windows
    proposal = bias.propose(beads, bins, known.count, known.error, known.free_energy, per_window)
    return replace(proposal, outside=1.0 - known.count.sum() / max(1, sum(map(len, batches))) if batches else 0.0)


def concrete_plan(beads: Beads, plan: SamplingPlan, centers: list[dict[str, float]] | None = None) -> SamplingPlan:
    """A plan with umbrella windows in the place of an adaptive bias; other plans as they are.

    Args:
        beads: the beads.
        plan: the plan.
        centers: proposed centres of the windows; None to spread them over the whole range.
    """
    bias = None if plan.bias is None else plan.bias.adaptive
    if bias is None:
        return plan
    points = centers if centers is not None else propose(beads, plan, bias, []).points()
    return plan.model_copy(update={"bias": bias.placed(points)})
