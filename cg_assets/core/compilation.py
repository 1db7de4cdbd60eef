"""Compiled functions that later processes find on the disk."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numba

_CONFIG: Any = numba.config
_PARTS = ("core", "potentials", "simulation")
"""Packages that compile."""


def kept(**options: Any) -> Any:
    """`numba.njit` whose machine code is kept, so that it is compiled once for all processes.

    numba compares the source of a function alone with what it kept, not that of functions it calls in other files. The
    folder is therefore named by all sources of the packages that compile, in `NUMBA_CACHE_DIR` or `~/.cache/cg_assets`.
    Where it cannot be written, each process compiles for itself, and a warning says so.

    Args:
        options: of `numba.njit`.

    Returns:
        A decorator.
    """

    def compiled(function: Any) -> Any:
        folder = _folder()
        if folder is None:
            return numba.njit(**options)(function)
        before = _CONFIG.CACHE_DIR
        _CONFIG.CACHE_DIR = str(folder)
        try:
            return numba.njit(cache=True, **options)(function)
        finally:
            _CONFIG.CACHE_DIR = before

    return compiled


def kept_source(source: str, name: str, functions: Mapping[str, Any], **options: Any) -> Any:
    """A function of generated source, whose machine code is kept as that of `kept`.

    Args:
        source: defines the function and all its numbers: numba would not see that a number changed elsewhere.
        name: of the function.
        functions: what the source calls.
        options: of `numba.njit`.

    Returns:
        The compiled function.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    namespace = {"__name__": __name__, **functions}
    exec(compile(source, _file(f"{name}_{digest}.py", source), "exec"), namespace)
    namespace[name].__qualname__ = f"{name}_{digest}"  # numba names machine code by it
    return kept(**options)(namespace[name])


def _file(place: str, source: str) -> str:
    """The file of some source, which numba wants to see; its name alone where nothing is kept."""
    folder = _folder()
    if folder is None:
        return place
    if (folder / place).is_file():  # a new time of change would discard its machine code in numba before 0.68
        return str(folder / place)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", delete=False, encoding="utf-8") as stream:
        stream.write(source)
    os.replace(stream.name, folder / place)
    return str(folder / place)


@cache
def _folder() -> Path | None:
    """Where machine code of these sources is kept."""
    try:
        root = _CONFIG.CACHE_DIR or Path.home() / ".cache" / "cg_assets"
        folder = Path(root) / f"compiled-{_hash_of_sources(Path(__file__).parents[1])}"
        if not folder.is_dir():
            costs = "13 CPU seconds for CG steps, 31 for training a network"
            logging.getLogger(__name__).info("compiling for this machine, once: %s", costs)
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        reason = f"{folder} cannot be written"
    except (OSError, RuntimeError) as error:
        reason = str(error)
    logging.getLogger(__name__).warning("each process compiles for itself: %s; set NUMBA_CACHE_DIR", reason)
    return None


def _hash_of_sources(package: Path) -> str:
    """Of all files of the packages that compile: constants of any of them may be frozen into machine code."""
    digest = hashlib.sha256()
    for part in _PARTS:
        for path in sorted((package / part).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
