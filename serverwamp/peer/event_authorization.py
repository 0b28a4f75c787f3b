"""Authorization of single events for the subscribers of patterns.

A pattern subscriber receives only events of topics that it could subscribe to individually. The
authorizer of the realm decides that. If its answer is cached, the event needn't wait. Otherwise the
event waits for the answer. All later events for the same client wait behind it, to stay in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from serverwamp.auth.authorization import Answer, Authorizer, Question
from serverwamp.concurrency.tasks import StartedTask, cancel_once
from serverwamp.outbound.backlog import EventReceiver
from serverwamp.peer.conversation import Conversation
from serverwamp.protocol.formats import Format, Unit


class EventAuthorization:
    """The waiting events of one session."""

    def __init__(self, conversation: Conversation, authorizer: Authorizer) -> None:
        self._session = conversation.session
        self._counters = conversation.router.counters
        self._outbound = conversation.outbound
        self._starter = conversation.starter
        self._authorizer = authorizer
        self._waiting: deque[tuple[EventReceiver, Question | None, Unit]] = deque()
        self._bytes = 0
        self._task: StartedTask | None = None

    def is_allowed(
        self, receiver: EventReceiver, topic: str, event: Mapping[Format, Unit | None]
    ) -> bool:
        """Tell whether an event may be queued now; if it has to wait, keep it here."""
        question: Question | None = None
        answer: bool | None = True
        if receiver.subscription.match != "exact":
            question = Question(self._session, "subscribe", topic)
            answer = self._authorizer.known(question)
        if answer is False:
            return False
        if answer is True:
            if not self._waiting:
                return True
            question = None
        unit = event[receiver.format]
        if unit is None:  # it is lost in any case, which the caller handles
            return True
        self._counters.events += 1
        self._hold(receiver, question, unit)
        return False

    def precede(self, receiver: EventReceiver, unit: Unit) -> bool:
        """Keep an event here if earlier events wait; tell whether they do."""
        if not self._waiting:
            return False
        self._hold(receiver, None, unit)
        return True

    def _hold(self, receiver: EventReceiver, question: Question | None, unit: Unit) -> None:
        outbound = self._outbound
        limit = outbound.backlog.exceeded_limit(len(self._waiting), self._bytes)
        if limit is not None:
            outbound.overflow(limit, receiver)
            receiver.note_refused()
            return
        self._waiting.append((receiver, question, unit))
        self._bytes += len(unit)
        if len(self._waiting) == 1:
            self._task = self._starter.start(self._work_off)

    async def _work_off(self) -> None:
        while self._waiting:
            receiver, question, unit = self._waiting[0]
            answer: Answer | None = None
            if question is not None:
                answer = self._authorizer.known(question)
                if answer is None:
                    answer = await self._authorizer.ask(question)
            if not self._waiting:  # the session has ended
                return
            self._waiting.popleft()
            self._bytes -= len(unit)
            if receiver.is_open and (question is None or answer is True):
                receiver.receive(unit)
            else:
                receiver.note_lost()

    def close(self) -> None:
        """Drop the waiting events, because the session has ended."""
        for receiver, _, _ in self._waiting:
            receiver.note_lost()
        self._waiting.clear()
        if self._task is not None:
            cancel_once(self._task)
