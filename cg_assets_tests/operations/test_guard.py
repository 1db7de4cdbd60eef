"""The guard in front of a page: what it lets through, without a server."""

from __future__ import annotations

import asyncio

import pytest

from cg_assets.operations.guard import Guard
from cg_assets.settings import Installation

HOSTS = Installation.from_environment({"CG_ASSETS_HOSTS": "pages.example, lab.example"}).hosts


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


def asked(kind="http", method="GET", path="/", **headers):
    """What the guard sends first."""
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    sent = []

    async def receive():
        return {"type": f"{kind}.connect"}

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "method": method, "path": path, "headers": named}
    asyncio.run(Guard(answer, HOSTS)(scope, receive, send))
    return sent[0].get("status", sent[0]["type"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[
            (host, 200)
            for host in ("127.0.0.1:3000", "localhost:8080", "localhost", "pages.example", "lab.example:443")
        ],
        *[(host, 403) for host in ("", "elsewhere.example", "pages.example.org:80", "127.0.0.1.example", "127.0.0.11")],
    ],
)
def test_hosts(host, status):
    assert asked(host=host) == status
    assert asked() == 403


def test_what_is_no_single_host_is_refused():
    """Programs read it differently; two `Host` lines arrive as one."""
    for host in ("localhost:3000,elsewhere.example", "localhost:3000@elsewhere.example", "localhost:port"):
        assert asked(host=host) == 403


def test_a_proxy_in_front_keeps_the_host_that_it_was_asked_for():
    """The page's own origin has the name of the proxy, and its scheme."""
    post = {"method": "POST", "path": "/graphql", "content_type": "application/json; charset=utf-8"}
    assert asked(**post, host="pages.example", origin="https://pages.example") == 200
    assert asked(**post, host="127.0.0.1:3000", origin="https://pages.example") == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_json_changes_anything(method):
    assert asked(method=method, host="localhost", content_type="application/json") == 200
    assert asked(method=method, host="localhost", content_type="multipart/form-data; x=application/json") == 403
    assert asked(method=method, host="localhost") == 403


def test_a_websocket_of_another_page_is_not_opened():
    assert asked("websocket", host="localhost:3000", origin="http://localhost:5000") == "websocket.close"
    assert asked("websocket", host="localhost:3000", origin="http://localhost:3000") == 200
