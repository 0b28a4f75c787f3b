"""Backplanes carry publications between the processes that serve an application."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from serverwamp.backplanes.base import Backplane as Backplane
from serverwamp.backplanes.memory import MemoryBackplane as MemoryBackplane

if TYPE_CHECKING:
    from serverwamp.backplanes.publisher import BlockingPublisher as BlockingPublisher
    from serverwamp.backplanes.publisher import Publisher as Publisher
    from serverwamp.backplanes.redis import RedisBackplane as RedisBackplane


MODULES: Final = {
    "BlockingPublisher": "publisher",
    "Publisher": "publisher",
    "RedisBackplane": "redis",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:  # they need coredis, which is optional
        return getattr(import_module(f"serverwamp.backplanes.{MODULES[name]}"), name)
    raise AttributeError(name)
