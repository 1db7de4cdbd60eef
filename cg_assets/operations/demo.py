"""The demo: systems from sampling to a registered model, and the table of their results."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cg_assets.operations.home_folder import prepare_home
from cg_assets.operations.runs import Outcome, run_system
from cg_assets.operations.tables import table
from cg_assets.settings import installation
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_all_systems, load_system

DEMOS = {
    "biased": ["muller_brown", "muller_brown_diagonal", "capped_alanine_quick"],
    "water": ["water_quick"],
    "helix": ["helix_quick"],
}
"""What each demo runs: forces of biased samples, thermal response forces, and a helix at all temperatures."""


def run_demo(demo: str) -> int:
    """Run the systems of one of the `DEMOS` and print the results.

    Returns:
        Exit status: 0 when every step succeeded.
    """
    started = time.monotonic()
    folder = prepare_home()
    names = DEMOS[demo]
    print(f"cg-assets demo: {', '.join(names)} on {os.cpu_count()} cores; state goes to {folder}\n")
    failed = [name for name in names if run_system(name) is Outcome.FAILED]
    print_results(folder, names)
    print(f"\nwall time {time.monotonic() - started:.0f} s")
    figures = folder / "figures"
    compared = ParquetStore(folder)
    write_figures(folder, [name for name in names if compared.file(name, "comparison").is_file()], figures)
    print(
        f"\ndata     {folder / 'data'}   (SQL: cg-assets query 'select * from lineage')"
        f"\nplots    {figures}   (and in the Dagster pages, on each asset)"
        "\nmodels   cg-assets models; cg-assets lookup NAME@champion"
        "\npages    cg-assets ui"
    )
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


def print_results(folder: Path, names: list[str], everything: bool = False) -> None:
    """Print the comparison of each system: what decides, the headlines, and what fails its bound, with errors.

    Args:
        folder: the home folder.
        names: of the systems; empty for all that have results.
        everything: whether all quantities are printed.

    Raises:
        StorageError: a named system has no comparison yet.
    """
    from cg_assets.evaluation.comparison import Comparison
    from cg_assets.storage.parquet import read_arrays

    store = ParquetStore(folder)
    systems = load_all_systems()
    for name in names or [name for name in systems if store.file(name, "comparison").is_file()]:
        comparison = Comparison.from_columns(read_arrays(store.file(name, "comparison")))
        rows = comparison.rows(everything)
        alike = {name for name in ("of", "where") if len({row[name] for row in rows}) == 1}
        header = [name for name in rows[0] if name not in alike and any(row[name] for row in rows)]
        print(f"\n{load_system(name).title}")
        print(table(header, [[row[name] for name in header] for row in rows], ruled=True))


def write_figures(folder: Path, names: list[str], figures: Path) -> list[Path]:
    """Write the comparison figures of each system as PNG.

    Args:
        folder: the home.
        names: of the systems.
        figures: the folder of the figures.

    Returns:
        Their files.

    Raises:
        SystemSpecError: there is no such system.
        StorageError: a system has no comparison yet.
    """
    from cg_assets.assets.comparison import read_comparison
    from cg_assets.assets.work import Inputs
    from cg_assets.figures.comparison import comparison_figures

    store = ParquetStore(folder)
    figures.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name in names:
        system = load_system(name)
        comparison = read_comparison(Inputs(store, system), system.potentials)
        for title, png in comparison_figures(comparison, system.title).items():
            file = name if title == "figure" else f"{name}_{title.replace(' ', '_')}"
            written.append(figures / f"{file}.png")
            written[-1].write_bytes(png)
    return written


def make_report(home: Path, name: str) -> Path:
    """Write the report of a system from what is in the home folder.

    Returns:
        Its file.

    Raises:
        SystemSpecError: there is no such system.
        StorageError: it has no comparison yet.
    """
    from cg_assets.assets.report import write_report
    from cg_assets.assets.report.contents import report_page
    from cg_assets.assets.work import Inputs
    from cg_assets.registry.tracking import ModelTracking

    store = ParquetStore(home)
    models = {model.name: model for model in ModelTracking(installation().tracking_uri, home).models()}
    return write_report(store, name, report_page(Inputs(store, load_system(name)), models))
