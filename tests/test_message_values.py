"""How many values a message may hold: in every format, and counted before they take any memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import cbor2
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverwamp import Application, Limits
from serverwamp.errors import InvalidPayload, LimitExceeded
from serverwamp.protocol.messages import Call, CallOptions
from serverwamp.protocol.serializers import SUBPROTOCOLS, serializer_for
from serverwamp.protocol.shapes import ShapeLimits
from serverwamp.testing import connect

ENCODERS: dict[str, Callable[[Any], Any]] = {
    "wamp.2.json": lambda message: json.dumps(message, separators=(",", ":")),
    "wamp.2.msgpack": msgpack.packb,
    "wamp.2.cbor": cbor2.dumps,
}
TEXTS = st.text(st.sampled_from('a,:[]{}"\\é\n \N{GRINNING FACE}'), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
BINARY = st.binary(max_size=40) | st.sampled_from([bytes(255), bytes(256), bytes(70_000)])
LONG_TEXTS = st.sampled_from(["[" * size for size in (23, 24, 31, 32, 255, 256, 70_000)])


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXTS, inner, max_size=18),
    )


def count(value: Any) -> int:
    """Return how many values there are, `value` and the keys of maps included."""
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    if isinstance(value, dict):
        return 1 + sum(1 + count(item) for item in value.values())
    return 1


def check(subprotocol: str, unit: Any, *, most: int) -> None:
    """Check that as many values may come, and no more."""
    allowed = serializer_for(subprotocol, ShapeLimits(message_values=most))
    allowed.decode(unit)
    refused = serializer_for(subprotocol, ShapeLimits(message_values=most - 1))
    with pytest.raises(LimitExceeded) as exceeded:
        refused.decode(unit)
    assert exceeded.value.limit == "message_values"
    assert exceeded.value.request == Call(1, CallOptions(), "a.b")


@pytest.mark.parametrize("subprotocol", ["wamp.2.msgpack", "wamp.2.cbor"])
@settings(max_examples=50, deadline=None)
@given(value=nested(SCALARS | BINARY | LONG_TEXTS))
def test_binary_formats_agree_on_the_count(subprotocol: str, value: Any) -> None:
    message = [48, 1, {}, "a.b", [value]]
    check(subprotocol, ENCODERS[subprotocol](message), most=count(message))


@pytest.mark.parametrize(
    "encode",
    [
        ENCODERS["wamp.2.json"],
        json.dumps,
        lambda message: json.dumps(message, ensure_ascii=False),
        lambda message: json.dumps(message, indent=1).replace("\n", "\r\n\t"),
    ],
    ids=["compact", "spaced", "utf-8", "indented"],
)
@settings(max_examples=50, deadline=None)
@given(value=nested(SCALARS | LONG_TEXTS))
def test_json_agrees_on_the_count(encode: Callable[[Any], str], value: Any) -> None:
    message = [48, 1, {}, "a.b", [value]]
    check("wamp.2.json", encode(message), most=count(message))


@pytest.mark.parametrize(
    ("argument", "counted"),
    [
        ("9f010203ff", 5),  # an array of unknown length, and its end
        ("bf616101ff", 4),
        ("7f61616162ff", 4),  # a text in pieces
        ("5f" + "40" * 100 + "ff", 102),
        ("c11a514b67b0", 2),  # a tag and what has it
        ("d9010283010203", 5),
        ("f97e00", 1),
        ("fa7fc00000", 1),
        ("98020102", 3),
        ("78026161", 1),
        ("7900026161", 1),
        ("7a000000026161", 1),
        ("7b00000000000000026161", 1),
        ("5b00000000000000020000", 1),
    ],
)
def test_what_counts_in_cbor(argument: str, counted: int) -> None:
    unit = cbor2.dumps([48, 1, {}, "a.b", []])[:-1] + b"\x81" + bytes.fromhex(argument)
    check("wamp.2.cbor", unit, most=6 + counted)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 3, 300, 70_000])
def test_an_extension_of_messagepack_counts(size: int) -> None:
    # What is unknown is refused only after it has been counted.
    unit = msgpack.packb([48, 1, {}, "a.b", [[msgpack.ExtType(1, bytes(size))] * 20]])
    most = 7 + 20
    for limit, refused in ((most - 1, LimitExceeded), (most, InvalidPayload)):
        with pytest.raises(refused):
            serializer_for("wamp.2.msgpack", ShapeLimits(message_values=limit)).decode(unit)


async def test_a_head_that_is_too_full_gets_no_answer() -> None:
    app = Application(limits=Limits(message_values=100))
    for subprotocol, encode in ENCODERS.items():
        async with connect(app, subprotocol=subprotocol) as client:
            await client.send_frame(encode([48, 1, {"a": [0] * 200_000}, "a.b", [1]]))
            assert (await client.receive())[2] == "wamp.error.protocol_violation"
            assert await client.expect_close() == 1002


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_every_subprotocol_has_the_limit(subprotocol: str) -> None:
    app = Application()
    app.route("count")(lambda values: len(values))
    async with connect(app, subprotocol=subprotocol) as client:
        assert (await client.call("count", ([[]] * 99_999,))).args == (99_999,)
        request = client.next_request()
        await client.send([48, request, {}, "count", [[[[]] * 2 for _ in range(70_000)]]])
        answer = await client.receive()
        assert answer[:5] == [8, 48, request, {}, "wamp.error.invalid_argument"]
        assert "200000" in answer[5][0]
        assert (await client.call("count", ("[,:{" * 200_000,))).args == (800_000,)


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_long_payloads_are_possible_by_configuration(subprotocol: str) -> None:
    app = Application(limits=Limits(message_bytes=16 * 1024 * 1024))
    app.route("size")(lambda data: len(data))
    async with connect(app, subprotocol=subprotocol) as client:
        assert (await client.call("size", (bytes(8 * 1024 * 1024),))).args == (8 * 1024 * 1024,)


FULL = """
import resource, sys
import anyio
from serverwamp import Application, Limits
from serverwamp.testing import connect

SIZE = 8 * 1024 * 1024


def call(format_name, value):
    if format_name == "json":
        values = ",".join([value] * ((SIZE - 100) // (len(value) + 1)))
        return f'[48,1,{{}},"a.b",[[{values}]]]'
    value = bytes.fromhex(value)
    count = (SIZE - 100) // len(value)
    head = {"msgpack": "95300180a3612e6291dd", "cbor": "85183001a063612e62819a"}[format_name]
    return bytes.fromhex(head) + count.to_bytes(4, "big") + value * count


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def main(subprotocol, *values):
    app = Application(limits=Limits(message_bytes=SIZE, array_length=float("inf")))
    for value in values:
        async with connect(app, subprotocol=subprotocol) as client:
            unit = call(subprotocol.split(".")[2], value)
            if subprotocol.endswith("batched"):
                is_text = isinstance(unit, str)
                unit = unit + "\\x1e" if is_text else len(unit).to_bytes(4, "big") + unit
            before = peak()
            await client.send_frame(unit)
            answer = await client.receive()
            assert answer[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"], answer
            assert "more than 200000 values" in answer[5][0], answer
            print(peak() - before)


anyio.run(main, *sys.argv[1:])
"""
VALUES = {
    "json": ["[]", "{}", "0", '"abcd"', '{"ab":[]}'],
    "msgpack": ["90", "80", "c0", "a461626364", "81a2616290"],
    "cbor": ["80", "a0", "f6", "6461626364", "a162616280"],
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_what_is_refused_takes_no_memory(subprotocol: str) -> None:
    command = [sys.executable, "-c", FULL, subprotocol, *VALUES[subprotocol.split(".")[2]]]
    run = subprocess.run(command, capture_output=True, timeout=60, text=True, check=False)
    assert run.returncode == 0, run.stderr
    growths = [int(line) for line in run.stdout.split()]
    assert len(growths) == 5
    # The messages have 8 MiB, of which some copies are made.
    assert sum(growths) < 64, growths
