"""Connections that are lost at every step of every exchange: nobody else notices, nothing stays."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio

from serverwamp import Application, Limits, RPCProgressReport, Session, WAMPError
from serverwamp.testing import ASGIEvent, Client, ExpectationFailed, connect
from tests.helpers import broker_of, connections_of
from tests.sockets import connect_socket, serve, serve_aiohttp

TICKET = {"authid": "joe", "ticket": "open sesame"}


class Service:
    """An application whose every exchange can be stopped in the middle, and that counts."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        """What has begun and not ended; every handler that begins has to end once."""
        self.opening, self.closing = anyio.Event(), anyio.Event()
        self.app = app = Application(limits=Limits(goodbye_timeout=0.5))
        app.set_ticket_authenticator(self.authenticate)
        app.add_session_lifespan_handler(self.lifespan)
        app.add_session_lifespan_handler(self.lifespan, authenticated_only=False)
        app.add_default_arg("database", factory=self.database)
        app.topic("gated")(self.gated)
        for procedure in (self.reports, self.wait, self.publish, self.bye, self.wave_on):
            app.route(procedure.__name__)(procedure)
        app.route("nothing")(lambda: None)

    async def authenticate(self, session: Session, ticket: str, database: str) -> str | None:
        await anyio.lowlevel.checkpoint()
        return "identity" if ticket == TICKET["ticket"] else None

    async def database(self) -> AsyncIterator[str]:
        async with self.lasting("database"):
            yield "database"

    async def lifespan(self, session: Session) -> AsyncIterator[None]:
        async with self.lasting("lifespan"):
            yield

    @asynccontextmanager
    async def lasting(self, what: str) -> AsyncIterator[None]:
        self.inside.append(what)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.inside.remove(what)

    async def gated(self, session: Session, database: str) -> AsyncIterator[None]:
        async with self.lasting("topic"):
            session.send_event(args=["held back"])
            await self.opening.wait()
            yield
            await self.closing.wait()

    async def reports(self, database: str) -> AsyncIterator[Any]:
        async with self.lasting("reports"):
            for number in range(2):
                yield RPCProgressReport([number])
            yield "done"

    async def wait(self, database: str) -> None:
        async with self.lasting("wait"):
            await anyio.sleep_forever()

    async def publish(self) -> None:
        await self.app.publish("gated", ["published"])

    async def bye(self, session: Session) -> None:
        await session.close("com.app.enough")

    async def wave_on(self, gate: str) -> None:
        (self.opening if gate == "opening" else self.closing).set()


# ---- in process, cut after any number of frames


class Cut:
    """The application behind a connection that is lost instead of its frame number `at`.

    What a server's ``send`` does then is one of `HOW`; its ``receive`` tells of the end.
    """

    def __init__(self, service: Service, at: int | None, how: str) -> None:
        self.frames = 0
        self.is_cut = False
        self._service, self._at, self._how = service, at, how
        self._waiting = anyio.CancelScope()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def cut_receive() -> ASGIEvent:
            event = {"type": "websocket.disconnect", "code": 1006}
            if not self.is_cut:
                with anyio.CancelScope() as self._waiting:
                    event = await receive()
            if event["type"] == "websocket.receive" and self._is_lost():
                return {"type": "websocket.disconnect", "code": 1006}
            return event

        async def cut_send(event: ASGIEvent) -> None:
            await anyio.lowlevel.checkpoint()
            if event["type"] != "websocket.accept" and self._is_lost():
                if self._how != "returns":
                    raise {"OSError": OSError, "RuntimeError": RuntimeError}[self._how]("gone")
            else:
                await send(event)

        await self._service.app(scope, cut_receive, cut_send)

    def _is_lost(self) -> bool:
        if self.frames == self._at:
            self.is_cut = True
            self._waiting.cancel()
            self._service.closing.set()  # what closes isn't cancelled: it has to end by itself
        else:
            self.frames += not self.is_cut
        return self.is_cut


HOW = ["OSError", "RuntimeError", "returns"]


async def whole(client: Client) -> None:
    """HELLO to GOODBYE, by way of everything that a client may do."""
    await client.join(**TICKET)
    await use(client)
    await client.start_call("wait")
    assert await client.leave() == "wamp.close.goodbye_and_out"


async def use(client: Client) -> None:
    call = await client.start_call("reports", receive_progress=True)
    for _ in range(2):
        await call.progress()
    await call.result()
    await client.send([32, client.next_request(), {}, "gated"])
    await client.call("wave_on", ["opening"])
    subscribed = await client.expect(lambda message: message[0] == 33)
    await client.call("publish")
    for _ in range(2):
        await client.expect_event()
    await client.send([34, client.next_request(), subscribed[2]])
    await client.call("wave_on", ["closing"])
    await client.expect(lambda message: message[0] == 35)
    waiting = await client.start_call("wait")
    await waiting.cancel("kill")
    with pytest.raises(WAMPError):
        await waiting.result()
    await client.send([16, client.next_request(), {"acknowledge": True}, "gated"])
    await client.expect(lambda message: message[:2] == [8, 16])


async def closed(client: Client) -> None:
    """The server says GOODBYE first, while there is a subscription."""
    await client.join(**TICKET)
    await client.send([32, client.next_request(), {}, "gated"])
    await client.call("wave_on", ["opening"])
    await client.start_call("wait")
    await client.call("wave_on", ["closing"])
    await client.send([48, client.next_request(), {}, "bye"])
    await client.expect(lambda message: message[0] == 6)
    await client.send([6, {}, "wamp.close.goodbye_and_out"])
    await client.expect_close()


async def refused(client: Client) -> None:
    with pytest.raises(WAMPError):
        await client.join(authid="joe", ticket="guess")
    await client.expect_close()


async def violating(client: Client) -> None:
    await client.join(**TICKET)
    await client.start_call("wait")
    await client.send(["nonsense"])
    await client.expect(lambda message: message[0] == 3)
    await client.expect_close()


Conversation = Callable[[Client], Awaitable[None]]
FRAMES: dict[Conversation, int] = {whole: 28, closed: 16, refused: 5, violating: 8}
"""How many frames a conversation has, in both directions."""
STEPS = [
    pytest.param(conversation, at, how, id=f"{conversation.__name__}-{at}-{how}")
    for conversation, frames in FRAMES.items()
    for at in range(frames)
    for how in HOW
]


@pytest.mark.parametrize("conversation", FRAMES)
async def test_a_conversation_that_is_not_cut(conversation: Conversation) -> None:
    service = Service()
    served = Cut(service, None, "OSError")
    async with connect(served, None) as client:
        await conversation(client)
    assert served.frames == FRAMES[conversation]
    assert not service.inside


@pytest.mark.parametrize(("conversation", "at", "how"), STEPS)
async def test_a_conversation_that_is_cut(
    conversation: Conversation, at: int, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    app = service.app
    served = Cut(service, at, how)
    async with connect(app, **TICKET) as other:
        held = service.inside.copy()
        with caplog.at_level(logging.INFO):
            async with connect(served, None) as client:
                with pytest.raises(ExpectationFailed, match="closed"):
                    await until_the_end(conversation, client)
        assert served.is_cut
        assert service.inside == held
        assert len(connections_of(app)) == 1
        assert list(app.sessions) == [other.session]
        assert not list(broker_of(app))
        await other.call("nothing")
        await other.expect_nothing()
    assert not connections_of(app)
    assert not service.inside
    # Nothing is said of who has left; the rest, once.
    said = [record.msg for record in caplog.records if record.levelno >= logging.INFO]
    assert said == USUAL.get(conversation, [])[: len(said)]


async def until_the_end(conversation: Conversation, client: Client) -> None:
    await conversation(client)
    await client.receive()  # what was lost was the last that came


USUAL = {
    refused: ["session %s: authentication of %.100r by %s failed", "a session is refused: %.300s"],
    violating: ["protocol violation: %.300s"],
}


# ---- over TCP, with a reset, on real servers


async def challenged(client: Client) -> None:
    details = {"roles": {"caller": {}}, "authmethods": ["ticket"], "authid": "joe"}
    await client.send([1, "realm1", details])
    assert (await client.receive())[0] == 4


async def calling(client: Client) -> None:
    await client.join(**TICKET)
    await client.start_call("wait")
    await client.call("nothing")


async def opening(client: Client) -> None:
    await client.join(**TICKET)
    await client.send([32, client.next_request(), {}, "gated"])
    await client.call("nothing")


async def subscribed(client: Client) -> None:
    await opening(client)
    await client.call("wave_on", ["opening"])
    await client.expect(lambda message: message[0] == 33)


async def closing(client: Client) -> None:
    await subscribed(client)
    await client.send([34, client.next_request(), 1])
    await client.call("nothing")


async def told_goodbye(client: Client) -> None:
    await client.join(**TICKET)
    await client.send([48, client.next_request(), {}, "bye"])
    await client.expect(lambda message: message[0] == 6)


@pytest.mark.parametrize(
    "exchange", [challenged, calling, opening, subscribed, closing, told_goodbye]
)
async def test_a_connection_that_is_reset(
    exchange: Conversation, caplog: pytest.LogCaptureFixture
) -> None:
    servers = [serve]
    if not trio.lowlevel.in_trio_run():
        servers.append(serve_aiohttp)
    for server in servers:
        service = Service()
        app = service.app
        with anyio.fail_after(20):
            async with server(app) as port, connect_socket(port, **TICKET) as other:
                held = service.inside.copy()
                async with connect_socket(port, None, resets=True) as client:
                    await exchange(client)
                    await client.disconnect()
                service.closing.set()
                await other.call("publish")  # to somebody who has left
                while len(connections_of(app)) > 1:
                    await anyio.lowlevel.checkpoint()
                assert service.inside == held
                assert list(app.sessions) == [other.session]
                assert not list(broker_of(app))
                await other.call("nothing")
            while connections_of(app):
                await anyio.lowlevel.checkpoint()
        assert not service.inside
    ours = [record for record in caplog.records if record.name.startswith("serverwamp")]
    assert not ours
