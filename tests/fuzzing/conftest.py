"""How long is searched."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "short")

COMMON = settings(
    deadline=None,  # the machine may be busy
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining takes ages
    report_multiple_bugs=False,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,  # the backend: nothing is left there by an example
        HealthCheck.too_slow,
    ],
)
settings.register_profile("short", COMMON, max_examples=300, derandomize=True, database=None)
settings.register_profile("long", COMMON, max_examples=10_000)
settings.load_profile(PROFILE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # By a thread, which ends the process: an exception would only be taken for another failure.
    timeout = pytest.mark.timeout(180 if PROFILE == "short" else 7200, method="thread")
    for item in items:
        if item.path.parent.name == "fuzzing":
            item.add_marker(timeout)
            item.add_marker(pytest.mark.no_cover)  # being traced, they take several times as long
