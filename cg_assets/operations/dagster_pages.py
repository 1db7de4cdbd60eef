"""Dagster's page behind a guard, with its daemon and its code server: `dagster dev` as `cg-assets ui` starts it.

The reports of systems, to which its pages link, are served with it.

The daemon is a child and ends with this process; this process ends with the daemon.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import uvicorn
import yaml
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cg_assets.operations.guard import Guard
from cg_assets.orchestration.served_files import FILES, content_of
from cg_assets.settings import LOOPBACK, installation

_STATEMENT_MILLISECONDS, _RECYCLE_SECONDS, _OVERFLOW = 15_000, 3_600, 20
"""Limits of Dagster's own server for its database."""
_POLL_MILLISECONDS = 2_000
_DAEMON_SECONDS = 60.0


def serve_dagster(port: int) -> None:
    """Serve the page on loopback until this process is interrupted."""
    configure_loggers(log_level="INFO")
    target = ModuleTarget("cg_assets.orchestration.definitions", None, None, None)
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.get())
        code = stack.enter_context(ProxyServerManager(instance, target, "warning"))
        workspace = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "workspace.yaml"
        workspace.write_text(yaml.safe_dump({"load_from": code.get_code_server_specs()}), encoding="utf-8")
        stack.enter_context(_daemon(workspace))
        instance.optimize_for_webserver(_STATEMENT_MILLISECONDS, _RECYCLE_SECONDS, _OVERFLOW)
        context = stack.enter_context(
            WorkspaceProcessContext(
                instance,
                workspace_load_target=WorkspaceFileTarget([str(workspace)]),
                version=__version__,
                read_only=False,
                code_server_log_level="warning",
            )
        )
        page = create_app_from_workspace_process_context(context, live_data_poll_rate=_POLL_MILLISECONDS)
        page.router.routes.insert(0, Route(f"{FILES}/{{file:path}}", _file))
        uvicorn.run(Guard(page, installation().hosts), host=LOOPBACK, port=port, log_level="warning")


async def _file(request: Request) -> Response:
    """A report or a figure, or why there is none."""
    found = content_of(installation().home, request.path_params["file"], request.query_params)
    if isinstance(found, str):
        return PlainTextResponse(found, 404)
    return Response(found[0], media_type=found[1], headers={"Cache-Control": "no-cache"})


@contextmanager
def _daemon(workspace: Path) -> Iterator[None]:
    daemon = subprocess.Popen([sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(workspace)])

    def watch() -> None:
        daemon.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        daemon.send_signal(signal.SIGINT)
        try:
            daemon.wait(_DAEMON_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()


if __name__ == "__main__":
    serve_dagster(int(sys.argv[1]))
