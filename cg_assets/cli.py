"""`cg-assets`: run systems, open the pages, look models up."""

from __future__ import annotations

import argparse
import codecs
import dataclasses
import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_assets import __version__
from cg_assets.core.errors import CgAssetsError, one_line
from cg_assets.core.machine import machine_failure
from cg_assets.settings import HOME, installation, masked, set_variables
from cg_assets.storage.sharing import follow, open_to_group

if TYPE_CHECKING:
    from cg_assets.registry.tracking import ModelTracking


OF_FILES = ("results", "figures", "report", "models", "lookup", "export", "lineage", "query", "doctor", "prune")
"""Commands that look things up in the home folder, wherever its files were made."""
_PLAIN = "cg_assets.plain"
"""Name of the way in which letters are printed that the terminal cannot show."""
_WRITES: dict[str, Callable[[argparse.Namespace], bool]] = {
    "doctor": lambda options: options.repair,
    "prune": lambda options: options.remove,
    "figures": lambda options: options.folder is None,
    "report": lambda options: True,
}
"""Which of them write to it, by their options."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    if options.home:
        set_variables({HOME: str(Path(options.home).absolute())})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)
    home = installation().home
    try:
        if place := next((place for place in (home, *home.parents) if place.is_file()), None):
            return _failed(f"home folder {home}: {place} is a file; choose another folder with --home or {HOME}", 1)
        follow(home)
        status = _look_up(options) if options.of_files else options.action(options)
        sys.stdout.flush()
        return status
    except CgAssetsError as error:
        return _failed(str(error), 1)
    except KeyboardInterrupt:
        return _failed("interrupted; the same command resumes from the last finished piece", 130)
    except BrokenPipeError:
        return _failed("the output was closed before its end", 141)
    except Exception as error:
        reason = machine_failure(error)
        if reason is None:
            raise
        return _failed(reason, 1)
    finally:
        open_to_group(home)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Plain letters for those that a terminal cannot show; a question mark where there is none."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    for letter, plain in {"±": "+/-", "≥": ">=", "≤": "<=", "√": "sqrt"}.items():
        text = text.replace(letter, plain)
    letters = [letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter)]
    return "".join(letters).encode("ascii", "replace").decode(), error.end


codecs.register_error(_PLAIN, _plain)


def _failed(reason: str, status: int) -> int:
    """Print why a command failed, in a line; its exit status."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to print goes nowhere
    print(f"cg-assets: {masked(reason)}", file=sys.stderr)
    return status


def _look_up(options: argparse.Namespace) -> int:
    """Carry out a command about the home folder, with the files of the object store, if there is one."""
    from cg_assets.operations.home_folder import readable_home
    from cg_assets.storage.catalogue import fetched

    with readable_home(options.writes(options)) as home:
        fetched(home)
        return options.action(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cg-assets", description="Coarse-grained simulation as data assets.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--home", help="folder for all state (default: $CG_ASSETS_HOME or ./cg_assets_home)")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, action: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action, of_files=name in OF_FILES, writes=_WRITES.get(name, lambda options: False))
        return sub

    demo = command("demo", _demo, "run small systems from sampling to a registered model and print the results")
    text = "biased: forces of biased samples (default); water: thermal response forces; helix: a peptide that melts"
    demo.add_argument("--system", choices=["biased", "water", "helix"], default="biased", help=text)
    _with_forms(command("systems", _systems, "list the systems that can be run"))
    check = command("check", _check, "check a system's file without running it, and print what was understood")
    check.add_argument("system", help="name of a system, or path of its YAML file")
    new = command("new", _new, "write the commented file of an own system, which check accepts")
    new.add_argument("name", help="of the system, in lower-case letters, digits and underscores")
    start = new.add_mutually_exclusive_group(required=True)
    start.add_argument("--from", dest="parent", metavar="SYSTEM", help="extend this system")
    start.add_argument("--pdb", type=Path, metavar="FILE", help="a molecule with all hydrogens")
    new.add_argument("--trajectory", type=Path, nargs="+", default=[], metavar="FILE", help="import these frames of it")
    new.add_argument("--temperature", type=float, metavar="K", help="of the molecule, which no file contains")
    new.add_argument("--force-field", nargs="+", default=[], metavar="FILE", help="files of OpenMM (default: a guess)")
    command("schema", _schema, "print the JSON Schema of a system's file, with which editors complete and check it")
    docs = command("docs", _docs, "what a field of a system's file means: values, default, unit")
    docs.add_argument("field", help="its name, or the end of its place, such as biased.friction")
    box = command("box", _box, "find the box of a solvated molecule at atmospheric pressure")
    box.add_argument("system", help="name of a system, or path of its YAML file")
    run = command("run", _run, "materialise the assets of a system for one batch")
    run.add_argument("system")
    run.add_argument("--batch", default=None, help="name of the batch (default: 0000)")
    run.add_argument("--select", nargs="+", metavar="STAGE", help="only these stages, for example trajectories")
    refresh = command("refresh", _refresh, "add the next batch of a system and rebuild what depends on it")
    refresh.add_argument("system")
    refresh.add_argument("--batch", default=None, help="name of the batch (default: the one after the last)")
    results = command("results", _results, "print the results of systems that have been run")
    results.add_argument("systems", nargs="*", help="names (default: all that have results)")
    results.add_argument("--all", action="store_true", help="every quantity, not only headlines and what fails")
    figures = command("figures", _figures, "write the comparison figures of systems as PNG files")
    figures.add_argument("systems", nargs="+", help="names")
    figures.add_argument("--folder", type=Path, help="where to (default: figures in the home folder)")
    report = command("report", _report, "write the report of a system as one HTML file that works without a network")
    report.add_argument("system")
    ui = command("ui", _ui, "open the Dagster and MLflow pages on this machine; Ctrl-C stops both")
    ui.add_argument("--port", type=int, default=3000, help="port of Dagster (default 3000)")
    ui.add_argument("--mlflow-port", type=int, default=5000, help="port of MLflow (default 5000)")
    _with_forms(command("models", _models, "list the registered models"))
    lookup = command("lookup", _lookup, "show a model: version, metrics and lineage back to every file")
    lookup.add_argument("model", metavar="NAME[@ALIAS]", help="for example muller_brown.biased@champion")
    lookup.add_argument("--json", action="store_true", help="print JSON")
    export = command("export", _export, "write a model for another simulation engine, with a script that runs")
    export.add_argument("model", metavar="NAME[@ALIAS]", help="for example water.splines@champion")
    targets = "lammps|openmm|ase|torch-sim"
    export.add_argument("--to", metavar=targets, required=True, help="the engine")
    export.add_argument("folder", type=Path, help="a new folder")
    text = "of the simulation, and of a potential that depends on it [K] (default: that of its training)"
    export.add_argument("--temperature", type=float, help=text)
    export.add_argument("--repeat", type=int, default=1, metavar="N", help="a periodic box N times as long and wide")
    lineage = command("lineage", _lineage, "which models came from a file, which files a model came from, what changed")
    lineage.add_argument("subject", metavar="FILE|MODEL", help="a data file, its key, or a model")
    lineage.add_argument("other", metavar="MODEL", nargs="?", help="a second version: what changed since the first")
    lineage.add_argument("--json", action="store_true", help="print JSON")
    query = command("query", _query, "run a SQL query over the Parquet data")
    query.add_argument("sql")
    _with_forms(query)
    doctor = command("doctor", _doctor, "find faults in the installation and the home folder")
    doctor.add_argument("--repair", action="store_true", help="repair what can be repaired without losing anything")
    doctor.add_argument("--run", metavar="ID", help="with --repair: end this run, whose process is known to have ended")
    prune = command("prune", _prune, "list what is no longer needed, and remove it")
    prune.add_argument("--remove", action="store_true", help="remove what is listed")
    reference = command("reference", _reference, "run the long reference of a molecule and write its file")
    reference.add_argument("system")
    reference.add_argument("file", help="Parquet file to write")
    return parser


def _with_forms(command: argparse.ArgumentParser) -> None:
    """Let a command print its table as JSON or CSV."""
    forms = command.add_mutually_exclusive_group()
    for form in ("json", "csv"):
        text = f"print {form.upper()}"
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, default="text", help=text)


def _demo(options: argparse.Namespace) -> int:
    from cg_assets.operations.demo import run_demo

    return run_demo(options.system)


def _systems(options: argparse.Namespace) -> int:
    from cg_assets.operations.tables import printed
    from cg_assets.systems import find_systems

    found = find_systems()
    rows = [(name, one_line(system.title)) for name, system in found.systems.items()]
    if options.form == "text":
        width = max(map(len, found.systems))
        print(*(f"{name:<{width}}  {title}" for name, title in rows), sep="\n")
    else:
        print(printed(("system", "title"), rows, options.form))
    for reason in found.left_out.values():
        print(f"cg-assets: left out: {reason}", file=sys.stderr)
    return 0


def _check(options: argparse.Namespace) -> int:
    from cg_assets.systems import load_system

    system = load_system(options.system)
    rows = system.understood(system.check())
    width = max(len(about) for about, _ in rows)
    for about, text in [("title", system.title), *rows]:
        print(f"{about:<{width}}  {one_line(text, 400)}")
    print(f"{system.name}: ready to run")
    return 0


def _new(options: argparse.Namespace) -> int:
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


def _schema(options: argparse.Namespace) -> int:
    from cg_assets.systems.schema import system_schema

    print(json.dumps(system_schema(), indent=2))
    return 0


def _docs(options: argparse.Namespace) -> int:
    from cg_assets.systems.schema import field_help

    print(field_help(options.field))
    return 0


def _box(options: argparse.Namespace) -> int:
    from cg_assets.operations.runs import find_box

    edge = find_box(options.system)
    print(f"edge of the box at atmospheric pressure: {edge}; set model.box to {edge.value:.3f}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from cg_assets.operations.runs import run_system

    return run_system(options.system, batch=options.batch, stages=options.select)


def _refresh(options: argparse.Namespace) -> int:
    from cg_assets.operations.runs import refresh_system

    return refresh_system(options.system, batch=options.batch)


def _results(options: argparse.Namespace) -> int:
    from cg_assets.operations.results import print_results

    print_results(installation().home, options.systems, options.all)
    return 0


def _figures(options: argparse.Namespace) -> int:
    from cg_assets.operations.results import write_figures

    home = installation().home
    for file in write_figures(home, options.systems, options.folder or home / "figures"):
        print(file)
    return 0


def _report(options: argparse.Namespace) -> int:
    from cg_assets.operations.results import make_report

    print(make_report(installation().home, options.system))
    return 0


def _ui(options: argparse.Namespace) -> int:
    from cg_assets.operations.pages import serve

    return serve(options.port, options.mlflow_port)


def _models(options: argparse.Namespace) -> int:
    from cg_assets.operations.tables import printed

    models = _tracking().models()
    if not models and options.form == "text":
        print("no models are registered yet; cg-assets run SYSTEM trains and registers them")
        return 0
    rows = [
        (model.name, model.latest_version, ", ".join(f"{alias} {of}" for alias, of in sorted(model.aliases.items())))
        for model in models
    ]
    print(printed(("model", "newest version", "aliases"), rows, options.form))
    return 0


def _lookup(options: argparse.Namespace) -> int:
    found = _tracking().lookup(options.model)
    if options.json:
        _print_json(found)
        return 0
    print(f"{found.name} version {found.version}  aliases: {', '.join(found.aliases) or 'none'}")
    for title, values in (("metrics", found.metrics), ("params", found.params), ("tags", found.tags)):
        print(f"\n{title}")
        for key, value in sorted(values.items()):
            print(f"  {key:<40} {value}")
    print("\nlineage")
    for entry in found.lineage:
        print(f"  {entry.file}\n    {entry.content_hash}  {entry.status}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from cg_assets.use.export import export, registered_model

    model = registered_model(_tracking(), options.model, options.temperature)
    if options.repeat != 1:
        model = model.repeated(options.repeat)
    for file in export(model, options.to, options.folder):
        print(file)
    return 0


def _lineage(options: argparse.Namespace) -> int:
    from cg_assets.operations.lineage import answer

    found = answer(_tracking(), options.subject, options.other)
    if options.json:
        _print_json(found)
    else:
        print(*found.lines(), sep="\n")
    return 0


def _print_json(found: Any) -> None:
    """A dataclass as JSON."""
    from cg_assets.operations.tables import as_json

    print(as_json(dataclasses.asdict(found)))


def _query(options: argparse.Namespace) -> int:
    from cg_assets.operations.tables import printed
    from cg_assets.storage.catalogue import query

    home = installation().home
    if not (home / "data").is_dir():
        raise CgAssetsError(f"query: there are no data in {home} yet; run a system first")
    found = query(home, options.sql)
    rows = [*zip(*(column.to_pylist() for column in found.columns), strict=True)]
    shown = [[str(value) for value in row] for row in rows] if options.form == "text" else rows
    print(printed(found.column_names, shown, options.form))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from cg_assets.operations.doctor import end, examine, print_findings

    if options.run is not None:
        if not options.repair:
            raise CgAssetsError(f"--run {options.run}: ends the run, which is a repair; add --repair")
        end(options.run)
        print(f"run {options.run} is ended")
    findings = examine(installation().home, options.repair)
    print_findings(findings)
    return 1 if any(finding.faults for finding in findings) else 0


def _prune(options: argparse.Namespace) -> int:
    from cg_assets.operations.prune import find_prunable, remove

    home = installation().home
    found = find_prunable(home)
    for item in found:
        print(f"{item.bytes / 1e6:>10.3f} MB  {item.path.relative_to(home)}  ({item.reason})")
    total = f"{sum(item.bytes for item in found) / 1e6:.3f} MB in {len(found)} place(s)"
    if not options.remove:
        print(f"{total} can be removed: cg-assets prune --remove")
        return 0
    removed = remove(home, found)
    for item in found:
        if item not in removed:
            print(f"left, for another process works on it: {item.path.relative_to(home)}")
    print(f"{sum(item.bytes for item in removed) / 1e6:.3f} MB in {len(removed)} place(s) removed")
    return 0


def _reference(options: argparse.Namespace) -> int:
    from cg_assets.operations.runs import make_reference

    make_reference(options.system, Path(options.file))
    return 0


def _tracking() -> ModelTracking:
    from cg_assets.registry.tracking import ModelTracking

    return ModelTracking(installation().tracking_uri, installation().home)


if __name__ == "__main__":
    sys.exit(main())
