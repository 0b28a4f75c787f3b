"""The carrier for an application in one process."""

from __future__ import annotations

from typing import Any

from serverwamp.backplanes.base import Sink


class MemoryBackplane:
    """Hands publications straight on."""

    async def publish(self, publication: Any, sink: Sink) -> None:
        sink(publication)
