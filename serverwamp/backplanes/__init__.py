"""Backplanes carry publications between the processes that serve an application."""

from serverwamp.backplanes.base import Backplane as Backplane
from serverwamp.backplanes.memory import MemoryBackplane as MemoryBackplane
