"""Interpret type annotations: aliases, type variables, metadata, and default values.

This module converts no values, and doesn't know how libraries treat an annotation.
"""

from __future__ import annotations

import cmath
import dataclasses
import inspect
import math
import sys
import types
import typing
from collections import Counter, OrderedDict, abc, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from serverwamp.limits import MAX_EXPONENT

Names: TypeAlias = Mapping[str, Any]
"""The namespace in which postponed annotations are evaluated."""

NO_DEFAULT: Final[Any] = inspect.Parameter.empty
MSGSPEC_SCALARS: Final = frozenset(
    (type(None), bool, int, str, bytes, bytearray, datetime, date, time, timedelta, UUID)
)
"""Types that msgspec converts correctly."""


def is_bounded(number: Decimal) -> bool:
    """Tell whether a decimal is finite, and neither very large nor very close to zero."""
    return number.is_finite() and abs(number.adjusted()) <= MAX_EXPONENT


FINITE: Final[Mapping[Any, Callable[[Any], bool]]] = {
    float: math.isfinite,
    Decimal: is_bounded,
    complex: cmath.isfinite,
}
"""The types of numbers that can be infinite or NaN, and the functions that check for it."""
FROM_TEXT: Final = frozenset(
    (
        PurePath,
        PurePosixPath,
        PureWindowsPath,
        Path,
        IPv4Address,
        IPv4Interface,
        IPv4Network,
        IPv6Address,
        IPv6Interface,
        IPv6Network,
    )
)
"""Types of simple values that are made from text."""
SEQUENCES: Final[Mapping[Any, type]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    deque: deque,
    abc.Iterable: list,
    abc.Collection: list,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Set: set,
    abc.MutableSet: set,
}
"""Annotations of containers with any number of items, and the types that are created for them."""
MAPPINGS: Final[Mapping[Any, type]] = {
    dict: dict,
    OrderedDict: OrderedDict,
    defaultdict: defaultdict,
    Counter: Counter,
    abc.Mapping: dict,
    abc.MutableMapping: dict,
}

UNIONS: Final = (typing.Union, types.UnionType)
QUALIFIERS: Final = frozenset(("Required", "NotRequired", "ReadOnly", "Final"))
RELATIVE: Final = ("ForwardRef(", "typing.Self")
"""Parts of the repr of types whose meaning depends on where they are written."""
SELF: Final = "typing.Self"
"""The key in `Names` for the class that ``Self`` stands for. It isn't an identifier."""
REQUIRED: Final[Mapping[str, bool]] = {"Required": True, "NotRequired": False}


@dataclass(frozen=True)
class Converter:
    """Convert values of a type by a function: ``Annotated[T, Converter(f)]``.

    The function is called with the parsed value. If the function's parameter is annotated, the
    value is converted to that type first. If the function raises an exception, the client is told
    that the argument is invalid, without the text of the exception. A `WAMPError` is sent as it is.
    """

    convert: Callable[[Any], Any]
    """The function."""


def converter_of(hint: Any, declared: Mapping[Any, Converter]) -> Converter | None:
    """Return the converter of a type, from its metadata or else from `declared`; None if none."""
    own = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Converter)]
    if own:
        return own[-1]
    return declared.get(hint) if _has_hash(hint) else None


CONSTRAINTS: Final = tuple("gt ge lt le multiple_of pattern min_length max_length tz".split())
"""The fields of `msgspec.Meta` that aren't documentation."""


def is_documentation(item: Any) -> bool:
    """Tell whether an item of ``Annotated`` doesn't affect which values are valid."""
    if isinstance(item, msgspec.Meta):
        return all(getattr(item, name) is None for name in CONSTRAINTS)
    names = ("Doc", "DocInfo", "Unit")
    return item is None or isinstance(item, str) or type(item).__name__ in names


def key_of(hint: Any, names: Names) -> Any:
    """Return a key that identifies `hint`, to recognize it inside its own parts.

    The key is valid as long as the object `names` exists.
    """
    is_relative = isinstance(hint, str) or any(word in repr(hint) for word in RELATIVE)
    return (hint if _has_hash(hint) else repr(hint), id(names) if is_relative else None)


def _has_hash(hint: Any) -> bool:
    try:
        hash(hint)
    except TypeError:  # for example, metadata may be unhashable
        return False
    return True


def named(hint: Any) -> str:
    """Return the name of a type for messages to the developer."""
    return getattr(hint, "__name__", None) or str(hint)


def members_of(hint: Any) -> Sequence[Any] | None:
    """Return the members of a union; None if `hint` isn't one."""
    return typing.get_args(hint) if typing.get_origin(hint) in UNIONS else None


def generic(cls: Any, arguments: Iterable[Any]) -> Any:
    """Return ``cls[...]``."""
    return types.GenericAlias(cls, tuple(arguments))


def union_of(members: Iterable[Any]) -> Any:
    """Return the union of types."""
    return typing.Union[tuple(members)]  # noqa: UP007 - the members are in a tuple


# ---- annotations that stand for another type


def behind(hint: Any, names: Names) -> tuple[Any, Names] | None:
    """Resolve `hint` by one step; return the annotation it stands for, and the names valid there.

    Forward references, aliases, type variables and the like stand for another annotation. For
    everything else this returns None, also for ``Annotated``, whose metadata matters.

    Raises: NameError when a forward reference can't be resolved.
    """
    if isinstance(hint, (str, typing.ForwardRef)):
        return evaluated({"it": hint}, names)["it"], names
    origin = typing.get_origin(hint)
    alias = origin if hasattr(origin, "__value__") else hint
    if hasattr(alias, "__value__"):  # a TypeAliasType, of typing or of typing_extensions
        there = names_in(alias.__module__, names)
        value = evaluated({"it": alias.__value__}, there)["it"]
        arguments = dict(zip(alias.__type_params__, typing.get_args(hint), strict=False))
        return substituted(value, arguments), there
    if qualifier_of(hint) in QUALIFIERS:
        return (*typing.get_args(hint), Any)[0], names
    if isinstance(hint, dataclasses.InitVar):
        return hint.type, names
    if isinstance(hint, typing.NewType):
        return hint.__supertype__, names_in(hint.__module__ or "", names)
    if isinstance(hint, typing.TypeVar):
        return _behind_variable(hint), names
    if hint is typing.Self and SELF in names:
        return names[SELF], names
    return None


def _behind_variable(variable: typing.TypeVar) -> Any:
    """Return the annotation that an unbound type variable stands for."""
    has_default = getattr(variable, "has_default", None)  # since Python 3.13
    if has_default is not None and has_default():
        return variable.__default__  # type: ignore[attr-defined]
    if variable.__constraints__:
        return union_of(variable.__constraints__)
    return Any if variable.__bound__ is None else variable.__bound__


def qualifier_of(hint: Any) -> str:
    """Return the name of a qualifier such as ``Required``; another text if `hint` isn't one."""
    return str(typing.get_origin(hint)).rpartition(".")[2]


def evaluated(annotations: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Return annotations as types, even if they are written as text.

    Raises: NameError when a name in them isn't known.
    """
    holder = type("Holder", (), {"__annotations__": dict(annotations)})
    return typing.get_type_hints(holder, dict(names), {}, include_extras=True)


def substituted(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """Return `hint` with its type variables replaced by `arguments`."""
    if isinstance(hint, typing.TypeVar):
        return arguments.get(hint, hint)
    if isinstance(hint, dataclasses.InitVar):
        return substituted(hint.type, arguments)
    variables = getattr(hint, "__parameters__", ())
    if not arguments or not variables or isinstance(hint, type):
        return hint
    return hint[tuple(arguments.get(variable, variable) for variable in variables)]


def names_in(module: str, names: Names) -> Names:
    """Return the names in a module, and for other names those in `names`."""
    return {**names, **vars(sys.modules.get(module, types))}


def is_class(hint: Any) -> bool:
    """Tell whether `hint` is a class that can have direct instances."""
    return (
        isinstance(hint, type)
        and hint not in UNIONS
        and not inspect.isabstract(hint)
        and not getattr(hint, "_is_protocol", False)
    )


def is_typed_dict(cls: type) -> bool:
    """Tell whether a class is a ``TypedDict``, of typing or of typing_extensions."""
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


# ---- default values


def is_possible_default(value: Any, hint: Any, names: Names) -> bool:
    """Tell whether `value` can be the default value of a parameter for data.

    Otherwise it is probably a marker of another framework. Apart from simple values and containers,
    it has to be an instance of a class in `hint`. A plain ``object()`` is allowed as a sentinel.
    """
    if isinstance(value, Mapping):
        return all(
            is_possible_default(item, hint, names) for pair in value.items() for item in pair
        )
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return all(is_possible_default(item, hint, names) for item in value)
    return (
        type(value) in MSGSPEC_SCALARS
        or type(value) in FINITE
        or type(value) is object
        or value is msgspec.UNSET
        or isinstance(value, (Enum, *_classes_in(hint, names, set())))
    )


def _classes_in(hint: Any, names: Names, seen: set[Any]) -> Iterator[type]:
    """Yield the classes in an annotation, including those in its arguments."""
    further, cls = behind(hint, names), typing.get_origin(hint) or hint
    if key_of(hint, names) in seen:
        return
    seen.add(key_of(hint, names))
    if further is not None:
        yield from _classes_in(*further, seen)
    elif cls is typing.Annotated:
        yield from _classes_in(hint.__origin__, names, seen)
    elif cls is not typing.Literal:
        for argument in typing.get_args(hint):
            yield from _classes_in(argument, names, seen)
        if is_class(cls) and cls not in (Any, object) and not is_typed_dict(cls):
            yield cls
