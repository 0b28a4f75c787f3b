"""Event history: past events of a topic, kept for clients that missed them.

Every topic route with a `History` keeps a log of its events. The log is bounded, so a client may
have missed more than is kept. The client is told when that is so.

Spec: Advanced Profile, "Event History".
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

from msgspec import Struct

from serverwamp.errors import ConfigurationError, ProtocolViolation, SerializationError
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Args, Event, Kwargs
from serverwamp.protocol.serializers import ALL_FORMATS
from serverwamp.publication import Publication

Described: TypeAlias = dict[str, Any]
"""An event in the form in which a client that asks for it receives it."""

OVERHEAD: Final = 500
"""About how many bytes an event takes besides its payload."""


def utc_now() -> datetime:
    """Return the current time, with the precision that clients can express."""
    return datetime.fromtimestamp(time.time(), timezone.utc)


def rfc3339(moment: datetime) -> str:
    """Return a UTC time as text in RFC 3339 format."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class StoredEvent(Struct, frozen=True):
    """A publication at the time it was published; later changes to its arguments don't matter."""

    publication: Publication
    """The publication without its arguments, which are in `unit`."""
    time: datetime
    """When it was published."""
    unit: Unit | None
    """The encoded payload; None if only the occurrence may be stored."""

    @property
    def size(self) -> int:
        """About how many bytes the event takes."""
        return OVERHEAD + len(self.unit or "")

    @property
    def timestamp(self) -> str:
        """When it was published, in RFC 3339 format."""
        return rfc3339(self.time)

    def payload(self) -> tuple[Args, Kwargs]:
        """Return the positional and the keyword arguments.

        Raises: ValueError when no format can decode `unit`.
        """
        assert self.unit is not None
        for format_ in ALL_FORMATS:
            if type(self.unit) is format_.frame_type:
                with suppress(ProtocolViolation):  # it may be in the other binary format
                    event = format_.decode(self.unit)
                    assert isinstance(event, Event)
                    return event.args or (), event.kwargs or {}
        raise ValueError("the payload isn't in a known format")


def stored(publication: Publication, moment: datetime) -> StoredEvent:
    """Return a publication as it is stored.

    The payload of a publication to certain sessions is left out, because those sessions may be gone
    when somebody asks for it.

    Raises: SerializationError when no format can hold the arguments.
    """
    unit = None
    audience = publication.audience
    if audience is None or (not audience.exclude and audience.eligible is None):
        unit = _encoded(Event(1, publication.id, {}, publication.args, publication.kwargs))
    bare = Publication(
        publication.topic,
        audience=audience,
        publisher=publication.publisher,
        exclude_me=publication.exclude_me,
        disclosed=publication.disclosed,
        id=publication.id,
    )
    return StoredEvent(bare, moment, unit)


def _encoded(event: Event) -> Unit:
    """Return an event in the first format that can hold it.

    Raises: SerializationError when no format can.
    """
    first, *others = ALL_FORMATS
    try:
        return first.encode(event)
    except SerializationError:
        for format_ in others:
            with suppress(SerializationError):
                return format_.encode(event)
        raise


class HistoryStore(Protocol):
    """Stores the events of a topic route in the order of publication.

    Each event has a position. The first event ever stored has position 0. No method may block: an
    event is stored at the same moment as it is delivered, so that a subscriber has either received
    it or finds it here.
    """

    def append(self, event: StoredEvent) -> int:
        """Store an event and return its position; this may drop the oldest events."""
        ...

    def forget_old(self, now: datetime) -> datetime:
        """Drop events that are too old; return the publication time of the last dropped event.

        If no event was ever dropped, return the time at which the store was created.
        """
        ...

    @property
    def begin(self) -> int:
        """The position of the oldest stored event; `end` if there is none."""
        ...

    @property
    def end(self) -> int:
        """The position of the next event."""
        ...

    def find(self, publication: int) -> int | None:
        """Return the position of the event with that publication id, or None if it isn't stored."""
        ...

    def at(self, moment: datetime, *, behind: bool) -> int:
        """Return the position of the first event at `moment` or later; if `behind`, only later."""
        ...

    def between(self, begin: int, end: int, *, reverse: bool) -> Iterator[StoredEvent]:
        """Yield the events from position `begin` up to but excluding `end`, or in reverse order."""
        ...


class MemoryStore(HistoryStore):
    """Keeps events in memory, up to a number, an age in seconds, and a size in bytes."""

    def __init__(self, *, events: float, age: float, bytes: float) -> None:
        self._most_events = events
        self._most_bytes = bytes
        self._oldest_age = age
        self._events: deque[StoredEvent] = deque()
        self._positions: dict[int, int] = {}  # by the ids of publications
        self._begin = 0
        self._forgotten_until = utc_now()
        self._size = 0

    @property
    def begin(self) -> int:
        return self._begin

    @property
    def end(self) -> int:
        return self._begin + len(self._events)

    def append(self, event: StoredEvent) -> int:
        position = self._positions[event.publication.id] = self.end
        self._events.append(event)
        self._size += event.size
        while len(self._events) > self._most_events or self._size > self._most_bytes:
            self._forget()
        self.forget_old(event.time)
        return position

    def _forget(self) -> None:
        event = self._events.popleft()
        self._begin += 1
        self._forgotten_until = event.time
        self._size -= event.size
        del self._positions[event.publication.id]

    def forget_old(self, now: datetime) -> datetime:
        while self._events and (now - self._events[0].time).total_seconds() > self._oldest_age:
            self._forget()
        return self._forgotten_until

    def find(self, publication: int) -> int | None:
        return self._positions.get(publication)

    def at(self, moment: datetime, *, behind: bool) -> int:
        bisect = bisect_right if behind else bisect_left
        return self._begin + bisect(self._events, moment, key=lambda event: event.time)

    def between(self, begin: int, end: int, *, reverse: bool) -> Iterator[StoredEvent]:
        first, last, count = begin - self._begin, end - self._begin, len(self._events)
        if reverse:
            return islice(reversed(self._events), count - last, max(count - first, count - last))
        return islice(self._events, first, max(first, last))


@dataclass(frozen=True, slots=True)
class History:
    """How many events of a topic route are kept, and where.

    When a bound is exceeded, the oldest events are dropped. ``math.inf`` means no bound.

    Raises: ConfigurationError for a bound that isn't a positive number.
    """

    events: float = 1000
    """Maximum number of events."""
    age: float = math.inf
    """Maximum age in seconds."""
    bytes: float = 16 * 1024 * 1024
    """Maximum size of all events together, in bytes; approximate."""
    store: Callable[[History], HistoryStore] | None = None
    """Creates the store; if this is None, events are kept in the memory of the process."""

    def __post_init__(self) -> None:
        for field in fields(self)[:3]:
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or not value > 0:
                raise ConfigurationError(f"History.{field.name} can't be {value!r}")

    def new_log(self) -> Log:
        """Return an empty log with these bounds."""
        if self.store is not None:
            return Log(self.store(self))
        return Log(MemoryStore(events=self.events, age=self.age, bytes=self.bytes))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query for events; an event has to fulfil all conditions."""

    since: Sequence[tuple[int | datetime, bool]]
    """Lower bounds: publication ids or times. If the bool is true, the bound itself is excluded."""
    until: Sequence[tuple[int | datetime, bool]]
    """Upper bounds: publication ids or times. If the bool is true, the bound itself is included."""
    limit: float
    """The maximum number of events."""
    reverse: bool
    """Whether the newest event comes first."""


class Log:
    """The stored events of one topic route."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self._newest = utc_now()
        # Position and topic of the events whose payload may not be stored.
        self._unkept: deque[tuple[int, str]] = deque()

    def keep(self, publication: Publication) -> None:
        """Store an event that is being delivered.

        Raises: SerializationError when no format can hold its arguments.
        """
        self._newest = max(utc_now(), self._newest)  # the clock may have been set back
        event = stored(publication, self._newest)
        position = self._store.append(event)
        if event.unit is None:
            self._unkept.append((position, publication.topic))
        while self._unkept and self._unkept[0][0] < self._store.begin:
            self._unkept.popleft()

    def read(
        self,
        wanted: Wanted,
        is_for: Callable[[Publication], bool],
        matches: Callable[[str], bool],
        described: Callable[[StoredEvent], Described | None],
    ) -> tuple[list[Described], bool]:
        """Return the events that a query selects, and whether none is missing since its beginning.

        `is_for` and `matches` select the reader's events. `described` returns an event in the form
        for the reader, or None if the reader can't receive it. Such an event is left out and
        doesn't count towards the limit.
        """
        begin, is_complete = self._begin_of(wanted)
        end = self._end_of(wanted)
        if end is None:
            return [], False
        is_complete &= not any(at >= begin and matches(topic) for at, topic in self._unkept)
        events: list[Described] = []
        for event in self._store.between(begin, end, reverse=wanted.reverse):
            if len(events) >= wanted.limit:
                break
            if event.unit is not None and is_for(event.publication):
                description = described(event)
                if description is None:
                    is_complete = False
                else:
                    events.append(description)
        return events, is_complete

    def _begin_of(self, wanted: Wanted) -> tuple[int, bool]:
        """Return the position where a query begins, and whether no event since then is missing."""
        store = self._store
        forgotten_until = store.forget_old(utc_now())
        begin, is_complete = store.begin, bool(wanted.since) or not store.begin
        for at, behind in wanted.since:
            if isinstance(at, datetime):
                begin = max(begin, store.at(at, behind=behind))
                is_complete &= at > forgotten_until or (behind and at == forgotten_until)
                continue
            position = store.find(at)
            if position is None:  # unknown which events came after it, so all are returned
                is_complete = False
            else:
                begin = max(begin, position + behind)
        return begin, is_complete

    def _end_of(self, wanted: Wanted) -> int | None:
        """Return the position before which a query ends; None if an upper bound isn't stored."""
        store = self._store
        end = store.end
        for at, included in wanted.until:
            position = store.at(at, behind=included) if isinstance(at, datetime) else store.find(at)
            if position is None:
                return None
            end = min(end, position + (included and isinstance(at, int)))
        return end
