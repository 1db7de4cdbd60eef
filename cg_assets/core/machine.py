"""What the machine refuses: a full disk, a read-only folder, a database that cannot be used."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator

_REFUSED = {
    errno.ENOSPC: "free space on the disk, then run the same command again",
    errno.EDQUOT: "free space within the quota, then run the same command again",
    errno.ENOTDIR: "name a folder below a folder, not below a file",
    errno.EROFS: "choose a folder that can be written to, with --home or CG_ASSETS_HOME",
    errno.EACCES: "give this user the permission, or choose another folder with --home",
    errno.EPERM: "give this user the permission, or choose another folder with --home",
}
_SQLITE = {
    "full": _REFUSED[errno.ENOSPC],
    "disk I/O": "check the disk and its free space, then run the same command again",
    "readonly": _REFUSED[errno.EROFS],
    "unable to open": "check that the home folder is there, can be written to and has free space",
    "locked": "wait for the other process that uses the home folder, or end it, then run the same command again",
    "malformed": "copy the database back from a backup of the home folder",
    "not a database": "copy the database back from a backup of the home folder",
}


def machine_failure(error: BaseException) -> str | None:
    """What the machine has refused, with the remedy, where that is behind an error; None for any other error.

    Covers a full disk, a read-only folder, missing permissions, and SQLite databases that cannot be used.
    """
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _REFUSED:
            where = f"{cause.filename}: " if cause.filename else ""
            return f"{where}{(cause.strerror or str(cause)).lower()}; {_REFUSED[cause.errno]}"
        if isinstance(cause, sqlite3.DatabaseError) and (remedy := sqlite_remedy(cause)):
            return f"a database of the home folder: {cause}; {remedy}"
    return None


def sqlite_remedy(error: BaseException) -> str | None:
    """What to do about the SQLite error that is, or led to, an error; None where there is none, or an unknown one."""
    for cause in _chain(error):
        if isinstance(cause, sqlite3.DatabaseError):
            return next((remedy for words, remedy in _SQLITE.items() if words in str(cause)), None)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that led to it, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
