"""Clients that don't keep up with their events, and what the overflow policies make of that."""

from __future__ import annotations

import gc
import json
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from serverwamp import (
    Application,
    ConfigurationError,
    Limits,
    OverflowPolicy,
    Realm,
    RPCProgressReport,
    Session,
    TopicRouteSet,
)
from serverwamp.outbound.backlog import DroppableEvent
from serverwamp.protocol.serializers import SUBPROTOCOLS
from serverwamp.testing import Client, Subscription, connect
from tests.helpers import anybody, happened

DROPPING: Sequence[OverflowPolicy] = ("drop_newest", "drop_oldest", "latest")
POLICIES: Sequence[OverflowPolicy] = ("disconnect", *DROPPING)


def application(**arguments: Any) -> Application:
    """Return an application with a topic for each policy, one without, and some procedures."""
    app = Application(**arguments)
    for policy in POLICIES:
        app.topic(policy, overflow=policy)(anybody)
        app.prefix_topic(f"{policy}.", overflow=policy)(anybody)
    app.topic("default")(anybody)
    app.topic("filler")(anybody)

    @app.route("echo")
    async def echo(value: Any = None) -> Any:
        return value

    return app


async def settle() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


class Stalled:
    """A client that stops reading, until what is sent to it has to wait."""

    def __init__(self, app: Application, client: Client) -> None:
        self.app = app
        self.client = client

    async def subscribe(self, *topics: str) -> list[Subscription]:
        self.filler = await self.client.subscribe("filler")
        return [await self.client.subscribe(topic) for topic in topics]

    async def stall(self) -> None:
        """Stop reading; one event is being sent then, and nothing waits."""
        assert not self.app.statistics().outbound_bytes
        self.client.pause()
        self.fillers = 0
        while not self.app.statistics().outbound_bytes:
            await self.app.publish("filler", (self.fillers,))
            await settle()
            self.fillers += 1
        assert not self.app.statistics().outbound_messages

    async def read(self) -> list[Any]:
        """Read again, and return the first arguments of all events and results that come."""
        self.client.resume()
        for number in range(self.fillers):
            assert (await self.client.expect_event(self.filler)).args == (number,)
        await self.client.send([48, last := self.client.next_request(), {}, "echo", ["last"]])
        arrived = []
        while True:
            message = await self.client.receive()
            if message[:2] == [50, last]:
                return arrived
            if message[0] != 35:  # UNSUBSCRIBED brings nothing
                arrived.append(message[-1][0])


# ---- each policy


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize(
    ("policy", "expected"),
    [("drop_newest", range(100)), ("drop_oldest", range(150, 250)), ("latest", [249])],
)
async def test_more_messages_than_may_wait(
    policy: OverflowPolicy, expected: Iterable[int], subprotocol: str
) -> None:
    app = application(limits=Limits(outbound_messages=100))
    async with connect(app, subprotocol=subprotocol) as client, connect(app) as quick:
        stalled = Stalled(app, client)
        await stalled.subscribe(policy)
        await quick.subscribe(policy)
        await stalled.stall()
        for number in range(250):
            await app.publish(policy, (number,))
            assert (await quick.expect_event()).args == (number,)
            assert app.statistics().outbound_messages <= 100
        assert await stalled.read() == list(expected)
        refused = app.statistics().events_refused
        assert refused == {**dict.fromkeys(POLICIES, 0), policy: 250 - len(list(expected))}
        for number in range(250, 260):  # it keeps up again
            await app.publish(policy, (number,))
            assert (await client.expect_event()).args == (number,)


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize(
    ("policy", "expected"),
    # Ten are less than the limit, so that an eleventh is still taken.
    [("drop_newest", range(11)), ("drop_oldest", range(19, 30)), ("latest", [29])],
)
async def test_more_bytes_than_may_wait(
    policy: OverflowPolicy, expected: Iterable[int], subprotocol: str
) -> None:
    app = application(limits=Limits(outbound_bytes=105_500))
    async with connect(app, subprotocol=subprotocol) as client:
        stalled = Stalled(app, client)
        await stalled.subscribe(policy)
        await stalled.stall()
        for number in range(30):
            await app.publish(policy, (number, "x" * 10_000))
            assert app.statistics().outbound_bytes < 116_000
        assert await stalled.read() == list(expected)
        assert not app.statistics().outbound_bytes


@pytest.mark.parametrize("topic", ["disconnect", "default"])
@pytest.mark.parametrize("limit", ["outbound_messages", "outbound_bytes"])
async def test_disconnecting(limit: str, topic: str, caplog: pytest.LogCaptureFixture) -> None:
    app = application(limits=Limits(**{limit: {"outbound_messages": 100}.get(limit, 5000)}))
    told: list[Any] = []
    told_of = anyio.Event()

    async def handler(session: Session, topic: str, policy: str) -> None:
        await anyio.lowlevel.checkpoint()  # the session is ending, which doesn't cancel this
        told.append((session.id, topic, policy))
        told_of.set()

    app.add_overflow_handler(handler)
    async with connect(app) as client, connect(app) as quick:
        stalled = Stalled(app, client)
        await stalled.subscribe(topic)
        await quick.subscribe(topic)
        await stalled.stall()
        for number in range(200):
            await app.publish(topic, (number,))
            assert (await quick.expect_event()).args == (number,)
        client.resume()
        assert await client.expect_close() == 1008
        await happened(told_of)
        assert told == [(client.session, topic, "disconnect")]
        assert app.statistics().events_refused["disconnect"] == 1
        await app.publish(topic, ("still there",))
        assert (await quick.expect_event()).args == ("still there",)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"Limits.{limit}: session {client.session} doesn't keep up with {topic!r}: disconnect"
    )


class Reader:
    """An ASGI server with one client, which reads a message when it is told to."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self._events = deque[Any]([{"type": "websocket.connect"}])
        self._arrived = anyio.Semaphore(1)
        self._may_read = anyio.Semaphore(0)

    async def serve(self, app: Application) -> None:
        await app(
            {"type": "websocket", "path": "/", "subprotocols": ["wamp.2.json"], "headers": []},
            self._receive,
            self._send,
        )

    def _put(self, event: Any) -> None:
        self._events.append(event)
        self._arrived.release()

    async def _receive(self) -> Any:
        await self._arrived.acquire()
        return self._events.popleft()

    async def _send(self, event: Any) -> None:
        if event["type"] == "websocket.send":
            await self._may_read.acquire()
            self.received.append(json.loads(event["text"]))

    async def send(self, message: Any) -> None:
        self._put({"type": "websocket.receive", "text": json.dumps(message)})
        await settle()

    async def read(self) -> None:
        self._may_read.release()
        await settle()

    def leave(self) -> None:
        self._put({"type": "websocket.disconnect"})


class Model:
    """What waits for a client, and what becomes of it: the policies, without any haste."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: list[tuple[str, int]] = []  # the first of them is being sent
        self.is_over = False

    @property
    def is_full(self) -> bool:
        return len(self.waiting) > self.limit

    def reply(self, number: int) -> None:
        self.waiting.append(("reply", number))

    def event(self, topic: str, number: int) -> None:
        self.is_over = self.is_over or self.is_full
        if self.is_over:  # only the newest event of each topic is left, this one included
            seen = {topic}
            for entry in reversed(self.waiting[1:]):
                if entry[0].startswith("latest") and entry[0] in seen:
                    self.waiting.remove(entry)
                seen.add(entry[0])
        gives_way = False
        for entry in self.waiting[1:]:
            if topic == entry[0] == "drop_oldest" and self.is_full:
                self.waiting.remove(entry)
                gives_way = True
        if gives_way or not self.is_full or topic.startswith("latest"):
            self.waiting.append((topic, number))

    def read(self) -> int:
        _, number = self.waiting.pop(0)
        self.is_over = self.is_over and bool(self.waiting)
        return number


@pytest.mark.parametrize("eagerness", [0.1, 0.3, 0.45, 0.6])
async def test_answers_are_never_dropped_and_order_stays(eagerness: float) -> None:
    """What arrives is what was sent, as it was sent, with gaps only where they may be."""
    limit = 40
    generator = random.Random(7)
    app = application(limits=Limits(outbound_messages=limit))
    topics = ["drop_newest", "drop_oldest", "latest", "latest.a", "latest.b"]
    reader, model, expected = Reader(), Model(limit), []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.serve, app)
        await reader.send([1, "realm1", {"roles": {"caller": {}}}])
        await reader.read()
        for request, topic in enumerate(topics, 1):
            await reader.send([32, request, {}, topic])
            await reader.read()
        reader.received.clear()
        weights = [1.0] * len(topics)
        for number in range(1500):
            if number % 50 == 0:
                weights = [generator.random() for _ in topics]
            if model.waiting and generator.random() < eagerness:
                expected.append(model.read())
                await reader.read()
            replies = [kind for kind, _ in model.waiting].count("reply")
            if generator.random() < 0.05 and replies < limit / 8:
                model.reply(number)
                await reader.send([48, 10 + number, {}, "echo", [number]])
            else:
                (topic,) = generator.choices(topics, weights)
                model.event(topic, number)
                await app.publish(topic, (number,))
                await settle()
            assert app.statistics().outbound_messages == max(len(model.waiting) - 1, 0)
        while model.waiting:
            expected.append(model.read())
            await reader.read()
        assert [message[-1][0] for message in reader.received] == expected
        assert not app.statistics().outbound_bytes
        reader.leave()


async def test_what_may_not_be_dropped_is_not_dropped_for_others() -> None:
    app = application(limits=Limits(outbound_messages=100))
    async with connect(app) as client:
        stalled = Stalled(app, client)
        await stalled.subscribe("default", *DROPPING, "latest.other")
        await stalled.stall()
        for number in range(100):
            await app.publish("default", (number,))
        for topic in DROPPING:  # there is nothing of theirs to give way
            await app.publish(topic, (topic,))
        await app.publish("latest.other", ("other",))
        assert await stalled.read() == [*range(100), "latest", "other"]


@pytest.mark.parametrize("policy", DROPPING)
async def test_what_is_dropped_is_forgotten(policy: OverflowPolicy) -> None:
    app = application(limits=Limits(outbound_messages=100))
    async with connect(app) as client:
        stalled = Stalled(app, client)
        await stalled.subscribe(policy)
        await stalled.stall()
        await client.start_call("echo", ("before them all",))
        await settle()
        for number in range(5000):
            await app.publish(policy, (number,))
        kinds = [type(thing) for thing in gc.get_objects()]
        assert 0 < kinds.count(DroppableEvent) <= 200
        await stalled.read()
        assert DroppableEvent not in [type(thing) for thing in gc.get_objects()]


async def test_large_events_displace_small_ones() -> None:
    app = application(limits=Limits(outbound_bytes=50_000))
    async with connect(app) as client:
        stalled = Stalled(app, client)
        await stalled.subscribe("default", "drop_oldest")
        await stalled.stall()
        for number in range(4):
            await app.publish("default", (number, "x" * 10_000))
        for number in range(100, 130):
            await app.publish("drop_oldest", (number, "x" * 1000))
        await app.publish("drop_oldest", ("large", "x" * 100_000))
        await app.publish("drop_oldest", ("larger", "x" * 200_000))
        assert await stalled.read() == [0, 1, 2, 3, "larger"]


async def test_send_event() -> None:
    app = application(limits=Limits(outbound_messages=100))
    sessions: list[Session] = []

    @app.route("remember")
    async def remember(session: Session) -> None:
        sessions.append(session)

    async with connect(app) as client:
        await client.call("remember")
        stalled = Stalled(app, client)
        await stalled.subscribe("drop_oldest")
        await stalled.stall()
        for number in range(300):
            sessions[0].send_event("drop_oldest", (number,))
        assert await stalled.read() == list(range(200, 300))


async def test_who_awaits_send_event_loses_nothing() -> None:
    app = application(limits=Limits(outbound_messages=100))

    @app.route("replay")
    async def replay(session: Session) -> None:
        for number in range(500):
            await session.send_event("drop_newest", (number,))

    async with connect(app) as client:
        stalled = Stalled(app, client)
        (subscription,) = await stalled.subscribe("drop_newest")
        await stalled.stall()
        call = await client.start_call("replay")
        await settle()
        client.resume()
        for number in range(500):
            assert (await client.expect_event(subscription)).args == (number,)
        await call.result()


# ---- while a subscription opens


@pytest.mark.parametrize("limit", ["outbound_messages", "outbound_bytes"])
@pytest.mark.parametrize(
    ("policy", "expected"),
    [("drop_newest", range(11)), ("drop_oldest", range(19, 30)), ("latest", [29])],
)
async def test_what_is_held_back_counts(
    policy: OverflowPolicy, expected: Iterable[int], limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application(limits=Limits(**{limit: {"outbound_messages": 11}.get(limit, 105_500)}))

    @app.topic("topic", overflow=policy)
    async def topic(session: Session) -> AsyncIterator[None]:
        for number in range(30):
            session.send_event(args=(number, "x" * 10_000))
        yield

    async with connect(app) as client:
        await client.send([32, client.next_request(), {}, "topic"])
        assert (await client.receive())[0] == 33
        for number in expected:
            assert (await client.expect_event()).args[0] == number
        await client.expect_nothing()
        await app.publish("topic", ("another",))
        assert (await client.expect_event()).args == ("another",)
        statistics = app.statistics()
        assert statistics.events_refused[policy] == 30 - len(list(expected))
        assert statistics.events_delivered == len(list(expected)) + 1
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"Limits.{limit}"
    ]


async def test_several_subscriptions_open_with_one_limit() -> None:
    app = Application(limits=Limits(outbound_messages=10))
    gates = {"topic.a": anyio.Event(), "topic.b": anyio.Event()}

    @app.prefix_topic("topic.", overflow="drop_newest")
    async def handler(session: Session, topic: str) -> AsyncIterator[None]:
        for number in range(6):
            session.send_event(args=(number,))
        await gates[topic].wait()
        yield

    async with connect(app) as client:
        for topic in gates:
            await client.send([32, client.next_request(), {}, topic])
        await settle()
        for topic, count in (("topic.a", 6), ("topic.b", 4)):
            gates[topic].set()
            for number in range(count):
                assert (await client.expect_event()).args == (number,)
        assert app.statistics().events_refused["drop_newest"] == 2


async def test_a_client_is_disconnected_for_what_is_held_back() -> None:
    app = Application(limits=Limits(outbound_messages=10))

    @app.topic("topic")
    async def topic(session: Session) -> AsyncIterator[None]:
        for number in range(11):
            session.send_event(args=(number,))
        yield

    async with connect(app) as client:
        await client.send([32, client.next_request(), {}, "topic"])
        assert await client.expect_close() == 1008


async def test_events_of_a_subscription_that_is_refused() -> None:
    app = Application(limits=Limits(outbound_messages=10))

    @app.topic("topic", overflow="drop_newest")
    async def topic(session: Session, topic: str) -> AsyncIterator[None]:
        for number in range(10):
            session.send_event(args=(number,))
        raise ValueError
        yield

    async with connect(app) as client:
        for _ in range(3):
            await client.send([32, client.next_request(), {}, "topic"])
            assert (await client.receive())[0] == 8
        assert not app.statistics().events_delivered
        assert not app.statistics().events_refused["drop_newest"]


# ---- what else such a client can do


async def test_a_flood_that_may_be_dropped_keeps_nobody_from_asking() -> None:
    app = application(limits=Limits(outbound_messages=80))
    called = anyio.Event()
    reported = anyio.Event()

    @app.route("procedure")
    async def procedure() -> AsyncIterator[Any]:
        called.set()
        yield RPCProgressReport((1,))
        yield RPCProgressReport((2,))
        reported.set()
        yield "result"

    async with connect(app) as client:
        stalled = Stalled(app, client)
        (subscription,) = await stalled.subscribe("drop_oldest")
        await stalled.stall()
        for number in range(200):
            await app.publish("drop_oldest", (number,))
        await client.start_call("procedure", receive_progress=True)
        await happened(called)
        await happened(reported)
        await client.send([34, client.next_request(), subscription.id])
        await settle()
        for number in range(200, 300):
            await app.publish("drop_oldest", (number,))  # it isn't subscribed any more
        arrived = await stalled.read()
        assert arrived == [*range(120, 200), 1, 2, "result"]


# ---- where a policy comes from


async def test_defaults() -> None:
    topics = TopicRouteSet()
    topics.topic("set.newest", overflow="drop_newest")(anybody)
    topics.prefix_topic("prefix.", overflow="drop_newest")(anybody)
    topics.wildcard_topic("wild..card", overflow="drop_newest")(anybody)
    topics.regex_topic("regex.*", overflow="drop_newest")(anybody)
    topics.topic("set.default")(anybody)
    app = Application(overflow="latest", limits=Limits(outbound_messages=10))
    realm = Realm("realm2")
    other_realm = Realm("realm3", overflow="drop_oldest")
    told: list[tuple[str, str]] = []

    async def handler(topic: str, policy: str) -> None:
        told.append((topic, policy))

    for each in (app, realm, other_realm):
        each.add_topics(topics)
        each.topic("filler")(anybody)
        each.topic("newest", overflow="drop_newest")(anybody)
        each.add_overflow_handler(handler)
    app.add_realm(realm)
    app.add_realm(other_realm)
    explicit = ["newest", "set.newest", "prefix.any", "wild.any.card", "regexes"]
    for each, uri, default in (
        (app, "realm1", "latest"),
        (realm, "realm2", "latest"),
        (other_realm, "realm3", "drop_oldest"),
    ):
        for topic in (*explicit, "set.default"):
            async with connect(app, uri) as client:
                await client.subscribe(topic)
                client.pause()
                for number in range(200):
                    await each.publish(topic, (number,))
                with anyio.fail_after(5):
                    while not told:
                        await settle()
                assert told == [(topic, default if topic == "set.default" else "drop_newest")]
                told.clear()


async def test_a_policy_for_all_subscriptions_at_once() -> None:
    app = Application(overflow="drop_oldest", limits=Limits(outbound_messages=10))
    app.topic("filler")(anybody)

    async def handler(topic: str, session: Session) -> AsyncIterator[None]:
        yield

    app.set_subscription_handler(handler)
    app.route("echo")(lambda value: value)
    async with connect(app) as client:
        stalled = Stalled(app, client)
        await stalled.subscribe("any")
        await stalled.stall()
        for number in range(30):
            await app.publish("any", (number,))
        assert await stalled.read() == list(range(20, 30))


@pytest.mark.parametrize("policy", ["drop", "", 1, ["latest"]])
def test_unknown_policies(policy: Any) -> None:
    app = Application()
    for configure in (
        lambda: Application(overflow=policy),
        lambda: Realm("realm", overflow=policy),
        lambda: app.topic("topic", overflow=policy)(anybody),
        lambda: TopicRouteSet().prefix_topic("topic", overflow=policy)(anybody),
    ):
        with pytest.raises(ConfigurationError, match="disconnect, drop_newest, drop_oldest"):
            configure()


# ---- what the application and the log are told


async def test_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    app = application(limits=Limits(outbound_messages=100))
    told: list[Any] = []

    @app.add_overflow_handler
    async def handler(policy: str, session: Session, topic: str, database: str) -> None:
        told.append((session.id, topic, policy, database))

    app.add_default_arg("database", "the database")
    async with connect(app) as client, connect(app) as other:
        stalled = Stalled(app, client)
        await stalled.subscribe(*DROPPING)
        await other.subscribe("latest")
        for _ in range(3):
            await stalled.stall()
            for number in range(300):
                await app.publish(DROPPING[number % 3], (number,))
                await settle()
            assert len(told) == 1
            assert told.pop() == (client.session, "drop_oldest", "drop_oldest", "the database")
            await stalled.read()
        line = f"session {client.session} doesn't keep up with 'drop_oldest': drop_oldest"
        (record,) = caplog.records  # once for the connection
        assert record.levelno == logging.WARNING
        assert record.getMessage() == f"Limits.outbound_messages: {line}"


async def test_a_handler_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    app = application(limits=Limits(outbound_messages=100))
    told: list[str] = []
    done = anyio.Event()

    def plain(topic: str) -> None:
        told.append(topic)  # in a thread

    def failing() -> None:
        raise ValueError("a mistake")

    async def worse() -> None:
        raise BaseException("another mistake")

    async def last() -> None:
        done.set()

    for handler in (plain, failing, worse, last):
        app.add_overflow_handler(handler)
    async with connect(app) as client:
        stalled = Stalled(app, client)
        await stalled.subscribe("drop_newest")
        await stalled.stall()
        for number in range(150):
            await app.publish("drop_newest", (number,))
        await happened(done)
        assert await stalled.read() == list(range(100))
    assert told == ["drop_newest"]
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [str(record.exc_info and record.exc_info[1]) for record in failures] == [
        "a mistake",
        "another mistake",
    ]


async def test_a_handler_publishes() -> None:
    """What it publishes comes after what found no room, for everybody."""
    app = application(limits=Limits(outbound_messages=10))

    async def handler(topic: str) -> None:
        await app.publish(topic, ("somebody is slow",))

    app.add_overflow_handler(handler)
    async with connect(app) as before, connect(app) as client, connect(app) as after:
        await before.subscribe("latest")
        stalled = Stalled(app, client)
        await stalled.subscribe("latest")
        await after.subscribe("latest")
        await stalled.stall()
        for number in range(11):
            await app.publish("latest", (number,))
            await settle()
        for other in (before, after):
            for value in (*range(11), "somebody is slow"):
                assert (await other.expect_event()).args == (value,)
        assert await stalled.read() == ["somebody is slow"]


async def test_a_handler_is_compiled_like_others() -> None:
    app = Application()

    async def handler(unknown: Any) -> None: ...

    app.add_overflow_handler(handler)
    with pytest.raises(ConfigurationError, match="unknown"):
        app.freeze()
    app = Application()
    app.freeze()
    with pytest.raises(ConfigurationError):
        app.add_overflow_handler(handler)


# ---- a client that never reads


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_subscriber_that_never_reads(
    policy: OverflowPolicy, subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(outbound_messages=1000, send_timeout=0.3, goodbye_timeout=0.1)
    app = Application(limits=limits)
    ended = anyio.Event()

    @app.topic("topic", overflow=policy)
    async def topic() -> AsyncIterator[None]:
        yield
        ended.set()

    async with connect(app, subprotocol=subprotocol) as client:
        await client.subscribe("topic")
        client.pause()
        began = anyio.current_time()
        for number in range(300 if policy == "disconnect" else 2000):
            await app.publish("topic", (number,))
            if number < 300:
                await anyio.lowlevel.checkpoint()
        await happened(ended)
        assert anyio.current_time() - began >= 0.3
        client.resume()
        assert await client.expect_close() == 1008
        assert app.statistics().violations == {"send_timeout": 1}
    assert caplog.records[-1].getMessage().startswith("Limits.send_timeout: ")


async def test_a_caller_that_never_reads() -> None:
    limits = Limits(outbound_messages=80, send_timeout=0.1, goodbye_timeout=0.1)
    app = Application(limits=limits)
    gate = anyio.Event()
    ended = anyio.Event()

    @app.route("procedure")
    async def procedure() -> None:
        await gate.wait()

    async def lifespan() -> AsyncIterator[None]:
        yield
        ended.set()

    app.add_session_lifespan_handler(lifespan)
    async with connect(app) as client:
        client.pause()
        for _ in range(150):
            await client.start_call("procedure")
        await settle()
        gate.set()  # nothing comes from the client any more
        await happened(ended)
        assert app.statistics().violations["send_timeout"] == 1


async def test_a_client_that_reads_slowly_stays() -> None:
    limits = Limits(outbound_messages=100, send_timeout=0.2)
    app = application(limits=limits)
    async with connect(app) as client:
        subscription = await client.subscribe("drop_oldest")
        received: list[int] = []
        number = 0
        began = anyio.current_time()
        while anyio.current_time() - began < 0.6:  # far longer than send_timeout
            client.pause()
            for _ in range(200):
                await app.publish("drop_oldest", (number,))
                number += 1
            await anyio.sleep(0.02)
            client.resume()
            received.append((await client.expect_event(subscription)).args[0])
        assert app.statistics().events_refused["drop_oldest"]
        assert not app.statistics().violations
        assert received == sorted(received)
