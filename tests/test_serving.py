"""Serving: as ASGI application, mounted, by path, through aiohttp; and what is known of clients."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import fastapi
import httpx
import msgpack
import pytest
import trio
import trustme
from aiohttp import web
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute

import serverwamp
from serverwamp import Application, ConfigurationError, Session, WAMPError
from serverwamp.protocol.serializers import SUBPROTOCOLS
from serverwamp.testing import HandshakeRefused, connect
from tests.helpers import connections_of, wait_all_tasks_blocked
from tests.sockets import connect_socket, serve, serve_aiohttp


def greeting() -> Application:
    app = Application()

    @app.route("greet")
    async def greet() -> str:
        return "hello"

    @app.route("certificate")
    async def certificate(session: Session) -> Any:
        return session.connection.transport_info["peer_certificate"]

    @app.route("info")
    async def info(session: Session) -> dict[str, Any]:
        info = dict(session.connection.transport_info)
        info["http_headers_raw"] = [
            [name, value] for name, value in info["http_headers_raw"] if name.startswith(b"x-")
        ]
        return info

    return app


async def get(app: Any, path: str = "/", method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        return await client.request(method, path)


# ---- the handshake


@pytest.mark.spec("WS-01", "WS-02", "WS-03")
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_subprotocols(subprotocol: str) -> None:
    async with connect(greeting(), subprotocol=subprotocol) as client:
        assert client.subprotocol == subprotocol
        assert (await client.call("greet")).args == ("hello",)


@pytest.mark.spec("WS-01")
async def test_the_order_of_the_client_decides() -> None:
    for offered, chosen in (
        (["wamp.2.ubjson", "wamp.2.msgpack", "wamp.2.json"], "wamp.2.msgpack"),
        (["wamp.2.cbor.batched", "wamp.2.cbor", "wamp.2.msgpack"], "wamp.2.cbor.batched"),
        (["wamp.2.json", "wamp.2.msgpack"], "wamp.2.json"),
        (["WAMP.2.JSON", "wamp.2.json.batched"], "wamp.2.json.batched"),
    ):
        async with connect(greeting(), subprotocols=offered) as client:
            assert client.subprotocol == chosen


@pytest.mark.spec("WS-04")
@pytest.mark.parametrize("offered", [[], ["wamp.2.ubjson"], ["chat", "WAMP.2.JSON"]])
async def test_no_common_subprotocol(offered: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(HandshakeRefused):
        async with connect(greeting(), subprotocols=offered):
            pass
    assert "handshake was refused" in caplog.text
    assert str(offered) in caplog.text


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "accepted"),
    [
        (None, "example.com", [], True),
        ("http://example.com", "example.com", [], True),
        ("http://example.com:80", "example.com", [], True),
        ("HTTP://Example.COM", "example.com", [], True),
        ("https://example.com", "example.com", [], True),
        ("https://example.com", "example.com:443", [], True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", [], True),
        ("http://[::1]:8000", "[::1]:8000", [], True),
        ("http://evil.example", "example.com", [], False),
        ("http://example.com.evil.example", "example.com", [], False),
        ("http://example.com:8000", "example.com", [], False),
        ("http://sub.example.com", "example.com", [], False),
        ("null", "example.com", [], False),
        ("null", "", [], False),
        ("file://", "", [], False),
        ("http://[", "example.com", [], False),
        ("nonsense", "example.com", [], False),
        ("", "example.com", [], False),
        ("http://EXAMPLE.com", "example.COM", [], True),
        ("http://example.com.", "example.com.", [], True),
        ("http://example.com.", "example.com", [], False),
        ("http://example.com:99999", "example.com", [], False),
        ("http://[::1]", "[::1]:80", [], True),
        ("http://[::1]:8000", "[::2]:8000", [], False),
        ("http://example.com@evil.example", "example.com", [], False),
        ("http://example.com/@evil.example", "evil.example", [], False),
        ("ftp://example.com", "example.com", [], False),
        ("https://app.example", "example.com", ["https://app.example"], True),
        ("https://app.example", "example.com", ["https://APP.example/"], True),
        ("http://app.example", "example.com", ["https://app.example"], False),
        ("https://app.example", "example.com", ["https://app.example:443"], True),
        ("https://app.example", "example.com", ["https://app.example:80"], False),
        ("https://app.example", "example.com", ["http://app.example"], False),
        ("https://app.example:444", "example.com", ["https://app.example"], False),
        ("http://[::1]:8000", "example.com", ["http://[::1]:8000"], True),
        ("capacitor://localhost", "localhost", [], False),
        ("capacitor://localhost", "localhost", ["capacitor://localhost"], True),
        ("null", "example.com", ["null"], True),
        ("file://", "example.com", ["file://"], True),
        ("http://evil.example", "example.com", ["*"], True),
        ("ws://127.0.0.1:8080", "127.0.0.1:8080", [], True),
        ("wss://example.com", "example.com", [], True),
        ("WSS://Example.com:443", "example.com", [], True),
        ("ws://example.com", "example.com:80", [], True),
        ("ws://[::1]:8000", "[::1]:8000", [], True),
        ("ws://127.0.0.1:8080/ws", "127.0.0.1:8080", [], True),
        ("ws://example.com:8000", "example.com", [], False),
        ("ws://evil.example", "example.com", [], False),
        ("wss://example.com.evil.example", "example.com", [], False),
        ("wsx://example.com", "example.com", [], False),
        ("wss://app.example", "example.com", ["https://app.example"], True),
        ("wss://app.example:443", "example.com", ["https://app.example"], True),
        ("https://app.example", "example.com", ["wss://app.example"], True),
        ("ws://app.example", "example.com", ["https://app.example"], False),
        ("ws://app.example:443", "example.com", ["https://app.example"], False),
        ("https://app.example:80", "example.com", ["https://app.example"], False),
    ],
)
async def test_origins(
    origin: str | None,
    host: str,
    allowed: list[str],
    accepted: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Application(allowed_origins=allowed)
    headers = {"host": host} | ({"origin": origin} if origin is not None else {})
    if accepted:
        async with connect(app, headers=headers):
            pass
    else:
        with pytest.raises(HandshakeRefused):
            async with connect(app, headers=headers):
                pass
        assert "allowed_origins" in caplog.text


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ([(b"Origin", b"http://evil.example")], False),
        ([(b"origin", b"http://a.example"), (b"origin", b"http://evil.example")], False),
        ([(b"origin", b"http://evil.example"), (b"origin", b"http://a.example")], False),
        ([(b"origin", b"http://evil.example"), (b"host", b"evil.example")], False),
        ([(b"origin", b"http://a.example")], True),
        ([(b"host", b"evil.example")], True),  # no browser: it says no origin
    ],
)
async def test_headers_that_come_twice(headers: Any, accepted: bool) -> None:
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect" if not sent else "websocket.disconnect"}

    async def send(event: Any) -> None:
        sent.append(event["type"])

    scope = {"type": "websocket", "path": "/", "subprotocols": ["wamp.2.json"]}
    scope["headers"] = [(b"host", b"a.example"), *headers]
    await Application()(scope, receive, send)
    assert sent == ["websocket.accept" if accepted else "websocket.close"]


@pytest.mark.parametrize(
    "allowed",
    [
        "https://app.example",
        ["app.example"],
        ["https://app.example/page"],
        ["https://app.example", "*.example"],
        ["https://user@app.example"],
        ["https://"],
        [" https://app.example"],
        ["https://app.example:port"],
        [""],
    ],
)
def test_origins_that_no_browser_sends(allowed: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed_origins"):
        Application(allowed_origins=allowed)


async def test_a_client_that_leaves_during_the_handshake() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        raise OSError

    scope = {"type": "websocket", "path": "/", "subprotocols": ["wamp.2.json"], "headers": []}
    app = greeting()
    await app(scope, receive, send)
    assert not connections_of(app)


# ---- plain HTTP, and paths


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_plain_http_gets_a_page(method: str) -> None:
    response = await get(greeting(), method=method)
    assert response.status_code == 426
    assert response.headers["upgrade"] == "websocket"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    if method == "GET":
        assert "WAMP endpoint" in response.text
        assert all(name in response.text for name in SUBPROTOCOLS)


async def test_an_application_at_certain_paths() -> None:
    app = greeting().asgi_application(paths=["/ws", "/other"])
    for path in ("/ws", "/other"):
        async with connect(app, path=path) as client:
            assert (await client.call("greet")).args == ("hello",)
        assert (await get(app, path)).status_code == 426
    assert (await get(app, "/")).status_code == 404
    with pytest.raises(HandshakeRefused):
        async with connect(app, path="/ws/x"):
            pass


def below(root_path: str, app: Any) -> Any:
    """Return what a server does for an application at a root path, where the path is complete."""

    async def at_root_path(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": root_path}, receive, send)

    return at_root_path


@pytest.mark.parametrize(
    ("root_path", "path", "served"),
    [
        ("", "/ws", True),
        ("/api", "/api/ws", True),
        ("/api", "/ws", True),  # some servers and frameworks have removed the prefix
        ("/api", "/api", False),
        ("/api", "/apiws", False),
        ("/api", "/api/ws/", False),
        ("/api", "/api/api/ws", False),
        ("/api", "/other/ws", False),
        ("/api/", "/api//ws", True),
        ("/ws", "/ws/ws", True),
        ("/ws", "/ws", False),
        ("/ws", "/wss", False),
        ("/", "/ws", True),
        ("/ä", "/ä/ws", True),
    ],
)
async def test_paths_are_those_below_the_root_path(root_path: str, path: str, served: bool) -> None:
    app = below(root_path, greeting().asgi_application(paths=["/ws"]))
    if served:
        async with connect(app, path=path) as client:
            assert (await client.call("greet")).args == ("hello",)
    else:
        with pytest.raises(HandshakeRefused):
            async with connect(app, path=path):
                pass


async def test_the_root_path_itself() -> None:
    app = below("/api", greeting().asgi_application(paths=["/"]))
    for path in ("/api", "/api/"):
        async with connect(app, path=path) as client:
            assert (await client.call("greet")).args == ("hello",)


@pytest.mark.parametrize("paths", ["/ws", ["ws"], ["/ws", ""]])
def test_what_is_no_list_of_paths(paths: Any) -> None:
    with pytest.raises(ConfigurationError, match="paths"):
        greeting().asgi_application(paths=paths)


async def test_an_application_at_every_path() -> None:
    app = greeting()
    for served in (app, app.asgi_application()):
        async with connect(served, path="/any/where") as client:
            assert (await client.call("greet")).args == ("hello",)


# ---- mounted


async def test_mounted_under_starlette() -> None:
    wamp = greeting()
    routes = [Mount("/mounted", wamp), WebSocketRoute("/route", wamp)]
    app = Starlette(routes=routes)
    async with serve(app) as port:
        for path in ("/mounted/", "/route"):
            async with connect_socket(port, path=path) as client:
                assert (await client.call("greet")).args == ("hello",)
                assert (await client.call("info")).kwargs["http_path"] == path
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/mounted/")).status_code == 426
            assert (await http.get("/")).status_code == 404


async def test_certain_paths_below_mounts() -> None:
    at_paths = greeting().asgi_application(paths=["/ws", "/other/ws"])
    site = fastapi.FastAPI()
    site.mount("/inner", at_paths)
    app = Starlette(routes=[Mount("/outer", Mount("/", site)), Mount("/direct", at_paths)])
    async with serve(app) as port:
        for path in ("/outer/inner/ws", "/direct/ws", "/direct/other/ws"):
            async with connect_socket(port, path=path) as client:
                assert (await client.call("greet")).args == ("hello",)
                assert (await client.call("info")).kwargs["http_path"] == path
        for path in ("/direct/direct/ws", "/outer/ws", "/direct/"):
            with pytest.raises(HandshakeRefused):
                async with connect_socket(port, path=path):
                    pass
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/direct/ws")).status_code == 426
            assert (await http.get("/direct/else")).status_code == 404


async def test_mounted_under_fastapi() -> None:
    app = fastapi.FastAPI()
    app.mount("/ws", greeting())

    @app.get("/")
    async def root() -> str:
        return "page"

    async with serve(app) as port:
        async with connect_socket(port, path="/ws/") as client:
            assert (await client.call("greet")).args == ("hello",)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/")).json() == "page"


# ---- lifespan


@asynccontextmanager
async def lifespan_of(app: Any) -> AsyncIterator[list[dict[str, Any]]]:
    """Run an application's lifespan; give what it sends."""
    to_app, events = anyio.create_memory_object_stream[dict[str, Any]](2)
    sent: list[dict[str, Any]] = []
    changed = anyio.Event()

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)
        changed.set()

    async with to_app, events, anyio.create_task_group() as tasks:
        tasks.start_soon(app, {"type": "lifespan"}, events.receive, send)
        await to_app.send({"type": "lifespan.startup"})
        with anyio.fail_after(5):
            await changed.wait()
        yield sent
        await to_app.send({"type": "lifespan.shutdown"})


async def test_lifespan() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(application: Application) -> AsyncIterator[None]:
        assert application is app
        log.append("starts")
        async with anyio.create_task_group():
            yield
        log.append("ends")

    app = Application(lifespan=lifespan)
    async with lifespan_of(app) as sent:
        assert sent == [{"type": "lifespan.startup.complete"}]
        assert log == ["starts"]
        async with connect(app) as client:
            await client.leave()
    assert sent[1:] == [{"type": "lifespan.shutdown.complete"}]
    assert log == ["starts", "ends"]


async def test_a_lifespan_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def lifespan(application: Application) -> AsyncIterator[None]:
        raise ValueError("the database is down")
        yield

    async def handler(value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    broken = Application()
    broken.route("a")(handler)
    for app, message in (
        (Application(lifespan=lifespan), "the database is down"),
        (broken, "Nowhere"),
    ):
        async with lifespan_of(app) as sent:
            assert [event["type"] for event in sent] == ["lifespan.startup.failed"]
            assert message in sent[0]["message"]


async def test_sessions_are_closed_at_shutdown() -> None:
    app = greeting()
    async with connect(app) as client:
        async with lifespan_of(app):
            pass
        assert await client.expect_close() == 1012


# ---- what is known of a client


async def test_transport_info_in_process() -> None:
    certificate = "-----BEGIN CERTIFICATE-----..."
    async with connect(
        greeting(),
        path="/some path",
        query_string="a=1&b=%20",
        headers={"X-One": "1", "x-two": "zwei"},
        cookies={"a": "1", "b": "two words"},
        peer_address="::1",
        extensions={"tls": {"client_cert_chain": [certificate, "issuer"]}},
        subprotocol="wamp.2.msgpack",
    ) as client:
        assert (await client.call("info")).kwargs == {
            "http_cookies": {"a": "1", "b": "two words"},
            "http_headers_raw": [[b"x-one", b"1"], [b"x-two", b"zwei"]],
            "http_path": "/some path",
            "http_query_string": "a=1&b=%20",
            "peer_address": "::1",
            "peer_certificate": certificate,
            "peer_credentials": None,
            "subprotocol": "wamp.2.msgpack",
        }


REQUEST_HEADERS = {"x-one": "1", "X-Two": "zwei", "cookie": "a=1; b=2"}


async def test_transport_info_is_the_same_on_every_server() -> None:
    app = greeting()
    servers = [serve]
    if not trio.lowlevel.in_trio_run():
        servers.append(serve_aiohttp)
    for server in servers:
        async with (
            server(app) as port,
            connect_socket(
                port,
                path="/p/a%20th?a=1&b=%20",
                subprotocol="wamp.2.msgpack",
                headers=REQUEST_HEADERS,
            ) as client,
        ):
            assert (await client.call("info")).kwargs == {
                "http_cookies": {"a": "1", "b": "2"},
                "http_headers_raw": [[b"x-one", b"1"], [b"x-two", b"zwei"]],
                "http_path": "/p/a th",
                "http_query_string": "a=1&b=%20",
                "peer_address": "127.0.0.1",
                "peer_certificate": None,
                "peer_credentials": None,
                "subprotocol": "wamp.2.msgpack",
            }, server


# ---- aiohttp


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # aiohttp has no other
class TestAiohttp:
    async def test_calls_and_events(self) -> None:
        app = greeting()

        @app.topic("topic")
        async def topic(session: Session) -> AsyncIterator[None]:
            session.send_event(args=("welcome",))
            yield

        for subprotocol in SUBPROTOCOLS:
            async with (
                serve_aiohttp(app) as port,
                connect_socket(port, subprotocol=subprotocol) as client,
            ):
                assert (await client.call("greet")).args == ("hello",)
                await client.subscribe("topic")
                assert (await client.expect_event()).args == ("welcome",)
                assert await client.leave() == "wamp.close.goodbye_and_out"
                await client.join()
                await client.send(["nonsense"])
                assert (await client.receive())[2] == "wamp.error.protocol_violation"
                assert await client.expect_close() == 1002

    async def test_refused_handshakes_and_plain_http(self) -> None:
        async with serve_aiohttp(greeting()) as port:
            with pytest.raises(HandshakeRefused):
                async with connect_socket(port, subprotocol="chat"):
                    pass
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                response = await http.post("/", content=b"body")
                assert response.status_code == 426
                assert response.headers["upgrade"] == "websocket"
                assert "WAMP endpoint" in response.text

    async def test_several_headers_with_subprotocols(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """They are one list, as in RFC 9110, section 5.3."""
        offers = {
            ("chat", "wamp.2.json"): "wamp.2.json",
            ("chat", "x, wamp.2.json.batched", "wamp.2.json"): "wamp.2.json.batched",
            ("wamp.2.json", "wamp.2.cbor"): "wamp.2.json",
            ("", "wamp.2.json"): "wamp.2.json",
        }
        answered: list[str] = []

        async def note(session: Any, context: Any, params: Any) -> None:
            answered[:] = params.response.headers.getall("Sec-WebSocket-Protocol", [])

        tracing = aiohttp.TraceConfig()
        tracing.on_request_end.append(note)
        async with (
            serve_aiohttp(greeting()) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}", trace_configs=[tracing]) as session,
        ):
            for offered, chosen in offers.items():
                headers = [("Sec-WebSocket-Protocol", names) for names in offered]
                async with session.ws_connect("/", headers=headers) as websocket:
                    assert answered == [chosen]
                    end = "\x1e" if chosen.endswith("batched") else ""
                    await websocket.send_str(f'[1,"realm1",{{"roles":{{"caller":{{}}}}}}]{end}')
                    assert (await websocket.receive_str(timeout=5)).startswith("[2,")
            headers = [("Sec-WebSocket-Protocol", name) for name in ("chat", "other")]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect("/", headers=headers)
            assert refused.value.status == 400
        assert "overlap" not in caplog.text

    async def test_cancelling_one_of_those_who_send(self) -> None:
        from serverwamp.adapters.aiohttp import request_handler

        outcomes = []
        ended = anyio.Event()
        message = {"type": "websocket.send", "bytes": bytes(16 * 1024 * 1024)}  # is never read

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def send_message() -> None:
                try:
                    await send(message)
                except OSError:
                    outcomes.append("failed")

            await receive()
            await send({"type": "websocket.accept"})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_message)
                await wait_all_tasks_blocked()
                async with anyio.create_task_group() as cancelled:
                    cancelled.start_soon(send, message)
                    await wait_all_tasks_blocked()
                    cancelled.cancel_scope.cancel()
            ended.set()

        served = web.Application()
        served.router.add_get("/", request_handler(app))
        runner = web.AppRunner(served, shutdown_timeout=1)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        async with await anyio.connect_tcp(*listener.getsockname()) as client:
            await client.send(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            with anyio.fail_after(10):
                await ended.wait()
        await runner.cleanup()
        assert outcomes == ["failed"]

    async def test_other_asgi_applications(self) -> None:
        """The adapter knows no WAMP: it serves whatever speaks ASGI."""
        from serverwamp.adapters.aiohttp import request_handler

        app = fastapi.FastAPI()

        @app.post("/echo")
        async def echo(request: fastapi.Request) -> Any:
            return [(await request.body()).decode(), request.url.query, request.url.scheme]

        @app.get("/cookies")
        async def cookies(response: fastapi.Response) -> str:
            response.set_cookie("a", "1")
            response.set_cookie("b", "2")
            return "two"

        @app.get("/fails")
        async def fails() -> None:
            raise ValueError

        @app.websocket("/ws")
        async def ws(socket: fastapi.WebSocket) -> None:
            await socket.accept(headers=[(b"x-own", b"1")])
            text = await socket.receive_text()
            if text == "fail":
                raise ValueError
            await socket.send_text(text)
            await socket.send_bytes(text.encode())
            await socket.close(3000, "enough")

        served = web.Application()
        served.router.add_route("*", "/{path:.*}", request_handler(app))
        runner = web.AppRunner(served)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        port = listener.getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                answer = (await http.post("/echo?a=1", content="body")).json()
                assert answer == ["body", "a=1", "http"]
                assert (await http.get("/fails")).status_code == 500
                response = await http.get("/cookies")
                assert len(response.headers.get_list("set-cookie")) == 2
                assert response.headers.get_list("content-type") == ["application/json"]
            async with aiohttp.ClientSession() as session:
                url = f"http://127.0.0.1:{port}/ws"
                async with session.ws_connect(url) as websocket:
                    assert websocket._response.headers["x-own"] == "1"
                    await websocket.send_str("text")
                    assert (await websocket.receive(5)).data == "text"
                    assert (await websocket.receive(5)).data == b"text"
                    closed = await websocket.receive(5)
                    assert (closed.data, closed.extra) == (3000, "enough")
                async with session.ws_connect(url) as websocket:
                    await websocket.send_str("fail")
                    assert (await websocket.receive(5)).data == 1011
        finally:
            await runner.cleanup()
            listener.close()

    async def test_over_a_unix_socket(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        async with (
            serve_aiohttp(greeting(), path),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
            session.ws_connect("http://server/ws", protocols=["wamp.2.msgpack"]) as websocket,
        ):
            for message in (
                [1, "realm1", {"roles": {"caller": {}}}],
                [48, 1, {}, "info"],
            ):
                await websocket.send_bytes(msgpack.packb(message))
                answer = msgpack.unpackb((await websocket.receive(5)).data)
        assert answer[4]["peer_address"] == path

    async def test_a_client_certificate(self) -> None:
        authority = trustme.CA()
        own, theirs = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example.com")
        server, client = (
            ssl.create_default_context(purpose)
            for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH)
        )
        for context, certificate in ((server, own), (client, theirs)):
            authority.configure_trust(context)
            certificate.configure_cert(context)
        server.verify_mode = ssl.CERT_REQUIRED
        served = web.Application()
        served.router.add_get("/", greeting().aiohttp_websocket_handler())
        runner = web.AppRunner(served, shutdown_timeout=1)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener, ssl_context=server).start()
        url = f"wss://127.0.0.1:{listener.getsockname()[1]}/"
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(url, ssl=client, protocols=["wamp.2.json"]) as websocket,
            ):
                for message in (
                    [1, "realm1", {"roles": {"caller": {}}}],
                    [48, 1, {}, "certificate"],
                ):
                    await websocket.send_json(message)
                    answer = (await websocket.receive(5)).json()
        finally:
            await runner.cleanup()
            listener.close()
        ours = theirs.cert_chain_pems[0].bytes().decode()
        assert answer[3] == [ours.replace("\r\n", "\n")]

    async def test_a_client_that_vanishes(self) -> None:
        app = greeting()
        async with serve_aiohttp(app) as port:
            async with connect_socket(port) as client:
                await client.disconnect()
            with anyio.fail_after(5):
                while connections_of(app):
                    await anyio.lowlevel.checkpoint()


async def test_peer_addresses_of_unix_sockets() -> None:
    from serverwamp.serving.connection import transport_info

    scope = {"type": "websocket", "path": "/", "client": None, "server": ("/run/app", None)}
    assert transport_info(scope, "wamp.2.json")["peer_address"] == "/run/app"
    scope = {"type": "websocket", "path": "/", "client": ["", "0"], "server": None}
    assert transport_info(scope, "wamp.2.json")["peer_address"] is None


# ---- public behaviour around it


async def test_nothing_escapes_to_the_server() -> None:
    app = greeting()
    for how in ("nonsense", "vanish", "abort"):
        async with connect(app, None) as client:
            if how == "nonsense":
                await client.send_frame("nonsense")
            elif how == "vanish":
                await client.disconnect()
            else:
                await client.send([3, {}, "a.b"])
                assert await client.expect_close() == 1000
    assert not connections_of(app)


def test_configuration_errors_are_for_developers() -> None:
    assert issubclass(ConfigurationError, RuntimeError)
    assert not issubclass(ConfigurationError, WAMPError)
    assert serverwamp.Realm("a").uri == "a"
