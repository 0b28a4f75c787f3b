"""Subscriptions to patterns of topics, through the public API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from serverwamp import Application, Session, Subscription, WAMPError
from serverwamp.testing import Client, connect
from tests.helpers import broker_of


def with_patterns(*prefixes: str, wildcards: tuple[str, ...] = ()) -> Application:
    """An application whose topics anybody may hear, one by one and by pattern."""
    app = Application()

    async def listen() -> AsyncIterator[None]:
        yield

    for prefix in prefixes:
        app.prefix_topic(prefix)(listen)
    for wildcard in wildcards:
        app.wildcard_topic(wildcard)(listen)
    return app


async def refused(client: Client, topic: str, match: str) -> str:
    with pytest.raises(WAMPError) as error:
        await client.subscribe(topic, match=match)
    return error.value.uri


@pytest.mark.spec("PAT-01", "PAT-05", "FEA-06")
@pytest.mark.parametrize(
    ("pattern", "match", "heard", "unheard"),
    [
        (
            "com.myapp.topic.emergency",
            "prefix",
            ["com.myapp.topic.emergency.11", "com.myapp.topic.emergency-low"],
            ["com.myapp.topic.emerge", "com.myapp.topic"],
        ),
        (
            "com.myapp..userevent",
            "wildcard",
            ["com.myapp.foo.userevent", "com.myapp.bar.userevent", "com.myapp.a12.userevent"],
            ["com.myapp.foo.userevent.bar", "com.myapp.foo.user", "com.myapp2.foo.userevent"],
        ),
        ("com.", "prefix", ["com.a", "com.a.b"], []),
    ],
)
async def test_what_a_pattern_brings(
    pattern: str, match: str, heard: list[str], unheard: list[str]
) -> None:
    app = with_patterns("com.")
    async with connect(app) as client:
        assert client.welcome["roles"]["broker"]["features"]["pattern_based_subscription"] is True
        await client.subscribe(pattern, match=match)
        for topic in (*unheard, *heard):
            await app.publish(topic, [topic])
        for topic in heard:
            event = await client.expect_event()
            assert (event.args, event.details) == ((topic,), {"topic": topic})
        await client.expect_nothing()


@pytest.mark.spec("PAT-02", "PAT-03", "PAT-04", "IDS-10")
async def test_every_subscription_that_matches_brings_the_event() -> None:
    app = with_patterns("a")
    async with connect(app) as client, connect(app) as other:
        subscriptions = {
            (topic, match): (await client.subscribe(topic, match=match)).id
            for topic, match in (
                ("a.b.c", "exact"),
                ("a.b.c", "prefix"),
                ("a.b.c", "wildcard"),
                ("a.", "prefix"),
                ("a..c", "wildcard"),
                ("a.b", "exact"),
            )
        }
        assert len(set(subscriptions.values())) == 6
        assert (await other.subscribe("a.", match="prefix")).id == subscriptions["a.", "prefix"]
        publication = await app.publish("a.b.c", ["x"])
        events = {
            event.subscription: event for event in [await client.expect_event() for _ in "12345"]
        }
        assert set(events) == set(subscriptions.values()) - {subscriptions["a.b", "exact"]}
        assert {event.publication for event in events.values()} == {publication}
        for id_, event in events.items():
            exact = id_ == subscriptions["a.b.c", "exact"]
            assert event.details == ({} if exact else {"topic": "a.b.c"})
        await client.expect_nothing()
        assert (await other.expect_event()).publication == publication
        await other.expect_nothing()


async def test_unsubscribing_from_one_pattern_leaves_the_others() -> None:
    app = with_patterns("a")
    async with connect(app) as client:
        prefix = await client.subscribe("a.b", match="prefix")
        exact = await client.subscribe("a.b")
        again = await client.subscribe("a.b", match="prefix")
        assert again.id == prefix.id != exact.id
        await client.unsubscribe(prefix)
        await app.publish("a.b", [1])
        assert (await client.expect_event()).subscription == exact.id
        await client.expect_nothing()
        with pytest.raises(WAMPError, match="no_such_subscription"):
            await client.unsubscribe(prefix)
        await client.unsubscribe(exact)
        assert not list(broker_of(app))


async def test_patterns_are_admitted_by_routes_that_cover_them() -> None:
    app = with_patterns("com.chat.", wildcards=("org..news",))

    @app.topic("com.other")
    async def other() -> AsyncIterator[None]:
        yield

    @app.regex_topic(r"net\.")
    async def by_regex() -> AsyncIterator[None]:
        yield

    async with connect(app) as client:
        for topic, match in (
            ("com.chat.", "prefix"),
            ("com.chat.room", "prefix"),
            ("com.chat..room", "wildcard"),
            ("org..news", "wildcard"),
            ("org.a.news", "wildcard"),
        ):
            await client.subscribe(topic, match=match)
        for topic, match in (
            ("com.chat", "prefix"),
            ("com.", "prefix"),
            ("", "prefix"),
            ("com..room", "wildcard"),
            ("..", "wildcard"),
            ("org.", "prefix"),
            ("org.a.news", "prefix"),
            ("org..", "wildcard"),
            ("com.other", "prefix"),
            ("com.other", "wildcard"),
            ("net.", "prefix"),
            ("wamp.", "prefix"),
        ):
            assert await refused(client, topic, match) == "wamp.error.not_authorized", topic
        assert await refused(client, "not valid", "prefix") == "wamp.error.invalid_uri"
        assert await refused(client, "a..b", "prefix") == "wamp.error.invalid_uri"
        assert await refused(client, "a#.b", "wildcard") == "wamp.error.invalid_uri"
        await client.expect_nothing()


async def test_a_pattern_brings_nothing_of_topics_that_have_a_route_of_their_own() -> None:
    app = with_patterns("chat.", "chat.staff.")
    asked: list[str] = []

    @app.topic("chat.secret")
    async def secret(session: Session) -> AsyncIterator[None]:
        asked.append("secret")
        raise WAMPError("com.example.no")
        yield

    async with connect(app) as client:
        await client.subscribe("chat.", match="prefix")
        await client.subscribe("chat.", match="wildcard")
        await client.subscribe("chat.staff.x", match="prefix")
        for topic in ("chat.secret", "chat.staff.x", "chat.open"):
            await app.publish(topic, [topic])
        events = [await client.expect_event() for _ in range(3)]
        assert sorted(event.args[0] for event in events) == [
            "chat.open",
            "chat.open",
            "chat.staff.x",
        ]
        await client.expect_nothing()
        assert asked == []


@pytest.mark.spec("ERR-option_not_allowed")
async def test_a_handler_that_decides_by_topic_is_asked_about_topics_only() -> None:
    app = Application()
    asked: list[Any] = []

    @app.prefix_topic("one.")
    async def by_topic(topic: str) -> AsyncIterator[None]:
        asked.append(topic)
        yield

    @app.prefix_topic("all.")
    async def by_pattern(topic: str, match: str) -> AsyncIterator[None]:
        asked.append((topic, match))
        yield

    @app.prefix_topic("too.")
    async def by_subscription(topic: str, subscription: Subscription) -> AsyncIterator[None]:
        asked.append((subscription.topic, subscription.match, repr(subscription)))
        yield

    async with connect(app) as client:
        # Who may hear chat.room1 could hear chat.room10, too.
        assert await refused(client, "one.room1", "prefix") == "wamp.error.option_not_allowed"
        await client.subscribe("one.room1")
        await client.subscribe("all.", match="prefix")
        await client.subscribe("all.x")
        subscription = await client.subscribe("too.", match="wildcard")
        text = f"<Subscription {subscription.id} to 'too.' as a wildcard>"
        assert asked == [
            "one.room1",
            ("all.", "prefix"),
            ("all.x", "exact"),
            ("too.", "wildcard", text),
        ]


async def test_a_custom_subscription_handler_is_asked_about_topics_only() -> None:
    app = Application()

    async def handler(topic: str, session: Session) -> AsyncIterator[None]:
        yield

    app.set_subscription_handler(handler)
    async with connect(app) as client:
        await client.subscribe("com.example")
        assert await refused(client, "com.", "prefix") == "wamp.error.option_not_allowed"


async def test_what_is_sent_to_one_session_goes_to_all_its_subscriptions_that_match() -> None:
    app = Application()
    sessions: list[Session] = []

    @app.prefix_topic("a")
    async def listen(session: Session, match: str) -> AsyncIterator[None]:
        sessions.append(session)
        session.send_event(args=[f"hello to {match}"])
        session.send_event("a.c", args=["before"])
        session.send_event("b.c", args=["elsewhere"])
        yield

    async with connect(app) as client, connect(app) as other:
        await other.subscribe("a", match="prefix")
        exact = await client.subscribe("a.b")
        assert (await client.expect_event(exact)).args == ("hello to exact",)
        prefix = await client.subscribe("a.", match="prefix")
        hello, before = [await client.expect_event(prefix) for _ in range(2)]
        # "a." is no topic, so that the event of the pattern itself names none.
        assert (hello.args, hello.details) == (("hello to prefix",), {})
        assert (before.args, before.details) == (("before",), {"topic": "a.c"})
        sessions[1].send_event("a.b", args=["both"])
        events = [await client.expect_event() for _ in range(2)]
        assert {event.subscription for event in events} == {exact.id, prefix.id}
        assert len({event.publication for event in events}) == 1
        sessions[1].send_event(args=["only where it is bound"])
        assert (await client.expect_event(exact)).args == ("only where it is bound",)
        await client.expect_nothing()


async def test_what_is_sent_to_one_session_needs_a_subscription_that_the_topic_allows() -> None:
    app = Application()
    sessions: list[Session] = []

    @app.prefix_topic("a")
    async def listen(session: Session) -> AsyncIterator[None]:
        sessions.append(session)
        session.send_event("a.secret", args=["before"])
        yield

    @app.topic("a.secret")
    async def refuse() -> AsyncIterator[None]:
        raise WAMPError("wamp.error.not_authorized")
        yield

    async with connect(app) as client:
        await client.subscribe("a", match="prefix")
        sessions[0].send_event("a.secret", args=["not for who hears all of the rest"])
        sessions[0].send_event("a.rest", args=["rest"])
        assert (await client.expect_event()).args == ("rest",)
        await client.expect_nothing()
