"""Procedures that clients serve: for one another, and for the application."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from serverwamp import (
    Application,
    ConfigurationError,
    Limits,
    Realm,
    RPCResult,
    Session,
    WAMPError,
)
from serverwamp.testing import ROLES, CallResult, Client, connect
from tests.helpers import dealer_of, error_of

CANCELED = "wamp.error.canceled"
FEATURES = {"progressive_call_results": True, "call_canceling": True}
CALLEE = {**ROLES, "callee": {"features": FEATURES}}


def sharing(prefix: str = "com.", **options: Any) -> Application:
    """An application that lets clients serve one another, and serves com.app itself."""
    app = Application(**options)
    app.client_register(prefix, match="prefix")

    @app.route("com.app")
    async def of_the_application() -> str:
        return "the application"

    return app


async def register(client: Client, procedure: str, **options: Any) -> int:
    request = client.next_request()
    await client.send([64, request, options, procedure])
    answer = await client.expect(lambda m: m[1:2] == [request] or m[1:3] == [64, request])
    if answer[0] == 8:
        raise WAMPError(answer[4], answer[5])
    assert answer[:2] == [65, request]
    registration: int = answer[2]
    return registration


async def unregister(client: Client, registration: int) -> None:
    request = client.next_request()
    await client.send([66, request, registration])
    assert await client.receive() == [67, request]


async def invocation(client: Client) -> list[Any]:
    return await client.expect(lambda m: m[0] == 68, "an INVOCATION")


async def answer(client: Client, *payload: Any) -> list[Any]:
    """Answer the next INVOCATION with a result, and return it."""
    invoked = await invocation(client)
    await client.send([70, invoked[1], {}, *payload])
    return invoked


# ---- registering


@pytest.mark.spec("REG-01", "REG-04", "REG-05", "ORD-05", "CAL-02")
async def test_one_client_calls_another() -> None:
    app = sharing()
    async with connect(app) as callee, connect(app) as caller:
        registration = await register(callee, "com.add")
        pending = await caller.start_call("com.add", [1, 2], {"c": {"d": [3]}})
        assert await invocation(callee) == [68, 1, registration, {}, [1, 2], {"c": {"d": [3]}}]
        await callee.send([70, 1, {}, [6], {"of": "three"}])
        assert await pending.result() == CallResult((6,), {"of": "three"})
        pending = await caller.start_call("com.add")
        assert await invocation(callee) == [68, 2, registration, {}]
        await callee.send([70, 2, {}])
        assert await pending.result() == CallResult()
        await callee.expect_nothing()
        await caller.expect_nothing()


@pytest.mark.parametrize("caller_speaks", ["wamp.2.json", "wamp.2.msgpack.batched"])
async def test_whatever_serialization_they_speak(caller_speaks: str) -> None:
    app = sharing()
    async with (
        connect(app, subprotocol="wamp.2.msgpack") as callee,
        connect(app, subprotocol=caller_speaks) as caller,
    ):
        await register(callee, "com.echo")
        pending = await caller.start_call("com.echo", [b"\0\1", "text", 2**63])
        invoked = await answer(callee, [b"\2", None])
        assert invoked[4] == [b"\0\1", "text", 2**63]
        assert (await pending.result()).args == (b"\2", None)


@pytest.mark.spec("SER-12")
async def test_what_the_other_serialization_cannot_hold_is_an_error() -> None:
    app = sharing()
    async with (
        connect(app, subprotocol="wamp.2.msgpack") as packed,
        connect(app, subprotocol="wamp.2.json") as text,
    ):
        await register(packed, "com.packed")
        await register(text, "com.text")
        pending = await text.start_call("com.packed", [2**70])
        assert (await error_of(pending.result())).uri == "wamp.error.invalid_argument"
        pending = await packed.start_call("com.text")
        await answer(text, [2**70])
        assert (await error_of(pending.result())).uri == "wamp.error.runtime_error"
        pending = await text.start_call("com.packed", [1])
        assert (await answer(packed, [2]))[1] == 1, "the refused one has no id"
        assert (await pending.result()).args == (2,)


@pytest.mark.spec("CAL-05", "REG-05")
async def test_errors_pass_through() -> None:
    app = sharing()
    async with connect(app) as callee, connect(app) as caller:
        await register(callee, "com.fail")
        for error, uri in (
            ("com.example.bad", "com.example.bad"),
            ("no uri", "wamp.error.runtime_error"),
        ):
            pending = await caller.start_call("com.fail")
            invoked = await invocation(callee)
            await callee.send([8, 68, invoked[1], {}, error, ["why"], {"more": 1}])
            raised = await error_of(pending.result())
            assert (raised.uri, raised.args, raised.kwargs) == (uri, ("why",), {"more": 1})


@pytest.mark.spec("REG-02", "URI-07", "ERR-procedure_already_exists")
async def test_what_cannot_be_registered() -> None:
    app = sharing()

    @app.prefix_route("com.mine.")
    async def mine() -> None: ...

    async with connect(app) as client, connect(app) as other:
        await register(client, "com.taken")
        taken = "wamp.error.procedure_already_exists"
        assert (await error_of(register(other, "com.taken"))).uri == taken
        assert (await error_of(register(client, "com.taken"))).uri == taken
        assert (await error_of(register(other, "com.app"))).uri == taken
        assert (await error_of(register(other, "com.mine.x"))).uri == taken
        assert (await error_of(register(other, "com.mine.x", match="prefix"))).uri == taken
        for uri, match in (
            ("not a uri", "exact"),
            ("wamp.x", "exact"),
            ("a..b", "exact"),
            ("wamp.", "prefix"),
        ):
            refused = await error_of(register(other, uri, match=match))
            assert refused.uri == "wamp.error.invalid_uri"
        await register(other, "com.taken", match="prefix")
        await register(other, "com.taken", match="wildcard")


@pytest.mark.spec("REG-03", "ERR-no_such_registration")
async def test_unregistering() -> None:
    app = sharing()
    async with connect(app) as callee, connect(app) as other:
        registration = await register(callee, "com.x")
        pending = await other.start_call("com.x")
        running = await invocation(callee)
        for client in (other, callee):
            request = client.next_request()
            await client.send([66, request, 4711 if client is callee else registration])
            error = await client.receive()
            assert error[:5] == [8, 66, request, {}, "wamp.error.no_such_registration"]
        await unregister(callee, registration)
        assert (await error_of(other.call("com.x"))).uri == "wamp.error.no_such_procedure"
        await callee.send([70, running[1], {}, ["still"]])
        assert (await pending.result()).args == ("still",)
        assert await register(other, "com.x") != registration
        assert [r.procedure for r in dealer_of(app)] == ["com.x"]


@pytest.mark.spec("REG-08", "CAL-10")
@pytest.mark.parametrize("how", ["goodbye", "vanish", "violation"])
async def test_a_callee_that_leaves_takes_its_registrations_with_it(how: str) -> None:
    app = sharing()
    async with connect(app) as caller:
        async with connect(app) as callee:
            await register(callee, "com.x")
            pending = await caller.start_call("com.x")
            await invocation(callee)
            if how == "goodbye":
                await callee.leave()
            elif how == "violation":
                await callee.send([2, 1, {}])
                await callee.expect_close()
        assert (await error_of(pending.result())).uri == CANCELED
        assert (await error_of(caller.call("com.x"))).uri == "wamp.error.no_such_procedure"
        assert list(dealer_of(app)) == []
        await caller.expect_nothing()


async def test_registrations_that_no_client_may_share_are_for_the_application_alone() -> None:
    app = sharing()
    sessions: list[Session] = []

    @app.route("com.me")
    async def me(session: Session) -> None:
        sessions.append(session)

    async with connect(app) as one, connect(app) as two:
        for client in (one, two):
            await client.call("com.me")
            await register(client, "org.ping")
        for client in (one, two):
            assert (await error_of(client.call("org.ping"))).uri == "wamp.error.no_such_procedure"
        assert (await error_of(app.call("org.ping"))).uri == "wamp.error.no_such_procedure"
        results: list[RPCResult] = []

        async def ask(session: Session, number: int) -> None:
            results.append(await session.call("org.ping", [number]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, sessions[1], 1)
            assert (await answer(two, ["pong"]))[4] == [1]
        assert results == [RPCResult(["pong"])]
        await one.expect_nothing()


async def test_configuration() -> None:
    app = sharing()
    with pytest.raises(ConfigurationError, match="was called for"):
        app.client_register("com.", match="prefix")
    for uri, match in (("wamp.x", "exact"), ("a b", "prefix"), ("a..b", "exact")):
        with pytest.raises(ConfigurationError):
            app.client_register(uri, match)  # type: ignore[arg-type]
    async with connect(app) as client:
        features = client.welcome["roles"]["dealer"]["features"]
        assert {"pattern_based_registration", "shared_registration", "caller_identification"} <= {
            *features
        }
        with pytest.raises(ConfigurationError):
            app.client_register("org.x")
    async with connect(Application()) as client:
        features = client.welcome["roles"]["dealer"]["features"]
        assert not {"pattern_based_registration", "shared_registration"} & {*features}


async def test_what_clients_may_serve_is_said_in_short() -> None:
    realm = Realm("realm2", client_register="fleet.")
    app = Application(client_register=("com.one", "com.many.", "org..status"))
    app.add_realm(realm)
    with pytest.raises(ConfigurationError, match="clients can register"):
        Application(client_register=["not a uri"])
    async with connect(app) as callee, connect(app) as caller:
        for uri in ("com.one", "com.many.x", "org.a.status"):
            await register(callee, uri)
            pending = await caller.start_call(uri)
            await answer(callee, [uri])
            assert (await pending.result()).args == (uri,)
        for uri in ("com.one.x", "com.many", "org.a.b.status", "fleet.x"):
            await register(callee, uri)
            assert (await error_of(caller.call(uri))).uri == "wamp.error.no_such_procedure"
    async with connect(app, "realm2") as callee, connect(app, "realm2") as caller:
        await register(callee, "fleet.", match="prefix")
        pending = await caller.start_call("fleet.x")
        await answer(callee)
        await pending.result()


# ---- patterns, and who of several is called


@pytest.mark.spec("PRE-01", "PRE-02", "PRE-03", "PRE-04", "PRE-05", "T-22")
async def test_the_best_registration_is_called() -> None:
    app = sharing("a1.")
    registrations = (
        ("a1.b2.c3.d4.e55", "exact"),
        ("a1.b2.c3", "prefix"),
        ("a1.b2.c3.d4", "prefix"),
        ("a1.b2..d4.e5", "wildcard"),
        ("a1.b2.c33..e5", "wildcard"),
        ("a1.b2..d4.e5..g7", "wildcard"),
        ("a1.b2..d4..f6.g7", "wildcard"),
    )
    calls = {
        "a1.b2.c3.d4.e55": 0,
        "a1.b2.c3.d98.e74": 1,
        "a1.b2.c3.d4.e325": 2,
        "a1.b2.c55.d4.e5": 3,
        # The specification's table says 4; by its text, prefixes match characters.
        "a1.b2.c33.d4.e5": 1,
        "a1.b2.c88.d4.e5.f6.g7": 5,
        "a2.b2.c2.d2.e2": None,
    }
    async with connect(app) as callee, connect(app) as caller:
        ids = [await register(callee, uri, match=match) for uri, match in registrations]
        assert len(set(ids)) == len(ids)
        for uri, number in calls.items():
            pending = await caller.start_call(uri)
            if number is None:
                assert (await error_of(pending.result())).uri == "wamp.error.no_such_procedure"
                continue
            invoked = await answer(callee)
            assert invoked[2] == ids[number], uri
            assert invoked[3] == ({} if number == 0 else {"procedure": uri})
            await pending.result()


@pytest.mark.spec("URI-05", "URI-07")
async def test_a_pattern_gets_no_calls_of_what_is_no_uri() -> None:
    app = sharing()
    async with connect(app) as callee, connect(app) as caller:
        await register(callee, "com.", match="prefix")
        await register(callee, "com..x", match="wildcard")
        for uri in ("com.not valid", "com.", "com..x", "com.#.x"):
            assert (await error_of(caller.call(uri))).uri == "wamp.error.invalid_uri"
        await callee.expect_nothing()


async def test_the_applications_procedures_come_first() -> None:
    app = sharing()
    async with connect(app) as callee, connect(app) as caller:
        await register(callee, "com.", match="prefix")
        # Which the application calls as what they are, and not here.
        assert (await error_of(app.call("com.app"))).uri == "wamp.error.no_such_procedure"
        assert (await error_of(app.call("com.not valid"))).uri == "wamp.error.invalid_uri"
        assert (await caller.call("com.app")).args == ("the application",)
        pending = await caller.start_call("com.other")
        await answer(callee)
        await pending.result()


@pytest.mark.spec("SHR-01", "SHR-03", "SHR-04")
@pytest.mark.parametrize(
    ("invoke", "called"),
    [("first", "000011"), ("last", "222211"), ("roundrobin", "012012"), ("single", "000000")],
)
async def test_who_of_several_is_called(invoke: str, called: str) -> None:
    app = sharing()
    async with connect(app) as a, connect(app) as b, connect(app) as c, connect(app) as caller:
        callees = [a] if invoke == "single" else [a, b, c]
        ids = {await register(callee, "com.x", invoke=invoke) for callee in callees}
        assert len(ids) == 1
        for count, number in enumerate(called):
            if count == 4 and invoke in ("first", "last"):
                await unregister(callees[0 if invoke == "first" else 2], *ids)
            pending = await caller.start_call("com.x", [count])
            await answer(callees[int(number)], [number])
            assert (await pending.result()).args == (number,)


async def test_a_round_goes_on_when_somebody_leaves() -> None:
    app = sharing()
    async with connect(app) as a, connect(app) as b, connect(app) as c, connect(app) as caller:
        callees = {"a": a, "b": b, "c": c}
        for callee in callees.values():
            registration = await register(callee, "com.x", invoke="roundrobin")

        async def call(name: str) -> None:
            pending = await caller.start_call("com.x")
            await answer(callees[name])
            await pending.result()

        await call("a")
        await call("b")
        await unregister(a, registration)
        await call("c")
        await call("b")
        await unregister(c, registration)
        await call("b")
        await register(a, "com.x", invoke="roundrobin")
        await call("a")


@pytest.mark.spec("SHR-01")
async def test_random_calls_anybody() -> None:
    app = sharing()
    async with connect(app) as one, connect(app) as two, connect(app) as caller:
        for callee in (one, two):
            await register(callee, "com.x", invoke="random")
        for _ in range(100):
            await caller.start_call("com.x")
        await caller.expect_nothing()
        for callee in (one, two):
            assert sum(" [68," in line.replace("server:", " ") for line in callee.transcript) > 10


@pytest.mark.spec("SHR-02")
async def test_all_have_to_agree_who_is_called() -> None:
    app = sharing()
    async with connect(app) as one, connect(app) as two:
        await register(one, "com.x", invoke="first")
        for invoke in ("last", "single", "random"):
            refused = await error_of(register(two, "com.x", invoke=invoke))
            assert refused.uri == "wamp.error.procedure_already_exists"
        await register(two, "com.x", invoke="first")


# ---- who calls


@pytest.mark.spec("CID-01", "CID-02")
async def test_callees_are_told_who_calls_if_the_caller_or_the_application_wants_it() -> None:
    app = sharing()
    app.client_register("org.", match="prefix", disclose_caller=True)
    async with connect(app) as callee, connect(app) as caller:
        caller_details = {
            "caller": caller.session,
            "caller_authid": caller.welcome["authid"],
            "caller_authrole": "anonymous",
        }
        await register(callee, "com.x")
        await register(callee, "org.x")
        for uri, options, told in (
            ("com.x", {}, {}),
            ("com.x", {"disclose_me": False}, {}),
            ("com.x", {"disclose_me": True}, caller_details),
            ("org.x", {}, caller_details),
        ):
            request = caller.next_request()
            await caller.send([48, request, options, uri])
            assert (await answer(callee))[3] == told
            assert await caller.receive() == [50, request, {}]


# ---- progress, cancellation, time


@pytest.mark.spec("PRG-08", "FEA-08")
async def test_progress_passes_through() -> None:
    app = sharing()
    async with connect(app, roles=CALLEE) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = await caller.start_call("com.x", receive_progress=True)
        assert (await invocation(callee))[3] == {"receive_progress": True}
        for number in range(3):
            await callee.send([70, 1, {"progress": True}, [number]])
            assert (await pending.progress()).args == (number,)
        await callee.send([70, 1, {}, ["done"]])
        assert (await pending.result()).args == ("done",)
        await caller.start_call("com.x")
        assert (await invocation(callee))[3] == {}
        await callee.send([70, 2, {"progress": True}, ["unasked"]], [70, 2, {}, ["done"]])
        assert (await caller.receive())[2:] == [{}, ["done"]]
        await caller.expect_nothing()


@pytest.mark.spec("FEA-08")
async def test_a_callee_that_cannot_is_not_asked_for_progress() -> None:
    app = sharing()
    roles = {**ROLES, "callee": {"features": {}}}
    async with connect(app, roles=roles) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = await caller.start_call("com.x", receive_progress=True)
        assert (await answer(callee))[3] == {}
        await pending.result()


@pytest.mark.parametrize("mode", ["skip", "killnowait", "kill", None])
async def test_a_callee_that_cannot_be_interrupted_reports_progress(mode: str | None) -> None:
    app = sharing()
    roles = {**ROLES, "callee": {"features": {"progressive_call_results": True}}}
    async with connect(app, roles=roles) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = await caller.start_call("com.x", receive_progress=True)
        assert (await invocation(callee))[3] == {"receive_progress": True}
        await callee.send([70, 1, {"progress": True}, [1]])
        assert (await pending.progress()).args == (1,)
        await pending.cancel(mode)
        assert (await error_of(pending.result())).uri == CANCELED
        await callee.send([70, 1, {"progress": True}, [2]], [70, 1, {}, ["late"]])
        await callee.expect_nothing()
        await caller.expect_nothing()


@pytest.mark.spec("CAN-02", "CAN-04", "CAN-07", "CAN-09", "CAN-12", "REG-06", "REG-09", "T-21")
@pytest.mark.parametrize("mode", ["skip", "killnowait", None])
async def test_cancelling_without_waiting(mode: str | None) -> None:
    app = sharing()
    async with connect(app, roles=CALLEE) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = await caller.start_call("com.x", receive_progress=True)
        await invocation(callee)
        await pending.cancel(mode)
        assert (await error_of(pending.result())).uri == CANCELED
        if mode != "skip":
            assert await callee.receive() == [69, 1, {"mode": "killnowait"}]
        await callee.send([70, 1, {"progress": True}, [1]], [70, 1, {}, ["late"]])
        await callee.send([8, 68, 1, {}, "com.example.late"], [70, 1, {}])
        await callee.expect_nothing()
        await caller.expect_nothing()


@pytest.mark.spec("CAN-03", "CAN-10", "T-07")
@pytest.mark.parametrize("outcome", ["result", "error"])
async def test_killing_waits_for_the_callee(outcome: str) -> None:
    app = sharing()
    async with connect(app, roles=CALLEE) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = await caller.start_call("com.x")
        await invocation(callee)
        await pending.cancel("kill")
        assert await callee.receive() == [69, 1, {"mode": "kill"}]
        await caller.expect_nothing()
        if outcome == "result":
            await callee.send([70, 1, {}, ["after all"]])
            assert (await pending.result()).args == ("after all",)
        else:
            await callee.send([8, 68, 1, {}, "wamp.error.runtime_error"])
            assert (await error_of(pending.result())).uri == CANCELED


async def test_killing_twice_interrupts_once() -> None:
    app = sharing()
    async with connect(app, roles=CALLEE) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = await caller.start_call("com.x")
        await invocation(callee)
        await pending.cancel("kill")
        await pending.cancel("kill")
        await caller.expect_nothing()
        assert await callee.receive() == [69, 1, {"mode": "kill"}]
        await callee.expect_nothing()
        await pending.cancel("skip")
        assert (await error_of(pending.result())).uri == CANCELED
        await callee.send([70, 1, {}, ["late"]])
        await callee.expect_nothing()
        await caller.expect_nothing()


async def test_calls_that_are_begun_by_hand_are_made_once() -> None:
    caught, outcomes = Caught(), [Outcome(), Outcome()]
    async with connect(caught.app) as client:
        await register(client, "com.x")
        call = caught.of(client).call("com.x")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes[0].of, call)
            await invocation(client)
            await client.send([70, 1, {}, [1]], [70, 1, {}, [2]])
        await outcomes[1].of(call)
        assert [outcome.result for outcome in outcomes] == [RPCResult([1])] * 2
        await client.expect_nothing()


@pytest.mark.spec("CAN-05")
@pytest.mark.parametrize("mode", ["kill", "killnowait", "skip"])
async def test_a_callee_that_cannot_be_cancelled_is_left_alone(mode: str) -> None:
    app = sharing()
    roles = {**ROLES, "callee": {"features": {}}}
    async with connect(app, roles=roles) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = await caller.start_call("com.x")
        await invocation(callee)
        await pending.cancel(mode)
        assert (await error_of(pending.result())).uri == CANCELED
        await callee.expect_nothing()
        await callee.send([70, 1, {}])
        await caller.expect_nothing()


@pytest.mark.spec("TMO-02", "PRG-10")
@pytest.mark.spec("ERR-timeout")
async def test_a_callee_that_takes_too_long() -> None:
    app = sharing()
    async with connect(app, roles=CALLEE) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = await caller.start_call("com.x", options={"timeout": 20})
        await invocation(callee)
        assert (await error_of(pending.result())).uri == "wamp.error.timeout"
        assert await callee.receive() == [69, 1, {"mode": "killnowait"}]
        await callee.send([70, 1, {}, ["late"]])
        await caller.expect_nothing()


@pytest.mark.spec("CAL-09")
@pytest.mark.parametrize("how", ["goodbye", "vanish"])
async def test_a_caller_that_leaves(how: str) -> None:
    app = sharing()
    async with connect(app, roles=CALLEE) as callee:
        await register(callee, "com.x")
        async with connect(app) as caller:
            await caller.start_call("com.x")
            await invocation(callee)
            if how == "goodbye":
                await caller.leave()
        assert await callee.receive() == [69, 1, {"mode": "killnowait"}]
        await callee.send([70, 1, {}, ["late"]])
        await callee.expect_nothing()


async def test_a_client_may_call_itself() -> None:
    app = sharing()
    async with connect(app) as client:
        await register(client, "com.x")
        pending = await client.start_call("com.x", [1])
        await answer(client, [2])
        assert (await pending.result()).args == (2,)


# ---- callees that do harm


@pytest.mark.spec("REG-06", "REG-07", "VIO-02", "VIO-04")
@pytest.mark.parametrize(
    "nonsense",
    [
        [70, 5, {}],
        [70, 5, {"progress": True}],
        [8, 68, 5, {}, "com.example.error"],
        [8, 48, 1, {}, "com.example.error"],
        [8, 32, 1, {}, "com.example.error"],
    ],
)
@pytest.mark.parametrize("has_registered", [True, False])
async def test_answers_to_what_nobody_asked_are_violations(
    nonsense: list[Any], has_registered: bool
) -> None:
    app = sharing()
    async with connect(app) as callee, connect(app) as caller:
        if has_registered:
            await register(callee, "com.x")
        await callee.send(nonsense)
        assert (await callee.receive())[2] == "wamp.error.protocol_violation"
        assert await callee.expect_close() == 1002
        assert (await caller.call("com.app")).args == ("the application",)


async def test_a_callee_that_answers_twice() -> None:
    app = sharing()
    async with connect(app) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = await caller.start_call("com.x")
        await invocation(callee)
        late = [70, 1, {"progress": True}, [4]]
        await callee.send([70, 1, {}, [1]], [70, 1, {}, [2]], [8, 68, 1, {}, "a.b"], late)
        assert (await pending.result()).args == (1,)
        await caller.expect_nothing()
        await callee.expect_nothing()


async def test_one_callee_cannot_answer_for_another() -> None:
    app = sharing()
    async with connect(app) as callee, connect(app) as other, connect(app) as caller:
        await register(callee, "com.x")
        await register(other, "com.y")
        pending = await caller.start_call("com.x")
        await invocation(callee)
        await other.send([70, 1, {}, ["mine"]])
        assert (await other.receive())[2] == "wamp.error.protocol_violation"
        await callee.send([70, 1, {}, ["right"]])
        assert (await pending.result()).args == ("right",)


@pytest.mark.spec("ERR-unavailable")
async def test_registrations_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    app = sharing(limits=Limits(registrations=2))
    async with connect(app) as client:
        first = await register(client, "com.a")
        await register(client, "org.b")
        assert (await error_of(register(client, "com.c"))).uri == "wamp.error.unavailable"
        assert (await error_of(register(client, "org.c"))).uri == "wamp.error.unavailable"
        await unregister(client, first)
        await register(client, "com.c")
    assert "Limits.registrations" in caplog.text


async def test_calls_that_a_client_does_not_answer_are_limited() -> None:
    app = sharing(limits=Limits(invocations_in_flight=2))
    async with connect(app) as callee, connect(app) as caller:
        await register(callee, "com.x")
        pending = [await caller.start_call("com.x") for _ in range(2)]
        assert (await error_of(caller.call("com.x"))).uri == "wamp.error.unavailable"
        await answer(callee)
        await pending[0].result()
        pending.append(await caller.start_call("com.x"))
        await answer(callee)
        await answer(callee)
        for call in pending[1:]:
            await call.result()


# ---- the application calls


class Caught:
    """An application that has its clients' sessions at hand."""

    def __init__(self, **options: Any) -> None:
        self.app = sharing(**options)
        self.sessions: dict[int, Session] = {}

        async def note(session: Session) -> Any:
            self.sessions[session.id] = session
            yield

        self.app.add_session_lifespan_handler(note)

    def of(self, client: Client) -> Session:
        assert client.session is not None
        return self.sessions[client.session]


class Outcome:
    """What becomes of something that runs beside."""

    result: Any = None
    error: WAMPError | None = None

    async def of(self, awaitable: Any) -> None:
        try:
            self.result = await awaitable
        except WAMPError as error:
            self.error = error


@pytest.mark.parametrize("through", ["session", "realm"])
async def test_the_application_calls_a_client(through: str) -> None:
    caught, outcome = Caught(), Outcome()
    async with connect(caught.app) as client:
        registration = await register(client, "com.x")
        caller = caught.of(client) if through == "session" else caught.app
        call = caller.call("com.x", [1], {"b": 2})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome.of, call)
            assert await invocation(client) == [68, 1, registration, {}, [1], {"b": 2}]
            await client.send([70, 1, {}, [3], {"d": 4}])
        assert outcome.result == RPCResult([3], {"d": 4})
        assert await call == outcome.result, "it was made once"
        await client.expect_nothing()


async def test_what_a_call_of_the_application_can_end_in() -> None:
    caught, outcome = Caught(), Outcome()
    async with connect(caught.app, roles=CALLEE) as client:
        session = caught.of(client)
        assert (await error_of(session.call("com.x"))).uri == "wamp.error.no_such_procedure"
        await register(client, "com.x", match="prefix")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome.of, session.call("com.x.y"))
            assert (await invocation(client))[3] == {"procedure": "com.x.y"}
            await client.send([8, 68, 1, {}, "com.example.bad", [1]])
        assert outcome.error is not None
        assert (outcome.error.uri, outcome.error.args) == ("com.example.bad", (1,))
        assert (await error_of(session.call("com.x", timeout=0.02))).uri == "wamp.error.timeout"
        assert (await client.expect(lambda m: m[0] == 69)) == [69, 2, {"mode": "killnowait"}]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome.of, session.call("com.x"))
            await client.expect(lambda m: m[:2] == [68, 3])
            await client.leave()
        assert outcome.error.uri == CANCELED
        assert (await error_of(session.call("com.x"))).uri == CANCELED


async def test_a_cancelled_call_of_the_application_interrupts_the_client() -> None:
    caught = Caught()
    async with connect(caught.app, roles=CALLEE) as client:
        await register(client, "com.x")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Outcome().of, caught.of(client).call("com.x"))
            await invocation(client)
            tasks.cancel_scope.cancel()
        assert await client.receive() == [69, 1, {"mode": "killnowait"}]


@pytest.mark.parametrize("follows", [True, False])
async def test_the_application_cancels_a_call(follows: bool) -> None:
    caught, outcome = Caught(), Outcome()
    async with connect(caught.app, roles=CALLEE) as client:
        await register(client, "com.x")
        call = caught.of(client).call("com.x")

        async def follow() -> None:
            async for _ in call:
                pass
            await call

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome.of, follow() if follows else call)
            await invocation(client)
            call.cancel()
            call.cancel()
        assert await client.receive() == [69, 1, {"mode": "killnowait"}]
        assert outcome.error is not None
        assert outcome.error.uri == CANCELED
        await client.send([70, 1, {}, ["late"]])
        never_made = caught.of(client).call("com.x")
        never_made.cancel()
        assert (await error_of(never_made)).uri == CANCELED
        await client.expect_nothing()


async def test_the_time_for_an_answer_is_limited() -> None:
    caught = Caught(limits=Limits(invocation_timeout=0.02))
    async with connect(caught.app) as client:
        await register(client, "com.x")
        assert (await error_of(caught.of(client).call("com.x"))).uri == "wamp.error.timeout"
        assert (await error_of(caught.app.call("com.x"))).uri == "wamp.error.timeout"


async def test_the_application_follows_a_clients_progress() -> None:
    caught = Caught()
    reports: list[Sequence[Any]] = []
    async with connect(caught.app, roles=CALLEE) as client:
        await register(client, "com.x")

        async def follow() -> None:
            call = caught.of(client).call("com.x")
            reports.extend([report.args async for report in call])
            reports.append((await call).args)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            assert (await invocation(client))[3] == {"receive_progress": True}
            await client.send([70, 1, {"progress": True}, [1]], [70, 1, {"progress": True}, [2]])
            await client.send([70, 1, {}, ["done"]])
    assert reports == [(1,), (2,), ("done",)]


async def test_a_client_that_reports_without_end_is_stopped() -> None:
    caught, outcome = Caught(), Outcome()
    async with connect(caught.app, roles=CALLEE) as client:
        await register(client, "com.x")
        call = caught.of(client).call("com.x")

        async def follow() -> None:
            async for _ in call:
                await release.wait()

        release = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome.of, follow())
            await invocation(client)
            for _ in range(1002):
                await client.send([70, 1, {"progress": True}, [1]])
            assert await client.receive() == [69, 1, {"mode": "killnowait"}]
            release.set()
        assert (await error_of(call)).uri == "wamp.error.unavailable"


async def test_a_caller_that_does_not_read_its_progress_is_cut_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    app = sharing(limits=Limits(outbound_messages=80))
    async with connect(app, roles=CALLEE) as callee, connect(app) as caller:
        await register(callee, "com.x")
        await caller.start_call("com.x", receive_progress=True)
        await invocation(callee)
        caller.pause()
        for _ in range(200):
            await callee.send([70, 1, {"progress": True}, [1]])
        assert (await callee.expect(lambda m: m[0] == 69))[1] == 1
        caller.resume()
        error = await caller.expect(lambda m: m[0] == 8)
        assert error[4] == "wamp.error.unavailable"
