"""Bad input, and the answer that each gets.

A violation of the protocol gets ABORT with three elements and a close frame; a request that is
well formed but not possible gets an ERROR or, where the protocol knows no answer, none. Another
session, open all the while, notices nothing, nothing raises out of the application, and no
answer tells anything of the inside of the server.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import cbor2
import msgpack
import pytest

import serverwamp
from serverwamp import Limits
from serverwamp.protocol.messages import Abort, Authenticate, Call, Goodbye, Hello, Message
from serverwamp.protocol.serializers import SUBPROTOCOLS
from serverwamp.testing import Client, connect
from tests.malformed import INSIDE, MESSAGE_CLASSES, malformed, well_formed

VIOLATION = "wamp.error.protocol_violation"
HELLO = [1, "realm1", {"roles": {"caller": {}}}]
TICKET_HELLO = [1, "realm1", {"roles": {"caller": {}}, "authmethods": ["ticket"], "authid": "joe"}]
STATES = ("new", "challenged", "open")
UNBATCHED = ("wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor")


def application(**settings: Any) -> serverwamp.Application:
    # Before WELCOME much is too long already; what else is wrong with it shall be seen here.
    limits = Limits(unauthenticated_message_bytes=2**24)
    app = serverwamp.Application(**{"limits": limits, **settings})

    @app.route("add")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.route("echo")
    async def echo(*args: Any, **kwargs: Any) -> serverwamp.RPCResult:
        return serverwamp.RPCResult(args, kwargs)

    @app.topic("news")
    async def news() -> AsyncIterator[None]:
        yield

    return app


def application_with_tickets() -> serverwamp.Application:
    app = application()

    async def authenticate(session: Any, ticket: str) -> str | None:
        return "joe" if ticket == "secret" else None

    app.set_ticket_authenticator(authenticate)
    return app


class Victim:
    """A client in one of the `STATES`, and a bystander in a session of the same application."""

    def __init__(self, app: serverwamp.Application, state: str, subprotocol: str) -> None:
        self._app = app
        self._state = state
        self._subprotocol = subprotocol

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        async with connect(self._app, None, subprotocol=self._subprotocol) as client:
            if self._state == "open":
                await client.send(HELLO)
                assert (await client.receive())[0] == 2
            elif self._state == "challenged":
                await client.send(TICKET_HELLO)
                assert await client.receive() == [4, "ticket", {}]
            yield client


@asynccontextmanager
async def beside_a_bystander(
    state: str, subprotocol: str
) -> AsyncIterator[tuple[Victim, Callable[[], Any]]]:
    """Give a victim, and a check that the other session still works."""
    app = application_with_tickets() if state == "challenged" else application()
    login = {"ticket": "secret", "authid": "joe"} if state == "challenged" else {}
    async with connect(app, "realm1", **login) as bystander:

        async def check() -> None:
            assert (await bystander.call("add", (1, 2))).args == (3,)
            await bystander.expect_nothing()

        yield Victim(app, state, subprotocol), check


async def assert_aborted(
    client: Client, *, reason: str = VIOLATION, code: int = 1002, after: str = ""
) -> str:
    """Check that all the client gets is ABORT in its short form and a close frame."""
    answer = await client.receive()
    assert answer[0] == 3, (after, answer)
    assert len(answer) == 3, (after, answer)
    assert set(answer[1]) == {"message"}
    assert answer[2] == reason, (after, answer)
    message = answer[1]["message"]
    assert message
    assert not INSIDE.search(message), (after, message)
    assert await client.expect_close() == code, after
    assert client.transcript[-1] == f"server: closes the connection ({code})"
    return str(message)


def assert_logged_without_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    for record in caplog.records:
        assert record.levelno <= logging.WARNING, record.getMessage()
        assert record.exc_info is None


# ---- malformed messages


ALMOST_ANYTIME: Sequence[type[Message]] = (Hello, Abort, Authenticate, Goodbye, Call)


@pytest.mark.spec("MSG-01", "MSG-02", "MSG-04", "MSG-07", "IDS-01", "IDS-09", "SER-01")
@pytest.mark.spec("VIO-01", "VIO-02", "VIO-03", "VIO-04", "VIO-05", "ABT-02", "T-11")
@pytest.mark.spec("ERR-protocol_violation", "PPT-03")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize(
    ("state", "cls"),
    [("open", cls) for cls in MESSAGE_CLASSES]
    + [(state, cls) for state in ("new", "challenged") for cls in ALMOST_ANYTIME],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_a_malformed_message_is_a_violation(
    cls: type[Message], state: str, subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside_a_bystander(state, subprotocol) as (victim, check_bystander):
        for what, message in malformed(cls, binary="json" not in subprotocol):
            async with victim.connected() as client:
                await client.send(message)
                await assert_aborted(client, after=what)
        await check_bystander()
    assert_logged_without_tracebacks(caplog)


@pytest.mark.spec("VIO-02", "SES-01", "SES-12", "ABT-09", "AUT-07", "VIO-05")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize("state", STATES)
async def test_a_message_at_the_wrong_time_is_a_violation(
    state: str, subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = {
        "new": {1, 3},
        "challenged": {3, 5},
        "open": {3, 6, 8, 16, 32, 34, 48, 49, 64, 66, 70},
    }
    async with beside_a_bystander(state, subprotocol) as (victim, check_bystander):
        for message in map(well_formed, MESSAGE_CLASSES):
            if message[0] not in allowed[state]:
                async with victim.connected() as client:
                    await client.send(message)
                    said = await assert_aborted(client, after=f"{message}")
                    assert "can't come while" in said
                await check_bystander()
    assert_logged_without_tracebacks(caplog)


# ---- undecodable frames

CALL = '[48,1,{},"echo",[%s]]'
UNDECODABLE_JSON = {
    "nothing": "",
    "white space": " \n",
    "no JSON": "hello",
    "a number": "48",
    "null": "null",
    "an object": "{}",
    "an empty list": "[]",
    "an unknown type code": '[99,1,{},"echo"]',
    "a type code beyond a byte": '[4800,1,{},"echo"]',
    "a negative type code": "[-1]",
    "a type code in text": '["48",1,{},"echo"]',
    "true as type code": '[true,"realm1",{"roles":{"caller":{}}}]',
    "a fractional type code": '[48.5,1,{},"echo"]',
    "null as type code": '[null,1,{},"echo"]',
    "a list as type code": '[[],1,{},"echo"]',
    "cut off": CALL[:-1] % 1,
    "trailing text": CALL % 1 + "x",
    "two messages": CALL % 1 + CALL % 1,
    "a byte order mark": "\ufeff" + CALL % 1,
    "single quotes": "[48,1,{},'echo']",
    "a trailing comma": CALL % "1,",
    "a leading zero": CALL % "01",
    "a control character": CALL % '"\x01"',
    "NaN": CALL % "NaN",
    "infinity": CALL % "Infinity",
    "minus infinity": CALL % "-Infinity",
    "a number beyond doubles": CALL % "1e999",
    "NaN as an id": '[48,NaN,{},"echo",[1]]',
    "NaN as an option": '[48,1,{"timeout":NaN},"echo",[1]]',
    "NaN, and cut off": '[48,1,{},"echo",[NaN',
    "NaN, and trailing text": CALL % "NaN" + "x",
    "a lone surrogate": CALL % r'"\ud800"',
    "a reversed surrogate pair": CALL % r'"\udc00\ud800"',
    "a lone surrogate in the procedure": r'[48,1,{},"\ud800"]',
    "a raw lone surrogate": CALL % '"\ud800"',
    "binary that isn't base64": CALL % r'"\u0000!!!!"',
    "binary with white space": CALL % r'"\u0000AAAA AAAA"',
    "binary without padding": CALL % r'"\u0000AA"',
    "binary with too much padding": CALL % r'"\u0000AAA=="',
    "binary that isn't ASCII": CALL % r'"\u0000é"',
    "bad binary deep inside": CALL % r'{"a":[{"b":"\u0000?"}]}',
    "bad binary in kwargs": r'[48,1,{},"echo",[],{"a":"\u0000?"}]',
    "arrays nested deeply": CALL % ("[" * 100_000 + "]" * 100_000),
    "objects nested deeply": CALL % ('{"a":' * 50_000 + "1" + "}" * 50_000),
    "arrays nested deeply and cut off": CALL % ("[" * 100_000),
    "arrays nested deeply in options": '[48,1,{"a":%s},"echo"]' % ("[" * 100_000 + "]" * 100_000),
    "nothing but nesting": "[" * 100_000 + "]" * 100_000,
    "a binary message": (CALL % 1).encode(),
    "an empty binary message": b"",
    "MessagePack": msgpack.packb([48, 1, {}, "echo"]),
}


def packed(*message: Any) -> bytes:
    data: bytes = msgpack.packb(message)
    return data


GOOD = packed(48, 1, {}, "echo", [1])
UNDECODABLE_MSGPACK = {
    "nothing": b"",
    "a reserved octet": b"\xc1",
    "a number": b"\x30",
    "nil": b"\xc0",
    "a map": b"\x80",
    "an empty array": b"\x90",
    "an unknown type code": packed(99, 1, {}, "echo"),
    "a type code beyond a byte": packed(4800, 1, {}, "echo"),
    "a negative type code": packed(-1),
    "a type code in text": packed("48", 1, {}, "echo"),
    "true as type code": packed(True, "realm1", {"roles": {"caller": {}}}),
    "a float as type code": packed(48.0, 1, {}, "echo"),
    "nil as type code": packed(None, 1, {}, "echo"),
    "an array as type code": packed([], 1, {}, "echo"),
    "a map as type code": packed({}, 1, {}, "echo"),
    "cut off": GOOD[:-1],
    "trailing octets": GOOD + b"x",
    "two messages": GOOD + GOOD,
    "text that isn't UTF-8": b"\x94\x30\x01\x80\xa1\xff",
    "a surrogate in text": b"\x94\x30\x01\x80\xa3\xed\xa0\x80",
    "a key that isn't UTF-8": b"\x94\x30\x01\x81\xa1\xff\x01\xa1a",
    "an argument that isn't UTF-8": b"\x95\x30\x01\x80\xa1a\x91\xa1\xff",
    "an option named by a number": packed(48, 1, {1: 2}, "echo"),
    "an option named by binary": packed(48, 1, {b"a": 2}, "echo"),
    "a keyword that is binary": packed(48, 1, {}, "echo", [], {b"a": 2}),
    "a keyword that is an array": b"\x96\x30\x01\x80\xa1a\x90\x81\x90\x01",
    "binary as a procedure": packed(48, 1, {}, b"echo"),
    "binary as an id": packed(48, b"\1", {}, "echo"),
    "infinity as an id": packed(48, float("inf"), {}, "echo"),
    "NaN as an id": packed(48, float("nan"), {}, "echo"),
    "an extension as an id": packed(48, msgpack.ExtType(0, b"\1"), {}, "echo"),
    "an extension as options": packed(48, 1, msgpack.ExtType(0, b"\0"), "echo"),
    "an extension as arguments": packed(48, 1, {}, "echo", msgpack.ExtType(5, b"abc")),
    "an extension as the message": msgpack.packb(msgpack.ExtType(5, b"abc")),
    "a broken timestamp": b"\x95\x30\x01\x80\xa1a\x91\xc7\x03\xff\x01\x02\x03",
    "an array longer than the message": b"\xdd\xff\xff\xff\xff",
    "a text longer than the message": b"\x94\x30\x01\x80\xdb\xff\xff\xff\xff",
    "binary longer than the message": b"\x94\x30\x01\x80\xc6\xff\xff\xff\xff",
    "a map longer than the message": b"\x93\x30\x01\xdf\xff\xff\xff\xff",
    "arrays nested deeply": b"\x95\x30\x01\x80\xa4echo" + b"\x91" * 100_000 + b"\xc0",
    "maps nested deeply": b"\x95\x30\x01\x80\xa4echo\x91" + b"\x81\xa1a" * 100_000 + b"\xc0",
    "arrays nested deeply in options": b"\x94\x30\x01\x81\xa1a" + b"\x91" * 100_000 + b"\xc0\xa1a",
    "nothing but nesting": b"\x91" * 100_000 + b"\xc0",
    "a text message": CALL % 1,
    "an empty text message": "",
}
UNDECODABLE_BATCHES_OF_JSON = {
    "nothing": "",
    "no terminator": CALL % 1,
    "a second message without terminator": CALL % 1 + "\x1e" + CALL % 2,
    "nothing but a terminator": "\x1e",
    "an empty message": "\x1e" + CALL % 1 + "\x1e",
    "a cut off message": CALL[:-1] % 1 + "\x1e",
    "another terminator": CALL % 1 + "\n",
    "two kinds of terminators": CALL % 1 + "\x18" + CALL % 2 + "\x1e",
    "a binary message": (CALL % 1 + "\x1e").encode(),
}
UNDECODABLE_BATCHES_OF_MSGPACK = {
    "nothing": b"",
    "a cut off length": b"\0\0",
    "a length alone": b"\0\0\0\5",
    "a cut off message": len(GOOD).to_bytes(4) + GOOD[:-1],
    "trailing octets": len(GOOD).to_bytes(4) + GOOD + b"\0\0\0",
    "a length that is too small": (len(GOOD) - 1).to_bytes(4) + GOOD,
    "a length that is too big": (len(GOOD) + 1).to_bytes(4) + GOOD,
    "a huge length": b"\xff\xff\xff\xff" + GOOD,
    "an empty message": b"\0\0\0\0",
    "a second message cut off": (len(GOOD).to_bytes(4) + GOOD) * 2 + b"\0\0\0\1",
    "no length": GOOD,
    "a text message": "\0\0\0\5hello",
}
GOOD_CBOR = cbor2.dumps([48, 1, {}, "echo", [1]])
UNDECODABLE_CBOR = {
    "nothing": b"",
    "a reserved octet": b"\x1c",
    "a break": b"\xff",
    "a number": b"\x18\x30",
    "null": b"\xf6",
    "undefined": b"\xf7",
    "a map": b"\xa0",
    "an empty array": b"\x80",
    "an unknown type code": cbor2.dumps([99, 1, {}, "echo"]),
    "a float as type code": cbor2.dumps([48.0, 1, {}, "echo"]),
    "undefined as type code": cbor2.dumps([cbor2.undefined, 1, {}, "echo"]),
    "undefined as options": cbor2.dumps([48, 1, cbor2.undefined, "echo"]),
    "a tag around the message": b"\xd9\xd9\xf7" + GOOD_CBOR,
    "a tag as an id": cbor2.dumps([48, cbor2.CBORTag(99, 1), {}, "echo"]),
    "a tag as arguments": cbor2.dumps([48, 1, {}, "echo", cbor2.CBORTag(99, [1])]),
    "a time as an id": b"\x84\x18\x30\xc1\x01\xa0\x64echo",
    "a big integer as an id": cbor2.dumps([48, 2**64, {}, "echo"]),
    "a big integer that is text": b"\x85\x18\x30\x01\xa0\x64echo\x81\xc2\x61a",
    "a big integer too many": cbor2.dumps([48, 1, {}, "echo", [1 << 8 * 1785]]),
    "a broken time": b"\x85\x18\x30\x01\xa0\x64echo\x81\xc0\x61a",
    "a time out of range": cbor2.dumps([48, 1, {}, "echo", [cbor2.CBORTag(1, 1e300)]]),
    "cut off": GOOD_CBOR[:-1],
    "cut off within a tag": b"\x85\x18\x30\x01\xa0\x64echo\x81\xd8",
    "trailing octets": GOOD_CBOR + b"x",
    "two messages": GOOD_CBOR + GOOD_CBOR,
    "text that isn't UTF-8": b"\x84\x18\x30\x01\xa0\x61\xff",
    "a surrogate in text": b"\x84\x18\x30\x01\xa0\x63\xed\xa0\x80",
    "an option named by a number": cbor2.dumps([48, 1, {1: 2}, "echo"]),
    "a keyword that is binary": cbor2.dumps([48, 1, {}, "echo", [], {b"a": 2}]),
    "a key that is an array": b"\x85\x18\x30\x01\xa0\x64echo\x81\xa1\x80\x01",
    "a key that is a tag": b"\x85\x18\x30\x01\xa0\x64echo\x81\xa1\xd8\x63\x01\x01",
    "binary as a procedure": cbor2.dumps([48, 1, {}, b"echo"]),
    "NaN as an id": cbor2.dumps([48, float("nan"), {}, "echo"]),
    "an array longer than the message": b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    "a text longer than the message": b"\x84\x18\x30\x01\xa0\x7b\x7f" + b"\xff" * 7,
    "binary longer than the message": b"\x84\x18\x30\x01\xa0\x5b\x7f" + b"\xff" * 7,
    "a map longer than the message": b"\x83\x18\x30\x01\xbb\x7f" + b"\xff" * 7,
    "an array without end": b"\x9f\x18\x30\x01\xa0\x64echo",
    "arrays nested deeply": b"\x85\x18\x30\x01\xa0\x64echo" + b"\x81" * 100_000 + b"\xf6",
    "maps nested deeply": b"\x85\x18\x30\x01\xa0\x64echo\x81" + b"\xa1\x61a" * 100_000 + b"\xf6",
    "tags nested deeply": b"\x85\x18\x30\x01\xa0\x64echo\x81" + b"\xd8\x63" * 100_000 + b"\xf6",
    "nothing but nesting": b"\x81" * 100_000 + b"\xf6",
    "nothing but nesting without end": b"\x9f" * 100_000,
    "a text message": CALL % 1,
    "an empty text message": "",
}
UNDECODABLE_BATCHES_OF_CBOR = {
    what: frame.replace(GOOD, GOOD_CBOR) if isinstance(frame, bytes) else frame
    for what, frame in UNDECODABLE_BATCHES_OF_MSGPACK.items()
    if "length that" not in what
}
UNDECODABLE = {
    "wamp.2.cbor": UNDECODABLE_CBOR,
    "wamp.2.cbor.batched": UNDECODABLE_BATCHES_OF_CBOR,
    "wamp.2.json": UNDECODABLE_JSON,
    "wamp.2.msgpack": UNDECODABLE_MSGPACK,
    "wamp.2.json.batched": UNDECODABLE_BATCHES_OF_JSON,
    "wamp.2.msgpack.batched": UNDECODABLE_BATCHES_OF_MSGPACK,
}


BAD_ARGUMENTS = frozenset(
    (
        "a tag as arguments",
        "a big integer that is text",
        "a big integer too many",
        "a broken time",
        "a time out of range",
        "a keyword that is binary",
        "a keyword that is an array",
        "a key that is an array",
        "a key that is a tag",
        "an argument that isn't UTF-8",
        "a control character",
        "an extension as arguments",
        "a broken timestamp",
        "NaN",
        "infinity",
        "minus infinity",
        "a number beyond doubles",
        "a lone surrogate",
        "a reversed surrogate pair",
        "a raw lone surrogate",
        "binary that isn't base64",
        "binary with white space",
        "binary without padding",
        "binary with too much padding",
        "binary that isn't ASCII",
        "bad binary deep inside",
        "bad binary in kwargs",
        "arrays nested deeply",
        "arrays nested deeply and cut off",
        "maps nested deeply",
        "objects nested deeply",
        "tags nested deeply",
    )
)
"""Those of the frames of which only the arguments can't be decoded: they get an ERROR in a session
that is open."""


@pytest.mark.spec("SER-08", "SER-10", "VIO-01", "VIO-03", "VIO-05", "VIO-06")
@pytest.mark.spec("WS-05", "WS-06", "WS-07", "MSG-02", "BAT-04", "BAT-05", "SER-04")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_an_undecodable_frame_is_a_violation(
    subprotocol: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside_a_bystander(state, subprotocol) as (victim, check_bystander):
        for what, frame in UNDECODABLE[subprotocol].items():
            async with victim.connected() as client:
                await client.send_frame(frame)
                if state == "open" and what in BAD_ARGUMENTS:
                    error = await client.receive()
                    assert error[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"], what
                    await client.send([48, 2, {}, "echo", [what]])
                    assert await client.receive() == [50, 2, {}, [what]]
                else:
                    await assert_aborted(client, after=what)
            await check_bystander()
    assert_logged_without_tracebacks(caplog)


@pytest.mark.spec("VIO-03", "VIO-04")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_a_frame_of_64_mib_is_too_big(subprotocol: str, state: str) -> None:
    frame: str | bytes = " " * 2**26 if "json" in subprotocol else bytes(2**26)
    async with beside_a_bystander(state, subprotocol) as (victim, check_bystander):
        async with victim.connected() as client:
            await client.send_frame(frame)
            assert await assert_aborted(client, code=1009) == "the message is too long"
        await check_bystander()


@pytest.mark.parametrize("filling", ["a", "é", "\N{GRINNING FACE}"])
async def test_the_limit_counts_bytes(filling: str) -> None:
    limit = 4096
    app = application(limits=Limits(message_bytes=limit))
    overhead = len(CALL % '""')
    text = filling * ((limit - overhead) // len(filling.encode()))
    text += "a" * (limit - overhead - len(text.encode()))
    async with connect(app) as client:
        await client.send_frame(CALL % f'"{text}"')
        assert await client.receive() == [50, 1, {}, [text]]
        await client.send_frame(CALL.replace("1", "2") % f'"{text}a"')
        await assert_aborted(client, code=1009)


@pytest.mark.spec("BAT-05", "ABT-04")
@pytest.mark.parametrize(
    ("subprotocol", "bad"),
    [
        ("wamp.2.json.batched", []),
        ("wamp.2.msgpack.batched", [48, "x"]),
        ("wamp.2.cbor.batched", [48, "x"]),
    ],
)
async def test_nothing_after_the_violation_in_a_batch_is_processed(
    subprotocol: str, bad: list[Any]
) -> None:
    app = application()
    called: list[int] = []

    @app.route("note")
    async def note(n: int) -> None:
        called.append(n)

    async with connect(app, subprotocol=subprotocol) as client:
        await client.send([48, 1, {}, "note", [1]])
        assert await client.receive() == [50, 1, {}, [None]]
        await client.send(bad, [48, 2, {}, "note", [2]], [6, {}, "wamp.close.close_realm"])
        await assert_aborted(client)
    assert called == [1]


# ---- well formed, but not possible

REFUSED: Sequence[tuple[list[Any], int, str]] = (
    ([48, 1, {}, "nothing.there"], 48, "wamp.error.no_such_procedure"),
    ([48, 1, {}, ""], 48, "wamp.error.invalid_uri"),
    ([48, 1, {}, "not a uri"], 48, "wamp.error.invalid_uri"),
    ([48, 1, {}, "add\n"], 48, "wamp.error.invalid_uri"),
    ([48, 1, {}, "a..b"], 48, "wamp.error.invalid_uri"),
    ([48, 1, {}, "a#b"], 48, "wamp.error.invalid_uri"),
    ([48, 1, {}, "wamp.session.count"], 48, "wamp.error.no_such_procedure"),
    ([48, 1, {}, "add"], 48, "wamp.error.invalid_argument"),
    ([48, 1, {}, "add", [1]], 48, "wamp.error.invalid_argument"),
    ([48, 1, {}, "add", [1, 2, 3]], 48, "wamp.error.invalid_argument"),
    ([48, 1, {}, "add", [1, "x"]], 48, "wamp.error.invalid_argument"),
    ([48, 1, {}, "add", [1, 2.5]], 48, "wamp.error.invalid_argument"),
    ([48, 1, {}, "add", [1, None]], 48, "wamp.error.invalid_argument"),
    ([48, 1, {}, "add", [1], {"a": 2}], 48, "wamp.error.invalid_argument"),
    ([48, 1, {}, "add", [1], {"b": 2, "c": 3}], 48, "wamp.error.invalid_argument"),
    ([32, 1, {}, "not a uri"], 32, "wamp.error.invalid_uri"),
    ([32, 1, {}, "nothing.there"], 32, "wamp.error.not_authorized"),
    ([32, 1, {"match": "prefix"}, "news"], 32, "wamp.error.not_authorized"),
    ([32, 1, {"match": "wildcard"}, "news."], 32, "wamp.error.not_authorized"),
    ([34, 1, 77], 34, "wamp.error.no_such_subscription"),
    ([16, 1, {"acknowledge": True}, "news"], 16, "wamp.error.not_authorized"),
    ([16, 1, {"acknowledge": True}, "not a uri"], 16, "wamp.error.invalid_uri"),
    ([16, 1, {"acknowledge": True}, "wamp.news"], 16, "wamp.error.invalid_uri"),
    ([64, 1, {}, "add"], 64, "wamp.error.procedure_already_exists"),
    ([64, 1, {}, "not a uri"], 64, "wamp.error.invalid_uri"),
    ([64, 1, {}, "wamp.mine"], 64, "wamp.error.invalid_uri"),
    ([66, 1, 77], 66, "wamp.error.no_such_registration"),
)
UNANSWERED: Sequence[list[Any]] = (
    [16, 1, {}, "news", ["hi"]],
    [16, 1, {"acknowledge": False}, "news"],
    [16, 1, {"acknowledge": None}, "news"],
    [16, 1, {}, "not a uri"],
    [16, 1, {}, "wamp.news"],
    [49, 77, {}],
    [49, 77, {"mode": "kill"}],
)


@pytest.mark.spec("VIO-07", "URI-04", "URI-05", "URI-06", "URI-07", "PUB-08", "IDS-05")
@pytest.mark.spec("ERR-invalid_uri", "ERR-no_such_procedure", "ERR-no_such_subscription")
@pytest.mark.spec("ERR-invalid_argument", "ERR-not_authorized", "SUB-04", "SUB-08", "T-19")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize(
    ("request_", "kind", "uri"), REFUSED, ids=[f"{case[0]}" for case in REFUSED]
)
async def test_a_request_that_is_not_possible_gets_an_error(
    request_: list[Any], kind: int, uri: str, subprotocol: str
) -> None:
    async with connect(application(), subprotocol=subprotocol) as client:
        await client.send(request_)
        answer = await client.receive()
        assert answer[:5] == [8, kind, 1, {}, uri]
        assert not INSIDE.search(answer[5][0])
        await client.send([48, 2, {}, "add", [1, 2]])
        assert await client.receive() == [50, 2, {}, [3]]


@pytest.mark.spec("PUB-08", "URI-06", "URI-07", "T-28")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize("request_", UNANSWERED, ids=str)
async def test_what_asks_for_no_answer_gets_none(request_: list[Any], subprotocol: str) -> None:
    async with connect(application(), subprotocol=subprotocol) as client:
        await client.send(request_)
        await client.send([48, 2, {}, "add", [1, 2]])
        assert await client.receive() == [50, 2, {}, [3]]


@pytest.mark.spec("URI-07", "ABT-03", "ABT-04")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize("reason", ["", "not a uri", "a..b", "wamp.close.normal\n"])
async def test_a_goodbye_without_a_valid_reason_is_a_violation(
    reason: str, subprotocol: str
) -> None:
    async with connect(application(), subprotocol=subprotocol) as client:
        await client.send([6, {}, reason])
        await assert_aborted(client)


@pytest.mark.spec("SES-03", "SES-04", "SES-05", "URI-07", "VIO-05")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize(
    ("hello", "reason", "code"),
    [
        ([1, "realm1", {}], VIOLATION, 1002),
        ([1, "realm1", {"roles": None}], VIOLATION, 1002),
        ([1, "realm1", {"roles": {}}], VIOLATION, 1002),
        ([1, "realm1", {"roles": {"dealer": {}, "broker": {}}}], VIOLATION, 1002),
        ([1, "", {"roles": {"caller": {}}}], "wamp.error.invalid_uri", 1002),
        ([1, "my realm", {"roles": {"caller": {}}}], "wamp.error.invalid_uri", 1002),
        ([1, "realm1\n", {"roles": {"caller": {}}}], "wamp.error.invalid_uri", 1002),
        ([1, "a..b", {"roles": {"caller": {}}}], "wamp.error.invalid_uri", 1002),
        ([1, "elsewhere", {"roles": {"caller": {}}}], "wamp.error.no_such_realm", 1000),
        ([1, None, {"roles": {"caller": {}}}], "wamp.error.no_such_realm", 1000),
    ],
    ids=str,
)
async def test_a_hello_that_is_not_possible_is_refused(
    hello: list[Any], reason: str, code: int, subprotocol: str
) -> None:
    app = application(allow_default_realm=False)
    app.add_realm(serverwamp.Realm("realm1"))
    async with connect(app, None, subprotocol=subprotocol) as client:
        await client.send(hello)
        await assert_aborted(client, reason=reason, code=code)


@pytest.mark.spec("ABT-01", "ABT-05", "AUT-09")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "abort",
    [
        [3, {}, "wamp.error.cannot_authenticate"],
        [3, {"message": "no"}, "wamp.close.normal", ["more"], {"and": "more"}],
    ],
    ids=["short", "long"],
)
async def test_abort_is_not_answered(abort: list[Any], state: str, subprotocol: str) -> None:
    async with beside_a_bystander(state, subprotocol) as (victim, check_bystander):
        async with victim.connected() as client:
            said = len(client.transcript)
            await client.send(abort)
            assert await client.expect_close() == 1000
            assert client.transcript[said + 1 :] == ["server: closes the connection (1000)"]
        await check_bystander()


# ---- request ids


@pytest.mark.spec("IDS-04")
async def test_cancel_draws_no_id() -> None:
    async with connect(application()) as client:
        await client.send([48, 3, {}, "echo"])
        assert await client.receive() == [50, 3, {}]
        await client.send([49, 3, {}])
        await client.send([48, 4, {}, "echo"])
        assert await client.receive() == [50, 4, {}]


@pytest.mark.spec("IDS-09", "T-26")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
async def test_ids_as_integral_floats_are_accepted(subprotocol: str) -> None:
    """JavaScript has nothing but floats, and some encoders show it."""
    async with connect(application(), subprotocol=subprotocol) as client:
        for id_ in (1.0, 5512315355.0, float(2**53)):
            await client.send([48, id_, {}, "echo", [id_]])
            answer = await client.receive()
            assert answer == [50, int(id_), {}, [id_]]
            assert type(answer[1]) is int
        await client.send([32, 1.0, {}, "news"])
        subscription = (await client.receive())[2]
        await client.send([49, 1.0, {}])
        await client.send([34, 2.0, float(subscription)])
        assert await client.receive() == [35, 2]


@pytest.mark.spec("IDS-09")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize(
    "id_", ["1", True, False, 1.5, 0, 0.0, -1, -1.0, 2**53 + 1, 2.0**54, 1e300, [1], None], ids=str
)
@pytest.mark.parametrize("position", [1, 2])
async def test_nothing_else_is_accepted_as_an_id(id_: Any, position: int, subprotocol: str) -> None:
    message = [34, 1, 1]
    message[position] = id_
    async with connect(application(), subprotocol=subprotocol) as client:
        await client.send(message)
        await assert_aborted(client)


# ---- numbers


@pytest.mark.spec("MSG-09")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64 - 1, -(2**63)])
async def test_big_integers_arrive_exactly(number: int, subprotocol: str) -> None:
    async with connect(application(), subprotocol=subprotocol) as client:
        assert (await client.call("echo", (number,))).args == (number,)


@pytest.mark.spec("MSG-09", "SER-11")
@pytest.mark.parametrize("number", [2**64, 2**64 + 1, -(2**63) - 1, 10**30])
async def test_integers_beyond_64_bits(number: int) -> None:
    app = application()

    @app.route("produce")
    async def produce(text: str) -> int:
        return int(text)

    async with connect(app) as client:
        assert (await client.call("echo", (number,))).args == (number,)
    async with connect(app, subprotocol="wamp.2.msgpack") as client:
        await client.send([48, 1, {}, "produce", [str(number)]])
        assert (await client.receive())[:5] == [8, 48, 1, {}, "wamp.error.runtime_error"]
        await client.send([48, 2, {}, "add", [1, 2]])
        assert await client.receive() == [50, 2, {}, [3]]


@pytest.mark.spec("SER-11", "SER-12")
@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
async def test_what_is_no_number_never_becomes_json(text: str) -> None:
    app = application()

    @app.route("produce")
    async def produce(text: str) -> dict[str, Any]:
        return {"value": [None, float(text)]}

    async with connect(app) as client:
        await client.send([48, 1, {}, "produce", [text]])
        assert (await client.receive())[:5] == [8, 48, 1, {}, "wamp.error.runtime_error"]
        await client.send([48, 2, {}, "add", [1, 2]])
        assert await client.receive() == [50, 2, {}, [3]]
    async with connect(app, subprotocol="wamp.2.msgpack") as client:
        assert str((await client.call("produce", (text,))).kwargs["value"][1]) == text


async def test_nan_is_no_integer() -> None:
    async with connect(application(), subprotocol="wamp.2.msgpack") as client:
        await client.send([48, 1, {}, "add", [1, float("nan")]])
        assert (await client.receive())[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"]


# ---- harmless oddities


EXTENSIONS = {
    "undefined": msgpack.ExtType(0, b"\0"),
    "unknown": msgpack.ExtType(42, b"abc"),
    "empty": msgpack.ExtType(1, b""),
}


@pytest.mark.spec("MSG-05")
@pytest.mark.parametrize("extension", EXTENSIONS.values(), ids=EXTENSIONS)
async def test_extensions_in_options_and_details_are_harmless(extension: Any) -> None:
    details = {
        "roles": {"caller": {"features": {"x": extension}}, "subscriber": {"y": extension}},
        "authid": extension,
        "authmethods": extension,
        "agent": extension,
        "other": [extension],
    }
    async with connect(application(), None, subprotocol="wamp.2.msgpack") as client:
        await client.send([1, "realm1", details])
        assert (await client.receive())[0] == 2
        await client.send([32, 1, {"match": extension, "get_retained": extension}, "news"])
        assert (await client.receive())[:2] == [33, 1]
        await client.send([48, 2, {"timeout": extension, "other": {"x": extension}}, "add", [1, 2]])
        assert await client.receive() == [50, 2, {}, [3]]
        await client.send([49, 2, {"mode": extension}])
        await client.send([6, {"x": extension}, "wamp.close.normal"])
        assert await client.receive() == [6, {}, "wamp.close.goodbye_and_out"]


@pytest.mark.spec("SER-12")
async def test_an_extension_as_an_argument_concerns_nobody_but_its_handler() -> None:
    async with connect(application(), subprotocol="wamp.2.msgpack") as client:
        await client.send([48, 1, {}, "add", [1, EXTENSIONS["unknown"]]])
        assert (await client.receive())[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"]
        await client.send([48, 2, {}, "echo", [EXTENSIONS["unknown"]]])
        assert (await client.receive())[:5] == [8, 48, 2, {}, "wamp.error.invalid_argument"]
        await client.send([48, 3, {}, "echo", [EXTENSIONS["undefined"]]])
        assert await client.receive() == [50, 3, {}, [None]]


@pytest.mark.spec("MSG-05", "SES-11", "T-17", "T-27")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize(
    "details",
    [
        {"authmethods": None, "authid": None, "authrole": None, "authextra": None, "agent": None},
        {"authmethods": [], "authextra": {}},
        {"authextra": {"trustroot": None}},
        {"agent": "somebody/1.0", "x_ours": 1, "": [], "nonce": {"a": None}},
        {"roles": {"caller": {}, "juggler": {}, "broker": {}}},
        {"roles": {"caller": {"features": None}, "callee": {"features": {"x": True, "y": False}}}},
        {"roles": {"publisher": {"features": {}, "more": [1]}}},
    ],
    ids=str,
)
async def test_unknown_and_absent_details_are_ignored(
    details: dict[str, Any], subprotocol: str
) -> None:
    async with connect(application(), None, subprotocol=subprotocol) as client:
        await client.send([1, "realm1", {"roles": {"caller": {}}, **details}])
        assert (await client.receive())[0] == 2
        await client.send([48, 1, {"": 1, "x": None, "Y": [{}]}, "add", [1, 2]])
        assert await client.receive() == [50, 1, {}, [3]]


@pytest.mark.spec("SER-14", "T-09")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
async def test_null_stands_for_no_payload(subprotocol: str) -> None:
    async with connect(application(), subprotocol=subprotocol) as client:
        await client.send([48, 1, {}, "echo", None, {"a": 1}])
        assert await client.receive() == [50, 1, {}, [], {"a": 1}]
        await client.send([48, 2, {}, "echo", None])
        assert await client.receive() == [50, 2, {}]
        await client.send([48, 3, {}, "echo", [1], None])
        assert await client.receive() == [50, 3, {}, [1]]


@pytest.mark.spec("ABT-08")
@pytest.mark.parametrize("last", ['[6,{},"wamp.close.goodbye_and_out"]', "garbage", '[6,{},""]'])
async def test_what_a_client_sends_after_goodbye_of_the_server_is_ignored(last: str) -> None:
    app = application()

    @app.route("dismiss")
    async def dismiss(session: Any) -> None:
        await session.close("wamp.close.killed")

    async with connect(app) as client:
        await client.send([48, 1, {}, "dismiss"])
        assert await client.receive() == [6, {}, "wamp.close.killed"]
        await client.send([48, 2, {}, "add", [1, 2]])
        await client.send([48, 1, {}, "add", [1, 2]])
        await client.send([1, "realm1", {"roles": {"caller": {}}}])
        said = len(client.transcript)
        await client.send_frame(last)
        assert await client.expect_close() == 1000
        assert client.transcript[said + 1 :] == ["server: closes the connection (1000)"]
