"""Measure, and report: ``python -m tests.benchmark --help``."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from statistics import median

from tests.benchmark import inprocess, memory
from tests.benchmark.modes import BATCHING, COMPARISONS, REFERENCES, SCALING, Mode
from tests.benchmark.report import HEADER, Measurement, Row, plot, span
from tests.benchmark.servers import LOAD_CORE, ServerProcess


def measured_rows(
    modes: Sequence[Mode], cycles: int, parts: int, peers: Mapping[str, str]
) -> Sequence[Row]:
    """Put the loads of `modes` on their servers in turns, `cycles` times.

    A window is one of `parts` of what the mode says. `peers` are more servers, each with the
    Python interpreter that runs it.
    """
    measured: dict[str, tuple[Mode, list[Measurement]]] = {}
    with ExitStack() as stack:
        turns = []
        for mode in modes:
            more = {name: peers[name] for name in mode.peers if name in peers}
            for name in (*mode.servers, *more):
                server = stack.enter_context(ServerProcess(name, more.get(name, sys.executable)))
                operations = max(mode.operations // parts, 1)
                load = stack.enter_context(
                    closing(mode.connect(server.address, mode.spoken_by(name), operations))
                )
                load.run()  # to warm up
                measured[name] = mode, []
                turns.append((server, load))
        for _ in range(cycles):
            for server, load in turns:
                cpu, own_cpu = server.cpu_seconds(), time.process_time()
                window = load.run()
                own_cpu = time.process_time() - own_cpu
                cost = server.cpu_seconds() - cpu
                measured[server.name][1].append(Measurement(window, cost, own_cpu))
            turns.append(turns.pop(0))  # another one is the first
    return [
        Row(
            mode.name,
            name,
            mode.target if name == "serverwamp" else None,
            measurements,
            measured[name if name.startswith("bare") else REFERENCES.get(name, "bare")][1],
        )
        for name, (mode, measurements) in measured.items()
    ]


def write(line: str) -> None:
    """Write a line to where the report goes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def compare(cycles: int, parts: int, peers: Mapping[str, str], only: str) -> Sequence[Row]:
    """Measure and write the table; return its rows."""
    rows: list[Row] = []
    write(HEADER)
    for mode in COMPARISONS:
        if mode.name.startswith(only):
            found = measured_rows([mode], cycles, parts, peers)
            rows.extend(found)
            for row in found:
                write(row.text())
    return rows


def compare_batching(cycles: int, parts: int) -> None:
    """Write what batching gains."""
    write(f"\nBatched; to be measured by the rate, which should be 3 times the other\n{HEADER}")
    for row in measured_rows(BATCHING, cycles, parts, {}):
        write(row.text())


def compare_in_process(cycles: int, calls: int) -> None:
    """Write what a call costs without sockets."""
    bare, ours = zip(*inprocess.pairs(cycles, calls), strict=True)
    write("\nCalls in process, without sockets, CPU us per call; target 12.0 where bare is 3.6")
    write(f"  {'bare':28}{median(bare):8.2f}  {span(bare)}")
    write(f"  {'serverwamp':28}{median(ours):8.2f}  {span(ours)}")
    ratios = [mine / other for mine, other in zip(ours, bare, strict=True)]
    write(f"  {'ratio':28}{median(ratios):8.2f}  {span(ratios)}")
    for name, costs in inprocess.scaling(max(cycles // 4, 2), calls):
        write(f"  {name:28}{median(costs):8.2f}  {span(costs)}")


def weigh(count: int, peers: Mapping[str, str]) -> None:
    """Write what an idle session weighs."""
    write(f"\nMemory of an idle session, {count:,} held, KiB; target at most 8.0 above bare")
    mode = COMPARISONS[0]
    for name in (*mode.servers, *(peer for peer in mode.peers if peer in peers)):
        subprotocol, *_ = mode.spoken_by(name)
        weight = memory.per_session(name, peers.get(name, sys.executable), subprotocol, count)
        write(f"  {name:28}{weight:8.1f}")


def scale(cycles: int, parts: int) -> None:
    """Write how the cost grows with sessions and payloads."""
    write(f"\nHow the cost grows\n{HEADER}")
    for mode in SCALING:
        for row in measured_rows([mode], cycles, parts, {}):
            write(row.text())


def parsed_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--cycles", type=int, default=12, help="windows of each server; 12")
    parser.add_argument("--quick", action="store_true", help="prove that it works; no figures")
    parser.add_argument("--only", default="", help="just comparisons whose name begins with this")
    parser.add_argument("--plot", help="where to write the plot: a file name with .svg or .png")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help='"serverwamp, before", "serverwamp 2.0.0", "fastapi-headless-wamp", "python-socketio"'
        ' or "crossbar", and the Python interpreter that has it',
    )
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed_options()
    os.sched_setaffinity(0, {LOAD_CORE})
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # servers inherit it
    cycles, parts = (2, 16) if options.quick else (options.cycles, 1)
    peers = dict(peer.split("=", 1) for peer in options.peer)
    if not options.only:
        compare_in_process(cycles, 20_000 // parts)
        weigh(1000 // parts, peers)
        write("")
    rows = compare(cycles, parts, peers, options.only)
    if not options.only:
        compare_batching(cycles, parts)
        if not options.quick:
            scale(max(cycles // 2, 2), parts)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
