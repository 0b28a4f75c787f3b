"""One realm over several processes: what every backplane has to do, and Redis in particular."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from serverwamp import Application
from serverwamp.backplanes import RedisBackplane
from serverwamp.errors import BackplaneUnavailable
from serverwamp.testing import Client
from tests.redis_servers import processes, redis_server


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


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


async def test_no_redis_is_an_error_at_the_start() -> None:
    app = Application(backplane=RedisBackplane("redis://127.0.0.1:1", start_timeout=0.3))
    with pytest.raises(BackplaneUnavailable):
        async with app.running():
            pass
