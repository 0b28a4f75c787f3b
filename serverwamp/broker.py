"""Who is subscribed to what: synchronous, pure tables.

Spec: Basic Profile, "Publish and Subscribe".
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from serverwamp.protocol.ids import new_publication_id


class Publication(Struct, frozen=True):
    """Something published to a topic, for whoever is subscribed there when it arrives.

    `exclude` and `eligible` are session ids; `eligible` None means everybody.
    """

    topic: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    exclude: Collection[int] = ()
    eligible: Collection[int] | None = None
    id: int = field(default_factory=new_publication_id)

    def is_for(self, session_id: int) -> bool:
        """Tell whether the session of that id may receive it."""
        return session_id not in self.exclude and (
            self.eligible is None or session_id in self.eligible
        )


class Subscriber(Protocol):
    """What receives the events of a subscription for one session."""


class Subscription:
    """A topic that sessions of a realm are subscribed to."""

    __slots__ = ("_holders", "_subscribers", "id", "match", "topic")

    def __init__(self, id: int, topic: str, match: str = "exact") -> None:
        self.id: int = id
        """The same for all subscribers."""
        self.topic: str = topic
        """The URI."""
        self.match: str = match
        """Always "exact", for the URI is one topic and not a pattern."""
        self._holders = 0
        self._subscribers: dict[Any, None] = {}  # ordered, and cheap to leave

    def __repr__(self) -> str:
        return f"<Subscription {self.id} to {self.topic!r}>"


class Broker:
    """The subscriptions of a realm.

    A session that subscribes *holds* the subscription from before its handler runs, so that the
    id is known, and *joins* its subscribers when the handler has agreed.
    """

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._by_topic: dict[str, Subscription] = {}

    def hold(self, topic: str) -> Subscription:
        """Return the subscription to `topic`, which exists until it is released as often."""
        subscription = self._by_topic.get(topic)
        if subscription is None:
            subscription = self._by_topic[topic] = Subscription(next(self._ids), topic)
        subscription._holders += 1
        return subscription

    def release(self, subscription: Subscription) -> None:
        """Give back what `hold` returned."""
        subscription._holders -= 1
        if not subscription._holders:
            del self._by_topic[subscription.topic]

    def join(self, subscription: Subscription, subscriber: Subscriber) -> None:
        """Let `subscriber` receive what is published to the subscription from now on."""
        subscription._subscribers[subscriber] = None

    def leave(self, subscription: Subscription, subscriber: Subscriber) -> None:
        """End what `join` began."""
        subscription._subscribers.pop(subscriber, None)

    def has_subscribers(self, topic: str) -> bool:
        """Tell whether anybody is subscribed to just this topic."""
        subscription = self._by_topic.get(topic)
        return subscription is not None and bool(subscription._subscribers)

    def recipients(self, topic: str) -> Sequence[tuple[Subscription, Sequence[Any]]]:
        """Return the subscriptions that `topic` matches, each with its subscribers now."""
        subscription = self._by_topic.get(topic)
        if subscription is None:
            return ()
        return ((subscription, tuple(subscription._subscribers)),)
