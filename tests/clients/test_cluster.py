"""Clients in different languages, each connected to another process of one realm."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from autobahn.wamp.types import SubscribeOptions

from tests.commands import started
from tests.redis_servers import redis_server

from .test_autobahn_python import Connector, soon

PROGRAM = Path(__file__).parent / "javascript" / "cluster.js"
SERVICE = """
import serverwamp
from serverwamp.backplanes import RedisBackplane

wamp = serverwamp.Application(backplane=RedisBackplane({url!r}))

@wamp.prefix_topic("com.news", client_publish=True, history=serverwamp.History(events=100))
async def news():
    yield
"""

pytestmark = [pytest.mark.node, pytest.mark.process]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_events_in_order_without_those_of_the_publisher(node: str, tmp_path: Path) -> None:
    events: asyncio.Queue[Any] = asyncio.Queue()
    with redis_server() as redis, ExitStack() as stack:
        (tmp_path / "service.py").write_text(SERVICE.format(url=redis.url))
        command = ("uvicorn", "service:wamp", "--port", "0")
        servers = [stack.enter_context(started(*command, directory=tmp_path)) for _ in range(3)]
        urls = [f"ws://127.0.0.1:{server.port}/" for server in servers]
        async with AsyncExitStack() as clients:
            connector = Connector(urls[0], "cbor")
            client = await clients.enter_async_context(connector.join("realm1"))
            subscription = await soon(
                client.subscribe(events.put_nowait, "com.news", SubscribeOptions(match="prefix"))
            )
            pipe = asyncio.subprocess.PIPE
            peer = await asyncio.create_subprocess_exec(
                node, str(PROGRAM), *urls[1:], stdin=pipe, stdout=pipe
            )
            assert peer.stdin is not None
            assert peer.stdout is not None
            try:
                assert await soon(peer.stdout.readline()) == b"ready\n"
                peer.stdin.write(b"publish\n")
                assert await soon(peer.stdout.readline()) == b"published\n"
                received = [await soon(events.get()) for _ in range(6)]
                past = await soon(client.call("wamp.subscription.get_events", subscription.id))
                peer.stdin.close()
                lines = await soon(peer.stdout.readline())
            finally:
                if peer.returncode is None:
                    peer.kill()
                await peer.wait()
    of_autobahn, of_wampy = [[f"{index}.{number}" for number in (1, 2, 3)] for index in (0, 1)]
    assert received == of_autobahn + of_wampy
    assert [event["args"][0] for event in past.results[0]] == received
    assert past.kwresults["complete"]
    assert json.loads(lines) == [of_wampy, of_autobahn]
