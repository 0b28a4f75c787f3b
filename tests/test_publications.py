"""What clients publish, through the public API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import anyio
import pytest

from serverwamp import (
    Application,
    Audience,
    ConfigurationError,
    Limits,
    Publication,
    RPCErrorResult,
    RPCResult,
    Session,
    TopicRouteSet,
    WAMPError,
)
from serverwamp.testing import Client, connect
from tests.helpers import anybody, error_of, wait_all_tasks_blocked

NOT_AUTHORIZED = "wamp.error.not_authorized"
SUBPROTOCOLS = ("wamp.2.json", "wamp.2.msgpack", "wamp.2.json.batched")


def open_to_all(uri: str = "topic", **options: Any) -> Application:
    app = Application(**options)
    app.topic(uri, client_publish=True)(anybody)
    return app


def handled_by(handler: Any, uri: str = "topic", **options: Any) -> Application:
    app = Application(**options)
    app.topic(uri)(anybody)
    app.publication(uri)(handler)
    return app


# ---- who may publish what


@pytest.mark.spec("PUB-01", "PUB-02", "PUB-03", "IDS-08", "IDS-10", "MSG-09")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_a_client_publishes(subprotocol: str) -> None:
    app = open_to_all()
    async with (
        connect(app, subprotocol=subprotocol) as publisher,
        connect(app) as one,
        connect(app, subprotocol="wamp.2.msgpack") as two,
    ):
        for client in (publisher, one, two):
            await client.subscribe("topic")
        await two.subscribe("topic")
        args, kwargs = [1, "ü", [None, {"z": 1, "a": [2.5]}]], {"k": True}
        await publisher.send([16, 2, {"acknowledge": True}, "topic", args, kwargs])
        kind, request, publication = await publisher.receive()
        assert (kind, request) == (17, 2)
        for client in (one, two):
            event = await client.expect_event()
            assert (event.args, event.kwargs) == (tuple(args), kwargs)
            assert (event.publication, event.details) == (publication, {})
        await publisher.send([16, 3, {}, "topic"])
        assert (await one.expect_event()).args == ()
        for client in (publisher, one):
            await client.expect_nothing()


@pytest.mark.spec("PUB-08", "AZN-02", "URI-06", "URI-07", "T-28")
async def test_only_where_the_application_says_so() -> None:
    app = open_to_all()
    app.topic("closed")(anybody)
    app.prefix_topic("open.", client_publish=True)(anybody)
    app.topic("open.but.closed")(anybody)
    app.wildcard_topic("a..c", client_publish=True)(anybody)
    app.regex_topic("[0-9]+$", client_publish=True)(anybody)
    async with connect(app) as client:
        for topic in ("topic", "open.1.2", "a.b.c", "42"):
            assert await client.publish(topic, acknowledge=True)
        for topic in ("closed", "unknown", "open", "open.but.closed", "a.b", "x42", "topic.x"):
            await client.publish(topic)
            assert (await error_of(client.publish(topic, acknowledge=True))).uri == NOT_AUTHORIZED
        for topic in ("no topic", "", "open..x", "wamp.session.on_join", "wamp"):
            await client.publish(topic)
            error = await error_of(client.publish(topic, acknowledge=True))
            assert error.uri == "wamp.error.invalid_uri"
        await client.expect_nothing()


@pytest.mark.spec("ORD-02")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_publications_take_effect_in_the_order_in_which_they_were_sent(
    subprotocol: str,
) -> None:
    app = open_to_all("at.once")

    @app.publication("slow")
    async def slow(number: int) -> None:
        for _ in range(10 - number % 10):
            await anyio.lowlevel.checkpoint()

    @app.publication("thread")
    def thread(number: int) -> None: ...

    app.topic("slow")(anybody)
    app.topic("thread")(anybody)
    topics = ("slow", "at.once", "thread")
    async with connect(app, subprotocol=subprotocol) as publisher, connect(app) as subscriber:
        for topic in topics:
            await subscriber.subscribe(topic)
        messages = [[16, n + 1, {}, topics[n % 3], [n]] for n in range(60)]
        await publisher.send(*messages)
        for number in range(60):
            assert (await subscriber.expect_event()).args == (number,)


async def test_a_slow_handler_holds_up_nobody_else() -> None:
    proceed = anyio.Event()

    async def handler(number: int) -> None:
        if number == 0:
            await proceed.wait()

    app = handled_by(handler)
    async with connect(app) as slow, connect(app) as quick, connect(app) as subscriber:
        await subscriber.subscribe("topic")
        for number in (0, 1):
            await slow.publish("topic", (number,))
        await slow.expect_nothing()  # its calls are answered, too
        await quick.publish("topic", (2,))
        assert (await subscriber.expect_event()).args == (2,)
        proceed.set()
        for number in (0, 1):
            assert (await subscriber.expect_event()).args == (number,)


# ---- handlers


async def test_what_a_handler_is_given() -> None:
    taken: dict[str, Any] = {}
    closed: list[str] = []

    def resource() -> Iterator[str]:
        yield "resource"
        closed.append("resource")

    async def handler(
        number: int, day: date, *rest: str, topic: str, it: Publication, me: Session, db: Any,
        resource: Any, sent_by: str = "nobody",
    ) -> None:  # fmt: skip
        taken.update(locals())

    app = Application()
    app.add_default_arg("db", "the db")
    app.add_default_arg("resource", factory=resource)
    topics = TopicRouteSet("com")
    topics.prefix_topic("example.")(anybody)
    topics.prefix_publication("example.", camel_snake_conversion=True)(handler)
    app.add_topics(topics)
    async with connect(app) as client, connect(app) as subscriber:
        await subscriber.subscribe("com.example.x")
        publication = await client.publish(
            "com.example.x", (1, "2024-02-29", "r"), {"sentBy": "me"}, acknowledge=True
        )
        assert (taken["number"], taken["day"], taken["rest"]) == (1, date(2024, 2, 29), ("r",))
        assert (taken["sent_by"], taken["db"], taken["resource"]) == ("me", "the db", "resource")
        assert (taken["topic"], taken["me"].id) == ("com.example.x", client.session)
        assert (taken["it"].id, taken["it"].publisher) == (publication, client.session)
        assert closed == ["resource"]
        # What is published is what the client has sent, not what has become of it.
        event = await subscriber.expect_event()
        assert (event.args, event.kwargs) == ((1, "2024-02-29", "r"), {"sentBy": "me"})
        for args, kwargs in (
            ((1,), {}),
            (("one", "2024-02-29"), {}),
            ((1, "2024-02-29"), {"unknown": 1}),
            ((1, "2024-02-29"), {"topic": "x"}),
            ((1, "2024-02-29"), {"db": "x"}),
        ):
            await client.publish("com.example.x", args, kwargs)
            error = await error_of(client.publish("com.example.x", args, kwargs, acknowledge=True))
            assert error.uri == "wamp.error.invalid_argument", kwargs
        await subscriber.expect_nothing()


async def test_exact_numbers() -> None:
    taken: list[Any] = []

    async def handler(price: Decimal) -> None:
        taken.append(price)

    app = handled_by(handler)
    async with connect(app) as client:
        await client.send_frame('[16,1,{"acknowledge":true},"topic",[1.10]]')
        assert (await client.receive())[:2] == [17, 1]
    assert str(taken) == "[Decimal('1.10')]"


async def test_a_plain_function_decides_in_a_thread() -> None:
    def handler(number: int) -> int:
        return number + 1

    app = handled_by(handler)
    async with connect(app) as client, connect(app) as subscriber:
        await subscriber.subscribe("topic")
        assert await client.publish("topic", (1,), acknowledge=True)
        assert (await subscriber.expect_event()).args == (2,)


async def test_what_a_handler_returns_is_published_instead() -> None:
    cases: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
        (None, ("sent",), {"a": 1}),
        ("other", ("other",), {}),
        (0, (0,), {}),
        ((), (), {}),
        ([1, 2], (1, 2), {}),
        ({"b": 2}, (), {"b": 2}),
        (RPCResult((1,), {"c": 3}), (1,), {"c": 3}),
        (RPCResult((None,)), (None,), {}),
    ]
    outcomes = iter([case[0] for case in cases])

    async def handler(*args: Any, **kwargs: Any) -> Any:
        return next(outcomes)

    app = handled_by(handler)
    async with connect(app) as client, connect(app) as subscriber:
        await subscriber.subscribe("topic")
        for _, args, kwargs in cases:
            id_ = await client.publish("topic", ("sent",), {"a": 1}, acknowledge=True)
            event = await subscriber.expect_event()
            assert (event.args, event.kwargs, event.publication) == (args, kwargs, id_)


@pytest.mark.spec("PUB-01", "PUB-02", "VIO-07")
async def test_a_handler_refuses(caplog: pytest.LogCaptureFixture) -> None:
    class Known(Exception):
        pass

    async def handler(how: str) -> Any:
        if how == "raises":
            raise WAMPError("com.app.no", ("text",), {"a": 1})
        if how == "returns":
            return RPCErrorResult("com.app.no", ("text",), {"a": 1})
        if how == "known":
            raise Known
        if how == "fails":
            raise ValueError("secret")
        raise anyio.get_cancelled_exc_class()

    app = handled_by(handler)
    app.add_error_handler(Known, "com.app.known")
    async with connect(app) as client, connect(app) as subscriber:
        await subscriber.subscribe("topic")
        for how, uri in (
            ("raises", "com.app.no"),
            ("returns", "com.app.no"),
            ("known", "com.app.known"),
            ("fails", "wamp.error.runtime_error"),
            ("cancelled", "wamp.error.runtime_error"),
        ):
            await client.publish("topic", (how,))
            error = await error_of(client.publish("topic", (how,), acknowledge=True))
            assert error.uri == uri
            if uri == "com.app.no":
                assert (error.args, error.kwargs) == (("text",), {"a": 1})
        assert "secret" not in "".join(client.transcript)
        await client.expect_nothing()
        await subscriber.expect_nothing()
    assert caplog.text.count("ValueError: secret") == 2
    assert "the publication of session" in caplog.text


async def test_a_handler_comes_before_the_short_form() -> None:
    asked: list[str] = []
    app = open_to_all()

    def deciding(name: str) -> Any:
        async def handler(topic: str) -> None:
            asked.append(f"{name}: {topic}")

        return handler

    app.prefix_publication("t")(deciding("prefix"))
    app.publication("t.exact")(deciding("exact"))
    app.wildcard_publication("a..c")(deciding("wildcard"))
    app.regex_publication("[0-9]+$")(deciding("regex"))
    topics = ("topic", "t.exact", "t.x", "a.b.c", "42")  # most of them nobody can subscribe to
    async with connect(app) as client:
        for topic in topics:
            await client.publish(topic, acknowledge=True)
        assert (await error_of(client.publish("other", acknowledge=True))).uri == NOT_AUTHORIZED
    kinds = ("prefix", "exact", "prefix", "wildcard", "regex")
    assert asked == [f"{kind}: {topic}" for kind, topic in zip(kinds, topics, strict=True)]


async def test_a_handler_is_told_of_everything_that_is_published() -> None:
    taken: list[Publication] = []

    async def handler(publication: Publication) -> None:
        taken.append(publication)

    app = handled_by(handler)
    async with connect(app) as client:
        await client.publish(
            "topic",
            acknowledge=True,
            exclude_me=False,
            exclude=[1, 2],
            eligible=[],
            eligible_authrole=["a"],
            exclude_authid=["b"],
            disclose_me=True,
            retain=True,
        )
        await client.publish("topic", acknowledge=True, retain=False, disclose_me=False)
    first, second = taken
    assert first.audience == Audience(
        exclude=frozenset((1, 2)),
        eligible=frozenset(),
        eligible_authrole=frozenset("a"),
        exclude_authid=frozenset("b"),
    )
    assert (first.publisher, first.exclude_me, first.retain) == (client.session, False, True)
    assert set(first.disclosed) == {"publisher", "publisher_authid", "publisher_authrole"}
    assert (second.audience, second.exclude_me, second.retain) == (None, True, False)
    assert second.disclosed == {}


def test_handlers_that_are_refused() -> None:
    async def wants_more(subscription: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="async generator"):
        Application().publication("a")(anybody)
    with pytest.raises(ConfigurationError, match="not a valid URI"):
        TopicRouteSet().publication("a..b")(wants_more)
    with pytest.raises(ConfigurationError, match="reserved for the protocol"):
        TopicRouteSet().publication("wamp.a")(wants_more)
    with pytest.raises(ConfigurationError, match="needs a URI"):
        Application().publication(wants_more)  # type: ignore[arg-type]
    app = handled_by(wants_more)
    with pytest.raises(ConfigurationError, match="there is a route for 'topic'"):
        app.publication("topic")(wants_more)
    app.freeze()  # what isn't filled in are the client's arguments
    with pytest.raises(ConfigurationError, match="serving already"):
        app.publication("other")(wants_more)


# ---- who receives it


class Crowd:
    """Clients of different names and roles, all of whom listen to the same topic."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.clients: dict[str, Client] = {}
        self.sessions: dict[str, Session] = {}
        app.add_transport_authenticator(self._admit)
        app.topic("topic", client_publish=True)(self._listen)

    def _admit(self, session: Session) -> str:
        assert session.auth_id is not None
        session.auth_id = session.auth_id  # whatever it says: these tests need names
        session.auth_role = session.auth_id[0]
        return session.auth_id

    async def _listen(self, session: Session) -> AsyncIterator[None]:
        assert session.auth_id is not None
        self.sessions[session.auth_id] = session
        yield

    async def join(self, name: str, client: Client) -> None:
        await client.join(authid=name)
        await client.subscribe("topic")
        self.clients[name] = client

    async def receivers(self, number: int) -> set[str]:
        """Return the names of those who have received nothing but the event with that number."""
        names = set()
        for name, client in self.clients.items():
            try:
                await client.call("serverwamp.testing.nothing")
            except WAMPError:
                pass
            if events := client.take_all():
                assert [(event[0], event[4]) for event in events] == [(36, [number])]
                names.add(name)
            await client.expect_nothing()
        return names


ALL = frozenset(("a1", "a2", "b1", "b2"))
SELECTIONS: list[tuple[dict[str, Any], set[str]]] = [
    # of what is published by a1; names stand for the ids of sessions
    ({}, {"a2", "b1", "b2"}),
    ({"exclude_me": True}, {"a2", "b1", "b2"}),
    ({"exclude_me": False}, {"a1", "a2", "b1", "b2"}),
    ({"exclude": ["a2"]}, {"b1", "b2"}),
    ({"exclude": ["a2"], "exclude_me": False}, {"a1", "b1", "b2"}),
    ({"exclude": []}, {"a2", "b1", "b2"}),
    ({"eligible": ["a1", "a2"]}, {"a2"}),
    ({"eligible": ["a1", "a2"], "exclude_me": False}, {"a1", "a2"}),
    ({"eligible": []}, set()),
    ({"eligible": [], "exclude_me": False}, set()),
    ({"exclude_authid": ["b1"]}, {"a2", "b2"}),
    ({"eligible_authid": ["b1", "x"]}, {"b1"}),
    ({"eligible_authid": []}, set()),
    ({"exclude_authrole": ["b"]}, {"a2"}),
    ({"eligible_authrole": ["b"]}, {"b1", "b2"}),
    ({"eligible_authrole": []}, set()),
    ({"eligible_authrole": ["b"], "exclude_authid": ["b1"]}, {"b2"}),
    ({"eligible_authrole": ["b"], "eligible_authid": ["a2", "b1"]}, {"b1"}),
    ({"eligible_authrole": ["b"], "eligible_authid": ["b1"], "eligible": ["b2"]}, set()),
    ({"eligible": ["a2", "b1", "b2"], "exclude": ["b2"], "exclude_authrole": ["a"]}, {"b1"}),
]


@pytest.mark.spec("PUB-03", "PUB-04", "PUB-05", "FEA-06", "T-23")
@pytest.mark.parametrize("by", ["a client", "the application for it", "the application"])
async def test_who_receives_a_publication(by: str) -> None:
    crowd = Crowd(Application())
    app = crowd.app
    async with (
        connect(app, None) as a1, connect(app, None) as a2, connect(app, None) as b1,
        connect(app, None, subprotocol="wamp.2.msgpack") as b2,
    ):  # fmt: skip
        for name, client in {"a1": a1, "a2": a2, "b1": b1, "b2": b2}.items():
            await crowd.join(name, client)
        features = a1.welcome["roles"]["broker"]["features"]
        assert features["publisher_exclusion"] is features["subscriber_blackwhite_listing"] is True
        ids = {name: session.id for name, session in crowd.sessions.items()}
        for number, (selection, expected) in enumerate(SELECTIONS):
            options = dict(selection)
            for key in ("exclude", "eligible"):
                if key in options:
                    options[key] = [ids[name] for name in options[key]]
            if by == "a client":
                await a1.publish("topic", (number,), acknowledge=True, **options)
            elif by == "the application for it":
                publisher = crowd.sessions["a1"]
                await app.publish("topic", (number,), publisher=publisher, **options)
            else:
                if options.pop("exclude_me", None) is not False:
                    options["exclude"] = [*options.get("exclude", ()), crowd.sessions["a1"]]
                await app.publish("topic", (number,), **options)
            assert await crowd.receivers(number) == expected, selection


async def test_one_name_or_role_needs_no_list() -> None:
    crowd = Crowd(Application())
    async with connect(crowd.app, None) as one, connect(crowd.app, None) as two:
        await crowd.join("a1", one)
        await crowd.join("b1", two)
        for number, (options, expected) in enumerate(
            (
                ({"exclude_authid": "a1"}, {"b1"}),
                ({"eligible_authid": "a1"}, {"a1"}),
                ({"exclude_authrole": "b"}, {"a1"}),
                ({"eligible_authrole": "b"}, {"b1"}),
            )
        ):
            await crowd.app.publish("topic", (number,), **options)  # type: ignore[arg-type]
            assert await crowd.receivers(number) == expected


@pytest.mark.spec("PUB-04", "T-26")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_ids_in_lists_may_be_integral_floats(subprotocol: str) -> None:
    app = open_to_all()
    async with connect(app, subprotocol=subprotocol) as client, connect(app) as other:
        await client.subscribe("topic")
        await other.subscribe("topic")
        me, you = float(client.session or 0), float(other.session or 0)
        await client.publish("topic", (1,), exclude_me=False, eligible=[me, you], exclude=[you])
        assert (await client.expect_event()).args == (1,)
        await client.expect_nothing()
        await other.expect_nothing()
        await client.publish("topic", (1,), exclude=[1.5])
        assert (await client.receive())[0] == 3


@pytest.mark.spec("MSG-04", "MSG-05", "MSG-07")
@pytest.mark.parametrize(
    "options",
    [
        {"acknowledge": 1},
        {"exclude_me": "no"},
        {"exclude": 1},
        {"exclude": ["1"]},
        {"eligible": [True]},
        {"eligible": {"a": 1}},
        {"exclude_authid": "joe"},
        {"eligible_authrole": [1]},
        {"disclose_me": 0},
        {"retain": []},
    ],
    ids=str,
)
async def test_options_of_a_wrong_type(options: dict[str, Any]) -> None:
    app = open_to_all()
    async with connect(app) as client:
        nothing = dict.fromkeys(options)  # null is as good as nothing
        assert await client.publish("topic", **{"unknown": 1, **nothing, "acknowledge": True})
        await client.send([16, 3, options, "topic"])
        assert (await client.receive())[2] == "wamp.error.protocol_violation"


@pytest.mark.spec("PUB-06", "PAT-03")
async def test_a_publisher_is_disclosed_if_it_wants_to() -> None:
    crowd = Crowd(Application())
    app = crowd.app
    app.prefix_topic("p")(anybody)
    app.prefix_publication("p")(lambda: None)
    async with connect(app, None) as publisher, connect(app, None) as other:
        await crowd.join("a1", publisher)
        await crowd.join("b1", other)
        assert publisher.welcome["roles"]["broker"]["features"]["publisher_identification"] is True
        me = {
            "publisher": publisher.session,
            "publisher_authid": "a1",
            "publisher_authrole": "a",
        }
        await publisher.publish("topic", disclose_me=True)
        assert (await other.expect_event()).details == me
        await publisher.publish("topic", disclose_me=False)
        assert (await other.expect_event()).details == {}
        await app.publish("topic", publisher=crowd.sessions["a1"], disclose_me=True)
        assert (await other.expect_event()).details == me
        await app.publish("topic", publisher=crowd.sessions["a1"])
        assert (await other.expect_event()).details == {}
        await other.subscribe("p", match="prefix")
        await publisher.publish("p.q", disclose_me=True)
        assert (await other.expect_event()).details == {"topic": "p.q", **me}


@pytest.mark.spec("PUB-07")
async def test_a_handler_sees_what_nobody_may_receive() -> None:
    taken: list[str] = []

    async def handler(text: str) -> None:
        taken.append(text)

    app = handled_by(handler)
    async with connect(app) as client, connect(app) as subscriber:
        await subscriber.subscribe("topic")
        await client.publish("topic", ("to nobody",), acknowledge=True, eligible=[])
        await subscriber.expect_nothing()
    assert taken == ["to nobody"]


# ---- limits, and the end of a session


class Slowly:
    """An application whose handler of publications waits until it may go on."""

    def __init__(self, **limits: Any) -> None:
        self.app = Application(limits=Limits(**limits))
        self.app.topic("topic")(anybody)
        self.app.publication("topic")(self._publish)
        self.app.route("remember")(self._remember)
        self.proceed = anyio.Event()
        self.started: list[int] = []
        self.ended: list[int] = []
        self.done: list[int] = []
        self.session: Session | None = None

    async def _remember(self, session: Session) -> None:
        self.session = session

    async def _publish(self, number: int) -> None:
        self.started.append(number)
        try:
            await self.proceed.wait()
            self.done.append(number)
        finally:
            self.ended.append(number)


async def test_publications_in_flight(caplog: pytest.LogCaptureFixture) -> None:
    slowly = Slowly(publications_in_flight=2, busy_timeout=60)
    async with connect(slowly.app) as client, connect(slowly.app) as subscriber:
        await subscriber.subscribe("topic")
        for number in range(20):
            await client.send([16, number + 1, {"acknowledge": number == 19}, "topic", [number]])
        await wait_all_tasks_blocked()
        assert slowly.started == [0]
        await subscriber.expect_nothing()
        slowly.proceed.set()
        for number in range(20):
            assert (await subscriber.expect_event()).args == (number,)
        assert (await client.receive())[:2] == [17, 20]
    (record,) = caplog.records
    assert record.getMessage().startswith("Limits.publications_in_flight: ")


async def test_publications_in_flight_of_which_none_ends(caplog: pytest.LogCaptureFixture) -> None:
    slowly = Slowly(publications_in_flight=2, busy_timeout=0.2)
    async with connect(slowly.app) as client, connect(slowly.app) as subscriber:
        await subscriber.subscribe("topic")
        for number in range(50):  # if each of them had to wait, it would take too long
            await client.send([16, number + 1, {"acknowledge": number > 30}, "topic", [number]])
        for number in range(31, 50):
            assert (await client.receive())[:5] == [8, 16, number + 1, {}, "wamp.error.unavailable"]
        slowly.proceed.set()
        for number in range(2):
            assert (await subscriber.expect_event()).args == (number,)
        await client.send([16, 51, {"acknowledge": True}, "topic", [50]])
        assert (await client.receive())[:2] == [17, 51]
        assert (await subscriber.expect_event()).args == (50,)
        await client.expect_nothing()
        await subscriber.expect_nothing()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "Limits.publications_in_flight",
        "Limits.busy_timeout",
    ]


@pytest.mark.parametrize("how", ["says goodbye", "disconnects"])
async def test_what_was_published_takes_effect_when_the_client_leaves(how: str) -> None:
    slowly = Slowly()
    async with connect(slowly.app) as client, connect(slowly.app) as subscriber:
        await subscriber.subscribe("topic")
        for number in range(3):
            await client.publish("topic", (number,))
        if how == "says goodbye":
            await client.send([6, {}, "wamp.close.close_realm"])
        else:
            await client.disconnect()
        await wait_all_tasks_blocked()
        slowly.proceed.set()
        for number in range(3):
            assert (await subscriber.expect_event()).args == (number,)
        if how == "says goodbye":
            assert (await client.receive())[0] == 6


async def test_a_client_that_leaves_is_not_waited_for_for_ever() -> None:
    slowly = Slowly(goodbye_timeout=0.1)
    async with connect(slowly.app) as client, connect(slowly.app) as subscriber:
        await subscriber.subscribe("topic")
        for number in range(3):
            await client.publish("topic", (number,))
        assert await client.leave() == "wamp.close.goodbye_and_out"
        await client.join()
        await subscriber.expect_nothing()
    assert slowly.started == slowly.ended == [0]


@pytest.mark.parametrize("how", ["closed", "aborted", "breaks the protocol", "shut down"])
async def test_a_session_that_is_ended_publishes_no_more(how: str) -> None:
    slowly = Slowly()
    async with connect(slowly.app) as client, connect(slowly.app) as subscriber:
        await subscriber.subscribe("topic")
        await client.call("remember")
        for number in range(3):
            await client.publish("topic", (number,))
        await wait_all_tasks_blocked()
        assert slowly.session is not None
        if how == "closed":
            await slowly.session.close()
            assert (await client.receive())[0] == 6
        elif how == "aborted":
            await slowly.session.abort()
            assert (await client.receive())[0] == 3
        elif how == "breaks the protocol":
            await client.send([48, 0, {}, "procedure"])
            assert (await client.receive())[0] == 3
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: slowly.app.close_sessions(grace=0.05))
                assert (await client.receive())[0] == 6
                await client.disconnect()
                await subscriber.disconnect()
        slowly.proceed.set()
        if how != "shut down":
            await subscriber.expect_nothing()
    assert slowly.started == slowly.ended == [0]


async def test_a_handler_that_closes_its_own_session() -> None:
    app = Application()
    app.topic("topic")(anybody)

    @app.publication("topic")
    async def publish(session: Session) -> None:
        await session.close()
        await anyio.lowlevel.checkpoint()

    async with connect(app) as client, connect(app) as subscriber:
        await subscriber.subscribe("topic")
        await client.send([16, 1, {"acknowledge": True}, "topic"])
        assert await client.receive() == [6, {}, "wamp.close.close_realm"]
        await subscriber.expect_nothing()


async def test_a_graceful_shutdown_lets_publications_end() -> None:
    slowly = Slowly()
    async with connect(slowly.app) as client:
        await client.publish("topic", (0,))
        await wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slowly.app.close_sessions)
            await wait_all_tasks_blocked()
            slowly.proceed.set()
            assert (await client.receive())[0] == 6
            assert slowly.done == [0]
            await client.disconnect()
