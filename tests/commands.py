"""Servers started by the commands that the examples name, each at a port that it chooses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parents[1]
START_SECONDS = 20.0
STOP_SECONDS = 10.0

RUNNING = re.compile(r"running on http://127\.0\.0\.1:(\d+)", re.IGNORECASE)


class Server:
    """A Python module that runs as a process, and serves at a port."""

    def __init__(self, command: tuple[str, ...], directory: Path) -> None:
        self.command = command
        self.port = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # with the processes that it starts, and without those of ours
        )
        self._lines: list[str] = []
        self._ports: Queue[int | None] = Queue()
        self._printed = threading.Condition()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._printed:
                    self._lines.append(line)
                    self._printed.notify_all()
                if announced := RUNNING.search(line):
                    self._ports.put(int(announced[1]))
        self._ports.put(None)  # it has ended

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait_until_it_serves(self) -> None:
        """Return when it has announced its port.

        Raises: AssertionError with all its output when it doesn't in time.
        """
        too_late = threading.Timer(START_SECONDS, self._process.kill)
        too_late.start()
        port = self._ports.get(timeout=2 * START_SECONDS)
        too_late.cancel()
        assert port is not None, f"{self.command} didn't start:\n{self.output}"
        self.port = port

    def wait_for(self, text: str, times: int) -> None:
        """Return when it has printed a text so many times."""
        with self._printed:
            printed = self._printed.wait_for(
                lambda: self.output.count(text) >= times, START_SECONDS
            )
        assert printed, self.output

    def send(self, number: int, *, to_all: bool = False) -> None:
        """Send a signal to the process; `to_all` also to those that it has started."""
        if to_all:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def wait(self) -> int:
        """Return its status when it has ended.

        Raises: AssertionError with all its output when it doesn't in time, or when the output has
            a traceback.
        """
        try:
            status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.command} didn't stop:\n{self.output}") from None
        self._reading.join(STOP_SECONDS)
        self.check_output()
        return status

    def check_output(self) -> None:
        """Check that nothing has failed, when it has ended."""
        assert "Traceback (most recent call last)" not in self.output, self.output

    def kill(self) -> None:
        """End it, and whatever it has started, if that is still there."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reading.join(STOP_SECONDS)


@contextmanager
def started(*command: str, directory: Path = ROOT) -> Iterator[Server]:
    """Run a Python module with its arguments until it serves; at the end it has to be over.

    The modules in `directory` and those of the repository can be imported.
    """
    server = Server(command, directory)
    try:
        server.wait_until_it_serves()
        yield server
    finally:
        server.kill()


@contextmanager
def serving(*command: str, directory: Path = ROOT) -> Iterator[int]:
    """Run a Python module with its arguments, give the port it announces, and terminate it."""
    with started(*command, directory=directory) as server:
        try:
            yield server.port
        finally:
            server.send(signal.SIGTERM)
            server.wait()
