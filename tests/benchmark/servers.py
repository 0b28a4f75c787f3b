"""The processes that serve: how they are started, observed, and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

APPLICATIONS = Path(__file__).parent / "applications.py"


def cores() -> tuple[int, int]:
    """Return the core of the servers and the core of the load: the same where there is but one."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


SERVER_CORE, LOAD_CORE = cores()


class ServerProcess:
    """A service in a process of its own, from ``with`` to the end of the block."""

    def __init__(
        self,
        name: str,
        python: str = sys.executable,
        program: Sequence[str] = (str(APPLICATIONS),),
    ) -> None:
        """Run a service of `program`, which is what `python` is given to run."""
        self.name = name
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.address: tuple[str, int] = self._listener.getsockname()
        descriptor = self._listener.fileno()
        self._process = subprocess.Popen(
            [python, *program, name, str(descriptor), str(SERVER_CORE)],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
        )
        self._listener.close()  # the server's copy stays open

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def cpu_seconds(self) -> float:
        """Return the CPU time of all threads of the process, exact to less than a microsecond."""
        tasks = Path(f"/proc/{self._process.pid}/task")
        times = [(task / "schedstat").read_text().split()[0] for task in tasks.iterdir()]
        return sum(map(int, times)) / 1e9

    def memory(self) -> int:
        """Return the bytes of memory that belong to the process alone."""
        for line in Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel doesn't tell the memory of a process")
