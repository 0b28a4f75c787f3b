"""AutobahnJS and Wampy.js against every server: the scenarios of ``javascript/scenarios.js``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TIMEOUT = 45.0
"""Seconds, for all scenarios of one client at one server."""

SCENARIOS = (
    "join_and_leave",
    "unknown_realm",
    "fifty_sessions_at_once",
    "arguments",
    "arguments_of_a_signature",
    "results",
    "errors",
    "unknown_procedure",
    "progress",
    "progress_that_nobody_asked_for",
    "stream",
    "cancel",
    "timeout",
    "binary",
    "unicode",
    "one_mebibyte",
    "a_thousand_events_in_order",
    "arguments_of_events",
    "event_of_the_subscription_handler",
    "unsubscribe_and_subscribe_again",
    "publishing",
    "receivers",
    "patterns",
    "refused_subscriptions",
    "ticket",
    "cra",
    "salted_cra",
    "cryptosign",
    "several_methods",
    "who_is_there",
    "a_testament",
    "cookie",
    "refused_tickets",
    "refused_secrets",
    "refused_keys",
    "refused_cookies",
    "refused_without_a_method",
    "refused_with_another_method",
)

pytestmark = pytest.mark.node


@dataclass(frozen=True)
class Run:
    """What became of the scenarios: the failure of each, or None."""

    failures: Mapping[str, str | None]
    exit_code: int | None
    errors: str


@pytest.fixture(scope="session", params=["json", "msgpack"])
def serializer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session", params=["autobahn-js", "wampy-js"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def run(node: str, server: str, client: str, serializer: str) -> Run:
    """Run all scenarios in one process of Node.js."""
    exit_code: int | None = None
    command = [node, str(HERE / "javascript" / "run.js"), client, serializer, server]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        try:
            output, errors = process.communicate(timeout=TIMEOUT)
            exit_code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
    reports = [json.loads(line) for line in output.splitlines()]
    return Run({report["name"]: report["error"] for report in reports}, exit_code, errors)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(run: Run, scenario: str) -> None:
    assert scenario in run.failures, f"it was not run:\n{run.errors}"
    failure = run.failures[scenario]
    assert failure is None, failure


def test_nothing_is_left_over(run: Run) -> None:
    """Every scenario is a test here, and the client has closed all its connections."""
    assert set(run.failures) == set(SCENARIOS)
    assert run.exit_code == 0, run.errors
