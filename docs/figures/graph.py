"""The graph of a system's assets, from its definitions: python docs/figures/graph.py [SYSTEM]."""

from __future__ import annotations

import sys
from pathlib import Path

from cg_assets.assets import stages_of
from cg_assets.figures.report.lineage import layout
from cg_assets.figures.style import DPI, STYLE, new_figure
from cg_assets.systems import load_system

GROUPS = {
    "samples": ("#0072B2", ("trajectories", "_samples", "imported_")),
    "force labels": ("#E69F00", ("_forces", "_labels", "_targets")),
    "reference": ("#8c8c8c", ("reference",)),
    "potentials, in MLflow": ("#D55E00", ("potential_", "prior_", "_kernel")),
    "CG simulations": ("#009E73", ("cg_simulation_",)),
    "evaluations": ("#CC79A7", ("evaluation_", "comparison", "report")),
}
"""Colour of each kind of asset, and what its names contain."""


def colour(name: str) -> str:
    """Colour of the kind that an asset is of."""
    return next(colour for colour, parts in GROUPS.values() if any(part in name for part in parts))


def direct(reads: dict[str, set[str]]) -> dict[str, set[str]]:
    """What each stage reads, without what it also reaches through another stage that it reads."""

    def reached(name: str) -> set[str]:
        return reads[name].union(*(reached(other) for other in reads[name]))

    return {name: found - set().union(*(reached(other) for other in found)) for name, found in reads.items()}


def main(arguments: list[str]) -> int:
    """Draw it."""
    import matplotlib
    from matplotlib.patches import FancyBboxPatch, Patch

    system = load_system(arguments[0] if arguments else "capped_alanine_quick")
    reads = {stage.name: {read.stage for read in stage.reads} for stage in stages_of(system)}
    at = layout(reads)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = new_figure(12.0, 3.2)
        axes = figure.subplots()
        for name, direct_reads in direct(reads).items():
            x, y = at[name]
            box = FancyBboxPatch(
                (x - 0.4, y - 0.24), 0.8, 0.48, boxstyle="round,pad=0.02", fc="white", ec=colour(name), lw=2
            )
            axes.add_patch(box)
            text = "\n".join(name.rsplit("_", 1)) if len(name) > 14 else name
            axes.text(x, y, text, ha="center", va="center")
            for read in sorted(direct_reads):
                style = {"arrowstyle": "-|>", "color": "#555555", "lw": 1}
                axes.annotate("", (x - 0.43, y), (at[read][0] + 0.43, at[read][1]), arrowprops=style)
        axes.set(xlim=(-0.5, max(x for x, _ in at.values()) + 0.5), ylim=(max(y for _, y in at.values()) + 0.35, -0.35))
        axes.axis("off")
        figure.legend(
            handles=[Patch(fc="white", ec=tint, lw=2, label=name) for name, (tint, _) in GROUPS.items()],
            loc="outside lower center",
            ncols=len(GROUPS),
        )
        file = Path(__file__).with_name("asset_graph.png")
        figure.savefig(file, dpi=DPI, metadata={"Software": None})
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
