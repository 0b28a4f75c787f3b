"""Faults of Redis and of the network, for topics with a history: nothing accepted is missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest

from serverwamp import History
from serverwamp.backplanes import timings
from tests.redis_servers import Proxy, RedisServer, redis_server
from tests.test_backplane_faults import FASTER, TIMES, Traffic, disturb

FAULT_SECONDS = 1.2

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TIMES:
        monkeypatch.setattr(timings, name, getattr(timings, name) / FASTER)
    monkeypatch.setattr(timings, "BACK_OFF", (0.02, 0.1))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def check(
    server: RedisServer, fault: Callable[[Traffic], Awaitable[None]], urls: list[str]
) -> Traffic:
    server.cli("FLUSHALL")
    traffic = await disturb(fault, urls, History())
    traffic.check()
    accepted = {n for n, attempt in traffic.attempts.items() if attempt.is_accepted}
    for numbers, windows in zip(traffic.received, traffic.windows, strict=True):
        assert accepted <= set(numbers)
        assert not windows
    return traffic


async def test_redis_is_suspended(server: RedisServer) -> None:
    async def fault(_: Traffic) -> None:
        server.suspend()
        await anyio.sleep(FAULT_SECONDS)
        server.resume()

    await check(server, fault, [server.url] * 3)


async def test_redis_is_busy(server: RedisServer) -> None:
    async def fault(_: Traffic) -> None:
        await anyio.to_thread.run_sync(server.cli, "DEBUG", "SLEEP", str(FAULT_SECONDS))

    await check(server, fault, [server.url] * 3)


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_connections_are_killed_again_and_again(server: RedisServer, kind: str) -> None:
    async def fault(_: Traffic) -> None:
        for _ in range(5):
            await anyio.to_thread.run_sync(server.cli, "CLIENT", "KILL", "TYPE", kind)
            await anyio.sleep(0.05)

    traffic = await check(server, fault, [server.url] * 3)
    assert all(attempt.is_accepted for attempt in traffic.attempts.values())
    assert traffic.unknown == 0


@pytest.mark.parametrize("who", ["publisher", "subscriber"])
async def test_connections_are_half_open(server: RedisServer, who: str) -> None:
    async with Proxy(server.port).running() as proxy:

        async def fault(_: Traffic) -> None:
            proxy.abandon()

        urls = [server.url] * 3
        urls[0 if who == "publisher" else 1] = proxy.url
        await check(server, fault, urls)


async def test_the_network_is_gone_for_a_while(server: RedisServer) -> None:
    async with Proxy(server.port).running() as proxy:

        async def fault(_: Traffic) -> None:
            proxy.block()
            await anyio.sleep(FAULT_SECONDS)
            proxy.release()

        await check(server, fault, [proxy.url] * 3)
