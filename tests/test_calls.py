"""Calls, through the public API."""

from __future__ import annotations

import anyio
import pytest

import serverwamp
from serverwamp import RPCProgressReport, RPCResult, WAMPError
from serverwamp.testing import connect


async def test_a_call_is_answered() -> None:
    app = serverwamp.Application()

    @app.route("math.add")
    async def add(a: int, b: int) -> int:
        return a + b

    async with connect(app) as client:
        assert (await client.call("math.add", (2, "3"))).args == (5,)
        with pytest.raises(WAMPError) as refused:
            await client.call("math.subtract", (2, 3))
        assert refused.value.uri == "wamp.error.no_such_procedure"


async def test_progress_and_cancel() -> None:
    app = serverwamp.Application()
    ended = anyio.Event()

    @app.route("count")
    async def count():
        try:
            yield RPCProgressReport((1,))
            await anyio.sleep_forever()
            yield RPCResult()
        finally:
            ended.set()

    async with connect(app) as client:
        call = await client.start_call("count", receive_progress=True)
        assert (await call.progress()).args == (1,)
        await call.cancel("kill")
        with pytest.raises(WAMPError) as cancelled:
            await call.result()
        assert cancelled.value.uri == "wamp.error.canceled"
        with anyio.fail_after(5):
            await ended.wait()
        await client.expect_nothing()
        assert await client.leave() == "wamp.close.goodbye_and_out"


async def test_events() -> None:
    app = serverwamp.Application()
    log = []

    @app.topic("news")
    async def news(session):
        session.send_event(args=("welcome",))
        yield
        log.append("closed")

    @app.route("publish")
    async def publish(n: int):
        for i in range(n):
            await app.publish("news", (i,))

    async with connect(app, subprotocol="wamp.2.msgpack") as client:
        sub = await client.subscribe("news")
        assert (await client.expect_event()).args == ("welcome",)
        await client.call("publish", (1000,))
        for i in range(1000):
            assert (await client.expect_event(sub)).args == (i,)
        await client.unsubscribe(sub)
        assert log == ["closed"]
        await client.subscribe("news")
    assert log == ["closed", "closed"]
