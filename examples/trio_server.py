"""An application that runs on trio, with trio's own nurseries and timeouts.

Run it::

    pip install "serverwamp[trio]"
    hypercorn -k trio -b 127.0.0.1:8000 examples.trio_server:wamp

Then call ``shop.prices`` at ws://127.0.0.1:8000/, or subscribe to ``shop.open``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

import serverwamp

SECONDS_TO_ANSWER = {"corner shop": 0.0, "market": 0.2, "mail order": 60.0}


@asynccontextmanager
async def lifespan(app: serverwamp.Application) -> AsyncIterator[None]:
    """Run as long as the server, with a nursery for the tasks that run beside the calls."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(remind)
        yield
        nursery.cancel_scope.cancel()


wamp = serverwamp.Application(lifespan=lifespan)


@wamp.route("shop.prices")
async def prices(item: str, patience: float = 1.0) -> dict[str, int]:
    """Ask all shops at once, and return the answers that arrive within `patience` seconds."""
    answers: dict[str, int] = {}

    async def ask(shop: str, seconds: float) -> None:
        await trio.sleep(seconds)
        answers[shop] = len(item) + len(shop)

    with trio.move_on_after(patience):
        async with trio.open_nursery() as nursery:
            for shop, seconds in SECONDS_TO_ANSWER.items():
                nursery.start_soon(ask, shop, seconds)
    return answers


@wamp.topic("shop.open")
async def watch_shops() -> AsyncIterator[None]:
    yield


async def remind() -> None:
    while True:
        await wamp.publish("shop.open", ("The shops are open.",))
        await trio.sleep(1)
