"""Numbers that clients send: finite, unless an annotation admits others, and exact Decimals."""

import collections
import json
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from pydantic import AllowInfNan, ConfigDict, Field, FiniteFloat, PositiveFloat

from serverwamp import Application, Converter, RPCProgressReport, WAMPError
from serverwamp.testing import connect
from tests.conversions import sent

REFUSED = "wamp.error.invalid_argument"
TEXTS = ["nan", "NaN", "-nan", "inf", "-inf", "Infinity", "-Infinity", "+inf", " nan ", "iNf"]
NUMBERS = [math.nan, math.inf, -math.inf]


# ---- finite


@dataclass
class Bid:
    amount: float


class BidDict(TypedDict):
    amount: Decimal


class BidTuple(NamedTuple):
    amount: float


class BidStruct(msgspec.Struct):
    amount: float


@attrs.define
class BidAttrs:
    amount: Decimal


class BidModel(pydantic.BaseModel):
    amount: float


@pydantic.dataclasses.dataclass
class BidPydantic:
    amount: float


class Bids(pydantic.BaseModel):
    bids: list[BidModel]
    by_name: dict[str, float] = {}
    plain: Optional[Bid] = None


class BidList(pydantic.RootModel[list[float]]):
    pass


class Exact(pydantic.BaseModel):
    amount: Decimal


@dataclass
class HoldsModel:
    bid: BidModel


WRAPPED = [
    lambda number: (number, lambda value: value),
    lambda number: (list[number], lambda value: [value]),
    lambda number: (dict[str, number], lambda value: {"a": value}),
    lambda number: (set[number], lambda value: [value]),
    lambda number: (tuple[number, ...], lambda value: [value]),
    lambda number: (tuple[int, number], lambda value: [1, value]),
    lambda number: (Sequence[number], lambda value: [value]),
    lambda number: (collections.deque[number], lambda value: [value]),
    lambda number: (Optional[number], lambda value: value),
    lambda number: (Union[number, bool, None], lambda value: value),
    lambda number: (Union[number, list[number]], lambda value: [value]),
    lambda number: (Annotated[number, "documented"], lambda value: value),
    lambda number: (Annotated[list[number], Field(min_length=1)], lambda value: [value]),
    lambda number: (Annotated[list[number], Meta(min_length=1)], lambda value: [value]),
]


@pytest.mark.parametrize("number", [float, Decimal, complex])
async def test_text_that_is_no_finite_number(number: Any) -> None:
    for wrapped in WRAPPED:
        hint, value = wrapped(number)
        outcomes = await sent(hint, *map(value, TEXTS))
        assert all(isinstance(outcome, str) for outcome in outcomes), (hint, outcomes)


@pytest.mark.parametrize("subprotocol", ["wamp.2.msgpack", "wamp.2.cbor"])
@pytest.mark.parametrize("number", [float, Decimal, complex, int])
async def test_numbers_that_are_not_finite(number: Any, subprotocol: str) -> None:
    for wrapped in WRAPPED:
        hint, value = wrapped(number)
        outcomes = await sent(hint, *map(value, NUMBERS), subprotocol=subprotocol)
        assert all(isinstance(outcome, str) for outcome in outcomes), (hint, outcomes)


@pytest.mark.parametrize(
    ("hint", "of"),
    [
        (Bid, lambda value: {"amount": value}),
        (BidDict, lambda value: {"amount": value}),
        (BidTuple, lambda value: [value]),
        (BidStruct, lambda value: {"amount": value}),
        (BidAttrs, lambda value: {"amount": value}),
        (BidModel, lambda value: {"amount": value}),
        (BidPydantic, lambda value: {"amount": value}),
        (Bids, lambda value: {"bids": [{"amount": value}]}),
        (Bids, lambda value: {"bids": [], "by_name": {"a": value}}),
        (Bids, lambda value: {"bids": [], "plain": {"amount": value}}),
        (BidList, lambda value: [1.5, value]),
        (Exact, lambda value: {"amount": value}),
        (HoldsModel, lambda value: {"bid": {"amount": value}}),
        (list[BidModel], lambda value: [{"amount": value}]),
        (Union[BidModel, Exact], lambda value: {"amount": value}),
        (PositiveFloat, lambda value: value),
        (FiniteFloat, lambda value: value),
        (Annotated[float, Meta(gt=0)], lambda value: value),
        (Annotated[float, Field(gt=0)], lambda value: value),
        (Annotated[Decimal, Field(gt=0)], lambda value: value),
    ],
)
@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"])
async def test_finite_numbers_in_records(hint: Any, of: Any, subprotocol: str) -> None:
    values = TEXTS if subprotocol == "wamp.2.json" else [*TEXTS, *NUMBERS]
    outcomes = await sent(hint, of(1.5), of("2.5"), *map(of, values), subprotocol=subprotocol)
    assert not any(isinstance(outcome, str) for outcome in outcomes[:2])
    assert all(isinstance(outcome, str) for outcome in outcomes[2:]), outcomes


async def test_the_path_of_a_number() -> None:
    assert await sent(Bids, {"bids": [{"amount": 1}, {"amount": "nan"}]}) == [
        "args[0].bids[1].amount"
    ]
    assert await sent(dict[str, list[float]], {"a": [1, "inf"]}) == ["args[0].a[1]"]
    assert await sent(pydantic.RootModel[list[float]], [1, "inf"]) == ["args[0][1]"]


class Unlimited(pydantic.BaseModel):
    limit: float = Field(math.inf, allow_inf_nan=True)
    finite: float = math.inf
    values: dict[str, Annotated[float, AllowInfNan()]] = {}


class AllUnlimited(pydantic.BaseModel):
    model_config = ConfigDict(allow_inf_nan=True)
    limit: float
    finite: Annotated[float, Field(allow_inf_nan=False)] = 0.0


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Annotated[float, AllowInfNan()], "inf"),
        (Annotated[float, Field(allow_inf_nan=True)], "-inf"),
        (Annotated[Decimal, Field(allow_inf_nan=True)], "Infinity"),
        (list[Annotated[float, Field(allow_inf_nan=True)]], ["inf"]),
        (Optional[Annotated[float, AllowInfNan()]], "inf"),
        (Unlimited, {"limit": "inf"}),
        (Unlimited, {"values": {"a": "inf"}}),
        (Unlimited, {}),
        (AllUnlimited, {"limit": "inf"}),
        (dict[str, Unlimited], {"a": {"limit": "inf"}}),
        (str, "nan"),
        (Union[float, str], "nan"),
        (Literal["inf"], "inf"),
        (Any, "nan"),
    ],
)
async def test_where_numbers_may_be_infinite(hint: Any, value: Any) -> None:
    (outcome,) = await sent(hint, value)
    assert not str(outcome).startswith("args")


def halved(text: str) -> float:
    return float(text) / 2


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
async def test_what_converters_make_is_finite(number: str) -> None:
    assert await sent(Annotated[float, Converter(halved)], "1", number) == [0.5, "args[0]"]
    assert await sent(list[Annotated[Any, Converter(Decimal)]], [number]) == ["args[0][0]"]
    unlimited = Annotated[float, Converter(halved), AllowInfNan()]
    assert str(*await sent(unlimited, number)) == number


async def test_one_admission_doesnt_count_for_others() -> None:
    assert await sent(Unlimited, {"limit": 1, "finite": "inf"}) == ["args[0].finite"]
    assert await sent(AllUnlimited, {"limit": 1, "finite": "inf"}) == ["args[0].finite"]


@pytest.mark.parametrize("subprotocol", ["wamp.2.msgpack", "wamp.2.cbor"])
async def test_untyped_values_pass_as_they_are(subprotocol: str) -> None:
    (outcome,) = await sent(Any, math.inf, subprotocol=subprotocol)
    assert outcome == math.inf


@pytest.mark.parametrize("hint", [datetime, date, time, timedelta, int, bool])
async def test_nothing_else_is_made_of_what_is_not_finite(hint: Any) -> None:
    outcomes = await sent(hint, *TEXTS, "1e999", "-1e999")
    outcomes += await sent(hint, *NUMBERS, 1e308, subprotocol="wamp.2.msgpack")
    if hint is int:
        outcomes.pop()  # a big one, but a number
    assert outcomes == ["args[0]"] * len(outcomes)


async def test_numbers_beyond_a_float() -> None:
    huge = 10**400
    assert await sent(float, "1e999", "-1e999", str(huge)) == ["args[0]"] * 3
    assert await sent(float, huge) == ["args[0]"]
    assert await sent(complex, "1e999", huge) == ["args[0]"] * 2
    assert await sent(Decimal, "1e999", str(huge)) == [Decimal("1E+999"), Decimal(huge)]


@pytest.mark.parametrize("subprotocol", ["wamp.2.msgpack", "wamp.2.cbor"])
async def test_the_short_way_is_as_careful(subprotocol: str) -> None:
    async def procedure(count: int, seconds: float, text: str = "") -> float:
        return seconds

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app, subprotocol=subprotocol) as client:
        assert (await client.call("procedure", [1, 1.5, ""])).args == (1.5,)
        for args, kwargs in (
            ([1, math.nan, ""], {}),
            ([1, math.inf], {}),
            ([1], {"seconds": -math.inf}),
        ):
            with pytest.raises(WAMPError, match="finite"):
                await client.call("procedure", args, kwargs)


async def test_chunks_are_finite() -> None:
    async def procedure(numbers: AsyncIterator[float]) -> float:
        return sum([number async for number in numbers])

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app, subprotocol="wamp.2.msgpack") as client:
        call = await client.start_call("procedure", progress=True)
        await call.send_chunk(math.nan)
        with pytest.raises(WAMPError, match="finite"):
            await call.result()


# ---- exact


@dataclass
class Line:
    price: Decimal
    extra: Any = None
    weight: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)


class LineModel(pydantic.BaseModel):
    model_config = ConfigDict(extra="allow")
    price: Decimal = Field(alias="thePrice")
    extra: Any = None
    weight: float = 0.0
    more: dict[str, Any] = {}
    children: "list[LineModel]" = []


class LineStruct(msgspec.Struct, rename="camel"):
    the_price: Decimal
    extra: Any = None


class Priced(NamedTuple):
    extra: Any
    price: Decimal


@dataclass
class Node:
    price: Decimal
    extra: Any
    children: "list[Node]" = field(default_factory=list)


LONG = "1.10000000000000000000000000001"


@pytest.mark.parametrize(
    ("hint", "text", "expected"),
    [
        (Line, '{"price": N, "extra": N}', Line(Decimal(LONG), 1.1)),
        (Line, '{"price": N, "extra": {"a": [N]}}', Line(Decimal(LONG), {"a": [1.1]})),
        (Line, '{"price": N, "weight": N}', Line(Decimal(LONG), None, 1.1)),
        (Line, '{"price": N, "more": {"price": N}}', Line(Decimal(LONG), more={"price": 1.1})),
        (list[Line], '[{"price": N, "extra": N}]', [Line(Decimal(LONG), 1.1)]),
        (LineStruct, '{"thePrice": N, "extra": N}', LineStruct(Decimal(LONG), 1.1)),
        (Priced, "[N, N]", Priced(1.1, Decimal(LONG))),
        (tuple[Any, Decimal], "[N, N]", (1.1, Decimal(LONG))),
        (dict[str, Decimal], '{"a": N}', {"a": Decimal(LONG)}),
        (Union[Decimal, list[Any]], "[N]", [1.1]),
        (Union[Decimal, list[Any]], "N", Decimal(LONG)),
        (Union[Line, dict[str, list[Any]]], '{"price": [N]}', {"price": [1.1]}),
        (
            Node,
            '{"price": N, "extra": N, "children": [{"price": N, "extra": N}]}',
            Node(Decimal(LONG), 1.1, [Node(Decimal(LONG), 1.1)]),
        ),
        (Annotated[Decimal, Field(gt=0)], "N", Decimal(LONG)),
        (list[Annotated[Decimal, Field(gt=0)]], "[N]", [Decimal(LONG)]),
        (Any, "N", 1.1),
        (list, "[N]", [1.1]),
    ],
)
async def test_only_decimals_are_exact(hint: Any, text: str, expected: Any) -> None:
    taken = []

    async def procedure(value: Any, neighbour: Any, price: Decimal) -> None:
        taken.extend([value, neighbour, price])

    procedure.__annotations__["value"] = hint
    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        await client.send_frame(
            '[48,1,{},"procedure",[' + text.replace("N", LONG) + f', {{"a": {LONG}}}, {LONG}]]'
        )
        assert (await client.receive())[:2] == [50, 1]
    assert taken == [expected, {"a": 1.1}, Decimal(LONG)]
    assert repr(taken[0]) == repr(expected)


async def test_exact_numbers_in_models() -> None:
    taken = []

    async def procedure(value: LineModel) -> None:
        taken.append(value)

    app = Application()
    app.route("procedure")(procedure)
    child = '{"thePrice": N, "extra": N}'
    numbers = '"thePrice": N, "extra": N, "weight": N, "more": {"thePrice": N}, "other": N'
    text = f'{{{numbers}, "children": [{child}]}}'
    async with connect(app) as client:
        await client.send_frame('[48,1,{},"procedure",[' + text.replace("N", LONG) + "]]")
        assert (await client.receive())[:2] == [50, 1]
    (value,) = taken
    assert value.price == value.children[0].price == Decimal(LONG)
    for number in (
        value.extra,
        value.weight,
        value.more["thePrice"],
        value.other,
        value.children[0].extra,
    ):
        assert type(number) is float


async def test_chunks_beside_a_decimal() -> None:
    async def procedure(price: Decimal, values: AsyncIterator[Any]) -> Any:
        async for value in values:
            yield RPCProgressReport([type(value).__name__])
        yield str(price)

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        call = await client.start_call("procedure", [1.1], progress=True, receive_progress=True)
        await call.send_chunk(1.1)
        assert (await call.progress()).args == ("float",)
        await call.end_chunks()
        assert (await call.result()).args == ("1.1",)


@pytest.mark.parametrize("number", ["0e99999999999999999999", "-1e-99999999999999999999"])
async def test_no_decimal_has_such_an_exponent(
    number: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()

    @app.route("plain")
    async def plain(price: Decimal) -> None: ...

    @app.route("streamed")
    async def streamed(price: Decimal, values: AsyncIterator[Decimal]) -> None:
        async for _ in values:
            pass

    @app.publication("news")
    async def news(price: Decimal) -> None: ...

    async with connect(app) as client:
        for request in (
            f'[48,1,{{}},"plain",[{number}]]',
            f'[48,1,{{"progress":true}},"streamed",[{number}]]',
            f'[16,1,{{"acknowledge":true}},"news",[{number}]]',
        ):
            await client.send_frame(request)
            answer = await client.receive()
            assert answer[2:5] == [1, {}, "wamp.error.invalid_argument"]
        call = await client.start_call("streamed", [1], progress=True)
        await client.send_frame(f'[48,{call.request},{{"progress":true}},"streamed",[{number}]]')
        with pytest.raises(WAMPError, match="invalid_argument"):
            await call.result()
        await client.expect_nothing()
    assert not caplog.records


@pytest.mark.parametrize("hint", [Decimal, dict[Decimal, int], Annotated[Decimal, Field(gt=0)]])
async def test_no_exponent_is_out_of_all_bounds(hint: Any) -> None:
    texts = ["1e6145", "1e999999999999999999", "1e-6145", "1e-999999999999999999", "0.1e-7000"]
    good = ["1e6144", "1e-6144", "9" * 4000, "0." + "3" * 7000]
    if hint == dict[Decimal, int]:
        outcomes = await sent(hint, *({text: 1} for text in texts))
        assert all(str(outcome).startswith("args[0]") for outcome in outcomes)
        assert await sent(hint, *({text: 1} for text in good)) == [{Decimal(t): 1} for t in good]
    else:
        assert await sent(hint, *texts) == ["args[0]"] * len(texts)
        assert await sent(hint, *good) == list(map(Decimal, good))


NUMBERS_IN_JSON = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
VALUES = st.recursive(
    NUMBERS_IN_JSON | st.text(max_size=3).filter(lambda text: "\0" not in text) | st.none(),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.sampled_from("abc"), values, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(
    price=st.decimals(
        allow_nan=False, allow_infinity=False, places=20, min_value=-(10**6), max_value=10**6
    ),
    extra=VALUES,
)
async def test_whatever_stands_beside_a_decimal(price: Decimal, extra: Any) -> None:
    taken = []

    async def procedure(line: Line) -> None:
        taken.append(line)

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        await client.send_frame(
            f'[48,1,{{}},"procedure",[{{"price":{price:f},"extra":{json.dumps(extra)}}}]]'
        )
        assert (await client.receive())[:2] == [50, 1]
    (line,) = taken
    assert line.price == price
    assert repr(line.extra) == repr(json.loads(json.dumps(extra)))
