"""The running calls of one session: each a task, each with exactly one final reply."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio

from serverwamp.binding import Handler
from serverwamp.conversation import Conversation
from serverwamp.errors import (
    CallCanceled,
    CallTimeout,
    InvalidArgument,
    RuntimeFailure,
    SerializationError,
    WAMPError,
)
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Call, Cancel, Result, code_of
from serverwamp.results import RPCErrorResult, RPCProgressReport, as_result
from serverwamp.session import RPCRequest
from serverwamp.starting import StartedTask

logger: logging.Logger = logging.getLogger(__name__)

CALL: Final = code_of(Call)
LONGEST_TIMEOUT: Final = 365 * 24 * 3600.0
"""Seconds; what a client asks beyond is the same as this."""


class RunningCall:
    """A call from its arrival until its handler has ended, which may be after its reply."""

    __slots__ = ("answered", "call", "deadline", "failure", "task", "unit")

    def __init__(self, call: Call, unit: Unit) -> None:
        self.call: Call = call
        self.unit: Unit = unit
        self.task: StartedTask | None = None
        self.answered: bool = False
        self.deadline: float = 0.0
        self.failure: Exception | None = None
        """What the handler raised: default args from factories see it before the call is over."""

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Calls:
    """The calls of a session; with `synchronize` they run one after the other."""

    def __init__(self, conversation: Conversation, *, synchronize: bool) -> None:
        self._conversation = conversation
        self._session = conversation.session
        self._realm = conversation.realm
        self._send = conversation.send
        self._synchronize = synchronize
        self._running: dict[int, RunningCall] = {}
        self._waiting: deque[RunningCall] = deque()  # only with synchronize
        self._deadlines: list[tuple[float, int, RunningCall]] = []
        self._order = itertools.count()
        self._sweeping: anyio.CancelScope | None = None
        self._idle: anyio.Event | None = None

    # ---- requests

    def start(self, call: Call, unit: Unit) -> None:
        """Run a call; `unit` is what it was decoded from."""
        running = RunningCall(call, unit)
        if call.options.timeout:
            self._set_deadline(running, call.options.timeout)
        if self._synchronize and self._running:
            self._waiting.append(running)
            self._running[call.request] = running
            return
        self._running[call.request] = running
        self._start(running)

    def _start(self, running: RunningCall) -> None:
        task = self._conversation.starter.start(self._run, running)
        running.task = task

    def cancel(self, cancel: Cancel) -> None:
        """Do what a CANCEL asks for; without a mode that is ``killnowait``.

        Spec: Advanced Profile, "Call Canceling".
        """
        running = self._running.get(cancel.request)
        if running is None or running.answered:
            return  # it crossed the reply on the wire
        mode = cancel.options.mode or "killnowait"
        if mode != "kill" or running.task is None:
            self._answer_error(running, CallCanceled("the call was cancelled"))
        if mode != "skip":
            running.cancel()

    def cancel_all(self) -> None:
        """Cancel every call, and answer none."""
        self._waiting.clear()
        for running in list(self._running.values()):
            running.answered = True
            running.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def wait_idle(self) -> None:
        """Return when no call is running."""
        while self._running:
            if self._idle is None:
                self._idle = anyio.Event()
            await self._idle.wait()

    # ---- one call

    async def _run(self, running: RunningCall) -> None:
        try:
            handler = self._realm.procedure(running.call.procedure)
            if handler.has_factories:
                async with AsyncExitStack() as stack:
                    await self._answer(running, handler, stack)
            else:
                await self._answer(running, handler, None)
        except Exception as error:
            await self._answer_exception(running, error)
        except BaseException as error:
            cancelled = anyio.get_cancelled_exc_class()
            if isinstance(error, cancelled):
                self._answer_error(running, CallCanceled("the call was cancelled"))
                raise
            logger.critical("the handler of %r failed", running.call.procedure, exc_info=error)
            self._answer_error(running, RuntimeFailure("the handler failed"))
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            escaping = error.subgroup(cancelled) if isinstance(error, BaseExceptionGroup) else None
            if escaping is not None:
                raise escaping from None
        finally:
            self._end(running)

    def _end(self, running: RunningCall) -> None:
        self._running.pop(running.call.request, None)
        while self._waiting:
            following = self._waiting.popleft()
            if not following.answered:
                self._start(following)
                break
            self._running.pop(following.call.request, None)
        if not self._running and self._idle is not None:
            self._idle.set()
            self._idle = None

    async def _answer(
        self, running: RunningCall, handler: Handler, stack: AsyncExitStack | None
    ) -> None:
        """Call the handler and send its result; with a stack, errors too, before it is closed."""
        try:
            outcome = await self._invoke(running, handler, stack)
            if hasattr(outcome, "__aiter__"):
                await self._answer_from(running, handler, outcome)
            else:
                self._answer_result(running, outcome)
        except Exception as error:
            if stack is not None:
                await self._answer_exception(running, error)
            raise

    def _invoke(
        self, running: RunningCall, handler: Handler, stack: AsyncExitStack | None
    ) -> Awaitable[Any]:
        call = running.call
        sources: dict[str, Any] = {"session": self._session}
        if handler.takes_request:
            sources["request"] = self._request(call)
        if self._realm.custom_rpc:
            return handler.invoke(sources, stack)
        args, kwargs = call.args or (), call.kwargs or {}
        exact = None
        if handler.wants_exact_numbers:
            exact = self._conversation.serializer.format.exact_payload(running.unit, call)
        values, values_by_name = handler.bind(args, kwargs, exact)
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

    async def _answer_from(
        self, running: RunningCall, handler: Handler, results: AsyncIterable[Any]
    ) -> None:
        """Send what an async iterator yields, until its final result, and close it."""
        iterator = aiter(results)
        try:
            async for result in iterator:
                if not isinstance(result, RPCProgressReport):
                    self._answer_result(running, result)
                    return
                await self._report(running, result)
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()
        raise RuntimeError(f"{handler.name} ended without a final result")

    async def _report(self, running: RunningCall, report: RPCProgressReport) -> None:
        call = running.call
        if running.answered or not call.options.receive_progress:
            return
        if call.options.timeout:  # it limits each wait for a result
            self._set_deadline(running, call.options.timeout)
        self._send(Result(call.request, {"progress": True}, report.args, report.kwargs))
        await self._conversation.outbound.room

    # ---- replies

    def _answer_result(self, running: RunningCall, value: Any) -> None:
        if running.answered:
            return
        result = as_result(value)
        if isinstance(result, RPCErrorResult):
            raise WAMPError(result.error_uri, result.args, result.kwargs)
        self._send(Result(running.call.request, {}, result.args, result.kwargs))
        running.answered = True

    async def _answer_exception(self, running: RunningCall, error: Exception) -> None:
        if error is running.failure:
            return  # it has passed through the default args since
        running.failure = error
        doing = f"the call of {running.call.procedure!r} by session {self._session.id}"
        if running.answered:
            if not isinstance(error, WAMPError):
                logger.error("%s failed after its answer", doing, exc_info=error)
            return
        if isinstance(error, SerializationError):
            logger.error("%s has an unusable result: %s", doing, error)
            self._answer_error(running, InvalidArgument("the result can't be serialized"))
            return
        self._answer_error(
            running, await self._realm.error_for(error, doing, debug=self._conversation.debug)
        )

    def _answer_error(self, running: RunningCall, error: WAMPError) -> None:
        if running.answered:
            return
        running.answered = True
        self._conversation.send_error(CALL, running.call.request, error)

    # ---- deadlines

    def _set_deadline(self, running: RunningCall, milliseconds: int) -> None:
        running.deadline = anyio.current_time() + min(milliseconds / 1000, LONGEST_TIMEOUT)
        heapq.heappush(self._deadlines, (running.deadline, next(self._order), running))
        if self._sweeping is None:
            self._sweeping = anyio.CancelScope()
            self._conversation.starter.start(self._sweep)
        elif self._deadlines[0][0] < self._sweeping.deadline:
            self._sweeping.deadline = self._deadlines[0][0]

    async def _sweep(self) -> None:
        """Answer the calls whose time is over, as long as there are calls with a deadline."""
        while self._deadlines:
            deadline, _, running = self._deadlines[0]
            if running.answered or running.deadline != deadline:
                heapq.heappop(self._deadlines)
                continue
            if deadline > anyio.current_time():
                self._sweeping = anyio.CancelScope(deadline=deadline)
                with self._sweeping:
                    await anyio.sleep_forever()
                if self._session.is_open:
                    continue
                break
            heapq.heappop(self._deadlines)
            self._answer_error(running, CallTimeout("the call took too long"))
            running.cancel()
        self._sweeping = None
