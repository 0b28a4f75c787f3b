"""The WebSocket handshake: checks the origin and chooses the subprotocol.

Spec: Basic Profile, "WebSocket Transport"; RFC 6454; RFC 6455, section 10.2.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from serverwamp.errors import ConfigurationError
from serverwamp.protocol.serializers import SUBPROTOCOLS

DEFAULT_PORTS: Final = (None, 80, 443)
"""Ports that count as equal, because the scheme is often lost behind a proxy that ends TLS."""
ORIGIN: Final = re.compile(r"([a-z][a-z\d+.-]*)://(\[[\da-f:.]+\]|[^\s/?#@:\[\]]+)(:\d{1,5})?/?")
OF_NO_HOST: Final = ("*", "null", "file://")
"""Allowed values without a host: every origin, and the origins of pages that have no host."""


class HandshakeRefused(Exception):
    """The handshake is refused: the log gets the text, the client gets the HTTP `status`."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.status = status


async def refuse(
    scope: MutableMapping[str, Any],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    status: int,
) -> None:
    """Answer a handshake with HTTP `status`, or with 403 if the ASGI server supports nothing else.

    Spec: ASGI, "WebSocket Denial Response".
    """
    # Uvicorn logs an error after a denial response. A plain close is a 403 without that error.
    if status != 403 and "websocket.http.response" in (scope.get("extensions") or {}):
        headers = [(b"content-length", b"0")]
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b""})
    else:
        await send({"type": "websocket.close", "code": 1002})


def checked_origins(allowed: Collection[str]) -> frozenset[str]:
    """Return the allowed origins, spelled as browsers send them.

    Raises: ConfigurationError for a value that is not an origin, and for a single string.
    """
    if isinstance(allowed, (str, bytes)):
        raise ConfigurationError(
            f"allowed_origins has to be a list of origins, such as [{allowed!r}]"
        )
    for origin in map(str.lower, allowed):
        if origin not in OF_NO_HOST and ORIGIN.fullmatch(origin) is None:
            raise ConfigurationError(
                f"{origin!r} in allowed_origins is not an origin such as https://example.com:8443"
            )
    return frozenset(_as_browsers_spell(origin.lower()) for origin in allowed)


def _as_browsers_spell(origin: str) -> str:
    """Return an origin with scheme http or https, and without the default port."""
    scheme, separator, rest = origin.partition("://")
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    default_port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return scheme + separator + rest.removesuffix("/").removesuffix(default_port)


def check_origin(scope: MutableMapping[str, Any], allowed: frozenset[str]) -> None:
    """Check that the page that opens the WebSocket belongs to this host or an allowed origin.

    A browser sends a host's cookies with every WebSocket to that host, no matter which page opens
    it. Only the ``Origin`` header tells the page. Clients that aren't browsers send no origin, or
    the URL of the WebSocket itself; its scheme ``ws`` or ``wss`` counts as ``http`` or ``https``.
    `allowed` comes from `checked_origins`.

    Raises: HandshakeRefused.
    """
    origins = _headers(scope, b"origin")
    if not origins or "*" in allowed:
        return
    hosts = _headers(scope, b"host")
    if len(origins) > 1 or len(hosts) > 1:
        raise HandshakeRefused(f"more than one Origin ({origins}) or Host ({hosts}) header")
    origin, host = _as_browsers_spell(origins[0]), "".join(hosts)
    if origin in allowed:
        return
    theirs, ours = _host_and_port(origin), _host_and_port(f"//{host}")
    if theirs != ours or theirs[0] is None or not origin.startswith(("http://", "https://")):
        raise HandshakeRefused(
            f"the origin {origin!r} is not this host, {host!r}. To allow it, name it in"
            f" Application(allowed_origins=[...])"
        )


def _headers(scope: MutableMapping[str, Any], wanted: bytes) -> list[str]:
    return [
        value.decode("latin-1").lower()
        for name, value in scope.get("headers", ())
        if name.lower() == wanted
    ]


def _host_and_port(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, None if parts.port in DEFAULT_PORTS else parts.port
    except ValueError:
        return None, -1


def chosen_subprotocol(scope: MutableMapping[str, Any]) -> str:
    """Return the first of the client's subprotocols that the server supports.

    Raises: HandshakeRefused when it supports none of them.
    """
    offered = scope.get("subprotocols", ())
    for name in offered:
        if name in SUBPROTOCOLS:
            return str(name)
    raise HandshakeRefused(
        f"the client offers the subprotocols {list(offered)}; the server supports only"
        f" {', '.join(SUBPROTOCOLS)}",
        status=400,
    )
