"""Keep the exact value of numbers that become a ``Decimal``.

JSON is parsed with floats. If a parameter needs a ``Decimal``, the message is parsed again with
exact numbers. Those that become a ``Decimal`` replace the floats; the other numbers stay floats.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from serverwamp.binding import pydantic_types
from serverwamp.binding.annotations import (
    MAPPINGS,
    SEQUENCES,
    Names,
    behind,
    converter_of,
    key_of,
    members_of,
)
from serverwamp.binding.records import record_of


class Place:
    """A place in an argument, and the places inside it."""

    def __init__(self) -> None:
        self.is_exact: bool = False
        """Whether a number becomes a ``Decimal``."""
        self.items: Place | None = None
        """The place of all items of an array or values of an object."""
        self.parts: dict[int | str, list[Place]] = {}
        """The places of single items by position, or of single values by key."""
        self.others: list[Place] = []
        """Other annotations of the same place, such as the members of a union."""

    def every(self) -> list[Place]:
        """Return this place and its `others`, recursively."""
        found = [self]
        for place in found:
            found += [other for other in place.others if other not in found]
        return found


def exact_parts(hint: Any, names: Names, declared: Mapping[Any, Any]) -> Sequence[Place] | None:
    """Return the places in an argument where numbers have to be exact; None if there are none.

    Types with a converter are left out: a converter gets the parsed value. `declared` has the
    converters by type.
    """
    inspection = _Inspection(declared)
    places = inspection.place(hint, names).every()
    return places if inspection.has_found else None


def with_exact_numbers(value: Any, exact: Any, places: Sequence[Place]) -> Any:
    """Return `value` with the numbers at `places` taken from `exact`.

    `exact` is the same value, parsed with exact numbers.
    """
    if value is exact or not places:
        return value
    if isinstance(exact, Decimal):
        return exact if any(place.is_exact for place in places) else value
    if type(value) is list:
        return [
            with_exact_numbers(item, exact_item, _inside(places, index))
            for index, (item, exact_item) in enumerate(zip(value, exact, strict=True))
        ]
    if type(value) is dict:
        return {
            key: with_exact_numbers(item, exact[key], _inside(places, key))
            for key, item in value.items()
        }
    return value


def _inside(places: Sequence[Place], step: int | str) -> list[Place]:
    found: dict[int, Place] = {}  # by id, because several places may lead to the same one
    for place in places:
        parts = place.parts.get(step, ())
        for part in (*parts, place.items):
            if part is not None:
                found |= {id(each): each for each in part.every()}
    return list(found.values())


class _Inspection:
    """Finds the places of an annotation and of all its parts."""

    def __init__(self, declared: Mapping[Any, Any]) -> None:
        self.has_found = False
        self._declared = declared
        self._places: dict[Any, Place] = {}
        self._kept: list[Names] = []  # keeps the objects alive whose ids are part of keys

    def place(self, hint: Any, names: Names) -> Place:
        """Return the place of an annotation."""
        key = key_of(hint, names)
        if key not in self._places:
            self._kept.append(names)
            self._places[key] = place = Place()
            self._inspect(hint, names, place)
        return self._places[key]

    def _inspect(self, hint: Any, names: Names, place: Place) -> None:
        if hint is Decimal:
            place.is_exact = self.has_found = True
        elif converter_of(hint, self._declared) is None:
            further, members = behind(hint, names), members_of(hint)
            if further is not None:
                place.others.append(self.place(*further))
            elif typing.get_origin(hint) is typing.Annotated:
                place.others.append(self.place(hint.__origin__, names))
            elif members is not None:
                place.others += [self.place(member, names) for member in members]
            else:
                self._inspect_parts(hint, names, place)

    def _inspect_parts(self, hint: Any, names: Names, place: Place) -> None:
        origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
        if origin is tuple and arguments[1:] != (...,):
            for position, argument in enumerate(arguments):
                self._add_part(place, position, argument, names)
        elif origin in SEQUENCES or origin in MAPPINGS or origin is tuple:
            if arguments:
                place.items = self.place(
                    arguments[origin in MAPPINGS and len(arguments) > 1], names
                )
        elif (fields := pydantic_types.fields_of(origin)) is not None:
            there = pydantic_types.names_of(origin, names)
            for name, field in fields.items():
                if name == "root":
                    place.others.append(self.place(field.annotation, there))
                for key in pydantic_types.keys_of(name, field):
                    self._add_part(place, key, field.annotation, there)
        elif (record := record_of(hint, names)) is not None:
            for position, field in enumerate(record.fields, record.offset):
                self._add_part(
                    place, position if record.is_array else field.key, field.hint, record.names
                )

    def _add_part(self, place: Place, step: int | str, hint: Any, names: Names) -> None:
        place.parts.setdefault(step, []).append(self.place(hint, names))
