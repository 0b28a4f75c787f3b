"""The publications of one client. Each of them is completed before the next one begins.

Spec: Basic Profile, "Publish and Subscribe".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from functools import partial
from typing import Final

from serverwamp.concurrency.contexts import in_own_context
from serverwamp.concurrency.failures import handle_failure
from serverwamp.concurrency.tasks import StartedTask, cancel_once
from serverwamp.errors import SerializationError, Unavailable, WAMPError
from serverwamp.peer.conversation import Conversation
from serverwamp.peer.in_flight import InFlight
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Publish, Published, PublishOptions
from serverwamp.publication import Audience, Publication, disclosure
from serverwamp.session import Session

logger: logging.Logger = logging.getLogger(__name__)

PUBLISH: Final = Publish.type_code


class PublisherRole:
    """The client as a publisher.

    A task completes the queued publications in order. On Python 3.12 and newer with asyncio, a
    publication that waits for nothing is complete when `publish` returns.
    """

    __slots__ = (
        "_conversation",
        "_has_handlers",
        "_in_flight",
        "_publishing",
        "_session",
        "_task",
        "_waiting",
    )

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._session = conversation.session
        self._publishing = conversation.router.publishing
        self._has_handlers = conversation.router.endpoints.has_publication_handlers
        self._waiting: list[tuple[Publish, Unit]] = []
        self._in_flight = InFlight(conversation, "publications_in_flight", "publications in flight")
        self._task: StartedTask | None = None

    # ---- requests

    def publish(self, message: Publish, unit: Unit) -> Awaitable[None] | None:
        """Publish after all earlier publications; `unit` is the encoded message.

        Returns None, or an awaitable if too many publications wait. The reader has to await it
        before it reads the next message.
        """
        if self._in_flight.is_full:
            return self._publish_later(message, unit)
        self._waiting.append((message, unit))
        self._in_flight.begin()
        if self._in_flight.count == 1:
            self._task = self._conversation.starter.start(self._work_off)
            if self._in_flight.is_closed:  # the publication has closed the session meanwhile
                self.cancel_all()
        return None

    async def _publish_later(self, message: Publish, unit: Unit) -> None:
        """Publish when another publication is complete; refuse to if that takes too long."""
        try:
            await self._in_flight.wait_for_room()
        except Unavailable as error:
            self._refuse(message, error)
        else:
            if not self._in_flight.is_closed:
                self.publish(message, unit)

    def cancel_all(self) -> None:
        """Drop the queued publications, and cancel the current one."""
        self._waiting.clear()
        if self._task is not None:
            cancel_once(self._task)
        self._in_flight.close()

    @property
    def are_waiting(self) -> bool:
        """Whether any publication isn't complete yet."""
        return self._in_flight.count > 0 and not self._in_flight.is_closed

    async def wait_idle(self) -> None:
        """Return when all publications are complete, or the session has ended."""
        await self._in_flight.wait_idle()

    # ---- one publication after the other

    async def _work_off(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            for message, unit in batch:
                if self._in_flight.is_closed:
                    return
                if self._has_handlers:
                    await in_own_context(self._publish(message, unit))
                else:
                    await self._publish(message, unit)
                self._in_flight.end()

    async def _publish(self, message: Publish, unit: Unit) -> None:
        conversation, session = self._conversation, self._session
        try:
            publication = publication_of(message, session)
            exact_payload = conversation.serializer.format.exact_payload
            await self._publishing.publish_for(
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
            await handle_failure(error, partial(self._fail, message))

    async def _fail(self, message: Publish, error: BaseException) -> None:
        doing = f"the publication of session {self._session.id} to {message.topic!r}"
        self._refuse(message, await self._conversation.error_for(error, doing))

    def _refuse(self, message: Publish, error: WAMPError) -> None:
        if message.options.acknowledge:  # other publications get no answer, not even an ERROR
            self._conversation.send_error(PUBLISH, message.request, error)


def publication_of(message: Publish, publisher: Session) -> Publication:
    """Return the publication that a client's PUBLISH asks for."""
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
    # As sets, because every subscriber is looked up in them.
    return Audience(**{name: frozenset(value) for name, value in given.items()}) if given else None
