"""Real servers, as their users start them: a command, and a port that it chooses itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.commands import ROOT, Server

from .application import INTENDED_FAILURE

APPLICATION = "tests.clients.application:wamp"

# One process each, so that what is terminated is what serves; and a short time to shut down in.
COMMANDS = {
    "uvicorn": f"uvicorn --port 0 --timeout-graceful-shutdown 1 {APPLICATION}",
    "hypercorn-trio": f"hypercorn -k trio -w 0 -b 127.0.0.1:0 --graceful-timeout 1 {APPLICATION}",
    "anycorn-trio": f"anycorn -k trio -w 0 -b 127.0.0.1:0 --graceful-timeout 1 {APPLICATION}",
    "aiohttp": "tests.clients.application 0",
}


class ClientsServer(Server):
    """A server of `COMMANDS`, of whose procedures one fails."""

    def __init__(self, name: str) -> None:
        super().__init__(tuple(COMMANDS[name].split()), ROOT)

    def check_output(self) -> None:
        """Check that only that procedure has failed."""
        failures = self.output.count("Traceback (most recent call last)")
        assert failures == self.output.count(f"RuntimeError: {INTENDED_FAILURE}"), self.output


@contextmanager
def running(name: str) -> Iterator[str]:
    """Start a server of `COMMANDS`, give its URL, and terminate it in the end."""
    server = ClientsServer(name)
    try:
        server.wait_until_it_serves()
        try:
            yield f"ws://127.0.0.1:{server.port}/"
        finally:
            server.send(signal.SIGTERM)
            server.wait()
    finally:
        server.kill()
