"""How calls end before their time: cancelled, timed out, or left by their client."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from serverwamp import Application, RPCProgressReport, RPCResult, WAMPError
from serverwamp.testing import Client, connect
from tests.helpers import happened, serving


class Handler:
    """A procedure that waits until it is told to go on, and notes how it ends."""

    def __init__(self) -> None:
        self.started = anyio.Event()
        self.proceed = anyio.Event()
        self.ended = anyio.Event()
        self.cancelled = False

    async def __call__(self) -> str:
        self.started.set()
        try:
            await self.proceed.wait()
            return "result"
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise
        finally:
            self.ended.set()


CANCELED = "wamp.error.canceled"


async def cancel_error(client: Client, request: int) -> str:
    message = await client.receive()
    assert message[:4] == [8, 48, request, {}]
    return str(message[4])


# ---- CANCEL


@pytest.mark.spec("CAN-01", "CAN-03", "CAN-06", "CAN-11", "ERR-canceled")
async def test_kill_ends_the_handler_and_then_answers() -> None:
    handler = Handler()
    async with connect(serving(handler)) as client:
        await client.send([48, 1, {}, "procedure"])
        await happened(handler.started)
        await client.send([49, 1, {"mode": "kill"}])
        assert await cancel_error(client, 1) == CANCELED
        assert handler.ended.is_set()
        assert handler.cancelled
        await client.expect_nothing()


@pytest.mark.spec("CAN-04", "CAN-07", "CAN-11", "FEA-04")
@pytest.mark.parametrize("options", [{"mode": "killnowait"}, {}, {"mode": None}])
async def test_killnowait_answers_and_ends_the_handler(options: dict[str, Any]) -> None:
    handler = Handler()
    async with connect(serving(handler)) as client:
        await client.send([48, 1, {}, "procedure"])
        await happened(handler.started)
        await client.send([49, 1, options])
        assert await cancel_error(client, 1) == CANCELED
        await happened(handler.ended)
        assert handler.cancelled
        await client.expect_nothing()


@pytest.mark.spec("CAN-02", "CAN-12")
async def test_skip_answers_and_lets_the_handler_be() -> None:
    handler = Handler()
    async with connect(serving(handler)) as client:
        await client.send([48, 1, {}, "procedure"])
        await happened(handler.started)
        await client.send([49, 1, {"mode": "skip"}])
        assert await cancel_error(client, 1) == CANCELED
        handler.proceed.set()
        await happened(handler.ended)
        assert not handler.cancelled
        await client.expect_nothing()  # its result is discarded


@pytest.mark.spec("CAN-03")
async def test_a_result_that_comes_in_spite_of_kill_wins() -> None:
    started = anyio.Event()

    async def procedure() -> str:
        try:
            started.set()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return "the result all the same"
        return "never"

    async with connect(serving(procedure)) as client:
        call = await client.start_call("procedure")
        await happened(started)
        await call.cancel("kill")
        assert (await call.result()).args == ("the result all the same",)


async def test_a_result_that_comes_in_spite_of_killnowait_is_discarded() -> None:
    started, ended = anyio.Event(), anyio.Event()

    async def procedure() -> str:
        try:
            started.set()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            ended.set()
        return "too late"

    async with connect(serving(procedure)) as client:
        call = await client.start_call("procedure")
        await happened(started)
        await call.cancel()
        with pytest.raises(WAMPError) as cancelled:
            await call.result()
        assert cancelled.value.uri == CANCELED
        await happened(ended)
        await client.expect_nothing()


@pytest.mark.spec("CAN-08", "CAL-11")
async def test_cancelling_what_is_over_or_never_was() -> None:
    async def procedure() -> None: ...

    async with connect(serving(procedure)) as client:
        await client.call("procedure")
        for request in (1, 2, 2**53):
            await client.send([49, request, {}])
        await client.call("procedure")  # CANCEL has not used up an id
        await client.expect_nothing()


async def test_cancelling_twice_answers_once() -> None:
    handler = Handler()
    async with connect(serving(handler)) as client:
        call = await client.start_call("procedure")
        await happened(handler.started)
        for mode in ("skip", "kill", "killnowait"):
            await call.cancel(mode)
        with pytest.raises(WAMPError):
            await call.result()
        await client.expect_nothing()


async def test_cancelling_progress() -> None:
    closed = anyio.Event()

    async def procedure() -> AsyncIterator[Any]:
        try:
            while True:
                yield RPCProgressReport()
                await anyio.lowlevel.checkpoint()
        finally:
            closed.set()

    async with connect(serving(procedure)) as client:
        call = await client.start_call("procedure", receive_progress=True)
        await call.progress()
        await call.cancel("kill")
        with pytest.raises(WAMPError) as cancelled:
            await call.result()
        assert cancelled.value.uri == CANCELED
        assert closed.is_set()
        client.take_all()
        await client.expect_nothing()  # no progress after the answer


async def test_cancelling_a_handler_in_a_thread() -> None:
    proceed = threading.Event()

    def procedure() -> str:
        proceed.wait(5)
        return "result"

    try:
        async with connect(serving(procedure)) as client:
            call = await client.start_call("procedure")
            await call.cancel("kill")
            with pytest.raises(WAMPError) as cancelled:
                await call.result()
            assert cancelled.value.uri == CANCELED
            await client.expect_nothing()
    finally:
        proceed.set()


async def test_one_cancelled_call_leaves_the_others_alone() -> None:
    first, second = Handler(), Handler()
    app = serving(first)
    app.route("second")(second)
    async with connect(app) as client:
        one, two = await client.start_call("procedure"), await client.start_call("second")
        await happened(second.started)
        await one.cancel("kill")
        with pytest.raises(WAMPError):
            await one.result()
        second.proceed.set()
        assert (await two.result()).args == ("result",)


@pytest.mark.spec("CAL-01")
@pytest.mark.parametrize("mode", ["skip", "kill", "killnowait"])
async def test_a_call_that_is_cancelled_in_the_same_breath(mode: str) -> None:
    async def procedure() -> None:
        await anyio.sleep_forever()

    async with connect(serving(procedure), subprotocol="wamp.2.json.batched") as client:
        await client.send([48, 1, {}, "procedure"], [49, 1, {"mode": mode}])
        assert await cancel_error(client, 1) == CANCELED
        await client.expect_nothing()


# ---- timeout


@pytest.mark.spec("TMO-01", "TMO-02", "TMO-04", "FEA-10")
async def test_a_timeout_in_milliseconds() -> None:
    handler = Handler()
    async with connect(serving(handler)) as client:
        assert client.welcome["roles"]["dealer"]["features"]["call_timeout"] is True
        await client.send([48, 1, {"timeout": 20}, "procedure"])
        assert await cancel_error(client, 1) == "wamp.error.timeout"
        await happened(handler.ended)
        assert handler.cancelled
        await client.expect_nothing()


async def test_timeouts_that_are_not_reached() -> None:
    async def procedure() -> str:
        await anyio.lowlevel.checkpoint()
        return "result"

    async with connect(serving(procedure)) as client:
        for timeout in (0, None, 60_000, 2**53):
            result = await client.call("procedure", options={"timeout": timeout})
            assert result.args == ("result",)


async def test_the_earliest_timeout_comes_first() -> None:
    handlers = [Handler() for _ in range(3)]
    app = Application()
    for number, handler in enumerate(handlers):
        app.route(f"procedure{number}")(handler)
    async with connect(app) as client:
        calls = [
            await client.start_call(f"procedure{number}", options={"timeout": timeout})
            for number, timeout in enumerate((60_000, 30, 10))
        ]
        for call in reversed(calls[1:]):
            with pytest.raises(WAMPError) as late:
                await call.result()
            assert late.value.uri == "wamp.error.timeout"
        handlers[0].proceed.set()
        assert (await calls[0].result()).args == ("result",)


@pytest.mark.spec("PRG-10")
async def test_progress_restarts_the_timeout() -> None:
    async def procedure() -> AsyncIterator[Any]:
        for _ in range(6):  # longer altogether than the timeout, and each time far shorter
            await anyio.sleep(0.1)
            yield RPCProgressReport()
        yield RPCResult(("end",))

    async with connect(serving(procedure)) as client:
        call = await client.start_call("procedure", receive_progress=True, options={"timeout": 450})
        assert (await call.result()).args == ("end",)


# ---- clients that leave


@pytest.mark.spec("CAL-09", "PRG-09", "WS-10", "VIO-01")
@pytest.mark.parametrize("how", ["disconnects", "says goodbye", "aborts", "breaks the protocol"])
async def test_a_client_that_leaves_ends_its_calls(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler, other = Handler(), Handler()
    app = serving(handler)
    app.route("other")(other)
    async with connect(app) as bystander:
        call = await bystander.start_call("other")
        async with connect(app) as client:
            await client.start_call("procedure")
            await happened(handler.started)
            if how == "disconnects":
                await client.disconnect()
            elif how == "says goodbye":
                assert await client.leave() == "wamp.close.goodbye_and_out"
            elif how == "aborts":
                await client.send([3, {}, "wamp.error.canceled"])
                assert await client.expect_close() == 1000
            else:
                await client.send([48, 0, {}, "procedure"])
                assert (await client.receive())[2] == "wamp.error.protocol_violation"
                assert "protocol violation: " in caplog.text
            await happened(handler.ended)
            assert handler.cancelled
        other.proceed.set()
        assert (await call.result()).args == ("result",)


async def test_the_server_closes_a_session_with_calls() -> None:
    handler = Handler()
    app = serving(handler)

    @app.route("close")
    async def close(session: Any) -> None:
        await session.close("wamp.close.killed", "enough")

    async with connect(app) as client:
        await client.start_call("procedure")
        await happened(handler.started)
        await client.start_call("close")
        assert await client.receive() == [6, {"message": "enough"}, "wamp.close.killed"]
        await happened(handler.ended)
        await client.send([6, {}, "wamp.close.goodbye_and_out"])
        assert await client.expect_close() == 1000
        assert client.take_all() == []
