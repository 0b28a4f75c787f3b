"""How deep and how long a message may be, which no decoder says of itself.

A message is looked at once it is decoded, level by level, so that no recursion can end the
process. Nothing is looked at that is too short to exceed anything, and of what holds many values
only what may exceed something: counting certain characters of the raw unit, many at a time, gives
an upper bound.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from math import inf
from typing import Any, Final

from msgspec.structs import astuple

from serverwamp import uris
from serverwamp.errors import InvalidURI, LimitExceeded
from serverwamp.protocol.messages import (
    Call,
    Hello,
    HelloDetails,
    Message,
    Publish,
    PublishOptions,
    Register,
    Role,
    Subscribe,
)

CONTAINERS: Final = frozenset((list, dict, HelloDetails, Role, PublishOptions))
"""What decoded messages are made of, beside what holds nothing."""

URI_FIELDS: Final[Mapping[type[Message], str]] = {
    Hello: "realm",
    Publish: "topic",
    Subscribe: "topic",
    Call: "procedure",
    Register: "procedure",
}

SQUARE: Final = bytes.maketrans(b"{}", b"[]")
NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
NO_CONTAINERS: Final = bytes(
    octet for octet in range(256) if not (0x80 <= octet < 0xA0 or 0xDC <= octet < 0xE0)
)
"""The octets that can't be the first of an array or a map in MessagePack."""

MANY: Final = 64
"""After so many values a message is looked at further only if it may exceed something."""


TEXTS: Final[Mapping[str, str]] = {
    "message_depth": "the message is nested more than {} levels deep",
    "message_values": "the message holds more than {} values",
    "array_length": "an array has more than {} elements",
    "map_length": "a map has more than {} entries",
    "uri_length": "a URI has more than {} characters",
}


@dataclass(frozen=True)
class ShapeLimits:
    """How deep and how long a message may be; the fields are those of `Limits`."""

    message_depth: float = inf
    """How many arrays and maps may stand in one another, the message itself among them."""
    array_length: float = inf
    map_length: float = inf
    uri_length: float = inf
    message_values: float = inf
    """How many values the message may hold; the decoders check that."""

    @cached_property
    def length(self) -> float:
        """The least of the numbers: in fewer octets or characters none of them is exceeded."""
        return min(self.message_values, self.array_length, self.map_length, self.uri_length)

    def check(self, message: Message, unit: str | bytes) -> None:
        """Check the message that was decoded from `unit`, JSON or MessagePack.

        Raises: LimitExceeded.
        """
        if len(unit) > self.length or self._may_exceed(unit):
            self._walk(message, unit)

    def check_every_value(self, message: Message) -> None:
        """Check a message of which nothing is known but that it may exceed something.

        Raises: LimitExceeded.
        """
        self._walk(message, None)

    def _may_exceed(self, unit: str | bytes) -> bool:
        if isinstance(unit, bytes):  # of MessagePack the lengths are checked as it is unpacked
            return len(unit.translate(None, NO_CONTAINERS)) > self.message_depth
        if unit.count("[") + unit.count("{") > self.message_depth:
            left = unit.encode().translate(SQUARE, NO_BRACKETS)
            for _ in range(int(self.message_depth)):
                left = left.replace(b"[]", b"")  # one level less
            if left:
                return True
        return len(unit) > self.length and (
            unit.count(",") >= self.array_length or unit.count(":") > self.map_length
        )

    def _walk(self, message: Message, unit: str | bytes | None) -> None:
        field = URI_FIELDS.get(type(message))
        if field is not None and len(getattr(message, field) or "") > self.uri_length:
            raise self.exceeded("uri_length", message)
        level: list[Any] = [message]
        depth = 0
        seen: float = 0
        while level:
            depth += 1
            if depth > self.message_depth:
                raise self.exceeded("message_depth", message)
            below: list[Any] = []
            for container in level:
                values = self._values(container, message)
                seen += len(values)
                if seen > MANY and unit is not None:
                    if not self._may_exceed(unit):
                        return
                    seen = -inf  # it is asked once
                below.extend(values)
            level = list(compress(below, map(CONTAINERS.__contains__, map(type, below))))

    def _values(self, container: Any, message: Message) -> Collection[Any]:
        if type(container) is list:
            if len(container) > self.array_length:
                raise self.exceeded("array_length", message)
            return container
        if type(container) is dict:
            if len(container) > self.map_length:
                raise self.exceeded("map_length", message)
            return container.values()
        return astuple(container)

    def exceeded(self, limit: str, message: Message | None) -> LimitExceeded:
        """Return what says that a message exceeds a limit."""
        text = TEXTS[limit].format(getattr(self, limit))
        if limit == "uri_length":
            return LimitExceeded(
                limit, text, request=message, uri=uris.INVALID_URI, error=InvalidURI
            )
        return LimitExceeded(limit, text, request=message)
