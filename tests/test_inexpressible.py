"""Payloads that some formats, or all of them, can't hold: an error for who sends them.

No other client is harmed: whoever can receive an event receives it, and the log stays short.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from serverwamp import Application, History, RPCResult, Session, WAMPError
from serverwamp.testing import Client, connect
from tests.helpers import anybody

INVALID = "wamp.error.invalid_argument"
FORMATS = ("json", "msgpack", "cbor")
NAN, BIG, NUL = math.nan, 2**64, "\0A"
CAN_HOLD = {"json": (BIG,), "msgpack": (NAN, NUL), "cbor": (BIG, NAN, NUL)}
"""Which of them each format can hold."""
each_value = pytest.mark.parametrize("value", [NAN, BIG, NUL], ids=["nan", "big", "nul"])


def told_apart(value: Any) -> Any:
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def serving_topic(history: History | None = None, **options: Any) -> Application:
    app = Application(**options)
    app.topic("topic", client_publish=True, history=history)(anybody)
    return app


def speaking(app: Application, format_name: str, **options: Any) -> Any:
    return connect(app, subprotocol=f"wamp.2.{format_name}", **options)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def publication_error(client: Client, *args: Any, **options: Any) -> WAMPError:
    with pytest.raises(WAMPError) as error:
        await client.publish("topic", args, acknowledge=True, **options)
    return error.value


# ---- what is published


@pytest.mark.spec("SER-12", "PUB-02")
@pytest.mark.parametrize("subscribed", [(a,) for a in FORMATS] + [("json", "msgpack"), FORMATS])
@each_value
async def test_who_publishes_learns_whether_anybody_can_receive_it(
    subscribed: Sequence[str], value: Any
) -> None:
    app = serving_topic(History())
    able = [name for name in subscribed if value in CAN_HOLD[name]]
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(speaking(app, "cbor"))
        clients = [await stack.enter_async_context(speaking(app, name)) for name in subscribed]
        for client in clients:
            await client.subscribe("topic")
        if able:
            assert await publisher.publish("topic", [value], acknowledge=True)
            assert await app.publish("topic", [value])
        else:
            assert (await publication_error(publisher, value)).uri == INVALID
            with pytest.raises(ValueError, match="nobody can receive the event of 'topic'"):
                await app.publish("topic", [value])
            await publisher.publish("topic", [value])
        await app.publish("topic", ["next"])
        for name, client in zip(subscribed, clients, strict=True):
            for _ in range(2 if name in able else 0):
                assert told_apart((await client.expect_event()).args[0]) == told_apart(value)
            assert (await client.expect_event()).args == ("next",)
            await client.expect_nothing()
        # What is refused isn't kept either. Nobody receives their own publications.
        assert app.statistics().events_delivered == 2 * len(able) + len(subscribed)
        kept = await publisher.catch_up(await publisher.subscribe("topic"))
        assert len(kept.events) == (2 if able else 1)
        await publisher.expect_nothing()


async def test_it_is_logged_once_for_each_connection(caplog: pytest.LogCaptureFixture) -> None:
    app = serving_topic()
    async with (
        speaking(app, "msgpack") as publisher,
        speaking(app, "json") as one,
        speaking(app, "json") as two,
    ):
        await one.subscribe("topic")
        await two.subscribe("topic")
        for _ in range(3):
            assert (await publication_error(publisher, NAN)).uri == INVALID
            await publisher.publish("topic", [NAN])
        assert len(warnings_in(caplog)) == 1, "the publications are refused"
        async with speaking(app, "msgpack") as able, speaking(app, "json") as three:
            await able.subscribe("topic")
            for _ in range(3):
                await publisher.publish("topic", [NAN], acknowledge=True)
            assert len(warnings_in(caplog)) == 2, "both of the others lose them"
            await three.subscribe("topic")
            for _ in range(3):
                await publisher.publish("topic", [NAN], acknowledge=True)
            assert len(warnings_in(caplog)) == 3, "so does one that hasn't lost any before"
    assert {record.levelname for record in caplog.records} == {"WARNING"}


async def test_nobody_subscribed_and_nothing_kept() -> None:
    app = serving_topic()
    async with speaking(app, "msgpack") as publisher:
        await publisher.subscribe("topic")  # and doesn't receive its own
        assert await publisher.publish("topic", [NAN], acknowledge=True)
    assert await app.publish("topic", [object()])


@pytest.mark.parametrize("how", ["history", "retained"])
async def test_what_is_only_kept(how: str) -> None:
    app = serving_topic(History() if how == "history" else None)
    retain = how == "retained"
    for value in (NAN, BIG, [NAN, BIG]):  # the last is one that only CBOR can hold
        await app.publish("topic", [value], retain=retain)
    with pytest.raises(ValueError, match="nobody can receive"):
        await app.publish("topic", [object()], retain=retain)
    async with speaking(app, "cbor") as reader:
        subscription = await reader.subscribe("topic", get_retained=True)
        if retain:
            assert (await reader.expect_event()).args[0][1] == BIG
        else:
            kept = await reader.catch_up(subscription)
            assert [told_apart(event.args[0]) for event in kept.events[:2]] == ["NaN", BIG]
            assert kept.events[2].args[0][1] == BIG
            assert kept.complete
        await reader.expect_nothing()


async def test_what_a_handler_of_publications_made_of_it_is_not_the_clients_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Application()
    app.topic("topic")(anybody)

    @app.publication("topic")
    async def measure(value: float) -> RPCResult:
        return RPCResult([value * math.inf])

    async with speaking(app, "json") as client, speaking(app, "json") as publisher:
        await client.subscribe("topic")
        for _ in range(3):
            assert (await publication_error(publisher, 1.5)).uri == "wamp.error.runtime_error"
        await client.expect_nothing()
    assert len(warnings_in(caplog)) == 1


async def test_events_for_certain_sessions(caplog: pytest.LogCaptureFixture) -> None:
    app = serving_topic()
    async with (
        speaking(app, "cbor") as publisher,
        speaking(app, "json") as json,
        speaking(app, "msgpack") as msgpack,
    ):
        for client in (json, msgpack):
            await client.subscribe("topic")
        assert (await publication_error(publisher, NAN, eligible=[json.session])).uri == INVALID
        assert (await publication_error(publisher, BIG, exclude=[json.session])).uri == INVALID
        assert await publisher.publish("topic", [NAN], acknowledge=True, eligible=[4711])
        assert await publisher.publish(
            "topic", [NAN], acknowledge=True, exclude=[json.session, msgpack.session]
        )
        await json.expect_nothing()
        await msgpack.expect_nothing()


async def test_patterns_of_topics() -> None:
    app = Application()
    app.prefix_topic("sensors.", client_publish=True)(anybody)
    async with (
        speaking(app, "cbor") as publisher,
        speaking(app, "json") as exact,
        speaking(app, "msgpack") as pattern,
    ):
        await exact.subscribe("sensors.a")
        await pattern.subscribe("sensors.", match="prefix")
        assert await publisher.publish("sensors.a", [NAN], acknowledge=True)
        assert math.isnan((await pattern.expect_event()).args[0])
        with pytest.raises(WAMPError, match=INVALID):
            await publisher.publish("sensors.b", [BIG], acknowledge=True)
        await exact.expect_nothing()
        await pattern.expect_nothing()


async def test_events_that_an_authorizer_is_asked_about() -> None:
    app = Application()
    app.prefix_topic("sensors.", client_publish=True)(anybody)
    app.set_authorizer(lambda: True)
    async with speaking(app, "msgpack") as publisher, speaking(app, "json") as subscriber:
        await subscriber.subscribe("sensors.", match="prefix")
        with pytest.raises(WAMPError, match=INVALID):
            await publisher.publish("sensors.a", [NAN], acknowledge=True)
        await publisher.publish("sensors.a", ["next"], acknowledge=True)
        assert (await subscriber.expect_event()).args == ("next",)
        assert app.statistics().events_delivered == 1


async def test_testaments(caplog: pytest.LogCaptureFixture) -> None:
    app = serving_topic()
    app.set_ticket_authenticator(lambda session, ticket: "anybody")
    async with (
        speaking(app, "json", ticket="x", authid="a") as listener,
        speaking(app, "msgpack", ticket="x", authid="b") as client,
    ):
        await listener.subscribe("topic")
        for value in (NAN, NAN, "last"):
            await client.call("wamp.session.add_testament", ["topic", [value], {}])
        await client.leave()
        assert (await listener.expect_event()).args == ("last",)
        await listener.expect_nothing()
    assert len(warnings_in(caplog)) == 1


# ---- what is sent to one session


async def test_an_event_that_is_sent_to_sessions_one_by_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sessions: list[Session] = []
    app = Application()

    @app.topic("topic")
    async def listen(session: Session) -> AsyncIterator[None]:
        sessions.append(session)
        yield

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(speaking(app, name)) for name in FORMATS]
        for client in clients:
            await client.subscribe("topic")
        for value in (NAN, BIG, NAN, BIG, "next"):
            for session in sessions:
                session.send_event(args=[value])
        for name, client in zip(FORMATS, clients, strict=True):
            for value in (NAN, BIG, NAN, BIG):
                if value in CAN_HOLD[name]:
                    assert told_apart((await client.expect_event()).args[0]) == told_apart(value)
            assert (await client.expect_event()).args == ("next",)
            await client.expect_nothing()
        for session in sessions:
            with pytest.raises(ValueError, match="nobody can receive"):
                session.send_event(args=[object()])
    assert len(warnings_in(caplog)) == 2, "one for JSON, and one for MessagePack"


async def test_the_handler_of_a_subscription_sends_what_its_client_cannot_get() -> None:
    app = Application()

    @app.topic("topic")
    async def listen(session: Session, kind: str = "topic") -> AsyncIterator[None]:
        for value in (NAN, "next"):
            session.send_event(args=[value])
        yield

    async with speaking(app, "json") as client:
        await client.subscribe("topic")
        assert (await client.expect_event()).args == ("next",)
        await client.expect_nothing()


# ---- collections


@pytest.mark.spec("HIS-02")
@pytest.mark.parametrize("reader_format", FORMATS)
@pytest.mark.parametrize("reverse", [False, True])
async def test_a_history_leaves_out_what_the_reader_cannot_receive(
    reader_format: str, reverse: bool
) -> None:
    app = serving_topic(History())
    values: list[Any] = ["first", NAN, BIG, [{"a": NAN}], "middle", BIG, {"b": [BIG]}, NUL, "last"]
    for value in values:
        await app.publish("topic", [value])

    def is_readable(value: Any) -> bool:
        poisons = {"nan": NAN, str(BIG): BIG, NUL: NUL}
        found = [poison for text, poison in poisons.items() if text in str(value)]
        return all(poison in CAN_HOLD[reader_format] for poison in found)

    expected = [str(value) for value in values if is_readable(value)]
    if reverse:
        expected.reverse()
    async with speaking(app, reader_format) as reader:
        subscription = await reader.subscribe("topic")
        kept = await reader.catch_up(subscription, reverse=reverse)
        assert [str(event.args[0]) for event in kept.events] == expected
        assert kept.complete is (len(expected) == len(values))
        # What is left out takes no place of what is asked for.
        kept = await reader.catch_up(subscription, reverse=reverse, limit=3)
        assert [str(event.args[0]) for event in kept.events] == expected[:3]
        kept = await reader.catch_up(subscription, reverse=reverse, limit=1)
        assert kept.complete, "nothing was left out so far"
        last = await app.publish("topic", ["after"])
        kept = await reader.catch_up(subscription, from_publication=last)
        assert [event.args for event in kept.events] == [("after",)]
        assert kept.complete, "nothing is left out since then"


@pytest.mark.parametrize("reader_format", FORMATS)
async def test_the_history_of_a_pattern(reader_format: str) -> None:
    app = Application()
    app.prefix_topic("sensors.", history=History())(anybody)
    app.set_authorizer(lambda: True)
    for value in (NAN, BIG, NUL, "last"):
        await app.publish("sensors.hall", [value])
    async with speaking(app, reader_format) as reader:
        kept = await reader.catch_up(await reader.subscribe("sensors.", match="prefix"))
        assert len(kept.events) == len(CAN_HOLD[reader_format]) + 1
        assert kept.complete is (reader_format == "cbor")


@pytest.mark.spec("RET-02")
@pytest.mark.parametrize("reader_format", FORMATS)
@each_value
async def test_a_retained_event_that_the_reader_cannot_receive(
    reader_format: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = serving_topic()
    await app.publish("topic", ["before"], retain=True)
    await app.publish("topic", [value], retain=True)
    async with speaking(app, reader_format) as reader:
        await reader.subscribe("topic", get_retained=True)
        if value in CAN_HOLD[reader_format]:
            assert told_apart((await reader.expect_event()).args[0]) == told_apart(value)
        await app.publish("topic", ["next"])
        assert (await reader.expect_event()).args == ("next",)
        await reader.expect_nothing()
    assert warnings_in(caplog) == []


@pytest.mark.parametrize("reader_format", FORMATS)
@each_value
async def test_what_is_told_of_sessions(reader_format: str, value: Any) -> None:
    app = Application()
    app.set_meta_api(lambda session: True)

    @app.add_transport_authenticator
    async def admit(session: Session) -> str:
        session.auth_id = "somebody"
        session.auth_role = value if "odd" in session.auth_methods else "reader"
        return "somebody"

    able = value in CAN_HOLD[reader_format]
    shown = told_apart(value) if able else None
    async with (
        speaking(app, reader_format) as reader,
        speaking(app, "cbor", realm=None) as odd,
    ):
        await reader.subscribe("wamp.session.on_join")
        await reader.subscribe("wamp.session.on_leave")
        await odd.join(authmethods=["odd"])
        (joined,) = (await reader.expect_event()).args
        assert joined["session"] == odd.session
        assert "authrole" not in joined, "some listener couldn't receive it"
        result = await reader.call("wamp.session.get", [odd.session])
        assert told_apart(result.args[0].get("authrole")) == shown
        assert result.kwargs == ({} if able else {"complete": False})
        for procedure in ("wamp.session.list", "wamp.session.count"):
            await reader.call(procedure)
        odd_session = odd.session
        await odd.leave()
        assert (await reader.expect_event()).args == (odd_session, "somebody", None)


async def test_who_ends_sessions_says_more_than_their_formats_can_express() -> None:
    app = Application()
    app.set_meta_api(lambda session: True, kill=lambda session: True)
    async with speaking(app, "cbor") as admin, speaking(app, "json") as one:
        await admin.call("wamp.session.kill_all", [], {"message": "\0A"})
        assert (await one.receive())[2] == "wamp.close.killed"


@pytest.mark.spec("URI-02", "T-18")
@pytest.mark.parametrize("format_name", FORMATS)
async def test_no_uri_can_break_the_list_that_names_it(format_name: str) -> None:
    app = Application(client_register="shared.")
    app.prefix_topic("", client_publish=True)(anybody)
    async with speaking(app, format_name) as client:
        for uri in ("\0A", "a.\0", "a\0b"):
            for refused in (
                client.subscribe(uri),
                client.subscribe(uri, match="prefix"),
                client.subscribe(uri, match="wildcard"),
                client.publish(uri, acknowledge=True),
                client.register(uri),
                client.call(uri),
            ):
                with pytest.raises(WAMPError) as error:
                    await refused
                assert error.value.uri == "wamp.error.invalid_uri"
