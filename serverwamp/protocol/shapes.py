"""Limits on the nesting depth of messages and on the lengths of their parts.

The decoders don't check these limits. So they are checked after decoding, level by level, without
recursion. Messages too short to exceed a limit are skipped. For long messages, the number of
certain characters in the encoded message is an upper bound. The values are checked only if such a
bound is above a limit.
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
"""The types in decoded messages that contain other values."""

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
"""The bytes that can't be the first byte of an array or map in MessagePack."""

MANY: Final = 64
"""After this many values, checking continues only if the encoded message may exceed a limit."""


TEXTS: Final[Mapping[str, str]] = {
    "message_depth": "the message is nested more than {} levels deep",
    "message_values": "the message holds more than {} values",
    "array_length": "an array has more than {} elements",
    "map_length": "a map has more than {} entries",
    "uri_length": "a URI has more than {} characters",
}


@dataclass(frozen=True)
class ShapeLimits:
    """Limits on the shape of a message; they have the names and meanings of those in `Limits`."""

    message_depth: float = inf
    array_length: float = inf
    map_length: float = inf
    uri_length: float = inf
    message_values: float = inf
    """Checked by the formats before they decode a message."""

    @cached_property
    def length(self) -> float:
        """The smallest limit except `message_depth`. A shorter message can't exceed any of them."""
        return min(self.message_values, self.array_length, self.map_length, self.uri_length)

    def check(self, message: Message, unit: str | bytes) -> None:
        """Check a message that was decoded from a JSON or MessagePack unit.

        Raises: LimitExceeded.
        """
        if len(unit) > self.length or self._may_exceed(unit):
            self._walk(message, unit)

    def check_every_value(self, message: Message) -> None:
        """Check all values of a message, without first estimating from the encoded message.

        Raises: LimitExceeded.
        """
        self._walk(message, None)

    def _may_exceed(self, unit: str | bytes) -> bool:
        if isinstance(unit, bytes):  # MessagePack: lengths are checked while unpacking
            return len(unit.translate(None, NO_CONTAINERS)) > self.message_depth
        if unit.count("[") + unit.count("{") > self.message_depth:
            left = unit.encode().translate(SQUARE, NO_BRACKETS)
            for _ in range(int(self.message_depth)):
                left = left.replace(b"[]", b"")  # removes the innermost level
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
                    seen = -inf  # so that it is estimated only once
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
        """Return the exception for a message that exceeds a limit."""
        text = TEXTS[limit].format(getattr(self, limit))
        if limit == "uri_length":
            return LimitExceeded(
                limit, text, request=message, uri=uris.INVALID_URI, error=InvalidURI
            )
        return LimitExceeded(limit, text, request=message)
