"""What is kept of a topic's past: event history and retained events."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from serverwamp import Application, ConfigurationError, History, Limits, Session, WAMPError
from serverwamp.testing import Client, connect

GET_EVENTS = "wamp.subscription.get_events"


async def listen() -> AsyncIterator[None]:
    yield


def keeping(history: History | None = None, topic: str = "news", **options: Any) -> Application:
    app = Application(**options)
    app.prefix_topic(topic, history=history, client_publish=True)(listen)
    return app


async def events_of(client: Client, subscription: int, **filters: Any) -> list[Any]:
    result = await client.call(GET_EVENTS, [subscription], filters)
    assert set(result.kwargs) == {"complete", "time"}
    (events,) = result.args
    assert isinstance(events, list)
    return events


async def kept(client: Client, subscription: int, **filters: Any) -> tuple[list[Any], bool]:
    """Return the first arguments of what is kept, and whether that is complete."""
    result = await client.call(GET_EVENTS, [subscription], filters)
    return [event["args"][0] for event in result.args[0]], result.kwargs["complete"]


@pytest.mark.spec("HIS-01", "HIS-02", "HIS-04", "FEA-06")
async def test_what_a_client_gets_of_the_past() -> None:
    app = keeping(History())
    before = datetime.now(timezone.utc)
    ids = [await app.publish("news", [n], {"n": n}) for n in range(3)]
    ids.append(await app.publish("news"))
    async with connect(app) as client:
        assert client.welcome["roles"]["broker"]["features"]["event_history"] is True
        assert "callee" not in client.welcome["roles"]
        subscription = (await client.subscribe("news")).id
        events = await events_of(client, subscription)
        assert [event["publication"] for event in events] == ids
        moments = [datetime.fromisoformat(event.pop("timestamp")) for event in events]
        assert [before, *moments] == sorted([before, *moments])
        assert events[1] == {
            "subscription": subscription,
            "publication": ids[1],
            "details": {},
            "args": [1],
            "kwargs": {"n": 1},
        }
        assert events[3] == {"subscription": subscription, "publication": ids[3], "details": {}}
        assert (await events_of(client, subscription, reverse=True))[0]["publication"] == ids[3]
        assert [e["publication"] for e in await events_of(client, subscription, limit=2)] == ids[:2]
        last = await events_of(client, subscription, limit=1, reverse=True)
        assert [event["publication"] for event in last] == ids[3:]
        assert await events_of(client, subscription, limit=0) == []


@pytest.mark.spec("HIS-01")
async def test_the_filters() -> None:
    app = keeping(History())
    ids = [await app.publish("news", [n]) for n in range(6)]
    async with connect(app) as client:
        subscription = (await client.subscribe("news")).id
        events = await events_of(client, subscription)
        times = [event["timestamp"] for event in events]
        assert times == sorted(set(times)), "the clock is fine enough for this test"
        for suffix, values in (("publication", ids), ("time", times)):
            for filters, expected in (
                ({"from": 2}, [2, 3, 4, 5]),
                ({"after": 2}, [3, 4, 5]),
                ({"until": 2}, [0, 1, 2]),
                ({"before": 2}, [0, 1]),
                ({"after": 1, "before": 4}, [2, 3]),
                ({"from": 1, "after": 2, "until": 4, "before": 5}, [3, 4]),
                ({"after": 4, "before": 2}, []),
                ({"after": 5}, []),
            ):
                named = {f"{name}_{suffix}": values[place] for name, place in filters.items()}
                found, _ = await kept(client, subscription, **named)
                assert found == expected, named
                found, _ = await kept(client, subscription, reverse=True, **named)
                assert found == expected[::-1], named
        mixed = {"after_publication": ids[1], "until_time": times[4], "limit": 2, "reverse": True}
        assert (await kept(client, subscription, **mixed))[0] == [4, 3]
        in_another_zone = datetime.fromisoformat(times[3]).astimezone(timezone(timedelta(hours=5)))
        found, _ = await kept(client, subscription, from_time=in_another_zone.isoformat())
        assert found == [3, 4, 5]


async def test_patterns_have_a_past_too() -> None:
    app = keeping(History())
    for topic in ("news.a", "news.b.x", "news.a"):
        await app.publish(topic, [topic])
    async with connect(app) as client:
        prefix = (await client.subscribe("news.", match="prefix")).id
        wildcard = (await client.subscribe("news..x", match="wildcard")).id
        exact = (await client.subscribe("news.a")).id
        assert (await kept(client, prefix))[0] == ["news.a", "news.b.x", "news.a"]
        assert (await kept(client, wildcard))[0] == ["news.b.x"]
        assert (await kept(client, exact))[0] == ["news.a", "news.a"]
        assert (await kept(client, prefix, topic="news.b.x"))[0] == ["news.b.x"]
        assert (await kept(client, exact, topic="news.b.x"))[0] == []
        assert (await events_of(client, prefix))[1]["details"] == {"topic": "news.b.x"}
        assert (await events_of(client, exact))[0]["details"] == {}


@pytest.mark.spec("HIS-03")
async def test_everybody_sees_only_what_it_could_have_received() -> None:
    app = keeping(History())

    async def authenticate(session: Session) -> str | None:
        session.auth_id = str(session.auth_extra["name"])
        session.auth_role = "staff" if session.auth_id == "ada" else "guest"
        return session.auth_id

    app.add_transport_authenticator(authenticate)
    async with (
        connect(app, authextra={"name": "ada"}) as ada,
        connect(app, authextra={"name": "bob"}) as bob,
    ):
        ids = {client: (await client.subscribe("news")).id for client in (ada, bob)}
        await app.publish("news", ["staff"], eligible_authrole="staff")
        await app.publish("news", ["not ada"], exclude_authid="ada")
        await app.publish("news", ["all"])
        await ada.publish("news", ["by ada"], acknowledge=True)
        await ada.publish("news", ["by ada to all"], acknowledge=True, exclude_me=False)
        assert await kept(ada, ids[ada]) == (["staff", "all", "by ada to all"], True)
        assert await kept(bob, ids[bob]) == (["not ada", "all", "by ada", "by ada to all"], True)
        disclosed = await app.publish("news", ["x"])
        await ada.publish("news", ["told"], acknowledge=True, disclose_me=True)
        (event,) = await events_of(bob, ids[bob], after_publication=disclosed)
        assert event["details"]["publisher_authid"] == "ada"


@pytest.mark.spec("HIS-03")
async def test_what_is_for_certain_sessions_is_not_kept_and_leaves_a_gap() -> None:
    app = keeping(History())
    async with connect(app) as client:
        subscription = (await client.subscribe("news")).id
        first = await app.publish("news", [1])
        personal = await app.publish("news", ["personal"], eligible=client.session or 0)
        await app.publish("news", [2], exclude=4711)
        last = await app.publish("news", [3])
        await app.publish("news.other", ["personal"], eligible=[])
        assert await kept(client, subscription) == ([1, 3], False)
        assert await kept(client, subscription, after_publication=first) == ([3], False)
        assert await kept(client, subscription, after_publication=personal) == ([3], False)
        assert await kept(client, subscription, from_publication=last) == ([3], True)
        assert await kept(client, subscription, after_publication=last) == ([], True)


@pytest.mark.parametrize(
    "history",
    [History(events=3), History(bytes=1700), History(events=3, bytes=math.inf, age=math.inf)],
)
async def test_what_is_forgotten_is_said_to_be(history: History) -> None:
    app = keeping(history)
    ids = [await app.publish("news", [n]) for n in range(8)]
    async with connect(app) as client:
        subscription = (await client.subscribe("news")).id
        assert await kept(client, subscription) == ([5, 6, 7], False)
        for n, publication in enumerate(ids):
            found, complete = await kept(client, subscription, after_publication=publication)
            assert found == list(range(max(n + 1, 5), 8))
            assert complete is (n >= 5)
        times = [event["timestamp"] for event in await events_of(client, subscription)]
        assert await kept(client, subscription, from_time=times[0]) == ([5, 6, 7], True)
        assert await kept(client, subscription, after_time=times[0]) == ([6, 7], True)
        early = (datetime.now(timezone.utc) - timedelta(hours=1)).isoformat()
        assert await kept(client, subscription, after_time=early) == ([5, 6, 7], False)
        # What came before something that isn't known any more, nobody knows.
        assert await kept(client, subscription, until_publication=ids[0]) == ([], False)


async def test_what_is_too_old_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("serverwamp.history.time.time", lambda: now)
    app = keeping(History(age=60))
    app.freeze()
    first = await app.publish("news", [1])
    now += 50
    second = await app.publish("news", [2])
    now += 20
    async with connect(app) as client:
        subscription = (await client.subscribe("news")).id
        assert await kept(client, subscription) == ([2], False)
        assert await kept(client, subscription, after_publication=first) == ([2], False)
        now -= 3600  # somebody sets the clock
        third = await app.publish("news", [3])
        assert await kept(client, subscription, after_publication=second) == ([3], True)
        assert await kept(client, subscription, from_publication=third) == ([3], True)


async def test_what_is_named_may_be_of_another_life() -> None:
    app = keeping(History())
    await app.publish("news", [1])
    async with connect(app) as client:
        subscription = (await client.subscribe("news")).id
        assert await kept(client, subscription, after_publication=2**53) == ([1], False)
        assert await kept(client, subscription) == ([1], True)


async def test_arguments_are_kept_as_they_were() -> None:
    app = keeping(History())
    mutable = [1, {"a": b"\0\1", "d": datetime(2026, 1, 2, tzinfo=timezone.utc)}]
    await app.publish("news", [mutable, 2**70 if False else 2**63])
    mutable.append("later")
    await app.publish("news", [2**70])
    with pytest.raises(ValueError, match="nobody can receive"):
        await app.publish("news", [object()])
    async with connect(app) as client:
        subscription = (await client.subscribe("news")).id
        events, complete = await kept(client, subscription)
        assert events == [[1, {"a": b"\0\1", "d": "2026-01-02T00:00:00Z"}], 2**70]
        assert complete is True, "what isn't published isn't missed"


async def test_who_may_ask() -> None:
    app = keeping(History())

    @app.topic("other")
    async def other() -> AsyncIterator[None]:
        yield

    async with connect(app) as client, connect(app) as stranger:
        subscription = (await client.subscribe("news")).id
        for who, asked, uri in (
            (stranger, subscription, "wamp.error.not_authorized"),
            (client, 4711, "wamp.error.no_such_subscription"),
        ):
            with pytest.raises(WAMPError) as error:
                await events_of(who, asked)
            assert error.value.uri == uri
        assert await kept(client, (await client.subscribe("other")).id) == ([], False)
        for bad in (
            {"limit": -1},
            {"from_time": "2026-01-02T00:00:00"},
            {"from_time": "yesterday"},
            {"after_publication": 0},
            {"unknown": 1},
        ):
            with pytest.raises(WAMPError, match="invalid_argument"):
                await client.call(GET_EVENTS, [subscription], bad)
    async with connect(keeping()) as client:
        assert "event_history" not in client.welcome["roles"]["broker"]["features"]
        with pytest.raises(WAMPError, match="no_such_procedure"):
            await client.call(GET_EVENTS, [1])


def test_bounds_have_to_be_bounds() -> None:
    for bounds in ({"events": 0}, {"age": -1}, {"bytes": math.nan}, {"events": "many"}):
        with pytest.raises(ConfigurationError, match="History"):
            History(**bounds)  # type: ignore[arg-type]


# ---- retained events


@pytest.mark.spec("RET-01", "RET-02")
async def test_the_last_event_for_who_comes_later() -> None:
    app = keeping()
    await app.publish("news", ["old"], retain=True)
    publication = await app.publish("news", ["retained"], {"a": 1}, retain=True)
    await app.publish("news", ["not retained"])
    async with connect(app) as client, connect(app) as other:
        assert client.welcome["roles"]["broker"]["features"]["event_retention"] is True
        await other.subscribe("news")
        await other.expect_nothing()
        subscription = await client.subscribe("news", get_retained=True)
        event = await client.expect_event(subscription)
        assert (event.args, event.kwargs, event.publication) == (
            ("retained",),
            {"a": 1},
            publication,
        )
        assert event.details == {"retained": True}
        await client.subscribe("news", get_retained=True)
        assert (await client.expect_event(subscription)).publication == publication
        await client.subscribe("news.empty", get_retained=True)
        await client.subscribe("news", match="prefix", get_retained=True)
        await client.expect_nothing()
        await app.publish("news", ["now"], retain=True)
        assert "retained" not in (await client.expect_event(subscription)).details


@pytest.mark.spec("RET-03", "RET-04")
async def test_retained_events_are_for_who_could_have_received_them() -> None:
    app = keeping()
    async with connect(app) as client, connect(app) as other:
        await app.publish("news", ["for all"], retain=True)
        await app.publish("news", ["for roles"], retain=True, eligible_authrole="admin")
        await app.publish("news", ["but one"], retain=True, exclude=client.session or 0)
        await client.subscribe("news", get_retained=True)
        assert (await client.expect_event()).args == ("for all",)
        await client.expect_nothing()
        await client.publish("news.x", ["mine"], acknowledge=True, retain=True)
        await client.subscribe("news.x", get_retained=True)
        await client.expect_nothing()
        await other.subscribe("news.x", get_retained=True)
        assert (await other.expect_event()).args == ("mine",)


async def test_retained_events_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    for limits in (Limits(retained_topics=2), Limits(retained_bytes=1500)):
        app = keeping(limits=limits)
        app.freeze()
        for topic in ("news.a", "news.b", "news.a", "news.c"):
            await app.publish(topic, [topic], retain=True)
        await app.publish("nobody.can.subscribe", retain=True)
        async with connect(app) as client:
            for topic in ("news.b", "news.a", "news.c"):
                await client.subscribe(topic, get_retained=True)
            events = [await client.expect_event() for _ in range(2)]
            assert [event.args[0] for event in events] == ["news.a", "news.c"]
            await client.expect_nothing()
        assert "'news.b' is no longer retained" in caplog.text
