"""What an application counts, field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from serverwamp import (
    Application,
    Limits,
    Realm,
    RPCErrorResult,
    RPCResult,
    Session,
    Statistics,
    WAMPError,
)
from serverwamp.protocol.serializers import SUBPROTOCOLS
from serverwamp.testing import connect
from tests.helpers import anybody, until

HELLO = [1, "realm1", {"roles": {"caller": {}}}]


def test_a_new_application() -> None:
    app = Application()
    statistics = app.statistics()
    assert statistics == Statistics(
        sessions=0,
        unauthenticated_sessions=0,
        calls_in_flight=0,
        calls={"result": 0, "error": 0, "canceled": 0, "timeout": 0},
        events_delivered=0,
        events_refused={"disconnect": 0, "drop_newest": 0, "drop_oldest": 0, "latest": 0},
        outbound_messages=0,
        outbound_bytes=0,
        lost_windows=0,
        violations={},
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        statistics.sessions = 1  # type: ignore[misc]


async def test_sessions() -> None:
    app = Application()

    def count() -> tuple[int, int]:
        return app.statistics().sessions, app.statistics().unauthenticated_sessions

    async with connect(app, None) as client:
        assert count() == (0, 1)
        await client.join()
        assert count() == (1, 0)
        async with connect(app), connect(app, None):
            assert count() == (2, 1)
        assert count() == (1, 0)
        await client.leave()
        assert count() == (0, 1)
    assert count() == (0, 0)


async def test_a_snapshot_stays_as_it_is() -> None:
    app = Application()
    app.topic("topic", overflow="latest")(anybody)
    before = app.statistics()
    async with connect(app) as client:
        with pytest.raises(WAMPError):
            await client.call("nowhere")
        await client.send([48, 2, {}])
        await client.expect_close()
    assert before == Application().statistics()
    assert app.statistics().calls["error"] == 1
    assert app.statistics().violations == {"undecodable": 1}


# ---- calls


@pytest.mark.parametrize("synchronize_requests", [False, True])
async def test_outcomes_of_calls(synchronize_requests: bool) -> None:
    app = Application(synchronize_requests=synchronize_requests)
    realm = Realm("realm2")
    app.add_realm(realm)

    @app.route("fail")
    async def fail(kind: str) -> Any:
        if kind == "raise":
            raise ValueError
        if kind == "unencodable":
            return object()
        if kind == "return":
            return RPCErrorResult("com.example.error")
        raise WAMPError("com.example.error")

    @app.route("generate")
    async def generate() -> AsyncIterator[Any]:
        yield RPCResult(("result",))

    app.route("wait")(anyio.sleep_forever)
    for each in (app, realm):
        each.route("plain")(lambda: "result")

    async with connect(app) as client, connect(app, "realm2") as other:
        for procedure in ("plain", "generate"):
            await client.call(procedure)
        await other.call("plain")
        for kind in ("raise", "unencodable", "return", "other"):
            with pytest.raises(WAMPError):
                await client.call("fail", (kind,))
        for procedure in ("nowhere", "no uri", "plain"):
            with pytest.raises(WAMPError):
                await client.call(procedure, ("too much",))
        for _ in range(2):
            with pytest.raises(WAMPError, match="timeout"):
                await client.call("wait", options={"timeout": 1})
        for mode in ("kill", "killnowait", "skip"):
            call = await client.start_call("wait", options={"timeout": 60_000})
            await until(lambda: app.statistics().calls_in_flight == 1)
            await call.cancel(mode)
            with pytest.raises(WAMPError, match="canceled"):
                await call.result()
            assert not app.statistics().calls_in_flight
        await client.start_call("wait")
        await client.leave()
    statistics = app.statistics()
    assert statistics.calls == {"result": 3, "error": 7, "canceled": 4, "timeout": 2}
    assert not statistics.calls_in_flight


@pytest.mark.parametrize("synchronize_requests", [False, True])
async def test_calls_in_flight(synchronize_requests: bool) -> None:
    app = Application(synchronize_requests=synchronize_requests)
    gate = anyio.Event()

    @app.route("wait")
    async def wait() -> None:
        await gate.wait()

    async with connect(app) as client, connect(app) as other:
        calls = [await client.start_call("wait") for _ in range(3)]
        await other.start_call("wait")
        await until(lambda: app.statistics().calls_in_flight == 4)
        await other.disconnect()
        gate.set()
        for call in calls:
            await call.result()
        await until(lambda: not app.statistics().calls_in_flight)
        outcomes = app.statistics().calls
        assert outcomes["result"] + outcomes["canceled"] == 4


async def test_calls_that_the_server_ends() -> None:
    app = Application()
    app.route("wait")(anyio.sleep_forever)
    async with connect(app) as client:
        await client.start_call("wait")
        await client.send([48, 2, {}, "nowhere"])
        assert (await client.receive())[0] == 8
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.close_sessions, 0)
            assert (await client.receive())[0] == 8
            await client.send([6, {}, "wamp.close.goodbye_and_out"])
    assert app.statistics().calls == {"result": 0, "error": 1, "canceled": 1, "timeout": 0}


# ---- events


async def test_events() -> None:
    app = Application()
    realm = Realm("realm2")
    app.add_realm(realm)
    sessions: list[Session] = []

    async def topic(session: Session) -> AsyncIterator[None]:
        sessions.append(session)
        session.send_event(args=("hello",))
        yield

    for each in (app, realm):
        each.topic("topic")(topic)
    async with (
        connect(app) as one,
        connect(app, subprotocol="wamp.2.msgpack") as two,
        connect(app) as three,
        connect(app, "realm2") as other,
    ):
        for client in (one, two, three, other):
            await client.subscribe("topic")
        assert app.statistics().events_delivered == 4
        await app.publish("topic")
        assert app.statistics().events_delivered == 7
        await realm.publish("topic")
        await app.publish("nowhere")
        assert app.statistics().events_delivered == 8
        await app.publish("topic", exclude=one.session or ())
        assert app.statistics().events_delivered == 10
        await app.publish("topic", eligible=(one.session or 0, two.session or 0))
        assert app.statistics().events_delivered == 12
        await app.publish("topic", (2**65,))  # JSON only
        assert app.statistics().events_delivered == 14
        sessions[1].send_event(args=(2**65,))
        assert app.statistics().events_delivered == 14
        for session in sessions:
            session.send_event()
        assert app.statistics().events_delivered == 18
    for session in sessions:
        session.send_event()
    assert app.statistics().events_delivered == 18
    assert not any(app.statistics().events_refused.values())


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_what_waits(subprotocol: str) -> None:
    app = Application(limits=Limits(outbound_messages=100))
    app.topic("topic", overflow="drop_oldest")(anybody)
    async with connect(app, subprotocol=subprotocol) as client, connect(app) as other:
        await client.subscribe("topic")
        await other.subscribe("topic")
        client.pause()
        sizes = set()
        for number in range(300):
            await app.publish("topic", (number, "x" * 1000))
            await other.expect_event()
            statistics = app.statistics()
            assert statistics.outbound_bytes >= 1000 * statistics.outbound_messages
            assert statistics.outbound_bytes <= 1100 * (statistics.outbound_messages + 1)
            sizes.add(statistics.outbound_messages)
        assert sizes == set(range(101))
        assert statistics.events_delivered + statistics.events_refused["drop_oldest"] == 600
        client.resume()
        await until(lambda: not app.statistics().outbound_bytes)
        assert not app.statistics().outbound_messages


# ---- violations


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        ("unexpected message", [[48, 1, {}, "procedure"]]),
        ("unexpected message", [HELLO, HELLO]),
        ("invalid message", [[1, "not a uri", {"roles": {"caller": {}}}]]),
        ("invalid message", [[1, "realm1", {"roles": {}}]]),
        ("invalid message", [HELLO, [6, {}, "not a uri"]]),
        ("wrong id", [HELLO, [48, 2, {}, "wait"], [48, 2, {}, "procedure"]]),
        ("wrong id", [HELLO, [48, 1, {}, "wait"], [32, 1, {}, "topic"]]),
        ("undecodable", [[1]]),
        ("undecodable", ["nonsense"]),
        ("array_length", [HELLO, [48, 1, {}, "procedure", [0] * 200]]),
        ("uri_length", [[1, "x" * 200, {"roles": {"caller": {}}}]]),
        ("message_bytes", ["x" * 4000]),
        ("hello_timeout", []),
    ],
)
async def test_violations(kind: str, messages: list[Any]) -> None:
    hello_timeout = 0.2 if kind == "hello_timeout" else 10
    limits = Limits(
        array_length=100, uri_length=100, message_bytes=3000, hello_timeout=hello_timeout
    )
    app = Application(limits=limits)
    app.route("wait")(anyio.sleep_forever)
    async with connect(app, None) as client:
        await client.send(*messages)
        await until(lambda: bool(app.statistics().violations))
        assert app.statistics().violations == {kind: 1}


async def test_the_wrong_frame_type() -> None:
    app = Application()
    for _ in range(2):
        async with connect(app) as client:
            await client.send_frame(b"[]")
            await client.expect_close()
    assert app.statistics().violations == {"wrong frame type": 2}


async def test_a_limit_counts_each_time() -> None:
    app = Application(limits=Limits(subscriptions=1))
    app.prefix_topic("topic.")(anybody)
    async with connect(app) as client:
        await client.subscribe("topic.first")
        for number in range(5):
            with pytest.raises(WAMPError):
                await client.subscribe(f"topic.{number}")
    assert app.statistics().violations == {"subscriptions": 5}
