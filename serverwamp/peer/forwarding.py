"""Calls that are forwarded to other clients, on the side of the caller's session.

Spec: Basic Profile, "Calling and Invocations"; Advanced Profile, "Caller Identification".
"""

from __future__ import annotations

import logging
from typing import Any

import anyio

from serverwamp import uris
from serverwamp.binding.results import RPCResult
from serverwamp.errors import (
    CallCanceled,
    SerializationError,
    Unavailable,
    WAMPError,
)
from serverwamp.peer.active_calls import ActiveCalls
from serverwamp.peer.call import RunningCall
from serverwamp.peer.callee import PendingInvocation
from serverwamp.peer.conversation import Conversation
from serverwamp.peer.deadlines import Deadlines
from serverwamp.peer.replies import Replies
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Args, Call, Kwargs, Result

logger: logging.Logger = logging.getLogger(__name__)


class ForwardedCall(RunningCall):
    """A call that another client answers.

    It is an `InvocationObserver`: the session of that client reports the answer to it.
    """

    __slots__ = ("_forwarded", "invocation")

    stream: ForwardedChunks | None

    def __init__(self, call: Call, unit: Unit, forwarded: ForwardedCalls) -> None:
        super().__init__(call, unit)
        self.invocation: PendingInvocation | None = None
        self._forwarded = forwarded

    @property
    def can_be_cancelled(self) -> bool:
        """Whether the callee can be asked to stop."""
        return self.invocation is not None and self.invocation.can_be_cancelled

    def cancel(self) -> None:
        """Ask the callee to stop. If the call has an answer already, it ends at once."""
        was_cancelled = self.cancelled
        self.cancelled = True
        assert self.invocation is not None
        if self.answered:
            self.invocation.abandon()
            self._forwarded.end(self)
        elif not was_cancelled:
            self.invocation.interrupt()

    def leave(self) -> None:
        """End the call for the caller. The callee goes on, unless it still waits for arguments."""
        assert self.invocation is not None
        if self.stream is None or self.stream.is_complete:
            self.invocation.forget()
        else:  # otherwise the callee would wait forever for further arguments
            self.invocation.abandon()
        self._forwarded.end(self)

    # ---- answers of the callee: see `InvocationObserver`

    def take_progress(self, args: Args, kwargs: Kwargs) -> None:
        """Send a progress report to the caller."""
        self._forwarded.report(self, args, kwargs)

    def take_result(self, args: Args, kwargs: Kwargs) -> None:
        """Answer the caller with a result."""
        self._forwarded.answer(self, args, kwargs)

    def take_error(self, error: WAMPError) -> None:
        """Answer the caller with an error."""
        # Some clients answer INTERRUPT with an error of their own, so replace it.
        error = CallCanceled("the call was cancelled") if self.cancelled else error
        self._forwarded.answer_error(self, error)


class ForwardedChunks:
    """The streamed arguments of a forwarded call: each chunk is sent on when it arrives."""

    def __init__(self, invocation: PendingInvocation) -> None:
        self._invocation = invocation
        self._waiting: anyio.CancelScope | None = None
        self.is_complete: bool = False
        """Whether the last chunk has arrived."""
        self.is_over: bool = False
        """Whether it takes no more chunks."""

    @property
    def has_room(self) -> bool:
        """Whether the callee's backlog has room for another chunk."""
        return self.is_over or not self._invocation.room.is_exhausted

    def put(self, call: Call, unit: Unit) -> None:
        """Send a chunk to the callee.

        Raises: InvalidArgument when the callee's format can't express it.
        """
        self.is_complete = not call.options.progress
        self._invocation.go_on(call.args or (), call.kwargs or {}, is_last=self.is_complete)

    async def wait_for_room(self) -> None:
        """Return when the callee's backlog has room, or no more chunks are taken."""
        with anyio.CancelScope() as self._waiting:
            while not self.has_room:
                await self._invocation.room

    def break_off(self) -> None:
        """Take no more chunks."""
        self.is_over = True
        if self._waiting is not None:
            self._waiting.cancel()


class ForwardedCalls:
    """Forwards calls of one session to other clients.

    No task waits for the answers. The sessions of the callees hand them over.
    """

    def __init__(
        self,
        conversation: Conversation,
        calls: ActiveCalls,
        replies: Replies,
        deadlines: Deadlines,
    ) -> None:
        self._conversation = conversation
        self._session = conversation.session
        self._outbound = conversation.outbound
        self._endpoints = conversation.router.endpoints
        self._dealer = conversation.router.dealer
        self._calls = calls
        self._replies = replies
        self._deadlines = deadlines

    def start(self, call: Call, unit: Unit) -> bool:
        """Forward a call if a client serves its procedure and the application doesn't.

        Returns whether it did, even if the call failed at once and was answered with an error.
        """
        if self._endpoints.serves(call.procedure):
            return False
        registration = self._dealer.best(call.procedure)
        if registration is None:
            return False
        if registration.match != "exact" and not uris.is_valid_uri(call.procedure):
            return False  # patterns match invalid URIs, too; the caller gets an error elsewhere
        forwarded = ForwardedCall(call, unit, self)
        details: dict[str, Any] = {}
        if call.options.progress:
            details["progress"] = True
        if call.options.receive_progress:
            details["receive_progress"] = True
        if call.options.disclose_me or registration.discloses_callers:
            session = self._session
            details.update(
                caller=session.id, caller_authid=session.auth_id, caller_authrole=session.auth_role
            )
        try:
            forwarded.invocation = registration.pick().invoke(
                registration, call.procedure, call.args or (), call.kwargs or {}, forwarded, details
            )
        except WAMPError as error:
            self._replies.answer_error(forwarded, error)
        if not forwarded.answered:
            if call.options.progress:
                assert forwarded.invocation is not None
                forwarded.stream = ForwardedChunks(forwarded.invocation)
            self._calls.add(forwarded)
            self._deadlines.begin(forwarded)
        return True

    def report(self, forwarded: ForwardedCall, args: Args, kwargs: Kwargs) -> None:
        """Send a progress report of the callee to the caller, if it wants any."""
        call = forwarded.call
        if forwarded.answered or not call.options.receive_progress:
            return
        # The callee also serves other callers, so it must not wait for this one.
        if self._outbound.backlog.blocks_reader:
            error = Unavailable("the callee reports progress faster than the caller reads it")
            self._replies.answer_error(forwarded, error)
            forwarded.cancel()
            return
        self._deadlines.renew(forwarded)
        try:
            self._conversation.send(Result(call.request, {"progress": True}, args, kwargs))
        except SerializationError as error:
            if self._conversation.limit_log.is_first("a lost report"):
                text = "a progress report to session %s is lost: %s"
                logger.error(text, self._session.id, error)

    def answer(self, forwarded: ForwardedCall, args: Args, kwargs: Kwargs) -> None:
        """Send the callee's result to the caller."""
        try:
            self._replies.answer(forwarded, RPCResult(args, kwargs))
        except SerializationError as error:
            text = f"the result can't be sent: {error}"
            self._replies.answer_error(forwarded, error.answer_to_receiver(text))
        self.end(forwarded)

    def answer_error(self, forwarded: ForwardedCall, error: WAMPError) -> None:
        """Send the callee's error to the caller."""
        self._replies.answer_error(forwarded, error)
        self.end(forwarded)

    def end(self, forwarded: ForwardedCall) -> None:
        """Remove a call that has ended on the caller's side."""
        self._calls.remove(forwarded)
