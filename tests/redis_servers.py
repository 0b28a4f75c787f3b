"""Redis servers for tests, applications that share one, and a proxy that stands between them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
import anyio.abc
import pytest

from serverwamp import Application, History, Realm
from serverwamp.backplanes import RedisBackplane
from serverwamp.concurrency.changes import Changes
from serverwamp.testing import Client, connect
from tests.helpers import free_port

START_SECONDS = 10.0


class RedisServer:
    """A redis-server as a process, which can be killed, restarted and suspended."""

    def __init__(self, *options: str) -> None:
        if shutil.which("redis-server") is None:
            assert "CI" not in os.environ
            pytest.skip("redis-server isn't installed")
        self.port = free_port()
        self.options = options
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", *self.options, "--port", str(self.port), "--save", ""]
        command += ["--bind", "127.0.0.1", "--enable-debug-command", "yes"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        give_up_at = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up_at:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError("redis-server doesn't start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_SECONDS)
            self._process = None

    def suspend(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def cli(self, *words: str, login: Sequence[str] = ()) -> str:
        command = ["redis-cli", "-p", str(self.port), *login, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    server = RedisServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def anybody() -> AsyncIterator[None]:
    yield


def application(url: str, history: History | None = None, **options: Any) -> Application:
    app = Application(backplane=RedisBackplane(url, **options))
    realm = Realm("realm1")
    realm.prefix_topic("", client_publish=True, history=history)(anybody)
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


class Proxy:
    """A TCP proxy. It can stop forwarding while its connections stay open."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._flows = anyio.Event()
        self._flows.set()
        self._generation = 0
        self.url = ""
        self.delay = 0.0
        """How many seconds what is sent is under way."""
        self._scopes: set[anyio.CancelScope] = set()
        self.connections = 0
        self.changes = Changes()

    def block(self) -> None:
        """Stop forwarding. Existing connections and new ones hang until `release`."""
        self._flows = anyio.Event()

    def release(self) -> None:
        self._flows.set()

    def abandon(self) -> None:
        """Let the existing connections hang for ever; new ones work."""
        self._generation += 1

    def cut(self) -> None:
        """Close all connections. What is under way is lost."""
        for scope in self._scopes:
            scope.cancel()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        self.url = f"redis://127.0.0.1:{port}"
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._serve)
            yield self
            tasks.cancel_scope.cancel()

    async def _serve(self, client: anyio.abc.SocketStream) -> None:
        self.connections += 1
        self.changes.notify()
        async with client, await anyio.connect_tcp("127.0.0.1", self._target) as server:
            async with anyio.create_task_group() as tasks:
                self._scopes.add(tasks.cancel_scope)
                for source, sink in ((client, server), (server, client)):
                    tasks.start_soon(self._forward, source, sink, tasks.cancel_scope)

    async def _forward(
        self,
        source: anyio.abc.SocketStream,
        sink: anyio.abc.SocketStream,
        scope: anyio.CancelScope,
    ) -> None:
        generation = self._generation
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                data = await source.receive()
                await anyio.sleep(self.delay)
                await self._flows.wait()
                if generation != self._generation:
                    await anyio.sleep_forever()
                await sink.send(data)
        scope.cancel()
