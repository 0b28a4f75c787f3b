"""The sending side of a connection. Messages leave in the order in which they were queued.

There is no permanent sending task. On an idle connection, a finishing call sends its reply in its
own task; for every other message, a task is started. That task goes on sending until nothing waits.
In a batched subprotocol, it first lets other tasks run, and then sends all waiting messages in one
frame.
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
"""No further message is added to a frame that is at least as long as this."""

TURN: Final = 32
"""How often a sender may find room at once before it has to let other tasks run. Servers don't wait
while the network takes everything. So a handler that only sends would keep CANCEL from being read.
"""


class Capacity:
    """Room in the backlog: awaiting it waits until there is room. It needn't be awaited."""

    __slots__ = ("_awaited", "_for_events", "_outbound")

    def __init__(self, outbound: Outbound, *, for_events: bool) -> None:
        self._outbound = outbound
        self._for_events = for_events
        self._awaited = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether awaiting it has to wait."""
        backlog = self._outbound.backlog
        return backlog.is_above_share if self._for_events else backlog.blocks_reader

    def __await__(self) -> Generator[Any, None, None]:
        self._awaited += 1
        if self.is_exhausted:
            yield from self._outbound.wait_for(self).__await__()
        elif self._awaited % TURN == 0:
            yield from anyio.lowlevel.checkpoint().__await__()


class Outbound:
    """Queues and sends the messages for one client.

    `send` is ASGI's. `lose` is called with the exception when `send` fails. `give_up` is called
    when the client reads too slowly, or may have missed a message.
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
        """Starts the tasks that send."""
        self._limit_log = limit_log
        self._lose = lose
        self._give_up = give_up
        self._closed = False
        self._changes = Changes()
        self._sender: StartedTask | None = None
        self._watcher: StartedTask | None = None
        self._has_moved = False  # whether a frame was sent since the watcher last looked
        self.is_sending: bool = False
        """Whether a message is being sent, so that others have to wait."""
        self.room_for_events: Capacity = Capacity(self, for_events=True)
        """For senders of events: exhausted when much waits, droppable or not."""
        self.room_for_replies: Capacity = Capacity(self, for_events=False)
        """For all other waits: exhausted when much waits that can't be dropped."""

    # ---- queueing

    def put(self, unit: Unit) -> None:
        """Queue a message that is never dropped; doesn't wait."""
        if self._closed:
            return
        self.backlog.bytes += len(unit)
        if self.is_sending:
            self._append(unit)
        else:
            self.is_sending = True
            self.runs_in(self.starter.start(self.run, unit))

    def starts_with(self, unit: Unit, sender: StartedTask) -> bool:
        """Queue a message like `put`, or leave it to the current task to send it.

        Returns whether it is left to the task, which then has to await ``run(unit)``. `sender`
        cancels that task.
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
        """Queue an event, if there is room for it; doesn't wait.

        Otherwise the overflow policy of `receiver` decides. The receiver is told about the
        overflow, and about each event that is dropped.
        """
        if self.takes(unit, receiver):
            self.runs_in(self.starter.start(self.run, unit))

    def takes(self, unit: Unit, receiver: EventReceiver) -> bool:
        """Queue an event like `offer`, or leave it to the caller to send it.

        Returns whether it is left to the caller, which then has to start ``run(unit)``.
        """
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
        self._watch()  # because much waits by now
        limit = self.backlog.exceeded_limit()
        if limit is not None:
            self.overflow(limit, receiver)
        if not self._closed and self.backlog.makes_room(receiver):
            return True
        receiver.note_refused()
        return False

    def is_first_loss(self) -> bool:
        """Tell whether this is the first event that the client can't receive, which is logged."""
        return self._limit_log.is_first("lost event")

    def overflow(self, limit: str, receiver: EventReceiver) -> None:
        """Apply the policy of `receiver`, because an event of it has reached a limit."""
        self.backlog.begin_overflow(limit, receiver)
        if receiver.overflow == "disconnect":
            self.discard()
            self._give_up()

    # ---- sending

    def runs_in(self, task: StartedTask) -> None:
        """Set the task that runs `run`, unless that has ended already."""
        if self.is_sending:
            self._sender = task

    async def run(self, unit: Unit) -> None:
        """Send a unit, and all that is queued meanwhile, until nothing waits."""
        backlog, frame, size = self.backlog, unit, len(unit)
        try:
            if self._batched:
                backlog.queue.appendleft(unit)  # others may wait since before this task began
                await anyio.lowlevel.checkpoint()
                frame, size = self._next_frame()
            while True:
                await self._asgi_send({"type": "websocket.send", self._key: frame})
                if not backlog.queue:
                    backlog.bytes = 0  # `discard` may have set it already
                    break
                backlog.bytes -= size
                if self._changes.event is not None and not backlog.blocks_reader:
                    self._changes.notify()
                self._has_moved = True
                frame, size = self._next_frame()
        except Exception as error:
            logger.debug("sending failed: %r", error)
            self._sender = None
            self.discard()
            self._lose(error)
        except BaseException:
            if not self._closed:  # the application cancelled a call whose task was sending
                logger.info("sending was cancelled: the client is disconnected")
                self._sender = None
                self.discard()
                self._give_up()
            raise
        finally:
            self._sender = None
            self.is_sending = False
            if backlog.overflow is not None:
                backlog.end_overflow()
            if self._changes.event is not None:
                self._changes.notify()

    def _next_frame(self) -> tuple[str | bytes, int]:
        """Return the next frame, and the total length of its units."""
        units = [self.backlog.pop()]
        size = len(units[0])
        if self._batched:
            while self.backlog.queue and size < BATCH_SIZE:
                units.append(self.backlog.pop())
                size += len(units[-1])
        return self._join(units), size

    # ---- waiting

    async def wait_for(self, room: Capacity) -> None:
        """Return when `room` isn't exhausted."""
        while room.is_exhausted:
            self._watch()
            await self._changes.wait()

    async def flush(self) -> None:
        """Return when all queued messages have been handed to the ASGI server."""
        while self.is_sending and not self._closed:
            self._watch()
            await self._changes.wait()

    def _watch(self) -> None:
        """Start the task that gives up the client if it reads nothing for too long."""
        if self._watcher is None and self.is_sending:
            self._watcher = self.starter.start(self._give_up_in_time)

    async def _give_up_in_time(self) -> None:
        timeout = self._limits.send_timeout
        while self.is_sending:
            sender, self._has_moved = self._sender, False
            with anyio.move_on_after(timeout):
                await anyio.sleep_forever()
            if self.is_sending and self._sender is sender and not self._has_moved:
                self._watcher = None  # so that `discard` doesn't cancel this task
                self._limit_log.record(
                    "send_timeout", "nothing could be sent for %s seconds: disconnected", timeout
                )
                self.discard()
                self._give_up()
                return
        self._watcher = None

    def discard(self) -> None:
        """Drop all messages: those that wait or are being sent, and all later ones."""
        self._closed = True
        self.backlog.clear()
        if self._sender is not None:
            self._sender.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        self._changes.notify()


class LimitedOutbound(Outbound):
    """An `Outbound` for a client that limits the length of messages: longer events are lost."""

    def takes(self, unit: Unit, receiver: EventReceiver) -> bool:
        """Queue an event like `Outbound.takes`, unless it is too long."""
        if is_longer(unit, self._message_bytes):
            if self.is_first_loss():
                logger.warning("an event is lost: the client can't receive %d bytes", len(unit))
            receiver.note_lost()
            return False
        return super().takes(unit, receiver)
