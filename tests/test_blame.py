"""Results that can't be sent: the server is to blame, and its log says which value it was."""

from __future__ import annotations

import functools
import logging
import math
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverwamp import Application, RPCProgressReport, RPCResult, WAMPError
from serverwamp.protocol.misfits import described_misfit
from serverwamp.protocol.serializers import serializer_for
from serverwamp.testing import connect

SUBPROTOCOLS = ["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"]
FAILED = "wamp.error.runtime_error"


class Odd:
    def __repr__(self) -> str:
        return "secret"


@dataclass
class Point:
    x: Any
    y: Any


class Pair(NamedTuple):
    first: Any
    second: Any


class Struct(msgspec.Struct, rename="camel"):
    some_value: Any


@attrs.define
class Attrs:
    value: Any


class Model(pydantic.BaseModel):
    value: Any


class Typed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    odd: Odd


async def refused(app: Application, caplog: pytest.LogCaptureFixture, **options: Any) -> str:
    """Check that a call is answered as it should be, and return the line in the log."""
    caplog.clear()
    async with connect(app, **options) as client:
        call = await client.start_call("procedure", receive_progress=True)
        with pytest.raises(WAMPError) as failure:
            await call.result()
        error = failure.value
        assert (error.uri, dict(error.kwargs)) == (FAILED, {})
        assert "secret" not in str(error.args)
        await client.expect_nothing()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "'procedure'" in record.message
    assert "secret" not in record.message
    assert len(record.message) < 700
    return record.message


@pytest.mark.spec("CAL-01", "SER-11")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize(
    ("result", "place"),
    [
        (Odd(), "result.args[0]"),
        ([1, Odd()], "result.args[1]"),
        ({"a": 1, "b": Odd()}, "result.kwargs['b']"),
        (RPCResult((1,), {"a": [1, {"b": Odd()}]}), "result.kwargs['a'][1]['b']"),
        ([{"x": Point(1, Odd())}], "result.args[0]['x'].y"),
        ([Pair(1, Odd())], "result.args[0][1]"),
        ([Struct(Odd())], "result.args[0].someValue"),
        ([Attrs([Odd()])], "result.args[0].value[0]"),
        ([Model(value=(1, Odd()))], "result.args[0].value[1]"),
        ([Typed(odd=Odd())], "result.args[0].odd"),
        ([deque([1, Point({"a": Model(value=Struct(Odd()))}, 2)])], None),
        ([{"k" * 1000: Odd()}], None),
    ],
)
async def test_the_log_says_which_value_it_was(
    result: Any, place: str | None, subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    app.route("procedure")(lambda: result)
    line = await refused(app, caplog, subprotocol=subprotocol)
    assert "test_blame.Odd: " in line
    if place is not None:
        assert f"{place} is of type " in line


@pytest.mark.parametrize("key", [None, True, b"a", (1, 2), Odd()])
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_keys_that_have_no_text(
    key: Any, subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    for result, place in (({key: 1}, "result.kwargs"), ([{key: 1}], "result.args[0]")):
        app = Application()
        app.route("procedure")(functools.partial(lambda result: result, result))
        assert place in await refused(app, caplog, subprotocol=subprotocol)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (math.nan, "float"),
        ({math.inf}, "float"),
        ("\ud800", "str"),
        ("\0text", "str"),
        (lambda: None, "function"),
    ],
)
async def test_values_of_known_types(
    value: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    app.route("procedure")(lambda: [0, [value]])
    line = await refused(app, caplog)
    assert "result.args[1][0]" in line
    assert f"is of type {kind}: " in line


async def test_reports_of_progress(caplog: pytest.LogCaptureFixture) -> None:
    app = Application()

    @app.route("procedure")
    async def procedure() -> AsyncIterator[Any]:
        yield RPCProgressReport((1, Odd()))

    assert "report.args[1] is of type test" in await refused(app, caplog)


async def test_a_bug_in_the_serializer_of_a_model(caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(pydantic.BaseModel):
        value: int

        @pydantic.field_serializer("value")
        def serialize(self, value: int) -> int:
            raise LookupError("a bug")

    app = Application()
    app.route("procedure")(lambda: [[Buggy(value=1)]])
    line = await refused(app, caplog)
    assert "result.args[0][0] is of type" in line
    assert "a bug" in line


async def test_nesting_without_an_end(caplog: pytest.LogCaptureFixture) -> None:
    endless: list[Any] = []
    endless.append(endless)
    app = Application()
    app.route("procedure")(lambda: endless)
    assert "result.args[0][0]" in await refused(app, caplog)


async def test_developers_are_told_more() -> None:
    app = Application(debug=True)
    app.route("procedure")(Odd)
    async with connect(app) as client:
        with pytest.raises(WAMPError, match=r"result\.args\[0\] is of type"):
            await client.call("procedure")


async def test_another_client_is_to_blame_for_its_results() -> None:
    app = Application()
    app.client_register("procedure")
    async with (
        connect(app, subprotocol="wamp.2.msgpack") as callee,
        connect(app, subprotocol="wamp.2.json") as caller,
    ):
        await callee.register("procedure")
        call = await caller.start_call("procedure")
        await (await callee.expect_invocation()).result([math.nan])
        with pytest.raises(WAMPError, match=FAILED):
            await call.result()


VALUES = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.builds(Point, inner, inner)
        | st.builds(Struct, inner)
    ),
    max_leaves=20,
)


@given(before=st.lists(VALUES, max_size=5), holder=VALUES, after=st.lists(VALUES, max_size=5))
def test_whatever_is_around_it(before: list[Any], holder: Any, after: list[Any]) -> None:
    args = [*before, {"holder": holder, "odd": [Point(1, Odd())]}, *after]
    for subprotocol in SUBPROTOCOLS:
        described = described_misfit(serializer_for(subprotocol).format, "result", args, {})
        if "\0" not in repr(args).replace("\\x00", "\0"):
            assert described.startswith(f"result.args[{len(before)}]['odd'][0].y is of type")
