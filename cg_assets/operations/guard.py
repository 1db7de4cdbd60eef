"""A guard in front of a page that knows no users: only its own pages and programs of this machine may ask it.

A browser sends requests for any web page that its user visits, also to servers on the user's own machine. It names the
page in `Origin`, and the host by which it found the server in `Host`, which a foreign name can point here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "localhost")
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Scope]]
_Send = Callable[[_Scope], Awaitable[None]]


class Guard:
    """An ASGI application behind the guard; what is refused does not reach it."""

    def __init__(self, application: Callable[[_Scope, _Receive, _Send], Awaitable[None]], hosts: Iterable[str]) -> None:
        """Guard an application that is asked for by some names of hosts besides those of this machine."""
        self._application = application
        self._hosts = {*LOCAL, *hosts}

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request or WebSocket, or refuse it: status 403, or the end of a WebSocket before it is open."""
        reason = self._fault(scope) if scope["type"] in ("http", "websocket") else ""
        if not reason:
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": f"refused: {reason}\n".encode()})

    def _fault(self, scope: _Scope) -> str:
        """Why a request is refused; nothing where it is not."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        host = ",".join(headers.get("host", []))  # two are refused: what they name is read differently
        name, _, port = host.partition(":")
        if name not in self._hosts or (port and not port.isdigit()):
            return f"Host is {host!r}; add the name to CG_ASSETS_HOSTS if it is one of this page"
        for origin in headers.get("origin", []):
            if urlsplit(origin).netloc != host:
                return f"Origin is {origin!r}, another page"
        if scope["type"] == "http":
            return _fault_of_method(scope, headers)
        return ""


def _fault_of_method(scope: _Scope, headers: dict[str, list[str]]) -> str:
    """What a page can make a browser send without `Origin`, or without being asked whether it may."""
    if scope["method"] in ("GET", "HEAD"):
        foreign = headers.get("sec-fetch-site", ["none"])[0] in ("cross-site", "same-site")
        if "graphql" in scope["path"] and (foreign or not _accepts_html(headers)):
            return "GraphQL is answered to POST only"
        if foreign and headers.get("sec-fetch-mode") != ["navigate"]:
            return "asked for by another page"
        return ""
    sent = ",".join(headers.get("content-type", [])).partition(";")[0].strip().lower()
    return "" if sent == "application/json" else f"Content-Type is {sent!r}; send application/json"


def _accepts_html(headers: dict[str, list[str]]) -> bool:
    """Whether the page for trying queries is asked for, not an answer."""
    return any("text/html" in value for value in headers.get("accept", []))
