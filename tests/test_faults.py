"""What goes wrong inside: servers that fail, handlers that misbehave at every moment, and bugs."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import pydantic
import pytest

from serverwamp import (
    Application,
    ConfigurationError,
    Limits,
    RPCErrorResult,
    RPCProgressReport,
    RPCRequest,
    RPCResult,
    Session,
    WAMPError,
)
from serverwamp.peer import caller, deadlines, joining
from serverwamp.testing import ASGIEvent, connect
from tests.helpers import connections_of, wait_all_tasks_blocked

HELLO = [1, "realm1", {"roles": {"caller": {}}}]


class Server:
    """An ASGI server that is told what to receive, and fails when it is told to."""

    def __init__(
        self,
        *messages: Any,
        fails_at: Callable[[ASGIEvent], bool] | None = None,
        failure: type[Exception] = OSError,
        client_leaves: bool = False,
        receive_waits: bool = True,
        send_waits: bool = True,
    ) -> None:
        self.sent: list[ASGIEvent] = []
        self._fails_at = fails_at
        self._failure = failure
        self._client_leaves = client_leaves
        self._receive_waits = receive_waits
        self._send_waits = send_waits
        self._events: list[ASGIEvent] = [{"type": "websocket.connect"}] + [
            {"type": "websocket.receive", "text": json.dumps(message)} for message in messages
        ]

    async def serve(self, app: Application, subprotocol: str = "wamp.2.json") -> None:
        scope = {"type": "websocket", "path": "/", "subprotocols": [subprotocol], "headers": []}
        with anyio.fail_after(5):
            await app(scope, self._receive, self._send)

    async def _receive(self) -> Any:
        if self._receive_waits:  # uvicorn doesn't for what it has received already
            await anyio.lowlevel.checkpoint()
        if not self._events and self._client_leaves:
            return {"type": "websocket.disconnect", "code": 1006}
        if not self._events:
            raise RuntimeError("the server is broken")
        return self._events.pop(0)

    async def _send(self, event: ASGIEvent) -> None:
        if self._send_waits:  # uvicorn doesn't while the network takes everything
            await anyio.lowlevel.checkpoint()
        if self._fails_at is not None and self._fails_at(event):
            raise self._failure("it can't be sent")
        self.sent.append(event)


@pytest.mark.parametrize("messages", [(), (HELLO,), (HELLO, [48, 1, {}, "nowhere"])])
async def test_a_server_whose_receive_fails(
    messages: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    server = Server(*messages)
    await server.serve(app)
    assert server.sent[-1]["type"] == "websocket.close"
    assert server.sent[-1]["code"] == 1011
    assert "the server is broken" in caplog.text
    assert not connections_of(app)
    assert not app.sessions


REQUESTS = (HELLO, [48, 1, {}, "nowhere"], ["nonsense"])


@pytest.mark.parametrize("kind", ["accept", "send", "close"])
async def test_a_client_that_is_gone_is_no_error(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    server = Server(*REQUESTS, fails_at=lambda event: event["type"] == f"websocket.{kind}")
    await server.serve(app)
    assert not connections_of(app)
    assert not app.sessions
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("kinds", [("send", "close"), ("close",)])
async def test_a_client_that_is_gone_before_the_application_knows(
    kinds: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers raise RuntimeError until the application has received the disconnection."""
    app = Application()
    server = Server(
        *REQUESTS,
        fails_at=lambda event: event["type"].removeprefix("websocket.") in kinds,
        failure=RuntimeError,
        client_leaves=True,
    )
    await server.serve(app)
    assert not connections_of(app)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("failure", [ValueError, RuntimeError, TypeError, AssertionError])
@pytest.mark.parametrize("kinds", [("accept",), ("close",), ("send", "close")])
async def test_a_server_that_refuses_to_close(
    kinds: tuple[str, ...], failure: type[Exception]
) -> None:
    """As Daphne does with most codes. The exception makes it drop the connection."""
    app = Application()
    server = Server(
        *REQUESTS,
        fails_at=lambda event: event["type"].removeprefix("websocket.") in kinds,
        failure=failure,
    )
    with pytest.raises(failure, match="it can't be sent"):
        await server.serve(app)
    assert not connections_of(app)
    assert not app.sessions
    assert app.statistics().unauthenticated_sessions == 0


@pytest.mark.parametrize("refused", ["[2,", "[8,", "[3,"])
async def test_a_server_that_refuses_a_message(
    refused: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    attempts: list[str] = []

    def is_refused(event: ASGIEvent) -> bool:
        text = event.get("text", "")
        if text.startswith(refused):
            attempts.append(text)
        return text.startswith(refused)

    server = Server(*REQUESTS, fails_at=is_refused, failure=ValueError)
    await server.serve(app)
    assert server.sent[-1]["type"] == "websocket.close"
    assert [event["code"] for event in server.sent if "code" in event] in ([1011], [1002])
    # The call has no answer yet if its task begins after the violation.
    assert attempts or refused == "[8,"
    assert caplog.text.count("the server refused a message") == len(attempts) <= 1
    assert not connections_of(app)


async def test_a_server_that_refuses_to_close_while_it_shuts_down() -> None:
    app = Application(limits=Limits(goodbye_timeout=0.1))
    async with anyio.create_task_group() as tasks:
        is_open = anyio.Event()

        async def receive() -> ASGIEvent:
            if not server._events:
                is_open.set()
                await anyio.sleep_forever()
            return await Server._receive(server)

        def fails_at(event: ASGIEvent) -> bool:
            return event["type"] == "websocket.close"

        server = Server(HELLO, fails_at=fails_at, failure=ValueError)
        server._receive = receive  # type: ignore[method-assign]

        async def serve() -> None:
            with pytest.raises(ValueError, match="it can't be sent"):
                await server.serve(app)

        tasks.start_soon(serve)
        await is_open.wait()
        await app.close_sessions(grace=0)
    assert not connections_of(app)


@pytest.mark.parametrize(("failure", "is_quiet"), [(OSError, True), (ValueError, False)])
async def test_a_server_that_refuses_to_refuse(failure: type[Exception], is_quiet: bool) -> None:
    server = Server(fails_at=lambda event: True, failure=failure)
    if is_quiet:
        await server.serve(Application(), "chat")
    else:
        with pytest.raises(failure):
            await server.serve(Application(), "chat")
    assert server.sent == []


class SlowServer(Server):
    """An ASGI server that takes its time for the first RESULT; the client may leave meanwhile."""

    def __init__(self, *messages: Any, heeds_cancellation: bool, client_leaves: bool) -> None:
        super().__init__(*messages)
        self.was_cancelled = False
        self._heeds_cancellation = heeds_cancellation
        self._client_leaves = client_leaves
        self._is_sending = anyio.Event()

    async def _receive(self) -> Any:
        if self._events:
            return await super()._receive()
        await self._is_sending.wait()
        if not self._client_leaves:
            await anyio.sleep_forever()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, event: ASGIEvent) -> None:
        if event.get("text", "").startswith("[50,") and not self._is_sending.is_set():
            self._is_sending.set()
            with anyio.CancelScope(shield=not self._heeds_cancellation):
                try:
                    await anyio.sleep(0.5 if self._heeds_cancellation else 0.05)
                except anyio.get_cancelled_exc_class():
                    self.was_cancelled = True
                    raise
            self.sent.append(event)
        else:
            await super()._send(event)


async def test_a_reply_after_a_cancellation_that_was_swallowed(anyio_backend: str) -> None:
    app = Application()

    @app.route("procedure")
    async def procedure() -> None:
        if anyio_backend == "asyncio":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await anyio.lowlevel.checkpoint()

    call = [48, 1, {}, "procedure"]
    server = SlowServer(HELLO, call, heeds_cancellation=True, client_leaves=True)
    await server.serve(app)
    assert server.was_cancelled


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio lets nobody cancel others' tasks
async def test_the_task_of_a_call_is_cancelled_while_it_sends(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What has left of the RESULT is unknown: nothing may follow, and nothing wait."""
    caplog.set_level("INFO")
    app = Application(limits=Limits(goodbye_timeout=0.1))
    tasks: list[Any] = []

    @app.route("procedure")
    async def procedure() -> None:
        tasks.append(asyncio.current_task())

    @app.route("cancel")
    async def cancel() -> None:
        tasks[0].cancel()

    calls = [[48, 1, {}, "procedure"], [48, 2, {}, "nowhere"], [48, 3, {}, "cancel"]]
    server = SlowServer(HELLO, *calls, heeds_cancellation=True, client_leaves=False)
    await server.serve(app)
    assert server.was_cancelled
    types = [event["type"].partition(".")[2] for event in server.sent]
    assert types == ["accept", "send", "close"]  # with WELCOME
    assert "sending was cancelled: the client is disconnected" in caplog.messages


async def test_a_send_that_goes_on_after_the_client_has_left() -> None:
    app = Application()
    statistics = []

    async def lifespan() -> AsyncIterator[None]:
        yield
        statistics.append(app.statistics())

    @app.route("procedure")
    async def procedure() -> str:
        return "result"

    app.add_session_lifespan_handler(lifespan, authenticated_only=False)
    call = [48, 1, {}, "procedure"]
    server = SlowServer(HELLO, call, heeds_cancellation=False, client_leaves=True)
    await server.serve(app)
    assert [(item.outbound_messages, item.outbound_bytes) for item in statistics] == [(0, 0)]


@pytest.mark.parametrize("message", [[49, 1, {}], [34, 1, 1]])
async def test_a_client_that_has_sent_much_at_once(message: list[Any]) -> None:
    """A server that has it all needn't wait for anything; others have a turn nevertheless."""
    requests = [[message[0], number, *message[2:]] for number in range(1, 1001)]
    server = Server(HELLO, *requests, receive_waits=False, send_waits=False)
    turns = 0
    async with anyio.create_task_group() as tasks:

        async def others() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        tasks.start_soon(others)
        await server.serve(Application())
        tasks.cancel_scope.cancel()
    assert turns >= 10


async def test_what_comes_after_a_violation_is_taken_from_the_server() -> None:
    """hypercorn would keep the connection as long as something is left, for ever."""
    server = Server(HELLO, ["nonsense"])
    rest: list[ASGIEvent] = [
        *[{"type": "websocket.receive", "text": "more"}] * 20,
        {"type": "websocket.disconnect", "code": 1006},
    ]
    server._events += rest + rest
    await server.serve(Application())
    assert not server._events


@pytest.mark.parametrize("receive_progress", [True, False])
async def test_a_handler_that_only_sends_can_be_cancelled(receive_progress: bool) -> None:
    app = Application()

    @app.route("report")
    async def report() -> AsyncIterator[Any]:
        for _ in range(2000):
            yield RPCProgressReport()
        yield RPCResult(("it wasn't cancelled",))

    call = [48, 1, {"receive_progress": receive_progress}, "report"]
    server = Server(HELLO, call, [49, 1, {}], send_waits=False)
    await server.serve(app)
    answers = [json.loads(event["text"])[:5] for event in server.sent if "text" in event]
    assert [8, 48, 1, {}, "wamp.error.canceled"] in answers


async def test_a_bug_ends_one_session(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()

    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    async with connect(app) as other, connect(app) as client:
        with monkeypatch.context() as patched:
            patched.setattr(caller.CallerRole, "cancel", broken)
            await client.send([49, 1, {}])
            assert (await client.receive())[2] == "wamp.error.runtime_error"
            assert await client.expect_close() == 1011
        assert "a bug" not in "".join(client.transcript)
        await other.expect_nothing()
    assert "a bug" in caplog.text


async def test_a_bug_in_what_a_session_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    app.route("wait")(anyio.sleep_forever)

    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    async with connect(app) as other:
        monkeypatch.setattr(deadlines.Deadlines, "_time_out", broken)
        async with connect(app) as client:
            await client.start_call("wait", options={"timeout": 1})
            assert await client.expect_close() == 1011
        await other.expect_nothing()
    assert "a bug" in caplog.text


async def test_session_ids_are_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter((5, 5, 5, 6))
    monkeypatch.setattr(joining, "new_session_id", lambda: next(ids))
    app = Application()
    async with connect(app) as one, connect(app) as two:
        assert (one.session, two.session) == (5, 6)


# ---- handlers


async def test_a_cancellation_in_company() -> None:
    started = anyio.Event()

    class Other(BaseException):
        pass

    async def procedure() -> None:
        try:
            started.set()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            raise BaseExceptionGroup("both", [cancelled, Other()]) from None

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        call = await client.start_call("procedure")
        await started.wait()
        await call.cancel("kill")
        with pytest.raises(WAMPError):
            await call.result()
        await client.expect_nothing()


async def test_an_iterator_that_ends_without_a_result() -> None:
    class Iterator:
        def __aiter__(self) -> Iterator:
            return self

        async def __anext__(self) -> None:
            raise StopAsyncIteration

    app = Application()
    app.route("procedure")(Iterator)
    async with connect(app) as client:
        with pytest.raises(WAMPError) as error:
            await client.call("procedure")
        assert error.value.uri == "wamp.error.runtime_error"


async def test_timeouts_that_progress_has_outdated() -> None:
    proceed = anyio.Event()

    async def reports() -> AsyncIterator[Any]:
        yield RPCProgressReport()
        await proceed.wait()
        yield RPCResult(("end",))

    app = Application()
    app.route("reports")(reports)
    app.route("waits")(proceed.wait)
    async with connect(app) as client:
        first = await client.start_call("reports", receive_progress=True, options={"timeout": 2000})
        second = await client.start_call("waits", options={"timeout": 50})
        with pytest.raises(WAMPError) as late:
            await second.result()
        assert late.value.uri == "wamp.error.timeout"
        third = await client.start_call("waits", options={"timeout": 1})
        with pytest.raises(WAMPError):
            await third.result()
        proceed.set()
        assert (await first.result()).args == ("end",)


async def test_a_subscription_handler_that_closes_its_session() -> None:
    closed = anyio.Event()

    async def handler(session: Session) -> AsyncIterator[None]:
        await session.close("com.app.no_more")
        yield
        closed.set()

    app = Application()
    app.topic("topic")(handler)
    async with connect(app) as client:
        await client.send([32, 1, {}, "topic"])
        assert await client.receive() == [6, {}, "com.app.no_more"]
        await client.send([6, {}, "wamp.close.goodbye_and_out"])
        assert await client.expect_close() == 1000
        assert client.take_all() == []


async def test_a_session_that_ends_while_a_subscription_closes() -> None:
    closing, proceed = anyio.Event(), anyio.Event()

    async def handler() -> AsyncIterator[None]:
        yield
        closing.set()
        await proceed.wait()

    app = Application()
    app.topic("topic")(handler)
    async with connect(app) as client:
        subscription = await client.subscribe("topic")
        await client.send([34, 2, subscription.id])
        with anyio.fail_after(5):
            await closing.wait()
        assert await client.leave() == "wamp.close.goodbye_and_out"
        proceed.set()
        await client.join()
        await client.expect_nothing()


async def test_a_lifespan_handler_that_aborts() -> None:
    asked: list[str] = []

    async def handler(session: Session) -> AsyncIterator[None]:
        await session.abort("com.app.closed")
        yield

    app = Application()
    app.add_session_lifespan_handler(handler, authenticated_only=False)
    app.add_session_lifespan_handler(handler)
    with pytest.raises(WAMPError) as refused:
        async with connect(app):
            pass
    assert refused.value.uri == "com.app.closed"
    assert not asked


async def test_authenticators_with_default_args() -> None:
    closed: list[str] = []

    def database() -> Any:
        yield {"ticket": "joe"}
        closed.append("database")

    async def authenticator(session: Session, ticket: str, db: Any, *, more: int = 5) -> Any:
        assert more == 5
        return db.get(ticket)

    app = Application()
    app.add_default_arg("db", factory=database)
    app.set_ticket_authenticator(authenticator)
    async with connect(app, ticket="ticket"):
        assert closed == ["database"]


async def test_a_burst_of_events_for_a_client_that_reads_nothing() -> None:
    sessions: list[Session] = []

    async def handler(session: Session) -> AsyncIterator[None]:
        sessions.append(session)
        yield

    app = Application(limits=Limits(outbound_messages=100, goodbye_timeout=0.1))
    app.topic("topic")(handler)
    async with connect(app) as client:
        await client.subscribe("topic")
        client.pause()
        for number in range(1000):
            await app.publish("topic", (number,))
        with anyio.fail_after(5):
            while sessions[0].is_open:
                await anyio.lowlevel.checkpoint()
        client.resume()
        assert await client.expect_close() == 1008
    assert not connections_of(app)


async def test_a_long_queue_of_synchronized_calls() -> None:
    gate = anyio.Event()

    async def procedure(number: int) -> int:
        if number == 1:
            await gate.wait()
        return number

    app = Application(synchronize_requests=True)
    app.route("procedure")(procedure)
    async with connect(app, subprotocol="wamp.2.json.batched") as client:
        count = 2000
        await client.send(*([48, n, {}, "procedure", [n]] for n in range(1, count + 1)))
        gate.set()
        for number in range(1, count + 1):
            assert await client.receive() == [50, number, {}, [number]]


async def test_synchronized_calls_have_contexts_of_their_own() -> None:
    variable = contextvars.ContextVar("variable", default="clean")

    async def procedure() -> str:
        found = variable.get()
        variable.set("dirty")
        await anyio.lowlevel.checkpoint()
        return found

    app = Application(synchronize_requests=True)
    app.route("procedure")(procedure)
    async with connect(app) as client:
        calls = [await client.start_call("procedure") for _ in range(3)]
        assert [(await call.result()).args for call in calls] == [("clean",)] * 3


async def test_an_id_that_is_in_use() -> None:
    app = Application()
    app.route("wait")(anyio.sleep_forever)
    async with connect(app) as client:
        for request in (1, 2**53, 1):
            await client.send([48, request, {}, "wait"])
        assert (await client.receive())[2] == "wamp.error.protocol_violation"
    assert not connections_of(app)


async def test_batches_dont_bypass_back_pressure() -> None:
    produced = 0

    async def procedure() -> str:
        nonlocal produced
        produced += 1
        return "x" * 10_000

    limits = Limits(outbound_bytes=800_000, send_timeout=5)
    app = Application(limits=limits)
    app.route("procedure")(procedure)
    async with connect(app, subprotocol="wamp.2.json.batched") as client:
        client.pause()
        await client.send(*([48, n, {}, "procedure"] for n in range(1, 1001)))
        for _ in range(3000):
            await anyio.lowlevel.checkpoint()
        assert produced < 900
        client.resume()
        for number in range(1, 1001):
            assert (await client.receive())[1] == number


@pytest.mark.parametrize("final", [RPCResult((1,)), RPCErrorResult("x.y")])
async def test_generators_that_yield_inside_of_a_scope(
    final: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def procedure() -> AsyncIterator[Any]:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.lowlevel.checkpoint)
                yield RPCProgressReport()
                yield final

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        call = await client.start_call("procedure", receive_progress=True)
        if isinstance(final, RPCResult):
            assert (await call.result()).args == (1,)
        else:
            with pytest.raises(WAMPError, match=r"x\.y"):
                await call.result()
    assert not caplog.records


async def test_timeouts_of_answered_calls_are_forgotten() -> None:
    app = Application()
    app.route("procedure")(lambda: None)
    async with connect(app) as client:
        for _ in range(500):
            await client.call("procedure", options={"timeout": 3_600_000})
        (connection,) = connections_of(app)
        assert len(connection._engine.caller._deadlines._entries) < 150
        await client.call("procedure", options={"timeout": 2**53})
        await client.send_frame(f'[48,502,{{"timeout":{10**400}}},"procedure"]')
        assert await client.receive() == [50, 502, {}, [None]]


@pytest.mark.spec("CAL-01")
async def test_a_factory_that_swallows_a_cancellation() -> None:
    started = anyio.Event()

    async def factory() -> AsyncIterator[int]:
        try:
            yield 1
        except BaseException:
            pass

    async def procedure(value: Any) -> None:
        started.set()
        await anyio.sleep_forever()

    app = Application()
    app.add_default_arg("value", factory=factory)
    app.route("procedure")(procedure)
    async with connect(app) as client:
        call = await client.start_call("procedure")
        await started.wait()
        await call.cancel("kill")
        with pytest.raises(WAMPError, match="canceled"):
            await call.result()


@pytest.mark.parametrize("how", ["cancel", "disconnect"])
async def test_what_a_factory_closes_is_not_cancelled(how: str) -> None:
    started, closed = anyio.Event(), anyio.Event()

    async def factory() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.lowlevel.checkpoint()
            closed.set()

    async def procedure(value: Any) -> None:
        started.set()
        await anyio.sleep_forever()

    app = Application()
    app.add_default_arg("value", factory=factory)
    app.route("procedure")(procedure)
    async with connect(app) as client:
        call = await client.start_call("procedure")
        with anyio.fail_after(5):
            await started.wait()
            if how == "cancel":
                await call.cancel("kill")
            else:
                await client.disconnect()
            await closed.wait()


@pytest.mark.parametrize("before", ["the answer", "CANCEL", "a failure"])
async def test_a_session_that_ends_while_a_call_closes(before: str) -> None:
    """What is being closed comes to its end, though the session has nothing to wait for."""
    started, closing, proceed = anyio.Event(), anyio.Event(), anyio.Event()
    closed: list[str] = []

    async def factory() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closing.set()
            await proceed.wait()
            closed.append("factory")

    async def procedure(value: Any) -> None:
        started.set()
        if before == "a failure":
            raise KeyError
        try:
            if before == "CANCEL":
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                closing.set()
                await proceed.wait()
                closed.append("procedure")
            raise

    app = Application()
    app.add_default_arg("value", factory=factory)
    app.route("procedure")(procedure)
    async with connect(app) as client:
        with anyio.fail_after(5):
            call = await client.start_call("procedure")
            await started.wait()
            if before == "CANCEL":
                await call.cancel("kill")
            await closing.wait()
            await client.disconnect()
            while app.sessions:
                await anyio.lowlevel.checkpoint()
            proceed.set()
    assert closed == ["procedure"] * (before == "CANCEL") + ["factory"]


async def test_closing_all_sessions_from_a_call() -> None:
    app = Application(limits=Limits(goodbye_timeout=0.1))

    @app.route("close")
    async def close() -> None:
        await app.close_sessions(grace=0.1)

    async with connect(app) as one, connect(app) as two, connect(app) as three:
        call = await two.start_call("close")
        error = await two.receive()  # it is one of the running calls
        assert error[:3] == [8, 48, call.request]
        for client in (one, two, three):
            assert await client.receive() == [6, {}, "wamp.close.system_shutdown"]
            assert await client.expect_close() == 1001


async def test_no_session_follows_a_shutdown() -> None:
    started = anyio.Event()

    async def wait() -> None:
        started.set()
        await anyio.sleep_forever()

    app = Application(limits=Limits(goodbye_timeout=0.1))
    app.route("wait")(wait)
    async with connect(app) as client:
        await client.start_call("wait")
        await started.wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.close_sessions)
            await wait_all_tasks_blocked()
            await client.leave()
            assert await client.expect_close() == 1001


async def test_what_cant_be_said_at_the_end() -> None:
    sessions: list[Session] = []
    app = Application()

    @app.route("remember")
    async def remember(session: Session) -> None:
        sessions.append(session)

    async with connect(app) as client:
        await client.call("remember")
        for end in (sessions[0].close, sessions[0].abort):
            with pytest.raises(ValueError, match="not a valid URI"):
                await end("no uri")
        await client.expect_nothing()
        await sessions[0].abort("a.b", "\ud800")
        assert await client.receive() == [3, {"message": "a.b"}, "a.b"]
    async with connect(app) as client:
        await client.call("remember")
        await sessions[1].close("a.b", "\ud800")
        assert await client.receive() == [6, {}, "a.b"]


async def test_a_lifespan_that_fails_at_its_end() -> None:
    @asynccontextmanager
    async def lifespan(app: Application) -> AsyncIterator[None]:
        yield
        raise ValueError("the database is gone")

    sent: list[Any] = []
    events = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))

    async def receive() -> Any:
        return next(events)

    async def send(event: Any) -> None:
        sent.append(event)

    await Application(lifespan=lifespan)({"type": "lifespan"}, receive, send)
    assert sent == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.failed", "message": "the database is gone"},
    ]


@pytest.mark.spec("URI-07")
async def test_patterns_serve_valid_uris_only() -> None:
    app = Application()
    for decorate, pattern in (
        (app.prefix_route, "p."),
        (app.wildcard_route, "w..c"),
        (app.regex_route, "r."),
    ):
        decorate(pattern)(lambda: None)
    async with connect(app) as client:
        for uri in ("p.a b", "p..", "p.#", "p.\n", "w..c", "w. .c", "r x"):
            with pytest.raises(WAMPError) as error:
                await client.call(uri)
            assert error.value.uri == "wamp.error.invalid_uri", uri
        for uri in ("p.a", "w.b.c", "r.x"):
            await client.call(uri)


async def test_a_refused_subscription_holds_nothing() -> None:
    sessions: list[Session] = []

    async def handler(session: Session) -> AsyncIterator[None]:
        sessions.append(session)
        raise WAMPError("a.b")
        yield

    app = Application()
    app.topic("topic")(handler)
    async with connect(app) as client:
        with pytest.raises(WAMPError):
            await client.subscribe("topic")
        sessions[0].send_event(args=(1,))
        await client.expect_nothing()


def test_names_that_have_a_meaning() -> None:
    for name in ("session", "request"):
        with pytest.raises(ConfigurationError, match="the name is reserved"):
            Application().add_default_arg(name, 5)


async def test_sessions_by_other_annotations() -> None:
    async def procedure(
        a: Session | None, b: Annotated[Session, "mine"], c: int, d: RPCRequest | None = None
    ) -> bool:
        return a is b and d is not None and d.session is a

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        assert (await client.call("procedure", (1,))).args == (True,)


# ---- conversion


@dataclass
class Buggy:
    value: int | None

    def __post_init__(self) -> None:
        self.value = self.value + 1  # type: ignore[operator]


async def test_bugs_of_classes_stay_inside(caplog: pytest.LogCaptureFixture) -> None:
    async def procedure(value: Buggy) -> None: ...

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        with pytest.raises(WAMPError) as error:
            await client.call("procedure", ({"value": None},))
        assert error.value.uri == "wamp.error.invalid_argument"
        assert "NoneType" not in str(error.value)
    assert "NoneType" in caplog.text


class Fussy(pydantic.BaseModel):
    value: int

    @pydantic.field_validator("value")
    @classmethod
    def check(cls, value: int) -> int:
        raise TypeError("secret")


async def test_a_validator_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def procedure(value: Fussy) -> None: ...

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        with pytest.raises(WAMPError) as error:
            await client.call("procedure", ({"value": 1},))
        assert error.value.uri == "wamp.error.runtime_error"
        assert "secret" not in str(error.value)
    assert "secret" in caplog.text


async def test_a_value_that_is_nested_too_deeply() -> None:
    def nested(value: Any) -> Any:
        return nested([value])

    def convert(value: Any) -> Any:
        return nested(value)

    async def procedure(value: Any) -> None: ...

    procedure.__annotations__["value"] = Annotated[int, pydantic.AfterValidator(convert)]

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        with pytest.raises(WAMPError, match="nested too deeply") as error:
            await client.call("procedure", (1,))
        assert error.value.uri == "wamp.error.invalid_argument"


def scaled(value: int, *, by: int) -> int:
    return value * by


class Made:
    def __init__(self, value: int) -> None:
        self.value = value

    def __aiter__(self) -> AsyncIterator[int]:
        return self._results()

    async def _results(self) -> AsyncIterator[int]:
        yield self.value


async def test_partial_functions_and_classes() -> None:
    app = Application()
    app.route("scaled")(functools.partial(scaled, by=3))
    app.route("made")(Made)
    async with connect(app) as client:
        assert (await client.call("scaled", ("2",))).args == (6,)
        assert (await client.call("made", ("2",))).args == (2,)


def test_results_are_not_hashable() -> None:
    with pytest.raises(TypeError, match="unhashable type"):
        hash(RPCResult())
