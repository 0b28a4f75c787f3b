"""The CBOR format.

By default, the decoder of cbor2 lets a client create regular expressions, lists that contain
themselves, and texts that refer to each other and take a thousand times their encoded size. It is
therefore restricted to the tags in this module. The encoder of cbor2 crashes the process on values
that are nested too deeply, so the depth is checked before it is called.

Spec: RFC 8949; Basic Profile, "Serialization".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from io import BytesIO
from math import inf
from typing import Any, Final
from uuid import UUID

from cbor2 import (
    CBORDecodeEOF,
    CBORDecodeError,
    CBORDecoder,
    CBORSimpleValue,
    dumps,
    undefined,
)

from serverwamp.errors import SerializationError
from serverwamp.limits import MAX_EXPONENT
from serverwamp.protocol.formats import (
    HEAD_LENGTH,
    UNDECODABLE,
    UNLIMITED,
    Extension,
    Format,
    Unit,
    UnknownValue,
    check_keys,
    decoded_by_elements,
    head_of,
    is_plain_result,
    to_message,
)
from serverwamp.protocol.messages import Message
from serverwamp.protocol.plain import SCALARS, plain
from serverwamp.protocol.shapes import ShapeLimits
from serverwamp.protocol.values import CBOR_VALUES

MAX_DEPTH: Final = 400
"""How deep arrays and maps may be nested, received or sent. `Limits` usually allow less."""
MAX_INTEGER_BYTES: Final = 1785
"""Maximum size of integers beyond 64 bits: about as many digits as Python converts to text."""
EPOCH: Final = date(1970, 1, 1)

NO_CONTAINERS: Final = bytes(octet for octet in range(256) if not 0x80 <= octet < 0xC0)
"""The bytes that can't be the first byte of an array or map."""
NO_MAPS: Final = bytes(octet for octet in range(256) if not 0xA1 <= octet < 0xC0)
"""The bytes that can't be the first byte of a map, unless the map is empty."""
NOTHING_ODD: Final = bytes(
    octet
    for octet in range(256)
    if not (0xA1 <= octet < 0xC0 or 0xE0 <= octet < 0xF4 or octet in (0xF7, 0xF8))
)
"""Like `NO_MAPS`, but also without the first bytes of simple values other than true, false and
null."""
NO_SIMPLE_VALUES: Final = NOTHING_ODD + bytes(range(0xA1, 0xC0))
BREAK: Final = b"\xff"
BINARY, TEXT, ARRAY, MAP, TAG, SIMPLE = range(2, 8)
"""The type of a value, by the first three bits of its first byte. Lower numbers are integers."""


def _time(data: Any, _immutable: bool) -> datetime:
    if type(data) is not str:
        return datetime.fromtimestamp(data, UTC)
    moment = datetime.fromisoformat(data)
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return moment


def _positive(data: Any, is_key: bool) -> int:
    if is_key or type(data) is not bytes or len(data) > MAX_INTEGER_BYTES:
        raise ValueError("a large integer that is malformed, is a key, or has too many digits")
    return int.from_bytes(data)


def _negative(data: Any, is_key: bool) -> int:
    return -1 - _positive(data, is_key)


def _uuid(data: Any, _immutable: bool) -> UUID:
    return UUID(bytes=_binary(data, _immutable))


def _binary(data: Any, _immutable: bool) -> bytes:
    if type(data) is not bytes:
        raise ValueError("a malformed byte array")
    return data


def _decimal(data: Any, _immutable: bool) -> Decimal:
    if type(data) is not list or [*map(type, data)] != [int, int]:
        raise ValueError("a malformed decimal fraction")
    exponent, mantissa = data
    if abs(exponent) > MAX_EXPONENT or mantissa.bit_length() > 8 * MAX_INTEGER_BYTES:
        raise ValueError("a decimal fraction that is too large, or has too many digits")
    return Decimal((mantissa < 0, tuple(map(int, str(abs(mantissa)))), exponent))


def _date(data: Any, _immutable: bool) -> date:
    if type(data) is int:
        return EPOCH + timedelta(days=data)
    return date.fromisoformat(data)


def _set(data: Any, _immutable: bool) -> set[Any]:
    # A client could choose items of other types, and large integers, to have the same hash.
    if type(data) is not list or not SCALARS.issuperset(map(type, data)):
        raise ValueError("a set with items other than text, binary data and numbers")
    if any(type(item) is int and item.bit_length() > 64 for item in data):
        raise ValueError("a set with integers beyond 64 bits")
    return set(data)


class Tags(dict[int, Callable[[Any, bool], Any]]):
    """Functions that decode tagged values, by tag; an unknown tag raises ValueError."""

    def __missing__(self, tag: int) -> Callable[[Any, bool], Any]:
        raise ValueError(f"a value with the unknown tag {tag}")


TAGS: Final = Tags(
    {
        0: _time,
        1: _time,
        2: _positive,
        3: _negative,
        4: _decimal,
        37: _uuid,
        64: _binary,  # JavaScript's Uint8Array
        100: _date,
        258: _set,
        1004: _date,
    }
)


class LenientTags(dict[int, Callable[[Any, bool], Any]]):
    """Like `Tags`, but an unknown tag or a value that doesn't suit its tag gives an `Extension`."""

    def __missing__(self, tag: int) -> Callable[[Any, bool], Any]:
        return partial(self._value_or_extension, tag)

    @staticmethod
    def _value_or_extension(tag: int, data: Any, is_key: bool) -> Any:
        try:
            return TAGS[tag](data, is_key)
        except (ValueError, TypeError, OverflowError, OSError):
            return Extension(tag, data)


LENIENT_TAGS: Final = LenientTags()


def _check_keys(container: dict[Any, Any], _immutable: bool) -> dict[Any, Any]:
    return check_keys(container)


def _decoder(stream: BytesIO, check: Callable[[Any, bool], Any] | None = None) -> CBORDecoder:
    # A client could choose keys of other types to have the same hash.
    return CBORDecoder(
        stream,
        semantic_decoders=TAGS,
        object_hook=check,
        max_depth=MAX_DEPTH,
        strict_hashable_types=True,
    )


def _lenient_decoder(stream: BytesIO) -> CBORDecoder:
    return CBORDecoder(stream, semantic_decoders=LENIENT_TAGS, max_depth=MAX_DEPTH)


try:
    _decoder(BytesIO())
except TypeError:
    raise ImportError("cbor2 is older than 6.2") from None


class CBOR(Format):
    """WAMP over CBOR."""

    def __init__(self, shape: ShapeLimits = UNLIMITED) -> None:
        self._shape = shape
        self._short = shape.length
        self._harmless = min(shape.message_depth, shape.length)

    def decode(self, unit: Unit) -> Message:
        assert isinstance(unit, bytes)
        is_harmless = len(unit) <= self._harmless
        if not is_harmless and CBOR_VALUES.exceed(unit, self._shape.message_values):
            head = head_of(_elements(unit[:HEAD_LENGTH]))
            raise self._shape.exceeded("message_values", head)
        stream = BytesIO(unit)
        try:
            odd = unit.translate(None, NOTHING_ODD)
            raw = _decoder(stream, _check_keys if odd else None).decode()
            if stream.tell() != len(unit):
                raise ValueError("more than one value")
            if odd and odd.translate(None, NO_SIMPLE_VALUES):
                raw = _without_simple_values(raw, _refuse)
            message = to_message(raw)
        except CBORDecodeError as failure:
            message = decoded_by_elements("CBOR", _elements(unit), _cause_of(failure))
        except UNDECODABLE as failure:
            message = decoded_by_elements("CBOR", _elements(unit), failure)
        if not is_harmless and (
            len(unit) > self._short
            or len(unit.translate(None, NO_CONTAINERS)) > self._shape.message_depth
        ):
            self._shape.check_every_value(message)
        return message

    def encode_wire(self, wire: tuple[Any, ...]) -> Unit:
        try:
            made: Any = wire
            if not is_plain_result(wire):
                made = plain(wire)
                _check_depth(made)
            return dumps(made, encoders=_ENCODERS, default=_encode_plain)
        except Exception as failure:  # the classes of the payload may raise anything
            raise SerializationError(f"not serializable as CBOR: {failure}") from failure


def _elements(unit: bytes) -> Iterator[Any]:
    """Yield the elements of a message; maps in them may have keys of any type.

    Raises: EOFError when the message is incomplete, or followed by something else; any of
        `UNDECODABLE`.
    """
    start, left = _array_head(unit)
    end = len(unit) if left < inf else len(unit) - 1
    stream = BytesIO(unit)
    stream.seek(start)
    decoder = _lenient_decoder(stream)
    try:
        while left > 0 and not (left == inf and unit.startswith(BREAK, stream.tell())):
            left -= 1
            _check_raw_keys(unit, stream.tell())
            yield _without_simple_values(decoder.decode(), _as_extension)
    except CBORDecodeEOF:
        raise EOFError from None
    except CBORDecodeError as error:
        raise _cause_of(error) from None
    if stream.tell() != end:
        raise EOFError


def _array_head(unit: bytes) -> tuple[int, float]:
    """Return the size of an array's header, and its number of elements: infinite if not given."""
    code = unit[0] - 0x80 if unit else -1
    if 24 <= code < 28:
        start = 1 + 2 ** (code - 24)
        return start, int.from_bytes(unit[1:start])
    return 1, inf if code == 31 else code if code < 24 else 0


def _check_raw_keys(unit: bytes, position: int) -> None:
    """Check, before decoding, that all keys in a value are text, binary or integers.

    A client could choose keys of other types to have the same hash. Malformed values are left to
    the decoder. This is a single long function for speed, because messages may be long.

    Raises: UnknownValue when there is another key.
    """
    if not unit.translate(None, NO_MAPS):
        return
    # For each open container: the number of values still to come, and whether it is a map. If the
    # number isn't given, it starts at -2 and decreases. In a map, it is even before each key.
    containers = [[1, False]]
    while containers and position < len(unit):
        left, is_map = container = containers[-1]
        if not left:
            containers.pop()
            continue
        octet = unit[position]
        if octet == BREAK[0]:
            containers.pop()
            position += 1
            continue
        kind, length = divmod(octet, 32)
        if is_map and left % 2 == 0 and kind > TEXT:
            raise UnknownValue("a key that is neither text nor an integer")
        container[0] = left - 1
        position += 1
        if 24 <= length < 28:
            size = 2 ** (length - 24)
            length = int.from_bytes(unit[position : position + size])
            position += size
        elif length == 31:
            length = -2
        if kind == MAP:
            containers.append([2 * length, True])
        elif kind == ARRAY or (length < 0 and kind in (BINARY, TEXT)):
            containers.append([length, False])
        elif kind == TAG:
            containers.append([1, False])
        elif kind in (BINARY, TEXT):
            position += length


def _encode_view(encoder: Any, view: memoryview) -> None:
    encoder.encode_bytes(bytes(view))  # by default it would become an array of numbers


def _encode_plain(encoder: Any, value: Any) -> None:
    encoder.encode(plain(value))  # the value of an enum member, which msgspec leaves as it is


_ENCODERS: Final[Mapping[Any, Any]] = {
    memoryview: _encode_view,
    **dict.fromkeys((Decimal, datetime, date, UUID, set, frozenset), _encode_plain),
}


def _cause_of(failure: CBORDecodeError) -> Exception:
    """Return the original exception of a failure, which cbor2 wraps in one of its own."""
    cause: BaseException = failure
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if "nesting depth" in str(cause):
        return RecursionError()
    return cause if isinstance(cause, UnicodeError) else ValueError()


def _without_simple_values(value: Any, other: Callable[[CBORSimpleValue], Any]) -> Any:
    """Return `value` with None in place of JavaScript's undefined.

    `other` replaces simple values that have no assigned meaning. This may be recursive, because
    `MAX_DEPTH` limits the depth of the value.
    """
    if value is undefined:
        return None
    if type(value) is list:
        return [_without_simple_values(item, other) for item in value]
    if type(value) is dict:
        return {key: _without_simple_values(item, other) for key, item in value.items()}
    return other(value) if type(value) is CBORSimpleValue else value


def _refuse(value: CBORSimpleValue) -> Any:
    raise ValueError("a simple value without a meaning")


def _as_extension(value: CBORSimpleValue) -> Extension:
    return Extension(SIMPLE, value)


def _check_depth(value: Any) -> None:
    """Check that `value` isn't nested too deeply for the encoder.

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
