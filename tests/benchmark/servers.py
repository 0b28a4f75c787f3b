"""The processes that serve: how they are started, observed, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
        with socket.socket() as reserved:  # the server has a copy of it, to listen there
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = reserved.getsockname()
            self._process = subprocess.Popen(
                [python, *program, name, str(reserved.fileno()), str(SERVER_CORE)],
                stdin=subprocess.PIPE,
                pass_fds=[reserved.fileno()],
                start_new_session=True,
            )

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # with its children
        self._process.communicate()

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its children, exact to less than a microsecond."""
        return cpu_seconds(self._process.pid)

    def memory(self) -> int:
        """Return the bytes of memory that belong to the process alone."""
        for line in Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel doesn't tell the memory of a process")


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process and its children, exact to less than a microsecond."""
    return sum(map(_nanoseconds, _tasks(process))) / 1e9


def _tasks(process: int) -> Iterator[Path]:
    """Yield the threads of a process and of all below it."""
    for task in Path(f"/proc/{process}/task").iterdir():
        yield task
        for child in (task / "children").read_text().split():
            yield from _tasks(int(child))


def _nanoseconds(task: Path) -> int:
    return int((task / "schedstat").read_text().split()[0])
