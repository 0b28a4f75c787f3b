"""What clients put into arguments: keys that are no text, dates, and what a format can't hold."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import cbor2
import msgpack
import pytest

from serverwamp import Application, RPCResult, Session, WAMPError
from serverwamp.testing import Client, connect

WHEN = datetime.datetime(2026, 11, 27, 12, 30, tzinfo=datetime.UTC)
BINARY = ["wamp.2.msgpack", "wamp.2.cbor", "wamp.2.msgpack.batched", "wamp.2.cbor.batched"]
PACK = {"msgpack": lambda value: msgpack.packb(value, datetime=True), "cbor": cbor2.dumps}


def application() -> Application:
    app = Application()

    @app.route("echo")
    async def echo(*args: Any, **kwargs: Any) -> RPCResult:
        return RPCResult(args, kwargs)

    @app.route("typed")
    async def typed(names: dict[int, str]) -> list[Any]:
        return [[key, value] for key, value in names.items()]

    @app.route("when")
    async def when(time: datetime.datetime) -> str:
        return time.isoformat()

    @app.route("what")
    async def what(value: Any) -> str:
        return type(value).__name__

    @app.topic("news", client_publish=True)
    async def news(session: Session):  # type: ignore[no-untyped-def]
        yield

    return app


async def send_raw(client: Client, subprotocol: str, message: list[Any]) -> None:
    """Send a message as its format encodes it, whatever its keys are."""
    packed = PACK[subprotocol.split(".")[2]](message)
    if subprotocol.endswith("batched"):
        packed = len(packed).to_bytes(4, "big") + packed
    await client.send_frame(packed)


# ---- keys


@pytest.mark.parametrize("subprotocol", BINARY)
async def test_integers_as_keys_become_text(subprotocol: str) -> None:
    async with connect(application(), subprotocol=subprotocol) as client:
        await send_raw(client, subprotocol, [48, 1, {}, "echo", [{1: "a", -2: {3: "b"}}]])
        assert await client.receive() == [50, 1, {}, [{"1": "a", "-2": {"3": "b"}}]]
        await send_raw(client, subprotocol, [48, 2, {}, "typed", [{1: "a", 2: "b"}]])
        assert await client.receive() == [50, 2, {}, [[1, "a"], [2, "b"]]]
        await send_raw(client, subprotocol, [48, 3, {}, "echo", [], {7: "x"}])
        assert await client.receive() == [50, 3, {}, [], {"7": "x"}]


@pytest.mark.parametrize(
    "arguments",
    [
        [[{1.5: 1}]],
        [[{None: 1}]],
        [[{True: 1}]],
        [[{1: 1, "1": 2}]],
        [[{b"a": 1}]],
        [[{"a": [{"b": {"c": 1, b"a": 1}}]}]],
        [[], {1.5: 1}],
        [[], {b"a": 1}],
    ],
    ids=repr,
)
@pytest.mark.parametrize("subprotocol", BINARY)
async def test_other_keys_refuse_the_request_alone(subprotocol: str, arguments: list[Any]) -> None:
    async with connect(application(), subprotocol=subprotocol) as client:
        await send_raw(client, subprotocol, [48, 1, {}, "echo", *arguments])
        assert (await client.receive())[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"]
        await send_raw(client, subprotocol, [16, 2, {"acknowledge": True}, "news", *arguments])
        assert (await client.receive())[:5] == [8, 16, 2, {}, "wamp.error.invalid_argument"]
        await send_raw(client, subprotocol, [48, 3, {}, "echo", [1]])
        assert await client.receive() == [50, 3, {}, [1]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([[{1.5: 1}]], "a key that is neither text nor an integer"),
        ([[], {b"a": 1}], "a key that is neither text nor an integer"),
        ([[{1: 1, "1": 2}]], "two keys of a map are the same text"),
        ([[], {"a": [{1: None}]}], "a value of an unknown type"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("subprotocol", BINARY)
async def test_the_error_says_what_is_unknown(
    subprotocol: str, arguments: list[Any], reason: str
) -> None:
    if len(arguments) > 1 and "a" in arguments[1]:
        unknown = cbor2.CBORTag(35, "a*") if "cbor" in subprotocol else msgpack.ExtType(5, b"x")
        arguments = [[], {"a": [{1: unknown}]}]
    async with connect(application(), subprotocol=subprotocol) as client:
        await send_raw(client, subprotocol, [48, 1, {}, "echo", *arguments])
        error = await client.receive()
        assert error[5][0].partition(": ")[2] == reason


@pytest.mark.parametrize("subprotocol", BINARY)
async def test_what_a_callee_cant_express_is_an_error_for_the_caller(subprotocol: str) -> None:
    app = Application(client_register="tool")
    async with connect(app) as caller, connect(app, subprotocol=subprotocol) as callee:
        await send_raw(callee, subprotocol, [64, 1, {}, "tool"])
        await callee.receive()
        for request, reply in enumerate(([70, None, {}, [{1.5: 1}]], [8, 68, None, {}, "a.b"]), 1):
            await caller.send([48, request, {}, "tool"])
            invocation = (await callee.receive())[1]
            reply = [invocation if part is None else part for part in reply]
            if reply[0] == 8:
                reply = [*reply, [{1.5: 1}]]
            await send_raw(callee, subprotocol, reply)
            error = await caller.receive()
            assert error[:5] == [8, 48, request, {}, "wamp.error.runtime_error"]


async def test_binary_that_isnt_base64_refuses_the_request_alone() -> None:
    async with connect(application()) as client:
        await client.send_frame(r'[48,1,{},"echo",["\u0000!!"]]')
        assert (await client.receive())[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"]
        await client.send([48, 2, {}, "echo", [1]])
        assert await client.receive() == [50, 2, {}, [1]]


# ---- dates and the like


@pytest.mark.parametrize("subprotocol", BINARY)
async def test_timestamps_are_datetimes(subprotocol: str) -> None:
    app = application()
    async with connect(app, subprotocol=subprotocol) as client, connect(app) as reader:
        await send_raw(client, subprotocol, [48, 1, {}, "when", [WHEN]])
        assert await client.receive() == [50, 1, {}, [WHEN.isoformat()]]
        await send_raw(client, subprotocol, [48, 2, {}, "what", [WHEN]])
        assert await client.receive() == [50, 2, {}, ["datetime"]]
        await reader.subscribe("news")
        await send_raw(client, subprotocol, [16, 3, {"acknowledge": True}, "news", [WHEN]])
        assert (await client.receive())[0] == 17
        assert (await reader.receive())[4] == ["2026-11-27T12:30:00Z"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Decimal("1.5"), "Decimal"),
        (datetime.date(2026, 11, 27), "date"),
        (cbor2.CBORTag(1004, "2026-11-27"), "date"),
        ({1, 2}, "set"),
    ],
    ids=["decimal", "days", "date text", "set"],
)
async def test_cbor_has_python_values(value: Any, kind: str) -> None:
    async with connect(application(), subprotocol="wamp.2.cbor") as client:
        await send_raw(client, "wamp.2.cbor", [48, 1, {}, "what", [value]])
        assert await client.receive() == [50, 1, {}, [kind]]


@pytest.mark.parametrize(
    ("subprotocol", "value"),
    [
        ("wamp.2.msgpack", msgpack.ExtType(5, b"x")),
        ("wamp.2.msgpack", msgpack.Timestamp(2**40, 0)),
        ("wamp.2.cbor", cbor2.CBORTag(35, "a*")),
        ("wamp.2.cbor", cbor2.CBORTag(4, [10**9, 1])),
        ("wamp.2.cbor", cbor2.CBORSimpleValue(5)),
        ("wamp.2.cbor", {"a": cbor2.CBORSimpleValue(255)}),
        ("wamp.2.cbor", [{1: cbor2.CBORSimpleValue(5)}]),
    ],
    ids=str,
)
async def test_unknown_types_never_reach_a_handler(subprotocol: str, value: Any) -> None:
    async with connect(application(), subprotocol=subprotocol) as client:
        await send_raw(client, subprotocol, [48, 1, {}, "what", [[value]]])
        assert (await client.receive())[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"]
        await send_raw(client, subprotocol, [48, 2, {}, "what", [1]])
        assert await client.receive() == [50, 2, {}, ["int"]]


@pytest.mark.parametrize("subprotocol", BINARY)
async def test_unknown_types_never_reach_an_authenticator(subprotocol: str) -> None:
    app = application()
    seen: list[Any] = []

    @app.add_transport_authenticator
    async def admit(session: Session) -> str:
        seen.append(session.auth_extra)
        return "somebody"

    unknown: list[Any] = [msgpack.ExtType(5, b"x")]
    if "cbor" in subprotocol:
        unknown = [cbor2.CBORTag(999, 1), cbor2.CBORSimpleValue(5)]
    for value in unknown:
        extra = {"a": value, "b": [1, value], "c": [{"d": value}], "e": {1: {b"f": 1}}}
        hello = [1, "realm1", {"roles": {"caller": {}}, "authextra": extra}]
        async with connect(app, None, subprotocol=subprotocol) as client:
            await send_raw(client, subprotocol, hello)
            assert (await client.receive())[0] == 2
        assert seen.pop() == {"b": [1, None], "c": [{}], "e": {"1": {}}}


# ---- text that JSON parsers stumble over


@pytest.mark.parametrize(
    "argument", ['"\ud800"', '{"\udc00": 1}', "1e400", "-1e400", "9" * 5000, '"\x01"', "[" * 10**5]
)
async def test_json_that_cant_be_parsed_refuses_the_request_alone(argument: str) -> None:
    argument += "]" * argument.count("[")
    async with connect(application()) as client:
        for payload in (f"[{argument}]", f'[],{{"a": {argument}}}'):
            await client.send_frame(f'[48,1,{{}},"echo",{payload}]')
            assert (await client.receive())[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"]
            await client.send_frame(f'[16,2,{{"acknowledge":true}},"news",{payload}]')
            assert (await client.receive())[:5] == [8, 16, 2, {}, "wamp.error.invalid_argument"]
        await client.send([48, 3, {}, "echo", [1]])
        assert await client.receive() == [50, 3, {}, [1]]


@pytest.mark.parametrize("argument", ['"\\ud800"', '"\ud800"', '"\x01"', "NaN", "-Infinity"])
async def test_the_client_is_told_what_json_lacks(argument: str) -> None:
    async with connect(application()) as client:
        await client.send_frame(f'[48,1,{{}},"echo",[{argument}]]')
        (reason,) = (await client.receive())[5]
        assert "surrogate" in reason or "UTF-8" in reason


# ---- text that starts with NUL


@pytest.mark.parametrize("value", ["\0A", "\0", ["x", {"k": "\0A"}]], ids=repr)
async def test_text_that_starts_with_nul_isnt_sent_as_json(value: Any) -> None:
    app = application()

    @app.route("nul")
    async def nul() -> Any:
        return RPCResult([value])

    async with connect(app) as client, connect(app, subprotocol="wamp.2.msgpack") as other:
        with pytest.raises(WAMPError):
            await client.call("nul")
        assert (await other.call("nul")).args == (value,)
        await client.subscribe("news")
        await other.publish("news", [value])
        await other.publish("news", [b"A", "a\0b"])
        assert (await client.receive())[4] == [b"A", "a\0b"]
