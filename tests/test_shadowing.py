"""Default args that take the place of what clients send are found when the application starts."""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Optional, Union

import pydantic
import pytest

from serverwamp import Application, ConfigurationError, Session
from serverwamp.testing import connect

if typing.TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]


class Database:
    """What nobody sends."""


Name = typing.NewType("Name", str)


class Color(Enum):
    RED = "red"


def made() -> Database:
    return Database()


def generated() -> Iterator[Database]:
    yield Database()


async def generated_later() -> AsyncIterator[Database]:
    yield Database()


async def made_later() -> Database:
    return Database()


def awaitable() -> Awaitable[Database]:
    return made_later()


@contextmanager
def managed() -> Iterator[Database]:
    yield Database()


def managed_elsewhere() -> AbstractContextManager[Database]:
    return managed()


def unknown() -> Unknown:
    return Database()


def untold():  # type: ignore[no-untyped-def]
    return Database()


def text() -> str:
    return "text"


def handler_with(annotation: Any = None, *default: Any) -> Any:
    async def handler(number: int = 0, name: Any = None) -> str:
        return type(name).__name__

    handler.__annotations__ = {"number": int, "return": str}
    if annotation is not None:
        handler.__annotations__["name"] = annotation
    handler.__defaults__ = (0, *default) if default else None
    return handler


@dataclass
class Person:
    name: str


class Model(pydantic.BaseModel):
    name: str


CLIENTS_OWN: list[tuple[Any, Any, tuple[Any, ...]]] = [
    ("a database", str, ()),
    ("a database", int, ()),
    ("a database", Optional[str], ()),
    ("a database", str | None, (None,)),
    ("a database", Union[int, str], ()),
    ("a database", Annotated[str, "short"], ()),
    ("a database", "str", ()),
    ("a database", list[str], ()),
    ("a database", dict, ()),
    ("a database", Name, ()),
    ("a database", datetime, ()),
    ("a database", Color, ()),
    ("a database", None, ("anybody",)),
    ("text", str, ("anybody",)),
    ("text", int, ()),
    ("text", Decimal, ()),
    (5, str, ()),
    (5, None, (10,)),
    (5, date, ()),
    (5, int, (10,)),
    (5, None, (Color.RED,)),
    (made, str, ()),
    (made_later, str, ()),
    (generated, str, ()),
    (generated_later, str, ()),
    (awaitable, str, ()),
    (managed, str, ()),
    (managed_elsewhere, str, ()),
    (Database, str, ()),
    (text, int, ()),
    ("text", Person, ()),
    ("text", Model | None, ()),
    (text, "Model", ()),
    ("text", list[str], ()),
    (5, typing.Literal["a", "b"], ()),
    (unknown, str, ("anybody",)),
]
INJECTED: list[tuple[Any, Any, tuple[Any, ...]]] = [
    ("a database", None, ()),
    ("a database", None, (None,)),
    ("a database", Database, ()),
    ("a database", Database | None, (None,)),
    ("a database", Any, ()),
    ("a database", object, ()),
    ("a database", "Unknown", ()),
    ("a database", "Unknown | str", ()),
    ("a database", None, (Database(),)),
    ("a database", Callable[..., str], ()),
    ("text", str, ()),
    ("text", Name, ()),
    ("text", Annotated[str | None, "short"], ()),
    ("text", Database, ()),
    (5, int, ()),
    (5, float, ()),
    (True, int, ()),
    (5.0, Decimal, ()),
    (Path("/"), str, ()),
    ({"a": 1}, Mapping[str, int], ()),
    (MappingProxyType({}), dict[str, int], ()),
    ((1, 2), list[int], ()),
    (Color.RED, Color, ()),
    (None, str, ()),
    (Person("Ada"), Person, ()),
    (Person("Ada"), Model, ()),
    (Model(name="Ada"), Model, ()),
    ({"name": "Ada"}, Model, ()),
    ("text", typing.Literal["text", 5], ()),
    (made, Database, ()),
    (managed, Database, ()),
    (text, str, ()),
    (unknown, str, ()),
    (untold, str, ()),
    (lambda: Database(), str, ()),
]


def with_default_arg(value: Any, handler: Any, kind: str = "route") -> Application:
    app = Application()
    if callable(value):
        app.add_default_arg("name", factory=value)
    else:
        app.add_default_arg("name", Database() if value == "a database" else value)
    getattr(app, kind)("procedure")(handler)
    return app


@pytest.mark.parametrize("kind", ["route", "publication"])
@pytest.mark.parametrize(("value", "annotation", "default"), CLIENTS_OWN)
def test_what_clients_seem_to_supply(
    value: Any, annotation: Any, default: tuple[Any, ...], kind: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"default arg 'name' .* clients seem to supply"):
        with_default_arg(value, handler_with(annotation, *default), kind)


@pytest.mark.parametrize(("value", "annotation", "default"), INJECTED)
async def test_what_the_application_fills_in(
    value: Any, annotation: Any, default: tuple[Any, ...]
) -> None:
    app = with_default_arg(value, handler_with(annotation, *default))
    async with connect(app) as client:
        assert (await client.call("procedure", [1])).args != ("NoneType",) or value is None


def test_the_order_of_routes_and_default_args_is_of_no_account() -> None:
    app = Application()
    app.route("procedure")(handler_with(str))
    app.add_default_arg("name", Database())
    with pytest.raises(ConfigurationError, match=r"annotated with .* is a Database; rename"):
        app.freeze()


async def test_topics_and_other_functions_take_nothing_from_clients() -> None:
    app = Application()
    app.add_default_arg("name", Database())

    @app.topic("topic")
    async def topic(name: str = "somebody") -> AsyncIterator[None]:
        yield

    @app.add_transport_authenticator
    async def admit(session: Session, name: str = "somebody") -> str:
        return "guest"

    async with connect(app) as client:
        await client.subscribe("topic")
