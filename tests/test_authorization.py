"""What sessions may do: what routes require, and what the authorizer of a realm says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

import serverwamp.auth.authorization
from serverwamp import (
    Application,
    ConfigurationError,
    History,
    Limits,
    Realm,
    RPCRequest,
    RPCRouteSet,
    Session,
    TopicRouteSet,
    WAMPError,
)
from serverwamp.testing import Client, connect
from tests.helpers import error_uri_of, roles_by_ticket

NOT_AUTHORIZED = "wamp.error.not_authorized"
FAILED = "wamp.error.authorization_failed"
ROLES = {"alice": "admin", "bob": "user", "carol": "guest"}


def known_by_name(**settings: Any) -> Application:
    """Return an application whose clients have the role of their name."""
    app = Application(**settings)
    app.set_ticket_authenticator(roles_by_ticket(ROLES))
    return app


def joined(app: Application, name: str) -> Any:
    return connect(app, ticket=name, authid=name)


async def procedure(*args: Any) -> str:
    return "done"


async def listen() -> AsyncIterator[None]:
    yield


async def outcome(awaitable: Awaitable[Any]) -> str | None:
    """Return the URI of the error that a request is answered with, or None."""
    try:
        await awaitable
    except WAMPError as error:
        return error.uri
    return None


# ---- what routes require


@pytest.mark.spec("AZN-01", "AZN-02", "ERR-not_authorized")
@pytest.mark.parametrize(
    ("requires", "may"),
    [
        (None, ["alice", "bob", "carol"]),
        ("admin", ["alice"]),
        (["admin", "user"], ["alice", "bob"]),
        ({"user"}, ["bob"]),
        ((), []),
        (lambda session: session.auth_id == "carol", ["carol"]),
        (lambda session, uri: uri.startswith(session.auth_id), []),
    ],
)
async def test_what_a_route_requires(requires: Any, may: list[str]) -> None:
    app = known_by_name()
    for add, uri in (
        (app.route, "exact"),
        (app.prefix_route, "prefix."),
        (app.wildcard_route, "wild..card"),
        (app.regex_route, "regex[0-9]"),
    ):
        add(uri, requires=requires)(procedure)
    for add_topic, uri in (
        (app.topic, "exact"),
        (app.prefix_topic, "prefix."),
        (app.wildcard_topic, "wild..card"),
        (app.regex_topic, "regex[0-9]"),
    ):
        add_topic(uri, requires=requires, client_publish=True)(listen)
    for add_publication, uri in (
        (app.publication, "p.exact"),
        (app.prefix_publication, "p.prefix."),
        (app.wildcard_publication, "p.wild..card"),
        (app.regex_publication, "p.regex[0-9]"),
    ):
        add_publication(uri, requires=requires)(lambda: None)
    for name in ROLES:
        expected = None if name in may else NOT_AUTHORIZED
        async with joined(app, name) as client:
            for uri in ("exact", "prefix.1", "wild.1.card", "regex1"):
                assert await outcome(client.call(uri)) == expected
                assert await outcome(client.subscribe(uri)) == expected
                assert await outcome(client.publish(uri, acknowledge=True)) == expected
                assert await outcome(client.publish(f"p.{uri}", acknowledge=True)) == expected


@pytest.mark.spec("AZN-02")
async def test_what_a_route_set_requires_adds_to_what_its_routes_do() -> None:
    rpcs = RPCRouteSet("calls", requires={"admin", "user"})
    rpcs.route("all")(procedure)
    rpcs.route("admins", requires=["admin", "guest"])(procedure)
    topics = TopicRouteSet("topics", requires={"admin", "user"})
    topics.topic("all")(listen)
    topics.topic("admins", requires=["admin", "guest"])(listen)
    app = known_by_name()
    app.add_routes(rpcs)
    app.add_topics(topics)
    for name, may in (("alice", ["all", "admins"]), ("bob", ["all"]), ("carol", [])):
        async with joined(app, name) as client:
            for route in ("all", "admins"):
                expected = None if route in may else NOT_AUTHORIZED
                assert await outcome(client.call(f"calls.{route}")) == expected
                assert await outcome(client.subscribe(f"topics.{route}")) == expected


async def test_what_a_function_is_given() -> None:
    app = known_by_name()
    app.add_default_arg("word", "please")
    asked: list[Any] = []

    async def decide(
        session: Session, action: str, uri: str, match: str, options: Any, word: str
    ) -> bool:
        asked.append((session.auth_id, action, uri, match, options, word))
        return True

    app.prefix_route("it", requires=decide)(procedure)
    app.prefix_topic("it", requires=decide, client_publish=True)(listen)
    async with joined(app, "bob") as bob:
        await bob.call("it.is", receive_progress=True)
        await bob.subscribe("it.is", match="prefix")
        await bob.publish("it.is", acknowledge=True, exclude=[1])
    assert asked == [
        ("bob", "call", "it.is", "exact", {"receive_progress": True}, "please"),
        ("bob", "subscribe", "it.is", "prefix", {}, "please"),
        ("bob", "publish", "it.is", "exact", {"acknowledge": True, "exclude": [1]}, "please"),
    ]


@pytest.mark.spec("AZN-06")
async def test_a_function_can_say_what_the_client_is_told() -> None:
    app = Application()

    def decide(options: dict[str, Any]) -> bool:
        if "receive_progress" in options:
            raise WAMPError("wamp.error.option_not_allowed", ["no progress"], {"why": "costs"})
        return True

    app.route("it", requires=decide)(procedure)
    async with connect(app) as client:
        await client.call("it")
        with pytest.raises(WAMPError) as error:
            await client.call("it", receive_progress=True)
        assert error.value.uri == "wamp.error.option_not_allowed"
        assert (error.value.args, error.value.kwargs) == (("no progress",), {"why": "costs"})


async def failing(session: Session) -> bool:
    raise RuntimeError("what nobody may know")


def saying(answer: Any) -> Callable[[], Any]:
    return lambda: answer


@pytest.mark.spec("AZN-03", "ERR-authorization_failed")
@pytest.mark.parametrize(
    "function", [failing, saying(None), saying(1), saying({"allow": False}), saying("yes")]
)
@pytest.mark.parametrize("of_realm", [True, False])
async def test_what_fails_refuses(
    function: Any, of_realm: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    if of_realm:
        app.set_authorizer(function)
    requires = None if of_realm else function
    app.route("it", requires=requires)(procedure)
    app.topic("it", requires=requires, client_publish=True)(listen)
    async with connect(app) as client:
        for request in (
            client.call("it"),
            client.subscribe("it"),
            client.publish("it", acknowledge=True),
        ):
            with pytest.raises(WAMPError) as error:
                await request
            assert error.value.uri == FAILED
            assert "nobody" not in str(error.value)
    assert len(caplog.records) == 3
    assert "because" in caplog.text


async def test_a_role_is_looked_at_when_it_matters() -> None:
    app = Application()

    @app.route("promote")
    async def promote(session: Session) -> None:
        session.auth_role = "admin"

    app.route("it", requires="admin")(procedure)
    async with connect(app) as client:
        assert await error_uri_of(client.call("it")) == NOT_AUTHORIZED
        await client.call("promote")
        await client.call("it")


async def test_a_more_specific_route_has_requirements_of_its_own() -> None:
    app = Application()
    app.prefix_route("a.", requires="admin")(procedure)
    app.prefix_route("a.b.", requires=())(procedure)
    app.route("a.b.open")(procedure)
    async with connect(app) as client:
        assert await outcome(client.call("a.b.open")) is None
        for uri in ("a.c", "a.b.c", "a.b.", "a.b.open.c"):
            assert await outcome(client.call(uri)) in (NOT_AUTHORIZED, "wamp.error.invalid_uri")


async def test_a_refused_publication_is_dropped_without_a_word() -> None:
    app = Application()
    app.topic("it")(listen)
    app.publication("it", requires="admin")(lambda: None)
    async with connect(app) as client, connect(app) as other:
        await other.subscribe("it")
        await client.publish("it")
        await client.expect_nothing()
        await other.expect_nothing()


async def test_further_chunks_of_a_stream_arent_asked_about() -> None:
    app = Application()
    asked = []

    def once(uri: str) -> bool:
        asked.append(uri)
        return len(asked) == 1

    @app.route("total", requires=once)
    async def total(numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    async with connect(app) as client:
        call = await client.start_call("total", [1], progress=True)
        await call.send_chunk(2)
        await call.end_chunks()
        assert (await call.result()).args == (3,)
        refused = await client.start_call("total", [1], progress=True)
        await refused.send_chunk(2)
        await refused.end_chunks()
        assert await error_uri_of(refused.result()) == NOT_AUTHORIZED
        await client.expect_nothing()
    assert asked == ["total", "total"]


@pytest.mark.parametrize(
    "requires", [3, [1], b"admin", [None], {"admin": lambda: True}.values(), object()]
)
def test_what_can_be_no_requirement(requires: Any) -> None:
    with pytest.raises(ConfigurationError):
        Application().route("it", requires=requires)
    with pytest.raises(ConfigurationError):
        Application().topic("it", requires=requires)
    with pytest.raises(ConfigurationError):
        RPCRouteSet(requires=requires)


async def generate() -> AsyncIterator[bool]:
    yield True


@pytest.mark.parametrize("function", [lambda somebody: True, generate])
def test_functions_that_cant_decide(function: Any) -> None:
    asking, requiring = Application(), Application()
    asking.set_authorizer(function)
    requiring.route("it", requires=function)(procedure)
    for app in (asking, requiring):
        with pytest.raises(ConfigurationError):
            app.freeze()


def test_an_authorizer_is_a_function_with_a_lifetime() -> None:
    for function, lifetime in ((True, 1.0), (procedure, -1.0), (procedure, float("nan"))):
        with pytest.raises(ConfigurationError):
            Realm("realm").set_authorizer(function, lifetime=lifetime)  # type: ignore[arg-type]
    app = Application()
    app.freeze()
    with pytest.raises(ConfigurationError):
        app.set_authorizer(lambda: True)


async def test_no_requirement_is_passed_over_in_silence() -> None:
    app = Application()
    app.route("it", requires="admin")(procedure)

    @app.set_rpc_handler
    async def answer(request: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="is never used"):
        app.freeze()

    app = Application()
    app.topic("it", requires="admin")(listen)
    app.set_subscription_handler(listen_to)
    with pytest.raises(ConfigurationError, match="is never used"):
        app.freeze()


async def listen_to(topic: str, session: Session) -> AsyncIterator[None]:
    yield


# ---- patterns of topics


async def test_a_function_that_knows_one_topic_admits_to_no_pattern() -> None:
    app = Application()
    app.prefix_topic("rooms.", requires=lambda uri: uri == "rooms.1")(listen)
    app.prefix_topic("halls.", requires=lambda uri, match: (uri, match) == ("halls.1", "prefix"))(
        listen
    )
    app.prefix_topic("yards.", requires=lambda session: True)(listen)
    async with connect(app) as client:
        await client.subscribe("rooms.1")
        assert await error_uri_of(client.subscribe("rooms.1", match="prefix")) == (
            "wamp.error.option_not_allowed"
        )
        assert await error_uri_of(client.subscribe("rooms.1", match="wildcard")) == (
            "wamp.error.option_not_allowed"
        )
        await client.subscribe("halls.1", match="prefix")
        assert await error_uri_of(client.subscribe("halls.1")) == NOT_AUTHORIZED
        await client.subscribe("yards.", match="prefix")


async def test_a_pattern_needs_what_its_route_requires() -> None:
    app = known_by_name()
    app.prefix_topic("a.", requires="admin")(listen)
    app.prefix_topic("a.open.")(listen)
    async with joined(app, "bob") as bob, joined(app, "alice") as alice:
        await bob.subscribe("a.open.", match="prefix")
        for pattern, match in (
            ("a.", "prefix"),
            ("a.b", "prefix"),
            ("a.open", "prefix"),
            ("a..b", "wildcard"),
            ("a.open", "wildcard"),
        ):
            assert await error_uri_of(bob.subscribe(pattern, match=match)) == NOT_AUTHORIZED
            await alice.subscribe(pattern, match=match)
        for pattern, match in (("", "prefix"), ("..", "wildcard"), (".open", "wildcard")):
            assert await outcome(bob.subscribe(pattern, match=match)) is not None


# ---- the authorizer of a realm


class Recorder:
    """An authorizer that allows all but certain URIs, and remembers what it was asked."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.asked: list[tuple[str, str, str]] = []

    def __call__(self, action: str, uri: str, match: str) -> bool:
        self.asked.append((action, uri, match))
        return uri not in self.refused


def asking(authorizer: Any, **settings: Any) -> Application:
    """Return an application that asks its authorizer about everything."""
    lifetime = settings.pop("lifetime", 60.0)
    app = Application(**settings)
    app.set_authorizer(authorizer, lifetime=lifetime)
    app.prefix_route("a.")(procedure)
    app.prefix_topic("a.", client_publish=True)(listen)
    return app


@pytest.mark.spec("AZN-01", "AZN-02")
async def test_an_authorizer_is_asked_about_everything() -> None:
    recorder = Recorder("a.refused")
    async with connect(asking(recorder)) as client:
        await client.call("a.b")
        await client.subscribe("a.b")
        await client.subscribe("a.b", match="prefix")
        await client.publish("a.b", acknowledge=True)
        assert await error_uri_of(client.call("a.refused")) == NOT_AUTHORIZED
        assert await error_uri_of(client.subscribe("a.refused")) == NOT_AUTHORIZED
        assert await error_uri_of(client.publish("a.refused", acknowledge=True)) == NOT_AUTHORIZED
        await client.send([64, client.next_request(), {"match": "prefix"}, "a."])
        assert (await client.receive())[:2] == [8, 64]
    assert recorder.asked == [
        ("call", "a.b", "exact"),
        ("subscribe", "a.b", "exact"),
        ("subscribe", "a.b", "prefix"),
        ("publish", "a.b", "exact"),
        ("call", "a.refused", "exact"),
        ("subscribe", "a.refused", "exact"),
        ("publish", "a.refused", "exact"),
        ("register", "a.", "prefix"),
    ]


@pytest.mark.spec("AZN-04")
async def test_what_isnt_allowed_may_not_even_exist() -> None:
    def only(uri: str) -> bool:
        return uri == "a.allowed"

    async with connect(asking(only)) as client:
        for uri in ("a.b", "none", "wamp.session.count", "wamp.any"):
            assert await error_uri_of(client.call(uri)) == NOT_AUTHORIZED
            assert await error_uri_of(client.subscribe(uri)) == NOT_AUTHORIZED
            assert await error_uri_of(client.publish(uri, acknowledge=True)) == NOT_AUTHORIZED
        await client.publish("a.b")
        await client.expect_nothing()
        await client.call("a.allowed")


async def test_an_authorizer_and_what_routes_require_have_to_agree() -> None:
    app = known_by_name()
    app.set_authorizer(lambda uri: uri != "no")
    for uri in ("yes", "no"):
        app.route(uri, requires="admin")(procedure)
    async with joined(app, "alice") as alice, joined(app, "bob") as bob:
        assert await outcome(alice.call("yes")) is None
        assert await outcome(alice.call("no")) == NOT_AUTHORIZED
        assert await outcome(bob.call("yes")) == NOT_AUTHORIZED
        assert await outcome(bob.call("yes")) == NOT_AUTHORIZED  # what is known, too


async def test_handlers_that_take_everything_are_asked_about_too() -> None:
    app = Application()
    app.set_authorizer(lambda uri: uri == "yes")

    @app.set_rpc_handler
    async def answer(request: Any) -> None: ...

    app.set_subscription_handler(listen_to)
    async with connect(app) as client:
        await client.call("yes")
        await client.subscribe("yes")
        assert await error_uri_of(client.call("no")) == NOT_AUTHORIZED
        assert await error_uri_of(client.subscribe("no")) == NOT_AUTHORIZED
        assert await error_uri_of(client.subscribe("", match="prefix")) == NOT_AUTHORIZED


@pytest.mark.parametrize("uri", ["", "a..b", "a b", "a.#"])
async def test_nothing_is_asked_about_what_is_no_uri(uri: str) -> None:
    recorder = Recorder()
    async with connect(asking(recorder)) as client:
        for request in (
            client.call(uri),
            client.subscribe(uri),
            client.publish(uri, acknowledge=True),
        ):
            assert await error_uri_of(request) == "wamp.error.invalid_uri"
    assert recorder.asked == []


async def test_each_realm_has_its_own_authorizer() -> None:
    app, open_realm, closed_realm = Application(), Realm("open"), Realm("closed")
    closed_realm.set_authorizer(lambda: False)
    for realm in (open_realm, closed_realm):
        realm.route("it")(procedure)
        app.add_realm(realm)
    async with connect(app, "open") as client:
        await client.call("it")
        await client.leave()
        await client.join("closed")
        assert await error_uri_of(client.call("it")) == NOT_AUTHORIZED
        await client.leave()
        await client.join("open")
        await client.call("it")


# ---- how long answers are held to


async def test_answers_are_remembered_for_each_session() -> None:
    recorder = Recorder("a.refused")
    app = asking(recorder)
    async with connect(app) as client, connect(app) as other:
        for _ in range(3):
            await client.call("a.b")
            assert await error_uri_of(client.call("a.refused")) == NOT_AUTHORIZED
        assert len(recorder.asked) == 2
        await other.call("a.b")
        assert len(recorder.asked) == 3


@pytest.mark.parametrize(
    ("lifetime", "asked"),
    [(0, [1, 2, 3, 4, 5]), (5, [1, 1, 2, 2, 3]), (float("inf"), [1, 1, 1, 1, 1])],
)
async def test_for_how_long_answers_are_remembered(
    lifetime: float, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(serverwamp.auth.authorization, "monotonic", lambda: now)
    recorder = Recorder()
    async with connect(asking(recorder, lifetime=lifetime)) as client:
        counts = []
        for seconds in (0, 4.5, 0.5, 4.5, 1):
            now += seconds
            await client.call("a.b")
            counts.append(len(recorder.asked))
    assert counts == asked


async def test_answers_can_be_forgotten() -> None:
    recorder = Recorder()
    app = asking(recorder)
    sessions: dict[Any, Session] = {}

    @app.route("a.me")
    async def me(session: Session) -> None:
        sessions[session.id] = session

    async with connect(app) as client, connect(app) as other:
        for each in (client, other):
            await each.call("a.me")
            await each.call("a.b")
        recorder.refused = {"a.b"}
        app.invalidate_authorizations(sessions[client.session])
        assert await error_uri_of(client.call("a.b")) == NOT_AUTHORIZED
        await other.call("a.b")
        app.invalidate_authorizations()
        assert await error_uri_of(other.call("a.b")) == NOT_AUTHORIZED


async def test_what_is_forgotten_while_it_is_decided_isnt_remembered() -> None:
    app = Application()
    decided = 0

    async def authorize(uri: str) -> bool:
        nonlocal decided
        decided += 1
        if decided == 1:
            app.invalidate_authorizations()
        return decided == 1

    app.set_authorizer(authorize)
    app.route("it")(procedure)
    async with connect(app) as client:
        await client.call("it")
        assert await error_uri_of(client.call("it")) == NOT_AUTHORIZED


async def test_another_role_is_asked_about_anew() -> None:
    app = Application()
    app.set_authorizer(lambda session, uri: uri != "it" or session.auth_role == "admin")
    app.route("it")(procedure)

    @app.route("be")
    async def be(role: str, session: Session) -> None:
        session.auth_role = role

    async with connect(app) as client:
        assert await error_uri_of(client.call("it")) == NOT_AUTHORIZED
        await client.call("be", ["admin"])
        await client.call("it")
        await client.call("be", ["user"])
        assert await error_uri_of(client.call("it")) == NOT_AUTHORIZED


async def test_an_answer_that_looks_at_options_is_for_these() -> None:
    app = asking(lambda options: "timeout" not in options)
    async with connect(app) as client:
        await client.call("a.b")
        assert await error_uri_of(client.call("a.b", options={"timeout": 1000})) == NOT_AUTHORIZED
        await client.call("a.b")
        assert await error_uri_of(client.call("a.b", options={"timeout": 1000})) == NOT_AUTHORIZED


async def test_an_error_isnt_remembered() -> None:
    errors = [RuntimeError("broken"), WAMPError("wamp.error.unavailable")]

    def authorize() -> bool:
        if errors:
            raise errors.pop(0)
        return True

    async with connect(asking(authorize)) as client:
        assert await error_uri_of(client.call("a.b")) == FAILED
        assert await error_uri_of(client.call("a.b")) == "wamp.error.unavailable"
        await client.call("a.b")


async def test_only_so_many_answers_are_remembered() -> None:
    recorder = Recorder()
    async with connect(asking(recorder, limits=Limits(authorizations=2))) as client:
        for uri in ("a.1", "a.2", "a.3", "a.3", "a.2", "a.1", "a.3", "a.2"):
            await client.call(uri)
    assert [uri for _, uri, _ in recorder.asked] == ["a.1", "a.2", "a.3", "a.1", "a.2"]


# ---- authorizers that take their time


class Gate:
    """An async authorizer that decides about a URI when it is told to."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.opened = anyio.Event()
        self.cancelled = False

    async def __call__(self, uri: str) -> bool:
        if uri != "a.slow":
            return uri != "a.refused"
        self.asked.set()
        try:
            await self.opened.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise
        return True


@pytest.mark.spec("AZN-05", "ORD-04")
async def test_requests_stay_in_order() -> None:
    gate, calls_begun, published = Gate(), [], []
    app = Application()
    app.set_authorizer(gate)

    @app.prefix_route("a.")
    async def call(request: RPCRequest) -> None:
        calls_begun.append(request.uri)

    @app.prefix_publication("a.")
    async def publish(topic: str) -> None:
        published.append(topic)

    async with connect(app) as client:
        calls = [await client.start_call(uri) for uri in ("a.1", "a.slow", "a.2", "a.refused")]
        for topic in ("a.1", "a.slow", "a.2", "a.refused"):
            await client.publish(topic)
        with anyio.fail_after(5):
            await gate.asked.wait()
        gate.opened.set()
        for pending in calls[:3]:
            await pending.result()
        assert await error_uri_of(calls[3].result()) == NOT_AUTHORIZED
        await client.publish("a.3", acknowledge=True)
    assert calls_begun == ["a.1", "a.slow", "a.2"]
    assert published == ["a.1", "a.slow", "a.2", "a.3"]


@pytest.mark.spec("AZN-05")
@pytest.mark.parametrize("how", ["drop", "close"])
async def test_a_session_that_is_over_when_it_is_decided(how: str) -> None:
    gate, called = Gate(), []
    app = asking(gate)
    sessions: list[Session] = []

    @app.route("a.me")
    async def me(session: Session) -> None:
        sessions.append(session)

    @app.route("a.slow")
    async def slow() -> None:
        called.append(True)

    async with connect(app) as client:
        await client.call("a.me")
        await client.start_call("a.slow")
        with anyio.fail_after(5):
            await gate.asked.wait()
        if how == "drop":
            await client.disconnect()
        else:
            await sessions[0].close()
            assert (await client.receive())[0] == 6
        gate.opened.set()
        if how == "close":
            await client.send([6, {}, "wamp.close.goodbye_and_out"])
            await client.expect_close()
            assert not called
    assert not app.sessions


async def test_an_authorizer_that_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    app = asking(gate, limits=Limits(authorization_timeout=0.05))
    async with connect(app) as client:
        assert await error_uri_of(client.call("a.slow")) == FAILED
        await client.call("a.b")
    assert gate.cancelled
    assert "because" in caplog.text


@pytest.mark.parametrize("of_realm", [True, False])
async def test_a_testament_needs_the_right_to_publish(
    of_realm: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = known_by_name()
    if of_realm:
        app.set_authorizer(lambda action, uri: action != "publish" or uri != "refused")
    app.topic("refused", client_publish=True, requires=None if of_realm else "guest")(listen)
    app.topic("allowed", client_publish=True)(listen)
    async with joined(app, "carol") as carol:
        for topic in ("refused", "allowed"):
            await carol.subscribe(topic)
        async with joined(app, "bob") as bob:
            for topic in ("refused", "allowed"):
                await bob.call("wamp.session.add_testament", [topic, [topic], {}])
        assert (await carol.expect_event()).args == ("allowed",)
        await carol.expect_nothing()
    assert "refused" in caplog.text


# ---- what a pattern matches


async def test_an_event_needs_the_right_to_its_topic() -> None:
    recorder = Recorder("a.refused")
    app = asking(recorder)
    async with connect(app) as client, connect(app) as other:
        await client.subscribe("a.", match="prefix")
        await other.subscribe("a.refused.not")
        for topic in ("a.1", "a.refused", "a.2", "a.1", "a.refused", "a.refused.not"):
            await app.publish(topic, [topic])
        for topic in ("a.1", "a.2", "a.1", "a.refused.not"):
            assert (await client.expect_event()).args == (topic,)
        await client.expect_nothing()
        assert (await other.expect_event()).args == ("a.refused.not",)
    assert recorder.asked.count(("subscribe", "a.1", "exact")) == 1
    assert recorder.asked.count(("subscribe", "a.refused", "exact")) == 1


@pytest.mark.spec("AZN-05", "ORD-02")
@pytest.mark.parametrize("lifetime", [0, 60])
async def test_events_stay_in_order(lifetime: float) -> None:
    gate = Gate()
    app = asking(gate, lifetime=lifetime)
    sessions: list[Session] = []

    @app.route("a.me")
    async def me(session: Session) -> None:
        sessions.append(session)

    async with connect(app) as client, connect(app) as publisher:
        await client.call("a.me")
        await client.subscribe("a.", match="prefix")
        await client.subscribe("a.exact")
        topics = ["a.1", "a.slow", "a.1", "a.refused", "a.exact", "a.2"]
        for topic in topics:
            await publisher.publish(topic, [topic])
            if topic == "a.slow":
                with anyio.fail_after(5):
                    await gate.asked.wait()
                gate.opened.set()
        for topic in topics:
            if topic != "a.refused":
                assert (await client.expect_event()).args == (topic,)
            if topic == "a.exact":
                assert (await client.expect_event()).args == (topic,)
        await client.expect_nothing()


async def test_events_wait_behind_one_that_is_being_decided() -> None:
    gate = Gate()
    app = asking(gate)
    sessions: list[Session] = []

    @app.route("a.me")
    async def me(session: Session) -> None:
        sessions.append(session)

    async with connect(app) as client, connect(app) as other:
        await client.call("a.me")
        pattern = await client.subscribe("a.", match="prefix")
        exact = await client.subscribe("a.exact")
        await other.subscribe("a.exact")
        for topic in ("a.slow", "a.exact", "a.refused"):
            await app.publish(topic, [topic])
        sessions[0].send_event("a.exact", ["sent"])
        assert (await other.expect_event()).args == ("a.exact",)
        await client.expect_nothing()
        gate.opened.set()
        received = [await client.expect_event() for _ in range(5)]
        assert [(event.args[0], event.subscription) for event in received[:1]] == [
            ("a.slow", pattern.id)
        ]
        assert {(event.args[0], event.subscription) for event in received[1:3]} == {
            ("a.exact", pattern.id),
            ("a.exact", exact.id),
        }
        assert {event.args[0] for event in received[3:]} == {"sent"}
        await client.expect_nothing()
    assert app.statistics().events_delivered == 6


@pytest.mark.parametrize("how", ["unsubscribe", "leave"])
async def test_what_waits_when_its_subscription_ends(how: str) -> None:
    gate = Gate()
    app = asking(gate)
    async with connect(app) as client:
        pattern = await client.subscribe("a.", match="prefix")
        for topic in ("a.slow", "a.1"):
            await app.publish(topic, [topic])
        if how == "unsubscribe":
            await client.unsubscribe(pattern)
            gate.opened.set()
            await client.expect_nothing()
        else:
            await client.leave()
    assert app.statistics().events_delivered == 0
    assert gate.cancelled is (how == "leave")


async def test_only_so_much_waits(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    app = asking(gate, overflow="drop_newest", limits=Limits(outbound_messages=3))
    async with connect(app) as client:
        await client.subscribe("a.", match="prefix")
        for number in range(9):
            await app.publish("a.slow", [number])
        gate.opened.set()
        for number in range(3):
            assert (await client.expect_event()).args == (number,)
        await client.expect_nothing()
    assert app.statistics().events_refused["drop_newest"] == 6
    assert "outbound_messages" in caplog.text


# ---- registrations


async def register(client: Client, uri: str, **options: Any) -> str | None:
    """Register a procedure; return the URI of the error, or None."""
    await client.send([64, client.next_request(), options, uri])
    reply = await client.expect(lambda m: m[0] == 65 or m[:2] == [8, 64])
    return None if reply[0] == 65 else str(reply[4])


@pytest.mark.spec("AZN-01")
async def test_what_registering_requires() -> None:
    app = known_by_name()
    app.client_register("fleet.", "prefix", requires={"user", "admin"})
    app.client_register("fleet.base.", "prefix", requires="admin")
    app.client_register("any.", "prefix")
    async with joined(app, "alice") as alice, joined(app, "bob") as bob, joined(app, "carol") as c:
        assert await register(c, "fleet.1") == NOT_AUTHORIZED
        assert await register(c, "any.1") is None
        assert await register(c, "private") is None
        assert await register(bob, "fleet.1") is None
        assert await register(bob, "fleet.base.1") == NOT_AUTHORIZED
        assert await register(bob, "fleet.base.1", match="prefix") == NOT_AUTHORIZED
        assert await register(alice, "fleet.base.1") is None


async def test_a_pattern_brings_no_calls_of_what_others_may_register() -> None:
    app = known_by_name()
    app.client_register("fleet.", "prefix")
    app.client_register("fleet.base.", "prefix", requires="admin")
    async with joined(app, "alice") as alice, joined(app, "bob") as bob, joined(app, "carol") as c:
        for pattern, match in (
            ("fleet.", "prefix"),
            ("fleet.b", "prefix"),
            ("fleet.base.", "wildcard"),
        ):
            expected = NOT_AUTHORIZED if match == "wildcard" else None
            assert await register(bob, pattern, match=match) == expected
        assert await error_uri_of(c.call("fleet.base.open")) == "wamp.error.no_such_procedure"
        with pytest.raises(WAMPError):
            await app.call("fleet.base.open")
        assert await register(alice, "fleet.base.", match="prefix") is None
        call = await c.start_call("fleet.base.open")
        invocation = await alice.expect(lambda m: m[0] == 68)
        await alice.send([70, invocation[1], {}, ["alice"]])
        assert (await call.result()).args == ("alice",)
        call = await c.start_call("fleet.bus")
        invocation = await bob.expect(lambda m: m[0] == 68)
        await bob.send([70, invocation[1], {}, ["bob"]])
        assert (await call.result()).args == ("bob",)


@pytest.mark.parametrize("takes_match", [True, False])
async def test_who_knows_one_procedure_admits_to_no_pattern(takes_match: bool) -> None:
    def of_one(uri: str) -> bool:
        return uri == "fleet.1"

    def of_all(uri: str, match: str) -> bool:
        return uri == "fleet.1"

    app = Application()
    app.client_register("fleet.", "prefix")
    app.set_authorizer(of_all if takes_match else of_one)
    async with connect(app) as client:
        expected = None if takes_match else "wamp.error.option_not_allowed"
        assert await register(client, "fleet.1", match="prefix") == expected
        assert await register(client, "fleet.1") is None
        assert await register(client, "fleet.2") == NOT_AUTHORIZED


async def test_a_renewed_ticket_is_asked_about_anew() -> None:
    app = Application()

    async def check(session: Session, ticket: str) -> str:
        session.auth_role = "user"
        return ticket

    app.set_ticket_authenticator(check)
    app.set_authorizer(lambda session, uri: uri != "it" or session.identity == "new")
    app.route("it")(procedure)

    @app.route("renew")
    async def renew(session: Session) -> None:
        await session.refresh("new")

    async with connect(app, ticket="old", authid="alice") as client:
        assert await error_uri_of(client.call("it")) == NOT_AUTHORIZED
        await client.call("renew")
        await client.call("it")


@pytest.mark.parametrize("lifetime", [0, 60])
async def test_the_past_of_a_pattern_needs_the_right_to_its_topics(lifetime: float) -> None:
    app = Application()
    app.set_authorizer(Recorder("a.refused"), lifetime=lifetime)
    app.prefix_topic("a.", history=History())(listen)
    async with connect(app) as client:
        subscription = await client.subscribe("a.", match="prefix")
        for topic in ("a.1", "a.refused", "a.2"):
            await app.publish(topic, [topic])
        result = await client.call("wamp.subscription.get_events", [subscription.id])
        assert [event["args"] for event in result.args[0]] == [["a.1"], ["a.2"]]
        result = await client.call(
            "wamp.subscription.get_events", [subscription.id], {"topic": "a.refused"}
        )
        assert result.args == ([],)
