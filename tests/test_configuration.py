"""What is wrong with a configuration is found when it is made, or at start, and not by a client."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from time import time
from typing import (
    Annotated,
    Any,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    Union,
    Unpack,
)

import anyio
import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from typing_extensions import TypeAliasType

from serverwamp import (
    Application,
    ConfigurationError,
    Realm,
    RPCProgressReport,
    RPCRequest,
    RPCRouteSet,
    Session,
    TopicRouteSet,
    WAMPError,
)
from serverwamp.testing import connect


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Wrapper:
    """A decorator that is a class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


# ---- factories of default args

log: list[str] = []


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()


def plain() -> str:
    return "it"


async def coroutine() -> str:
    return "it"


def generator() -> Iterator[str]:
    log.append("open")
    try:
        yield "it"
    finally:
        log.append("close")


async def async_generator() -> AsyncIterator[str]:
    log.append("open")
    try:
        yield "it"
    finally:
        log.append("close")


class AsyncGenerators:
    async def __call__(self) -> AsyncIterator[str]:
        async for value in async_generator():
            yield value

    async def method(self) -> AsyncIterator[str]:
        async for value in async_generator():
            yield value

    @classmethod
    async def of_class(cls) -> AsyncIterator[str]:
        async for value in async_generator():
            yield value


class Coroutines:
    async def __call__(self) -> str:
        return "it"


async def makes_a_generator() -> AsyncIterator[str]:
    return async_generator()


async def named(prefix: str, *, suffix: str) -> AsyncIterator[str]:
    log.append("open")
    yield prefix + suffix
    log.append("close")


VALUES = {
    "function": plain,
    "coroutine function": coroutine,
    "wrapped coroutine function": passing_on(coroutine),
    "instance": Coroutines(),
    "partial": functools.partial(str, "it"),
    "class": lambda: "it",
}
RESOURCES = {
    "generator": generator,
    "async generator": async_generator,
    "wrapped generator": passing_on(generator),
    "wrapped async generator": passing_on(async_generator),
    "twice wrapped": passing_on(passing_on(async_generator)),
    "wrapped by a class": Wrapper(async_generator),
    "instance": AsyncGenerators(),
    "partial of an instance": functools.partial(AsyncGenerators()),
    "method": AsyncGenerators().method,
    "class method": AsyncGenerators.of_class,
    "partial": functools.partial(named, "i", suffix="t"),
    "lambda": lambda: async_generator(),
    "lambda of a generator": lambda: generator(),
    "coroutine function that makes one": makes_a_generator,
    "context manager": contextmanager(generator),
    "async context manager": asynccontextmanager(async_generator),
    "wrapped async context manager": passing_on(asynccontextmanager(async_generator)),
}


def with_factory(factory: Any) -> Application:
    app = Application()
    app.add_default_arg("value", factory=factory)

    @app.route("call")
    async def call(value: Any) -> Any:
        log.append("call")
        return value

    @app.topic("topic")
    async def topic(value: Any) -> AsyncIterator[None]:
        log.append(f"subscribe {value}")
        yield

    return app


@pytest.mark.parametrize("factory", VALUES.values(), ids=VALUES)
async def test_factories_that_return_a_value(factory: Any) -> None:
    async with connect(with_factory(factory)) as client:
        assert (await client.call("call")).args == ("it",)


@pytest.mark.parametrize("factory", RESOURCES.values(), ids=RESOURCES)
async def test_factories_that_return_what_has_to_be_closed(factory: Any) -> None:
    async with connect(with_factory(factory)) as client:
        assert (await client.call("call")).args == ("it",)
        assert log == ["open", "call", "close"]
        log.clear()
        subscription = await client.subscribe("topic")
        assert log == ["open", "subscribe it"]
        await client.unsubscribe(subscription)
        assert log == ["open", "subscribe it", "close"]


async def test_a_context_manager_that_a_factory_returns_is_the_value() -> None:
    """Shared ones must not be closed with the first call."""

    class Pool:
        async def __aenter__(self) -> Pool:
            raise AssertionError("nobody has asked for that")

        async def __aexit__(self, *error: object) -> None: ...

    pool = Pool()
    app = Application()
    app.add_default_arg("value", factory=lambda: pool)

    @app.route("call")
    async def call(value: Any) -> bool:
        return value is pool

    async with connect(app) as client:
        assert (await client.call("call")).args == (True,)


async def needs(url: str) -> AsyncIterator[str]:
    yield url


@passing_on
def needs_one_more(url: str, size: int = 5) -> str:
    return url


class NeedsOne:
    def __init__(self, url: str = "") -> None: ...

    def __call__(self, url: str) -> str:
        return url


@pytest.mark.parametrize(
    "factory",
    [
        needs,
        needs_one_more,
        asynccontextmanager(needs),
        NeedsOne(),
        functools.partial(named, "i"),
        lambda *, url: url,
        dataclass(type("Settings", (), {"__annotations__": {"url": str}})),
        "no function",
    ],
    ids=lambda factory: type(factory).__name__,
)
def test_a_factory_with_a_parameter_that_nothing_fills_in(factory: Any) -> None:
    for configured in (Application(), Realm("com.realm")):
        with pytest.raises(ConfigurationError, match="default arg 'value'"):
            configured.add_default_arg("value", factory=factory)


@pytest.mark.parametrize("builtin", [max, functools.partial(min, 5)])
def test_a_builtin_that_doesnt_tell_its_parameters(builtin: Any) -> None:
    app, routes = Application(), RPCRouteSet()
    routes.route("procedure")(builtin)
    for add in (lambda: app.route("other")(builtin), lambda: app.add_routes(routes)):
        with pytest.raises(ConfigurationError, match=r"parameters of .* aren't known"):
            add()


def test_a_default_arg_has_a_value_or_a_factory() -> None:
    for configured in (Application(), Realm("com.realm")):
        with pytest.raises(ConfigurationError, match="'value' has both a value and a factory"):
            configured.add_default_arg("value", 5, factory=dict)


def test_a_wrapper_may_know_more_than_what_it_wraps() -> None:
    @functools.wraps(needs)
    def wrapper() -> Any:
        return needs("url")

    Application().add_default_arg("value", factory=wrapper)
    Application().add_default_arg("value", factory=NeedsOne)
    Application().add_default_arg("value", factory=dict)


# ---- handlers behind wrappers


async def opens(topic: str) -> AsyncIterator[None]:
    log.append(f"opens {topic}")
    yield
    log.append(f"closes {topic}")


async def prefixed(prefix: str, topic: str) -> AsyncIterator[None]:
    async for _ in opens(topic):
        yield


class Opening:
    async def __call__(self, topic: str) -> AsyncIterator[None]:
        async for _ in opens(topic):
            yield

    async def method(self, topic: str) -> AsyncIterator[None]:
        async for _ in opens(topic):
            yield

    @passing_on
    async def wrapped(self, topic: str) -> AsyncIterator[None]:
        async for _ in opens(topic):
            yield

    @classmethod
    async def of_class(cls, topic: str) -> AsyncIterator[None]:
        async for _ in opens(topic):
            yield

    @staticmethod
    async def of_nothing(topic: str) -> AsyncIterator[None]:
        async for _ in opens(topic):
            yield


class WrappedOpening:
    @passing_on
    async def __call__(self, topic: str) -> AsyncIterator[None]:
        async for _ in opens(topic):
            yield


OPENING = {
    "wrapped": passing_on(opens),
    "twice wrapped": passing_on(passing_on(opens)),
    "wrapped by a class": Wrapper(opens),
    "wrapped by two classes": Wrapper(Wrapper(opens)),
    "instance": Opening(),
    "wrapped instance": passing_on(Opening()),
    "instance with a wrapped method": WrappedOpening(),
    "partial": functools.partial(prefixed, "prefix"),
    "wrapped partial": passing_on(functools.partial(prefixed, "prefix")),
    "partial of a wrapper": functools.partial(passing_on(prefixed), "prefix"),
    "partial of an instance": functools.partial(Opening()),
    "method": Opening().method,
    "wrapped method": Opening().wrapped,
    "class method": Opening.of_class,
    "static method": Opening.of_nothing,
    "cached": functools.lru_cache(maxsize=0)(opens),
    "context manager": asynccontextmanager(opens),
}


@pytest.mark.parametrize("handler", OPENING.values(), ids=OPENING)
async def test_topic_handlers_behind_wrappers(handler: Any) -> None:
    routes = TopicRouteSet()
    routes.topic("topic")(handler)
    app = Application()
    app.add_topics(routes)
    async with connect(app) as client:
        subscription = await client.subscribe("topic")
        assert log == ["opens topic"]
        await client.unsubscribe(subscription)
        assert log == ["opens topic", "closes topic"]


@pytest.mark.parametrize("handler", OPENING.values(), ids=OPENING)
async def test_subscription_handlers_behind_wrappers(handler: Any) -> None:
    app = Application()
    app.set_subscription_handler(handler)
    async with connect(app) as client:
        await client.subscribe("topic")
    assert log == ["opens topic", "closes topic"]


@pytest.mark.parametrize("handler", OPENING.values(), ids=OPENING)
async def test_lifespan_handlers_behind_wrappers(handler: Any) -> None:
    app = Application()
    app.add_default_arg("topic", "session")
    app.add_session_lifespan_handler(handler)
    async with connect(app):
        assert log == ["opens session"]
    assert log == ["opens session", "closes session"]


class Nothing:
    async def __call__(self, topic: str) -> None: ...


@functools.wraps(opens)
async def collects(topic: str) -> list[None]:
    return [item async for item in opens(topic)]


NOT_OPENING = {
    "wrapped coroutine function": passing_on(coroutine),
    "wrapped generator": passing_on(generator),
    "instance": Nothing(),
    "partial": functools.partial(coroutine),
    "coroutine function that wraps": collects,
    "function": plain,
    "class": Nothing,
}


@pytest.mark.parametrize("handler", NOT_OPENING.values(), ids=NOT_OPENING)
def test_what_is_no_topic_handler_is_refused_at_once(handler: Any) -> None:
    app = Application()
    for register in (
        TopicRouteSet().topic("topic"),
        app.topic("topic"),
        app.set_subscription_handler,
        app.add_session_lifespan_handler,
    ):
        with pytest.raises(ConfigurationError):
            register(handler)


async def test_procedures_behind_wrappers() -> None:
    app = Application()

    async def counts(to: int) -> AsyncIterator[Any]:
        yield RPCProgressReport((to,))
        yield to + 1

    @functools.wraps(counts)
    async def last(to: int) -> Any:
        return [item async for item in counts(to)][-1]

    @functools.wraps(counts)
    def last_in_thread(to: int) -> Any:
        return last(to)

    app.route("wrapped")(passing_on(counts))
    app.route("class")(Wrapper(counts))
    app.route("partial")(functools.partial(passing_on(counts)))
    app.route("last")(last)
    app.route("last_in_thread")(last_in_thread)
    async with connect(app) as client:
        for uri in ("wrapped", "class", "partial"):
            call = await client.start_call(uri, ["1"], receive_progress=True)
            assert (await call.progress()).args == (1,)
            assert (await call.result()).args == (2,)
        for uri in ("last", "last_in_thread"):
            assert (await client.call(uri, ["1"])).args == (2,)


# ---- what is filled in by its type

Alias = TypeAliasType("Alias", Session)
AliasOfAlias = TypeAliasType("AliasOfAlias", Annotated[Alias, "the caller's"])
OptionalAlias = TypeAliasType("OptionalAlias", Optional[Alias])  # type: ignore[misc]
Caller = NewType("Caller", Session)
Described = Annotated[Optional[Caller], "who calls"]  # type: ignore[misc]


async def by_alias(it: Alias) -> Any:
    return it.id


async def by_alias_of_alias(it: AliasOfAlias) -> Any:
    return it.id


async def by_optional_alias(it: OptionalAlias) -> Any:
    assert it is not None
    return it.id


async def by_optional(it: Optional[Alias] = None) -> Any:
    assert it is not None
    return it.id


async def by_union(it: Union[Alias, None]) -> Any:
    assert it is not None
    return it.id


async def by_new_type(it: Caller) -> Any:
    return it.id


async def by_annotated(it: Described) -> Any:
    assert it is not None
    return it.id


async def by_quoted(it: Annotated[Optional[Alias], 1]) -> Any:
    assert it is not None
    return it.id


async def by_request(it: Annotated[RPCRequest, "of the call"], *, other: Alias) -> Any:
    assert it.session.id == other.id
    return other.id


BY_TYPE = [
    by_alias,
    by_alias_of_alias,
    by_optional_alias,
    by_optional,
    by_union,
    by_new_type,
    by_annotated,
    by_quoted,
    by_request,
]


def in_new_syntax() -> Callable[..., Any]:
    names: dict[str, Any] = {"Session": Session}
    exec("type X = Session | None\nasync def f(it: X): return it.id", names)
    function: Callable[..., Any] = names["f"]
    return function


with suppress(SyntaxError):  # before Python 3.12
    BY_TYPE.append(in_new_syntax())


@pytest.mark.parametrize("function", BY_TYPE)
async def test_a_session_is_filled_in_behind_aliases(function: Any) -> None:
    app = Application()
    app.route("call")(function)

    @app.topic("topic")
    async def topic(it: OptionalAlias) -> AsyncIterator[None]:
        assert it is not None
        log.append(str(it.id))
        yield

    @app.add_session_lifespan_handler
    async def lifespan(it: AliasOfAlias) -> AsyncIterator[None]:
        log.append(str(it.id))
        yield

    async with connect(app) as client:
        assert (await client.call("call")).args == (client.session,)
        for args, kwargs in (([5], {}), ([], {"it": 5})):
            with pytest.raises(WAMPError, match="invalid_argument"):
                await client.call("call", args, kwargs)
        await client.subscribe("topic")
        assert log == [str(client.session)] * 2


# ---- classes that are defined in functions


def with_local_classes(*, by_route_set: bool) -> Application:
    from serverwamp import Session as Visitor

    @dataclass
    class Point:
        x: int

    @dataclass
    class Line:
        start: Point
        rest: list[Point] | None = None

    class Color(TypedDict):
        red: int

    class Paint(TypedDict, total=False):
        color: Required[int]

    app = Application()
    procedures: Any = RPCRouteSet() if by_route_set else app
    topics: Any = TopicRouteSet() if by_route_set else app

    @procedures.route("point")
    async def point(at: Point) -> int:
        assert isinstance(at, Point)
        return at.x

    @procedures.route("line")
    async def line(it: Line) -> list[int]:
        assert isinstance(it.start, Point)
        return [point.x for point in (it.start, *(it.rest or ()))]

    @procedures.route("points")
    async def points(at: list[Optional[Point]], **more: Color) -> list[int]:
        return [it.x for it in at if it is not None] + [it["red"] for it in more.values()]

    @procedures.route("paint")
    async def paint(**how: Unpack[Paint]) -> Any:
        return dict(how)

    @procedures.route("visitor")
    async def visitor(it: Visitor | None) -> Any:
        assert it is not None
        return it.id

    @topics.topic("topic")
    async def topic(it: Visitor) -> AsyncIterator[None]:
        log.append(f"{it.id} subscribes")
        yield

    @topics.publication("topic")
    async def publication(at: Point, it: Visitor) -> None:
        log.append(f"{it.id} publishes {at.x}")

    @app.add_session_lifespan_handler
    async def lifespan(it: Visitor) -> AsyncIterator[None]:
        log.append(f"{it.id} comes")
        yield

    class Shop:
        class Ware(TypedDict):
            price: int

        async def buy(self, ware: Shop.Ware) -> int:
            return ware["price"]

        @procedures.route("shop.sell")
        async def sell(ware: Ware) -> int:
            return ware["price"]

    procedures.route("shop.buy")(Shop().buy)
    if by_route_set:
        app.add_routes(procedures)
        app.add_topics(topics)
    return app


@pytest.mark.parametrize("by_route_set", [False, True])
async def test_local_classes_under_postponed_annotations(by_route_set: bool) -> None:
    app = with_local_classes(by_route_set=by_route_set)
    async with connect(app) as client:
        assert (await client.call("point", [{"x": "5"}])).args == (5,)
        with pytest.raises(WAMPError, match="invalid_argument"):
            await client.call("point", [{"x": "five"}])
        drawn = {"start": {"x": "1"}, "rest": [{"x": 2}]}
        assert (await client.call("line", [drawn])).args == (1, 2)
        result = await client.call("points", [[{"x": 1}, None]], {"more": {"red": "2"}})
        assert result.args == (1, 2)
        assert (await client.call("paint", [], {"color": "3"})).kwargs == {"color": 3}
        assert (await client.call("visitor")).args == (client.session,)
        assert (await client.call("shop.sell", [{"price": "4"}])).args == (4,)
        await client.subscribe("topic")
        await client.publish("topic", [{"x": "6"}], acknowledge=True)
        said = ["comes", "subscribes", "publishes 6"]
        assert log == [f"{client.session} {what}" for what in said]


async def test_functions_in_functions_in_functions() -> None:
    def outer() -> Application:
        @dataclass
        class Item:
            number: int

        def inner() -> Application:
            class Item(TypedDict):
                text: str

            app = Application()

            @app.route("call")
            async def call(item: Item) -> str:
                return item["text"]

            return app

        return inner()

    async with connect(outer()) as client:
        assert (await client.call("call", [{"text": "it"}])).args == ("it",)


def test_a_name_that_is_nowhere_is_reported_at_start() -> None:
    app = Application()

    @app.route("call")
    async def call(item: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
        ...

    with pytest.raises(ConfigurationError, match="Nowhere"):
        app.freeze()


# ---- typed keyword arguments


class Base(TypedDict):
    name: str
    age: NotRequired[Annotated[int, "in years"]]


class Options(Base, total=False):
    height: float
    id: Required[int]
    tags: Annotated[Required[list[str]], "some"]


async def takes_options(**options: Unpack[Options]) -> Any:
    return dict(options)


async def takes_options_and_more(first: int, /, second: int = 2, **options: Unpack[Options]) -> Any:
    return {"first": first, "second": second, **options}


NEEDED = {"name": "Ada", "id": "7", "tags": ["a"]}
CONVERTED = {"name": "Ada", "id": 7, "tags": ["a"]}


@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"])
async def test_typed_keyword_arguments(subprotocol: str) -> None:
    app = Application(camel_snake_conversion=True)
    app.route("options")(takes_options)
    app.route("more")(takes_options_and_more)
    async with connect(app, subprotocol=subprotocol) as client:
        assert (await client.call("options", [], NEEDED)).kwargs == CONVERTED
        given = {"age": "36", "height": "1.5"}
        result = await client.call("options", [], {**NEEDED, **given})
        assert result.kwargs == {**CONVERTED, "age": 36, "height": 1.5}
        result = await client.call("more", [1], NEEDED)
        assert result.kwargs == {**CONVERTED, "first": 1, "second": 2}
        for wrong, place in (
            ({**NEEDED, "age": "old"}, "age"),
            ({**NEEDED, "weight": 1}, "weight"),
            ({**NEEDED, "first": 1}, "first"),
            *(({k: v for k, v in NEEDED.items() if k != name}, name) for name in NEEDED),
        ):
            with pytest.raises(WAMPError, match="invalid_argument") as refused:
                await client.call("more" if "first" in wrong else "options", [], wrong)
            assert refused.value.kwargs["path"] in (f"kwargs.{place}", "args[0]")
        with pytest.raises(WAMPError, match="invalid_argument"):
            await client.call("options", [5], NEEDED)


async def test_typed_keyword_arguments_that_the_server_fills_in() -> None:
    class Known(TypedDict):
        session: Session
        db: str
        number: NotRequired[int]

    app = Application()
    app.add_default_arg("db", "the database")

    @app.route("call")
    async def call(**known: Unpack[Known]) -> Any:
        assert set(known) <= {"session", "db", "number"}
        return [known["session"].id, known["db"], known.get("number")]

    async with connect(app) as client:
        expected = (client.session, "the database", 5)
        assert (await client.call("call", [], {"number": "5"})).args == expected
        for name in ("session", "db"):
            with pytest.raises(WAMPError, match="invalid_argument"):
                await client.call("call", [], {name: 5})


def test_only_a_typed_dict_can_be_unpacked() -> None:
    async def call(**options: Unpack[int]) -> None:  # type: ignore[misc]
        ...

    with pytest.raises(ConfigurationError, match="TypedDict"):
        Application().route("call")(call)


# ---- realms


async def test_a_realm_belongs_to_one_application() -> None:
    realm = Realm("com.realm")
    first, second = Application(), Application()
    first.add_realm(realm)
    with pytest.raises(ConfigurationError, match=r"'com\.realm' belongs to another application"):
        second.add_realm(realm)
    with pytest.raises(ConfigurationError, match="has a realm"):
        first.add_realm(realm)
    async with connect(first, "com.realm"):
        assert len(realm.freeze().members) == 1
        assert first.statistics().sessions == 1
    second.freeze()


# ---- applications that are a part of something


def broken() -> Application:
    app = Application()
    app.set_meta_api("admin")

    @app.topic("topic")
    async def topic(nobody_knows: Any) -> AsyncIterator[None]:
        yield

    return app


def broken_realm() -> Application:
    app = Application()
    realm = Realm("com.realm")
    realm.add_transport_authenticator(lambda session, nobody_knows: None)
    app.add_realm(realm)
    return app


def broken_lifespan() -> Application:
    app = Application()

    async def handler(session: Session, nobody_knows: Any) -> AsyncIterator[None]:
        yield

    app.add_session_lifespan_handler(handler)
    return app


def broken_overflow() -> Application:
    app = Application()
    app.add_overflow_handler(lambda nobody_knows: None)
    return app


def broken_rule() -> Application:
    app = Application()
    app.client_register("com.x", requires=lambda nobody_knows: True)
    return app


def broken_authorizer() -> Application:
    app = Application()
    app.set_authorizer(lambda nobody_knows: True)
    return app


BROKEN = [broken, broken_realm, broken_lifespan, broken_overflow, broken_rule, broken_authorizer]
Make = Callable[[], Application]


@pytest.mark.parametrize("make", BROKEN)
async def test_mistakes_are_found_by_the_lifespan_of_a_site(make: Make) -> None:
    wamp = make()

    @asynccontextmanager
    async def lifespan(site: Any) -> AsyncIterator[None]:
        async with wamp.graceful_shutdown():
            raise AssertionError("this wasn't supposed to start")
        yield

    for site in (
        Starlette(routes=[Mount("/ws", wamp)], lifespan=lifespan),
        Starlette(routes=[WebSocketRoute("/ws", wamp)], lifespan=lifespan),
        FastAPI(lifespan=lifespan),
    ):
        said = await start(site)
        assert said["type"] == "lifespan.startup.failed"
        assert "nobody_knows" in said["message"]


async def start(site: Any) -> Any:
    """Return what a site says when a server starts it."""
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        said.append(event)

    with suppress(ConfigurationError):
        await site({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
    return said[0]


@pytest.mark.parametrize("make", BROKEN)
async def test_mistakes_are_found_as_often_as_they_are_looked_for(make: Make) -> None:
    app = make()
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="nobody_knows"):
            app.freeze()
        with pytest.raises(ConfigurationError, match="nobody_knows"):
            async with connect(app):
                pass
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as browser:
            with pytest.raises(ConfigurationError, match="nobody_knows"):
                await browser.get("/")
        assert (await start(app))["type"] == "lifespan.startup.failed"


async def test_a_mistake_can_be_mended() -> None:
    app = broken()
    with pytest.raises(ConfigurationError):
        app.freeze()
    app.add_default_arg("nobody_knows", "but now")
    app.freeze()
    app.freeze()
    with pytest.raises(ConfigurationError, match="serving already"):
        app.route("call")(coroutine)
    async with connect(app) as client:
        await client.subscribe("topic")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_mistakes_are_found_in_aiohttp(anyio_backend: str) -> None:
    from aiohttp import web

    wamp = broken()
    site = web.Application()
    site.add_routes([web.get("/ws", wamp.aiohttp_websocket_handler())])

    async def check(site: web.Application) -> None:
        wamp.freeze()

    site.on_startup.append(check)
    runner = web.AppRunner(site)
    with pytest.raises(ConfigurationError, match="nobody_knows"):
        await runner.setup()
    await runner.cleanup()


# ---- sessions before they are welcomed, and after their end


async def use(session: Session) -> None:
    """Do with a session that isn't open whatever can be done with one."""
    assert session.is_subscribed(1) is False
    assert session.is_open is False
    assert session.get("nothing") is None
    assert session.connection.transport_info["subprotocol"] == "wamp.2.json"
    assert repr(session)
    await session.send_event("com.topic", ["lost"])
    await session.close()
    with pytest.raises(WAMPError, match=r"wamp\.error\.canceled"):
        await session.call("com.procedure")
    with pytest.raises(WAMPError, match=r"wamp\.error\.no_matching_auth_method"):
        await session.refresh("ticket")
    session.expires_at = time() + 100

    def in_thread() -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert session.is_subscribed(1) is False
        assert session.is_open is False
        session.send_event("com.topic", ["lost"])
        session.expires_at = None

    await anyio.to_thread.run_sync(in_thread)
    log.append("used")


def around(app: Application, **options: Any) -> None:
    async def lifespan(session: Session) -> AsyncIterator[None]:
        await use(session)
        yield
        await use(session)

    app.add_session_lifespan_handler(lifespan, **options)


def by_authenticator(app: Application) -> None:
    async def authenticate(session: Session) -> str:
        await use(session)
        return "identity"

    app.add_transport_authenticator(authenticate)


def by_handler(app: Application) -> None:
    async def authenticate(session: Session) -> str:
        await use(session)
        return "identity"

    app.set_authentication_handler(authenticate)


def by_keeping_it(app: Application) -> None:
    @app.topic("com.topic")
    async def topic(session: Session) -> AsyncIterator[None]:
        app.kept = session  # type: ignore[attr-defined]
        yield
        assert not session.is_subscribed(1) or session.is_open


@pytest.mark.parametrize(
    "arrange",
    [
        around,
        functools.partial(around, authenticated_only=False),
        by_authenticator,
        by_handler,
        by_keeping_it,
    ],
)
async def test_a_session_that_is_not_open(arrange: Callable[[Application], None]) -> None:
    app = Application()
    arrange(app)
    async with connect(app) as client:
        if arrange is by_keeping_it:
            await client.subscribe("com.topic")
        await client.leave()
    if arrange is by_keeping_it:
        await use(app.kept)  # type: ignore[attr-defined]
    assert "used" in log


async def test_credentials_that_expire_just_before_the_welcome() -> None:
    app = Application()

    async def lifespan(session: Session) -> AsyncIterator[None]:
        session.expires_at = time() - 1
        yield

    app.add_session_lifespan_handler(lifespan)
    async with connect(app) as client:
        kind, details, reason = await client.receive()
        assert (kind, reason) == (6, "wamp.close.killed")
        assert details["message"] == "the credentials have expired"
