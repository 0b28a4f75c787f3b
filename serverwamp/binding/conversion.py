"""Convert values in messages to the annotated types of Python parameters.

An annotation is compiled once, part by part. For each part, the library that supports all of it
does the conversion. pydantic converts to its own classes and checks its own constraints. msgspec
converts scalars, and containers of scalars. All other values are converted here, from their
converted parts. An annotation that isn't a data type is refused, and so is metadata that no library
supports.

One module despite its length: each kind of annotation takes a few lines, and they refer to each
other.
"""

from __future__ import annotations

import functools
import inspect
import logging
import typing
from collections import Counter, defaultdict, deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import msgspec

from serverwamp.binding import pydantic_types
from serverwamp.binding.annotations import (
    FINITE,
    FROM_TEXT,
    MAPPINGS,
    MSGSPEC_SCALARS,
    NO_DEFAULT,
    SEQUENCES,
    Converter,
    Names,
    behind,
    converter_of,
    generic,
    is_documentation,
    is_possible_default,
    key_of,
    members_of,
    named,
    union_of,
)
from serverwamp.binding.converting import (
    Convert,
    FirstThatFits,
    Making,
    explained,
    explaining,
    to_choice,
    to_complex,
    to_mapping,
    to_sequence,
    to_tuple,
    to_value_of_text,
    unchanged,
)
from serverwamp.binding.exactness import Place, exact_parts, with_exact_numbers
from serverwamp.binding.records import Record, record_of
from serverwamp.errors import ConfigurationError, InvalidArgument, Unsuitable, WAMPError

logger: logging.Logger = logging.getLogger(__name__)

STREAM_TYPES: Final = (AsyncIterator, AsyncIterable, AsyncGenerator)
"""Annotations of a parameter that receives a stream of chunks."""
EXACT_TYPES: Final = (int, str, bool, bytes)
"""Types whose instances are valid without conversion. (A float is not: it may be infinite.)"""
CONVERTED_CHOICES: Final = frozenset((*MSGSPEC_SCALARS, *FINITE, *FROM_TEXT)) - {
    type(None),
    bool,
    int,
    str,
    bytes,
}
"""Types of enum values that formats encode as text or as integers."""
WITH_EMPTY_VALUE: Final = frozenset(
    (bool, int, float, complex, Decimal, str, bytes, list, set, frozenset, deque, tuple, dict)
)
"""Types that a ``defaultdict`` can call to create a missing value."""


class Conversion:
    """Converts values to an annotated type."""

    __slots__ = ("_convert", "_exact_parts", "exact_type", "unchanged_type")

    def __init__(
        self, convert: Convert, kind: Any = None, exact_parts: Sequence[Place] | None = None
    ) -> None:
        self._convert = convert
        self._exact_parts = exact_parts
        self.exact_type: Any = kind if kind in EXACT_TYPES else None
        """A value of exactly this type needs no conversion."""
        self.unchanged_type: Any = float if kind is float else self.exact_type
        """A value of exactly this type is never changed, though a float may be refused."""

    def __call__(self, value: Any, place: int | str) -> Any:
        """Return `value` converted; `place` is the position or name of the argument.

        Raises: InvalidArgument, with the path to the invalid part, which may be inside the value.
        """
        if type(value) is self.exact_type:
            return value
        try:
            return self._convert(value)
        except Exception as error:
            unsuitable = explained(error)
            if unsuitable is None:
                raise
        unsuitable = unsuitable.below(path_of(place))
        message, path = unsuitable.message, unsuitable.path
        errors = [{"message": each.message, "path": each.path} for each in unsuitable.details]
        more = {"errors": errors} if len(errors) > 1 else {}
        raise InvalidArgument(f"{message} - at {path}", message=message, path=path, **more)

    @property
    def wants_exact_numbers(self) -> bool:
        """Whether the type contains a ``Decimal``."""
        return self._exact_parts is not None

    def with_exact_numbers(self, value: Any, exact: Any) -> Any:
        """Return `value` with the numbers that become a ``Decimal`` taken from `exact`.

        `exact` is the same value, parsed with exact numbers.
        """
        if self._exact_parts is None:
            return value
        return with_exact_numbers(value, exact, self._exact_parts)


def path_of(place: int | str) -> str:
    """Return the path of an argument, for messages to the caller; `place` is position or name."""
    return f"args[{place}]" if isinstance(place, int) else f"kwargs.{place}"


def invalid(message: str, place: int | str) -> InvalidArgument:
    """Return the error for an invalid argument; `place` is its position or name."""
    return InvalidArgument(message, message=message, path=path_of(place))


def conversion_to(hint: Any, names: Names, declared: Mapping[Any, Converter]) -> Conversion | None:
    """Return the conversion to an annotated type; None if every value is accepted unchanged.

    `names` is the namespace for forward references, `declared` has the converters by type.

    Raises: ConfigurationError when `hint` isn't a data type, or has metadata that no library
        supports; NameError when a name isn't known (yet).
    """
    try:
        node = Compiler(declared).node(hint, names)
        parts = exact_parts(hint, names, declared)
    except RecursionError:
        raise ConfigurationError(f"`{hint}` refers to itself endlessly") from None
    return None if node.convert is None else Conversion(node.convert, node.type, parts)


def check_default(value: Any, hint: Any, names: Names) -> None:
    """Check that the default value of a parameter or field for data is data itself.

    Raises: ConfigurationError when it isn't.
    """
    if value is not NO_DEFAULT and not is_possible_default(value, hint, names):
        raise ConfigurationError(no_default(value))


def no_default(value: Any) -> str:
    """Return the text of the error for an impossible default value."""
    return (
        f"its default {value!r:.100} isn't data, and isn't an instance of a class in the"
        f" annotation. If the server fills in the parameter, use add_default_arg(name, factory=...)"
        f" before the route is added. Constraints belong in the annotation: Annotated[int, ...]"
    )


def chunk_type(hint: Any) -> Any:
    """Return the item type of an annotation of an async iterator; None if it isn't one."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if hint not in STREAM_TYPES and typing.get_origin(hint) not in STREAM_TYPES:
        return None
    of_chunks = (*typing.get_args(hint), Any)[0]
    return type(None) if of_chunks is None else of_chunks


# ---- compiling


@dataclass(frozen=True)
class Node:
    """The compiled form of an annotation or of a part of one."""

    convert: Convert | None
    """The function that converts values; None if every value is accepted unchanged."""
    type: Any = None
    """A type with which msgspec can check converted values, except the items of containers."""
    is_native: bool = False
    """Whether msgspec alone converts to `type` correctly."""
    suits_pydantic: bool = False
    """Whether pydantic alone converts to the annotation correctly."""
    is_of_pydantic: bool = False
    """Whether pydantic does the conversion."""


ANYTHING: Final = Node(None, Any, is_native=True, suits_pydantic=True)


class _Later:
    """Converts to a type that refers to itself, and whose compilation isn't complete yet."""

    def __init__(self) -> None:
        self.convert: Convert | None = None

    def __call__(self, value: Any) -> Any:
        return value if self.convert is None else self.convert(value)


class Compiler:
    """Compiles annotations.

    If `is_strict` is true, the conversions accept only values that JSON has for that very type.
    """

    def __init__(self, declared: Mapping[Any, Converter], *, is_strict: bool = False) -> None:
        self._declared = declared
        self._is_strict = is_strict
        self._nodes: dict[Any, Node] = {}
        self._kept: list[Names] = []  # keeps the objects alive whose ids are part of keys

    def node(self, hint: Any, names: Names) -> Node:
        """Return the compiled annotation.

        Raises: ConfigurationError, NameError.
        """
        key = key_of(hint, names)
        if key not in self._nodes:
            self._kept.append(names)
            later = _Later()
            self._nodes[key] = Node(later)
            self._nodes[key] = node = self._compiled(hint, names)
            later.convert = node.convert
        return self._nodes[key]

    def _compiled(self, hint: Any, names: Names) -> Node:
        if typing.get_origin(hint) is typing.Annotated:
            return self._annotated(hint, names)
        converter = converter_of(hint, self._declared)
        if converter is not None:
            return self._declared_by(converter, hint, admits_infinity=False)
        further = behind(hint, names)
        if further is not None:
            return self.node(*further)
        members = members_of(hint)
        if members is not None:
            return self._union(hint, members, names)
        return self._of_kind(hint, names)

    def _of_kind(self, hint: Any, names: Names) -> Node:
        origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
        if hint is Any or hint is object:
            return ANYTHING
        if hint is None or hint in MSGSPEC_SCALARS:
            return self._scalar(hint)
        if hint in FINITE:
            return self._number(hint)
        if hint in FROM_TEXT:
            return Node(functools.partial(to_value_of_text, hint), suits_pydantic=True)
        if origin is typing.Literal:
            return self._choice(hint, arguments)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return self._choice(hint, tuple(hint))
        if pydantic_types.is_type(hint):
            return self._of_pydantic(hint, names)
        if origin is tuple and arguments[1:] != (...,) and hint not in (tuple, tuple):
            return self._tuple([self.node(argument, names) for argument in arguments])
        if origin in SEQUENCES or origin is tuple:
            item = self.node((*arguments, Any)[0], names)
            return self._sequence(SEQUENCES.get(origin, tuple), item)
        if origin in MAPPINGS:
            return self._mapping(MAPPINGS[origin], arguments, names)
        record = record_of(hint, names)
        if record is None:
            raise ConfigurationError(_no_data(hint))
        return self._record(record)

    # ---- single values

    def _scalar(self, hint: Any, *, suits_pydantic: bool = True) -> Node:
        try:
            msgspec.json.Decoder(hint)  # raises if msgspec doesn't support the type
        except TypeError as error:
            raise ConfigurationError(str(error)) from None
        return Node(self._by_msgspec(hint), hint, True, suits_pydantic)

    def _by_msgspec(self, hint: Any) -> Convert:
        return functools.partial(msgspec.convert, type=hint, strict=self._is_strict)

    def _number(self, hint: Any, constrained: Any = None) -> Node:
        convert = to_complex if hint is complex else self._by_msgspec(constrained or hint)
        is_finite, unchanged = FINITE[hint], hint if constrained is None else None

        def finite(value: Any) -> Any:
            number = value if type(value) is unchanged else convert(value)
            if not is_finite(number):
                raise Unsuitable("Expected a finite number")
            return number

        return Node(finite, constrained or hint, suits_pydantic=constrained is None)

    def _choice(self, hint: Any, choices: Sequence[Any]) -> Node:
        try:
            return self._scalar(hint)
        except ConfigurationError:  # the values have several types, or others than msgspec supports
            values = [choice.value if isinstance(choice, Enum) else choice for choice in choices]
            converted = {type(value) for value in values} & CONVERTED_CHOICES
            converts = {kind: self._of_kind(kind, {}).convert for kind in converted}
            choices_of = list(zip(values, choices, strict=True))
            return Node(functools.partial(to_choice, choices_of, converts), suits_pydantic=True)

    def _declared_by(self, converter: Converter, hint: Any, *, admits_infinity: bool) -> Node:
        function = converter.convert
        convert: Convert | None = None
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"the converter {named(function)} has to be a plain function")
        parameter = _first_parameter(function)
        if parameter is not None and parameter not in (hint, Any, object):
            convert = self.node(parameter, {}).convert

        def converted(value: Any) -> Any:
            if convert is not None:
                value = convert(value)
            try:
                made = function(value)
            except (WAMPError, Unsuitable):
                raise
            except Exception as error:  # its text isn't meant for the client
                logger.debug("a value can't be converted", exc_info=error)
                raise Unsuitable(f"Expected `{named(hint)}`") from None
            is_finite = FINITE.get(type(made))
            if is_finite is not None and not admits_infinity and not is_finite(made):
                raise Unsuitable("Expected a finite number")
            return made

        return Node(converted)

    # ---- metadata

    def _annotated(self, hint: Any, names: Names) -> Node:
        converter = converter_of(hint, {})
        metadata = [item for item in hint.__metadata__ if not is_documentation(item)]
        constraints = [item for item in metadata if isinstance(item, msgspec.Meta)]
        others = [item for item in metadata if not isinstance(item, (msgspec.Meta, Converter))]
        for item in others:
            pydantic_types.check_metadata(item)
            pydantic_types.check_no_field(item)
        if converter is not None:
            admits_infinity = pydantic_types.admits_infinity(hint)
            # pydantic applies this only to its own conversions.
            others = [item for item in others if getattr(item, "allow_inf_nan", None) is not True]
            node = self._declared_by(converter, hint.__origin__, admits_infinity=admits_infinity)
        elif self._is_data(hint.__origin__, names) or not pydantic_types.declares_type(others):
            node = self.node(hint.__origin__, names)
        else:
            return self._of_pydantic(hint, names)
        if constraints:
            node = self._constrained(node, hint, constraints)
        if others:
            node = self._constrained_by_pydantic(node, hint, others, names)
        return node

    def _constrained(self, node: Node, hint: Any, constraints: Sequence[msgspec.Meta]) -> Node:
        if node.type is None:
            raise ConfigurationError(
                f"no library checks {constraints[0]} for `{named(hint.__origin__)}`"
            )
        constrained = pydantic_types.annotated(node.type, constraints)
        checked = self._scalar(constrained, suits_pydantic=False)
        number = getattr(node.type, "__origin__", node.type)
        if node.is_native:
            return checked
        if number in FINITE:
            return self._number(number, constrained)
        check, convert = checked.convert, node.convert
        assert check is not None
        assert convert is not None

        def converted(value: Any) -> Any:
            made = convert(value)
            check(made)
            return made

        return Node(converted, constrained)

    def _is_data(self, hint: Any, names: Names) -> bool:
        try:
            Compiler(self._declared).node(hint, names)
        except ConfigurationError:
            return False
        return True

    def _constrained_by_pydantic(
        self, node: Node, hint: Any, metadata: Sequence[Any], names: Names
    ) -> Node:
        if node.suits_pydantic:
            return self._of_pydantic(hint, names)
        checked = pydantic_types.constrained(explaining(node.convert), metadata)
        return Node(pydantic_types.converter(checked))

    def _of_pydantic(self, hint: Any, names: Names) -> Node:
        convert = pydantic_types.converter(hint)
        pydantic_types.check(hint, names)
        return Node(convert, suits_pydantic=True, is_of_pydantic=True)

    # ---- types with parts

    def _union(self, hint: Any, members: Sequence[Any], names: Names) -> Node:
        given = [member for member in members if member is not msgspec.UnsetType]
        if len(given) < len(members):  # pydantic doesn't know UnsetType
            return replace(self.node(union_of(given), names), suits_pydantic=False)
        nodes = [self.node(member, names) for member in members]
        if any(node.convert is None for node in nodes):
            return ANYTHING
        if all(node.is_native for node in nodes):
            try:
                return self._scalar(union_of(node.type for node in nodes))
            except ConfigurationError:
                pass  # msgspec can't distinguish the members
        suits_pydantic = all(node.suits_pydantic for node in nodes)
        if suits_pydantic and any(node.is_of_pydantic for node in nodes):
            return self._of_pydantic(hint, names)
        strict: list[Node] = []
        if not self._is_strict:
            compiler = Compiler(self._declared, is_strict=True)
            strict = [compiler.node(member, names) for member in members]
        exact_types = frozenset(member for member in members if member in EXACT_TYPES)
        attempts = [
            [node.convert for node in those if node.convert is not None]
            for those in (strict, nodes)
        ]
        convert = FirstThatFits(exact_types, *attempts)
        return Node(convert, None, False, suits_pydantic)

    def _sequence(self, cls: Any, item: Node) -> Node:
        is_hashed = cls in (set, frozenset)  # msgspec fails if an item can't be hashed
        if item.is_native and cls is not deque and (not is_hashed or item.type in MSGSPEC_SCALARS):
            return self._scalar(generic(cls, (item.type, ...) if cls is tuple else (item.type,)))
        convert = functools.partial(to_sequence, cls, item.convert or unchanged)
        return Node(convert, None if cls is deque else cls, suits_pydantic=item.suits_pydantic)

    def _tuple(self, items: Sequence[Node]) -> Node:
        if all(item.is_native for item in items):
            return self._scalar(generic(tuple, (item.type for item in items)))
        suits_pydantic = all(item.suits_pydantic for item in items)
        converts = [item.convert or unchanged for item in items]
        return Node(functools.partial(to_tuple, converts), tuple, suits_pydantic=suits_pydantic)

    def _mapping(self, cls: Any, arguments: Sequence[Any], names: Names) -> Node:
        key_hint, value_hint = (
            (*arguments, int if cls is Counter else Any, Any)[:2] if arguments else (Any, Any)
        )
        if cls is Counter:
            value_hint = int
        # Never strict for keys, because they are text in most formats, whatever their type.
        keys = Compiler(self._declared).node(key_hint, names)
        values = self.node(value_hint, names)
        if cls is dict and keys.is_native and values.is_native:
            return self._scalar(generic(dict, (keys.type, values.type)))
        make = cls
        if cls is defaultdict:
            make = functools.partial(defaultdict, _factory(value_hint))
        convert = functools.partial(
            to_mapping, make, keys.convert or unchanged, values.convert or unchanged
        )
        suits_pydantic = keys.suits_pydantic and values.suits_pydantic
        return Node(convert, dict if cls is dict else None, suits_pydantic=suits_pydantic)

    def _record(self, record: Record) -> Node:
        fields = []
        for position, field in enumerate(record.fields, record.offset):
            try:
                check_default(field.default, field.hint, record.names)
                node = self.node(field.hint, record.names)
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"{field.name!r} of `{named(record.cls)}`: {error}"
                ) from None
            key = position if record.is_array else field.key
            fields.append((key, field.name, node.convert, field.is_required))
        return Node(Making(record, fields, forbids_unknown=self._is_strict))


def _no_data(hint: Any) -> str:
    return (
        f"`{named(hint)}` isn't a data type, so clients can't supply it."
        f" If the server fills it in: add_default_arg(...) before the route is added."
        f" If it is made of what clients send: Annotated[..., Converter(f)], or"
        f" add_converter({named(hint)}, f) before the route is added"
    )


def _first_parameter(function: Any) -> Any:
    """Return the type of the first parameter of a converter; None if it isn't known."""
    if isinstance(function, type):
        return None
    try:
        hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
        parameters = inspect.signature(function).parameters
    except (NameError, TypeError, ValueError):
        return None
    return hints.get(next(iter(parameters), ""))


def _factory(hint: Any) -> Callable[[], Any]:
    """Return the function that creates the missing values of a ``defaultdict``."""
    origin = typing.get_origin(hint) or hint
    cls: Any = SEQUENCES.get(origin) or MAPPINGS.get(origin) or origin
    if cls in WITH_EMPTY_VALUE:
        return cls  # type: ignore[no-any-return]
    raise ConfigurationError(f"a defaultdict has no known default value for `{named(hint)}`")
