"""Present RawSocket connections as ASGI: scope, receive and send, like those of a WebSocket.

Spec: Advanced Profile, "RawSocket Transport".
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from collections.abc import (
    Callable,
    Collection,
    Mapping,
    MutableMapping,
)
from contextlib import suppress
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

from serverwamp.adapters.listening import CHUNK
from serverwamp.errors import ProtocolViolation

logger: logging.Logger = logging.getLogger(__name__)

Event: TypeAlias = MutableMapping[str, Any]

MAGIC: Final = 0x7F
FORMATS: Final[Mapping[int, str]] = {1: "wamp.2.json", 2: "wamp.2.msgpack", 3: "wamp.2.cbor"}
"""The serializer numbers in the handshake, and the WebSocket subprotocols with the same format."""

UNSUPPORTED_FORMAT: Final = 1
UNACCEPTABLE_LENGTH: Final = 2
RESERVED_BITS: Final = 3
TOO_MANY_CONNECTIONS: Final = 4

REFUSALS: Final[Mapping[int, str]] = {
    UNSUPPORTED_FORMAT: "its serializer isn't supported",
    UNACCEPTABLE_LENGTH: "it can receive at most 512 bytes at once",
    RESERVED_BITS: "reserved bits are set",
}

LEAST_EXPONENT: Final = 10
"""A client has to accept messages of at least 2^10 bytes. The protocol also allows 2^9, but that is
too short for a WELCOME."""
MAX_LENGTH: Final = 2**24
"""The maximum length of a message in RawSocket."""
LONGEST_SENT: Final = MAX_LENGTH - 1
"""The maximum length of sent messages. Not every client understands how a length of 2^24 is
encoded."""

MESSAGE, PING, PONG = range(3)
UCRED: Final = struct.Struct("iII")
"""The struct ucred of Linux: process id, user id, group id."""
LINGER_SECONDS: Final = 1.0
"""How long a refused client has to read the refusal."""


GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
"""The exceptions when the other side has disconnected, or breaks the rules of TLS."""


# ---- the handshake


async def open_socket(
    connected: ByteStream,
    context: ssl.SSLContext | None,
    subprotocols: Collection[str],
    message_bytes: float,
) -> RawSocket | None:
    """Agree with the client on a format and on message lengths.

    Return None when the handshake fails. The caller closes `connected`.

    Raises: one of `GONE` when the client disconnects.
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
            logger.warning("a connection that starts with %r isn't RawSocket", opening)
            return None
    length, number = divmod(opening[1], 16)
    code = _refusal(opening, subprotocols)
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


def _refusal(opening: bytes, subprotocols: Collection[str]) -> int:
    """Return the code with which to refuse a handshake; 0 if it is acceptable."""
    length, number = divmod(opening[1], 16)
    if opening[2:] != b"\0\0":
        return RESERVED_BITS
    if FORMATS.get(number) not in subprotocols:
        return UNSUPPORTED_FORMAT
    return UNACCEPTABLE_LENGTH if 9 + length < LEAST_EXPONENT else 0


def _exponent(message_bytes: float) -> int:
    """Return the exponent of the length to announce: the largest power of two in the limit."""
    return max(9, int(min(message_bytes, MAX_LENGTH)).bit_length() - 1)


async def refuse(stream: ByteStream, code: int) -> None:
    """Tell the client why it is refused, and wait until it has received that."""
    with anyio.move_on_after(LINGER_SECONDS), suppress(*GONE):
        await stream.send(bytes((MAGIC, code << 4, 0, 0)))
        await _send_eof(stream)
        while True:
            await stream.receive()


async def _send_eof(stream: ByteStream) -> None:
    # Closing TLS properly would read the client's answer, but another task is reading already.
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
    if option is None:  # not Linux
        return None
    raw = connected.extra(SocketAttribute.raw_socket)
    data = raw.getsockopt(socket.SOL_SOCKET, option, UCRED.size)
    return dict(zip(("pid", "uid", "gid"), UCRED.unpack(data), strict=True))


# ---- the connection


class RawSocket:
    """A connection after its handshake.

    `subprotocol` is the WebSocket subprotocol with the same format.
    """

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
        """The maximum length in bytes of a message to the client."""
        self._longest_received = longest_received
        self._is_text = subprotocol == "wamp.2.json"
        self._received = bytearray()
        self._is_readable = True
        # Needed because the receiving task answers PING while another task sends.
        self._sending = anyio.Lock(fast_acquire=True)
        self.check_length: Callable[[float], None] = lambda length: None
        """Called with the length of each message before receiving it; raises if it is too long.

        The length is infinite if it exceeds the length announced in the handshake.
        """

    async def receive(self) -> Event:
        """Return the next message, or the disconnection.

        Raises: ProtocolViolation. After that, only the disconnection can be received.
        """
        try:
            return await self._receive_message()
        except GONE:
            return {"type": "websocket.disconnect", "code": 1006}
        except ProtocolViolation:
            self._is_readable = False
            raise

    async def _receive_message(self) -> Event:
        while not self._is_readable:  # unread data could make the system discard our last message
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
            raise ProtocolViolation("a PING that is too long to be answered")
        return kind, length

    async def _take(self, start: int, length: int) -> bytes:
        """Return `length` received bytes from `start` on, and drop everything before them."""
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
        """Send a message, or close the sending side.

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
