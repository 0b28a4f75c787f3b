"""Autobahn|Python under fire: it drops and comes back while events flow, and catches up.

What it does then is what the guide tells it to: the reader of ``docs/history.rst`` itself.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from autobahn.wamp.exception import ApplicationError, TransportLost

from serverwamp.backplanes import Publisher
from tests.commands import Server, started
from tests.redis_servers import redis_server
from tests.test_docs import blocks_of

from .test_autobahn_python import Connector, soon

HISTORY = Path(__file__).parents[2] / "docs" / "history.rst"
TOPIC = "test.log.fire"
EVENTS = 300
SUBSCRIBERS = 3


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def reader_of_the_guide() -> Any:
    """Return the class that the guide shows."""
    namespace: dict[str, Any] = {}
    (code,) = (block.code for block in blocks_of(HISTORY) if block.file_name == "reader.py")
    exec(code, namespace)
    return namespace["Reader"]


class Subscriber:
    """Reads every event, over many connections."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.numbers: list[int] = []
        self.gaps: set[int] = set()
        """Behind how many numbers something may be gone: where the reader says so."""
        self.catches = 0
        self._reader = reader_of_the_guide()(TOPIC, self._receive)
        self._received = asyncio.Event()

    def _receive(self, number: int) -> None:
        self.numbers.append(number)
        self._received.set()

    @property
    def is_done(self) -> bool:
        return self.numbers[-1:] == [EVENTS - 1]

    async def read_all(self, connector: Connector) -> None:
        while not self.is_done:
            await asyncio.sleep(self.random.choice((0, 0, 0.02, 0.3)))
            async with connector.join() as client:
                known = len(self.numbers)
                self.catches += 1
                if not await self._reader.follow(client):
                    self.gaps.add(known)
                wanted = len(self.numbers) + self.random.choice((0, 1, 30))
                while len(self.numbers) < wanted and not self.is_done:
                    self._received.clear()
                    await self._received.wait()
                if self.random.random() < 0.5:
                    client.transport.abort()
                    await soon(client.closed)

    def check(self) -> None:
        before = -1
        for index, number in enumerate(self.numbers):
            assert number > before, "it came twice"
            assert number == before + 1 or index in self.gaps, "a gap of which nobody was told"
            before = number


async def publish_all(connector: Connector, random: Random) -> None:
    async with connector.join() as client:
        for number in range(EVENTS):
            await client.call("test.publish", TOPIC, number)
            if random.random() < 0.1:
                await asyncio.sleep(random.choice((0, 0.02)))


@pytest.mark.spec("HIS-01", "HIS-02")
async def test_subscribers_that_drop_and_come_back(server: str) -> None:
    connector = Connector(server, "json")
    subscribers = [Subscriber(Random(seed)) for seed in range(SUBSCRIBERS)]
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(publish_all(connector, Random("events")))
        for subscriber in subscribers:
            tasks.create_task(subscriber.read_all(connector))
    for subscriber in subscribers:
        subscriber.check()
    assert sum(subscriber.catches for subscriber in subscribers) > 2 * SUBSCRIBERS


# ---- several processes

SERVICE = """
import serverwamp
from serverwamp.backplanes import RedisBackplane

wamp = serverwamp.Application(backplane=RedisBackplane({url!r}))

@wamp.topic({topic!r}, history=serverwamp.History(events={events}))
async def topic():
    yield
"""
UVICORN = ("uvicorn", "service:wamp", "--host", "127.0.0.1", "--port", "0")


class Traveller(Subscriber):
    """Comes back to any process that is there, as often as its own is killed."""

    async def travel(self, connectors: list[Connector]) -> None:
        while not self.is_done:
            with suppress(OSError, TimeoutError, TransportLost, ApplicationError):
                async with asyncio.timeout(5):
                    await self._visit(self.random.choice(connectors))

    async def _visit(self, connector: Connector) -> None:
        async with connector.join() as client:
            known = len(self.numbers)
            self.catches += 1
            if not await self._reader.follow(client):
                self.gaps.add(known)
            while not self.is_done and not client.closed.done() and self.random.random() > 0.02:
                self._received.clear()
                async with asyncio.timeout(1):
                    await self._received.wait()


@pytest.mark.process
@pytest.mark.spec("HIS-01", "HIS-02")
async def test_subscribers_that_come_back_to_another_process(tmp_path: Path) -> None:
    """One process after the other is killed and replaced while events flow."""
    with redis_server() as redis, ExitStack() as stack:
        service = SERVICE.format(url=redis.url, topic=TOPIC, events=EVENTS)
        (tmp_path / "service.py").write_text(service)

        def start() -> tuple[Server, Connector]:
            server = stack.enter_context(started(*UVICORN, directory=tmp_path))
            return server, Connector(f"ws://127.0.0.1:{server.port}/", "json")

        servers = [start(), start()]
        connectors = [connector for _, connector in servers]
        travellers = [Traveller(Random(seed)) for seed in range(5)]
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for traveller in travellers:
                tasks.create_task(traveller.travel(connectors))
            async with Publisher(redis.url) as publisher:
                for number in range(EVENTS):
                    if number in (EVENTS // 3, 2 * EVENTS // 3):
                        victim = number // (EVENTS // 3) - 1
                        servers[victim][0].send(signal.SIGKILL, to_all=True)
                        servers[victim] = await asyncio.to_thread(start)
                        connectors[victim] = servers[victim][1]
                    await publisher.publish(TOPIC, [number])
                    await asyncio.sleep(0.002)
        for traveller in travellers:
            assert traveller.numbers == list(range(EVENTS))
            assert not traveller.gaps
            assert traveller.catches > 1
