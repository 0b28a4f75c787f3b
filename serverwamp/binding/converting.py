"""What converts a value to one kind of type, given what converts its parts.

Errors tell where in the value they are, however deep that is.
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
"""What the formats make of arrays."""


def explained(error: Exception) -> Unsuitable | None:
    """Return what an error says about a value; None if it says something about the server."""
    if isinstance(error, Unsuitable):
        return error
    if isinstance(error, msgspec.ValidationError):
        message, _, place = str(error).partition(" - at ")
        return Unsuitable(message, place.rpartition("$")[2].rstrip("`"))
    if isinstance(error, RecursionError):
        return Unsuitable("nested too deeply")
    return pydantic_types.explained(error)


def located(error: Exception, step: str) -> Exception:
    """Return an error about a value as one of the value that holds it, and others unchanged."""
    unsuitable = explained(error)
    return error if unsuitable is None else unsuitable.below(step)


class Errors:
    """What is wrong with the parts of a value: all of it, up to a number."""

    def __init__(self) -> None:
        self._found: list[Unsuitable] = []

    def add(self, error: Exception, step: str) -> None:
        """Take note of an error about a part; raise any other error, and at the last of too many.

        `step` leads to the part.
        """
        unsuitable = explained(error)
        if unsuitable is None:
            raise error
        unsuitable = unsuitable.below(step)
        self._found += unsuitable.details or [unsuitable]
        if len(self._found) >= MOST_ERRORS:
            self.check()

    def check(self) -> None:
        """Raise what was found.

        Raises: Unsuitable.
        """
        if self._found:
            first = self._found[0]
            raise Unsuitable(first.message, first.path, self._found[:MOST_ERRORS]) from None


def unchanged(value: Any) -> Any:
    return value


def explaining(convert: Convert | None) -> Convert | None:
    """Return `convert` for pydantic, which mistakes other errors for those of a validator."""
    if convert is None:
        return None

    def converted(value: Any) -> Any:
        try:
            return convert(value)
        except Exception as error:
            raise located(error, "") from None

    return converted


def _kind_of(value: Any) -> str:
    """Return how a client would call the type of a value."""
    if isinstance(value, ARRAYS):
        return "array"
    return "object" if isinstance(value, dict) else type(value).__name__


def to_value_of_text(cls: Any, value: Any) -> Any:
    if isinstance(value, cls):
        return value
    try:
        if isinstance(value, str):
            return cls(value)
    except ValueError:
        pass
    raise Unsuitable(f"Expected `{named(cls)}`")


def to_complex(value: Any) -> complex:
    try:
        if type(value) in (int, float, str, complex):
            return complex(value)
    except (ValueError, OverflowError):
        pass
    raise Unsuitable("Expected `complex`")


def to_choice(
    choices: Sequence[tuple[Any, Any]], converts: Mapping[type, Convert | None], value: Any
) -> Any:
    """Return the choice of a value; `converts` are for the types that formats write otherwise."""
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
    """Return an array as a tuple, with those in it."""
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value


class FirstThatFits:
    """Converts to a union: a value of one of `exact_types` is left, of others the first fits.

    Strict attempts come first; errors are those of the `lenient` ones.
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
"""What unions inside of a union have made of arrays and objects, by the ids of both, with the value
that has the id. Several members may lead to the same parts: without it, each level of nesting would
multiply the time.
"""


def _fitness(error: Unsuitable) -> int:
    """Return how well a value fits that is unsuitable: how deep in it what is wrong begins.

    A tag, or another choice, may be that of the object that another type fits.
    """
    depth = error.path.count(".") + error.path.count("[")
    return depth - error.message.startswith("Invalid")


def to_sequence(cls: Any, convert: Convert, value: Any) -> Any:
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
    """Makes a record of what a message has for its fields, by calling its class."""

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
        """Return what a message has for the fields, by their keys or positions."""
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
        except TypeError as error:  # of a class's own: a bug, with its text
            # Once, for validators raise it for whatever a client sends.
            level = logging.DEBUG if self._has_logged else logging.ERROR
            self._has_logged = True
            logger.log(level, "a %s can't be made", named(self._cls), exc_info=error)
            raise Unsuitable("can't be converted") from None
        except ValueError as error:
            known = explained(error)
            text = error.args[0] if error.args and isinstance(error.args[0], str) else ""
            raise known or Unsuitable(text or "can't be converted") from None


def _step(key: int | str) -> str:
    return pydantic_types.path_of((key,))
