"""`cg-assets`: run systems, open the pages, look models up."""

from __future__ import annotations

import argparse
import atexit
import codecs
import io
import os
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path

from cg_assets.cli.parser import command_parser
from cg_assets.core.errors import CgAssetsError
from cg_assets.core.machine import machine_failure
from cg_assets.operations.tables import Table
from cg_assets.settings import CHANGES, HOME, installation, masked, set_variables
from cg_assets.storage.sharing import follow, open_to_group

_PLAIN = "cg_assets.plain"
"""Name of the way in which letters are printed that the terminal cannot show."""

_CLOSED = "the output was closed before its end"


def command() -> None:
    """The command as a process of its own: it ends without taking apart all that it imported, which takes 0.7 s."""
    status: list[int] = []

    @atexit.register  # registered first, called last
    def leave() -> None:
        if status:
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(status[0])

    status.append(main())
    sys.exit(status[0])


def main(arguments: list[str] | None = None) -> int:
    """Carry out a command; returns its exit status."""
    try:
        options, unknown = command_parser().parse_known_args(arguments)
        if unknown:
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit:  # the help has been printed, or why the arguments are wrong
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            return _failed(_CLOSED, 141)
        raise
    if options.home:
        set_variables({HOME: str(Path(options.home).absolute())})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)
    home, changes = installation().home, installation().changes
    try:
        if place := next((place for place in (home, *home.parents) if place.is_file()), None):
            return _failed(f"home folder {home}: {place} is a file; choose another folder with --home or {HOME}", 1)
        follow(home)
        found = _look_up(options) if options.of_files else options.action(options)
        if isinstance(found, Table):
            print(found.printed(options.form))
        sys.stdout.flush()
        return found.status if isinstance(found, Table) else found
    except CgAssetsError as error:
        return _failed(str(error), 1)
    except KeyboardInterrupt:
        return _failed("interrupted; the same command resumes from the last finished piece", 130)
    except BrokenPipeError:
        return _failed(_CLOSED, 141)
    except Exception as error:
        reason = machine_failure(error)
        if reason is None:
            raise
        return _failed(reason, 1)
    finally:
        open_to_group(home)
        set_variables({CHANGES: changes})  # those of --set are of this call alone


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


def _look_up(options: argparse.Namespace) -> int | Table:
    """Carry out a command about the home folder, with the files of the object store, if there is one."""
    from cg_assets.operations.home_folder import readable_home
    from cg_assets.storage.catalogue import fetched

    with readable_home(options.writes(options)) as home:
        fetched(home)
        return options.action(options)
