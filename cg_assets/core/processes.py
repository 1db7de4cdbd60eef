"""Which process did something, whether it still exists, and what a step does without the process of its run."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from multiprocessing.util import is_exiting

_WATCH = "end after the run's process"
_LAST_WORDS = 5.0
"""Time allowed for the last events of a finished step [s]."""


def this_process() -> str:
    """Host and number of this process, as `host:number`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_gone(process: str) -> bool:
    """Whether a process `host:number` has ended; False where this cannot be determined, as on another host."""
    host, _, number = process.rpartition(":")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it exists and is another user's
        pass
    return False


def end_after_worker() -> None:
    """Let the process of a finished step end even if its run's process was killed; does nothing elsewhere.

    It would otherwise wait without end for a reader of its last events, whose figures do not fit into a pipe.
    """
    worker = multiprocessing.parent_process()
    if worker is None or any(thread.name == _WATCH for thread in threading.enumerate()):
        return

    def watch() -> None:
        worker.join()
        while not is_exiting():
            time.sleep(0.5)
        time.sleep(_LAST_WORDS)
        os._exit(1)

    threading.Thread(target=watch, name=_WATCH, daemon=True).start()
