"""The events of a realm, from where they are published to where its sessions receive them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec.structs import replace

from serverwamp import uris
from serverwamp.backplanes.base import Backplane
from serverwamp.binding.handler import Handler, shielded_exit_stack
from serverwamp.binding.results import RPCErrorResult, as_result
from serverwamp.concurrency.tasks import start_each
from serverwamp.errors import SerializationError, WAMPError, checked_args
from serverwamp.protocol.messages import Event
from serverwamp.protocol.serializers import EncodedOnce
from serverwamp.publication import Audience, Publication, disclosure
from serverwamp.router.broker import Broker
from serverwamp.router.endpoints import Handlers
from serverwamp.router.retained import Retained
from serverwamp.session import Session
from serverwamp.statistics import Counters

logger: logging.Logger = logging.getLogger(__name__)

MOST_UNSERVED = 100
"""For how many topics that no route serves there is a warning."""

Payload: TypeAlias = tuple[Sequence[Any], Mapping[str, Any]]


class Events:
    """The part of a realm that publishes, for the application and for clients."""

    handlers: Handlers
    broker: Broker
    backplane: Backplane
    counters: Counters
    has_authorizer: bool
    unserved: set[str]
    """Topics that the application has published to, and that nobody can subscribe to."""
    retained: Retained

    async def publish(
        self,
        topic: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        exclude: Iterable[Session | int] | Session | int = (),
        eligible: Iterable[Session | int] | Session | int | None = None,
        exclude_authid: Iterable[str] | str = (),
        eligible_authid: Iterable[str] | str | None = None,
        exclude_authrole: Iterable[str] | str = (),
        eligible_authrole: Iterable[str] | str | None = None,
        publisher: Session | None = None,
        exclude_me: bool = True,
        disclose_me: bool = False,
        retain: bool = False,
    ) -> int:
        """Send an event to every session of the realm that is subscribed to `topic`.

        `exclude` and `eligible` name sessions, or their ids, that don't, or that alone, receive
        it; `exclude_authid` and so on do so by their `auth_id` and `auth_role`. Who is to receive
        it has to be in everything that says who is eligible.

        With a `publisher` it is as if that session had published it: it doesn't receive the event
        itself unless `exclude_me` is false, and with `disclose_me` all others are told who it is.
        `retain` keeps the event for those who subscribe later.

        Events reach each subscriber in the order in which they were published; no peer is
        waited for. Returns the id of the publication.

        A topic that no topic route serves is logged once; a hundred topics are, at most. A
        subscriber whose format can't hold the arguments doesn't receive the event, which is logged
        once for its connection.

        Raises: ValueError when `topic` is not a valid URI, or one that belongs to the protocol;
            also when the format of no subscriber can hold the arguments.
        """
        if not uris.is_valid_uri(topic) or uris.is_reserved(topic):
            raise ValueError(f"{topic!r} is not a valid URI for a topic")
        if self.broker.lookup(topic, "exact") is None and not self.handlers.serves_topic(topic):
            self._note_unserved(topic)
        audience = None
        if (
            (exclude or exclude_authid or exclude_authrole)
            or eligible is not None
            or eligible_authid is not None
            or eligible_authrole is not None
        ):
            audience = Audience(
                exclude=_ids(exclude),
                eligible=None if eligible is None else _ids(eligible),
                exclude_authid=_texts(exclude_authid),
                eligible_authid=None if eligible_authid is None else _texts(eligible_authid),
                exclude_authrole=_texts(exclude_authrole),
                eligible_authrole=None if eligible_authrole is None else _texts(eligible_authrole),
            )
        publication = Publication(topic, checked_args(args), kwargs or {}, audience)
        if publisher is not None:
            publication = replace(
                publication,
                publisher=publisher.id,
                exclude_me=exclude_me,
                disclosed=disclosure(publisher) if disclose_me else {},
            )
        if retain:
            publication = replace(publication, retain=True)
        try:
            await self.backplane.publish(publication, self._deliver)
        except SerializationError as failure:
            raise ValueError(f"nobody can receive the event of {topic!r}: {failure}") from failure
        return publication.id

    def _note_unserved(self, topic: str) -> None:
        if topic not in self.unserved and len(self.unserved) < MOST_UNSERVED:
            self.unserved.add(topic)
            logger.warning("nobody can receive events of %r: no topic route serves it", topic)

    # ---- for clients

    async def publish_for(
        self,
        session: Session,
        publication: Publication,
        exact_payload: Callable[[], Payload] | None = None,
    ) -> None:
        """Publish what a client wants to be published, if and as the application lets it.

        `exact_payload` returns its arguments with numbers as they were written.

        Raises: InvalidURI; NotAuthorized; whatever the handler of publications raises;
            SerializationError when nobody can receive it.
        """
        handler = self.handlers.publication(publication.topic)
        handled = publication
        if handler is not None:
            handled = await _handled(handler, session, publication, exact_payload)
        try:
            await self.backplane.publish(handled, self._deliver)
        except SerializationError as failure:
            if handled is not publication:  # the client isn't to blame
                failure.answer = failure.answer_to_receiver
            raise

    # ---- to the subscribers

    def _deliver(self, publication: Publication) -> None:
        """Hand an event to its subscribers, and keep it if it is to be kept.

        Raises: SerializationError when none of them, and nothing that keeps it, can hold it.
        """
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
            if self.has_authorizer:
                receivers = [s for s in receivers if s.admits(topic, event)]
            self.counters.events += len(receivers)
            start_each(
                (subscriber.outbound, unit)
                for subscriber in receivers
                if (unit := event[subscriber.format]) is not None
                and subscriber.outbound.takes(unit, subscriber)
            )
            if event.failure is not None:
                losers += [s for s in receivers if event[s.format] is None]
        if losers:
            self._note_losses(topic, events, losers)
        if self.handlers.keeps_history or publication.retain:
            self._keep(publication)

    def _note_losses(
        self, topic: str, events: Sequence[EncodedOnce], losers: Sequence[Any]
    ) -> None:
        """Take note of the subscribers whose format can't hold an event.

        Raises: SerializationError when no subscriber's can.
        """
        self.counters.events -= len(losers)
        failure = next(event.failure for event in events if event.failure is not None)
        if all(unit is None for event in events for unit in event.values()):
            raise failure
        if [s for s in losers if s.outbound.is_first_loss()]:  # all of them are asked
            logger.warning(
                "an event of %r is lost for %d subscribers: %s", topic, len(losers), failure
            )

    def _keep(self, publication: Publication) -> None:
        """Keep an event for those who come later, in the moment in which it is delivered."""
        route = self.handlers.topic_route(publication.topic)
        if route is None:  # nobody can subscribe there
            return
        if route.log is not None:
            route.log.keep(publication)
        if publication.retain:
            self.retained.keep(publication)


async def _handled(
    handler: Handler,
    session: Session,
    publication: Publication,
    exact_payload: Callable[[], Payload] | None,
) -> Publication:
    """Return what becomes of a publication in the hands of the application.

    What was opened for the handler is closed by then, as it may be what the event tells of.

    Raises: what the handler raises; WAMPError if it returns an error.
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


def _ids(sessions: Iterable[Session | int] | Session | int) -> frozenset[int]:
    if isinstance(sessions, (Session, int)):
        sessions = (sessions,)
    return frozenset(item.id if isinstance(item, Session) else item for item in sessions)


def _texts(texts: Iterable[str] | str) -> frozenset[str]:
    return frozenset((texts,) if isinstance(texts, str) else texts)
