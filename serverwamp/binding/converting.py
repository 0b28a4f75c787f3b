"""Convert values to each kind of type, given the functions that convert the parts.

Errors contain the path to the invalid part, however deep it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import msgspec

from serverwamp.binding import pydantic_types
from serverwamp.binding.annotations import named
from serverwamp.binding.records import Record
from serverwamp.errors import Unsuitable

logger: logging.Logger = logging.getLogger(__name__)

Convert: TypeAlias = Callable[[Any], Any]

MOST_ERRORS: Final = pydantic_types.MOST_ERRORS
ARRAYS: Final = (list, tuple, set, frozenset)
"""The types that formats decode arrays to."""


def explained(error: Exception) -> Unsuitable | None:
    """Return the meaning of an error for the sender of a value.

    None if the error is a failure of the server instead.
    """
    if isinstance(error, Unsuitable):
        return error
    if isinstance(error, msgspec.ValidationError):
        message, _, place = str(error).partition(" - at ")
        return Unsuitable(message, place.rpartition("$")[2].rstrip("`"))
    if isinstance(error, RecursionError):
        return Unsuitable("nested too deeply")
    return pydantic_types.explained(error)


def located(error: Exception, step: str) -> Exception:
    """Return an error about a value as an error about the enclosing value.

    `step` leads from the enclosing value to the value. Failures of the server stay unchanged.
    """
    unsuitable = explained(error)
    return error if unsuitable is None else unsuitable.below(step)


class Errors:
    """Collects the errors of the parts of a value, up to `MOST_ERRORS`."""

    def __init__(self) -> None:
        self._found: list[Unsuitable] = []

    def add(self, error: Exception, step: str) -> None:
        """Add an error about the part to which `step` leads.

        Raises: the error itself if it is a failure of the server; Unsuitable, with all errors, when
            there are too many.
        """
        unsuitable = explained(error)
        if unsuitable is None:
            raise error
        unsuitable = unsuitable.below(step)
        self._found += unsuitable.details or [unsuitable]
        if len(self._found) >= MOST_ERRORS:
            self.check()

    def check(self) -> None:
        """Raise the collected errors, if there are any.

        Raises: Unsuitable.
        """
        if self._found:
            first = self._found[0]
            raise Unsuitable(first.message, first.path, self._found[:MOST_ERRORS]) from None


def unchanged(value: Any) -> Any:
    """Return `value`."""
    return value


def explaining(convert: Convert | None) -> Convert | None:
    """Return a function like `convert` for pydantic: all errors about the value are `Unsuitable`.

    pydantic would treat some other errors as those of a validator of its own.
    """
    if convert is None:
        return None

    def converted(value: Any) -> Any:
        try:
            return convert(value)
        except Exception as error:
            raise located(error, "") from None

    return converted


def _kind_of(value: Any) -> str:
    """Return the name of a value's type for messages to the client."""
    if isinstance(value, ARRAYS):
        return "array"
    return "object" if isinstance(value, dict) else type(value).__name__


def to_value_of_text(cls: Any, value: Any) -> Any:
    """Convert text to an instance of `cls`.

    Raises: Unsuitable.
    """
    if isinstance(value, cls):
        return value
    try:
        if isinstance(value, str):
            return cls(value)
    except ValueError:
        pass
    raise Unsuitable(f"Expected `{named(cls)}`")


def to_complex(value: Any) -> complex:
    """Convert a number, or text, to a complex number.

    Raises: Unsuitable.
    """
    try:
        if type(value) in (int, float, str, complex):
            return complex(value)
    except (ValueError, OverflowError):
        pass
    raise Unsuitable("Expected `complex`")


def to_choice(
    choices: Sequence[tuple[Any, Any]], converts: Mapping[type, Convert | None], value: Any
) -> Any:
    """Return the choice with a certain value, such as the member of an enum.

    `choices` are pairs of a value and its choice. `converts` has a conversion for each type that
    formats encode as another type.

    Raises: Unsuitable.
    """
    key = _as_tuples(value)
    for of_choice, choice in choices:
        if choice is value or (type(of_choice) is type(key) and of_choice == key):
            return choice
    for kind, convert in converts.items():
        with suppress(Unsuitable, msgspec.ValidationError):
            made = value if convert is None else convert(value)
            for of_choice, choice in choices:
                if type(of_choice) is kind and of_choice == made:
                    return choice
    raise Unsuitable(f"Invalid value {value!r:.100}")


def _as_tuples(value: Any) -> Any:
    """Return an array, and the arrays in it, as tuples; any other value unchanged."""
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value


class FirstThatFits:
    """Converts to a union: to the first member that fits.

    A value of one of `exact_types` is returned unchanged. All strict conversions are tried before
    the lenient ones. The error is that of a lenient conversion.
    """

    def __init__(
        self, exact_types: frozenset[Any], strict: Sequence[Convert], lenient: Sequence[Convert]
    ) -> None:
        self._exact_types = exact_types
        self._strict = strict
        self._lenient = lenient

    def __call__(self, value: Any) -> Any:
        if type(value) in self._exact_types:
            return value
        if not isinstance(value, (list, dict)):
            return self._converted(value)
        known = KNOWN.get()
        if known is None:
            token = KNOWN.set({})
            try:
                return self._converted(value)
            finally:
                KNOWN.reset(token)
        key = (id(self), id(value))
        if key not in known:
            try:
                known[key] = value, self._converted(value), None
            except Unsuitable as error:
                known[key] = value, None, error
        _, made, failure = known[key]
        if failure is not None:
            raise failure.below("")
        return made

    def _converted(self, value: Any) -> Any:
        for convert in self._strict:
            try:
                return convert(value)
            except Exception as error:
                if explained(error) is None:
                    raise
        errors = []
        for convert in self._lenient:
            try:
                return convert(value)
            except Exception as error:
                unsuitable = explained(error)
                if unsuitable is None:
                    raise
                errors.append(unsuitable)
        raise max(errors, key=_fitness)


KNOWN: Final[ContextVar[dict[Any, tuple[Any, Any, Unsuitable | None]] | None]] = ContextVar(
    "KNOWN", default=None
)
"""Caches the results of unions inside a union, by the ids of the union and the value.

Several members of a union may convert the same part of a value. Without the cache, each level of
nesting would multiply the time. An entry holds the value, to keep its id valid, and the result or
the error.
"""


def _fitness(error: Unsuitable) -> int:
    """Return how well an unsuitable value fits: how deep in the value the error is.

    An invalid choice counts one less, because it may be the tag of another member of the union.
    """
    depth = error.path.count(".") + error.path.count("[")
    return depth - error.message.startswith("Invalid")


def to_sequence(cls: Any, convert: Convert, value: Any) -> Any:
    """Convert an array to `cls`, and its items by `convert`.

    Raises: Unsuitable.
    """
    if not isinstance(value, ARRAYS):
        raise Unsuitable(f"Expected `array`, got `{_kind_of(value)}`")
    items, errors = [], Errors()
    for position, item in enumerate(value):
        try:
            items.append(convert(item))
        except Exception as error:
            errors.add(error, _step(position))
    errors.check()
    return items if cls is list else _hashed(cls, items)


def _hashed(make: Convert, items: Any) -> Any:
    try:
        return make(items)
    except TypeError:
        raise Unsuitable("Expected items that are simple values") from None


def to_tuple(converts: Sequence[Convert], value: Any) -> Any:
    """Convert an array to a tuple, with a conversion for each item.

    Raises: Unsuitable.
    """
    if not isinstance(value, ARRAYS):
        raise Unsuitable(f"Expected `array`, got `{_kind_of(value)}`")
    if len(value) != len(converts):
        raise Unsuitable(f"Expected `array` of length {len(converts)}, got {len(value)}")
    items, errors = [], Errors()
    for position, (convert, item) in enumerate(zip(converts, value, strict=True)):
        try:
            items.append(convert(item))
        except Exception as error:
            errors.add(error, _step(position))
    errors.check()
    return tuple(items)


def to_mapping(
    make: Callable[[Any], Any], convert_key: Convert, convert: Convert, value: Any
) -> Any:
    """Convert the keys and values of an object; `make` creates the result from the dict.

    Raises: Unsuitable.
    """
    if not isinstance(value, dict):
        raise Unsuitable(f"Expected `object`, got `{_kind_of(value)}`")
    items, errors = [], Errors()
    for key, item in value.items():
        try:
            items.append((convert_key(key), convert(item)))
        except Exception as error:
            errors.add(error, _step(key))
    errors.check()
    return _hashed(make, dict(items))


class Making:
    """Converts a value to a record, by calling the record's class with the converted fields.

    `fields` has for each field its key or position in a message, its name, its conversion, and
    whether it is required.
    """

    def __init__(
        self,
        record: Record,
        fields: Sequence[tuple[int | str, str, Convert | None, bool]],
        *,
        forbids_unknown: bool,
    ) -> None:
        self._cls = record.cls
        self._has_logged = False
        self._fields = fields
        self._is_array = record.is_array
        self._tag = record.tag
        self._known: frozenset[Any] | None = None
        if forbids_unknown or record.forbids_unknown:
            tag = () if record.tag is None else record.tag[:1]
            self._known = frozenset((*(key for key, *_ in fields), *tag))
        self._is_fixed = issubclass(record.cls, tuple) or self._known is not None

    def __call__(self, value: Any) -> Any:
        given = self._given(value)
        values: dict[str, Any] = {}
        errors = Errors()
        for key, name, convert, is_required in self._fields:
            if key in given:
                item = given[key]
                if convert is not None:
                    try:
                        item = convert(item)
                    except Exception as error:
                        errors.add(error, _step(key))
                values[name] = item
            elif is_required:
                errors.add(Unsuitable(f"Missing: `{name}`"), "")
        errors.check()
        return self._made(values)

    def _given(self, value: Any) -> Mapping[Any, Any]:
        """Return the values for the fields, by key or position.

        Raises: Unsuitable when the value isn't an object or array of this record.
        """
        if not self._is_array:
            if not isinstance(value, dict):
                raise Unsuitable(f"Expected `object`, got `{_kind_of(value)}`")
            if self._tag is not None and value.get(self._tag[0], self._tag[1]) != self._tag[1]:
                raise Unsuitable(f"Invalid value {value[self._tag[0]]!r:.100}", _step(self._tag[0]))
            if self._known is not None and not self._known.issuperset(value):
                unknown = next(key for key in value if key not in self._known)
                raise Unsuitable(f"Object contains unknown field `{unknown}`")
            return value
        if not isinstance(value, ARRAYS):
            raise Unsuitable(f"Expected `array`, got `{_kind_of(value)}`")
        given = dict(enumerate(value))
        if self._tag is not None and given.get(0) != self._tag[1]:
            raise Unsuitable(f"Invalid value {given.get(0)!r:.100}", "[0]")
        if self._is_fixed and len(given) > len(self._fields) + (self._tag is not None):
            raise Unsuitable(f"Expected `array` of at most length {len(self._fields)}")
        return given

    def _made(self, values: dict[str, Any]) -> Any:
        try:
            return self._cls(**values)
        except TypeError as error:  # a bug in the class; its text isn't meant for the client
            # Logged as an error only once: clients' values may cause it any number of times.
            level = logging.DEBUG if self._has_logged else logging.ERROR
            self._has_logged = True
            logger.log(level, "a %s can't be created", named(self._cls), exc_info=error)
            raise Unsuitable("can't be converted") from None
        except ValueError as error:
            known = explained(error)
            text = error.args[0] if error.args and isinstance(error.args[0], str) else ""
            raise known or Unsuitable(text or "can't be converted") from None


def _step(key: int | str) -> str:
    return pydantic_types.path_of((key,))
