"""A WAMP application served by aiohttp, beside its other routes.

Run it::

    pip install "serverwamp[aiohttp]"
    python -m aiohttp.web -H 127.0.0.1 -P 8080 examples.aiohttp_server:make_app

WAMP is at ws://127.0.0.1:8080/ws. http://127.0.0.1:8080/ shows how many clients are connected.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

from aiohttp import web

import serverwamp

wamp = serverwamp.Application()


@wamp.route("time.until")
async def seconds_until(moment: datetime) -> float:
    """Return the seconds until `moment`, which clients send as a string in ISO 8601."""
    return (moment - datetime.now(moment.tzinfo)).total_seconds()


@wamp.topic("time.now")
async def watch_time() -> AsyncIterator[None]:
    yield


async def tell_time() -> None:
    while True:
        await wamp.publish("time.now", (datetime.now(),))
        await asyncio.sleep(1)


async def clock(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(tell_time())
    yield
    task.cancel()


async def close_sessions(app: web.Application) -> None:
    await wamp.close_sessions(goodbye=False)  # without GOODBYE, clients reconnect after a restart


async def index(request: web.Request) -> web.Response:
    return web.Response(text=f"{len(wamp.sessions)} clients are connected.\n")


def make_app(argv: list[str]) -> web.Application:
    wamp.freeze()  # finds mistakes in the configuration
    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_get("/ws", wamp.aiohttp_websocket_handler())
    app.cleanup_ctx.append(clock)
    app.on_shutdown.append(close_sessions)
    return app
