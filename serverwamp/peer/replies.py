"""The replies to the calls of one session: progress, and exactly one final reply for each call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from serverwamp.binding.results import (
    RPCErrorResult,
    RPCProgressReport,
    RPCResult,
    as_result,
)
from serverwamp.errors import (
    MessageTooLong,
    SerializationError,
    WAMPError,
    parts_of,
)
from serverwamp.peer.call import RunningCall
from serverwamp.peer.conversation import Conversation
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Call, Result
from serverwamp.protocol.misfits import described_misfit
from serverwamp.protocol.plain import SCALARS

logger: logging.Logger = logging.getLogger(__name__)

CALL: Final = Call.type_code
RESULT: Final = Result.type_code
NO_DETAILS: Final[Mapping[str, Any]] = {}
PROGRESS: Final[Mapping[str, Any]] = {"progress": True}


class Replies:
    """Answers the calls of a session, however they end."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._session = conversation.session
        self._counters = conversation.router.counters
        self._outbound = conversation.outbound
        self._encode_wire = conversation.serializer.encode_wire
        self._note_answered = conversation.state.answered

    def answer(self, running: RunningCall, result: RPCResult) -> None:
        """Send a result that another client returned, unless the call has an answer.

        Raises: SerializationError.
        """
        wire = Result(running.call.request, NO_DETAILS, result.args, result.kwargs).wire()
        reply = self._encode_wire(wire)
        if self.take(running) and self._conversation.is_open:
            self._outbound.put(reply)

    def take(self, running: RunningCall) -> bool:
        """Mark a call as answered by a result; tell whether it had no answer before."""
        if running.answered:
            return False
        running.answered = True
        self._note_answered(running.call.request)
        self._counters.results += 1
        if running.stream is not None:
            running.stream.break_off()
        return True

    def encoded(self, request: int, value: Any) -> Unit:
        """Return the encoded RESULT with a value that a handler has returned or yielded.

        Raises: WAMPError if the value is an error; SerializationError.
        """
        if type(value) in SCALARS:  # most values are scalars, and this is faster
            wire: tuple[Any, ...] = (RESULT, request, NO_DETAILS, (value,))
        else:
            result = as_result(value)
            if isinstance(result, RPCErrorResult):
                raise WAMPError(result.error_uri, result.args, result.kwargs)
            wire = Result(request, NO_DETAILS, result.args, result.kwargs).wire()
        try:
            return self._encode_wire(wire)
        except SerializationError as failure:
            raise self._explained(failure, "result", wire) from None

    def report(self, running: RunningCall, report: RPCProgressReport) -> None:
        """Send a progress report.

        Raises: SerializationError.
        """
        if not self._conversation.is_open:
            return
        wire = Result(running.call.request, PROGRESS, report.args, report.kwargs).wire()
        try:
            self._outbound.put(self._encode_wire(wire))
        except SerializationError as failure:
            raise self._explained(failure, "report", wire) from None

    def _explained(
        self, failure: SerializationError, name: str, wire: Sequence[Any]
    ) -> SerializationError:
        """Return the failure with a text that says which value can't be expressed."""
        if isinstance(failure, MessageTooLong):
            return failure
        args: Sequence[Any] = wire[3] if len(wire) > 3 else ()
        kwargs: Mapping[str, Any] = wire[4] if len(wire) > 4 else {}
        format_ = self._conversation.serializer.format
        return SerializationError(described_misfit(format_, name, args, kwargs))

    async def answer_exception(self, running: RunningCall, error: BaseException) -> None:
        """Answer a call that failed with an exception; log what the client must not see."""
        conversation = self._conversation
        doing = f"the call of {running.call.procedure!r} by session {self._session.id}"
        log = conversation.limit_log
        if running.answered:
            is_told = all(isinstance(part, WAMPError) for part in parts_of(error))
            if not is_told and log.wants(doing, error):
                logger.error("%s failed after its answer", doing, exc_info=error)
            return
        if isinstance(error, SerializationError):
            if log.is_first(doing):
                logger.error("%s has a result that can't be sent: %s", doing, error)
            more = f": {error}" if conversation.server.debug else "; the server's log says why"
            self.answer_error(running, error.answer_to_receiver(f"the result can't be sent{more}"))
            return
        answer = await conversation.error_for(error, doing)
        self.answer_error(running, answer)

    def answer_error(self, running: RunningCall, error: WAMPError) -> None:
        """Send an error, unless the call has an answer; the handler isn't stopped."""
        if running.answered:
            return
        running.answered = True
        if running.stream is not None:
            running.stream.break_off()
        self._counters.note_error(error.uri)
        self._conversation.send_error(CALL, running.call.request, error)
