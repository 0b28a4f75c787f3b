"""The sending side of a connection: everything leaves in the order in which it was queued.

There is no sending task. What is queued on an idle connection is sent from the task that queues it
if that is a call's own, which has nothing else to do any more, and else from one that is started
for it. Either goes on for as long as something waits. In a batched subprotocol it lets others run
first, and takes what has gathered, in one frame.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any, Final

import anyio
import anyio.lowlevel

from serverwamp.limits import Limits
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.serializers import Serializer
from serverwamp.starting import StartedTask, Starter

logger: logging.Logger = logging.getLogger(__name__)


BATCH_SIZE: Final = 64 * 1024
"""A frame of several units isn't made longer than this by another one."""


TURN: Final = 32
"""How often there may be room at once before others have a turn: servers don't wait as long as the
network takes everything, so that a handler that only sends would keep CANCEL from being read."""


class Room:
    """Awaiting it waits until less is queued; it needn't be awaited."""

    __slots__ = ("_awaited", "_outbound")

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._awaited = 0

    def __await__(self) -> Generator[Any, None, None]:
        self._awaited += 1
        if self._outbound.is_full:
            yield from self._outbound.wait_for_room().__await__()
        elif self._awaited % TURN == 0:
            yield from anyio.lowlevel.checkpoint().__await__()


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
        self._asgi_send = send
        self._join = serializer.join
        self._batched = serializer.batched
        self._key = "text" if serializer.frame_type is str else "bytes"
        self.starter: Starter = starter
        self._limits = limits
        self._lose = lose
        self._overflow = overflow
        self._queue: deque[Unit] = deque()
        self._bytes = 0  # what is being sent included
        self._closed = False
        self._changed: anyio.Event | None = None
        self._sender: StartedTask | None = None
        self.is_sending: bool = False
        self.room: Room = Room(self)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that whoever can wait should."""
        return not self._closed and (
            len(self._queue) * 8 > self._limits.outbound_messages
            or self._bytes * 8 > self._limits.outbound_bytes
        )

    # ---- queueing

    def put(self, unit: Unit) -> None:
        """Queue a reply: never refused, never waits."""
        if self._closed:
            return
        self._bytes += len(unit)
        if self.is_sending:
            self._queue.append(unit)
        else:
            self.is_sending = True
            self.runs_in(self.starter.start(self.run, unit))

    def starts_with(self, unit: Unit, sender: StartedTask) -> bool:
        """Queue a reply like `put`; tell whether it isn't queued, but to be sent by `run`.

        That is up to the running task, which `sender` stands for, and can be cancelled by.
        """
        if self._closed:
            return False
        self._bytes += len(unit)
        if self.is_sending:
            self._queue.append(unit)
            return False
        self.is_sending = True
        self._sender = sender
        return True

    def offer(self, unit: Unit) -> None:
        """Queue an event: never waits; a client that is too far behind is given up instead."""
        if self.takes(unit):
            self.runs_in(self.starter.start(self.run, unit))

    def takes(self, unit: Unit) -> bool:
        """Queue an event like `offer`; tell whether it isn't queued, but to be sent by `run`."""
        if not self.is_sending:
            if self._closed:
                return False
            self._bytes += len(unit)
            self.is_sending = True
            return True
        if (
            len(self._queue) < self._limits.outbound_messages
            and self._bytes < self._limits.outbound_bytes
        ):
            self.put(unit)
        elif not self._closed:
            self.discard()
            self._overflow()
        return False

    # ---- sending

    def runs_in(self, task: StartedTask) -> None:
        """Take note of the task in which `run` runs, if it still does."""
        if self.is_sending:
            self._sender = task

    async def run(self, unit: Unit) -> None:
        """Send a unit, and what is queued meanwhile, until nothing is."""
        frame, size = unit, len(unit)
        try:
            if self._batched:
                self._queue.appendleft(unit)  # others may have come before this task began
                await anyio.lowlevel.checkpoint()
                if self._closed:
                    return
                frame, size = self._next_frame()
            while True:
                await self._asgi_send({"type": "websocket.send", self._key: frame})
                self._bytes -= size
                if self._changed is not None and not self.is_full:
                    self._notify()
                if not self._queue:
                    break
                frame, size = self._next_frame()
        except Exception as error:
            # Servers differ in what they raise for a client that has left.
            logger.debug("sending failed, the client is gone: %r", error)
            self._sender = None
            self.discard()
            self._lose()
        finally:
            self._sender = None
            self.is_sending = False
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

    # ---- waiting

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
        while self.is_sending and not self._closed:
            await self._wait_for_change()

    def discard(self) -> None:
        """Drop what is queued or being sent, and whatever is queued from now on."""
        self._closed = True
        self._queue.clear()
        self._bytes = 0
        if self._sender is not None:
            self._sender.cancel()
        if self._changed is not None:
            self._notify()
