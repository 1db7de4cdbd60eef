"""Start the Dagster and MLflow pages together on this machine, and stop both cleanly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import dagster as dg

from cg_assets.core.errors import CgAssetsError
from cg_assets.operations.guard import LOCAL
from cg_assets.operations.home_folder import prepare_home
from cg_assets.orchestration.run_locks import end_dead_runs
from cg_assets.settings import LOOPBACK, child_environment, installation, masked
from cg_assets.storage.atomic import acquire_lock

_SCHEMES = ("http", "https")


def serve(dagster_port: int, mlflow_port: int) -> int:
    """Serve both pages on loopback until interrupted.

    `MLFLOW_TRACKING_URI`, if set, is the address of the models: an MLflow server, which is then not started again,
    or a database, whose page is served. Steps use the same.

    Raises:
        CgAssetsError: a port is taken, the home is served already, or a server does not come up; its log is named.
    """
    folder = prepare_home()
    _require_free("--port", dagster_port)
    if not installation().has_tracking_server:
        _require_free("--mlflow-port", mlflow_port)
    # The Dagster server also holds the lock: it keeps running if this process alone is killed.
    lock = acquire_lock(folder / "locks" / "pages.lock", 0.0, f"{folder}: its daemon, which is in cg-assets ui,")
    try:
        with dg.DagsterInstance.get() as instance:
            end_dead_runs(instance)  # they would keep schedules from ticking, and slots of pools
        return _serve(folder, dagster_port, mlflow_port, lock)
    finally:
        os.close(lock)


def _serve(folder: Path, dagster_port: int, mlflow_port: int, lock: int) -> int:
    own = installation()
    given = own.tracking_uri
    tracking_page = str(given) if own.has_tracking_server else f"http://{LOOPBACK}:{mlflow_port}"
    environment = child_environment(
        MLFLOW_TRACKING_URI=given or tracking_page,
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        MLFLOW_SERVER_ALLOWED_HOSTS=_any_port(*LOCAL, *own.hosts),
        MLFLOW_SERVER_CORS_ALLOWED_ORIGINS=_any_port(*(f"{way}://{name}" for name in own.hosts for way in _SCHEMES)),
    )
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    servers: dict[str, subprocess.Popen[bytes]] = {}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # SIGHUP: the terminal was closed; nohup has it ignored.
    ends = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in ends}
    # A shell that starts this in the background makes it ignore SIGINT; the servers would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if not own.has_tracking_server:
            servers["MLflow"] = _start(
                "mlflow", _mlflow_command(folder, mlflow_port), environment | _mlflow_store(folder, given), logs
            )
            _wait_for("MLflow", servers["MLflow"], f"{tracking_page}/health", logs / "mlflow.log")
        servers["Dagster"] = _start("dagster", _dagster_command(dagster_port), environment, logs, lock)
        page = f"http://{LOOPBACK}:{dagster_port}"
        _wait_for("Dagster", servers["Dagster"], f"{page}/server_info", logs / "dagster.log")
        print(
            f"Dagster  {page}\nMLflow   {masked(tracking_page)}\nlogs     {logs}\nCtrl-C stops both.",
            flush=True,
        )
        while True:
            for name, server in servers.items():
                if server.poll() is not None:
                    raise CgAssetsError(f"the {name} server has stopped; see {logs}")
            time.sleep(0.5)
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal is gone
            print("stopping", flush=True)
        return 0
    finally:
        for number in (signal.SIGINT, *previous):
            signal.signal(number, signal.SIG_IGN)
        for server in reversed(list(servers.values())):
            _stop_group(server)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _any_port(*names: str) -> str:
    """Names with and without a port, as MLflow takes them."""
    return ",".join(name + port for name in names for port in ("", ":*"))


def _mlflow_store(folder: Path, tracking_uri: str | None) -> dict[str, str]:
    """The server's database, as a variable: everyone on the machine can see command lines and their passwords."""
    from cg_assets.registry.tracking import ModelTracking

    tracking = ModelTracking(tracking_uri, folder)
    tracking.check()
    return {"MLFLOW_BACKEND_STORE_URI": tracking.uri}


def _mlflow_command(folder: Path, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"),
        # Plain paths, so that models logged through this server can also be read without it.
        *("--default-artifact-root", (folder / "mlflow" / "artifacts").as_uri(), "--no-serve-artifacts"),
    ]


def _dagster_command(port: int) -> list[str]:
    return [sys.executable, "-m", "cg_assets.operations.dagster_pages", str(port)]


def _start(
    name: str, command: list[str], environment: dict[str, str], logs: Path, *kept: int
) -> subprocess.Popen[bytes]:
    # A working directory without modules: a file of the caller's named like a library would shadow it.
    with open(logs / f"{name}.log", "ab") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=logs, pass_fds=kept
        )


def _wait_for(name: str, server: subprocess.Popen[bytes], url: str, log: Path, timeout: float = 90.0) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise CgAssetsError(f"the {name} server did not come up at {url}; see {log}")


def _require_free(option: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise CgAssetsError(f"{option} {port} is taken; choose another") from None


def _stop_group(server: subprocess.Popen[bytes]) -> None:
    """Ask a server and its children to stop, and kill those that do not."""
    for number, patience in ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        end = time.monotonic() + patience
        while time.monotonic() < end:
            server.poll()
            try:
                os.killpg(server.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
