"""Shutting down: sessions are drained, in process and in real servers that get real signals."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from serverwamp import Application, Limits, Session
from serverwamp.testing import Client, HandshakeRefused, connect

GOODBYE = [6, {}, "wamp.close.system_shutdown"]
GOODBYE_AND_OUT = [6, {}, "wamp.close.goodbye_and_out"]
HELLO = [1, "realm1", {"roles": {"caller": {}}}]


async def leave(client: Client) -> None:
    """Answer the server's GOODBYE, which has to be next."""
    assert await client.receive() == GOODBYE
    await client.send(GOODBYE_AND_OUT)
    assert await client.expect_close() == 1001


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


# ---- what a drain does


async def test_new_connections_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    app, started, proceed = waiting()
    async with connect(app) as client, anyio.create_task_group() as tasks:
        call = await client.start_call("wait")
        await started.wait()
        tasks.start_soon(app.close_sessions)
        await anyio.wait_all_tasks_blocked()
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
        await leave(client)
    async with connect(app) as client:  # close_sessions has closed those that were there
        assert (await client.call("wait")).args == ("done",)


@pytest.mark.spec("ERR-system_shutdown")
async def test_no_session_begins(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    app = Application()
    async with connect(app, None) as one, connect(app, None) as two:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: app.close_sessions(batch_size=1, batch_interval=1))
            await anyio.wait_all_tasks_blocked()  # in whatever order they are closed
            late, early = sorted((one, two), key=lambda client: len(client.transcript))
            assert await early.expect_close() == 1001
            await late.send(HELLO)  # before its turn comes
            abort = await late.receive()
            assert (abort[0], abort[2]) == (3, "wamp.close.system_shutdown")
            assert await late.expect_close() == 1001
    assert "a session is refused: the server is shutting down" in caplog.text


async def test_who_is_being_authenticated_is_told() -> None:
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
        await anyio.wait_all_tasks_blocked()
        await app.close_sessions()
        assert ended.is_set()
        for client in (asked, checked):
            abort = await client.receive()
            assert (abort[0], abort[2]) == (3, "wamp.close.system_shutdown")
            assert await client.expect_close() == 1001


async def test_sessions_are_closed_in_batches() -> None:
    app = Application(limits=Limits(goodbye_timeout=0.01))
    times: list[float] = []

    async def take(client: Client) -> None:
        assert await client.receive() == GOODBYE
        times.append(anyio.current_time())

    async def close(**arguments: Any) -> None:
        times.clear()
        async with connect(app) as a, connect(app) as b, connect(app) as c:
            async with anyio.create_task_group() as tasks:
                for client in (a, b, c):
                    tasks.start_soon(take, client)
                await app.close_sessions(**arguments)

    await close(batch_size=2, batch_interval=0.4)
    first, _, third = times
    assert third - first >= 0.2  # half of it, at least
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
        await anyio.wait_all_tasks_blocked()
        assert not returned
        await client.send(GOODBYE_AND_OUT)
        assert await client.expect_close() == 1001
    assert sorted(returned) == [1, 2]


async def test_a_call_that_never_ends_is_answered() -> None:
    app, started, _ = waiting()
    async with connect(app) as client:
        call = await client.start_call("wait")
        await started.wait()
        await app.close_sessions(grace=0.05)
        error = await client.receive()
        assert (error[0], error[2], error[4]) == (8, call.request, "wamp.error.canceled")
        assert await client.receive() == GOODBYE
        assert await client.expect_close() == 1001
