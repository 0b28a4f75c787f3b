"""A WebSocket as a server gives it to an application, as cheap as can be; and how to let it settle.

What it does is done at once, without any waiting, so that whoever drives several of them decides
what comes before what.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import cbor2
import msgpack
import trio
import trio.testing

from serverwamp import Application
from tests.helpers import broker_of, connections_of

Frame: TypeAlias = str | bytes


async def settle() -> None:
    """Return when every other task waits for something: `wait_all_tasks_blocked`, at once."""
    if trio.lowlevel.in_trio_run():
        await trio.testing.wait_all_tasks_blocked()
        return
    for _ in range(10_000):
        await asyncio.sleep(0)
        if not asyncio.get_running_loop()._ready:  # type: ignore[attr-defined]
            return
    raise AssertionError("something runs without end")


class Peer:
    """A client's side of one connection; `messages` are those that it has received."""

    def __init__(self, subprotocol: str) -> None:
        self.subprotocol = subprotocol
        self.is_text = "json" in subprotocol
        self.is_cbor = "cbor" in subprotocol
        self.is_batched = subprotocol.endswith("batched")
        self.messages: list[Any] = []
        self.close_code: int | None = None
        self.is_served = True
        self.is_broken = False
        """Nothing can be sent to it, but the server hasn't noticed yet."""
        self.faults: list[str] = []
        """What an application must not do to a server."""
        self._is_disconnected = False
        self._reads = anyio.Event()
        self._reads.set()
        self._to_app, self._from_client = anyio.create_memory_object_stream[Any](math.inf)
        self._to_app.send_nowait({"type": "websocket.connect"})

    # ---- ASGI

    async def serve(self, app: Application) -> None:
        """Have `app` serve the connection."""
        scope = {
            "type": "websocket",
            "path": "/",
            "headers": [],
            "subprotocols": [self.subprotocol],
            "client": ("127.0.0.1", 50000),
        }
        try:
            await app(scope, self._from_client.receive, self._send)
        finally:
            self.is_served = False
            self._to_app.close()
            self._from_client.close()

    async def _send(self, event: MutableMapping[str, Any]) -> None:
        if random.random() < 0.5:  # noqa: S311, RUF100 - which Hypothesis makes the same every time
            await anyio.lowlevel.checkpoint()
        await self._reads.wait()
        if self.close_code is not None:
            self.faults.append(f"sent after the end: {event}")
        if self.is_broken:
            raise OSError("the client is gone")
        if event["type"] == "websocket.send":
            self.messages += self._decoded(event["text" if self.is_text else "bytes"])
        elif event["type"] == "websocket.close":
            self.close_code = event["code"]
            self._disconnect(event["code"])

    # ---- what a client does

    def send_frame(self, frame: Frame) -> None:
        """Send a WebSocket message: text for a str, otherwise binary."""
        key = "text" if isinstance(frame, str) else "bytes"
        if self.is_served and not self._is_disconnected:
            self._to_app.send_nowait({"type": "websocket.receive", key: frame})

    def send(self, *messages: Sequence[Any]) -> None:
        """Send messages, in one frame where that is possible."""
        units = [self.encoded(message) for message in messages]
        for frame in [self.framed(units)] if self.is_batched else units:
            self.send_frame(frame)

    def disconnect(self) -> None:
        """Go away without a word."""
        self.is_broken = True
        self.resume()
        self._disconnect(1005)

    def _disconnect(self, code: int) -> None:
        """Tell the application, once, which can't receive anything more then."""
        if self.is_served and not self._is_disconnected:
            self._is_disconnected = True
            self._to_app.send_nowait({"type": "websocket.disconnect", "code": code})
            self._to_app.close()

    def pause(self) -> None:
        """Read nothing more."""
        if self._reads.is_set():
            self._reads = anyio.Event()

    def resume(self) -> None:
        """Read again."""
        self._reads.set()

    @property
    def is_paused(self) -> bool:
        return not self._reads.is_set()

    # ---- frames, as far from the package's own way as possible

    def encoded(self, message: Any) -> Frame:
        """Return one message, which needn't be one, as a unit."""
        if self.is_text:
            return json.dumps(message, default=lambda value: "\0" + b64encode(value).decode())
        if self.is_cbor:
            return cbor2.dumps(message, encoders={str: _encode_text})
        packed: bytes = msgpack.packb(message, unicode_errors="surrogatepass")
        return packed

    def framed(self, units: Sequence[Frame]) -> Frame:
        """Return units as one frame of a batched subprotocol."""
        if self.is_text:
            return "".join(f"{unit!s}\x1e" for unit in units)
        return b"".join(len(unit).to_bytes(4) + unit for unit in units if isinstance(unit, bytes))

    def _decoded(self, frame: Any) -> list[Any]:
        if not self.is_batched:
            units = [frame]
        elif self.is_text:
            *units, rest = frame.split("\x1e" if frame.endswith("\x1e") else "\x18")
            assert rest == ""
        else:
            units = []
            while frame:
                end = 4 + int.from_bytes(frame[:4])
                units.append(frame[4:end])
                frame = frame[end:]
        if self.is_text:
            return [_with_binary(json.loads(unit)) for unit in units]
        unpack = cbor2.loads if self.is_cbor else msgpack.unpackb
        return [unpack(unit) for unit in units]


def _encode_text(encoder: cbor2.CBOREncoder, text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    encoder.encode_length(3, len(encoded))
    encoder.write(encoded)


def _with_binary(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("\0"):
        return b64decode(value[1:], validate=True)
    if isinstance(value, list):
        return [_with_binary(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_binary(item) for key, item in value.items()}
    return value


class Network:
    """The connections to an application, of which none may outlive the others' end."""

    def __init__(self, app: Application, tasks: anyio.abc.TaskGroup) -> None:
        self._app = app
        self._tasks = tasks
        self.peers: list[Peer] = []

    def add(self, peer: Peer) -> None:
        """Open the connection of a peer."""
        self.peers.append(peer)
        self.start(peer.serve, self._app)

    def start(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run something beside, which has to end when everybody is gone."""
        self._tasks.start_soon(function, *args)


@asynccontextmanager
async def network(app: Application, *, seconds: float = 20.0) -> AsyncIterator[Network]:
    """Give connections to `app`; at the end, all clients vanish, and nothing of them may be left.

    Whatever the application raises is raised here.
    """
    failure: BaseException | None = None
    with anyio.fail_after(seconds):
        async with anyio.create_task_group() as tasks:
            connections = Network(app, tasks)
            try:
                yield connections
            except Exception as error:
                failure = error
                tasks.cancel_scope.cancel()
            finally:
                for peer in connections.peers:
                    peer.disconnect()
            await settle()
            left = [peer for peer in connections.peers if peer.is_served]
    if failure is not None:
        raise failure
    assert left == []
    for peer in connections.peers:
        assert peer.faults == []
    assert app.sessions == {}
    assert connections_of(app) == set()
    for realm in (app, *app._realms.values()):
        assert not list(broker_of(realm))


@contextmanager
def no_mistakes_logged() -> Iterator[list[logging.LogRecord]]:
    """Check that nothing is logged that would be a mistake of the package itself.

    Gives the list of what handlers have done wrong.
    """
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("serverwamp")
    logger.addHandler(handler)
    logger.propagate = False  # pytest would keep the warnings of all examples
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    for record in records:
        module = record.name.removeprefix("serverwamp.")
        assert module not in ("peer.joining", "peer.engine", "serving.connection"), record
