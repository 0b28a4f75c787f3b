"""Start a task now, cheaply, on the backend that is running; and what ends tasks, and threads.

Starting a call and sending to an idle session happen so often that the general way,
`anyio.TaskGroup.start_soon`, would cost as much as all the rest of a call. So these two
go through one contract with the cheapest implementation per backend behind it:

    async with open_starter() as starter:
        task = starter.start(function, *arguments)
        task.cancel()

* The task gets a copy of the context in which the starter was opened, whoever starts it. So no unit
  of work sees the context variables of another one.
* `start` starts now: on asyncio (Python 3.12 and newer) the task runs to its first wait before
  `start` returns; elsewhere tasks begin in the order in which they were started.
* The block ends only when all its tasks have ended, however it is left. Whoever started them
  tells them to end before; on trio a cancellation from outside reaches them by itself as well.
* A task's function handles its own exceptions, but for its cancellation; one that still escapes
  ends the whole block.
* `cancel` cancels that task alone, where it waits. A task that is cancelled before it has begun
  begins all the same; one that has ended isn't affected.

An event to a thousand sessions would be a thousand tasks that mostly have nothing to wait for.
`start_many` makes do with one where it can.

One module, though a long one: what starts tasks, and what cancels them, share the two backends.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import anyio
import anyio.to_thread

Function: TypeAlias = Callable[..., Coroutine[Any, Any, None]]
Result = TypeVar("Result")


class StartedTask(Protocol):
    """A task that was started."""

    def cancel(self) -> object:
        """Cancel the task, if it has not ended."""


class Starter(Protocol):
    """What starts tasks and owns them."""

    context: Context
    """What its tasks get copies of."""

    def start(self, function: Function, *args: Any) -> StartedTask:
        """Run `function(*args)` as a task of its own."""
        ...

    async def __aenter__(self) -> Starter: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None: ...


class Runner(Protocol):
    """What `start_many` runs."""

    @property
    def starter(self) -> Starter:
        """Who owns the task in which it runs."""
        ...

    async def run(self, argument: Any) -> None: ...

    def runs_in(self, task: StartedTask) -> None:
        """Take note of the task in which it runs, and has to wait."""
        ...


def start_many(work: Iterable[tuple[Runner, Any]]) -> None:
    """Start ``runner.run(argument)`` for each, in order, as a task of the runner's own starter.

    Where tasks begin at once, those that needn't wait for anything share one.
    """
    if EAGER and not _on_trio():
        _start_each_eagerly(work)
        return
    for runner, argument in work:
        runner.runs_in(runner.starter.start(runner.run, argument))


def _start_each_eagerly(work: Iterable[tuple[Runner, Any]]) -> None:
    loop, rest = asyncio.get_running_loop(), iter(work)
    item = next(rest, None)
    while item is not None:
        lane, context = _SharedTask(), item[0].starter.context.copy()
        task = _Task(lane.run_each(item, rest), loop=loop, eager_start=True, context=context)
        if lane.runner is None:
            item = lane.item
            continue
        lane.is_left = True  # it waits: what is left goes to another task
        starter = lane.runner.starter
        assert isinstance(starter, _AsyncioStarter)
        starter.adopt(task)
        lane.runner.runs_in(task)
        item = next(rest, None)


class _SharedTask:
    """A task that runs one runner after the other until it has to wait for one.

    It also ends before a runner whose context isn't the one that it has by now.
    """

    runner: Runner | None = None
    item: tuple[Runner, Any] | None = None
    """What it has taken, and not run."""
    is_left = False

    async def run_each(self, item: tuple[Runner, Any], rest: Iterator[tuple[Runner, Any]]) -> None:
        self.runner, argument = item
        await self.runner.run(argument)
        if self.is_left:
            return
        for item in rest:
            runner, argument = item
            try:
                belongs_here = copy_context() == runner.starter.context
            except Exception:  # some values can't be compared
                belongs_here = False
            if not belongs_here:
                self.item = item
                break
            self.runner = runner
            await runner.run(argument)
            if self.is_left:
                return
        self.runner = None


def open_starter() -> Starter:
    """Return a starter for the running backend, to be entered with ``async with``."""
    return _TrioStarter() if _on_trio() else _AsyncioStarter()


_deferring: dict[Any, bool] = {}
"""The asyncio tasks that close what they have opened, and whether they are cancelled afterwards."""


def cancel_once(task: StartedTask) -> None:
    """Cancel a task, unless it was before: then it may be closing what it has opened."""
    if task in _deferring:
        _deferring[task] = True
    elif not (isinstance(task, asyncio.Task) and task.cancelling()):
        task.cancel()


def defer_cancellation() -> None:
    """Let `cancel_once` wait until `deliver_cancellation`; a shield of anyio isn't enough.

    That shields from anyio's scopes, of which trio's tasks have one each, and asyncio's have none.
    """
    if not _on_trio():
        _deferring.setdefault(asyncio.current_task(), False)


def deliver_cancellation() -> None:
    """Cancel the task that is running if that was deferred."""
    if not _on_trio():
        task = asyncio.current_task()
        if _deferring.pop(task, False) and task is not None:
            cancel_once(task)


def _on_trio() -> bool:
    trio: Any = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


def split_to_reraise(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return what of an exception has to leave the task that it ends, and what hasn't.

    The former is the cancellation of this task, and what ends the whole program. Either is None
    if there is none.
    """
    kinds: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit)
    if _is_being_cancelled():  # or else it came out of what was cancelled elsewhere
        kinds += (anyio.get_cancelled_exc_class(),)
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)
    return (error, None) if isinstance(error, kinds) else (None, error)


def part_to_reraise(error: BaseException) -> BaseException | None:
    """Return what of an exception has to leave the task that it ends, if anything."""
    return split_to_reraise(error)[0]


def _is_being_cancelled() -> bool:
    if _on_trio():
        return True  # nothing else raises it there
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def run_in_thread(function: Callable[[], Result]) -> Result:
    """Call a plain function in a worker thread, which is given up when the task is cancelled.

    It counts among the threads that may run at the same time, `anyio.to_thread`'s, until it has
    ended: a client can't have more of them by cancelling its calls.

    Raises: what the function raises; RuntimeError instead of what isn't an `Exception`. That means
        something to tasks and to the program, but nothing when it comes from a thread.
    """
    call = functools.partial(_call_in_thread, function)
    if _on_trio():  # which counts so by itself
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    loop, limiter = asyncio.get_running_loop(), anyio.to_thread.current_default_thread_limiter()
    borrowers = [object()]
    has_begun = False

    def give_back() -> None:
        if borrowers:
            limiter.release_on_behalf_of(borrowers.pop())

    def run() -> Result:
        nonlocal has_begun
        has_begun = True
        try:
            return call()
        finally:
            with suppress(RuntimeError):  # the event loop may be closed by now
                loop.call_soon_threadsafe(give_back)

    try:
        limiter.acquire_on_behalf_of_nowait(borrowers[0])
    except anyio.WouldBlock:
        await limiter.acquire_on_behalf_of(borrowers[0])
    try:
        uncounted = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=uncounted)
    finally:
        if not has_begun:
            give_back()


def _call_in_thread(function: Callable[[], Result]) -> Result:
    try:
        return function()
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__} was raised in a thread") from error


# ---- asyncio

EAGER: Final = sys.version_info >= (3, 12)

if sys.version_info >= (3, 12):
    _Task = asyncio.Task

else:  # Python 3.11

    class _BeginningTask(asyncio.Task[None]):
        """A task that can't be cancelled before it has begun: its function would never run."""

        has_begun = False
        is_to_be_cancelled = False

        def __init__(
            self,
            coroutine: Coroutine[Any, Any, None],
            *,
            loop: Any,
            eager_start: bool,
            context: Context,
        ) -> None:
            super().__init__(_begun(coroutine), loop=loop, context=context)

        def cancel(self, msg: Any | None = None) -> bool:
            if self.has_begun:
                return super().cancel(msg)
            self.is_to_be_cancelled = True
            return True

        def begin(self) -> None:
            self.has_begun = True
            if self.is_to_be_cancelled:
                self.cancel()  # takes effect where the function waits first

    async def _begun(coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.current_task()
        assert isinstance(task, _BeginningTask)
        task.begin()
        await coroutine

    _Task = _BeginningTask


class _AsyncioStarter:
    context: Context

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], None] = {}  # smaller than a set while it is empty
        self._ended: anyio.Event | None = None
        self._failure: BaseException | None = None

    def start(self, function: Function, *args: Any) -> StartedTask:
        context = self.context.copy()
        task = _Task(function(*args), loop=self._loop, eager_start=True, context=context)
        if not task.done():
            self.adopt(task)
        elif task.cancelled() or task.exception() is not None:
            self._check(task)
        return task

    def adopt(self, task: asyncio.Task[None]) -> None:
        """Own a task that something else has started, and that waits."""
        self._tasks[task] = None
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._check(task)
        if not self._tasks and self._ended is not None:
            self._ended.set()

    def _check(self, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, BaseExceptionGroup):  # a cancellation may escape in company
            failure = failure.split(asyncio.CancelledError)[1]
        if failure is not None and self._failure is None:
            self._failure = failure
            self._owner.cancel()

    async def __aenter__(self) -> _AsyncioStarter:
        owner = asyncio.current_task()
        assert owner is not None
        self._owner = owner
        self.context = copy_context()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        cancelled: BaseException | None = None
        while self._tasks:
            self._ended = anyio.Event()
            try:
                with anyio.CancelScope(shield=True):
                    await self._ended.wait()
            except asyncio.CancelledError as reason:
                cancelled = reason  # by the server, as it goes down: the tasks still come first
        if self._failure is not None:
            self._owner.uncancel()
            raise self._failure
        if cancelled is not None:
            raise cancelled
        return None


# ---- trio


class _TrioTask:
    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def cancel(self) -> None:
        self._scope.cancel()


class _TrioStarter:
    context: Context

    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._manager = trio.open_nursery()
        self._waiting: deque[tuple[Any, Function, tuple[Any, ...]]] = deque()

    def start(self, function: Function, *args: Any) -> StartedTask:
        scope = self._trio.CancelScope()
        # trio runs new tasks in no particular order: whichever comes first takes the oldest.
        self._waiting.append((scope, function, args))
        self.context.copy().run(self._nursery.start_soon, self._run_oldest)
        return _TrioTask(scope)

    async def _run_oldest(self) -> None:
        scope, function, args = self._waiting.popleft()
        with scope:
            await function(*args)

    async def __aenter__(self) -> _TrioStarter:
        self._nursery = await self._manager.__aenter__()
        self.context = copy_context()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)
