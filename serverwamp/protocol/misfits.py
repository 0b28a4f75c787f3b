"""Find the value in a payload that a format can't express.

The description goes to the log. It tells the place and type of the value, but not the value itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from serverwamp.errors import SerializationError
from serverwamp.protocol.formats import Format
from serverwamp.protocol.messages import Event
from serverwamp.protocol.plain import to_plain

Part: TypeAlias = tuple[str, Any]
"""The step from a container to one of its values, such as ``[0]``, and that value."""

MOST_STEPS: Final = 100
"""How deep the search goes."""
LONGEST_TEXT: Final = 200
"""How many characters of a path or a reason are logged."""


def described_misfit(
    format_: Format, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str:
    """Describe the first value that can't be sent, and why; `name` is the payload's name."""
    parts: Sequence[Part] = [(f"{name}.args[{index}]", item) for index, item in enumerate(args)]
    parts = [*parts, *((f"{name}.kwargs[{key!r:.50}]", item) for key, item in kwargs.items())]
    path, value = "", None
    for _ in range(MOST_STEPS):
        found = _first_misfit(format_, parts)
        if found is None:
            break
        path, value = path + found[0], found[1]
        parts = _parts_of(value)
    failure = _failure_of(format_, [kwargs]) if not path else None
    if failure is not None:
        return f"{name}.kwargs can't be sent: {str(failure)[:LONGEST_TEXT]}"
    if not path:
        return f"{name} can't be sent, though each of its values can"
    reason = str(_failure_of(format_, [value]))
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{path[:LONGEST_TEXT]} is of type {kind}: {reason[:LONGEST_TEXT]}"


def _first_misfit(format_: Format, parts: Sequence[Part]) -> Part | None:
    """Return the first part that can't be sent, by binary search."""
    if _failure_of(format_, [value for _, value in parts]) is None:
        return None
    while len(parts) > 1:
        half = parts[: len(parts) // 2]
        fits = _failure_of(format_, [value for _, value in half]) is None
        parts = parts[len(half) :] if fits else half
    return parts[0]


def _failure_of(format_: Format, values: Sequence[Any]) -> SerializationError | None:
    try:
        format_.encode(Event(1, 1, {}, values))
    except SerializationError as failure:
        return failure
    return None


def _parts_of(value: Any) -> Sequence[Part]:
    if isinstance(value, Mapping):
        return [(f"[{key!r:.50}]", item) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return [(f".{shown}", getattr(value, name, None)) for shown, name in names]
    try:
        made = to_plain(value)
    except Exception:  # the value's class may raise anything
        return []
    if isinstance(made, dict):
        return [(f".{name}", item) for name, item in made.items()]
    return _parts_of(made) if isinstance(made, list) else []
