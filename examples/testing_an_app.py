"""Tests of an application: no server, no network, on asyncio and on trio.

Run it::

    pip install pytest trio
    pytest examples/testing_an_app.py
"""

from collections.abc import AsyncIterator

import anyio
import pytest

import serverwamp
from serverwamp import RPCErrorResult, RPCProgressReport, RPCResult, Session, WAMPError
from serverwamp.testing import connect

# ---- the application, which would normally be in its own module

wamp = serverwamp.Application()


@wamp.route("kitchen.bake")
async def bake(cakes: int) -> AsyncIterator[RPCResult | RPCErrorResult]:
    if cakes > 3:
        yield RPCErrorResult("kitchen.error.oven_full", args=(f"{cakes} cakes don't fit",))
        return
    for number in range(1, cakes + 1):
        yield RPCProgressReport(args=(number,))
    yield RPCResult(kwargs={"cakes": cakes})


@wamp.route("kitchen.ring")
async def ring(session: Session) -> None:
    await wamp.publish("kitchen.bell", ("Dinner!",), exclude=session)


@wamp.route("kitchen.wait")
async def wait_for_ever() -> None:
    await anyio.sleep_forever()


@wamp.topic("kitchen.bell")
async def listen() -> AsyncIterator[None]:
    yield


# ---- its tests

pytestmark = pytest.mark.anyio  # pytest's anyio plugin runs each on every backend


async def test_a_call_has_a_result() -> None:
    async with connect(wamp) as client:
        result = await client.call("kitchen.bake", (2,))
        assert result.kwargs == {"cakes": 2}


async def test_arguments_can_be_named() -> None:
    async with connect(wamp) as client:
        result = await client.call("kitchen.bake", kwargs={"cakes": 2})
        assert result.kwargs == {"cakes": 2}


async def test_errors_are_raised() -> None:
    async with connect(wamp) as client:
        with pytest.raises(WAMPError) as failure:
            await client.call("kitchen.bake", (12,))
        assert failure.value.uri == "kitchen.error.oven_full"


async def test_progress_is_reported() -> None:
    async with connect(wamp) as client:
        baking = await client.start_call("kitchen.bake", (2,), receive_progress=True)
        assert (await baking.progress()).args == (1,)
        assert (await baking.progress()).args == (2,)
        assert (await baking.result()).kwargs == {"cakes": 2}


async def test_a_call_can_be_cancelled() -> None:
    async with connect(wamp) as client:
        waiting = await client.start_call("kitchen.wait")
        await waiting.cancel()
        with pytest.raises(WAMPError, match=r"wamp\.error\.canceled"):
            await waiting.result()


async def test_the_others_hear_the_bell() -> None:
    async with connect(wamp) as cook, connect(wamp) as guest:
        await cook.subscribe("kitchen.bell")
        await guest.subscribe("kitchen.bell")
        await cook.call("kitchen.ring")
        assert (await guest.expect_event()).args == ("Dinner!",)
