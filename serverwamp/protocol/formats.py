"""One unit to one message and back: JSON and MessagePack, and what CBOR has in common with them.

All that a decoder can raise ends as `ProtocolViolation`, all that an encoder can raise as
`SerializationError`. A violation is an `InvalidPayload` when only the arguments can't be decoded:
that concerns one request, and not the session.

One module, though a long one: the formats share how a message is put together and taken apart.

Spec: Basic Profile, "Serialization"; Advanced Profile, "Binary conversion of JSON strings".
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

import msgpack
import msgspec
import orjson

from serverwamp.errors import (
    InvalidArgument,
    InvalidPayload,
    LimitExceeded,
    ProtocolViolation,
    SerializationError,
)
from serverwamp.protocol.messages import BY_CODE, AnyMessage, Message, PayloadMessage, Result
from serverwamp.protocol.models import BINARY_TYPES
from serverwamp.protocol.plain import SCALARS, plain, to_plain
from serverwamp.protocol.shapes import ShapeLimits
from serverwamp.protocol.values import JSON_VALUES, MESSAGEPACK_VALUES

Unit: TypeAlias = str | bytes

UNLIMITED: Final = ShapeLimits()

HEAD_LENGTH: Final = 64 * 1024
"""What comes before the arguments of a message that is too full is looked for in so many octets."""

NOT_IN_JSON: Final = "NaN, infinity, a control character, or half of a surrogate pair"

NUL_TEXT: Final = "text that starts with NUL can't be sent in JSON, where it stands for binary"


class Format(Protocol):
    """One unit to one message and back; a message of another shape than allowed is refused."""

    @property
    def frame_type(self) -> type[str] | type[bytes]:
        """The type of frames: text or binary WebSocket messages."""
        ...

    def decode(self, unit: Unit) -> Message:
        """Return the message in `unit`.

        Raises: ProtocolViolation, of which one kind is LimitExceeded.
        """
        ...

    def exact_payload(self, unit: Unit, message: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return args and kwargs of `message`, numbers with a fraction as `Decimal` as written.

        Raises: InvalidArgument.
        """
        ...

    def encode(self, message: Message) -> Unit:
        """Return `message` as a unit.

        Raises: SerializationError.
        """
        ...

    def encode_wire(self, wire: tuple[Any, ...]) -> Unit:
        """Return as a unit what `Message.wire` returns, or would return.

        Raises: SerializationError.
        """
        ...


def _with_integral_ids(raw: Any, failure: Exception) -> list[Any]:
    """Return the raw message with ids that came as integral floats (JavaScript) as integers.

    Raises: `failure` when there is nothing of that kind to mend.
    """
    cls = BY_CODE.get(raw[0]) if isinstance(raw, list) and raw and type(raw[0]) is int else None
    if cls is None:
        raise failure
    mended = list(raw)
    for position in cls.id_positions:
        if position < len(mended):
            mended[position] = _integral(mended[position])
    options = mended[cls.options_position] if len(mended) > cls.options_position else None
    if type(options) is dict:
        lists = {name: options[name] for name in cls.id_options if type(options.get(name)) is list}
        ids = {name: [_integral(value) for value in values] for name, values in lists.items()}
        if ids:
            mended[cls.options_position] = {**options, **ids}
    if all(a is b for a, b in zip(mended, raw, strict=True)):
        raise failure
    return mended


def _integral(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


class UnknownValue(ValueError):
    """Something in the arguments that isn't known here; its text is for the client."""


def undecodable(format_name: str, failure: Exception) -> ProtocolViolation:
    """Return what the client is told of `failure`: in words that say nothing of the inside."""
    if isinstance(failure, (msgspec.MsgspecError, UnknownValue)):
        reason = str(failure)
    elif isinstance(failure, (RecursionError, msgpack.StackError)):
        reason = "nested too deeply"
    elif isinstance(failure, UnicodeError):
        reason = "text that isn't UTF-8"
    else:
        reason = "malformed"
    return ProtocolViolation(f"undecodable {format_name}: {reason}")


# ---- JSON

# The standard library takes numbers and texts that mean nothing, and says where they end.
FIND_END: Final = json.JSONDecoder(parse_int=float, strict=False).raw_decode
BEFORE_ELEMENTS: Final = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*")
BETWEEN_ELEMENTS: Final = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
AFTER_ELEMENTS: Final = re.compile(r"[ \t\n\r]*\][ \t\n\r]*")


class JSON:
    """WAMP over JSON: decoded by msgspec, encoded by orjson; bytes travel as NUL and base64."""

    frame_type: type[str] | type[bytes] = str

    _decoder = msgspec.json.Decoder(AnyMessage)
    _raw_decoder = msgspec.json.Decoder()
    _exact_decoder = msgspec.json.Decoder(float_hook=Decimal)
    _options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

    def __init__(self, shape: ShapeLimits = UNLIMITED) -> None:
        self._shape = shape
        self._harmless = min(2 * shape.message_depth, shape.length)

    def decode(self, unit: Unit) -> Message:
        assert isinstance(unit, str)
        is_harmless = len(unit) <= self._harmless
        if not is_harmless and JSON_VALUES.exceed(unit, self._shape.message_values):
            head = head_of(map(self._raw_decoder.decode, _split(unit[:HEAD_LENGTH])))
            raise self._shape.exceeded("message_values", head)
        try:
            try:
                message: Message = self._decoder.decode(unit)
            except msgspec.ValidationError as failure:
                raw = _with_integral_ids(self._raw_decoder.decode(unit), failure)
                message = msgspec.convert(raw, BY_CODE[raw[0]])
        except (msgspec.MsgspecError, ValueError, RecursionError) as failure:
            message = self._by_elements(unit, failure)
        if not is_harmless:
            self._shape.check(message, unit)
        if "\\" in unit and _holds_binary(unit):
            message = self._with_binary(message)
        return message

    def _by_elements(self, unit: str, failure: Exception) -> Message:
        elements: list[str] = []
        try:
            elements.extend(_split(unit))
        except EOFError:
            raise undecodable("JSON", failure) from None
        except RecursionError as too_deep:  # where it ends, and what comes after it, isn't known
            violation = undecodable("JSON", too_deep)
            request = head_of(map(self._decoded, elements))
            if request is not None:
                violation = InvalidPayload(violation.message, request=request)
            raise violation from None
        return decoded_by_elements("JSON", map(self._decoded, elements), failure)

    def _decoded(self, element: str) -> Any:
        """Return an element of a message, the end of which is known.

        Raises: MsgspecError; UnknownValue.
        """
        try:
            return self._raw_decoder.decode(element)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            raise UnknownValue(NOT_IN_JSON) from None

    @staticmethod
    def _with_binary(message: Message) -> Message:
        try:
            return _replaced_payload(message, _with_bytes)
        except RecursionError as failure:
            raise undecodable("JSON", failure) from None
        except ValueError:
            text = "undecodable JSON: binary that isn't base64"
            raise InvalidPayload(text, request=message) from None

    def exact_payload(self, unit: Unit, message: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
        assert isinstance(unit, str)
        try:
            raw = self._exact_decoder.decode(unit)
        except InvalidOperation:
            raise InvalidArgument("a number's exponent is too large for a decimal") from None
        first = type(message).__struct_fields__.index("args") + 1
        args, kwargs = [*raw[first : first + 2], None, None][:2]
        if _holds_binary(unit):
            args, kwargs = _with_bytes(args), _with_bytes(kwargs)
        return args or (), kwargs or {}

    def encode(self, message: Message) -> Unit:
        return self.encode_wire(message.wire())

    def encode_wire(self, wire: tuple[Any, ...]) -> Unit:
        try:
            encoded = orjson.dumps(wire, self._default, self._options)
        except TypeError:
            # Keys that aren't strings, and integers beyond 64 bits, are left to the slow encoder.
            return self._encode_slowly(wire)
        text = encoded.decode()
        # orjson turns NaN into null silently. (A look into the bytes would take ten times as long.)
        if "null" in text and _has_non_finite(wire):
            raise SerializationError("NaN and infinity can't be sent in JSON")
        if "\\u0000" in text and _has_nul_text(wire):
            raise SerializationError(NUL_TEXT)
        return text

    def _encode_slowly(self, wire: Any) -> str:
        try:
            made = plain(wire)
            text = json.dumps(
                made,
                default=self._default,
                allow_nan=False,
                ensure_ascii=False,
                separators=(",", ":"),
            )
            text.encode()  # lone surrogates
            if "\\u0000" in text and _has_nul_text(made):
                raise ValueError(NUL_TEXT)
        except Exception as failure:  # among them whatever the payload's own classes raise
            raise SerializationError(f"not serializable as JSON: {failure}") from failure
        return text

    @staticmethod
    def _default(value: Any) -> Any:
        if isinstance(value, BINARY_TYPES):
            return "\0" + b64encode(value).decode()
        return to_plain(value)


def _split(unit: str) -> Iterator[str]:
    """Yield one element of a message after the other.

    Raises: EOFError when one of them has no end, or they end elsewhere than `unit`; RecursionError
        when one is nested too deeply.
    """
    separator = BEFORE_ELEMENTS.match(unit)
    while separator is not None:
        start = separator.end()
        try:
            end = FIND_END(unit, start)[1]
        except ValueError:
            break
        yield unit[start:end]
        if AFTER_ELEMENTS.fullmatch(unit, end):
            return
        separator = BETWEEN_ELEMENTS.match(unit, end)
    raise EOFError


def _holds_binary(unit: str) -> bool:
    r"""Tell whether ``\u0000`` stands in the raw JSON, as it must before any binary value."""
    # The search for the backslash alone is 25 times faster, and mostly enough.
    return "\\" in unit and "\\u0000" in unit


def _with_bytes(value: Any) -> Any:
    """Return `value` with every string that starts with NUL as the bytes it stands for."""
    if isinstance(value, str):
        return b64decode(value[1:], validate=True) if value.startswith("\0") else value
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_bytes(item) for key, item in value.items()}
    return value


def _replaced_payload(message: Any, convert: Callable[[Any], Any]) -> Message:
    if "kwargs" not in message.__struct_fields__:
        return message  # type: ignore[no-any-return]
    return msgspec.structs.replace(  # type: ignore[no-any-return]
        message, args=convert(message.args), kwargs=convert(message.kwargs)
    )


def _has_non_finite(wire: Any) -> bool:
    return any(type(leaf) is float and not math.isfinite(leaf) for leaf in _leaves(wire))


def _has_nul_text(wire: Any) -> bool:
    return any(type(leaf) is str and leaf.startswith("\0") for leaf in _leaves(wire))


def _leaves(value: Any) -> Iterator[Any]:
    """Yield all that `value` holds, and is no container, as plain values."""
    if isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, float):
        yield float(value)
    elif isinstance(value, str):
        yield str.__str__(value)
    elif not (value is None or isinstance(value, (int, Decimal, *BINARY_TYPES))):
        yield from _leaves(to_plain(value))


# ---- MessagePack

NO_BINARY: Final = bytes(octet for octet in range(256) if not 0xC4 <= octet <= 0xC6)
"""The octets that can't be the first of a binary value."""


class MessagePack:
    """WAMP over MessagePack, in the revision that tells text from binary."""

    frame_type: type[str] | type[bytes] = bytes

    def __init__(self, shape: ShapeLimits = UNLIMITED) -> None:
        # msgspec leaves values of enums as they are.
        self._packer = msgpack.Packer(use_bin_type=True, default=plain)
        self._shape = shape
        self._short = shape.length
        self._harmless = min(shape.message_depth, shape.length)

    def decode(self, unit: Unit) -> Message:
        assert isinstance(unit, bytes)
        try:
            check = check_keys if unit.translate(None, NO_BINARY) else None
            if len(unit) > self._short:
                raw = self._unpack_long(unit, check)
            else:
                raw = msgpack.unpackb(unit, ext_hook=_unpack_known, object_hook=check, timestamp=3)
            message = to_message(raw)
        except UNDECODABLE as failure:
            message = decoded_by_elements("MessagePack", self._elements(unit), failure)
        if len(unit) > self._harmless:
            self._shape.check(message, unit)
        return message

    def _unpack_long(self, unit: bytes, check: Callable[[Any], Any] | None) -> Any:
        """Unpack what may hold too many values, or arrays and maps that are too long.

        Raises: LimitExceeded, with the head of the message, unless that is too long itself.
        """
        if MESSAGEPACK_VALUES.exceed(unit, self._shape.message_values):
            raise self._exceeded("message_values", unit[:HEAD_LENGTH])
        try:
            return msgpack.unpackb(
                unit,
                ext_hook=_unpack_known,
                object_hook=check,
                timestamp=3,
                **self._lengths(unit),
            )
        except ValueError as failure:
            if "exceeds max_" not in str(failure):
                raise
            exceeded = "array_length" if "max_array_len" in str(failure) else "map_length"
        raise self._exceeded(exceeded, unit)

    def _exceeded(self, limit: str, unit: bytes) -> LimitExceeded:
        return self._shape.exceeded(limit, head_of(self._elements(unit)))

    def _lengths(self, unit: bytes) -> dict[str, int]:
        return {
            "max_array_len": int(min(self._shape.array_length, len(unit))),
            "max_map_len": int(min(self._shape.map_length, len(unit))),
        }

    def _elements(self, unit: bytes) -> Iterator[Any]:
        """Yield one element of a message after the other, whatever its maps have as keys.

        Raises: EOFError when they end elsewhere than `unit`; what `UNDECODABLE` holds.
        """
        unpacker = msgpack.Unpacker(
            ext_hook=_unpack_extension,
            timestamp=3,
            strict_map_key=False,
            max_buffer_size=max(len(unit), 1),
            **self._lengths(unit),
        )
        unpacker.feed(unit)
        try:
            for _ in range(unpacker.read_array_header()):
                yield unpacker.unpack()
        except msgpack.OutOfData:
            raise EOFError from None
        if unpacker.tell() != len(unit):
            raise EOFError

    def exact_payload(self, unit: Unit, message: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
        return message.args or (), message.kwargs or {}  # numbers are doubles on this wire

    def encode(self, message: Message) -> Unit:
        return self.encode_wire(message.wire())

    def encode_wire(self, wire: tuple[Any, ...]) -> Unit:
        try:
            packed: bytes = self._packer.pack(wire if is_plain_result(wire) else plain(wire))
        except Exception as failure:  # among them whatever the payload's own classes raise
            self._packer.reset()
            raise SerializationError(f"not serializable as MessagePack: {failure}") from failure
        return packed


def is_plain_result(wire: tuple[Any, ...]) -> bool:
    """Tell whether a message is one of the many that binary formats know as they are."""
    return wire[0] == Result.type_code and len(wire) == 4 and SCALARS.issuperset(map(type, wire[3]))


def to_message(raw: Any) -> Message:
    """Return the message that a binary format has decoded as `raw`.

    Raises: ProtocolViolation; msgspec.ValidationError.
    """
    cls = BY_CODE.get(raw[0]) if type(raw) is list and raw else None
    if cls is None:
        raise ProtocolViolation("not a WAMP message")
    try:
        return msgspec.convert(raw, cls)
    except msgspec.ValidationError as failure:
        return msgspec.convert(_with_integral_ids(raw, failure), cls)


UNDECODABLE: Final = (
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    RecursionError,
    OverflowError,
)
"""What a decoder of a binary format raises, and what is raised while a message is made of it."""


def decoded_by_elements(format_name: str, elements: Iterator[Any], failure: Exception) -> Message:
    """Return a message of `elements` which couldn't be decoded at once.

    What is wrong in the arguments concerns only the request. Integers as the keys of maps become
    text, as in JSON.

    Raises: InvalidPayload; ProtocolViolation, for `failure`, when anything else is wrong.
    """
    request = None
    try:
        head = _head(elements)
        request = to_message(head)
        payload = [*islice(elements, 3)]  # no message has so many arguments
        _give_text_keys(payload)
    except EOFError:
        raise undecodable(format_name, failure) from None
    except UNDECODABLE as reason:
        known = reason if isinstance(reason, UnknownValue) else failure
        violation = undecodable(format_name, known)
        if request is not None:
            violation = InvalidPayload(violation.message, request=request)
        raise violation from None
    try:
        return to_message([*head, *payload])
    except UNDECODABLE:
        raise undecodable(format_name, failure) from None


def head_of(elements: Iterator[Any]) -> Message | None:
    """Return a message of `elements` without its arguments; None when these can't be decoded."""
    try:
        return to_message(_head(elements))
    except (EOFError, ProtocolViolation, *UNDECODABLE):
        return None


def _head(elements: Iterator[Any]) -> list[Any]:
    """Return what stands before the arguments of a message; all of one that has none."""
    head = [*islice(elements, 1)]
    cls = BY_CODE.get(head[0]) if head and type(head[0]) is int else None
    if cls is None:
        raise ProtocolViolation("not a WAMP message")
    fields = cls.__struct_fields__
    count = fields.index("args") if issubclass(cls, PayloadMessage) else len(fields)
    head += islice(elements, count)
    position = cls.options_position
    if len(head) > position and type(head[position]) is dict:
        head[position] = {key: _known(value) for key, value in _known_entries(head[position])}
    return head


def _give_text_keys(payload: list[Any]) -> None:
    """Turn the keys of all maps in `payload` into text, and check that all of it is known.

    Raises: UnknownValue.
    """
    containers: list[Any] = [payload]
    while containers:
        container = containers.pop()
        if type(container) is dict:
            if not all(type(key) is str for key in container):
                named = {_text_key(key): value for key, value in container.items()}
                if len(named) < len(container):
                    raise UnknownValue("two keys of a map are the same text")
                container.clear()
                container.update(named)
            container = container.values()
        for value in container:
            if type(value) is Extension:
                raise UnknownValue("a value of a type that isn't known here")
            if type(value) is list or type(value) is dict:
                containers.append(value)


def _text_key(key: Any) -> str:
    if type(key) is int:
        return str(key)
    if type(key) is str:
        return key
    raise UnknownValue("a key that is neither text nor an integer")


_UNDEFINED: Final = (0, b"\0")


class Extension:
    """A value of an unknown extension type, or with an unknown tag, outside of the arguments."""

    __slots__ = ("code", "data")

    def __init__(self, code: int, data: Any) -> None:
        self.code: int = code
        self.data: Any = data


def _unpack_extension(code: int, data: bytes) -> Any:
    return None if (code, data) == _UNDEFINED else Extension(code, data)


def _unpack_known(code: int, data: bytes) -> None:
    if (code, data) != _UNDEFINED:
        raise ValueError("a value of an unknown extension type")


def check_keys(container: dict[Any, Any]) -> dict[Any, Any]:
    """Return a map the keys of which are text.

    Raises: TypeError.
    """
    "".join(container)
    return container


def _known_entries(options: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield what is known of options: JavaScript sends others with values of unknown types."""
    return ((key, value) for key, value in options.items() if type(value) is not Extension)


def _known(value: Any) -> Any:
    """Return what is known of the value of an option, with integers as text where they are keys."""
    if type(value) is list:
        return [_known(item) for item in value]
    if type(value) is dict:
        return {
            str(key): _known(item)
            for key, item in _known_entries(value)
            if type(key) is str or type(key) is int
        }
    return None if type(value) is Extension else value
