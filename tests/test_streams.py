"""Streams into calls: progressive call invocations, from a client to a handler."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import anyio
import pytest

from serverwamp import (
    Application,
    ConfigurationError,
    Converter,
    Limits,
    RPCProgressReport,
    RPCRequest,
    RPCResult,
    WAMPError,
)
from serverwamp.protocol.messages import Call, CallOptions
from serverwamp.protocol.state import REMEMBERED_STREAMS
from serverwamp.testing import Client, connect
from tests.helpers import connections_of, error_uri_of, serving, wait_all_tasks_blocked
from tests.test_session_state import State, session_in


async def total(numbers: AsyncIterator[int]) -> int:
    return sum([number async for number in numbers])


async def assert_violation(client: Client, text: str) -> None:
    message = await client.receive()
    assert message[0] == 3
    assert message[2] == "wamp.error.protocol_violation"
    assert text in message[1]["message"]
    assert await client.expect_close() == 1002


class Receiving:
    """An application that keeps what is streamed into its procedures, and waits when told to."""

    def __init__(self, **options: Any) -> None:
        limits = {"goodbye_timeout": 0.1, **options.pop("limits", {})}
        self.app = Application(limits=Limits(**limits), **options)
        self.app.route("stream")(self.stream)
        self.app.route("stuck")(self.stuck)
        self.app.route("echo")(lambda *args: RPCResult(args))
        self.received: list[Any] = []
        self.ended: list[Any] = []
        self.may_begin = anyio.Event()
        self.may_begin.set()

    async def stream(self, chunks: AsyncIterator[Any]) -> list[Any]:
        try:
            await self.may_begin.wait()
            async for chunk in chunks:
                self.received.append(chunk)
        except BaseException as error:
            self.ended.append(getattr(error, "uri", "cancelled"))
            raise
        self.ended.append("complete")
        return self.received

    async def stuck(self, chunks: AsyncIterator[Any]) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.append("cancelled")

    async def until_ended(self, *how: str) -> None:
        with anyio.fail_after(5):
            while self.ended != list(how):
                await anyio.lowlevel.checkpoint()


# ---- chunks and arguments


@pytest.mark.spec("PCI-01", "FEA-10")
@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack", "wamp.2.json.batched"])
async def test_chunks_reach_the_handler_one_by_one(subprotocol: str) -> None:
    receiving = Receiving()
    async with connect(receiving.app, subprotocol=subprotocol) as client:
        assert client.welcome["roles"]["dealer"]["features"]["progressive_call_invocations"] is True
        call = await client.start_call("stream", progress=True)
        for chunk in (b"\x00\xff", "text", None, [1, {"a": 2}]):
            await call.send_chunk(chunk)
            await wait_all_tasks_blocked()
            assert receiving.received[-1] == chunk
        await call.end_chunks()
        assert (await call.result()).args == (b"\x00\xff", "text", None, [1, {"a": 2}])
        assert receiving.ended == ["complete"]
        await client.expect_nothing()


@pytest.mark.parametrize(
    "messages",
    [
        [({}, [6])],
        [({"progress": True}, [6]), ({}, [])],
        [({"progress": True}, [1]), ({"progress": True}, [2]), ({}, [3])],
        [({"progress": True}, []), ({"progress": True}, [2]), ({"progress": False}, [4])],
        [({"progress": True}, []), ({"progress": True}, []), ({"progress": None}, [6])],
        [({"progress": True}, [], {"numbers": 1}), ({}, [], {"numbers": 5})],
        [({"progress": True}, [], {}), ({"progress": True}, None, {}), ({}, [6])],
    ],
)
async def test_the_first_and_the_last_call_may_bring_a_chunk(messages: list[Any]) -> None:
    async with connect(serving(total)) as client:
        for options, *payload in messages:
            await client.send([48, 1, options, "procedure", *payload])
        assert await client.receive() == [50, 1, {}, [6]]


async def test_a_call_without_any_chunk() -> None:
    async with connect(serving(total)) as client:
        assert (await client.call("procedure")).args == (0,)


async def test_other_arguments_come_with_the_first_call() -> None:
    async def procedure(
        name: str, /, chunks: AsyncIterator[int], size: int = 0, *, caller: RPCRequest, last: int
    ) -> Any:
        return [name, [chunk async for chunk in chunks], size, last, caller.args]

    async with connect(serving(procedure, camel_snake_conversion=True)) as client:
        first = [48, 1, {"progress": True}, "procedure", ["a", 1], {"size": 5, "last": 6}]
        await client.send(first)
        await client.send([48, 1, {"progress": True}, "procedure", ["2"]])
        await client.send([48, 1, {"progress": True}, "procedure", ["b", 3]])
        await client.send([48, 1, {"progress": True}, "procedure", ["c", 4, 7], {"last": 8}])
        await client.send([48, 1, {"progress": True}, "procedure", [], {"Chunks": 5}])
        await client.send([48, 1, {}, "procedure", [], {"last": 9}])
        assert await client.receive() == [50, 1, {}, ["a", [1, 2, 3, 4, 5], 5, 6, ["a", 1]]]


async def test_a_stream_by_name_only() -> None:
    async def procedure(name: str, *, chunks: AsyncIterator[int], session: Any) -> Any:
        return [name, [chunk async for chunk in chunks]]

    async with connect(serving(procedure)) as client:
        await client.send([48, 1, {"progress": True}, "procedure", ["a"], {"chunks": 1}])
        await client.send([48, 1, {"progress": True}, "procedure", [], {"chunks": 2}])
        await client.send([48, 1, {}, "procedure", [3]])
        assert await client.receive() == [50, 1, {}, ["a", [1, 2, 3]]]


@dataclass
class Point:
    x: float
    y: float = 0


@pytest.mark.parametrize(
    ("hint", "chunk", "converted"),
    [
        (AsyncIterator[Point], {"x": "1"}, "Point(x=1.0, y=0)"),
        (AsyncIterable[bytes], "aGVsbG8=", "b'hello'"),
        (AsyncGenerator[Decimal, None], 0.10, "Decimal('0.1')"),
        (AsyncIterator[tuple[int, str]], [1, "a"], "(1, 'a')"),
        (AsyncIterator[None], None, "None"),
        (AsyncIterator[Any], {"a": 1}, "{'a': 1}"),
        (AsyncIterator, [1], "[1]"),
        (Annotated[AsyncIterator[int], "text"], "7", "7"),
        ("AsyncIterator[int]", "7", "7"),
    ],
    ids=str,
)
async def test_chunks_are_converted(hint: Any, chunk: Any, converted: str) -> None:
    async def procedure(chunks: Any) -> list[str]:
        return [repr(chunk) async for chunk in chunks]

    procedure.__annotations__["chunks"] = hint
    async with connect(serving(procedure)) as client:
        call = await client.start_call("procedure", [chunk], progress=True)
        await call.send_chunk(chunk)
        await call.end_chunks()
        assert (await call.result()).args == (converted, converted)


async def test_digits_of_decimals_are_kept() -> None:
    async def procedure(numbers: AsyncIterator[Decimal]) -> list[Decimal]:
        return [number async for number in numbers]

    async with connect(serving(procedure)) as client:
        await client.send_frame('[48,1,{"progress":true},"procedure",[1.10]]')
        await client.send_frame('[48,1,{},"procedure",[2.500]]')
        assert await client.receive() == [50, 1, {}, ["1.10", "2.500"]]


async def test_what_is_no_stream() -> None:
    async def two(one: AsyncIterator[int], other: AsyncIterator[int]) -> None: ...
    async def rest(*chunks: AsyncIterator[int]) -> None: ...

    for function in (two, rest):
        with pytest.raises(
            ConfigurationError, match="more than one parameter for an async iterator"
        ):
            serving(function)


def test_publications_are_no_streams() -> None:
    async def publication(chunks: AsyncIterator[int]) -> None: ...

    app = Application()
    with pytest.raises(ConfigurationError, match="takes a stream: only procedures can"):
        app.publication("topic")(publication)


# ---- chunks that can't be used


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ([["x"]], "args[0]"),
        ([[1, "x"]], "args[1]"),
        ([[], {"number": 1}], "kwargs.number"),
        ([[], {"numbers": "x"}], "kwargs.numbers"),
    ],
)
async def test_a_chunk_that_is_invalid_ends_the_call(payload: list[Any], path: str) -> None:
    ended = []

    async def procedure(numbers: AsyncIterator[int]) -> None:
        try:
            await total(numbers)
        finally:
            ended.append([number async for number in numbers])

    async with connect(serving(procedure)) as client:
        await client.send([48, 1, {"progress": True}, "procedure", [1]])
        await client.send([48, 1, {"progress": True}, "procedure", *payload])
        await client.send([48, 1, {"progress": True}, "procedure", [3]])
        await client.send([48, 1, {"progress": True}, "procedure", [4]])
        reply = await client.receive()
        assert reply[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"]
        assert reply[6]["path"] == path
        await client.expect_nothing()
        assert ended == [[]]


@pytest.mark.parametrize("args", [["x"], [1, 2]])
async def test_a_first_chunk_that_is_invalid(args: list[Any]) -> None:
    async with connect(serving(total)) as client:
        call = await client.start_call("procedure", args, progress=True)
        await call.send_chunk(1)
        assert await error_uri_of(call.result()) == "wamp.error.invalid_argument"
        await call.end_chunks()
        await client.expect_nothing()


async def test_a_chunk_that_exceeds_a_limit_ends_the_call() -> None:
    receiving = Receiving(limits={"array_length": 10})
    async with connect(receiving.app) as client:
        call = await client.start_call("stream", progress=True)
        await call.send_chunk([0] * 11)
        await call.send_chunk(1)
        assert await error_uri_of(call.result()) == "wamp.error.invalid_argument"
        await receiving.until_ended("cancelled")
        first = await client.start_call("stream", [[0] * 11], progress=True)
        await first.send_chunk(1)
        assert await error_uri_of(first.result()) == "wamp.error.invalid_argument"
        await client.expect_nothing()
        assert receiving.ended == ["cancelled"]


@pytest.mark.spec("PCI-03", "ERR-feature_not_supported")
async def test_a_handler_without_a_stream() -> None:
    async def takes_one(number: int) -> int:
        return number

    async def takes_request(request: RPCRequest) -> None: ...

    gateway = Application()
    gateway.set_rpc_handler(takes_request)
    for app in (serving(takes_one), serving(takes_request), gateway):
        async with connect(app) as client:
            call = await client.start_call("procedure", [1], progress=True)
            await call.send_chunk(2)
            assert await error_uri_of(call.result()) == "wamp.error.feature_not_supported"
            await call.end_chunks()
            await client.expect_nothing()


async def test_a_procedure_that_nobody_serves() -> None:
    async with connect(Application()) as client:
        call = await client.start_call("nobody", progress=True)
        for chunk in range(100):
            await call.send_chunk(chunk)
        assert await error_uri_of(call.result()) == "wamp.error.no_such_procedure"
        await client.expect_nothing()


# ---- ids and options


@pytest.mark.spec("PCI-06", "PCI-07", "T-05")
async def test_other_requests_come_in_between() -> None:
    async with connect(serving(total)) as client:
        first = await client.start_call("procedure", [1], progress=True)
        second = await client.start_call("procedure", [10], progress=True)
        await client.publish("topic")
        await first.send_chunk(2)
        assert (await client.call("procedure", [5])).args == (5,)
        await second.send_chunk(20)
        await first.end_chunks()
        assert (await first.result()).args == (3,)
        await second.end_chunks()
        assert (await second.result()).args == (30,)
        await client.expect_nothing()


@pytest.mark.spec("PCI-06", "IDS-07", "VIO-02")
@pytest.mark.parametrize(
    ("message", "text"),
    [
        ([48, 1, {"progress": True}, "other", [1]], "another procedure"),
        ([48, 2, {}, "wait"], "request id 2 is in use"),
        ([48, 2, {"progress": True}, "wait"], "request id 2 is in use"),
        ([16, 1, {}, "procedure"], "request id 1 is in use"),
        ([32, 1, {}, "procedure"], "request id 1 is in use"),
    ],
)
async def test_a_repeated_id_that_is_no_continuation(message: list[Any], text: str) -> None:
    app = serving(total)
    app.route("other")(total)
    app.route("wait")(anyio.sleep_forever)
    async with connect(app) as client:
        await client.send([48, 1, {"progress": True}, "procedure"])
        await client.send([48, 2, {}, "wait"])
        assert (await client.send([48, 3, {"progress": True}, "procedure"])) is None
        await client.send([48, 3, {}, "procedure"])
        assert await client.receive() == [50, 3, {}, [0]]
        await client.send(message)
        await assert_violation(client, text)


@pytest.mark.spec("PCI-06", "IDS-07")
async def test_after_the_last_chunk_the_id_is_used_up() -> None:
    receiving = Receiving()
    receiving.may_begin = anyio.Event()
    async with connect(receiving.app) as client:
        call = await client.start_call("stream", progress=True)
        await call.end_chunks()
        await call.send_chunk(1)
        await assert_violation(client, "in use")


@pytest.mark.spec("PCI-06", "PCI-08", "CAN-12")
async def test_chunks_behind_the_answer_are_ignored() -> None:
    async def first(numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    async with connect(serving(first)) as client:
        call = await client.start_call("procedure", [1], progress=True)
        assert (await call.result()).args == (1,)
        for chunk in ("invalid", 2, 3):
            await call.send_chunk(chunk)
        await client.expect_nothing()
        await call.end_chunks()
        await client.expect_nothing()
        await client.send([48, call.request, {}, "procedure", [5]])  # the id is free again
        assert await client.receive() == [50, call.request, {}, [5]]


def test_only_so_many_answered_streams_are_remembered() -> None:
    session = session_in(State.OPEN)
    options = CallOptions(progress=True)
    calls = [Call(id_, options, "a.b") for id_ in range(1, REMEMBERED_STREAMS + 3)]
    for call in calls:
        assert session.receive(call)
    for call in calls:
        session.answered(call.request)
    assert session.receive(calls[-1]) is session.receive(calls[2]) is False
    assert session.receive(calls[1])


@pytest.mark.spec("PCI-05")
async def test_options_are_those_of_the_first_call() -> None:
    async def procedure(
        numbers: AsyncIterator[int], request: RPCRequest
    ) -> AsyncIterator[RPCResult]:
        async for number in numbers:
            yield RPCProgressReport([number])
        yield RPCResult([request.timeout, request.receive_progress])

    async with connect(serving(procedure)) as client:
        later = {"receive_progress": True, "timeout": 1, "disclose_me": True}
        await client.send([48, 1, {"progress": True}, "procedure"])
        await client.send([48, 1, {"progress": True, **later}, "procedure", [1]])
        await client.send([48, 1, later, "procedure", [2]])
        assert await client.receive() == [50, 1, {}, [0, False]]


async def test_clients_neednt_announce_it() -> None:
    async with connect(serving(total), roles={"caller": {}}) as client:
        call = await client.start_call("procedure", [1], progress=True)
        await call.end_chunks()
        assert (await call.result()).args == (1,)


# ---- both directions


@pytest.mark.spec("PCI-09")
async def test_progress_before_the_last_chunk() -> None:
    async def running_total(numbers: AsyncIterator[int]) -> AsyncIterator[RPCResult]:
        total = 0
        async for number in numbers:
            total += number
            yield RPCProgressReport([total])
        yield RPCResult(["total", total])

    async with connect(serving(running_total)) as client:
        call = await client.start_call("procedure", progress=True, receive_progress=True)
        for number, expected in ((1, 1), (2, 3), (3, 6)):
            await call.send_chunk(number)
            assert (await call.progress()).args == (expected,)
        await call.end_chunks()
        assert (await call.result()).args == ("total", 6)
        await client.expect_nothing()


async def test_the_result_may_come_before_the_last_chunk() -> None:
    closed = []

    async def procedure(numbers: AsyncIterator[int]) -> AsyncIterator[RPCResult]:
        async for number in numbers:
            yield RPCResult([number])
            break
        closed.append(number)

    app = serving(procedure, limits=Limits(stream_chunks=1))
    async with connect(app) as client:
        call = await client.start_call("procedure", [1], progress=True)
        assert (await call.result()).args == (1,)
        for chunk in range(10):
            await call.send_chunk(chunk)
        await client.expect_nothing()
    assert closed == [1]


# ---- back-pressure


@pytest.mark.parametrize(
    ("limits", "chunk", "most"),
    [({"stream_chunks": 5}, 0, 5), ({"stream_bytes": 1000}, "x" * 300, 3)],
)
async def test_a_slow_handler_is_waited_for(
    limits: dict[str, Any], chunk: Any, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiving = Receiving(limits=limits)
    receiving.may_begin = anyio.Event()
    async with connect(receiving.app) as client, connect(receiving.app) as other:
        call = await client.start_call("stream", progress=True)
        await wait_all_tasks_blocked()
        before = {connection: connection.received for connection in connections_of(receiving.app)}
        for _ in range(40):
            await call.send_chunk(chunk)
        await wait_all_tasks_blocked()
        taken = [connection.received - before[connection] for connection in before]
        assert max(taken) == most
        assert (await other.call("echo", [1])).args == (1,)
        receiving.may_begin.set()
        await call.end_chunks()
        assert (await call.result()).args == (chunk,) * 40
    assert not caplog.records


@pytest.mark.parametrize("handler", ["stuck", "stream"])
async def test_a_handler_that_takes_no_chunk(
    handler: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiving = Receiving(limits={"stream_chunks": 2, "busy_timeout": 0.1})
    if handler == "stream":
        receiving.may_begin = anyio.Event()
    async with connect(receiving.app) as client:
        call = await client.start_call(handler, progress=True)
        for chunk in range(20):
            await call.send_chunk(chunk)
        assert await error_uri_of(call.result()) == "wamp.error.unavailable"
        assert (await client.call("echo", [1])).args == (1,)
        await client.expect_nothing()
    assert [record.getMessage() for record in caplog.records] == [
        f"Limits.busy_timeout: a call of '{handler}' took no chunk for 0.1 seconds"
    ]


async def test_a_cancellation_behind_more_than_is_taken() -> None:
    receiving = Receiving(limits={"stream_chunks": 2, "busy_timeout": 0.1})
    async with connect(receiving.app) as client:
        call = await client.start_call("stuck", progress=True)
        for chunk in range(10):
            await call.send_chunk(chunk)
        await call.cancel()
        assert await error_uri_of(call.result()) == "wamp.error.unavailable"
        await receiving.until_ended("cancelled")
        await client.expect_nothing()


async def test_a_result_while_a_chunk_waits() -> None:
    may_end = anyio.Event()

    async def procedure(chunks: AsyncIterator[int]) -> str:
        await may_end.wait()
        return "result"

    app = serving(procedure, limits=Limits(stream_chunks=1))
    async with connect(app) as client:
        call = await client.start_call("procedure", progress=True, options={"timeout": 60_000})
        for chunk in range(5):
            await call.send_chunk(chunk)
        await wait_all_tasks_blocked()
        may_end.set()
        assert (await call.result()).args == ("result",)
        await client.expect_nothing()


@pytest.mark.parametrize("how", ["disconnect", "shutdown"])
async def test_an_end_while_a_chunk_waits(how: str) -> None:
    receiving = Receiving(limits={"stream_chunks": 2, "busy_timeout": 0.1})
    async with connect(receiving.app) as client:
        (connection,) = connections_of(receiving.app)
        call = await client.start_call("stuck", progress=True)
        for chunk in range(10):
            await call.send_chunk(chunk)
        await wait_all_tasks_blocked()
        if how == "disconnect":
            await client.disconnect()
        else:
            await receiving.app.close_sessions(grace=0)
        with anyio.fail_after(5):
            await connection.wait_ended()
    assert receiving.ended == ["cancelled"]


# ---- ends


@pytest.mark.spec("CAN-01", "CAN-02", "CAN-03", "CAN-04")
@pytest.mark.parametrize(
    ("mode", "ended"),
    [
        ("kill", "cancelled"),
        ("killnowait", "cancelled"),
        (None, "cancelled"),
        ("skip", "wamp.error.canceled"),
    ],
)
async def test_cancellation(mode: str | None, ended: str) -> None:
    receiving = Receiving()
    async with connect(receiving.app) as client:
        call = await client.start_call("stream", [1], progress=True)
        await call.send_chunk(2)
        await wait_all_tasks_blocked()
        await call.cancel(mode)
        await call.send_chunk(3)
        assert await error_uri_of(call.result()) == "wamp.error.canceled"
        await receiving.until_ended(ended)
        await call.send_chunk(4)
        await call.end_chunks()
        await client.expect_nothing()
    assert receiving.received == [1, 2]


@pytest.mark.spec("CAN-02")
async def test_what_is_complete_goes_on_for_nobody() -> None:
    receiving = Receiving()
    receiving.may_begin = anyio.Event()
    async with connect(receiving.app) as client:
        call = await client.start_call("stream", [1], progress=True)
        await call.send_chunk(2)
        await call.end_chunks()
        await call.cancel("skip")
        assert await error_uri_of(call.result()) == "wamp.error.canceled"
        receiving.may_begin.set()
        await receiving.until_ended("complete")
    assert receiving.received == [1, 2]


@pytest.mark.spec("CAL-09")
@pytest.mark.parametrize("leave", [Client.leave, Client.disconnect])
async def test_a_client_that_leaves(leave: Callable[[Client], Any]) -> None:
    receiving = Receiving()
    async with connect(receiving.app) as client:
        call = await client.start_call("stream", [1], progress=True)
        await call.send_chunk(2)
        await wait_all_tasks_blocked()
        await leave(client)
        await receiving.until_ended("cancelled")
    assert receiving.received == [1, 2]


@pytest.mark.spec("TMO-02", "PRG-10")
async def test_a_timeout_limits_each_wait_for_a_chunk() -> None:
    receiving = Receiving()
    async with connect(receiving.app) as client:
        began = anyio.current_time()
        call = await client.start_call("stream", progress=True, options={"timeout": 300})
        while anyio.current_time() < began + 0.4:
            await anyio.sleep(0.05)
            await call.send_chunk(1)
        assert receiving.ended == []
        assert await error_uri_of(call.result()) == "wamp.error.timeout"
        await receiving.until_ended("cancelled")
        await call.send_chunk(1)
        await client.expect_nothing()


async def test_chunks_that_had_to_wait_renew_the_time_limit() -> None:
    async def slow(chunks: AsyncIterator[int]) -> int:
        count = 0
        async for _ in chunks:
            await anyio.sleep(0.1)
            count += 1
        return count

    app = serving(slow, limits=Limits(stream_chunks=1))
    async with connect(app) as client:
        call = await client.start_call("procedure", progress=True, options={"timeout": 450})
        for chunk in range(6):
            await call.send_chunk(chunk)
        await call.end_chunks()
        assert (await call.result()).args == (6,)


async def test_a_shutdown_gives_streams_their_time() -> None:
    receiving = Receiving()
    async with connect(receiving.app) as client, anyio.create_task_group() as tasks:
        call = await client.start_call("stream", [1], progress=True)
        tasks.start_soon(receiving.app.close_sessions)
        await wait_all_tasks_blocked()
        await call.send_chunk(2)
        await call.end_chunks()
        assert (await call.result()).args == (1, 2)
        assert (await client.receive())[0] == 6


async def test_a_handler_that_closes_its_stream() -> None:
    async def procedure(numbers: AsyncGenerator[int, None]) -> list[Any]:
        taken: list[Any] = [await numbers.asend(None), await numbers.__anext__()]
        await numbers.aclose()
        taken += [number async for number in numbers]
        with pytest.raises(KeyError):
            await numbers.athrow(KeyError("key"))
        with pytest.raises(KeyError):
            await numbers.athrow(KeyError, KeyError("key"))
        return taken

    async with connect(serving(procedure)) as client:
        call = await client.start_call("procedure", progress=True)
        for chunk in (1, 2, 3, 4):
            await call.send_chunk(chunk)
        assert (await call.result()).args == (1, 2)
        await client.expect_nothing()


async def test_chunks_for_a_handler_that_has_closed_its_stream() -> None:
    may_end = anyio.Event()

    async def procedure(numbers: AsyncGenerator[int, None]) -> str:
        await numbers.aclose()
        await may_end.wait()
        return "result"

    app = serving(procedure, limits=Limits(stream_chunks=1))
    async with connect(app) as client:
        call = await client.start_call("procedure", progress=True)
        await wait_all_tasks_blocked()
        for chunk in range(10):
            await call.send_chunk(chunk)
        await call.end_chunks()
        await wait_all_tasks_blocked()
        may_end.set()
        assert (await call.result()).args == ("result",)
        await client.expect_nothing()


async def test_two_tasks_share_a_stream() -> None:
    async def procedure(numbers: AsyncIterator[int]) -> int:
        sums = [0, 0]

        async def add(index: int) -> None:
            async for number in numbers:
                sums[index] += number

        async with anyio.create_task_group() as tasks:
            for index in range(2):
                tasks.start_soon(add, index)
        return sum(sums)

    async with connect(serving(procedure)) as client:
        call = await client.start_call("procedure", progress=True)
        for chunk in range(10):
            await call.send_chunk(chunk)
            await wait_all_tasks_blocked()
        await call.end_chunks()
        assert (await call.result()).args == (45,)


# ---- beside other things


class Odd:
    def __init__(self, value: Any) -> None:
        raise LookupError("a bug")


async def test_default_args_learn_of_an_invalid_chunk() -> None:
    log = []

    async def transaction() -> AsyncIterator[str]:
        try:
            yield "transaction"
        except WAMPError as error:
            log.append(error.uri)
            raise

    async def procedure(transaction: str, numbers: AsyncIterator[int]) -> int:
        return await total(numbers)

    app = serving(procedure)
    app.add_default_arg("transaction", factory=transaction)
    async with connect(app) as client:
        call = await client.start_call("procedure", [1], progress=True)
        await call.send_chunk("x")
        assert await error_uri_of(call.result()) == "wamp.error.invalid_argument"
    assert log == ["wamp.error.invalid_argument"]


async def test_calls_one_by_one() -> None:
    receiving = Receiving(synchronize_requests=True)
    async with connect(receiving.app) as client:
        first = await client.start_call("stream", [1], progress=True)
        second = await client.start_call("stream", [10], progress=True)
        await second.send_chunk(20)
        await first.send_chunk(2)
        await second.end_chunks()
        await first.end_chunks()
        assert (await first.result()).args == (1, 2)
        assert (await second.result()).args == (1, 2, 10, 20)


async def test_a_stream_that_waits_for_its_turn_may_be_cancelled() -> None:
    receiving = Receiving(synchronize_requests=True)
    async with connect(receiving.app) as client:
        first = await client.start_call("stream", [1], progress=True)
        second = await client.start_call("stream", [10], progress=True)
        await second.cancel()
        await second.send_chunk(20)
        assert await error_uri_of(second.result()) == "wamp.error.canceled"
        await first.end_chunks()
        assert (await first.result()).args == (1,)
        await client.expect_nothing()


async def test_streams_are_among_the_calls_in_flight() -> None:
    receiving = Receiving(limits={"calls_in_flight": 2, "busy_timeout": 0.1})
    async with connect(receiving.app) as client:
        calls = [await client.start_call("stream", progress=True) for _ in range(3)]
        for call in calls:
            await call.send_chunk(1)
            await call.end_chunks()
        assert await error_uri_of(calls[2].result()) == "wamp.error.unavailable"
        for call in calls[:2]:
            await call.result()
        assert receiving.received == [1, 1]
        await client.expect_nothing()
        assert receiving.app.statistics().calls_in_flight == 0


async def test_what_fails_in_a_stream_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def procedure(chunks: AsyncIterator[Annotated[Odd, Converter(Odd)]]) -> None:
        async for _ in chunks:
            pass

    async with connect(serving(procedure)) as client:
        call = await client.start_call("procedure", progress=True)
        await call.send_chunk(1)
        assert await error_uri_of(call.result()) == "wamp.error.invalid_argument"
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_many_small_chunks() -> None:
    app = serving(total, limits=Limits(message_rate=math.inf))
    async with connect(app) as client:
        call = await client.start_call("procedure", progress=True)
        for chunk in range(5_000):
            await call.send_chunk(chunk)
        await call.end_chunks()
        assert (await call.result()).args == (sum(range(5_000)),)
