"""The publications that wait to be sent, in batches.

Publications that wait for the same channel travel together. A batch has one event that all its
publishers wait for, and one deadline, so that a publication costs no task and no timer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from serverwamp.errors import BackplaneOutcomeUnknown, BackplaneUnavailable, Unavailable

MOST_WAITING: Final = 10_000
"""How many publications may wait to be sent or for an answer."""
MOST_BYTES_WAITING: Final = 64 * 1024 * 1024
"""How many bytes may wait to be sent."""
MOST_BYTES: Final = 16 * 1024 * 1024
"""How long a publication may be. With its usual settings, Redis disconnects a subscriber for which
32 MiB wait."""
BATCH_BYTES: Final = 256 * 1024
"""A batch that is longer takes no further publication."""
BATCH_SECONDS: Final = 0.1
"""A batch that is older takes no further publication."""


class Batch:
    """Publications to one channel that travel together."""

    __slots__ = (
        "_failure",
        "channel",
        "done",
        "frames",
        "is_accepted",
        "is_delivered",
        "is_sent",
        "number",
        "opened_at",
        "posted",
        "reply_by",
        "size",
    )

    def __init__(self, channel: str, number: int) -> None:
        self.channel: str = channel
        self.number: int = number
        self.opened_at: float = anyio.current_time()
        self.frames: list[bytes] = []
        self.posted: int = 0
        """How many of them nobody waits for."""
        self.size: int = 0
        self.is_sent: bool = False
        self.is_accepted: bool = False
        self.is_delivered: bool = False
        self.reply_by: float = 0.0
        """When waiting for this process's own copy ends."""
        self.done: anyio.Event = anyio.Event()
        self._failure: tuple[type[Unavailable], str] | None = None

    def add(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.size += len(frame)

    def fail(self, kind: type[Unavailable], text: str) -> None:
        """Let its publishers raise an error, unless their publications were accepted."""
        if not self.done.is_set():
            if not self.is_accepted:
                self._failure = kind, text
            self.done.set()

    @property
    def has_failed(self) -> bool:
        return self._failure is not None

    async def wait(self) -> None:
        """Return when the publications are accepted, and delivered in this process.

        Raises: BackplaneUnavailable; BackplaneOutcomeUnknown.
        """
        await self.done.wait()
        if self._failure is not None:
            kind, text = self._failure
            raise kind(text)


class Outbox:
    """The batches that wait to be sent, oldest first. `notify` is called when there is one."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._queue: list[Batch] = []
        self._open: dict[str, Batch] = {}  # the newest batch of each channel
        self._batches = 0
        self._bytes = 0
        self._waiting = 0
        self._under_way: dict[int, Batch] = {}

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be sent or for an answer."""
        return not self._queue and not self._under_way

    # ---- for publishers

    async def publish(self, channel: str, frame: bytes) -> None:
        """Send a publication; return when it is accepted, and delivered in this process.

        Raises: BackplaneUnavailable; BackplaneOutcomeUnknown.
        """
        batch = self._add(channel, frame)
        self._waiting += 1
        try:
            await batch.wait()
        finally:
            self._waiting -= 1
            if not batch.done.is_set() and not batch.is_sent:  # the publisher was cancelled
                batch.frames.remove(frame)
                batch.size -= len(frame)
                self._bytes -= len(frame)

    def post(self, channel: str, frame: bytes) -> None:
        """Send a publication for which nobody waits.

        Raises: BackplaneUnavailable when too many wait.
        """
        self._add(channel, frame).posted += 1
        self._waiting += 1

    def _add(self, channel: str, frame: bytes) -> Batch:
        if len(frame) > MOST_BYTES:
            raise BackplaneUnavailable(f"a publication of {len(frame)} bytes is too long")
        if self._waiting >= MOST_WAITING or self._bytes >= MOST_BYTES_WAITING:
            raise BackplaneUnavailable("too many publications wait to be sent")
        batch = self._open.get(channel)
        if batch is None or not _has_room(batch):
            self._batches += 1
            batch = self._open[channel] = Batch(channel, self._batches)
            self._queue.append(batch)
            self._notify()
        batch.add(frame)
        self._bytes += len(frame)
        return batch

    # ---- for the connection that sends

    def take(self, reply_by: float) -> list[Batch]:
        """Return all batches; they count as sent, and have to be accepted or to fail."""
        batches, self._queue = self._queue, []
        self._open.clear()
        self._bytes = 0
        for batch in batches:
            batch.is_sent, batch.reply_by = True, reply_by
        batches = [batch for batch in batches if batch.frames]
        self._under_way.update((batch.number, batch) for batch in batches)
        return batches

    def accept(self, batch: Batch, *, has_copy: bool) -> None:
        """Note that a batch was accepted. `has_copy` says whether this process receives it, too."""
        batch.is_accepted = True
        if not has_copy or batch.is_delivered:
            self._end(batch)

    def fail(self, batch: Batch, kind: type[Unavailable], text: str) -> None:
        """End a batch, unless it has ended."""
        if batch.number in self._under_way:
            batch.fail(kind, text)
            self._end(batch)

    def deliver(self, number: int) -> None:
        """Note that this process has delivered its own copy of a batch."""
        batch = self._under_way.get(number)
        if batch is not None:
            batch.is_delivered = True
            if batch.is_accepted:
                self._end(batch)

    def _end(self, batch: Batch) -> None:
        del self._under_way[batch.number]
        self._waiting -= batch.posted
        batch.done.set()

    # ---- time

    def stop_waiting_for_copies(self) -> None:
        """End the accepted batches: the copies of this process are lost."""
        for batch in list(self._under_way.values()):
            if batch.is_accepted:
                self._end(batch)

    def expire(self, *, opened_before: float, now: float) -> int:
        """End the batches that have waited for too long; return how many posted ones are lost."""
        lost = 0
        for batch in list(self._under_way.values()):
            if batch.is_accepted and batch.reply_by <= now:
                self._end(batch)
        while self._queue and self._queue[0].opened_at <= opened_before:
            batch = self._queue.pop(0)
            if self._open.get(batch.channel) is batch:
                del self._open[batch.channel]
            self._bytes -= batch.size
            self._waiting -= batch.posted
            lost += batch.posted
            batch.fail(BackplaneUnavailable, "the backplane can't be reached")
        return lost

    def close(self) -> None:
        """End all batches."""
        self.expire(opened_before=float("inf"), now=float("inf"))
        for batch in list(self._under_way.values()):
            self.fail(batch, BackplaneOutcomeUnknown, "the backplane is closed")


def _has_room(batch: Batch) -> bool:
    return batch.size < BATCH_BYTES and anyio.current_time() - batch.opened_at < BATCH_SECONDS
