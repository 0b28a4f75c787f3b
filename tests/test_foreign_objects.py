"""What is sent of objects of pydantic, msgspec and attrs: what each library says, and no more."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from datetime import date, datetime, timezone
from decimal import Decimal
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path, PureWindowsPath
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st

from serverwamp import Application, History, RPCProgressReport, RPCResult, Session, WAMPError
from serverwamp.protocol.messages import Event
from serverwamp.protocol.serializers import serializer_for
from serverwamp.testing import connect

SUBPROTOCOLS = ["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"]
BINARY = b"\x00\xff\xfe"
TEXTUAL = b"only ASCII"

# ---- classes, each with something that isn't to be sent


@pydantic.dataclasses.dataclass
class Account:
    name: str
    content: Any = None
    password: str = pydantic.Field(default="secret", exclude=True)
    full_name: str = pydantic.Field(default="Ada", serialization_alias="fullName")
    card: str = "1234"

    @pydantic.field_serializer("card")
    def hide(self, card: str) -> str:
        return f"**{card[-2:]}"

    @staticmethod
    def sent(content: Any) -> Any:
        return {"name": "a", "content": content, "fullName": "Ada", "card": "**34"}


class Model(pydantic.BaseModel):
    content: Any
    password: str = pydantic.Field(default="secret", exclude=True)
    card: Annotated[str, pydantic.PlainSerializer(lambda card: card[-2:])] = "1234"
    token: pydantic.SecretStr = pydantic.SecretStr("secret")
    _private: str = "secret"

    @pydantic.computed_field(alias="isShort")  # type: ignore[prop-decorator]
    @property
    def is_short(self) -> bool:
        return True

    @staticmethod
    def sent(content: Any) -> Any:
        return {"content": content, "card": "34", "token": "**********", "isShort": True}


class Extra(pydantic.BaseModel, extra="allow"):
    pass


class Root(pydantic.RootModel[Any]):
    pass


class Typed(pydantic.BaseModel):
    """With fields of other libraries."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    struct: Struct | None = None
    record: Attributes | None = None
    account: Account | None = None


@attrs.define(slots=False)
class Attributes:
    content: Any
    _password: str = "secret"
    made: int = attrs.field(init=False, default=3)

    def __attrs_post_init__(self) -> None:
        self.cache = "secret"
        self.__dict__["other"] = "secret"


@attrs.define
class SlottedAttributes:
    content: Any
    _password: str = "secret"


@attrs.frozen(slots=False)
class FrozenAttributes:
    content: Any


class Struct(msgspec.Struct, rename="camel", tag="struct", omit_defaults=True):
    some_content: Any
    left_out: int = 5
    empty: list[int] = msgspec.field(default_factory=list)
    unset: int | msgspec.UnsetType = msgspec.UNSET


class FrozenStruct(msgspec.Struct, frozen=True, array_like=True):
    content: Any
    when: date


@dataclasses.dataclass
class Plain:
    content: Any
    made: int = dataclasses.field(init=False, default=3)
    later: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.cache = "secret"


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    content: Any


class Pair(typing.NamedTuple):
    content: Any
    number: int


class Holder(enum.Enum):
    """An enum of an object."""

    ACCOUNT = Account("a")
    DAY = date(2024, 1, 2)
    PRICES = (Decimal("1.50"), 2)


class Items(list[Any]):
    """Like the collections of an object-relational mapper."""


def extra(content: Any) -> Extra:
    return Extra(content=content)


HOLDERS: dict[str, tuple[Any, Any]] = {
    "pydantic dataclass": (lambda x: Account("a", x), Account.sent),
    "pydantic model": (lambda x: Model(content=x), Model.sent),
    "pydantic model with more": (extra, lambda x: {"content": x}),
    "pydantic root model": (Root, lambda x: x),
    "attrs": (Attributes, lambda x: {"content": x, "made": 3}),
    "attrs with slots": (SlottedAttributes, lambda x: {"content": x}),
    "attrs, frozen": (FrozenAttributes, lambda x: {"content": x}),
    "struct": (Struct, lambda x: {"type": "struct", "someContent": x}),
    "struct as an array": (
        lambda x: FrozenStruct(x, date(2024, 1, 2)),
        lambda x: [x, "2024-01-02"],
    ),
    "dataclass": (Plain, lambda x: {"content": x, "made": 3}),
    "dataclass with slots": (Slotted, lambda x: {"content": x}),
    "named tuple": (lambda x: Pair(x, 1), lambda x: [x, 1]),
    "list": (lambda x: [x], lambda x: [x]),
    "subclass of list": (lambda x: Items([x]), lambda x: [x]),
    "tuple": (lambda x: (1, x), lambda x: [1, x]),
    "deque": (lambda x: deque([x]), lambda x: [x]),
    "dict": (lambda x: {"key": x}, lambda x: {"key": x}),
    "dict with other keys": (
        lambda x: {1: x, date(2024, 1, 2): 2},
        lambda x: {"1": x, "2024-01-02": 2},
    ),
    "ordered dict": (lambda x: OrderedDict(key=x), lambda x: {"key": x}),
    "mapping": (lambda x: MappingProxyType({"key": x}), lambda x: {"key": x}),
}
LEAVES: list[tuple[Any, Any]] = [
    (1, 1),
    ("text", "text"),
    (None, None),
    (BINARY, BINARY),
    (TEXTUAL, TEXTUAL),
    (bytearray(BINARY), BINARY),
    (memoryview(BINARY), BINARY),
    (datetime(2024, 1, 2, tzinfo=timezone.utc), "2024-01-02T00:00:00Z"),
    (UUID(int=1), str(UUID(int=1))),
    (Path("a/b"), "a/b"),
    (ip_address("127.0.0.1"), "127.0.0.1"),
    (pydantic.SecretStr("secret"), "**********"),
    (Holder.ACCOUNT, Account.sent(None)),
    (Holder.DAY, "2024-01-02"),
    (Holder.PRICES, ["1.50", 2]),
    (Account("a"), Account.sent(None)),
]


def sent(subprotocol: str, value: Any) -> Any:
    serializer = serializer_for(subprotocol)
    unit = serializer.encode(Event(1, 1, {}, (value,)))
    assert "secret" not in str(unit)
    message: Any = serializer.decode(unit)
    (received,) = message.args
    return received


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("inner", HOLDERS)
@pytest.mark.parametrize("outer", HOLDERS)
def test_each_in_each(outer: str, inner: str, subprotocol: str) -> None:
    (wrap, expect), (wrap_inner, expect_inner) = HOLDERS[outer], HOLDERS[inner]
    for leaf, expected in LEAVES:
        value = wrap([wrap_inner(leaf), leaf])
        assert sent(subprotocol, value) == expect([expect_inner(expected), expected])


def held(drawn: tuple[tuple[Any, Any], list[tuple[Any, Any]]]) -> tuple[Any, Any]:
    (wrap, expect), inner = drawn
    return wrap([value for value, _ in inner]), expect([expected for _, expected in inner])


NESTED: st.SearchStrategy[tuple[Any, Any]] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.tuples(
        st.sampled_from(list(HOLDERS.values())), st.lists(inner, max_size=3)
    ).map(held),
    max_leaves=12,
)


@given(nested=NESTED)
def test_however_deep(nested: tuple[Any, Any]) -> None:
    value, expected = nested
    for subprotocol in SUBPROTOCOLS:
        assert sent(subprotocol, value) == expected


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        PureWindowsPath("a"),
        ip_address("::1"),
        ip_interface("::1/128"),
        ip_interface("10.0.0.1/8"),
        ip_network("10.0.0.0/8"),
        ip_network("::/8"),
    ],
)
async def test_what_is_made_of_text_is_sent_as_text(value: Any, subprotocol: str) -> None:
    app = Application()

    async def procedure(value: Any, holder: Any) -> list[Any]:
        return [value, [{"key": value}], holder]

    holder = dataclasses.make_dataclass("Holder", [("value", type(value))])
    procedure.__annotations__.update(value=type(value), holder=holder)
    app.route("procedure")(procedure)
    async with connect(app, subprotocol=subprotocol) as client:
        text = str(value)
        result = await client.call("procedure", [text, {"value": text}])
        (first, (second,), third) = result.args
        assert first == second["key"] == third["value"]
        assert type(value)(first) == value


# ---- pydantic in particular


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_bytes_are_binary_wherever_they_are(subprotocol: str) -> None:
    class Inner(pydantic.BaseModel):
        data: bytes = pydantic.Field(serialization_alias="innerData")

    class Outer(pydantic.BaseModel):
        data: bytes
        several: list[bytes]
        by_name: dict[str, bytes | None]
        inner: Inner | None = None
        either: bytes | str = "text"
        nothing: bytes | None = None
        plain: Plain | None = None

        @pydantic.computed_field(alias="madeData")  # type: ignore[prop-decorator]
        @property
        def made(self) -> bytes:
            return self.data * 2

    for data in (BINARY, TEXTUAL, b""):
        outer = Outer(
            data=data,
            several=[data],
            by_name={"a": data, "b": None},
            inner=Inner(data=data),
            either=data,
        )
        assert sent(subprotocol, outer) == {
            "data": data,
            "several": [data],
            "by_name": {"a": data, "b": None},
            "inner": {"innerData": data},
            "either": data,
            "nothing": None,
            "plain": None,
            "madeData": data * 2,
        }


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_bytes_with_a_serializer_are_what_it_makes_of_them(subprotocol: str) -> None:
    class Encoded(pydantic.BaseModel):
        data: bytes
        other: Annotated[bytes, pydantic.PlainSerializer(lambda data: data.hex())]
        for_json: bytes
        cut: bytes
        base64: pydantic.Base64Bytes
        nested: list[Annotated[bytes, pydantic.PlainSerializer(len, when_used="json")]]

        @pydantic.field_serializer("for_json", when_used="json")
        def hexadecimal(self, data: bytes) -> str:
            return data.hex()

        @pydantic.field_serializer("cut")
        def shorten(self, data: bytes) -> bytes:
            return data[:2]

    encoded = Encoded(
        data=BINARY, other=BINARY, for_json=BINARY, cut=b"text", base64=b"AP/+", nested=[BINARY]
    )
    assert sent(subprotocol, encoded) == {
        "data": BINARY,
        "other": "00fffe",
        "for_json": "00fffe",
        "cut": "te",
        "base64": "AP/+",
        "nested": [3],
    }


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_what_hides_a_field_in_json_hides_it_beside_bytes_too(subprotocol: str) -> None:
    class Inner(pydantic.BaseModel):
        token: str = "secret"
        data: bytes = BINARY

        @pydantic.field_serializer("token", when_used="json")
        def hide(self, token: str) -> str:
            return "***"

    class Outer(pydantic.BaseModel):
        inner: Inner = Inner()
        several: list[Inner] = [Inner()]
        password: pydantic.SecretBytes = pydantic.SecretBytes(b"secret")
        url: pydantic.AnyUrl = pydantic.AnyUrl("http://example.com")
        data: bytes = BINARY

    hidden = {"token": "***", "data": BINARY}
    assert sent(subprotocol, Outer()) == {
        "inner": hidden,
        "several": [hidden],
        "password": "**********",
        "url": "http://example.com/",
        "data": BINARY,
    }


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_models_with_serializers_and_types_of_their_own(subprotocol: str) -> None:
    class Whole(pydantic.BaseModel):
        password: str = "secret"

        @pydantic.model_serializer
        def serialize(self) -> dict[str, Any]:
            return {"hidden": True}

    class Overriding(pydantic.BaseModel):
        password: str = "secret"

        def model_dump(self, **options: Any) -> dict[str, Any]:
            return {**super().model_dump(**options), "password": "***"}

    class Binary(pydantic.RootModel[bytes]):
        pass

    class Duck:
        def model_dump(self, *, mode: str, by_alias: bool) -> dict[str, Any]:
            return {"mode": mode, "by_alias": by_alias}

    class Derived(Account):
        more = "secret"

    assert sent(subprotocol, Whole()) == {"hidden": True}
    assert sent(subprotocol, Overriding()) == {"password": "***"}
    assert sent(subprotocol, [Binary(BINARY), Binary(TEXTUAL)]) == [BINARY, TEXTUAL]
    assert sent(subprotocol, Duck()) == {"mode": "json", "by_alias": True}
    assert sent(subprotocol, Derived("a")) == Account.sent(None)
    typed = Typed(struct=Struct(1), record=Attributes(BINARY), account=Account("a", BINARY))
    assert sent(subprotocol, typed) == {
        "struct": {"type": "struct", "someContent": 1},
        "record": {"content": BINARY, "made": 3},
        "account": Account.sent(BINARY),
    }


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_of_a_subclass_no_more_is_sent_than_is_declared(subprotocol: str) -> None:
    class Public(pydantic.BaseModel):
        data: bytes = BINARY

    class Stored(Public):
        password: str = "secret"

    class Answer(pydantic.BaseModel):
        one: Public = Stored()
        several: list[Public] = [Stored()]
        by_name: dict[str, Public | None] = {"a": Stored(), "b": None}

    shown = {"data": BINARY}
    assert sent(subprotocol, Answer()) == {
        "one": shown,
        "several": [shown],
        "by_name": {"a": shown, "b": None},
    }


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
def test_fields_that_are_left_out_may_hold_anything(subprotocol: str) -> None:
    class Inner(typing_extensions.TypedDict):
        data: bytes

    class LeftOut(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

        data: bytes = pydantic.Field(default=b"secret", exclude=True)
        odd: Any = pydantic.Field(default=object(), exclude=True)
        inner: Inner = {"data": BINARY}

    assert sent(subprotocol, LeftOut()) == {"inner": {"data": BINARY}}


def test_a_struct_is_not_changed_by_being_sent() -> None:
    account = Account("a")
    struct = Struct([account])
    for subprotocol in SUBPROTOCOLS:
        sent(subprotocol, struct)
    assert struct.some_content == [account]
    assert struct.some_content[0] is account


# ---- on all ways to clients


class Unit(str, enum.Enum):  # noqa: UP042 - whose text is another one
    METRE = "m"


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_keys_are_the_same_in_a_result_and_inside_of_it(subprotocol: str) -> None:
    result = {
        Unit.METRE: 1,
        datetime(2024, 1, 2, 3): 2,
        date(2024, 1, 2): 3,
        UUID(int=1): 4,
        5: 5,
        Decimal("1.50"): 6,
    }
    keys = {"m", "2024-01-02T03:00:00", "2024-01-02", str(UUID(int=1)), "5", "1.50"}
    app = Application()

    @app.route("procedure")
    async def procedure(is_nested: bool) -> Any:
        return [result] if is_nested else result

    async with connect(app, subprotocol=subprotocol) as client:
        assert set((await client.call("procedure", [False])).kwargs) == keys
        assert set((await client.call("procedure", [True])).args[0]) == keys


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_all_ways(subprotocol: str) -> None:
    app = Application()
    value = [Account("a", Attributes(BINARY))]
    expected = [Account.sent({"content": BINARY, "made": 3})]

    @app.topic("topic", history=History(10))
    async def topic(session: Session) -> AsyncIterator[None]:
        session.send_event(kwargs={"value": value})
        yield

    @app.route("procedure")
    async def procedure(fail: bool) -> AsyncIterator[Any]:
        yield RPCProgressReport((value,))
        if fail:
            raise WAMPError("com.example.failed", [value], {"value": value})
        yield RPCResult((value,))

    async with connect(app, subprotocol=subprotocol) as client:
        subscription = await client.subscribe("topic")
        assert (await client.expect_event()).kwargs == {"value": expected}
        await app.publish("topic", [value], {"value": value}, retain=True)
        event = await client.expect_event()
        assert (event.args, event.kwargs) == ((expected,), {"value": expected})
        call = await client.start_call("procedure", [False], receive_progress=True)
        assert (await call.progress()).args == (expected,)
        assert (await call.result()).args == (expected,)
        call = await client.start_call("procedure", [True])
        with pytest.raises(WAMPError) as failure:
            await call.result()
        assert (failure.value.args, failure.value.kwargs) == ((expected,), {"value": expected})
        caught_up = await client.catch_up(subscription)
        assert [event.args for event in caught_up.events] == [(expected,)]
