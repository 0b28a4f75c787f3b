"""The chat of `examples.chat`, whose rooms are the same in all workers."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

import serverwamp
from examples.chat import rooms
from examples.pages import page_routes
from serverwamp.backplanes import RedisBackplane

app = serverwamp.Application(backplane=RedisBackplane(os.environ["REDIS_URL"], prefix="chat"))
app.add_topics(rooms)


@app.route("cluster.worker")
async def worker() -> int:
    """Return the id of the process that serves this client."""
    return os.getpid()


wamp = Starlette(
    routes=[WebSocketRoute("/ws", app), *page_routes("chat.html")],
    lifespan=lambda site: app.running(),
)
