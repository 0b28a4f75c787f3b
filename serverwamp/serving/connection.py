"""One connection: frames in, frames out, and one session after the other in between."""

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
"""How long a server may have messages of a client after it has told that it has disconnected."""
UNITS_AT_ONCE: Final = 64
"""How many messages of a client are handled before anything else may run. Servers don't wait as
long as they have something, and batches hold many."""


class Connection:
    """A WebSocket that has been accepted, or a RawSocket after its handshake.

    Its `transport_info` is what is known of the client: ``http_cookies`` (a mapping),
    ``http_headers_raw`` (pairs of bytes), ``http_path``, ``http_query_string``, ``peer_address``
    (an IP address without port, or the path of a Unix socket), ``peer_certificate`` (PEM text
    where the server provides it, else None), ``peer_credentials`` (``pid``, ``uid`` and ``gid`` of
    the process at the other end of a RawSocket over a Unix socket, else None) and ``subprotocol``
    (for a RawSocket that of a WebSocket with the same format).
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
        self._units: list[Unit] = []  # of a batch, those to come: the last first
        self._is_open = True
        self._is_closed = False
        self._has_left = False
        self._refusal: Exception | None = None  # what the server raised instead of sending
        self._ended: anyio.Event | None = None
        self.serializer = serializer
        self.limit_log: LimitLog = LimitLog(server.counters.violations)
        self._scope = scope
        self._key = "text" if serializer.frame_type is str else "bytes"
        self._decode = serializer.decode
        self._batched = serializer.batched
        least = min(server.limits.message_bytes, server.limits.unauthenticated_message_bytes)
        self._surely_short = least / 4  # text has up to 4 bytes a character
        self.received: int = 0
        """How many messages have come, the one included that is waited for."""
        self._readable = server.limits.message_rate  # that many, until this second is over:
        self._second_ends = anyio.current_time() + 1

    @cached_property
    def transport_info(self) -> Mapping[str, Any]:
        """What is known of the client."""
        return transport_info(self._scope, self.serializer.subprotocol)

    async def serve(self) -> None:
        """Serve sessions until the connection is closed.

        Raises: what the server has raised, if it wouldn't close the connection. It does then.
        """
        async with open_starter() as starter:
            self._starter = starter
            is_limited = self.serializer.message_bytes < math.inf
            self.outbound: Outbound = (LimitedOutbound if is_limited else Outbound)(
                self._send,
                self.serializer,
                starter,
                self._server.limits,
                self.limit_log,
                lose=self._lose,
                give_up=self._give_up,
            )
            self._engine = SessionEngine(self._server, self)
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
                close_code = self._shutdown_code  # no session may follow
            if close_code is not None:
                await self.finish(close_code)
            if self._is_open:
                self._engine = SessionEngine(self._server, self)

    async def receive(self) -> tuple[Message, Unit] | None:
        """Return the next message and what it was decoded from; None when the client is gone.

        A client that doesn't read what it is sent isn't read either, and given up after a while.

        Raises: ProtocolViolation.
        """
        if self.outbound.is_sending and self.outbound.blocks_reader:
            await self.outbound.room_for_replies
        if self.received >= self._readable:
            await self._slow_down()
        self.received += 1
        if self.received % UNITS_AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()  # others have a turn, however much has come already
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
                f"{self.serializer.subprotocol} wants {kind} messages", kind="wrong frame type"
            )
        self._check_length(lambda limit: is_longer(frame, limit))
        return frame

    def check_length(self, length: float) -> None:
        """Check that a message of so many bytes may come now.

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
        """Wait until the second is over in which the client has sent as much as it may."""
        rate = self._server.limits.message_rate
        now = anyio.current_time()
        if now < self._second_ends:
            self.limit_log.record("message_rate", "%s messages have come within a second", rate)
            await anyio.sleep_until(self._second_ends)
            now = self._second_ends
        self._second_ends = now + 1
        self._readable += rate

    def _give_up(self) -> None:
        self._engine.lose(close_code=1008)

    def _lose(self, failure: Exception) -> None:
        """End the session, for the server could not send a message.

        Either the client is gone, or the server refuses the message. Servers raise `OSError` if the
        client is gone. Some raise other errors until the application has received the news.

        Spec: ASGI, "Send".
        """
        if isinstance(failure, OSError):
            self._is_open = False
            self._engine.lose()
        else:
            self._refusal = failure
            self._engine.lose(close_code=INTERNAL_ERROR)

    async def finish(self, code: int) -> None:
        """Hand over what is queued, within a bounded time, and close the connection."""
        if not self._is_open:
            return
        self._is_open = False
        timeout = self._server.limits.goodbye_timeout
        rest = anyio.CancelScope(deadline=anyio.current_time() + timeout)
        takes_rest = not self._server.is_saying_goodbye  # then the client was waited for already
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
            rest.deadline = anyio.current_time() + REST_SECONDS  # in which it may prove to be gone
            if not takes_rest:
                self._starter.start(self._take_the_rest, rest)
        finally:
            self.outbound.discard()

    async def wait_ended(self) -> None:
        """Return when the connection has come to its end."""
        if self in self._server.connections:
            self._ended = self._ended or anyio.Event()
            await self._ended.wait()

    async def _take_the_rest(self, scope: anyio.CancelScope) -> None:
        """Receive what nobody wants any more, so that the server comes to the end of it.

        hypercorn would wait for that for ever, even to send the last messages; and it may have more
        after the client's disconnection, which it then tells of once again.
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
        """End the session if it has all those attributes; tell whether it has."""
        return await self._engine.disconnect(wanted, reason, message)

    @property
    def _shutdown_code(self) -> int:
        return GOING_AWAY if self._server.is_saying_goodbye else SERVICE_RESTART

    async def shut_down(self, grace: float) -> None:
        """End the session and the connection; running calls have `grace` seconds to finish.

        If the client gets GOODBYE, the connection ends when it has answered, or has not in time.
        """
        if self._engine.has_begun:
            await self._engine.shut_down(grace)
        else:
            await self.finish(self._shutdown_code)
            self._engine.lose()


def transport_info(scope: Scope, subprotocol: str) -> Mapping[str, Any]:
    """Return what an ASGI scope says about a client."""
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
    # Over a Unix socket clients have no address; the server's own is the path of the socket.
    return str(server[0]) if server and server[1] is None else None
