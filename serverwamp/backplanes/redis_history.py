"""The history of a topic route in Redis.

Every event travels with the id of the event before it. A process that misses one, because it was
disconnected, reads it from the stream: each event is delivered once and in order.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import anyio
import msgspec

from serverwamp.backplanes import timings
from serverwamp.backplanes.base import RealmEvents
from serverwamp.backplanes.envelope import (
    has_payload,
    unpacked,
    unpacked_event,
)
from serverwamp.backplanes.redis_runner import ScriptRunner
from serverwamp.backplanes.redis_scripts import QUERY
from serverwamp.errors import (
    BackplaneUnavailable,
)
from serverwamp.history import (
    History,
    HistoryBound,
    HistoryPage,
    HistoryQuery,
    HistoryReader,
    StoredEvent,
)

logger: logging.Logger = logging.getLogger(__name__)

PAGE: Final = 100
"""How many events are read at once."""
PAGE_BYTES: Final = 4 * 1024 * 1024
"""About how many bytes are read at once."""
MOST_HELD: Final = 1000
"""How many events of a history are held back while those before them are read."""
LATEST: Final = 2**53 - 2
"""The latest time that a script can compare, in microseconds."""

ZERO: Final = (0, 0)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)

EntryId: TypeAlias = tuple[int, int]
"""The id of an entry of a stream: its time in microseconds, and a number that only grows."""


NoteLost: TypeAlias = Callable[[HistoryReader, float, float], None]
"""Notes that events of a history were missed between two times, in seconds."""


def entry_id(text: bytes) -> EntryId:
    time, _, number = text.partition(b"-")
    return int(time), int(number)


def text_of(id_: EntryId) -> str:
    return f"{id_[0]}-{id_[1]}"


def time_of(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


class StreamLog(HistoryReader):
    """The history of a topic route in Redis, and how far this process has delivered it."""

    def __init__(
        self,
        realm: RealmEvents,
        name: str,
        history: History,
        channel: str,
        runner: ScriptRunner,
        note_lost: NoteLost,
    ) -> None:
        self.realm: RealmEvents = realm
        self.name: str = quote(name, safe=":.*")
        """The name, without spaces and line ends."""
        self.channel: str = channel
        """Where all events of the history are published."""
        self.keys: list[str] = [f"{channel}:h:{self.name}:{part}" for part in "smi"]
        self._runner = runner
        self._note_lost = note_lost
        self._bounds = {
            name: value
            for name, value in (
                ("events", history.events),
                ("bytes", history.bytes),
                ("age", history.age * 1_000_000),
            )
            if value != math.inf
        }
        self._known = ""  # the last epoch that was seen
        self.epoch: str | None = None
        """The epoch of what was delivered; None if the history isn't followed."""
        self.delivered: EntryId = ZERO
        """The last event that was delivered, or that wasn't to be delivered."""
        self._delivered_until = 0  # its time; unlike the id it isn't forgotten with the epoch
        self.is_behind: bool = False
        """Whether what was missed is still to be read."""
        self._held: dict[EntryId, bytes] = {}
        self._arrives_more = False
        self._awaited: dict[EntryId, anyio.Event] = {}

    # ---- publishing

    def asked_to_append(self, size: int) -> Mapping[str, Any]:
        return {**self._bounds, "known": self._known, "name": self.name, "size": size}

    def note_epoch(self, epoch: str) -> None:
        """Take note of an epoch. If Redis doesn't know it any more, it has lost the history."""
        self._known = epoch

    async def wait_delivered(self, epoch: str, id_: EntryId) -> None:
        """Return when an event is delivered in this process, if the history is followed."""
        while self.epoch is not None and (self.epoch != epoch or self.delivered < id_):
            event = self._awaited.get(id_)
            if event is None:
                event = self._awaited[id_] = anyio.Event()
            await event.wait()

    # ---- reading

    async def read(self, query: HistoryQuery, cursor: Any = None) -> HistoryPage:
        """Read a page. Its events have been delivered to the subscribers in this process.

        Raises: BackplaneUnavailable, BackplaneOutcomeUnknown.
        """
        asked = cursor or {
            "lower": [_edge(bound) for bound in query.since],
            "upper": [_edge(bound) for bound in query.until],
            "reverse": query.reverse,
        }
        page = await self._page(asked)
        if page.entries:
            newest = max(entry_id(id_) for id_, _, _ in page.entries)
            try:
                with anyio.fail_after(timings.REPLY_SECONDS):
                    await self.wait_delivered(page.epoch, newest)
            except TimeoutError:
                raise BackplaneUnavailable("the last events haven't arrived here yet") from None
        events: list[StoredEvent] = []
        is_complete = page.is_complete
        for id_, _, frame in page.entries:
            try:
                events.append(unpacked_event(frame, time_of(entry_id(id_)[0])))
            except Exception:  # written by another version
                logger.exception("an event of %r can't be read", self.name)
                is_complete = False
        more = None
        if page.has_more:
            last = entry_id(page.entries[-1][0])
            more = {"epoch": page.epoch, "reverse": query.reverse, "from": page.first}
            if page.end:
                more["to"] = page.end
            if query.reverse:
                more["to"] = text_of(last)
            else:
                more["from"] = text_of((last[0], last[1] + 1))
        return HistoryPage(events, is_complete, time_of(page.time), more)

    async def _page(self, asked: Mapping[str, Any]) -> _Page:
        asked = {
            "known": self._known,
            "count": PAGE,
            "bytes": PAGE_BYTES,
            **asked,
        }
        if "age" in self._bounds:
            asked["age"] = self._bounds["age"]
        answer = await self._runner.run(QUERY, self.keys, [msgspec.json.encode(asked)])
        epoch, is_complete, first, end, time, last, has_more, entries = answer
        self._known = epoch.decode()
        return _Page(
            self._known,
            is_complete == 1,
            first.decode(),
            end.decode(),
            int(time),
            entry_id(last),
            has_more == 1,
            entries,
        )

    # ---- following

    def forget(self) -> None:
        """Take note that the history isn't followed any more."""
        self.epoch, self.is_behind = None, False
        self._held.clear()
        self._release()

    def take(self, epoch: str, before: EntryId, id_: EntryId, frame: bytes) -> None:
        """Deliver an event that was published; hold it back if one before it was missed."""
        if self.epoch is None:
            self.epoch = epoch
        elif self.is_behind or epoch != self.epoch or before > self.delivered:
            self.is_behind = self._arrives_more = True
            if len(self._held) < MOST_HELD:
                self._held[id_] = frame
            return
        elif id_ <= self.delivered:
            return
        elif before < self.delivered:
            self._lose("Redis has lost events that were delivered")
        self._deliver(id_, frame)

    def _deliver(self, id_: EntryId, frame: bytes) -> None:
        self.delivered, self._delivered_until = id_, id_[0]
        try:
            self.realm.receive(unpacked(frame))
        except Exception:
            logger.exception("an event of %r can't be delivered", self.name)
        event = self._awaited.pop(id_, None)
        if event is not None:
            event.set()

    def _release(self) -> None:
        """Wake those who wait for events that have been passed over."""
        for id_ in [id_ for id_ in self._awaited if self.epoch is None or id_ <= self.delivered]:
            self._awaited.pop(id_).set()

    async def fill(self) -> None:
        """Deliver what was missed, from the stream.

        Raises: BackplaneUnavailable, BackplaneOutcomeUnknown.
        """
        if self.epoch is None:
            page = await self._page({"lower": [], "upper": [], "count": 0})
            if self.epoch is None and self.is_behind:
                self.epoch, self.delivered, self.is_behind = page.epoch, page.last, False
                self._delivered_until = page.time
                self._held.clear()
            return
        while self.is_behind:
            self._arrives_more = False
            asked: dict[str, Any] = {"epoch": self.epoch}
            asked["from"] = text_of((self.delivered[0], self.delivered[1] + 1))
            asked["seen"] = text_of(self.delivered)
            page = await self._page(asked)
            if not self.is_behind:
                return
            if page.epoch != self.epoch:
                self._lose("Redis has lost the history")
                self.epoch, self.delivered = page.epoch, ZERO
                continue
            if not page.is_complete:
                self._lose("they are no longer in the history")
                if not page.entries:
                    self.delivered = page.last
            for text, _, frame in page.entries:
                id_ = entry_id(text)
                frame = self._held.pop(id_, frame)
                if has_payload(frame):
                    self._deliver(id_, frame)
                else:
                    self.delivered = id_
                    self._lose("their arguments may not be stored")
            if not page.has_more and not self._arrives_more:
                self.is_behind = False
                self._held.clear()
        self._release()

    def _lose(self, reason: str) -> None:
        now = datetime.now(timezone.utc).timestamp()
        logger.warning("events of %r were missed: %s", self.name, reason)
        self._note_lost(self, min(self._delivered_until / 1_000_000, now), now)


def _edge(bound: HistoryBound) -> tuple[str, str, bool]:
    if isinstance(bound.at, datetime):
        microseconds = (bound.at - EPOCH) // timedelta(microseconds=1)
        return "time", str(min(max(microseconds, 0), LATEST)), bound.included
    return "publication", str(bound.at), bound.included


class _Page(msgspec.Struct, frozen=True):
    """What the script QUERY answers."""

    epoch: str
    is_complete: bool
    first: str
    """The beginning of the range, which is a part of it."""
    end: str
    """The end of the range, which isn't a part of it; empty if there is none."""
    time: int
    last: EntryId
    """The last id that was given to an event."""
    has_more: bool
    entries: list[tuple[bytes, bytes, bytes]]
    """Ids, publication ids and frames."""
