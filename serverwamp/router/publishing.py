"""Publishing events in a realm, and delivering them to subscribers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

from msgspec.structs import replace

from serverwamp.backplanes.base import Backplane
from serverwamp.backplanes.topics import TopicRules
from serverwamp.binding.default_args import shielded_exit_stack
from serverwamp.binding.handler import Handler
from serverwamp.binding.results import RPCErrorResult, as_result
from serverwamp.concurrency.tasks import start_many
from serverwamp.errors import SerializationError, WAMPError
from serverwamp.history import HistoryReader, Log
from serverwamp.limits import Limits
from serverwamp.protocol.messages import Event
from serverwamp.protocol.serializers import EncodedOnce
from serverwamp.publication import Publication
from serverwamp.router.broker import Broker
from serverwamp.router.endpoints import Endpoints
from serverwamp.router.lost_windows import LostWindow
from serverwamp.session import Session
from serverwamp.statistics import Counters
from serverwamp.uris import MatchPolicy

logger: logging.Logger = logging.getLogger(__name__)

MOST_UNSERVED = 100
"""How many topics without a route are logged."""

Payload: TypeAlias = tuple[Sequence[Any], Mapping[str, Any]]


class Publishing:
    """Publishes events in a realm, for the application and for clients.

    With `asks_subscribers`, the authorizer of the realm decides for each subscriber whether it may
    receive an event.
    """

    def __init__(
        self,
        uri: str | None,
        endpoints: Endpoints,
        broker: Broker,
        backplane: Backplane,
        counters: Counters,
        limits: Limits,
        *,
        asks_subscribers: bool,
    ) -> None:
        self._endpoints = endpoints
        self.broker: Broker = broker
        self.uri: str | None = uri
        self.backplane: Backplane = backplane
        self._counters = counters
        self.limits: Limits = limits
        self._asks_subscribers = asks_subscribers
        self.has_stores: bool = any(
            endpoint.history is not None and endpoint.history.store is not None
            for endpoint in endpoints
        )
        self._unserved: set[str] = set()

    async def publish(self, publication: Publication) -> None:
        """Publish an event of the application.

        Raises: ValueError when no subscriber's serialization format can express it.
        """
        topic = publication.topic
        if self.broker.lookup(topic, "exact") is None:
            if self._endpoints.topic_endpoint(topic) is None:
                self._note_unserved(topic)
        try:
            await self._carry(publication)
        except SerializationError as failure:
            raise ValueError(f"nobody can receive the event of {topic!r}: {failure}") from failure

    def _note_unserved(self, topic: str) -> None:
        if topic not in self._unserved and len(self._unserved) < MOST_UNSERVED:
            self._unserved.add(topic)
            logger.warning("nobody can receive events of %r: no topic route serves it", topic)

    # ---- for clients

    async def publish_for(
        self,
        session: Session,
        publication: Publication,
        exact_payload: Callable[[], Payload] | None = None,
    ) -> None:
        """Publish an event of a client, after the publication handler has accepted it.

        `exact_payload` returns the arguments with numbers exactly as they were written in JSON.

        Raises: InvalidURI; NotAuthorized; any exception of the publication handler;
        SerializationError when no subscriber's serialization format can express the event.
        """
        handler = self._endpoints.publication(publication.topic)
        handled = publication
        if handler is not None:
            handled = await _handled(handler, session, publication, exact_payload)
        try:
            await self._carry(handled)
        except SerializationError as failure:
            if handled is not publication:  # the handler's arguments are at fault
                failure.answer = failure.answer_to_receiver
            raise

    async def _carry(self, publication: Publication) -> None:
        await self.backplane.publish(self, publication)

    # ---- from the backplane

    @asynccontextmanager
    async def followed(self, topic: str, match: MatchPolicy) -> AsyncIterator[None]:
        """Receive the events that other processes publish to a topic or pattern.

        Raises: BackplaneUnavailable.
        """
        await self.backplane.follow(self, topic, match)
        try:
            yield
        finally:
            self.backplane.unfollow(self, topic, match)

    def log_of(self, topic: str) -> Log | None:
        """Return the event history of a topic; None if it has none."""
        if not self._endpoints.keeps_history:
            return None
        endpoint = self._endpoints.topic_endpoint(topic)
        return None if endpoint is None else endpoint.log

    @property
    def topics(self) -> Sequence[TopicRules]:
        """The topic routes of the realm."""
        return self._endpoints.topics

    def serves_topic(self, topic: str) -> bool:
        """Tell whether clients can subscribe to a topic."""
        return self._endpoints.topic_endpoint(topic) is not None

    def lost_in(
        self, since: float, until: float, history: HistoryReader | None
    ) -> LostWindow | None:
        """Return the period in which events of the realm may be lost; None if nobody notices.

        They are those of topics without a history or, if `history` is given, those of topics with
        this history.
        """
        concerns = (
            self._endpoints.forgets
            if history is None
            else partial(self._endpoints.may_keep, reader=history)
        )
        subscriptions = [
            subscription
            for subscription in self.broker
            if self.broker.subscribers(subscription)
            and concerns(subscription.topic, subscription.match)
        ]
        if not subscriptions:
            return None
        return LostWindow(self.uri, tuple(subscriptions), since, until)

    def receive(self, publication: Publication) -> None:
        """Deliver a publication that another process may have made."""
        self._deliver(publication, can_refuse=False)

    def tell(self, publication: Publication) -> None:
        """Publish a meta event to the subscribers in all processes."""
        self.backplane.post(self, publication)

    # ---- to the subscribers

    def deliver(self, publication: Publication) -> None:
        """Queue an event for its subscribers; store it if its history is in memory.

        Raises: SerializationError when no subscriber's serialization format can express the event.
        """
        self._deliver(publication, can_refuse=True)

    def _deliver(self, publication: Publication, *, can_refuse: bool) -> None:
        topic = publication.topic
        events: list[EncodedOnce] = []
        losers: list[Any] = []
        for subscription, subscribers in self.broker.recipients(topic):
            details = publication.disclosed
            if subscription.match != "exact":
                details = {"topic": topic, **details}
            event = EncodedOnce(
                Event(
                    subscription.id, publication.id, details, publication.args, publication.kwargs
                )
            )
            events.append(event)
            receivers = (
                subscribers
                if publication.audience is None and publication.publisher is None
                else [s for s in subscribers if publication.is_for(s.session)]
            )
            if self._asks_subscribers:
                receivers = [s for s in receivers if s.is_allowed(topic, event)]
            self._counters.events += len(receivers)
            start_many(
                (subscriber.outbound, unit)
                for subscriber in receivers
                if (unit := event[subscriber.format]) is not None
                and subscriber.outbound.takes(unit, subscriber)
            )
            if event.failure is not None:
                losers += [s for s in receivers if event[s.format] is None]
        if losers:
            self._note_losses(topic, events, losers, can_refuse=can_refuse)
        if self._endpoints.keeps_history:
            log = self.log_of(topic)
            if log is not None:
                log.keep(publication)  # at the same moment as it is delivered

    def _note_losses(
        self,
        topic: str,
        events: Sequence[EncodedOnce],
        losers: Sequence[Any],
        *,
        can_refuse: bool,
    ) -> None:
        """Log that an event is lost for subscribers whose serialization format can't express it.

        Raises: SerializationError when no subscriber's format can, if the publisher can be told.
        """
        self._counters.events -= len(losers)
        failure = next(event.failure for event in events if event.failure is not None)
        nobody = all(unit is None for event in events for unit in event.values())
        if nobody and can_refuse:
            raise failure
        if [s for s in losers if s.outbound.is_first_loss()]:  # a list, to mark all of them
            logger.warning(
                "an event of %r is lost for %d subscribers: %s", topic, len(losers), failure
            )


async def _handled(
    handler: Handler,
    session: Session,
    publication: Publication,
    exact_payload: Callable[[], Payload] | None,
) -> Publication:
    """Call the publication handler; return the publication with the arguments that it decides.

    Default args of the handler are closed before this returns. For example, a database transaction
    is committed before the event about it is delivered.

    Raises: any exception of the handler; WAMPError if it returns an error.
    """
    exact = exact_payload() if handler.wants_exact_numbers and exact_payload is not None else None
    values, values_by_name = handler.bind(publication.args, publication.kwargs, exact)
    sources = {"session": session, "topic": publication.topic, "publication": publication}
    if not handler.has_factories:
        outcome = await handler.invoke(sources, None, values, values_by_name)
        return _revised(publication, outcome)
    async with shielded_exit_stack() as stack:
        outcome = await handler.invoke(sources, stack, values, values_by_name)
        revised = _revised(publication, outcome)
    return revised


def _revised(publication: Publication, outcome: Any) -> Publication:
    if outcome is None:
        return publication
    result = as_result(outcome)
    if isinstance(result, RPCErrorResult):
        raise WAMPError(result.error_uri, result.args, result.kwargs)
    return replace(publication, args=result.args, kwargs=result.kwargs)
