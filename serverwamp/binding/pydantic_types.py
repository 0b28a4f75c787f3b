"""What pydantic converts, and what it can't see to there. Imported only where it is used.

pydantic converts to its own classes wholly by itself. What it would ignore inside of them, such as
the constraints of msgspec, is refused; what it admits although nobody said so, numbers that aren't
finite, is looked for in what it has made.
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
"""The classes of annotated_types that pydantic honours, but not their subclasses."""
PREDICATES: Final = frozenset(("Predicate", "Not"))
"""Those that it honours with their subclasses."""
MOST_ERRORS: Final = 100
"""A caller isn't told of more, so that a short message can't cause a long answer."""
LONGEST_KEY: Final = 100
ARRAYS: Final = (list, tuple, set, frozenset)
OF_FIELDS: Final = ("default_factory", "alias", "validation_alias")
"""What says something of a field of a model, and nothing elsewhere."""
GROUP: Final = "__is_annotated_types_grouped_metadata__"


# ---- what is pydantic's


def is_type(hint: Any) -> bool:
    """Tell whether a class is a model, a dataclass or another type of pydantic's."""
    cls = typing.get_origin(hint) or hint
    if not isinstance(cls, type):
        return False
    return "__pydantic_validator__" in vars(cls) or hasattr(cls, HOOK)


def is_metadata(item: Any) -> bool:
    """Tell whether pydantic honours an item of ``Annotated``."""
    kind = type(item)
    return (
        _package(kind) in OF_PYDANTIC
        or (_package(kind) == "annotated_types" and kind.__name__ in CONSTRAINTS)
        or any(_package(c) == "annotated_types" and c.__name__ in PREDICATES for c in kind.__mro__)
        or hasattr(item, HOOK)
    )


def check_metadata(item: Any) -> None:
    """Check that pydantic honours an item of ``Annotated``, which nobody else does.

    Raises: ConfigurationError.
    """
    for part in item if getattr(item, GROUP, False) is True else (item,):
        if not is_documentation(part) and not is_metadata(part):
            raise ConfigurationError(
                f"nothing honours {item!r:.100} in an annotation. Constraints can be those of"
                f" `msgspec.Meta` or of pydantic. What the server fills in is a default arg:"
                f" add_default_arg(name, factory=...), before the route is added"
            )


def check_no_field(item: Any) -> None:
    """Check that an item of ``Annotated`` has nothing that counts for fields of models only.

    Raises: ConfigurationError.
    """
    if _package(type(item)) not in OF_PYDANTIC:
        return
    has_default = repr(getattr(item, "default", ...)) not in ("Ellipsis", "PydanticUndefined")
    if has_default or any(getattr(item, name, None) for name in OF_FIELDS):
        raise ConfigurationError(
            f"nothing honours the default value or the alias of {item!r:.100}, which isn't the"
            f" annotation of a model's field. A default value stands behind the annotation"
        )


def declares_type(metadata: Sequence[Any]) -> bool:
    """Tell whether metadata says by itself how values of the annotated type are made."""
    return any(hasattr(item, HOOK) for item in metadata)


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def fields_of(cls: Any) -> Mapping[str, Any] | None:
    """Return the fields of a model or dataclass of pydantic's; None for any other class."""
    if not isinstance(cls, type):
        return None
    fields = getattr(cls, "__pydantic_fields__", None)  # of models only since pydantic 2.10
    return getattr(cls, "model_fields", None) if fields is None else fields


def names_of(cls: type, names: Names) -> Names:
    """Return what the names in the annotations of a class stand for."""
    return {**names, **vars(sys.modules[cls.__module__]), cls.__name__: cls}


def keys_of(name: str, field: Any) -> Sequence[str]:
    """Return the names that the field of a model may have in a message."""
    keys = [name, field.alias, field.validation_alias]
    keys += getattr(field.validation_alias, "choices", ())
    paths = [getattr(key, "path", [key])[0] for key in keys]  # of an AliasPath the first step
    return [key for key in paths if isinstance(key, str)]


# ---- converting


def converter(hint: Any) -> Callable[[Any], Any]:
    """Return what has pydantic convert to `hint`.

    Raises: ConfigurationError when pydantic can't; NameError when it can't yet.
    """
    pydantic = _imported(hint)
    try:
        adapter = pydantic.TypeAdapter(hint)
    except NameError:
        raise
    except (pydantic.errors.PydanticUserError, RuntimeError, TypeError) as error:
        raise ConfigurationError(str(error)) from None
    # What is strict accepts fewer types in Python than in JSON, in which a date is text.
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
        raise Unsuitable("a value has no form in JSON, by whose rules it is checked") from None
    return adapter.validate_json(text)


def constrained(convert: Callable[[Any], Any] | None, metadata: Sequence[Any]) -> Any:
    """Return the annotation by which pydantic checks, with `metadata`, what `convert` has made."""
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
    """Return what an error of pydantic's says about a value; None for any other error."""
    core = sys.modules.get("pydantic_core")
    if core is None or not isinstance(error, core.ValidationError):
        return None
    return _unsuitable(error, ())


def _unsuitable(error: Any, values: Sequence[Any]) -> Unsuitable:
    """Return what an error says about a value, which `values` holds if there may be a choice."""
    # Without the input, and without the exceptions that validators raise.
    details = []
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    for detail in errors[:MOST_ERRORS]:
        steps = detail["loc"]
        if values:
            steps = _without_choices(steps, values[0], is_missing=detail["type"] == "missing")
        details.append(Unsuitable(detail["msg"], path_of(steps)))
    return Unsuitable(details[0].message, details[0].path, details)


def path_of(location: Sequence[int | str]) -> str:
    """Return the path that consists of keys and positions; long keys are cut off."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{str(part)[:LONGEST_KEY]}"
        for part in location
        if part != "[key]"
    )


def _without_choices(
    location: Sequence[int | str], value: Any, *, is_missing: bool
) -> Sequence[int | str]:
    """Return the steps to a part of a value without those that name a member of a union."""
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


# ---- what pydantic doesn't see to


def check(hint: Any, names: Names) -> None:
    """Check that nothing inside of a type of pydantic's is there in vain.

    Raises: ConfigurationError; NameError when a hint can't be resolved.
    """
    seen: set[Any] = set()
    kept: list[Names] = []  # whose ids are part of keys

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
            if not isinstance(part, (str, int, bytes)):  # of a Literal
                visit(part, names)
        cls = typing.get_origin(hint) or hint
        if not isinstance(cls, type):
            return
        fields = fields_of(cls)
        if fields is not None:
            there = names_of(cls, names)
            for name, field in fields.items():
                for item in field.metadata:
                    check_metadata(item)
                _check_default(cls, name, field.default, field.annotation, there)
                visit(field.annotation, there)
            return
        record = record_of(hint, names)
        if record is not None:
            _check_constructor(cls)
            for item in record.fields:
                visit(item.hint, record.names)

    visit(hint, names)


def _check_default(cls: type, name: str, value: Any, hint: Any, names: Names) -> None:
    from pydantic_core import PydanticUndefined

    if value is not PydanticUndefined and not is_possible_default(value, hint, names):
        raise ConfigurationError(f"the default of {name!r} of `{named(cls)}` is no data: {value!r}")


def _check_constructor(cls: type) -> None:
    """Check that a dataclass, which pydantic makes without calling it, loses nothing by that."""
    code = getattr(inspect.getattr_static(cls, "__init__"), "__code__", None)
    is_generated = code is not None and code.co_filename == "<string>"
    if dataclasses.is_dataclass(cls) and (not is_generated or cls.__new__ is not object.__new__):
        raise ConfigurationError(
            f"pydantic doesn't call the constructor of `{named(cls)}`: make it a pydantic dataclass"
        )


# ---- numbers


def admits_infinity(hint: Any, config: Mapping[str, Any] | None = None) -> bool:
    """Tell whether an annotation says, itself or in its parts, that numbers may be infinite."""
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
    """Check the numbers that pydantic has converted, except where fields admit others.

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
