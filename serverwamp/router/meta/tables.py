"""What clients may ask about a table of subscriptions or registrations, and hear of it."""

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
    """A URI or pattern that sessions hold together."""

    id: int
    match: MatchPolicy
    created: float


class Holder(Protocol):
    """A session, as far as an entry is concerned."""

    @property
    def session(self) -> Session: ...


EntryType = TypeVar("EntryType", bound=Entry)


class TableMetaAPI(MetaAPI, ABC, Generic[EntryType]):
    """What stands in a table, but for what is the protocol's own."""

    joining: ClassVar[str]
    """What a session does to hold an entry: "subscribe" or "register"."""

    # ---- the table

    @abstractmethod
    def _entries(self) -> Iterator[EntryType]:
        """Yield what there is to be seen."""

    @abstractmethod
    def _find(self, id_: int) -> EntryType | None:
        """Return the entry of that id, if it is to be seen."""

    @abstractmethod
    def _holders(self, entry: EntryType) -> Collection[Holder]: ...

    @abstractmethod
    def _described(self, entry: EntryType) -> dict[str, Any]:
        """Return what is known of an entry, but for what all of them have."""

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
        """Tell who listens that a session holds an entry, too, or is the first to do so."""
        if len(self._holders(entry)) == 1 and self._is_heard("on_create"):
            self._tell("on_create", (session.id, self._details(entry)))
        self._tell(f"on_{self.joining}", (session.id, entry.id))

    def note_left(self, session: Session, entry: EntryType) -> None:
        """Tell who listens that a session doesn't hold an entry any more, if it was the last."""
        args = (session.id, entry.id)
        exclude = () if session.is_open else (session.id,)  # nothing may follow its GOODBYE
        self._tell(f"on_un{self.joining}", args, exclude)
        if not self._holders(entry):
            self._tell("on_delete", args, exclude)
