"""Convert pydantic objects as pydantic does for JSON, except that bytes stay bytes.

pydantic converts bytes to text, and fails on objects of some other libraries. This module therefore
reads fields with such values from the object itself, unless their declaration sets how they are
serialized. pydantic converts all other fields. It needn't be installed.
"""

from __future__ import annotations

import dataclasses
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

ARRAYS: Final = (list, tuple, set, frozenset, deque)
BINARY_TYPES: Final = (bytes, bytearray, memoryview)
MAY_HOLD_OTHERS: Final = ("'bytes'", "'any'", "'is-instance'", "'allow'")
"""Words in the schemas of classes with fields whose values pydantic must not convert."""


def is_model(kind: type) -> bool:
    """Tell whether a class is a pydantic model or a pydantic dataclass."""
    return hasattr(kind, "model_dump") or hasattr(kind, "__pydantic_serializer__")


class ModelClass:
    """Converts the outermost level of objects of a pydantic class, as they are to be sent.

    Values inside the result may still need a conversion.
    """

    def __init__(self, kind: Any) -> None:
        method = getattr(kind, "model_dump", None)
        is_overridden = getattr(method, "__module__", "pydantic.main") != "pydantic.main"
        decorators = getattr(kind, "__pydantic_decorators__", None)
        self._dump: Any = method if is_overridden else kind.__pydantic_serializer__.to_python
        self._is_left_alone = (
            is_overridden or decorators is None or bool(decorators.model_serializers)
        )
        self._fields: Mapping[str, _Field] = {}
        if not self._is_left_alone:
            self._fields = _fields_of(kind, decorators)
        self._is_root = getattr(kind, "__pydantic_root_model__", False)
        schema = repr(getattr(kind, "__pydantic_core_schema__", None))
        self._may_hold_others = any(word in schema for word in MAY_HOLD_OTHERS)

    def __call__(self, value: Any) -> Any:
        if self._is_left_alone:
            return self._dump(value, mode="json", by_alias=True)
        fields = self._fields_with_extras(value)
        kept = set()
        if self._may_hold_others:
            kept = {name for name in fields if _holds_others(getattr(value, name, None))}
            kept = {name for name in kept if fields[name].is_taken_from(value, name)}
        try:
            made = self._dumped(value, exclude=kept)
        except Exception:
            failing = {name for name in fields.keys() - kept if self._fails(value, name)}
            kept |= {name for name in failing if fields[name].is_taken_from(value, name)}
            made = self._dumped(value, exclude=kept)
        for name in kept:
            field = fields[name]
            made[field.alias or name] = _as_declared(getattr(value, name), field.classes)
        return made["root"] if self._is_root else made

    def _fields_with_extras(self, value: Any) -> Mapping[str, _Field]:
        extras = getattr(value, "__pydantic_extra__", None)
        if not extras:
            return self._fields
        return {**dict.fromkeys(extras, _Field(None, (), None)), **self._fields}

    def _dumped(self, value: Any, **choice: set[str]) -> dict[str, Any]:
        if not self._is_root:
            made: dict[str, Any] = self._dump(value, mode="json", by_alias=True, **choice)
            return made
        return (
            {} if choice.get("exclude") else {"root": self._dump(value, mode="json", by_alias=True)}
        )

    def _fails(self, value: Any, name: str) -> bool:
        try:
            self._dumped(value, include={name})
        except Exception:
            return True
        return False


model_class: Final[Callable[[Any], ModelClass]] = lru_cache(maxsize=1024)(ModelClass)


class _Field:
    """A field of a pydantic class, or a computed field."""

    def __init__(self, info: Any, hints: Iterable[Any], alias: str | None) -> None:
        parts = list(_parts_of(hints))
        self.alias = alias
        self.classes: set[Any] = {part for part in parts if _is_model_class(part)}
        """The models that it is declared to hold. Only their fields are sent, even if the value is
        of a subclass."""
        self._info = info
        self._is_serialized = any(map(_says_what_is_sent, parts))

    def is_taken_from(self, value: Any, name: str) -> bool:
        """Tell whether the field may be read from the object instead of converted by pydantic."""
        if self._is_serialized or getattr(self._info, "exclude", None):
            return False
        excludes = getattr(self._info, "exclude_if", None)  # since pydantic 2.12
        return excludes is None or not excludes(getattr(value, name))


def _fields_of(kind: Any, decorators: Any) -> Mapping[str, _Field]:
    infos = getattr(kind, "__pydantic_fields__", None)  # models have it since pydantic 2.10
    serialized = {
        name for each in decorators.field_serializers.values() for name in each.info.fields
    }
    fields = {
        name: _Field(info, (info.annotation, *info.metadata), info.serialization_alias)
        for name, info in (infos or getattr(kind, "model_fields", {})).items()
        if not serialized & {name, "*"}
    }
    for name, decorator in decorators.computed_fields.items():
        if not serialized & {name, "*"}:
            info = decorator.info
            fields[name] = _Field(info, (info.return_type,), info.alias)
    return fields


def _parts_of(hints: Iterable[Any]) -> Iterator[Any]:
    """Yield annotations and everything they consist of."""
    parts, seen = list(hints), set()
    for part in parts:
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            parts += typing.get_args(part)
            if hasattr(part, "__value__"):  # of a type alias
                parts.append(part.__value__)
            if isinstance(part, type) and not is_model(part):
                parts += _hints_in(part)


def _hints_in(kind: Any) -> Iterable[Any]:
    if not (
        dataclasses.is_dataclass(kind) or typing.is_typeddict(kind) or hasattr(kind, "_fields")
    ):
        return ()
    try:
        return typing.get_type_hints(kind, include_extras=True).values()
    except Exception:  # evaluating an annotation may raise anything; pydantic has accepted it
        return ()


def _is_model_class(part: Any) -> bool:
    return isinstance(part, type) and is_model(part)


def _says_what_is_sent(part: Any) -> bool:
    """Tell whether a part of an annotation is a serializer or an encoder, or excludes a field."""
    if isinstance(part, type):
        return False
    return (
        hasattr(part, "when_used")
        or hasattr(part, "encoder")
        or bool(getattr(part, "exclude", None))
    )


def _holds_others(value: Any) -> bool:
    """Tell whether a value contains bytes or objects of other libraries."""
    if value is None or isinstance(value, (str, int, float)):
        return False
    if isinstance(value, Mapping):
        return any(map(_holds_others, value.values()))
    if isinstance(value, ARRAYS):
        return any(map(_holds_others, value))
    kind = type(value)
    if isinstance(value, (*BINARY_TYPES, msgspec.Struct)) or hasattr(kind, "__attrs_attrs__"):
        return True
    if is_model(kind) or dataclasses.is_dataclass(kind):
        return any(map(_holds_others, getattr(value, "__dict__", {}).values()))
    return False


def _as_declared(value: Any, classes: set[Any]) -> Any:
    """Convert objects of subclasses of `classes` in a value, with only the fields of the base."""
    if not classes:
        return value
    if isinstance(value, Mapping):
        return {key: _as_declared(item, classes) for key, item in value.items()}
    if isinstance(value, ARRAYS):
        return [_as_declared(item, classes) for item in value]
    kind = type(value)
    base = next((base for base in kind.__mro__ if base in classes), kind)
    return value if base is kind else model_class(base)(value)
