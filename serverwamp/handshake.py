"""Whether a WebSocket is accepted: its origin, and a subprotocol that both sides speak.

Spec: Basic Profile, "WebSocket Transport"; RFC 6454; RFC 6455, section 10.2.
"""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from serverwamp.protocol.serializers import SUBPROTOCOLS

DEFAULT_PORTS: Final = (None, 80, 443)
"""They count as the same: behind a proxy that ends TLS the scheme is often lost."""


class HandshakeRefused(Exception):
    """The WebSocket is not accepted; the text is for the log."""


def check_origin(scope: MutableMapping[str, Any], allowed: Collection[str]) -> None:
    """Check that the page that opens the WebSocket is of this host, or of an allowed origin.

    Browsers send the cookies of a host with every WebSocket to it, from whatever page it is
    opened, and say only in ``Origin`` which page that was. Other clients send none.

    Raises: HandshakeRefused.
    """
    headers = dict(reversed(scope.get("headers", ())))  # the first of a name counts
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    if not origin or "*" in allowed or origin in {item.lower().rstrip("/") for item in allowed}:
        return
    host = headers.get(b"host", b"").decode("latin-1").lower()
    theirs, ours = _host_and_port(origin), _host_and_port(f"//{host}")
    if theirs != ours or theirs[0] is None:
        raise HandshakeRefused(
            f"the origin {origin!r} is not of this host, {host!r}: if its pages may connect,"
            f" name it in Application(allowed_origins=[...])"
        )


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
        f"of the subprotocols {list(offered)} it offers none of {', '.join(SUBPROTOCOLS)}"
    )
