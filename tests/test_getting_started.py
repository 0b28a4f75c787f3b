"""The getting-started guide's code blocks as its author wrote them, over a real socket.

Each block stands in a function of its own, unchanged; what surrounds it are the imports and names
that the guide leaves out. Two commas that it leaves out too are marked. On trio, ``asyncio`` names
what has the functions that the blocks use.
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

import serverwamp
from serverwamp import RPCErrorResult, WAMPError
from serverwamp.testing import CallResult, Client
from tests.sockets import connect_socket, serve

asyncio: Any = types.SimpleNamespace(sleep=anyio.sleep)


@asynccontextmanager
async def client_of(app: serverwamp.Application, **login: Any) -> AsyncIterator[Client]:
    async with serve(app) as port, connect_socket(port, **login) as client:
        yield client


async def refused(app: serverwamp.Application, **login: Any) -> str:
    """Return the reason for which a login is refused."""
    with pytest.raises(WAMPError) as failure:
        async with client_of(app, **login):
            pass
    return failure.value.uri


async def result_of(function: Any, *args: Any, **kwargs: Any) -> CallResult:
    app = serverwamp.Application()
    app.route("procedure")(function)
    async with client_of(app) as client:
        return await client.call("procedure", args, kwargs)


async def test_application_setup():
    import serverwamp

    app = serverwamp.Application()

    async with client_of(app) as client:
        assert client.session is not None


async def test_remote_procedure_calls():
    app = serverwamp.Application()

    # First create a route set:
    math_api = serverwamp.RPCRouteSet()

    # Next add a procedure and register it with a route
    @math_api.route("math.add")
    async def add_numbers(number1, number2):
        """Adds two numbers together"""
        total = number1 + number2
        # This procedure has a single return argument:
        return total

    # Add registered routes to the application serving clients:
    app.add_routes(math_api)

    async with client_of(app) as client:
        assert await client.call("math.add", (1, 2.5)) == CallResult((3.5,))
        # "the order is used when non-keyword arguments are supplied, the names when keyword"
        named = {"number2": "b", "number1": "a"}
        assert await client.call("math.add", (), named) == CallResult(("ab",))


async def test_type_marshalling(capsys):
    rpc_api = serverwamp.RPCRouteSet()

    @rpc_api.route("slowlyCountToNumber")
    async def slowly_count(count_to: int, interval: float, taunt: str = "ah ah ah!"):
        for i in range(count_to):
            print(f"{i}, {taunt}")  # noqa: T201
            await asyncio.sleep(interval)

    app = serverwamp.Application()
    app.add_routes(rpc_api)
    async with client_of(app) as client:
        await client.call("slowlyCountToNumber", ("2", 0))
        assert capsys.readouterr().out == "0, ah ah ah!\n1, ah ah ah!\n"
        await client.call("slowlyCountToNumber", (1, "0.0"), {"taunt": "ha"})
        assert capsys.readouterr().out == "0, ha\n"
        with pytest.raises(WAMPError) as refusal:
            await client.call("slowlyCountToNumber", ("many", 0))
        assert refusal.value.uri == "wamp.error.invalid_argument"
        assert refusal.value.kwargs["path"] == "args[0]"


async def test_decimal_is_exact():
    rpc_api = serverwamp.RPCRouteSet()
    stored = []

    from decimal import Decimal

    @rpc_api.route("storeHighPrecisionTimestamp")
    async def store_timestamp(timestamp: Decimal):
        stored.append(timestamp)

    app = serverwamp.Application()
    app.add_routes(rpc_api)
    async with client_of(app) as client:
        request = client.next_request()
        await client.send_frame(
            f'[48,{request},{{}},"storeHighPrecisionTimestamp",[1603000000.1234567890123456789]]'
        )
        assert await client.receive() == [50, request, {}, [None]]
    assert stored == [Decimal("1603000000.1234567890123456789")]


async def test_special_arguments(tmp_path: Path):
    async def local_file(filename, session):
        # filename is a regular WAMP RPC call argument, session is supplied
        # by serverwamp
        peer_address = session.connection.transport_info["peer_address"]
        if peer_address != "127.0.0.1":
            return RPCErrorResult(args=("Not authorized",))
        with open(filename, "r") as file:  # noqa: UP015, ASYNC230
            return file.read()

    file = tmp_path / "file"
    file.write_text("content")
    assert await result_of(local_file, str(file)) == CallResult(("content",))
    for args, kwargs in (((str(file), "a session"), {}), ((str(file),), {"session": "a session"})):
        with pytest.raises(WAMPError) as refusal:
            await result_of(local_file, *args, **kwargs)
        assert refusal.value.uri == "wamp.error.invalid_argument"


async def test_single_return_argument():
    async def procedure():
        return 42

    assert await result_of(procedure) == CallResult((42,))


async def test_positional_return_arguments():
    async def procedure():
        return "Peanut Butter", "Jelly", "Bread"

    assert await result_of(procedure) == CallResult(("Peanut Butter", "Jelly", "Bread"))


async def test_keyword_return_arguments():
    async def procedure():
        return {"gregorianYear": 2020, "生肖": "鼠"}

    assert await result_of(procedure) == CallResult((), {"gregorianYear": 2020, "生肖": "鼠"})


async def test_custom_return_arguments():
    async def procedure():
        return serverwamp.RPCResult(
            args=("Rock & Roll", "Blues", "Jazz"),
            kwargs={"playlistLength": 6432, "playlistSubscribers": 51},
        )

    assert await result_of(procedure) == CallResult(
        ("Rock & Roll", "Blues", "Jazz"), {"playlistLength": 6432, "playlistSubscribers": 51}
    )


async def test_error_responses():
    async def procedure():
        return serverwamp.RPCErrorResult(
            kwargs={
                "errorCode": "BAD_INPUT",  # the guide has no comma here
                "errorMessage": "You should have supplied a number instead of a string.",
            }
        )

    with pytest.raises(WAMPError) as error:
        await result_of(procedure)
    assert error.value.uri == "wamp.error.runtime_error"
    assert error.value.kwargs == {
        "errorCode": "BAD_INPUT",
        "errorMessage": "You should have supplied a number instead of a string.",
    }


async def test_progressive_responses():
    async def sleep(seconds):
        await anyio.sleep(seconds / 100)

    asyncio = types.SimpleNamespace(sleep=sleep)

    async def countdown_to_liftoff():
        for time_left in 3, 2, 1:
            yield serverwamp.RPCProgressReport(kwargs={"timeLeft": time_left})
            await asyncio.sleep(1)
        yield serverwamp.RPCResult(kwargs={"liftoffStatus": "SUCCESS"})

    app = serverwamp.Application()
    app.route("countdown")(countdown_to_liftoff)
    success = CallResult((), {"liftoffStatus": "SUCCESS"})
    async with client_of(app) as client:
        call = await client.start_call("countdown", receive_progress=True)
        for time_left in 3, 2, 1:
            assert await call.progress() == CallResult((), {"timeLeft": time_left})
        assert await call.result() == success
        # "WAMP clients that don't support progressive results will only see the end result"
        assert await client.call("countdown") == success
        await client.expect_nothing()


async def test_sending_events_to_clients():
    app = serverwamp.Application()
    subscribers: Any = {*()}

    def set():
        return subscribers  # so that the test can look into it

    minutes = anyio.create_memory_object_stream[None](0)

    async def minute(seconds):
        assert seconds == 60.0
        await minutes[1].receive()

    async with anyio.create_task_group() as tasks, minutes[0], minutes[1]:
        asyncio = types.SimpleNamespace(sleep=minute, create_task=tasks.start_soon)
        self = types.SimpleNamespace(_to_update=lambda: subscribers)

        events = serverwamp.TopicRouteSet()

        @events.topic("hourly_updates")
        async def subscribe_to_hourly_updates(topic, session, my_subscribers):
            # On subscribe…
            my_subscribers.add(session)
            yield
            # On unsubscribe or session close…
            my_subscribers.remove(session)

        async def run_hourly_updates():
            while True:
                for session in self._to_update():
                    session.send_event(args=(f"The hour is {datetime.now():%H}",))
                await asyncio.sleep(60.0)

        app.add_topics(events)
        app.add_default_arg("my_subscribers", set())
        asyncio.create_task(run_hourly_updates)

        async with serve(app) as port:
            async with connect_socket(port) as client:
                subscription = await client.subscribe("hourly_updates")
                assert len(subscribers) == 1
                await minutes[0].send(None)
                event = await client.expect_event(subscription)
                assert event.args[0].startswith("The hour is ")
                await client.unsubscribe(subscription)
                assert not subscribers
                await client.subscribe("hourly_updates")
                assert len(subscribers) == 1
            with anyio.fail_after(10):
                while subscribers:  # the session is closed
                    await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


async def test_transport_authenticator():
    app = serverwamp.Application()

    async def transport_authenticator(session) -> Any:
        cookies = session.connection.transport_info["http_cookies"]
        if cookies["myName"] == "Jeff":
            identity = {"name": "Jeff"}
        return identity

    app.add_transport_authenticator(transport_authenticator)

    @app.route("whoami")
    async def whoami(session):
        return session.identity

    async with client_of(app, headers={"cookie": "myName=Jeff"}) as client:
        assert await client.call("whoami") == CallResult((), {"name": "Jeff"})
    for headers in ({"cookie": "myName=Jack"}, {}):
        assert await refused(app, headers=headers) == "wamp.error.authentication_failed"


async def test_ticket_authenticator():
    app = serverwamp.Application()
    auth_db = {"a ticket"}
    identity = {"name": "Jeff"}

    async def ticket_authenticator(session, ticket) -> Any:
        if ticket in auth_db:
            return identity

    app.set_ticket_authenticator(ticket_authenticator)

    async with client_of(app, authid="jeff", ticket="a ticket") as client:
        assert client.welcome["authid"] == "jeff"
        assert client.welcome["authmethod"] == "ticket"
    assert await refused(app, authid="jeff", ticket="wrong") == "wamp.error.authentication_failed"
    assert await refused(app) == "wamp.error.authentication_required"


async def test_challenge_response_authenticator():
    app = serverwamp.Application()

    async def retrieve_secret(auth_id):
        return {"jeff": "secret"}.get(auth_id)

    async def retrieve_user(auth_id):
        return {"name": auth_id}

    my_company_auth_db = types.SimpleNamespace(retrieve_secret=retrieve_secret)
    my_company_users_db = types.SimpleNamespace(retrieve_user=retrieve_user)

    async def cra_requirement_provider(session) -> Any:
        secret = await my_company_auth_db.retrieve_secret(session.auth_id)
        req = serverwamp.CRAAuthRequirement(
            auth_role="RegularUser",
            auth_provider="my_company_auth_db",  # the guide has no comma here
            secret=secret,
        )
        return req

    async def cra_identity_provider(session):
        """Called only when CRA auth is successful."""
        user = await my_company_users_db.retrieve_user(session.auth_id)
        return user

    app.set_cra_handlers(cra_requirement_provider, cra_identity_provider)

    async with client_of(app, authid="jeff", secret="secret") as client:
        assert client.welcome["authrole"] == "RegularUser"
        assert client.welcome["authprovider"] == "my_company_auth_db"
        assert client.welcome["authmethod"] == "wampcra"
    assert await refused(app, authid="jeff", secret="guess") == "wamp.error.authentication_failed"
    assert await refused(app, authid="jack", secret="guess") == "wamp.error.authentication_failed"
