"""One connection: it receives and sends frames, and runs one session after the other."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cached_property
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel
from starlette.requests import cookie_parser

from serverwamp.concurrency.tasks import open_starter
from serverwamp.errors import LimitExceeded, ProtocolViolation
from serverwamp.limits import LimitLog
from serverwamp.outbound.sender import LimitedOutbound, Outbound
from serverwamp.peer.conversation import GOING_AWAY, INTERNAL_ERROR, SERVICE_RESTART, ServerContext
from serverwamp.peer.engine import SessionEngine
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.framings import Frame
from serverwamp.protocol.messages import Message
from serverwamp.protocol.serializers import Serializer, is_longer

logger: logging.Logger = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


REST_SECONDS: Final = 0.5
"""How long an ASGI server may deliver messages after it has reported the disconnection."""
UNITS_AT_ONCE: Final = 64
"""How many messages of one client are handled before other tasks get a turn. `receive` doesn't
wait while the ASGI server has messages, and one batch holds many messages."""


class Connection:
    """A WebSocket after it was accepted, or a RawSocket after its handshake.

    Its `transport_info` describes the client: ``http_cookies`` (a mapping), ``http_headers_raw``
    (pairs of bytes), ``http_path``, ``http_query_string``, ``peer_address`` (an IP address without
    port, or the path of a Unix socket), ``peer_certificate`` (PEM text if the server provides it,
    else None), ``peer_credentials`` (``pid``, ``uid`` and ``gid`` of the client's process for a
    RawSocket over a Unix socket, else None) and ``subprotocol`` (for a RawSocket, the WebSocket
    subprotocol with the same serialization format).
    """

    def __init__(
        self,
        server: ServerContext,
        scope: Scope,
        receive: Receive,
        send: Send,
        serializer: Serializer,
    ) -> None:
        self._server = server
        self._receive = receive
        self._send = send
        self._units: list[Unit] = []  # the rest of a batch, in reverse order
        self._is_open = True
        self._is_closed = False
        self._has_left = False
        self._refusal: Exception | None = None  # what the server raised instead of sending
        self._ended: anyio.Event | None = None
        self.serializer: Serializer = serializer
        self.limit_log: LimitLog = LimitLog(server.counters.violations)
        self._scope = scope
        self._key = "text" if serializer.frame_type is str else "bytes"
        self._decode = serializer.decode
        self._batched = serializer.batched
        shortest_limit = min(
            server.limits.message_bytes, server.limits.unauthenticated_message_bytes
        )
        self._surely_short = shortest_limit / 4  # a character takes up to 4 bytes
        self.received: int = 0
        """How many messages have been received, including the one that is awaited now."""
        self._readable = server.limits.message_rate  # value of `received` at which reading pauses
        self._second_ends = anyio.current_time() + 1
        self._starter = open_starter()  # starts tasks while `serve` runs
        is_limited = serializer.message_bytes < math.inf
        self.outbound: Outbound = (LimitedOutbound if is_limited else Outbound)(
            send,
            serializer,
            self._starter,
            server.limits,
            self.limit_log,
            lose=self._lose,
            give_up=self._give_up,
        )
        self._engine = SessionEngine(server, self)

    @cached_property
    def transport_info(self) -> Mapping[str, Any]:
        """The description of the client."""
        return transport_info(self._scope, self.serializer.subprotocol)

    async def serve(self) -> None:
        """Serve sessions until the connection is closed.

        Raises: the exception that the ASGI server raised for a message, if closing the connection
        failed as well. The server then closes the connection.
        """
        async with self._starter:
            self._server.connections.add(self)
            try:
                await self._serve_sessions()
            except Exception:
                logger.exception("a connection failed")
                await self.finish(1011)
            finally:
                self._server.connections.discard(self)
                self.outbound.discard()
                if self._ended is not None:
                    self._ended.set()
        if self._refusal is not None and not self._has_left:
            if not self._is_closed:
                raise self._refusal
            logger.error("the server refused a message: %r", self._refusal)

    async def _serve_sessions(self) -> None:
        while self._is_open:
            close_code = await self._engine.run()
            if self._server.is_draining and close_code is None:
                close_code = self._shutdown_code  # no other session may begin
            if close_code is not None:
                await self.finish(close_code)
            if self._is_open:
                self._engine = SessionEngine(self._server, self)

    async def receive(self) -> tuple[Message, Unit] | None:
        """Return the next message and its encoded form; None when the client is gone.

        While a client doesn't read its messages, no message is read from it. It is disconnected
        after `Limits.send_timeout`.

        Raises: ProtocolViolation.
        """
        if self.outbound.is_sending and self.outbound.backlog.blocks_reader:
            await self.outbound.room_for_replies
        if self.received >= self._readable:
            await self._slow_down()
        self.received += 1
        if self.received % UNITS_AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()  # let other tasks run, however many messages wait
        if self._units:
            unit = self._units.pop()
        else:
            event = await self._receive()
            if event["type"] == "websocket.disconnect" or not self._is_open:
                self._has_left = event["type"] == "websocket.disconnect"
                self._is_open = False
                self.outbound.discard()
                return None
            frame: Frame | None = event.get(self._key)
            if frame is None or len(frame) > self._surely_short:
                frame = self._checked(frame)
            unit = frame
            if self._batched:
                unit, *further = self.serializer.split(frame)
                self._units = further[::-1]
        return self._decode(unit), unit

    def _checked(self, frame: Frame | None) -> Frame:
        if frame is None:
            kind = "text" if self._key == "text" else "binary"
            raise ProtocolViolation(
                f"{self.serializer.subprotocol} needs {kind} messages", kind="wrong frame type"
            )
        self._check_length(lambda limit: is_longer(frame, limit))
        return frame

    def check_length(self, length: float) -> None:
        """Check that the client may send a message of `length` bytes now.

        Raises: LimitExceeded.
        """
        self._check_length(lambda limit: length > limit)

    def _check_length(self, exceeds: Callable[[float], bool]) -> None:
        limits, exceeded = self._server.limits, None
        if exceeds(limits.message_bytes):
            exceeded = "message_bytes"
        elif not self._engine.is_welcomed and exceeds(limits.unauthenticated_message_bytes):
            exceeded = "unauthenticated_message_bytes"
        if exceeded is not None:
            raise LimitExceeded(exceeded, "the message is too long", close_code=1009)

    async def _slow_down(self) -> None:
        """Wait until a second ends in which the client has used up `Limits.message_rate`."""
        rate = self._server.limits.message_rate
        now = anyio.current_time()
        if now < self._second_ends:
            self.limit_log.record("message_rate", "%s messages received within a second", rate)
            await anyio.sleep_until(self._second_ends)
            now = self._second_ends
        self._second_ends = now + 1
        self._readable += rate

    def _give_up(self) -> None:
        self._engine.lose(close_code=1008)

    def _lose(self, failure: Exception) -> None:
        """End the session, because the ASGI server raised `failure` instead of sending a message.

        `OSError` means that the client is gone. Any other exception means that the server refuses
        the message. Some servers also raise other exceptions for a client that is gone, until the
        application has received ``websocket.disconnect``.

        Spec: ASGI, "Send".
        """
        if isinstance(failure, OSError):
            self._is_open = False
            self._engine.lose()
        else:
            self._refusal = failure
            self._engine.lose(close_code=INTERNAL_ERROR)

    async def finish(self, code: int) -> None:
        """Send the queued messages, for `Limits.goodbye_timeout` at most; close the connection."""
        if not self._is_open:
            return
        self._is_open = False
        timeout = self._server.limits.goodbye_timeout
        rest = anyio.CancelScope(deadline=anyio.current_time() + timeout)
        # If shutdown said GOODBYE, the server has already waited for the client's GOODBYE.
        takes_rest = not self._server.is_saying_goodbye
        if takes_rest:
            self._starter.start(self._take_the_rest, rest)
        try:
            with anyio.move_on_after(timeout, shield=True) as scope:
                await self.outbound.flush()
                self.outbound.discard()
                await self._send({"type": "websocket.close", "code": code, "reason": ""})
                self._is_closed = True
            if scope.cancelled_caught:
                text = "the last messages could not be sent within %s seconds"
                self.limit_log.record("goodbye_timeout", text, timeout)
        except OSError as error:
            logger.debug("closing failed, the client is gone: %r", error)
        except Exception as error:
            self._refusal = error
            # Time to find out whether the server failed only because the client is gone.
            rest.deadline = anyio.current_time() + REST_SECONDS
            if not takes_rest:
                self._starter.start(self._take_the_rest, rest)
        finally:
            self.outbound.discard()

    async def wait_ended(self) -> None:
        """Return when the connection has ended."""
        if self in self._server.connections:
            self._ended = self._ended or anyio.Event()
            await self._ended.wait()

    async def _take_the_rest(self, scope: anyio.CancelScope) -> None:
        """Receive and drop the remaining messages, so that the ASGI server can finish.

        hypercorn doesn't send the last messages until its own messages have been received, and has
        no timeout for that. It may deliver messages after ``websocket.disconnect``, and then
        reports the disconnection again.
        """
        with scope:
            try:
                for _ in range(2):
                    while (await self._receive())["type"] != "websocket.disconnect":
                        pass
                    self._has_left = True
                    self.outbound.discard()
                    scope.deadline = min(scope.deadline, anyio.current_time() + REST_SECONDS)
            except Exception as error:
                logger.debug("receiving failed, the connection is closed: %r", error)

    async def disconnect(self, wanted: Mapping[str, Any], reason: str, message: str | None) -> bool:
        """End the session if it has all attributes in `wanted`; tell whether it has."""
        return await self._engine.disconnect(wanted, reason, message)

    @property
    def _shutdown_code(self) -> int:
        return GOING_AWAY if self._server.is_saying_goodbye else SERVICE_RESTART

    async def shut_down(self, grace: float) -> None:
        """End the session and the connection; running calls have `grace` seconds to finish.

        If the client gets GOODBYE, the connection is closed when the client has answered, or after
        `Limits.goodbye_timeout`.
        """
        if self._engine.has_begun:
            await self._engine.shut_down(grace)
        else:
            await self.finish(self._shutdown_code)
            self._engine.lose()


def transport_info(scope: Scope, subprotocol: str) -> Mapping[str, Any]:
    """Return the description of a client that `Session.connection` offers."""
    headers = [(bytes(name), bytes(value)) for name, value in scope.get("headers", ())]
    cookies: dict[str, str] = {}
    for name, value in headers:
        if name.lower() == b"cookie":
            cookies.update(cookie_parser(value.decode("latin-1")))
    extensions = scope.get("extensions") or {}
    tls = extensions.get("tls") or {}
    certificates = tls.get("client_cert_chain") or (None,)
    return {
        "http_cookies": cookies,
        "http_headers_raw": headers,
        "http_path": scope["path"],
        "http_query_string": scope.get("query_string", b"").decode("latin-1"),
        "peer_address": _peer_address(scope),
        "peer_certificate": next(iter(certificates)),
        "peer_credentials": extensions.get("peer_credentials"),
        "subprotocol": subprotocol,
    }


def _peer_address(scope: Scope) -> str | None:
    client, server = scope.get("client"), scope.get("server")
    if client and client[0]:
        return str(client[0])
    # Clients over a Unix socket have no address. The server's address is the path of the socket.
    return str(server[0]) if server and server[1] is None else None
