"""What an application does with a backplane: opening it, and what goes through it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from serverwamp import Application, LostWindow, Realm, Session
from serverwamp.backplanes import BlockingPublisher, Publisher, RedisBackplane
from serverwamp.errors import BackplaneOutcomeUnknown, BackplaneUnavailable
from serverwamp.testing import HandshakeRefused, connect
from serverwamp.testing import running as serving
from tests.helpers import until
from tests.redis_servers import (
    RedisServer,
    anybody,
    application,
    processes,
    redis_server,
)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


# ---- opening


async def test_the_lifespan_opens_it(redis: RedisServer) -> None:
    app = application(redis.url)
    assert app.health().backplane == "closed"
    async with serving(app):
        assert app.health().is_ready
        await app.publish("com.topic")
    assert app.health().backplane == "closed"


async def test_the_first_client_of_a_mounted_application_opens_it(redis: RedisServer) -> None:
    one, two = application(redis.url), application(redis.url)
    site = Starlette(routes=[Mount("/ws", one)])
    async with two.running(), connect(two) as other:
        received: list[str] = []

        async def join(name: str) -> None:
            async with connect(site, path="/ws/") as client:
                await client.subscribe("com.topic")
                await other.publish("com.topic", [name], acknowledge=True)
                while name not in received:
                    received.extend((await client.expect_event()).args)

        async with anyio.create_task_group() as tasks:  # they wait for the same opening
            for name in "abc":
                tasks.start_soon(join, name)
        assert one.health().is_ready
        async with one.running():  # has no effect
            pass
        await join("d")


async def test_clients_are_refused_until_redis_is_there(caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer()
    app = application(server.url, start_timeout=0.2)
    with pytest.raises(HandshakeRefused) as refused:
        async with connect(app):
            pass
    assert refused.value.status == 503
    assert app.health().backplane == "closed"
    assert "can't be reached" in caplog.text
    server.start()
    try:
        async with connect(app) as client:
            await client.publish("com.topic", acknowledge=True)
    finally:
        server.kill()


async def test_rawsocket_clients_open_it(redis: RedisServer) -> None:
    app = application(redis.url)
    async with anyio.create_task_group() as tasks:
        await tasks.start(app.serve_rawsocket, "127.0.0.1", 0)
        assert app.health().is_ready
        tasks.cancel_scope.cancel()


async def test_publishing_before_it_is_open(redis: RedisServer) -> None:
    app = application(redis.url)
    with pytest.raises(BackplaneUnavailable, match=r"Application\.running"):
        await app.publish("com.topic")


async def test_the_reason_why_it_does_not_open() -> None:
    with redis_server("--requirepass", "secret") as server:
        app = application(server.url, start_timeout=0.3)
        with pytest.raises(BackplaneUnavailable, match="HELLO must be called"):
            async with app.running():
                pass


async def test_an_application_may_run_again(redis: RedisServer) -> None:
    app = application(redis.url)
    for _ in range(2):
        async with app.running(), connect(app) as client:
            await client.subscribe("com.topic")
            await client.publish("com.topic", ["a"], exclude_me=False)
            assert (await client.expect_event()).args == ("a",)


async def test_an_exception_in_the_block_arrives_unchanged(redis: RedisServer) -> None:
    with pytest.raises(KeyError):
        async with application(redis.url).running():
            raise KeyError


# ---- health


async def test_health_without_a_backplane() -> None:
    app = Application()
    health = app.health()
    assert (health.backplane, health.draining, health.sessions) == ("ready", False, 0)
    async with connect(app, None):
        pass
    assert health.is_ready


async def test_health_while_redis_is_away() -> None:
    with redis_server() as server:
        app = application(server.url)
        async with app.running(), connect(app):
            assert app.health().sessions == 1
            server.kill()
            await until(lambda: not app.health().is_ready)
            assert app.health().backplane == "reconnecting"


# ---- lost windows


async def test_lost_windows_are_told(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    app = application(redis.url)
    app.add_realm(Realm("nobody.is.here"))
    windows: list[LostWindow] = []
    told = anyio.Event()

    @app.add_lost_window_handler
    def fail(_: Any) -> None:
        raise RuntimeError("this belongs to the test")

    @app.add_lost_window_handler
    async def note(window: LostWindow) -> None:
        windows.append(window)
        told.set()

    async with app.running(), connect(app) as client:
        subscription = await client.subscribe("com.topic")
        assert app.statistics().lost_windows == 0
        redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
        with anyio.fail_after(5):
            await told.wait()
        assert app.statistics().lost_windows == 1
        await client.publish("com.topic", ["after"], exclude_me=False)
        assert (await client.expect_event()).args == ("after",)
    (window,) = windows
    assert window.realm == "realm1"
    assert [(each.id, each.topic) for each in window.subscriptions] == [
        (subscription.id, "com.topic")
    ]
    assert 0 < window.until - window.since < 5
    messages = [record.getMessage() for record in caplog.records]
    assert sum("may be missing" in message for message in messages) == 1
    assert sum("a lost window handler failed" in message for message in messages) == 1


async def test_a_lost_window_handler_that_hangs_ends_with_the_application(
    redis: RedisServer,
) -> None:
    app = application(redis.url)
    began = anyio.Event()

    @app.add_lost_window_handler
    async def hang(window: LostWindow) -> None:
        began.set()
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with app.running(), connect(app) as client:
            await client.subscribe("com.topic")
            redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
            await began.wait()


# ---- meta events and testaments


async def accept(session: Session, ticket: str) -> str:
    return ticket


def with_meta_api(url: str) -> Application:
    app = Application(backplane=RedisBackplane(url))
    realm = Realm("realm1")
    realm.set_ticket_authenticator(accept)
    realm.prefix_topic("com.", client_publish=True)(anybody)
    realm.set_meta_api()
    app.add_realm(realm)
    return app


async def test_joining_and_leaving_is_told_in_other_processes(redis: RedisServer) -> None:
    apps = [with_meta_api(redis.url) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app.running())
        watcher = await stack.enter_async_context(connect(apps[0], authid="a", ticket="a"))
        await watcher.subscribe("wamp.session.on_join")
        await watcher.subscribe("wamp.session.on_leave")
        for app in apps:
            async with connect(app, authid="b", ticket="b") as client:
                (details,) = (await watcher.expect_event()).args
                assert (details["session"], details["authid"]) == (client.session, "b")
            assert (await watcher.expect_event()).args[0] == client.session


async def test_the_sessions_of_a_process_that_ends_are_told(redis: RedisServer) -> None:
    one, two = with_meta_api(redis.url), with_meta_api(redis.url)
    async with one.running(), connect(one, authid="a", ticket="a") as watcher:
        await watcher.subscribe("wamp.session.on_leave")
        async with two.running(), connect(two, authid="b", ticket="b") as client:
            pass
        assert (await watcher.expect_event()).args[0] == client.session


async def test_testaments_reach_other_processes(redis: RedisServer) -> None:
    one, two = with_meta_api(redis.url), with_meta_api(redis.url)
    async with one.running(), two.running(), connect(one, authid="a", ticket="a") as heir:
        await heir.subscribe("com.topic")
        async with connect(two, authid="b", ticket="b") as client:
            await client.call("wamp.session.add_testament", ["com.topic", ["farewell"], {}])
        assert (await heir.expect_event()).args == ("farewell",)


async def test_meta_events_without_redis_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server() as server:
        app = with_meta_api(server.url)
        async with app.running():
            server.kill()
            async with connect(app, authid="a", ticket="a"):
                pass
            await until(lambda: "meta events are lost" in caplog.text)


# ---- publishing from outside


async def test_a_publisher_outside(redis: RedisServer) -> None:
    async with processes(redis.url, 1) as (client,):
        await client.subscribe("com.topic")
        async with Publisher(redis.url, realm="realm1") as publisher:
            id_ = await publisher.publish("com.topic", ["a"], {"key": 1})
            await publisher.publish("com.topic", ["not for it"], exclude=[client.session])
            await publisher.publish("com.topic", ["b"], eligible=client.session)
        event = await client.expect_event()
        assert (event.args, event.kwargs, event.publication) == (("a",), {"key": 1}, id_)
        assert (await client.expect_event()).args == ("b",)


async def test_a_publisher_for_the_default_realm_and_another_prefix(redis: RedisServer) -> None:
    app = Application(backplane=RedisBackplane(redis.url, prefix="shop"))
    app.topic("com.topic")(anybody)
    async with app.running(), connect(app) as client:
        await client.subscribe("com.topic")
        async with Publisher(redis.url) as publisher:
            await publisher.publish("com.topic", ["of another application"])
        async with Publisher(redis.url, prefix="shop") as publisher:
            await publisher.publish("com.topic", ["a"])
        assert (await client.expect_event()).args == ("a",)


async def test_a_publisher_for_threads(redis: RedisServer) -> None:
    def work() -> list[int]:
        with BlockingPublisher(redis.url, realm="realm1") as publisher:
            with ThreadPoolExecutor(4) as threads:
                jobs = [threads.submit(publisher.publish, "com.topic", [n]) for n in range(20)]
                return [job.result(5) for job in jobs]

    async with processes(redis.url, 1) as (client,):
        await client.subscribe("com.topic")
        ids = await anyio.to_thread.run_sync(work)
        events = [await client.expect_event() for _ in range(20)]
        assert sorted(event.publication for event in events) == sorted(ids)
        assert sorted(event.args[0] for event in events) == list(range(20))


async def test_what_a_publisher_refuses(redis: RedisServer) -> None:
    async with Publisher(redis.url) as publisher:
        with pytest.raises(ValueError, match="not a valid URI"):
            await publisher.publish("wamp.session.on_join")
        with pytest.raises(ValueError, match="no format"):
            await publisher.publish("com.topic", [object()])
        with pytest.raises(TypeError):
            await publisher.publish("com.topic", "text")


async def test_a_publisher_raises_when_redis_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serverwamp.backplanes.timings.ACCEPT_SECONDS", 0.2)
    with redis_server() as server:
        async with Publisher(server.url) as publisher:
            server.kill()
            with pytest.raises((BackplaneUnavailable, BackplaneOutcomeUnknown)):
                await publisher.publish("com.topic")
            with pytest.raises(BackplaneUnavailable):
                await publisher.publish("com.topic")


def test_a_publisher_for_threads_reports_errors(redis: RedisServer) -> None:
    publisher = BlockingPublisher(redis.url)
    with pytest.raises(RuntimeError, match="with block"):
        publisher.publish("com.topic")
    with publisher, pytest.raises(ValueError, match="not a valid URI"):
        publisher.publish("not a uri")
    with pytest.raises(BackplaneUnavailable):
        with BlockingPublisher("redis://127.0.0.1:1", start_timeout=0.1):
            pass


# ---- what can't be delivered


async def test_whatever_arrives_listening_goes_on(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with processes(redis.url, 2) as (one, two):
        await one.subscribe("com.topic")
        for channel in redis.cli("PUBSUB", "CHANNELS", "*{realm1*").split():
            redis.cli("PUBLISH", channel, "nonsense")
            redis.cli("PUBLISH", channel, "more nonsense")
        await two.publish("com.topic", ["a"], acknowledge=True)
        assert (await one.expect_event()).args == ("a",)
    assert caplog.text.count("can't be delivered") == 1


async def test_what_no_subscriber_can_receive_is_logged(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    apps = [application(redis.url) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app.running())
        one = await stack.enter_async_context(connect(apps[0]))
        two = await stack.enter_async_context(connect(apps[1], subprotocol="wamp.2.msgpack"))
        await one.subscribe("com.topic")
        for _ in range(2):
            await two.publish("com.topic", [float("nan")], acknowledge=True)
        await two.publish("com.topic", ["a"], acknowledge=True)
        assert (await one.expect_event()).args == ("a",)
    records = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.getMessage().partition(":")[0] for r in records] == [
        "an event of 'com.topic' is lost for 1 subscribers"
    ]


async def test_what_is_too_long_is_refused_at_once(redis: RedisServer) -> None:
    app = application(redis.url)
    async with app.running():
        with pytest.raises(BackplaneUnavailable, match="too long"):
            await app.publish("com.topic", ["x" * 33_000_000])
        await app.publish("com.topic", ["x" * 1_000_000])


async def test_long_publications_arrive_in_order(redis: RedisServer) -> None:
    app = application(redis.url)
    async with processes(redis.url, 1) as (reader,), app.running():
        await reader.subscribe("com.topic")
        async with anyio.create_task_group() as tasks:
            for number in range(12):  # several batches
                tasks.start_soon(app._realms["realm1"].publish, "com.topic", [number, "x" * 90_000])
                await anyio.lowlevel.checkpoint()
        numbers = [(await reader.expect_event()).args[0] for _ in range(12)]
        assert numbers == list(range(12))


async def test_a_publication_that_is_cancelled_while_it_waits_is_not_sent() -> None:
    server = RedisServer()
    server.start()
    try:
        app = application(server.url)
        async with app.running(), connect(app) as client:
            await client.subscribe("com.topic")
            server.kill()
            await until(lambda: not app.health().is_ready)
            publish = app._realms["realm1"].publish
            with anyio.move_on_after(0.05):
                await publish("com.topic", ["cancelled"])
            server.start()
            await publish("com.topic", ["sent"])
            assert (await client.expect_event()).args == ("sent",)
    finally:
        server.kill()


async def test_the_queue_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serverwamp.backplanes.outbox.MOST_WAITING", 10)
    with redis_server() as server:
        app = application(server.url)
        async with app.running():
            server.suspend()
            failures: list[str] = []

            async def publish() -> None:
                try:
                    await app.publish("com.topic")
                except BackplaneUnavailable as error:
                    failures.append(error.message)

            async with anyio.create_task_group() as tasks:
                for _ in range(12):
                    tasks.start_soon(publish)
                    await anyio.lowlevel.checkpoint()
                await until(lambda: len(failures) == 2)
                server.resume()
            assert failures == ["too many publications wait to be sent"] * 2


async def test_topics_are_left_and_followed_again(redis: RedisServer) -> None:
    async with processes(redis.url, 2) as (one, two):
        for number in range(20):
            subscription = await one.subscribe("com.topic")
            await two.publish("com.topic", [number], acknowledge=True)
            assert (await one.expect_event(subscription)).args == (number,)
            await one.unsubscribe(subscription)
        assert not redis.cli("PUBSUB", "CHANNELS", "*{realm1*").split()


async def test_connections_and_channels_stay_the_same(redis: RedisServer) -> None:
    async with processes(redis.url, 2) as (one, two):
        await one.subscribe("com.", match="prefix")
        for _ in range(30):
            redis.cli("CLIENT", "KILL", "TYPE", "pubsub")
            redis.cli("CLIENT", "KILL", "TYPE", "normal")
            await anyio.sleep(0.01)
        with anyio.fail_after(5):
            await two.publish("com.topic", ["after"], acknowledge=True)
            assert (await one.expect_event()).args == ("after",)
        assert len(redis.cli("PUBSUB", "CHANNELS", "*{realm1*").split()) == 16
        assert int(redis.cli("INFO", "clients").partition("connected_clients:")[2].split()[0]) == 5


async def test_many_failed_attempts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serverwamp.backplanes.timings.BACK_OFF", (1e-9, 1e-6))
    attempts = 0

    async def fail(*_: Any, **__: Any) -> None:
        nonlocal attempts
        attempts += 1
        raise OSError("this belongs to the test")

    async def run() -> None:
        async with application("redis://127.0.0.1:1").running():
            pass

    monkeypatch.setattr("coredis.connection.TCPConnection.run", fail)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(lambda: attempts >= 2_200, seconds=30)
        tasks.cancel_scope.cancel()
    assert len(caplog.records) == 3  # one for each connection
