"""Real servers, as their users start them: a command, and a port that it chooses itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

from .application import INTENDED_FAILURE

ROOT = Path(__file__).parents[2]
APPLICATION = "tests.clients.application:wamp"

# One process each, so that what is terminated is what serves; and a short time to shut down in.
COMMANDS = {
    "uvicorn": f"uvicorn --port 0 --timeout-graceful-shutdown 1 {APPLICATION}",
    "hypercorn-trio": f"hypercorn -k trio -w 0 -b 127.0.0.1:0 --graceful-timeout 1 {APPLICATION}",
    "anycorn-trio": f"anycorn -k trio -w 0 -b 127.0.0.1:0 --graceful-timeout 1 {APPLICATION}",
    "aiohttp": "tests.clients.application 0",
}
START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0

ANNOUNCEMENT = re.compile(r"running on http://127\.0\.0\.1:(\d+)", re.IGNORECASE)


class Server:
    """A running server; its output is read all the time, so that it is never held up by it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", *COMMANDS[name].split()],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._ports: Queue[int | None] = Queue()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.append(line)
                announced = ANNOUNCEMENT.search(line)
                if announced:
                    self._ports.put(int(announced[1]))
        self._ports.put(None)  # it has ended, maybe before it could announce anything

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait_for_url(self) -> str:
        """Return where clients connect to: every server tells, once it accepts connections."""
        try:
            port = self._ports.get(timeout=START_TIMEOUT)
        except Empty:
            port = None
        if port is None:
            raise RuntimeError(f"{self.name} did not start:\n{self.output}")
        return f"ws://127.0.0.1:{port}/"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"{self.name} did not stop:\n{self.output}") from None
        finally:
            self._reading.join()

    def check_log(self) -> None:
        """Fail when anything but the intended failure went wrong in the server."""
        failures = self.output.count("Traceback (most recent call last)")
        assert failures == self.output.count(f"RuntimeError: {INTENDED_FAILURE}"), self.output


@contextmanager
def running(name: str) -> Iterator[str]:
    """Start a server of `COMMANDS`, hand out its URL, and stop it in the end."""
    server = Server(name)
    try:
        yield server.wait_for_url()
    finally:
        server.stop()
    server.check_log()
