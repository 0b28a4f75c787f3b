"""Annotations and all their parts: constraints, types that aren't data types, and containers."""

import abc
import collections
import dataclasses
import enum
import functools
import io
import logging
import math
import os
import pathlib
import re
import sqlite3
import sys
import threading
import typing
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
    Set,
)
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from ipaddress import IPv4Address
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
)

import annotated_types
import anyio
import attrs
import fastapi
import msgspec
import pydantic
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from pydantic import Field, PositiveInt

from serverwamp import (
    Application,
    ConfigurationError,
    Converter,
    Realm,
    RPCRouteSet,
    WAMPError,
)
from serverwamp.testing import connect
from tests.conversions import refused, registered, sent, taking

REFUSED = "wamp.error.invalid_argument"
FORMATS = ["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"]
T = TypeVar("T")
Positive = Annotated[int, Meta(ge=1)]
UserId = NewType("UserId", PositiveInt)
Alias = typing_extensions.TypeAliasType("Alias", PositiveInt)
MetaAlias = typing_extensions.TypeAliasType("MetaAlias", Positive)
ListOf = typing_extensions.TypeAliasType("ListOf", list[T], type_params=(T,))
Json = typing_extensions.TypeAliasType(
    "Json", Union[str, PositiveInt, list["Json"], dict[str, "Json"], None]
)


# ---- constraints, all the way down


@dataclass
class Amount:
    value: PositiveInt


@dataclass
class Nested:
    inner: Amount


class AmountDict(TypedDict):
    value: PositiveInt


class AmountTuple(NamedTuple):
    value: PositiveInt


class AmountStruct(msgspec.Struct):
    value: PositiveInt


@attrs.define
class AmountAttrs:
    value: PositiveInt


@pydantic.dataclasses.dataclass
class PydanticAmount:
    value: int

    @pydantic.field_validator("value")
    @classmethod
    def check(cls, value: int) -> int:
        if value < 1:
            raise ValueError("not positive")
        return value


@dataclass
class HoldsPydantic:
    value: PydanticAmount


class HoldsStruct(msgspec.Struct):
    inner: AmountStruct


@dataclass
class Box(Generic[T]):
    value: T


@dataclass
class IntBox(Box[PositiveInt]):
    pass


@dataclass
class ListBox(Box[list[T]], Generic[T]):
    first: T


class GenericTuple(NamedTuple, Generic[T]):
    value: T


@attrs.define
class GenericAttrs(Generic[T]):
    value: T


class GenericStruct(msgspec.Struct, Generic[T]):
    value: T


@dataclass
class Chain:
    value: PositiveInt
    following: Optional[typing.Self] = None
    others: list[typing.Self] = field(default_factory=list)


@dataclass
class OtherChain:
    chain: Chain
    others: list[typing.Self] = field(default_factory=list)


class GenericDict(TypedDict, Generic[T]):
    value: T


class PositiveDict(GenericDict[PositiveInt]):
    other: int


@dataclass
class Tree:
    value: PositiveInt
    children: "list[Tree]" = field(default_factory=list)


@dataclass
class ByMeta:
    value: Positive


@dataclass
class ByBoth:
    a: Positive
    b: PositiveInt


class Model(pydantic.BaseModel):
    value: PositiveInt


class ModelWithUnion(pydantic.BaseModel):
    value: PositiveInt | None = None
    others: "dict[str, ModelWithUnion | PositiveInt]" = {}


@dataclass
class ByAlias:
    value: Alias


@dataclass
class ByMetaAlias:
    value: MetaAlias


@dataclass
class ByNewType:
    value: UserId


@pytest.mark.parametrize(
    ("hint", "good", "bad", "path"),
    [
        (Amount, {"value": 1}, {"value": 0}, ".value"),
        (Nested, {"inner": {"value": 1}}, {"inner": {"value": 0}}, ".inner.value"),
        (AmountDict, {"value": 1}, {"value": 0}, ".value"),
        (AmountTuple, [1], [0], "[0]"),
        (AmountStruct, {"value": 1}, {"value": 0}, ".value"),
        (AmountAttrs, {"value": 1}, {"value": 0}, ".value"),
        (HoldsStruct, {"inner": {"value": 1}}, {"inner": {"value": 0}}, ".inner.value"),
        (HoldsPydantic, {"value": {"value": 1}}, {"value": {"value": 0}}, ".value.value"),
        (
            list[HoldsPydantic],
            [{"value": {"value": 1}}],
            [{"value": {"value": 0}}],
            "[0].value.value",
        ),
        (Box[PositiveInt], {"value": 1}, {"value": 0}, ".value"),
        (Box[Amount], {"value": {"value": 1}}, {"value": {"value": 0}}, ".value.value"),
        (GenericTuple[PositiveInt], [1], [0], "[0]"),
        (GenericAttrs[PositiveInt], {"value": 1}, {"value": 0}, ".value"),
        (GenericStruct[PositiveInt], {"value": 1}, {"value": 0}, ".value"),
        (
            OtherChain,
            {"chain": {"value": 1, "others": [{"value": 1}]}, "others": []},
            {"chain": {"value": 1, "others": [{"value": 0}]}, "others": []},
            ".chain.others[0].value",
        ),
        (
            Chain,
            {"value": 1, "following": {"value": 1}},
            {"value": 1, "following": {"value": 0}},
            ".following.value",
        ),
        (pydantic.conint(gt=0), 1, 0, ""),
        (IntBox, {"value": 1}, {"value": 0}, ".value"),
        (ListBox[PositiveInt], {"value": [1], "first": 1}, {"value": [0], "first": 1}, ".value[0]"),
        (GenericDict[PositiveInt], {"value": 1}, {"value": 0}, ".value"),
        (PositiveDict, {"value": 1, "other": 0}, {"value": 0, "other": 0}, ".value"),
        (
            Tree,
            {"value": 1, "children": [{"value": 1}]},
            {"value": 1, "children": [{"value": 0}]},
            ".children[0].value",
        ),
        (ByMeta, {"value": 1}, {"value": 0}, ".value"),
        (ByBoth, {"a": 1, "b": 1}, {"a": 0, "b": 1}, ".a"),
        (ByBoth, {"a": 1, "b": 1}, {"a": 1, "b": 0}, ".b"),
        (ByAlias, {"value": 1}, {"value": 0}, ".value"),
        (ByMetaAlias, {"value": 1}, {"value": 0}, ".value"),
        (ByNewType, {"value": 1}, {"value": 0}, ".value"),
        (UserId, 1, 0, ""),
        (Alias, 1, 0, ""),
        (MetaAlias, 1, 0, ""),
        (list[MetaAlias], [1], [0], "[0]"),
        (dict[str, UserId], {"a": 1}, {"a": 0}, ".a"),
        (ListOf[PositiveInt], [1], [0], "[0]"),
        (Json, {"a": [1, None, "x"]}, {"a": [1, 0]}, None),
        (Optional[Alias], 1, 0, ""),
        (Union[Amount, str], {"value": 1}, {"value": 0}, ".value"),
        (Union[Model, AmountStruct, None], {"value": 1}, {"value": 0}, ".value"),
        (Model | AmountStruct | None, {"value": 1}, {"value": 0}, ".value"),
        (Model | None, {"value": 1}, {"value": 0}, ".value"),
        (ModelWithUnion, {"value": 1}, {"value": 0}, ".value"),
        (ModelWithUnion, {"others": {"a": {"value": 1}}}, {"others": {"a": 0}}, None),
        (Annotated[Alias, Field(le=5)], 5, 6, ""),
        (Annotated[Alias, Field(le=5)], 1, 0, ""),
        (Annotated[MetaAlias, Meta(le=5)], 1, 0, ""),
        (Annotated[MetaAlias, Meta(le=5)], 5, 6, ""),
        (Annotated[MetaAlias, Field(le=5)], 5, 6, ""),
        (Annotated[MetaAlias, Field(le=5)], 1, 0, ""),
        (Annotated[int, Meta(ge=1), Field(le=5)], 1, 0, ""),
        (Annotated[float, Meta(gt=0)], 0.5, 0, ""),
        (Annotated[list[Amount], Meta(min_length=1)], [{"value": 1}], [], ""),
        (Annotated[list[Amount], Meta(min_length=1)], [{"value": 1}], [{"value": 0}], "[0].value"),
        (Annotated[list[AmountStruct], Field(min_length=1)], [{"value": 1}], [], ""),
        (
            Annotated[list[AmountStruct], Field(min_length=1)],
            [{"value": 1}],
            [{"value": 0}],
            "[0].value",
        ),
        (
            Annotated[dict[str, Amount], Meta(max_length=1)],
            {"a": {"value": 1}},
            {"a": {"value": 1}, "b": {"value": 1}},
            "",
        ),
        (Annotated[Sequence[float], annotated_types.Len(1, 2)], [1.5], [], ""),
        (set[PositiveInt], [1], [0], "[0]"),
        (frozenset[Alias], [1], [0], "[0]"),
        (tuple[str, Alias], ["a", 1], ["a", 0], "[1]"),
        (tuple[Alias, ...], [1, 1], [1, 0], "[1]"),
        (Mapping[str, Positive], {"a": 1}, {"a": 0}, None),
        (collections.deque[Positive], [1], [0], "[0]"),
    ],
)
@pytest.mark.parametrize("subprotocol", FORMATS)
async def test_constraints_count_everywhere(
    hint: Any, good: Any, bad: Any, path: str | None, subprotocol: str
) -> None:
    accepted, where = await sent(hint, good, bad, subprotocol=subprotocol)
    assert not isinstance(accepted, str)
    assert str(where).startswith("args[0]")
    assert path is None or where == "args[0]" + path


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is that of Python 3.12")
async def test_type_statements() -> None:
    names: dict[str, Any] = {"__name__": __name__, "PositiveInt": PositiveInt, "Meta": Meta}
    exec(  # which Python 3.11 can't parse
        "from typing import Annotated\n"
        "from dataclasses import dataclass\n"
        "type X = PositiveInt\n"
        "type Pair[A, B] = tuple[A, B]\n"
        "type Deep = list[Deep] | Annotated[int, Meta(ge=1)]\n"
        "@dataclass\n"
        "class Record[A]:\n"
        "    value: A\n"
        "    pair: Pair[A, X]\n",
        names,
    )
    assert await sent(names["X"], 1, 0) == [1, "args[0]"]
    assert await sent(names["Deep"], [[1]], [[0]]) == [[[1]], "args[0][0][0]"]
    hint = names["Record"][Positive]
    record = {"value": 1, "pair": [1, 1]}
    made, value, first, second = await sent(
        hint, record, record | {"value": 0}, record | {"pair": [0, 1]}, record | {"pair": [1, 0]}
    )
    assert made == names["Record"](1, (1, 1))
    assert [value, first, second] == ["args[0].value", "args[0].pair[0]", "args[0].pair[1]"]


class Strict(pydantic.BaseModel, strict=True):
    when: datetime
    number: int
    binary: bytes = b""


@pytest.mark.parametrize("subprotocol", FORMATS)
async def test_strict_models_can_be_satisfied(subprotocol: str) -> None:
    when = "2024-01-02T03:04:05"
    good = {"when": when, "number": 1}
    outcomes = await sent(
        Strict,
        good,
        {**good, "binary": b"ab"},
        {**good, "number": "1"},
        {**good, "binary": b"\xff"},
        subprotocol=subprotocol,
    )
    made = Strict(when=datetime.fromisoformat(when), number=1)
    assert outcomes[:2] == [made, made.model_copy(update={"binary": b"ab"})]
    assert outcomes[2:] == ["args[0].number", "args[0]"]


async def test_all_errors_that_pydantic_knows() -> None:
    app = Application()
    app.route("procedure")(taking(dict[str, Strict]))
    async with connect(app) as client:
        with pytest.raises(WAMPError) as error:
            await client.call("procedure", [{"a": {"when": "x", "number": "y"}}])
    paths = [each["path"] for each in error.value.kwargs["errors"]]
    assert paths == ["args[0].a.when", "args[0].a.number"]


@dataclass
class TwoModels:
    first: Strict
    second: list[Strict]


BAD = {"when": "x", "number": "y"}
BAD_PATHS = [".when", ".number"]


@pytest.mark.parametrize(
    ("hint", "value", "places"),
    [
        (list[Strict], [BAD, BAD], ["[0]", "[1]"]),
        (dict[str, list[Strict]], {"a": [BAD], "b": [BAD]}, [".a[0]", ".b[0]"]),
        (tuple[Strict, Strict], [BAD, BAD], ["[0]", "[1]"]),
        (TwoModels, {"first": BAD, "second": [BAD]}, [".first", ".second[0]"]),
        (list[Model | Strict], [{"value": 1}, BAD, BAD], None),
    ],
)
@pytest.mark.parametrize("subprotocol", FORMATS)
async def test_all_errors_of_several_models(
    hint: Any, value: Any, places: list[str] | None, subprotocol: str
) -> None:
    app = Application()
    app.route("procedure")(taking(hint))
    async with connect(app, subprotocol=subprotocol) as client:
        with pytest.raises(WAMPError) as error:
            await client.call("procedure", [value])
    paths = [each["path"] for each in error.value.kwargs["errors"]]
    assert paths[0] == error.value.kwargs["path"]
    if places is not None:
        assert paths == [f"args[0]{place}{path}" for place in places for path in BAD_PATHS]
    else:
        assert {path.partition("]")[2][:3] for path in paths} == {"[1]", "[2]"}


class Numbers(pydantic.BaseModel):
    numbers: dict[str, list[int | float | bool]] = {}


@pytest.mark.parametrize("hint", [Numbers, dict[str, dict[str, list[PositiveInt]]]])
@pytest.mark.parametrize("subprotocol", FORMATS)
async def test_a_short_message_causes_no_long_answer(hint: Any, subprotocol: str) -> None:
    app = Application()
    app.route("procedure")(taking(hint))
    async with connect(app, subprotocol=subprotocol) as client:
        with pytest.raises(WAMPError) as error:
            await client.call("procedure", [{"numbers": {"k" * 10_000: ["x"] * 2_000}}])
    errors = error.value.kwargs["errors"]
    assert len(errors) == 100
    assert max(len(each["path"]) + len(each["message"]) for each in errors) < 300


class PydanticCat(pydantic.BaseModel):
    kind: Literal["cat"]
    value: Annotated[int, annotated_types.Predicate(lambda n: n > 0)]


class PydanticDog(pydantic.BaseModel):
    kind: Literal["dog"]
    value: PositiveInt


class Pets(pydantic.BaseModel):
    first: Annotated[PydanticCat | PydanticDog, Field(discriminator="kind")]
    others: list[PositiveInt | dict[int, PositiveInt]] = []
    names: dict[int, str] = {}


@dataclass
class DataCat:
    kind: Literal["cat"]
    value: PositiveInt


@dataclass
class DataDog:
    kind: Literal["dog"]
    value: PositiveInt


class StructCat(msgspec.Struct, tag="cat"):
    value: PositiveInt


class StructDog(msgspec.Struct, tag="dog"):
    value: PositiveInt


DOG = {"kind": "dog", "value": 1}


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (PositiveInt | str, 0, ""),
        (Annotated[int, annotated_types.Predicate(bool)] | str, 0, ""),
        (Pets, {"first": {"kind": "dog", "value": 0}}, ".first.value"),
        (Pets, {"first": {"kind": "dog"}}, ".first.value"),
        (Pets, {"first": DOG, "others": [1, 0]}, ".others[1]"),
        (Pets, {"first": DOG, "names": {"x": "y"}}, ".names.x"),
        (DataCat | DataDog, {"kind": "dog", "value": 0}, ".value"),
        (DataDog | DataCat, {"kind": "dog", "value": 0}, ".value"),
        (DataDog | DataCat, {"kind": "cow", "value": 1}, ".kind"),
        (StructCat | StructDog, {"type": "dog", "value": 0}, ".value"),
        (StructCat | StructDog, {"type": "cow", "value": 0}, ".type"),
        (dict[str, DataDog] | None, {"a": {"kind": "cow", "value": 1}}, ".a.kind"),
    ],
)
async def test_the_path_leads_to_the_value_and_not_to_a_member_of_a_union(
    hint: Any, value: Any, path: str
) -> None:
    assert await sent(hint, value) == ["args[0]" + path]


class OptionalField(msgspec.Struct):
    value: PositiveInt | msgspec.UnsetType = msgspec.UNSET
    limited: Annotated[int | msgspec.UnsetType, Field(ge=1)] = msgspec.UNSET


async def test_what_may_be_unset_has_constraints() -> None:
    values = [{}, {"value": 1, "limited": 1}, {"value": 0}, {"limited": 0}]
    made = [OptionalField(), OptionalField(1, 1), "args[0].value", "args[0].limited"]
    assert await sent(OptionalField, *values) == made


async def test_groups_of_constraints() -> None:
    hint = Annotated[int, KnownGroup()]
    assert await sent(hint, 1, 0, 9, 10) == [1, "args[0]", 9, "args[0]"]


class HoldsMeta(pydantic.BaseModel):
    value: Positive


class HoldsMetaDeeper(pydantic.BaseModel):
    values: dict[str, list[Positive]]


class HoldsTimezone(pydantic.BaseModel):
    value: list[Annotated[datetime, annotated_types.Timezone(None)]]


class OwnConstraint(annotated_types.BaseMetadata):
    pass


class OwnLimit(annotated_types.Ge):
    """Of which pydantic takes no notice, as it isn't just `annotated_types.Ge`."""


class OwnGroup(annotated_types.GroupedMetadata):
    def __iter__(self) -> Iterator[annotated_types.BaseMetadata]:
        return iter([annotated_types.Ge(1), OwnConstraint()])


class KnownGroup(annotated_types.GroupedMetadata):
    def __iter__(self) -> Iterator[annotated_types.BaseMetadata]:
        return iter([annotated_types.Ge(1), annotated_types.Le(9)])


class HoldsRecord(pydantic.BaseModel):
    value: ByMeta


class OwnInit:
    pass


@dataclass
class Doubling:
    value: int

    def __init__(self, value: int) -> None:
        self.value = 2 * value


class HoldsDoubling(pydantic.BaseModel):
    value: Doubling


@pytest.mark.parametrize(
    ("hint", "named"),
    [
        (HoldsMeta, "Meta"),
        (HoldsMetaDeeper, "Meta"),
        (HoldsRecord, "Meta"),
        (list[HoldsMeta], "Meta"),
        (Box[HoldsMeta], "HoldsMeta|Meta"),
        (HoldsDoubling, "Doubling"),
        (Annotated[Decimal, Meta(ge=1)], "Decimal|Meta"),
        (Annotated[str, Meta(ge=1)], "ge"),
        (Annotated[Amount, Meta(min_length=1)], "Meta"),
        (Annotated[int, slice(1, 5)], "slice"),
        (Annotated[datetime, annotated_types.Timezone(...)], "Timezone"),
        (Annotated[int, OwnConstraint()], "OwnConstraint"),
        (Annotated[int, OwnLimit(1)], "OwnLimit"),
        (Annotated[int, OwnGroup()], "OwnGroup"),
        (list[Annotated[int, Field(5)]], "default value"),
        (Annotated[list[int], Field(default_factory=list)], "default value"),
        (Annotated[int, Field(alias="other")], "alias"),
        (HoldsTimezone, "Timezone"),
        (Annotated[int, object()], "object"),
        (Annotated[int, lambda n: n > 0], "lambda"),
        (list[Annotated[int, range(5)]], "range"),
        (Annotated[int, Meta(ge=1), Meta(ge=0)], "Meta|ge"),
        (Annotated[AmountStruct, Field(strict=True)], "strict"),
    ],
)
def test_constraints_that_nobody_honours(hint: Any, named: str) -> None:
    refused(hint, named)


@pytest.mark.parametrize(
    "hint",
    [
        Annotated[int, "documented"],
        Annotated[int, typing_extensions.Doc("documented")],
        Annotated[int, annotated_types.Unit("m")],
        Annotated[int, Field(title="documented", examples=[1])],
        Annotated[Amount, Meta(description="documented")],
        Annotated[HoldsPydantic, Field(description="documented")],
        T,
        Box,
        list,
        dict,
        tuple,
        typing.List,  # noqa: UP006
        msgspec.UNSET.__class__ | int,
    ],
)
def test_what_says_nothing_of_values_is_admitted(hint: Any) -> None:
    registered(hint)


def test_without_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    registered(list[Union[ByMeta, int]])
    refused(PositiveInt, "needs pydantic")
    refused(Amount, "needs pydantic")


KINDS = ["list", "dict", "tuple", "box", "typed dict", "struct", "optional", "alias"]


@settings(max_examples=40, deadline=None)
@given(
    hint=st.sampled_from([PositiveInt, Positive, UserId, Alias, MetaAlias]),
    kinds=st.lists(st.sampled_from(KINDS), max_size=5),
)
async def test_constraints_in_any_nesting(hint: Any, kinds: list[str]) -> None:
    good: Any
    bad: Any
    good, bad = 1, 0
    for kind in kinds:
        if kind == "list":
            hint, good, bad = list[hint], [good], [bad]
        elif kind == "dict":
            hint, good, bad = dict[str, hint], {"a": good}, {"a": bad}
        elif kind == "tuple":
            hint, good, bad = tuple[str, hint], ["x", good], ["x", bad]
        elif kind == "box":
            hint, good, bad = Box[hint], {"value": good}, {"value": bad}
        elif kind == "typed dict":
            hint, good, bad = GenericDict[hint], {"value": good}, {"value": bad}
        elif kind == "struct":
            struct = msgspec.defstruct("Struct", [("value", hint)])
            hint, good, bad = struct, {"value": good}, {"value": bad}
        elif kind == "optional":
            hint = Optional[hint]
        elif kind == "alias":
            hint = typing_extensions.TypeAliasType("Another", hint)
    accepted, path = await sent(hint, good, bad)
    assert not isinstance(accepted, str)
    assert str(path).startswith("args[0]")


# ---- types that aren't data types


class Plain:
    def __init__(self, value: Any) -> None:
        raise AssertionError("nobody constructs this")


class Text(str):
    __slots__ = ()


class Speaks(Protocol):
    def speak(self) -> str: ...


@typing.runtime_checkable
class Closes(Protocol):
    def close(self) -> None: ...


class Abstract(abc.ABC):
    @abc.abstractmethod
    def method(self) -> None: ...


@dataclass
class AbstractRecord(abc.ABC):
    value: int

    @abc.abstractmethod
    def method(self) -> None: ...


@dataclass
class HoldsPlain:
    plain: Plain


class DictOfPlain(TypedDict):
    plain: Plain


class TupleOfPlain(NamedTuple):
    plain: Plain


class StructOfPlain(msgspec.Struct):
    plain: Plain


@attrs.define
class AttrsOfPlain:
    plain: Plain


@dataclass
class InitOfPlain:
    plain: InitVar[Plain]


P = typing.ParamSpec("P")
PlainBound = TypeVar("PlainBound", bound=Plain)
PlainOr = TypeVar("PlainOr", int, Plain)
NO_DATA = [
    sqlite3.Connection,
    Plain,
    Text,
    Speaks,
    Closes,
    Abstract,
    AbstractRecord,
    HoldsPlain,
    DictOfPlain,
    TupleOfPlain,
    StructOfPlain,
    AttrsOfPlain,
    InitOfPlain,
    threading.Thread,
    io.IOBase,
    io.StringIO,
    typing.IO[str],
    typing.TextIO,
    Callable,
    Callable[[int], str],
    typing.Callable[..., Any],
    type,
    type[Plain],
    range,
    slice,
    memoryview,
    re.Pattern,
    os.PathLike,
    logging.Logger,
    Exception,
    property,
    functools.partial,
    collections.ChainMap,
    collections.UserDict,
    typing.Hashable,
    typing.SupportsInt,
    typing.Never,
    typing.NoReturn,
    typing.LiteralString,
    typing.Awaitable[int],
    typing.Iterator[int],
    typing.Generator[int, None, None],
    msgspec.Raw,
    P,
    PlainBound,
    PlainOr,
    Application,
    fastapi.FastAPI,
    math,
    5,
    collections.defaultdict[str, Amount],
]
WRAPPED: list[Callable[[Any], Any]] = [
    lambda hint: hint,
    lambda hint: list[hint],
    lambda hint: dict[str, hint],
    lambda hint: tuple[int, hint],
    lambda hint: Optional[hint],
    lambda hint: Union[int, list[hint]],
    lambda hint: Annotated[hint, "documented"],
    lambda hint: Box[hint],
    lambda hint: collections.deque[hint],
    lambda hint: Annotated[list[hint], Field(min_length=1)],
    lambda hint: typing_extensions.TypeAliasType("Another", hint),
    lambda hint: dataclasses.make_dataclass("Made", [("value", hint)]),
    lambda hint: msgspec.defstruct("Made", [("value", hint)]),
    lambda hint: TypedDict("Made", {"value": hint}),  # type: ignore[operator]
]


@pytest.mark.parametrize("hint", NO_DATA, ids=str)
def test_what_is_no_data_type_is_refused_wherever_it_stands(hint: Any) -> None:
    for wrapped in WRAPPED:
        with suppress(TypeError, AttributeError):  # `typing` itself refuses some
            annotation = wrapped(hint)
            refused(annotation)


def test_the_error_says_what_to_do() -> None:
    refused(list[sqlite3.Connection], r"`Connection` isn't a data type.*add_default_arg.*Converter")


def test_published_arguments_are_data_as_well() -> None:
    with pytest.raises(ConfigurationError, match="isn't a data type"):
        Application().publication("topic")(taking(Plain))


async def test_what_the_server_fills_in_may_be_anything() -> None:
    app = Application()
    app.add_default_arg("db", "the database")

    @app.route("procedure")
    async def procedure(db: sqlite3.Connection, value: int) -> str:
        return f"{db} {value}"

    async with connect(app) as client:
        assert (await client.call("procedure", [1])).args == ("the database 1",)


# ---- converters


class Color:
    def __init__(self, code: str) -> None:
        self.code = code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Color) and other.code == self.code

    __hash__ = None  # type: ignore[assignment]


def color(code: str) -> Color:
    if not code.startswith("#"):
        raise KeyError("a secret")
    return Color(code)


Colored = Annotated[Color, Converter(color)]


@dataclass
class Pen:
    color: Colored
    width: int = 1


@dataclass
class Brush:
    color: Color


async def test_converters_in_annotations() -> None:
    assert await sent(Colored, "#fff", "red", 5) == [Color("#fff"), "args[0]", "args[0]"]
    assert await sent(list[Colored], ["#fff"], ["#0", "red"]) == [[Color("#fff")], "args[0][1]"]
    assert await sent(Optional[Colored], None, "#fff") == [None, Color("#fff")]
    assert await sent(Pen, {"color": "#fff"}) == [Pen(Color("#fff"))]
    assert await sent(Annotated[int, Converter(len)], "abc", 5) == [3, "args[0]"]
    assert await sent(Annotated[int, Converter(len), Field(le=2)], "ab", "abc") == [2, "args[0]"]


async def test_declared_converters() -> None:
    realm = Realm("realm")
    app = Application()
    app.add_realm(realm)
    routes = RPCRouteSet()

    @routes.route("procedure")
    async def procedure(brush: Brush, colors: list[Color]) -> list[str]:
        return [brush.color.code, *(color.code for color in colors)]

    with pytest.raises(ConfigurationError, match="Color"):
        realm.add_routes(routes)
    for configured in (realm, app):
        configured.add_converter(Color, color)
        configured.add_routes(routes) if configured is app else None
    other = Realm("other")
    with pytest.raises(ConfigurationError, match="Color"):
        other.add_routes(routes)
    async with connect(app) as client:
        result = await client.call("procedure", [{"color": "#1"}, ["#2"]])
        assert result.args == ("#1", "#2")
        with pytest.raises(WAMPError) as error:
            await client.call("procedure", [{"color": "red"}, []])
        assert error.value.kwargs["path"] == "args[0].color"
        assert "secret" not in str(error.value)
        with pytest.raises(ConfigurationError, match="serving already"):
            app.add_converter(Color, color)


async def test_errors_of_converters(caplog: pytest.LogCaptureFixture) -> None:
    def convert(value: Any) -> Any:
        raise {1: WAMPError("com.example.mine"), 2: ValueError("a secret")}[value]

    app = Application()
    app.route("procedure")(taking(Annotated[Color, Converter(convert)]))
    async with connect(app) as client:
        for value, uri in ((1, "com.example.mine"), (2, REFUSED), (3, REFUSED)):
            with pytest.raises(WAMPError) as error:
                await client.call("procedure", [value])
            assert error.value.uri == uri
            assert "secret" not in str(error.value)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_converters_are_plain_functions() -> None:
    async def convert(value: Any) -> Any: ...

    refused(Annotated[Color, Converter(convert)], "has to be a plain function")


# ---- containers


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (collections.deque[int], ["1"], collections.deque([1])),
        (frozenset[int], ["1", 1], frozenset({1})),
        (Set[int], ["1"], {1}),
        (MutableSet[float], ["1"], {1.0}),
        (Sequence[int], ["1"], [1]),
        (MutableSequence[int], ["1"], [1]),
        (Collection[float], ["1"], [1.0]),
        (Iterable[Decimal], ["1"], [Decimal(1)]),
        (Mapping[str, int], {"a": "1"}, {"a": 1}),
        (Mapping[int, float], {"1": "1"}, {1: 1.0}),
        (MutableMapping[str, float], {"a": "1"}, {"a": 1.0}),
        (collections.defaultdict[str, int], {"a": "1"}, collections.defaultdict(int, a=1)),
        (
            collections.defaultdict[str, list[float]],
            {"a": ["1"]},
            collections.defaultdict(list, a=[1.0]),
        ),
        (collections.OrderedDict[str, int], {"a": "1"}, collections.OrderedDict(a=1)),
        (collections.Counter[str], {"a": "1"}, collections.Counter(a=1)),
        (typing.Deque[int], ["1"], collections.deque([1])),  # noqa: UP006
        (tuple[()], [], ()),
        (tuple[float, ...], ["1"], (1.0,)),
        (collections.namedtuple("Pair", "a b"), [1, "b"], (1, "b")),
        (pathlib.Path, "a/b", pathlib.Path("a/b")),
        (pathlib.PurePosixPath, "a/b", pathlib.PurePosixPath("a/b")),
        (IPv4Address, "127.0.0.1", IPv4Address("127.0.0.1")),
        (complex, "1+2j", 1 + 2j),
        (Literal[b"a", "x"], b"a", b"a"),
        (bytearray, b"a", bytearray(b"a")),
    ],
)
@pytest.mark.parametrize("subprotocol", FORMATS)
async def test_generic_containers_convert_their_items(
    hint: Any, value: Any, expected: Any, subprotocol: str
) -> None:
    (made,) = await sent(hint, value, subprotocol=subprotocol)
    assert made == expected
    assert isinstance(made, type(expected))
    if isinstance(expected, collections.defaultdict):
        assert made.default_factory is expected.default_factory


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (collections.deque[int], ["x"], "args[0][0]"),
        (collections.deque[int], "12", "args[0]"),
        (Sequence[float], {"a": 1}, "args[0]"),
        (collections.Counter[str], {"a": "x"}, "args[0].a"),
        (collections.OrderedDict[str, int], [1], "args[0]"),
        (set[Any], [[1]], "args[0]"),
        (set[Union[float, list[int]]], [[1]], "args[0]"),
        (tuple[float, int], [1.5], "args[0]"),
        (tuple[float, int], 5, "args[0]"),
        (pathlib.Path, 5, "args[0]"),
        (IPv4Address, "somewhere", "args[0]"),
        (IPv4Address, 1, "args[0]"),
        (complex, [1, 2], "args[0]"),
        (complex, "x", "args[0]"),
        (Literal[b"a", "x"], "y", "args[0]"),
        (AmountTuple, [1, 2], "args[0]"),
        (AmountTuple, [], "args[0]"),
        (AmountTuple, {"value": 1}, "args[0]"),
        (Amount, [1], "args[0]"),
        (Amount, {}, "args[0]"),
    ],
)
async def test_what_containers_refuse(
    hint: Any, value: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await sent(hint, value) == [path]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


class Mixed(enum.Enum):
    NUMBER = 1
    TEXT = "text"
    PAIR = (1, 2)


async def test_enums_of_mixed_types() -> None:
    values = [1, "text", [1, 2], "other", True, {}]
    assert await sent(Mixed, *values) == [*Mixed, "args[0]", "args[0]", "args[0]"]
    assert await sent(Literal[Mixed.TEXT], "text", 1) == [Mixed.TEXT, "args[0]"]


class Others(enum.Enum):
    WHOLE = 2.0
    PRICE = Decimal("1.5")
    DAY = date(2024, 1, 2)
    NESTED = (1, (2, 3))
    TEXT = "1.50"


@pytest.mark.parametrize("subprotocol", FORMATS)
async def test_enums_can_be_sent_back_as_they_are_received(subprotocol: str) -> None:
    received: list[Any] = []
    app = Application()

    @app.route("send")
    async def send() -> list[Others]:
        return list(Others)

    async with connect(app, subprotocol=subprotocol) as client:
        received.extend((await client.call("send")).args)
    assert await sent(Others, *received, subprotocol=subprotocol) == list(Others)
    values = [2, "2024-01-03", float("inf"), [1, [2]], {}]  # a browser writes 2.0 as 2
    refusals = ["args[0]"] * 4
    assert await sent(Others, *values, subprotocol="wamp.2.cbor") == [Others.WHOLE, *refusals]


@dataclass
class First:
    a: int = 0


@dataclass
class Second:
    b: int = 0


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (Union[First, Second], {"b": 1}, Second(1)),
        (Union[First, Second], {"a": "1"}, First(1)),
        (Union[First, Second], {"b": "1"}, First()),  # only leniently either
        (Union[float, str], "5", "5"),
        (Union[float, str], 5, 5.0),
        (Union[float, int], 5, 5),
        (Union[float, int], 5.5, 5.5),
        (Union[Decimal, str], "5", "5"),
        (Union[float, None], None, None),
        (Union[float, bool], True, True),
        (Union[datetime, str], "2024-01-02T03:04:05", "2024-01-02T03:04:05"),
        (Union[date, int], "2024-01-02", date(2024, 1, 2)),
        (Union[date, datetime], "2024-01-02T00:00:00Z", None),
        (Union[Model, str], "text", "text"),
        (Union[Model, First], {"a": 1}, First(1)),
        (Union[list[First], First], [{"a": 1}], [First(1)]),
    ],
)
async def test_unions(hint: Any, value: Any, expected: Any) -> None:
    (made,) = await sent(hint, value)
    if expected is not None or value is None:
        assert made == expected
        assert type(made) is type(expected)


@dataclass
class Leaf:
    others: list["Leaf | Branch"] = field(default_factory=list)
    value: PositiveInt = 1
    price: Decimal = Decimal(0)


@dataclass
class Branch:
    others: list["Leaf | Branch"] = field(default_factory=list)
    number: PositiveInt = 1
    price: Decimal = Decimal(0)


class Attempt(msgspec.Struct):
    count: typing.ClassVar[int] = 0
    others: list["Attempt | OtherAttempt"] = []
    value: PositiveInt = 1

    def __post_init__(self) -> None:
        type(self).count += 1


class OtherAttempt(msgspec.Struct):
    others: list["Attempt | OtherAttempt"] = []
    number: PositiveInt = 1


def nested(leaf: Any, depth: int) -> Any:
    for _ in range(depth):
        leaf = {"others": [leaf], "number": 1}
    return leaf


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (Json, nested(0, 18), ".others[0]" * 18),
        (Leaf | Branch, nested({"number": 0, "value": 0}, 18), ".others[0]" * 18 + ".value"),
        (
            Attempt | OtherAttempt,
            nested({"number": 0, "value": 0}, 18),
            ".others[0]" * 18 + ".value",
        ),
        (Leaf | Branch, nested({"number": 1}, 18), None),
    ],
)
@pytest.mark.parametrize("subprotocol", FORMATS)
async def test_unions_in_unions_take_no_time(
    hint: Any, value: Any, path: str | None, subprotocol: str
) -> None:
    with anyio.fail_after(5):  # each level used to double it
        (outcome,) = await sent(hint, value, subprotocol=subprotocol)
    if path is None:
        assert isinstance(outcome, Branch)
    else:
        assert outcome == "args[0]" + path
    assert Attempt.count < 10_000


@dataclass
class Lenient:
    a: int
    b: int


async def test_errors_of_a_union_are_not_those_of_a_strict_attempt() -> None:
    assert await sent(Lenient | None, {"a": "1", "b": "x"}) == ["args[0].b"]
    assert await sent(dict[str, Lenient | str], {"k": {"a": "1", "b": "x"}}) == ["args[0].k.b"]


class Cat(msgspec.Struct, tag="cat", tag_field="kind", rename="camel"):
    cat_name: str
    weight: float = 1.0


class Dog(msgspec.Struct, tag="dog", tag_field="kind", forbid_unknown_fields=True):
    name: str


class Row(msgspec.Struct, array_like=True, tag=True):
    number: float
    text: str = ""


async def test_structs_keep_their_rules() -> None:
    cat, dog = {"kind": "cat", "catName": "Tom", "weight": "2"}, {"kind": "dog", "name": "Rex"}
    assert await sent(Union[Cat, Dog], cat, dog) == [Cat("Tom", 2.0), Dog("Rex")]
    assert await sent(Dog, dog | {"a": 1}, dog | {"kind": "cat"}, {"name": "Rex"}) == [
        "args[0]",
        "args[0].kind",
        Dog("Rex"),
    ]
    assert await sent(Cat, {"kind": "cat", "cat_name": "Tom"}) == ["args[0]"]
    assert await sent(Row, ["Row", "1.5"], ["Row", 1, "a"], ["Other", 1], ["Row", "x"], []) == [
        Row(1.5),
        Row(1.0, "a"),
        "args[0][0]",
        "args[0][1]",
        "args[0][0]",
    ]
