"""What waits to be sent to one client, and which events are dropped when that is too much.

Nothing in here waits or sends. Policies drop events and nothing else, and they never change the
order: a client receives a part of what was sent to it, as it was sent.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from serverwamp.errors import ConfigurationError
from serverwamp.limits import Limits
from serverwamp.protocol.formats import Unit

OverflowPolicy: TypeAlias = Literal["disconnect", "drop_newest", "drop_oldest", "latest"]
"""What becomes of an event for a client for which too much is waiting already.

``disconnect``: the client is disconnected. ``drop_newest``: the event is dropped. ``drop_oldest``:
the oldest events of topics with this policy are dropped for it. ``latest``: of each topic only the
newest event is kept, until nothing waits any more.
"""


def checked_policy(policy: Any) -> OverflowPolicy:
    """Return the policy of that name.

    Raises: ConfigurationError.
    """
    names = get_args(OverflowPolicy)
    if policy not in names:
        raise ConfigurationError(f"{policy!r} is no overflow policy: there are {', '.join(names)}")
    checked: OverflowPolicy = policy
    return checked


class Origin(Protocol):
    """A session's subscription, to which events belong."""

    overflow: OverflowPolicy

    def note_overflow(self, limit: str) -> None:
        """Take note that too much waits for the client; `limit` is a field of `Limits`."""

    def note_refused(self) -> None:
        """Take note that its policy has dropped an event."""

    def note_lost(self) -> None:
        """Take note that an event found the connection closed."""


class DroppableEvent:
    """An event that waits and may be dropped; its unit is None when it waits no more."""

    __slots__ = ("origin", "unit")

    def __init__(self, unit: Unit, origin: Origin) -> None:
        self.unit: Unit | None = unit
        self.origin: Origin = origin


Entry: TypeAlias = Unit | DroppableEvent


class Overflow:
    """From when a client is over a limit until nothing waits for it any more."""

    __slots__ = ("newest", "oldest", "unsent")

    def __init__(self) -> None:
        self.oldest: deque[DroppableEvent] = deque()
        """The events of ``drop_oldest``, some of which may have been sent since."""
        self.newest: dict[Origin, DroppableEvent] = {}
        """The event that waits of each topic with ``latest``."""
        self.unsent: int = 0
        """How many entries of the queue were dropped, and are still in there."""


SHARE: Final = 8
"""At this part of a limit whoever can wait waits."""


class Backlog:
    """What waits for one client, in order."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._many = limits.outbound_messages / SHARE
        self._much = limits.outbound_bytes / SHARE
        self._queue: deque[Entry] = deque()
        self._bytes = 0  # what is being sent included
        self._droppable = 0  # entries of the queue, those included that were dropped
        self._droppable_bytes = 0
        self._overflow: Overflow | None = None

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return len(self._queue) - (0 if self._overflow is None else self._overflow.unsent)

    @property
    def bytes(self) -> int:
        """How long they are, and what is being sent."""
        return self._bytes

    @property
    def is_overflowing(self) -> bool:
        """Whether a limit was reached, and something has been waiting ever since."""
        return self._overflow is not None

    @property
    def is_above_share(self) -> bool:
        """Whether so much waits that whoever sends events and can wait should."""
        return self.messages > self._many or self._bytes > self._much

    @property
    def blocks_reader(self) -> bool:
        """Whether so much waits that may not be dropped, that nothing should be answered."""
        return (
            len(self._queue) - self._droppable > self._many
            or self._bytes - self._droppable_bytes > self._much
        )

    def exceeded_limit(self, messages: int = 0, size: int = 0) -> str | None:
        """Return the limit that leaves no room for an event beside what waits, and this."""
        if self.messages + messages >= self._limits.outbound_messages:
            return "outbound_messages"
        if self._bytes + size >= self._limits.outbound_bytes:
            return "outbound_bytes"
        return None

    # ---- in and out

    def _append_droppable(self, unit: Unit, origin: Origin) -> None:
        event = DroppableEvent(unit, origin)
        self._queue.append(event)
        self._bytes += len(unit)
        self._droppable += 1
        self._droppable_bytes += len(unit)
        if self._overflow is not None:
            self._note_waiting(self._overflow, event)

    def _pop(self) -> Unit:
        """Take out what is to be sent next; the last entry is never one that was dropped."""
        while isinstance(entry := self._queue.popleft(), DroppableEvent):
            self._droppable -= 1
            unit, entry.unit = entry.unit, None
            if unit is not None:
                self._droppable_bytes -= len(unit)
                if self._overflow is not None:
                    self._overflow.newest.pop(entry.origin, None)
                return unit
            assert self._overflow is not None
            self._overflow.unsent -= 1
        return entry

    def _clear(self) -> None:
        self._queue.clear()
        self._bytes = self._droppable = self._droppable_bytes = 0
        self._overflow = None

    # ---- dropping

    def begin_overflow(self, limit: str, origin: Origin) -> None:
        """Take note that an event has found no room; what is told to its origin, but once."""
        if self._overflow is None:
            self._overflow = Overflow()
            for entry in tuple(self._queue):
                if isinstance(entry, DroppableEvent):
                    self._note_waiting(self._overflow, entry)
        elif origin.overflow != "disconnect":
            return
        origin.note_overflow(limit)

    def _note_waiting(self, overflow: Overflow, event: DroppableEvent) -> None:
        policy = event.origin.overflow
        if policy == "drop_oldest":
            while overflow.oldest and overflow.oldest[0].unit is None:
                overflow.oldest.popleft()
            overflow.oldest.append(event)
        elif policy == "latest":
            former = overflow.newest.get(event.origin)
            overflow.newest[event.origin] = event
            if former is not None:
                self._drop(overflow, former)

    def _makes_room(self, origin: Origin) -> bool:
        """Drop what gives way to an event of `origin`; tell whether there is room for it then."""
        overflow = self._overflow
        if overflow is None or origin.overflow == "latest":
            return True  # the former one is dropped when another is queued
        has_dropped = False
        if origin.overflow == "drop_oldest":
            while overflow.oldest and self.exceeded_limit() is not None:
                has_dropped |= self._drop(overflow, overflow.oldest.popleft())
        return has_dropped or self.exceeded_limit() is None

    def _drop(self, overflow: Overflow, event: DroppableEvent) -> bool:
        """Drop an event; tell whether it still waited. Another has to be queued after this."""
        if event.unit is None:
            return False
        self._bytes -= len(event.unit)
        self._droppable_bytes -= len(event.unit)
        event.unit = None
        event.origin.note_refused()
        overflow.unsent += 1
        if overflow.unsent * 2 > len(self._queue):
            self._forget_dropped(overflow)
        return True

    def _forget_dropped(self, overflow: Overflow) -> None:
        waiting = [
            entry
            for entry in self._queue
            if not isinstance(entry, DroppableEvent) or entry.unit is not None
        ]
        self._queue.clear()
        self._queue.extend(waiting)
        self._droppable -= overflow.unsent
        overflow.unsent = 0
