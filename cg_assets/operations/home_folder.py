"""`$CG_ASSETS_HOME`: the one folder that holds all state."""

from __future__ import annotations

import importlib.util
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
        CgAssetsError: this home's records are not in the kind of database of `CG_ASSETS_DATABASE`, or that
            cannot be reached.
    """
    own = installation()
    folder = own.home
    dagster_home = folder / "dagster"
    for needed in (dagster_home, folder / "systems", folder / "data", folder / "mlflow"):
        needed.mkdir(parents=True, exist_ok=True)
    address = with_driver(own.database) if own.database else None
    _choose_database(dagster_home, address)
    # Steps run side by side, one per core; threads of several steps on the same cores are many times slower.
    set_variables(
        {HOME: str(folder), DAGSTER_HOME: str(dagster_home)} | ({DATABASE: address} if address else {}),
        {"DAGSTER_DISABLE_TELEMETRY": "yes", "OMP_NUM_THREADS": "1"},
    )
    return folder


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
