"""The interface of a backplane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

Sink: TypeAlias = Callable[[Any], None]
"""Delivers a publication in this process, without waiting for any peer."""


class Backplane(Protocol):
    """Carries publications to every process of an application, this one included."""

    async def publish(self, publication: Any, sink: Sink) -> None:
        """Carry `publication` to every process, and deliver it to this process by calling `sink`.

        Publications of the same publisher must arrive in the order of publication.
        """
        ...
