"""What a connection speaks: a format in a framing, and the table of subprotocols.

A *format* turns one unit into one message; a *framing* cuts units out of frames and joins them.
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
    """What one connection speaks: a format in a framing."""

    def __init__(self, subprotocol: str, format_: Format, framing: Framing) -> None:
        self.subprotocol = subprotocol
        self.format = format_
        self.framing = framing
        self.frame_type: type[str] | type[bytes] = format_.frame_type
        self.decode: Callable[[Unit], Message] = format_.decode
        self.encode: Callable[[Message], Unit] = format_.encode
        self.encode_wire: Callable[[tuple[Any, ...]], Unit] = format_.encode_wire
        self.split: Callable[[Frame], Sequence[Unit]] = framing.split
        self.join: Callable[[Sequence[Unit]], Frame] = framing.join
        self.batched: bool = framing.batched
        self.message_bytes: float = math.inf
        """How long a message to the peer may be."""


def limited(serializer: Serializer, message_bytes: int) -> Serializer:
    """Return a serializer for a peer that can receive messages of so many bytes.

    It raises MessageTooLong for longer ones.
    """
    format_ = serializer.format

    def checked(unit: Unit) -> Unit:
        if is_longer(unit, message_bytes):
            raise MessageTooLong(f"the message has more than {message_bytes} bytes")
        return unit

    made = Serializer(serializer.subprotocol, format_, serializer.framing)
    made.message_bytes = message_bytes
    made.encode = lambda message: checked(format_.encode(message))
    made.encode_wire = lambda wire: checked(format_.encode_wire(wire))
    return made


def is_longer(frame: Frame, limit: float) -> bool:
    """Tell whether a frame, or a unit, has more than `limit` bytes."""
    if len(frame) > limit:
        return True
    if len(frame) <= limit / 4 or isinstance(frame, bytes) or frame.isascii():
        return False  # text has up to 4 bytes a character
    return len(frame.encode("utf-8", "surrogatepass")) > limit


class EncodedOnce(dict[Format, Unit | None]):
    """An event to many: its unit in each format, made once, however many receive it.

    It is None where a format can't hold the event; `failure` says why.
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
with suppress(ImportError):  # cbor2, which need not be installed
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
"""The WebSocket subprotocols that are spoken here."""


@lru_cache
def _format(name: str, shape: ShapeLimits) -> Format:
    """Return a format: always the same one, so that an event is encoded once for all of them."""
    return _FORMATS[name](shape)


ALL_FORMATS: Final = tuple(_format(name, UNLIMITED) for name in _FORMATS)
"""The formats that are spoken here."""


def serializer_for(subprotocol: str, shape: ShapeLimits = UNLIMITED) -> Serializer:
    """Return a serializer for a connection that speaks `subprotocol`.

    Messages of another shape than `shape` allows can't be decoded.

    Raises: KeyError.
    """
    remembers = _SUBPROTOCOLS[subprotocol][1] is SeparatedBatch
    return (_new_serializer if remembers else _shared_serializer)(subprotocol, shape)


def _new_serializer(subprotocol: str, shape: ShapeLimits) -> Serializer:
    format_name, framing = _SUBPROTOCOLS[subprotocol]
    return Serializer(subprotocol, _format(format_name, shape), framing())


_shared_serializer = lru_cache(_new_serializer)
