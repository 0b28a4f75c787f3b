"""Serializers: a format with a framing, and the table of WebSocket subprotocols.

A *format* encodes and decodes single messages. A *framing* splits frames into encoded messages, and
joins them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from serverwamp.errors import MessageTooLong, SerializationError
from serverwamp.protocol.formats import JSON, UNLIMITED, Format, MessagePack, Unit
from serverwamp.protocol.framings import Frame, Framing, PrefixedBatch, SeparatedBatch, Unbatched
from serverwamp.protocol.messages import Event, Message
from serverwamp.protocol.shapes import ShapeLimits


class Serializer:
    """The format and framing of one connection.

    `message_bytes` is the length of the longest message that the peer can receive. Encoding a
    longer one raises MessageTooLong.
    """

    def __init__(
        self,
        subprotocol: str,
        format_: Format,
        framing: Framing,
        message_bytes: float = math.inf,
    ) -> None:
        self.subprotocol = subprotocol
        self.format = format_
        self.framing = framing
        self.message_bytes = message_bytes
        self.frame_type: type[str] | type[bytes] = format_.frame_type
        is_limited = message_bytes < math.inf
        # Without a limit, the functions of the format are called directly, to save time.
        self.decode: Callable[[Unit], Message] = format_.decode
        self.encode: Callable[[Message], Unit] = self._encode if is_limited else format_.encode
        self.encode_wire: Callable[[tuple[Any, ...]], Unit] = (
            self._encode_wire if is_limited else format_.encode_wire
        )
        self.split: Callable[[Frame], Sequence[Unit]] = framing.split
        self.join: Callable[[Sequence[Unit]], Frame] = framing.join
        self.batched: bool = framing.batched

    def _encode(self, message: Message) -> Unit:
        return self._checked(self.format.encode(message))

    def _encode_wire(self, wire: tuple[Any, ...]) -> Unit:
        return self._checked(self.format.encode_wire(wire))

    def _checked(self, unit: Unit) -> Unit:
        if is_longer(unit, self.message_bytes):
            raise MessageTooLong(f"the message has more than {self.message_bytes} bytes")
        return unit


def limited(serializer: Serializer, message_bytes: int) -> Serializer:
    """Return the same serializer for a peer that can receive messages of that many bytes."""
    return Serializer(serializer.subprotocol, serializer.format, serializer.framing, message_bytes)


def is_longer(frame: Frame, limit: float) -> bool:
    """Tell whether a frame or a unit has more than `limit` bytes."""
    if len(frame) > limit:
        return True
    if len(frame) <= limit / 4 or isinstance(frame, bytes) or frame.isascii():
        return False  # a character of text has up to 4 bytes
    return len(frame.encode("utf-8", "surrogatepass")) > limit


class EncodedOnce(dict[Format, Unit | None]):
    """An event for many receivers: its unit by format, encoded on first access.

    The unit is None if the format can't express the event; `failure` tells why.
    """

    __slots__ = ("_message", "failure")

    def __init__(self, message: Message) -> None:
        self._message = message
        self.failure: SerializationError | None = None

    def __missing__(self, format_: Format) -> Unit | None:
        unit = None
        try:
            unit = format_.encode(self._message)
        except SerializationError as error:
            self.failure = error
        self[format_] = unit
        return unit


_FORMATS: Final[dict[str, Callable[[ShapeLimits], Format]]] = {"msgpack": MessagePack, "json": JSON}
with suppress(ImportError):  # cbor2 is optional
    from serverwamp.protocol.cbor import CBOR

    _FORMATS["cbor"] = CBOR


def can_hold(format_: Format, value: Any) -> bool:
    """Tell whether a format can express a value as an argument."""
    try:
        format_.encode(Event(1, 1, {}, (value,)))
    except SerializationError:
        return False
    return True


_SUBPROTOCOLS: Final[Mapping[str, tuple[str, Callable[[], Framing]]]] = {
    "wamp.2.json": ("json", Unbatched),
    "wamp.2.msgpack": ("msgpack", Unbatched),
    "wamp.2.cbor": ("cbor", Unbatched),
    "wamp.2.json.batched": ("json", SeparatedBatch),
    "wamp.2.msgpack.batched": ("msgpack", PrefixedBatch),
    "wamp.2.cbor.batched": ("cbor", PrefixedBatch),
}
SUBPROTOCOLS: Final = tuple(
    name for name, (format_name, _) in _SUBPROTOCOLS.items() if format_name in _FORMATS
)
"""The supported WebSocket subprotocols."""


@lru_cache
def _format(name: str, shape: ShapeLimits) -> Format:
    """Return a format, shared by all connections, so that an event is encoded only once for it."""
    return _FORMATS[name](shape)


ALL_FORMATS: Final = tuple(_format(name, UNLIMITED) for name in _FORMATS)
"""The supported formats, without limits."""


def serializer_for(subprotocol: str, shape: ShapeLimits = UNLIMITED) -> Serializer:
    """Return a serializer for a subprotocol; it refuses to decode messages that exceed `shape`.

    Raises: KeyError for an unknown subprotocol.
    """
    remembers = _SUBPROTOCOLS[subprotocol][1] is SeparatedBatch
    return (_new_serializer if remembers else _shared_serializer)(subprotocol, shape)


def _new_serializer(subprotocol: str, shape: ShapeLimits) -> Serializer:
    format_name, framing = _SUBPROTOCOLS[subprotocol]
    return Serializer(subprotocol, _format(format_name, shape), framing())


_shared_serializer = lru_cache(_new_serializer)
