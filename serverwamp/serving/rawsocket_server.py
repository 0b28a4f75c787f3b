"""The RawSocket connections of an application, from where they are accepted to their end."""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager

import anyio
from anyio.abc import ByteStream

from serverwamp.adapters.rawsocket import (
    GONE,
    TOO_MANY_CONNECTIONS,
    RawSocket,
    open_socket,
    refuse,
)
from serverwamp.peer.conversation import Host
from serverwamp.protocol.serializers import SUBPROTOCOLS, limited, serializer_for
from serverwamp.protocol.shapes import Shape
from serverwamp.serving.connection import Connection
from serverwamp.serving.handshake import HandshakeRefused

logger: logging.Logger = logging.getLogger(__name__)


class RawSocketServer:
    """Serves connections for an application, one at a call.

    `admitted` is entered for as long as each of them lasts; it raises HandshakeRefused when there
    is no room for another one.
    """

    def __init__(
        self,
        host: Host,
        shape: Shape,
        context: ssl.SSLContext | None,
        admitted: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._host = host
        self._shape = shape
        self._context = context
        self._admitted = admitted

    async def serve(self, connected: ByteStream) -> None:
        """Serve sessions over a connection until it is closed; it raises nothing."""
        async with connected:
            try:
                with self._admitted():
                    opened = await self._opened(connected)
                    if opened is not None:
                        await self._serve(opened)
            except HandshakeRefused as reason:
                logger.warning("a RawSocket connection was refused: %s", reason)
                if self._context is None:  # else it isn't worth the agreement on a key
                    await refuse(connected, TOO_MANY_CONNECTIONS)
            except Exception:
                logger.exception("a RawSocket connection failed")

    async def _opened(self, connected: ByteStream) -> RawSocket | None:
        limits = self._host.limits
        timeout = limits.hello_timeout
        try:
            with anyio.fail_after(None if timeout == math.inf else timeout):
                return await open_socket(
                    connected, self._context, SUBPROTOCOLS, limits.message_bytes
                )
        except TimeoutError:
            self._host.counters.violations["hello_timeout"] += 1
            logger.warning("Limits.hello_timeout: no handshake within %s seconds", timeout)
        except GONE as error:
            logger.debug("a RawSocket handshake failed: %r", error)
        return None

    async def _serve(self, opened: RawSocket) -> None:
        shared = serializer_for(opened.subprotocol, self._shape)
        serializer = limited(shared, opened.longest_sent)
        connection = Connection(self._host, opened.scope, opened.receive, opened.send, serializer)
        opened.check_length = connection.check_length
        await connection.serve()
