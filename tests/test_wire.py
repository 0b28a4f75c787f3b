"""What passes between client and server around the messages: order, batches, and room."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgpack
import pytest
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectSendStream

import serverwamp
from serverwamp import Limits, RPCProgressReport, RPCResult, Session
from serverwamp.protocol.serializers import SUBPROTOCOLS
from serverwamp.testing import connect
from tests.helpers import wait_all_tasks_blocked

SECONDS = 5.0


def application(**settings: Any) -> serverwamp.Application:
    app = serverwamp.Application(**settings)

    @app.route("echo")
    async def echo(*args: Any) -> RPCResult:
        return RPCResult(args)

    return app


# ---- after WELCOME


@pytest.mark.spec("SES-15", "T-13")
async def test_nothing_follows_welcome_unasked() -> None:
    app = application()
    begun = anyio.Event()

    async def lifespan(session: Session) -> AsyncIterator[None]:
        session.send_event("news", ("too early",))
        begun.set()
        yield

    app.add_session_lifespan_handler(lifespan)

    @app.topic("news")
    async def news() -> AsyncIterator[None]:
        yield

    async with connect(app) as client:
        await app.publish("news", ("for others",))
        await wait_all_tasks_blocked()
        assert begun.is_set()
        assert client.transcript[-1].startswith("server: [2, ")
        await client.expect_nothing()


@pytest.mark.spec("URI-08")
async def test_a_topic_may_be_called_like_a_procedure() -> None:
    app = serverwamp.Application()

    @app.route("com.example.weather")
    async def weather() -> str:
        return "sunny"

    @app.topic("com.example.weather")
    async def changes(session: Session) -> AsyncIterator[None]:
        session.send_event(args=("rain",))
        yield

    async with connect(app) as client:
        subscription = await client.subscribe("com.example.weather")
        assert (await client.expect_event(subscription)).args == ("rain",)
        assert (await client.call("com.example.weather")).args == ("sunny",)


@pytest.mark.spec("CID-04", "AUT-10")
async def test_handlers_know_which_of_a_principals_sessions_calls() -> None:
    app = serverwamp.Application()

    async def authenticate(session: Session, ticket: str) -> dict[str, str]:
        return {"account": ticket}

    app.set_ticket_authenticator(authenticate)

    @app.route("who")
    async def who(session: Session) -> list[Any]:
        return [session.id, session.auth_id, session.auth_role, session.identity]

    async with (
        connect(app, authid="joe", ticket="A") as first,
        connect(app, authid="joe", ticket="B") as second,
    ):
        assert first.session != second.session
        for client, account in ((first, "A"), (second, "B")):
            answer = (await client.call("who")).args
            assert answer == (client.session, "joe", "user", {"account": account})


# ---- batches and order


@pytest.mark.spec("BAT-06", "ORD-04", "ORD-06")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_calls_begin_in_the_order_in_which_they_came(subprotocol: str) -> None:
    app = serverwamp.Application()
    begun: list[int] = []
    gates = [anyio.Event() for _ in range(20)]

    @app.route("first")
    async def first(n: int) -> int:
        begun.append(n)
        await gates[n].wait()
        return n

    @app.route("second")
    async def second(n: int) -> int:
        begun.append(n)
        await gates[n].wait()
        return n

    async with connect(app, subprotocol=subprotocol) as client:
        calls = [[48, n + 1, {}, "first" if n % 3 else "second", [n]] for n in range(20)]
        await client.send(*calls)
        await wait_all_tasks_blocked()
        assert begun == list(range(20))
        for n in reversed(range(20)):  # replies come as they are ready
            gates[n].set()
            assert await client.receive() == [50, n + 1, {}, [n]]


@pytest.mark.spec("BAT-06", "ORD-03", "ORD-07")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_what_waits_leaves_in_order(subprotocol: str) -> None:
    app = serverwamp.Application()

    @app.topic("numbers")
    async def numbers() -> AsyncIterator[None]:
        yield

    @app.route("count")
    async def count() -> AsyncIterator[Any]:
        for n in range(300):
            await app.publish("numbers", (n,))
            yield RPCProgressReport((n,))
        yield RPCResult(("done",))

    async with connect(app, subprotocol=subprotocol) as client:
        await client.subscribe("numbers")
        call = await client.start_call("count", receive_progress=True)
        for n in range(300):
            event = await client.receive()
            assert (event[0], event[4]) == (36, [n])
            assert await client.receive() == [50, call.request, {"progress": True}, [n]]
        assert await client.receive() == [50, call.request, {}, ["done"]]


class RawConnection:
    """A WebSocket as a server gives it to an application, whose network can be held up."""

    def __init__(self, to_app: MemoryObjectSendStream[Any]) -> None:
        self._to_app = to_app
        self.sent: list[MutableMapping[str, Any]] = []
        self.flowing = anyio.Event()
        self.flowing.set()

    async def send(self, event: MutableMapping[str, Any]) -> None:
        self.sent.append(event)
        await self.flowing.wait()

    async def receive(self, event: MutableMapping[str, Any]) -> None:
        await self._to_app.send(event)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def raw_connection(
    app: serverwamp.Application, subprotocol: str
) -> AsyncIterator[RawConnection]:
    scope = {
        "type": "websocket",
        "path": "/",
        "headers": [],
        "subprotocols": [subprotocol],
        "client": ("127.0.0.1", 5),
    }
    to_app, from_client = anyio.create_memory_object_stream[Any](100)
    connection = RawConnection(to_app)
    async with to_app, from_client:
        with anyio.fail_after(SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(app, scope, from_client.receive, connection.send)
                await connection.receive({"type": "websocket.connect"})
                assert connection.sent[-1]["type"] == "websocket.accept"
                yield connection
                await connection.receive({"type": "websocket.disconnect", "code": 1005})
                to_app.close()  # some servers report the disconnection again; this one doesn't


HELLO = [1, "realm1", {"roles": {"caller": {}, "subscriber": {}}}]


def packed(*message: Any) -> dict[str, Any]:
    return {"type": "websocket.receive", "bytes": msgpack.packb(message), "text": None}


def unbatched(frame: bytes) -> list[Any]:
    messages = []
    while frame:
        end = 4 + int.from_bytes(frame[:4])
        messages.append(msgpack.unpackb(frame[4:end]))
        frame = frame[end:]
    return messages


@pytest.mark.spec("BAT-02", "BAT-03", "BAT-06")
async def test_what_waits_together_leaves_in_one_batch() -> None:
    def batch(*messages: Any) -> dict[str, Any]:
        units = [msgpack.packb(message) for message in messages]
        frame = b"".join(len(unit).to_bytes(4) + unit for unit in units)
        return {"type": "websocket.receive", "bytes": frame}

    async with raw_connection(application(), "wamp.2.msgpack.batched") as connection:
        await connection.receive(batch(HELLO))
        assert len(unbatched(connection.sent[-1]["bytes"])) == 1, "a batch of one"
        connection.flowing = anyio.Event()
        await connection.receive(batch([48, 1, {}, "echo", [1]]))
        await connection.receive(batch(*([48, n, {}, "echo", [n]] for n in range(2, 50))))
        held_up = len(connection.sent)
        connection.flowing.set()
        await wait_all_tasks_blocked()
        (frame,) = connection.sent[held_up:]
        assert unbatched(frame["bytes"]) == [[50, n, {}, [n]] for n in range(2, 50)]


@pytest.mark.spec("PRG-11", "ORD-07")
async def test_progress_waits_for_a_client_that_doesnt_read() -> None:
    app = serverwamp.Application(limits=Limits(outbound_messages=80))
    produced: list[int] = []

    @app.route("count")
    async def count() -> AsyncIterator[Any]:
        for n in range(200):
            produced.append(n)
            yield RPCProgressReport((n,))
            await checkpoint()
        yield RPCResult(("done",))

    async with raw_connection(app, "wamp.2.msgpack") as connection:
        await connection.receive(packed(*HELLO))
        connection.flowing = anyio.Event()
        await connection.receive(packed(48, 1, {"receive_progress": True}, "count"))
        assert 0 < len(produced) < 20
        connection.flowing.set()
        await wait_all_tasks_blocked()
        replies = [msgpack.unpackb(event["bytes"]) for event in connection.sent[2:]]
        assert replies == [
            *([50, 1, {"progress": True}, [n]] for n in range(200)),
            [50, 1, {}, ["done"]],
        ]


@pytest.mark.spec("WS-05", "WS-06")
@pytest.mark.parametrize(
    ("subprotocol", "key", "other"),
    [
        ("wamp.2.json", "text", "bytes"),
        ("wamp.2.json.batched", "text", "bytes"),
        ("wamp.2.msgpack", "bytes", "text"),
        ("wamp.2.msgpack.batched", "bytes", "text"),
        ("wamp.2.cbor", "bytes", "text"),
        ("wamp.2.cbor.batched", "bytes", "text"),
    ],
)
async def test_text_is_sent_as_text_and_binary_as_binary(
    subprotocol: str, key: str, other: str
) -> None:
    async with raw_connection(application(), subprotocol) as connection:
        await connection.receive({"type": "websocket.receive", key: None, other: None})
        _, abort, close = connection.sent
        assert abort["type"] == "websocket.send"
        assert abort.get(key)
        assert abort.get(other) is None
        assert close == {"type": "websocket.close", "code": 1002, "reason": ""}
