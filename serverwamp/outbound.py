"""The sending side of a connection: everything leaves in the order in which it was queued.

There is no sending task. What is queued on an idle connection starts a drain, which lives only
while something waits and takes what has gathered: in a batched subprotocol, in one frame.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any, Final

import anyio

from serverwamp.limits import Limits
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.serializers import Serializer
from serverwamp.starting import StartedTask, Starter

logger: logging.Logger = logging.getLogger(__name__)


BATCH_SIZE: Final = 64 * 1024
"""A frame of several units isn't made longer than this by another one."""


class Room:
    """Awaiting it waits until less is queued; it needn't be awaited."""

    __slots__ = ("_outbound",)

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    def __await__(self) -> Generator[Any, None, None]:
        if self._outbound.is_full:
            yield from self._outbound.wait_for_room().__await__()


class Outbound:
    """What waits to be sent to one client.

    `send` is ASGI's; `lose` is called when it fails, and `overflow` when a client is so far
    behind its events that it is given up.
    """

    def __init__(
        self,
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        serializer: Serializer,
        starter: Starter,
        limits: Limits,
        *,
        lose: Callable[[], None],
        overflow: Callable[[], None],
    ) -> None:
        self._send = send
        self._join = serializer.join
        self._batched = serializer.batched
        self._key = "text" if serializer.frame_type is str else "bytes"
        self._starter = starter
        self._limits = limits
        self._lose = lose
        self._overflow = overflow
        self._queue: deque[Unit] = deque()
        self._bytes = 0
        self._draining = False
        self._closed = False
        self._changed: anyio.Event | None = None
        self._task: StartedTask | None = None
        self.room: Room = Room(self)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that whoever can wait should."""
        return not self._closed and (
            len(self._queue) * 8 > self._limits.outbound_messages
            or self._bytes * 8 > self._limits.outbound_bytes
        )

    def put(self, unit: Unit) -> None:
        """Queue a reply: never refused, never waits."""
        if self._closed:
            return
        self._queue.append(unit)
        self._bytes += len(unit)
        if not self._draining:
            self._draining = True
            self._task = self._starter.start(self._drain)

    def offer(self, unit: Unit) -> None:
        """Queue an event: never waits; a client that is too far behind is given up instead."""
        if (
            len(self._queue) >= self._limits.outbound_messages
            or self._bytes >= self._limits.outbound_bytes
        ):
            if not self._closed:
                self.discard()
                self._overflow()
            return
        self.put(unit)

    async def _drain(self) -> None:
        try:
            while self._queue:
                frame, size = self._next_frame()
                await self._send({"type": "websocket.send", self._key: frame})
                self._bytes -= size  # until now it was on its way, and counted
                if self._changed is not None and not self.is_full:
                    self._notify()
        except Exception as error:
            # Servers differ in what they raise for a client that has left.
            logger.debug("sending failed, the client is gone: %r", error)
            self.discard()
            self._lose()
        finally:
            self._draining = False
            if self._changed is not None:
                self._notify()

    def _next_frame(self) -> tuple[str | bytes, int]:
        """Return the next frame, and the size of the units in it."""
        units = [self._queue.popleft()]
        size = len(units[0])
        if self._batched:
            while self._queue and size < BATCH_SIZE:
                units.append(self._queue.popleft())
                size += len(units[-1])
        return self._join(units), size

    def _notify(self) -> None:
        assert self._changed is not None
        self._changed.set()
        self._changed = None

    async def _wait_for_change(self) -> None:
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    async def wait_for_room(self) -> None:
        """Return when less is queued."""
        while self.is_full:
            await self._wait_for_change()

    async def flush(self) -> None:
        """Return when everything that is queued has been handed to the server."""
        while self._draining and not self._closed:
            await self._wait_for_change()

    def discard(self) -> None:
        """Drop what is queued, and whatever is queued from now on."""
        self._closed = True
        self._queue.clear()
        self._bytes = 0
        if self._changed is not None:
            self._notify()

    def stop(self) -> None:
        """Drop everything, what is just being sent included."""
        self.discard()
        if self._draining and self._task is not None:
            self._task.cancel()
