"""Conversions by pydantic, which is imported only when it is needed.

pydantic converts to its own classes completely by itself. Metadata inside them that pydantic would
ignore, such as constraints of msgspec, is refused. pydantic also accepts infinite numbers and NaN
by default, so the converted values are checked for them.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from serverwamp.binding.annotations import (
    FINITE,
    Names,
    behind,
    is_documentation,
    is_possible_default,
    key_of,
    members_of,
    named,
)
from serverwamp.binding.records import record_of
from serverwamp.errors import ConfigurationError, Unsuitable

OF_PYDANTIC: Final = frozenset(("pydantic", "pydantic_core"))
HOOK: Final = "__get_pydantic_core_schema__"
CONSTRAINTS: Final = frozenset("Gt Ge Lt Le MultipleOf MinLen MaxLen".split())
"""The classes of annotated_types that pydantic supports; it doesn't support their subclasses."""
PREDICATES: Final = frozenset(("Predicate", "Not"))
"""The classes of annotated_types that pydantic supports together with their subclasses."""
MOST_ERRORS: Final = 100
"""The maximum number of errors in an answer, so that a short message can't cause a long answer."""
LONGEST_KEY: Final = 100
"""The maximum length of a key in a path."""
ARRAYS: Final = (list, tuple, set, frozenset)
OF_FIELDS: Final = ("default_factory", "alias", "validation_alias")
"""Attributes of metadata that only have a meaning for fields of models."""
GROUP: Final = "__is_annotated_types_grouped_metadata__"


# ---- pydantic's types and metadata


def is_type(hint: Any) -> bool:
    """Tell whether `hint` is a pydantic model, a pydantic dataclass or another type of pydantic."""
    cls = typing.get_origin(hint) or hint
    if not isinstance(cls, type):
        return False
    return "__pydantic_validator__" in vars(cls) or hasattr(cls, HOOK)


def is_metadata(item: Any) -> bool:
    """Tell whether pydantic supports an item of ``Annotated``."""
    kind = type(item)
    return (
        _package(kind) in OF_PYDANTIC
        or (_package(kind) == "annotated_types" and kind.__name__ in CONSTRAINTS)
        or any(_package(c) == "annotated_types" and c.__name__ in PREDICATES for c in kind.__mro__)
        or hasattr(item, HOOK)
    )


def check_metadata(item: Any) -> None:
    """Check that pydantic supports an item of ``Annotated`` that no other library supports.

    Raises: ConfigurationError when it doesn't.
    """
    for part in item if getattr(item, GROUP, False) is True else (item,):
        if not is_documentation(part) and not is_metadata(part):
            raise ConfigurationError(
                f"no library supports {item!r:.100} in an annotation. Use constraints of"
                f" `msgspec.Meta` or of pydantic. If the server fills in the parameter, use"
                f" add_default_arg(name, factory=...) before the route is added"
            )


def check_no_field(item: Any) -> None:
    """Check that an item of ``Annotated`` has no settings that only apply to fields of models.

    Raises: ConfigurationError when it has.
    """
    if _package(type(item)) not in OF_PYDANTIC:
        return
    has_default = repr(getattr(item, "default", ...)) not in ("Ellipsis", "PydanticUndefined")
    if has_default or any(getattr(item, name, None) for name in OF_FIELDS):
        raise ConfigurationError(
            f"the default value or alias of {item!r:.100} has no effect, because it isn't in the"
            f" annotation of a model's field. Write a default value after the annotation"
        )


def declares_type(metadata: Sequence[Any]) -> bool:
    """Tell whether metadata defines how values of the annotated type are created."""
    return any(hasattr(item, HOOK) for item in metadata)


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def fields_of(cls: Any) -> Mapping[str, Any] | None:
    """Return the fields of a pydantic model or dataclass by name; None for any other class."""
    if not isinstance(cls, type):
        return None
    fields = getattr(cls, "__pydantic_fields__", None)  # models have it since pydantic 2.10
    return getattr(cls, "model_fields", None) if fields is None else fields


def names_of(cls: type, names: Names) -> Names:
    """Return the namespace for the annotations of a class."""
    return {**names, **vars(sys.modules[cls.__module__]), cls.__name__: cls}


def keys_of(name: str, field: Any) -> Sequence[str]:
    """Return the keys that the field of a model may have in a message."""
    keys = [name, field.alias, field.validation_alias]
    keys += getattr(field.validation_alias, "choices", ())
    paths = [getattr(key, "path", [key])[0] for key in keys]  # the first step of an AliasPath
    return [key for key in paths if isinstance(key, str)]


# ---- converting


def converter(hint: Any) -> Callable[[Any], Any]:
    """Return a function that converts values to `hint` by pydantic.

    Raises: ConfigurationError when pydantic doesn't support the type; NameError when a name isn't
        known yet.
    """
    pydantic = _imported(hint)
    try:
        adapter = pydantic.TypeAdapter(hint)
    except NameError:
        raise
    except (pydantic.errors.PydanticUserError, RuntimeError, TypeError) as error:
        raise ConfigurationError(str(error)) from None
    # In strict mode pydantic accepts text as a date only when it parses JSON.
    schema = repr(adapter.core_schema)
    is_strict, has_choices = "'strict': True" in schema, "union'" in schema
    may_be_infinite = admits_infinity(hint)

    def convert(value: Any) -> Any:
        try:
            try:
                converted = adapter.validate_python(value)
            except pydantic.ValidationError:
                if not is_strict:
                    raise
                converted = _by_rules_of_json(adapter, value)
        except pydantic.ValidationError as error:
            raise _unsuitable(error, [value] if has_choices else []) from None
        if not may_be_infinite:
            _check_finite(converted)
        return converted

    return convert


def _by_rules_of_json(adapter: Any, value: Any) -> Any:
    from pydantic_core import PydanticSerializationError, to_json

    try:
        text = to_json(value, bytes_mode="utf8")
    except (PydanticSerializationError, ValueError):
        raise Unsuitable("the type needs values that JSON can express") from None
    return adapter.validate_json(text)


def constrained(convert: Callable[[Any], Any] | None, metadata: Sequence[Any]) -> Any:
    """Return an annotation with which pydantic applies `metadata` to the results of `convert`."""
    inner: Any = Any
    if convert is not None:
        inner = typing.Annotated[Any, _imported(metadata).PlainValidator(convert)]
    return annotated(inner, metadata)


def annotated(hint: Any, metadata: Sequence[Any]) -> Any:
    """Return `hint` with metadata."""
    return typing.Annotated[(hint, *metadata)]


def _imported(hint: Any) -> Any:
    try:
        import pydantic
    except ImportError:
        raise ConfigurationError(f"{hint} needs pydantic, which isn't installed") from None
    return pydantic


def explained(error: Exception) -> Unsuitable | None:
    """Return the meaning of a validation error of pydantic; None for any other error."""
    core = sys.modules.get("pydantic_core")
    if core is None or not isinstance(error, core.ValidationError):
        return None
    return _unsuitable(error, ())


def _unsuitable(error: Any, values: Sequence[Any]) -> Unsuitable:
    """Return the meaning of a validation error.

    If the annotation has a union, `values` holds the validated value, else nothing.
    """
    # The input and the exceptions of validators aren't meant for the client.
    details = []
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    for detail in errors[:MOST_ERRORS]:
        steps = detail["loc"]
        if values:
            steps = _without_choices(steps, values[0], is_missing=detail["type"] == "missing")
        details.append(Unsuitable(detail["msg"], path_of(steps)))
    return Unsuitable(details[0].message, details[0].path, details)


def path_of(location: Sequence[int | str]) -> str:
    """Return keys and positions as a path such as ``.lines[0]``; long keys are shortened."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{str(part)[:LONGEST_KEY]}"
        for part in location
        if part != "[key]"
    )


def _without_choices(
    location: Sequence[int | str], value: Any, *, is_missing: bool
) -> Sequence[int | str]:
    """Return the steps to a part of `value`, without steps that name a member of a union."""
    steps: list[int | str] = []
    for position, step in enumerate(location, 1):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, ARRAYS) and isinstance(step, int) and step < len(value):
            value = next(islice(value, step, None))
        elif not is_missing or position < len(location):
            continue
        steps.append(step)
    return steps


# ---- what pydantic doesn't check


def check(hint: Any, names: Names) -> None:
    """Check that pydantic ignores nothing inside one of its types.

    Raises: ConfigurationError when it does; NameError when an annotation can't be resolved.
    """
    seen: set[Any] = set()
    kept: list[Names] = []  # keeps the objects alive whose ids are part of keys

    def visit(hint: Any, names: Names) -> None:
        if key_of(hint, names) in seen:
            return
        seen.add(key_of(hint, names))
        kept.append(names)
        further = behind(hint, names)
        if further is not None:
            visit(*further)
            return
        if typing.get_origin(hint) is typing.Annotated:
            for item in hint.__metadata__:
                check_metadata(item)
        for part in members_of(hint) or typing.get_args(hint):
            if not isinstance(part, (str, int, bytes)):  # values of a Literal
                visit(part, names)
        cls = typing.get_origin(hint) or hint
        if not isinstance(cls, type):
            return
        fields = fields_of(cls)
        if fields is not None:
            there = names_of(cls, names)
            for name, field in fields.items():
                _check_field(cls, name, field, there)
                visit(field.annotation, there)
            return
        record = record_of(hint, names)
        if record is not None:
            _check_constructor(cls)
            for item in record.fields:
                visit(item.hint, record.names)

    visit(hint, names)


def _check_field(cls: type, name: str, field: Any, names: Names) -> None:
    """Check the metadata and the default value of a field of a model."""
    from pydantic_core import PydanticUndefined

    for item in field.metadata:
        check_metadata(item)
    value = field.default
    if value is not PydanticUndefined and not is_possible_default(value, field.annotation, names):
        raise ConfigurationError(f"the default of {name!r} of `{named(cls)}` isn't data: {value!r}")


def _check_constructor(cls: type) -> None:
    """Check that a dataclass has no constructor of its own, because pydantic wouldn't call it."""
    code = getattr(inspect.getattr_static(cls, "__init__"), "__code__", None)
    is_generated = code is not None and code.co_filename == "<string>"
    if dataclasses.is_dataclass(cls) and (not is_generated or cls.__new__ is not object.__new__):
        raise ConfigurationError(
            f"pydantic doesn't call the constructor of `{named(cls)}`: make it a pydantic dataclass"
        )


# ---- numbers


def admits_infinity(hint: Any, config: Mapping[str, Any] | None = None) -> bool:
    """Tell whether an annotation, or a part of it, explicitly allows infinite numbers and NaN."""
    if config and config.get("allow_inf_nan"):
        return True
    if any(_is_admission(item) for item in getattr(hint, "__metadata__", ())):
        return True
    return any(
        admits_infinity(part)
        for part in typing.get_args(hint)
        if not isinstance(part, (str, int, bytes))
    )


def _is_admission(item: Any) -> bool:
    return getattr(item, "allow_inf_nan", False) is True or any(
        map(_is_admission, getattr(item, "metadata", ()))
    )


def _check_finite(value: Any) -> None:
    """Check that all numbers in a converted value are finite, unless their fields allow others.

    Raises: Unsuitable.
    """
    is_finite = next((FINITE[kind] for kind in FINITE if isinstance(value, kind)), None)
    if is_finite is not None:
        if not is_finite(value):
            raise Unsuitable("Input should be a finite number")
        return
    for step, item in _parts_of(value):
        try:
            _check_finite(item)
        except Unsuitable as error:
            raise error.below(step) from None


def _parts_of(value: Any) -> Sequence[tuple[str, Any]]:
    if isinstance(value, Mapping):
        keys = [(f".{key}", key) for key in value]
        return keys + [(f".{key}", item) for key, item in value.items()]
    if isinstance(value, ARRAYS):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    fields = fields_of(type(value))
    if fields is not None:
        config = getattr(value, "model_config", None) or getattr(value, "__pydantic_config__", None)
        given = getattr(value, "model_fields_set", fields)
        return [
            ("" if name == "root" else f".{field.alias or name}", item)
            for name, field in fields.items()
            if name in given
            and (item := getattr(value, name, None)) is not field.default
            and not any(map(_is_admission, field.metadata))
            and not admits_infinity(field.annotation, config)
        ]
    if dataclasses.is_dataclass(value):
        return [(f".{f.name}", getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    return ()
