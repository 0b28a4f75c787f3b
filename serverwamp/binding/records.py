"""Records: classes with named, typed fields, whose instances are created by calling the class.

These are dataclasses, attrs classes, ``NamedTuple``, ``TypedDict`` and ``msgspec.Struct``. The
parameters of the constructor are the fields. So a client can't bypass the constructor, or set a
field that the constructor doesn't accept.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from serverwamp.binding.annotations import (
    NO_DEFAULT,
    QUALIFIERS,
    REQUIRED,
    SELF,
    Names,
    evaluated,
    is_class,
    is_typed_dict,
    named,
    names_in,
    qualifier_of,
    substituted,
)
from serverwamp.errors import ConfigurationError


@dataclass(frozen=True)
class Field:
    """A field of a record that a client may supply."""

    name: str
    """The name of the constructor's parameter."""
    key: str
    """The name in a message."""
    hint: Any
    """The annotation."""
    is_required: bool
    """Whether a message has to contain it."""
    default: Any = NO_DEFAULT
    """The default value; `NO_DEFAULT` if there is none, or a factory creates it."""


@dataclass(frozen=True)
class Record:
    """How to create an instance of a class from the fields in a message."""

    cls: Any
    """The class, which is called with the fields as keyword arguments."""
    fields: Sequence[Field]
    """The fields; in an array, in this order."""
    names: Names
    """The namespace for the annotations of the fields."""
    is_array: bool = False
    """Whether it is an array in a message instead of an object."""
    tag: tuple[str, Any] | None = None
    """The key and value that identify the class in a message."""
    forbids_unknown: bool = False
    """Whether unknown keys in a message are an error."""

    @property
    def offset(self) -> int:
        """The position of the first field in an array."""
        return 0 if self.tag is None else 1


def record_of(hint: Any, names: Names) -> Record | None:
    """Return how to create instances of the type `hint`; None if it isn't a record.

    Raises: ConfigurationError when its constructor can't be called; NameError when an annotation
        can't be resolved.
    """
    cls = typing.get_origin(hint) or hint
    if not is_class(cls):
        return None
    hints = functools.partial(_hints, cls, typing.get_args(hint), names)
    there = {**_names_of(cls, names), SELF: hint}
    if issubclass(cls, msgspec.Struct):
        return _struct(cls, hints(), there)
    if is_typed_dict(cls):
        return Record(dict, [_item(cls, name, item) for name, item in hints().items()], there)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return Record(cls, _parameters(cls, _of_tuple(cls), hints(), there), there, is_array=True)
    if hasattr(cls, "__attrs_attrs__"):
        return Record(cls, _parameters(cls, _of_attrs(cls), hints(), there), there)
    if dataclasses.is_dataclass(cls):
        return Record(cls, _parameters(cls, _of_dataclass(cls), hints(), there), there)
    return None


def _names_of(cls: type, names: Names) -> Names:
    variables = {variable.__name__: variable for variable in getattr(cls, "__parameters__", ())}
    return {**names_in(cls.__module__, names), cls.__name__: cls, **variables}


def _hints(cls: type, arguments: Sequence[Any], names: Names) -> dict[str, Any]:
    """Return the types of the fields of a class, with `arguments` for its type variables."""
    types_of = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    hints: dict[str, Any] = {}
    for base in reversed(vars(cls).get("__orig_bases__", cls.__bases__)):
        plain = typing.get_origin(base) or base
        if isinstance(plain, type) and plain not in (object, typing.Generic):
            given = [substituted(argument, types_of) for argument in typing.get_args(base)]
            hints |= _hints(plain, given, names)
    own = inspect.get_annotations(cls)
    if is_typed_dict(cls):  # its annotations include those of its bases
        own = {name: hint for name, hint in own.items() if name not in hints}
    fields = {name: hint for name, hint in own.items() if not _is_class_variable(hint)}
    evaluated_fields = evaluated(fields, _names_of(cls, names))
    return hints | {name: substituted(hint, types_of) for name, hint in evaluated_fields.items()}


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return re.match(r"(\w+\.)*ClassVar\b", annotation) is not None
    return annotation is typing.ClassVar or typing.get_origin(annotation) is typing.ClassVar


def _item(cls: Any, name: str, hint: Any) -> Field:
    # The class's own __required_keys__ ignores Required and NotRequired in postponed annotations.
    is_required = name in cls.__required_keys__
    marked = hint
    while typing.get_origin(marked) is typing.Annotated or qualifier_of(marked) in QUALIFIERS:
        is_required = REQUIRED.get(qualifier_of(marked), is_required)
        marked = typing.get_args(marked)[0]
    return Field(name, name, hint, is_required)


def _struct(cls: Any, hints: Mapping[str, Any], names: Names) -> Record:
    config = cls.__struct_config__
    fields = []
    for field in msgspec.structs.fields(cls):
        default = NO_DEFAULT if field.default is msgspec.NODEFAULT else field.default
        hint = hints.get(field.name, field.type)
        fields.append(Field(field.name, field.encode_name, hint, field.required, default))
    tag = None if config.tag is None else (config.tag_field, config.tag)
    return Record(cls, fields, names, config.array_like, tag, config.forbid_unknown_fields)


# ---- constructors

Declared: TypeAlias = tuple[str, str, Any, Any, bool]
"""The name of the parameter, the name of the field, its annotation as written, its default value,
and whether a factory creates the default value."""


def _of_dataclass(cls: Any) -> list[Declared]:
    return [
        (
            field.name,
            field.name,
            field.type,
            NO_DEFAULT if field.default is dataclasses.MISSING else field.default,
            field.default_factory is not dataclasses.MISSING,
        )
        for field in cls.__dataclass_fields__.values()
        if field.init and field._field_type is not dataclasses._FIELD_CLASSVAR  # type: ignore[attr-defined]
    ]


def _of_tuple(cls: Any) -> list[Declared]:
    written = {
        name: annotation
        for base in reversed(cls.__mro__)
        for name, annotation in inspect.get_annotations(base).items()
    }
    return [
        (name, name, written.get(name), cls._field_defaults.get(name, NO_DEFAULT), False)
        for name in cls._fields
    ]


def _of_attrs(cls: Any) -> list[Declared]:
    nothing = sys.modules["attr"].NOTHING
    return [
        (
            attribute.alias,
            attribute.name,
            attribute.type,
            NO_DEFAULT if attribute.default is nothing else attribute.default,
            hasattr(attribute.default, "takes_self"),  # a factory
        )
        for attribute in cls.__attrs_attrs__
        if attribute.init
    ]


def _parameters(
    cls: Any, declared: Sequence[Declared], hints: Mapping[str, Any], names: Names
) -> list[Field]:
    """Return the fields of a class whose constructor is generated or written by hand.

    A parameter of a generated constructor has the annotation of the field. A handwritten
    constructor has annotations of its own.
    """
    generated = {}
    for name, field, written, default, is_made in declared:
        hint = hints.get(field, written or Any)
        is_required = default is NO_DEFAULT and not is_made
        made = Field(name, name, hint, is_required, NO_DEFAULT if is_made else default)
        generated[name] = made, written
    parameters = dict(inspect.signature(cls).parameters)
    fields: dict[str, Field] = {}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        # The constructor passes its keyword arguments on to another one.
        fields = {name: made for name, (made, _) in generated.items()}
        parameters = {**inspect.signature(cls.__init__).parameters, **parameters}
        parameters.pop("self", None)
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigurationError(f"{name!r} of `{named(cls)}` can't be passed by name")
        own, written = generated.get(name, (None, None))
        annotation = parameter.annotation
        if own is not None and annotation in (NO_DEFAULT, written):
            hint = own.hint
        else:
            hint = Any if annotation is NO_DEFAULT else evaluated({"it": annotation}, names)["it"]
        is_required = parameter.default is NO_DEFAULT
        default = parameter.default
        if own is not None and not own.is_required and own.default is NO_DEFAULT:
            default = NO_DEFAULT  # a factory creates it
        fields[name] = Field(name, name, hint, is_required, default)
    return list(fields.values())
