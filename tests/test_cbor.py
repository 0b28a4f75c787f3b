"""CBOR: what its decoder and its encoder could be made to do, and aren't."""

from __future__ import annotations

import datetime
import subprocess
import sys
import uuid
from decimal import Decimal
from typing import Any

import cbor2
import pytest

from serverwamp import Application, Limits, RPCResult
from serverwamp.errors import InvalidPayload, ProtocolViolation, SerializationError
from serverwamp.protocol.messages import Result
from serverwamp.protocol.serializers import serializer_for
from serverwamp.testing import connect

CBOR = serializer_for("wamp.2.cbor")
CALL = b"\x85\x18\x30\x01\xa0\x64echo\x81"  # and one argument


def argument(encoded: bytes) -> Any:
    """Return what a CALL's only argument is decoded to."""
    message: Any = CBOR.decode(CALL + encoded)
    return message.args[0]


def application(**settings: Any) -> Application:
    app = Application(**settings)

    @app.route("echo")
    async def echo(*args: Any) -> RPCResult:
        return RPCResult(args)

    return app


@pytest.mark.spec("SER-05")
@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("c074323031332d30332d32315432303a30343a30305a", datetime.datetime(2013, 3, 21, 20, 4)),
        ("c11a514b67b0", datetime.datetime(2013, 3, 21, 20, 4)),
        ("c249010000000000000000", 2**64),
        ("c349010000000000000000", -(2**64) - 1),
        ("d82550" + "00" * 16, uuid.UUID(int=0)),
        ("d84043010203", b"\1\2\3"),
        ("f7", None),
        ("81a16161f7", [{"a": None}]),
        ("9f01ff", [1]),
        ("7f61616162ff", "ab"),
        ("fb3ff8000000000000", 1.5),
        ("c48221196ab3", Decimal("273.15")),
        ("d8641945e8", datetime.date(2018, 12, 31)),
        ("d903ec6a323031382d31322d3331", datetime.date(2018, 12, 31)),
        ("d9010283010263616263", {1, 2, "abc"}),
        ("a1016161", {"1": "a"}),
    ],
)
def test_what_values_become(encoded: str, value: Any) -> None:
    if isinstance(value, datetime.datetime):
        value = value.replace(tzinfo=datetime.UTC)
    assert argument(bytes.fromhex(encoded)) == value


@pytest.mark.parametrize(
    "tag", [4, 5, 24, 25, 28, 29, 30, 35, 36, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799]
)
@pytest.mark.parametrize("body", [1.5, "1", b"1", [1.5, 2], [[1], 2]], ids=str)
def test_a_tag_is_nobodys_order(tag: int, body: Any) -> None:
    if (tag, body) == (258, [1.5, 2]):
        assert argument(cbor2.dumps(cbor2.CBORTag(tag, body))) == {1.5, 2}
        return
    with pytest.raises(InvalidPayload):
        argument(cbor2.dumps(cbor2.CBORTag(tag, body)))


@pytest.mark.parametrize(
    "body",
    [
        cbor2.CBORTag(4, [1_000_000_000, 1]),
        cbor2.CBORTag(4, [-1_000_000_000, 1]),
        cbor2.CBORTag(4, [0, 10**5000]),
        cbor2.CBORTag(4, [True, 1]),
        cbor2.CBORTag(100, 10**12),
        cbor2.CBORTag(1004, "2020-13-01"),
        cbor2.CBORTag(258, [[1]]),
        cbor2.CBORTag(258, [2**80]),
        {2**80: 1},
        {1.5: 1},
        {None: 1},
        {1: "a", "1": "b"},
    ],
    ids=lambda _: "",
)
def test_values_that_are_refused(body: Any) -> None:
    with pytest.raises(InvalidPayload):
        argument(cbor2.dumps(body))


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (
            cbor2.dumps({1: "a" * 70_000, -2: b"b" * 70_000}),
            {"1": "a" * 70_000, "-2": b"b" * 70_000},
        ),
        (cbor2.dumps({n: [n] for n in range(20_000)}), {str(n): [n] for n in range(20_000)}),
        (bytes.fromhex("a101a138ffbf7f6161ff9f01ffff"), {"1": {"-256": {"a": [1]}}}),
        (
            bytes.fromhex("bf01bf02bf0304ff1b00000000000000055f4161ffffff"),
            {"1": {"2": {"3": 4}, "5": b"a"}},
        ),
        (bytes.fromhex("82a10182f6a10203a1190400f93c00"), [{"1": [None, {"2": 3}]}, {"1024": 1.0}]),
        (bytes.fromhex("a101c48221196ab3"), {"1": Decimal("273.15")}),
    ],
    ids=lambda _: "",
)
def test_integers_are_keys(encoded: bytes, value: Any) -> None:
    assert argument(encoded) == value


def test_keys_that_could_be_made_to_collide_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("serverwamp.protocol.cbor.UUID", lambda bytes: made.append(bytes))
    key = bytes.fromhex("d82550") + bytes(16)
    keys = (key + b"\x01") * 100
    for encoded in (b"\xb8\x64" + keys, b"\xa1\x01\xbf" + keys + b"\xff"):
        made.clear()
        with pytest.raises(InvalidPayload):
            argument(encoded)
        assert len(made) <= 1
    argument(b"\xa1\x01\x82" + key * 2)
    assert len(made) > 1


def test_no_list_holds_itself() -> None:
    with pytest.raises(InvalidPayload):
        argument(bytes.fromhex("d81c81d81d00"))


def test_no_text_is_multiplied() -> None:
    encoded = b"\xd9\x01\x00\x82\x79\x10\x00" + b"a" * 4096 + b"\x84" + b"\xd8\x19\x00" * 4
    with pytest.raises(InvalidPayload):
        argument(encoded)


@pytest.mark.parametrize("tail", [b"x", b"\xf6", b"\0" * 100_000])
def test_nothing_may_follow_a_message(tail: bytes) -> None:
    CBOR.decode(CALL + b"\x01")
    with pytest.raises(ProtocolViolation):
        CBOR.decode(CALL + b"\x01" + tail)


def test_keys_are_text() -> None:
    for key in (b"\xf6", b"\x80", b"\xf9\x00\x00", b"\xd8\x63\x01", b"\xf7"):
        with pytest.raises(ProtocolViolation):
            argument(b"\xa1" + key + b"\x01")


NESTED = """
from serverwamp.errors import SerializationError
from serverwamp.protocol.serializers import serializer_for

value = []
for _ in range({depth}):
    value = [value]
try:
    serializer_for("wamp.2.cbor").encode_wire((50, 1, {{}}, [value]))
except SerializationError:
    print("refused")
"""


@pytest.mark.parametrize("depth", [500, 5_000, 100_000])
def test_what_is_nested_too_deeply_doesnt_end_the_process(depth: int) -> None:
    script = NESTED.format(depth=depth)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30)
    assert run.stdout == b"refused\n"


def test_views_are_binary() -> None:
    assert cbor2.loads(CBOR.encode(Result(1, {}, [memoryview(b"abc")]))) == [50, 1, {}, [b"abc"]]  # type: ignore[arg-type]


async def test_unknown_tags_concern_nobody_but_their_handler() -> None:
    app = application()

    @app.route("add")
    async def add(a: int, b: int) -> int:
        return a + b

    tag = cbor2.CBORTag(4, [1_000_000_000, 1])
    async with connect(app, subprotocol="wamp.2.cbor") as client:
        await client.send([48, 1, {"x": tag, "y": cbor2.undefined}, "add", [1, 2]])
        assert await client.receive() == [50, 1, {}, [3]]
        await client.send([48, 2, {}, "add", [1, tag]])
        assert (await client.receive())[:5] == [8, 48, 2, {}, "wamp.error.invalid_argument"]
        await client.send([48, 3, {}, "echo", [tag]])
        assert (await client.receive())[:5] == [8, 48, 3, {}, "wamp.error.invalid_argument"]
        await client.send([48, 4, {}, "echo", [2**70]])
        assert await client.receive() == [50, 4, {}, [2**70]]


@pytest.mark.parametrize(
    ("limit", "allowed", "refused"),
    [
        ("message_depth", [[[[]]]], [[[[[]]]]]),
        ("array_length", [[0] * 100], [[0] * 101]),
        ("map_length", [{str(n): n for n in range(100)}], [{str(n): n for n in range(101)}]),
    ],
)
@pytest.mark.parametrize("before", [0, 90])
async def test_the_shape_of_messages_is_limited(
    limit: str, allowed: list[Any], refused: list[Any], before: int
) -> None:
    app = application(limits=Limits(**{limit: 5 if limit == "message_depth" else 100}))
    async with connect(app, subprotocol="wamp.2.cbor") as client:
        filling = [list(range(before))]
        await client.send([48, 1, {}, "echo", filling + allowed])
        assert await client.receive() == [50, 1, {}, filling + allowed]
        await client.send([48, 2, {}, "echo", filling + refused])
        assert (await client.receive())[:5] == [8, 48, 2, {}, "wamp.error.invalid_argument"]


WITHOUT = """
import sys
sys.modules["cbor2"] = None
import serverwamp, serverwamp.testing
from serverwamp.protocol.serializers import SUBPROTOCOLS
print(*SUBPROTOCOLS)
"""

OLD = """
import cbor2
new = cbor2.CBORDecoder
cbor2.CBORDecoder = lambda stream, semantic_decoders, max_depth: None
from serverwamp.protocol.serializers import SUBPROTOCOLS
print(*SUBPROTOCOLS)
"""


@pytest.mark.spec("WS-03")
@pytest.mark.parametrize("script", [WITHOUT, OLD])
def test_it_is_offered_only_where_it_can_be_decoded_safely(script: str) -> None:
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, text=True)
    assert run.stderr == ""
    assert run.stdout == "wamp.2.json wamp.2.msgpack wamp.2.json.batched wamp.2.msgpack.batched\n"


@pytest.mark.spec("T-29")
async def test_one_event_in_every_format() -> None:
    app = application()

    @app.topic("news")
    async def news() -> Any:
        yield

    async with (
        connect(app) as json_,
        connect(app, subprotocol="wamp.2.msgpack") as msgpack_,
        connect(app, subprotocol="wamp.2.cbor") as cbor,
        connect(app, subprotocol="wamp.2.cbor.batched") as batched,
    ):
        clients = (json_, msgpack_, cbor, batched)
        for client in clients:
            await client.subscribe("news")
        await app.publish("news", (b"\0\1", "text", 1.5, None))
        for client in clients:
            assert (await client.expect_event()).args == (b"\0\1", "text", 1.5, None)
        await app.publish("news", (2**64,))  # which MessagePack can't hold
        await app.publish("news", ("next",))
        for client in (json_, cbor, batched):
            assert (await client.expect_event()).args == (2**64,)
        for client in clients:
            assert (await client.expect_event()).args == ("next",)
        with pytest.raises(SerializationError):
            serializer_for("wamp.2.msgpack").encode(Result(1, {}, [2**64]))
