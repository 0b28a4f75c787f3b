"""What test_shutdown.py has served, and the programs that serve it.

``tests.shutdown_app NAME`` runs a program, ``tests.shutdown_app NAME goodbye`` one that says
GOODBYE to its clients. Each imports only what it needs, so that it starts quickly.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from serverwamp import Application, Limits

GRACE = 0.4


def make_app(**arguments: Any) -> Application:
    app = Application(limits=Limits(goodbye_timeout=0.2), **arguments)

    @app.route("now")
    async def now() -> str:
        return "done"

    @app.route("soon")
    async def soon() -> str:
        await anyio.sleep(0.2)
        return "done"

    @app.route("never")
    async def never() -> None:
        await anyio.sleep_forever()

    @app.route("publish")
    async def publish(text: str) -> None:
        await app.publish("topic", [text])

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
polite = make_app(lifespan=lambda app: app.graceful_shutdown(GRACE, goodbye=True))
site = Starlette(
    routes=[WebSocketRoute("/", plain)], lifespan=lambda _: plain.graceful_shutdown(GRACE)
)


# ---- programs


async def close_sessions(*_: object) -> None:
    await plain.close_sessions(GRACE, goodbye="goodbye" in sys.argv)


async def close_sessions_at_a_signal() -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            break
    await close_sessions()


async def serve(package: str, module: str) -> None:
    config = import_module(package).Config()
    config.bind = ["127.0.0.1:0"]
    serve = import_module(module).serve
    await serve(plain, config, shutdown_trigger=close_sessions_at_a_signal)


def aiohttp_site() -> Any:
    from aiohttp import web

    served = web.Application()
    served.router.add_get("/", plain.aiohttp_websocket_handler())
    return served


def aiohttp() -> None:
    from aiohttp import web

    served = aiohttp_site()
    served.on_shutdown.append(close_sessions)
    web.run_app(served, host="127.0.0.1", port=0)


async def aiohttp_runner() -> None:
    from aiohttp import web

    runner = web.AppRunner(aiohttp_site())
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    print(f"Running on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)  # noqa: T201
    await close_sessions_at_a_signal()
    await runner.cleanup()


PROGRAMS = {
    "hypercorn-asyncio": lambda: asyncio.run(serve("hypercorn.config", "hypercorn.asyncio")),
    "hypercorn-trio": lambda: anyio.run(
        serve, "hypercorn.config", "hypercorn.trio", backend="trio"
    ),
    "anycorn-asyncio": lambda: asyncio.run(serve("anycorn", "anycorn")),
    "anycorn-trio": lambda: anyio.run(serve, "anycorn", "anycorn", backend="trio"),
    "aiohttp": aiohttp,
    "aiohttp-runner": lambda: asyncio.run(aiohttp_runner()),
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]]()
