"""A call, from its arrival until nothing of it is left."""

from __future__ import annotations

from serverwamp.concurrency.tasks import StartedTask, cancel_once
from serverwamp.peer.streams import ChunkTaker
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Call


class RunningCall:
    """A call from its arrival until its handler has ended, which may be after its reply."""

    task: StartedTask | None = None
    stream: ChunkTaker | None = None
    answered: bool = False
    cancelled: bool = False
    ended: bool = False
    deadline: float = 0.0

    def __init__(self, call: Call, unit: Unit) -> None:
        self.call: Call = call
        self.unit: Unit = unit

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
