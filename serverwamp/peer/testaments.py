"""Testaments: the publications that a client leaves for the end of its session.

Spec: Advanced Profile, "Session Testament".
"""

from __future__ import annotations

import logging
from typing import Final

import anyio

from serverwamp.auth.authorization import question_about
from serverwamp.concurrency.contexts import in_own_context
from serverwamp.concurrency.failures import raise_unless_failure
from serverwamp.errors import SerializationError, Unavailable, WAMPError, parts_of, without
from serverwamp.peer.conversation import Conversation
from serverwamp.peer.publisher import publication_of
from serverwamp.protocol.messages import Publish

logger: logging.Logger = logging.getLogger(__name__)

SCOPES: Final = ("detached", "destroyed")
"""The scopes, in the order in which their testaments are published. Both end with the session,
because no session can be resumed."""


class Testaments:
    """The testaments of one session, in the order in which they were added."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._messages: dict[str, list[Publish]] = {scope: [] for scope in SCOPES}

    def add(self, message: Publish, scope: str) -> None:
        """Add a PUBLISH message, to be published at the end of `scope`.

        Raises: Unavailable when the session has the maximum number of testaments.
        """
        count = sum(map(len, self._messages.values()))
        if count >= self._conversation.limits.testaments:
            text = "session %s has %s testaments"
            session_id = self._conversation.session.id
            self._conversation.limit_log.record("testaments", text, session_id, count)
            raise Unavailable("the session has the maximum number of testaments")
        self._messages[scope].append(message)

    def flush(self, scope: str) -> None:
        """Drop the messages that were added for `scope`."""
        self._messages[scope].clear()

    async def publish(self) -> None:
        """Publish all testaments that the client is allowed to publish.

        This is shielded from cancellation, and takes `Limits.goodbye_timeout` at most. Refusals and
        failures are logged.
        """
        conversation = self._conversation
        timeout = conversation.limits.goodbye_timeout
        with anyio.move_on_after(timeout, shield=True) as waiting:
            for messages in self._messages.values():
                for message in messages:
                    await in_own_context(self._publish(message))
        if waiting.cancelled_caught:
            logger.warning(
                "the testaments of session %s were not published within %s seconds",
                conversation.session.id,
                timeout,
            )

    async def _publish(self, message: Publish) -> None:
        conversation = self._conversation
        topic, session = message.topic, conversation.session
        authorization = conversation.router.authorization
        try:
            if authorization is not None:
                await authorization.check(question_about(session, message))
            await conversation.router.publishing.publish_for(
                session, publication_of(message, session)
            )
        except BaseException as error:
            raise_unless_failure(error)
            refusals = (WAMPError, SerializationError)
            refusal = next((part for part in parts_of(error) if isinstance(part, refusals)), None)
            if refusal is not None and conversation.limit_log.is_first("a testament"):
                text = "a testament of session %s to %r is refused: %s"
                logger.warning(text, session.id, topic, refusal)
            unknown = without(error, refusal)
            if unknown is not None:
                text = "a testament of session %s to %r failed"
                logger.error(text, session.id, topic, exc_info=unknown)
