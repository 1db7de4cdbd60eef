"""`$CG_ASSETS_HOME`: the one folder that holds all state."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cg_assets.core.errors import CgAssetsError
from cg_assets.settings import DAGSTER_HOME, DATABASE, HOME, installation, masked, set_variables, with_driver
from cg_assets.storage.atomic import atomic_file

_POSTGRES = f"""storage:
  postgres:
    postgres_url:
      env: {DATABASE}
"""


def prepare_home() -> Path:
    """Make the home folder ready and point Dagster at it: settings, storage and logs lie under it.

    Sets `CG_ASSETS_HOME` and `DAGSTER_HOME` for this process and those that it starts.

    Returns:
        The absolute path of the home folder.

    Raises:
        CgAssetsError: its path cannot be part of a database address; or its records are not in the kind of database
            of `CG_ASSETS_DATABASE`, or that cannot be reached.
    """
    own = installation()
    folder = _usable(own.home)
    dagster_home = folder / "dagster"
    for needed in (dagster_home, folder / "systems", folder / "data", folder / "mlflow"):
        needed.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise CgAssetsError(
            f"home folder {folder}: this user cannot write to it; correct its permissions, or choose another folder "
            "with --home"
        )
    address = with_driver(own.database) if own.database else None
    _choose_database(dagster_home, address)
    set_variables({HOME: str(folder), DAGSTER_HOME: str(dagster_home)} | ({DATABASE: address} if address else {}))
    set_step_defaults()
    return folder


def set_step_defaults() -> None:
    """Set what steps need and is not set yet, for this process and those that it starts from now on.

    Steps run side by side, one per core; threads of several steps on the same cores are many times slower.
    """
    set_variables({}, {"DAGSTER_DISABLE_TELEMETRY": "yes", "OMP_NUM_THREADS": "1"})


def _usable(folder: Path) -> Path:
    """A home folder whose path the addresses of SQLite databases can hold."""
    if found := re.search(r"[?\\]|%[0-9A-Fa-f]{2}", str(folder)):
        raise CgAssetsError(
            f"home folder {folder}: its path contains {found[0]!r}, which addresses of databases cannot hold; choose "
            "another folder with --home or CG_ASSETS_HOME, or rename it"
        )
    return folder


@contextmanager
def readable_home(writes: bool = False) -> Iterator[Path]:
    """The home folder to look things up in, also where this user cannot write to it, as in a backup.

    Databases are locked, and brought up to date, when they are opened. Where the folder is read-only that happens in a
    temporary folder with copies of the databases and links to all else.

    Args:
        writes: refuse a folder that is read-only.

    Yields:
        The folder.

    Raises:
        CgAssetsError: the folder is read-only and the caller writes to it, or its path cannot be used.
    """
    home = _usable(installation().home)
    if not home.is_dir() or os.access(home, os.W_OK):
        yield home
        return
    if writes:
        raise CgAssetsError(
            f"home folder {home}: this user cannot write to it; correct its permissions, or use a copy of it with "
            "--home (`figures` writes elsewhere with --folder)"
        )
    print(f"cg-assets: {home} is read-only; its databases are read from a temporary copy", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="cg_assets_") as temporary:
        copy = Path(temporary)
        for folder, databases in (("", "catalog.duckdb"), ("mlflow", "mlflow.db*"), ("dagster", "*")):
            (copy / folder).mkdir(exist_ok=True)
            for path in (home / folder).glob(databases):
                if path.is_file():
                    shutil.copyfile(path, copy / folder / path.name)
                else:
                    shutil.copytree(path, copy / folder / path.name, copy_function=shutil.copyfile)
        for linked in ("data", "systems", "mlflow/artifacts"):
            if (home / linked).is_dir():
                (copy / linked).symlink_to(home / linked, target_is_directory=True)
        set_variables({HOME: str(copy)})
        try:
            yield copy
        finally:
            set_variables({HOME: str(home)})


def _choose_database(dagster_home: Path, address: str | None) -> None:
    """Write Dagster's settings, once: where its records are does not change afterwards."""
    settings, wanted = dagster_home / "dagster.yaml", address is not None
    if wanted and importlib.util.find_spec("dagster_postgres") is None:
        raise CgAssetsError(f"{DATABASE} needs dagster-postgres; install it with: pip install 'cg-assets[postgres]'")
    known = settings.read_text(encoding="utf-8") if settings.exists() else None
    if known is None:
        with atomic_file(settings) as temporary:
            text = Path(__file__).with_name("dagster.yaml").read_text(encoding="utf-8")
            temporary.write_text(text + _POSTGRES * wanted, encoding="utf-8")
    elif wanted and "storage:" not in known:
        raise CgAssetsError(
            f"{DATABASE} is set, but the runs of {dagster_home.parent} are in SQLite files; unset it, or start a new "
            "home folder and copy `data` and `systems` into it"
        )
    elif not wanted and DATABASE in known:
        raise CgAssetsError(f"the runs of {dagster_home.parent} are in PostgreSQL; set {DATABASE} to its address")
    if address is not None:
        _ask(address)


def _ask(address: str) -> None:
    """Test within seconds whether the database answers."""
    import psycopg2

    try:
        psycopg2.connect(address.replace("+psycopg2", "", 1), connect_timeout=5).close()
    except psycopg2.Error as error:
        reason = masked(" ".join(str(error).split()))
        raise CgAssetsError(
            f"{DATABASE}: the database cannot be reached ({reason}); start it or correct the address (special "
            "characters of a password as in web addresses: @ is %40, / is %2F)"
        ) from None
