"""The common part of the meta APIs of subscriptions and registrations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from datetime import datetime, timezone
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args

from serverwamp.binding.results import RPCResult
from serverwamp.errors import WAMPError
from serverwamp.protocol.messages import Id
from serverwamp.router.meta.events import MetaAPI
from serverwamp.session import Session
from serverwamp.uris import MatchPolicy


class Entry(Protocol):
    """A subscription or registration."""

    id: int
    match: MatchPolicy
    created: float


class Holder(Protocol):
    """A subscriber of a subscription, or a callee of a registration."""

    @property
    def session(self) -> Session:
        """The session of the client."""
        ...


EntryType = TypeVar("EntryType", bound=Entry)


class TableMetaAPI(MetaAPI, ABC, Generic[EntryType]):
    """The meta API of a table of entries: subscriptions or registrations."""

    joining: ClassVar[str]
    """The verb in the names of events: "subscribe" or "register"."""

    # ---- the table

    @abstractmethod
    def _entries(self) -> Iterator[EntryType]:
        """Yield the visible entries."""

    @abstractmethod
    def _find(self, id_: int) -> EntryType | None:
        """Return the entry with that id; None if there is none or it isn't visible."""

    @abstractmethod
    def _holders(self, entry: EntryType) -> Collection[Holder]: ...

    @abstractmethod
    def _described(self, entry: EntryType) -> dict[str, Any]:
        """Return the details that only this kind of entry has."""

    @abstractmethod
    def _no_such(self, id_: int) -> WAMPError: ...

    # ---- procedures

    async def _list(self, caller: Session, /) -> RPCResult:
        self._check(caller)
        ids: dict[str, list[int]] = {match: [] for match in get_args(MatchPolicy)}
        for entry in self._entries():
            ids[entry.match].append(entry.id)
        return RPCResult((ids,))

    async def _get(self, caller: Session, id_: Id, /) -> RPCResult:
        return RPCResult((self._details(self._found(caller, id_)),))

    async def _list_holders(self, caller: Session, id_: Id, /) -> RPCResult:
        holders = self._holders(self._found(caller, id_))
        return RPCResult(([holder.session.id for holder in holders],))

    async def _count_holders(self, caller: Session, id_: Id, /) -> int:
        return len(self._holders(self._found(caller, id_)))

    def _found(self, caller: Session, id_: int) -> EntryType:
        self._check(caller)
        entry = self._find(id_)
        if entry is None:
            raise self._no_such(id_)
        return entry

    def _details(self, entry: EntryType) -> dict[str, Any]:
        created = datetime.fromtimestamp(entry.created, timezone.utc)
        return {
            "id": entry.id,
            "created": created.isoformat(timespec="milliseconds"),
            "match": entry.match,
            **self._described(entry),
        }

    # ---- events

    def note_joined(self, session: Session, entry: EntryType) -> None:
        """Publish that a session holds an entry and, if it is the first, that the entry exists."""
        if len(self._holders(entry)) == 1 and self._is_heard("on_create"):
            self._tell("on_create", (session.id, self._details(entry)))
        self._tell(f"on_{self.joining}", (session.id, entry.id))

    def note_left(self, session: Session, entry: EntryType) -> None:
        """Publish that a session left an entry and, if it was the last, that the entry is gone."""
        args = (session.id, entry.id)
        exclude = () if session.is_open else (session.id,)  # no message may follow its GOODBYE
        self._tell(f"on_un{self.joining}", args, exclude)
        if not self._holders(entry):
            self._tell("on_delete", args, exclude)
