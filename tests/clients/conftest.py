"""What the clients in this folder need: servers, and Node.js."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import COMMANDS, running

HERE = Path(__file__).parent


@pytest.fixture(scope="session", params=COMMANDS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a running server."""
    with running(request.param) as url:
        yield url


@pytest.fixture(scope="session")
def node() -> str:
    """The Node.js that has the clients; without it tests are skipped, but never in CI."""
    node = shutil.which("node")
    if node is not None and (HERE / "node_modules").is_dir():
        return node
    missing = "Node.js is missing" if node is None else f"run `npm ci` in {HERE.name} first"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)
