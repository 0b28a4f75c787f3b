"""What type annotations stand for: aliases, type variables, metadata, and the default values.

Nothing is converted here, and nothing is known of what libraries do with an annotation.
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
"""What the names in postponed annotations stand for."""

NO_DEFAULT: Final[Any] = inspect.Parameter.empty
SCALARS: Final = frozenset(
    (type(None), bool, int, str, bytes, bytearray, datetime, date, time, timedelta, UUID)
)
"""What msgspec converts as it should be."""


def is_bounded(number: Decimal) -> bool:
    """Tell whether a decimal is finite, and neither very large nor very close to zero."""
    return number.is_finite() and abs(number.adjusted()) <= MAX_EXPONENT


FINITE: Final[Mapping[Any, Callable[[Any], bool]]] = {
    float: math.isfinite,
    Decimal: is_bounded,
    complex: cmath.isfinite,
}
"""The types of numbers that can be infinite, or none, with what tells."""
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
"""What is made of text, and is nothing but a value."""
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
"""What holds any number of items, and what is made for it."""
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
"""What stands in the text of types that depend on where they are written."""
SELF: Final = "typing.Self"
"""The name, as no other can be, of the class that ``Self`` stands for."""
REQUIRED: Final[Mapping[str, bool]] = {"Required": True, "NotRequired": False}


@dataclass(frozen=True)
class Converter:
    """Say how values of a type are made of what clients send: ``Annotated[T, Converter(f)]``.

    The function is called with what was parsed, after it was converted to the type of the
    function's parameter where that is annotated. If it raises an exception, the client is told that
    the argument is invalid, and nothing of the exception's text; a `WAMPError` is sent as it is.
    """

    convert: Callable[[Any], Any]
    """The function."""


def converter_of(hint: Any, declared: Mapping[Any, Converter]) -> Converter | None:
    """Return the converter of a type: of its own metadata, or else one that is `declared`."""
    own = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Converter)]
    if own:
        return own[-1]
    return declared.get(hint) if _has_hash(hint) else None


CONSTRAINTS: Final = tuple("gt ge lt le multiple_of pattern min_length max_length tz".split())
"""What `msgspec.Meta` can say that isn't documentation."""


def is_documentation(item: Any) -> bool:
    """Tell whether an item of ``Annotated`` says nothing about values."""
    if isinstance(item, msgspec.Meta):
        return all(getattr(item, name) is None for name in CONSTRAINTS)
    names = ("Doc", "DocInfo", "Unit")
    return item is None or isinstance(item, str) or type(item).__name__ in names


def key_of(hint: Any, names: Names) -> Any:
    """Return what tells `hint` from others, as it may be written again in its own parts.

    It is valid for as long as `names` are kept.
    """
    is_relative = isinstance(hint, str) or any(word in repr(hint) for word in RELATIVE)
    return (hint if _has_hash(hint) else repr(hint), id(names) if is_relative else None)


def _has_hash(hint: Any) -> bool:
    try:
        hash(hint)
    except TypeError:  # of metadata, for one thing
        return False
    return True


def named(hint: Any) -> str:
    """Return how to call a type when speaking of it to an author of handlers."""
    return getattr(hint, "__name__", None) or str(hint)


def members_of(hint: Any) -> Sequence[Any] | None:
    """Return the members of a union; None if `hint` isn't one."""
    return typing.get_args(hint) if typing.get_origin(hint) in UNIONS else None


def generic(cls: Any, arguments: Iterable[Any]) -> Any:
    """Return ``cls[...]``."""
    return types.GenericAlias(cls, tuple(arguments))


def union_of(members: Iterable[Any]) -> Any:
    """Return the union of types."""
    return typing.Union[tuple(members)]  # noqa: UP007 - made of a tuple


# ---- what is written for another type


def behind(hint: Any, names: Names) -> tuple[Any, Names] | None:
    """Return what `hint` is written for, one step further, and the names that are valid there.

    None if it is a type itself. ``Annotated`` isn't looked behind: its metadata counts.

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
    """Return what a type variable stands for where nothing is said about it."""
    has_default = getattr(variable, "has_default", None)  # of Python 3.13
    if has_default is not None and has_default():
        return variable.__default__  # type: ignore[attr-defined]
    if variable.__constraints__:
        return union_of(variable.__constraints__)
    return Any if variable.__bound__ is None else variable.__bound__


def qualifier_of(hint: Any) -> str:
    """Return the name of ``Required[...]`` and the like, of typing or of typing_extensions."""
    return str(typing.get_origin(hint)).rpartition(".")[2]


def evaluated(annotations: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Return annotations as types, whether they were written as types or as text."""
    holder = type("Holder", (), {"__annotations__": dict(annotations)})
    return typing.get_type_hints(holder, dict(names), {}, include_extras=True)


def substituted(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """Return `hint` with type variables replaced."""
    if isinstance(hint, typing.TypeVar):
        return arguments.get(hint, hint)
    if isinstance(hint, dataclasses.InitVar):
        return substituted(hint.type, arguments)
    variables = getattr(hint, "__parameters__", ())
    if not arguments or not variables or isinstance(hint, type):
        return hint
    return hint[tuple(arguments.get(variable, variable) for variable in variables)]


def names_in(module: str, names: Names) -> Names:
    """Return what names stand for in a module, and besides what they stand for in `names`."""
    return {**names, **vars(sys.modules.get(module, types))}


def is_class(hint: Any) -> bool:
    """Tell whether `hint` is a class of which there can be instances."""
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
    """Tell whether `value` is data, and not the mark by which another framework knows a parameter.

    An object of a class has to be of one that `hint` names. A bare ``object()`` may stand for what
    is missing.
    """
    if isinstance(value, Mapping):
        return all(
            is_possible_default(item, hint, names) for pair in value.items() for item in pair
        )
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return all(is_possible_default(item, hint, names) for item in value)
    return (
        type(value) in SCALARS
        or type(value) in FINITE
        or type(value) is object
        or value is msgspec.UNSET
        or isinstance(value, (Enum, *_classes_in(hint, names, set())))
    )


def _classes_in(hint: Any, names: Names, seen: set[Any]) -> Iterator[type]:
    """Yield the classes of which an annotation speaks, itself or in its arguments."""
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
