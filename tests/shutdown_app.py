"""What test_shutdown.py has served, and the programs that serve it: ``tests.shutdown_app NAME``."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import anycorn
import anyio
import hypercorn.asyncio
import hypercorn.trio
from aiohttp import web
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from serverwamp import Application, Limits

GRACE = 0.6


def make_app(**arguments: Any) -> Application:
    app = Application(limits=Limits(goodbye_timeout=0.3), **arguments)

    @app.route("now")
    async def now() -> str:
        return "done"

    @app.route("soon")
    async def soon() -> str:
        await anyio.sleep(0.3)
        return "done"

    @app.route("never")
    async def never() -> None:
        await anyio.sleep_forever()

    @app.topic("topic")
    async def topic() -> AsyncIterator[None]:
        yield
        print("a subscription is over", flush=True)  # noqa: T201

    @app.add_session_lifespan_handler
    async def lifespan() -> AsyncIterator[None]:
        yield
        print("a session is over", flush=True)  # noqa: T201

    return app


plain = make_app()
wamp = make_app(lifespan=lambda app: app.graceful_shutdown(GRACE))
site = Starlette(
    routes=[WebSocketRoute("/", plain)], lifespan=lambda _: plain.graceful_shutdown(GRACE)
)


# ---- programs


async def say_goodbye_at_a_signal() -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            break
    await plain.close_sessions(GRACE)


async def serve(server: Any, config: Any) -> None:
    config.bind = ["127.0.0.1:0"]
    await server(plain, config, shutdown_trigger=say_goodbye_at_a_signal)


def aiohttp_site() -> web.Application:
    served = web.Application()
    served.router.add_get("/", plain.aiohttp_websocket_handler())
    return served


def aiohttp() -> None:
    async def say_goodbye(_: web.Application) -> None:
        await plain.close_sessions(GRACE)

    served = aiohttp_site()
    served.on_shutdown.append(say_goodbye)
    web.run_app(served, host="127.0.0.1", port=0)


async def aiohttp_runner() -> None:
    runner = web.AppRunner(aiohttp_site())
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    print(f"Running on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)  # noqa: T201
    await say_goodbye_at_a_signal()
    await runner.cleanup()


PROGRAMS = {
    "hypercorn-asyncio": lambda: asyncio.run(serve(hypercorn.asyncio.serve, Config())),
    "hypercorn-trio": lambda: anyio.run(serve, hypercorn.trio.serve, Config(), backend="trio"),
    "anycorn-asyncio": lambda: asyncio.run(serve(anycorn.serve, anycorn.Config())),
    "anycorn-trio": lambda: anyio.run(serve, anycorn.serve, anycorn.Config(), backend="trio"),
    "aiohttp": aiohttp,
    "aiohttp-runner": lambda: asyncio.run(aiohttp_runner()),
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]]()
