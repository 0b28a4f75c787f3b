"""Formats: encode messages to units and decode them, in JSON and MessagePack.

Decoding raises only `ProtocolViolation`, and encoding only `SerializationError`. If only the
arguments of a message can't be decoded, the violation is an `InvalidPayload`. Then the request is
refused, and the session continues.

One module despite its length: the formats, including CBOR in its own module, share the functions
that decode a message element by element.

Spec: Basic Profile, "Serialization"; Advanced Profile, "Binary conversion of JSON strings".
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, ClassVar, Final, TypeAlias

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
"""How many bytes of a message with too many values are searched for the elements before its
arguments."""

NOT_IN_JSON: Final = "NaN, infinity, a control character, or half of a surrogate pair"

NUL_TEXT: Final = "text that starts with NUL can't be sent in JSON, where it stands for binary"


class Format(ABC):
    """Encodes messages and decodes them; it refuses to decode messages that exceed a limit."""

    frame_type: ClassVar[type[str] | type[bytes]] = bytes
    """The type of units: str for text, bytes for binary WebSocket messages."""

    @abstractmethod
    def decode(self, unit: Unit) -> Message:
        """Return the message in `unit`.

        Raises: ProtocolViolation; InvalidPayload or LimitExceeded, its subclasses, if the request
            can be answered.
        """

    def exact_payload(self, unit: Unit, message: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return args and kwargs of `message`, with numbers as they were written.

        JSON numbers with a fraction become `Decimal`. In binary formats they are doubles already.

        Raises: InvalidArgument when a `Decimal` can't hold a number.
        """
        return message.args or (), message.kwargs or {}

    def encode(self, message: Message) -> Unit:
        """Return `message` as a unit.

        Raises: SerializationError.
        """
        return self.encode_wire(message.wire())

    @abstractmethod
    def encode_wire(self, wire: tuple[Any, ...]) -> Unit:
        """Return the elements of a message, as of `Message.wire`, as a unit.

        Raises: SerializationError.
        """


def _with_integral_ids(raw: Any, failure: Exception) -> list[Any]:
    """Return the raw message with ids that are floats, such as 1.0, replaced by integers.

    JavaScript clients send such ids.

    Raises: `failure` when there is no such id.
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
    """The arguments contain an unsupported value; the exception's text is sent to the client."""


def undecodable(format_name: str, failure: Exception) -> ProtocolViolation:
    """Return the violation for a failure of decoding, in words that reveal no internals."""
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

# Finds the end of an element. The standard library does that even for some invalid JSON.
FIND_END: Final = json.JSONDecoder(parse_int=float, strict=False).raw_decode
BEFORE_ELEMENTS: Final = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*")
BETWEEN_ELEMENTS: Final = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
AFTER_ELEMENTS: Final = re.compile(r"[ \t\n\r]*\][ \t\n\r]*")


class JSON(Format):
    """WAMP over JSON: decoded by msgspec, encoded by orjson; bytes become text: NUL and base64."""

    frame_type: ClassVar[type[str] | type[bytes]] = str

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
        except RecursionError as too_deep:  # the end of the element is unknown
            violation = undecodable("JSON", too_deep)
            request = head_of(map(self._decoded, elements))
            if request is not None:
                violation = InvalidPayload(violation.message, request=request)
            raise violation from None
        return decoded_by_elements("JSON", map(self._decoded, elements), failure)

    def _decoded(self, element: str) -> Any:
        """Decode a single element of a message.

        Raises: MsgspecError; UnknownValue when JSON doesn't allow it.
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

    def encode_wire(self, wire: tuple[Any, ...]) -> Unit:
        try:
            encoded = orjson.dumps(wire, self._default, self._options)
        except TypeError:
            # orjson doesn't support keys that aren't strings, and integers beyond 64 bits.
            return self._encode_slowly(wire)
        text = encoded.decode()
        # orjson silently encodes NaN as null. (Searching text is ten times as fast as bytes.)
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
            text.encode()  # fails for lone surrogates
            if "\\u0000" in text and _has_nul_text(made):
                raise ValueError(NUL_TEXT)
        except Exception as failure:  # the classes of the payload may raise anything
            raise SerializationError(f"not serializable as JSON: {failure}") from failure
        return text

    @staticmethod
    def _default(value: Any) -> Any:
        if isinstance(value, BINARY_TYPES):
            return "\0" + b64encode(value).decode()
        return to_plain(value)


def _split(unit: str) -> Iterator[str]:
    """Yield the JSON text of each element of a message.

    Raises: EOFError when an element or the message is incomplete, or followed by something else;
        RecursionError when an element is nested too deeply.
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
    r"""Tell whether ``\u0000``, with which every binary value starts, is in the JSON text."""
    # Searching for the backslash alone is 25 times as fast, and usually enough.
    return "\\" in unit and "\\u0000" in unit


def _with_bytes(value: Any) -> Any:
    """Return `value` with every string that starts with NUL converted to bytes."""
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
    """Yield all values in `value` that aren't containers, as plain values."""
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
"""The bytes that can't be the first byte of a binary value."""


class MessagePack(Format):
    """WAMP over MessagePack, in the revision that has separate types for text and binary data."""

    def __init__(self, shape: ShapeLimits = UNLIMITED) -> None:
        # msgspec leaves the values of enum members as they are, so they need a `default` here.
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
        """Unpack a message that may have too many values, or arrays and maps that are too long.

        Raises: LimitExceeded, with the message as far as it can be decoded; ValueError.
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
        """Yield the elements of a message; maps in them may have keys of any type.

        Raises: EOFError when the message is incomplete, or followed by something else; any of
            `UNDECODABLE`.
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

    def encode_wire(self, wire: tuple[Any, ...]) -> Unit:
        try:
            packed: bytes = self._packer.pack(wire if is_plain_result(wire) else plain(wire))
        except Exception as failure:  # the classes of the payload may raise anything
            self._packer.reset()
            raise SerializationError(f"not serializable as MessagePack: {failure}") from failure
        return packed


def is_plain_result(wire: tuple[Any, ...]) -> bool:
    """Tell whether a message is a RESULT of simple values only, which needs no conversion."""
    return wire[0] == Result.type_code and len(wire) == 4 and SCALARS.issuperset(map(type, wire[3]))


def to_message(raw: Any) -> Message:
    """Return a message from its decoded elements.

    Raises: ProtocolViolation when it has no known type code; msgspec.ValidationError.
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
"""The exceptions that decoders of binary formats raise, and that `to_message` raises."""


def decoded_by_elements(format_name: str, elements: Iterator[Any], failure: Exception) -> Message:
    """Return a message from its elements, after decoding it as a whole raised `failure`.

    In the arguments, integer keys of maps become text, as in JSON.

    Raises: InvalidPayload when only the arguments are wrong; ProtocolViolation otherwise.
    """
    request = None
    try:
        head = _head(elements)
        request = to_message(head)
        payload = [*islice(elements, 3)]  # one more than any message has
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
    """Return a message without its arguments; None when the other elements can't be decoded."""
    try:
        return to_message(_head(elements))
    except (EOFError, ProtocolViolation, *UNDECODABLE):
        return None


def _head(elements: Iterator[Any]) -> list[Any]:
    """Return the elements of a message before its arguments.

    Raises: ProtocolViolation when there is no known type code; what reading `elements` raises.
    """
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
    """Turn the keys of all maps in `payload` into text.

    Raises: UnknownValue when a key can't be text, or a value is of an unknown type.
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
                raise UnknownValue("a value of an unknown type")
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
    """A value of an unknown MessagePack extension type, or with an unknown CBOR tag.

    It may occur in options, where it is ignored, but not in arguments.
    """

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
    """Return a map whose keys are all text.

    Raises: TypeError when a key isn't text.
    """
    "".join(container)
    return container


def _known_entries(options: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the options, without those that have values of unknown types.

    Some JavaScript clients send such options.
    """
    return ((key, value) for key, value in options.items() if type(value) is not Extension)


def _known(value: Any) -> Any:
    """Return the value of an option without unknown values in it; integer keys become text."""
    if type(value) is list:
        return [_known(item) for item in value]
    if type(value) is dict:
        return {
            str(key): _known(item)
            for key, item in _known_entries(value)
            if type(key) is str or type(key) is int
        }
    return None if type(value) is Extension else value
