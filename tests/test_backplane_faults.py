"""What publishers and subscribers notice when Redis, or the way to it, fails."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from serverwamp import Application, History, LostWindow
from serverwamp.backplanes import timings
from serverwamp.concurrency.changes import Changes
from serverwamp.errors import BackplaneOutcomeUnknown, BackplaneUnavailable
from serverwamp.testing import Client, connect
from tests.redis_servers import Proxy, RedisServer, application, redis_server

pytestmark = pytest.mark.faults

FASTER = 4
TIMES = [name for name in vars(timings) if name.endswith("_SECONDS")]


@pytest.fixture(autouse=True)
def shorter_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TIMES:
        monkeypatch.setattr(timings, name, getattr(timings, name) / FASTER)
    monkeypatch.setattr(timings, "BACK_OFF", (0.02, 0.1))


def test_no_outcome_takes_longer_than_promised() -> None:
    assert FASTER * (timings.ACCEPT_SECONDS + timings.REPLY_SECONDS) <= 3.6


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@dataclass
class Attempt:
    """One publication, and what became of it."""

    began: float
    ended: float = 0.0
    is_accepted: bool = False


@dataclass
class Traffic:
    """One application publishes numbers; others, each with a subscriber, receive them."""

    publisher: Application
    subscribers: list[Application]
    attempts: dict[int, Attempt] = field(default_factory=dict)
    received: list[list[int]] = field(default_factory=list)
    windows: list[list[LostWindow]] = field(default_factory=list)
    unknown: int = 0
    progress: Changes = field(default_factory=Changes)

    async def publish_steadily(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                tasks.start_soon(self.publish)
                await anyio.sleep(0.01)

    async def publish(self, padding: str = "") -> None:
        number = len(self.attempts)
        attempt = self.attempts[number] = Attempt(time.time())
        realm = self.publisher._realms["realm1"]
        try:
            await realm.publish("com.topic", [number, padding])
            attempt.is_accepted = True
        except BackplaneOutcomeUnknown:
            self.unknown += 1
        except BackplaneUnavailable:
            pass
        attempt.ended = time.time()

    async def receive(self, client: Client) -> None:
        numbers: list[int] = []
        self.received.append(numbers)
        while True:
            event = await client.expect_event(timeout=30)
            numbers.append(event.args[0])
            self.progress.notify()

    def note_windows(self, app: Application) -> None:
        windows: list[LostWindow] = []
        self.windows.append(windows)
        app.add_lost_window_handler(windows.append)

    async def full_service(self) -> None:
        """Return when publications from now on reach all subscribers."""
        first = len(self.attempts)
        await self.progress.wait_until(
            lambda: all(numbers and numbers[-1] >= first for numbers in self.received)
        )

    def check(self) -> None:
        """Check that everything is told: no publication hangs, none comes twice, none is lost."""
        longest = timings.ACCEPT_SECONDS + timings.REPLY_SECONDS + 0.5
        ended = [attempt for attempt in self.attempts.values() if attempt.ended]
        assert max(attempt.ended - attempt.began for attempt in ended) < longest
        for numbers, windows in zip(self.received, self.windows, strict=True):
            assert len(set(numbers)) == len(numbers)
            assert numbers == sorted(numbers)
            missing = {n for n, each in self.attempts.items() if each.is_accepted} - set(numbers)
            for number in missing:
                attempt = self.attempts[number]
                assert any(
                    window.since <= attempt.ended and attempt.began <= window.until
                    for window in windows
                ), f"{number} is lost, and nobody is told"


async def disturb(
    fault: Callable[[Traffic], Awaitable[None]], urls: list[str], history: History | None = None
) -> Traffic:
    """Publish and receive while something fails; check what everybody notices."""
    apps = [application(url, history) for url in urls]
    traffic = Traffic(apps[0], apps[1:])
    async with AsyncExitStack() as stack:
        for app in apps[1:]:
            traffic.note_windows(app)
        for app in apps:
            await stack.enter_async_context(app.running())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for app in apps[1:]:
            client = await stack.enter_async_context(connect(app))
            await client.subscribe("com.topic")
            tasks.start_soon(traffic.receive, client)
        tasks.start_soon(traffic.publish_steadily)
        with anyio.fail_after(5):
            await traffic.full_service()
        await fault(traffic)
        with anyio.fail_after(2):
            await traffic.full_service()
        count = len(traffic.attempts)
        # Events arrive in order: when a later one has arrived, none of these is under way.
        with anyio.fail_after(10):
            await traffic.full_service()
        tasks.cancel_scope.cancel()
    traffic.attempts = {n: each for n, each in traffic.attempts.items() if n < count}
    return traffic


async def test_redis_is_killed_and_restarted(server: RedisServer) -> None:
    async def fault(_: Traffic) -> None:
        server.kill()
        await anyio.sleep(1)
        server.start()

    traffic = await disturb(fault, [server.url] * 3)
    traffic.check()
    assert all(traffic.windows)
    assert traffic.unknown <= 2
    assert not all(attempt.is_accepted for attempt in traffic.attempts.values())


async def test_publishing_waits_for_the_other_processes(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timings, "SETTLING_SECONDS", 0.6)
    monkeypatch.setattr(timings, "ACCEPT_SECONDS", 2.0)
    async with Proxy(server.port).running() as proxy:
        publisher, other = application(server.url), application(proxy.url)
        async with publisher.running(), other.running(), connect(other) as client:
            await client.subscribe("com.topic")
            proxy.block()  # the other process takes longer to connect again
            server.cli("CLIENT", "KILL", "TYPE", "pubsub")
            with anyio.fail_after(5):
                while publisher.health().is_ready:
                    await anyio.lowlevel.checkpoint()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publisher._realms["realm1"].publish, "com.topic", ["a"])
                await anyio.sleep(0.2)
                proxy.release()
            assert (await client.expect_event()).args == ("a",)


async def test_what_was_under_way_is_inside_the_window(server: RedisServer) -> None:
    async with Proxy(server.port).running() as proxy:

        async def fault(traffic: Traffic) -> None:
            proxy.delay = 0.1
            await traffic.full_service()
            backplane: Any = traffic.subscribers[0]._backplane
            probes = backplane._probes
            await backplane._changes.wait_until(lambda: backplane._probes > probes)
            proxy.cut()  # events that were published before the probe arrived aren't here yet
            proxy.delay = 0

        traffic = await disturb(fault, [server.url, proxy.url])
        traffic.check()
        assert set(traffic.attempts) - set(traffic.received[0])


async def test_redis_is_suspended(server: RedisServer) -> None:
    async def fault(_: Traffic) -> None:
        server.suspend()
        await anyio.sleep(1.2)
        server.resume()

    traffic = await disturb(fault, [server.url] * 3)
    traffic.check()


async def test_redis_is_busy(server: RedisServer) -> None:
    async def fault(_: Traffic) -> None:
        await anyio.to_thread.run_sync(server.cli, "DEBUG", "SLEEP", "1.2")

    traffic = await disturb(fault, [server.url] * 3)
    traffic.check()


async def test_redis_pauses_its_clients(server: RedisServer) -> None:
    async def fault(_: Traffic) -> None:
        server.cli("CLIENT", "PAUSE", "1200", "ALL")
        await anyio.sleep(1.2)

    traffic = await disturb(fault, [server.url] * 3)
    traffic.check()


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_connections_are_killed_again_and_again(server: RedisServer, kind: str) -> None:
    async def fault(_: Traffic) -> None:
        for _ in range(5):
            await anyio.to_thread.run_sync(server.cli, "CLIENT", "KILL", "TYPE", kind)
            await anyio.sleep(0.05)

    traffic = await disturb(fault, [server.url] * 3)
    traffic.check()
    assert all(traffic.windows) == (kind == "pubsub")


@pytest.mark.parametrize("who", ["publisher", "subscriber"])
async def test_connections_are_half_open(server: RedisServer, who: str) -> None:
    async with Proxy(server.port).running() as proxy:

        async def fault(_: Traffic) -> None:
            proxy.abandon()

        urls = [server.url] * 3
        urls[0 if who == "publisher" else 1] = proxy.url
        traffic = await disturb(fault, urls)
        traffic.check()
        assert bool(traffic.windows[0]) == (who == "subscriber")
        assert not traffic.windows[1]


async def test_the_network_is_gone_for_a_while(server: RedisServer) -> None:
    async with Proxy(server.port).running() as proxy:

        async def fault(_: Traffic) -> None:
            proxy.block()
            await anyio.sleep(1.2)
            proxy.release()

        traffic = await disturb(fault, [proxy.url] * 3)
        traffic.check()


async def test_a_subscriber_exceeds_its_output_buffer(server: RedisServer) -> None:
    server.cli("CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 0 0")
    async with Proxy(server.port).running() as proxy:

        async def fault(traffic: Traffic) -> None:
            proxy.block()
            async with anyio.create_task_group() as tasks:
                for _ in range(40):
                    tasks.start_soon(traffic.publish, "x" * 500_000)
            proxy.release()

        traffic = await disturb(fault, [server.url, proxy.url])
        traffic.check()
        assert traffic.windows[0]
    statistics = server.cli("INFO", "stats")
    assert "client_output_buffer_limit_disconnections:0" not in statistics
