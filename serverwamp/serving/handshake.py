"""Whether a WebSocket is accepted: its origin, and a subprotocol that both sides speak.

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
"""They count as the same: behind a proxy that ends TLS the scheme is often lost."""
ORIGIN: Final = re.compile(r"([a-z][a-z\d+.-]*)://(\[[\da-f:.]+\]|[^\s/?#@:\[\]]+)(:\d{1,5})?/?")
OF_NO_HOST: Final = ("*", "null", "file://")
"""What may be allowed besides: every origin, and what browsers say for pages of no host."""


class HandshakeRefused(Exception):
    """The WebSocket is not accepted; the text is for the log, `status` for the client."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.status = status


async def refuse(
    scope: MutableMapping[str, Any],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    status: int,
) -> None:
    """Answer a handshake with `status`; a server that can't do that makes it 403.

    Spec: ASGI, "WebSocket Denial Response".
    """
    # Uvicorn takes what isn't a plain 403 for a mistake, and logs an error after it.
    if status != 403 and "websocket.http.response" in (scope.get("extensions") or {}):
        headers = [(b"content-length", b"0")]
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b""})
    else:
        await send({"type": "websocket.close", "code": 1002})


def checked_origins(allowed: Collection[str]) -> frozenset[str]:
    """Return the origins that may connect in the spelling of browsers.

    Raises: ConfigurationError for what no browser would ever send, and for a single text.
    """
    if isinstance(allowed, (str, bytes)):
        raise ConfigurationError(f"allowed_origins has to be a list of origins: [{allowed!r}]?")
    for origin in map(str.lower, allowed):
        if origin not in OF_NO_HOST and ORIGIN.fullmatch(origin) is None:
            raise ConfigurationError(
                f"{origin!r} in allowed_origins is not an origin, as https://example.com:8443 is"
            )
    return frozenset(_as_browsers_spell(origin.lower()) for origin in allowed)


def _as_browsers_spell(origin: str) -> str:
    """Return an origin without its default port, and with the scheme of a page."""
    scheme, separator, rest = origin.partition("://")
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    default_port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return scheme + separator + rest.removesuffix("/").removesuffix(default_port)


def check_origin(scope: MutableMapping[str, Any], allowed: frozenset[str]) -> None:
    """Check that the page that opens the WebSocket is of this host, or of an allowed origin.

    Browsers send the cookies of a host with every WebSocket to it, whichever page opens it, and
    name that page's origin only in ``Origin``. Other clients send no origin, or the URL of the
    WebSocket itself, whose scheme ``ws`` or ``wss`` counts as ``http`` or ``https``. `allowed` is
    what `checked_origins` returns.

    Raises: HandshakeRefused.
    """
    origins = _headers(scope, b"origin")
    if not origins or "*" in allowed:
        return
    hosts = _headers(scope, b"host")
    if len(origins) > 1 or len(hosts) > 1:
        raise HandshakeRefused(f"it has several origins, {origins}, or several hosts, {hosts}")
    origin, host = _as_browsers_spell(origins[0]), "".join(hosts)
    if origin in allowed:
        return
    theirs, ours = _host_and_port(origin), _host_and_port(f"//{host}")
    if theirs != ours or theirs[0] is None or not origin.startswith(("http://", "https://")):
        raise HandshakeRefused(
            f"the origin {origin!r} is not of this host, {host!r}: if its pages may connect,"
            f" name it in Application(allowed_origins=[...])"
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
    """Return the first subprotocol that the client offers and that is spoken here.

    Raises: HandshakeRefused.
    """
    offered = scope.get("subprotocols", ())
    for name in offered:
        if name in SUBPROTOCOLS:
            return str(name)
    raise HandshakeRefused(
        f"of the subprotocols {list(offered)} it offers none of {', '.join(SUBPROTOCOLS)}",
        status=400,
    )
