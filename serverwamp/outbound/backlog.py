"""What waits to be sent to one client, and which events are dropped when that is too much.

Nothing in here waits or sends. Policies drop events and nothing else, and they never change the
order: a client receives a part of what was sent to it, as it was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from serverwamp.errors import ConfigurationError
from serverwamp.limits import Limits
from serverwamp.protocol.formats import Format, Unit

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


class EventReceiver(Protocol):
    """A session's side of a subscription, which receives its events."""

    session: Any
    subscription: Any
    outbound: Any
    format: Format
    overflow: OverflowPolicy

    @property
    def is_open(self) -> bool: ...

    def receive(self, unit: Unit) -> None:
        """Queue an event."""

    def is_allowed(self, topic: str, event: Mapping[Format, Unit | None]) -> bool:
        """Tell whether an event may be queued now; if not, the receiver deals with it."""
        ...

    def note_overflow(self, limit: str) -> None:
        """Take note that too much waits for the client; `limit` is a field of `Limits`."""

    def note_refused(self) -> None:
        """Take note that its policy has dropped an event."""

    def note_lost(self) -> None:
        """Take note that an event found the connection closed."""


class DroppableEvent:
    """An event that waits and may be dropped; its unit is None when it waits no more."""

    __slots__ = ("receiver", "unit")

    def __init__(self, unit: Unit, receiver: EventReceiver) -> None:
        self.unit: Unit | None = unit
        self.receiver: EventReceiver = receiver


Entry: TypeAlias = Unit | DroppableEvent


class Overflow:
    """From when a client is over a limit until nothing waits for it any more."""

    __slots__ = ("newest", "oldest", "unsent")

    def __init__(self) -> None:
        self.oldest: deque[DroppableEvent] = deque()
        """The events of ``drop_oldest``, some of which may have been sent since."""
        self.newest: dict[EventReceiver, DroppableEvent] = {}
        """The event that waits of each topic with ``latest``."""
        self.unsent: int = 0
        """How many entries of the queue were dropped, and are still in there."""


SHARE: Final = 8
"""At this part of a limit whoever can wait waits."""


class Backlog:
    """What waits for one client, in order."""

    __slots__ = (
        "_droppable",
        "_droppable_bytes",
        "_limits",
        "_many",
        "_much",
        "bytes",
        "overflow",
        "queue",
    )

    def __init__(self, limits: Limits) -> None:
        self.queue: deque[Entry] = deque()
        self.bytes: int = 0
        """How many bytes wait, including what is being sent."""
        self._limits = limits
        self._many = limits.outbound_messages / SHARE
        self._much = limits.outbound_bytes / SHARE
        self._droppable = 0  # entries of the queue, those included that were dropped
        self._droppable_bytes = 0
        self.overflow: Overflow | None = None
        """Not None from when a limit was reached until nothing waits."""

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return len(self.queue) - (0 if self.overflow is None else self.overflow.unsent)

    @property
    def is_above_share(self) -> bool:
        """Whether so much waits that whoever sends events and can wait should."""
        return self.messages > self._many or self.bytes > self._much

    @property
    def blocks_reader(self) -> bool:
        """Whether so much waits that may not be dropped, that nothing should be answered."""
        return (
            len(self.queue) - self._droppable > self._many
            or self.bytes - self._droppable_bytes > self._much
        )

    def has_ample_room_for(self, unit: Unit) -> bool:
        """Tell whether an event can be queued with no limit in sight."""
        return (
            self.overflow is None
            and len(self.queue) < self._many
            and self.bytes + len(unit) <= self._much
        )

    def exceeded_limit(self, messages: int = 0, size: int = 0) -> str | None:
        """Return the limit that leaves no room for an event beside what waits, and this."""
        if self.messages + messages >= self._limits.outbound_messages:
            return "outbound_messages"
        if self.bytes + size >= self._limits.outbound_bytes:
            return "outbound_bytes"
        return None

    # ---- in and out

    def append_event(self, unit: Unit, receiver: EventReceiver) -> None:
        """Queue an event, which may be dropped later if its policy allows that."""
        if receiver.overflow == "disconnect":
            self.bytes += len(unit)
            self.queue.append(unit)
            return
        event = DroppableEvent(unit, receiver)
        self.queue.append(event)
        self.bytes += len(unit)
        self._droppable += 1
        self._droppable_bytes += len(unit)
        if self.overflow is not None:
            self._note_waiting(self.overflow, event)

    def pop(self) -> Unit:
        """Take out what is to be sent next; the last entry is never one that was dropped."""
        while isinstance(entry := self.queue.popleft(), DroppableEvent):
            self._droppable -= 1
            unit, entry.unit = entry.unit, None
            if unit is not None:
                self._droppable_bytes -= len(unit)
                if self.overflow is not None:
                    self.overflow.newest.pop(entry.receiver, None)
                return unit
            assert self.overflow is not None
            self.overflow.unsent -= 1
        return entry

    def clear(self) -> None:
        """Drop everything."""
        self.queue.clear()
        self.bytes = self._droppable = self._droppable_bytes = 0
        self.overflow = None

    # ---- dropping

    def end_overflow(self) -> None:
        """Let events be queued as before, because nothing waits any more."""
        if not self.queue:
            self.overflow = None

    def begin_overflow(self, limit: str, receiver: EventReceiver) -> None:
        """Take note that an event has found no room; what is told to its receiver, but once."""
        if self.overflow is None:
            self.overflow = Overflow()
            for entry in tuple(self.queue):
                if isinstance(entry, DroppableEvent):
                    self._note_waiting(self.overflow, entry)
        elif receiver.overflow != "disconnect":
            return
        receiver.note_overflow(limit)

    def _note_waiting(self, overflow: Overflow, event: DroppableEvent) -> None:
        policy = event.receiver.overflow
        if policy == "drop_oldest":
            while overflow.oldest and overflow.oldest[0].unit is None:
                overflow.oldest.popleft()
            overflow.oldest.append(event)
        elif policy == "latest":
            former = overflow.newest.get(event.receiver)
            overflow.newest[event.receiver] = event
            if former is not None:
                self._drop(overflow, former)

    def makes_room(self, receiver: EventReceiver) -> bool:
        """Drop what gives way to an event of `receiver`; tell whether there is room for it then."""
        overflow = self.overflow
        if overflow is None or receiver.overflow == "latest":
            return True  # the former one is dropped when another is queued
        has_dropped = False
        if receiver.overflow == "drop_oldest":
            while overflow.oldest and self.exceeded_limit() is not None:
                has_dropped |= self._drop(overflow, overflow.oldest.popleft())
        return has_dropped or self.exceeded_limit() is None

    def _drop(self, overflow: Overflow, event: DroppableEvent) -> bool:
        """Drop an event; tell whether it still waited. Another has to be queued after this."""
        if event.unit is None:
            return False
        self.bytes -= len(event.unit)
        self._droppable_bytes -= len(event.unit)
        event.unit = None
        event.receiver.note_refused()
        overflow.unsent += 1
        if overflow.unsent * 2 > len(self.queue):
            self._forget_dropped(overflow)
        return True

    def _forget_dropped(self, overflow: Overflow) -> None:
        waiting = [
            entry
            for entry in self.queue
            if not isinstance(entry, DroppableEvent) or entry.unit is not None
        ]
        self.queue.clear()
        self.queue.extend(waiting)
        self._droppable -= overflow.unsent
        overflow.unsent = 0
