"""The servers that the clients are run against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .servers import COMMANDS, running


@pytest.fixture(scope="session", params=COMMANDS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a running server."""
    with running(request.param) as url:
        yield url
