"""What a carrier of publications has to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

Sink: TypeAlias = Callable[[Any], None]
"""Takes a publication that has arrived, and delivers it without waiting for any peer."""


class Backplane(Protocol):
    """Carries publications to every process of an application, this one included."""

    async def publish(self, publication: Any, sink: Sink) -> None:
        """Carry `publication` to every process; `sink` is this process's.

        Publications of one publisher arrive in the order in which they were published.
        """
        ...
