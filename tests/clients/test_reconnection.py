"""AutobahnJS and Wampy.js while a server is restarted: do they come back by themselves?"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.commands import Server, started
from tests.test_shutdown import join

SCRIPT = Path(__file__).parent / "javascript" / "reconnect.js"
CLIENTS = ("autobahn-js", "wampy-js")
SECONDS = 20.0

pytestmark = [pytest.mark.node, pytest.mark.process]


class Clients:
    """Both clients, in one process; what happens to them is read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._happened: Queue[Any] = Queue()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._happened.put(json.loads(line) if line.startswith("[") else line)

    def expect(self, **texts: str) -> None:
        """Expect that what is told next is this, of each client."""
        told = sorted(self._next() for _ in texts)
        assert told == [[name.replace("_", "-"), text] for name, text in sorted(texts.items())]

    def expect_of_both(self, text: str) -> None:
        self.expect(**{name.replace("-", "_"): text for name in CLIENTS})

    def _next(self) -> Any:
        told = self._happened.get(timeout=SECONDS)
        # AutobahnJS logs its attempts.
        return told if isinstance(told, list) else self._next()

    def join(self) -> None:
        self._reading.join(SECONDS)


@contextmanager
def connected(node: str, server: Server) -> Iterator[Clients]:
    with subprocess.Popen(
        [node, str(SCRIPT), f"ws://127.0.0.1:{server.port}/"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        clients = Clients(process)
        try:
            yield clients
        finally:
            process.kill()
            clients.join()


def uvicorn(app: str, port: int) -> tuple[str, ...]:
    return ("uvicorn", f"tests.shutdown_app:{app}", "--port", str(port))


def terminate(server: Server) -> None:
    server.send(signal.SIGTERM)
    server.wait()


@pytest.mark.parametrize("app", ["wamp", "site"])
def test_they_come_back_after_a_restart(node: str, app: str) -> None:
    with ExitStack() as stack:
        with started(*uvicorn(app, 0)) as server:
            clients = stack.enter_context(connected(node, server))
            clients.expect_of_both("subscribed")
            terminate(server)
        with started(*uvicorn(app, server.port)) as server:
            clients.expect_of_both("subscribed")
            publisher = join(server, stack)
            publisher.send(48, 1, {}, "publish", ["back again"])
            clients.expect_of_both("back again")
            assert publisher.receive()[0] == 50


def test_after_goodbye_they_stay_away(node: str) -> None:
    with started(*uvicorn("polite", 0)) as server, connected(node, server) as clients:
        clients.expect_of_both("subscribed")
        terminate(server)
        reason = "wamp.close.system_shutdown"
        clients.expect(autobahn_js=f"closed: {reason}", wampy_js="closed")
        assert clients.process.wait(SECONDS) == 0
