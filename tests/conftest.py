"""Every async test runs on asyncio and on trio; only tests in this process are measured."""

from __future__ import annotations

import pytest

IN_OTHER_PROCESSES = {"browser", "clients"}
"""The folders whose tests use servers that run as processes."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The tracer would slow down the clients, and would find nothing of the servers.
    for item in items:
        if item.path.parent.name in IN_OTHER_PROCESSES:
            item.add_marker(pytest.mark.no_cover)
