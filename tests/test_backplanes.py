"""One realm over several processes: what every backplane has to do, and Redis in particular."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import anyio
import pytest

from serverwamp import Application, Realm, WAMPError
from serverwamp.backplanes import RedisBackplane
from serverwamp.errors import BackplaneUnavailable
from serverwamp.testing import Client, connect


async def anybody() -> AsyncIterator[None]:
    yield


@contextmanager
def redis_server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    if shutil.which("redis-server") is None:
        assert "CI" not in os.environ
        pytest.skip("redis-server isn't installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        give_up_at = time.monotonic() + 10
        while time.monotonic() < give_up_at:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield process, f"redis://127.0.0.1:{port}"
        process.kill()


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as (_, url):
        yield url


def application(url: str) -> Application:
    app = Application(backplane=RedisBackplane(url))
    realm = Realm("realm1")
    realm.prefix_topic("", client_publish=True)(anybody)
    app.add_realm(realm)
    return app


@asynccontextmanager
async def processes(url: str, count: int = 2) -> AsyncIterator[list[Client]]:
    """Have a client at each of several applications that share a realm."""
    async with AsyncExitStack() as stack:
        apps = [application(url) for _ in range(count)]
        for app in apps:
            await stack.enter_async_context(app.running())
        yield [await stack.enter_async_context(connect(app)) for app in apps]


async def test_events_reach_other_processes(redis: str) -> None:
    async with processes(redis, 3) as (one, two, three):
        await one.subscribe("com.topic")
        await two.subscribe("com.", match="prefix")
        await one.publish("com.topic", ["a"], acknowledge=True)
        await three.publish("com.topic", ["b"], {"key": b"\x00"}, acknowledge=True)
        await three.publish("com.other", ["c"], acknowledge=True)
        assert (await two.expect_event()).args == ("a",)
        for client in (one, two):
            event = await client.expect_event()
            assert (event.args, event.kwargs) == (("b",), {"key": b"\x00"})
        assert (await two.expect_event()).args == ("c",)
        await one.expect_nothing()


async def test_one_order_in_all_processes(redis: str) -> None:
    async with processes(redis, 3) as clients:
        for client in clients:
            await client.subscribe("com.topic")

        async def publish(client: Client, number: int) -> None:
            for index in range(20):
                options = {"exclude_me": False, "acknowledge": True}
                await client.publish("com.topic", [number, index], **options)

        async with anyio.create_task_group() as tasks:
            for number, client in enumerate(clients):
                tasks.start_soon(publish, client, number)
        received = [[(await client.expect_event()).args for _ in range(60)] for client in clients]
        assert received[0] == received[1] == received[2]
        for number in range(3):
            assert [index for n, index in received[0] if n == number] == list(range(20))


async def test_audience_and_disclosure_travel(redis: str) -> None:
    async with processes(redis, 2) as (one, two):
        await one.subscribe("com.topic")
        await two.subscribe("com.topic")
        await two.publish("com.topic", ["for one"], eligible=[one.session], acknowledge=True)
        await two.publish("com.topic", ["not for one"], exclude=[one.session], exclude_me=False)
        await two.publish("com.topic", ["disclosed"], disclose_me=True, exclude_me=False)
        assert (await one.expect_event()).args == ("for one",)
        event = await one.expect_event()
        assert (event.args, event.details["publisher"]) == (("disclosed",), two.session)
        assert (await two.expect_event()).args == ("not for one",)
        assert (await two.expect_event()).args == ("disclosed",)


async def test_a_lost_connection_is_replaced(redis: str) -> None:
    async with processes(redis, 2) as (one, two):
        await one.subscribe("com.topic")
        kill_connections(redis, "pubsub")
        with anyio.fail_after(10):
            number = 0
            while True:
                number += 1
                await two.publish("com.topic", [number], acknowledge=True)
                with anyio.move_on_after(0.5):
                    await one.expect_event()
                    break
        await two.publish("com.topic", ["after"], acknowledge=True)
        assert (await one.expect_event()).args == ("after",)


async def test_no_redis_is_an_error_at_the_start() -> None:
    app = Application(backplane=RedisBackplane("redis://127.0.0.1:1", start_timeout=0.3))
    with pytest.raises(BackplaneUnavailable):
        async with app.running():
            pass


async def test_a_redis_that_is_gone_is_an_error_for_publishers() -> None:
    with redis_server() as (process, url):
        async with processes(url, 1) as (client,):
            await client.publish("com.topic", acknowledge=True)
            process.kill()
            process.wait(10)
            began = anyio.current_time()
            for _ in range(2):
                with pytest.raises(WAMPError) as failure:
                    await client.publish("com.topic", acknowledge=True)
                assert failure.value.uri == "wamp.error.unavailable"
            assert anyio.current_time() - began < 2 * 3.6


def kill_connections(url: str, kind: str) -> None:
    port = url.rpartition(":")[2]
    subprocess.run(["redis-cli", "-p", port, "CLIENT", "KILL", "TYPE", kind], check=True)
