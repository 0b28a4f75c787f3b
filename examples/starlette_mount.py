"""WAMP beside the HTTP routes of a Starlette application: one process, one port.

Run it::

    uvicorn examples.starlette_mount:app

Subscribers of ``shop.ordered`` at ws://127.0.0.1:8000/ws receive an event for this order::

    curl -X POST "http://127.0.0.1:8000/orders?item=tea"
"""

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

import serverwamp

wamp = serverwamp.Application()
orders: list[str] = []


@wamp.route("shop.count")
async def count_orders(item: str) -> int:
    return orders.count(item)


@wamp.topic("shop.ordered")
async def watch_orders() -> AsyncIterator[None]:
    yield  # nothing to do when a session subscribes or leaves


async def order(request: Request) -> JSONResponse:
    item = request.query_params.get("item", "tea")
    orders.append(item)
    await wamp.publish("shop.ordered", kwargs={"item": item, "number": len(orders)})
    return JSONResponse({"number": len(orders)}, status_code=201)


app = Starlette(
    routes=[
        Route("/orders", order, methods=["POST"]),
        # Mount("/ws", wamp) works as well; it serves /ws/, with the slash, and all paths below.
        WebSocketRoute("/ws", wamp),
    ],
    lifespan=lambda app: wamp.graceful_shutdown(),  # lets calls finish when the server stops
)
