"""What clients publish, through the public API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from serverwamp import (
    Application,
    WAMPError,
)
from serverwamp.testing import connect

NOT_AUTHORIZED = "wamp.error.not_authorized"
SUBPROTOCOLS = ("wamp.2.json", "wamp.2.msgpack", "wamp.2.json.batched")


async def anybody() -> AsyncIterator[None]:
    yield


def open_to_all(uri: str = "topic", **options: Any) -> Application:
    app = Application(**options)
    app.topic(uri, client_publish=True)(anybody)
    return app


def handled_by(handler: Any, uri: str = "topic", **options: Any) -> Application:
    app = Application(**options)
    app.topic(uri)(anybody)
    app.publication(uri)(handler)
    return app


async def refusal(awaitable: Any) -> WAMPError:
    with pytest.raises(WAMPError) as error:
        await awaitable
    return error.value


# ---- who may publish what


@pytest.mark.spec("PUB-01", "PUB-02", "PUB-03", "IDS-08", "IDS-10", "MSG-09")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_a_client_publishes(subprotocol: str) -> None:
    app = open_to_all()
    async with (
        connect(app, subprotocol=subprotocol) as publisher,
        connect(app) as one,
        connect(app, subprotocol="wamp.2.msgpack") as two,
    ):
        for client in (publisher, one, two):
            await client.subscribe("topic")
        await two.subscribe("topic")
        args, kwargs = [1, "ü", [None, {"z": 1, "a": [2.5]}]], {"k": True}
        await publisher.send([16, 2, {"acknowledge": True}, "topic", args, kwargs])
        kind, request, publication = await publisher.receive()
        assert (kind, request) == (17, 2)
        for client in (one, two):
            event = await client.expect_event()
            assert (event.args, event.kwargs) == (tuple(args), kwargs)
            assert (event.publication, event.details) == (publication, {})
        await publisher.send([16, 3, {}, "topic"])
        assert (await one.expect_event()).args == ()
        publisher._last_request = 3
        for client in (publisher, one):
            await client.expect_nothing()


@pytest.mark.spec("PUB-08", "AZN-02", "URI-06", "URI-07", "T-28")
async def test_only_where_the_application_says_so() -> None:
    app = open_to_all()
    app.topic("closed")(anybody)
    app.prefix_topic("open.", client_publish=True)(anybody)
    app.topic("open.but.closed")(anybody)
    app.wildcard_topic("a..c", client_publish=True)(anybody)
    app.regex_topic("[0-9]+$", client_publish=True)(anybody)
    async with connect(app) as client:
        for topic in ("topic", "open.1.2", "a.b.c", "42"):
            assert await client.publish(topic, acknowledge=True)
        for topic in ("closed", "unknown", "open", "open.but.closed", "a.b", "x42", "topic.x"):
            await client.publish(topic)
            assert (await refusal(client.publish(topic, acknowledge=True))).uri == NOT_AUTHORIZED
        for topic in ("no topic", "", "open..x", "wamp.session.on_join", "wamp"):
            await client.publish(topic)
            error = await refusal(client.publish(topic, acknowledge=True))
            assert error.uri == "wamp.error.invalid_uri"
        await client.expect_nothing()


@pytest.mark.spec("ORD-02")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_publications_take_effect_in_the_order_in_which_they_were_sent(
    subprotocol: str,
) -> None:
    app = open_to_all("at.once")

    @app.publication("slow")
    async def slow(number: int) -> None:
        for _ in range(10 - number % 10):
            await anyio.lowlevel.checkpoint()

    @app.publication("thread")
    def thread(number: int) -> None: ...

    app.topic("slow")(anybody)
    app.topic("thread")(anybody)
    topics = ("slow", "at.once", "thread")
    async with connect(app, subprotocol=subprotocol) as publisher, connect(app) as subscriber:
        for topic in topics:
            await subscriber.subscribe(topic)
        messages = [[16, n + 1, {}, topics[n % 3], [n]] for n in range(60)]
        await publisher.send(*messages)
        for number in range(60):
            assert (await subscriber.expect_event()).args == (number,)
