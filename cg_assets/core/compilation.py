"""Compiled functions that later processes find on the disk."""

from __future__ import annotations

import hashlib
import logging
import os
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
    folder is therefore named by the sources of all compiled functions, in `NUMBA_CACHE_DIR` or `~/.cache/cg_assets`.
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


@cache
def _folder() -> Path | None:
    """Where machine code of these sources is kept."""
    try:
        root = _CONFIG.CACHE_DIR or Path.home() / ".cache" / "cg_assets"
        folder = Path(root) / f"compiled-{_hash_of_sources(Path(__file__).parents[1])}"
        if not folder.is_dir():
            logging.getLogger(__name__).info("compiling for this machine, once: some 20 s")
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        reason = f"{folder} cannot be written"
    except (OSError, RuntimeError) as error:
        reason = str(error)
    logging.getLogger(__name__).warning("each process compiles for itself: %s; set NUMBA_CACHE_DIR", reason)
    return None


def _hash_of_sources(package: Path) -> str:
    """Of the files that compile."""
    digest = hashlib.sha256()
    for part in _PARTS:
        for path in sorted((package / part).rglob("*.py")):
            if b"compiled" in (content := path.read_bytes()):
                digest.update(content)
    return digest.hexdigest()[:16]
