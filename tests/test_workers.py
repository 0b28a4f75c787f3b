"""Several worker processes of one server, with a backplane and without."""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets import Subprotocol
from websockets.sync.client import ClientConnection, connect

from serverwamp import Application
from serverwamp.serving.workers import count_of_workers
from tests.commands import Server, started
from tests.redis_servers import anybody, redis_server

WORKERS = 4
READY = {"uvicorn": "Application startup complete", "hypercorn": "Running on"}

SERVICE = """
import os
import serverwamp
from serverwamp.backplanes import RedisBackplane

url = {url!r}
wamp = serverwamp.Application(backplane=RedisBackplane(url) if url else None)

@wamp.topic("com.topic", client_publish=True)
async def topic():
    yield

@wamp.route("process")
async def process():
    return os.getpid()
"""


@pytest.fixture(params=["uvicorn", "hypercorn"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def start(url: str) -> Any:
        (tmp_path / "service.py").write_text(SERVICE.format(url=url))
        address = {
            "uvicorn": ("--host", "127.0.0.1", "--port", "0"),
            "hypercorn": ("--bind", "127.0.0.1:0"),
        }
        command = (
            request.param,
            "service:wamp",
            "--workers",
            str(WORKERS),
            *address[request.param],
        )
        return started(*command, directory=tmp_path)

    return start


@pytest.mark.process
def test_without_a_backplane_several_workers_are_a_mistake(workers: Any) -> None:
    with workers("") as server:
        server.wait_for(f"{WORKERS} worker processes serve the application", WORKERS)
        assert "RedisBackplane" in server.output


class WAMPClient:
    """A client that has joined, over a WebSocket of its own."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.ask([1, "realm1", {"roles": {"publisher": {}, "subscriber": {}, "caller": {}}}], 2)

    def ask(self, message: list[Any], answer: int) -> list[Any]:
        self._socket.send(json.dumps(message))
        return self.expect(answer)

    def publish(self, topic: str, args: list[Any]) -> None:
        options = {"acknowledge": True, "exclude_me": False}
        self._socket.send(json.dumps([16, 3, options, topic, args]))

    def receive(self) -> list[Any]:
        message: list[Any] = json.loads(self._socket.recv(timeout=10))
        return message

    def expect(self, code: int) -> list[Any]:
        message = self.receive()
        assert message[0] == code, message
        return message


@contextmanager
def joined(server: Server) -> Iterator[WAMPClient]:
    url = f"ws://127.0.0.1:{server.port}/"
    with connect(url, subprotocols=[Subprotocol("wamp.2.json")], proxy=None) as socket:
        yield WAMPClient(socket)


@pytest.mark.process
def test_with_a_backplane_events_reach_the_clients_of_all_workers(workers: Any) -> None:
    with redis_server() as redis, workers(redis.url) as server, ExitStack() as stack:
        server.wait_for(READY[server.command[0]], WORKERS)
        clients: list[WAMPClient] = []
        workers_reached: set[int] = set()
        while len(workers_reached) < WORKERS:
            assert len(clients) < 100, "some workers accept no connections"
            clients.append(stack.enter_context(joined(server)))
            workers_reached.add(clients[-1].ask([48, 1, {}, "process"], 50)[3][0])
        for client in clients:
            client.ask([32, 2, {}, "com.topic"], 33)
        for number, client in enumerate(clients[:4]):
            client.publish("com.topic", [number])
            for each in clients:
                messages = [each.receive() for _ in range(1 + (each is client))]
                assert [m[4] for m in messages if m[0] == 36] == [[number]]
        assert "worker processes" not in server.output


# ---- detecting them


def options_of_server(monkeypatch: pytest.MonkeyPatch, *words: str, **environment: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/gunicorn", *words])
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"):
        monkeypatch.setenv(name, environment.get(name, ""))


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ([], 1),
        (["-w", "4", "app:app"], 4),
        (["-w4"], 4),
        (["--workers", "3"], 3),
        (["--workers=2"], 2),
        (["--workers=2", "-w", "5"], 5),
        (["-w"], 1),
        (["-w", "many"], 1),
    ],
)
def test_the_command_line_of_gunicorn(
    monkeypatch: pytest.MonkeyPatch, words: list[str], count: int
) -> None:
    options_of_server(monkeypatch, *words)
    assert count_of_workers() == count


def test_the_environment_of_gunicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    options_of_server(monkeypatch, WEB_CONCURRENCY="4")
    assert count_of_workers() == 4
    options_of_server(monkeypatch, "-w", "2", WEB_CONCURRENCY="4")
    assert count_of_workers() == 2
    options_of_server(monkeypatch, GUNICORN_CMD_ARGS="--workers 3")
    assert count_of_workers() == 3


@pytest.mark.parametrize(("workers_count", "has_topics"), [(1, True), (4, False), (4, True)])
def test_who_is_warned(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    workers_count: int,
    has_topics: bool,
) -> None:
    config = SimpleNamespace(workers=workers_count)
    monkeypatch.setattr(multiprocessing.current_process(), "_kwargs", {"config": config}, False)
    app = Application()
    if has_topics:
        app.topic("com.topic")(anybody)
    with caplog.at_level(logging.WARNING):
        app.freeze()
        app.freeze()
    assert len(caplog.records) == (workers_count > 1 and has_topics)
