"""An application behind a real server, and the test client over a real socket, on both backends."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import hypercorn.config
import hypercorn.trio
import trio
import uvicorn
from aiohttp import web
from anyio.abc import SocketAttribute
from hypercorn.config import Sockets
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)

from serverwamp import Application
from serverwamp.testing import Client, HandshakeRefused

SECONDS = 10.0


@asynccontextmanager
async def serve(app: Any) -> AsyncIterator[int]:
    """Serve `app` at the port that this gives: by uvicorn on asyncio, by hypercorn on trio."""
    listener = socket.create_server(("127.0.0.1", 0))  # connections queue until the server is up
    port = listener.getsockname()[1]
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        if trio.lowlevel.in_trio_run():
            config = hypercorn.config.Config()
            # hypercorn would leave a socket that it makes itself open
            config.create_sockets = lambda: Sockets([], [listener], [])  # type: ignore[method-assign]
            config.errorlog = config.accesslog = None
            stop = anyio.Event()

            async def run() -> None:
                await hypercorn.trio.serve(app, config, shutdown_trigger=stop.wait)

            end = stop.set
        else:
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))

            async def run() -> None:
                await server.serve(sockets=[listener])

            def end() -> None:
                server.should_exit = True

        tasks.start_soon(run)
        try:
            yield port
        except Exception as error:
            failure = error
        end()
    listener.close()
    if failure is not None:
        raise failure


@asynccontextmanager
async def serve_aiohttp(app: Application, path: str | None = None) -> AsyncIterator[int]:
    """Serve `app` by aiohttp: at a TCP port, which this gives, or at a Unix socket."""
    served = web.Application()
    served.router.add_route("*", "/{path:.*}", app.aiohttp_websocket_handler())
    runner = web.AppRunner(served, shutdown_timeout=1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    site: Any = web.UnixSite(runner, path) if path else web.SockSite(runner, listener)
    await site.start()
    try:
        yield port
    finally:
        await runner.cleanup()
        listener.close()


@asynccontextmanager
async def connect_socket(
    port: int,
    realm: str | None = "realm1",
    *,
    path: str = "/",
    subprotocol: str = "wamp.2.json",
    headers: Mapping[str, str] | None = None,
    resets: bool = False,
    **login: Any,
) -> AsyncIterator[Client]:
    """Connect the test client to a server's port, and join `realm` unless that is None.

    With `resets` it doesn't close its connection in the end, but resets it.
    """
    protocol = WSConnection(ConnectionType.CLIENT)
    failure: BaseException | None = None
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        if resets:
            raw = stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request = Request(
            host=f"127.0.0.1:{port}",
            target=path,
            subprotocols=[subprotocol],
            extra_headers=[(n.encode(), v.encode()) for n, v in (headers or {}).items()],
        )
        await stream.send(protocol.send(request))
        answer = None
        with anyio.fail_after(SECONDS):
            while answer is None:
                protocol.receive_data(await stream.receive())
                answer = next(
                    (
                        event
                        for event in protocol.events()
                        if isinstance(event, (AcceptConnection, RejectConnection))
                    ),
                    None,
                )
        if not isinstance(answer, AcceptConnection):
            raise HandshakeRefused(answer.status_code)
        from_client, to_socket = anyio.create_memory_object_stream[Any](64)
        from_socket, to_client = anyio.create_memory_object_stream[Any](64)
        client = Client(subprotocol, from_client, to_client, SECONDS)
        writing = anyio.Lock()

        async def put(event: Event) -> None:
            async with writing:  # both tasks below write
                await stream.send(protocol.send(event))

        async def write() -> None:
            async for event in to_socket:
                if event["type"] == "websocket.disconnect":
                    await stream.aclose()
                elif "text" in event:
                    await put(TextMessage(event["text"]))
                else:
                    await put(BytesMessage(event["bytes"]))

        async def read() -> None:
            parts: list[Any] = []
            try:
                while True:
                    for event in protocol.events():
                        if isinstance(event, (TextMessage, BytesMessage)):
                            parts.append(event.data)
                            if event.message_finished:
                                whole = type(event.data)().join(parts)
                                parts.clear()
                                key = "text" if isinstance(whole, str) else "bytes"
                                client.feed({"type": "websocket.send", key: whole})
                        elif isinstance(event, Ping):
                            await put(event.response())
                        elif isinstance(event, CloseConnection):
                            client.feed({"type": "websocket.close", "code": event.code})
                            await put(event.response())
                    protocol.receive_data(await stream.receive())
            except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
                client.feed_end()

        async with from_client, to_socket, from_socket, to_client, anyio.create_task_group() as t:
            t.start_soon(write)
            t.start_soon(read)
            try:
                if realm is not None:
                    await client.join(realm, **login)
                yield client
            except Exception as error:
                failure = error
            t.cancel_scope.cancel()
    if failure is not None:
        raise failure
