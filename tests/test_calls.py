"""Calls: routes, arguments, results, errors and progress, through the public API."""

from __future__ import annotations

import enum
import functools
import logging
import math
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import anyio
import msgspec
import pydantic
import pytest

import serverwamp
from serverwamp import (
    Application,
    ConfigurationError,
    Converter,
    RPCErrorResult,
    RPCProgressReport,
    RPCRequest,
    RPCResult,
    RPCRouteSet,
    Session,
    WAMPError,
)
from serverwamp.testing import CallResult, Client, connect
from tests.helpers import serving

Error = tuple[str, tuple[Any, ...], dict[str, Any]]


async def outcome(client: Client, uri: str, *args: Any, **kwargs: Any) -> Any:
    """Return the result of a call, or the URI of its error."""
    try:
        return await client.call(uri, args, kwargs)
    except WAMPError as error:
        return error.uri


async def outcome_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    async with connect(serving(function)) as client:
        return await outcome(client, "procedure", *args, **kwargs)


def arguments_of(result: Any) -> Any:
    assert isinstance(result, CallResult), result
    return result.args


# ---- routes


@pytest.mark.spec("CAL-01", "CAL-02", "CAL-04")
async def test_a_call_has_one_answer() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    async with connect(serving(add)) as client:
        await client.send([48, 1, {}, "procedure", [2, 3]])
        assert await client.receive() == [50, 1, {}, [5]]
        await client.send([48, 2, {}, "nobody.serves.this"])
        reply = await client.receive()
        assert reply[:5] == [8, 48, 2, {}, "wamp.error.no_such_procedure"]
        await client.expect_nothing()


async def test_decorators_return_the_function() -> None:
    async def function() -> None: ...

    routes = RPCRouteSet()
    for decorate in (routes.route, routes.prefix_route, routes.wildcard_route, routes.regex_route):
        assert decorate("a")(function) is function
    assert Application().route("a")(function) is function
    assert serverwamp.Realm("r").route("a")(function) is function


def test_a_route_set_is_a_sequence_of_frozen_definitions() -> None:
    routes = RPCRouteSet("com.app")

    @routes.route("one")
    def one() -> None: ...

    @routes.prefix_route("two.")
    def two() -> None: ...

    assert len(routes) == 2
    assert [route.uri for route in routes] == ["com.app.one", "com.app.two."]
    assert [route.handler for route in routes[:]] == [one, two]
    assert routes[0] in routes
    assert routes[1].kind == "prefix"
    assert repr(routes) == "<RPCRouteSet of 2 routes>"
    with pytest.raises(AttributeError):
        routes[0].uri = "three"  # type: ignore[misc]


@pytest.mark.parametrize("prefix", ["com.app", "com.app."])
async def test_a_route_set_below_a_prefix_in_two_realms(prefix: str) -> None:
    routes = RPCRouteSet(prefix)

    @routes.route("exact")
    async def exact() -> str:
        return "exact"

    @routes.regex_route(r"\d+$")
    async def number() -> str:
        return "number"

    @routes.wildcard_route(".x")
    async def wildcard() -> str:
        return "wildcard"

    app = Application()
    app.add_routes(routes)
    other = serverwamp.Realm("other")
    other.add_routes(routes)
    app.add_realm(other)
    for realm in ("realm1", "other"):
        async with connect(app, realm) as client:
            assert arguments_of(await outcome(client, "com.app.exact")) == ("exact",)
            assert arguments_of(await outcome(client, "com.app.42")) == ("number",)
            assert arguments_of(await outcome(client, "com.app.y.x")) == ("wildcard",)
            assert await outcome(client, "com.app.z") == "wamp.error.no_such_procedure"
            assert await outcome(client, "comxapp.42") == "wamp.error.no_such_procedure"


async def test_the_most_specific_route_serves() -> None:
    app = Application()

    def named(name: str) -> Callable[[RPCRequest], Awaitable[tuple[str, str]]]:
        async def handler(request: RPCRequest) -> tuple[str, str]:
            return name, request.uri

        return handler

    app.route("a.b.c")(named("exact"))
    app.prefix_route("a.b")(named("prefix"))
    app.prefix_route("a.b.c.")(named("longer prefix"))
    app.wildcard_route("x..z")(named("wildcard"))
    app.wildcard_route("x.y.")(named("better wildcard"))
    app.wildcard_route("...")(named("four"))
    app.regex_route(r"re\.[0-9]")(named("regex"))
    app.regex_route(r"re\.")(named("second regex"))
    expected = {
        "a.b.c": "exact",
        "a.b": "prefix",
        "a.bc": "prefix",
        "a.b.c.d": "longer prefix",
        "x.1.z": "wildcard",
        "x.y.z": "better wildcard",
        "1.2.3.4": "four",
        "re.5": "regex",
        "re.55": "regex",
        "re.x": "second regex",
    }
    async with connect(app) as client:
        for uri, name in expected.items():
            assert arguments_of(await outcome(client, uri)) == (name, uri)
        for uri in ("a", "x.1.2", "1.2", "1.2.3.4.5"):
            assert await outcome(client, uri) == "wamp.error.no_such_procedure"


@pytest.mark.parametrize("uri", ["not a uri", "a..b", "", "a.", "a#b", "a\n"])
@pytest.mark.spec("URI-07", "VIO-07")
async def test_a_call_of_no_valid_uri(uri: str) -> None:
    async with connect(Application()) as client:
        assert await outcome(client, uri) == "wamp.error.invalid_uri"
        assert await outcome(client, "a") == "wamp.error.no_such_procedure"


def test_routes_that_are_refused() -> None:
    app = Application()

    async def function() -> None: ...

    def generator() -> Any:
        yield 1

    app.route("a")(function)
    for register in (
        lambda: app.route("a")(function),
        lambda: app.route("a b")(function),
        lambda: app.route("a..b")(function),
        lambda: app.route("wamp.session.count")(function),
        lambda: app.route("b")(generator),
    ):
        with pytest.raises(ConfigurationError):
            register()
    app.prefix_route("a")(function)
    app.wildcard_route("a..c")(function)
    for decorator in (app.route, app.prefix_route, app.regex_route, app.topic, app.regex_topic):
        with pytest.raises(ConfigurationError, match="a route needs a URI"):
            decorator(function)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="route for 'a' already"):
        app.prefix_route("a")(function)
    with pytest.raises(ConfigurationError, match=r"route for 'a..c' already"):
        app.wildcard_route("a..c")(function)


async def test_what_serves_is_frozen() -> None:
    app = Application()
    async with connect(app):
        pass

    async def function(session: Any) -> None: ...

    async def topic() -> AsyncIterator[None]:
        yield

    for change in (
        lambda: app.route("a")(function),
        lambda: app.topic("a")(topic),
        lambda: app.add_default_arg("a", 1),
        lambda: app.add_error_handler(KeyError, "a"),
        lambda: app.add_session_lifespan_handler(topic),
        lambda: app.add_transport_authenticator(function),
        lambda: app.set_ticket_authenticator(function),
        lambda: app.set_cra_handlers(function, function),
        lambda: app.set_authentication_handler(function),
        lambda: app.set_rpc_handler(function),
        lambda: app.set_subscription_handler(topic),
        lambda: app.add_realm(serverwamp.Realm("r")),
    ):
        with pytest.raises(ConfigurationError, match="serving already"):
            change()


# ---- kinds of handlers


async def test_kinds_of_handlers() -> None:
    main = threading.get_ident()

    async def coroutine(a: int) -> int:
        return a

    def plain(a: int) -> tuple[int, bool]:
        return a, threading.get_ident() == main

    def gives_coroutine(a: int) -> Any:
        return coroutine(a)

    class Object:
        async def method(self, a: int) -> int:
            return a

        async def __call__(self, a: int) -> int:
            return a

    class Iterator:
        def __init__(self, a: int) -> None:
            self.items = [RPCResult((a,))]

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            if not self.items:
                raise StopAsyncIteration
            return self.items.pop()

    async def generator(a: int) -> AsyncIterator[Any]:
        yield a

    app = Application()
    app.route("plain")(plain)
    handlers = {
        "coroutine": coroutine,
        "gives.coroutine": gives_coroutine,
        "method": Object().method,
        "object": Object(),
        "partial": functools.partial(coroutine, a=5),
        "iterator": lambda a: Iterator(int(a)),
        "generator": generator,
    }
    for uri, handler in handlers.items():
        app.route(uri)(handler)
    async with connect(app) as client:
        assert arguments_of(await outcome(client, "plain", "5")) == (5, False)
        for uri in handlers:
            args = () if uri == "partial" else ("5",)
            assert arguments_of(await outcome(client, uri, *args)) == (5,), uri


# ---- arguments


class Color(enum.Enum):
    RED = "red"


class Point(TypedDict):
    x: int
    y: int


@dataclass
class Item:
    price: Decimal
    quantity: int = 1


@dataclass
class Other:
    name: str


class Order(pydantic.BaseModel):
    quantity: int


class Named(pydantic.BaseModel):
    first_name: str = pydantic.Field(alias="firstName")


class Celsius:
    def __init__(self, value: Any) -> None:
        self.degrees = float(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius) and other.degrees == self.degrees


Temperature = Annotated[Celsius, Converter(Celsius)]


@dataclass
class Basket:
    order: Order
    temperature: Temperature


MOMENT = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("hint", "sent", "received"),
    [
        (int, "5", 5),
        (int, 5.0, 5),
        (float, 5, 5.0),
        (float, "0.5", 0.5),
        (bool, "false", False),
        (bool, "true", True),
        (bool, 1, True),
        (str, "text", "text"),
        (bytes, b"\0binary", b"\0binary"),
        (bytes, "aGk=", b"hi"),  # as base64 text, from clients that know no binary in JSON
        (Decimal, 1.1, Decimal("1.1")),
        (Decimal, "1.10", Decimal("1.10")),
        (datetime, "2024-01-02T03:04:05Z", MOMENT),
        (uuid.UUID, str(ID), ID),
        (Color, "red", Color.RED),
        (Literal["a", "b"], "a", "a"),
        (Optional[int], None, None),
        (Union[int, list[int]], [1, "2"], [1, 2]),
        (Point, {"x": 1, "y": "2"}, {"x": 1, "y": 2}),
        (Item, {"price": 1.1}, Item(Decimal("1.1"))),
        (list[Item], [{"price": 1, "quantity": "2"}], [Item(Decimal(1), 2)]),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1], {1}),
        (Annotated[int, msgspec.Meta(ge=1)], 1, 1),
        (Annotated[int, pydantic.Field(gt=0)], "1", 1),
        (Order, {"quantity": "3"}, Order(quantity=3)),
        (list[Order], [{"quantity": 3}], [Order(quantity=3)]),
        (Union[Order, str], "text", "text"),
        (Union[Item, Other, str], {"price": 1}, Item(Decimal(1))),
        (Temperature, "20.5", Celsius(20.5)),
        (list[Temperature], [20], [Celsius(20)]),
        (
            Basket,
            {"order": {"quantity": 1}, "temperature": 3},
            Basket(Order(quantity=1), Celsius(3)),
        ),
        (Any, {"a": [1, None, "b"]}, {"a": [1, None, "b"]}),
        (object, 1.5, 1.5),
    ],
)
@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack"])
async def test_arguments_are_converted(
    hint: Any, sent: Any, received: Any, subprotocol: str
) -> None:
    taken = []

    async def procedure(value: Any) -> None:
        taken.append(value)

    procedure.__annotations__["value"] = hint
    async with connect(serving(procedure), subprotocol=subprotocol) as client:
        await client.call("procedure", (sent,))
        await client.call("procedure", (), {"value": sent})
    assert taken == [received, received]
    assert [type(value) for value in taken] == [type(received)] * 2


@pytest.mark.parametrize(
    ("hint", "sent", "path"),
    [
        (int, "five", "args[0]"),
        (int, 5.5, "args[0]"),
        (int, True, "args[0]"),
        (bool, "no way", "args[0]"),
        (str, 5, "args[0]"),
        (datetime, "yesterday", "args[0]"),
        (Color, "blue", "args[0]"),
        (list[int], [1, "x"], "args[0][1]"),
        (Item, {"price": 1, "quantity": "many"}, "args[0].quantity"),
        (Item, {}, "args[0]"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "args[0]"),
        (Annotated[int, pydantic.Field(gt=0)], 0, "args[0]"),
        (Order, {"quantity": "x"}, "args[0].quantity"),
        (list[Order], [{"quantity": "x"}], "args[0][0].quantity"),
        (Temperature, "cold", "args[0]"),
        (Basket, {"order": {}, "temperature": 3}, "args[0].order.quantity"),
    ],
)
@pytest.mark.spec("CAL-06", "CAL-12")
async def test_arguments_that_cant_be_converted(hint: Any, sent: Any, path: str) -> None:
    async def procedure(value: Any) -> None:
        pytest.fail("the handler is not called")

    procedure.__annotations__["value"] = hint
    async with connect(serving(procedure)) as client:
        for args, kwargs, where in (
            ((sent,), {}, path),
            ((), {"value": sent}, path.replace("args[0]", "kwargs.value", 1)),
        ):
            with pytest.raises(WAMPError) as error:
                await client.call("procedure", args, kwargs)
            assert error.value.uri == "wamp.error.invalid_argument"
            assert error.value.kwargs["path"] == where
            assert error.value.kwargs["message"] in error.value.args[0]


EXACT = "Decimal('0.12345678901234567890123')"


async def test_numbers_are_exact_where_decimals_are_wanted() -> None:
    async def procedure(a: Decimal, b: float, c: Any, *rest: Decimal, d: Decimal) -> list[str]:
        return [repr(value) for value in (a, b, c, *rest, d)]

    async with connect(serving(procedure)) as client:
        await client.send_frame(
            '[48,1,{},"procedure",[1.10,1.10,1.10,0.12345678901234567890123],{"d":1e2}]'
        )
        assert await client.receive() == [
            50,
            1,
            {},
            ["Decimal('1.10')", "1.1", "1.1", EXACT, "Decimal('1E+2')"],
        ]
        await client.send_frame('[48,2,{},"procedure",["\\u0000AAE=",1,"\\u0000AAE="],{"d":1}]')
        assert (await client.receive())[4] == "wamp.error.invalid_argument"


async def test_binding_by_position_and_name() -> None:
    async def procedure(
        a: Any, b: Any = "b", /, c: Any = "c", *rest: Any, d: Any = "d", **named: Any
    ) -> Any:
        return [a, b, c, *rest], {"d": d, **named}

    async with connect(serving(procedure)) as client:

        async def call(*args: Any, **kwargs: Any) -> Any:
            return (await client.call("procedure", args, kwargs)).args

        assert await call(1) == ([1, "b", "c"], {"d": "d"})
        assert await call(1, c=3) == ([1, "b", 3], {"d": "d"})
        assert await call(1, 2, 3, 4, 5, d=6, e=7) == ([1, 2, 3, 4, 5], {"d": 6, "e": 7})
        assert await call(1, a=2) == ([1, "b", "c"], {"d": "d", "a": 2})
        assert await outcome(client, "procedure") == "wamp.error.invalid_argument"
        assert await outcome(client, "procedure", 1, 2, 3, c=3) == "wamp.error.invalid_argument"


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((), {}, "kwargs.a"),
        ((1,), {}, "kwargs.b"),
        ((1, 2, 3), {}, "args[2]"),
        ((1, 2), {"c": 3}, "kwargs.c"),
        ((1, 2), {"a": 3}, "kwargs.a"),
        ((1, 2), {"session": 3}, "kwargs.session"),
        ((1, 2), {"request": 3}, "kwargs.request"),
        ((1, 2), {"db": 3}, "kwargs.db"),
        ((1, 2), {"who": 3}, "kwargs.who"),
    ],
)
async def test_arguments_that_dont_fit(
    args: tuple[Any, ...], kwargs: dict[str, Any], path: str
) -> None:
    async def procedure(session: Any, a: Any, request: Any, b: Any, db: Any, who: Session) -> None:
        pytest.fail("the handler is not called")

    app = serving(procedure)
    app.add_default_arg("db", "the db")
    async with connect(app) as client:
        with pytest.raises(WAMPError) as error:
            await client.call("procedure", args, kwargs)
        assert error.value.uri == "wamp.error.invalid_argument"
        assert error.value.kwargs["path"] == path


async def test_what_the_server_fills_in() -> None:
    taken: dict[str, Any] = {}

    async def procedure(
        a: int,
        session: Any,
        /,
        request: Any,
        b: int,
        me: Session,
        *,
        it: RPCRequest,
        db: Any,
        c: int = 3,
    ) -> None:
        taken.update(a=a, b=b, c=c, session=session, me=me, request=request, it=it, db=db)

    app = serving(procedure)
    app.add_default_arg("db", "the db")
    async with connect(app) as client:
        await client.call("procedure", ("1", "2"), receive_progress=True, disclose_me=True)
        request = taken["request"]
        assert taken["session"] is taken["me"] is request.session
        assert taken["session"].id == client.session
        assert (taken["a"], taken["b"], taken["c"], taken["db"]) == (1, 2, 3, "the db")
        assert taken["it"] is request
        assert (request.id, request.uri) == (1, "procedure")
        assert (list(request.args), request.kwargs, request.timeout) == (["1", "2"], {}, 0)
        assert request.receive_progress
        assert request.disclose_caller
        await client.call("procedure", (1,), {"b": 2, "c": 4}, options={"timeout": 60_000})
        assert taken["request"].kwargs == {"b": 2, "c": 4}
        assert taken["request"].timeout == 60_000
        assert not taken["request"].receive_progress
    assert repr(request) == "<RPCRequest 1 of 'procedure'>"


async def test_kwargs_of_a_handler_never_hold_what_is_filled_in() -> None:
    async def procedure(session: Any, **named: Any) -> Any:
        return named

    async with connect(serving(procedure)) as client:
        assert (await client.call("procedure", (), {"a": 1})).kwargs == {"a": 1}
        assert await outcome(client, "procedure", session=1) == "wamp.error.invalid_argument"


async def test_camel_case_names() -> None:
    async def procedure(count_to: int, **named: Any) -> Any:
        return {"count": count_to, **named}

    with_set = Application()
    routes = RPCRouteSet(camel_snake_conversion=True)
    routes.route("procedure")(procedure)
    with_set.add_routes(routes)
    for app in (serving(procedure, camel_snake_conversion=True), with_set):
        async with connect(app) as client:
            result = await client.call("procedure", (), {"countTo": "3", "theRest": 4})
            assert result.kwargs == {"count": 3, "the_rest": 4}
            assert (await client.call("procedure", (), {"count_to": 3})).kwargs == {"count": 3}
            twice = await outcome(client, "procedure", count_to=3, countTo=4)
            assert twice == "wamp.error.invalid_argument"
    async with connect(serving(procedure)) as client:
        assert await outcome(client, "procedure", countTo=3) == "wamp.error.invalid_argument"


def test_handlers_that_cant_be_compiled() -> None:
    app = Application()

    async def unknown_type(value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    app.route("a")(unknown_type)
    with pytest.raises(ConfigurationError, match="Nowhere"):
        app.freeze()

    async def ambiguous(value: Celsius | Session) -> None: ...

    with pytest.raises(ConfigurationError, match=r"parameter 'value' of .*ambiguous"):
        Application().route("a")(ambiguous)


# ---- default args


async def test_default_args_from_factories() -> None:
    log: list[str] = []

    def plain() -> str:
        return "plain"

    async def coroutine() -> str:
        return "coroutine"

    def generator() -> Any:
        log.append("generator opens")
        yield "generator"
        log.append("generator closes")

    async def async_generator() -> AsyncIterator[str]:
        log.append("async generator opens")
        try:
            yield "async generator"
        except ValueError:
            log.append("rolls back")
            raise
        finally:
            log.append("async generator closes")

    async def procedure(a: Any, b: Any, c: Any, d: Any, *, fail: bool = False) -> Any:
        log.append("call")
        if fail:
            raise ValueError
        return a, b, c, d

    app = serving(procedure)
    for name, factory in zip("abcd", (plain, coroutine, generator, async_generator), strict=True):
        app.add_default_arg(name, factory=factory)
    async with connect(app) as client:
        result = await client.call("procedure")
        assert result.args == ("plain", "coroutine", "generator", "async generator")
        await client.call("procedure")  # so that the first has ended
        opened = ["generator opens", "async generator opens", "call"]
        closed = ["async generator closes", "generator closes"]
        assert log == [*opened, *closed, *opened, *closed]
        log.clear()
        assert await outcome(client, "procedure", fail=True) == "wamp.error.runtime_error"
        await client.expect_nothing()
        assert log == [*opened, "rolls back", "async generator closes"]


async def test_a_factory_that_fails() -> None:
    def resource() -> Any:
        raise RuntimeError("secret")

    async def procedure(resource: Any) -> str:
        return "answer"

    app = serving(procedure)
    app.add_default_arg("resource", factory=resource)
    async with connect(app) as client:
        assert await outcome(client, "procedure") == "wamp.error.runtime_error"


async def test_a_failure_that_passes_a_factory_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def resource() -> AsyncIterator[None]:
        yield None

    async def procedure(resource: Any) -> str:
        raise ValueError

    app = serving(procedure)
    app.add_default_arg("resource", factory=resource)
    async with connect(app) as client:
        assert await outcome(client, "procedure") == "wamp.error.runtime_error"
        await client.expect_nothing()
    assert len(caplog.records) == 1


# ---- results


@dataclass
class Person:
    name: str
    born: datetime


class Struct(msgspec.Struct):
    number: int


@pytest.mark.parametrize(
    ("returned", "args", "kwargs"),
    [
        (42, (42,), {}),
        (None, (None,), {}),
        ("text", ("text",), {}),
        (b"binary", (b"binary",), {}),
        (True, (True,), {}),
        ((), (), {}),
        ([], (), {}),
        ({}, (), {}),
        ((1, "b"), (1, "b"), {}),
        ([1, [2, 3]], (1, [2, 3]), {}),
        (([1, 2],), ([1, 2],), {}),
        ({"a": 1}, (), {"a": 1}),
        ({1: 2}, (), {"1": 2}),
        (RPCResult(), (), {}),
        (RPCResult((1,), {"a": 2}), (1,), {"a": 2}),
        (RPCResult(kwargs={"a": 2}), (), {"a": 2}),
        (Person("Jo", MOMENT), ({"name": "Jo", "born": "2024-01-02T03:04:05Z"},), {}),
        (
            {"p": [Person("Jo", MOMENT)]},
            (),
            {"p": [{"name": "Jo", "born": "2024-01-02T03:04:05Z"}]},
        ),
        (Struct(5), ({"number": 5},), {}),
        (Decimal("1.10"), ("1.10",), {}),
        (ID, (str(ID),), {}),
        (Color.RED, ("red",), {}),
        ({7}, ([7],), {}),
        (Order(quantity=3), ({"quantity": 3},), {}),
        (Named(firstName="Jo"), ({"firstName": "Jo"},), {}),
        ([Order(quantity=3), None], ({"quantity": 3}, None), {}),
        ((2**63, {"deep": {"er": b"\x00\xff"}}), (2**63, {"deep": {"er": b"\x00\xff"}}), {}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack.batched"])
@pytest.mark.spec("CAL-02", "CAL-08")
async def test_results(returned: Any, args: Any, kwargs: Any, subprotocol: str) -> None:
    async def procedure() -> Any:
        return returned

    async with connect(serving(procedure), subprotocol=subprotocol) as client:
        assert await client.call("procedure") == CallResult(args, kwargs)


async def test_the_shape_of_results_on_the_wire() -> None:
    results = iter(
        [RPCResult(), RPCResult((1,)), RPCResult((), {"a": 1}), RPCResult((1,), {"a": 1})]
    )

    async def procedure() -> Any:
        return next(results)

    async with connect(serving(procedure)) as client:
        for request, payload in enumerate(([], [[1]], [[], {"a": 1}], [[1], {"a": 1}]), 1):
            await client.send([48, request, {}, "procedure"])
            assert await client.receive() == [50, request, {}, *payload]


@pytest.mark.parametrize(
    "returned",
    [object(), math.nan, [math.inf], {"a": -math.inf}, "\ud800", lambda: None],
    ids=["object", "NaN", "infinity", "minus infinity", "surrogate", "function"],
)
@pytest.mark.spec("SER-11", "SER-12", "CAL-01")
async def test_results_that_cant_be_serialized(returned: Any) -> None:
    async def procedure() -> Any:
        return returned

    async with connect(serving(procedure)) as client:
        for _ in range(2):
            assert await outcome(client, "procedure") == "wamp.error.runtime_error"


def test_result_objects() -> None:
    assert RPCResult([1], {"a": 2}) == RPCResult((1,), {"a": 2})
    assert RPCResult((1,)) != RPCProgressReport((1,))
    assert RPCErrorResult("a") != RPCErrorResult("b")
    assert repr(RPCProgressReport((1,))) == "RPCProgressReport(args=(1,), kwargs={})"
    assert repr(RPCErrorResult()) == (
        "RPCErrorResult(error_uri='wamp.error.runtime_error', args=(), kwargs={})"
    )
    with pytest.raises(TypeError, match=r"\('text',\)"):
        RPCResult("text")
    with pytest.raises(TypeError):
        WAMPError("a.b", "text")


# ---- errors


class Mapped(Exception):
    pass


class MappedToo(Mapped):
    pass


@pytest.mark.spec("CAL-03", "CAL-05", "CAL-06", "URI-09", "ERR-runtime_error")
async def test_errors(caplog: pytest.LogCaptureFixture) -> None:
    raised: list[Any] = []

    async def procedure() -> Any:
        error = raised.pop()
        if isinstance(error, BaseException):
            raise error
        return error

    async def awaited(error: Exception) -> RPCErrorResult:
        return RPCErrorResult("mapped.later", error.args)

    app = serving(procedure)
    app.add_error_handler(Mapped, "mapped")
    app.add_error_handler(KeyError, lambda error: WAMPError("mapped.by.function", ("x",)))
    app.add_error_handler(LookupError, awaited)
    app.add_error_handler(ZeroDivisionError, lambda error: "mapped.by.name")
    app.add_error_handler(OSError, lambda error: 1 / 0)
    secret = "the text of an exception"
    cases: list[tuple[Any, Error]] = [
        (WAMPError("a.b"), ("a.b", (), {})),
        (WAMPError("a.b", (1,), {"c": 2}), ("a.b", (1,), {"c": 2})),
        (RPCErrorResult(), ("wamp.error.runtime_error", (), {})),
        (RPCErrorResult("a.b", (1,), {"c": 2}), ("a.b", (1,), {"c": 2})),
        (Mapped(secret), ("mapped", (), {})),
        (MappedToo(secret), ("mapped", (), {})),
        (KeyError(secret), ("mapped.by.function", ("x",), {})),
        (IndexError("shown"), ("mapped.later", ("shown",), {})),
        (ZeroDivisionError(secret), ("mapped.by.name", (), {})),
    ]
    async with connect(app) as client:
        for error, expected in cases:
            raised.append(error)
            with pytest.raises(WAMPError) as answer:
                await client.call("procedure")
            assert (answer.value.uri, answer.value.args, answer.value.kwargs) == expected
        assert not caplog.records
        for unexpected in (ValueError(secret), OSError(secret), RPCErrorResult("no uri")):
            raised.append(unexpected)
            with pytest.raises(WAMPError) as answer:
                await client.call("procedure")
            assert answer.value.uri == "wamp.error.runtime_error"
        assert secret not in "".join(client.transcript)
        assert caplog.records
        assert str(client.session) in caplog.text
        assert "'procedure'" in caplog.text
        raised.append(WAMPError("a.b", (object(),)))
        assert await outcome(client, "procedure") == "a.b"


async def test_debug_tells_clients_more() -> None:
    async def procedure() -> None:
        raise ValueError("what happened")

    async with connect(serving(procedure, debug=True)) as client:
        with pytest.raises(WAMPError, match="ValueError: what happened"):
            await client.call("procedure")


def test_errors_have_valid_uris() -> None:
    with pytest.raises(ValueError, match="not a valid URI"):
        WAMPError("not a uri")
    with pytest.raises(ConfigurationError):
        Application().add_error_handler(KeyError, "not a uri")
    assert str(WAMPError("a.b")) == "a.b"
    assert str(WAMPError("a.b", ("text",))) == "a.b: text"


class OutOfTheOrdinary(BaseException):
    pass


@pytest.mark.spec("CAL-01")
async def test_whatever_is_raised_is_answered_once() -> None:
    async def procedure() -> None:
        raise OutOfTheOrdinary

    async def cancelled_inside() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep_forever()

    app = serving(procedure)
    app.route("cancelled.inside")(cancelled_inside)
    async with connect(app) as client:
        assert await outcome(client, "procedure") == "wamp.error.runtime_error"
        assert arguments_of(await outcome(client, "cancelled.inside")) == (None,)
        await client.expect_nothing()


# ---- progress


@pytest.mark.spec("PRG-01", "PRG-02", "PRG-04", "PRG-05", "ORD-07")
async def test_progress() -> None:
    async def procedure() -> AsyncIterator[Any]:
        yield RPCProgressReport((1,))
        yield RPCProgressReport(kwargs={"a": 2})
        yield RPCProgressReport()
        yield RPCResult(("end",))

    async with connect(serving(procedure)) as client:
        await client.send([48, 1, {"receive_progress": True}, "procedure"])
        assert [await client.receive() for _ in range(4)] == [
            [50, 1, {"progress": True}, [1]],
            [50, 1, {"progress": True}, [], {"a": 2}],
            [50, 1, {"progress": True}],
            [50, 1, {}, ["end"]],
        ]
        await client.expect_nothing()


@pytest.mark.spec("PRG-03", "PRG-06")
@pytest.mark.parametrize("options", [{}, {"receive_progress": False}])
async def test_progress_nobody_asked_for(options: dict[str, bool]) -> None:
    async def procedure() -> AsyncIterator[Any]:
        yield RPCProgressReport((1,))
        yield RPCResult(("end",))

    async def returns_at_once() -> str:
        return "end"

    app = serving(procedure)
    app.route("at.once")(returns_at_once)
    async with connect(app) as client:
        await client.send([48, 1, options, "procedure"])
        assert await client.receive() == [50, 1, {}, ["end"]]
        await client.send([48, 2, {"receive_progress": True}, "at.once"])
        assert await client.receive() == [50, 2, {}, ["end"]]


@pytest.mark.spec("PRG-07", "CAL-01")
async def test_how_progress_can_end() -> None:
    async def raises() -> AsyncIterator[Any]:
        yield RPCProgressReport((1,))
        raise WAMPError("a.b")

    async def yields_error() -> AsyncIterator[Any]:
        yield RPCProgressReport((1,))
        yield RPCErrorResult("a.b")

    async def without_result() -> AsyncIterator[Any]:
        yield RPCProgressReport((1,))

    async def with_nothing() -> AsyncIterator[Any]:
        return
        yield

    async def with_a_plain_value() -> AsyncIterator[Any]:
        yield {"a": 1}

    async def with_what_cant_be_sent() -> AsyncIterator[Any]:
        yield RPCProgressReport((object(),))

    async def failing_to_close() -> AsyncIterator[Any]:
        try:
            yield 5
        finally:
            raise ValueError

    expected = {
        raises: "a.b",
        yields_error: "a.b",
        without_result: "wamp.error.runtime_error",
        with_nothing: "wamp.error.runtime_error",
        with_a_plain_value: CallResult((), {"a": 1}),
        with_what_cant_be_sent: "wamp.error.runtime_error",
        failing_to_close: "wamp.error.runtime_error",
    }
    app = Application()
    for handler in expected:
        app.route(handler.__name__)(handler)
    async with connect(app) as client:
        for handler, ending in expected.items():
            call = await client.start_call(handler.__name__, receive_progress=True)
            try:
                result: Any = await call.result()
            except WAMPError as error:
                result = error.uri
            assert result == ending, handler.__name__
        client.take_all()  # the progress
        await client.expect_nothing()


async def test_a_producer_of_progress_waits_for_its_client() -> None:
    produced = 0

    async def procedure() -> AsyncIterator[Any]:
        nonlocal produced
        for _ in range(1000):
            produced += 1
            yield RPCProgressReport(("x" * 1000,))
        yield RPCResult()

    limits = serverwamp.Limits(outbound_messages=80)
    async with connect(serving(procedure, limits=limits), realm=None) as client:
        await client.join()
        call = await client.start_call("procedure", receive_progress=True)
        client.pause()
        with anyio.fail_after(5):
            while produced < 64:
                await anyio.lowlevel.checkpoint()
        for _ in range(1000):  # plenty of turns, in which nothing more is produced
            await anyio.lowlevel.checkpoint()
        assert produced < 100
        client.resume()
        for _ in range(1000):
            await call.progress()
        await call.result()
    assert produced == 1000


# ---- concurrency


@pytest.mark.spec("CAL-07", "ORD-04")
async def test_calls_run_concurrently_and_start_in_order() -> None:
    started: list[int] = []
    gates = [anyio.Event() for _ in range(20)]

    async def procedure(number: int) -> int:
        started.append(number)
        await gates[number].wait()
        return number

    async with connect(serving(procedure), subprotocol="wamp.2.json.batched") as client:
        await client.send(*([48, n + 1, {}, "procedure", [n]] for n in range(20)))
        for number in reversed(range(20)):
            gates[number].set()
            assert await client.receive() == [50, number + 1, {}, [number]]
        assert started == list(range(20))


async def test_synchronized_calls_run_one_after_the_other() -> None:
    log: list[str] = []
    gate = anyio.Event()

    async def procedure(number: int) -> int:
        log.append(f"{number} starts")
        await gate.wait()
        log.append(f"{number} ends")
        return number

    app = serving(procedure, synchronize_requests=True)
    async with connect(app) as client:
        calls = [await client.start_call("procedure", (number,)) for number in range(4)]
        await calls[2].cancel("kill")
        with pytest.raises(WAMPError) as cancelled:
            await calls[2].result()
        assert cancelled.value.uri == "wamp.error.canceled"
        gate.set()
        for number in (0, 1, 3):
            assert (await calls[number].result()).args == (number,)
        assert log == [f"{n} {what}" for n in (0, 1, 3) for what in ("starts", "ends")]


async def test_the_context_of_calls_is_their_own() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default=0)

    async def procedure(number: int) -> tuple[int, int]:
        before = variable.get()
        variable.set(number)
        await anyio.lowlevel.checkpoint()
        return before, variable.get()

    async with connect(serving(procedure)) as client:
        calls = [await client.start_call("procedure", (number,)) for number in (1, 2)]
        assert [(await call.result()).args for call in calls] == [(0, 1), (0, 2)]


async def test_a_custom_handler_of_calls() -> None:
    async def handler(anything: Any, db: Any) -> Any:
        request = anything
        if request.uri == "error":
            raise WAMPError("a.b")
        return [request.uri, list(request.args), dict(request.kwargs), db]

    app = Application()
    app.set_rpc_handler(handler)
    app.add_default_arg("db", 5)
    async with connect(app) as client:
        result = await client.call("any.uri", (1,), {"a": 2})
        assert result.args == ("any.uri", [1], {"a": 2}, 5)
        assert await outcome(client, "error") == "a.b"


async def test_a_custom_handler_with_progress() -> None:
    async def handler(request: RPCRequest) -> AsyncIterator[Any]:
        yield RPCProgressReport((1,))
        yield RPCResult((request.uri,))

    app = Application()
    app.set_rpc_handler(handler)
    async with connect(app) as client:
        call = await client.start_call("x.y", receive_progress=True)
        assert (await call.progress()).args == (1,)
        assert (await call.result()).args == ("x.y",)


async def test_nothing_unexpected_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def procedure() -> None: ...

    with caplog.at_level(logging.INFO):
        async with connect(serving(procedure)) as client:
            await client.call("procedure")
            await outcome(client, "nowhere")
            await outcome(client, "procedure", 1)
    assert not [record for record in caplog.records if record.name.startswith("serverwamp")]
