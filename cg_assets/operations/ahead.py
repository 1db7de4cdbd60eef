"""What a command that runs systems does before it imports Dagster."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence

from cg_assets.assets import stages_of
from cg_assets.operations.home_folder import set_step_defaults
from cg_assets.orchestration.preload import start_step_server
from cg_assets.systems import load_system


def start_ahead(names: Sequence[str], stages: list[str] | None = None) -> None:
    """Start the process that steps fork from, and let `kill` end this one as Ctrl-C does.

    Dagster gives SIGTERM, during a run and afterwards, the handler of SIGINT, which a shell that starts a command in
    the background has ignored: such a command could be ended by SIGKILL only.

    Args:
        names: of the systems.
        stages: that are run; all where None.

    Raises:
        CgAssetsError: there is no such system, or the executor's options cannot be used.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # A signal while a connection is closed ends the command, with its own line; SQLAlchemy would log it as an error.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    set_step_defaults()
    wanted = [stage for name in names for stage in stages_of(load_system(name)) if not stages or stage.name in stages]
    start_step_server((kind for stage in wanted for kind in stage.kinds), names)
