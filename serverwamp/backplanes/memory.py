"""The backplane of an application that runs in a single process."""

from __future__ import annotations

from typing import Any

from serverwamp.backplanes.base import Sink


class MemoryBackplane:
    """Delivers publications directly."""

    async def publish(self, publication: Any, sink: Sink) -> None:
        """Deliver `publication` to the only process."""
        sink(publication)
