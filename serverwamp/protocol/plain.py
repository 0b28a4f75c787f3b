"""Convert objects to plain values: the few types that every format supports.

The library that defines an object's class converts it, however deep the object is nested. pydantic
converts its models, with their aliases and serializers. msgspec converts its structs, with their
field names, tags and defaults.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from operator import attrgetter
from pathlib import PurePath
from typing import Any, Final, TypeAlias

import msgspec
import orjson

from serverwamp.protocol.models import BINARY_TYPES, is_model, model_class

Convert: TypeAlias = Callable[[Any], Any]

SCALARS: Final = frozenset((type(None), bool, int, float, str, bytes))
"""The most frequent types of single values, none of which needs a conversion."""
KNOWN_TYPES: Final[frozenset[type[Any]]] = SCALARS | {*BINARY_TYPES, msgspec.UnsetType}
"""Types that need no conversion, or that msgspec handles in its structs."""

PLAIN_TYPES: Final[Sequence[tuple[type, Convert]]] = (
    (str, str.__str__),  # a subclass's own __str__ is meant for people
    (int, int.__int__),
    (float, float.__float__),
    (Mapping, dict),
    (list, list),
    (tuple, list),
    (set, list),
    (frozenset, list),
    (deque, list),
    (PurePath, str),
    (IPv4Address, str),
    (IPv4Network, str),
    (IPv6Address, str),
    (IPv6Network, str),
)
"""How the instances of these classes and of their subclasses are converted."""


def to_plain(value: Any) -> Any:
    """Convert the outermost level of a value to a type that every format supports.

    The values inside it are not converted.

    Raises: TypeError when objects of its class can't be converted.
    """
    return _conversion_of(type(value))(value)


def plain(value: Any) -> Any:
    """Convert a value and everything inside it to plain values; keys become text.

    Raises: TypeError when objects of some class can't be converted.
    """
    return _by_msgspec(value if _suits_msgspec(value) else _unfolded(value))


def _by_msgspec(value: Any) -> Any:
    return msgspec.to_builtins(value, builtin_types=BINARY_TYPES, str_keys=True, enc_hook=to_plain)


def _suits_msgspec(value: Any) -> bool:
    """Tell whether msgspec alone would convert `value` correctly.

    msgspec treats everything that looks like a dataclass or attrs class as one, and would send
    attributes that must not be sent. This function uses orjson to find such objects, because orjson
    traverses the value just as fast, and calls a hook for each object.
    """
    try:
        orjson.dumps(value, _parts, orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return False
    return True


def _parts(value: Any) -> Any:
    """Return the parts of an object that still have to be checked; None if there are none.

    Raises: TypeError when msgspec would not convert the object correctly.
    """
    convert = _conversion_of(type(value))
    if convert is _leaf or convert is str:
        return None
    if convert is _of_struct:
        return [getattr(value, name, None) for name in value.__struct_fields__]
    if convert is list or (isinstance(convert, _Attributes) and convert.suits_msgspec):
        return convert(value)
    raise TypeError


def _unfolded(value: Any) -> Any:
    """Return a value in which all objects that msgspec would convert wrongly are converted."""
    kind = type(value)
    if kind in KNOWN_TYPES:
        return value
    if kind is dict:
        return {_key(key): _unfolded(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_unfolded(item) for item in value]
    convert = _conversion_of(kind)
    return value if convert is _leaf else _unfolded(convert(value))


def _key(key: Any) -> Any:
    """Return a key of a mapping.

    Raises: TypeError for a binary key, which msgspec (since version 0.23) would send as base64.
    """
    if isinstance(key, BINARY_TYPES):
        raise TypeError("binary data can't be sent as a key")
    return key


# ---- by class


def _new_conversion(kind: Any) -> Convert:
    """Return the function that converts objects of a class to plain values."""
    if is_model(kind):
        return model_class(kind)
    if issubclass(kind, Enum):
        return attrgetter("value")
    for base, plain_type in PLAIN_TYPES:
        if issubclass(kind, base):
            return plain_type
    if issubclass(kind, msgspec.Struct):
        return _of_struct
    if dataclasses.is_dataclass(kind):
        return _of_dataclass(kind)
    if hasattr(kind, "__attrs_attrs__"):
        names = [attribute.name for attribute in kind.__attrs_attrs__]
        return _Attributes([name for name in names if not name.startswith("_")])
    if hasattr(kind, "__get_pydantic_core_schema__"):  # such as SecretStr
        return partial(sys.modules["pydantic"].TypeAdapter(kind).dump_python, mode="json")
    return _leaf


_conversion_of: Final[Callable[[Any], Convert]] = lru_cache(maxsize=1024)(_new_conversion)


def _leaf(value: Any) -> Any:
    """Convert a value without parts, such as a date or a Decimal, to text."""
    if type(value) in KNOWN_TYPES:
        return value
    made = msgspec.to_builtins(value, builtin_types=BINARY_TYPES, enc_hook=_refuse)
    return _refuse(value) if made is value else made


def _refuse(value: Any) -> Any:
    raise TypeError(f"objects of type {type(value).__name__} can't be sent")


class _Attributes:
    """Converts objects to a dict of certain attributes, without those that have no value."""

    def __init__(self, names: Sequence[str], *, suits_msgspec: bool = False) -> None:
        self._names = names
        self._get = attrgetter(*names) if len(names) > 1 else None
        self.suits_msgspec: bool = suits_msgspec
        """Whether msgspec would send the same attributes."""

    def __call__(self, value: Any) -> dict[str, Any]:
        names = self._names
        try:
            if self._get is not None:
                return dict(zip(names, self._get(value), strict=True))
        except AttributeError:
            pass
        return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _of_dataclass(kind: Any) -> _Attributes:
    fields = dataclasses.fields(kind)
    # msgspec leaves out fields whose value is an attribute of the class only.
    suits_msgspec = all(field.init or not hasattr(kind, field.name) for field in fields)
    return _Attributes([field.name for field in fields], suits_msgspec=suits_msgspec)


def _of_struct(value: msgspec.Struct) -> Any:
    """Convert a struct by msgspec, except objects in it that other libraries have to convert."""
    if not _suits_msgspec(value):
        value = copy.copy(value)
        for name in value.__struct_fields__:
            item = getattr(value, name)
            if not _suits_msgspec(item):
                msgspec.structs.force_setattr(value, name, _unfolded(item))
    return _by_msgspec(value)
