"""A running call of a client."""

from __future__ import annotations

from typing import Protocol

from serverwamp.concurrency.tasks import StartedTask, cancel_once
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Call


class ChunkTaker(Protocol):
    """Takes the further arguments (chunks) of a call, as they are read."""

    is_over: bool
    """Whether it takes no more chunks."""

    @property
    def has_room(self) -> bool:
        """Whether it can take another chunk now."""
        ...

    def put(self, call: Call, unit: Unit) -> None:
        """Take the chunk in a further CALL; `unit` is the encoded CALL.

        Raises: WAMPError when the call has to end with that error.
        """
        ...

    async def wait_for_room(self) -> None:
        """Return when it can take another chunk, or takes no more."""
        ...

    def break_off(self) -> None:
        """Take no more chunks."""
        ...


class RunningCall:
    """A call, from its arrival until its handler has ended, which can be after its answer."""

    __slots__ = ("answered", "call", "cancelled", "deadline", "ended", "stream", "task", "unit")

    def __init__(self, call: Call, unit: Unit) -> None:
        self.call: Call = call
        self.unit: Unit = unit
        """The encoded CALL."""
        self.task: StartedTask | None = None
        self.stream: ChunkTaker | None = None
        self.deadline: float = 0.0
        """When it times out, on the clock of the event loop; 0 for never."""
        self.answered: bool = False
        """Whether it has its final answer, RESULT or ERROR."""
        self.cancelled: bool = False
        """Whether it was told to stop."""
        self.ended: bool = False
        """Whether its handler has ended."""

    @property
    def can_be_cancelled(self) -> bool:
        """Whether `cancel` can stop it, so that waiting for its own answer makes sense."""
        return self.task is not None

    def cancel(self) -> None:
        """Stop it. If it has no answer yet, it is answered when it has stopped."""
        self.cancelled = True
        if self.task is not None and self.ended:  # it only sends now, so no cleanup is interrupted
            self.task.cancel()
        elif self.task is not None:
            cancel_once(self.task)

    def leave(self) -> None:
        """Let it run to its end, although its answer was sent."""
