"""What each command does: it returns its exit status, or the table that it answers with."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cg_assets.core.errors import CgAssetsError, one_line
from cg_assets.operations.tables import Table
from cg_assets.settings import installation

if TYPE_CHECKING:
    from cg_assets.registry.tracking import ModelTracking


def demo(options: argparse.Namespace) -> int | Table:
    """Run small systems from sampling to a registered model and print the results."""
    from cg_assets.operations.demo import DEMOS, run_demo

    if _is_dry(options):
        from cg_assets.operations.dry_run import planned_runs

        return planned_runs(DEMOS[options.system])
    return run_demo(options.system)


def systems(options: argparse.Namespace) -> Table:
    """List the systems that can be run."""
    from cg_assets.systems import find_systems

    found = find_systems()
    rows = [(name, one_line(system.title)) for name, system in found.systems.items()]
    for reason in found.left_out.values():
        print(f"cg-assets: left out: {reason}", file=sys.stderr)
    return Table(("system", "title"), rows, _aligned(rows))


def check(options: argparse.Namespace) -> Table:
    """Check a system's file without running it, and print what was understood."""
    from cg_assets.systems import change_fields, load_system

    change_fields(options.system, options.set)
    system = load_system(options.system)
    understood = system.understood(system.check())
    rows = [(about, one_line(text, 400)) for about, text in [("title", system.title), *understood]]
    return Table(("about", "understood as"), rows, f"{_aligned(rows)}\n{system.name}: ready to run")


def new(options: argparse.Namespace) -> int:
    """Write the commented file of an own system, which check accepts."""
    from cg_assets.systems.new import Source, new_from_molecule, new_from_shipped

    folder = installation().home / "systems"
    if options.parent:
        if options.trajectory or options.temperature is not None or options.force_field:
            raise CgAssetsError("--from extends a system as it is; change temperature and the rest in the new file")
        begun = new_from_shipped(options.name, options.parent, folder)
    else:
        source = Source(options.pdb, options.temperature, options.trajectory, options.force_field)
        begun = new_from_molecule(options.name, source, folder)
    for note in begun.notes:
        print(f"note: {note}")
    print(f"{begun.path}\nedit it, then: cg-assets check {options.name}")
    return 0


def schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema of a system's file, with which editors complete and check it."""
    from cg_assets.systems.schema import system_schema

    print(json.dumps(system_schema(), indent=2))
    return 0


def docs(options: argparse.Namespace) -> Table:
    """What a field of a system's file means: values, default, unit."""
    from cg_assets.systems.schema import field_help

    found = field_help(options.field)
    columns = [field.name for field in dataclasses.fields(found[0])]
    return Table(columns, [dataclasses.astuple(item) for item in found], "\n\n".join(map(str, found)))


def box(options: argparse.Namespace) -> int:
    """Find the box of a solvated molecule at atmospheric pressure."""
    from cg_assets.operations.runs import find_box

    edge = find_box(options.system)
    print(f"edge of the box at atmospheric pressure: {edge}; set model.box to {edge.value:.3f}")
    return 0


def run(options: argparse.Namespace) -> int | Table:
    """Make the data and models of a system for one batch, as far as they are not up to date."""
    name = _begun(options, options.select)
    if options.dry_run:
        from cg_assets.operations.dry_run import planned_runs

        return planned_runs([name], options.batch, options.select, options.force)
    from cg_assets.operations.runs import run_system

    return run_system(name, options.batch, options.select, options.force)


def refresh(options: argparse.Namespace) -> int | Table:
    """Add the next batch of a system and rebuild what depends on it."""
    name = _begun(options)
    if options.dry_run:
        from cg_assets.operations.dry_run import planned_refresh

        return planned_refresh(name, options.batch)
    from cg_assets.operations.runs import refresh_system

    return refresh_system(name, batch=options.batch)


def results(options: argparse.Namespace) -> Table:
    """Print the results of systems that have been run."""
    from cg_assets.operations.results import results_table

    return results_table(installation().home, options.systems, options.all)


def figures(options: argparse.Namespace) -> int:
    """Write the comparison figures of systems as PNG files."""
    from cg_assets.operations.results import write_figures

    home = installation().home
    for file in write_figures(home, options.systems, options.folder or home / "figures"):
        print(file)
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the report of a system as one HTML file that works without a network."""
    from cg_assets.operations.results import make_report
    from cg_assets.systems import name_of

    print(make_report(installation().home, name_of(options.system)))
    return 0


def ui(options: argparse.Namespace) -> int:
    """Open the Dagster and MLflow pages on this machine; Ctrl-C stops both."""
    from cg_assets.operations.pages import serve

    return serve(options.port, options.mlflow_port)


def models(options: argparse.Namespace) -> Table:
    """List the registered models."""
    from cg_assets.operations.tables import table

    found = _tracking().models()
    rows = [(model.name, model.latest_version, dict(sorted(model.aliases.items()))) for model in found]
    shown = [(*row[:2], ", ".join(f"{alias} {version}" for alias, version in row[2].items())) for row in rows]
    text = table(("model", "newest version", "aliases"), shown)
    none = "no models are registered yet; cg-assets run SYSTEM trains and registers them"
    return Table(("model", "newest_version", "aliases"), rows, text if rows else none)


def lookup(options: argparse.Namespace) -> Table:
    """Show a model: version, metrics and lineage back to every file."""
    from cg_assets.operations.models import model_table

    return model_table(_tracking().lookup(options.model))


def export(options: argparse.Namespace) -> int:
    """Write a model for another simulation engine, with a script that runs."""
    from cg_assets.use.export import export, registered_model

    model = registered_model(_tracking(), options.model, options.temperature)
    if options.repeat != 1:
        model = model.repeated(options.repeat)
    for file in export(model, options.to, options.folder):
        print(file)
    return 0


def trajectory(options: argparse.Namespace) -> int:
    """Write the CG simulation of a model as PDB and XTC, for VMD, NGLView and the like."""
    from cg_assets.use.trajectory import write_trajectory

    for file in write_trajectory(installation().home, options.model, options.folder, options.replicas):
        print(file)
    return 0


def lineage(options: argparse.Namespace) -> Table:
    """Which models came from a file, which files a model came from, what changed."""
    from cg_assets.operations.lineage import answer

    return answer(_tracking(), options.subject, options.other).table()


def query(options: argparse.Namespace) -> Table:
    """Run a SQL query over the Parquet data."""
    from cg_assets.operations.tables import table
    from cg_assets.storage import catalogue

    home = installation().home
    if not (home / "data").is_dir():
        raise CgAssetsError(f"query: there are no data in {home} yet; run a system first")
    found = catalogue.query(home, options.sql)
    if twice := sorted({name for name in found.column_names if found.column_names.count(name) > 1}):
        raise CgAssetsError(f"query: several columns are named {', '.join(twice)}; name the columns with AS")
    rows = [*zip(*(column.to_pylist() for column in found.columns), strict=True)]
    return Table(found.column_names, rows, table(found.column_names, [[str(value) for value in row] for row in rows]))


def doctor(options: argparse.Namespace) -> Table:
    """Find faults in the installation and the home folder."""
    from cg_assets.operations.doctor import end, examine, findings_table

    if options.run is not None:
        if not options.repair:
            raise CgAssetsError(f"--run {options.run}: ends the run, which is a repair; add --repair")
        end(options.run)
        print(f"run {options.run} is ended", file=sys.stderr)
    return findings_table(examine(installation().home, options.repair))


def prune(options: argparse.Namespace) -> Table:
    """List what is no longer needed, and remove it."""
    from cg_assets.operations.prune import find_prunable, prunable_table, remove

    home = installation().home
    found = find_prunable(home)
    return prunable_table(home, found, remove(home, found) if options.remove else None)


def reference(options: argparse.Namespace) -> int:
    """Run the long reference of a molecule and write its file."""
    from cg_assets.operations.runs import make_reference
    from cg_assets.systems import name_of

    make_reference(name_of(options.system), Path(options.file))
    return 0


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Names and texts in two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _begun(options: argparse.Namespace, stages: list[str] | None = None) -> str:
    """The name of the system that is run; unless the command is dry, its steps are prepared meanwhile."""
    dry = _is_dry(options)
    if options.set:
        from cg_assets.systems import change_fields

        change_fields(options.system, options.set)
    if not dry:
        from cg_assets.operations.ahead import start_ahead

        start_ahead([options.system], stages)
    from cg_assets.systems import name_of

    return name_of(options.system)


def _is_dry(options: argparse.Namespace) -> bool:
    """Whether a command only shows what it would make, as a table of some form.

    Raises:
        CgAssetsError: a form is asked for, but no table.
    """
    if options.form != "text" and not options.dry_run:
        raise CgAssetsError(f"--{options.form}: is the form of the table that --dry-run prints; add --dry-run")
    return bool(options.dry_run)


def _tracking() -> ModelTracking:
    from cg_assets.registry.tracking import ModelTracking

    return ModelTracking(installation().tracking_uri, installation().home)
