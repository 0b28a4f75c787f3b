"""The RawSocket connections of an application, after they are accepted."""

from __future__ import annotations

import logging
import math
import ssl

import anyio
from anyio.abc import ByteStream

from serverwamp.adapters.rawsocket import (
    GONE,
    TOO_MANY_CONNECTIONS,
    RawSocket,
    open_socket,
    refuse,
)
from serverwamp.protocol.serializers import SUBPROTOCOLS, limited
from serverwamp.serving.connection import Connection
from serverwamp.serving.handshake import HandshakeRefused
from serverwamp.serving.server import Server

logger: logging.Logger = logging.getLogger(__name__)


class RawSocketServer:
    """Serves RawSocket connections for an application."""

    def __init__(self, server: Server, context: ssl.SSLContext | None) -> None:
        self._server = server
        self._context = context

    async def serve(self, connected: ByteStream) -> None:
        """Serve sessions over one connection until it is closed. Raises nothing."""
        async with connected:
            try:
                self._server.check_admission()
                with self._server.counted():
                    opened = await self._opened(connected)
                    if opened is not None:
                        await self._serve(opened)
            except HandshakeRefused as reason:
                logger.warning("a RawSocket connection was refused: %s", reason)
                if self._context is None:  # a refusal isn't worth a TLS handshake
                    await refuse(connected, TOO_MANY_CONNECTIONS)
            except Exception:
                logger.exception("a RawSocket connection failed")

    async def _opened(self, connected: ByteStream) -> RawSocket | None:
        limits = self._server.limits
        timeout = limits.hello_timeout
        try:
            with anyio.fail_after(None if timeout == math.inf else timeout):
                return await open_socket(
                    connected, self._context, SUBPROTOCOLS, limits.message_bytes
                )
        except TimeoutError:
            self._server.counters.violations["hello_timeout"] += 1
            logger.warning("Limits.hello_timeout: no handshake within %s seconds", timeout)
        except GONE as error:
            logger.debug("a RawSocket handshake failed: %r", error)
        return None

    async def _serve(self, opened: RawSocket) -> None:
        shared = self._server.serializer_for(opened.subprotocol)
        serializer = limited(shared, opened.longest_sent)
        connection = Connection(self._server, opened.scope, opened.receive, opened.send, serializer)
        opened.check_length = connection.check_length
        await connection.serve()
