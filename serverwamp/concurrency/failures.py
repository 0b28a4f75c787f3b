"""What to do about an exception, part of which may belong to the task that it ends.

A cancellation, or a signal such as KeyboardInterrupt, has to leave the task, even when it comes in
a group with other exceptions. The rest is a failure of the application, which somebody handles.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from serverwamp.concurrency.tasks import part_to_reraise, split_to_reraise


async def handle_failure(
    error: BaseException, handle: Callable[[BaseException], Awaitable[None]]
) -> None:
    """Let `handle` deal with what failed, and raise what has to leave the task."""
    # An Exception, even a group, can't have a part that has to leave the task.
    leaving, failure = (None, error) if isinstance(error, Exception) else split_to_reraise(error)
    if failure is not None:
        await handle(failure)
    if leaving is not None:
        raise leaving from None


def raise_unless_failure(error: BaseException) -> None:
    """Raise an exception again if any part of it has to leave the task."""
    if part_to_reraise(error) is not None:
        raise error
