"""The topic routes of a realm, as its processes tell them to publishers outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from serverwamp.history import History
from serverwamp.patterns import RouteKind


class TopicRules(NamedTuple):
    """What somebody who publishes has to know about a topic route."""

    kind: RouteKind
    uri: str
    history: History | None

    @property
    def name(self) -> str:
        """The name of the history, which is the same in all processes."""
        return f"{self.kind}:{self.uri}"


_Bounds: TypeAlias = tuple[float | None, float | None, float | None]
"""The number, age and size of the events; None for infinity, which JSON doesn't have."""


class _Told(msgspec.Struct, array_like=True):
    kind: RouteKind
    uri: str
    bounds: _Bounds | None


def told(topics: Sequence[TopicRules]) -> bytes:
    """Return topic routes as bytes."""
    return msgspec.json.encode(
        [_Told(kind, uri, _bounds(history)) for kind, uri, history in topics]
    )


def _bounds(history: History | None) -> _Bounds | None:
    if history is None:
        return None
    return _finite(history.events), _finite(history.age), _finite(history.bytes)


def _finite(bound: float) -> float | None:
    return None if bound == math.inf else bound


def understood(content: bytes) -> list[TopicRules]:
    """Return the topic routes that `told` was given.

    Raises: ValueError for anything else.
    """
    topics = []
    for topic in msgspec.json.decode(content, type=list[_Told]):
        history = None
        if topic.bounds is not None:
            events, age, size = (math.inf if bound is None else bound for bound in topic.bounds)
            history = History(events, age, size)
        topics.append(TopicRules(topic.kind, topic.uri, history))
    return topics
