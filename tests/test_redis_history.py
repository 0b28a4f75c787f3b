"""Histories and retained events in Redis: one past and one order for all processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from serverwamp import (
    Application,
    Audience,
    ConfigurationError,
    History,
    HistoryStore,
    Limits,
    LostWindow,
    Publication,
    WAMPError,
)
from serverwamp.backplanes import Backplane, MemoryBackplane, Publisher, RedisBackplane
from serverwamp.errors import BackplaneUnavailable
from serverwamp.testing import Client, connect
from tests.redis_servers import RedisServer, redis_server
from tests.test_history_fire import EVENTS, Reader, follow, publish_all

GET_EVENTS = "wamp.subscription.get_events"
SECONDS = 30.0
EXAMPLES = count()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    server.cli("FLUSHALL")
    return server


async def interrupt(redis: RedisServer) -> None:
    """Break the connections over which the processes receive."""
    await anyio.to_thread.run_sync(redis.cli, "CLIENT", "KILL", "TYPE", "pubsub")


async def listen() -> AsyncIterator[None]:
    yield


def application(
    backplane: Backplane, history: History | None = None, limits: Limits | None = None
) -> Application:
    app = Application(backplane=backplane, limits=limits)
    app.topic("plain", client_publish=True)(listen)
    app.prefix_topic("news", history=history, client_publish=True)(listen)
    return app


@asynccontextmanager
async def processes(
    redis: RedisServer,
    history: History | None = None,
    limits: Limits | None = None,
    lost: list[str] | None = None,
) -> AsyncIterator[list[Application]]:
    """Run two processes; `lost` gets the topics of the lost windows in the second one."""
    async with AsyncExitStack() as stack:
        apps = [application(RedisBackplane(redis.url), history, limits) for _ in range(2)]
        if lost is not None:

            @apps[1].add_lost_window_handler
            async def note(window: LostWindow) -> None:
                lost.extend(subscription.topic for subscription in window.subscriptions)

        for app in apps:
            await stack.enter_async_context(app.running())
        yield apps


async def kept(client: Client, subscription: int, **filters: Any) -> tuple[list[Any], bool]:
    """Return the first arguments of what is kept, and whether that is complete."""
    result = await client.call(GET_EVENTS, [subscription], filters)
    return [event["args"][0] for event in result.args[0]], result.kwargs["complete"]


# ---- history


@pytest.mark.spec("HIS-01", "HIS-02")
async def test_one_history_for_all_processes(redis: RedisServer) -> None:
    async with (
        processes(redis, History()) as (one, two),
        connect(one) as a,
        connect(two) as b,
    ):
        subscription = await a.subscribe("news")
        pattern = await b.subscribe("news", match="prefix")
        ids = []
        for number in range(4):
            publisher = (one, two)[number % 2]
            ids.append(await publisher.publish("news", [number], {"n": number}))
        await b.publish("news.other", ["o"], acknowledge=True)
        for number in range(4):
            event = await a.expect_event(subscription)
            assert (event.args, event.publication) == ((number,), ids[number])
        assert await kept(a, subscription.id) == ([0, 1, 2, 3], True)
        assert await kept(b, pattern.id, topic="news") == ([0, 1, 2, 3], True)
        assert await kept(a, subscription.id, limit=2, reverse=True) == ([3, 2], True)
        result = await b.call(GET_EVENTS, [pattern.id], {"after_publication": ids[2]})
        (event,) = result.args[0]
        assert event["kwargs"] == {"n": 3}
        assert event["details"] == {"topic": "news"}
        moment = datetime.fromisoformat(event["timestamp"])
        assert abs(datetime.now(timezone.utc) - moment) < timedelta(seconds=30)
        assert await kept(a, subscription.id, until_time=event["timestamp"]) == (
            [0, 1, 2, 3],
            True,
        )


@pytest.mark.spec("HIS-01", "HIS-02")
@pytest.mark.parametrize("kills", [False, True])
async def test_subscribers_that_drop_and_come_back(redis: RedisServer, kills: bool) -> None:
    """The catch-up recipe of the guide: a client may come back to another process."""
    async with processes(redis, History(events=EVENTS)) as apps:
        readers = [Reader(Random(f"{number}")) for number in range(3)]
        done = anyio.Event()

        async def read(reader: Reader) -> None:
            while reader.next < EVENTS:
                async with connect(reader.random.choice(apps), timeout=SECONDS) as client:
                    await reader.read(client, reader.random.choice((0, 5, 40, 200)))
                    await client.disconnect()

        async def keep_interrupting() -> None:
            while not done.is_set():
                await interrupt(redis)
                with anyio.move_on_after(0.3):
                    await done.wait()

        with anyio.fail_after(SECONDS):
            async with anyio.create_task_group() as tasks:
                if kills:
                    tasks.start_soon(keep_interrupting)
                async with anyio.create_task_group() as inner:
                    inner.start_soon(publish_all, apps[0], Random(1))
                    for reader in readers:
                        inner.start_soon(read, reader)
                done.set()
        for reader in readers:
            assert reader.numbers == list(range(EVENTS))
            assert reader.gaps == 0


@pytest.mark.spec("HIS-01")
async def test_concurrent_publishers_have_one_order(redis: RedisServer) -> None:
    async with processes(redis, History()) as apps, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(app)) for app in apps]
        subscriptions = [await client.subscribe("news") for client in clients]

        async def publish(app: Application, name: str) -> None:
            for number in range(20):
                await app.publish("news", [[name, number]])

        async with anyio.create_task_group() as tasks:
            for app in apps:
                for name in "ab":
                    tasks.start_soon(publish, app, name + str(apps.index(app)))
        received = [[(await c.expect_event()).args[0] for _ in range(80)] for c in clients]
        assert received[0] == received[1]
        for client, subscription in zip(clients, subscriptions, strict=True):
            assert await kept(client, subscription.id) == (received[0], True)


async def test_the_same_publication_twice_is_one(redis: RedisServer) -> None:
    async with processes(redis, History()) as (one, two), connect(two) as client:
        subscription = await client.subscribe("news")
        publication = Publication("news", (1,))
        for app in (one, two, one):
            await app.freeze().publishing.publish(publication)
        await one.publish("news", [2])
        assert [(await client.expect_event()).args for _ in range(2)] == [(1,), (2,)]
        assert await kept(client, subscription.id) == ([1, 2], True)


async def test_what_was_missed_is_read_from_the_history(redis: RedisServer) -> None:
    lost: list[str] = []
    async with processes(redis, History(), lost=lost) as (one, two), connect(two) as client:
        await client.subscribe("news")
        await client.subscribe("plain")
        with anyio.fail_after(SECONDS):
            for number in range(300):
                if number % 50 == 20:
                    await interrupt(redis)
                await one.publish("news", [number])
            for number in range(300):
                assert (await client.expect_event(timeout=5)).args == (number,)
        await client.expect_nothing()
        assert set(lost) == {"plain"}


@pytest.mark.spec("HIS-03")
async def test_missed_events_that_are_not_kept_are_said_to_be_lost(redis: RedisServer) -> None:
    lost: list[str] = []
    async with processes(redis, History(), lost=lost) as (one, two), connect(two) as client:
        subscription = await client.subscribe("news")
        await one.publish("news", ["a"])
        await one.publish("news", ["personal"], eligible=client.session)
        assert (await client.expect_event()).args == ("a",)
        assert (await client.expect_event()).args == ("personal",)
        assert await kept(client, subscription.id) == (["a"], False)
        assert not lost
        with anyio.fail_after(SECONDS):
            while "news" not in lost:
                await interrupt(redis)
                for number in range(5):
                    await one.publish("news", [number], eligible=client.session)


@pytest.mark.parametrize("part", ["s", "m", "i"])
@pytest.mark.spec("HIS-01")
async def test_a_key_that_was_evicted_is_noticed(redis: RedisServer, part: str) -> None:
    async with processes(redis, History()) as (one, two), connect(two) as client:
        subscription = await client.subscribe("news")
        for number in range(3):
            publication = await one.publish("news", [number])
            await client.expect_event()
        assert await kept(client, subscription.id) == ([0, 1, 2], True)
        (key,) = [key for key in redis.cli("KEYS", "*").split() if key.endswith(":" + part)]
        assert redis.cli("DEL", key).strip() == "1"
        assert await kept(client, subscription.id, after_publication=publication) == ([], False)
        assert await kept(client, subscription.id) == ([], False)
        later = await one.publish("news", [3])
        assert (await client.expect_event()).args == (3,)
        assert await kept(client, subscription.id) == ([3], False)
        assert await kept(client, subscription.id, after_publication=publication) == ([3], False)
        assert await kept(client, subscription.id, after_publication=later) == ([], True)


@pytest.mark.spec("HIS-01")
async def test_a_restart_of_redis_is_not_taken_for_completeness() -> None:
    lost: list[str] = []
    with redis_server() as redis:
        async with processes(redis, History(), lost=lost) as (one, two), connect(two) as client:
            subscription = await client.subscribe("news")
            past = await client.catch_up(subscription)
            before = await one.publish("news", [1])
            marks: list[dict[str, Any]] = [
                {"from_time": past.time},
                {"after_publication": before},
                {},
            ]
            for mark in marks:
                assert (await client.catch_up(subscription, **mark)).complete
            redis.kill()
            redis.start()
            with anyio.fail_after(SECONDS):
                while True:
                    try:
                        later = await one.publish("news", [2])
                    except BackplaneUnavailable:
                        continue
                    break
                while True:
                    try:
                        past = await client.catch_up(subscription)
                    except WAMPError:
                        continue
                    break
                for mark in marks:
                    past = await client.catch_up(subscription, **mark)
                    assert [event.args for event in past.events] == [(2,)]
                    assert not past.complete
                past = await client.catch_up(subscription, after_publication=later)
                assert (past.events, past.complete) == ([], True)
                await one.publish("news", [3])
                assert (await client.expect_event()).args == (3,)
                assert set(lost) == {"news"}


@pytest.mark.spec("HIS-01")
@pytest.mark.parametrize("is_connected", [True, False])
async def test_writes_that_a_failover_has_lost_are_noticed(
    redis: RedisServer, is_connected: bool
) -> None:
    """There are as many events in the other past, so that counting them shows nothing."""
    lost: list[str] = []
    async with processes(redis, History(), lost=lost) as (one, two), connect(two) as client:
        subscription = await client.subscribe("news")
        await one.publish("news", ["a"])
        keys = redis.cli("KEYS", "*").split()
        for key in keys:
            redis.cli("COPY", key, f"{key}:copy")
        for text in ("lost b", "lost c"):
            last = await one.publish("news", [text])
        for _ in range(3):
            await client.expect_event()
        for key in keys:
            redis.cli("RENAME", f"{key}:copy", key)
        if not is_connected:
            await interrupt(redis)
        for text in ("d", "e"):
            await one.publish("news", [text])
        assert [(await client.expect_event()).args for _ in range(2)] == [("d",), ("e",)]
        with anyio.fail_after(SECONDS):
            while "news" not in lost:
                await checkpoint()
        past = await client.catch_up(subscription, after_publication=last)
        assert [event.args for event in past.events] == [("a",), ("d",), ("e",)]
        assert not past.complete
        await client.expect_nothing()


async def test_more_was_missed_than_is_kept(redis: RedisServer) -> None:
    lost: list[str] = []
    async with processes(redis, History(events=3), lost=lost) as (one, two), connect(two) as client:
        await client.subscribe("news")
        numbers: list[int] = []
        published = 0
        with anyio.fail_after(SECONDS):
            while "news" not in lost:
                await interrupt(redis)
                async with anyio.create_task_group() as tasks:
                    for number in range(published, published + 300):
                        tasks.start_soon(one.publish, "news", (number,))
                published += 300
                last = await one.publish("news", [-1])
                while (event := await client.expect_event()).publication != last:
                    numbers.append(event.args[0])
        assert len(numbers) == len(set(numbers)) < published


@pytest.mark.spec("HIS-01")
async def test_what_is_forgotten_is_said_to_be(redis: RedisServer) -> None:
    async with processes(redis, History(events=2)) as (one, two), connect(two) as client:
        subscription = (await client.subscribe("news")).id
        times: list[str] = []
        for number in range(5):
            await one.publish("news", [number])
            result = await client.call(GET_EVENTS, [subscription], {"limit": 1, "reverse": True})
            times.append(result.args[0][0]["timestamp"])
        assert await kept(client, subscription) == ([3, 4], False)
        for number, time in enumerate(times):
            is_complete = number >= 3
            expected = list(range(max(number, 3), 5)), is_complete
            assert await kept(client, subscription, from_time=time) == expected
            expected = list(range(max(number + 1, 3), 5)), number >= 2
            assert await kept(client, subscription, after_time=time) == expected


async def test_a_full_memory_refuses_before_anything_is_written(redis: RedisServer) -> None:
    async with processes(redis, History()) as (one, two), connect(two) as client:
        subscription = await client.subscribe("news")
        await one.publish("news", [1])
        keys = redis.cli("KEYS", "*")
        redis.cli("CONFIG", "SET", "maxmemory", "1")
        try:
            for topic in ("news", "news.new"):
                for retain in (False, True):
                    with pytest.raises(BackplaneUnavailable, match="refuses"):
                        await one.publish(topic, [2], retain=retain)
        finally:
            redis.cli("CONFIG", "SET", "maxmemory", "0")
        assert redis.cli("KEYS", "*") == keys
        await one.publish("news", [3])
        assert [(await client.expect_event()).args for _ in range(2)] == [(1,), (3,)]
        assert await kept(client, subscription.id) == ([1, 3], True)


async def test_long_histories_are_read_in_pages(redis: RedisServer) -> None:
    async with processes(redis, History()) as (one, two), connect(two) as client:
        subscription = await client.subscribe("news")
        text = "x" * 300_000  # more bytes than a page has, in one of them
        async with anyio.create_task_group() as tasks:
            for number in range(120):
                tasks.start_soon(one.publish, "news", (number, text if number < 30 else ""))
        found, complete = await kept(client, subscription.id)
        assert (sorted(found), complete) == (list(range(120)), True)
        assert (await kept(client, subscription.id, reverse=True))[0] == found[::-1]
        assert (await kept(client, subscription.id, limit=110))[0] == found[:110]


def test_a_store_of_ones_own_needs_a_backplane_of_one_process() -> None:
    def store(history: History) -> HistoryStore:
        raise AssertionError

    app = application(RedisBackplane("redis://127.0.0.1:1"), History(store=store))
    with pytest.raises(ConfigurationError, match="store of your own"):
        app.freeze()


@pytest.mark.spec("HIS-01")
async def test_a_publisher_outside_knows_which_topics_have_a_history(redis: RedisServer) -> None:
    app = Application(backplane=RedisBackplane(redis.url))
    app.prefix_topic("log.", history=History(age=3600))(listen)
    app.topic("log.not")(listen)
    app.regex_topic(r"^x\.\d+$", history=History())(listen)
    async with app.running(), connect(app) as client, Publisher(redis.url) as publisher:
        for topic, complete in (("log.a", True), ("x.1", True), ("log.not", False)):
            subscription = await client.subscribe(topic)
            await publisher.publish(topic, [topic])
            assert (await client.expect_event(subscription)).args == (topic,)
            found = [topic] if complete else []
            assert await kept(client, subscription.id) == (found, complete)


async def test_a_publisher_outside_notices_new_topics(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serverwamp.backplanes.timings.TOPICS_SECONDS", 0.02)
    async with Publisher(redis.url) as publisher:
        async with processes(redis, History()) as (one, _), connect(one) as client:
            subscription = await client.subscribe("news")
            with anyio.fail_after(SECONDS):
                while (await kept(client, subscription.id))[0] == []:
                    await publisher.publish("news", [1])


async def test_the_rules_of_the_guide_suffice_for_a_user_of_redis(redis: RedisServer) -> None:
    rules = "resetchannels &shop:* +publish +subscribe +unsubscribe"
    rules += " ~shop:* +@scripting +@stream +@hash +@sortedset +@list +del +time +set +get"
    guide = (Path(__file__).parent.parent / "docs" / "cluster.rst").read_text()
    assert all(rule in guide.split("Settings of Redis")[1] for rule in rules.split())
    redis.cli("ACL", "SETUSER", "app", "on", ">secret", *rules.split())
    url = redis.url.replace("//", "//app:secret@")
    app = application(RedisBackplane(url, prefix="shop"), History(events=1))
    async with (
        app.running(),
        connect(app) as client,
        Publisher(url, prefix="shop") as publisher,
    ):
        subscription = await client.subscribe("news")
        for number in range(3):
            await publisher.publish("news", [number])
            assert (await client.expect_event()).args == (number,)
        await app.publish("plain", ["x"], retain=True)
        await app.publish("news", ["r"], retain=True, eligible_authrole="nobody")
        await client.subscribe("plain", get_retained=True)
        assert (await client.expect_event()).args == ("x",)
        await app.publish("news", [3])
        assert await kept(client, subscription.id) == ([3], False)


# ---- `complete`, compared with the memory of a process


NAMES = ("from", "after", "until", "before")
AUDIENCES = st.sampled_from([None, None, None, Audience(exclude=frozenset([4711])), Audience()])
PUBLISHED = st.lists(
    st.tuples(st.sampled_from(["news", "news.x"]), AUDIENCES), min_size=3, max_size=8
)
# A bound is an event, a time between two events, the time of an event, or an unknown event.
KINDS = ["publication", "publication", "between", "time", "time", "unknown"]
BOUND = st.tuples(st.sampled_from(KINDS), st.integers(0, 7))
QUERY = st.tuples(
    st.dictionaries(st.sampled_from(NAMES), BOUND, max_size=2),
    st.fixed_dictionaries(
        {"reverse": st.booleans()},
        optional={"limit": st.integers(0, 6), "topic": st.sampled_from(["news", "news.x"])},
    ),
)


async def answers(
    backplane: Backplane, history: History, published: list[Any], queries: list[Any]
) -> list[Any]:
    app = application(backplane, history)
    async with app.running(), connect(app) as client:
        subscription = await client.subscribe("news", match="prefix")
        times = [(await client.catch_up(subscription)).time]
        ids: list[int] = []
        stamps: dict[int, str] = {}
        for number, (topic, audience) in enumerate(published):
            publication = Publication(topic, (number,), audience=audience)
            await app.freeze().publishing.publish(publication)
            ids.append(publication.id)
            while (time := (await client.catch_up(subscription)).time) == times[-1]:
                pass  # the clock isn't fine enough to stand between two events
            times.append(time)
            result = await client.call(GET_EVENTS, [subscription.id], {"limit": 1, "reverse": True})
            stamps |= {event["publication"]: event["timestamp"] for event in result.args[0]}
        found = []
        for bounds, others in queries:
            query = dict(others)
            for name, (kind, place) in bounds.items():
                id_ = ids[place % len(ids)]
                if kind == "publication":
                    query[f"{name}_publication"] = id_
                elif kind == "unknown":
                    query[f"{name}_publication"] = 2**53
                elif kind == "time" and id_ in stamps:
                    query[f"{name}_time"] = stamps[id_]
                else:
                    query[f"{name}_time"] = times[place % len(times)]
            found.append((bounds, others, await kept(client, subscription.id, **query)))
        return found


@pytest.mark.spec("HIS-01", "HIS-02")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=20, deadline=None)
@given(
    events=st.sampled_from([1, 2, 4, 20]),
    published=PUBLISHED,
    queries=st.lists(QUERY, min_size=10, max_size=20),
)
def test_the_answers_are_those_of_the_memory(
    server: RedisServer, backend: str, events: int, published: list[Any], queries: list[Any]
) -> None:
    """Redis and the memory of a process get the same events, and the same questions about them."""
    redis = RedisBackplane(server.url, prefix=f"example{next(EXAMPLES)}")
    history = History(events=events)
    expected, found = (
        anyio.run(answers, backplane, history, published, queries, backend=backend)
        for backplane in (MemoryBackplane(), redis)
    )
    assert found == expected


async def test_what_is_too_old_is_forgotten(redis: RedisServer) -> None:
    async with processes(redis, History(age=0.3)) as (one, two), connect(two) as client:
        subscription = await client.subscribe("news")
        first = await one.publish("news", [1])
        assert await kept(client, subscription.id) == ([1], True)
        with anyio.fail_after(SECONDS):
            while (await kept(client, subscription.id))[0]:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        assert await kept(client, subscription.id) == ([], False)
        assert await kept(client, subscription.id, after_publication=first) == ([], False)
        second = await one.publish("news", [2])
        assert await kept(client, subscription.id, from_publication=second) == ([2], True)


# ---- retained events


@pytest.mark.spec("RET-01", "RET-02", "RET-03")
@pytest.mark.parametrize("history", [None, History()])
async def test_retained_events_are_those_of_all_processes(
    redis: RedisServer, history: History | None
) -> None:
    async with (
        processes(redis, history) as (one, two),
        connect(one) as a,
        connect(two) as b,
    ):
        await one.publish("news", ["old"], retain=True)
        publication = await two.publish("news", ["retained"], {"a": 1}, retain=True)
        await one.publish("news", ["not retained"])
        subscription = await b.subscribe("news", get_retained=True)
        event = await b.expect_event(subscription)
        assert (event.args, event.kwargs, event.publication) == (
            ("retained",),
            {"a": 1},
            publication,
        )
        assert event.details == {"retained": True}
        await b.subscribe("news", get_retained=True)
        assert (await b.expect_event(subscription)).publication == publication
        await b.subscribe("news.empty", get_retained=True)
        await b.subscribe("news", match="prefix", get_retained=True)
        await b.expect_nothing()

        await a.publish("news.mine", ["for all"], acknowledge=True, retain=True)
        await two.publish("news.mine", ["roles"], retain=True, eligible_authrole="admin")
        await two.publish("news.mine", ["but one"], retain=True, exclude=b.session or 0)
        await b.subscribe("news.mine", get_retained=True)
        assert (await b.expect_event()).args == ("for all",)
        await a.subscribe("news.mine", get_retained=True)
        await a.expect_nothing()  # its own


@pytest.mark.spec("RET-01", "RET-02")
@pytest.mark.parametrize("history", [None, History(events=1)])
async def test_the_retained_event_is_the_one_before_the_next(
    redis: RedisServer, history: History | None
) -> None:
    async with processes(redis, history) as (one, two):
        joined: list[int] = []
        with anyio.fail_after(SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: publish_all(one, Random(3), retain=True))
                for number in range(3):
                    app = (one, two)[number % 2]
                    tasks.start_soon(follow, app, Random(f"{number}"), joined)
        assert len(set(joined)) > 3, "nothing was put to the test"


async def test_retained_events_are_limited(redis: RedisServer) -> None:
    limits = Limits(retained_topics=2)
    async with processes(redis, limits=limits) as (one, two), connect(two) as client:
        for name in ("news.a", "news.b", "news.a", "news.c"):
            await one.publish(name, [name], retain=True)
        for _ in range(20):
            await one.publish("news.c", ["role"], retain=True, eligible_authrole="x")
        for name in ("news.a", "news.b", "news.c"):
            await client.subscribe(name, get_retained=True)
        assert [(await client.expect_event()).args[0] for _ in range(2)] == ["news.a", "news.c"]
        await client.expect_nothing()
        (key,) = [key for key in redis.cli("KEYS", "*").split() if key.endswith("news.c")]
        assert redis.cli("LLEN", key).strip() == "11"
