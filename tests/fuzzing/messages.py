"""Strategies for messages, right and wrong, and for frames that were messages once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

from serverwamp.protocol.messages import BY_CODE, Message
from tests.fuzzing.peers import Frame, Peer
from tests.malformed import elements

URIS = ("add", "echo", "typed", "count", "news", "wamp.close.close_realm", "realm1", "a..b", "")
TEXTS = (*URIS, "caller", "roles", "mode", "kill", "ticket", "secret", "\0", "\0AAAA", "\ud800")
NUMBERS = (-1, 0, 1, 2, 2**53 - 1, 2**53 + 1, 2**63, 2**64 - 1, 2**64, 10**400, -(2**63) - 1)
LAST_ID = 2**53
"""Left to those that come after everything else: no message here has it."""

texts = (
    st.sampled_from(TEXTS)
    | st.text(max_size=8)
    | st.text(st.characters(), max_size=3)  # lone surrogates, too
    | st.text(max_size=4).map(lambda text: "\0" + text)
)
numbers = (
    st.sampled_from(NUMBERS)
    | st.integers().filter(lambda number: number != LAST_ID)
    | st.floats().filter(lambda number: number != LAST_ID)
)
leaves = st.none() | st.booleans() | numbers | texts | st.binary(max_size=8)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
plain_texts = st.text(max_size=8).filter(lambda text: not text.startswith("\0"))
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain_texts, inner, max_size=4),
    max_leaves=8,
)
"""What JSON and MessagePack can both hold, as they are."""


# ---- messages that fit their class


def fitting(
    kind: inspect.Type, inner: st.SearchStrategy[Any], strings: st.SearchStrategy[str]
) -> st.SearchStrategy[Any]:
    """Return a strategy for what fits a place in a message; `inner` for where everything does."""
    match kind:
        case inspect.UnionType(types=types):
            return st.one_of(*(fitting(one, inner, strings) for one in types))
        case inspect.AnyType():
            return inner
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=lowest):
            return st.integers(lowest or 0, 5) | st.integers(lowest or 0, LAST_ID - 1)
        case inspect.StrType():
            return strings
        case inspect.LiteralType(values=alternatives):
            return st.sampled_from(alternatives)
        case inspect.ListType(item_type=item):
            return st.lists(fitting(item, inner, strings), max_size=4)
        case inspect.DictType(value_type=value):
            return st.dictionaries(strings, fitting(value, inner, strings), max_size=4)
        case inspect.StructType(fields=fields):
            return st.fixed_dictionaries(
                {}, optional={f.name: fitting(f.type, inner, strings) for f in fields}
            )
    raise NotImplementedError(kind)


def messages_of(
    cls: type[Message],
    inner: st.SearchStrategy[Any],
    strings: st.SearchStrategy[str],
    payload: st.SearchStrategy[Any],
) -> st.SearchStrategy[list[Any]]:
    """Return a strategy for messages of a class, as the lists that go over the wire.

    `inner` is for what may be anything in options and details, and `payload` in the payload.
    """
    parts = [
        fitting(field.type, payload if field.name in ("args", "kwargs") else inner, strings)
        for field in elements(cls)
    ]
    required = sum(field.required for field in elements(cls))
    lengths = st.integers(required, len(parts))
    return st.tuples(lengths, *parts).map(lambda drawn: [cls.type_code, *drawn[1 : 1 + drawn[0]]])


hellos = st.tuples(
    st.just(1),
    st.sampled_from(["realm1", "guarded", "nowhere"]),
    st.fixed_dictionaries(
        {
            "roles": st.just({"caller": {}}),
            "authmethods": st.sampled_from([None, [], ["ticket"], ["wampcra", "ticket"]]),
        }
    ),
).map(list)
calls = st.tuples(
    st.just(48),
    st.integers(1, 5),
    st.sampled_from([{}, {"receive_progress": True}, {"timeout": 100_000_000}]),
    st.sampled_from(URIS),
    st.lists(values, max_size=3),
    st.dictionaries(st.sampled_from("abcde") | texts, values, max_size=3),
).map(list)
CLASSES = [BY_CODE[code] for code in sorted(BY_CODE)]
well_formed = st.one_of(
    hellos, calls, *(messages_of(cls, values, texts, values) for cls in CLASSES)
)


# ---- messages with something wrong in them


def broken(
    whole: st.SearchStrategy[Any], values: st.SearchStrategy[Any], texts: st.SearchStrategy[str]
) -> st.SearchStrategy[Any]:
    """Return a strategy for messages in which something is replaced, surplus, or missing."""

    @st.composite  # without arguments, whose names would be too long for Hypothesis
    def broken_message(draw: st.DrawFn) -> Any:
        message = copy.deepcopy(draw(whole))
        place: Any = message
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys)) if keys else None
            inside = place[key] if key is not None else None
            if not (isinstance(inside, (list, dict)) and inside and draw(st.booleans())):
                break
            place = inside
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace" if key is not None:
                place[key] = draw(values)
            case "remove" if key is not None:
                del place[key]
            case _ if isinstance(place, list):
                place.insert(draw(st.integers(0, len(place))), draw(values))
            case _:
                place[draw(texts)] = draw(values)
        return message

    return broken_message()


messages = well_formed | broken(well_formed, values, texts) | values


# ---- frames


def encoded(peer: Peer, message: Any) -> Frame:
    """Return anything as a unit, as well as the format can hold it."""
    try:
        return peer.encoded(message)
    except (OverflowError, ValueError, TypeError):  # numbers and bytes that MessagePack can't hold
        return peer.encoded(_within_range(message))


def _within_range(value: Any) -> Any:
    if isinstance(value, int):
        return max(-(2**63), min(value, 2**64 - 1))
    if isinstance(value, list):
        return [_within_range(item) for item in value]
    if isinstance(value, dict):
        return {_within_range(key): _within_range(item) for key, item in value.items()}
    return value


JUNK: Sequence[tuple[str, bytes]] = (
    ("[", b"\x91"),
    ('{"a":', b"\x81\xa1a"),
    ("]", b"\xc0"),
    ("1", b"\x01"),
    ('"\\u0000"', b"\xc4\x00"),
    ('"\\ud800"', b"\xa3\xed\xa0\x80"),
    ('"a":1,"a":2,', b"\x82\xa1a\x01\xa1a\x02"),
    ("\x1e", b"\0\0\0\x01"),
    ("\x18", b"\0\0\0\0"),
    ("1e999", b"\xcb\x7f\xf0\0\0\0\0\0\0"),
    ("NaN", b"\xc1"),
    ("9" * 5000, b"\xdf\xff\xff\xff\xff"),
    (",", b"\xd6\xff\0\0\0\0"),
    ("\0", b"\xd4\x05a"),
    ('"\ud800"', b"\xa1\xff"),
)


def put(frame: Frame, at: int, junk: tuple[str, bytes], times: int, replaced: int) -> Frame:
    """Return a frame with junk in it, in the place of some of it."""
    at %= len(frame) + 1
    if isinstance(frame, str):
        return frame[:at] + junk[0] * times + frame[at + replaced :]
    return frame[:at] + junk[1] * times + frame[at + replaced :]


def repeat(frame: Frame, at: int, length: int) -> Frame:
    """Return a frame of which a part is there twice."""
    at %= len(frame) + 1
    return frame[: at + length] + frame[at:]  # type: ignore[operator,return-value]


def cut(frame: Frame, at: int) -> Frame:
    """Return the beginning of a frame."""
    return frame[: at % (len(frame) + 1)]


def flip(frame: Frame, at: int, bit: int) -> Frame:
    """Return a frame with one bit turned."""
    at %= len(frame) or 1
    if isinstance(frame, str):
        return (
            frame[:at] + "".join(chr(ord(c) ^ (1 << bit)) for c in frame[at:][:1]) + frame[at:][1:]
        )
    return frame[:at] + bytes(octet ^ (1 << bit) for octet in frame[at:][:1]) + frame[at:][1:]


def other_kind(frame: Frame) -> Frame:
    """Return a text frame as a binary one, and the reverse."""
    if isinstance(frame, str):
        return frame.encode("utf-8", "surrogatepass")
    return frame.decode("latin-1")


positions = st.integers(0, 400)
mutations = st.one_of(
    st.builds(lambda at: lambda frame: cut(frame, at), positions),
    st.builds(lambda at, bit: lambda frame: flip(frame, at, bit), positions, st.integers(0, 7)),
    st.builds(lambda at, length: lambda frame: repeat(frame, at, length), positions, positions),
    st.builds(
        lambda at, junk, times, replaced: lambda frame: put(frame, at, junk, times, replaced),
        positions,
        st.sampled_from(JUNK),
        st.sampled_from([1, 2, 3000]),
        st.integers(0, 3),
    ),
    st.just(other_kind),
)
noise = st.text(st.characters(), max_size=30) | st.binary(max_size=30) | st.just('["\ud800"]')
utterances = st.one_of(
    st.tuples(st.lists(messages, min_size=1, max_size=3), st.just([])),
    st.tuples(st.lists(well_formed, min_size=1, max_size=3), st.lists(mutations, max_size=3)),
    st.tuples(st.just([]), st.lists(noise, min_size=1, max_size=1)),
)
"""Messages and what becomes of their frame, or a frame."""


def frames_of(peer: Peer, utterance: Any) -> list[Frame]:
    """Return the frames of an utterance in what a peer speaks."""
    said, changes = utterance
    if not said:
        return list(changes)
    units = [encoded(peer, message) for message in said]
    frames = [peer.framed(units)] if peer.is_batched else units
    for change in changes:
        frames[-1] = change(frames[-1])
    return frames
