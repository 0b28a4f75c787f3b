"""What the protocol lets clients ask about a realm itself: who is there, and what they do.

Nothing of it is about the protocol's own procedures and topics, and while nobody listens to its
events they cost nothing.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from datetime import datetime, timezone
from typing import Any, Final, TypeAlias, get_args

from serverwamp import uris
from serverwamp.broker import Broker, Publication, Subscription
from serverwamp.errors import InvalidURI, NoSuchSession, NoSuchSubscription, NotAuthorized
from serverwamp.features import Admits
from serverwamp.protocol.messages import Id, SubscribeOptions
from serverwamp.results import RPCResult
from serverwamp.routing import ProtocolRoute, ProtocolTopicRoute
from serverwamp.session import Session
from serverwamp.uris import MatchPolicy

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


class MetaAPI:
    """A part of what clients may ask, and hear: whoever `admits` is true for."""

    def __init__(
        self, admits: Admits, broker: Broker, deliver: Callable[[Publication], None]
    ) -> None:
        self._admits = admits
        self._broker = broker
        self._deliver = deliver

    def _check(self, caller: Session) -> None:
        if not self._admits(caller):
            raise NotAuthorized("the session may not ask about others")

    async def _listen(self, caller: Session) -> AsyncIterator[None]:
        self._check(caller)
        yield

    def _is_heard(self, topic: str) -> bool:
        return self._broker.has_subscribers(topic)

    def _tell(self, topic: str, args: Sequence[Any], exclude: Collection[int] = ()) -> None:
        if self._is_heard(topic):
            self._deliver(Publication(topic, args, exclude=exclude))


class SessionMetaAPI(MetaAPI):
    """The sessions that are open in a realm.

    Spec: Advanced Profile, "Session Meta API".
    """

    def __init__(
        self,
        members: MutableMapping[int, Session],
        admits: Admits,
        admits_to_kill: Admits,
        broker: Broker,
        deliver: Callable[[Publication], None],
    ) -> None:
        super().__init__(admits, broker, deliver)
        self._members = members
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
        if self._is_heard(ON_JOIN):
            self._tell(ON_JOIN, (_described(session),))

    def note_left(self, session: Session) -> None:
        """Tell who listens that a session is over."""
        self._tell(ON_LEAVE, (session.id, session.auth_id, session.auth_role))


class SubscriptionMetaAPI(MetaAPI):
    """What the sessions of a realm are subscribed to, but for topics of the protocol.

    Spec: Advanced Profile, "Subscription Meta API".
    """

    def routes(self) -> Iterator[ProtocolRoute | ProtocolTopicRoute]:
        """Yield the routes by which clients reach it."""
        procedures: Mapping[str, Callable[..., Any]] = {
            "list": self._list,
            "lookup": self._lookup,
            "match": self._match,
            "get": self._get,
            "list_subscribers": self._list_subscribers,
            "count_subscribers": self._count_subscribers,
        }
        for name, procedure in procedures.items():
            yield ProtocolRoute(f"wamp.subscription.{name}", procedure)
        for name in ("on_create", "on_subscribe", "on_unsubscribe", "on_delete"):
            yield ProtocolTopicRoute(f"wamp.subscription.{name}", self._listen)

    # ---- who is subscribed to what

    async def _list(self, caller: Session, /) -> RPCResult:
        self._check(caller)
        ids: dict[str, list[int]] = {match: [] for match in get_args(MatchPolicy)}
        for subscription in filter(self._is_shown, self._broker):
            ids[subscription.match].append(subscription.id)
        return RPCResult((ids,))

    async def _lookup(
        self, caller: Session, topic: str, options: SubscribeOptions | None = None, /
    ) -> int | None:
        self._check(caller)
        match = (options and options.match) or "exact"
        subscription = self._broker.lookup(topic, match)
        return (
            subscription.id if subscription is not None and self._is_shown(subscription) else None
        )

    async def _match(self, caller: Session, topic: str, /) -> RPCResult:
        self._check(caller)
        matching = filter(self._is_shown, self._broker.matching(topic))
        return RPCResult(([subscription.id for subscription in matching] or None,))

    async def _get(self, caller: Session, id_: Id, /) -> RPCResult:
        return RPCResult((_details(self._found(caller, id_)),))

    async def _list_subscribers(self, caller: Session, id_: Id, /) -> RPCResult:
        subscribers = self._broker.subscribers(self._found(caller, id_))
        return RPCResult(([subscriber.session_id for subscriber in subscribers],))

    async def _count_subscribers(self, caller: Session, id_: Id, /) -> int:
        return len(self._broker.subscribers(self._found(caller, id_)))

    def _found(self, caller: Session, id_: int) -> Subscription:
        self._check(caller)
        subscription = self._broker.find(id_)
        if subscription is None or not self._is_shown(subscription):
            raise NoSuchSubscription(f"there is no subscription {id_}")
        return subscription

    def _is_shown(self, subscription: Subscription) -> bool:
        has_subscribers = bool(self._broker.subscribers(subscription))
        return has_subscribers and not uris.is_reserved(subscription.topic)

    # ---- events

    def note_joined(self, session_id: int, subscription: Subscription) -> None:
        """Tell who listens that a session has been added to a subscription."""
        if uris.is_reserved(subscription.topic):
            return
        if len(self._broker.subscribers(subscription)) == 1:
            self._tell("wamp.subscription.on_create", (session_id, _details(subscription)))
        self._tell("wamp.subscription.on_subscribe", (session_id, subscription.id))

    def note_left(self, session: Session, subscription: Subscription) -> None:
        """Tell who listens that a session has been removed from a subscription."""
        if uris.is_reserved(subscription.topic):
            return
        args = (session.id, subscription.id)
        exclude = () if session.is_open else (session.id,)  # nothing may follow its GOODBYE
        self._tell("wamp.subscription.on_unsubscribe", args, exclude)
        if not self._broker.subscribers(subscription):
            self._tell("wamp.subscription.on_delete", args, exclude)


def _described(session: Session) -> dict[str, Any]:
    return {
        "session": session.id,
        "authid": session.auth_id,
        "authrole": session.auth_role,
        "authmethod": session.auth_method,
        "authprovider": session.auth_provider,
    }


def _details(subscription: Subscription) -> dict[str, Any]:
    created = datetime.fromtimestamp(subscription.created, timezone.utc)
    return {
        "id": subscription.id,
        "created": created.isoformat(timespec="milliseconds"),
        "uri": subscription.topic,
        "match": subscription.match,
    }
