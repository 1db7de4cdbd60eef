"""A home folder that a group shares: the mode of the folder decides, and all that is made in it follows.

A home that its group can write to (`chmod 2770`) is shared: whatever a member makes, the others can read and change.
Any other home belongs to its user alone, and files have the modes that the user's umask gives them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OF_LIBRARIES = ("dagster", "mlflow")
"""Folders of a home in which SQLite and MLflow make files that are closed to the group, whatever the umask."""


def is_shared(home: Path) -> bool:
    """Whether the group of a home folder can write to it."""
    return home.is_dir() and bool(home.stat().st_mode & stat.S_IWGRP)


def follow(home: Path) -> None:
    """Let what this process and its children make in a shared home be as open as that is."""
    if is_shared(home):
        os.umask(0o777 & ~(home.stat().st_mode | stat.S_IRWXU))


def open_to_group(home: Path) -> None:
    """Open the user's own files in a shared home that libraries have closed to its group."""
    if is_shared(home) and os.access(home, os.W_OK):
        for folder in _OF_LIBRARIES:
            for path, found in _closed(home, home / folder):
                if found.st_uid == os.geteuid():
                    with suppress(FileNotFoundError):  # removed in this instant
                        path.chmod(_open_mode(found.st_mode))


def closed_to_group(home: Path) -> list[tuple[Path, os.stat_result]]:
    """Files and folders of a shared home that members of its group cannot change."""
    return list(_closed(home, home)) if is_shared(home) else []


def _closed(home: Path, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    group = home.stat().st_gid
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place) / name
            try:
                found = path.lstat()
            except FileNotFoundError:  # removed in this instant
                continue
            if not stat.S_ISLNK(found.st_mode) and (
                found.st_gid != group or _open_mode(found.st_mode) != found.st_mode
            ):
                yield path, found


def _open_mode(mode: int) -> int:
    """The mode of a file or folder with the rights of its user for its group, and with the group for what it holds."""
    return mode | (mode & stat.S_IRWXU) >> 3 | (stat.S_ISGID if stat.S_ISDIR(mode) else 0)
