"""Progress of long work: science functions report it, their callers display it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is counted)."""
