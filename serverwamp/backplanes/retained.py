"""Retained events: the last events of topics, for sessions that subscribe later.

Spec: Advanced Profile, "Event Retention".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from serverwamp.history import StoredEvent, stored, utc_now
from serverwamp.limits import Limits
from serverwamp.publication import Publication

logger: logging.Logger = logging.getLogger(__name__)

MOST_OF_A_TOPIC = 10
"""How many events with a restricted audience are kept per topic, besides the last event for all."""


class Retained:
    """The retained events of a realm, up to the limits. The oldest topics are dropped first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Topics in the order of their last event; the events of a topic with the newest first.
        self._by_topic: dict[str, list[StoredEvent]] = {}
        self._size = 0
        self._has_forgotten = False

    def keep(self, publication: Publication) -> None:
        """Keep an event. It replaces older events that no session would receive any more."""
        event = stored(publication, utc_now())
        if event.unit is None:
            return
        older = self._by_topic.pop(publication.topic, [])
        if publication.audience is None:
            kept = [event]
        else:
            for_all = [item for item in older if item.publication.audience is None]
            others = [item for item in older if item.publication.audience is not None]
            kept = [event, *others[: MOST_OF_A_TOPIC - 1], *for_all]
        self._by_topic[publication.topic] = kept
        self._size += sum(item.size for item in kept) - sum(item.size for item in older)
        while (
            len(self._by_topic) > self._limits.retained_topics
            or self._size > self._limits.retained_bytes
        ):
            topic = next(iter(self._by_topic))
            self._size -= sum(item.size for item in self._by_topic.pop(topic))
            if not self._has_forgotten:
                self._has_forgotten = True
                text = "Limits.retained_topics or _bytes: %r is no longer retained (logged once)"
                logger.warning(text, topic)

    def of_topic(self, topic: str) -> Sequence[StoredEvent]:
        """Return the events of a topic, the newest first."""
        return self._by_topic.get(topic, ())
