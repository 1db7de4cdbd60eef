"""What a command that runs systems does before it imports anything else, Dagster above all."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Sequence

from cg_assets.operations.home_folder import set_step_defaults
from cg_assets.orchestration.preload import start_step_server


def start_ahead(names: Sequence[str], stages: list[str] | None = None) -> None:
    """Start the process that steps fork from, and let `kill` end this one as Ctrl-C does.

    Dagster gives SIGTERM, during a run and afterwards, the handler of SIGINT, which a shell that starts a command in
    the background has ignored: such a command could be ended by SIGKILL only.

    Imports make many objects and no garbage: none is looked for until a run begins, which saves a quarter of their
    time.

    Args:
        names: of the systems, or paths of their files. Wrong ones are left to the command.
        stages: that are run; all where None.

    Raises:
        CgAssetsError: the executor's options cannot be used.
    """
    gc.disable()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # A signal while a connection is closed ends the command, with its own line; SQLAlchemy would log it as an error.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    set_step_defaults()
    start_step_server(names, stages)
