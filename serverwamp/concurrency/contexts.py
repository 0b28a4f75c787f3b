"""A context of its own for a unit of work that shares its task with others."""

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
    """Run a coroutine in a copy of the context, so that what it sets there ends with it.

    It stays in the running task: cancellation and scopes are as they would be without this.
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
