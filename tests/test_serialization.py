"""Messages, formats, framings, ids, URIs and challenges: everything that needs no I/O."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import re
import struct
import types
import typing
import uuid
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import cbor2
import msgpack
import msgspec
import pydantic
import pytest

from serverwamp import uris
from serverwamp.errors import ProtocolViolation, SerializationError
from serverwamp.protocol import ids
from serverwamp.protocol.auth import cra
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import (
    BY_CODE,
    Abort,
    Authenticate,
    Call,
    CallOptions,
    Error,
    Event,
    Goodbye,
    Hello,
    Message,
    Options,
    Publish,
    Result,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Welcome,
)
from serverwamp.protocol.serializers import (
    SUBPROTOCOLS,
    EncodedOnce,
    Serializer,
    serializer_for,
)
from serverwamp.router.features import OF_EVERY_DEALER
from tests.malformed import MESSAGE_CLASSES, malformed, well_formed

EXAMPLES = json.loads((Path(__file__).parent / "data" / "worked_examples.json").read_text("utf-8"))
JSON, MSGPACK, CBOR = "wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"
FORMATS = (JSON, MSGPACK, CBOR)


@pytest.fixture(params=FORMATS)
def serializer(request: pytest.FixtureRequest) -> Serializer:
    return serializer_for(request.param)


def raw(serializer: Serializer, message: Any) -> Unit:
    """Encode any list by other means than those under test."""
    if serializer.frame_type is str:
        return json.dumps(message)
    packed: bytes = (cbor2.dumps if serializer.subprotocol == CBOR else msgpack.packb)(message)
    return packed


def unraw(unit: Unit) -> Any:
    if isinstance(unit, str):
        return json.loads(unit)
    return (cbor2.loads if unit[0] < 0x90 else msgpack.unpackb)(unit)  # arrays begin so


# ---- messages


@pytest.mark.spec("MSG-01")
def test_codes_and_lengths() -> None:
    lengths = {}
    for cls in MESSAGE_CLASSES:
        fields = msgspec.structs.fields(cls)
        lengths[cls.__name__] = (
            well_formed(cls)[0],
            1 + sum(field.required for field in fields),
            1 + len(fields),
        )
    assert lengths == {
        "Hello": (1, 3, 3),
        "Welcome": (2, 3, 3),
        "Abort": (3, 3, 5),
        "Challenge": (4, 3, 3),
        "Authenticate": (5, 3, 3),
        "Goodbye": (6, 3, 3),
        "Error": (8, 5, 7),
        "Publish": (16, 4, 6),
        "Published": (17, 3, 3),
        "Subscribe": (32, 4, 4),
        "Subscribed": (33, 3, 3),
        "Unsubscribe": (34, 3, 3),
        "Unsubscribed": (35, 2, 2),
        "Event": (36, 4, 6),
        "Call": (48, 4, 6),
        "Cancel": (49, 3, 3),
        "Result": (50, 3, 5),
        "Register": (64, 4, 4),
        "Registered": (65, 3, 3),
        "Unregister": (66, 3, 3),
        "Unregistered": (67, 2, 2),
        "Invocation": (68, 4, 6),
        "Interrupt": (69, 3, 3),
        "Yield": (70, 3, 5),
    }
    assert {code: cls.__name__ for code, cls in BY_CODE.items()} == {
        code: name for name, (code, _, _) in lengths.items()
    }


@pytest.mark.spec("MSG-01", "SER-02", "SER-03", "SER-04", "SER-05")
@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
def test_a_well_formed_message_is_decoded(cls: type[Message], serializer: Serializer) -> None:
    message = serializer.decode(raw(serializer, well_formed(cls)))
    assert type(message) is cls
    assert message.wire()[0] == well_formed(cls)[0]


@pytest.mark.spec("MSG-02", "MSG-04", "MSG-07", "SER-10", "IDS-01", "IDS-09")
@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
def test_a_malformed_message_is_a_violation(cls: type[Message], serializer: Serializer) -> None:
    for what, message in malformed(cls, binary=serializer.frame_type is bytes):
        with pytest.raises(ProtocolViolation) as violation:
            pytest.fail(f"{what}: {serializer.decode(raw(serializer, message))}")
        assert violation.value.close_code == 1002
        assert violation.value.uri == "wamp.error.protocol_violation"


@pytest.mark.spec("MSG-03")
@pytest.mark.parametrize("code", [256, 337, 1023])
def test_extensions_are_unknown_here(code: int, serializer: Serializer) -> None:
    with pytest.raises(ProtocolViolation):
        serializer.decode(raw(serializer, [code, 1, {}]))


@pytest.mark.spec("SER-13", "SER-14", "MSG-08", "T-09", "ABT-02", "T-11")
@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (Welcome(7, {"roles": {}}), [2, 7, {"roles": {}}]),
        (Abort({"message": "no"}, "a.b"), [3, {"message": "no"}, "a.b"]),
        (Goodbye({}, "a.b"), [6, {}, "a.b"]),
        (Subscribed(1, 2), [33, 1, 2]),
        (Unsubscribed(1), [35, 1]),
        (Result(1, {}), [50, 1, {}]),
        (Result(1, {}, (), {}), [50, 1, {}]),
        (Result(1, {}, (1,)), [50, 1, {}, [1]]),
        (Result(1, {}, (1,), {}), [50, 1, {}, [1]]),
        (Result(1, {}, (), {"a": 1}), [50, 1, {}, [], {"a": 1}]),
        (Result(1, {}, None, {"a": 1}), [50, 1, {}, [], {"a": 1}]),
        (Result(1, {"progress": True}, (1,), {"a": 1}), [50, 1, {"progress": True}, [1], {"a": 1}]),
        (Result(1, {}, (None,)), [50, 1, {}, [None]]),
        (Error(48, 1, {}, "a.b"), [8, 48, 1, {}, "a.b"]),
        (Error(48, 1, {}, "a.b", ("x",), {"k": 2}), [8, 48, 1, {}, "a.b", ["x"], {"k": 2}]),
        (Event(1, 2, {}), [36, 1, 2, {}]),
        (Event(1, 2, {}, [], {"k": "v"}), [36, 1, 2, {}, [], {"k": "v"}]),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_empty_payload_is_left_out(
    message: Message, wire: list[Any], serializer: Serializer
) -> None:
    assert unraw(serializer.encode(message)) == wire


def test_messages_cant_be_changed() -> None:
    message = Goodbye({}, "a.b")
    with pytest.raises(AttributeError):
        message.reason = "c.d"  # type: ignore[misc]


@pytest.mark.spec("AUT-08")
def test_a_signature_stays_out_of_logs() -> None:
    assert "secret" not in repr(Authenticate("secret", {}))


@pytest.mark.spec("MSG-05")
def test_unknown_options_are_ignored_and_null_is_absent(serializer: Serializer) -> None:
    options = {"timeout": None, "x": 1, "progress": False, "_ours": {"a": [1]}, "UPPER": None}
    message = serializer.decode(raw(serializer, [48, 1, options, "a.b"]))
    assert message == Call(1, CallOptions(progress=False), "a.b")


@pytest.mark.spec("MSG-06")
def test_the_names_of_options_and_features() -> None:
    options = {
        field.name for cls in Options.__subclasses__() for field in msgspec.structs.fields(cls)
    }
    assert len(options) > 20
    for name in options | {*OF_EVERY_DEALER}:
        assert re.fullmatch("[a-z][a-z0-9_]{2,}", name), name


@pytest.mark.spec("SES-03", "SES-11", "T-17", "T-27")
def test_a_hello_as_clients_send_it(serializer: Serializer) -> None:
    hello = [
        1,
        "realm1",
        {
            "roles": {
                "caller": {"features": {"call_canceling": True, "x_unknown": False}},
                "subscriber": {},
                "publisher": {"features": None},
                "performer": {"features": {}},
            },
            "agent": "Wampy.js v8.0.2",
            "authid": None,
            "authmethods": ["wampcra", "ticket"],
            "authextra": {"trustroot": None, "channel_binding": None},
        },
    ]
    message = serializer.decode(raw(serializer, hello))
    assert isinstance(message, Hello)
    assert set(message.details.roles or ()) == {"caller", "subscriber", "publisher", "performer"}
    assert message.details.authmethods == ["wampcra", "ticket"]
    assert message.details.authid is None


# ---- binary in JSON


BINARY = bytes.fromhex(EXAMPLES["json_binary"]["bytes_hex"])


@pytest.mark.spec("SER-06", "SER-07", "SER-09")
def test_binary_as_worked_out() -> None:
    example = EXAMPLES["json_binary"]
    call = Call(3, CallOptions(), "com.myapp.bin", [BINARY])
    json_, msgpack_, cbor = map(serializer_for, FORMATS)
    assert json_.decode(example["call_json"]) == call
    assert msgpack_.decode(bytes.fromhex(example["call_msgpack_hex"])) == call
    assert cbor.decode(bytes.fromhex(example["call_cbor_hex"])) == call
    assert json_.encode(Result(1, {}, [BINARY])) == f"[50,1,{{}},[{example['json_text']}]]"
    assert json_.encode(Result(1, {}, [b""])) == f"[50,1,{{}},[{example['empty_json_text']}]]"
    assert msgpack_.encode(Result(1, {}, [BINARY])) == b"\x94\x32\x01\x80\x91\xc4\x10" + BINARY
    assert cbor.encode(Result(1, {}, [BINARY])) == b"\x84\x18\x32\x01\xa0\x81\x50" + BINARY


@pytest.mark.spec("SER-07", "SER-09", "T-10")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\u0000"', b""),
        (r'"\u0000AA=="', b"\0"),
        (r'"\u0000+/+/"', b"\xfb\xff\xbf"),
        (r'"a\u0000AA=="', "a\0AA=="),
        (r'"\\u0000AA=="', r"\u0000AA=="),
        (r'{"a":[{"b":"\u0000AA=="}]}', {"a": [{"b": b"\0"}]}),
        (r'{"\u0000AA==":1}', {"\0AA==": 1}),
        (r'"é\u0000"', "é\0"),
        ('"AA=="', "AA=="),
    ],
)
def test_only_text_that_starts_with_nul_is_binary(text: str, value: Any) -> None:
    decode = serializer_for(JSON).decode
    assert decode(f'[48,1,{{}},"a.b",[{text}]]').args == [value]  # type: ignore[attr-defined]
    by_name = decode(f'[48,1,{{}},"a.b",[],{{"x":{text}}}]')
    assert by_name.kwargs == {"x": value}  # type: ignore[attr-defined]


@pytest.mark.spec("SER-06", "MSG-09")
@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 256, 65536])
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview], ids=lambda wrap: wrap.__name__)
def test_binary_comes_back(size: int, wrap: Callable[[bytes], Any], serializer: Serializer) -> None:
    data = bytes(i % 256 for i in range(size))
    unit = serializer.encode(Result(1, {}, [{"deep": [wrap(data)]}]))
    assert serializer.decode(unit) == Result(1, {}, [{"deep": [data]}])


def test_text_in_options_is_never_binary() -> None:
    unit = r'[4,"ticket",{"x":"\u0000!"}]'
    message = serializer_for(JSON).decode(unit)
    assert message.extra == {"x": "\0!"}  # type: ignore[attr-defined]


# ---- values


@dataclasses.dataclass
class Point:
    x: int
    y: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    name: str
    inner: Point


class Record(msgspec.Struct):
    id: int
    tags: set[str]


class Model(pydantic.BaseModel):
    id: int
    when: datetime.datetime
    inner: Point | None = None


@attrs.define
class Described:
    id: int
    inner: Any


class Pair(typing.NamedTuple):
    left: int
    right: str


class Color(enum.Enum):
    RED = "red"
    GREEN = 2


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    def __str__(self) -> str:
        return "for people"


class Whole(int):
    pass


class Real(float):
    pass


UTC_TIME = datetime.datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.timezone.utc)
EAST = datetime.timezone(datetime.timedelta(hours=2))
UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
PLAIN: dict[str, tuple[Any, Any]] = {
    "None": (None, None),
    "bool": (True, True),
    "negative": (-5, -5),
    "float": (0.1, 0.1),
    "exponent": (1e22, 1e22),
    "text": ('päß \N{GRINNING FACE}\n"\\', 'päß \N{GRINNING FACE}\n"\\'),
    "tuple": ((1, (2,)), [1, [2]]),
    "set": ({1}, [1]),
    "frozenset": (frozenset(["a"]), ["a"]),
    "deque": (deque([1, 2]), [1, 2]),
    "datetime": (datetime.datetime(2024, 1, 2, 3, 4, 5), "2024-01-02T03:04:05"),
    "UTC": (UTC_TIME, "2024-01-02T03:04:05.678000Z"),
    "time zone": (
        datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=EAST),
        "2024-01-02T03:04:05+02:00",
    ),
    "date": (datetime.date(2024, 1, 2), "2024-01-02"),
    "time": (datetime.time(1, 2, 3), "01:02:03"),
    "timedelta": (datetime.timedelta(days=1, seconds=2), "P1DT2S"),
    "UUID": (UUID, str(UUID)),
    "Decimal": (Decimal("1.10"), "1.10"),
    "Enum of text": (Color.RED, "red"),
    "Enum of int": (Color.GREEN, 2),
    "IntEnum": (Level.HIGH, 3),
    "StrEnum": (Word.YES, "yes"),
    "Flag": (Access.READ | Access.WRITE, 3),
    "dataclass": (Point(1, (2, None)), {"x": 1, "y": [2, None]}),
    "nested dataclass": (
        Slotted("a", Point(1, {Color.RED: {UUID}})),
        {"name": "a", "inner": {"x": 1, "y": {"red": [str(UUID)]}}},
    ),
    "struct": (Record(1, {"a"}), {"id": 1, "tags": ["a"]}),
    "pydantic": (
        Model(id=1, when=UTC_TIME),
        {"id": 1, "when": "2024-01-02T03:04:05.678000Z", "inner": None},
    ),
    "attrs": (Described(1, Described(2, Level.HIGH)), {"id": 1, "inner": {"id": 2, "inner": 3}}),
    "NamedTuple": (Pair(1, "x"), [1, "x"]),
    "OrderedDict": (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "defaultdict": (defaultdict(int, a=1), {"a": 1}),
    "Counter": (Counter("aab"), {"a": 2, "b": 1}),
    "mappingproxy": (types.MappingProxyType({"a": Point(1, 2)}), {"a": {"x": 1, "y": 2}}),
    "ChainMap": (ChainMap({"a": 1}, {"b": 2}), {"b": 2, "a": 1}),
    "subclass of str": (Text("for machines"), "for machines"),
    "subclass of int": (Whole(3), 3),
    "subclass of float": (Real(1.5), 1.5),
    "int keys": ({1: 2, -3: {4: 5}}, {"1": 2, "-3": {"4": 5}}),
    "float keys": ({1.5: 2}, {"1.5": 2}),
    "UUID keys": ({UUID: 2}, {str(UUID): 2}),
    "date keys": ({datetime.date(2024, 1, 2): 3}, {"2024-01-02": 3}),
    "enum keys": ({Color.RED: 1, Level.HIGH: 2, Word.YES: 3}, {"red": 1, "3": 2, "yes": 3}),
    "mixed keys": ({"a": 1, 2: Point(3, {4: 5})}, {"a": 1, "2": {"x": 3, "y": {"4": 5}}}),
    "all at once": (
        [{"a": (Point(1, [Model(id=2, when=UTC_TIME, inner=Point(3, set()))]), {Color.GREEN: 4})}],
        [
            {
                "a": [
                    {
                        "x": 1,
                        "y": [
                            {
                                "id": 2,
                                "when": "2024-01-02T03:04:05.678000Z",
                                "inner": {"x": 3, "y": []},
                            }
                        ],
                    },
                    {"2": 4},
                ]
            }
        ],
    ),
}


@pytest.mark.spec("SER-02", "MSG-09")
@pytest.mark.parametrize(("value", "plain"), PLAIN.values(), ids=PLAIN)
def test_values_are_the_same_in_every_format(
    value: Any, plain: Any, serializer: Serializer
) -> None:
    by_position = unraw(serializer.encode(Result(1, {}, (value, "after"))))
    assert by_position == [50, 1, {}, [plain, "after"]]
    by_name = unraw(serializer.encode(Event(1, 2, {}, (), {"value": [value]})))
    assert by_name == [36, 1, 2, {}, [], {"value": [plain]}]


def test_nul_is_text_where_binary_has_a_type_of_its_own() -> None:
    for name in (MSGPACK, CBOR):
        unit = serializer_for(name).encode(Result(1, {}, ["\0AA=="]))
        assert unraw(unit) == [50, 1, {}, ["\0AA=="]]


class Opaque:
    pass


class Failing:
    def model_dump(self, mode: str, by_alias: bool) -> Any:
        raise LookupError("no such field")


def endless() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


UNSENDABLE: dict[str, Any] = {
    "object": Opaque(),
    "class": Opaque,
    "model class": Model,
    "function": len,
    "exception": ValueError("inside"),
    "complex": 1j,
    "generator": (i for i in (1,)),
    "object in a dataclass": Point(1, Opaque()),
    "object in a struct": [{"a": Record(1, {Opaque()})}],  # type: ignore[arg-type]
    "object in a model": Failing(),
    "lone surrogate": "\ud800",
    "lone surrogate in a key": {"\ud800": 1},
    "lone surrogate in a dataclass": Point(1, "\udfff"),
    "endless list": endless(),
    "tuple as a key": {(1, 2): 3},
    "bytes as a key": {b"a": 1},
    "object as a key": {Opaque(): 1},
}


@pytest.mark.spec("SER-10", "SER-11", "SER-12", "T-10")
@pytest.mark.parametrize("value", UNSENDABLE.values(), ids=UNSENDABLE)
def test_what_cant_be_sent_is_an_error(value: Any, serializer: Serializer) -> None:
    for payload in ([value], [{"a": [value]}]):
        with pytest.raises(SerializationError):
            serializer.encode(Result(1, {}, payload))
    assert unraw(serializer.encode(Result(1, {}, ["next"]))) == [50, 1, {}, ["next"]]


def not_finite(number: float) -> Iterator[Any]:
    yield number
    yield [None, {"a": (number,)}]
    yield {number}
    yield Point(1, [None, number])
    yield Described(1, {"a": number})
    yield types.MappingProxyType({"a": number})
    yield deque([number])
    yield Real(number)
    yield [Decimal("NaN"), {1: number}]


@pytest.mark.spec("SER-11", "T-10")
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_nan(number: float) -> None:
    serializer = serializer_for(JSON)
    for value in not_finite(number):
        with pytest.raises(SerializationError):
            pytest.fail(f"{value!r}: {serializer.encode(Result(1, {}, [value]))!r}")
    for name in (MSGPACK, CBOR):
        packed = serializer_for(name).encode(Result(1, {}, [number]))
        assert str(unraw(packed)[3][0]) == str(number)


@pytest.mark.spec("SER-11")
def test_null_beside_numbers_is_no_nan() -> None:
    unit = serializer_for(JSON).encode(Result(1, {}, [None, 1.5, {"null": Point(1, None)}, "null"]))
    assert unit == '[50,1,{},[null,1.5,{"null":{"x":1,"y":null}},"null"]]'


@pytest.mark.spec("SER-11", "T-29")
@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64 - 1, -(2**63)])
def test_big_integers(number: int, serializer: Serializer) -> None:
    unit = serializer.encode(Result(1, {}, [number, {"a": number}]))
    assert serializer.decode(unit) == Result(1, {}, [number, {"a": number}])


@pytest.mark.spec("SER-11", "T-29")
@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**40])
def test_integers_beyond_64_bits(number: int) -> None:
    json_ = serializer_for(JSON)
    unit = json_.encode(Result(1, {}, [number, b"\0", Point(1, number)]))
    assert unit == f'[50,1,{{}},[{number},"\\u0000AA==",{{"x":1,"y":{number}}}]]'
    assert json_.decode(f"[50,1,{{}},[{number}]]") == Result(1, {}, [number])
    cbor = serializer_for(CBOR)
    assert cbor.decode(cbor.encode(Result(1, {}, [number]))) == Result(1, {}, [number])
    with pytest.raises(SerializationError):
        serializer_for(MSGPACK).encode(Result(1, {}, [number]))


def test_numbers_exactly_as_written() -> None:
    serializer = serializer_for(JSON)
    unit = r'[48,1,{},"a",[0.10,1e2,3,"\u0000AA=="],{"x":1.10}]'
    args, kwargs = serializer.format.exact_payload(unit, serializer.decode(unit))
    assert [str(value) for value in args[:2]] == ["0.10", "1E+2"]
    assert args[2:] == [3, b"\0"]
    assert str(kwargs["x"]) == "1.10"
    for unit in ('[48,1,{},"a"]', '[48,1,{},"a",null]', '[48,1,{},"a",[]]'):
        assert serializer.format.exact_payload(unit, serializer.decode(unit)) in (
            ((), {}),
            ([], {}),
        )


@pytest.mark.spec("SER-03")
def test_json_is_compact_utf_8_text() -> None:
    unit = serializer_for(JSON).encode(Error(48, 1, {}, "a.b", ["ß", {1: 2**70, "é": "\n"}]))
    assert unit == f'[8,48,1,{{}},"a.b",["ß",{{"1":{2**70},"é":"\\n"}}]]'


# ---- ids as JavaScript sends them


@pytest.mark.spec("IDS-09", "T-26")
def test_integral_floats_are_ids(serializer: Serializer) -> None:
    message = serializer.decode(raw(serializer, [34, 1.0, 9007199254740992.0]))
    assert message == Unsubscribe(1, 2**53)
    assert type(message.subscription) is int  # type: ignore[attr-defined]
    call = serializer.decode(raw(serializer, [48, 5512315355.0, {}, "a.b", [2.0]]))
    assert call == Call(5512315355, CallOptions(), "a.b", [2.0])
    assert type(call.args[0]) is float  # type: ignore[attr-defined]


@pytest.mark.parametrize("id_", ["1", True, 1.5, 0.0, -1.0, 2.0**54, 1e300, None, [1.0]], ids=str)
def test_other_values_are_no_ids(id_: Any, serializer: Serializer) -> None:
    for message in ([34, id_, 1.0], [34, 1.0, id_]):
        with pytest.raises(ProtocolViolation):
            serializer.decode(raw(serializer, message))


# ---- batches


MESSAGES = [tuple(message) for message in EXAMPLES["batched"]["messages"]]


@pytest.mark.spec("BAT-01", "BAT-02", "BAT-03", "BAT-07")
@pytest.mark.parametrize(
    ("subprotocol", "key"),
    [
        ("wamp.2.json.batched", "json_hex"),
        ("wamp.2.msgpack.batched", "msgpack_hex"),
        ("wamp.2.cbor.batched", "cbor_hex"),
    ],
)
def test_a_batch_as_worked_out(subprotocol: str, key: str) -> None:
    serializer = serializer_for(subprotocol)
    data = bytes.fromhex(EXAMPLES["batched"][key])
    frame = data.decode() if serializer.frame_type is str else data
    units = serializer.split(frame)
    publish, call = map(serializer.decode, units)
    assert isinstance(publish, Publish)
    assert (publish.request, publish.topic, publish.args) == (1, "com.myapp.t", ["hi"])
    assert isinstance(call, Call)
    assert (call.request, call.procedure, call.args) == (2, "com.myapp.add2", [23, 7])
    assert serializer.join(units) == frame
    one = serializer.join(units[:1])
    assert serializer.split(one) == list(units[:1])
    assert frame[: len(one)] == one


@pytest.mark.spec("BAT-01", "T-01")
def test_a_client_with_another_terminator_gets_it_back() -> None:
    serializer = serializer_for("wamp.2.json.batched")
    assert serializer.join(['["first"]']) == '["first"]\x1e'
    frame = bytes.fromhex(EXAMPLES["batched"]["json_hex_other_terminator"]).decode()
    units = serializer.split(frame)
    assert [serializer.decode(unit).request for unit in units] == [1, 2]  # type: ignore[attr-defined]
    assert serializer.join(units) == frame
    assert serializer_for("wamp.2.json.batched").join(["[]"]) == "[]\x1e"


@pytest.mark.spec("BAT-04", "BAT-05")
@pytest.mark.parametrize("frame", ["", "[48]", "[48]\x1e[48]", "[48]\n", "[48]\x18[48]"])
def test_text_that_is_no_batch(frame: str) -> None:
    with pytest.raises(ProtocolViolation):
        serializer_for("wamp.2.json.batched").split(frame)


@pytest.mark.spec("BAT-04", "BAT-05")
@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0",
        b"\0\0\0",
        b"\0\0\0\1",
        b"\0\0\0\2x",
        b"\0\0\0\1xy",
        b"\0\0\0\1x\0\0\0",
        b"\xff\xff\xff\xffx",
    ],
)
def test_octets_that_are_no_batch(frame: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        serializer_for("wamp.2.msgpack.batched").split(frame)


@pytest.mark.spec("BAT-02")
def test_the_length_is_that_of_the_message_alone() -> None:
    units = [b"a" * size for size in (1, 255, 256, 70_000)]
    frame = serializer_for("wamp.2.msgpack.batched").join(units)
    assert isinstance(frame, bytes)
    assert frame.startswith(struct.pack(">I", 1) + b"a" + struct.pack(">I", 255) + b"a")
    assert serializer_for("wamp.2.msgpack.batched").split(frame) == units


@pytest.mark.spec("WS-02", "WS-03", "WS-07")
def test_the_subprotocols() -> None:
    assert SUBPROTOCOLS == (
        "wamp.2.json",
        "wamp.2.msgpack",
        "wamp.2.cbor",
        "wamp.2.json.batched",
        "wamp.2.msgpack.batched",
        "wamp.2.cbor.batched",
    )
    for name in SUBPROTOCOLS:
        serializer = serializer_for(name)
        assert serializer.subprotocol == name
        assert serializer.batched is name.endswith("batched")
        assert serializer.frame_type is (str if "json" in name else bytes)
    for name in ("wamp.2.ubjson", "WAMP.2.JSON", "wamp.2.json ", "wamp.1", ""):
        with pytest.raises(KeyError):
            serializer_for(name)


def test_a_message_to_many_is_encoded_once() -> None:
    class Once:
        count = 0

        def model_dump(self, mode: str, by_alias: bool) -> Any:
            Once.count += 1
            return {"a": 1}

    event = EncodedOnce(Event(1, 2, {}, [Once()]))
    plain, batched = serializer_for("wamp.2.json"), serializer_for("wamp.2.json.batched")
    assert event[plain.format] is event[batched.format]
    assert Once.count == 1


# ---- ids


@pytest.mark.spec("IDS-01", "IDS-02", "SES-07")
def test_global_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    for new_id in (ids.new_session_id, ids.new_publication_id):
        drawn = {new_id() for _ in range(1000)}
        assert len(drawn) == 1000
        assert all(1 <= id_ <= 2**53 for id_ in drawn)
        assert max(drawn) > 2**52, "half of the range is above"
    monkeypatch.setattr(ids.secrets, "token_bytes", lambda n: b"\xff" * n)
    monkeypatch.setattr(ids.random, "getrandbits", lambda n: 2**n - 1)
    assert ids.new_session_id() == ids.new_publication_id() == 2**53
    monkeypatch.setattr(ids.secrets, "token_bytes", lambda n: b"\0" * n)
    monkeypatch.setattr(ids.random, "getrandbits", lambda n: 0)
    assert ids.new_session_id() == ids.new_publication_id() == 1


# ---- URIs


VALID = ["a", "com.example.add", "com.example-1.Add_2", "ü.ß", "a.b/c:d?e=f", "1.2.3", "wamp.x"]
INVALID = [
    " ",
    "a b",
    "a.b ",
    "\ta",
    "a\n",
    "a.b\n",
    "a#b",
    "#",
    "a\u00a0b",
    "a\u2028b",
    "a\x1fb",
    "a.b\r\n",
]


@pytest.mark.spec("URI-01", "URI-02", "URI-04", "URI-05", "T-18")
def test_valid_and_invalid_uris() -> None:
    policies = ("exact", "prefix", "wildcard")
    for uri in VALID:
        assert all(uris.is_valid_uri(uri, match) for match in policies), uri
    for uri in INVALID:
        assert not any(uris.is_valid_uri(uri, match) for match in policies), uri


@pytest.mark.spec("URI-02", "URI-05")
@pytest.mark.parametrize(
    ("uri", "exact", "prefix", "wildcard"),
    [
        ("", False, True, True),
        (".", False, False, True),
        ("a.", False, True, True),
        ("a.b.", False, True, True),
        (".a", False, False, True),
        ("a..b", False, False, True),
        ("a...", False, False, True),
        ("..", False, False, True),
    ],
)
def test_empty_components(uri: str, exact: bool, prefix: bool, wildcard: bool) -> None:
    assert uris.is_valid_uri(uri) is exact
    assert uris.is_valid_uri(uri, "prefix") is prefix
    assert uris.is_valid_uri(uri, "wildcard") is wildcard


@pytest.mark.spec("URI-04", "T-18")
@pytest.mark.timeout(10)
def test_the_check_takes_no_time_on_hostile_uris() -> None:
    hostile = {
        "a." * 100_000: (False, True, True),
        "." * 200_000: (False, False, True),
        "a" * 200_000 + " ": (False, False, False),
        "." * 200_000 + "#": (False, False, False),
        "a." * 100_000 + "\n": (False, False, False),
    }
    for uri, valid in hostile.items():
        policies = ("exact", "prefix", "wildcard")
        assert tuple(uris.is_valid_uri(uri, match) for match in policies) == valid


@pytest.mark.spec("URI-06")
def test_reserved_uris() -> None:
    assert all(map(uris.is_reserved, ("wamp", "wamp.", "wamp.error.x", "wamp..x")))
    assert not any(map(uris.is_reserved, ("wampus.x", "com.wamp.x", "Wamp.x", "")))


@pytest.mark.spec("URI-02", "URI-09")
def test_predefined_uris_are_valid() -> None:
    predefined = [
        value for name, value in vars(uris).items() if name.isupper() and "wamp." in value
    ]
    assert len(predefined) > 15
    assert all(uris.is_valid_uri(uri) for uri in predefined if uri != uris.RESERVED_PREFIX)


# ---- challenges

CRA = EXAMPLES["cra"]


@pytest.mark.spec("CRA-03", "CRA-04", "CRA-07", "T-02")
@pytest.mark.parametrize("example", CRA.values(), ids=CRA)
def test_signatures_as_worked_out(example: dict[str, Any]) -> None:
    secret, challenge = example["secret"], example["challenge"]
    if "salt" in example:
        secret = cra.derive_cra_secret(
            secret, example["salt"], example["iterations"], example["keylen"]
        )
        assert secret == example["hmac_key_ascii"]
    assert cra.cra_signature(secret, challenge) == example["signature"]
    assert cra.cra_signature(secret.encode(), challenge) == example["signature"]
    assert cra.is_signature_of(secret, challenge, example["signature"])


@pytest.mark.spec("CRA-03", "CRA-04", "T-02")
def test_what_the_key_isnt() -> None:
    example = CRA["reproduced"]
    for key in (example["secret"], bytes.fromhex(example["derived_key_hex"])):
        assert not cra.is_signature_of(key, example["challenge"], example["signature"])


@pytest.mark.spec("CRA-06", "AUT-08")
@pytest.mark.parametrize(
    "mangle",
    [
        lambda s: "",
        lambda s: s[:-1],
        lambda s: s + "=",
        lambda s: s.lower(),
        lambda s: " " + s,
        lambda s: s + "\n",
        lambda s: "é" + s,
        lambda s: "\ud800",
        lambda s: s + "\0",
        lambda s: s.replace("=", ""),
    ],
)
def test_a_signature_is_compared_whole(
    mangle: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    compare = cra.hmac.compare_digest

    def note(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(cra.hmac, "compare_digest", note)
    example = CRA["unsalted"]
    mangled = mangle(example["signature"])
    assert not cra.is_signature_of(example["secret"], example["challenge"], mangled)
    assert len(compared) == 1, "the comparison takes constant time"


@pytest.mark.spec("CRA-02")
def test_the_challenge() -> None:
    text = cra.cra_challenge(
        session=2**53,
        authid="zoë",
        authrole="user",
        authprovider="static",
        nonce="abc",
        timestamp="2024-01-02T03:04:05.678Z",
    )
    assert "zoë" in text
    assert json.loads(text) == {
        "authid": "zoë",
        "authrole": "user",
        "authmethod": "wampcra",
        "authprovider": "static",
        "nonce": "abc",
        "timestamp": "2024-01-02T03:04:05.678Z",
        "session": 2**53,
    }
