"""What a client does again and again is logged once at most."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgpack
import pytest

from serverwamp import Application, Limits, Realm, RPCProgressReport, Session, WAMPError
from serverwamp.testing import connect

TIMES = 30
LIMITS = Limits(message_depth=8, array_length=50, map_length=50, uri_length=100, retained_topics=1)
DEEP: Any = [[[[[[[[[[]]]]]]]]]]


def application() -> Application:
    app = Application(limits=LIMITS, client_register="tool.")

    @app.route("add")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.route("secret", requires="admin")
    async def secret() -> None: ...

    @app.topic("news", client_publish=True)
    async def news() -> AsyncIterator[None]:
        yield

    @app.prefix_topic("shown.", client_publish=True)
    async def shown() -> AsyncIterator[None]:
        yield

    return app


REQUESTS: dict[str, list[Any]] = {
    "an unknown procedure": [48, 0, {}, "nowhere"],
    "an invalid URI": [48, 0, {}, "not a uri"],
    "a long URI": [48, 0, {}, "a" * 101],
    "no argument": [48, 0, {}, "add"],
    "a bad argument": [48, 0, {}, "add", ["x", {}]],
    "a key that is no text": [48, 0, {}, "add", [{1.5: 1}, 2]],
    "deep arguments": [48, 0, {}, "add", DEEP],
    "long arguments": [48, 0, {}, "add", [0] * 51],
    "a role": [48, 0, {}, "secret"],
    "a timeout": [48, 0, {"timeout": 1}, "add", [1, 2]],
    "a call that is not open": [49, 12345, {}],
    "an undeclared topic": [32, 0, {}, "nothing"],
    "a subscription that is not there": [34, 0, 12345],
    "a publication nobody allows": [16, 0, {"acknowledge": True}, "nothing", []],
    "a publication without answer": [16, 0, {}, "nothing", []],
    "an unknown type": [16, 0, {}, "news", [msgpack.ExtType(9, b"x")]],
    "a registration of nothing": [64, 0, {}, "add"],
    "a registration that is not there": [66, 0, 12345],
    "the meta API": [48, 0, {}, "wamp.session.list"],
    "text that JSON can't hold": [16, 0, {}, "news", ["\0A"]],
}


@pytest.mark.parametrize("message", REQUESTS.values(), ids=REQUESTS)
async def test_a_request_is_logged_once_at_most(
    message: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    app = application()
    async with connect(app, subprotocol="wamp.2.msgpack") as client, connect(app) as listener:
        await listener.subscribe("news")
        caplog.clear()
        for number in range(1, TIMES + 1):
            request = [
                number if part == 0 and place == 1 else part for place, part in enumerate(message)
            ]
            await client.send_frame(msgpack.packb(request))
        await client.send([48, 1000, {}, "add", [1, 2]])
        while (reply := await client.receive()) != [50, 1000, {}, [3]]:
            assert reply[0] in (8, 17, 50)
        assert len(caplog.records) <= 1


@pytest.mark.parametrize("procedure", ["say", "say_together", "report", "compute", "slow"])
async def test_what_handlers_cant_send_of_it_is_logged_once(
    procedure: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = application()
    gates: list[anyio.Event] = []

    @app.route("say")
    async def say(text: str) -> None:
        await app.publish("news", [text])

    @app.route("say_together")
    async def say_together(text: str) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.publish, "news", [text])
            tasks.start_soon(app.publish, "news", [text])

    @app.route("report")
    async def report(text: str) -> AsyncIterator[RPCProgressReport]:
        yield RPCProgressReport([text, 2**64])

    @app.route("compute")
    async def compute(text: str) -> int:
        return len(text) * 2**64

    @app.route("slow")
    async def slow(text: str) -> int:
        gates.append(anyio.Event())
        await gates[-1].wait()
        return len(text) * 2**64

    async with connect(app, subprotocol="wamp.2.msgpack") as client, connect(app) as listener:
        await listener.subscribe("news")
        for _ in range(TIMES):
            call = await client.start_call(procedure, ["\0A"], receive_progress=True)
            if procedure == "slow":
                await call.cancel("skip")
            with pytest.raises(WAMPError) as error:
                await call.result()
            assert procedure == "slow" or error.value.uri == "wamp.error.runtime_error"
            for gate in gates:
                gate.set()
        await client.expect_nothing()
        await listener.expect_nothing()
    assert len(caplog.records) == 1


async def test_retained_events_that_are_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    app = application()
    async with connect(app) as client:
        for number in range(TIMES):
            options = {"retain": True, "acknowledge": True}
            await client.send([16, number + 1, options, f"shown.{number}", []])
            assert (await client.receive())[0] == 17
        assert caplog.text.count("is no longer retained") == 1


@pytest.mark.parametrize(
    "reply",
    [
        [70, None, {"progress": True}, ["\0A"]],
        [8, 68, None, {}, "com.failed", ["\0A"]],
        [70, None, {}, ["\0A"]],
        [70, None, {}, [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)]],
    ],
    ids=["progress", "error", "result", "what every format can hold"],
)
async def test_what_a_callee_says_is_logged_once(
    reply: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = application()
    features = {"callee": {"features": {"progressive_call_results": True}}}
    roles = {"caller": {}, **features}
    async with (
        connect(app) as caller,
        connect(app, subprotocol="wamp.2.msgpack", roles=roles) as callee,
    ):
        await callee.send([64, 1, {}, "tool.x"])
        await callee.receive()
        for _ in range(TIMES):
            call = await caller.start_call("tool.x", receive_progress=True)
            invocation = (await callee.receive())[1]
            frame = [invocation if part is None else part for part in reply]
            await callee.send_frame(msgpack.packb(frame, datetime=True))
            if reply[0] == 70 and reply[2]:
                await callee.send([70, invocation, {}, ["done"]])
                assert (await call.result()).args == ("done",)
            else:
                await caller.receive()
        assert len(caplog.records) <= 1


async def test_tickets_that_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    app = Application()

    @app.set_ticket_authenticator
    async def authenticate(session: Session, ticket: str) -> str | None:
        return "ada" if ticket == "right" else None

    @app.route("renew")
    async def renew(ticket: str, session: Session) -> None:
        await session.refresh(ticket)

    login = {"authid": "ada", "authmethods": ["ticket"]}
    async with connect(app, None) as client:
        await client.send([1, "realm1", {"roles": {"caller": {}}, **login}])
        await client.receive()
        await client.send([5, "right", {}])
        await client.receive()
        caplog.clear()
        for number in range(1, TIMES + 1):
            await client.send([48, number, {}, "renew", ["wrong"]])
            assert (await client.receive())[4] == "wamp.error.authentication_failed"
        assert not caplog.records


async def test_realms_that_are_not_there(caplog: pytest.LogCaptureFixture) -> None:
    app = Application(allow_default_realm=False)
    app.route("add")(lambda a, b: a + b)
    app.add_realm(Realm("one"))
    for _ in range(TIMES):
        async with connect(app, None) as client:
            await client.send([1, "other", {"roles": {"caller": {}}}])
            await client.receive()
    assert len([record for record in caplog.records if record.levelname != "INFO"]) == 1
