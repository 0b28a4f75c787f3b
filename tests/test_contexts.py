"""Context variables: each unit of work has a copy of its session's context, and of no other's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from serverwamp import Application, Limits, Session, WAMPError
from serverwamp.concurrency.contexts import in_own_context
from serverwamp.serving.connection import Receive, Scope, Send
from serverwamp.testing import connect
from tests.helpers import anybody, connections_of

found: list[str] = []
of_connection: ContextVar[str] = ContextVar("of_connection", default="no connection")
of_session: ContextVar[str] = ContextVar("of_session", default="no session")
of_work: ContextVar[str] = ContextVar("of_work", default="clean")


@pytest.fixture(autouse=True)
def nothing_found() -> None:
    found.clear()


def middleware(app: Application) -> Any:
    """Set the variable of the connection as ASGI middleware does."""
    connections = iter(range(1, 100))

    async def with_variable(scope: Scope, receive: Receive, send: Send) -> None:
        of_connection.set(f"connection {next(connections)}")
        await app(scope, receive, send)

    return with_variable


def note(new: str = "dirty") -> str:
    """Note what a unit of work finds, and leave something for others to find."""
    before = f"{of_connection.get()}, {of_session.get()}, {of_work.get()}"
    found.append(before)
    of_work.set(new)
    return before


CLEAN = "connection 1, no session, clean"


# ---- publications


@pytest.mark.parametrize("waits", [False, True])
async def test_each_publication_has_a_context_of_its_own(waits: bool) -> None:
    app = Application()
    app.topic("topic")(anybody)

    def resource() -> Iterator[str]:
        note("by the factory")
        yield "resource"
        assert of_work.get() == "by the handler", "one publication is one unit"

    app.add_default_arg("resource", factory=resource)

    @app.publication("topic")
    async def handler(fails: bool, resource: str) -> None:
        assert of_work.get() == "by the factory"
        of_work.set("by the handler")
        if waits:
            await anyio.lowlevel.checkpoint()
        if fails:
            raise KeyError

    @app.publication("thread")
    def in_thread() -> None:
        note()

    def say(error: KeyError) -> WAMPError:
        found.append(f"error: {of_work.get()}")
        of_work.set("by the error handler")
        return WAMPError("com.example.failed")

    app.add_error_handler(KeyError, say)
    async with connect(middleware(app), subprotocol="wamp.2.json.batched") as client:
        numbers = [client.next_request() for _ in range(3)]
        await client.send(*[[16, n, {}, "topic", [n == 2]] for n in numbers])
        with pytest.raises(WAMPError, match="failed"):
            await client.publish("topic", [True], acknowledge=True)
        await client.publish("thread")
        await client.publish("thread", acknowledge=True)
    error = "error: by the handler"
    assert found == [CLEAN, CLEAN, error, CLEAN, CLEAN, error, CLEAN, CLEAN]


async def test_a_publication_is_cancelled_in_its_context(caplog: pytest.LogCaptureFixture) -> None:
    app = Application(limits=Limits(goodbye_timeout=0.01))
    app.topic("topic")(anybody)
    begun = anyio.Event()

    @app.publication("topic")
    async def handler() -> None:
        of_work.set("mine")
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            found.append(of_work.get())

    async with connect(app) as client:
        await client.publish("topic")
        await begun.wait()
        await client.disconnect()
    assert found == ["mine"]
    assert not caplog.records


# ---- sessions on one connection


async def test_sessions_on_one_connection_share_nothing() -> None:
    app = Application()

    async def authenticate(session: Session, ticket: str) -> str:
        note()
        of_session.set(f"session of {ticket}")
        return ticket

    app.set_ticket_authenticator(authenticate)

    async def lifespan(session: Session) -> AsyncIterator[None]:
        note("by the lifespan handler")
        yield
        found.append(f"end: {of_session.get()}, {of_work.get()}")

    app.add_session_lifespan_handler(lifespan)
    app.route("note")(note)
    async with connect(middleware(app), None) as client:
        for name in ("ada", "grace"):
            await client.join(ticket=name, authid=name)
            for _ in range(2):  # the calls of a session know what its authenticator has set
                result = await client.call("note", ["by a call"])
                expected = f"connection 1, session of {name}, by the lifespan handler"
                assert result.args == (expected,)
            await client.leave()
    for name in ("ada", "grace"):
        of_this = [text for text in found if name in text]
        assert of_this[0] == f"connection 1, session of {name}, dirty"
        assert of_this[-1] == f"end: session of {name}, by the lifespan handler"
    assert found.count(CLEAN) == 2


async def test_a_session_that_is_refused_leaves_nothing() -> None:
    app = Application()

    @app.add_transport_authenticator
    async def admit(session: Session) -> str | None:
        note()
        return session.realm if session.realm != "refused" else None

    @app.route("note")
    async def procedure() -> str:
        return of_work.get()

    async with connect(middleware(app), "one") as client:
        await client.leave()
        await client.join("two")
    assert found == [CLEAN, CLEAN]


# ---- what is asked, and who is told


async def test_what_decides_has_a_context_of_its_own() -> None:
    app = Application()

    def allowed() -> bool:
        note()
        return True

    async def allowed_too() -> bool:
        await anyio.lowlevel.checkpoint()
        note()
        return True

    app.set_authorizer(allowed, lifetime=0)
    app.route("note", requires=allowed_too)(lambda: note("by a call"))
    app.topic("topic", client_publish=True)(anybody)
    async with connect(middleware(app)) as client:
        await client.call("note")
        await client.call("note")
        await client.subscribe("topic")
        await client.publish("topic", acknowledge=True)
    assert found == [CLEAN] * 8


async def test_an_authorizer_is_asked_about_events_in_the_receivers_context() -> None:
    app = Application()
    app.prefix_topic("a.", client_publish=True)(anybody)

    async def allowed(action: str, uri: str) -> bool:
        await anyio.lowlevel.checkpoint()
        if action == "subscribe" and uri == "a.b":
            note()
        return True

    app.set_authorizer(allowed, lifetime=0)

    @app.route("publish")
    async def publish() -> None:
        of_work.set("of the publisher")
        await app.publish("a.b")

    site = middleware(app)
    async with connect(site) as subscriber, connect(site) as publisher:
        await subscriber.subscribe("a.", match="prefix")
        for _ in range(2):
            await publisher.call("publish")
            await subscriber.expect_event()
    assert found == [CLEAN, CLEAN]


async def test_overflow_handlers_are_run_in_the_receivers_context() -> None:
    app = Application(overflow="drop_newest", limits=Limits(outbound_messages=2))
    app.topic("topic")(anybody)
    told = anyio.Event()

    @app.add_overflow_handler
    async def first() -> None:
        note()

    @app.add_overflow_handler
    async def second() -> None:
        note()
        told.set()

    @app.route("publish")
    async def publish() -> None:
        of_work.set("of the publisher")
        for _ in range(500):
            await app.publish("topic")

    site = middleware(app)
    async with connect(site) as subscriber, connect(site) as publisher:
        await subscriber.subscribe("topic")
        subscriber.pause()
        await publisher.call("publish")
        with anyio.fail_after(5):
            await told.wait()
    assert found == [CLEAN, CLEAN]


async def test_testaments_are_published_in_the_context_of_their_session() -> None:
    app = Application()
    app.set_ticket_authenticator(lambda session, ticket: "anybody")
    app.topic("topic")(anybody)
    sessions: dict[str, Session] = {}
    ended = anyio.Event()

    @app.publication("topic")
    async def handler(last: bool) -> None:
        note()
        if last:
            ended.set()

    @app.route("remember")
    async def remember(session: Session) -> None:
        sessions["ada"] = session

    @app.route("close")
    async def close() -> None:
        of_work.set("of somebody else")
        await sessions["ada"].close()

    site = middleware(app)
    async with (
        connect(site, ticket="x", authid="ada") as ada,
        connect(site, ticket="x", authid="grace") as grace,
    ):
        for last in (False, True):
            await ada.call("wamp.session.add_testament", ["topic", [last]])
        await ada.call("remember")
        await grace.call("close")
        with anyio.fail_after(5):
            await ended.wait()
    assert found == [CLEAN, CLEAN]


# ---- subscriptions


async def test_each_subscription_has_a_context_that_lasts_as_long() -> None:
    app = Application()
    proceed = anyio.Event()

    @app.prefix_topic("t.")
    async def handler(topic: str) -> AsyncIterator[None]:
        note(topic)
        yield
        if topic == "t.slow":
            await proceed.wait()
        found.append(f"end: {of_work.get()}")

    app.route("note")(note)
    async with connect(middleware(app)) as client:
        one = await client.subscribe("t.one")
        slow = await client.subscribe("t.slow")
        await client.unsubscribe(one)
        await client.send([34, client.next_request(), slow.id])
        # This subscription waits until the one before is closed, and begins in its task.
        await client.send([32, client.next_request(), {}, "t.slow"])
        await client.expect_nothing()
        proceed.set()
        await client.expect(lambda m: m[0] == 33)
        assert (await client.call("note")).args == (CLEAN,)
    assert found[:2] == [CLEAN, CLEAN]
    assert found[2:] == ["end: t.one", "end: t.slow", CLEAN, CLEAN, "end: t.slow"]


# ---- events


@pytest.mark.parametrize("publishes", ["a call", "the application"])
async def test_events_are_sent_in_the_context_of_their_receiver(publishes: str) -> None:
    """Middleware may wrap `send`, too, as those do that trace what happens."""
    app = Application()
    app.topic("topic")(anybody)
    sent: list[tuple[str, str]] = []

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        of_connection.set(name := str(len(sent) + 1000 * len(connections_of(app))))

        async def traced(event: Any) -> None:
            if event["type"] == "websocket.send" and "[36," in event.get("text", ""):
                assert of_connection.get() == name
                found.append(of_work.get())
                of_work.set("dirty")
            await send(event)

        await app(scope, receive, traced)

    @app.route("publish")
    async def publish() -> None:
        of_work.set("of the publisher")
        for number in range(2):
            await app.publish("topic", [number])

    async with (
        connect(site) as publisher,
        connect(site) as one,
        connect(site) as two,
        connect(site) as three,
    ):
        for client in (one, two, three):
            await client.subscribe("topic")
        if publishes == "a call":
            await publisher.call("publish")
        else:
            await in_own_context(publish())
        for client in (one, two, three):
            for number in range(2):
                assert (await client.expect_event()).args == (number,)
    # An event may find the task of the one before it, which has still to send something.
    assert found.count("clean") >= 3
    assert set(found) <= {"clean", "dirty"}


async def test_values_that_cannot_be_compared() -> None:
    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    array: ContextVar[Array] = ContextVar("array")
    app = Application()
    app.topic("topic")(anybody)

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        array.set(Array())
        await app(scope, receive, send)

    async with connect(site) as one, connect(site) as two:
        for client in (one, two):
            await client.subscribe("topic")
        await app.publish("topic")
        for client in (one, two):
            assert (await client.expect_event()).args == ()


# ---- a coroutine in a context of its own


async def test_what_is_returned_and_raised_passes_through() -> None:
    async def work(ends: Callable[[], Any]) -> Any:
        of_work.set("mine")
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            assert of_work.get() == "mine"
        return ends()

    def fail() -> None:
        raise KeyError("mine")

    assert await in_own_context(work(lambda: 5)) == 5
    with pytest.raises(KeyError, match="mine"):
        await in_own_context(work(fail))
    with pytest.raises(RuntimeError):  # as in any coroutine
        await in_own_context(work(lambda: next(iter(()))))
    assert of_work.get() == "clean"


async def test_cancellation_and_scopes_pass_through() -> None:
    async def work() -> str:
        of_work.set("mine")
        with anyio.move_on_after(0.001):
            await anyio.sleep_forever()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            found.append(of_work.get())
        return "never"

    with anyio.move_on_after(0.05) as scope:
        await in_own_context(work())
    assert scope.cancelled_caught
    assert found == ["mine"]


def test_a_coroutine_that_is_given_up_is_closed() -> None:
    class Forever:
        def __await__(self) -> Iterator[None]:
            while True:
                yield

    async def work() -> None:
        of_work.set("mine")
        try:
            await Forever()
        finally:
            found.append(of_work.get())

    async def outer() -> None:
        await in_own_context(work())

    coroutine: Coroutine[Any, Any, None] = outer()
    coroutine.send(None)
    coroutine.close()
    assert found == ["mine"]
    assert of_work.get() == "clean"
