"""Which process did something, whether it still exists, and what a step does without the process of its run."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from dataclasses import dataclass
from multiprocessing.util import is_exiting
from pathlib import Path

_WATCH = "end after the run's process"
_LAST_WORDS = 5.0
"""Time allowed for the last events of a finished step [s]."""


@dataclass(frozen=True)
class Process:
    """A process, told apart from others of the same number.

    Attributes:
        host: its machine or container.
        number: its number there.
        start: when it started, in ticks of the kernel's clock; empty where that is not known.
        boot: which start of the kernel it belongs to.
        numbering: which processes it shares its numbers with: a container has numbers of its own.
    """

    host: str
    number: int
    start: str = ""
    boot: str = ""
    numbering: str = ""

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.host} {self.number} {self.start} {self.boot} {self.numbering}".strip()

    @property
    def name(self) -> str:
        """In a message."""
        return f"process {self.number} on {self.host}"

    @classmethod
    def parse(cls, text: str) -> Process | None:
        """What `str` gave, or `host:number`; None for anything else."""
        parts = text.split() if " " in text else text.rpartition(":")[::2]
        if not 2 <= len(parts) <= 5 or not parts[0] or not parts[1].isdigit():
            return None
        return cls(parts[0], int(parts[1]), *parts[2:])

    @classmethod
    def of(cls, number: int) -> Process:
        """A process of this machine."""
        return cls(socket.gethostname(), number, _start_of(number), _boot(), _numbering())

    @property
    def shares_kernel(self) -> bool:
        """Whether it belongs to this start of this machine, so that one kernel keeps its locks and ours."""
        return bool(self.boot) and self.boot == _boot()

    @property
    def is_gone(self) -> bool:
        """Whether it has ended; False where this cannot be determined, as on another host or in another container."""
        if self.shares_kernel and self.numbering == _numbering():
            return _start_of(self.number) != self.start
        if self.host != socket.gethostname() or self.shares_kernel:
            return False
        if self.boot:
            return True  # the machine was started again
        try:
            os.kill(self.number, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it exists and is another user's
            pass
        return False


def this_process() -> Process:
    """This process."""
    return Process.of(os.getpid())


def _start_of(number: int) -> str:
    """When a process of this machine started [ticks since the kernel did]; empty where there is none, or no `/proc`."""
    try:
        state, *fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]


def started_at(number: int) -> float | None:
    """When a process of this machine started [s since 1970]; None where there is none, or no `/proc`."""
    start = _start_of(number)
    if not start:
        return None
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(start) / os.sysconf("SC_CLK_TCK")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _numbering() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


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
