"""What is measured: the same service by each framework, and bare, behind a server.

As a script, in a process of its own, this serves one of them at a listening socket it is given. It
imports nothing of this package, for it also runs where another serverwamp is installed.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import orjson

HELLO, GOODBYE, SUBSCRIBE, CALL, REGISTER, YIELD = 1, 6, 32, 48, 64, 70
WELCOME, SUBSCRIBED, EVENT, RESULT, REGISTERED, INVOCATION = 2, 33, 36, 50, 65, 68
ADD, ECHO, PUBLISH, NEWS = "bench.add", "bench.echo", "bench.publish", "bench.news"
OF_CLIENTS = "bench.of_clients."
"""What the URIs of the clients' own procedures begin with."""
NEWS_TEXT = "x" * 64
BACKLOG = 4096
WELCOME_DETAILS = {
    "realm": "realm1",
    "agent": "benchmark",
    "roles": {
        "broker": {"features": {}},
        "dealer": {"features": {"progressive_call_results": True, "call_canceling": True}},
    },
    "authid": "anonymous",
    "authrole": "anonymous",
    "authmethod": "anonymous",
}


# ---- bare: what any WebSocket application does that decodes, answers, and encodes

pack = msgpack.Packer().pack


def dump_json(message: Any) -> str:
    return orjson.dumps(message).decode()


CODECS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], str]] = {
    "wamp.2.json": (orjson.loads, dump_json, "text"),
    "wamp.2.msgpack": (msgpack.unpackb, pack, "bytes"),
}
SendFrame = Callable[[Any], Awaitable[None]]
subscribers: dict[SendFrame, Callable[[Any], Any]] = {}
callees: dict[str, tuple[SendFrame, Callable[[Any], Any]]] = {}
callers: list[tuple[SendFrame, Callable[[Any], Any], int]] = []
"""Who has called a client, at the number of the invocation."""


async def publish_bare(count: int) -> None:
    for number in range(count):
        frames: dict[Any, Any] = {}
        for send_frame, dumps in list(subscribers.items()):
            frame = frames.get(dumps)
            if frame is None:
                frame = frames[dumps] = dumps([EVENT, 1, number, {}, [NEWS_TEXT]])
            await send_frame(frame)


async def answer_rarely(message: Any, dumps: Callable[[Any], Any], send_frame: SendFrame) -> None:
    """Answer what isn't a call."""
    if message[0] == HELLO:
        await send_frame(dumps([WELCOME, 1234567890123456, WELCOME_DETAILS]))
    elif message[0] == GOODBYE:
        await send_frame(dumps([GOODBYE, {}, "wamp.close.goodbye_and_out"]))
    elif message[0] == SUBSCRIBE:
        await send_frame(dumps([SUBSCRIBED, message[1], 1]))
        subscribers[send_frame] = dumps
    elif message[0] == REGISTER:
        callees[message[3]] = send_frame, dumps
        await send_frame(dumps([REGISTERED, message[1], 1]))
    elif message[0] == YIELD:
        call_back, dumps, request = callers[message[1]]
        await call_back(dumps([RESULT, request, {}, message[3]]))


async def pass_on(message: Any, dumps: Callable[[Any], Any], send_frame: SendFrame) -> None:
    """Send a call to the client that has registered the procedure."""
    callee, dumps_there = callees[message[3]]
    callers.append((send_frame, dumps, message[1]))
    await callee(dumps_there([INVOCATION, len(callers) - 1, 1, {}, message[4]]))


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    subprotocol = scope["subprotocols"][0]
    loads, dumps, key = CODECS[subprotocol]
    await send({"type": "websocket.accept", "subprotocol": subprotocol})

    async def send_frame(frame: Any) -> None:
        await send({"type": "websocket.send", key: frame})

    try:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            message = loads(event[key])
            if message[0] != CALL:
                await answer_rarely(message, dumps, send_frame)
                continue
            _, request, _, procedure, args = message
            if procedure == ADD:
                result = args[0] + args[1]
            elif procedure.startswith(OF_CLIENTS):
                await pass_on(message, dumps, send_frame)
                continue
            else:
                result = args[0]
                if procedure == PUBLISH:
                    await publish_bare(result)
            await send({"type": "websocket.send", key: dumps([RESULT, request, {}, [result]])})
    finally:
        subscribers.pop(send_frame, None)


async def bare_on_aiohttp(request: Any) -> Any:
    from aiohttp import web

    response = web.WebSocketResponse(protocols=tuple(CODECS), heartbeat=20.0)
    await response.prepare(request)
    loads, dumps, key = CODECS[response.ws_protocol or "wamp.2.json"]
    send_frame = response.send_str if key == "text" else response.send_bytes
    try:
        async for event in response:
            message = loads(event.data)
            if message[0] != CALL:
                await answer_rarely(message, dumps, send_frame)
                continue
            _, request_id, _, procedure, args = message
            if procedure == ADD:
                result = args[0] + args[1]
            else:
                result = args[0]
                if procedure == PUBLISH:
                    await publish_bare(result)
            await send_frame(dumps([RESULT, request_id, {}, [result]]))
    finally:
        subscribers.pop(send_frame, None)
    return response


# ---- the frameworks


def ours() -> Any:
    import serverwamp

    # A single client shall show what the server can do, and not what it is allowed.
    limits = serverwamp.Limits(calls_in_flight=10_000, message_rate=math.inf)
    app = serverwamp.Application(limits=limits)
    app.client_register(OF_CLIENTS, match="prefix")

    @app.route(ADD)
    async def add(a: int, b: int) -> int:
        return a + b

    @app.route(ECHO)
    async def echo(text: str) -> str:
        return text

    @app.route(PUBLISH)
    async def publish(count: int) -> int:
        for _ in range(count):
            await app.publish(NEWS, [NEWS_TEXT])
        return count

    @app.topic(NEWS)
    async def news() -> Any:
        yield

    return app


def published() -> Any:
    """The same by serverwamp 2.0.0."""
    import serverwamp

    procedures, topics = serverwamp.RPCRouteSet(), serverwamp.TopicRouteSet()
    sessions: Any = set()

    @procedures.route(ADD)
    async def add(a: int, b: int) -> int:
        return a + b

    @procedures.route(PUBLISH)
    async def publish(count: int) -> int:
        for _ in range(count):
            for session in list(sessions):
                await session.send_event(NEWS, args=(NEWS_TEXT,))
        return count

    @topics.route(NEWS)
    async def news(session: Any) -> Any:
        sessions.add(session)
        yield
        sessions.discard(session)

    app = serverwamp.Application()
    app.add_rpc_routes(procedures)
    app.add_topic_routes(topics)
    return app.asgi_application()


def headless() -> Any:
    """The same by fastapi-headless-wamp."""
    from fastapi import FastAPI
    from fastapi_headless_wamp import WampHub, WampSession

    hub, app = WampHub(realm="realm1"), FastAPI()

    @hub.register(ADD)
    async def add(session: WampSession, a: int, b: int) -> int:
        return a + b

    @hub.register(PUBLISH)
    async def publish(session: WampSession, count: int) -> int:
        for _ in range(count):
            await hub.publish_to_all(NEWS, [NEWS_TEXT])
        return count

    app.include_router(hub.get_router(path="/"))
    return app


def socket_io() -> Any:
    """The same by python-socketio."""
    import socketio

    # The load's clients don't know its pings.
    server = socketio.AsyncServer(async_mode="asgi", json=orjson_for_socketio, ping_interval=3600)

    @server.on(ADD)
    async def add(sid: str, a: int, b: int) -> int:
        return a + b

    @server.on("subscribe")
    async def subscribe(sid: str, topic: str) -> None:
        await server.enter_room(sid, topic)

    @server.on(PUBLISH)
    async def publish(sid: str, count: int) -> int:
        for _ in range(count):
            await server.emit(NEWS, NEWS_TEXT, room=NEWS)
        return count

    return socketio.ASGIApp(server)


class orjson_for_socketio:
    """orjson as python-socketio takes it: like the module of the standard library."""

    loads = staticmethod(orjson.loads)

    @staticmethod
    def dumps(value: Any, **options: Any) -> str:
        return dump_json(value)


def run_crossbar(listener: socket.socket) -> None:
    """Run a Crossbar node with one worker at the port of `listener`, which it opens itself."""
    port = listener.getsockname()[1]
    listener.close()
    permissions = dict.fromkeys(("call", "register", "publish", "subscribe"), True)
    role = {
        "name": "anonymous",
        "permissions": [{"uri": "", "match": "prefix", "allow": permissions}],
    }
    worker = {
        "type": "router",
        "realms": [{"name": "realm1", "roles": [role]}],
        "transports": [
            {
                "type": "websocket",
                "endpoint": {"type": "tcp", "port": port, "interface": "127.0.0.1"},
                "serializers": ["json", "msgpack"],
                "auth": {"anonymous": {"type": "static", "role": "anonymous"}},
            }
        ],
    }
    with tempfile.TemporaryDirectory() as directory:
        node = {"version": 2, "controller": {}, "workers": [worker]}
        Path(directory, "config.json").write_bytes(orjson.dumps(node))
        program = str(Path(sys.executable).with_name("crossbar"))
        subprocess.run([program, "start", f"--cbdir={directory}", "--loglevel=error"], check=True)


# ---- the servers


def run_uvicorn(app: Any, listener: socket.socket) -> None:
    import uvicorn

    listener.listen(BACKLOG)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        lifespan="off",
        log_level="error",
        backlog=BACKLOG,
    )
    uvicorn.Server(config).run(sockets=[listener])


def run_aiohttp(handler: Any, listener: socket.socket) -> None:
    import uvloop
    from aiohttp import web

    listener.listen(BACKLOG)

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await asyncio.Event().wait()

    uvloop.run(serve())


def run_hypercorn_trio(app: Any, listener: socket.socket) -> None:
    import hypercorn.trio
    import trio
    from hypercorn.config import Config, Sockets

    listener.listen(BACKLOG)
    config = Config()
    config.create_sockets = lambda: Sockets([], [listener], [])  # type: ignore[method-assign]
    config.errorlog = config.accesslog = None
    trio.run(hypercorn.trio.serve, app, config)


SERVICES: dict[str, Callable[[socket.socket], None]] = {
    "bare": lambda listener: run_uvicorn(bare, listener),
    "serverwamp": lambda listener: run_uvicorn(ours(), listener),
    "serverwamp, before": lambda listener: run_uvicorn(ours(), listener),
    "serverwamp, batched": lambda listener: run_uvicorn(ours(), listener),
    "bare, aiohttp": lambda listener: run_aiohttp(bare_on_aiohttp, listener),
    "serverwamp, aiohttp": lambda listener: run_aiohttp(
        ours().aiohttp_websocket_handler(), listener
    ),
    "serverwamp, hypercorn, trio": lambda listener: run_hypercorn_trio(ours(), listener),
    "serverwamp 2.0.0": lambda listener: run_uvicorn(published(), listener),
    "fastapi-headless-wamp": lambda listener: run_uvicorn(headless(), listener),
    "python-socketio": lambda listener: run_uvicorn(socket_io(), listener),
    "crossbar": run_crossbar,
}


def end_with_parent() -> None:
    """End this process and its children when standard input ends: who started it is gone."""
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def main(services: Mapping[str, Callable[[socket.socket], None]]) -> None:
    """Serve what the command line says: a name, a listening socket, and a core."""
    name, descriptor, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    threading.Thread(target=end_with_parent, daemon=True).start()
    services[name](socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    main(SERVICES)
