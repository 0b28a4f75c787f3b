"""The meta API of sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, ClassVar

from serverwamp import uris
from serverwamp.binding.results import RPCResult
from serverwamp.errors import InvalidURI, NoSuchSession, NotAuthorized
from serverwamp.protocol.messages import Id
from serverwamp.protocol.serializers import ALL_FORMATS, can_hold
from serverwamp.router.features import IsAllowed
from serverwamp.router.meta.events import MetaAPI
from serverwamp.router.publishing import Publishing
from serverwamp.session import Session


class SessionMetaAPI(MetaAPI):
    """The open sessions of a realm.

    Spec: Advanced Profile, "Session Meta API".
    """

    prefix: ClassVar[str] = "wamp.session"
    procedures: ClassVar[Sequence[str]] = (
        "count",
        "list",
        "get",
        "kill",
        "kill_by_authid",
        "kill_by_authrole",
        "kill_all",
    )
    topics: ClassVar[Sequence[str]] = ("on_join", "on_leave")

    def __init__(
        self,
        members: MutableMapping[int, Session],
        is_allowed: IsAllowed,
        may_kill: IsAllowed,
        publishing: Publishing,
    ) -> None:
        super().__init__(is_allowed, publishing.broker, publishing.tell)
        self._reaches_others = publishing.backplane.is_shared
        self._members = members
        self._may_kill = may_kill

    # ---- reading

    async def _count(self, caller: Session, authroles: list[str] | None = None, /) -> int:
        self._check(caller)
        return sum(1 for _ in self._of_roles(authroles))

    async def _list(self, caller: Session, authroles: list[str] | None = None, /) -> RPCResult:
        self._check(caller)
        return RPCResult(([session.id for session in self._of_roles(authroles)],))

    async def _get(self, caller: Session, session_id: Id, /) -> RPCResult:
        self._check(caller)
        session = self._members.get(session_id)
        if session is None:
            raise NoSuchSession(f"there is no session {session_id}")
        details = _details(session)
        shown = {k: v for k, v in details.items() if caller._control.can_receive(v)}
        return RPCResult((shown,), {} if len(shown) == len(details) else {"complete": False})

    def _of_roles(self, authroles: list[str] | None) -> Iterator[Session]:
        for session in self._members.values():
            if authroles is None or session.auth_role in authroles:
                yield session

    # ---- ending the sessions of others

    async def _kill(
        self,
        caller: Session,
        session_id: Id,
        /,
        *,
        reason: str | None = None,
        message: str | None = None,
    ) -> RPCResult:
        if not await self._end(caller, lambda s: s.id == session_id, reason, message):
            raise NoSuchSession(f"there is no other session {session_id}")
        return RPCResult()

    async def _kill_by_authid(
        self,
        caller: Session,
        authid: str,
        /,
        *,
        reason: str | None = None,
        message: str | None = None,
    ) -> RPCResult:
        ended = await self._end(caller, lambda s: s.auth_id == authid, reason, message)
        return RPCResult((ended,))

    async def _kill_by_authrole(
        self,
        caller: Session,
        authrole: str,
        /,
        *,
        reason: str | None = None,
        message: str | None = None,
    ) -> int:
        return len(await self._end(caller, lambda s: s.auth_role == authrole, reason, message))

    async def _kill_all(
        self, caller: Session, /, *, reason: str | None = None, message: str | None = None
    ) -> int:
        return len(await self._end(caller, lambda s: True, reason, message, quietly=True))

    async def _end(
        self,
        caller: Session,
        wanted: Callable[[Session], bool],
        reason: str | None,
        message: str | None,
        *,
        quietly: bool = False,
    ) -> list[int]:
        """Close the sessions for which `wanted` returns True; return their ids.

        The caller's own session is never closed. With `quietly`, neither meta events nor the
        testaments of the sessions are published.
        """
        if not self._may_kill(caller):
            raise NotAuthorized("the session may not end other sessions")
        reason = uris.KILLED if reason is None else reason
        if not uris.is_valid_uri(reason):
            raise InvalidURI(f"{reason!r} is not a valid URI for a reason")
        ended = [
            session
            for session in self._members.values()
            if session.id != caller.id and wanted(session)
        ]
        for session in ended:
            await session._control.close(reason, message, quietly=quietly)
        return [session.id for session in ended]

    # ---- events

    def _is_heard(self, name: str) -> bool:
        return self._reaches_others or super()._is_heard(name)

    def note_joined(self, session: Session) -> None:
        """Publish the event that a session has joined the realm."""
        if self._is_heard("on_join"):
            details = {k: v for k, v in _details(session).items() if _is_for_everybody(v)}
            self._tell("on_join", (details,))

    def note_left(self, session: Session) -> None:
        """Publish the event that a session has left the realm."""
        if self._is_heard("on_leave"):
            names = (session.auth_id, session.auth_role)
            shown = [name if _is_for_everybody(name) else None for name in names]
            self._tell("on_leave", (session.id, *shown))


def _is_for_everybody(value: Any) -> bool:
    """Tell whether every serialization format can express a value.

    All subscribers receive the same event, whatever their format.
    """
    return all(can_hold(format_, value) for format_ in ALL_FORMATS)


def _details(session: Session) -> dict[str, Any]:
    return {
        "session": session.id,
        "authid": session.auth_id,
        "authrole": session.auth_role,
        "authmethod": session.auth_method,
        "authprovider": session.auth_provider,
    }
