"""Subscriptions and events, through the public API."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import serverwamp
from serverwamp import (
    Application,
    ConfigurationError,
    Limits,
    Session,
    Subscription,
    TopicRouteSet,
    WAMPError,
)
from serverwamp.testing import connect
from tests.helpers import broker_of, error_of, happened


class Topic:
    """A subscription handler that notes what happens."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.sessions: list[Session] = []
        self.closed = anyio.Event()

    async def __call__(self, topic: str, session: Session) -> AsyncIterator[None]:
        self.log.append(f"open {topic}")
        self.sessions.append(session)
        yield
        await anyio.lowlevel.checkpoint()
        self.log.append(f"close {topic}")
        self.closed.set()


def serving_topic(handler: Any, uri: str = "topic", **options: Any) -> Application:
    app = Application(**options)
    app.topic(uri)(handler)
    return app


# ---- subscribing


@pytest.mark.spec("SUB-01", "SUB-04", "SUB-05", "SUB-07", "ORD-01", "ORD-08", "IDS-05")
async def test_a_subscription_from_beginning_to_end() -> None:
    topic = Topic()
    app = serving_topic(topic)
    async with connect(app) as client:
        await client.send([32, 1, {}, "topic"])
        kind, request, subscription = await client.receive()
        assert (kind, request) == (33, 1)
        publication = await app.publish("topic", (1, "b"), {"c": 3})
        assert await client.receive() == [36, subscription, publication, {}, [1, "b"], {"c": 3}]
        second = await app.publish("topic")
        assert await client.receive() == [36, subscription, second, {}]
        assert publication != second
        await client.send([34, 2, subscription])
        assert await client.receive() == [35, 2]
        assert topic.log == ["open topic", "close topic"]
        await app.publish("topic", ("nobody",))
        topic.sessions[0].send_event(args=("nobody",))
        topic.sessions[0].send_event("topic", ("nobody",))
        await client.send([34, 3, subscription])
        assert (await client.receive())[:5] == [8, 34, 3, {}, "wamp.error.no_such_subscription"]
        await client.expect_nothing()


@pytest.mark.spec("SUB-02")
async def test_subscribing_twice_is_one_subscription() -> None:
    topic = Topic()
    app = serving_topic(topic)
    async with connect(app) as client:
        first, second = await client.subscribe("topic"), await client.subscribe("topic")
        assert first.id == second.id
        assert topic.log == ["open topic"]
        await app.publish("topic")
        await client.expect_event()
        await client.unsubscribe(first)
        assert topic.log == ["open topic", "close topic"]
        error = await error_of(client.unsubscribe(second))
        assert error.uri == "wamp.error.no_such_subscription"
        await client.expect_nothing()


@pytest.mark.spec("SUB-03", "SUB-06", "IDS-03", "MSG-09")
async def test_subscribers_of_a_topic_share_its_id() -> None:
    app = serving_topic(Topic())
    async with (
        connect(app) as one,
        connect(app, subprotocol="wamp.2.msgpack") as two,
        connect(app, subprotocol="wamp.2.msgpack.batched") as three,
    ):
        ids = {(await client.subscribe("topic")).id for client in (one, two, three)}
        assert len(ids) == 1
        args = (1, "ü", b"\0\xff", [None, {"z": 1, "a": [2.5]}])
        publication = await app.publish("topic", args, {"k": b""})
        for client in (one, two, three):
            event = await client.expect_event()
            assert (event.args, event.kwargs) == (args, {"k": b""})
            assert list(event.args[3][1]) == ["z", "a"]
            assert event.publication == publication
            await client.expect_nothing()


@pytest.mark.spec("ABT-08")
async def test_what_a_subscription_sends_is_lost_when_the_session_ends_before_it_is_open() -> None:
    async def handler(session: Session) -> AsyncIterator[None]:
        session.send_event(args=("too late",))
        await session.close()
        yield

    app = serving_topic(handler)
    async with connect(app) as client:
        await client.send([32, 1, {}, "topic"])
        assert await client.receive() == [6, {}, "wamp.close.close_realm"]
        await client.send([6, {}, "wamp.close.goodbye_and_out"])
        assert await client.expect_close() == 1000
        assert client.transcript[-1].startswith("server: closes")
        assert "too late" not in "".join(client.transcript)
    assert not broker_of(app).recipients("topic")


async def test_resubscribing() -> None:
    topic = Topic()
    app = serving_topic(topic)
    async with connect(app) as client:
        for number in range(3):
            subscription = await client.subscribe("topic")
            await app.publish("topic", (number,))
            assert (await client.expect_event(subscription)).args == (number,)
            await client.unsubscribe(subscription)
        assert topic.log == ["open topic", "close topic"] * 3


async def test_resubscribing_without_waiting() -> None:
    proceed = anyio.Event()

    async def handler() -> AsyncIterator[None]:
        yield
        await proceed.wait()

    app = serving_topic(handler)
    async with connect(app) as other, connect(app) as client:
        await other.subscribe("topic")  # so that the id stays the same
        subscription = await client.subscribe("topic")
        await client.send([34, 2, subscription.id])
        await client.send([32, 3, {}, "topic"])
        await client.send([32, 4, {}, "topic"])
        proceed.set()
        assert await client.receive() == [35, 2]
        assert await client.receive() == [33, 3, subscription.id]
        assert await client.receive() == [33, 4, subscription.id]


async def test_an_impatient_client_subscribes_twice() -> None:
    proceed = anyio.Event()
    opened = 0

    async def handler(topic: str) -> AsyncIterator[None]:
        nonlocal opened
        opened += 1
        await proceed.wait()
        if topic == "refused":
            raise WAMPError("a.b")
        yield

    app = serving_topic(handler)
    app.topic("refused")(handler)
    async with connect(app) as client:
        await client.send([32, 1, {}, "topic"])
        await client.send([32, 2, {}, "topic"])
        await client.send([32, 3, {}, "refused"])
        await client.send([32, 4, {}, "refused"])
        proceed.set()
        replies = sorted([await client.receive() for _ in range(4)])
        assert replies[0][:5] == [8, 32, 3, {}, "a.b"]
        assert replies[1][:5] == [8, 32, 4, {}, "a.b"]
        assert replies[2][:2] == [33, 1]
        assert replies[3] == [33, 2, replies[2][2]]
        assert opened == 2


@pytest.mark.spec("SUB-08", "SUB-09", "AZN-02", "URI-05")
async def test_subscriptions_that_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def refuses() -> AsyncIterator[None]:
        raise WAMPError("com.app.no", ("text",), {"a": 1})
        yield

    async def fails() -> AsyncIterator[None]:
        raise ValueError("secret")
        yield

    async def forgets_to_yield() -> AsyncIterator[None]:
        if False:
            yield

    async def odd() -> AsyncIterator[None]:
        raise WAMPError("a.b", (object(),))
        yield

    app = serving_topic(refuses, "refuses")
    app.topic("fails")(fails)
    app.topic("forgets")(forgets_to_yield)
    app.topic("odd")(odd)
    async with connect(app) as client:
        error = await error_of(client.subscribe("refuses"))
        assert (error.uri, error.args, error.kwargs) == ("com.app.no", ("text",), {"a": 1})
        expected = {
            "undeclared": "wamp.error.not_authorized",
            "not a uri": "wamp.error.invalid_uri",
            "a..b": "wamp.error.invalid_uri",
            "fails": "wamp.error.runtime_error",
            "forgets": "wamp.error.runtime_error",
            "odd": "a.b",
        }
        for topic, uri in expected.items():
            assert (await error_of(client.subscribe(topic))).uri == uri, topic
        assert "secret" not in "".join(client.transcript)
        assert (await error_of(client.subscribe("refuses"))).uri == "com.app.no"
        await client.expect_nothing()
    assert "secret" in caplog.text


async def test_topic_routes() -> None:
    app = Application()
    taken: list[tuple[str, str]] = []

    def named(name: str) -> Any:
        async def handler(topic: str) -> AsyncIterator[None]:
            taken.append((name, topic))
            yield

        return handler

    topics = TopicRouteSet("com")
    topics.topic("exact")(named("exact"))
    topics.prefix_topic("prefix.")(named("prefix"))
    topics.wildcard_topic("wild..card")(named("wildcard"))
    topics.regex_topic("[0-9]+$")(named("regex"))
    assert repr(topics) == "<TopicRouteSet of 4 routes>"
    app.add_topics(topics)
    app.prefix_topic("direct")(named("direct"))
    uris = ["com.exact", "com.prefix.1.2", "com.wild.x.card", "com.42", "direct.x"]
    async with connect(app) as client:
        for uri in uris:
            await client.subscribe(uri)
        assert taken == list(
            zip(["exact", "prefix", "wildcard", "regex", "direct"], uris, strict=True)
        )
        assert (await error_of(client.subscribe("com"))).uri == "wamp.error.not_authorized"


def test_handlers_that_are_refused() -> None:
    async def coroutine() -> None: ...

    def plain() -> None: ...

    async def wants_more(topic: str, unknown: Any) -> AsyncIterator[None]:
        yield

    for handler in (coroutine, plain):
        with pytest.raises(ConfigurationError, match="async generator"):
            TopicRouteSet().topic("a")(handler)
        with pytest.raises(ConfigurationError, match="async generator"):
            Application().set_subscription_handler(handler)
    app = serving_topic(wants_more)
    with pytest.raises(ConfigurationError, match="'unknown' of"):
        app.freeze()
    with pytest.raises(ConfigurationError, match="already"):
        app.topic("topic")(wants_more)


async def test_what_a_handler_is_given() -> None:
    taken: dict[str, Any] = {}
    closed: list[str] = []

    def resource() -> Any:
        yield "resource"
        closed.append("resource")

    async def handler(
        topic: str, session: Any, subscription: Any, me: Session, it: Subscription, db: Any,
        resource: Any, optional: int = 5,
    ) -> AsyncIterator[None]:  # fmt: skip
        taken.update(locals())
        yield

    app = serving_topic(handler)
    app.add_default_arg("db", "the db")
    app.add_default_arg("resource", factory=resource)
    async with connect(app) as client:
        subscription = await client.subscribe("topic")
        assert taken["topic"] == "topic"
        assert taken["session"] is taken["me"]
        assert taken["session"].id == client.session
        assert taken["subscription"] is taken["it"]
        assert (taken["it"].id, taken["it"].topic, taken["it"].match) == (
            subscription.id,
            "topic",
            "exact",
        )
        assert repr(taken["it"]) == f"<Subscription {subscription.id} to 'topic'>"
        assert (taken["db"], taken["resource"], taken["optional"]) == ("the db", "resource", 5)
        assert closed == []
        await client.unsubscribe(subscription)
        assert closed == ["resource"]


async def test_a_custom_handler_of_subscriptions() -> None:
    topic = Topic()
    app = Application()
    app.set_subscription_handler(topic)
    async with connect(app) as client:
        await client.subscribe("any.topic")
        await app.publish("any.topic", (1,))
        assert (await client.expect_event()).args == (1,)
        assert (await error_of(client.subscribe("no topic"))).uri == "wamp.error.invalid_uri"
    assert topic.log == ["open any.topic", "close any.topic"]


# ---- the end of a subscription


@pytest.mark.spec("WS-10", "SUB-07", "ABT-05")
@pytest.mark.parametrize(
    "how",
    ["unsubscribes", "says goodbye", "disconnects", "aborts", "breaks the protocol", "is closed"],
)
async def test_a_handler_is_closed_once_however_it_ends(how: str) -> None:
    topic = Topic()
    app = serving_topic(topic)
    async with connect(app) as client:
        subscription = await client.subscribe("topic")
        if how == "unsubscribes":
            await client.unsubscribe(subscription)
        elif how == "says goodbye":
            await client.leave()
        elif how == "disconnects":
            await client.disconnect()
        elif how == "aborts":
            await client.send([3, {}, "a.b"])
        elif how == "breaks the protocol":
            await client.send(["nonsense"])
        else:
            await topic.sessions[0].close()
        await happened(topic.closed)
    assert topic.log == ["open topic", "close topic"]
    await app.publish("topic", ("nobody",))


async def test_shutdown_closes_subscriptions() -> None:
    topic = Topic()
    app = serving_topic(topic)
    async with connect(app) as client:
        await client.subscribe("topic")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.close_sessions)
            assert await client.receive() == [6, {}, "wamp.close.system_shutdown"]
            await client.send([6, {}, "wamp.close.goodbye_and_out"])
            assert await client.expect_close() == 1001
    assert topic.log == ["open topic", "close topic"]


async def test_closing_is_shielded_from_cancellation() -> None:
    topic = Topic()
    app = serving_topic(topic)
    subscribed = anyio.Event()

    async def client() -> None:
        async with connect(app) as client:
            await client.subscribe("topic")
            subscribed.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client)
        await happened(subscribed)
        tasks.cancel_scope.cancel()
    assert topic.log == ["open topic", "close topic"]


async def test_a_client_that_leaves_in_the_same_breath() -> None:
    log: list[str] = []

    async def handler() -> AsyncIterator[None]:
        log.append("opens")
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class():
            log.append("cancelled")
            raise
        yield
        log.append("closes")

    app = serving_topic(handler)
    async with connect(app, subprotocol="wamp.2.json.batched") as client:
        await client.send([32, 1, {}, "topic"], [6, {}, "wamp.close.close_realm"])
        assert await client.receive() == [6, {}, "wamp.close.goodbye_and_out"]
        await client.join()
        subscription = await client.subscribe("topic")
        assert subscription.id == 2  # the first one has been given back
    assert log == ["opens", "cancelled", "opens", "closes"]


async def test_a_client_that_leaves_while_a_handler_opens() -> None:
    started, ended = anyio.Event(), anyio.Event()

    async def handler() -> AsyncIterator[None]:
        try:
            started.set()
            await anyio.sleep_forever()
        finally:
            ended.set()
        yield

    app = serving_topic(handler)
    async with connect(app) as client:
        await client.send([32, 1, {}, "topic"])
        await happened(started)
        await client.disconnect()
        await happened(ended)
    assert not any("server: [33" in line for line in client.transcript)
    async with connect(app) as client:  # the first subscription has been given back
        await client.send([32, 1, {}, "topic"])
        await client.disconnect()
    assert not broker_of(app).recipients("topic")


async def test_handlers_that_fail_to_close(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> AsyncIterator[None]:
        yield
        raise ValueError("secret")

    async def yields_twice() -> AsyncIterator[None]:
        yield
        yield

    app = serving_topic(fails, "fails")
    app.topic("twice")(yields_twice)
    async with connect(app) as client:
        for topic in ("fails", "twice"):
            subscription = await client.subscribe(topic)
            await client.unsubscribe(subscription)
            assert "secret" not in "".join(client.transcript)
    assert "secret" in caplog.text
    assert "yielded more than once" in caplog.text


async def test_a_handler_may_keep_a_task_group_open() -> None:
    async def handler(session: Session) -> AsyncIterator[None]:
        async def tick() -> None:
            number = 0
            while True:
                await session.send_event(args=(number,))
                number += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            yield
            tasks.cancel_scope.cancel()

    async with connect(serving_topic(handler)) as client:
        subscription = await client.subscribe("topic")
        for number in range(10):
            assert (await client.expect_event(subscription)).args == (number,)
        await client.unsubscribe(subscription)
        client.take_all()
        await client.expect_nothing()
        await client.subscribe("topic")
        assert (await client.expect_event()).args == (0,)


# ---- sending events


@pytest.mark.spec("ORD-01")
async def test_events_from_before_the_yield_come_right_after_subscribed() -> None:
    async def handler(session: Session, topic: str) -> AsyncIterator[None]:
        session.send_event(args=(1,))
        await session.send_event(topic, (2,))
        await anyio.lowlevel.checkpoint()
        session.send_event(args=(3,))
        if topic == "refused":
            raise WAMPError("a.b")
        yield

    app = serving_topic(handler)
    app.topic("refused")(handler)
    async with connect(app) as client:
        await client.send([32, 1, {}, "topic"])
        kind, _, subscription = await client.receive()
        assert kind == 33
        for number in (1, 2, 3):
            event = await client.receive()
            assert event[:2] == [36, subscription]
            assert event[4] == [number]
        await client.send([32, 2, {}, "refused"])
        assert (await client.receive())[:5] == [8, 32, 2, {}, "a.b"]
        await client.expect_nothing()


async def test_publications_while_a_handler_opens_are_missed() -> None:
    started, proceed = anyio.Event(), anyio.Event()

    async def handler() -> AsyncIterator[None]:
        started.set()
        await proceed.wait()
        yield

    app = serving_topic(handler)

    @app.route("event")
    async def event(session: Session) -> None:
        session.send_event("topic", ("from elsewhere",))

    async with connect(app) as client:
        await client.send([32, 1, {}, "topic"])
        await happened(started)
        await app.publish("topic", ("early",))
        await client.send([48, 2, {}, "event"])
        assert await client.receive() == [50, 2, {}, [None]]
        proceed.set()
        assert (await client.receive())[:2] == [33, 1]
        await app.publish("topic", ("late",))
        assert (await client.receive())[4] == ["late"]


async def test_send_event_to_one_session_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    topic = Topic()
    app = serving_topic(topic)

    @app.route("event")
    async def event(session: Session) -> str:
        session.send_event("topic", ("to you",), {"a": 1})
        await session.send_event("nothing.like.it", ("to nobody",))
        with pytest.raises(TypeError, match="needs a topic"):
            session.send_event(args=("where to",))
        with pytest.raises(TypeError):
            session.send_event("topic", "text")
        return "done"

    async with connect(app) as client, connect(app) as other:
        await client.call("event")
        await client.expect_nothing()
        assert f"session {client.session} isn't subscribed to 'nothing.like.it'" in caplog.text
        await client.subscribe("topic")
        await other.subscribe("topic")
        request = client.next_request()
        await client.send([48, request, {}, "event"])
        event_ = await client.receive()
        assert event_[4:] == [["to you"], {"a": 1}]
        assert await client.receive() == [50, request, {}, ["done"]]
        await other.expect_nothing()


async def test_a_bound_session_shares_everything_but_its_subscription() -> None:
    topic = Topic()
    app = serving_topic(topic, "one")
    app.topic("two")(topic)

    @app.route("remember")
    async def remember(session: Session) -> bool:
        session["key"] = "value"
        return session in topic.sessions

    async with connect(app) as client:
        one, two = await client.subscribe("one"), await client.subscribe("two")
        await client.call("remember")
        first, second = topic.sessions
        assert first["key"] == second.get("key") == "value"
        assert first.id == second.id == client.session
        assert first != second
        first.send_event(args=(1,))
        second.send_event(args=(2,))
        second.send_event("one", args=(3,))
        assert (await client.expect_event(one)).args == (1,)
        assert (await client.expect_event(two)).args == (2,)
        assert (await client.expect_event(one)).args == (3,)
        await client.leave()
        assert not first.is_open
        first.send_event(args=("nobody",))
        await first.send_event("one", args=("nobody",))


@pytest.mark.spec("ORD-03")
@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack.batched"])
async def test_events_and_replies_keep_their_order(subprotocol: str) -> None:
    app = serving_topic(Topic(), "a")
    app.topic("b")(Topic())

    @app.route("publish")
    async def publish(session: Session) -> int:
        for number in range(300):
            await app.publish("ab"[number % 2], (number,))
            session.send_event("a", (-number,))
        return 300

    async with connect(app, subprotocol=subprotocol) as client:
        await client.subscribe("a")
        await client.subscribe("b")
        await client.send([48, 3, {}, "publish"])
        for number in range(300):
            assert (await client.receive())[4] == [number]
            assert (await client.receive())[4] == [-number]
        assert (await client.receive())[:3] == [50, 3, {}]


# ---- publishing


async def test_excluded_and_eligible_sessions() -> None:
    topic = Topic()
    app = serving_topic(topic)
    async with connect(app) as one, connect(app) as two, connect(app) as three:
        clients = (one, two, three)
        for client in clients:
            await client.subscribe("topic")
        first, second, third = topic.sessions
        cases: list[tuple[dict[str, Any], tuple[int, ...]]] = [
            ({}, (0, 1, 2)),
            ({"exclude": [first]}, (1, 2)),
            ({"exclude": first}, (1, 2)),
            ({"exclude": first.id}, (1, 2)),
            ({"exclude": [first.id, third]}, (1,)),
            ({"eligible": [second]}, (1,)),
            ({"eligible": second}, (1,)),
            ({"eligible": []}, ()),
            ({"eligible": [first, second], "exclude": [second]}, (0,)),
        ]
        for number, (options, expected) in enumerate(cases):
            await app.publish("topic", (number,), **options)
            for index, client in enumerate(clients):
                if index in expected:
                    assert (await client.expect_event()).args == (number,)
                else:
                    await client.expect_nothing()


async def test_publishing_to_what_is_no_topic() -> None:
    app = Application()
    await app.publish("nobody.listens")
    for uri in ("no topic", "", "a..b", "wamp.session.on_join"):
        with pytest.raises(ValueError, match="not a valid URI"):
            await app.publish(uri)
    with pytest.raises(TypeError):
        await app.publish("topic", "text")


@pytest.mark.spec("SES-13")
async def test_realms_dont_hear_each_other() -> None:
    topics = TopicRouteSet()
    topics.topic("topic")(Topic())
    app = Application()
    realm = serverwamp.Realm("other")
    app.add_realm(realm)
    for each in (app, realm):
        each.add_topics(topics)
    async with connect(app, "realm1") as one, connect(app, "other") as two:
        await one.subscribe("topic")
        await two.subscribe("topic")
        await app.publish("topic", ("default",))
        await realm.publish("topic", ("other",))
        assert (await one.expect_event()).args == ("default",)
        assert (await two.expect_event()).args == ("other",)
        await one.expect_nothing()
        await two.expect_nothing()


@pytest.mark.spec("SER-12")
async def test_an_event_that_one_client_cant_get(caplog: pytest.LogCaptureFixture) -> None:
    topic = Topic()
    app = serving_topic(topic)
    async with connect(app) as json, connect(app, subprotocol="wamp.2.msgpack") as msgpack:
        await json.subscribe("topic")
        await msgpack.subscribe("topic")
        await app.publish("topic", (2**64,))
        with pytest.raises(ValueError, match="nobody can receive"):
            await app.publish("topic", (object(),))
        with pytest.raises(ValueError, match="nobody can receive"):
            topic.sessions[0].send_event(args=(object(),))
        await app.publish("topic", ("next",))
        assert (await json.expect_event()).args == (2**64,)
        assert (await json.expect_event()).args == ("next",)
        assert (await msgpack.expect_event()).args == ("next",)


async def test_a_plain_function_sends_events_from_its_thread() -> None:
    topic = Topic()
    app = serving_topic(topic)

    @app.route("send")
    def send(session: Session) -> str:
        session.send_event("topic", ("before the result",))
        return "result"

    async with connect(app) as client:
        await client.subscribe("topic")
        for request in (2, 3):
            await client.send([48, request, {}, "send"])
            assert (await client.receive())[4] == ["before the result"]
            assert (await client.receive())[3] == ["result"]


async def test_publishing_waits_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    topic = Topic()
    app = serving_topic(topic, limits=Limits(outbound_messages=100))
    async with connect(app) as slow, connect(app) as quick:
        await slow.subscribe("topic")
        await quick.subscribe("topic")
        slow.pause()
        for number in range(1000):
            await app.publish("topic", (number,))
            assert (await quick.expect_event()).args == (number,)
        with anyio.fail_after(5):
            while topic.sessions[0].is_open:  # it was given up
                await anyio.lowlevel.checkpoint()
        slow.resume()
        assert await slow.expect_close() == 1008
    assert "Limits.outbound_messages: " in caplog.text


@pytest.mark.spec("PUB-08", "VIO-07")
async def test_clients_cant_publish_yet() -> None:
    app = serving_topic(Topic())
    async with connect(app) as client, connect(app) as subscriber:
        await subscriber.subscribe("topic")
        await client.publish("topic", ("unacknowledged",))
        error = await error_of(client.publish("topic", acknowledge=True))
        assert error.uri == "wamp.error.not_authorized"
        for topic in ("no topic", "wamp.topic"):
            await client.publish(topic)
            error = await error_of(client.publish(topic, acknowledge=True))
            assert error.uri == "wamp.error.invalid_uri"
        await client.expect_nothing()
        await subscriber.expect_nothing()


async def test_a_quiet_log(caplog: pytest.LogCaptureFixture) -> None:
    topic = Topic()
    app = serving_topic(topic)
    with caplog.at_level(logging.INFO):
        async with connect(app) as client:
            subscription = await client.subscribe("topic")
            await app.publish("topic")
            await client.unsubscribe(subscription)
            topic.sessions[0].send_event(args=("nobody",))
    assert not [record for record in caplog.records if record.name.startswith("serverwamp")]


async def test_publishing_where_nobody_can_subscribe(caplog: pytest.LogCaptureFixture) -> None:
    app = Application()
    for register, uri in (
        (app.topic, "exact"),
        (app.prefix_topic, "below."),
        (app.wildcard_topic, "a..c"),
        (app.regex_topic, "[0-9]+$"),
    ):
        register(uri)(Topic())

    @app.publication("only.clients.publish")
    async def take() -> None: ...

    async with connect(app) as client:
        for topic in ("exact", "below.this", "a.b.c", "42"):
            await app.publish(topic, retain=True)
            await client.subscribe(topic)
            await app.publish(topic)
            await client.expect_event()
        await client.publish("only.clients.publish", acknowledge=True)
        await client.publish("nowhere")
        assert not caplog.records
        for _ in range(3):
            for topic in ("exakt", "below", "only.clients.publish"):
                await app.publish(topic, retain=True)
        messages = [record.message for record in caplog.records]
        assert len(messages) == 3
        assert "no topic route serves" in messages[0]
        assert "'exakt'" in messages[0]
        for number in range(1000):
            await app.publish(f"unknown.{number}")
        assert len(caplog.records) == 100


async def test_a_custom_handler_serves_every_topic(caplog: pytest.LogCaptureFixture) -> None:
    app = Application()

    async def everything(topic: str, session: Session) -> AsyncIterator[None]:
        yield

    app.set_subscription_handler(everything)
    await app.publish("before.anybody.connects")
    async with connect(app):
        await app.publish("any.topic")
    assert not caplog.records
