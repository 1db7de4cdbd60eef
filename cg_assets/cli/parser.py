"""The commands with their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from cg_assets import __version__
from cg_assets.cli import commands
from cg_assets.operations.tables import Table
from cg_assets.use.targets import target_names

OF_FILES = (
    *("results", "figures", "report", "models", "lookup", "export", "trajectory"),
    *("lineage", "query", "doctor", "prune"),
)
"""Commands that look things up in the home folder, wherever its files were made."""
_WRITES: dict[str, Callable[[argparse.Namespace], bool]] = {
    "doctor": lambda options: options.repair,
    "prune": lambda options: options.remove,
    "figures": lambda options: options.folder is None,
    "report": lambda options: True,
}
"""Which of them write to it, by their options."""


Action = Callable[[argparse.Namespace], int | Table]


def command_parser() -> argparse.ArgumentParser:
    """The parser of the command line; each command is a function of `commands`, whose first line is its help."""
    parser = argparse.ArgumentParser(prog="cg-assets", description="Coarse-grained simulation as data assets.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--home", help="folder for all state (default: $CG_ASSETS_HOME or ./cg_assets_home)")
    subparsers = parser.add_subparsers(required=True, metavar="command")

    def command(action: Action) -> argparse.ArgumentParser:
        name, text = action.__name__, (action.__doc__ or "").removesuffix(".")
        sub = subparsers.add_parser(name, help=text[:1].lower() + text[1:], description=text)
        writes = _WRITES.get(name, lambda options: False)
        sub.set_defaults(action=action, parser=sub, of_files=name in OF_FILES, writes=writes)
        return sub

    def answering(action: Action) -> argparse.ArgumentParser:
        sub = command(action)
        forms = sub.add_mutually_exclusive_group()
        for form in ("json", "csv"):
            forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=f"print {form.upper()}")
        sub.set_defaults(form="text")
        return sub

    demo = _dry(answering(commands.demo))
    text = "biased: forces of biased samples (default); water: thermal response forces; helix: a peptide that melts"
    demo.add_argument("--system", choices=["biased", "water", "helix"], default="biased", help=text)
    answering(commands.systems)
    check = answering(commands.check)
    check.add_argument("system", help="name of a system, or path of its YAML file")
    _with_changes(check)
    new = command(commands.new)
    new.add_argument("name", help="of the system, in lower-case letters, digits and underscores")
    start = new.add_mutually_exclusive_group(required=True)
    start.add_argument("--from", dest="parent", metavar="SYSTEM", help="extend this system")
    start.add_argument("--pdb", type=Path, metavar="FILE", help="a molecule with all hydrogens")
    new.add_argument("--trajectory", type=Path, nargs="+", default=[], metavar="FILE", help="import these frames of it")
    new.add_argument("--temperature", type=float, metavar="K", help="of the molecule; needed with --pdb")
    new.add_argument("--force-field", nargs="+", default=[], metavar="FILE", help="files of OpenMM (default: a guess)")
    command(commands.schema)
    docs = answering(commands.docs)
    docs.add_argument("field", help="its name, or the end of its place, such as biased.friction")
    box = command(commands.box)
    box.add_argument("system", help="name of a system, or path of its YAML file")
    own = "name of a system, or path of its YAML file in the folder systems of the home folder"
    run = _dry(answering(commands.run))
    run.add_argument("system", help=own)
    run.add_argument("--batch", default=None, help="name of the batch (default: 0000)")
    run.add_argument(
        "--select", nargs="+", metavar="STAGE", help="these stages, up to date or not, such as trajectories"
    )
    run.add_argument("--force", action="store_true", help="make everything again, up to date or not")
    _with_changes(run)
    refresh = _dry(answering(commands.refresh))
    refresh.add_argument("system", help=own)
    refresh.add_argument("--batch", default=None, help="name of the batch (default: the one after the last)")
    _with_changes(refresh)
    results = answering(commands.results)
    results.add_argument("systems", nargs="*", help="names (default: all that have results)")
    results.add_argument("--all", action="store_true", help="every quantity, not only headlines and what fails")
    figures = command(commands.figures)
    figures.add_argument("systems", nargs="+", help="names")
    figures.add_argument("--folder", type=Path, help="where to (default: figures in the home folder)")
    report = command(commands.report)
    report.add_argument("system", help=own)
    ui = command(commands.ui)
    ui.add_argument("--port", type=int, default=3000, help="port of Dagster (default 3000)")
    ui.add_argument("--mlflow-port", type=int, default=5000, help="port of MLflow (default 5000)")
    answering(commands.models)
    lookup = answering(commands.lookup)
    lookup.add_argument("model", metavar="NAME[@ALIAS]", help="for example muller_brown.biased@champion")
    export = command(commands.export)
    export.add_argument("model", metavar="NAME[@ALIAS]", help="for example water.splines@champion")
    export.add_argument("--to", metavar="|".join(target_names()), required=True, help="the engine")
    export.add_argument("folder", type=Path, help="a new folder")
    text = "of the simulation, and of a potential that depends on it [K] (default: that of its training)"
    export.add_argument("--temperature", type=float, help=text)
    export.add_argument("--repeat", type=int, default=1, metavar="N", help="a periodic box N times as long and wide")
    trajectory = command(commands.trajectory)
    trajectory.add_argument("model", metavar="NAME", help="for example capped_alanine_quick.biased")
    trajectory.add_argument("folder", type=Path, help="a new folder")
    trajectory.add_argument("--replicas", type=int, nargs="+", metavar="N", help="only these")
    lineage = answering(commands.lineage)
    lineage.add_argument("subject", metavar="FILE|MODEL", help="a data file, its key, or a model")
    lineage.add_argument("other", metavar="MODEL", nargs="?", help="a second version: what changed since the first")
    query = answering(commands.query)
    query.add_argument("sql", help="over the views of the data, such as: select * from lineage")
    doctor = answering(commands.doctor)
    doctor.add_argument("--repair", action="store_true", help="repair what can be repaired without losing anything")
    doctor.add_argument("--run", metavar="ID", help="with --repair: end this run, whose process is known to have ended")
    prune = answering(commands.prune)
    prune.add_argument("--remove", action="store_true", help="remove what is listed")
    reference = command(commands.reference)
    reference.add_argument("system", help=own)
    reference.add_argument("file", help="Parquet file to write")
    return parser


def _dry(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Let a command only show what it would do."""
    text = "show what would be made, why, and what it would cost, and make nothing"
    command.add_argument("--dry-run", action="store_true", help=text)
    return command


def _with_changes(command: argparse.ArgumentParser) -> None:
    """Let a command give fields of the system other values."""
    text = "give a field another value than the file, for example training.epochs=3; can be repeated"
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=text)
