"""The subscriptions of a realm, in synchronous tables without I/O.

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
    """A topic, or a pattern of topics, to which sessions of a realm are subscribed."""

    __slots__ = ("_holders", "_subscribers", "created", "endpoint", "id", "match", "topic")

    def __init__(
        self, id: int, topic: str, match: MatchPolicy = "exact", endpoint: Any = None
    ) -> None:
        self.id: int = id
        """The subscription id; all subscribers have the same."""
        self.topic: str = topic
        """The URI of the topic, or the pattern."""
        self.match: MatchPolicy = match
        """The match policy, which is "exact" for a topic, "prefix" or "wildcard" for a pattern."""
        self.endpoint: Any = endpoint
        """The endpoint of the route that serves the subscription."""
        self.created: float = time.time()
        """The time at which it was created, as a Unix timestamp in seconds."""
        self._holders = 0
        self._subscribers: dict[Any, None] = {}  # an ordered set

    def __repr__(self) -> str:
        match = "" if self.match == "exact" else f" as a {self.match}"
        return f"<Subscription {self.id} to {self.topic!r}{match}>"


class Broker:
    """The subscriptions of a realm.

    A session first *holds* a subscription: the subscription then exists and has an id while its
    handler runs. When the handler has accepted, the session *joins* the subscribers.

    `route_of` returns the endpoint that serves a topic.
    """

    def __init__(self, route_of: Callable[[str], object]) -> None:
        self._route_of = route_of
        self._ids = itertools.count(1)
        self._exact: dict[str, Subscription] = {}
        self._patterns: PatternTable[Subscription] = PatternTable()
        self._has_patterns = False  # most realms have none, and skip the lookup of patterns
        self._by_id: dict[int, Subscription] = {}

    def hold(self, topic: str, match: MatchPolicy = "exact", endpoint: Any = None) -> Subscription:
        """Return the subscription to `topic`, creating it if necessary.

        It exists until `release` has been called as often as `hold`.
        """
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
        """Undo one `hold`; the last one removes the subscription."""
        subscription._holders -= 1
        if not subscription._holders:
            if subscription.match == "exact":
                del self._exact[subscription.topic]
            else:
                self._patterns.remove(subscription.topic, subscription.match)
                self._has_patterns = self._patterns.has_patterns
            del self._by_id[subscription.id]

    def join(self, subscription: Subscription, subscriber: EventReceiver) -> None:
        """Add a subscriber, which receives events from now on."""
        subscription._subscribers[subscriber] = None

    def leave(self, subscription: Subscription, subscriber: EventReceiver) -> bool:
        """Remove a subscriber; tell whether it was there."""
        return subscription._subscribers.pop(subscriber, MISSING) is None

    # ---- lookup

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._by_id.values())

    def subscribers(self, subscription: Subscription) -> Collection[EventReceiver]:
        """Return the subscribers of a subscription; they receive its events."""
        return subscription._subscribers.keys()

    def find(self, id: int) -> Subscription | None:
        """Return the subscription with that id; None if there is none."""
        return self._by_id.get(id)

    def lookup(self, topic: str, match: MatchPolicy) -> Subscription | None:
        """Return the subscription to exactly this topic or pattern; None if there is none."""
        return self._exact.get(topic) if match == "exact" else self._patterns.get(topic, match)

    def matching(self, topic: str) -> Sequence[Subscription]:
        """Return the subscriptions that receive events of `topic`.

        A pattern receives only topics that are served by the same route as the pattern.
        """
        exact = self._exact.get(topic)
        matching = [] if exact is None else [exact]
        if self._has_patterns:
            route = self._route_of(topic)
            matching += [s for s in self._patterns.matching(topic) if s.endpoint is route]
        return matching

    def has_subscribers(self, topic: str) -> bool:
        """Tell whether any session is subscribed to exactly this topic; patterns don't count."""
        subscription = self._exact.get(topic)
        return subscription is not None and bool(subscription._subscribers)

    def recipients(self, topic: str) -> Sequence[tuple[Subscription, Sequence[Any]]]:
        """Return what `matching` returns, each with a copy of its current subscribers."""
        if not self._has_patterns:
            exact = self._exact.get(topic)
            return () if exact is None else ((exact, tuple(exact._subscribers)),)
        return [(s, tuple(s._subscribers)) for s in self.matching(topic)]
