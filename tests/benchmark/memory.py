"""What an idle session weighs."""

from __future__ import annotations

import time

from tests.benchmark.load import Client
from tests.benchmark.servers import ServerProcess


def per_session(name: str, python: str, subprotocol: str, count: int) -> float:
    """Return the KiB that each of `count` sessions adds to a server."""
    with ServerProcess(name, python) as server:
        before = [Client(server.address, subprotocol) for _ in range(100)]  # to warm up
        memory = server.memory()
        clients = [Client(server.address, subprotocol) for _ in range(count)]
        time.sleep(0.2)
        memory = server.memory() - memory
        for client in (*before, *clients):
            client.close()
    return memory / count / 1024
