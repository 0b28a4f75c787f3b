"""Shutting down: sessions are drained, in process and in real servers that get real signals."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import websockets.sync.client
from websockets import Subprotocol
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection

from serverwamp import Application, Limits, Session, WAMPError
from serverwamp.protocol.serializers import SUBPROTOCOLS
from serverwamp.testing import Client, HandshakeRefused, connect
from tests.commands import Server, started
from tests.helpers import until, wait_all_tasks_blocked

GOODBYE = [6, {}, "wamp.close.system_shutdown"]
GOODBYE_AND_OUT = [6, {}, "wamp.close.goodbye_and_out"]
HELLO = [1, "realm1", {"roles": {"caller": {}}}]


in_both_ways = pytest.mark.parametrize("goodbye", [True, False])
"""With GOODBYE, and in the way after which clients reconnect."""


async def expect_end(client: Client, goodbye: bool) -> None:
    """Expect the end of the session and of the connection: nothing may come before it."""
    if goodbye:
        assert await client.receive() == GOODBYE
        await client.send(GOODBYE_AND_OUT)
    await expect_close(client, goodbye)


async def expect_refusal(client: Client, goodbye: bool) -> None:
    """Expect that no session begins."""
    if goodbye:
        abort = await client.receive()
        assert (abort[0], abort[2]) == (3, "wamp.close.system_shutdown")
    await expect_close(client, goodbye)


async def expect_close(client: Client, goodbye: bool) -> None:
    assert await client.expect_close() == (1001 if goodbye else 1012)


def waiting() -> tuple[Application, anyio.Event, anyio.Event]:
    """Return an application whose procedure ``wait`` tells that it runs, and waits to go on."""
    app = Application(limits=Limits(goodbye_timeout=0.1))
    started, proceed = anyio.Event(), anyio.Event()

    @app.route("wait")
    async def wait() -> str:
        started.set()
        await proceed.wait()
        return "done"

    return app, started, proceed


async def handshake(app: Application, extensions: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the application sends to a client that wants to connect."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {"type": "websocket", "path": "/", "subprotocols": ["wamp.2.json"], "headers": []}
    await app({**scope, "extensions": extensions}, receive, send)
    return sent


@pytest.fixture
def next_turn(monkeypatch: pytest.MonkeyPatch) -> anyio.Event:
    """What is set when the next batch is to be closed, however long that takes."""
    turn = anyio.Event()

    async def wait_for_turn(_: float) -> None:
        with anyio.move_on_after(10):
            await turn.wait()

    monkeypatch.setattr(anyio, "sleep", wait_for_turn)
    return turn


# ---- what a drain does


@in_both_ways
async def test_new_connections_are_refused(caplog: pytest.LogCaptureFixture, goodbye: bool) -> None:
    app, started, proceed = waiting()
    async with connect(app) as client, anyio.create_task_group() as tasks:
        call = await client.start_call("wait")
        await started.wait()
        tasks.start_soon(partial(app.close_sessions, goodbye=goodbye))
        await wait_all_tasks_blocked()
        start, body = await handshake(app, {"websocket.http.response": {}})
        assert start["type"] == "websocket.http.response.start"
        assert start["status"] == 503
        assert body["type"] == "websocket.http.response.body"
        assert [event["type"] for event in await handshake(app, {})] == ["websocket.close"]
        with pytest.raises(HandshakeRefused):
            async with connect(app):
                pass
        assert caplog.text.count("refused: the server is shutting down") == 3
        proceed.set()
        assert (await call.result()).args == ("done",)
        await expect_end(client, goodbye)
    async with connect(app) as client:  # close_sessions has closed those that were there
        assert (await client.call("wait")).args == ("done",)


@in_both_ways
@pytest.mark.spec("ERR-system_shutdown")
async def test_no_session_begins(
    caplog: pytest.LogCaptureFixture, next_turn: anyio.Event, goodbye: bool
) -> None:
    caplog.set_level("INFO")
    app = Application()
    async with connect(app, None) as one, connect(app, None) as two:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(app.close_sessions, batch_size=1, goodbye=goodbye))
            await wait_all_tasks_blocked()  # in whatever order they are closed
            late, early = sorted((one, two), key=lambda client: len(client.transcript))
            await expect_close(early, goodbye)
            await late.send(HELLO)  # before its turn comes
            await expect_refusal(late, goodbye)
            next_turn.set()
    assert "a session is refused: the server is shutting down" in caplog.text


@in_both_ways
async def test_who_is_being_authenticated(goodbye: bool) -> None:
    app = Application()
    ended = anyio.Event()

    @app.set_ticket_authenticator
    async def authenticate(session: Session, ticket: str) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    async with connect(app, None) as asked, connect(app, None) as checked:
        for client in (asked, checked):
            await client.send([*HELLO[:2], {**HELLO[2], "authmethods": ["ticket"]}])
            assert (await client.receive())[0] == 4
        await checked.send([5, "ticket", {}])
        await wait_all_tasks_blocked()
        await app.close_sessions(goodbye=goodbye)
        assert ended.is_set()
        for client in (asked, checked):
            await expect_refusal(client, goodbye)


@in_both_ways
async def test_who_has_left_a_session(goodbye: bool) -> None:
    app = Application()
    async with connect(app) as client:
        await client.leave()
        await app.close_sessions(goodbye=goodbye)
        await expect_close(client, goodbye)


@in_both_ways
async def test_sessions_are_closed_in_batches(goodbye: bool) -> None:
    app = Application(limits=Limits(goodbye_timeout=1))
    times: list[float] = []

    async def take(client: Client) -> None:
        await expect_end(client, goodbye)
        times.append(anyio.current_time())

    async def close(**arguments: Any) -> None:
        times.clear()
        async with connect(app) as a, connect(app) as b, connect(app) as c:
            async with anyio.create_task_group() as tasks:
                for client in (a, b, c):
                    tasks.start_soon(take, client)
                await app.close_sessions(**arguments, goodbye=goodbye)

    await close(batch_size=2, batch_interval=0.2)
    first, _, third = times
    assert third - first >= 0.1  # half of it, at least
    with anyio.fail_after(5):
        await close(batch_size=3, batch_interval=1000)


async def test_closing_twice_at_once() -> None:
    app = Application()
    returned: list[int] = []

    async def close(number: int) -> None:
        await app.close_sessions()
        assert not app.sessions
        returned.append(number)

    async with connect(app) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(close, 1)
        tasks.start_soon(close, 2)
        assert await client.receive() == GOODBYE
        await wait_all_tasks_blocked()
        assert not returned
        await client.send(GOODBYE_AND_OUT)
        assert await client.expect_close() == 1001
    assert sorted(returned) == [1, 2]


@in_both_ways
async def test_a_call_that_never_ends_is_answered(goodbye: bool) -> None:
    app, started, _ = waiting()
    async with connect(app) as client:
        call = await client.start_call("wait")
        await started.wait()
        await app.close_sessions(grace=0.05, goodbye=goodbye)
        error = await client.receive()
        assert (error[0], error[2], error[4]) == (8, call.request, "wamp.error.canceled")
        await expect_end(client, goodbye)


@in_both_ways
async def test_handlers_that_dont_end_arent_waited_for(goodbye: bool) -> None:
    app, started, proceed = waiting()

    @app.route("stubborn")
    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            started.set()
            await proceed.wait()

    async with connect(app) as client:
        await client.start_call("stubborn")
        await started.wait()
        with anyio.fail_after(5):
            await app.close_sessions(grace=0.05, goodbye=goodbye)
        assert (await client.receive())[4] == "wamp.error.canceled"
        await expect_end(client, goodbye)
        proceed.set()


@in_both_ways
@pytest.mark.parametrize("match", ["exact", "prefix"])
async def test_a_call_that_a_client_answers_may_finish(goodbye: bool, match: str) -> None:
    app = Application(limits=Limits(goodbye_timeout=0.1), client_register="measure.")
    async with connect(app) as callee, connect(app) as caller:
        uri = "measure." if match == "prefix" else "measure.a"
        await callee.register(uri, match=match)
        call = await caller.start_call("measure.a")
        invocation = await callee.expect_invocation()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(app.close_sessions, goodbye=goodbye))
            await wait_all_tasks_blocked()
            await callee.expect_nothing()
            await invocation.result([21.5])
            assert (await call.result()).args == (21.5,)
            await expect_end(caller, goodbye)
            await expect_end(callee, goodbye)


@in_both_ways
async def test_a_client_that_never_answers_is_not_waited_for(goodbye: bool) -> None:
    app = Application(limits=Limits(goodbye_timeout=0.1), client_register="measure")
    async with connect(app) as callee, connect(app) as caller:
        await callee.register("measure")
        call = await caller.start_call("measure")
        await callee.expect_invocation()
        await app.close_sessions(grace=0.05, goodbye=goodbye)
        with pytest.raises(WAMPError) as error:
            await call.result()
        assert error.value.uri == "wamp.error.canceled"
        await expect_end(caller, goodbye)


@in_both_ways
async def test_the_end_of_a_session_has_its_consequences(
    next_turn: anyio.Event, goodbye: bool
) -> None:
    """Testaments, the meta event, and what was opened for the session and its subscription."""
    app = Application(limits=Limits(goodbye_timeout=0.1))
    app.set_meta_api()
    ended: list[str] = []

    @app.set_ticket_authenticator
    async def authenticate(session: Session, ticket: str) -> str:
        return ticket

    @app.topic("presence", client_publish=True)
    async def presence() -> AsyncIterator[None]:
        yield
        ended.append("subscription")

    @app.add_session_lifespan_handler
    async def lifespan() -> AsyncIterator[None]:
        yield
        ended.append("session")

    async with AsyncExitStack() as stack:
        join = partial(connect, app, ticket="anybody", authid="anybody")
        one, two = [await stack.enter_async_context(join()) for _ in range(2)]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for client in (one, two):
            await client.subscribe("presence")
            await client.subscribe("wamp.session.on_leave")
            await client.call("wamp.session.add_testament", ["presence", ["gone"], {}])
        tasks.start_soon(partial(app.close_sessions, batch_size=1, goodbye=goodbye))
        await wait_all_tasks_blocked()
        # They are closed in whatever order, and the second hears of the end of the first.
        first, second = (two, one) if one.session in app.sessions else (one, two)
        events = [await second.expect_event(), await second.expect_event()]
        assert {event.args[0] for event in events} == {"gone", first.session}
        next_turn.set()
        await expect_end(first, goodbye)
        await expect_end(second, goodbye)
    assert sorted(ended) == ["session"] * 2 + ["subscription"] * 2
    assert not app.sessions


@pytest.mark.parametrize("protocol", SUBPROTOCOLS)
async def test_what_was_sent_arrives_before_the_end(protocol: str) -> None:
    app = Application()

    @app.topic("late")
    async def late() -> AsyncIterator[None]:
        yield

    async with connect(app, subprotocol=protocol) as client:
        await client.subscribe("late")
        client.pause()
        for number in range(100):
            await app.publish("late", [number])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(app.close_sessions, goodbye=False))
            await wait_all_tasks_blocked()
            client.resume()
            for number in range(100):
                assert (await client.expect_event()).args == (number,)
            await expect_end(client, goodbye=False)


async def test_goodbye_while_clients_are_to_come_back() -> None:
    """What the application itself asks for is done, also while the server goes down."""
    app = Application(limits=Limits(goodbye_timeout=0.1))
    async with connect(app) as client, app.graceful_shutdown():
        await app.close_sessions()
        await expect_end(client, goodbye=True)


# ---- ahead of the server's own handlers for signals


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """A handler for SIGTERM, as a server has one, and the signals that it got."""
    taken: list[int] = []

    def take(number: int, frame: Any) -> None:
        taken.append(number)

    before = signal.signal(signal.SIGTERM, take)
    yield taken
    assert signal.getsignal(signal.SIGTERM) is take
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("options", "goodbye"), [({}, False), ({"goodbye": True}, True)])
async def test_the_end_comes_before_the_signal(
    signals: list[int], options: dict[str, bool], goodbye: bool
) -> None:
    app, started, proceed = waiting()
    async with app.graceful_shutdown(**options), connect(app) as client:
        call = await client.start_call("wait")
        await started.wait()
        for _ in range(2):  # a terminal, and a parent process that passes it on
            signal.raise_signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        proceed.set()
        assert (await call.result()).args == ("done",)
        assert not signals
        await expect_end(client, goodbye)
        await until(lambda: signals == [signal.SIGTERM])
        with pytest.raises(HandshakeRefused):  # the server may still listen
            async with connect(app):
                pass
    assert signals == [signal.SIGTERM]
    async with connect(app, None):
        pass


async def test_an_application_says_that_it_is_draining(signals: list[int]) -> None:
    app, started, proceed = waiting()
    async with app.graceful_shutdown(), connect(app) as client:
        await client.start_call("wait")
        await started.wait()
        assert not app.is_draining
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: app.is_draining)
        assert len(app.sessions) == 1
        proceed.set()
        await until(lambda: signals == [signal.SIGTERM])
        assert app.is_draining  # until the server has ended
    assert not app.is_draining


async def test_a_second_signal_doesnt_wait(
    signals: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serverwamp.concurrency.signals.ONE_AND_THE_SAME", 0)
    app, started, proceed = waiting()
    async with app.graceful_shutdown(), connect(app) as client:
        await client.start_call("wait")
        await started.wait()
        signal.raise_signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        assert not signals
        signal.raise_signal(signal.SIGTERM)
        assert signals == [signal.SIGTERM]
        proceed.set()
    assert signals == [signal.SIGTERM]


async def test_a_signal_isnt_lost_while_the_server_stops(signals: list[int]) -> None:
    app = Application()
    async with app.graceful_shutdown():
        signal.raise_signal(signal.SIGTERM)
    assert signals == [signal.SIGTERM]


async def test_a_drain_that_fails(
    signals: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with app.graceful_shutdown():
            with monkeypatch.context() as patch:
                patch.setattr(app, "close_sessions", lambda *args, **kwargs: 1 / 0)
                signal.raise_signal(signal.SIGTERM)
                await until(lambda: signals)
            assert "division by zero" in caplog.text
            raise ZeroDivisionError  # what fails in the block comes out as it is
    assert signals == [signal.SIGTERM]


async def test_signals_that_nobody_handles_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    app = Application()
    async with app.graceful_shutdown():
        assert signal.getsignal(signal.SIGTERM) == before == signal.SIG_DFL


async def test_in_another_thread(signals: list[int], anyio_backend: str) -> None:
    app = Application(limits=Limits(goodbye_timeout=0.1))

    async def serve() -> None:
        before = signal.getsignal(signal.SIGTERM)
        async with connect(app) as client:
            async with app.graceful_shutdown():
                assert signal.getsignal(signal.SIGTERM) is before
            await expect_end(client, goodbye=False)

    await anyio.to_thread.run_sync(lambda: anyio.run(serve, backend=anyio_backend))


async def test_a_lifespan_may_see_to_it_itself(signals: list[int]) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Application) -> AsyncIterator[None]:
        async with app.graceful_shutdown(grace=0.05):
            yield
        log.append("ends")

    app = Application(limits=Limits(goodbye_timeout=0.1), lifespan=lifespan)

    @app.route("wait")
    async def wait() -> None:
        await anyio.sleep_forever()

    to_app, events = anyio.create_memory_object_stream[dict[str, Any]](2)
    sent: list[str] = []

    async def send(event: Any) -> None:
        sent.append(event["type"])

    async with to_app, events, anyio.create_task_group() as tasks:
        tasks.start_soon(app, {"type": "lifespan"}, events.receive, send)
        await to_app.send({"type": "lifespan.startup"})
        await until(lambda: sent)
        async with connect(app) as client:
            call = await client.start_call("wait")
            await wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGTERM)
            error = await client.receive(timeout=2)
            assert error[:3] == [8, 48, call.request]
            await expect_end(client, goodbye=False)
            await until(lambda: signals)
        await to_app.send({"type": "lifespan.shutdown"})
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert log == ["ends"]


# ---- real servers


class RealClient:
    """A client of a server in another process."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def send(self, *message: Any) -> None:
        self._connection.send(json.dumps(message))

    def receive(self) -> Any:
        return json.loads(self._connection.recv(5))

    def expect_close(self) -> int | None:
        """Return the code with which the server closes; None if it drops the connection."""
        with pytest.raises(ConnectionClosed) as closed:
            self._connection.recv(5)
        received = closed.value.rcvd
        return received and received.code


def wait_until_it_listens(server: Server) -> None:
    """Uvicorn announces the port before its child does so."""
    deadline = time.monotonic() + 10
    while True:
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port)).close()
            return
        assert time.monotonic() < deadline


def join(server: Server, stack: ExitStack) -> RealClient:
    connection = stack.enter_context(
        websockets.sync.client.connect(
            f"ws://127.0.0.1:{server.port}/",
            subprotocols=[Subprotocol("wamp.2.json")],
            close_timeout=0.1,
        )
    )
    client = RealClient(connection)
    client.send(*HELLO)
    assert client.receive()[0] == 2
    return client


def start_call(client: RealClient, procedure: str) -> None:
    """Return when the call is running; it has the request id 1."""
    client.send(48, 1, {}, procedure)
    client.send(48, 2, {}, "now")
    assert client.receive() == [50, 2, {}, ["done"]]


def expect_ends(
    server: Server, number: int, *, goodbye: bool = False, to_all: bool = False
) -> None:
    """Send a signal to a server with running calls and a client that answers nothing."""
    code = 1001 if goodbye else 1012
    with ExitStack() as stack:
        busy, stuck, silent = (join(server, stack) for _ in range(3))
        start_call(busy, "soon")
        busy.send(32, 3, {}, "topic")
        assert busy.receive()[0] == 33
        start_call(stuck, "never")
        server.send(number, to_all=to_all)
        if goodbye:
            assert silent.receive() == GOODBYE
        else:
            assert silent.expect_close() == code
        with pytest.raises((InvalidHandshake, ConnectionClosed, OSError)) as refused:
            join(server, stack)
        if isinstance(refused.value, InvalidStatus):
            assert refused.value.response.status_code == 503
        assert busy.receive() == [50, 1, {}, ["done"]]
        if goodbye:
            assert busy.receive() == GOODBYE
            busy.send(*GOODBYE_AND_OUT)
        assert busy.expect_close() == code
        assert stuck.receive()[:5] == [8, 48, 1, {}, "wamp.error.canceled"]
        if goodbye:
            assert stuck.receive() == GOODBYE
            assert silent.expect_close() == code
        assert stuck.expect_close() == code


def expect_an_end(server: Server) -> None:
    """The server stops by itself, and everything was closed once."""
    assert server.wait() in (0, -signal.SIGTERM, -signal.SIGINT)
    assert server.output.count("a session is over") == 3
    assert server.output.count("a subscription is over") == 1


UVICORN = ("--host", "127.0.0.1", "--port", "0")
HYPERCORN = ("--bind", "127.0.0.1:0")
APP = "tests.shutdown_app"


@pytest.mark.process
@pytest.mark.parametrize(
    "command",
    [
        ("uvicorn", f"{APP}:wamp", *UVICORN, "--loop", "asyncio"),
        ("uvicorn", f"{APP}:wamp", *UVICORN, "--loop", "uvloop"),
        ("uvicorn", f"{APP}:site", *UVICORN),
        ("hypercorn", f"{APP}:wamp", *HYPERCORN, "--workers", "0"),
        (APP, "hypercorn-asyncio"),
        (APP, "hypercorn-trio"),
        (APP, "anycorn-asyncio"),
        (APP, "anycorn-trio"),
        (APP, "aiohttp"),
        (APP, "aiohttp-runner"),
    ],
    ids=" ".join,
)
def test_a_server_closes_its_sessions(command: tuple[str, ...]) -> None:
    with started(*command) as server:
        expect_ends(server, signal.SIGTERM)
        expect_an_end(server)


@pytest.mark.process
@pytest.mark.parametrize(
    "command",
    [("uvicorn", f"{APP}:polite", *UVICORN), (APP, "aiohttp", "goodbye")],
    ids=" ".join,
)
def test_a_server_says_goodbye(command: tuple[str, ...]) -> None:
    with started(*command) as server:
        expect_ends(server, signal.SIGTERM, goodbye=True)
        expect_an_end(server)


@pytest.mark.process
def test_uvicorn_that_reloads(tmp_path: Path) -> None:
    watched = tmp_path / "watched.py"
    watched.write_text("before = True")
    command = ("uvicorn", f"{APP}:wamp", *UVICORN, "--reload", "--reload-dir", str(tmp_path))
    with started(*command) as server:
        wait_until_it_listens(server)
        with ExitStack() as stack:
            client = join(server, stack)
            watched.write_text("after = True")
            assert client.expect_close() == 1012
        server.wait_for("startup complete", 2)
        assert server.output.count("a session is over") == 1
        # As a terminal does; and the parent has its child terminated besides.
        expect_ends(server, signal.SIGINT, to_all=True)
        server.wait()
        assert server.output.count("a session is over") == 1 + 3


@pytest.mark.process
def test_uvicorn_with_workers() -> None:
    with started("uvicorn", f"{APP}:wamp", *UVICORN, "--workers", "2") as server:
        wait_until_it_listens(server)
        expect_ends(server, signal.SIGTERM)
        expect_an_end(server)


# These don't tell the application: they drop the connections, but everything comes to its end.


@pytest.mark.process
@pytest.mark.parametrize("server", ["hypercorn", "anycorn"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_server_that_drops_its_clients(server: str, backend: str) -> None:
    command = (f"{APP}:wamp", *HYPERCORN, "-k", backend, "--graceful-timeout", "1")
    with started(server, *command) as process, ExitStack() as stack:
        clients = [join(process, stack) for _ in range(3)]
        start_call(clients[0], "never")
        clients[1].send(32, 1, {}, "topic")
        assert clients[1].receive()[0] == 33
        process.send(signal.SIGTERM)
        if (server, backend) == ("hypercorn", "asyncio"):
            stack.close()  # it waits for its clients to leave
        else:
            assert [client.expect_close() for client in clients] == [None] * 3
        expect_an_end(process)
