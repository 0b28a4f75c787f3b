"""The subscriptions of one session: each a task, which opens it, keeps it, and closes it.

One module, though a long one: what opens a subscription, and what is sent to it, share its state.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel

from serverwamp import uris
from serverwamp.binding.handler import Handler
from serverwamp.concurrency.contexts import in_own_context
from serverwamp.concurrency.failures import handle_failure, raise_unless_failure
from serverwamp.concurrency.tasks import StartedTask, cancel_once
from serverwamp.errors import (
    NoSuchSubscription,
    RuntimeFailure,
    Unavailable,
    WAMPError,
)
from serverwamp.outbound.backlog import OverflowPolicy
from serverwamp.outbound.sender import Outbound
from serverwamp.peer.conversation import Conversation
from serverwamp.peer.event_authorization import EventAuthorization
from serverwamp.protocol.formats import Format, Unit
from serverwamp.protocol.ids import new_publication_id
from serverwamp.protocol.messages import (
    Event,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from serverwamp.protocol.serializers import ALL_FORMATS, EncodedOnce
from serverwamp.router.broker import Subscription
from serverwamp.session import Session
from serverwamp.statistics import Counters

logger: logging.Logger = logging.getLogger(__name__)

SUBSCRIBE: Final = Subscribe.type_code
UNSUBSCRIBE: Final = Unsubscribe.type_code
NOT_FOLLOWED: Final = nullcontext()


class Subscriber:
    """A session's side of a subscription.

    It is *opening* until its handler has come to its ``yield``; what the handler sends before is
    held back until SUBSCRIBED has left.
    """

    def __init__(
        self, session: SubscriberRole, subscription: Subscription, overflow: OverflowPolicy
    ) -> None:
        self.session: Session = session.session
        self.subscription = subscription
        self.overflow: OverflowPolicy = overflow
        self.requests: list[int] = []
        """The SUBSCRIBE requests that are still to be answered."""
        self.wants_retained: bool = False
        """Whether any of them asks for the last event that there was."""
        self.held: deque[Unit] | None = deque()
        """Events to be sent after SUBSCRIBED; None once that has left."""
        self.unsubscribe: int | None = None
        """The UNSUBSCRIBE request that is still to be answered."""
        self.reopenings: list[Subscribe] = []
        """What came for the same topic while the subscription was closing."""
        self.closing: anyio.Event = anyio.Event()
        self.task: StartedTask | None = None
        self.outbound: Outbound = session.outbound
        self.format: Format = session.format
        self._subscriptions = session
        self._counters = session.counters

    def is_allowed(self, topic: str, event: Mapping[Format, Unit | None]) -> bool:
        """Tell whether an event is to be queued now: it may have to wait, or be none of theirs."""
        questioned = self._subscriptions.questioned
        return questioned is None or questioned.is_allowed(self, topic, event)

    @property
    def is_open(self) -> bool:
        return self.held is None and not self.closing.is_set()

    def receive(self, unit: Unit) -> None:
        """Queue an event of the subscription."""
        self.outbound.offer(unit, self)

    # ---- what becomes of its events

    def note_overflow(self, limit: str) -> None:
        self._subscriptions.note_overflow(self, limit)

    def note_refused(self) -> None:
        self._counters.events -= 1
        self._counters.events_refused[self.overflow] += 1

    def note_lost(self) -> None:
        self._counters.events -= 1


class SubscriberRole:
    """The subscriptions of a session."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self.session: Session = conversation.session
        self._router = conversation.router
        self._answer = conversation.answer
        self._send_error = conversation.send_error
        self._held_messages = 0
        self._held_bytes = 0
        self.outbound: Outbound = conversation.outbound
        self.format: Format = conversation.serializer.format
        self.counters: Counters = conversation.router.counters
        self._subscribers: dict[int, Subscriber] = {}  # by the id; those that open, or are open
        self._closing: dict[int, Subscriber] = {}
        authorization = conversation.router.authorization
        self.questioned: EventAuthorization | None = None
        """The events that wait for the realm's authorizer, where there is one."""
        if authorization is not None and authorization.authorizer is not None:
            self.questioned = EventAuthorization(conversation, authorization.authorizer)

    # ---- requests

    def subscribe(self, message: Subscribe) -> None:
        """Open a subscription, or answer with the one that the session has already."""
        topic, match = message.topic, message.options.match or "exact"
        known = self._router.broker.lookup(topic, match)
        id_ = 0 if known is None else known.id
        subscriber = self._subscribers.get(id_)
        if subscriber is not None:
            if subscriber.is_open:
                self._answer(Subscribed(message.request, subscriber.subscription.id))
                if message.options.get_retained:
                    self._send_retained(subscriber)
            elif self._has_room_beside(len(subscriber.requests), message):
                subscriber.requests.append(message.request)
                subscriber.wants_retained |= message.options.get_retained is True
            return
        closing = self._closing.get(id_)
        if closing is not None:
            # Its UNSUBSCRIBED has to leave first: the new subscription may have the same id.
            if self._has_room_beside(len(closing.reopenings), message):
                closing.reopenings.append(message)
            return
        try:
            endpoint = self._router.endpoints.topic(topic, match)
        except WAMPError as error:
            self._send_error(SUBSCRIBE, message.request, error)
            return
        if not self._has_room_beside(len(self._subscribers) + len(self._closing), message):
            return
        subscription = self._router.broker.hold(topic, match, endpoint)
        subscriber = Subscriber(self, subscription, endpoint.overflow)
        subscriber.requests.append(message.request)
        subscriber.wants_retained = message.options.get_retained is True
        self._subscribers[subscription.id] = subscriber
        subscriber.task = self._conversation.starter.start(self._run, subscriber, endpoint.handler)

    def _has_room_beside(self, held: int, message: Subscribe) -> bool:
        if held < self._conversation.limits.subscriptions:
            return True
        text = "session %s has %s subscriptions"
        self._conversation.limit_log.record("subscriptions", text, self.session.id, held)
        error = Unavailable("the session has as many subscriptions as it may have")
        self._send_error(SUBSCRIBE, message.request, error)
        return False

    def unsubscribe(self, message: Unsubscribe) -> None:
        """End a subscription: no event follows, and UNSUBSCRIBED leaves when it is closed."""
        subscriber = self._subscribers.get(message.subscription)
        if subscriber is None or not subscriber.is_open:
            error = NoSuchSubscription("the session has no such subscription")
            self._send_error(UNSUBSCRIBE, message.request, error)
            return
        subscriber.unsubscribe = message.request
        self._close(subscriber)

    def has(self, subscription: int) -> bool:
        """Tell whether the session has the subscription of that id, and it is open."""
        subscriber = self._subscribers.get(subscription)
        return subscriber is not None and subscriber.is_open

    def close_all(self) -> None:
        """End every subscription; those that aren't open yet are cancelled."""
        if self.questioned is not None:
            self.questioned.close()
        for subscriber in list(self._subscribers.values()):
            if subscriber.is_open:
                self._close(subscriber)
            elif subscriber.task is not None:
                cancel_once(subscriber.task)

    def _leave(self, subscriber: Subscriber) -> None:
        """Let it receive no more events."""
        router, subscription = self._router, subscriber.subscription
        if router.broker.leave(subscription, subscriber) and router.meta.subscriptions is not None:
            router.meta.subscriptions.note_left(self.session, subscription)

    def _close(self, subscriber: Subscriber) -> None:
        self._leave(subscriber)
        self._forget(subscriber)
        self._closing[subscriber.subscription.id] = subscriber
        subscriber.closing.set()

    def _forget(self, subscriber: Subscriber) -> None:
        id_ = subscriber.subscription.id
        if self._subscribers.get(id_) is subscriber:
            del self._subscribers[id_]

    # ---- one subscription

    async def _run(self, subscriber: Subscriber, handler: Handler) -> None:
        subscription = subscriber.subscription
        sources = {
            "topic": subscription.topic,
            "topic_uri": subscription.topic,
            "match": subscription.match,
            "session": self.session.bound_to(subscriber),
            "subscription": subscription,
        }
        try:
            async with handler.opened(sources), self._followed(subscription):
                self._confirm(subscriber)
                await subscriber.closing.wait()
        except BaseException as error:
            await handle_failure(error, partial(self._fail, subscriber))
        finally:
            self._refuse(subscriber, RuntimeFailure("the handler failed"))
            self._leave(subscriber)
            self._router.broker.release(subscription)
            self._forget(subscriber)
            self._closing.pop(subscription.id, None)
            if subscriber.unsubscribe is not None:
                self._answer(Unsubscribed(subscriber.unsubscribe))
            if self.session.is_open:
                for message in subscriber.reopenings:
                    self.subscribe(message)

    def _followed(self, subscription: Subscription) -> AbstractAsyncContextManager[None]:
        """Return what sees to it that other processes' events arrive, if there are others."""
        publishing = self._router.publishing
        if not publishing.backplane.is_shared:
            return NOT_FOLLOWED
        return publishing.followed(subscription.topic, subscription.match)

    def _confirm(self, subscriber: Subscriber) -> None:
        # No await in here: what is published meanwhile finds the session subscribed or not.
        for request in subscriber.requests:
            self._answer(Subscribed(request, subscriber.subscription.id))
        subscriber.requests.clear()
        held = self._take_held(subscriber)
        if not self.session.is_open:  # it ended while the handler was opening
            self._close(subscriber)
            self.counters.events -= len(held)
            return
        self._router.broker.join(subscriber.subscription, subscriber)
        if self._router.meta.subscriptions is not None:
            self._router.meta.subscriptions.note_joined(self.session, subscriber.subscription)
        if subscriber.wants_retained:
            self._send_retained(subscriber)
        for unit in held:
            subscriber.receive(unit)

    async def _fail(self, subscriber: Subscriber, error: BaseException) -> None:
        doing = (
            f"the subscription of session {self.session.id} to {subscriber.subscription.topic!r}"
        )
        if subscriber.held is None:
            if self._conversation.limit_log.wants(doing, error):
                logger.error("%s failed while closing", doing, exc_info=error)
            return
        answer = await self._conversation.error_for(error, doing)
        self._refuse(subscriber, answer)

    def _refuse(self, subscriber: Subscriber, error: WAMPError) -> None:
        """Answer what has no answer yet, and drop what was held for it."""
        self._forget(subscriber)
        subscriber.closing.set()
        self.counters.events -= len(self._take_held(subscriber))
        for request in subscriber.requests:
            self._send_error(SUBSCRIBE, request, error)
        subscriber.requests.clear()

    # ---- clients that are too slow

    def note_overflow(self, subscriber: Subscriber, limit: str) -> None:
        """Log that an event finds no room, and tell the application."""
        if self._conversation.limit_log.is_first(f"overflow of {limit}"):
            logger.warning(
                "Limits.%s: session %s doesn't keep up with %r: %s",
                limit,
                self.session.id,
                subscriber.subscription.topic,
                subscriber.overflow,
            )
        if self._router.overflow_handlers:
            self._conversation.starter.start(self._tell_of_overflow, subscriber)

    async def _tell_of_overflow(self, subscriber: Subscriber) -> None:
        sources = {
            "session": self.session,
            "topic": subscriber.subscription.topic,
            "policy": subscriber.overflow,
        }
        # Whoever publishes is to be finished first: what a handler publishes comes after that.
        await anyio.lowlevel.cancel_shielded_checkpoint()
        for handler in self._router.overflow_handlers:
            try:
                await in_own_context(handler.call(sources))
            except BaseException as error:
                raise_unless_failure(error)
                logger.exception("an overflow handler failed for session %s", self.session.id)

    # ---- events

    def send_event(
        self,
        topic: str | None,
        bound: Subscriber | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Awaitable[None]:
        """Queue an event for this session alone; awaiting what it returns waits for room."""
        if topic is None:
            assert bound is not None
            subscribers = [bound]
            topic = bound.subscription.topic
        else:  # of those that are opening, only their own handlers are heard
            ids = [subscription.id for subscription in self._router.broker.matching(topic)]
            matching = [self._subscribers[id_] for id_ in ids if id_ in self._subscribers]
            subscribers = [s for s in matching if s is bound or s.held is None]
        publication = new_publication_id()
        for subscriber in subscribers:
            self._send_event(subscriber, publication, topic, args, kwargs)
        if not subscribers:
            logger.debug("session %s isn't subscribed to %r", self.session.id, topic)
        return self.outbound.room_for_events

    def _send_event(
        self,
        subscriber: Subscriber,
        publication: int,
        topic: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        if subscriber.closing.is_set():
            logger.debug("session %s isn't subscribed to %r any more", self.session.id, topic)
            return
        subscription = subscriber.subscription
        is_pattern = subscription.match != "exact"
        details = {"topic": topic} if is_pattern and uris.is_valid_uri(topic) else {}
        event = EncodedOnce(Event(subscription.id, publication, details, args, kwargs))
        unit = event[self.format]
        if unit is None:
            self._lose(event, topic)
            return
        self.counters.events += 1
        if subscriber.held is not None:
            self._hold(subscriber, subscriber.held, unit)
        elif self.questioned is None or not self.questioned.precede(subscriber, unit):
            subscriber.receive(unit)

    def _send_retained(self, subscriber: Subscriber) -> None:
        """Queue the last event of the topic that is for this session; patterns have none."""
        subscription = subscriber.subscription
        if subscription.match != "exact":
            return
        last = self._router.retained.newest_for(self.session, subscription.topic)
        if last is None:
            return
        publication, (args, kwargs) = last.publication, last.payload()
        details = {"retained": True, **publication.disclosed}
        event = Event(subscription.id, publication.id, details, args, kwargs)
        unit = EncodedOnce(event)[self.format]
        if unit is not None:
            self.counters.events += 1
            subscriber.receive(unit)

    def _lose(self, event: EncodedOnce, topic: str) -> None:
        """Take note of an event that the client's format can't hold.

        Raises: ValueError when no other format can hold it either.
        """
        if all(event[format_] is None for format_ in ALL_FORMATS):
            text = f"nobody can receive the event of {topic!r}: {event.failure}"
            raise ValueError(text) from event.failure
        if self.outbound.is_first_loss():
            text = "an event of %r is lost for session %s: %s"
            logger.warning(text, topic, self.session.id, event.failure)

    def _hold(self, subscriber: Subscriber, held: deque[Unit], unit: Unit) -> None:
        """Keep an event until SUBSCRIBED has left; there is room for it as if it were queued."""
        limit = self._limit_with_held()
        if limit is not None:
            self.outbound.overflow(limit, subscriber)
        if subscriber.overflow == "latest" and self.outbound.backlog.overflow is not None:
            while held:
                self._drop_oldest(subscriber, held)
        elif limit is not None:
            if subscriber.overflow != "drop_oldest" or not held:
                subscriber.note_refused()
                return
            while held and self._limit_with_held() is not None:
                self._drop_oldest(subscriber, held)
        held.append(unit)
        self._held_messages += 1
        self._held_bytes += len(unit)

    def _drop_oldest(self, subscriber: Subscriber, held: deque[Unit]) -> None:
        self._held_messages -= 1
        self._held_bytes -= len(held.popleft())
        subscriber.note_refused()

    def _limit_with_held(self) -> str | None:
        return self.outbound.backlog.exceeded_limit(self._held_messages, self._held_bytes)

    def _take_held(self, subscriber: Subscriber) -> Collection[Unit]:
        """Return what is held back, which it is no longer."""
        held, subscriber.held = subscriber.held or (), None
        self._held_messages -= len(held)
        self._held_bytes -= sum(map(len, held))
        return held
