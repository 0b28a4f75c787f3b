"""The calls that one client makes.

Each call runs as a task of its own, except calls that are forwarded to other clients.

Spec: Basic Profile, "Calling and Invocations".
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import anyio

from serverwamp.binding.default_args import shielded_exit_stack
from serverwamp.binding.handler import NONE_BY_NAME, Handler
from serverwamp.binding.results import RPCProgressReport
from serverwamp.concurrency.failures import handle_failure
from serverwamp.errors import (
    CallCanceled,
    FeatureNotSupported,
    Unavailable,
    WAMPError,
)
from serverwamp.peer.active_calls import ActiveCalls
from serverwamp.peer.call import RunningCall
from serverwamp.peer.conversation import Conversation
from serverwamp.peer.deadlines import Deadlines
from serverwamp.peer.forwarding import ForwardedCalls
from serverwamp.peer.replies import Replies
from serverwamp.peer.streams import Streams
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Call, Cancel
from serverwamp.protocol.plain import SCALARS
from serverwamp.session import RPCRequest

logger: logging.Logger = logging.getLogger(__name__)

CALL: Final = Call.type_code


class CallerRole:
    """The client as a caller.

    Its calls run concurrently. With `synchronize`, they run one after the other.
    """

    def __init__(self, conversation: Conversation, *, synchronize: bool) -> None:
        router = conversation.router
        self._conversation = conversation
        self._session = conversation.session
        self._endpoints = router.endpoints
        self._counters = router.counters
        self._outbound = conversation.outbound
        self._start = conversation.starter.start
        self._calls = ActiveCalls(conversation)
        self._waiting: deque[RunningCall] | None = deque() if synchronize else None
        self._is_serving_waiting = False
        self._turn: anyio.Event | None = None
        self._replies = Replies(conversation)
        self._encoded_reply = self._replies.encoded
        self._deadlines = Deadlines(conversation, self._calls, self._replies)
        self._streams = Streams(conversation, self._replies, self._deadlines)
        self._forwarded: ForwardedCalls | None = None
        if router.registration_policies:
            self._forwarded = ForwardedCalls(
                conversation, self._calls, self._replies, self._deadlines
            )

    # ---- requests

    def start(self, call: Call, unit: Unit) -> Awaitable[None] | None:
        """Start a call, or continue one with further arguments; `unit` is the encoded CALL.

        Returns None, or an awaitable if the call can't start yet, for example because too many
        calls are running. The reader has to await it before it reads the next message.
        """
        known = self._calls.open(call.request)
        if known is not None:
            return self._streams.go_on(known, call, unit)
        if self._calls.is_full:
            return self._start_later(call, unit)
        self._counters.calls += 1
        if self._forwarded is not None and self._forwarded.start(call, unit):
            return None
        running = RunningCall(call, unit)
        if call.options.progress:
            running.stream = self._streams.begin(call)
        if self._waiting is not None:
            self._waiting.append(running)
        else:
            running.task = self._start(self._run, running)
            if running.ended:
                return None
        self._calls.add(running)
        self._deadlines.begin(running)
        if self._calls.is_closed:  # the call has closed the session meanwhile
            self.cancel_all()
        elif self._waiting is not None and not self._is_serving_waiting:
            self._is_serving_waiting = True
            self._start(self._serve_waiting)
        return None

    async def _start_later(self, call: Call, unit: Unit) -> None:
        """Start a call as soon as another call has ended; refuse it if that takes too long."""
        try:
            await self._calls.wait_for_room()
        except Unavailable as error:
            self.refuse(call, error)
        else:
            if not self._calls.is_closed:
                self.start(call, unit)

    def refuse(self, call: Call, error: WAMPError) -> None:
        """Answer a CALL with an error; if it continues a running call, end that call."""
        running = self._calls.open(call.request)
        if running is None:
            self._conversation.send_error(CALL, call.request, error)
        else:
            self._replies.answer_error(running, error)
            running.cancel()

    async def _serve_waiting(self) -> None:
        """Run the waiting calls one after the other, each as a task of its own."""
        try:
            while self._waiting:
                running = self._waiting.popleft()
                if running.answered:
                    self._end(running)
                    continue
                self._turn = anyio.Event()
                running.task = self._start(self._run, running)
                await self._turn.wait()
        finally:
            self._is_serving_waiting = False

    def cancel(self, cancel: Cancel) -> None:
        """Cancel a call as CANCEL asks; the default mode is ``killnowait``.

        Spec: Advanced Profile, "Call Canceling".
        """
        running = self._calls.open(cancel.request)
        if running is None:
            return  # CANCEL and the answer crossed on the wire
        mode = cancel.options.mode or "killnowait"
        if mode != "kill" or not running.can_be_cancelled:
            self._replies.answer_error(running, CallCanceled("the call was cancelled"))
        if mode == "skip":
            running.leave()
        else:
            running.cancel()

    def cancel_all(self) -> None:
        """Cancel all calls without answers, because the session has ended."""
        self._calls.close()
        if self._waiting is not None:
            self._waiting.clear()
        for running in self._calls:
            # This only marks and counts the call: the session has ended, so nothing is sent.
            self._replies.answer_error(running, CallCanceled())
            running.cancel()
            if running.task is None:
                self._end(running)
        self._deadlines.stop()

    def answer_all(self, error: WAMPError) -> None:
        """Answer all calls that have no answer yet; their handlers go on."""
        for running in self._calls:
            self._replies.answer_error(running, error)

    def is_open(self, request: int) -> bool:
        """Tell whether a call with that request id is running and has no answer yet."""
        return self._calls.open(request) is not None

    @property
    def are_running(self) -> bool:
        """Whether any call is running."""
        return self._calls.count > 0

    async def wait_idle(self) -> None:
        """Return when no call is running, or the session has ended."""
        await self._calls.wait_idle()

    # ---- one call

    async def _run(self, running: RunningCall) -> None:
        reply = None
        try:
            handler = self._endpoints.procedure(running.call.procedure)
            if handler.is_direct and running.stream is None:
                call = running.call
                values, _ = handler.bind(call.args or (), call.kwargs or NONE_BY_NAME)
                outcome = await handler.function(*values)
                if type(outcome) not in SCALARS and hasattr(outcome, "__aiter__"):
                    encoded = await self._final_result(running, handler, outcome)
                else:
                    encoded = self._encoded_reply(call.request, outcome)
            elif handler.has_factories:
                async with shielded_exit_stack() as stack:
                    encoded = await self._result(running, handler, stack)
            else:
                encoded = await self._result(running, handler, None)
            if self._replies.take(running):
                reply = encoded
        except BaseException as error:
            await handle_failure(error, partial(self._replies.answer_exception, running))
        finally:
            running.ended = True
            if running.task is not None or self._waiting is not None or not running.answered:
                self._end(running)
        if reply is not None and self._conversation.is_open:
            if running.cancelled:  # a cancelled task can't wait, so it can't send
                self._outbound.put(reply)
            elif self._outbound.starts_with(reply, running):
                await self._outbound.run(reply)

    def _end(self, running: RunningCall) -> None:
        if not running.answered:  # every call gets an answer, however it ends
            self._replies.answer_error(running, CallCanceled("the call was cancelled"))
        self._calls.remove(running)
        if self._turn is not None:
            self._turn.set()

    async def _result(
        self, running: RunningCall, handler: Handler, stack: AsyncExitStack | None
    ) -> Unit:
        """Call the handler and return its encoded result.

        Raises: the handler's exceptions; WAMPError if the result is an error; SerializationError.
        """
        outcome = await self._invoke(running, handler, stack)
        if hasattr(outcome, "__aiter__"):
            return await self._final_result(running, handler, outcome)
        return self._encoded_reply(running.call.request, outcome)

    def _invoke(
        self, running: RunningCall, handler: Handler, stack: AsyncExitStack | None
    ) -> Awaitable[Any]:
        call = running.call
        if running.stream is not None and handler.stream is None:
            raise FeatureNotSupported(f"{call.procedure!r} does not accept streamed arguments")
        sources: dict[str, Any] = {"session": self._session}
        if handler.takes_request:
            sources["request"] = self._request(call)
        if self._endpoints.custom_rpc:
            return handler.invoke(sources, stack)
        args, kwargs = call.args or (), call.kwargs or {}
        exact = None
        if handler.wants_exact_numbers:
            exact = self._conversation.serializer.format.exact_payload(running.unit, call)
        values, values_by_name = handler.bind(args, kwargs, exact)
        if handler.stream is not None:
            values, values_by_name = self._streams.bind(running, handler, values, values_by_name)
        return handler.invoke(sources, stack, values, values_by_name)

    def _request(self, call: Call) -> RPCRequest:
        options = call.options
        return RPCRequest(
            id=call.request,
            session=self._session,
            uri=call.procedure,
            args=call.args or (),
            kwargs=call.kwargs,
            timeout=options.timeout or 0,
            disclose_caller=options.disclose_me or False,
            receive_progress=options.receive_progress or False,
        )

    async def _final_result(
        self, running: RunningCall, handler: Handler, results: AsyncIterable[Any]
    ) -> Unit:
        """Send the progress reports of an async iterator, and return its encoded result.

        Returns when the iterator has run to its end, so transactions inside it are committed.
        """
        iterator = aiter(results)
        final: Unit | WAMPError | None = None
        async with shielded_exit_stack() as stack:
            if hasattr(iterator, "aclose"):
                stack.push_async_callback(_close, iterator)
            async for result in iterator:
                if final is not None:
                    raise RuntimeError(f"{handler.name} yielded again after its final result")
                if isinstance(result, RPCProgressReport):
                    await self._report(running, result)
                    continue
                try:
                    final = self._encoded_reply(running.call.request, result)
                except WAMPError as error:
                    final = error
        if final is None:
            raise RuntimeError(f"{handler.name} ended without a final result")
        if isinstance(final, WAMPError):
            raise final
        return final

    async def _report(self, running: RunningCall, report: RPCProgressReport) -> None:
        if running.call.options.receive_progress and not running.answered:
            self._deadlines.renew(running)
            self._replies.report(running, report)
        # Wait even if nothing was sent, because the handler may wait nowhere else.
        await self._outbound.room_for_replies


async def _close(iterator: Any) -> None:
    """Close an async generator, whose last ``yield`` may be inside a task group."""
    try:
        await iterator.aclose()
    except BaseExceptionGroup as group:  # a task group wraps the GeneratorExit
        _, others = group.split(GeneratorExit)
        if others is not None:
            raise others from None
