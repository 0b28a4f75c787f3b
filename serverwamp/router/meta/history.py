"""The procedure by which clients read the event history of a subscription.

Spec: Advanced Profile, "Event History".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from serverwamp.auth.authorization import Authorization
from serverwamp.binding.results import RPCResult
from serverwamp.errors import InvalidArgument, NoSuchSubscription, NotAuthorized
from serverwamp.history import (
    Described,
    HistoryBound,
    HistoryQuery,
    Log,
    StoredEvent,
    rfc3339,
    utc_now,
)
from serverwamp.patterns import matches
from serverwamp.protocol.messages import Id
from serverwamp.publication import Publication
from serverwamp.router.broker import Broker, Subscription
from serverwamp.router.endpoints import Endpoint
from serverwamp.routing import ProtocolRoute
from serverwamp.session import Session

Count = Annotated[int, Meta(ge=0)]


class HistoryAPI:
    """The stored events of a subscription, for its subscribers."""

    def __init__(
        self,
        broker: Broker,
        authorization: Authorization | None,
    ) -> None:
        self._broker = broker
        self._authorization = authorization

    def routes(self) -> Iterator[ProtocolRoute]:
        """Yield the route to the procedure."""
        yield ProtocolRoute("wamp.subscription.get_events", self._get_events)

    async def _get_events(
        self,
        session: Session,
        subscription: Id,
        /,
        *,
        reverse: bool | None = None,
        limit: Count | None = None,
        from_time: datetime | None = None,
        after_time: datetime | None = None,
        before_time: datetime | None = None,
        until_time: datetime | None = None,
        topic: str | None = None,
        from_publication: Id | None = None,
        after_publication: Id | None = None,
        before_publication: Id | None = None,
        until_publication: Id | None = None,
    ) -> RPCResult:
        found = self._subscription_of(session, subscription)
        query = HistoryQuery(
            since=[
                *_bounds(True, from_time, from_publication),
                *_bounds(False, after_time, after_publication),
            ],
            until=[
                *_bounds(False, before_time, before_publication),
                *_bounds(True, until_time, until_publication),
            ],
            limit=math.inf if limit is None else limit,
            reverse=bool(reverse),
        )

        endpoint = found.endpoint
        events: Sequence[Described] = ()
        is_complete, time = False, utc_now()
        if isinstance(endpoint, Endpoint) and endpoint.log is not None:
            events, is_complete, time = await self._read(endpoint.log, query, session, found, topic)
        return RPCResult((events,), {"complete": is_complete, "time": rfc3339(time)})

    async def _read(
        self,
        log: Log,
        query: HistoryQuery,
        session: Session,
        found: Subscription,
        topic: str | None,
    ) -> tuple[Sequence[Described], bool, datetime]:
        """Return a session's events, whether they are complete, and the time of the store."""
        unknown: set[str] = set()
        heard: dict[str, bool] = {}

        def is_matched(uri: str) -> bool:
            if topic not in (None, uri) or not matches(found.topic, found.match, uri):
                return False
            if found.match == "exact":
                return True
            if uri not in heard:  # each topic that a pattern matches is authorized by itself
                unknown.add(uri)
            return heard.get(uri, False)

        def is_for(publication: Publication) -> bool:
            return is_matched(publication.topic) and publication.is_for(session)

        def described(event: StoredEvent) -> Described | None:
            description = _described(event, found)
            return description if session._control.can_receive(description) else None

        while True:
            result = await log.read(query, is_for, is_matched, described)
            if not unknown:
                return result
            for uri in unknown:
                heard[uri] = self._authorization is None or await self._authorization.may_hear(
                    session, uri
                )
            unknown.clear()

    def _subscription_of(self, session: Session, id_: int) -> Subscription:
        subscription = self._broker.find(id_)
        if subscription is None:
            raise NoSuchSubscription(f"there is no subscription {id_}")
        if not session.is_subscribed(id_):
            raise NotAuthorized("the session has no such subscription")
        return subscription


def _bounds(
    included: bool, moment: datetime | None, publication: int | None
) -> Iterator[HistoryBound]:
    if moment is not None:
        if moment.tzinfo is None:
            raise InvalidArgument(f"{moment.isoformat()} has no time zone")
        yield HistoryBound(moment, included)
    if publication is not None:
        yield HistoryBound(publication, included)


def _described(event: StoredEvent, subscription: Subscription) -> Described:
    publication = event.publication
    details = dict(publication.disclosed)
    if subscription.match != "exact":
        details["topic"] = publication.topic
    described = {
        "timestamp": event.timestamp,
        "subscription": subscription.id,
        "publication": publication.id,
        "details": details,
    }
    args, kwargs = event.payload()
    if args or kwargs:
        described["args"] = args
    if kwargs:
        described["kwargs"] = kwargs
    return described
