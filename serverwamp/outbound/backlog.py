"""The queue of messages for one client, and which events are dropped when it gets too long.

Nothing here waits or sends. The overflow policies drop events, never other messages. They never
change the order, so a client receives its messages in the order in which they were queued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from serverwamp.errors import ConfigurationError
from serverwamp.limits import Limits
from serverwamp.protocol.formats import Format, Unit

OverflowPolicy: TypeAlias = Literal["disconnect", "drop_newest", "drop_oldest", "latest"]
"""What happens to an event when too much already waits for the client.

``disconnect``: the client is disconnected. ``drop_newest``: the event is dropped. ``drop_oldest``:
the oldest waiting events of topics with this policy are dropped to make room for it. ``latest``:
only the newest event of each topic is kept, until nothing waits any more.
"""


def checked_policy(policy: Any) -> OverflowPolicy:
    """Return `policy`, if it is the name of an overflow policy.

    Raises: ConfigurationError.
    """
    names = get_args(OverflowPolicy)
    if policy not in names:
        raise ConfigurationError(f"{policy!r} is not an overflow policy; use {', '.join(names)}")
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
    def is_open(self) -> bool:
        """Whether SUBSCRIBED has been queued and the subscription isn't closing."""
        ...

    def receive(self, unit: Unit) -> None:
        """Queue an event."""

    def is_allowed(self, topic: str, event: Mapping[Format, Unit | None]) -> bool:
        """Tell whether an event may be queued now; if not, the receiver deals with it."""
        ...

    def note_overflow(self, limit: str) -> None:
        """Take note that a limit of the backlog is reached; `limit` is a field of `Limits`."""

    def note_refused(self) -> None:
        """Take note that its policy has dropped an event."""

    def note_lost(self) -> None:
        """Take note that an event can't be sent, for example because the connection is closed."""


class DroppableEvent:
    """A waiting event that may be dropped. Its unit is None once it was sent or dropped."""

    __slots__ = ("receiver", "unit")

    def __init__(self, unit: Unit, receiver: EventReceiver) -> None:
        self.unit: Unit | None = unit
        self.receiver: EventReceiver = receiver


Entry: TypeAlias = Unit | DroppableEvent


class Overflow:
    """The waiting events by their policies, from when a limit is reached until nothing waits.

    It exists only then, because keeping these tables has a cost for each event.
    """

    __slots__ = ("newest", "oldest", "unsent")

    def __init__(self) -> None:
        self.oldest: deque[DroppableEvent] = deque()
        """The events with the policy ``drop_oldest``; some of them may have been sent already."""
        self.newest: dict[EventReceiver, DroppableEvent] = {}
        """The waiting event of each receiver with the policy ``latest``."""
        self.unsent: int = 0
        """How many dropped events are still in the queue."""


SHARE: Final = 8
"""At this fraction of a limit (one eighth), everything that can wait does wait."""


class Backlog:
    """The messages that wait for one client, in order."""

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
        """The waiting messages, including dropped events that haven't been removed yet."""
        self.bytes: int = 0
        """The total length of the waiting messages and of those being sent."""
        self._limits = limits
        self._many = limits.outbound_messages / SHARE
        self._much = limits.outbound_bytes / SHARE
        self._droppable = 0  # how many entries are droppable, or were dropped already
        self._droppable_bytes = 0
        self.overflow: Overflow | None = None
        """Exists from when a limit is reached until nothing waits."""

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return len(self.queue) - (0 if self.overflow is None else self.overflow.unsent)

    @property
    def is_above_share(self) -> bool:
        """Whether so much waits that senders of events should wait, if they can."""
        return self.messages > self._many or self.bytes > self._much

    @property
    def blocks_reader(self) -> bool:
        """Whether so much waits that can't be dropped that no more requests should be read."""
        return (
            len(self.queue) - self._droppable > self._many
            or self.bytes - self._droppable_bytes > self._much
        )

    def has_ample_room_for(self, unit: Unit) -> bool:
        """Tell whether there is so much room that limits and policies needn't be checked."""
        return (
            self.overflow is None
            and len(self.queue) < self._many
            and self.bytes + len(unit) <= self._much
        )

    def exceeded_limit(self, messages: int = 0, size: int = 0) -> str | None:
        """Return the limit that is reached, if any; `messages` and `size` wait elsewhere."""
        if self.messages + messages >= self._limits.outbound_messages:
            return "outbound_messages"
        if self.bytes + size >= self._limits.outbound_bytes:
            return "outbound_bytes"
        return None

    # ---- adding and removing

    def append_event(self, unit: Unit, receiver: EventReceiver) -> None:
        """Queue an event. Unless its policy is ``disconnect``, it may be dropped later."""
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
        """Remove and return the next message. The queue's last entry is never a dropped event."""
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
        """End the overflow, if nothing waits any more."""
        if not self.queue:
            self.overflow = None

    def begin_overflow(self, limit: str, receiver: EventReceiver) -> None:
        """Apply the overflow policies from now on, and tell the receiver.

        During an overflow, only receivers with the policy ``disconnect`` are told again.
        """
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
        """Drop waiting events as the policy of a new event says; tell whether it has room now."""
        overflow = self.overflow
        if overflow is None or receiver.overflow == "latest":
            return True  # `append_event` drops the former event
        has_dropped = False
        if receiver.overflow == "drop_oldest":
            while overflow.oldest and self.exceeded_limit() is not None:
                has_dropped |= self._drop(overflow, overflow.oldest.popleft())
        return has_dropped or self.exceeded_limit() is None

    def _drop(self, overflow: Overflow, event: DroppableEvent) -> bool:
        """Drop an event; tell whether it was still waiting. Another one must be queued after it."""
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
