"""What was published to a topic before: kept for those who have missed it.

Every topic route that has a `History` keeps one log of the events that it serves. A log is
bounded, so that a client can miss more than is kept; it is told when it has.

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
"""An event as it is told to the client that asks for it."""

OVERHEAD: Final = 500
"""Bytes that an event takes beside its payload, about."""


def utc_now() -> datetime:
    """Return the time, to the microsecond, as clients name it."""
    return datetime.fromtimestamp(time.time(), timezone.utc)


def rfc3339(moment: datetime) -> str:
    """Return a time of `utc_now` as clients read it."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class StoredEvent(Struct, frozen=True):
    """A publication as it was when it was published, whatever becomes of its arguments since."""

    publication: Publication
    """Without its arguments, which are in `unit`."""
    time: datetime
    """When it was published."""
    unit: Unit | None
    """The payload; None for what may not be kept, of which only that it was is known."""

    @property
    def size(self) -> int:
        """How many bytes it takes, about."""
        return OVERHEAD + len(self.unit or "")

    @property
    def timestamp(self) -> str:
        """When it was published, as clients read it."""
        return rfc3339(self.time)

    def payload(self) -> tuple[Args, Kwargs]:
        """Return the arguments."""
        assert self.unit is not None
        for format_ in ALL_FORMATS:
            if type(self.unit) is format_.frame_type:
                with suppress(ProtocolViolation):  # binary formats take each other's for malformed
                    event = format_.decode(self.unit)
                    assert isinstance(event, Event)
                    return event.args or (), event.kwargs or {}
        raise ValueError("the payload isn't in a format that is spoken here")


def stored(publication: Publication, moment: datetime) -> StoredEvent:
    """Return what is to be kept of a publication.

    What is for certain sessions isn't: when somebody asks for it, they are long gone.

    Raises: SerializationError.
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

    Raises: SerializationError.
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
    """What keeps the events of a topic route, in the order in which they were published.

    Positions count them from the first that there ever was. Nothing of it may wait: an event is
    kept in the moment in which it is delivered, so that who has subscribed has either received it
    or finds it here.
    """

    def append(self, event: StoredEvent) -> int:
        """Keep an event, and return its position; the oldest may be forgotten for that."""
        ...

    def forget_old(self, now: datetime) -> datetime:
        """Forget what is too old, and return when the newest was published that is forgotten.

        That is when the store began to exist, if it has forgotten none.
        """
        ...

    @property
    def begin(self) -> int:
        """The position of the oldest event that is kept, or else of the next."""
        ...

    @property
    def end(self) -> int:
        """The position of the next event."""
        ...

    def find(self, publication: int) -> int | None:
        """Return the position of the publication of that id, if it is kept."""
        ...

    def at(self, moment: datetime, *, behind: bool) -> int:
        """Return the position of the first event that was published at a moment, or behind it."""
        ...

    def between(self, begin: int, end: int, *, reverse: bool) -> Iterator[StoredEvent]:
        """Yield the events from one position to before another, or the other way round."""
        ...


class MemoryStore:
    """Keeps events in memory, within bounds."""

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
    """How much of what was published to a topic route is kept, and where.

    What is beyond one of the bounds is forgotten, the oldest first. ``math.inf`` is no bound.

    Raises: ConfigurationError for a bound that isn't a positive number.
    """

    events: float = 1000
    """How many events."""
    age: float = math.inf
    """For how many seconds."""
    bytes: float = 16 * 1024 * 1024
    """How many bytes, about."""
    store: Callable[[History], HistoryStore] | None = None
    """Makes what keeps them; they are kept in the memory of the process if that is None."""

    def __post_init__(self) -> None:
        for field in fields(self)[:3]:
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or not value > 0:
                raise ConfigurationError(f"History.{field.name} can't be {value!r}")

    def new_log(self) -> Log:
        """Return a log that keeps so much."""
        if self.store is not None:
            return Log(self.store(self))
        return Log(MemoryStore(events=self.events, age=self.age, bytes=self.bytes))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are asked for: those that fulfil all of it."""

    since: Sequence[tuple[int | datetime, bool]]
    """Publications by their ids, and moments, from which on; behind which, if the bool is true."""
    until: Sequence[tuple[int | datetime, bool]]
    """The same, up to which, included if the bool is true."""
    limit: float
    reverse: bool


class Log:
    """What is kept of the events of one topic route."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self._newest = utc_now()
        self._unkept: deque[tuple[int, str]] = deque()  # what may not be kept: where, and its topic

    def keep(self, publication: Publication) -> None:
        """Keep an event that is just being delivered."""
        self._newest = max(utc_now(), self._newest)  # clocks may be set back
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
        """Return what is kept of what is wanted, and whether all behind its beginning is kept.

        `described` returns None for an event that the reader can't receive. It is left out then,
        and doesn't count for the limit.
        """
        store = self._store
        forgotten_until = store.forget_old(utc_now())
        begin, end, is_complete = store.begin, store.end, bool(wanted.since) or not store.begin
        for at, behind in wanted.since:
            if isinstance(at, datetime):
                begin = max(begin, store.at(at, behind=behind))
                is_complete &= at > forgotten_until or (behind and at == forgotten_until)
                continue
            position = store.find(at)
            if position is None:  # nobody knows what came behind it: it may be all there is
                is_complete = False
            else:
                begin = max(begin, position + behind)
        for at, included in wanted.until:
            position = store.at(at, behind=included) if isinstance(at, datetime) else store.find(at)
            if position is None:
                return [], False  # nobody knows what came before it
            end = min(end, position + (included and isinstance(at, int)))
        is_complete &= not any(at >= begin and matches(topic) for at, topic in self._unkept)
        events: list[Described] = []
        for event in store.between(begin, end, reverse=wanted.reverse):
            if len(events) >= wanted.limit:
                break
            if event.unit is not None and is_for(event.publication):
                description = described(event)
                if description is None:
                    is_complete = False
                else:
                    events.append(description)
        return events, is_complete
