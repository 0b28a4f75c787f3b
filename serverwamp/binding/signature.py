"""Inspect functions: their parameters, what they wrap, and the names in their annotations."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from types import NoneType
from typing import Any, Final, TypeAlias

from serverwamp.binding.annotations import Names, behind, evaluated, is_typed_dict, members_of
from serverwamp.binding.records import record_of
from serverwamp.errors import ConfigurationError

Function: TypeAlias = Callable[..., Any]
"""Any callable."""

VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
MISSING: Final = inspect.Parameter.empty
"""Stands for an annotation or a default value that isn't there."""
OMITTED: Final[Any] = object()
"""The default value of a ``NotRequired`` item: if a message doesn't have it, it isn't passed."""


def bound_names(function: Any) -> frozenset[str]:
    """Return the names of parameters that already have a value, by a partial or as ``self``."""
    given: set[str] = set()
    for layer in _layers(function):
        if isinstance(layer, functools.partial):
            given.update(layer.keywords)
        constructors = ("__init__", "__new__") if isinstance(layer, type) else ()
        for inner in (layer, *(inspect.getattr_static(layer, name) for name in constructors)):
            given.update(_names_of(inner) - _names_of(function))
    return frozenset(given)


def _names_of(function: Any) -> frozenset[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin without a known signature
        return frozenset()
    variable = (inspect.Parameter.POSITIONAL_ONLY, *VARIABLE)
    return frozenset(p.name for p in parameters if p.kind not in variable)


def name_of(function: Function) -> str:
    """Return the name of a function for messages to the developer."""
    return getattr(function, "__qualname__", None) or repr(function)


def is_async_generator(function: Function) -> bool:
    """Tell whether calling `function` returns an async generator, even if it is wrapped."""
    for layer in _layers(function):
        if inspect.isasyncgenfunction(layer) or inspect.iscoroutinefunction(layer):
            return inspect.isasyncgenfunction(layer)
    return False


def _layers(function: Any) -> Iterator[Any]:
    """Yield a function and the functions that it wraps, from the outside to the inside."""
    while True:
        yield function
        is_instance = not (
            inspect.isroutine(function) or isinstance(function, (functools.partial, type))
        )
        if is_instance:
            yield type(function).__call__
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif is_instance:
            function = type(function).__call__
        else:
            return


def called(function: Function) -> Any:
    """Return the function that is called: `function`, or for an instance its ``__call__``."""
    if inspect.isroutine(function) or isinstance(function, (functools.partial, type)):
        return function
    return type(function).__call__


# ---- annotations

SURROUNDINGS: Final = "__serverwamp_surroundings__"
"""The attribute of a function that stores the local names for its annotations."""


def note_surroundings(function: Function) -> None:
    """Store the local names that the annotations of `function` may use, while they exist.

    With postponed annotations, nothing else refers to a class that is local to a function. All
    local classes are stored, because the annotations of one may name another.
    """
    plain = _annotated(function)
    if not inspect.isfunction(plain) or "." not in plain.__qualname__:
        return
    words = set(re.findall(r"\w+", str(list(plain.__annotations__.values()))))
    names: dict[str, Any] = {}
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        encloses = plain.__qualname__.startswith(f"{code.co_qualname}.")
        if encloses and frame.f_globals is plain.__globals__:
            found = {
                name: value
                for name, value in frame.f_locals.items()
                if name in words or isinstance(value, type)
            }
            names = {**found, **names}
        frame = frame.f_back
    if names:
        setattr(plain, SURROUNDINGS, names)


def _annotated(function: Function) -> Any:
    """Return the object that has the annotations of `function`."""
    *_, plain = _layers(function)
    return plain.__init__ if inspect.isclass(plain) else plain


def resolved(function: Function, annotation: Any) -> Any:
    """Return an annotation of `function` as a type, even if it is written as text.

    Raises: NameError when a name in it isn't known (yet).
    """
    return evaluated({"it": annotation}, names_around(function))["it"]


def names_around(function: Function) -> Names:
    """Return the namespace for the annotations of a function."""
    plain = _annotated(function)
    if not inspect.isfunction(plain):
        return {}
    local = {**getattr(plain, SURROUNDINGS, {}), **inspect.getclosurevars(plain).nonlocals}
    return {**plain.__globals__, **local}


def named_type(annotation: Any, names: Names) -> Any:
    """Return the type in an annotation, without aliases, metadata and ``| None``."""
    while True:
        further, members = behind(annotation, names), members_of(annotation) or ()
        if further is not None:
            annotation, names = further
        elif typing.get_origin(annotation) is typing.Annotated:
            annotation = annotation.__origin__
        elif len(members) == 2 and NoneType in members:
            annotation = members[members[0] is NoneType]
        else:
            return annotation


def parameters_of(function: Function) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a function; items of an unpacked TypedDict count as parameters.

    Raises: ConfigurationError when they aren't known, or something else is unpacked.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin
        raise ConfigurationError(
            f"the parameters of {name_of(function)} aren't known: write a function that calls it"
        ) from None
    for parameter in signature.parameters.values():
        items = None
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            items = _unpacked(function, parameter.annotation)
        if items is None:
            yield parameter
        else:
            yield from items


def _unpacked(function: Function, annotation: Any) -> Sequence[inspect.Parameter] | None:
    """Return the items of an unpacked TypedDict as parameters; None if nothing is unpacked."""
    if annotation is MISSING:
        return None
    unpacked = resolved(function, annotation)
    if typing.get_origin(unpacked) is not typing.Unpack:
        return None
    (items,) = typing.get_args(unpacked)
    if not is_typed_dict(typing.get_origin(items) or items):
        raise ConfigurationError(f"{name_of(function)} unpacks {items!r}, which isn't a TypedDict")
    record = record_of(items, names_around(function))
    assert record is not None
    return [
        inspect.Parameter(
            field.key,
            inspect.Parameter.KEYWORD_ONLY,
            default=MISSING if field.is_required else OMITTED,
            annotation=field.hint,
        )
        for field in record.fields
    ]
