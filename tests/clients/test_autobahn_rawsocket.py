"""Autobahn|Python over RawSocket, to an application in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import txaio
from autobahn.asyncio.rawsocket import WampRawSocketClientFactory
from autobahn.exception import PayloadExceededError
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer

from serverwamp import Application
from tests.clients.test_autobahn_python import TIMEOUT, Client

SERIALIZERS = {"json": JsonSerializer, "msgpack": MsgPackSerializer, "cbor": CBORSerializer}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def application() -> Application:
    app = Application()

    @app.route("math.add")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.route("text")
    async def text(length: int) -> str:
        return "x" * length

    @app.topic("news")
    async def news() -> AsyncIterator[None]:
        yield

    return app


@pytest.mark.spec("RAW-01", "RAW-02", "RAW-05", "RAW-09", "RAW-13", "RAW-15", "T-24", "SER-05")
@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("name", SERIALIZERS)
async def test_a_session(name: str, transport: str, tmp_path: Path) -> None:
    app = application()
    path = tmp_path / "socket"
    where: dict[str, Any] = {"port": 0} if transport == "tcp" else {"path": path}
    loop = asyncio.get_running_loop()
    txaio.config.loop = loop
    client = Client("realm1", None, None, None)
    factory = WampRawSocketClientFactory(lambda: client, serializer=SERIALIZERS[name]())
    factory.setProtocolOptions(maxMessagePayloadSize=2**20)
    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as tasks:
            address = await tasks.start(partial(app.serve_rawsocket, **where))
            if transport == "tcp":
                await loop.create_connection(factory, "127.0.0.1", address)
            else:
                await loop.create_unix_connection(factory, str(path))
            await client.welcome
            assert await client.call("math.add", 2, 3) == 5
            assert await client.call("text", 500_000) == "x" * 500_000
            with pytest.raises(PayloadExceededError):
                await client.call("text", 2**20)
            heard: asyncio.Future[Any] = loop.create_future()
            await client.subscribe(heard.set_result, "news")
            await app.publish("news", [b"\0\1\2"])
            assert await heard == b"\0\1\2"
            tasks.start_soon(app.close_sessions)
            assert (await client.goodbye).reason == "wamp.close.system_shutdown"
            await client.closed
            tasks.cancel_scope.cancel()
    assert client.mishaps == []
