"""Every limit: what the client gets, what the log says, and that nobody else notices."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgpack
import pytest

from serverwamp import (
    Application,
    ConfigurationError,
    Limits,
    RPCProgressReport,
    RPCResult,
    Session,
)
from serverwamp.testing import Client, HandshakeRefused, connect
from tests.helpers import connections_of, error_of, wait_all_tasks_blocked
from tests.sockets import connect_socket, serve, serve_aiohttp

VIOLATION = "wamp.error.protocol_violation"
UNBATCHED = ("wamp.2.json", "wamp.2.msgpack")
TIMEOUTS = [field.name for field in fields(Limits) if field.name.endswith("_timeout")]
COUNTS = [field.name for field in fields(Limits) if field.name not in TIMEOUTS]


async def echo(*args: Any) -> Any:
    return RPCResult(args)


def application(**limits: Any) -> Application:
    app = Application(limits=Limits(**limits))
    app.route("echo")(echo)

    @app.prefix_topic("news")
    async def news() -> AsyncIterator[None]:
        yield

    return app


def assert_noted(caplog: pytest.LogCaptureFixture, limit: str, times: int = 1) -> None:
    """Check that warnings name the limit, and nothing else is logged."""
    noted = [record.getMessage() for record in caplog.records]
    assert len(noted) == times, noted
    assert all(text.startswith(f"Limits.{limit}: ") for text in noted), noted
    assert {record.levelname for record in caplog.records} <= {"WARNING"}


async def assert_works(client: Client) -> None:
    assert (await client.call("echo", (5,))).args == (5,)
    await client.expect_nothing()


@pytest.mark.parametrize("name", [*TIMEOUTS, *COUNTS])
def test_limits_are_positive_numbers(name: str) -> None:
    for value in (0, -1, math.nan, None, "5"):
        with pytest.raises(ConfigurationError, match=f"Limits.{name} can't be "):
            Limits(**{name: value})
    assert getattr(Limits(**{name: math.inf}), name) == math.inf
    if name in COUNTS:
        with pytest.raises(ConfigurationError):
            Limits(**{name: 0.5})


def test_every_limit_is_in_the_guide() -> None:
    guide = Path(__file__).parent.parent / "docs" / "serving.rst"
    rows = re.findall(r"   \* - ``(\w+)``\n     - (.+)\n", guide.read_text("utf-8"))
    written = dict(rows)
    for field in fields(Limits):
        default = written.pop(field.name)
        for text, number in (
            (" MiB", "*1048576"),
            (" KiB", "*1024"),
            (" 000", "000"),
            ("none", "inf"),
        ):
            default = default.replace(text, number)
        assert math.prod(map(float, default.split("*"))) == field.default, field.name
    assert not written


# ---- the shape of a message


def nested(depth: int) -> Any:
    """Return arrays and maps by turns, `depth` of them in one another."""
    value: Any = 1
    for number in range(depth):
        value = {"a": value} if number % 2 else [value]
    return value


SHAPES: dict[str, tuple[Any, Any]] = {
    "message_values": ([0] * 80, [[0] * 50, [0] * 50]),
    # what is still allowed as an argument, and what isn't, where the limit is 100
    "message_depth": (nested(98), nested(99)),
    "array_length": ([0] * 100, [0] * 101),
    "map_length": (dict.fromkeys(map(str, range(100)), 0), dict.fromkeys(map(str, range(101)), 0)),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize("limit", SHAPES)
async def test_the_shape_of_a_message(
    limit: str, subprotocol: str, inside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(**{limit: 100})
    allowed, excessive = SHAPES[limit]
    if inside and limit != "message_depth":
        allowed, excessive = [{"a": [allowed]}], [{"a": [excessive]}]
    async with connect(app) as other, connect(app, subprotocol=subprotocol) as client:
        assert (await client.call("echo", (allowed,))).args == (allowed,)
        assert not caplog.records
        for _ in range(2):
            error = await error_of(client.call("echo", (excessive,)))
            assert error.uri == "wamp.error.invalid_argument"
            assert "100" in error.message
        assert (await client.call("echo", (allowed,))).args == (allowed,)
        error = await error_of(client.publish("news", (excessive,), acknowledge=True))
        assert error.uri == "wamp.error.invalid_argument"
        await client.publish("news", kwargs={"a": excessive})
        await assert_works(client)
        await assert_works(other)
    assert_noted(caplog, limit)


@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize("limit", SHAPES)
async def test_the_shape_of_what_is_no_request(
    limit: str, subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(**{limit: 100})
    excessive = SHAPES[limit][1]
    async with connect(app) as other:
        async with connect(app, None, subprotocol=subprotocol) as client:
            details = {"roles": {"caller": {}}, "authextra": {"a": excessive}}
            await client.send([1, "realm1", details])
            abort = await client.receive()
            assert (abort[0], abort[2]) == (3, VIOLATION)
            assert await client.expect_close() == 1002
        async with connect(app, subprotocol=subprotocol) as client:
            await client.send([6, {"a": excessive}, "wamp.close.close_realm"])
            assert (await client.receive())[2] == VIOLATION
            assert await client.expect_close() == 1002
        await assert_works(other)
    assert_noted(caplog, limit, times=2)


@pytest.mark.parametrize("subprotocol", UNBATCHED)
@pytest.mark.parametrize("limit", SHAPES)
async def test_the_shape_of_what_a_callee_answers(
    limit: str, subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application(client_register="tool", limits=Limits(**{limit: 100}))
    app.route("echo")(echo)
    excessive = SHAPES[limit][1]
    async with connect(app) as caller, connect(app, subprotocol=subprotocol) as callee:
        await callee.register("tool")
        for answer in ("result", "progress", "error"):
            call = await caller.start_call("tool", receive_progress=True)
            invocation = await callee.expect_invocation()
            if answer == "error":
                await invocation.error("com.failed", [excessive])
            else:
                await getattr(invocation, answer)([excessive])
            assert (await error_of(call.result())).uri == "wamp.error.runtime_error"
        await assert_works(callee)
        await assert_works(caller)
    assert_noted(caplog, limit)


@pytest.mark.parametrize("subprotocol", UNBATCHED)
async def test_what_looks_deep_and_long_but_isnt(subprotocol: str) -> None:
    app = application(message_depth=5, array_length=100, map_length=100, uri_length=100)
    flat: list[Any] = [
        "[" * 50 + "{" * 50 + "," * 1000 + ":" * 1000,
        "\x80\x90\x9f\udfff".encode("utf-16", "surrogatepass").decode("latin-1"),
        "\N{GRINNING FACE}" * 1000,
        [{"a": [number]} for number in range(90)],
        [[[], {}] for _ in range(90)],
        "]" * 1000,
        list(range(-100, 0)),
    ]
    async with connect(app, subprotocol=subprotocol) as client:
        assert (await client.call("echo", flat)).args == tuple(flat)
        assert (await error_of(client.call("echo", [*flat, [[[[]]]]]))).uri.endswith("_argument")
        assert (await error_of(client.call("echo", [*flat, [0] * 101]))).uri.endswith("_argument")


async def test_a_head_alone_that_claims_much() -> None:
    # The payload claims more than there is; what is before it can be answered.
    app = application(array_length=100)
    async with connect(app, subprotocol="wamp.2.msgpack") as client:
        head = msgpack.packb([48, 1, {}, "echo"])
        claims = b"\x95" + head[1:] + b"\xdc\xff\xff"
        await client.send_frame(claims + b"\xdc\xff\xff" * 1000)
        assert (await client.receive())[:5] == [8, 48, 1, {}, "wamp.error.invalid_argument"]
        await client.send_frame(b"\xdc\xff\xff" * 1000)
        assert (await client.receive())[2] == VIOLATION
    for head in (b"\xdc\xff\xff\x30\x01", b"\xdc\xff\xff\x30\x01\xdc\xff\xff"):
        async with connect(app, subprotocol="wamp.2.msgpack") as client:
            await client.send_frame(head + msgpack.packb(bytes(1000)))
            assert (await client.receive())[2] == VIOLATION


@pytest.mark.parametrize("subprotocol", UNBATCHED)
async def test_no_limit_of_shape(subprotocol: str) -> None:
    app = application(**dict.fromkeys((*SHAPES, "uri_length", "message_bytes"), math.inf))
    value = [nested(100), [0] * 100_001, dict.fromkeys(map(str, range(10_001)))]
    async with connect(app, subprotocol=subprotocol) as client:
        assert (await client.call("echo", value)).args == tuple(value)
        assert (await error_of(client.call("a" * 2000))).uri == "wamp.error.no_such_procedure"


@pytest.mark.parametrize("subprotocol", UNBATCHED)
async def test_the_length_of_a_uri(subprotocol: str, caplog: pytest.LogCaptureFixture) -> None:
    app = application(uri_length=100)
    allowed, excessive = "news" + "é" * 96, "news" + "é" * 97
    async with connect(app) as other:
        async with connect(app, allowed, subprotocol=subprotocol) as client:
            await client.subscribe(allowed)
            assert (await error_of(client.call(allowed))).uri == "wamp.error.no_such_procedure"
            assert not caplog.records
            for request in (
                client.subscribe(excessive),
                client.call(excessive),
                client.publish(excessive, acknowledge=True),
            ):
                error = await error_of(request)
                assert error.uri == "wamp.error.invalid_uri"
                assert "100" in error.message
            await client.send([64, client.next_request(), {}, excessive])
            assert (await client.receive())[4] == "wamp.error.invalid_uri"
            await client.publish(excessive)
            await assert_works(client)
        async with connect(app, None, subprotocol=subprotocol) as client:
            await client.send([1, excessive, {"roles": {"caller": {}}}])
            abort = await client.receive()
            assert (abort[0], abort[2]) == (3, "wamp.error.invalid_uri")
            assert await client.expect_close() == 1002
        await assert_works(other)
    assert_noted(caplog, "uri_length", times=2)


async def test_while_the_server_says_goodbye() -> None:
    app = application(uri_length=100)
    async with connect(app) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(app.close_sessions)
        assert (await client.receive())[0] == 6
        await client.send([48, 1, {}, "a" * 101])  # ignored, as everything else is now
        await client.send([6, {}, "wamp.close.goodbye_and_out"])
        assert await client.expect_close() == 1001


# ---- time


async def test_hello_in_time(caplog: pytest.LogCaptureFixture) -> None:
    app = application(hello_timeout=0.05)
    async with connect(app) as other:
        async with connect(app, None) as client:
            abort = await client.receive()
            assert (abort[0], abort[2]) == (3, VIOLATION)
            assert await client.expect_close() == 1002
        await assert_works(other)
    assert_noted(caplog, "hello_timeout")


async def test_authentication_in_time(caplog: pytest.LogCaptureFixture) -> None:
    app = application(authentication_timeout=0.05)
    app.set_ticket_authenticator(lambda session, ticket: "joe")
    async with connect(app, ticket="t") as other:
        async with connect(app, None) as client:
            details = {"roles": {"caller": {}}, "authmethods": ["ticket"]}
            await client.send([1, "realm1", details])
            assert (await client.receive())[0] == 4
            assert (await client.receive())[2] == "wamp.error.authentication_failed"
            assert await client.expect_close() == 1000
        await assert_works(other)
    assert_noted(caplog, "authentication_timeout")


async def test_goodbye_in_time(caplog: pytest.LogCaptureFixture) -> None:
    app = application(goodbye_timeout=0.05)
    async with connect(app) as client:
        await app.close_sessions()
        assert (await client.receive())[0] == 6
        assert await client.expect_close() == 1001
    assert_noted(caplog, "goodbye_timeout")


async def test_a_client_that_reads_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = application(outbound_messages=80, send_timeout=0.05, goodbye_timeout=0.05)
    async with connect(app) as other:
        (others,) = connections_of(app)
        async with connect(app) as client:
            (theirs,) = connections_of(app) - {others}
            client.pause()
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    for number in range(1, 1000):
                        await client.send([48, number, {}, "echo"])

                tasks.start_soon(call)
                with anyio.fail_after(5):
                    await theirs.wait_ended()
                tasks.cancel_scope.cancel()
            await assert_works(other)
    noted = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Limits.")]
    assert noted[0].startswith("Limits.send_timeout: ")


async def test_idle_sessions(caplog: pytest.LogCaptureFixture) -> None:
    app = application(idle_timeout=0.4)
    release = anyio.Event()
    ended: list[str] = []

    @app.route("wait")
    async def wait() -> None:
        await release.wait()

    @app.topic("topic")
    async def topic() -> AsyncIterator[None]:
        yield
        ended.append("topic")

    async with connect(app) as busy, connect(app) as lively, connect(app) as client:
        waiting = await busy.start_call("wait")
        began = anyio.current_time()
        await client.subscribe("topic")
        async with anyio.create_task_group() as tasks:

            async def live() -> None:
                while True:
                    await lively.call("echo")
                    await anyio.sleep(0.05)

            tasks.start_soon(live)
            text = "nothing was received for 0.4 seconds"
            assert await client.receive() == [6, {"message": text}, "wamp.close.killed"]
            assert anyio.current_time() - began >= 0.4
            assert ended == ["topic"]
            await client.send([6, {}, "wamp.close.goodbye_and_out"])
            assert await client.expect_close() == 1000
            tasks.cancel_scope.cancel()
        release.set()
        await waiting.result()
    assert_noted(caplog, "idle_timeout")


async def test_the_end_of_a_session_doesnt_wait_until_it_is_idle() -> None:
    app = application(idle_timeout=60)
    async with connect(app) as client:
        await assert_works(client)
        await client.leave()
        await client.join()
        await assert_works(client)


async def test_the_time_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    app = application(call_timeout=0.2)
    ended: list[Any] = []

    @app.route("wait")
    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("wait")

    @app.route("progress")
    async def progress() -> AsyncIterator[Any]:
        for _ in range(5):
            await anyio.sleep(0.05)
            yield RPCProgressReport()
        await anyio.sleep_forever()
        yield RPCResult()

    async with connect(app) as other, connect(app) as client:
        error = await error_of(client.call("wait", options={"timeout": 1}))
        assert error.uri == "wamp.error.timeout"
        assert not caplog.records
        calls = [
            await client.start_call("wait", options=options)
            for options in ({}, {"timeout": 10_000}, {"timeout": 10**400})
        ]
        for call in calls:
            assert (await error_of(call.result())).uri == "wamp.error.timeout"
            assert caplog.records
        assert ended == ["wait"] * 4
        call = await client.start_call("progress", receive_progress=True)
        for _ in range(5):
            await call.progress()
        assert (await error_of(call.result())).uri == "wamp.error.timeout"
        await assert_works(client)
        await assert_works(other)
    assert_noted(caplog, "call_timeout")


@pytest.mark.parametrize("batched", [False, True])
async def test_the_rate_of_messages(batched: bool, caplog: pytest.LogCaptureFixture) -> None:
    app = application(message_rate=5)
    subprotocol = "wamp.2.json.batched" if batched else "wamp.2.json"
    began = anyio.current_time()
    async with connect(app) as other, connect(app, subprotocol=subprotocol) as client:
        calls = [[48, number, {}, "echo", [number]] for number in range(1, 9)]
        if batched:
            await client.send(*calls)
        else:
            for call in calls:
                await client.send(call)
        for number in range(1, 5):  # HELLO was the first
            assert await client.receive() == [50, number, {}, [number]]
        await other.call("echo")
        for number in range(5, 9):  # one more would end the next second, too
            assert await client.receive() == [50, number, {}, [number]]
        assert anyio.current_time() - began >= 1
    assert_noted(caplog, "message_rate")


# ---- calls


class Waiting:
    """An application whose calls wait until they are told to end, or for ever."""

    def __init__(self, *, synchronize_requests: bool = False, **limits: Any) -> None:
        limits = {"goodbye_timeout": 0.1, **limits}
        self.app = Application(limits=Limits(**limits), synchronize_requests=synchronize_requests)
        self.app.route("wait")(self.wait)
        self.app.route("echo")(lambda *args: RPCResult(args))
        self.started: list[int] = []
        self.ended: list[int] = []
        self._events = [anyio.Event() for _ in range(200)]

    async def wait(self, number: int) -> int:
        self.started.append(number)
        try:
            await self._events[number].wait()
        finally:
            self.ended.append(number)
        return number

    def end(self, number: int) -> None:
        self._events[number].set()


async def test_calls_in_flight(caplog: pytest.LogCaptureFixture) -> None:
    waiting = Waiting(calls_in_flight=2)
    async with connect(waiting.app) as other, connect(waiting.app) as client:
        calls = [await client.start_call("wait", (number,)) for number in range(5)]
        await wait_all_tasks_blocked()
        assert waiting.started == [0, 1]
        await assert_works(other)
        waiting.end(1)
        assert (await calls[1].result()).args == (1,)
        await wait_all_tasks_blocked()
        assert waiting.started == [0, 1, 2]
        for number in (0, 2, 3, 4):
            waiting.end(number)
            assert (await calls[number].result()).args == (number,)
        assert waiting.started == [0, 1, 2, 3, 4]
        await assert_works(client)
    assert_noted(caplog, "calls_in_flight")


async def test_calls_in_flight_of_which_none_ends(caplog: pytest.LogCaptureFixture) -> None:
    waiting = Waiting(calls_in_flight=2, busy_timeout=0.2)
    async with connect(waiting.app) as other, connect(waiting.app) as client:
        calls = [await client.start_call("wait", (number,)) for number in range(50)]
        for call in calls[2:]:  # if each of them had to wait, it would take too long
            assert (await error_of(call.result())).uri == "wamp.error.unavailable"
        await assert_works(other)
        await calls[0].cancel("kill")
        assert (await error_of(calls[0].result())).uri == "wamp.error.canceled"
        call = await client.start_call("wait", (60,))
        late = await client.start_call("wait", (61,))
        await wait_all_tasks_blocked()
        assert waiting.started == [0, 1, 60]
        waiting.end(1)  # one has ended since, so the next one waits again
        assert (await calls[1].result()).args == (1,)
        for number, pending in ((60, call), (61, late)):
            waiting.end(number)
            assert (await pending.result()).args == (number,)
        await assert_works(client)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "Limits.calls_in_flight",
        "Limits.busy_timeout",
    ]


async def test_calls_that_wait_for_their_turn_count(caplog: pytest.LogCaptureFixture) -> None:
    waiting = Waiting(calls_in_flight=2, busy_timeout=0.1, synchronize_requests=True)
    async with connect(waiting.app) as client:
        calls = [await client.start_call("wait", (number,)) for number in range(3)]
        assert (await error_of(calls[2].result())).uri == "wamp.error.unavailable"
        for number in (0, 1):
            waiting.end(number)
            assert (await calls[number].result()).args == (number,)
        assert waiting.started == [0, 1]


@pytest.mark.parametrize("synchronize", [False, True])
async def test_a_client_that_vanishes_while_its_calls_are_at_the_limit(synchronize: bool) -> None:
    waiting = Waiting(calls_in_flight=2, busy_timeout=0.1, synchronize_requests=synchronize)
    async with connect(waiting.app) as client:
        (connection,) = connections_of(waiting.app)
        for number in range(10):
            await client.start_call("wait", (number,))
        await client.disconnect()
        with anyio.fail_after(5):
            await connection.wait_ended()
    assert waiting.started == sorted(waiting.ended) == ([0] if synchronize else [0, 1])


@pytest.mark.parametrize("how", ["shutdown", "close", "abort"])
async def test_a_session_that_ends_while_a_call_waits(how: str) -> None:
    waiting = Waiting(calls_in_flight=2, busy_timeout=60)
    sessions: list[Session] = []

    @waiting.app.route("remember")
    async def remember(session: Session) -> None:
        sessions.append(session)

    async with connect(waiting.app) as client, anyio.create_task_group() as tasks:
        await client.call("remember")
        for number in range(4):
            await client.start_call("wait", (number,))
        await wait_all_tasks_blocked()
        if how == "shutdown":
            tasks.start_soon(partial(waiting.app.close_sessions, grace=0.05))
            assert {(await client.receive())[0] for _ in range(2)} == {8}
        else:
            await getattr(sessions[0], how)("com.app.enough")
        assert (await client.receive())[0] == (3 if how == "abort" else 6)
        await client.expect_close()
    assert waiting.started == sorted(waiting.ended) == [0, 1]


# ---- how many


async def test_subscriptions_of_a_session(caplog: pytest.LogCaptureFixture) -> None:
    app = application(subscriptions=2)
    async with connect(app) as other, connect(app) as client:
        held = [await client.subscribe(topic) for topic in ("news.a", "news.b")]
        assert await client.subscribe("news.a") == held[0]
        for _ in range(2):
            error = await error_of(client.subscribe("news.c"))
            assert error.uri == "wamp.error.unavailable"
        await app.publish("news.a", (1,))
        assert (await client.expect_event(held[0])).args == (1,)
        await other.subscribe("news.c")
        await client.unsubscribe(held[1])
        await client.subscribe("news.c")
        await assert_works(client)
        await assert_works(other)
    assert_noted(caplog, "subscriptions")


@pytest.mark.parametrize("while_it", ["opens", "closes"])
async def test_subscribing_to_what_opens_or_closes(
    while_it: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application(limits=Limits(subscriptions=2))
    ready = anyio.Event()

    @app.topic("slow")
    async def slow() -> AsyncIterator[None]:
        if while_it == "opens":
            await ready.wait()
        yield
        if while_it == "closes":
            await ready.wait()

    async with connect(app) as client:
        if while_it == "closes":
            subscription = await client.subscribe("slow")
            await client.send([34, client.next_request(), subscription.id])
        numbers = [client.next_request() for _ in range(4)]
        for number in numbers:
            await client.send([32, number, {}, "slow"])
        for number in numbers[2:]:
            assert (await client.receive())[:5] == [8, 32, number, {}, "wamp.error.unavailable"]
        ready.set()
        if while_it == "closes":
            assert (await client.receive())[0] == 35
        for number in numbers[:2]:
            assert (await client.receive())[:2] == [33, number]
        await client.expect_nothing()
    assert_noted(caplog, "subscriptions")


async def test_sessions_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    app = application(sessions=2)
    asked: list[Any] = []
    app.add_transport_authenticator(lambda session: asked.append(session) or "joe")
    async with connect(app, None) as client:
        async with connect(app) as one, connect(app) as two:
            await client.send([1, "realm1", {"roles": {"caller": {}}}])
            abort = await client.receive()
            assert (abort[0], abort[2]) == (3, "wamp.error.unavailable")
            assert await client.expect_close() == 1000
            assert len(asked) == 2
            await assert_works(one)
            await assert_works(two)
        async with connect(app) as three:
            await assert_works(three)
    assert_noted(caplog, "sessions")


async def test_sessions_that_join_at_the_same_time(caplog: pytest.LogCaptureFixture) -> None:
    app = application(sessions=1)
    both = anyio.Event()
    waiting = 0

    async def authenticator(session: Any) -> str:
        nonlocal waiting
        waiting += 1
        if waiting == 2:
            both.set()
        await both.wait()
        return "joe"

    app.add_transport_authenticator(authenticator)
    async with connect(app, None) as one, connect(app, None) as two:
        for client in (one, two):
            await client.send([1, "realm1", {"roles": {"caller": {}}}])
        answers = [await client.receive() for client in (one, two)]
    assert sorted(answer[0] for answer in answers) == [2, 3]
    assert_noted(caplog, "sessions")


async def test_connections_without_a_session(caplog: pytest.LogCaptureFixture) -> None:
    app = application(unauthenticated_sessions=2)
    async with connect(app) as open_, connect(app, None) as one:
        async with connect(app, None):
            with pytest.raises(HandshakeRefused) as refused:
                async with connect(app):
                    pass
            assert refused.value.status == 503
            await assert_works(open_)
        async with connect(app, None):  # as soon as one is gone
            pass
        await one.join()
        async with connect(app), connect(app), connect(app, None), connect(app, None):
            await assert_works(one)
    (record,) = caplog.records
    assert "Limits.unauthenticated_sessions" in record.getMessage()


async def test_the_status_of_a_refused_handshake(anyio_backend: str) -> None:
    app = application(unauthenticated_sessions=1)
    servers: list[Any] = [serve] if anyio_backend == "trio" else [serve, serve_aiohttp]
    for server in servers:
        async with server(app) as port:
            for handshake, status in (
                ({"subprotocol": "soap"}, 400),
                ({"headers": {"origin": "http://other.example"}}, 403),
            ):
                with pytest.raises(HandshakeRefused) as refused:
                    async with connect_socket(port, **handshake):
                        pass
                assert refused.value.status == status
            async with connect_socket(port, None) as client:
                with pytest.raises(HandshakeRefused) as refused:
                    async with connect_socket(port):
                        pass
                assert refused.value.status == 503
                await client.join()
                async with connect_socket(port) as other:
                    await assert_works(other)


# ---- sizes


@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack"])
async def test_the_size_of_a_message_before_welcome(
    subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(unauthenticated_message_bytes=1000)
    hello = [1, "realm1", {"roles": {"caller": {}}, "authextra": {"a": "x" * 1000}}]
    async with connect(app) as other:
        async with connect(app, None, subprotocol=subprotocol) as client:
            await client.send(hello)
            assert (await client.receive())[2] == VIOLATION
            assert await client.expect_close() == 1009
        assert await other.call("echo", ["x" * 5000])
    assert_noted(caplog, "unauthenticated_message_bytes")


async def test_the_size_of_a_message(caplog: pytest.LogCaptureFixture) -> None:
    app = application(message_bytes=1000)
    async with connect(app) as other, connect(app) as client:
        assert await client.call("echo", ["x" * 900])
        await client.send_frame("x" * 1001)
        assert (await client.receive())[2] == VIOLATION
        assert await client.expect_close() == 1009
        await assert_works(other)
    assert_noted(caplog, "message_bytes")
