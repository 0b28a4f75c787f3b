"""Measure, and report: ``python -m tests.benchmark --help``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

from tests.benchmark.modes import Mode, modes
from tests.benchmark.report import HEADER, Measurement, Row
from tests.benchmark.servers import LOAD_CORE, ServerProcess

REFERENCES = {
    "bare": None,
    "serverwamp": "bare",
    "bare, aiohttp": "bare",
    "serverwamp, aiohttp": "bare, aiohttp",
    "serverwamp, hypercorn, trio": "bare",
}
"""Each server that is compared, with the one that it is measured by."""


def measured_rows(mode: Mode, cycles: int, operations: int) -> Sequence[Row]:
    """Put the load of `mode` on all servers in turns, `cycles` times."""
    measurements: dict[str, list[Measurement]] = {name: [] for name in REFERENCES}
    with ExitStack() as stack:
        turns = []
        for name in REFERENCES:
            server = stack.enter_context(ServerProcess(name))
            load = stack.enter_context(closing(mode.connect(server.address, operations)))
            load.run()  # to warm up
            turns.append((server, load))
        for _ in range(cycles):
            for server, load in turns:
                cpu, own_cpu = server.cpu_seconds(), time.process_time()
                window = load.run()
                own_cpu = time.process_time() - own_cpu
                cost = server.cpu_seconds() - cpu
                measurements[server.name].append(Measurement(window, cost, own_cpu))
            turns.append(turns.pop(0))  # another one is the first
    return [
        Row(
            mode.name,
            name,
            mode.target if name == "serverwamp" else None,
            measurements[name],
            measurements[reference or name],
        )
        for name, reference in REFERENCES.items()
    ]


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--cycles", type=int, default=24, help="windows of each server")
    parser.add_argument("--quick", action="store_true", help="prove that it works; no figures")
    parser.add_argument("--only", default="", help="modes whose name begins with this")
    options = parser.parse_args()
    cycles = 2 if options.quick else options.cycles
    os.sched_setaffinity(0, {LOAD_CORE})
    write(HEADER)
    for mode in modes():
        if mode.name.startswith(options.only):
            operations = max(mode.operations // 8, 1) if options.quick else mode.operations
            for row in measured_rows(mode, cycles, operations):
                write(row.text())


if __name__ == "__main__":
    main()
