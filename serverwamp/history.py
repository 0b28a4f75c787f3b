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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

import anyio
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


def may_be_stored(publication: Publication) -> bool:
    """Tell whether the payload may be stored.

    The payload of a publication to certain sessions may not, because those sessions may be gone
    when somebody asks for it.
    """
    audience = publication.audience
    return audience is None or (not audience.exclude and audience.eligible is None)


def stored(publication: Publication, moment: datetime) -> StoredEvent:
    """Return a publication as it is stored.

    Raises: SerializationError when no format can hold the arguments.
    """
    unit = None
    if may_be_stored(publication):
        unit = _encoded(Event(1, publication.id, {}, publication.args, publication.kwargs))
    bare = Publication(
        publication.topic,
        audience=publication.audience,
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


@dataclass(frozen=True, slots=True)
class HistoryBound:
    """A bound of a `HistoryQuery`."""

    at: int | datetime
    """The publication id of an event, or a time."""
    included: bool
    """Whether the event, or an event at exactly this time, is inside the bound."""


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which events of a topic route are wanted; an event has to be inside all bounds."""

    since: Sequence[HistoryBound] = ()
    """Lower bounds. Without any, the oldest stored event is the first."""
    until: Sequence[HistoryBound] = ()
    """Upper bounds. Without any, the newest stored event is the last."""
    limit: float = math.inf
    """How many events the client wants. It's a hint, as some events aren't for this client."""
    reverse: bool = False
    """Whether the newest event comes first."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Some of the events that a `HistoryQuery` selects."""

    events: Iterable[StoredEvent]
    """The events, in the order of the query."""
    is_complete: bool
    """Whether every event since the lower bounds is still stored, up to the end of this page.

    It is false if a bound is the id of an unknown publication. Without lower bounds it tells
    whether every event is still stored that was ever appended.
    """
    time: datetime
    """The time by the clock from which the events have their times."""
    cursor: Any = None
    """What `HistoryStore.read` needs for the next page; None if this is the last page."""


class HistoryReader(Protocol):
    """Reads the stored events of a topic route."""

    async def read(self, query: HistoryQuery, cursor: Any = None) -> HistoryPage:
        """Return the first page of the events that a query selects, or the page at `cursor`.

        A lower bound that names an unknown publication selects all events. An upper bound that
        names one selects none. In both cases the page isn't complete.
        """
        ...


class HistoryStore(HistoryReader, Protocol):
    """Stores the events of a topic route in the order of publication.

    An event is appended before it is delivered, and `append` is called for one event of the route
    at a time. So a new subscriber receives an event, or finds it in the store, or both.
    """

    async def append(self, event: StoredEvent) -> None:
        """Store an event; this may drop the oldest events.

        If this raises an exception, the event isn't published.
        """
        ...


class MemoryStore(HistoryStore):
    """Keeps events in memory, up to a number, an age in seconds, and a size in bytes."""

    def __init__(self, *, events: float, age: float, bytes: float) -> None:
        self._most_events = events
        self._most_bytes = bytes
        self._oldest_age = age
        self._events: deque[StoredEvent] = deque()
        self._positions: dict[int, int] = {}  # by the ids of publications
        self._begin = 0  # the position of the oldest stored event
        self._forgotten_until = utc_now()
        self._size = 0

    def keep(self, event: StoredEvent) -> None:
        """Store an event at once."""
        self._positions[event.publication.id] = self._begin + len(self._events)
        self._events.append(event)
        self._size += event.size
        while len(self._events) > self._most_events or self._size > self._most_bytes:
            self._forget()
        self._forget_old(event.time)

    async def append(self, event: StoredEvent) -> None:
        self.keep(event)

    def _forget(self) -> None:
        event = self._events.popleft()
        self._begin += 1
        self._forgotten_until = event.time
        self._size -= event.size
        del self._positions[event.publication.id]

    def _forget_old(self, now: datetime) -> None:
        while self._events and (now - self._events[0].time).total_seconds() > self._oldest_age:
            self._forget()

    async def read(self, query: HistoryQuery, cursor: Any = None) -> HistoryPage:
        now = utc_now()
        self._forget_old(now)
        begin, end = self._begin, self._begin + len(self._events)
        is_complete = bool(query.since) or not begin
        for bound in query.since:
            at, included = bound.at, bound.included
            if isinstance(at, datetime):
                begin = max(begin, self._place(at, behind=not included))
                forgotten = self._forgotten_until
                is_complete &= at > forgotten or (not included and at == forgotten)
                continue
            position = self._positions.get(at)
            if position is None:  # unknown which events came after it, so all are returned
                is_complete = False
            else:
                begin = max(begin, position + (not included))
        for bound in query.until:
            at, included = bound.at, bound.included
            if isinstance(at, datetime):
                end = min(end, self._place(at, behind=included))
                continue
            position = self._positions.get(at)
            if position is None:
                return HistoryPage((), False, now)  # unknown which events came before it
            end = min(end, position + included)
        return HistoryPage(self._between(begin, end, query.reverse), is_complete, now)

    def _place(self, moment: datetime, *, behind: bool) -> int:
        """Return the position of the first event at `moment` or later; if `behind`, only later."""
        bisect = bisect_right if behind else bisect_left
        return self._begin + bisect(self._events, moment, key=lambda event: event.time)

    def _between(self, begin: int, end: int, reverse: bool) -> Iterator[StoredEvent]:
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
    """Creates a store of your own; if this is None, the backplane keeps the events.

    Without a shared backplane, that is in the memory of the process.
    """

    def __post_init__(self) -> None:
        for field in fields(self)[:3]:
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or not value > 0:
                raise ConfigurationError(f"History.{field.name} can't be {value!r}")

    def new_store(self) -> HistoryStore:
        """Return an empty store with these bounds."""
        if self.store is not None:
            return self.store(self)
        return MemoryStore(events=self.events, age=self.age, bytes=self.bytes)


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

    def __init__(self, reader: HistoryReader, store: HistoryStore | None = None) -> None:
        self.reader: HistoryReader = reader
        """What reads the events."""
        self.store: HistoryStore | None = None if isinstance(store, MemoryStore) else store
        """The application's own store, to which `append` appends; None if there is none."""
        self._memory = store if isinstance(store, MemoryStore) else None
        self._newest = utc_now()
        self.order: anyio.Lock = anyio.Lock()
        """Held while an event is appended and delivered, so that both have one order."""

    def keep(self, publication: Publication) -> None:
        """Store an event in memory while it is delivered, if this log is in memory.

        Raises: SerializationError when no format can hold its arguments.
        """
        if self._memory is not None:
            self._memory.keep(self._stamped(publication))

    async def append(self, publication: Publication) -> None:
        """Store an event in the application's own store; hold `order`.

        Raises: SerializationError when no format can hold its arguments; what the store raises.
        """
        assert self.store is not None
        await self.store.append(self._stamped(publication))

    def _stamped(self, publication: Publication) -> StoredEvent:
        self._newest = max(utc_now(), self._newest)  # the clock may have been set back
        return stored(publication, self._newest)

    async def read(
        self,
        query: HistoryQuery,
        is_for: Callable[[Publication], bool],
        matches: Callable[[str], bool],
        described: Callable[[StoredEvent], Described | None],
    ) -> tuple[list[Described], bool, datetime]:
        """Return the events that a query selects, whether none is missing, and the store's time.

        `is_for` and `matches` select the reader's events. `described` returns an event in the form
        for the reader, or None if the reader can't receive it. Such an event is left out and
        doesn't count towards the limit.
        """
        events: list[Described] = []
        is_complete, cursor = True, None
        while True:
            page = await self.reader.read(query, cursor)
            is_complete &= page.is_complete
            for event in page.events:
                if len(events) >= query.limit:
                    return events, is_complete, page.time
                if event.unit is None:  # the payload may not be stored
                    is_complete &= not matches(event.publication.topic)
                elif is_for(event.publication):
                    description = described(event)
                    if description is None:
                        is_complete = False
                    else:
                        events.append(description)
            cursor = page.cursor
            if cursor is None or len(events) >= query.limit:
                return events, is_complete, page.time
