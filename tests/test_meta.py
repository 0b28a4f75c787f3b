"""What clients may ask about a realm, and hear of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest

from serverwamp import Application, ConfigurationError, Realm, Session, WAMPError
from serverwamp.protocol.messages import Role
from serverwamp.router.features import CalleeFeatures
from serverwamp.testing import Client, connect
from tests.helpers import error_uri_of, roles_by_ticket

ROLES: Mapping[str, str] = {"alice": "admin", "bob": "user", "carol": "user"}


def guarded(realm: Realm | None = None) -> Application:
    """Return an application that asks everybody for a ticket: the name."""
    app = Application()
    for each in (app, realm):
        if each is not None:
            each.set_ticket_authenticator(roles_by_ticket(ROLES))
            each.route("procedure")(procedure)
            each.topic("topic")(topic)
    if realm is not None:
        app.add_realm(realm)
    return app


async def procedure() -> None:
    pass


async def topic() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def joined(
    app: Application, *names: str, realm: str = "realm1"
) -> AsyncIterator[tuple[Client, ...]]:
    async with AsyncExitStack() as stack:
        yield tuple(
            [
                await stack.enter_async_context(connect(app, realm, ticket=name, authid=name))
                for name in names
            ]
        )


def described(client: Client, name: str) -> dict[str, Any]:
    return {
        "session": client.session,
        "authid": name,
        "authrole": ROLES[name],
        "authmethod": "ticket",
        "authprovider": "dynamic",
    }


# ---- sessions: procedures


@pytest.mark.spec("MSE-03", "MSE-04")
async def test_sessions_are_counted_and_listed() -> None:
    app = guarded()
    async with joined(app, "alice", "bob") as (alice, bob):
        assert (await alice.call("wamp.session.count")).args == (2,)
        assert (await alice.call("wamp.session.list")).args == ([alice.session, bob.session],)
        async with joined(app, "carol") as (carol,):
            for roles, sessions in (
                (["user"], [bob.session, carol.session]),
                (["admin", "other"], [alice.session]),
                ([], []),
                (None, [alice.session, bob.session, carol.session]),
            ):
                assert (await bob.call("wamp.session.list", (roles,))).args == (sessions,)
                assert (await bob.call("wamp.session.count", (roles,))).args == (len(sessions),)
            await carol.leave()
            assert (await alice.call("wamp.session.count")).args == (2,)


@pytest.mark.spec("MSE-05", "ERR-no_such_session")
async def test_a_session_is_described() -> None:
    async with joined(guarded(), "alice", "bob") as (alice, bob):
        result = await alice.call("wamp.session.get", (bob.session,))
        assert result.args == (described(bob, "bob"),)
        assert not result.kwargs
        assert (
            await error_uri_of(alice.call("wamp.session.get", (1,))) == "wamp.error.no_such_session"
        )


@pytest.mark.spec("MSE-11")
@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("get", (), {}),
        ("get", ("bob",), {}),
        ("get", (None,), {}),
        ("get", (0,), {}),
        ("get", (1.5,), {}),
        ("get", (1, 2), {}),
        ("get", (), {"session_id": 1}),
        ("count", ("user",), {}),
        ("count", ([1],), {}),
        ("list", ({"authrole": "user"},), {}),
        ("list", (), {"authroles": []}),
    ],
)
async def test_arguments_that_make_no_sense(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    async with joined(guarded(), "alice") as (alice,):
        call = alice.call(f"wamp.session.{name}", args, kwargs)
        assert await error_uri_of(call) == "wamp.error.invalid_argument"


async def test_each_realm_has_its_own_sessions() -> None:
    app = guarded(Realm("other"))
    async with joined(app, "alice") as (alice,), joined(app, "bob", realm="other") as (bob,):
        other = await alice.subscribe("wamp.session.on_join")
        assert (await alice.call("wamp.session.list")).args == ([alice.session],)
        assert (await bob.call("wamp.session.list")).args == ([bob.session],)
        get = bob.call("wamp.session.get", (alice.session,))
        assert await error_uri_of(get) == "wamp.error.no_such_session"
        async with joined(app, "carol", realm="other"), joined(app, "bob"):
            event = await alice.expect_event(other)
            assert event.args[0]["authid"] == "bob"
            await alice.expect_nothing()


# ---- sessions: events


@pytest.mark.spec("MSE-01", "MSE-02")
async def test_who_joins_and_who_leaves() -> None:
    app = guarded()
    async with joined(app, "alice") as (alice,):
        joins = await alice.subscribe("wamp.session.on_join")
        leaves = await alice.subscribe("wamp.session.on_leave")
        async with joined(app, "bob") as (bob,):
            first = bob.session
            event = await alice.expect_event(joins)
            assert event.args == (described(bob, "bob"),)
            assert not event.kwargs
            await bob.leave()
            assert (await alice.expect_event(leaves)).args == (first, "bob", "user")
            await bob.join(ticket="bob", authid="bob")
            assert (await alice.expect_event(joins)).args == (described(bob, "bob"),)
        assert (await alice.expect_event(leaves)).args == (bob.session, "bob", "user")
        await alice.expect_nothing()


async def test_a_session_does_not_hear_of_its_own_end() -> None:
    async with joined(guarded(), "alice") as (alice,):
        await alice.subscribe("wamp.session.on_join")
        await alice.subscribe("wamp.session.on_leave")
        await alice.leave()
        assert alice.take_all() == []


async def test_who_is_refused_has_not_joined() -> None:
    app = guarded()
    async with joined(app, "alice") as (alice,):
        await alice.subscribe("wamp.session.on_join")
        await alice.subscribe("wamp.session.on_leave")
        with pytest.raises(WAMPError):
            async with joined(app, "mallory"):
                pass
        await alice.expect_nothing()


# ---- sessions: ending those of others


def killable() -> Application:
    app = guarded()
    app.set_meta_api(kill="admin")
    return app


async def expect_goodbye(client: Client, reason: str, details: dict[str, Any]) -> None:
    assert await client.receive() == [6, details, reason]
    await client.send([6, {}, "wamp.close.goodbye_and_out"])
    await client.expect_close()


@pytest.mark.spec("MSE-06", "MSE-10")
@pytest.mark.parametrize(
    ("kwargs", "reason", "details"),
    [
        ({}, "wamp.close.killed", {}),
        ({"reason": None, "message": None}, "wamp.close.killed", {}),
        ({"reason": "com.example.why"}, "com.example.why", {}),
        ({"message": "enough"}, "wamp.close.killed", {"message": "enough"}),
        ({"reason": "why", "message": ""}, "why", {"message": ""}),
    ],
)
async def test_a_session_is_killed(
    kwargs: dict[str, Any], reason: str, details: dict[str, Any]
) -> None:
    async with joined(killable(), "alice", "bob", "carol") as (alice, bob, carol):
        leaves = await alice.subscribe("wamp.session.on_leave")
        result = await alice.call("wamp.session.kill", (bob.session,), kwargs)
        assert (result.args, result.kwargs) == ((), {})
        await expect_goodbye(bob, reason, details)
        assert (await alice.expect_event(leaves)).args == (bob.session, "bob", "user")
        assert (await alice.call("wamp.session.list")).args == ([alice.session, carol.session],)
        await carol.expect_nothing()


@pytest.mark.spec("MSE-06")
async def test_sessions_that_can_not_be_killed() -> None:
    app = killable()
    app.add_realm(Realm("other"))
    async with joined(app, "alice") as (alice,), connect(app, "other") as other:
        for session in (alice.session, other.session, 1):
            call = alice.call("wamp.session.kill", (session,))
            assert await error_uri_of(call) == "wamp.error.no_such_session"
        await alice.expect_nothing()
        await other.expect_nothing()


@pytest.mark.spec("MSE-06", "MSE-11")
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("kill", (1,)),
        ("kill_by_authid", ("bob",)),
        ("kill_by_authrole", ("user",)),
        ("kill_all", ()),
    ],
)
async def test_a_kill_that_makes_no_sense(name: str, args: tuple[Any, ...]) -> None:
    name = f"wamp.session.{name}"
    async with joined(killable(), "alice", "bob") as (alice, bob):
        for reason in ("", "no uri", "a..b"):
            call = alice.call(name, args, {"reason": reason})
            assert await error_uri_of(call) == "wamp.error.invalid_uri"
        wrong = [(args, {"reason": 1}), (args, {"message": []}), (args, {"other": "a"})]
        wrong += [((*args, "why"), {}), ((["bob"],), {})]
        for given, kwargs in wrong:
            call = alice.call(name, given, kwargs)
            assert await error_uri_of(call) == "wamp.error.invalid_argument"
        await bob.expect_nothing()


@pytest.mark.spec("MSE-07", "MSE-10")
async def test_killing_by_name_spares_the_caller() -> None:
    async with joined(killable(), "alice", "alice", "alice", "bob") as clients:
        caller, first, second, bob = clients
        how = {"reason": "why", "message": "enough"}
        result = await caller.call("wamp.session.kill_by_authid", ("alice",), how)
        assert result.args == ([first.session, second.session],)
        for client in (first, second):
            await expect_goodbye(client, "why", {"message": "enough"})
        await caller.expect_nothing()
        await bob.expect_nothing()
        result = await caller.call("wamp.session.kill_by_authid", ("nobody",))
        assert result.args == ([],)


@pytest.mark.spec("MSE-08", "MSE-10")
async def test_killing_by_role_spares_the_caller() -> None:
    async with joined(killable(), "alice", "alice", "bob", "carol") as clients:
        caller, other, bob, carol = clients
        assert (await caller.call("wamp.session.kill_by_authrole", ("user",))).args == (2,)
        for client in (bob, carol):
            await expect_goodbye(client, "wamp.close.killed", {})
        await other.expect_nothing()
        assert (await caller.call("wamp.session.kill_by_authrole", ("admin",))).args == (1,)
        await expect_goodbye(other, "wamp.close.killed", {})
        await caller.expect_nothing()


@pytest.mark.spec("MSE-09", "MSE-10")
async def test_killing_all_is_quiet_and_spares_the_caller() -> None:
    app = killable()
    async with joined(app, "alice", "bob", "carol") as (alice, bob, carol):
        leaves = await alice.subscribe("wamp.session.on_leave")
        assert (await alice.call("wamp.session.kill_all", (), {"reason": "why"})).args == (2,)
        for client in (bob, carol):
            await expect_goodbye(client, "why", {})
        await alice.expect_nothing()
        assert (await alice.call("wamp.session.count")).args == (1,)
        async with joined(app, "bob") as (bob,):
            await bob.leave()
            assert (await alice.expect_event(leaves)).args[1] == "bob"


# ---- subscriptions

META = "wamp.subscription"


async def listen_to(client: Client, *topics: str) -> dict[int, str]:
    return {(await client.subscribe(topic)).id: topic for topic in topics}


async def heard(client: Client, topics: Mapping[int, str]) -> tuple[str, tuple[Any, ...]]:
    event = await client.expect_event()
    return topics[event.subscription].rpartition(".")[2], event.args


@pytest.mark.spec("MSU-01")
async def test_the_life_of_a_subscription() -> None:
    events = ("on_create", "on_subscribe", "on_unsubscribe", "on_delete")
    async with joined(guarded(), "alice", "bob", "carol") as (alice, bob, carol):
        topics = await listen_to(alice, *(f"{META}.{event}" for event in events))
        before = datetime.now(timezone.utc)
        first = await bob.subscribe("topic")
        name, (session, details) = await heard(alice, topics)
        created = datetime.fromisoformat(details.pop("created"))
        assert before - timedelta(seconds=1) < created < datetime.now(timezone.utc)
        assert (name, session) == ("on_create", bob.session)
        assert details == {"id": first.id, "uri": "topic", "match": "exact"}
        assert await heard(alice, topics) == ("on_subscribe", (bob.session, first.id))

        await bob.subscribe("topic")  # which it is already
        second = await carol.subscribe("topic")
        assert await heard(alice, topics) == ("on_subscribe", (carol.session, first.id))

        await bob.unsubscribe(first)
        assert await heard(alice, topics) == ("on_unsubscribe", (bob.session, first.id))
        await carol.unsubscribe(second)
        assert await heard(alice, topics) == ("on_unsubscribe", (carol.session, first.id))
        assert await heard(alice, topics) == ("on_delete", (carol.session, first.id))
        await alice.expect_nothing()


@pytest.mark.spec("MSU-01", "MRE-05")
@pytest.mark.parametrize("how", ["leaves", "disconnects", "is killed"])
async def test_subscriptions_end_with_their_session(how: str) -> None:
    async with joined(killable(), "alice", "bob") as (alice, bob):
        events = ("subscription.on_unsubscribe", "subscription.on_delete", "session.on_leave")
        topics = await listen_to(alice, *(f"wamp.{event}" for event in events))
        await listen_to(bob, *topics.values())
        subscription, session = await bob.subscribe("topic"), bob.session
        if how == "leaves":
            await bob.leave()
        elif how == "disconnects":
            await bob.disconnect()
        else:
            await alice.call("wamp.session.kill", (bob.session,))
            await expect_goodbye(bob, "wamp.close.killed", {})
        assert await heard(alice, topics) == ("on_unsubscribe", (session, subscription.id))
        assert await heard(alice, topics) == ("on_delete", (session, subscription.id))
        assert await heard(alice, topics) == ("on_leave", (session, "bob", "user"))
        await alice.expect_nothing()
        assert bob.take_all() == []


async def test_a_subscription_that_is_refused_is_none() -> None:
    app = guarded()

    @app.topic("refused")
    async def refuse() -> AsyncIterator[None]:
        raise WAMPError("com.example.no")
        yield

    async with joined(app, "alice", "bob") as (alice, bob):
        await listen_to(alice, f"{META}.on_create", f"{META}.on_subscribe", f"{META}.on_delete")
        assert await error_uri_of(bob.subscribe("refused")) == "com.example.no"
        assert (await alice.call(f"{META}.lookup", ("refused",))).args == (None,)
        await alice.expect_nothing()


async def test_a_subscription_that_is_granted_too_late_is_none() -> None:
    gate, ended = anyio.Event(), anyio.Event()
    app = guarded()

    @app.topic("slow")
    async def slow() -> AsyncIterator[None]:
        try:
            with anyio.CancelScope(shield=True):
                await gate.wait()
            yield
        finally:
            ended.set()

    async with joined(app, "alice", "bob") as (alice, bob):
        events = ("subscription.on_create", "subscription.on_subscribe", "session.on_leave")
        topics = await listen_to(alice, *(f"wamp.{event}" for event in events))
        await bob.send([32, 1, {}, "slow"])
        await bob.leave()
        gate.set()
        with anyio.fail_after(5):
            await ended.wait()
        assert (await heard(alice, topics))[0] == "on_leave"
        await alice.expect_nothing()


@pytest.mark.spec("MSU-02", "MRE-05")
async def test_subscriptions_are_found() -> None:
    async with joined(guarded(), "alice", "bob") as (alice, bob):

        async def asked(name: str, *args: Any) -> Any:
            result = await alice.call(f"{META}.{name}", args)
            assert not result.kwargs
            (value,) = result.args
            return value

        own = await alice.subscribe(f"{META}.on_create")
        nothing: dict[str, list[int]] = {"exact": [], "prefix": [], "wildcard": []}
        assert await asked("list") == nothing
        assert await asked("match", "topic") is None
        subscription = await bob.subscribe("topic")
        id_ = subscription.id
        await alice.expect_event(own)
        assert await asked("list") == {**nothing, "exact": [id_]}
        for options in ((), ({},), ({"match": "exact"},), ({"match": None, "x": 1},)):
            assert await asked("lookup", "topic", *options) == id_
        assert await asked("lookup", "topic", {"match": "prefix"}) is None
        assert await asked("lookup", "other") is None
        assert await asked("match", "topic") == [id_]
        assert await asked("match", "other") is None
        assert await asked("list_subscribers", id_) == [bob.session]
        await alice.subscribe("topic")
        assert await asked("list_subscribers", id_) == [bob.session, alice.session]
        assert await asked("count_subscribers", id_) == 2
        details = await asked("get", id_)
        assert datetime.fromisoformat(details.pop("created")).tzinfo is not None
        assert details == {"id": id_, "uri": "topic", "match": "exact"}

        for name in ("get", "list_subscribers", "count_subscribers"):
            for unknown in (own.id, 10**6):
                call = alice.call(f"{META}.{name}", (unknown,))
                assert await error_uri_of(call) == "wamp.error.no_such_subscription"
        assert await asked("lookup", own.topic) is None
        assert await asked("match", own.topic) is None


@pytest.mark.spec("MSU-01", "MSU-02")
async def test_patterns_of_topics_are_subscriptions() -> None:
    app = guarded()
    app.prefix_topic("a.")(topic)
    app.wildcard_topic(".b")(topic)
    app.topic("a.own")(topic)
    async with joined(app, "alice", "bob") as (alice, bob):
        topics = await listen_to(alice, f"{META}.on_create", f"{META}.on_delete")
        prefix = await bob.subscribe("a.", match="prefix")
        wildcard = await bob.subscribe(".b", match="wildcard")
        exact = await bob.subscribe("a.c")
        for subscription, match in ((prefix, "prefix"), (wildcard, "wildcard"), (exact, "exact")):
            name, (_, details) = await heard(alice, topics)
            assert name == "on_create"
            assert (details["id"], details["match"]) == (subscription.id, match)
        lists = {"exact": [exact.id], "prefix": [prefix.id], "wildcard": [wildcard.id]}
        assert (await alice.call(f"{META}.list")).args == (lists,)
        for uri, match, found in (
            ("a.", "prefix", prefix.id),
            (".b", "wildcard", wildcard.id),
            ("a.", "wildcard", None),
            ("a.c", "prefix", None),
        ):
            result = await alice.call(f"{META}.lookup", (uri, {"match": match}))
            assert result.args == (found,)
        for uri, ids in (
            ("a.c", [exact.id, prefix.id]),
            ("a.d", [prefix.id]),
            ("c.b", [wildcard.id]),
            ("a.b", [prefix.id]),  # which route serves it decides
            ("a.own", None),
        ):
            assert (await alice.call(f"{META}.match", (uri,))).args == (ids,)
            await app.publish(uri, [uri])
            for _ in ids or ():
                assert (await bob.expect_event()).args == (uri,)
        await bob.expect_nothing()
        await bob.unsubscribe(prefix)
        assert await heard(alice, topics) == ("on_delete", (bob.session, prefix.id))


async def test_no_pattern_brings_events_of_the_protocol() -> None:
    app = guarded()
    app.prefix_topic("")(topic)
    app.wildcard_topic("..")(topic)
    async with joined(app, "alice") as (alice,):
        await alice.subscribe("", match="prefix")
        await alice.subscribe("wamp.", match="prefix")
        await alice.subscribe("wamp..", match="wildcard")
        async with joined(app, "bob"):
            pass
        await alice.expect_nothing()


@pytest.mark.spec("MSU-02", "MSE-11")
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("list", (1,)),
        ("lookup", ()),
        ("lookup", (1,)),
        ("lookup", ("topic", {"match": "none"})),
        ("lookup", ("topic", [])),
        ("match", ()),
        ("match", (None,)),
        ("get", ("topic",)),
        ("list_subscribers", ()),
        ("count_subscribers", (-1,)),
    ],
)
async def test_a_question_about_subscriptions_that_makes_no_sense(
    name: str, args: tuple[Any, ...]
) -> None:
    async with joined(guarded(), "alice") as (alice,):
        call = alice.call(f"{META}.{name}", args)
        assert await error_uri_of(call) == "wamp.error.invalid_argument"


# ---- registrations

OF_REGISTRATIONS = "wamp.registration"


def sharing() -> Application:
    """Return an application whose clients may serve one another."""
    app = killable()
    app.client_register("shared.", match="prefix")
    return app


async def register(client: Client, procedure: str, **options: Any) -> int:
    request = client.next_request()
    await client.send([64, request, options, procedure])
    answer = await client.expect(lambda m: m[:2] == [65, request])
    return int(answer[2])


@pytest.mark.spec("MRE-01", "MRE-02")
async def test_the_life_of_a_registration() -> None:
    events = ("on_create", "on_register", "on_unregister", "on_delete")
    async with joined(sharing(), "alice", "bob", "carol") as (alice, bob, carol):
        topics = await listen_to(alice, *(f"{OF_REGISTRATIONS}.{event}" for event in events))
        id_ = await register(bob, "shared.a", invoke="first")
        name, (session, details) = await heard(alice, topics)
        assert datetime.fromisoformat(details.pop("created")).tzinfo is not None
        assert (name, session) == ("on_create", bob.session)
        assert details == {"id": id_, "uri": "shared.a", "match": "exact", "invoke": "first"}
        assert await heard(alice, topics) == ("on_register", (bob.session, id_))
        assert await register(carol, "shared.a", invoke="first") == id_
        assert await heard(alice, topics) == ("on_register", (carol.session, id_))

        await register(bob, "private.a")  # for the application alone, which is nobody's business
        request = bob.next_request()
        await bob.send([66, request, id_])
        await bob.expect(lambda m: m[:2] == [67, request])
        assert await heard(alice, topics) == ("on_unregister", (bob.session, id_))
        session = carol.session
        await carol.leave()
        assert await heard(alice, topics) == ("on_unregister", (session, id_))
        assert await heard(alice, topics) == ("on_delete", (session, id_))
        await alice.expect_nothing()


@pytest.mark.spec("MRE-01")
async def test_who_leaves_does_not_hear_of_its_own_registrations() -> None:
    async with joined(sharing(), "alice", "bob") as (alice, bob):
        for client in (alice, bob):
            await listen_to(client, f"{OF_REGISTRATIONS}.on_delete")
        await register(bob, "shared.a")
        await alice.call("wamp.session.kill", (bob.session,))
        await expect_goodbye(bob, "wamp.close.killed", {})
        assert bob.take_all() == []
        await alice.expect_event()


@pytest.mark.spec("MRE-03")
async def test_registrations_are_found() -> None:
    async with joined(sharing(), "alice", "bob", "carol") as (alice, bob, carol):

        async def asked(name: str, *args: Any) -> Any:
            result = await alice.call(f"{OF_REGISTRATIONS}.{name}", args)
            assert not result.kwargs
            (value,) = result.args
            return value

        await register(carol, "private.a")
        assert await asked("list") == {"exact": [], "prefix": [], "wildcard": []}
        exact = await register(bob, "shared.a", invoke="roundrobin")
        assert await register(carol, "shared.a", invoke="roundrobin") == exact
        prefix = await register(bob, "shared.a", match="prefix")
        wildcard = await register(carol, "shared..b", match="wildcard")
        lists = {"exact": [exact], "prefix": [prefix], "wildcard": [wildcard]}
        assert await asked("list") == lists
        for procedure, options, found in (
            ("shared.a", (), exact),
            ("shared.a", ({"match": "prefix", "invoke": "single"},), prefix),
            ("shared..b", ({"match": "wildcard"},), wildcard),
            ("shared..b", (), None),
            ("private.a", (), None),
            ("procedure", (), None),  # of the application
            ("wamp.session.count", (), None),
        ):
            assert await asked("lookup", procedure, *options) == found
        for procedure, found in (
            ("shared.a", exact),
            ("shared.a.b", prefix),
            ("shared.c.b", wildcard),
            ("shared.c", None),
            ("private.a", None),
        ):
            assert await asked("match", procedure) == found
        assert await asked("list_callees", exact) == [bob.session, carol.session]
        assert await asked("count_callees", exact) == 2
        assert await asked("count_callees", wildcard) == 1
        details = await asked("get", prefix)
        assert datetime.fromisoformat(details.pop("created")).tzinfo is not None
        expected = {"id": prefix, "uri": "shared.a", "match": "prefix", "invoke": "single"}
        assert details == expected
        for name in ("get", "list_callees", "count_callees"):
            call = alice.call(f"{OF_REGISTRATIONS}.{name}", (10**6,))
            assert await error_uri_of(call) == "wamp.error.no_such_registration"
            call = alice.call(f"{OF_REGISTRATIONS}.{name}", ("shared.a",))
            assert await error_uri_of(call) == "wamp.error.invalid_argument"
        for args in ((), (1,), ("shared.a", {"match": "none"})):
            call = alice.call(f"{OF_REGISTRATIONS}.lookup", args)
            assert await error_uri_of(call) == "wamp.error.invalid_argument"


# ---- whom it is offered to

ASKING: Mapping[str, tuple[Any, ...]] = {
    "session.count": (),
    "session.list": (),
    "session.get": (1,),
    "subscription.list": (),
    "subscription.lookup": ("a",),
    "subscription.match": ("a",),
    "subscription.get": (1,),
    "subscription.list_subscribers": (1,),
    "subscription.count_subscribers": (1,),
    "registration.list": (),
    "registration.lookup": ("a",),
    "registration.match": ("a",),
    "registration.get": (1,),
    "registration.list_callees": (1,),
    "registration.count_callees": (1,),
}
KILLING: Mapping[str, tuple[Any, ...]] = {
    "session.kill": (1,),
    "session.kill_by_authid": ("x",),
    "session.kill_by_authrole": ("x",),
    "session.kill_all": (),
}
TOPICS = (
    "session.on_join",
    "session.on_leave",
    "subscription.on_create",
    "subscription.on_subscribe",
    "subscription.on_unsubscribe",
    "subscription.on_delete",
    "registration.on_create",
    "registration.on_register",
    "registration.on_unregister",
    "registration.on_delete",
)


async def is_allowed(request: Any) -> bool:
    try:
        await request
    except WAMPError as error:
        return error.uri != "wamp.error.not_authorized"
    return True


async def allowed_calls(client: Client, calls: Mapping[str, tuple[Any, ...]]) -> set[str]:
    return {
        name for name, args in calls.items() if await is_allowed(client.call(f"wamp.{name}", args))
    }


async def allowed_topics(client: Client) -> set[str]:
    return {name for name in TOPICS if await is_allowed(client.subscribe(f"wamp.{name}"))}


@pytest.mark.parametrize(
    ("settings", "who_asks", "who_kills"),
    [
        (None, "alice bob", ""),
        ({}, "alice bob", ""),
        ({"requires": "admin"}, "alice", ""),
        ({"requires": ["user", "other"]}, "bob", ""),
        ({"requires": ()}, "", ""),
        ({"kill": "admin"}, "alice bob", "alice"),
        ({"requires": "user", "kill": {"admin"}}, "bob", "alice"),
        ({"requires": lambda session: session.auth_id == "bob"}, "bob", ""),
        ({"kill": lambda session: session.auth_id == "bob"}, "alice bob", "bob"),
    ],
)
async def test_who_may_use_it(
    settings: dict[str, Any] | None, who_asks: str, who_kills: str
) -> None:
    app = guarded()
    if settings is not None:
        app.set_meta_api(**settings)
    for name in ("alice", "bob"):
        async with joined(app, name) as (client,):
            asks, kills = name in who_asks, name in who_kills
            assert await allowed_calls(client, ASKING) == (set(ASKING) if asks else set())
            assert await allowed_calls(client, KILLING) == (set(KILLING) if kills else set())
            assert await allowed_topics(client) == (set(TOPICS) if asks else set())
            broker, dealer = features_of(client)
            assert ("session_meta_api" in broker) is ("session_meta_api" in dealer) is asks
            assert ("subscription_meta_api" in broker) is asks
            assert ("registration_meta_api" in dealer) is asks
            assert "subscription_meta_api" not in dealer
            assert "registration_meta_api" not in broker


async def test_a_function_that_fails_admits_nobody(caplog: pytest.LogCaptureFixture) -> None:
    app = guarded()
    app.set_meta_api(lambda session: session.no_such_thing)
    async with joined(app, "alice") as (alice,):
        assert "session_meta_api" not in features_of(alice)[0]
        assert not await allowed_calls(alice, {"session.count": ()})
    assert {record.levelname for record in caplog.records} == {"ERROR"}


async def decide(session: Session) -> bool:
    return True


@pytest.mark.parametrize("requirement", [decide, 5, [5], True, b"admin"])
@pytest.mark.parametrize("name", ["requires", "kill", "testaments"])
def test_what_is_no_requirement(requirement: Any, name: str) -> None:
    with pytest.raises(ConfigurationError):
        Application().set_meta_api(**{name: requirement})


async def test_it_can_be_offered_to_everybody() -> None:
    app = Application()
    app.set_meta_api("anonymous")
    async with connect(app) as client:
        assert await allowed_calls(client, ASKING) == set(ASKING)
        assert await allowed_topics(client) == set(TOPICS)
        assert not await allowed_calls(client, KILLING)
        assert features_of(client)[0]["session_meta_api"] is True


async def test_who_may_end_sessions_needs_no_other_right() -> None:
    app = Application()
    app.set_meta_api(kill="anonymous")
    async with connect(app) as client:
        assert not await allowed_calls(client, ASKING)
        assert not await allowed_topics(client)
        assert await allowed_calls(client, KILLING) == set(KILLING)
        assert "session_meta_api" not in features_of(client)[0]


async def test_a_guest_is_nobody_in_particular() -> None:
    async def admit_guest(session: Session) -> str:
        session.auth_role = "anonymous"
        return "a guest"

    app = Application()
    app.add_transport_authenticator(admit_guest)
    async with connect(app) as client:
        assert not await allowed_calls(client, ASKING)
        assert "session_meta_api" not in features_of(client)[1]


def features_of(client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the features of the broker and those of the dealer."""
    roles = client.welcome["roles"]
    assert set(roles) == {"broker", "dealer"}  # a client refuses others
    return roles["broker"]["features"], roles["dealer"]["features"]


@pytest.mark.spec("FEA-07", "MSU-03", "T-14")
async def test_it_is_announced() -> None:
    async with joined(guarded(), "alice") as (alice,):
        broker, dealer = features_of(alice)
        assert broker["session_meta_api"] is True
        assert dealer["session_meta_api"] is True
        assert broker["subscription_meta_api"] is True
        assert dealer["registration_meta_api"] is True


@pytest.mark.spec("FEA-05", "FEA-10")
async def test_the_features_of_the_dealer() -> None:
    always = {
        "progressive_call_results",
        "progressive_call_invocations",
        "call_canceling",
        "call_timeout",
    }
    async with connect(Application()) as client:
        assert set(features_of(client)[1]) == always
    app = sharing()
    app.topic("open", client_publish=True)(topic)
    async with joined(app, "alice") as (alice,):
        assert set(features_of(alice)[1]) == always | {
            "caller_identification",
            "pattern_based_registration",
            "shared_registration",
            "session_meta_api",
            "registration_meta_api",
            "testament_meta_api",
        }
        for role in features_of(alice):
            assert set(role.values()) == {True}


@pytest.mark.parametrize("custom", ["set_rpc_handler", "set_subscription_handler", None])
async def test_it_is_not_offered(custom: str | None) -> None:
    """Where everybody is anonymous, or one function answers for everything."""

    async def answer(request: Any) -> str:
        return "mine"

    async def listen(topic: str, session: Session) -> AsyncIterator[None]:
        yield

    app = guarded() if custom else Application()
    if custom:
        getattr(app, custom)(answer if custom == "set_rpc_handler" else listen)
    async with joined(app, "alice") as (alice,):
        for role in alice.welcome["roles"].values():
            assert "session_meta_api" not in role["features"]
        call = alice.call("wamp.session.count")
        if custom == "set_rpc_handler":
            assert (await call).args == ("mine",)
        else:
            assert await error_uri_of(call) == "wamp.error.no_such_procedure"
        subscription = alice.subscribe("wamp.session.on_join")
        if custom != "set_subscription_handler":
            assert await error_uri_of(subscription) == "wamp.error.not_authorized"
            return
        await subscription
        async with joined(app, "bob"):
            await alice.expect_nothing()


async def test_names_of_the_application_mean_nothing_to_it() -> None:
    app = guarded()
    app.add_default_arg("authroles", "a value")
    app.add_default_arg("session_id", "a value")
    async with joined(app, "alice") as (alice,):
        assert (await alice.call("wamp.session.count", ([],))).args == (0,)
        await alice.call("wamp.session.get", (alice.session,))


# ---- what clients announce


@pytest.mark.spec("FEA-08", "FEA-09")
@pytest.mark.parametrize("spelling", ["call_canceling", "call_cancelling"])
def test_what_a_callee_can_do(spelling: str) -> None:
    progress = {"progressive_call_results": True, "progressive_call_invocations": True}
    for role in (None, Role(), Role({})):
        assert not CalleeFeatures(role).progressive_call_results
    for role in (None, Role(), Role({}), Role({spelling: False, **progress}), Role(progress)):
        features = CalleeFeatures(role)
        assert not features.call_canceling
        assert features.progressive_call_results is bool(role and role.features)
        assert not features.progressive_call_invocations
    features = CalleeFeatures(Role({spelling: True}))
    assert features.call_canceling
    assert not features.progressive_call_results
    assert not features.progressive_call_invocations
    features = CalleeFeatures(Role({spelling: True, **progress}))
    assert features.progressive_call_results
    assert features.progressive_call_invocations
