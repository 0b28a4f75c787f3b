"""Detect default args that accidentally replace arguments of clients.

A default arg fills in every parameter with its name, and clients can't supply that parameter. There
are two signs that the parameter was meant for clients. Either it has a default value that is data,
which would never be used. Or it is annotated with a data type, and the default arg has another
type.
"""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
import os
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Number
from types import NoneType
from typing import Any, Final
from uuid import UUID

from serverwamp.binding.annotations import Names, behind, members_of
from serverwamp.binding.pydantic_types import fields_of
from serverwamp.binding.records import record_of
from serverwamp.errors import ConfigurationError

DATA_TYPES: Final[Mapping[Any, tuple[type, ...]]] = {
    **dict.fromkeys((bool, int, float, complex, Decimal), (Number,)),
    str: (str, os.PathLike),
    **dict.fromkeys((bytes, bytearray), (bytes, bytearray, memoryview)),
    **{kind: (kind,) for kind in (date, datetime, time, timedelta, UUID)},
    dict: (collections.abc.Mapping,),
    **dict.fromkeys((list, tuple, set, frozenset), (collections.abc.Iterable,)),
}
"""For each data type in an annotation, the types that a matching default arg may have. Any type of
number matches any other."""
CONTAINERS: Final = frozenset((list, tuple, set, frozenset))
SINGLE_VALUES: Final = frozenset(DATA_TYPES) - CONTAINERS - {dict}
MAKERS: Final = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
    collections.abc.Awaitable,
    collections.abc.Coroutine,
    contextlib.AbstractContextManager,
    contextlib.AbstractAsyncContextManager,
)
"""Types that may wrap the type of a value in the return annotation of its factory."""


def check_not_shadowed(
    parameter: inspect.Parameter, names: Names, given: type | None, function_name: str
) -> None:
    """Check that a default arg of type `given` is meant for a parameter; None is an unknown type.

    `names` is the namespace for the function's annotations.

    Raises: ConfigurationError when it isn't.
    """
    default, is_other = parameter.default, False
    with suppress(Exception):  # the annotation may use names that exist only for type checkers
        is_other = given is not None and not _may_be(given, parameter.annotation, names)
    if isinstance(default, (*DATA_TYPES, Enum)):
        why = f"its default value, {default!r}, would never be used"
    elif is_other and given is not None:
        why = f"it is annotated with {parameter.annotation!r}, and the default arg is a"
        why += f" {given.__name__}"
    else:
        return
    raise ConfigurationError(
        f"the default arg {parameter.name!r} fills in a parameter of {function_name} that clients"
        f" seem to supply: {why}; rename one of them"
    )


def type_of_result(factory: Callable[..., Any]) -> type | None:
    """Return the type of the values that a factory creates; None if its annotation doesn't tell."""
    if inspect.isclass(factory):
        return factory
    try:
        result = typing.get_type_hints(factory).get("return")
    except Exception:
        return None
    if typing.get_origin(result) in MAKERS:
        arguments = typing.get_args(result)
        result = arguments[-1 if typing.get_origin(result) is collections.abc.Coroutine else 0]
    result = typing.get_origin(result) or result
    return result if inspect.isclass(result) and result is not NoneType else None


def _may_be(given: type, annotation: Any, names: Names) -> bool:
    """Tell whether an annotation may stand for the type `given`; True when in doubt."""
    further, members = behind(annotation, names), members_of(annotation)
    if further is not None:
        return _may_be(given, *further)
    if members is not None:
        return any(_may_be(given, member, names) for member in members if member is not NoneType)
    origin = typing.get_origin(annotation) or annotation
    if origin is typing.Annotated:
        return _may_be(given, typing.get_args(annotation)[0], names)
    if inspect.isclass(origin) and issubclass(origin, Enum):
        return issubclass(given, origin)
    if origin is typing.Literal:
        return any(_may_be(given, type(choice), names) for choice in typing.get_args(annotation))
    if given in SINGLE_VALUES and (fields_of(origin) is not None or record_of(annotation, names)):
        return False
    if issubclass(given, (str, bytes)) and origin in CONTAINERS:
        return False  # although they are iterable
    return origin not in DATA_TYPES or issubclass(given, DATA_TYPES[origin])
