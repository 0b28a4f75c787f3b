"""Backplanes carry publications between the processes that serve an application."""

from typing import TYPE_CHECKING, Any

from serverwamp.backplanes.base import Backplane as Backplane
from serverwamp.backplanes.memory import MemoryBackplane as MemoryBackplane

if TYPE_CHECKING:
    from serverwamp.backplanes.redis import RedisBackplane as RedisBackplane


def __getattr__(name: str) -> Any:
    if name == "RedisBackplane":  # it needs coredis, which is optional
        from serverwamp.backplanes.redis import RedisBackplane

        return RedisBackplane
    raise AttributeError(name)
