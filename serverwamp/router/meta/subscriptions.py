"""The meta API of subscriptions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar

from serverwamp import uris
from serverwamp.binding.results import RPCResult
from serverwamp.errors import NoSuchSubscription, WAMPError
from serverwamp.outbound.backlog import EventReceiver
from serverwamp.protocol.messages import SubscribeOptions
from serverwamp.router.broker import Subscription
from serverwamp.router.meta.tables import TableMetaAPI
from serverwamp.session import Session


class SubscriptionMetaAPI(TableMetaAPI[Subscription]):
    """The subscriptions of a realm, except those to WAMP's own topics.

    Spec: Advanced Profile, "Subscription Meta API".
    """

    prefix: ClassVar[str] = "wamp.subscription"
    procedures: ClassVar[Sequence[str]] = (
        "list",
        "lookup",
        "match",
        "get",
        "list_subscribers",
        "count_subscribers",
    )
    topics: ClassVar[Sequence[str]] = ("on_create", "on_subscribe", "on_unsubscribe", "on_delete")
    joining: ClassVar[str] = "subscribe"

    async def _lookup(
        self, caller: Session, topic: str, options: SubscribeOptions | None = None, /
    ) -> int | None:
        self._check(caller)
        subscription = self._broker.lookup(topic, (options and options.match) or "exact")
        is_found = subscription is not None and self._is_shown(subscription)
        return subscription.id if subscription is not None and is_found else None

    async def _match(self, caller: Session, topic: str, /) -> RPCResult:
        self._check(caller)
        matching = filter(self._is_shown, self._broker.matching(topic))
        return RPCResult(([subscription.id for subscription in matching] or None,))

    _list_subscribers = TableMetaAPI._list_holders
    _count_subscribers = TableMetaAPI._count_holders

    # ---- the table

    def _is_shown(self, subscription: Subscription) -> bool:
        has_subscribers = bool(self._broker.subscribers(subscription))
        return has_subscribers and not uris.is_reserved(subscription.topic)

    def _entries(self) -> Iterator[Subscription]:
        return filter(self._is_shown, self._broker)

    def _find(self, id_: int) -> Subscription | None:
        subscription = self._broker.find(id_)
        is_found = subscription is not None and self._is_shown(subscription)
        return subscription if is_found else None

    def _holders(self, entry: Subscription) -> Collection[EventReceiver]:
        return self._broker.subscribers(entry)

    def _described(self, entry: Subscription) -> dict[str, Any]:
        return {"uri": entry.topic}

    def _no_such(self, id_: int) -> WAMPError:
        return NoSuchSubscription(f"there is no subscription {id_}")

    # ---- events

    def note_joined(self, session: Session, entry: Subscription) -> None:
        """Publish the events of a new subscriber, except for WAMP's own topics."""
        if not uris.is_reserved(entry.topic):
            super().note_joined(session, entry)

    def note_left(self, session: Session, entry: Subscription) -> None:
        """Publish the events of a subscriber that has left, except for WAMP's own topics."""
        if not uris.is_reserved(entry.topic):
            super().note_left(session, entry)
