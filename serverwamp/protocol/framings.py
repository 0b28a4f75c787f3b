"""Units out of WebSocket messages and into them: one by one, or in batches.

Spec: Advanced Profile, "Batched WebSocket transport".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from serverwamp.errors import ProtocolViolation
from serverwamp.protocol.formats import Unit

Frame: TypeAlias = str | bytes


class Framing(Protocol):
    """Units out of a frame, and into one."""

    batched: bool

    def split(self, frame: Frame) -> Sequence[Unit]:
        """Return the units in `frame`.

        Raises: ProtocolViolation.
        """
        ...

    def join(self, units: Sequence[Unit]) -> Frame:
        """Return one frame of `units`, which are several only where `batched` is true."""
        ...


class Unbatched:
    """One unit to a frame."""

    batched = False

    def split(self, frame: Frame) -> Sequence[Unit]:
        return (frame,)

    def join(self, units: Sequence[Unit]) -> Frame:
        return units[0]


class SeparatedBatch:
    """Units of text, each followed by a separator.

    The separator is 0x1e; Autobahn|Python writes and expects 0x18, and is answered with it.
    Neither can stand in JSON text.
    """

    batched = True

    def __init__(self) -> None:
        self._separator = "\x1e"

    def split(self, frame: Frame) -> Sequence[Unit]:
        assert isinstance(frame, str)
        if frame[-1:] in ("\x1e", "\x18"):
            self._separator = frame[-1]
        *units, rest = frame.split(self._separator)
        if rest or not units:
            raise ProtocolViolation("a batch that doesn't end with a record separator")
        return units

    def join(self, units: Sequence[Unit]) -> Frame:
        return "".join(f"{unit!s}{self._separator}" for unit in units)


class PrefixedBatch:
    """Units of bytes, each preceded by its length in four octets, the highest first."""

    batched = True

    def split(self, frame: Frame) -> Sequence[Unit]:
        assert isinstance(frame, bytes)
        units = []
        position = 0
        while position < len(frame):
            start = position + 4
            position = start + int.from_bytes(frame[position:start])
            units.append(frame[start:position])
        if position != len(frame) or not units:
            raise ProtocolViolation("a batch that is empty or cut off")
        return units

    def join(self, units: Sequence[Unit]) -> Frame:
        return b"".join(
            part
            for unit in units
            if isinstance(unit, bytes)
            for part in (len(unit).to_bytes(4), unit)
        )
