"""Files that appear whole or not at all, and locks that die with their process.

A file is written to a dot-prefixed temporary name in its own folder, flushed to the disk and moved to its name. The
writer holds an advisory lock on the temporary file; the kernel drops it when the process ends, however it ends, so a
temporary file whose lock is free is the leftover of a killed writer.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cg_assets.core.errors import StorageError
from cg_assets.core.processes import Process, this_process

_MARK = ".writing-"


def fsync_folder(folder: Path) -> None:
    """Make a rename or removal in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file to write to, moved to `path` when the block ends without an error.

    Args:
        path: final name; its folder is made when missing, an older file of that name is replaced.

    Yields:
        The temporary file, in the same folder, empty and locked.

    Raises:
        StorageError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, descriptor = _new_temporary(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error}; check permissions and free space") from error
    try:
        yield temporary
        os.fsync(descriptor)
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{path}: writing failed: {error}; check free space, then run again") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to write to, which becomes `path` when the block ends without an error.

    Args:
        path: its final name; its parents are made when missing. An empty folder of that name stays and is filled.

    Yields:
        The temporary folder.

    Raises:
        StorageError: there is a file of that name, a folder that is not empty, or none can be made there.
    """
    path = Path(os.path.abspath(path))
    there = path.is_dir()
    if os.path.lexists(path) and (not there or not all(map(is_temporary, path.iterdir()))):
        raise StorageError(f"{path} is not empty; name a new folder")
    near = path if there else path.parent
    try:
        near.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=f".{path.name}{_MARK}", dir=near)
    except OSError as error:
        raise StorageError(f"{path}: cannot be made: {error}; check permissions and free space") from error
    with scratch:
        temporary = Path(scratch.name) / path.name
        temporary.mkdir()
        yield temporary
        try:
            for item in temporary.iterdir() if there else [temporary]:
                item.rename(near / item.name)
        except OSError as error:
            raise StorageError(f"{path}: cannot be made: {error}; name another folder") from error


def _new_temporary(path: Path) -> tuple[Path, int]:
    while True:
        temporary = path.parent / f".{path.name}{_MARK}{os.getpid()}-{secrets.token_hex(6)}"
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)  # a cleaner took it for a leftover in the instant before the lock; it removes it
            continue
        if _is_same_file(descriptor, temporary):
            return temporary, descriptor
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def is_temporary(path: Path) -> bool:
    """Whether the name is that of a file still being written (or of a killed writer's leftover)."""
    return path.name.startswith(".") and _MARK in path.name


def leftovers(folder: Path) -> Iterator[Path]:
    """The temporary files of killed writers anywhere below a folder; those being written are left out.

    A file is locked while the caller looks at it, so that it may remove it.
    """
    for path in sorted(Path(folder).rglob(f".*{_MARK}*")):
        if path.is_dir():  # of `new_folder`
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, PermissionError):  # removed, or another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the temporary files of killed writers anywhere below a folder; those being written stay.

    Returns:
        The files that were removed.
    """
    removed = []
    for path in leftovers(folder):
        path.unlink(missing_ok=True)
        removed.append(path)
    return removed


@contextmanager
def file_lock(path: Path, timeout: float, purpose: str, stays: bool = True) -> Iterator[None]:
    """Hold a lock between processes; it is freed at once when its holder ends or is killed.

    Args:
        path: lock file, made when missing; it names its holder.
        timeout: longest wait [s].
        purpose: what is locked, for the message.
        stays: whether the file is kept afterwards.

    Raises:
        StorageError: another process, which is named, held it for longer than the timeout.
    """
    descriptor = acquire_lock(path, timeout, purpose)
    try:
        yield
    finally:
        if not stays:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def acquire_lock(path: Path, timeout: float, purpose: str) -> int:
    """The descriptor of a lock file, locked; closing it frees the lock. Arguments and errors as in `file_lock`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + timeout
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        except PermissionError as error:
            raise StorageError(
                f"{path}: this lock is closed to this user ({error.strerror}); `cg-assets doctor` shows how a home is "
                "shared"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same_file(descriptor, path):
                with suppress(OSError):  # on a full disk the lock names nobody
                    os.truncate(descriptor, 0)
                    os.pwrite(descriptor, str(this_process()).encode(), 0)
                return descriptor
        except BlockingIOError:
            if time.monotonic() >= give_up:
                os.close(descriptor)
                holder = lock_holder(path)
                raise StorageError(
                    f"{purpose} is in use by {_named(holder)} (lock {path}, waited {timeout:g} s); wait for it or end "
                    "it, then run again"
                ) from None
            time.sleep(0.02)
        except OSError as error:
            os.close(descriptor)
            raise StorageError(
                f"{path}: this file system has no file locks ({error}); put CG_ASSETS_HOME on one that has"
            ) from error
        os.close(descriptor)


def _named(holder: Process | None) -> str:
    if holder is None:
        return "another process"
    return f"a process that {holder.name} started before it ended" if holder.is_gone else holder.name


def lock_holder(path: Path) -> Process | None:
    """The process that holds a lock file, or held it last; None where it names none."""
    try:
        return Process.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def is_locked(path: Path) -> bool:
    """Whether a process that shares this file system holds a lock file; True where this user may not ask."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except PermissionError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
