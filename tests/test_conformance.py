"""Every line of docs/conformance.md is named by a test, or says why not."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "conformance.md"
TESTED = "tested"


class Line(NamedTuple):
    id: str
    level: str
    demand: str
    state: str


def table_lines() -> Iterator[Line]:
    """Yield the rows of all tables of the page."""
    for text in PAGE.read_text("utf-8").splitlines():
        if text.startswith("| ") and not text.startswith("| Line |"):
            cells = (
                cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", text)[1:-1]
            )
            yield Line(*cells)


def named_lines() -> Mapping[str, list[str]]:
    """Return for every line that a test names by `pytest.mark.spec` where that is."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in TESTS.rglob("*.py"):
        if "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.spec":
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{path.name}:{node.lineno}"
                    places[argument.value].append(f"{path.name}:{node.lineno}")
    return places


LINES = tuple(table_lines())
NAMED = named_lines()


def test_the_page_was_read() -> None:
    assert len(LINES) > 190
    assert not [id_ for id_, count in Counter(line.id for line in LINES).items() if count > 1]
    assert {line.level for line in LINES} == {"must", "should", "recommended", "optional"}
    assert all(line.demand for line in LINES)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.id)
def test_a_line_is_named_by_a_test_or_has_a_reason(line: Line) -> None:
    if line.state == TESTED:
        assert line.id in NAMED, "no test names this line: write one, or a reason"
    else:
        assert len(line.state.split()) >= 3, f"{line.state!r} is no reason"
        assert line.id not in NAMED, f"it has a reason, but is named at {NAMED[line.id]}"


def test_tests_name_known_lines() -> None:
    known = {line.id for line in LINES}
    unknown = {id_: places for id_, places in NAMED.items() if id_ not in known}
    assert not unknown, "add them to docs/conformance.md"
