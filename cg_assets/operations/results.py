"""Results of systems that have run: tables on the terminal, figures and the report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from cg_assets.assets.soundness import Soundness
from cg_assets.evaluation.comparison import Comparison
from cg_assets.evaluation.metric import measures_of_noise
from cg_assets.operations.tables import Table, table
from cg_assets.settings import installation
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import SystemSpec, load_all_systems, load_system

COLUMNS = (
    *("system", "potential", "metric", "of", "where", "temperature", "value", "standard_error", "unit"),
    *("reference", "reference_error", "bound", "at_least", "passed", "decides"),
)
SHOWN = {
    "muller_brown": ("pmf_rmse",),
    "muller_brown_diagonal": ("pmf_rmse",),
    "muller_brown_plane": ("weighted_pmf_rmse", "width.well"),
    "melting_wells": ("pmf_rmse_at.T_0_6", "pmf_rmse_at.T_1_6"),
    "capped_alanine_quick": ("pmf_error", "free_energy.phi_positive"),
}
"""Keys of the quantities that show what a system is there for; of others what decides and the first headline."""


def results_table(folder: Path, names: list[str], everything: bool = False) -> Table:
    """The comparison of each system: what decides, the headlines, and what fails its bound, with errors.

    Args:
        folder: the home folder.
        names: of the systems; empty for all that have results.
        everything: whether all quantities are shown.

    Raises:
        StorageError: a named system has no comparison yet.
    """
    store = ParquetStore(folder)
    shown = names or [name for name in load_all_systems() if store.file(name, "comparison").is_file()]
    found = {name: _comparison(store, name) for name in shown}
    rows = [row for name, comparison in found.items() for row in _numbers(name, comparison, everything)]
    systems = {name: load_system(name) for name in found}
    for system in systems.values():
        _note_changes(store, system)
    texts = [_text(systems[name].title, comparison, everything) for name, comparison in found.items()]
    return Table(COLUMNS, rows, "\n".join(texts) or "no results yet; cg-assets run SYSTEM makes some")


def _numbers(name: str, comparison: Comparison, everything: bool) -> Iterator[tuple[object, ...]]:
    """A row for each number that is shown."""
    shown = comparison.shown(everything)
    for potential, evaluation in comparison.evaluations.items():
        for item in evaluation.quantities:
            if item.key in shown:
                known = (
                    (None, None) if item.reference is None else (item.reference.value, item.reference.standard_error)
                )
                yield (
                    *(name, potential, item.name, item.of, item.where, item.temperature),
                    *(item.value.value, item.value.standard_error, item.value.unit, *known),
                    *(item.bound, item.at_least, item.passed, item.decides),
                )


def _text(title: str, comparison: Comparison, everything: bool) -> str:
    """A table with a column for each potential, without columns that are empty or the same throughout."""
    rows = comparison.rows(everything)
    alike = {name for name in ("of", "where") if len({row[name] for row in rows}) == 1}
    header = [name for name in rows[0] if name not in alike and any(row[name] for row in rows)]
    return f"\n{title}\n{table(header, [[row[name] for name in header] for row in rows], ruled=True)}"


def print_headlines(folder: Path, names: list[str]) -> None:
    """Print of each system the results that it is there for (`SHOWN`), and what fails."""
    noise, store = measures_of_noise(), ParquetStore(folder)
    rows = []
    for name in names:
        evaluations = _comparison(store, name).evaluations
        first = next(iter(evaluations.values())).quantities
        shown = [one for one in first if one.key in SHOWN.get(name, ())]
        if name not in SHOWN:
            shown = [one for one in first if one.decides][:1]
            shown += [one for one in first if one.headline and one.reference and one.name not in noise][:1]
        shown += [one for found in evaluations.values() for one in found.quantities if not one.passed]
        for item in {one.key: one for one in shown}.values():
            of_key = {potential: one for potential, found in evaluations.items() if (one := found.get(item.key))}
            values = [f"{key} {one.value.concise()}{'' if one.passed else ', fails'}" for key, one in of_key.items()]
            unit = f" [{item.value.unit}]" if item.value.unit else ""
            at = "" if item.temperature is None else f" {item.temperature:g} K"
            known = "" if item.reference is None or item.name in noise else item.reference.concise()
            rows.append([name, f"{item.label}{at}{unit}", "  ".join(values), known, item.limit])
    header = ["system", "quantity", "potentials by their labels (error of the last digits)", "reference", "bound"]
    print(f"\n{table(header, rows, ruled=True)}")


def write_overview(folder: Path, names: list[str]) -> Path:
    """Write the figure of the demo, the free energies of its systems; its file, or the first of those without any."""
    from cg_assets.figures.comparison import overview_figure

    path = folder / "figures" / "demo.png"
    figure = overview_figure({load_system(name).title: _profiles(folder, name) for name in names})
    if figure is None:
        return write_figures(folder, names, path.parent)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(figure)
    return path


def _profiles(folder: Path, name: str) -> Comparison:
    """The comparison of a system with its profiles."""
    from cg_assets.assets.comparison import read_comparison
    from cg_assets.assets.work import Inputs

    system = load_system(name)
    return read_comparison(Inputs(ParquetStore(folder), system), system.potentials)


def _note_changes(store: ParquetStore, system: SystemSpec) -> None:
    """Print where the results of a system are not of its present specification and code (figures are refused then)."""
    if changed := Soundness(store, system).changed("comparison"):
        print(
            f"cg-assets: {system.name}: these results are of other settings or code: {changed}; cg-assets run "
            f"{system.name} makes them of the present ones",
            file=sys.stderr,
        )


def _comparison(store: ParquetStore, name: str) -> Comparison:
    """The comparison of a system as its table holds it."""
    from cg_assets.storage.parquet import read_arrays

    return Comparison.from_columns(read_arrays(store.file(name, "comparison")))


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
    from cg_assets.figures.comparison import comparison_figures

    figures.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name in names:
        system = load_system(name)
        comparison = _profiles(folder, name)
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
    from cg_assets.assets.report.contents import data_files, decisions, report_page
    from cg_assets.assets.work import Inputs
    from cg_assets.registry.tracking import ModelTracking

    inputs = Inputs(ParquetStore(home), load_system(name))
    models = {model.name: model for model in ModelTracking(installation().tracking_uri, home).models()}
    return write_report(inputs.store, name, report_page(inputs, decisions(inputs, models), data_files(inputs)))
