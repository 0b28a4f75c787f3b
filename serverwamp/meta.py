"""What the protocol lets clients ask about a realm itself: who is there, and what they do.

Spec: Advanced Profile, "Session Meta API".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

from serverwamp import uris
from serverwamp.broker import Broker, Publication
from serverwamp.errors import InvalidURI, NoSuchSession, NotAuthorized
from serverwamp.features import Admits
from serverwamp.protocol.messages import Id
from serverwamp.results import RPCResult
from serverwamp.routing import ProtocolRoute, ProtocolTopicRoute
from serverwamp.session import Session

ON_JOIN: Final = "wamp.session.on_join"
ON_LEAVE: Final = "wamp.session.on_leave"

Requirement: TypeAlias = str | Collection[str] | Callable[[Session], bool]


def admitting(requirement: Requirement | None) -> Admits:
    """Return what tells whether a session meets a requirement; without one, whoever is known does.

    That is a role, or one of several roles, or else a function decides.
    """
    if requirement is None:
        return lambda session: session.is_authenticated and session.auth_role != "anonymous"
    if callable(requirement):
        return requirement
    roles = {requirement} if isinstance(requirement, str) else frozenset(requirement)
    return lambda session: session.auth_role in roles


class SessionMetaAPI:
    """The sessions that are open in a realm, for clients that want to know of them."""

    def __init__(
        self,
        members: MutableMapping[int, Session],
        broker: Broker,
        deliver: Callable[[Publication], None],
        admits: Admits,
        admits_to_kill: Admits,
    ) -> None:
        self._members = members
        self._broker = broker
        self._deliver = deliver
        self._admits = admits
        self._admits_to_kill = admits_to_kill

    def routes(self) -> Iterator[ProtocolRoute | ProtocolTopicRoute]:
        """Yield the routes by which clients reach it."""
        procedures: Mapping[str, Callable[..., Any]] = {
            "count": self._count,
            "list": self._list,
            "get": self._get,
            "kill": self._kill,
            "kill_by_authid": self._kill_by_authid,
            "kill_by_authrole": self._kill_by_authrole,
            "kill_all": self._kill_all,
        }
        for name, procedure in procedures.items():
            yield ProtocolRoute(f"wamp.session.{name}", procedure)
        for topic in (ON_JOIN, ON_LEAVE):
            yield ProtocolTopicRoute(topic, self._listen)

    async def _listen(self, caller: Session) -> AsyncIterator[None]:
        self._check(caller)
        yield

    def _check(self, caller: Session) -> None:
        if not self._admits(caller):
            raise NotAuthorized("the session may not ask about others")

    # ---- who is there

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
        return RPCResult((_described(session),))

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
        """Close the sessions that are wanted, but for the caller's own; return their ids.

        Nobody hears of it if that is to be done `quietly`.
        """
        if not self._admits_to_kill(caller):
            raise NotAuthorized("the session may not end others")
        reason = uris.KILLED if reason is None else reason
        if not uris.is_valid_uri(reason):
            raise InvalidURI(f"{reason!r} is not a valid URI for a reason")
        ended = [
            session
            for session in self._members.values()
            if session.id != caller.id and wanted(session)
        ]
        if quietly:
            for session in ended:
                del self._members[session.id]
        for session in ended:
            await session.close(reason, message)
        return [session.id for session in ended]

    # ---- events

    def note_joined(self, session: Session) -> None:
        """Tell who listens that a session is open."""
        if self._broker.has_subscribers(ON_JOIN):
            self._deliver(Publication(ON_JOIN, (_described(session),)))

    def note_left(self, session: Session) -> None:
        """Tell who listens that a session is over."""
        if self._broker.has_subscribers(ON_LEAVE):
            args = (session.id, session.auth_id, session.auth_role)
            self._deliver(Publication(ON_LEAVE, args))


def _described(session: Session) -> dict[str, Any]:
    return {
        "session": session.id,
        "authid": session.auth_id,
        "authrole": session.auth_role,
        "authmethod": session.auth_method,
        "authprovider": session.auth_provider,
    }
