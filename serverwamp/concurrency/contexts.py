"""A separate context (of context variables) for work that shares a task with other work."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, TypeVar

Result = TypeVar("Result")


@types.coroutine
def in_own_context(
    coroutine: Coroutine[Any, Any, Result],
) -> Generator[Any, Any, Result]:
    """Run a coroutine in a copy of the context, so that its changes there are not seen outside.

    The coroutine runs in the current task. This doesn't affect cancellation or cancel scopes.
    """
    context = copy_context()
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    try:
        while True:
            try:
                awaited = context.run(step, value)
            except StopIteration as end:
                result: Result = end.value
                return result
            try:
                step, value = coroutine.send, (yield awaited)
            except BaseException as error:
                step, value = coroutine.throw, error
    finally:
        del value  # the traceback of an exception refers to this frame
