"""`report`: one HTML file on a system that works without a network, and the table of what was made from what."""

from __future__ import annotations

from pathlib import Path

from cg_assets.assets.comparison import kept_figures
from cg_assets.assets.stage import Batches, Figure, Product, Read, Report, Stage, TableContent
from cg_assets.assets.work import Work
from cg_assets.storage.atomic import atomic_file
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import SystemSpec

OVERVIEW = "overview"
"""The figure of a report: the first of its comparison."""
SHOWN, _CARD_WIDTH = f"{OVERVIEW}.svg", 720
"""The same on the card of a model, and its width [pixels]."""


def report_stage(system: SystemSpec) -> Stage:
    """The stage of the report, the last of a system."""

    def make(work: Work) -> Product:
        from cg_assets.assets.report.contents import data_files, decisions, lineage_columns, report_page
        from cg_assets.assets.report.model_card import model_card
        from cg_assets.figures.report.page import scaled

        work.inputs.info("comparison")
        tracking = work.open_tracking()
        models = {model.name: model for model in tracking.models()}
        rows = decisions(work.inputs, models)
        pictures = {path.name: path.read_bytes() for path in kept_figures(work.inputs, "comparison")}
        first = next(iter(pictures), "")
        files = data_files(work.inputs)
        html = report_page(work.inputs, rows, files)
        path = write_report(work.store, system.name, html)
        for row in rows:
            if row["champion"]:
                kept = {"report.html": html.encode(), **pictures}
                kept |= {SHOWN: scaled(pictures[first], _CARD_WIDTH)} if first else {}
                place = tracking.attach_report(row["model"], row["version"], kept)
                card = model_card(work.inputs, row["potential"], row, tracking.local_uri, place, SHOWN * bool(first))
                tracking.describe(row["model"], card)

        def report(_: object) -> Report:
            picture = {"figure": Figure(pictures[first], OVERVIEW)} if first else {}
            return {"report": path, "decision": rows} | picture

        return Product(TableContent(lineage_columns(files)), report=report)

    evaluations = [f"evaluation_{name}" for name in system.potentials]
    return Stage(
        name="report",
        description="What was decided on each potential and why, with all figures and the lineage of the data, in one "
        "HTML file (`cg-assets report` writes it, too); its table lists which data were made from which.",
        make=make,
        reads=tuple(Read(stage, Batches.NONE) for stage in ("comparison", *evaluations)),
        kinds=frozenset({"parquet", "html"}),
        sections=(),
    )


def write_report(store: ParquetStore, system: str, html: str) -> Path:
    """Write the report of a system to `reports/` of the home folder; its file."""
    path = store.home / "reports" / f"{system}.html"
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path
