"""What clients may ask about the subscriptions of a realm, and hear of them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, get_args

from serverwamp import uris
from serverwamp.broker import Subscription
from serverwamp.errors import NoSuchSubscription
from serverwamp.meta import MetaAPI
from serverwamp.protocol.messages import Id, SubscribeOptions
from serverwamp.results import RPCResult
from serverwamp.session import Session
from serverwamp.uris import MatchPolicy


class SubscriptionMetaAPI(MetaAPI):
    """What the sessions of a realm are subscribed to, but for topics of the protocol.

    Spec: Advanced Profile, "Subscription Meta API".
    """

    prefix = "wamp.subscription"
    procedures = ("list", "lookup", "match", "get", "list_subscribers", "count_subscribers")
    topics = ("on_create", "on_subscribe", "on_unsubscribe", "on_delete")

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
        return RPCResult(([subscriber.session.id for subscriber in subscribers],))

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
            self._tell("on_create", (session_id, _details(subscription)))
        self._tell("on_subscribe", (session_id, subscription.id))

    def note_left(self, session: Session, subscription: Subscription) -> None:
        """Tell who listens that a session has been removed from a subscription."""
        if uris.is_reserved(subscription.topic):
            return
        args = (session.id, subscription.id)
        exclude = () if session.is_open else (session.id,)  # nothing may follow its GOODBYE
        self._tell("on_unsubscribe", args, exclude)
        if not self._broker.subscribers(subscription):
            self._tell("on_delete", args, exclude)


def _details(subscription: Subscription) -> dict[str, Any]:
    created = datetime.fromtimestamp(subscription.created, timezone.utc)
    return {
        "id": subscription.id,
        "created": created.isoformat(timespec="milliseconds"),
        "uri": subscription.topic,
        "match": subscription.match,
    }
