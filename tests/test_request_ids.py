"""Request ids: any that no open request of the session uses."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from serverwamp import Application, Limits
from serverwamp.protocol.serializers import SUBPROTOCOLS
from serverwamp.testing import Client, connect
from tests.helpers import wait_all_tasks_blocked

CANCELED = "wamp.error.canceled"
UNBATCHED = ("wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor")
ORDERS = {
    "forward": [1, 2, 3, 4, 5, 6, 7],
    "with gaps": [2, 9, 100, 2**40, 2**53 - 1, 2**53, 1],
    "from two threads": [12, 9, 13, 10, 14, 11, 15],
    "backward": [7, 6, 5, 4, 3, 2, 1],
    "always the same": [5] * 7,
    "random": random.Random(1).sample(range(1, 2**53), 7),
}


class Gated:
    """An application whose calls, publications and subscriptions wait at a gate."""

    def __init__(self, **options: Any) -> None:
        self.app = Application(**options)
        self.gate = anyio.Event()
        self.app.client_register("com.", match="prefix")

        @self.app.route("echo")
        async def echo(value: Any) -> Any:
            return value

        @self.app.route("wait")
        async def wait() -> str:
            await self.gate.wait()
            return "waited"

        @self.app.route("stay")
        async def stay() -> None:
            with anyio.CancelScope(shield=True):
                await self.gate.wait()

        @self.app.publication("topic.wait")
        async def publication() -> None:
            await self.gate.wait()

        @self.app.topic("topic.wait")
        async def opening() -> AsyncIterator[None]:
            await self.gate.wait()
            yield

        @self.app.topic("topic.slow")
        async def closing() -> AsyncIterator[None]:
            yield
            await self.gate.wait()

        @self.app.topic("topic", client_publish=True)
        async def topic() -> AsyncIterator[None]:
            yield


async def assert_in_use(client: Client, request: int) -> None:
    message = await client.expect(lambda m: m[0] == 3, "ABORT")
    assert message[1:] == [
        {"message": f"request id {request} is in use"},
        "wamp.error.protocol_violation",
    ]
    assert await client.expect_close() == 1002


@pytest.mark.spec("IDS-04", "IDS-05", "IDS-07", "IDS-09", "T-05")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("order", ORDERS)
async def test_answered_requests_leave_their_ids(order: str, subprotocol: str) -> None:
    ids = ORDERS[order]
    async with connect(Gated().app, subprotocol=subprotocol) as client:
        await client.send([48, ids[0], {}, "echo", [1]])
        assert await client.receive() == [50, ids[0], {}, [1]]
        await client.send([32, ids[1], {}, "topic"])
        kind, request, subscription = await client.receive()
        assert (kind, request) == (33, ids[1])
        await client.send([16, ids[2], {"acknowledge": True}, "topic"])
        assert (await client.receive())[:2] == [17, ids[2]]
        await client.send([34, ids[3], subscription])
        assert await client.receive() == [35, ids[3]]
        await client.send([64, ids[4], {}, "com.x"])
        kind, request, registration = await client.receive()
        assert (kind, request) == (65, ids[4])
        await client.send([66, ids[5], registration])
        assert await client.receive() == [67, ids[5]]
        await client.send([48, ids[6], {}, "echo", [2]])
        assert await client.receive() == [50, ids[6], {}, [2]]


@pytest.mark.spec("IDS-07")
@pytest.mark.parametrize("subprotocol", UNBATCHED)
async def test_requests_that_are_refused_leave_their_ids(subprotocol: str) -> None:
    async with connect(Gated().app, subprotocol=subprotocol) as client:
        for _ in range(2):
            for request in (
                [48, 5, {}, "nobody"],
                [48, 5, {}, "echo", [1, 2]],
                [48, 5, {"progress": True}, "echo", [1]],
                [32, 5, {}, "unknown"],
                [34, 5, 77],
                [16, 5, {"acknowledge": True}, "unknown"],
                [64, 5, {}, "echo"],
                [66, 5, 77],
                [48, 5, {}, "x" * 2000],
            ):
                await client.send(request)
                assert (await client.receive())[:3] == [8, request[0], 5]


@pytest.mark.spec("IDS-08")
async def test_publications_without_acknowledgement_are_never_open() -> None:
    gated = Gated()
    async with connect(gated.app) as client:
        await client.send([16, 5, {}, "topic.wait"], [16, 5, {}, "topic.wait"])
        await client.send([48, 5, {}, "echo", [1]])
        assert await client.receive() == [50, 5, {}, [1]]
        gated.gate.set()


@pytest.mark.spec("IDS-07", "VIO-02")
@pytest.mark.parametrize(
    "opened",
    [
        [48, 5, {}, "wait"],
        [16, 5, {"acknowledge": True}, "topic.wait"],
        [32, 5, {}, "topic.wait"],
        [34, 5, "the slow one"],
    ],
    ids=["call", "publish", "subscribe", "unsubscribe"],
)
@pytest.mark.parametrize(
    "request_",
    [
        [48, 5, {}, "echo", [1]],
        [48, 5.0, {}, "echo", [1]],
        [48, 5, {"progress": True}, "wait"],
        [16, 5, {}, "topic"],
        [16, 5, {"acknowledge": True}, "topic"],
        [32, 5, {}, "topic"],
        [34, 5, 1],
        [64, 5, {}, "com.x"],
        [66, 5, 1],
    ],
    ids=str,
)
async def test_an_id_in_use(opened: list[Any], request_: list[Any]) -> None:
    gated = Gated()
    async with connect(gated.app) as client:
        if opened[0] == 34:
            await client.send([32, 5, {}, "topic.slow"])
            opened = [34, 5, (await client.receive())[2]]
        await client.send(opened)
        await client.send([48, 9, {}, "echo", [9]])
        assert await client.receive() == [50, 9, {}, [9]]
        await client.send(request_)
        await wait_all_tasks_blocked()
        gated.gate.set()
        await assert_in_use(client, 5)


@pytest.mark.spec("IDS-07", "CAN-04", "CAN-07")
@pytest.mark.parametrize("mode", ["skip", "killnowait"])
async def test_a_cancelled_call_that_still_runs_leaves_its_id(mode: str) -> None:
    """Its end doesn't touch the call that has its id by then."""
    gated = Gated()
    async with connect(gated.app) as client:
        for _ in range(3):
            await client.send([48, 5, {}, "stay"], [49, 5, {"mode": mode}])
            assert (await client.receive())[:5] == [8, 48, 5, {}, CANCELED]
        await client.send([48, 5, {}, "echo", [1]])
        assert await client.receive() == [50, 5, {}, [1]]
        await client.send([48, 5, {}, "stay"])
        await wait_all_tasks_blocked()
        gated.gate.set()
        assert await client.receive() == [50, 5, {}, [None]]
        await wait_all_tasks_blocked()
        await client.send([48, 5, {}, "echo", [2]])
        assert await client.receive() == [50, 5, {}, [2]]
    assert gated.app.statistics().calls_in_flight == 0


async def test_cancel_means_the_newest_call_of_the_id() -> None:
    gated = Gated()
    async with connect(gated.app) as client:
        await client.send([48, 5, {}, "stay"], [49, 5, {"mode": "skip"}])
        assert (await client.receive())[4] == CANCELED
        await client.send([48, 5, {}, "wait"], [49, 5, {"mode": "kill"}])
        assert (await client.receive())[4] == CANCELED
        gated.gate.set()
        await client.expect_nothing()


async def test_calls_without_an_id_count_as_calls_in_flight() -> None:
    gated = Gated(limits=Limits(calls_in_flight=3, busy_timeout=0.05))
    async with connect(gated.app) as client:
        for _ in range(3):
            await client.send([48, 5, {}, "stay"], [49, 5, {"mode": "skip"}])
            assert (await client.receive())[4] == CANCELED
        for request in (5, 6):
            await client.send([48, request, {}, "echo", [1]])
            assert (await client.receive())[:5] == [8, 48, request, {}, "wamp.error.unavailable"]
        gated.gate.set()
        await wait_all_tasks_blocked()
        await client.send([48, 5, {}, "echo", [1]])
        assert await client.receive() == [50, 5, {}, [1]]


async def test_the_connection_ends_calls_without_an_id() -> None:
    app = Application()
    ended: list[str] = []

    @app.route("forever")
    async def forever(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(name)

    async with connect(app) as client:
        await client.send([48, 5, {}, "forever", ["first"]], [49, 5, {"mode": "skip"}])
        assert (await client.receive())[4] == CANCELED
        await client.send([48, 5, {}, "forever", ["second"]])
        await wait_all_tasks_blocked()
        assert ended == []
    assert sorted(ended) == ["first", "second"]


@pytest.mark.spec("TMO-02")
async def test_a_deadline_ends_with_its_call() -> None:
    gated = Gated()
    async with connect(gated.app) as client:
        await client.send([48, 5, {"timeout": 40}, "wait"], [49, 5, {"mode": "kill"}])
        assert (await client.receive())[4] == CANCELED
        await client.send([48, 5, {}, "wait"])
        await client.send([48, 6, {"timeout": 60}, "wait"])
        assert (await client.receive())[:5] == [8, 48, 6, {}, "wamp.error.timeout"]
        gated.gate.set()
        assert await client.receive() == [50, 5, {}, ["waited"]]


@pytest.mark.spec("IDS-07", "CAN-04")
async def test_a_call_of_another_client_leaves_its_id() -> None:
    app = Gated().app
    async with connect(app) as callee, connect(app) as caller:
        await callee.send([64, 1, {}, "com.x"])
        assert (await callee.receive())[:2] == [65, 1]
        for mode in ("skip", "killnowait"):
            await caller.send([48, 5, {}, "com.x"], [49, 5, {"mode": mode}])
            assert (await caller.receive())[4] == CANCELED
            cancelled = (await callee.expect(lambda m: m[0] == 68))[1]
            await caller.send([48, 5, {}, "com.x"])
            invoked = (await callee.expect(lambda m: m[0] == 68))[1]
            await callee.send([70, cancelled, {}, ["late"]], [70, invoked, {}, ["result"]])
            assert await caller.receive() == [50, 5, {}, ["result"]]


# ---- streams


@pytest.mark.spec("PCI-06", "PCI-08")
@pytest.mark.parametrize(
    "request_",
    [
        [48, 5, {}, "echo", [1]],
        [48, 5, {"progress": True}, "total"],
        [16, 5, {"acknowledge": True}, "topic"],
        [32, 5, {}, "topic"],
        [64, 5, {}, "com.x"],
    ],
    ids=str,
)
async def test_the_id_of_an_answered_stream(request_: list[Any]) -> None:
    """Chunks that are still on their way are ignored; everything else is a new request."""
    gated = Gated()

    @gated.app.route("first")
    async def first(numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    @gated.app.route("total")
    async def total(numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    async with connect(gated.app) as client:
        await client.send([48, 5, {"progress": True}, "first", [1]])
        assert await client.receive() == [50, 5, {}, [1]]
        await client.send([48, 5, {"progress": True}, "first", [2]])
        await client.expect_nothing()
        await client.send(request_)
        if request_[3] == "total":
            await client.send([48, 5, {}, "total", [7]])
            assert await client.receive() == [50, 5, {}, [7]]
        else:
            assert (await client.receive())[1] == 5
        await client.send([48, 5, {}, "first", [3]])
        assert await client.receive() == [50, 5, {}, [3]]
