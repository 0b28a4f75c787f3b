"""Two servers that are killed and restarted, while clients follow a topic with a history."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from wsproto.utilities import LocalProtocolError

from serverwamp import Application, History, WAMPError
from serverwamp.backplanes import RedisBackplane
from serverwamp.testing import ExpectationFailed, HandshakeRefused
from tests.commands import Server, started
from tests.helpers import free_ports
from tests.redis_servers import anybody, redis_server
from tests.sockets import connect_socket

SERVICE = """
import serverwamp
from serverwamp.backplanes import RedisBackplane

wamp = serverwamp.Application(backplane=RedisBackplane({url!r}))

@wamp.topic("com.topic", history=serverwamp.History(events=10_000))
async def topic():
    yield
"""
CLIENTS = 50
TOPIC = "com.topic"
LOST_CONNECTION = (
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    ExpectationFailed,
    HandshakeRefused,
    LocalProtocolError,
    WAMPError,  # a server that is stopping has said goodbye, or refuses requests
)


def application(url: str) -> Application:
    app = Application(backplane=RedisBackplane(url))
    app.topic(TOPIC, history=History(events=10_000))(anybody)
    return app


class Follower:
    """A client that connects to the other server when it loses its connection, and catches up."""

    def __init__(self, number: int, ports: list[int]) -> None:
        self.attempts = number
        self.ports = ports
        self.numbers: list[int] = []
        self.gaps = 0
        self.connections = 0
        self._last: int | None = None

    async def follow(self, is_last: Callable[[int], bool], connected: Callable[[], None]) -> None:
        while not (self.numbers and is_last(self.numbers[-1])):
            self.attempts += 1
            port = self.ports[self.attempts % len(self.ports)]
            try:
                await self._follow_at(port, is_last, connected)
            except* LOST_CONNECTION:
                pass
            await anyio.sleep(0.02)  # what a real client waits before it tries again

    async def _follow_at(
        self, port: int, is_last: Callable[[int], bool], connected: Callable[[], None]
    ) -> None:
        async with connect_socket(port) as client:
            subscription = await client.subscribe(TOPIC)
            since = {} if self._last is None else {"after_publication": self._last}
            past = await client.catch_up(subscription, **since)
            self.gaps += not past.complete
            for event in past.events:
                self._note(event.args[0], event.publication)
            self.connections += 1
            connected()
            while not (self.numbers and is_last(self.numbers[-1])):
                event = await client.expect_event(subscription)
                self._note(event.args[0], event.publication)

    def _note(self, number: int, publication: int) -> None:
        self.numbers.append(number)
        self._last = publication


@pytest.mark.process
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_clients_follow_a_topic_while_servers_are_killed_and_restarted(
    tmp_path: Path,
) -> None:
    ports = list(free_ports(2))
    last: list[int] = []
    everybody_is_here = anyio.Event()

    def connected() -> None:
        if all(follower.connections for follower in followers):
            everybody_is_here.set()

    def is_last(number: int) -> bool:
        return number in last

    followers = [Follower(number, ports) for number in range(CLIENTS)]
    with redis_server() as redis, ExitStack() as stack:
        (tmp_path / "service.py").write_text(SERVICE.format(url=redis.url))

        def start(port: int) -> Server:
            command = ("uvicorn", "service:wamp", "--port", str(port))
            options = ("--timeout-graceful-shutdown", "1")
            return stack.enter_context(started(*command, *options, directory=tmp_path))

        async def replace(server: Server, number: int) -> Server:
            server.send(number)
            await anyio.to_thread.run_sync(server.wait)
            return await anyio.to_thread.run_sync(start, server.port)

        servers = [start(port) for port in ports]
        app = application(redis.url)
        published = 0

        async def publish(scope: anyio.CancelScope) -> None:
            nonlocal published
            while not scope.cancel_called:
                await app.publish(TOPIC, [published])
                published += 1
                await anyio.sleep(0.01)

        with anyio.fail_after(20):
            async with app.running(), anyio.create_task_group() as tasks:
                for follower in followers:
                    tasks.start_soon(follower.follow, is_last, connected)
                await everybody_is_here.wait()
                publishing = anyio.CancelScope()
                async with anyio.create_task_group() as publisher:
                    publisher.start_soon(publish, publishing)
                    for index, number in enumerate((signal.SIGTERM, signal.SIGKILL)):
                        servers[index] = await replace(servers[index], number)
                    publishing.cancel()
                last.append(published)
                await app.publish(TOPIC, [published])
        for server in servers:
            server.send(signal.SIGTERM)
            server.wait()
    for follower in followers:
        assert follower.gaps == 0
        assert follower.numbers == [*range(published + 1)]
    assert sum(follower.connections for follower in followers) > 2 * CLIENTS
