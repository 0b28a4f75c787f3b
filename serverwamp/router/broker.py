"""Who is subscribed to what: synchronous, pure tables.

Spec: Basic Profile, "Publish and Subscribe".
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

from serverwamp.outbound.backlog import EventReceiver
from serverwamp.patterns import PatternTable
from serverwamp.uris import MatchPolicy

MISSING: Final = object()


class Subscription:
    """A topic, or a pattern of topics, that sessions of a realm are subscribed to."""

    __slots__ = ("_holders", "_subscribers", "created", "endpoint", "id", "match", "topic")

    def __init__(
        self, id: int, topic: str, match: MatchPolicy = "exact", endpoint: Any = None
    ) -> None:
        self.id: int = id
        """The same for all subscribers."""
        self.topic: str = topic
        """The URI; of a pattern, what was asked for."""
        self.match: MatchPolicy = match
        """Whether that is one topic, "exact", or a pattern, "prefix" or "wildcard"."""
        self.endpoint: Any = endpoint
        """The route that allows it, which is always the same."""
        self.created: float = time.time()
        """When it began to exist, in seconds of the Unix clock."""
        self._holders = 0
        self._subscribers: dict[Any, None] = {}  # ordered, and cheap to leave

    def __repr__(self) -> str:
        match = "" if self.match == "exact" else f" as a {self.match}"
        return f"<Subscription {self.id} to {self.topic!r}{match}>"


class Broker:
    """The subscriptions of a realm.

    A session that subscribes *holds* the subscription from before its handler runs, so that the
    id is known, and *joins* its subscribers when the handler has agreed. `route_of` returns what
    allows subscriptions to a topic.
    """

    def __init__(self, route_of: Callable[[str], object]) -> None:
        self._route_of = route_of
        self._ids = itertools.count(1)
        self._exact: dict[str, Subscription] = {}
        self._patterns: PatternTable[Subscription] = PatternTable()
        self._has_patterns = False  # what most realms never have isn't to cost them anything
        self._by_id: dict[int, Subscription] = {}

    def hold(self, topic: str, match: MatchPolicy = "exact", endpoint: Any = None) -> Subscription:
        """Return the subscription to `topic`, which exists until it is released as often."""
        subscription = self.lookup(topic, match)
        if subscription is None:
            subscription = Subscription(next(self._ids), topic, match, endpoint)
            if match == "exact":
                self._exact[topic] = subscription
            else:
                self._patterns.add(topic, match, subscription)
                self._has_patterns = True
            self._by_id[subscription.id] = subscription
        subscription._holders += 1
        return subscription

    def release(self, subscription: Subscription) -> None:
        """Give back what `hold` returned."""
        subscription._holders -= 1
        if not subscription._holders:
            if subscription.match == "exact":
                del self._exact[subscription.topic]
            else:
                self._patterns.remove(subscription.topic, subscription.match)
                self._has_patterns = self._patterns.has_patterns
            del self._by_id[subscription.id]

    def join(self, subscription: Subscription, subscriber: EventReceiver) -> None:
        """Let `subscriber` receive what is published to the subscription from now on."""
        subscription._subscribers[subscriber] = None

    def leave(self, subscription: Subscription, subscriber: EventReceiver) -> bool:
        """End what `join` began; tell whether it had not ended before."""
        return subscription._subscribers.pop(subscriber, MISSING) is None

    # ---- what there is

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._by_id.values())

    def subscribers(self, subscription: Subscription) -> Collection[EventReceiver]:
        """Return who receives the events of a subscription."""
        return subscription._subscribers.keys()

    def find(self, id: int) -> Subscription | None:
        """Return the subscription of that id."""
        return self._by_id.get(id)

    def lookup(self, topic: str, match: MatchPolicy) -> Subscription | None:
        """Return the subscription to just this topic or pattern."""
        return self._exact.get(topic) if match == "exact" else self._patterns.get(topic, match)

    def matching(self, topic: str) -> Sequence[Subscription]:
        """Return the subscriptions that get what is published to `topic`.

        A pattern gets nothing of a topic that has a route of its own.
        """
        exact = self._exact.get(topic)
        matching = [] if exact is None else [exact]
        if self._has_patterns:
            route = self._route_of(topic)
            matching += [s for s in self._patterns.matching(topic) if s.endpoint is route]
        return matching

    def has_subscribers(self, topic: str) -> bool:
        """Tell whether anybody is subscribed to just this topic."""
        subscription = self._exact.get(topic)
        return subscription is not None and bool(subscription._subscribers)

    def recipients(self, topic: str) -> Sequence[tuple[Subscription, Sequence[Any]]]:
        """Return the subscriptions that `matching` does, each with its subscribers now."""
        if not self._has_patterns:
            exact = self._exact.get(topic)
            return () if exact is None else ((exact, tuple(exact._subscribers)),)
        return [(s, tuple(s._subscribers)) for s in self.matching(topic)]
