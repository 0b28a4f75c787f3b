"""Soak the package, and say what is left: ``python -m tests.soak --help``."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmark.servers import LOAD_CORE, ServerProcess
from tests.soak import cycles
from tests.soak.application import SERVICES
from tests.soak.counts import Observer, grown


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def flat(before: Mapping[str, Any], half: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Write what there was, and tell whether nothing has grown by more than it may."""
    write(f"{'':24}{'before':>14}{'halfway':>14}{'after':>14}{'growth':>12}")
    for name, count in before.items():
        if name != "types":
            growth = after[name] - count
            write(f"{name:24}{count:14,}{half[name]:14,}{after[name]:14,}{growth:+12,}")
    types = {kind: count - before["types"].get(kind, 0) for kind, count in after["types"].items()}
    for kind, growth in sorted(types.items(), key=lambda item: -item[1])[:8]:
        if growth > 0:
            write(f"    {kind:58}{growth:+8,}")
    names = ", ".join(grown(before, after))
    write(f"FAILED: not flat: {names}" if names else "passed: everything is flat")
    return not names


def soak_cycles(server: str, count: int) -> bool:
    write(f"\n{count:,} cycles of connect, subscribe, call, cancel, vanish; {server}")
    warm_up = max(count // 5, 304)
    with ServerProcess(server, program=("-m", "tests.soak.application")) as process:
        observer = Observer(process.address)
        observer.settled()
        cycles.run(process.address, range(warm_up))
        before = observer.settled()
        middle = warm_up + count // 2
        cycles.run(process.address, range(warm_up, middle))
        half = observer.settled(before)
        cycles.run(process.address, range(middle, warm_up + count))
        after = observer.settled(before)
        observer.close()
    return flat(before, half, after)


def parsed_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--server", choices=SERVICES, default="uvicorn")
    parser.add_argument("--cycles", type=int, default=10_000)
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed_options()
    os.sched_setaffinity(0, {LOAD_CORE})
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    passed = soak_cycles(options.server, options.cycles)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
