"""Connection to MLflow: settings, the default database under the home folder, and errors that name the remedy."""

from __future__ import annotations

import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cg_assets.core.errors import TrackingError
from cg_assets.core.machine import sqlite_remedy
from cg_assets.registry.mlflow_move import follow_home
from cg_assets.settings import masked, set_variables, with_driver
from cg_assets.storage.atomic import atomic_file, file_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
"""Defaults for MLflow; variables that are set stay as they are."""
_PING_SECONDS = 5.0


class MlflowConnection:
    """The tracking store: a server, or the database under the home folder.

    Attributes:
        home: the home folder.
        uri: the tracking URI.
        shown: the same for messages, without a password.
        local: whether this project keeps the store itself, under the home folder.
    """

    def __init__(self, tracking_uri: str | None, home: Path) -> None:
        """A connection; nothing is opened yet.

        Args:
            tracking_uri: URI of an MLflow server or database; None for `<home>/mlflow/mlflow.db`.
            home: the home folder.
        """
        self.home = Path(home).absolute()
        self.local = not tracking_uri
        self.uri = with_driver(tracking_uri or f"sqlite:///{self.database}")
        self.shown = masked(self.uri)
        self._ready = False

    @property
    def folder(self) -> Path:
        """Where the default store keeps its database and artifacts."""
        return self.home / "mlflow"

    @property
    def database(self) -> Path:
        """The default database."""
        return self.folder / "mlflow.db"

    @property
    def is_new(self) -> bool:
        """Whether there is nothing to be asked: the default database has not been made."""
        return self.local and not self.database.is_file()

    def artifact_location(self, system: str) -> str | None:
        """Absolute place of a system's artifacts; None where a server decides."""
        return (self.folder / "artifacts" / system).as_uri() if self._is_database else None

    @property
    def _is_database(self) -> bool:
        return self.uri.startswith(("sqlite", "postgresql", "mysql", "mssql"))

    def open(self) -> tuple[ModuleType, MlflowClient]:
        """MLflow, pointed at this store, and a client.

        Raises:
            TrackingError: the store cannot be reached or made.
        """
        set_variables({}, _SETTINGS)
        if not self._ready and self.uri.startswith(("http://", "https://")):
            self._ping()
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with self.explained():
            if self.is_new:
                self._make_database()
            if self.local and not self._ready:
                follow_home(self.database, self.folder / "artifacts")
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            with self._first_question():
                client = mlflow.MlflowClient(self.uri, self.uri)
                if not self._ready:
                    client.search_experiments(max_results=1)
        self._ready = True
        return mlflow, client

    @contextmanager
    def _first_question(self) -> Iterator[None]:
        """One process at a time: the first question to a database that is not ours makes its tables."""
        if self.local or self._ready or not self._is_database:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / ".database.lock", 120.0, "the creation of MLflow's tables"):
            yield

    def _ping(self) -> None:
        """Test within seconds whether a server answers; MLflow itself would try for minutes."""
        parts = urlsplit(self.uri.rstrip("/"))
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=_PING_SECONDS):
                return
        except urllib.error.HTTPError:
            return  # something answers; the first real request shows whether it is MLflow
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = masked(str(getattr(error, "reason", error)))
            raise TrackingError(
                f"MLflow at {self.shown} cannot be reached ({reason}); start the server, correct MLFLOW_TRACKING_URI, "
                f"or unset it to keep models in {self.folder}"
            ) from None

    def _make_database(self) -> None:
        """Make the tables once, whole, however many processes ask for them at the same time."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with file_lock(self.folder / ".database.lock", 120.0, "the creation of MLflow's database"):
            if self.database.is_file():
                return
            with atomic_file(self.database) as temporary:
                store = SqlAlchemyStore(f"sqlite:///{temporary}", (self.folder / "artifacts").as_uri())
                store.engine.dispose()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn MLflow's and its database's errors into a TrackingError that names the store."""
        import requests
        import sqlalchemy
        from mlflow.exceptions import MlflowException

        try:
            yield
        except ModuleNotFoundError as error:
            raise TrackingError(
                f"MLflow at {self.shown}: the driver {error.name} of this database is missing; "
                "pip install -c constraints.txt 'cg-assets[postgres]', or the driver that the address names"
            ) from None
        except (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            reason = masked(str(error).strip().partition("\n")[0]) or type(error).__name__
            remedy = sqlite_remedy(error) or "check that it runs and that this user may write to it"
            raise TrackingError(
                f"MLflow at {self.shown}: {reason}; {remedy}"
            ) from None  # the pages of Dagster keep causes as they are


def all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    """What all pages of a search give."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def runs_of(client: Any, experiments: list[str], asked: Sequence[str]) -> set[str]:
    """Those of some runs that are there, deleted ones being left out."""
    found: set[str] = set()
    for first in range(0, len(asked), 100):
        names = ", ".join(f"'{run_id}'" for run_id in asked[first : first + 100])
        found |= {run.info.run_id for run in client.search_runs(experiments, f"attributes.run_id IN ({names})")}
    return found
