"""What the machine refuses is told from faults of the program."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from cg_assets.core.machine import machine_failure, sqlite_remedy


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOTDIR"])
def test_refusals_of_the_file_system(code):
    number = getattr(errno, code)
    error = OSError(number, os.strerror(number), "/data/file")
    reason = machine_failure(error)
    assert reason.startswith(f"/data/file: {os.strerror(number).lower()}; ")


def test_a_database_on_a_full_disk():
    """SQLite itself says so; a library's error hides it."""
    connection = sqlite3.connect(":memory:")
    connection.execute("pragma max_page_count = 2")
    with pytest.raises(RuntimeError) as caught:
        try:
            connection.execute("create table a (b)")
            connection.execute("insert into a values (zeroblob(100000))")
        except sqlite3.OperationalError as error:
            raise RuntimeError("the library's own words") from error
    assert "disk is full; free space" in machine_failure(caught.value)


def test_a_damaged_database(tmp_path):
    (tmp_path / "a.db").write_bytes(b"not a database at all, but text of some length" * 30)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        sqlite3.connect(tmp_path / "a.db").execute("select * from a")
    assert "copy the database back from a backup" in machine_failure(caught.value)


def test_a_locked_database(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as writer:
        writer.execute("begin exclusive")
        with pytest.raises(sqlite3.OperationalError) as caught:
            sqlite3.connect(tmp_path / "a.db", timeout=0).execute("create table a (b)")
    assert sqlite_remedy(caught.value).startswith("wait for the other process")
    assert sqlite_remedy(ValueError("locked")) is None


@pytest.mark.parametrize("error", [ValueError("full"), OSError(errno.ENOENT, "no such file"), KeyError("readonly")])
def test_other_errors_are_not_excused(error):
    assert machine_failure(error) is None
