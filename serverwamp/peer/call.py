"""A call, from its arrival until nothing of it is left."""

from __future__ import annotations

from typing import Protocol

from serverwamp.concurrency.tasks import StartedTask, cancel_once
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Call


class ChunkTaker(Protocol):
    """Who gets the chunks of a call as they are read."""

    is_over: bool
    """Whether it takes nothing any more."""

    @property
    def has_room(self) -> bool:
        """Whether another chunk may be put in."""
        ...

    def put(self, call: Call, unit: Unit) -> None:
        """Take what a further CALL brings, before the call is answered.

        Raises: WAMPError.
        """
        ...

    async def wait_for_room(self) -> None:
        """Return when another chunk may be put in."""
        ...

    def break_off(self) -> None:
        """Take no more chunks."""
        ...


class RunningCall:
    """A call from its arrival until its handler has ended, which may be after its reply."""

    __slots__ = ("answered", "call", "cancelled", "deadline", "ended", "stream", "task", "unit")

    def __init__(self, call: Call, unit: Unit) -> None:
        self.call: Call = call
        self.unit: Unit = unit
        """What the CALL was decoded from."""
        self.task: StartedTask | None = None
        self.stream: ChunkTaker | None = None
        self.deadline: float = 0.0
        """When it has to be over, on the clock of the event loop; 0 for never."""
        self.answered: bool = False
        self.cancelled: bool = False
        self.ended: bool = False
        """Whether its handler has ended."""

    @property
    def can_be_cancelled(self) -> bool:
        """Whether it can be stopped, and what it ends with waited for."""
        return self.task is not None

    def cancel(self) -> None:
        """Stop it: its answer is still sent, if it has none yet."""
        self.cancelled = True
        if self.task is not None and self.ended:  # it closes nothing any more, but sends
            self.task.cancel()
        elif self.task is not None:
            cancel_once(self.task)

    def leave(self) -> None:
        """Let it go on, though nobody waits for it any more."""
