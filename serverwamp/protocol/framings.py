"""Framings: how WebSocket messages contain encoded WAMP messages, singly or in batches.

A *frame* is a WebSocket message, a *unit* an encoded WAMP message.

Spec: Advanced Profile, "Batched WebSocket transport".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from serverwamp.errors import ProtocolViolation
from serverwamp.protocol.formats import Unit

Frame: TypeAlias = str | bytes


class Framing(Protocol):
    """Splits frames into units, and joins units into frames."""

    batched: bool
    """Whether a frame may contain several units."""

    def split(self, frame: Frame) -> Sequence[Unit]:
        """Return the units in `frame`.

        Raises: ProtocolViolation when the batch is malformed.
        """
        ...

    def join(self, units: Sequence[Unit]) -> Frame:
        """Return a frame with these units: exactly one unless `batched` is true."""
        ...


class Unbatched:
    """Each frame is one unit."""

    batched = False

    def split(self, frame: Frame) -> Sequence[Unit]:
        """Return the only unit."""
        return (frame,)

    def join(self, units: Sequence[Unit]) -> Frame:
        """Return the only unit."""
        return units[0]


class SeparatedBatch:
    """Text units, each followed by a separator.

    The separator is 0x1e. Autobahn|Python uses 0x18 instead. If the client has used 0x18, frames to
    it do so too. JSON text can contain neither character.
    """

    batched = True

    def __init__(self) -> None:
        self._separator = "\x1e"

    def split(self, frame: Frame) -> Sequence[Unit]:
        """Return the units in `frame`, and remember its separator.

        Raises: ProtocolViolation when no separator follows the last unit.
        """
        assert isinstance(frame, str)
        if frame[-1:] in ("\x1e", "\x18"):
            self._separator = frame[-1]
        *units, rest = frame.split(self._separator)
        if rest or not units:
            raise ProtocolViolation("a batch that doesn't end with a record separator")
        return units

    def join(self, units: Sequence[Unit]) -> Frame:
        """Return a frame with these units, using the client's separator."""
        return "".join(f"{unit!s}{self._separator}" for unit in units)


class PrefixedBatch:
    """Binary units, each preceded by its length as a big-endian integer of four bytes."""

    batched = True

    def split(self, frame: Frame) -> Sequence[Unit]:
        """Return the units in `frame`.

        Raises: ProtocolViolation when a unit is shorter than its length says, or there is none.
        """
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
        """Return a frame with these units."""
        return b"".join(
            part
            for unit in units
            if isinstance(unit, bytes)
            for part in (len(unit).to_bytes(4), unit)
        )
