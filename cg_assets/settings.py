"""The installation: its folder, devices and services. The only reader of the environment.

Addresses may hold passwords and keys: whatever is printed, logged or stored shows them through `masked`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from cg_assets.core.errors import DeviceError

DEVICES = ("auto", "cpu", "cuda")
HOME, DAGSTER_HOME = "CG_ASSETS_HOME", "DAGSTER_HOME"
DEVICE, THREADS = "CG_DEVICE", "CG_ASSETS_THREADS"
EXECUTOR, EXECUTOR_OPTIONS = "CG_EXECUTOR", "CG_EXECUTOR_CONFIG"
TRACKING = "MLFLOW_TRACKING_URI"
DATABASE = "CG_ASSETS_DATABASE"
OBJECT_STORE = "CG_ASSETS_OBJECT_STORE"
HOSTS = "CG_ASSETS_HOSTS"
CHANGES = "CG_ASSETS_SET"
AHEAD = "CG_ASSETS_AHEAD"
LOOPBACK = "127.0.0.1"

ADDRESSES = (TRACKING, DATABASE, OBJECT_STORE, "AWS_ENDPOINT_URL")
"""Variables that can hold passwords or keys."""
OF_STEPS = (
    *(HOME, DEVICE, DAGSTER_HOME, "DAGSTER_DISABLE_TELEMETRY", "OMP_NUM_THREADS", "PYTHONPATH"),
    *(CHANGES, *ADDRESSES),
)
"""Variables that a step on another node needs."""


@dataclass(frozen=True)
class Installation:
    """The settings in the environment; each is checked when it is used, so that other commands run regardless.

    Attributes:
        home: folder of all state, absolute (`CG_ASSETS_HOME`, by default `./cg_assets_home`).
        dagster_home: Dagster's own folder, once it is set (`DAGSTER_HOME`); `<home>/dagster` under `cg-assets`.
        device_name: `CG_DEVICE`; see `device`.
        thread_count: `CG_ASSETS_THREADS`; see `threads`.
        executor: `CG_EXECUTOR`, what runs the steps.
        executor_options: YAML file of its options (`CG_EXECUTOR_CONFIG`).
        tracking_uri: MLflow server or database (`MLFLOW_TRACKING_URI`); None for the one in the home folder.
        database: PostgreSQL database of Dagster's records (`CG_ASSETS_DATABASE`); None for SQLite in the home folder.
        object_store: where the data lie as objects (`CG_ASSETS_OBJECT_STORE`); None for the home folder alone.
        hosts: names by which the pages are asked for besides those of this machine (`CG_ASSETS_HOSTS`).
        changes: fields that `--set` gives other values than their files, as JSON by system (`CG_ASSETS_SET`).
        ahead: what the process that steps fork from makes ready, as JSON (`CG_ASSETS_AHEAD`).
        search_path: `PATH`.
    """

    home: Path
    dagster_home: Path | None = None
    device_name: str = "auto"
    thread_count: str | None = None
    executor: str = "multiprocess"
    executor_options: Path | None = None
    tracking_uri: str | None = field(default=None, repr=False)
    database: str | None = field(default=None, repr=False)
    object_store: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    changes: str = "{}"
    ahead: str = "{}"
    search_path: str = field(default=os.defpath, repr=False)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] | None = None) -> Installation:
        """Read the variables of this process, or others."""
        given = os.environ if variables is None else variables

        def path(name: str) -> Path | None:
            return Path(given[name]) if given.get(name) else None

        return cls(
            home=(path(HOME) or Path("cg_assets_home")).absolute(),
            dagster_home=path(DAGSTER_HOME),
            device_name=given.get(DEVICE, "auto"),
            thread_count=given.get(THREADS),
            executor=given.get(EXECUTOR, "multiprocess"),
            executor_options=path(EXECUTOR_OPTIONS),
            tracking_uri=given.get(TRACKING) or None,
            database=given.get(DATABASE) or None,
            object_store=given.get(OBJECT_STORE) or None,
            hosts=tuple(given.get(HOSTS, "").replace(",", " ").split()),
            changes=given.get(CHANGES) or "{}",
            ahead=given.get(AHEAD) or "{}",
            search_path=given.get("PATH", os.defpath),
        )

    @property
    def device(self) -> str:
        """The kind of device to compute on: auto, cpu or cuda.

        Raises:
            DeviceError: `CG_DEVICE` has any other value.
        """
        if self.device_name not in DEVICES:
            raise DeviceError(f"{DEVICE} is {self.device_name!r}; choose auto, cpu or cuda")
        return self.device_name

    @property
    def threads(self) -> int:
        """The cores to use: `CG_ASSETS_THREADS`, else all that this process may use.

        Raises:
            DeviceError: `CG_ASSETS_THREADS` is no number.
        """
        if self.thread_count is None:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not self.thread_count.isdigit() or int(self.thread_count) < 1:
            raise DeviceError(f"{THREADS} is {self.thread_count!r}; set it to a number of at least 1, or unset it")
        return int(self.thread_count)

    def check(self) -> None:
        """Refuse a wrong `device` or `threads`; errors as there."""
        _ = self.device, self.threads

    @property
    def has_models(self) -> bool:
        """Whether MLflow is there: a server or database that is named, or a database in the home folder."""
        return self.tracking_uri is not None or (self.home / "mlflow" / "mlflow.db").is_file()

    @property
    def secret_addresses(self) -> list[str]:
        """Variables of addresses that hold a password or key."""
        given = {TRACKING: self.tracking_uri, DATABASE: self.database, OBJECT_STORE: self.object_store}
        return [name for name, address in given.items() if address and _without_secrets(address) != address]

    @property
    def has_tracking_server(self) -> bool:
        """Whether models are kept by an MLflow server, not in a database."""
        return (self.tracking_uri or "").startswith(("http://", "https://"))


def installation() -> Installation:
    """The installation that the environment of this process describes."""
    return Installation.from_environment()


def set_variables(variables: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> None:
    """Set variables of this process and of those that it starts; `defaults` only where nothing is set."""
    os.environ.update(variables)
    for name, value in (defaults or {}).items():
        os.environ.setdefault(name, value)


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a child process: that of this one, and more."""
    return os.environ | more


def with_driver(address: str) -> str:
    """Address of a PostgreSQL database with the driver that comes with Dagster, where it names none."""
    return address.replace("postgresql://", "postgresql+psycopg2://", 1)


def masked(text: str) -> str:
    """A text to show, log or store: passwords and keys are left out.

    These are what stands between `://user:` and `@`, and parameters of an address such as `secret_key=`, wherever they
    are; and anywhere else what the variables of this process hold of them.
    """
    text = _without_secrets(text)
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", "***", text)
    return text


_USER_INFO = re.compile(r"""(\w+)://(?![^/@:\s'"]*:\d+(?:/|$))([^/@:\s'"]*)(:[^\s'"]*)?@""")
"""Scheme, user and password of an address; a password may hold a slash or an @, which `host:5000/a@b` is not."""
_PARAMETER = re.compile(
    r"""([?&;][\w.-]*(?:pass|secret|token|key|sig|credential)[\w.-]*=)([^&;\s'"]+)""", re.IGNORECASE
)
_SECRET_VARIABLE = re.compile(r"(PASSWORD|PASSPHRASE|SECRET|TOKEN|ACCESS_KEY|STORAGE_KEY)$")
_SHORTEST = 4
"""Characters of what is looked for by itself; shorter parts are in many words."""


def _without_secrets(text: str) -> str:
    return _PARAMETER.sub(r"\1***", _USER_INFO.sub(_without_password, text))


def _without_password(found: re.Match[str]) -> str:
    """Names of users stay where they have a password; what stands alone before the @ of a server can be a token."""
    scheme, user, password = found.groups()
    if password is None:
        return f"{scheme}://{'***' if scheme in ('http', 'https', 's3') else user}@"
    return f"{scheme}://{'***' if scheme == 's3' else f'{user}:***'}@"


def _secrets() -> set[str]:
    """Passwords and keys in the variables of this process; of an address also the parts that a wrong reading gives."""
    found = set()
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            found |= {value, *value.splitlines()}
        if name not in ADDRESSES:
            continue
        for _, user, password in _USER_INFO.findall(value):
            for whole in (password[1:], unquote(password[1:])):
                found |= {whole, *re.split("[/@?#]", whole)}
            found |= {user} if value.startswith("s3:") else set()
        found |= {form for _, text in _PARAMETER.findall(value) for form in (text, unquote(text))}
    return {secret for secret in found if len(secret) >= _SHORTEST}
