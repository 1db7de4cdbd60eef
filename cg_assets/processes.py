"""Which process did something, and whether it still exists."""

from __future__ import annotations

import os
import socket


def this_process() -> str:
    """Host and number of this process, as `host:number`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_gone(process: str) -> bool:
    """Whether a process `host:number` has ended; False for what cannot be known, as on another host."""
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
