"""swampyer and xconn, which know little more than the basic profile, against real servers."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
import swampyer
import xconn.async_client
import xconn.client
from swampyer.exceptions import ExInvocationError
from wampproto import auth, serializers
from xconn.exception import ApplicationError
from xconn.types import Event, Invocation, Result

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # their own

SECONDS = 10
REALM = "clients.open"
XCONN_FORMATS = {
    "json": serializers.JSONSerializer,
    "msgpack": serializers.MsgPackSerializer,
    "cbor": serializers.CBORSerializer,
}
XCONN_LOGINS = {
    "clients.ticket": auth.TicketAuthenticator("anna", "anna's ticket"),
    "clients.cra": auth.WAMPCRAAuthenticator("anna", "anna's secret"),
    "clients.key": auth.CryptoSignAuthenticator("anna", "a1" * 32),
}


# ---- swampyer: one thread reads, others call


@contextmanager
def joined(url: str, realm: str = REALM, **login: Any) -> Iterator[swampyer.WAMPClient]:
    cls = swampyer.WAMPClientTicket if login else swampyer.WAMPClient
    client = cls(
        url=url,
        realm=realm,
        timeout=SECONDS,
        auto_reconnect=False,
        loop_timeout=1,
        ping_interval=0,
        **login,
    )
    client.start()
    try:
        yield client
    finally:
        client.disconnect()
        client._request_shutdown = True  # shutdown() throws an exception into its thread
        client.join(SECONDS)


def test_swampyer_calls(server: str) -> None:
    with joined(server) as client:
        assert client.call("test.add", 1, 2) == 3
        assert client.call("test.add", a=1, b=2) == 3
        with pytest.raises(ExInvocationError):
            client.call("test.raise_error")
        with pytest.raises(ExInvocationError):
            client.call("test.nowhere")


def test_swampyer_calls_from_several_threads(server: str) -> None:
    """Its threads draw ids one by one and send in any order."""
    with joined(server) as client:
        sums: queue.Queue[int] = queue.Queue()

        def add(number: int) -> None:
            for _ in range(20):
                sums.put(client.call("test.add", number, 1) - number)

        threads = [threading.Thread(target=add, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert [sums.get(timeout=SECONDS) for _ in range(100)] == [1] * 100


def test_swampyer_serves_and_subscribes(server: str) -> None:
    with joined(server) as client, joined(server) as other:
        client.register("test.peer.swampyer", lambda event, text: text.upper())
        assert other.call("test.peer.swampyer", "loud") == "LOUD"
        received: queue.Queue[Any] = queue.Queue()
        subscribed = client.subscribe("test.news", lambda event, *args: received.put(args))
        other.call("test.publish", "test.news", 1, "two")
        assert received.get(timeout=SECONDS) == (1, "two")
        client.unsubscribe(subscribed.subscription_id)


def test_swampyer_logs_in(server: str) -> None:
    with joined(server, "clients.ticket", username="anna", password="anna's ticket") as client:
        assert client.session_id
        assert client.is_connected()
    wrong = swampyer.WAMPClientTicket(
        url=server, realm="clients.ticket", username="anna", password="wrong", auto_reconnect=False
    )
    with pytest.raises(Exception, match=r"(?i)abort|authentication"):
        wrong.start()


# ---- xconn


@contextmanager
def session(url: str, format_: str, realm: str = REALM) -> Iterator[xconn.client.Session]:
    login = XCONN_LOGINS.get(realm, auth.AnonymousAuthenticator(""))
    opened = xconn.client.connect(url, realm, login, XCONN_FORMATS[format_]())
    try:
        yield opened
    finally:
        opened.leave()


@pytest.fixture(params=XCONN_FORMATS)
def format_(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_xconn_calls(server: str, format_: str) -> None:
    with session(server, format_) as client:
        assert client.call("test.add", [1, 2]).args == [3]
        assert client.call("test.add", kwargs={"a": 1, "b": 2}).args == [3]
        with pytest.raises(ApplicationError, match="told"):
            client.call("test.raise_error")
        assert client.call("test.count", [3]).args == [3]  # no progress, for it asks for none


def test_xconn_serves_and_subscribes(server: str, format_: str) -> None:
    with session(server, format_) as client, session(server, format_) as other:

        def shout(invocation: Invocation) -> Result:
            return Result([invocation.args[0].upper()], invocation.kwargs)

        registration = client.register(f"test.peer.xconn_{format_}", shout)
        result = other.call(f"test.peer.xconn_{format_}", ["loud"], {"a": 1})
        assert (result.args, result.kwargs) == (["LOUD"], {"a": 1})
        registration.unregister()
        event: Future[Event] = Future()
        subscription = client.subscribe("test.news", event.set_result)
        other.call("test.publish", ["test.news", 1, "two"])
        assert event.result(SECONDS).args == [1, "two"]
        subscription.unsubscribe()


@pytest.mark.parametrize("realm", XCONN_LOGINS)
def test_xconn_logs_in(server: str, realm: str) -> None:
    with session(server, "json", realm) as client:
        assert client._base_session.authid == "anna"
        assert client._base_session.realm == realm


def test_xconn_on_asyncio(server: str, format_: str) -> None:
    async def run() -> None:
        login, serializer = auth.AnonymousAuthenticator(""), XCONN_FORMATS[format_]()
        client = await xconn.async_client.connect(server, REALM, login, serializer)
        assert (await client.call("test.add", [1, 2])).args == [3]
        with pytest.raises(ApplicationError, match="told"):
            await client.call("test.raise_error")
        received: asyncio.Queue[Any] = asyncio.Queue()

        async def receive(event: Event) -> None:
            await received.put(event.args)

        async def shout(invocation: Invocation) -> Result:
            return Result([invocation.args[0].upper()])

        await client.subscribe("test.news", receive)
        await client.register(f"test.peer.async_{format_}", shout)
        await client.call("test.publish", ["test.news", 1, "two"])
        assert await received.get() == [1, "two"]
        assert (await client.call(f"test.peer.async_{format_}", ["loud"])).args == ["LOUD"]
        await client.leave()

    asyncio.run(asyncio.wait_for(run(), SECONDS))
