"""Moving a home folder: MLflow stores absolute paths of artifacts, which then follow the folder."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from cg_assets.core.errors import TrackingError
from cg_assets.core.machine import sqlite_remedy
from cg_assets.storage.atomic import file_lock

_PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Where MLflow's database names places below the folder of artifacts: table and column."""


def follow_home(database: Path, artifacts: Path) -> bool:
    """Point MLflow's default database to the artifact folder next to it.

    The default experiment, made with the database, has the folder that it was made for.

    Args:
        database: `<home>/mlflow/mlflow.db`, which no server is using.
        artifacts: `<home>/mlflow/artifacts`.

    Returns:
        Whether the home folder had moved.

    Raises:
        TrackingError: the database cannot be read or changed.
    """
    try:
        if _made_for(database) in (artifacts.as_uri(), None):
            return False
        with file_lock(database.parent / ".database.lock", 120.0, "the move of MLflow's database"):
            old, new = _made_for(database), artifacts.as_uri()
            if old in (new, None):
                return False
            with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
                for table, column in _PLACES.items():
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (new, len(str(old)) + 1, len(str(old)) + 1, f"{old}/"),
                    )
    except sqlite3.Error as error:
        remedy = sqlite_remedy(error) or "copy it back from a backup of the home folder"
        raise TrackingError(f"{database}: cannot be read or changed: {error}; {remedy}") from error
    return True


def _made_for(database: Path) -> str | None:
    """The folder of artifacts that the database was made for; None where it is not of this project's making."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
        row = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    return row[0].removesuffix("/0") if row and row[0].endswith("/mlflow/artifacts/0") else None
