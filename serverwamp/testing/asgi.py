"""The server's side of ASGI, for tests: it runs an application's lifespan and WebSockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from serverwamp.concurrency.tasks import open_starter

ASGIEvent: TypeAlias = MutableMapping[str, Any]
ASGIApplication: TypeAlias = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[ASGIEvent]],
        Callable[[ASGIEvent], Awaitable[None]],
    ],
    Awaitable[None],
]

FRAMES_IN_FLIGHT: Final = 64
"""How many frames each side can send before the other receives one."""


class ExpectationFailed(AssertionError):
    """Something didn't come in time, or something else came.

    The text has a transcript of the messages.
    """


class HandshakeRefused(Exception):
    """The application closed the WebSocket before accepting it."""

    def __init__(self, status: int = 403) -> None:
        super().__init__(f"the application refused the WebSocket with status {status}")
        self.status: int = status
        """The HTTP status that the client gets."""


# ---- the lifespan


@asynccontextmanager
async def running(app: ASGIApplication, *, timeout: float = 5.0) -> AsyncIterator[ASGIApplication]:
    """Start an ASGI application, and shut it down when the block ends, as a server does.

    This runs the application's lifespan. Connect clients to the yielded application: its
    connections have the state that the lifespan has set. Startup and shutdown may take `timeout`
    seconds each.

    Raises: what the lifespan raises; ExpectationFailed when the application reports a failure, or
        doesn't answer.
    """
    lifespan, failure = _Lifespan(app), None

    async def with_state(scope: ASGIEvent, receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(lifespan.state)}, receive, send)

    async with open_starter() as tasks:
        task = tasks.start(lifespan.run)
        try:
            await lifespan.advance("startup", timeout)
            try:
                yield with_state
            finally:
                await lifespan.advance("shutdown", timeout)
        except Exception as error:
            failure = error
        finally:
            task.cancel()
            lifespan.close()
    if failure is not None:
        raise failure


class _Lifespan:
    """The lifespan of an application, from the server's side."""

    def __init__(self, app: ASGIApplication) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._failure: Exception | None = None
        self._to_app, self._events = anyio.create_memory_object_stream[ASGIEvent](2)
        self._answers, self._from_app = anyio.create_memory_object_stream[ASGIEvent](2)

    async def run(self) -> None:
        """Run the application for its lifespan."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        try:
            await self._app(scope, self._events.receive, self._answers.send)
        except Exception as error:
            self._failure = error
        finally:
            self._answers.close()

    def close(self) -> None:
        """Close the streams."""
        for stream in (self._to_app, self._events, self._answers, self._from_app):
            stream.close()

    async def advance(self, phase: str, timeout: float) -> None:
        """Begin "startup" or "shutdown", and wait until the application has completed it.

        Raises: what the application raises; ExpectationFailed when it doesn't complete the phase.
        """
        answer: ASGIEvent = {"type": f"no answer within {timeout} seconds"}
        with anyio.move_on_after(timeout, shield=phase == "shutdown"):
            self._to_app.send_nowait({"type": f"lifespan.{phase}"})
            with suppress(anyio.EndOfStream):
                answer = await self._from_app.receive()
                if answer["type"] != "lifespan.startup.complete":
                    await self._from_app.receive()  # waits until the application returns
        if self._failure is not None:
            raise self._failure
        if answer["type"] != f"lifespan.{phase}.complete":
            said = answer.get("message", answer["type"])
            raise ExpectationFailed(f"the application doesn't complete its {phase}: {said}")


# ---- a WebSocket


def websocket_scope(
    *,
    path: str,
    query_string: str,
    headers: Mapping[str, str],
    cookies: Mapping[str, str],
    peer_address: str,
    subprotocols: Sequence[str],
    extensions: Mapping[str, Any],
) -> ASGIEvent:
    """Return the scope of a WebSocket."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query_string.encode(),
        "headers": _raw_headers(headers, cookies),
        "client": (peer_address, 50000),
        "server": ("testserver", 80),
        "subprotocols": list(subprotocols),
        "state": {},
        "extensions": {"websocket.http.response": {}, **extensions},
    }


def _raw_headers(
    headers: Mapping[str, str], cookies: Mapping[str, str]
) -> list[tuple[bytes, bytes]]:
    raw = [] if "host" in headers else [(b"host", b"testserver")]
    raw += [(name.lower().encode("latin-1"), v.encode("latin-1")) for name, v in headers.items()]
    if cookies:
        text = "; ".join(f"{name}={value}" for name, value in cookies.items())
        raw.append((b"cookie", text.encode("latin-1")))
    return raw


class ServedWebSocket:
    """A WebSocket from the server's side. It runs the application, and carries frames."""

    def __init__(self, app: ASGIApplication, scope: ASGIEvent) -> None:
        self.frames: MemoryObjectSendStream[ASGIEvent]
        """Takes ``websocket.receive`` events for the application."""
        self.replies: MemoryObjectReceiveStream[ASGIEvent]
        """Delivers the ``websocket.send`` and ``websocket.close`` events of the application."""
        self.frames, self._events = anyio.create_memory_object_stream[ASGIEvent](FRAMES_IN_FLIGHT)
        self._sent, self.replies = anyio.create_memory_object_stream[ASGIEvent](FRAMES_IN_FLIGHT)
        self.subprotocol: str | None = None
        """The accepted subprotocol, or "" for none; None if the WebSocket wasn't accepted."""
        self.status: int = 403
        """The HTTP status of a refusal."""
        self.failure: Exception | None = None
        """What the application raised."""
        self.is_decided: anyio.Event = anyio.Event()
        """Set when the WebSocket was accepted or refused."""
        self._app = app
        self._scope = scope
        self._state = "connecting"
        self._has_ended = anyio.Event()

    async def run(self) -> None:
        """Run the application for the WebSocket."""
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            self.failure = error
        finally:
            self._sent.close()
            self.is_decided.set()
            self._has_ended.set()

    async def disconnect(self, timeout: float) -> bool:
        """Disconnect, and return whether the application ends within `timeout` seconds."""
        if self._has_ended.is_set():
            return True
        with anyio.move_on_after(timeout, shield=True) as leaving:
            with suppress(anyio.ClosedResourceError):
                await self.frames.send({"type": "websocket.disconnect", "code": 1005})
            await self._has_ended.wait()
        return not leaving.cancelled_caught

    def close(self) -> None:
        """Close the streams; the application must have ended."""
        for stream in (self.frames, self._events, self._sent, self.replies):
            stream.close()

    async def _receive(self) -> ASGIEvent:
        if self._state == "connecting":
            self._state = "connected"
            return {"type": "websocket.connect"}
        if self._state == "disconnected":
            raise RuntimeError("receive() after websocket.disconnect never returns on servers")
        if self._state == "closed":
            self._state = "disconnected"
            return {"type": "websocket.disconnect", "code": 1005}
        event = await self._events.receive()
        if event["type"] == "websocket.disconnect":
            self._state = "disconnected"
        return event

    async def _send(self, event: ASGIEvent) -> None:
        if event["type"] == "websocket.accept":
            self.subprotocol = event.get("subprotocol") or ""
            self.is_decided.set()
        elif self._state in ("disconnected", "closed"):
            raise OSError("the client is gone")
        elif self.subprotocol is None:
            self.status = event.get("status", self.status)
            self.is_decided.set()
        else:
            try:
                await self._sent.send(event)
            except anyio.BrokenResourceError:
                raise OSError("the client is gone") from None
            if event["type"] == "websocket.close":
                self._state = "closed"
