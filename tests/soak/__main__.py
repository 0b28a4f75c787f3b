"""Soak the package, and say what is left: ``python -m tests.soak --help``."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from statistics import median

from tests.benchmark.servers import LOAD_CORE, ServerProcess
from tests.soak import cycles
from tests.soak.application import SERVICES
from tests.soak.counts import MEMORY, OBJECTS, Counts, Observer, grown
from tests.soak.crowd import Crowd, close

PROGRAM = ("-m", "tests.soak.application")
MEBIBYTE = 1024 * 1024
UNCOUNTED = sys.maxsize
TIMES_UNDISTURBED = 2.0
"""What the p99 of those who read may be, where others don't."""


def write(line: str) -> None:
    """Write a line to where the report goes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def passed(fault: str) -> bool:
    """Write what is wrong, if anything is, and tell whether nothing is."""
    write(f"FAILED: {fault}" if fault else "passed")
    return not fault


def is_flat(columns: Mapping[str, Counts], allowances: Counts) -> bool:
    """Write what there was, and tell whether none of it has grown by too much in the end."""
    before, *_, after = columns.values()
    write(f"{'':24}{''.join(f'{title:>14}' for title in columns)}{'growth':>14}")
    for name, count in before.items():
        numbers = "".join(f"{counts[name]:14,}" for counts in columns.values())
        write(f"{name:24}{numbers}{after[name] - count:+14,}")
    return passed(", ".join(f"not flat: {name}" for name in grown(before, after, allowances)))


def write_types(before: Counts, after: Counts) -> None:
    """Write the types of which there are more objects."""
    growth = {kind: count - before.get(kind, 0) for kind, count in after.items()}
    for kind, more in sorted(growth.items(), key=lambda item: -item[1])[:10]:
        if more > 0:
            write(f"    {kind:58}{more:+8,}")


def soak_cycles(server: str, count: int) -> bool:
    """Let clients come and vanish; tell whether what the server holds is flat."""
    write(f"{count:,} cycles of connect, subscribe, call, cancel, vanish; {server}")
    allowances = {OBJECTS: 50, MEMORY: 2 * MEBIBYTE}
    warm_up = max(count // 5, cycles.KINDS)
    middle = warm_up + count // 2
    with (
        ServerProcess(server, program=PROGRAM) as process,
        closing(Observer(process.address)) as observer,
    ):
        nothing = observer.counts()
        cycles.run(process.address, range(warm_up))
        before = observer.settled(nothing, {OBJECTS: UNCOUNTED, MEMORY: UNCOUNTED})
        types = observer.types
        cycles.run(process.address, range(warm_up, middle))
        halfway = observer.settled(before, allowances)
        cycles.run(process.address, range(middle, warm_up + count))
        after = observer.settled(before, allowances)
        write_types(types, observer.types)
    return is_flat({"before": before, "halfway": halfway, "after": after}, allowances)


def soak_crowd(server: str, sessions: int, pairs: int) -> bool:
    """Hold sessions, of which some never read; tell whether the server or the others mind.

    With a single pair of windows no time is judged.
    """
    unreading = sessions // 50
    write(f"\n{sessions:,} sessions, of which {unreading:,} never read; {server}")
    while_held = {OBJECTS: UNCOUNTED, MEMORY: 16 * MEBIBYTE}  # they don't answer pings meanwhile
    in_the_end = {OBJECTS: 500, MEMORY: UNCOUNTED}
    with (
        ServerProcess(server, program=PROGRAM) as process,
        closing(Observer(process.address)) as observer,
    ):
        nothing = observer.counts()
        cycles.run(process.address, range(cycles.KINDS))
        nothing = observer.settled(nothing, {OBJECTS: UNCOUNTED, MEMORY: UNCOUNTED})
        crowd = Crowd(process.address, sessions - unreading)
        crowd.window()  # to warm up
        before = observer.counts()
        ratios = []
        write(f"{'p99, ms':28}{'calls':>10}{'events':>10}")
        for _ in range(pairs):
            others = crowd.more(unreading)
            calm = crowd.window(others)
            close(others)
            observer.settled(before, while_held)
            others = crowd.more_unreading(unreading)
            crowded = observer.counts()
            disturbed = crowd.window()
            after = observer.settled(before, while_held)  # they haven't closed, nor read
            close(others)
            ratios.append((disturbed.calls / calm.calls, disturbed.events / calm.events))
            write(f"{'all read':28}{calm.calls:10.1f}{calm.events:10.1f}")
            write(f"{'some never read':28}{disturbed.calls:10.1f}{disturbed.events:10.1f}")
        crowd.close()
        left = observer.settled(nothing, in_the_end)
    slower = [median(of_a_kind) for of_a_kind in zip(*ratios, strict=True)]
    write(f"{'times, in the median':28}{slower[0]:10.2f}{slower[1]:10.2f}")
    late = pairs > 1 and max(slower) > TIMES_UNDISTURBED
    return all(
        (
            passed("the others have to wait" if late else ""),
            is_flat({"before": before, "unread": crowded, "after": after}, while_held),
            is_flat({"nobody": nothing, "again": left}, in_the_end),
        )
    )


def parsed_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--server", choices=SERVICES, default="uvicorn", help="uvicorn")
    parser.add_argument("--cycles", type=int, default=10_000, help="clients that vanish; 10,000")
    parser.add_argument("--sessions", type=int, default=5000, help="sessions held; 5,000")
    parser.add_argument("--pairs", type=int, default=6, help="of windows, to compare times; 6")
    parser.add_argument("--quick", action="store_true", help="less of all; judges no time")
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed_options()
    os.sched_setaffinity(0, {LOAD_CORE})
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # servers inherit it
    if options.quick:
        options.cycles, options.sessions, options.pairs = cycles.KINDS, 300, 1
    flat = soak_cycles(options.server, options.cycles)
    calm = soak_crowd(options.server, options.sessions, options.pairs)
    sys.exit(0 if flat and calm else 1)


if __name__ == "__main__":
    main()
