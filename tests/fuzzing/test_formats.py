"""Messages through formats and framings, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import cbor2
import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverwamp.errors import LimitExceeded, ProtocolViolation, SerializationError
from serverwamp.protocol.cbor import CBOR
from serverwamp.protocol.formats import JSON, Format, MessagePack
from serverwamp.protocol.framings import Framing, PrefixedBatch, SeparatedBatch, Unbatched
from serverwamp.protocol.messages import BY_CODE, Message
from serverwamp.protocol.shapes import ShapeLimits
from tests.fuzzing.messages import CLASSES, broken, messages_of, noise, plain_texts, plain_values

FORMATS: Mapping[str, Format] = {"json": JSON(), "msgpack": MessagePack(), "cbor": CBOR()}
ENCODERS: Mapping[str, Callable[[Any], str | bytes]] = {
    "json": json.dumps,
    "msgpack": msgpack.packb,
    "cbor": cbor2.dumps,
}
payload = st.recursive(
    plain_values | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_texts, inner, max_size=3),
    max_leaves=5,
)


def as_sent(message: Any) -> Any:
    """Return a message as plain lists and dicts, without what is empty at its end."""
    return msgspec.to_builtins(message.wire(), builtin_types=(bytes,))


@pytest.mark.parametrize("format_", FORMATS.values(), ids=FORMATS)
@given(raw=st.one_of(*(messages_of(cls, plain_values, plain_texts, payload) for cls in CLASSES)))
def test_what_is_encoded_is_decoded(format_: Format, raw: list[Any]) -> None:
    message: Message = msgspec.convert(raw, BY_CODE[raw[0]])
    assert as_sent(format_.decode(format_.encode(message))) == as_sent(message)


plain_messages = st.one_of(
    *(messages_of(cls, plain_values, plain_texts, plain_values) for cls in CLASSES)
)


@given(raw=plain_messages | broken(plain_messages, plain_values, plain_texts))
def test_the_formats_agree(raw: Any) -> None:
    def decoded(format_: Format, unit: str | bytes) -> Any:
        try:
            return as_sent(format_.decode(unit))
        except ProtocolViolation:
            return ProtocolViolation

    from_json = decoded(FORMATS["json"], json.dumps(raw))
    assert from_json == decoded(FORMATS["msgpack"], msgpack.packb(raw))
    assert from_json == decoded(FORMATS["cbor"], cbor2.dumps(raw))


tagged_values = st.recursive(
    plain_values | st.binary(max_size=8) | st.sampled_from([cbor2.undefined, 2**70, -(2**80)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(plain_texts, inner, max_size=3)
        | st.builds(cbor2.CBORTag, st.integers(0, 300) | st.integers(0, 2**64 - 1), inner)
    ),
    max_leaves=8,
)
KNOWN_TYPES = (list, dict, str, bytes, int, float, bool, type(None), datetime, UUID)
KNOWN_TYPES += (date, Decimal, set)  # these are scalars, or hold only scalars


@given(args=st.lists(tagged_values, max_size=4))
def test_no_tag_makes_anything_but_known_values(args: list[Any]) -> None:
    try:
        message: Any = FORMATS["cbor"].decode(cbor2.dumps([48, 1, {}, "a", args]))
    except ProtocolViolation:
        return
    level = [message.args]
    for _ in range(10):  # what holds itself would go on for ever
        assert all(type(value) in KNOWN_TYPES for value in level)
        level = [
            item
            for value in level
            if isinstance(value, (list, dict))
            for item in (value.values() if isinstance(value, dict) else value)
        ]
    assert not level
    try:
        for format_ in FORMATS.values():
            format_.encode_wire((50, 1, {}, message.args))
    except SerializationError:
        pass


@pytest.mark.parametrize("format_", FORMATS.values(), ids=FORMATS)
@given(unit=noise)
def test_noise_is_a_violation_at_most(format_: Format, unit: str | bytes) -> None:
    if isinstance(unit, format_.frame_type):
        try:
            message = format_.decode(unit)
        except ProtocolViolation:
            return
        assert type(message) in CLASSES


@given(units=st.lists(st.text(min_size=1), min_size=1))
@pytest.mark.parametrize("separator", ["\x1e", "\x18"])
def test_separated_units(separator: str, units: list[str]) -> None:
    units = [unit.replace("\x1e", "").replace("\x18", "") for unit in units]
    framing = SeparatedBatch()
    frame = "".join(unit + separator for unit in units)
    assert list(framing.split(frame)) == units
    assert framing.join(units) == frame


@given(units=st.lists(st.binary(), min_size=1))
def test_prefixed_units(units: list[bytes]) -> None:
    framing = PrefixedBatch()
    assert list(framing.split(framing.join(units))) == units


@pytest.mark.parametrize("cls", [Unbatched, SeparatedBatch, PrefixedBatch])
@given(frame=noise)
def test_what_is_split_is_joined_again(cls: type[Framing], frame: str | bytes) -> None:
    if isinstance(frame, bytes if cls is PrefixedBatch else str):
        framing = cls()
        try:
            units = framing.split(frame)
        except ProtocolViolation:
            return
        assert framing.join(units) == frame


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth_of, inner), default=0) if isinstance(value, (list, dict)) else 0


def longest(kind: type[list[Any]] | type[dict[Any, Any]], value: Any) -> int:
    """Return the length of the longest array, or map, in `value`."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = len(value) if isinstance(value, kind) else 0
    return max([own, *(longest(kind, item) for item in inner)])


deep_values = st.recursive(
    st.none() | st.sampled_from(["[[[[[", "{,,,,,{", "\\", '"', ":::::", "\x92" * 9]),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=25,
)


@pytest.mark.parametrize("name", FORMATS)
@given(
    args=st.lists(deep_values, max_size=9),
    limits=st.tuples(st.integers(1, 7), st.integers(6, 12), st.integers(1, 8)),
)
def test_a_message_may_have_just_the_shape_that_is_allowed(
    name: str, args: list[Any], limits: tuple[int, int, int]
) -> None:
    raw = [48, 1, {}, "a", args]
    unit = ENCODERS[name](raw)
    shape = ShapeLimits(*limits)
    is_allowed = (
        depth_of(raw) <= shape.message_depth
        and longest(list, raw[1:]) <= shape.array_length
        and longest(dict, raw) <= shape.map_length
    )
    try:
        type(FORMATS[name])(shape).decode(unit)  # type: ignore[call-arg]
        was_decoded = True
    except LimitExceeded:
        was_decoded = False
    assert was_decoded == is_allowed
