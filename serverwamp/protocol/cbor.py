"""One unit to one message and back, in CBOR.

The decoder of cbor2 makes more of its input than a stranger should be able to ask for: regular
expressions, lists that hold themselves, texts that refer to one another and take a thousand times
the memory that they took on the wire. So it decides about no tag but the few that are named here;
and its encoder, which ends the process for what is nested too deeply, isn't given such a thing.

Spec: RFC 8949; Basic Profile, "Serialization".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Final

import msgspec
from cbor2 import CBORDecodeError, CBORDecoder, dumps, undefined

from serverwamp.errors import ProtocolViolation, SerializationError
from serverwamp.protocol.formats import (
    BINARY_TYPES,
    UNLIMITED,
    Extension,
    Unit,
    is_plain_result,
    to_message,
    to_plain,
    undecodable,
)
from serverwamp.protocol.messages import Message
from serverwamp.protocol.shapes import Shape

MAX_DEPTH: Final = 400
"""How deep arrays and maps may be nested, in both directions: more than `Limits` usually allows."""
MAX_INTEGER_BYTES: Final = 1785
"""Integers beyond 64 bits may have about as many digits as Python makes of a text."""

NO_CONTAINERS: Final = bytes(octet for octet in range(256) if not 0x80 <= octet < 0xC0)
"""The octets that can't be the first of an array or a map."""
UNDEFINED: Final = b"\xf7"


def _positive(data: Any, _immutable: bool) -> int:
    if type(data) is not bytes or len(data) > MAX_INTEGER_BYTES:
        raise ValueError("an integer that is none, or has too many digits")
    return int.from_bytes(data)


def _negative(data: Any, immutable: bool) -> int:
    return -1 - _positive(data, immutable)


def _binary(data: Any, _immutable: bool) -> bytes:
    if type(data) is not bytes:
        raise ValueError("an array of octets that is none")
    return data


class Tags(dict[int, Callable[[Any, bool], Any]]):
    """What is made of a tagged value: something that nobody knows, for almost all tags."""

    LEFT_TO_THE_DECODER: Final = frozenset((0, 1, 37))
    """Times, as text and as numbers, and UUIDs."""

    def __missing__(self, tag: int) -> Callable[[Any, bool], Any]:
        if tag in self.LEFT_TO_THE_DECODER:
            raise KeyError(tag)
        return partial(self._unknown, tag)

    @staticmethod
    def _unknown(tag: int, value: Any, _immutable: bool) -> Extension:
        return Extension(tag, value)


TAGS: Final = Tags({2: _positive, 3: _negative, 64: _binary})  # JavaScript's binary has the last


def _decoder(stream: BytesIO) -> CBORDecoder:
    # Keys of other types could be made to collide, and no other format has them.
    return CBORDecoder(
        stream, semantic_decoders=TAGS, max_depth=MAX_DEPTH, strict_hashable_types=True
    )


try:
    _decoder(BytesIO())
except TypeError:
    raise ImportError("cbor2 is older than 6.2") from None


class CBOR:
    """WAMP over CBOR."""

    frame_type: type[str] | type[bytes] = bytes

    def __init__(self, shape: Shape = UNLIMITED) -> None:
        self._shape = shape
        self._short = shape.length
        self._harmless = min(shape.message_depth, shape.length)

    def decode(self, unit: Unit) -> Message:
        assert isinstance(unit, bytes)
        stream = BytesIO(unit)
        try:
            raw = _decoder(stream).decode()
            if stream.tell() != len(unit):
                raise ValueError("more than one value")
            if UNDEFINED in unit:
                raw = _without_undefined(raw)
            message = to_message(raw)
        except CBORDecodeError as failure:
            raise _explained(failure) from None
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as failure:
            raise undecodable("CBOR", failure) from None
        if len(unit) > self._harmless and (
            len(unit) > self._short
            or len(unit.translate(None, NO_CONTAINERS)) > self._shape.message_depth
        ):
            self._shape.check_every_value(message)
        return message

    def exact_payload(self, unit: Unit, message: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
        return message.args or (), message.kwargs or {}  # numbers are doubles on this wire

    def encode(self, message: Message) -> Unit:
        return self.encode_wire(message.wire())

    def encode_wire(self, wire: tuple[Any, ...]) -> Unit:
        try:
            plain: Any = wire
            if not is_plain_result(wire):
                plain = msgspec.to_builtins(
                    wire, builtin_types=BINARY_TYPES, str_keys=True, enc_hook=to_plain
                )
                _check_depth(plain)
            return dumps(plain, encoders=_ENCODERS)
        except Exception as failure:  # among them whatever the payload's own classes raise
            raise SerializationError(f"not serializable as CBOR: {failure}") from failure


def _encode_view(encoder: Any, view: memoryview) -> None:
    encoder.encode_bytes(bytes(view))  # for the encoder it is an array of numbers


_ENCODERS: Final[Mapping[Any, Any]] = {memoryview: _encode_view}


def _explained(failure: CBORDecodeError) -> ProtocolViolation:
    """Return what the client is told: the decoder has several failures in the same class."""
    cause: BaseException = failure
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if "nesting depth" in str(cause):
        return undecodable("CBOR", RecursionError())
    return undecodable("CBOR", cause if isinstance(cause, UnicodeError) else ValueError())


def _without_undefined(value: Any) -> Any:
    """Return `value` with None for what JavaScript calls undefined; it is never very deep."""
    if value is undefined:
        return None
    if type(value) is list:
        return [_without_undefined(item) for item in value]
    if type(value) is dict:
        return {key: _without_undefined(item) for key, item in value.items()}
    return value


def _check_depth(value: Any) -> None:
    """Check that the encoder can be given `value`.

    Raises: ValueError.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) in (list, tuple, dict)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")
