"""Handle the exceptions of application code without swallowing cancellation.

A cancellation of the task, KeyboardInterrupt and SystemExit must leave the task, even in a group
with other exceptions. The other exceptions are failures, to be handled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from serverwamp.concurrency.tasks import part_to_reraise, split_to_reraise


async def handle_failure(
    error: BaseException, handle: Callable[[BaseException], Awaitable[None]]
) -> None:
    """Await ``handle(failure)`` for the failures in an exception; raise the rest again."""
    # An Exception, even a group, has no part that must leave the task.
    leaving, failure = (None, error) if isinstance(error, Exception) else split_to_reraise(error)
    if failure is not None:
        await handle(failure)
    if leaving is not None:
        raise leaving from None


def raise_unless_failure(error: BaseException) -> None:
    """Raise the whole exception again if any part of it must leave the task."""
    if part_to_reraise(error) is not None:
        raise error
