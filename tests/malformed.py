"""Malformed messages of every kind, derived from the message classes themselves.

And what no answer to them may tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import inspect

from serverwamp.protocol.messages import BY_CODE, Message

TOO_BIG = 2**53 + 1
SAMPLES: Sequence[Any] = (None, True, 5, 1.5, "text", b"binary", [1], {"a": 1}, float("nan"))
"""A value of every type there is; what doesn't fit a place in a message is wrong there."""

MESSAGE_CLASSES = tuple(BY_CODE.values())

INSIDE = re.compile(
    r"""Traceback | File\ " | \.py | /\w+/ | \bat\ 0x | <class | NoneType | Error\b | Exception |
    codec | unhashable | recursion | strict_map_key | max_\w+_len | msgspec | orjson | unpack""",
    re.VERBOSE,
)
"""What Python, the libraries and the file system would say, and a client needn't know."""


def elements(cls: type[Message]) -> list[inspect.Field]:
    """Return what a message of the class has after its type code."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return list(info.fields)


def well_formed(cls: type[Message]) -> list[Any]:
    """Return a message with all its elements, each of the right type."""
    return [cls.type_code, *(_right(field) for field in elements(cls))]


def malformed(cls: type[Message], *, binary: bool) -> Iterator[tuple[str, list[Any]]]:
    """Yield messages of which one element is missing, surplus, or of a wrong type.

    `binary` tells whether the format can hold bytes and NaN, and no integers beyond 64 bits.
    """
    right = well_formed(cls)
    fields = elements(cls)
    for length in range(1, 1 + sum(field.required for field in fields)):
        yield f"{length} of its elements", right[:length]
    yield "a surplus element", [*right, {}]
    for position, field in enumerate(fields, start=1):
        for value in _wrong(field.type, binary):
            yield (
                f"{field.name} as {value!r}",
                [*right[:position], value, *right[position + 1 :]],
            )


def _right(field: inspect.Field) -> Any:
    if field.name == "details" and isinstance(field.type, inspect.StructType):
        return {"roles": {"caller": {}}}
    if field.name in ("realm", "reason", "error", "topic", "procedure"):
        return "com.example.name"
    return next(value for value in (5, "text", {}, [1]) if _fits(field.type, value))


def _alternatives(kind: inspect.Type) -> Sequence[inspect.Type]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _fits(kind: inspect.Type, value: Any) -> bool:
    return any(_is_one(alternative, value) for alternative in _alternatives(kind))


def _is_one(kind: inspect.Type, value: Any) -> bool:
    match kind:
        case inspect.AnyType():
            return True
        case inspect.NoneType():
            return value is None
        case inspect.BoolType():
            return type(value) is bool
        case inspect.IntType():
            return type(value) is int
        case inspect.StrType():
            return type(value) is str
        case inspect.LiteralType():
            return value in kind.values
        case inspect.ListType():
            return type(value) is list
        case inspect.DictType() | inspect.StructType():
            return type(value) is dict
    raise NotImplementedError(kind)


def _wrong(kind: inspect.Type, binary: bool) -> Iterator[Any]:
    """Yield a value of every type that doesn't fit, also inside of lists and dicts."""
    for value in SAMPLES:
        if not _fits(kind, value) and (binary or not (type(value) is bytes or value != value)):
            yield value
    for alternative in _alternatives(kind):
        match alternative:
            case inspect.IntType(ge=lowest, le=highest) if lowest is not None:
                yield lowest - 1
                if highest is not None:
                    yield from (highest + 1, 2**64 - 1 if binary else 2**64)
            case inspect.ListType(item_type=inner):
                yield from ([value] for value in _wrong(inner, binary))
            case inspect.DictType(value_type=inner):
                yield from ({"name": value} for value in _wrong(inner, binary))
            case inspect.StructType(fields=fields):
                for field in fields:
                    for value in _wrong(field.type, binary):
                        yield {"roles": {"caller": {}}, field.name: value}
