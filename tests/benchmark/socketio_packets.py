"""What the load says to a Socket.IO server in place of WAMP messages: nothing but WebSocket frames.

Calls are events with an acknowledgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from tests.benchmark.applications import CALL, GOODBYE, HELLO, NEWS, SUBSCRIBE

SOCKET_IO = "socket.io"
"""Stands where the subprotocol is named."""
PATH = "/socket.io/?EIO=4&transport=websocket"


def packet(message: Sequence[Any]) -> bytes:
    """Return the Engine.IO packet that says the same as a WAMP message."""
    match message:
        case [code, *_] if code == HELLO:
            return b"40"
        case [code, *_] if code == GOODBYE:
            return b"41"
        case [code, request, *_] if code == SUBSCRIBE:
            return b"42%d%b" % (request, orjson.dumps(["subscribe", NEWS]))
        case [code, request, _, procedure, args] if code == CALL:
            return b"42%d%b" % (request, orjson.dumps([procedure, *args]))
    raise ValueError(f"{message} isn't needed here")
