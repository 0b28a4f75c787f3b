"""Streams into calls that other clients answer: progressive call invocations all the way."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from serverwamp import Application, Limits
from serverwamp.testing import Client, connect
from tests.helpers import error_uri_of, wait_all_tasks_blocked

ABLE = {
    "progressive_call_invocations": True,
    "progressive_call_results": True,
    "call_canceling": True,
}
PROGRESS = {"progress": True}


def sharing(**limits: Any) -> Application:
    app = Application(limits=Limits(**limits))
    app.client_register("fleet.", "prefix")
    return app


@asynccontextmanager
async def callee_of(
    app: Application,
    uri: str = "fleet.sum",
    features: dict[str, bool] = ABLE,
    options: dict[str, Any] | None = None,
    **connection: Any,
) -> AsyncIterator[Client]:
    """A client that has registered a procedure."""
    roles = {"callee": {"features": features}, "caller": {}}
    async with connect(app, roles=roles, **connection) as callee:
        await callee.send([64, callee.next_request(), options or {}, uri])
        assert (await callee.receive())[0] == 65
        yield callee


async def invocation(callee: Client) -> tuple[int, dict[str, Any], list[Any]]:
    """Return id, details and args of the next INVOCATION."""
    message = await callee.receive()
    assert message[0] == 68, message
    return message[1], message[3], [*message, [], []][4]


@pytest.mark.spec("PCI-01", "PCI-04", "PCI-09")
async def test_chunks_go_on_as_they_come() -> None:
    app = sharing()
    async with callee_of(app) as callee, connect(app) as client:
        call = await client.start_call("fleet.sum", [1], progress=True, receive_progress=True)
        id_, details, args = await invocation(callee)
        assert (details, args) == ({"progress": True, "receive_progress": True}, [1])
        await callee.send([70, id_, PROGRESS, ["one"]])
        assert (await call.progress()).args == ("one",)
        await call.send_chunk(2)
        assert await invocation(callee) == (id_, details, [2])
        assert (await client.start_call("fleet.sum", [7])).request == 2
        assert (await invocation(callee))[1:] == ({}, [7])
        await callee.send([70, id_, PROGRESS, ["two"]])
        assert (await call.progress()).args == ("two",)
        await call.end_chunks()
        assert await invocation(callee) == (id_, {"receive_progress": True}, [])
        await callee.send([70, id_, {}, [3]])
        assert (await call.result()).args == (3,)
        await callee.expect_nothing()


@pytest.mark.spec("PCI-03")
@pytest.mark.parametrize(
    "features",
    [{}, {**ABLE, "progressive_call_invocations": False}, {**ABLE, "call_canceling": False}],
)
async def test_a_callee_that_cant(features: dict[str, bool]) -> None:
    app = sharing()
    async with callee_of(app, features=features) as callee, connect(app) as client:
        call = await client.start_call("fleet.sum", [1], progress=True)
        await call.send_chunk(2)
        assert await error_uri_of(call.result()) == "wamp.error.feature_not_supported"
        await call.end_chunks()
        await client.expect_nothing()
        await callee.expect_nothing()


@pytest.mark.spec("T-16")
async def test_a_callee_that_spells_it_otherwise() -> None:
    app = sharing()
    features = {"progressive_call_invocations": True, "call_cancelling": True}
    async with callee_of(app, features=features) as callee, connect(app) as client:
        call = await client.start_call("fleet.sum", progress=True, receive_progress=True)
        assert (await invocation(callee))[1] == {"progress": True}
        await call.cancel()
        assert (await callee.receive())[0] == 69


@pytest.mark.spec("PCI-04")
async def test_all_chunks_go_to_the_same_callee() -> None:
    app = sharing()
    shared = {"invoke": "roundrobin"}
    async with (
        callee_of(app, options=shared) as first,
        callee_of(app, options=shared) as second,
        connect(app) as client,
    ):
        calls = [await client.start_call("fleet.sum", [n], progress=True) for n in range(2)]
        for chunk in (10, 20):
            for call in calls:
                await call.send_chunk(call.request + chunk)
        received = [[(await invocation(callee))[2] for _ in range(3)] for callee in (first, second)]
        assert received == [[[0], [11], [21]], [[1], [12], [22]]]
        await first.leave()
        assert await error_uri_of(calls[0].result()) == "wamp.error.canceled"
        await calls[0].send_chunk(30)
        await calls[0].end_chunks()
        await client.expect_nothing()
        await second.expect_nothing()


@pytest.mark.spec("PCI-05")
async def test_details_are_those_of_the_first_call() -> None:
    app = sharing()
    async with (
        callee_of(app, "fleet.", options={"match": "prefix"}) as callee,
        connect(app) as client,
    ):
        await client.send([48, 1, {"progress": True, "disclose_me": True}, "fleet.sum", [1]])
        _, first, _ = await invocation(callee)
        assert first["caller"] == client.session
        assert first["procedure"] == "fleet.sum"
        await client.send([48, 1, {"progress": True, "receive_progress": True}, "fleet.sum"])
        assert (await invocation(callee))[1] == first
        await client.send([48, 1, {"receive_progress": True}, "fleet.sum", [], {"a": 1}])
        message = await callee.receive()
        assert message[3:] == [
            {key: value for key, value in first.items() if key != "progress"},
            [],
            {"a": 1},
        ]


@pytest.mark.spec("PCI-06", "PCI-08")
@pytest.mark.parametrize("answer", [[70, {}], [8, 68]])
async def test_an_early_answer(answer: list[Any]) -> None:
    app = sharing()
    async with callee_of(app) as callee, connect(app) as client:
        call = await client.start_call("fleet.sum", [1], progress=True)
        id_, _, _ = await invocation(callee)
        if answer[0] == 70:
            await callee.send([70, id_, {}, ["early"]])
            assert (await call.result()).args == ("early",)
        else:
            await callee.send([8, 68, id_, {}, "com.app.error"])
            assert await error_uri_of(call.result()) == "com.app.error"
        for chunk in range(3):
            await call.send_chunk(chunk)
        await call.end_chunks()
        await client.expect_nothing()
        await callee.expect_nothing()


async def test_another_procedure_is_a_violation() -> None:
    app = sharing()
    async with callee_of(app) as callee, connect(app) as client:
        await client.send([48, 1, PROGRESS, "fleet.sum", [1]])
        await invocation(callee)
        await client.send([48, 1, PROGRESS, "fleet.other", [1]])
        assert (await client.receive())[0] == 3
        assert (await callee.receive())[0] == 69


@pytest.mark.spec("CAN-02", "CAN-04")
@pytest.mark.parametrize("mode", ["killnowait", "skip"])
async def test_cancellation(mode: str) -> None:
    app = sharing()
    async with callee_of(app) as callee, connect(app) as client:
        call = await client.start_call("fleet.sum", [1], progress=True)
        id_, _, _ = await invocation(callee)
        await call.cancel(mode)
        await call.send_chunk(2)
        assert await error_uri_of(call.result()) == "wamp.error.canceled"
        assert (await callee.receive())[:2] == [69, id_]
        await callee.send([8, 68, id_, {}, "wamp.error.canceled"])
        await callee.expect_nothing()
        await client.expect_nothing()


async def test_what_is_complete_goes_on_for_nobody() -> None:
    app = sharing()
    async with callee_of(app) as callee, connect(app) as client:
        call = await client.start_call("fleet.sum", [1], progress=True)
        await call.end_chunks()
        ids = {(await invocation(callee))[0] for _ in range(2)}
        assert len(ids) == 1
        await call.cancel("skip")
        assert await error_uri_of(call.result()) == "wamp.error.canceled"
        await callee.expect_nothing()


@pytest.mark.spec("CAN-03")
async def test_a_callee_that_is_interrupted_may_still_have_a_result() -> None:
    app = sharing()
    async with callee_of(app) as callee, connect(app) as client:
        call = await client.start_call("fleet.sum", [1], progress=True)
        id_, _, _ = await invocation(callee)
        await call.cancel("kill")
        assert (await callee.receive())[:2] == [69, id_]
        await callee.send([70, id_, {}, ["so far"]])
        assert (await call.result()).args == ("so far",)
        await call.send_chunk(2)
        await client.expect_nothing()
        await callee.expect_nothing()


@pytest.mark.parametrize("leave", [Client.leave, Client.disconnect])
async def test_a_caller_that_leaves(leave: Any) -> None:
    app = sharing()
    async with callee_of(app) as callee, connect(app) as client:
        await client.start_call("fleet.sum", [1], progress=True)
        id_, _, _ = await invocation(callee)
        await leave(client)
        assert (await callee.receive())[:2] == [69, id_]


async def test_a_chunk_that_the_callee_cant_be_sent() -> None:
    app = sharing()
    async with callee_of(app) as callee, connect(app, subprotocol="wamp.2.msgpack") as client:
        call = await client.start_call("fleet.sum", [1], progress=True)
        id_, _, _ = await invocation(callee)
        await call.send_chunk(math.nan)
        assert await error_uri_of(call.result()) == "wamp.error.invalid_argument"
        assert (await callee.receive())[:2] == [69, id_]
        await call.send_chunk(2)
        await client.expect_nothing()
        await callee.expect_nothing()


# ---- back-pressure

CHUNK = "x" * 10_000


async def test_a_callee_that_reads_slowly_is_waited_for() -> None:
    app = sharing(outbound_bytes=200_000)
    async with callee_of(app) as callee, connect(app) as client, anyio.create_task_group() as tasks:
        call = await client.start_call("fleet.sum", progress=True)
        id_, _, _ = await invocation(callee)
        callee.pause()

        async def send() -> None:
            for _ in range(300):
                await call.send_chunk(CHUNK)
            await call.end_chunks()

        tasks.start_soon(send)
        await wait_all_tasks_blocked()
        callee.resume()
        for _ in range(300):
            assert (await invocation(callee))[2] == [CHUNK]
        assert await invocation(callee) == (id_, {}, [])
        await callee.send([70, id_, {}, [300]])
        assert (await call.result()).args == (300,)


@pytest.mark.parametrize(
    ("busy_timeout", "options", "leaves", "error"),
    [
        (0.1, {}, False, "unavailable"),
        (60, {}, True, "canceled"),
        (60, {"timeout": 500}, False, "timeout"),
    ],
)
async def test_a_callee_that_doesnt_read(
    busy_timeout: float, options: dict[str, Any], leaves: bool, error: str
) -> None:
    app = sharing(outbound_bytes=200_000, busy_timeout=busy_timeout)
    async with callee_of(app) as callee, connect(app) as client, anyio.create_task_group() as tasks:
        call = await client.start_call("fleet.sum", progress=True, options=options)
        await invocation(callee)
        callee.pause()

        async def send() -> None:
            for _ in range(200):
                await call.send_chunk(CHUNK)

        tasks.start_soon(send)
        await wait_all_tasks_blocked()
        if leaves:
            await callee.disconnect()
        assert await error_uri_of(call.result()) == f"wamp.error.{error}"
        await client.expect_nothing()
