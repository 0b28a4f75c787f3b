"""Values of all kinds as those few that every format knows.

Each library turns its own objects into plain values, wherever they are: pydantic its models, with
their aliases and serializers; msgspec its structs, with their names, tags and defaults.
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
KNOWN_TYPES: Final[frozenset[type[Any]]] = SCALARS | {*BINARY_TYPES, msgspec.UnsetType}
"""Types that formats, or msgspec's structs, take as they are."""

PLAIN_TYPES: Final[Sequence[tuple[type, Convert]]] = (
    (str, str.__str__),  # what else subclasses make of themselves is for people
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
"""What objects of a class, and of its subclasses, become."""


def to_plain(value: Any) -> Any:
    """Turn a value that a format doesn't know into one that it knows.

    What is inside of that can be of any kind still.

    Raises: TypeError when nothing is known about its class.
    """
    return _conversion_of(type(value))(value)


def plain(value: Any) -> Any:
    """Return a value with all that is inside of it as plain values; keys are texts.

    Raises: TypeError when nothing is known about a class.
    """
    return _by_msgspec(value if _suits_msgspec(value) else _unfolded(value))


def _by_msgspec(value: Any) -> Any:
    return msgspec.to_builtins(value, builtin_types=BINARY_TYPES, str_keys=True, enc_hook=to_plain)


def _suits_msgspec(value: Any) -> bool:
    """Tell whether msgspec makes the right plain values of all that is in `value`.

    It takes for a dataclass, or for a class of attrs, all that looks like one, and sends attributes
    that should stay here. orjson looks at everything as fast, and asks about objects.
    """
    try:
        orjson.dumps(value, _parts, orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return False
    return True


def _parts(value: Any) -> Any:
    """Return what is inside of an object that suits msgspec if its parts do.

    Raises: TypeError when it doesn't suit msgspec.
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
    """Return a value without objects that don't suit msgspec."""
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
    """Return a key, unless msgspec would make base64 of it, as it does since version 0.23."""
    if isinstance(key, BINARY_TYPES):
        raise TypeError("binary data can't be sent as a key")
    return key


# ---- by class


def _new_conversion(kind: Any) -> Convert:
    """Return what makes plain values of the objects of a class."""
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
    if hasattr(kind, "__get_pydantic_core_schema__"):  # like SecretStr
        return partial(sys.modules["pydantic"].TypeAdapter(kind).dump_python, mode="json")
    return _leaf


_conversion_of: Final[Callable[[Any], Convert]] = lru_cache(maxsize=1024)(_new_conversion)


def _leaf(value: Any) -> Any:
    """Return dates, numbers and the like as texts."""
    if type(value) in KNOWN_TYPES:
        return value
    made = msgspec.to_builtins(value, builtin_types=BINARY_TYPES, enc_hook=_refuse)
    return _refuse(value) if made is value else made


def _refuse(value: Any) -> Any:
    raise TypeError(f"objects of type {type(value).__name__} can't be sent")


class _Attributes:
    """Returns attributes of objects by their names, without those that have no value yet."""

    def __init__(self, names: Sequence[str], *, suits_msgspec: bool = False) -> None:
        self._names = names
        self._get = attrgetter(*names) if len(names) > 1 else None
        self.suits_msgspec: bool = suits_msgspec
        """Whether msgspec takes the same attributes."""

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
    # msgspec leaves out what only the class has a value for.
    suits_msgspec = all(field.init or not hasattr(kind, field.name) for field in fields)
    return _Attributes([field.name for field in fields], suits_msgspec=suits_msgspec)


def _of_struct(value: msgspec.Struct) -> Any:
    """Return a struct as msgspec has it, with the objects of other libraries as they have them."""
    if not _suits_msgspec(value):
        value = copy.copy(value)
        for name in value.__struct_fields__:
            item = getattr(value, name)
            if not _suits_msgspec(item):
                msgspec.structs.force_setattr(value, name, _unfolded(item))
    return _by_msgspec(value)
