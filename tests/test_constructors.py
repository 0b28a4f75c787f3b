"""What clients can't set: what constructors don't take, what is bound, and what others mark."""

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Optional, TypedDict, TypeVar

import attrs
import fastapi
import fastapi.params
import msgspec
import pydantic
import pytest
import typing_extensions
from attrs import validators
from pydantic import Field, PositiveInt

from serverwamp import Application, ConfigurationError, Converter, WAMPError
from serverwamp.testing import connect
from tests.conversions import sent

REFUSED = "wamp.error.invalid_argument"
T = TypeVar("T")


# ---- constructors


@dataclass
class Order:
    item: str
    total: int = field(init=False, default=0)
    tags: list[str] = field(default_factory=list)
    count: ClassVar[int] = 5

    def __post_init__(self) -> None:
        self.total = len(self.item)


@dataclass(frozen=True, slots=True)
class Frozen:
    value: int
    secret: str = field(init=False, default="kept")
    _: KW_ONLY
    last: int = 3


@dataclass
class WithInitVar:
    text: InitVar[str]
    times: InitVar["int"] = 2
    made: str = field(init=False)

    def __post_init__(self, text: str, times: int) -> None:
        self.made = text * times


@dataclass
class OwnInit:
    value: int

    def __init__(self, text: str, admin: bool = False) -> None:
        self.value = len(text)


@dataclass
class PassesOn:
    value: int
    other: float = 1.0

    def __new__(cls, *args: Any, **kwargs: Any) -> "PassesOn":
        made = super().__new__(cls)
        made.__dict__["was_new"] = True
        return made


@dataclass
class NoInit:
    value: int = field(init=False, default=1)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value * 2)


@dataclass
class Child(Order):
    size: float = 1.0


class Plain(Order):
    """Not decorated: a dataclass by inheritance."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))


@attrs.define
class Account:
    name: str = attrs.field(converter=str.lower)
    age: int = attrs.field(default=0, validator=validators.ge(0))
    balance: int = attrs.field(init=False, default=0)
    _token: str = attrs.field(default="none")
    parsed: Decimal = attrs.field(default="1", converter=Decimal)

    def __attrs_post_init__(self) -> None:
        self.balance += 1


def cents(text: str) -> int:
    return round(float(text) * 100)


@attrs.frozen(slots=False, kw_only=True)
class Price:
    amount: int = attrs.field(converter=cents)
    kind: str = attrs.field(alias="type", default="net")
    log: list[str] = attrs.field(factory=list)


@attrs.define(init=False)
class AttrsOwnInit:
    value: int

    def __init__(self, text: str) -> None:
        self.__attrs_init__(len(text))


class Pair(NamedTuple):
    a: int
    b: float = 2.0


class Checked(Pair):
    def __new__(cls, a: int, b: float = 5.0) -> "Checked":
        return super().__new__(cls, a + 1, b)


class Item(msgspec.Struct):
    name: str
    price: float = 1.0
    tags: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name.upper()


class Partial(TypedDict, total=False):
    a: typing_extensions.Required[int]
    b: "typing_extensions.NotRequired[float]"
    c: typing_extensions.ReadOnly[str]


@dataclass
class Everything:
    order: Order
    account: Optional[Account] = None
    pairs: Sequence[Pair] = ()


@dataclass
class Named(Generic[T]):
    value: T
    name: str = field(init=False, default="mine")


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (Order, {"item": "abc", "total": 999}, Order("abc")),
        (list[Order], [{"item": "abc", "total": 999, "count": 6}], [Order("abc")]),
        (Frozen, {"value": "1", "secret": "x"}, Frozen(1)),
        (Frozen, {"value": 1, "last": "4"}, Frozen(1, last=4)),
        (WithInitVar, {"text": "ab", "made": "x"}, WithInitVar("ab")),
        (WithInitVar, {"text": "ab", "times": "3"}, WithInitVar("ab", 3)),
        (OwnInit, {"text": "abc", "value": 9}, OwnInit("abc")),
        (PassesOn, {"value": "1", "other": "2"}, PassesOn(1, 2.0)),
        (PassesOn, {"value": 1}, PassesOn(1)),
        (NoInit, {"value": 99}, NoInit()),
        (Child, {"item": "ab", "total": 9, "size": "2"}, Child("ab", size=2.0)),
        (Plain, {"code": 123, "item": "x"}, Plain(123)),
        (Account, {"name": "ADA", "balance": 10**6}, Account("ada")),
        (Account, {"name": "ADA", "token": "t", "_token": "u"}, Account("ada", token="t")),
        (Account, {"name": "ADA", "parsed": "1.50"}, Account("ada", parsed="1.50")),
        (
            Price,
            {"amount": "9.90", "type": "gross", "kind": "x"},
            Price(amount="9.90", type="gross"),
        ),
        (AttrsOwnInit, {"text": "abc", "value": 5}, AttrsOwnInit("abc")),
        (Pair, ["1"], Pair(1)),
        (Pair, [1, "3"], Pair(1, 3.0)),
        (Checked, [1], Checked(1)),
        (Item, {"name": "a", "price": "2"}, Item("A", 2.0)),
        (Partial, {"a": "1", "b": "2", "c": "x", "d": 5}, {"a": 1, "b": 2.0, "c": "x"}),
        (Partial, {"a": 1}, {"a": 1}),
        (Named[Order], {"value": {"item": "a", "total": 9}, "name": "x"}, Named(Order("a"))),
        (
            Everything,
            {
                "order": {"item": "a", "total": 9},
                "account": {"name": "A", "balance": 9},
                "pairs": [[1]],
            },
            Everything(Order("a"), Account("a"), [Pair(1)]),
        ),
    ],
)
@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"])
async def test_constructors_are_called(
    hint: Any, value: Any, expected: Any, subprotocol: str
) -> None:
    (made,) = await sent(hint, value, subprotocol=subprotocol)
    assert made == expected
    assert type(made) is type(expected)
    assert getattr(made, "__dict__", {}) == getattr(expected, "__dict__", {})


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (Order, {}, "args[0]"),
        (Frozen, {"value": 1, "last": "x"}, "args[0].last"),
        (WithInitVar, {"text": 5}, "args[0].text"),
        (OwnInit, {"value": 5}, "args[0]"),
        (Account, {"name": 5}, "args[0].name"),
        (Account, {"name": "a", "age": -1}, "args[0]"),
        (Account, {"name": "a", "age": "x"}, "args[0].age"),
        (Account, {"name": "a", "parsed": "NaN"}, "args[0].parsed"),
        (Price, {"amount": 5}, "args[0].amount"),
        (Price, {"amount": "x"}, "args[0]"),
        (Checked, [1, 2, 3], "args[0]"),
        (Item, {"name": 5}, "args[0].name"),
        (Partial, {"b": 1}, "args[0]"),
        (Partial, {"a": 1, "b": "x"}, "args[0].b"),
        (Everything, {"order": {"item": 1}}, "args[0].order.item"),
        (
            Everything,
            {"order": {"item": "a"}, "account": {"name": "A", "age": -1}},
            "args[0].account",
        ),
    ],
)
async def test_what_constructors_refuse(hint: Any, value: Any, path: str) -> None:
    assert await sent(hint, value) == [path]


@dataclass
class Explains:
    value: int

    def __post_init__(self) -> None:
        if self.value == 1:
            raise ValueError("one is too few")
        if self.value == 2:
            raise WAMPError("com.example.two")
        if self.value == 3:
            raise LookupError("a secret")


async def test_errors_of_constructors(caplog: pytest.LogCaptureFixture) -> None:
    async def procedure(values: list[Explains]) -> None: ...

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        for value, uri, text in (
            (1, REFUSED, "one is too few - at args[0][0]"),
            (2, "com.example.two", "com.example.two"),
            (3, "wamp.error.runtime_error", "log says why"),
        ):
            with pytest.raises(WAMPError) as error:
                await client.call("procedure", [[{"value": value}]])
            assert error.value.uri == uri
            assert text in str(error.value)
    assert "a secret" in caplog.text


@attrs.define
class OnlyText:
    value: Any = attrs.field(validator=validators.instance_of(str))


async def test_what_validators_refuse_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def procedure(values: list[OnlyText]) -> None: ...

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        for _ in range(3):
            with pytest.raises(WAMPError) as error:
                await client.call("procedure", [[{"value": 1}, {"value": 2}]])
            assert error.value.kwargs["path"] == "args[0][0]"
            assert "value" not in str(error.value)
    (record,) = [record for record in caplog.records if record.levelno > logging.INFO]
    assert "OnlyText" in record.message


def test_constructors_that_cant_be_called_by_name() -> None:
    @dataclass
    class ByPosition:
        value: int

        def __init__(self, value: int, /) -> None:
            self.value = value

    async def procedure(value: ByPosition) -> None: ...

    with pytest.raises(ConfigurationError, match="can't be passed by name"):
        Application().route("procedure")(procedure)


# ---- marks of other frameworks


def current_user() -> str:
    return "nobody"


class Dependency:
    """What many frameworks call their mark."""

    def __init__(self, function: Any) -> None:
        self.function = function


@dataclass(frozen=True)
class DataMark:
    function: Any = None


# ruff: noqa: B006, B008 - these are what is refused
async def by_depends(user: str = fastapi.Depends(current_user)) -> None: ...
async def by_security(user: str = fastapi.Security(current_user)) -> None: ...
async def by_query(n: int = fastapi.Query(5, le=5)) -> None: ...
async def by_body(n: int = fastapi.Body(5)) -> None: ...
async def by_header(n: str = fastapi.Header("x")) -> None: ...
async def by_field(n: int = Field(5, le=5)) -> None: ...
async def by_required_field(n: int = Field(...)) -> None: ...
async def by_ellipsis(n: int = ...) -> None: ...  # type: ignore[assignment]
async def by_other(user: str = Dependency(current_user)) -> None: ...  # type: ignore[assignment]
async def by_data(user: str = DataMark(current_user)) -> None: ...  # type: ignore[assignment]
async def by_no_hint(user=fastapi.Depends(current_user)) -> None: ...  # type: ignore[no-untyped-def]
async def by_no_hint_either(user=Dependency(current_user)) -> None: ...  # type: ignore[no-untyped-def]
async def by_any(user: Any = DataMark()) -> None: ...
async def by_function(user: str = current_user) -> None: ...  # type: ignore[assignment]
async def by_class(user: str = Dependency) -> None: ...  # type: ignore[assignment]
async def by_keyword(*, user: str = fastapi.Depends(current_user)) -> None: ...
async def by_annotated(user: Annotated[str, fastapi.Depends(current_user)]) -> None: ...
async def by_annotated_query(n: Annotated[int, fastapi.Query(le=5)]) -> None: ...
async def by_annotated_other(user: Annotated[str, Dependency(current_user)]) -> None: ...
async def by_annotated_deeper(users: list[Annotated[str, DataMark()]]) -> None: ...
async def by_list(users: list[str] = [Dependency(1)]) -> None: ...  # type: ignore[list-item]


@dataclass
class FieldAsDefault:
    n: int = Field(5, le=5)


@attrs.define
class AttrsFieldAsDefault:
    n: int = Field(5, le=5)


class TupleFieldAsDefault(NamedTuple):
    n: int = Field(5, le=5)


class StructFieldAsDefault(msgspec.Struct):
    n: int = fastapi.Depends(current_user)


class ModelDepends(pydantic.BaseModel):
    user: str = Dependency(current_user)  # type: ignore[assignment]


async def by_record(value: FieldAsDefault) -> None: ...
async def by_attrs(value: AttrsFieldAsDefault) -> None: ...
async def by_struct(value: StructFieldAsDefault) -> None: ...
async def by_model(value: ModelDepends) -> None: ...


MARKED = [value for name, value in globals().items() if name.startswith("by_")]


@pytest.mark.parametrize("function", MARKED)
def test_marks_are_refused(function: Callable[..., Any]) -> None:
    for register in (Application().route("uri"), Application().publication("uri")):
        with pytest.raises(ConfigurationError, match=r"parameter '\w+' of by_\w+: "):
            register(function)


def test_the_error_says_how_it_is_done_here() -> None:
    with pytest.raises(ConfigurationError, match=r"add_default_arg\(name, factory=...\)"):
        Application().route("uri")(by_depends)
    with pytest.raises(ConfigurationError, match="Annotated"):
        Application().route("uri")(by_field)
    with pytest.raises(ConfigurationError, match=r"add_default_arg\(name, factory=...\)"):
        Application().route("uri")(by_annotated)


def test_marks_in_handlers_that_take_no_arguments() -> None:
    async def topic(user: str = fastapi.Depends(current_user)) -> Any:
        yield

    app = Application()
    app.topic("topic")(topic)
    with pytest.raises(ConfigurationError, match="parameter 'user'"):
        app.freeze()


async def test_the_server_fills_in_what_was_marked() -> None:
    app = Application()
    app.add_default_arg("user", "ada")
    app.route("uri")(by_depends)
    async with connect(app) as client:
        assert (await client.call("uri")).args == (None,)
        with pytest.raises(WAMPError, match="unknown"):
            await client.call("uri", [], {"user": "x"})


class Shade:
    pass


MISSING = object()


@pytest.mark.parametrize(
    ("hint", "default"),
    [
        (int, None),
        (int, 5),
        (int, "5"),
        (float, float("inf")),
        (Decimal, Decimal(1)),
        (Path, Path("a")),
        (list[int], []),
        (list[Order], [Order("a")]),
        (dict[str, Any], {"a": [1, (2, "b")]}),
        (Order, Order("a")),
        (Optional[Order], Order("a")),
        (Annotated[Order, "documented"], Order("a")),
        (Annotated[Shade, Converter(lambda _: Shade())], Shade()),
        (Item, Item("a")),
        (Account, Account("a")),
        (pydantic.SecretStr, pydantic.SecretStr("a")),
        (PositiveInt, 5),
        (int, MISSING),
        (int, msgspec.UNSET),
        (inspect.Parameter.empty, (1, "a")),
    ],
)
async def test_defaults_that_are_data(hint: Any, default: Any) -> None:
    async def procedure(value: Any) -> bool:
        return value is default

    procedure.__defaults__ = (default,)
    procedure.__annotations__["value"] = hint
    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        assert (await client.call("procedure")).args == (True,)


# ---- what is bound


async def scaled(value: int, by: int = 2, *, offset: int = 0, **named: Any) -> Any:
    return [value * by + offset, *named]


class Service:
    def __init__(self, user: str = "ada") -> None:
        self.user = user

    async def method(self, value: int, **named: Any) -> Any:
        return [self.user, value, *named]

    @classmethod
    async def of_class(cls, value: int, **named: Any) -> Any:
        return [cls.__name__, value, *named]

    async def __call__(self, value: int, **named: Any) -> Any:
        return [self.user, value, *named]

    async def positional(self, value: int, /, **named: Any) -> Any:
        return [value, *named]

    partial = functools.partialmethod(method, value=3)


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("function", "args", "result", "bound"),
    [
        (functools.partial(scaled, by=3), [2], [6], {"by": 9}),
        (functools.partial(scaled, offset=3), [2], [7], {"offset": 9}),
        (functools.partial(scaled, 5), [3], [15], {"value": 9}),
        (functools.partial(scaled, 5, 4), [], [20], {"by": 9}),
        (functools.partial(functools.partial(scaled, 5), by=3), [], [15], {"value": 9}),
        (functools.partial(functools.partial(scaled, by=3), offset=1), [2], [7], {"by": 9}),
        (functools.partial(functools.partial(scaled, by=3), by=4), [2], [8], {"by": 9}),
        (wrapped(functools.partial(scaled, by=3)), [2], [6], {"by": 9}),
        (Service().method, [1], ["ada", 1], {"self": 9}),
        (Service.of_class, [1], ["Service", 1], {"cls": 9}),
        (Service(), [1], ["ada", 1], {"self": 9}),
        (functools.partial(Service().method, value=3), [], ["ada", 3], {"value": 9}),
        (functools.partial(Service().method, 3), [], ["ada", 3], {"self": 9}),
        (functools.partial(Service.method, Service()), [3], ["ada", 3], {"self": 9}),
        (Service().partial, [], ["ada", 3], {"value": 9}),
    ],
)
@pytest.mark.parametrize("camel_snake_conversion", [False, True])
async def test_what_is_bound_cant_be_supplied(
    function: Any,
    args: list[Any],
    result: list[Any],
    bound: dict[str, Any],
    camel_snake_conversion: bool,
) -> None:
    app = Application(camel_snake_conversion=camel_snake_conversion)
    app.route("procedure")(function)
    async with connect(app) as client:
        assert (await client.call("procedure", args)).args == tuple(result)
        with pytest.raises(WAMPError) as error:
            await client.call("procedure", args, bound)
        assert error.value.uri == REFUSED
        assert error.value.kwargs["path"] == f"kwargs.{next(iter(bound))}"


async def test_what_is_bound_by_position_only_has_no_name() -> None:
    app = Application()
    app.route("procedure")(Service().positional)
    async with connect(app) as client:
        result = await client.call("procedure", [1], {"self": 2, "value": 3})
        assert result.args == (1, "self", "value")


async def test_what_is_bound_is_not_filled_in() -> None:
    async def procedure(value: int, *, session: Any, db: str) -> list[Any]:
        return [value, session, db]

    app = Application()
    app.add_default_arg("db", "the database")
    app.route("procedure")(functools.partial(procedure, session="mine", db="mine, too"))
    async with connect(app) as client:
        assert (await client.call("procedure", [1])).args == (1, "mine", "mine, too")


async def test_bound_values_are_no_marks() -> None:
    async def procedure(value: int, *, db: Any) -> bool:
        return isinstance(db, Service)

    app = Application()
    app.route("procedure")(functools.partial(procedure, db=Service()))
    async with connect(app) as client:
        assert (await client.call("procedure", [1])).args == (True,)
