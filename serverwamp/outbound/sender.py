"""The sending side of a connection: everything leaves in the order in which it was queued.

There is no sending task. What is queued on an idle connection is sent from the task that queues it
if that is a call's own, which has nothing else to do any more, and else from one that is started
for it. Either goes on for as long as something waits. In a batched subprotocol it lets others run
first, and takes what has gathered, in one frame.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any, Final

import anyio
import anyio.lowlevel

from serverwamp.concurrency.changes import Changes
from serverwamp.concurrency.tasks import StartedTask, Starter
from serverwamp.limits import LimitLog, Limits
from serverwamp.outbound.backlog import Backlog, EventReceiver
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.serializers import Serializer, is_longer

logger: logging.Logger = logging.getLogger(__name__)


BATCH_SIZE: Final = 64 * 1024
"""A frame of several units isn't made longer than this by another one."""


TURN: Final = 32
"""How often there may be room at once before others have a turn: servers don't wait as long as the
network takes everything, so that a handler that only sends would keep CANCEL from being read."""


class Capacity:
    """Awaiting it waits until less is queued; it needn't be awaited."""

    __slots__ = ("_awaited", "_for_events", "_outbound")

    def __init__(self, outbound: Outbound, *, for_events: bool) -> None:
        self._outbound = outbound
        self._for_events = for_events
        self._awaited = 0

    @property
    def is_exhausted(self) -> bool:
        backlog = self._outbound.backlog
        return backlog.is_above_share if self._for_events else backlog.blocks_reader

    def __await__(self) -> Generator[Any, None, None]:
        self._awaited += 1
        if self.is_exhausted:
            yield from self._outbound.wait_for(self).__await__()
        elif self._awaited % TURN == 0:
            yield from anyio.lowlevel.checkpoint().__await__()


class Outbound:
    """What waits to be sent to one client, and what sends it.

    `send` is ASGI's; `lose` is called when it fails, and `give_up` when a client reads too little,
    or may have missed something.
    """

    def __init__(
        self,
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        serializer: Serializer,
        starter: Starter,
        limits: Limits,
        limit_log: LimitLog,
        *,
        lose: Callable[[Exception], None],
        give_up: Callable[[], None],
    ) -> None:
        self.backlog: Backlog = Backlog(limits)
        self._limits = limits
        self._asgi_send = send
        self._join = serializer.join
        self._batched = serializer.batched
        self._message_bytes = serializer.message_bytes
        self._key = "text" if serializer.frame_type is str else "bytes"
        self.starter: Starter = starter
        self._limit_log = limit_log
        self._lose = lose
        self._give_up = give_up
        self._closed = False
        self._changes = Changes()
        self._sender: StartedTask | None = None
        self._watcher: StartedTask | None = None
        self._has_moved = False
        self.is_sending: bool = False
        self.room_for_events: Capacity = Capacity(self, for_events=True)
        self.room_for_replies: Capacity = Capacity(self, for_events=False)

    # ---- queueing

    def put(self, unit: Unit) -> None:
        """Queue a reply: never refused, never waits."""
        if self._closed:
            return
        self.backlog.bytes += len(unit)
        if self.is_sending:
            self._append(unit)
        else:
            self.is_sending = True
            self.runs_in(self.starter.start(self.run, unit))

    def starts_with(self, unit: Unit, sender: StartedTask) -> bool:
        """Queue a reply like `put`; tell whether it isn't queued, but to be sent by `run`.

        That is up to the running task, which `sender` stands for, and can be cancelled by.
        """
        if self._closed:
            return False
        self.backlog.bytes += len(unit)
        if self.is_sending:
            self._append(unit)
            return False
        self.is_sending = True
        self._sender = sender
        return True

    def _append(self, unit: Unit) -> None:
        self.backlog.queue.append(unit)
        if self.backlog.is_above_share:
            self._watch()

    def offer(self, unit: Unit, receiver: EventReceiver) -> None:
        """Queue an event: never waits; for a client that is too far behind `receiver` has a policy.

        It is told when there is no room, and when an event is dropped.
        """
        if self.takes(unit, receiver):
            self.runs_in(self.starter.start(self.run, unit))

    def takes(self, unit: Unit, receiver: EventReceiver) -> bool:
        """Queue an event like `offer`; tell whether it isn't queued, but to be sent by `run`."""
        if self._closed:
            receiver.note_lost()
        elif not self.is_sending:
            self.backlog.bytes += len(unit)
            self.is_sending = True
            return True
        elif self.backlog.has_ample_room_for(unit) or self._has_room_for(receiver):
            self.backlog.append_event(unit, receiver)
        return False

    def _has_room_for(self, receiver: EventReceiver) -> bool:
        self._watch()  # for there is much by now
        limit = self.backlog.exceeded_limit()
        if limit is not None:
            self.overflow(limit, receiver)
        if not self._closed and self.backlog.makes_room(receiver):
            return True
        receiver.note_refused()
        return False

    def is_first_loss(self) -> bool:
        """Tell whether it is to be logged that the client can't receive an event: only once."""
        return self._limit_log.is_first("lost event")

    def overflow(self, limit: str, receiver: EventReceiver) -> None:
        """Let the policy of `receiver` begin to work, as its events find a limit reached."""
        self.backlog.begin_overflow(limit, receiver)
        if receiver.overflow == "disconnect":
            self.discard()
            self._give_up()

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
                self.backlog.queue.appendleft(unit)  # others may have come before this task began
                await anyio.lowlevel.checkpoint()
                frame, size = self._next_frame()
            while True:
                await self._asgi_send({"type": "websocket.send", self._key: frame})
                if not self.backlog.queue:
                    self.backlog.bytes = 0  # as it was already, if it has been discarded meanwhile
                    break
                self.backlog.bytes -= size
                if self._changes.event is not None and not self.backlog.blocks_reader:
                    self._changes.notify()
                self._has_moved = True
                frame, size = self._next_frame()
        except Exception as error:
            logger.debug("sending failed: %r", error)
            self._sender = None
            self.discard()
            self._lose(error)
        except BaseException:
            if not self._closed:  # as the task of a call can be by whoever has it at hand
                logger.info("sending was cancelled: the client is disconnected")
                self._sender = None
                self.discard()
                self._give_up()
            raise
        finally:
            self._sender = None
            self.is_sending = False
            if self.backlog.overflow is not None:
                self.backlog.end_overflow()
            self._changes.notify()

    def _next_frame(self) -> tuple[str | bytes, int]:
        """Return the next frame, and the size of the units in it."""
        units = [self.backlog.pop()]
        size = len(units[0])
        if self._batched:
            while self.backlog.queue and size < BATCH_SIZE:
                units.append(self.backlog.pop())
                size += len(units[-1])
        return self._join(units), size

    # ---- waiting

    async def wait_for(self, room: Capacity) -> None:
        """Return when less is queued."""
        while room.is_exhausted:
            self._watch()
            await self._changes.wait()

    async def flush(self) -> None:
        """Return when everything that is queued has been handed to the server."""
        while self.is_sending and not self._closed:
            self._watch()
            await self._changes.wait()

    def _watch(self) -> None:
        """See to it that the client is given up when it takes nothing for too long."""
        if self._watcher is None and self.is_sending:
            self._watcher = self.starter.start(self._give_up_in_time)

    async def _give_up_in_time(self) -> None:
        timeout = self._limits.send_timeout
        while self.is_sending:
            sender, self._has_moved = self._sender, False
            with anyio.move_on_after(timeout):
                await anyio.sleep_forever()
            if self.is_sending and self._sender is sender and not self._has_moved:
                self._watcher = None  # which is this task, and isn't to be cancelled
                self._limit_log.record(
                    "send_timeout", "nothing could be sent for %s seconds: disconnected", timeout
                )
                self.discard()
                self._give_up()
                return
        self._watcher = None

    def discard(self) -> None:
        """Drop what is queued or being sent, and whatever is queued from now on."""
        self._closed = True
        self.backlog.clear()
        if self._sender is not None:
            self._sender.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        self._changes.notify()


class LimitedOutbound(Outbound):
    """The same for a client that can't receive messages of any length: longer events are lost."""

    def takes(self, unit: Unit, receiver: EventReceiver) -> bool:
        if is_longer(unit, self._message_bytes):
            if self.is_first_loss():
                logger.warning("an event is lost: the client can't receive %d bytes", len(unit))
            receiver.note_lost()
            return False
        return super().takes(unit, receiver)
