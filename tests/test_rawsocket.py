"""RawSocket: over TCP, TLS and Unix sockets, octet by octet."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import cbor2
import msgpack
import pytest
import trustme
from anyio.abc import ByteStream

from serverwamp import Application, Limits, RPCResult, Session
from tests.helpers import wait_all_tasks_blocked
from tests.sockets import SECONDS, serve

MESSAGE, PING, PONG = 0, 1, 2
CODECS: dict[int, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    1: (lambda message: json.dumps(message).encode(), json.loads),
    2: (msgpack.packb, msgpack.unpackb),
    3: (cbor2.dumps, cbor2.loads),
}
HELLO = [1, "realm1", {"roles": {"caller": {}, "subscriber": {}}}]
GOODBYE = [6, {}, "wamp.close.system_shutdown"]
GONE = (anyio.EndOfStream, anyio.BrokenResourceError, OSError)
VIOLATION = "wamp.error.protocol_violation"


class Peer:
    """A client that shares nothing with what it tests."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._received = b""
        self._encode, self._decode = CODECS[1]

    async def exactly(self, count: int) -> bytes:
        with anyio.fail_after(SECONDS):
            while len(self._received) < count:
                self._received += await self.stream.receive()
        data, self._received = self._received[:count], self._received[count:]
        return data

    async def handshake(self, opening: str = "7ff10000") -> bytes:
        await self.stream.send(bytes.fromhex(opening))
        answer = await self.exactly(4)
        self._encode, self._decode = CODECS.get(answer[1] & 15, CODECS[1])
        return answer

    def framed(self, message: Any, kind: int = MESSAGE) -> bytes:
        payload = message if isinstance(message, bytes) else self._encode(message)
        return bytes([kind]) + len(payload).to_bytes(3) + payload

    async def send(self, message: Any, kind: int = MESSAGE) -> None:
        await self.stream.send(self.framed(message, kind))

    async def receive_frame(self) -> tuple[int, bytes]:
        prefix = await self.exactly(4)
        return prefix[0], await self.exactly(int.from_bytes(prefix[1:]))

    async def receive(self) -> Any:
        kind, payload = await self.receive_frame()
        assert kind == MESSAGE
        return self._decode(payload)

    async def join(self, opening: str = "7ff10000") -> dict[str, Any]:
        assert (await self.handshake(opening))[0] == 0x7F
        await self.send(HELLO)
        welcome = await self.receive()
        assert welcome[0] == 2, welcome
        details: dict[str, Any] = welcome[2]
        return details

    async def expect_end(self) -> None:
        assert self._received == b""
        with anyio.fail_after(SECONDS), pytest.raises(GONE):
            pytest.fail(f"it goes on: {await self.stream.receive()!r}")

    async def expect_abort(self) -> str:
        abort = await self.receive()
        assert (abort[0], abort[2]) == (3, VIOLATION)
        await self.expect_end()
        return str(abort[1]["message"])


def application(**settings: Any) -> Application:
    app = Application(**settings)

    @app.route("echo")
    async def echo(*args: Any) -> RPCResult:
        return RPCResult(args)

    @app.route("text")
    async def text(length: int, character: str = "x") -> str:
        return character * length

    @app.route("info")
    async def info(session: Session) -> Any:
        info = session.connection.transport_info
        return [[name, value] for name, value in info.items()]

    @app.topic("news")
    async def news() -> AsyncIterator[None]:
        yield

    return app


@asynccontextmanager
async def served(app: Application, *args: Any, **settings: Any) -> AsyncIterator[Any]:
    """Serve `app`, and give the port or the path."""
    async with anyio.create_task_group() as tasks:
        yield await tasks.start(partial(app.serve_rawsocket, *args, **settings))
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def connected(app: Application, **settings: Any) -> AsyncIterator[Peer]:
    async with (
        served(app, port=0, **settings) as port,
        await anyio.connect_tcp("127.0.0.1", port) as s,
    ):
        yield Peer(s)


# ---- the handshake


@pytest.mark.spec("RAW-01", "RAW-02", "RAW-03", "RAW-05", "RAW-08")
@pytest.mark.parametrize(
    ("opening", "limit", "answer"),
    [
        ("7ff10000", 2**24, "7ff10000"),
        ("7ff20000", 2**24, "7ff20000"),
        ("7ff30000", 2**24, "7ff30000"),
        ("7fb20000", 2**24, "7ff20000"),
        ("7f110000", 2**24, "7ff10000"),
        ("7ff10000", 2**30, "7ff10000"),
        ("7ff10000", 2**20, "7fb10000"),
        ("7ff10000", 2**20 - 1, "7fa10000"),
        ("7ff10000", 2**20 + 1, "7fb10000"),
        ("7ff10000", 512, "7f010000"),
        ("7ff10000", 511, "7f010000"),
        ("7ff10000", float("inf"), "7ff10000"),
    ],
)
async def test_the_handshake(opening: str, limit: float, answer: str) -> None:
    async with connected(application(limits=Limits(message_bytes=limit))) as peer:
        assert (await peer.handshake(opening)).hex() == answer
        await peer.send(HELLO)
        assert (await peer.receive())[0] == 2


@pytest.mark.spec("RAW-03", "RAW-06", "RAW-07", "RAW-08", "RAW-09")
@pytest.mark.parametrize(
    ("opening", "answer"),
    [
        ("7ff00000", "7f100000"),
        ("7ff40000", "7f100000"),
        ("7ff50000", "7f100000"),
        ("7fff0000", "7f100000"),
        ("7f010000", "7f200000"),
        ("7ff10001", "7f300000"),
        ("7ff18000", "7f300000"),
        ("7ff0ffff", "7f300000"),
    ],
)
async def test_a_refused_handshake(
    opening: str, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(application()) as peer:
        assert (await peer.handshake(opening)).hex() == answer
        await peer.expect_end()
    assert "a RawSocket handshake was refused: " in caplog.text


@pytest.mark.spec("RAW-04")
@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0", b"\x16", b"\xff"])
async def test_what_isnt_rawsocket_gets_no_answer(opening: bytes) -> None:
    async with connected(application()) as peer:
        await peer.stream.send(opening)
        await peer.expect_end()


@pytest.mark.spec("RAW-07", "RAW-16")
async def test_octet_by_octet() -> None:
    async with connected(application()) as peer:
        hello = "000000245b312c227265616c6d31222c7b22726f6c6573223a7b2263616c6c6572223a7b7d7d7d5d"
        for octet in bytes.fromhex("7ff10000" + hello):
            await peer.stream.send(bytes([octet]))
            await wait_all_tasks_blocked()
        assert (await peer.exactly(4)).hex() == "7fb10000"
        assert (await peer.receive())[0] == 2


@pytest.mark.spec("RAW-07")
async def test_everything_at_once() -> None:
    async with connected(application()) as peer:
        calls = [peer.framed([48, n, {}, "echo", [n]]) for n in range(1, 200)]
        await peer.stream.send(b"\x7f\xf1\0\0" + peer.framed(HELLO) + b"".join(calls))
        await peer.exactly(4)
        assert (await peer.receive())[0] == 2
        assert [await peer.receive() for _ in calls] == [[50, n, {}, [n]] for n in range(1, 200)]


# ---- messages


@pytest.mark.spec("RAW-01", "RAW-03", "RAW-09", "SER-05", "WS-09")
@pytest.mark.parametrize("opening", ["7ff10000", "7ff20000", "7ff30000"])
async def test_a_session_in_every_format(opening: str) -> None:
    app = application()
    async with connected(app) as peer:
        for _ in range(2):
            await peer.join(opening) if _ == 0 else await peer.send(HELLO)
            if _ == 1:
                assert (await peer.receive())[0] == 2
            assert app.statistics().sessions == 1
            await peer.send([48, 1, {}, "echo", ["é", 1.5, None, "x" * 100_000]])
            assert await peer.receive() == [50, 1, {}, ["é", 1.5, None, "x" * 100_000]]
            await peer.send([32, 2, {}, "news"])
            subscribed = await peer.receive()
            assert subscribed[:2] == [33, 2]
            await app.publish("news", (5,))
            event = await peer.receive()
            assert [event[0], event[1], event[4]] == [36, subscribed[2], [5]]
            await peer.send([6, {}, "wamp.close.normal"])
            assert await peer.receive() == [6, {}, "wamp.close.goodbye_and_out"]


@pytest.mark.spec("RAW-09", "RAW-11", "RAW-12", "RAW-15")
async def test_ping_and_pong() -> None:
    async with connected(application()) as peer:
        await peer.handshake()
        await peer.stream.send(bytes.fromhex("01000003616263"))
        assert (await peer.exactly(7)).hex() == "02000003616263"
        await peer.stream.send(bytes.fromhex("01000000"))
        assert (await peer.exactly(4)).hex() == "02000000"
        await peer.send(b"unsolicited", PONG)
        await peer.send(HELLO)
        assert (await peer.receive())[0] == 2
        for number in range(100):
            await peer.stream.send(
                peer.framed(b"%d" % number, PING) + peer.framed([48, number + 1, {}, "echo"])
            )
        frames = [await peer.receive_frame() for _ in range(200)]
        pongs = [payload for kind, payload in frames if kind == PONG]
        assert pongs == [b"%d" % number for number in range(100)]
        assert sum(kind == MESSAGE for kind, _ in frames) == 100


@pytest.mark.spec("RAW-09", "RAW-10", "RAW-12")
@pytest.mark.parametrize("prefix", ["03", "04", "07", "10", "80", "f0", "11", "0b"])
async def test_reserved_bits_end_the_connection(prefix: str) -> None:
    async with connected(application()) as peer:
        await peer.join()
        await peer.stream.send(bytes.fromhex(prefix + "000001") + b"x")
        assert "reserved" in await peer.expect_abort()


@pytest.mark.spec("RAW-10", "RAW-12")
async def test_the_25th_bit_goes_with_no_other() -> None:
    async with connected(application()) as peer:
        await peer.join()
        await peer.stream.send(bytes.fromhex("08000001"))
        await peer.expect_abort()


@pytest.mark.spec("RAW-10")
async def test_a_message_of_the_greatest_length() -> None:
    limits = Limits(call_timeout=30, message_bytes=2**24)
    async with connected(application(limits=limits)) as peer:
        await peer.join()
        call = b'[48,1,{},"text",[3,"%s"]]'
        filling = b"x" * (2**24 - len(call) + 2)
        with anyio.fail_after(30):
            await peer.stream.send(bytes.fromhex("08000000") + call % filling)
            assert (await peer.receive())[:5] == [8, 48, 1, {}, "wamp.error.payload_size_exceeded"]
            await peer.send([48, 2, {}, "echo", [1]])
            assert await peer.receive() == [50, 2, {}, [1]]


@pytest.mark.spec("SER-10")
async def test_text_that_isnt_utf8() -> None:
    async with connected(application()) as peer:
        await peer.join()
        await peer.send(b'[48,1,{},"\xff"]')
        assert "UTF-8" in await peer.expect_abort()


# ---- lengths


@pytest.mark.spec("RAW-13")
@pytest.mark.parametrize("kind", [MESSAGE, PING])
async def test_a_message_that_is_too_long_isnt_awaited(
    kind: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(limits=Limits(message_bytes=1500, unauthenticated_message_bytes=1500))
    async with connected(app) as peer:
        await peer.join()
        call = [48, 1, {}, "echo", ["x" * (1024 - 30)]]
        assert len(json.dumps(call)) < 1024
        await peer.send(call)
        assert await peer.receive() == [50, 1, {}, call[4]]
        await peer.stream.send(bytes([kind]) + (1025).to_bytes(3))
        assert await peer.expect_abort() == "the message is too long"
    assert app.statistics().violations == {"message_bytes": 1}
    assert "Limits.message_bytes: " in caplog.text


@pytest.mark.spec("RAW-13")
async def test_nothing_long_is_awaited_of_strangers() -> None:
    app = application(limits=Limits(unauthenticated_message_bytes=1000))
    async with connected(app) as peer:
        await peer.handshake()
        await peer.stream.send(b"\0" + (1001).to_bytes(3))
        assert await peer.expect_abort() == "the message is too long"
    assert app.statistics().violations == {"unauthenticated_message_bytes": 1}


@pytest.mark.spec("RAW-13", "RAW-14", "ERR-payload_size_exceeded")
@pytest.mark.parametrize(
    ("opening", "character"), [("7f110000", "x"), ("7f110000", "é"), ("7f120000", "x")]
)
async def test_nothing_longer_than_the_client_can_receive_is_sent(
    opening: str, character: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = application()
    async with connected(app) as peer:
        await peer.join(opening)
        most = (1024 - 15) // len(character.encode())
        await peer.send([48, 1, {}, "text", [most - 10, character]])
        assert await peer.receive() == [50, 1, {}, [character * (most - 10)]]
        await peer.send([48, 2, {}, "text", [1024 // len(character.encode()), character]])
        assert (await peer.receive())[:5] == [8, 48, 2, {}, "wamp.error.payload_size_exceeded"]
        await peer.send([32, 3, {}, "news"])
        assert (await peer.receive())[:2] == [33, 3]
        for _ in range(3):
            await app.publish("news", ["x" * 1024])
        await app.publish("news", ["short"])
        assert (await peer.receive())[4] == ["short"]
        assert app.statistics().events_delivered == 1
        await peer.stream.send(b"\1" + (1025).to_bytes(3) + b"x" * 1025)
        await peer.expect_abort()
    assert caplog.text.count("an event is lost") == 1


# ---- limits


async def test_a_handshake_has_a_deadline(caplog: pytest.LogCaptureFixture) -> None:
    app = application(limits=Limits(hello_timeout=0.05))
    async with connected(app) as peer:
        await peer.stream.send(b"\x7f\xf1")
        await peer.expect_end()
        assert app.statistics().violations == {"hello_timeout": 1}
    async with connected(app) as peer:
        await peer.handshake()
        await peer.expect_abort()
    assert "Limits.hello_timeout" in caplog.text


@pytest.mark.spec("RAW-06")
async def test_the_number_of_connections_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    app = application(limits=Limits(unauthenticated_sessions=2))
    async with served(app, port=0) as port:
        streams = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(2)]
        peers = [Peer(stream) for stream in streams]
        for peer in peers:
            await peer.handshake()
        assert app.statistics().unauthenticated_sessions == 2
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            assert (await Peer(stream).handshake()).hex() == "7f400000"
            await Peer(stream).expect_end()
        await peers[0].send(HELLO)
        assert (await peers[0].receive())[0] == 2
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await Peer(stream).join()
            assert app.statistics().sessions == 2
        for stream in streams:
            await stream.aclose()
    assert app.statistics().violations == {"unauthenticated_sessions": 1}
    assert "a RawSocket connection was refused: Limits.unauthenticated_sessions" in caplog.text


@pytest.mark.spec("WS-10")
async def test_a_client_that_vanishes() -> None:
    ended = anyio.Event()
    app = application()

    @app.route("wait")
    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with connected(app) as peer:
        await peer.join()
        await peer.send([48, 1, {}, "wait"])
        await wait_all_tasks_blocked()
        await peer.stream.aclose()
        with anyio.fail_after(SECONDS):
            await ended.wait()


async def test_a_client_that_reads_nothing_is_given_up() -> None:
    app = application(limits=Limits(send_timeout=0.1, goodbye_timeout=0.1, outbound_bytes=2**20))
    async with connected(app) as peer:
        await peer.join()
        filling = "x" * 100_000

        async def send_for_ever() -> None:
            for number in count(1):
                await peer.send([48, number, {}, "echo", [filling]])

        with anyio.fail_after(SECONDS), pytest.raises(GONE):
            await send_for_ever()
        assert app.statistics().violations == {"send_timeout": 1}


# ---- Unix sockets and TLS


def info_of(result: Any) -> dict[str, Any]:
    return dict(result[3])


@pytest.mark.spec("RAW-17")
async def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        async with served(application(), path=path) as address:
            assert address == str(path)
            async with await anyio.connect_unix(path) as stream:
                peer = Peer(stream)
                await peer.join()
                await peer.send([48, 1, {}, "info"])
                info = info_of(await peer.receive())
                assert info["peer_address"] == str(path)
                assert info["peer_credentials"] == {
                    "pid": os.getpid(),
                    "uid": os.getuid(),
                    "gid": os.getgid(),
                }
        assert not path.exists()


async def test_credentials_admit_clients(tmp_path: Path) -> None:
    app = application()

    @app.add_transport_authenticator
    async def authenticate(session: Session) -> str | None:
        credentials = session.connection.transport_info["peer_credentials"]
        return "myself" if credentials and credentials["uid"] == os.getuid() else None

    async with served(app, path=tmp_path / "socket"), served(app, port=0) as port:
        async with await anyio.connect_unix(tmp_path / "socket") as unix:
            assert (await Peer(unix).join())["authrole"] is not None
        async with await anyio.connect_tcp("127.0.0.1", port) as tcp:
            peer = Peer(tcp)
            await peer.handshake()
            await peer.send(HELLO)
            assert (await peer.receive())[0] == 3


async def test_what_is_known_of_a_client_over_tcp() -> None:
    async with connected(application()) as peer:
        await peer.join("7ff10000")
        await peer.send([48, 1, {}, "info"])
        assert info_of(await peer.receive()) == {
            "http_cookies": {},
            "http_headers_raw": [],
            "http_path": "",
            "http_query_string": "",
            "peer_address": "127.0.0.1",
            "peer_certificate": None,
            "peer_credentials": None,
            "subprotocol": "wamp.2.json",
        }


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the context of the server, which wants certificates, and that of the client."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context()
    authority.configure_trust(client)
    authority.issue_cert("joe@example.com").configure_cert(client)
    return server, client


@pytest.mark.spec("WS-11")
async def test_over_tls(authority: trustme.CA) -> None:
    server, client = contexts(authority)
    app = application()
    async with served(app, port=0, ssl_context=server) as port:
        async with await anyio.connect_tcp(
            "127.0.0.1", port, ssl_context=client, tls_standard_compatible=False
        ) as stream:
            peer = Peer(stream)
            await peer.join()
            await peer.send([48, 1, {}, "info"])
            info = info_of(await peer.receive())
            assert info["peer_certificate"].startswith("-----BEGIN CERTIFICATE-----\n")
            await peer.send([48, 2, {}, "text", [1_000_000]])
            assert await peer.receive() == [50, 2, {}, ["x" * 1_000_000]]
            await peer.send(b"rubbish")
            await peer.expect_abort()
        async with await anyio.connect_tcp("127.0.0.1", port) as plain:
            await plain.send(b"\x7f\xf1\0\0" + bytes(100))
            await Peer(plain).expect_end()
        async with await anyio.connect_tcp(
            "127.0.0.1", port, ssl_context=client, tls_standard_compatible=False
        ) as stream:
            await Peer(stream).join()


# ---- starting and ending


async def test_where_to_listen_has_to_be_said(tmp_path: Path) -> None:
    app = application()
    with pytest.raises(TypeError):
        await app.serve_rawsocket()
    with pytest.raises(TypeError):
        await app.serve_rawsocket("127.0.0.1", 0, path=tmp_path / "socket")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await app.serve_rawsocket(port=taken.getsockname()[1])


async def test_all_addresses_of_a_name() -> None:
    async with served(application(), "localhost", 0) as port:
        async with await anyio.connect_tcp("localhost", port) as stream:
            await Peer(stream).join()


@pytest.mark.spec("ERR-system_shutdown")
async def test_goodbye_when_the_application_goes_down() -> None:
    app = application()
    async with served(app, port=0) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        peer = Peer(stream)
        await peer.join()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.close_sessions)
            assert await peer.receive() == GOODBYE
            async with await anyio.connect_tcp("127.0.0.1", port) as late:
                assert (await Peer(late).handshake()).hex() == "7f400000"
            await peer.send([6, {}, "wamp.close.goodbye_and_out"])
            await peer.expect_end()


async def test_from_the_lifespan(tmp_path: Path) -> None:
    """The same application serves WebSockets by a server, and RawSockets beside it."""
    ports: list[int] = []

    @asynccontextmanager
    async def lifespan(app: Application) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            ports.append(await tasks.start(partial(app.serve_rawsocket, port=0)))
            yield
            tasks.cancel_scope.cancel()

    app = application(lifespan=lifespan)
    async with anyio.create_task_group() as tasks:
        said = anyio.Event()

        async def stay(port: int) -> None:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                peer = Peer(stream)
                await peer.join()
                said.set()
                await peer.expect_end()  # without GOODBYE: the client is to come back

        async with serve(app):
            with anyio.fail_after(SECONDS):
                while not ports:
                    await anyio.lowlevel.checkpoint()
                tasks.start_soon(stay, ports[0])
                await said.wait()


async def test_a_full_process_accepts_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from errno import EMFILE

    import anyio._backends

    failures = [OSError(EMFILE, "Too many open files"), OSError("reset")]
    create = anyio.create_tcp_listener

    async def create_failing(**arguments: Any) -> Any:
        multi = await create(**arguments)
        (listener,) = multi.listeners
        accept = listener.accept

        async def failing() -> Any:
            if failures:
                raise failures.pop(0)
            return await accept()

        monkeypatch.setattr(listener, "accept", failing)
        return multi

    monkeypatch.setattr(anyio, "create_tcp_listener", create_failing)
    async with connected(application()) as peer:
        await peer.join()
    assert "no connection can be accepted: " in caplog.text


@pytest.mark.spec("RAW-14")
async def test_a_callee_gets_nothing_longer_than_it_can_receive() -> None:
    app = application()
    app.client_register("device")
    async with served(app, port=0) as port, await anyio.connect_tcp("127.0.0.1", port) as one:
        callee = Peer(one)
        await callee.join("7f110000")  # 1024 octets at most
        await callee.send([64, 1, {}, "device"])
        assert (await callee.receive())[:2] == [65, 1]
        async with await anyio.connect_tcp("127.0.0.1", port) as two:
            caller = Peer(two)
            await caller.join()
            await caller.send([48, 1, {}, "device", ["x" * 1024]])
            answer = await caller.receive()
            assert answer[:5] == [8, 48, 1, {}, "wamp.error.payload_size_exceeded"]
            await caller.send([48, 2, {}, "device", ["x"]])
            invocation = await callee.receive()
            assert (invocation[0], invocation[4]) == (68, ["x"])
            await callee.send([70, invocation[1], {}, ["y"]])
            assert await caller.receive() == [50, 2, {}, ["y"]]
