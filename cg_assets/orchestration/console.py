"""A run as seen at a terminal: one line per step, and the progress of long ones."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import dagster as dg

from cg_assets.core import errors
from cg_assets.core.progress import Progress
from cg_assets.settings import masked


class _StepFormatter(logging.Formatter):
    """`12:03:55  muller_brown/trajectories  message`."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        step = (meta.get("step_key") or meta.get("job_name") or "").replace("__", "/")
        message = meta.get("orig_message") or record.getMessage()
        event = meta.get("dagster_event")
        if event is not None and event.event_type_value == "STEP_FAILURE":
            message = f"failed: {step_failure_cause(event)}"
        elif event is not None and event.event_type_value == "ASSET_CHECK_EVALUATION":
            message = f"check {event.event_specific_data.check_name} failed"
        return f"{time.strftime('%H:%M:%S')}  {step:<48} {message}"


def failure_of(event: dg.DagsterEvent) -> str:
    """What went wrong where an event is a failed step or check, with the remedy; empty for other events.

    A step that only a check has stopped has no line of its own.
    """
    data: Any = event.event_specific_data
    if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION and not data.passed:
        severity = "warning: " if data.severity is dg.AssetCheckSeverity.WARN else ""
        return f"{severity}{data.asset_key.to_user_string()}: check {data.description}"
    if event.event_type is not dg.DagsterEventType.STEP_FAILURE or _is_of_check(data.error):
        return ""
    return f"{(event.step_key or '').replace('__', '/')} failed: {step_failure_cause(event)}"


def _is_of_check(error: Any) -> bool:
    """Whether a blocking check has stopped a step."""
    return error is not None and error.cls_name == "DagsterAssetCheckFailedError"


def step_failure_cause(event: Any) -> str:
    """The first error of a failed step that names a remedy, else the root of the chain with its traceback."""
    error = event.event_specific_data.error
    if error is None:
        return "the process of the step ended without a message; see its log in the Dagster pages"
    if _is_of_check(error):
        return "a check that must pass has failed"
    if was_interrupted(event):
        return "interrupted"
    chain = list(_chain(error))
    for link in chain:
        if link.cls_name and hasattr(errors, link.cls_name):
            return masked(link.message.strip().removeprefix("cg_assets.core.errors."))
    root = chain[-1]
    return masked("\n".join([root.message.strip(), *root.stack]))


def was_interrupted(event: dg.DagsterEvent) -> bool:
    """Whether Ctrl-C ended what failed: Dagster reports it as a failure like others."""
    names = {error.cls_name for error in _chain(getattr(event.event_specific_data, "error", None))}
    return not names.isdisjoint({"DagsterExecutionInterruptedError", "KeyboardInterrupt"})


def _chain(error: Any) -> Iterator[Any]:
    """An error as Dagster records it and what led to it, the root last; nothing where there is none."""
    while error is not None:
        yield error
        error = error.cause


_SHOWN_EVENTS = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}


class _OnlyWhatMatters(logging.Filter):
    """Keeps a step's own messages, its end, failed checks and errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is None:
            return record.levelno >= logging.INFO
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            return not event.event_specific_data.passed
        return event.event_type in _SHOWN_EVENTS


@dg.logger
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """The console logger of every job."""
    logger = logging.Logger("cg_assets", level=logging.DEBUG)
    handler = logging.StreamHandler(_terminal())
    handler.setFormatter(_StepFormatter())
    handler.addFilter(_OnlyWhatMatters())
    logger.addHandler(handler)
    return logger


def _terminal() -> TextIO:
    """Standard error as it is now.

    Dagster puts a file in its place while a step runs, and a `tail` of that file which it ends with the step: the last
    lines, the step's error among them, would often be lost.
    """
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1, encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # standard error is no file
        return sys.stderr


_RECENT = 10
"""Reports whose pace gives the time left: pieces of work differ, and the first one has waited for compilers."""


def log_progress(write: Callable[[str], object], interval: float = 5.0) -> Progress:
    """A progress callback that writes a line with a bar and the time left, at most each `interval` [s]."""
    begun = last = time.monotonic()
    recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)

    def report(done: int, total: int, counted: str) -> None:
        nonlocal begun, last
        now = time.monotonic()
        if recent and done < recent[-1][1]:  # another task of the same step has begun
            begun = recent[-1][0]
            recent.clear()
        recent.append((now, done))
        if now - last < interval and done < total:
            return
        if done >= total and now - begun < interval:
            return
        last = now
        fraction = done / max(total, 1)
        bar = "█" * round(20 * fraction) + "·" * (20 - round(20 * fraction))
        since, first = recent[0] if recent[0][1] < done else (begun, 0)
        left = (now - since) * (total - done) / max(done - first, 1)
        write(f"{bar} {done} of {total} {counted}, {left:.0f} s left")

    return report
