"""What one session publishes: each publication takes effect before the next one is looked at."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Final

import anyio

from serverwamp.concurrency.contexts import in_own_context
from serverwamp.concurrency.tasks import StartedTask, cancel_once, split_to_reraise
from serverwamp.errors import SerializationError, Unavailable, WAMPError
from serverwamp.peer.conversation import Conversation
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Publish, Published, PublishOptions
from serverwamp.publication import Audience, Publication, disclosure
from serverwamp.session import Session

logger: logging.Logger = logging.getLogger(__name__)

PUBLISH: Final = Publish.type_code


class PublisherRole:
    """The publications of a session, in the order in which they came.

    Where nothing has to be waited for a publication has taken effect when `publish` returns.
    Otherwise what comes meanwhile is queued, and one task works it off.
    """

    __slots__ = (
        "_conversation",
        "_count",
        "_ended",
        "_ended_when_stuck",
        "_has_handlers",
        "_is_over",
        "_one_has_ended",
        "_task",
        "_waiting",
    )

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._has_handlers = conversation.router.endpoints.has_publication_handlers
        self._waiting: list[tuple[Publish, Unit]] = []
        self._count = 0  # of those that wait, and what is being published
        self._ended = 0
        self._ended_when_stuck = -1
        self._one_has_ended: anyio.Event | None = None
        self._task: StartedTask | None = None
        self._is_over = False

    # ---- requests

    def publish(self, message: Publish, unit: Unit) -> Awaitable[None] | None:
        """Publish when all that came before is; `unit` is what the message was decoded from.

        Returns None or, when too many publications wait, what waits and does that then; nothing
        may be read from the client before.
        """
        if self._count >= self._conversation.limits.publications_in_flight:
            return self._publish_later(message, unit)
        self._waiting.append((message, unit))
        self._count += 1
        if self._count == 1:
            self._task = self._conversation.starter.start(self._work_off)
            if self._is_over:  # it has closed the session
                self.cancel_all()
        return None

    async def _publish_later(self, message: Publish, unit: Unit) -> None:
        """Publish as soon as there is room in the queue; refuse to if that takes too long.

        After that nothing waits until another publication is through: the end of the connection
        can only be found by reading.
        """
        conversation, count = self._conversation, self._count
        note, timeout = conversation.limit_log.record, conversation.limits.busy_timeout
        most = conversation.limits.publications_in_flight
        if self._ended != self._ended_when_stuck:
            text = "%s publications of session %s wait"
            note("publications_in_flight", text, count, conversation.session.id)
            with anyio.move_on_after(timeout):
                while self._count >= most and not self._is_over:
                    await self._wait_for_end()
        if self._is_over:
            return
        if self._count < most:
            self.publish(message, unit)
            return
        self._ended_when_stuck = self._ended
        text = "none of %s publications of session %s is through in %s seconds: more are refused"
        note("busy_timeout", text, count, conversation.session.id, timeout)
        self._refuse(message, Unavailable("the session has as many publications as may wait"))

    def cancel_all(self) -> None:
        """Drop what waits, and cancel what is being published."""
        self._is_over = True
        self._waiting.clear()
        if self._task is not None:
            cancel_once(self._task)
        self._notify_of_end()

    @property
    def are_waiting(self) -> bool:
        """Whether there are any that haven't taken effect yet."""
        return self._count > 0 and not self._is_over

    async def wait_idle(self) -> None:
        """Return when all have taken effect."""
        while self.are_waiting:
            await self._wait_for_end()

    async def _wait_for_end(self) -> None:
        if self._one_has_ended is None:
            self._one_has_ended = anyio.Event()
        await self._one_has_ended.wait()

    def _notify_of_end(self) -> None:
        if self._one_has_ended is not None:
            self._one_has_ended.set()
            self._one_has_ended = None

    # ---- one after the other

    async def _work_off(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            for message, unit in batch:
                if self._is_over:
                    return
                if self._has_handlers:
                    await in_own_context(self._publish(message, unit))
                else:
                    await self._publish(message, unit)
                self._ended += 1
                self._count -= 1
                self._notify_of_end()

    async def _publish(self, message: Publish, unit: Unit) -> None:
        conversation = self._conversation
        router, session = conversation.router, conversation.session
        try:
            publication = publication_of(message, session)
            exact_payload = conversation.serializer.format.exact_payload
            await router.publishing.publish_for(
                session, publication, lambda: exact_payload(unit, message)
            )
            if message.options.acknowledge:
                conversation.answer(Published(message.request, publication.id))
        except SerializationError as failure:
            if conversation.limit_log.is_first("a publication that nobody can receive"):
                text = "a publication of session %s to %r is refused: %s"
                logger.warning(text, session.id, message.topic, failure)
            self._refuse(message, failure.answer("nobody can receive the event"))
        except BaseException as error:
            escapes, rest = split_to_reraise(error)
            if rest is not None:
                doing = f"the publication of session {session.id} to {message.topic!r}"
                answer = await conversation.error_for(rest, doing)
                self._refuse(message, answer)
            if escapes is not None:
                raise escapes from None

    def _refuse(self, message: Publish, error: WAMPError) -> None:
        if message.options.acknowledge:  # without, there is no answer at all
            self._conversation.send_error(PUBLISH, message.request, error)


def publication_of(message: Publish, publisher: Session) -> Publication:
    """Return what a client asks to be published."""
    options = message.options
    return Publication(
        message.topic,
        message.args or (),
        message.kwargs or {},
        _audience(options),
        publisher=publisher.id,
        exclude_me=options.exclude_me is not False,
        disclosed=disclosure(publisher) if options.disclose_me else {},
        retain=options.retain is True,
    )


def _audience(options: PublishOptions) -> Audience | None:
    names = Audience.__struct_fields__
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    # In sets, because each of many subscribers is looked up in them.
    return Audience(**{name: frozenset(value) for name, value in given.items()}) if given else None
