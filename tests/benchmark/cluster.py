"""One realm over several processes, and Redis: ``python -m tests.benchmark.cluster --help``.

A publisher and its workers are processes of their own; `cluster_programs` is what they run. The
compared packages have their processes up at the same time, and take turns on the same Redis.
"""

from __future__ import annotations

import argparse
import json
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmark.servers import cpu_seconds

PROGRAMS = Path(__file__).parent / "cluster_programs.py"
TIMEOUT = 30.0
TOPICS = [f"bench.topic{number}" for number in range(100)]
HISTORIES = ("serverwamp, history",)
OURS = ("serverwamp", "serverwamp, trio", "serverwamp, sessions")
PEERS = ("python-socketio", "channels_redis")


@dataclass(frozen=True, slots=True)
class Mode:
    """How events are published."""

    name: str
    request: str
    count: int
    amount: int
    """How many are in flight, or how many are published in a second."""
    targets: str = ""
    systems: Sequence[str] = (*OURS, *PEERS)


SINGLE = Mode("one in flight", "publish", 1000, 1)
PACED = Mode("1,000 a second", "publish, paced", 2000, 1000, "p99 6 ms")
UNDER_LOAD = "publisher 10 us (trio 14), receiver 4 (6), 40,000/s"
LOAD = Mode("64 in flight", "publish", 16_000, 64, UNDER_LOAD)
MORE_LOAD = Mode("256 in flight", "publish", 16_000, 256, UNDER_LOAD, OURS)
"""Without the peers, of which one needs more connections than it may have."""
HISTORY = Mode("history, 64 in flight", "publish", 8000, 64, "8,000/s", HISTORIES)


class Program:
    """A publisher or a worker, as a process."""

    def __init__(self, system: str, python: str, url: str, topics: Sequence[str]) -> None:
        self.topics = frozenset(topics)
        self._process = subprocess.Popen(
            [python, str(PROGRAMS), system, url, json.dumps(topics)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return the answer to what was asked; there is one at a time."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], TIMEOUT)[0]:
            raise TimeoutError("a process doesn't answer")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process has ended")
        return json.loads(line)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._process.pid)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one window cost, in CPU microseconds for each publication."""

    publisher: float
    receiver: float
    """The mean of the workers."""
    redis: float
    rate: float
    """Publications in a second, until the last has arrived everywhere."""
    latencies: Sequence[int]
    """Microseconds from publishing an event to its arrival at a worker, sorted."""

    @property
    def total(self) -> float:
        """The cost of the three together."""
        return self.publisher + self.receiver + self.redis

    def quantile(self, part: float) -> float:
        """Milliseconds that this part of the latencies doesn't exceed."""
        return self.latencies[int(part * (len(self.latencies) - 1))] / 1000


class Cluster:
    """A publisher and workers that share a realm."""

    def __init__(
        self, system: str, python: str, url: str, redis: int, interests: Sequence[Sequence[str]]
    ) -> None:
        """Start a worker for each of `interests`, the topics that it wants."""
        self._redis = redis
        self._publisher = Program(system, python, url, [])
        self._workers = [Program(system, python, url, topics) for topics in interests]

    def wait_until_ready(self) -> None:
        for program in (self._publisher, *self._workers):
            program.answer()

    def run(self, mode: Mode, count: int) -> Measurement:
        """Publish `count` events; return when every worker has all that it wants."""
        programs = (self._publisher, *self._workers)
        published = [TOPICS[number % len(TOPICS)] for number in range(count)]
        for worker in self._workers:
            worker.ask("receive", sum(topic in worker.topics for topic in published))
        before = [program.cpu_seconds() for program in programs]
        redis, start = cpu_seconds(self._redis), time.perf_counter()
        self._publisher.ask(mode.request, TOPICS, count, mode.amount)
        for program in programs:
            program.answer()
        seconds = time.perf_counter() - start
        redis = cpu_seconds(self._redis) - redis
        publisher, *receivers = (
            (program.cpu_seconds() - spent) / count * 1e6
            for program, spent in zip(programs, before, strict=True)
        )
        latencies: list[int] = []
        for worker in self._workers:
            worker.ask("latencies")
            latencies += worker.answer()
        return Measurement(
            publisher,
            sum(receivers) / len(receivers),
            redis / count * 1e6,
            count / seconds,
            sorted(latencies),
        )

    def end(self) -> None:
        for program in (self._publisher, *self._workers):
            program.end()


class Bench:
    """A Redis, and the packages that are compared on it."""

    def __init__(self, url: str, redis: int, peers: Mapping[str, str], cycles: int) -> None:
        self._url = url
        self._redis = redis
        self._peers = peers
        self._cycles = cycles

    @contextmanager
    def clusters(
        self, systems: Sequence[str], interests: Sequence[Sequence[str]]
    ) -> Iterator[Mapping[str, Cluster]]:
        """Have a cluster of each system: of `systems`, and of the peers."""
        pythons = {**dict.fromkeys(systems, sys.executable), **self._peers}
        with ExitStack() as stack:
            clusters = {}
            for system, python in pythons.items():
                cluster = Cluster(system, python, self._url, self._redis, interests)
                stack.callback(cluster.end)
                clusters[system] = cluster
            for cluster in clusters.values():
                cluster.wait_until_ready()
            yield clusters

    def measure(
        self, clusters: Mapping[str, Cluster], mode: Mode, count: int
    ) -> Mapping[str, Sequence[Measurement]]:
        """Let the clusters take turns."""
        measured: dict[str, list[Measurement]] = {system: [] for system in clusters}
        turns = list(clusters.items())
        for _, cluster in turns:
            cluster.run(mode, max(count // 4, 1))  # to warm up
        for _ in range(self._cycles):
            for system, cluster in turns:
                measured[system].append(cluster.run(mode, count))
            turns.append(turns.pop(0))  # another one is the first
        return measured

    # ---- what is reported

    def compare(self, parts: int) -> None:
        """Write what a publication costs with two workers that want everything."""
        write("CPU us of a publication; latencies from publishing to the arrival at a worker")
        write(
            f"{'mode':23}{'package':22}{'publisher':>10}{'receiver':>10}{'Redis':>8}{'ratio':>7}"
            f"{'per s':>9}{'p50 ms':>8}{'p99 ms':>8}  targets"
        )
        with self.clusters((*OURS, *HISTORIES), [TOPICS, TOPICS]) as clusters:
            for mode in (SINGLE, PACED, LOAD, MORE_LOAD, HISTORY):
                taking_part = {
                    system: cluster
                    for system, cluster in clusters.items()
                    if system in mode.systems
                }
                self._write_rows(mode, self.measure(taking_part, mode, mode.count // parts))

    def _write_rows(self, mode: Mode, measured: Mapping[str, Sequence[Measurement]]) -> None:
        references = next(iter(measured.values()))
        for system, windows in measured.items():
            pairs = zip(windows, references, strict=True)
            ratio = median(mine.total / reference.total for mine, reference in pairs)
            write(
                f"{mode.name:23}{system:22}"
                f"{median(window.publisher for window in windows):10.1f}"
                f"{median(window.receiver for window in windows):10.1f}"
                f"{median(window.redis for window in windows):8.1f}{ratio:7.2f}"
                f"{median(window.rate for window in windows):9,.0f}"
                f"{median(window.quantile(0.5) for window in windows):8.2f}"
                f"{median(window.quantile(0.99) for window in windows):8.2f}  {mode.targets}"
            )

    def scale(self, sizes: Sequence[int], parts: int) -> None:
        """Write what a publication costs a process, with more processes in the realm."""
        write(
            "\nCPU us of each worker for a publication in the realm, by the number of workers;"
            " 64 in flight\n"
            f"{'each process wants':23}{'package':22}" + "".join(f"{size:10}" for size in sizes)
        )
        for wanted, topics_of in (
            ("all 100 topics", lambda number: TOPICS),
            ("one topic", lambda number: TOPICS[number : number + 1]),
        ):
            costs: dict[str, list[float]] = {}
            for size in sizes:
                interests = [topics_of(number) for number in range(size)]
                with self.clusters(OURS[:1], interests) as clusters:
                    measured = self.measure(clusters, LOAD, LOAD.count // parts)
                for system, windows in measured.items():
                    cost = median(window.receiver for window in windows)
                    costs.setdefault(system, []).append(cost)
            for system, found in costs.items():
                write(f"{wanted:23}{system:22}" + "".join(f"{cost:10.2f}" for cost in found))


@contextmanager
def redis_server() -> Iterator[tuple[str, int]]:
    """Run a Redis that stores nothing on disk; yield its URL and its process id."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server isn't installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        process = subprocess.Popen([*command, "--dir", directory], stdout=subprocess.DEVNULL)
        try:
            given_up = time.monotonic() + TIMEOUT
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if time.monotonic() > given_up:
                    raise TimeoutError("redis-server doesn't start")
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}", process.pid
        finally:
            process.kill()
            process.wait()


def write(line: str) -> None:
    """Write a line to where the report goes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def parsed_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.cluster", description=__doc__)
    parser.add_argument("--cycles", type=int, default=8, help="windows of each package; 8")
    parser.add_argument("--quick", action="store_true", help="prove that it works; no figures")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help=f"{' or '.join(PEERS)}, and the Python interpreter that has it, AnyIO, and uvloop",
    )
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed_options()
    peers = dict(peer.split("=", 1) for peer in options.peer)
    cycles, parts = (1, 20) if options.quick else (options.cycles, 1)
    with redis_server() as (url, process):
        Bench(url, process, peers, cycles).compare(parts)
        sizes = (1,) if options.quick else (1, 2, 4, 8)
        Bench(url, process, peers, max(cycles // 2, 1)).scale(sizes, parts)


if __name__ == "__main__":
    main()
