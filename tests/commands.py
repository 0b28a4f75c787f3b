"""Servers started by the commands that the examples name, each at a port that it chooses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parents[1]
START_SECONDS = 20.0
STOP_SECONDS = 10.0

RUNNING = re.compile(r"running on http://127\.0\.0\.1:(\d+)", re.IGNORECASE)


@contextmanager
def serving(*command: str, directory: Path = ROOT) -> Iterator[int]:
    """Run a Python module with its arguments, give the port it announces, and terminate it.

    The modules in `directory` and those of the repository can be imported.

    Raises: AssertionError with all its output when it doesn't start or stop in time, or when the
        output has a traceback.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output: list[str] = []
    ports: Queue[int | None] = Queue()

    def read() -> None:
        assert server.stdout is not None
        with server.stdout as lines:
            for line in lines:
                output.append(line)
                if announced := RUNNING.search(line):
                    ports.put(int(announced[1]))
        ports.put(None)  # it has ended

    reading = threading.Thread(target=read)
    reading.start()
    too_late = threading.Timer(START_SECONDS, server.kill)
    too_late.start()
    try:
        port = ports.get(timeout=2 * START_SECONDS)
        too_late.cancel()
        assert port is not None, f"{command} didn't start:\n{''.join(output)}"
        yield port
    finally:
        too_late.cancel()
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            raise AssertionError(f"{command} didn't stop:\n{''.join(output)}") from None
        finally:
            reading.join(STOP_SECONDS)
    assert "Traceback (most recent call last)" not in "".join(output), "".join(output)
