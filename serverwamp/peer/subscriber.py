"""The subscriptions of one client. Each of them is a task that runs the topic's handler.

One module despite its length: opening a subscription and sending its events share its state.

Spec: Basic Profile, "Publish and Subscribe".
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
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
from serverwamp.history import StoredEvent
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
    """A session's side of a subscription: an `EventReceiver`.

    It is *opening* until its handler reaches its ``yield``. Events that the handler sends before
    that are held until SUBSCRIBED has been queued.
    """

    def __init__(
        self, role: SubscriberRole, subscription: Subscription, overflow: OverflowPolicy
    ) -> None:
        self.session: Session = role.session
        self.subscription = subscription
        self.overflow: OverflowPolicy = overflow
        self.requests: list[int] = []
        """The SUBSCRIBE requests without an answer."""
        self.wants_retained: bool = False
        """Whether any of these requests asks for the retained event."""
        self.held: deque[Unit] | None = deque()
        """Events to be sent after SUBSCRIBED; None once SUBSCRIBED has been queued."""
        self.unsubscribe: int | None = None
        """The UNSUBSCRIBE request without an answer."""
        self.reopenings: list[Subscribe] = []
        """SUBSCRIBE messages for the same topic that arrived while the subscription was closing."""
        self.closing: anyio.Event = anyio.Event()
        """Set when the subscription has to close."""
        self.task: StartedTask | None = None
        self.outbound: Outbound = role.outbound
        self.format: Format = role.format
        self._role = role
        self._counters = role.counters

    @property
    def is_open(self) -> bool:
        """Whether SUBSCRIBED has been queued and the subscription isn't closing."""
        return self.held is None and not self.closing.is_set()

    def is_allowed(self, topic: str, event: Mapping[Format, Unit | None]) -> bool:
        """Tell whether an event may be queued now.

        If not, it is refused, or it waits until its topic is authorized.
        """
        authorization = self._role.event_authorization
        return authorization is None or authorization.is_allowed(self, topic, event)

    def receive(self, unit: Unit) -> None:
        """Queue an event of the subscription."""
        self.outbound.offer(unit, self)

    def note_overflow(self, limit: str) -> None:
        """Log that the client is too slow, and call the overflow handlers."""
        self._role.note_overflow(self, limit)

    def note_refused(self) -> None:
        """Count an event that the overflow policy has dropped."""
        self.note_lost()
        self._counters.events_refused[self.overflow] += 1

    def note_lost(self) -> None:
        """Take back the count of an event that isn't going to be sent."""
        self._counters.events -= 1


class SubscriberRole:
    """The client as a subscriber."""

    def __init__(self, conversation: Conversation) -> None:
        router = conversation.router
        self._conversation = conversation
        self.session: Session = conversation.session
        self._router = router
        self._answer = conversation.answer
        self._send_error = conversation.send_error
        self._held_messages = 0
        self._held_bytes = 0
        self.outbound: Outbound = conversation.outbound
        self.format: Format = conversation.serializer.format
        self.counters: Counters = router.counters
        # By the ids of their subscriptions:
        self._subscribers: dict[int, Subscriber] = {}  # opening or open
        self._closing: dict[int, Subscriber] = {}
        authorization = router.authorization
        self.event_authorization: EventAuthorization | None = None
        """Authorizes single events of patterns, if the realm has an authorizer."""
        if authorization is not None and authorization.authorizer is not None:
            self.event_authorization = EventAuthorization(conversation, authorization.authorizer)

    # ---- requests

    def subscribe(self, message: Subscribe) -> None:
        """Open a subscription, or answer with the one that the session already has.

        If that one is still opening, the request is answered together with it.
        """
        topic, match = message.topic, message.options.match or "exact"
        known = self._router.broker.lookup(topic, match)
        id_ = 0 if known is None else known.id
        subscriber = self._subscribers.get(id_)
        if subscriber is not None:
            if subscriber.is_open:
                self._answer(Subscribed(message.request, subscriber.subscription.id))
                if message.options.get_retained:
                    self._ask_retained(subscriber)
            elif self._has_room_beside(len(subscriber.requests), message):
                subscriber.requests.append(message.request)
                subscriber.wants_retained |= message.options.get_retained is True
            return
        closing = self._closing.get(id_)
        if closing is not None:
            # UNSUBSCRIBED has to leave first, because the new subscription may have the same id.
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
        error = Unavailable("the session has the maximum number of subscriptions")
        self._send_error(SUBSCRIBE, message.request, error)
        return False

    def unsubscribe(self, message: Unsubscribe) -> None:
        """End a subscription at once; UNSUBSCRIBED is sent when its handler has ended."""
        subscriber = self._subscribers.get(message.subscription)
        if subscriber is None or not subscriber.is_open:
            error = NoSuchSubscription("the session has no such subscription")
            self._send_error(UNSUBSCRIBE, message.request, error)
            return
        subscriber.unsubscribe = message.request
        self._close(subscriber)

    def has(self, subscription: int) -> bool:
        """Tell whether the session has an open subscription with that id."""
        subscriber = self._subscribers.get(subscription)
        return subscriber is not None and subscriber.is_open

    def close_all(self) -> None:
        """End all subscriptions; those that are still opening are cancelled."""
        if self.event_authorization is not None:
            self.event_authorization.close()
        for subscriber in list(self._subscribers.values()):
            if subscriber.is_open:
                self._close(subscriber)
            elif subscriber.task is not None:
                cancel_once(subscriber.task)

    def _leave(self, subscriber: Subscriber) -> None:
        """Stop the events of a subscription."""
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
                opening = self._open(subscriber)
                if opening is not None:
                    await opening
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
        """Return a context in which the events of other processes arrive, if there are others."""
        publishing = self._router.publishing
        if not publishing.backplane.is_shared:
            return NOT_FOLLOWED
        return publishing.followed(subscription.topic, subscription.match)

    def _open(self, subscriber: Subscriber) -> Awaitable[None] | None:
        """Confirm a subscription; return None or, if retained events are elsewhere, what does."""
        if not subscriber.wants_retained:
            self._confirm(subscriber)
            return None
        return self._with_retained(subscriber.subscription, partial(self._confirm, subscriber))

    def _with_retained(
        self, subscription: Subscription, then: Callable[[Sequence[StoredEvent]], None]
    ) -> Awaitable[None] | None:
        """Call `then` with the retained events of a topic; return None or what does so."""
        if subscription.match != "exact":  # patterns have none
            then(())
            return None
        publishing = self._router.publishing
        return publishing.backplane.retained(publishing, subscription.topic, then)

    def _confirm(self, subscriber: Subscriber, retained: Sequence[StoredEvent] = ()) -> None:
        """Answer the SUBSCRIBE requests, and receive events from now on.

        There is no await in here, so no event can precede SUBSCRIBED or get lost in between.
        """
        for request in subscriber.requests:
            self._answer(Subscribed(request, subscriber.subscription.id))
        subscriber.requests.clear()
        held = self._take_held(subscriber)
        if not self.session.is_open:  # it ended while the handler was opening
            self._close(subscriber)
            for _ in held:
                subscriber.note_lost()
            return
        self._router.broker.join(subscriber.subscription, subscriber)
        if self._router.meta.subscriptions is not None:
            self._router.meta.subscriptions.note_joined(self.session, subscriber.subscription)
        self._send_retained(subscriber, retained)
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
        """Answer its remaining requests with an error, and drop the events that it holds."""
        self._forget(subscriber)
        subscriber.closing.set()
        for _ in self._take_held(subscriber):
            subscriber.note_lost()
        for request in subscriber.requests:
            self._send_error(SUBSCRIBE, request, error)
        subscriber.requests.clear()

    # ---- slow clients

    def note_overflow(self, subscriber: Subscriber, limit: str) -> None:
        """Log that there is no room for an event, and call the overflow handlers."""
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
        # Let the current publication finish first. What the handlers publish comes after it.
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
        """Queue an event for this session only; see `Session.send_event`.

        Without `topic`, the event goes to `bound`, the subscription whose handler sends it.

        Returns the capacity for events: await it to wait for room.
        """
        if topic is None:
            assert bound is not None
            subscribers = [bound]
            topic = bound.subscription.topic
        else:  # only its own handler can send events to an opening subscription
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
        unit = self._counted(event)
        if unit is None:
            self._lose(event, topic)
            return
        if subscriber.held is not None:
            self._hold(subscriber, subscriber.held, unit)
        elif self.event_authorization is None or not self.event_authorization.precede(
            subscriber, unit
        ):
            subscriber.receive(unit)

    def _ask_retained(self, subscriber: Subscriber) -> None:
        """Queue the last event of the topic of a subscription that is open already."""

        def send(events: Sequence[StoredEvent]) -> None:
            if subscriber.is_open:
                self._send_retained(subscriber, events)

        asking = self._with_retained(subscriber.subscription, send)
        if asking is not None:
            self._conversation.starter.start(self._await_retained, asking)

    async def _await_retained(self, asking: Awaitable[None]) -> None:
        try:
            await asking
        except BaseException as error:  # the subscription itself is confirmed
            raise_unless_failure(error)
            if self._conversation.limit_log.is_first("a retained event that doesn't arrive"):
                text = "session %s doesn't get a retained event: %r"
                logger.warning(text, self.session.id, error)

    def _send_retained(self, subscriber: Subscriber, events: Sequence[StoredEvent]) -> None:
        """Queue the newest of these retained events that this session may receive."""
        last = next((item for item in events if item.publication.is_for(self.session)), None)
        if last is None:
            return
        publication, (args, kwargs) = last.publication, last.payload()
        details = {"retained": True, **publication.disclosed}
        event = Event(subscriber.subscription.id, publication.id, details, args, kwargs)
        unit = self._counted(EncodedOnce(event))
        if unit is not None:
            subscriber.receive(unit)

    def _counted(self, event: EncodedOnce) -> Unit | None:
        """Count an event and return it encoded; None if the client's format can't express it."""
        unit = event[self.format]
        if unit is not None:
            self.counters.events += 1
        return unit

    def _lose(self, event: EncodedOnce, topic: str) -> None:
        """Log that an event is lost because the client's format can't express it.

        Raises: ValueError when no other format can express it either.
        """
        if all(event[format_] is None for format_ in ALL_FORMATS):
            text = f"nobody can receive the event of {topic!r}: {event.failure}"
            raise ValueError(text) from event.failure
        if self.outbound.is_first_loss():
            text = "an event of %r is lost for session %s: %s"
            logger.warning(text, topic, self.session.id, event.failure)

    def _hold(self, subscriber: Subscriber, held: deque[Unit], unit: Unit) -> None:
        """Hold an event until SUBSCRIBED is queued.

        Held events count for the limits of the backlog, and the overflow policy applies to them.
        """
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
        """Return the held events, and hold no more from now on."""
        held, subscriber.held = subscriber.held or (), None
        self._held_messages -= len(held)
        self._held_bytes -= sum(map(len, held))
        return held
