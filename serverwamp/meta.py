"""What the protocol lets clients ask about a realm itself: who is there, and what they do.

Spec: Advanced Profile, "Session Meta API".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

from serverwamp.broker import Broker, Publication
from serverwamp.errors import NoSuchSession
from serverwamp.protocol.messages import Id
from serverwamp.results import RPCResult
from serverwamp.routing import ProtocolRoute, ProtocolTopicRoute
from serverwamp.session import Session

ON_JOIN: Final = "wamp.session.on_join"
ON_LEAVE: Final = "wamp.session.on_leave"


class SessionMetaAPI:
    """The sessions that are open in a realm, for clients that want to know of them."""

    def __init__(
        self,
        members: Mapping[int, Session],
        broker: Broker,
        deliver: Callable[[Publication], None],
    ) -> None:
        self._members = members
        self._broker = broker
        self._deliver = deliver

    def routes(self) -> Iterator[ProtocolRoute | ProtocolTopicRoute]:
        """Yield the routes by which clients reach it."""
        for name in ("count", "list", "get"):
            yield ProtocolRoute(f"wamp.session.{name}", getattr(self, f"_{name}"))
        for topic in (ON_JOIN, ON_LEAVE):
            yield ProtocolTopicRoute(topic, listening)

    # ---- procedures

    async def _count(self, authroles: list[str] | None = None, /) -> int:
        return sum(1 for _ in self._of_roles(authroles))

    async def _list(self, authroles: list[str] | None = None, /) -> RPCResult:
        return RPCResult(([session.id for session in self._of_roles(authroles)],))

    async def _get(self, session_id: Id, /) -> RPCResult:
        session = self._members.get(session_id)
        if session is None:
            raise NoSuchSession(f"there is no session {session_id}")
        return RPCResult((_described(session),))

    def _of_roles(self, authroles: list[str] | None) -> Iterator[Session]:
        for session in self._members.values():
            if authroles is None or session.auth_role in authroles:
                yield session

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


async def listening() -> AsyncIterator[None]:
    """Serve the subscriptions to events of the protocol: there is nothing to be done."""
    yield


def _described(session: Session) -> dict[str, Any]:
    return {
        "session": session.id,
        "authid": session.auth_id,
        "authrole": session.auth_role,
        "authmethod": session.auth_method,
        "authprovider": session.auth_provider,
    }
