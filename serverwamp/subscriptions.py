"""The subscriptions of one session: each a task, which opens it, keeps it, and closes it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final

import anyio

from serverwamp.binding import Handler
from serverwamp.broker import Subscription
from serverwamp.conversation import Conversation
from serverwamp.errors import (
    NoSuchSubscription,
    OptionNotAllowed,
    RuntimeFailure,
    Unavailable,
    WAMPError,
)
from serverwamp.outbound import Outbound
from serverwamp.protocol.formats import Format
from serverwamp.protocol.ids import new_publication_id
from serverwamp.protocol.messages import (
    Event,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from serverwamp.protocol.serializers import EncodedOnce, Serializer
from serverwamp.starting import StartedTask, cancel_once, escaping

logger: logging.Logger = logging.getLogger(__name__)

SUBSCRIBE: Final = Subscribe.type_code
UNSUBSCRIBE: Final = Unsubscribe.type_code


class Subscriber:
    """A session's side of a subscription.

    It is *opening* until its handler has come to its ``yield``; what the handler sends before is
    held back until SUBSCRIBED has left.
    """

    def __init__(
        self,
        session_id: int,
        subscription: Subscription,
        outbound: Outbound,
        serializer: Serializer,
    ) -> None:
        self.session_id = session_id
        self.subscription = subscription
        self.requests: list[int] = []
        """The SUBSCRIBE requests that are still to be answered."""
        self.held: list[EncodedOnce] | None = []
        """Events to be sent after SUBSCRIBED; None once that has left."""
        self.unsubscribe: int | None = None
        """The UNSUBSCRIBE request that is still to be answered."""
        self.reopenings: list[Subscribe] = []
        """What came for the same topic while the subscription was closing."""
        self.closing: anyio.Event = anyio.Event()
        self.task: StartedTask | None = None
        self.outbound: Outbound = outbound
        self.format: Format = serializer.format

    @property
    def is_open(self) -> bool:
        return self.held is None and not self.closing.is_set()

    def receive(self, event: EncodedOnce) -> None:
        """Queue an event of the subscription."""
        unit = event[self.format]
        if unit is not None:
            self.outbound.offer(unit)


class Subscriptions:
    """The subscriptions of a session."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._session = conversation.session
        self._realm = conversation.realm
        self._send = conversation.send
        self._send_error = conversation.send_error
        self._outbound = conversation.outbound
        self._by_topic: dict[str, Subscriber] = {}
        self._by_id: dict[int, Subscriber] = {}
        self._closing: dict[str, Subscriber] = {}

    # ---- requests

    def subscribe(self, message: Subscribe) -> None:
        """Open a subscription, or answer with the one that the session has already."""
        if message.options.match not in (None, "exact"):
            error = OptionNotAllowed("only exact matching is offered to subscribers")
            self._send_error(SUBSCRIBE, message.request, error)
            return
        subscriber = self._by_topic.get(message.topic)
        if subscriber is not None:
            if subscriber.is_open:
                self._send(Subscribed(message.request, subscriber.subscription.id))
            elif self._has_room_beside(len(subscriber.requests), message):
                subscriber.requests.append(message.request)
            return
        if message.topic in self._closing:
            # Its UNSUBSCRIBED has to leave first: the new subscription may have the same id.
            reopenings = self._closing[message.topic].reopenings
            if self._has_room_beside(len(reopenings), message):
                reopenings.append(message)
            return
        try:
            handler = self._realm.topic_handler(message.topic)
        except WAMPError as error:
            self._send_error(SUBSCRIBE, message.request, error)
            return
        if not self._has_room_beside(len(self._by_topic) + len(self._closing), message):
            return
        subscription = self._realm.broker.hold(message.topic)
        subscriber = Subscriber(
            self._session.id, subscription, self._outbound, self._conversation.serializer
        )
        subscriber.requests.append(message.request)
        self._by_topic[message.topic] = subscriber
        subscriber.task = self._conversation.starter.start(self._run, subscriber, handler)

    def _has_room_beside(self, held: int, message: Subscribe) -> bool:
        if held < self._conversation.limits.subscriptions:
            return True
        text = "session %s has %s subscriptions"
        self._conversation.limit_log.note("subscriptions", text, self._session.id, held)
        error = Unavailable("the session has as many subscriptions as it may have")
        self._send_error(SUBSCRIBE, message.request, error)
        return False

    def unsubscribe(self, message: Unsubscribe) -> None:
        """End a subscription: no event follows, and UNSUBSCRIBED leaves when it is closed."""
        subscriber = self._by_id.get(message.subscription)
        if subscriber is None:
            error = NoSuchSubscription("the session has no such subscription")
            self._send_error(UNSUBSCRIBE, message.request, error)
            return
        subscriber.unsubscribe = message.request
        self._close(subscriber)

    def close_all(self) -> None:
        """End every subscription; those that aren't open yet are cancelled."""
        for subscriber in list(self._by_topic.values()):
            if subscriber.is_open:
                self._close(subscriber)
            elif subscriber.task is not None:
                cancel_once(subscriber.task)

    def _close(self, subscriber: Subscriber) -> None:
        self._realm.broker.leave(subscriber.subscription, subscriber)
        self._forget(subscriber)
        self._closing[subscriber.subscription.topic] = subscriber
        subscriber.closing.set()

    def _forget(self, subscriber: Subscriber) -> None:
        topic, id_ = subscriber.subscription.topic, subscriber.subscription.id
        if self._by_topic.get(topic) is subscriber:
            del self._by_topic[topic]
        if self._by_id.get(id_) is subscriber:
            del self._by_id[id_]

    # ---- one subscription

    async def _run(self, subscriber: Subscriber, handler: Handler) -> None:
        sources = {
            "topic": subscriber.subscription.topic,
            "topic_uri": subscriber.subscription.topic,
            "session": self._session.bound_to(subscriber),
            "subscription": subscriber.subscription,
        }
        try:
            async with handler.opened(sources):
                self._confirm(subscriber)
                await subscriber.closing.wait()
        except Exception as error:
            await self._fail(subscriber, error)
        except BaseException as error:
            escapes = escaping(error)
            if escapes is not None:
                raise escapes from None
            logger.critical("the handler of %r failed", sources["topic"], exc_info=error)
        finally:
            self._refuse(subscriber, RuntimeFailure("the handler failed"))
            self._realm.broker.leave(subscriber.subscription, subscriber)
            self._realm.broker.release(subscriber.subscription)
            self._forget(subscriber)
            self._closing.pop(subscriber.subscription.topic, None)
            if subscriber.unsubscribe is not None:
                self._send(Unsubscribed(subscriber.unsubscribe))
            if self._session.is_open:
                for message in subscriber.reopenings:
                    self.subscribe(message)

    def _confirm(self, subscriber: Subscriber) -> None:
        # No await in here: what is published meanwhile finds the session subscribed or not.
        for request in subscriber.requests:
            self._send(Subscribed(request, subscriber.subscription.id))
        subscriber.requests.clear()
        held, subscriber.held = subscriber.held or (), None
        self._by_id[subscriber.subscription.id] = subscriber
        self._realm.broker.join(subscriber.subscription, subscriber)
        if not self._session.is_open:  # it ended while the handler was opening
            self._close(subscriber)
            return
        for event in held:
            subscriber.receive(event)

    async def _fail(self, subscriber: Subscriber, error: Exception) -> None:
        doing = (
            f"the subscription of session {self._session.id} to {subscriber.subscription.topic!r}"
        )
        if subscriber.held is None:
            logger.error("%s failed while closing", doing, exc_info=error)
            return
        answer = await self._realm.error_for(error, doing, debug=self._conversation.debug)
        self._refuse(subscriber, answer)

    def _refuse(self, subscriber: Subscriber, error: WAMPError) -> None:
        """Answer what has no answer yet, and drop what was held for it."""
        self._forget(subscriber)
        subscriber.closing.set()
        subscriber.held = None
        for request in subscriber.requests:
            self._send_error(SUBSCRIBE, request, error)
        subscriber.requests.clear()

    # ---- events

    def send_event(
        self,
        topic: str | None,
        bound: Subscriber | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Awaitable[None]:
        """Queue an event for this session alone; awaiting what it returns waits for room."""
        if bound is not None and topic in (None, bound.subscription.topic):
            subscriber: Subscriber | None = bound
        else:
            subscriber = self._by_topic.get(topic or "")
            if subscriber is not None and subscriber.held is not None:
                subscriber = None  # only its own handler is heard while it opens
        if subscriber is None or subscriber.closing.is_set():
            logger.debug("session %s isn't subscribed to %r", self._session.id, topic)
            return self._outbound.room
        event = EncodedOnce(
            Event(subscriber.subscription.id, new_publication_id(), {}, args, kwargs),
            subscriber.subscription.topic,
        )
        if subscriber.held is not None:
            subscriber.held.append(event)
        else:
            subscriber.receive(event)
        return self._outbound.room
