"""Runs a backplane while a block runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup

from serverwamp.backplanes.base import Backplane, NodeEvents

FLUSH_SECONDS: Final = 1.0
"""How long closing waits for events that nobody waits for, such as meta events."""


@asynccontextmanager
async def running(backplane: Backplane, node: NodeEvents) -> AsyncIterator[TaskGroup]:
    """Run a backplane while the block runs. The task group is cancelled at the end of the block.

    Raises: BackplaneUnavailable.
    """
    try:
        async with anyio.create_task_group() as tasks:
            await tasks.start(backplane.run, node)
            try:
                yield tasks
            finally:
                with anyio.move_on_after(FLUSH_SECONDS, shield=True):
                    await backplane.flush()
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:  # the user of the block doesn't know of the tasks
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
