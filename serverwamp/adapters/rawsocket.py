"""RawSocket connections as ASGI: scope, receive and send, like those of a WebSocket.

Spec: Advanced Profile, "RawSocket Transport".
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import stat
import struct
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NoReturn, Protocol, TypeAlias, cast

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute, TaskGroup
from anyio.streams.tls import TLSAttribute, TLSStream

from serverwamp.errors import ProtocolViolation

logger: logging.Logger = logging.getLogger(__name__)

Event: TypeAlias = MutableMapping[str, Any]
Serve: TypeAlias = Callable[[ByteStream], Coroutine[Any, Any, None]]

MAGIC: Final = 0x7F
FORMATS: Final[Mapping[int, str]] = {1: "wamp.2.json", 2: "wamp.2.msgpack", 3: "wamp.2.cbor"}
"""The subprotocols that speak what the numbers of the handshake mean."""

UNSUPPORTED_FORMAT: Final = 1
UNACCEPTABLE_LENGTH: Final = 2
RESERVED_BITS: Final = 3
TOO_MANY_CONNECTIONS: Final = 4

REFUSALS: Final[Mapping[int, str]] = {
    UNSUPPORTED_FORMAT: "its serializer isn't spoken here",
    UNACCEPTABLE_LENGTH: "it could receive no more than 512 bytes at once",
    RESERVED_BITS: "reserved bits are set",
}

LEAST_EXPONENT: Final = 10
"""Messages of 512 octets, which the handshake could ask for, are too short for a WELCOME."""
MAX_LENGTH: Final = 2**24
LONGEST_SENT: Final = MAX_LENGTH - 1
"""A length of 2^24, which takes a bit of its own, isn't understood by every client."""

MESSAGE, PING, PONG = range(3)
UCRED: Final = struct.Struct("iII")
CHUNK: Final = 64 * 1024
LINGER_SECONDS: Final = 1.0
"""How long a client that is refused may take to hear of it."""
BACKLOG: Final = 4096
"""How many connections may wait to be accepted; the system has a limit of its own."""
REST_SECONDS: Final = 0.1
"""How long no connection is accepted after one that couldn't be."""


GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
"""What is raised when the other side has left, or breaks TLS."""


class Listening(Protocol):
    """What listens."""

    async def accept(self) -> ByteStream:
        """Return the next connection."""
        ...


# ---- listening


@asynccontextmanager
async def listening(
    host: str, port: int | None, path: str | os.PathLike[str] | None
) -> AsyncIterator[tuple[Sequence[Listening], int | str]]:
    """Listen at a TCP port or at a Unix socket, and give what listens, and that port or path."""
    if path is not None:
        with UnixListener(os.fspath(path)) as unix:
            yield [unix], os.fspath(path)
    else:
        tcp = await anyio.create_tcp_listener(local_host=host, local_port=port or 0)
        async with tcp:
            listeners = cast("Sequence[Listening]", tcp.listeners)
            yield listeners, tcp.extra(SocketAttribute.local_port)


async def accept_all(listeners: Sequence[Listening], serve: Serve) -> NoReturn:
    """Serve each connection in a task of its own, until this is cancelled."""
    async with anyio.create_task_group() as tasks:
        for listener in listeners[1:]:
            tasks.start_soon(_accept, listener, serve, tasks)
        await _accept(listeners[0], serve, tasks)
    raise AssertionError("nobody accepts connections any more")


async def _accept(listener: Listening, serve: Serve, tasks: TaskGroup) -> NoReturn:
    while True:
        try:
            stream = await listener.accept()
        except (OSError, anyio.BrokenResourceError) as error:
            # As when the process has no file descriptor left: no reason to turn away all others.
            logger.error("no connection can be accepted: %s", error.__cause__ or error)
            await anyio.sleep(REST_SECONDS)
        else:
            tasks.start_soon(serve, stream)


class UnixListener:
    """Listens at a Unix socket. (On asyncio anyio's own complains when it is cancelled.)"""

    def __init__(self, path: str) -> None:
        self._path = path
        with suppress(OSError):
            if stat.S_ISSOCK(os.stat(path).st_mode):  # left by a process that was killed
                os.unlink(path)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)

    def __enter__(self) -> UnixListener:
        try:
            self._socket.bind(self._path)
            self._socket.listen(BACKLOG)
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()
        with suppress(OSError):
            os.unlink(self._path)

    async def accept(self) -> ByteStream:
        """Return the next connection."""
        while True:
            await anyio.wait_readable(self._socket)
            with suppress(BlockingIOError):
                return UnixStream(self._socket.accept()[0])


class UnixStream(ByteStream):
    """A connection over a Unix socket."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {
            SocketAttribute.family: lambda: self._socket.family,
            SocketAttribute.local_address: self._socket.getsockname,
            SocketAttribute.raw_socket: lambda: self._socket,
        }

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        left = memoryview(item)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    async def send_eof(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
        await anyio.lowlevel.checkpoint()


# ---- the handshake


async def open_socket(
    connected: ByteStream,
    context: ssl.SSLContext | None,
    subprotocols: Collection[str],
    message_bytes: float,
) -> RawSocket | None:
    """Agree with the client on a format, and on how long messages may be.

    Returns None when they don't. Raises what the network raises.
    """
    stream: ByteStream = connected
    if context is not None:
        stream = await TLSStream.wrap(
            connected, server_side=True, ssl_context=context, standard_compatible=False
        )
    opening = b""
    while len(opening) < 4:
        opening += await stream.receive(4 - len(opening))
        if opening[0] != MAGIC:
            logger.warning("what begins with %r isn't RawSocket", opening)
            return None
    length, number = divmod(opening[1], 16)
    code = 0
    if opening[2:] != b"\0\0":
        code = RESERVED_BITS
    elif FORMATS.get(number) not in subprotocols:
        code = UNSUPPORTED_FORMAT
    elif 9 + length < LEAST_EXPONENT:
        code = UNACCEPTABLE_LENGTH
    if code:
        logger.warning("a RawSocket handshake was refused: %s", REFUSALS[code])
        await refuse(stream, code)
        return None
    own = _exponent(message_bytes)
    await stream.send(bytes((MAGIC, own - 9 << 4 | number, 0, 0)))
    return RawSocket(
        stream,
        FORMATS[number],
        _scope(connected, stream),
        longest_received=2**own,
        longest_sent=min(2 ** (9 + length), LONGEST_SENT),
    )


def _exponent(message_bytes: float) -> int:
    """Return the power of two, not above that length, which can be announced."""
    return max(9, int(min(message_bytes, MAX_LENGTH)).bit_length() - 1)


async def refuse(stream: ByteStream, code: int) -> None:
    """Tell the client why it isn't served, and see to it that this arrives."""
    with anyio.move_on_after(LINGER_SECONDS), suppress(*GONE):
        await stream.send(bytes((MAGIC, code << 4, 0, 0)))
        await _send_eof(stream)
        while True:
            await stream.receive()


async def _send_eof(stream: ByteStream) -> None:
    # The end of TLS would be awaited, by somebody who reads already.
    await (stream.transport_stream if isinstance(stream, TLSStream) else stream).send_eof()


def _scope(connected: ByteStream, stream: ByteStream) -> Event:
    peer = connected.extra(SocketAttribute.remote_address, None)
    is_unix = connected.extra(SocketAttribute.family) not in (socket.AF_INET, socket.AF_INET6)
    certificate = stream.extra(TLSAttribute.peer_certificate_binary, None)
    chain = [ssl.DER_cert_to_PEM_cert(certificate)] if certificate else []
    own = connected.extra(SocketAttribute.local_address, None)
    return {
        "type": "rawsocket",
        "path": "",
        "query_string": b"",
        "headers": [],
        "client": None if is_unix or peer is None else (peer[0], peer[1]),
        "server": (own, None) if is_unix else own,
        "extensions": {
            "tls": {"client_cert_chain": chain},
            "peer_credentials": _credentials(connected) if is_unix else None,
        },
    }


def _credentials(connected: ByteStream) -> Mapping[str, int] | None:
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # elsewhere than on Linux
        return None
    raw = connected.extra(SocketAttribute.raw_socket)
    data = raw.getsockopt(socket.SOL_SOCKET, option, UCRED.size)
    return dict(zip(("pid", "uid", "gid"), UCRED.unpack(data), strict=True))


# ---- the connection


class RawSocket:
    """A connection after its handshake; its `subprotocol` is what a WebSocket would speak."""

    def __init__(
        self,
        stream: ByteStream,
        subprotocol: str,
        scope: Event,
        *,
        longest_received: int,
        longest_sent: int,
    ) -> None:
        self._stream = stream
        self.subprotocol = subprotocol
        self.scope = scope
        self.longest_sent = longest_sent
        """How many octets a message to the client may have."""
        self._longest_received = longest_received
        self._is_text = subprotocol == "wamp.2.json"
        self._received = bytearray()
        self._is_readable = True
        # What answers PING is another task than what sends.
        self._sending = anyio.Lock(fast_acquire=True)
        self.check_length: Callable[[float], None] = lambda length: None
        """Is given the length of a message before it is received, and raises what is wrong."""

    async def receive(self) -> Event:
        """Return the next message, or the disconnection.

        Raises: ProtocolViolation; then no message comes any more.
        """
        try:
            return await self._receive_message()
        except GONE:
            return {"type": "websocket.disconnect", "code": 1006}
        except ProtocolViolation:
            self._is_readable = False
            raise

    async def _receive_message(self) -> Event:
        while not self._is_readable:  # else the client might not hear of it
            await self._stream.receive()
        while True:
            kind, length = await self._receive_prefix()
            payload = await self._take(4, length)
            if kind == PING:
                await self._send(PONG, payload)
            elif kind == MESSAGE:
                return self._event(payload)

    async def _receive_prefix(self) -> tuple[int, int]:
        while len(self._received) < 4:
            self._received += await self._stream.receive(CHUNK)
        kind, length = self._received[0], int.from_bytes(self._received[1:4])
        if kind & 8 and not length:
            kind, length = kind & ~8, MAX_LENGTH
        if kind not in (MESSAGE, PING, PONG):
            raise ProtocolViolation("a prefix with reserved bits")
        self.check_length(length if length <= self._longest_received else float("inf"))
        if kind == PING and length > self.longest_sent:
            raise ProtocolViolation("a PING that is longer than its answer may be")
        return kind, length

    async def _take(self, start: int, length: int) -> bytes:
        """Receive as much, and take it out; what is before it is dropped."""
        end = start + length
        while len(self._received) < end:
            self._received += await self._stream.receive(CHUNK)
        payload = bytes(memoryview(self._received)[start:end])
        del self._received[:end]
        return payload

    def _event(self, payload: bytes) -> Event:
        if not self._is_text:
            return {"type": "websocket.receive", "bytes": payload}
        try:
            return {"type": "websocket.receive", "text": payload.decode()}
        except UnicodeDecodeError:
            raise ProtocolViolation("undecodable JSON: text that isn't UTF-8") from None

    async def send(self, event: Event) -> None:
        """Send a message, or what closes the connection.

        Raises: OSError when the client is gone.
        """
        try:
            if event["type"] == "websocket.close":
                async with self._sending:
                    await _send_eof(self._stream)
            else:
                payload = event["text"].encode() if self._is_text else event["bytes"]
                await self._send(MESSAGE, payload)
        except GONE as error:
            raise OSError("the client is gone") from error

    async def _send(self, kind: int, payload: bytes) -> None:
        async with self._sending:
            await self._stream.send((kind << 24 | len(payload)).to_bytes(4) + payload)
