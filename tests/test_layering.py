"""Data flows one way: a chapter of the package imports only the chapters above it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import serverwamp

PACKAGE = Path(serverwamp.__file__).parent

# The folders and the modules of the top level, in the order in which they may import one another.
# In a row stands what belongs together. Inside a row, and inside a folder, imports have no cycles.
CHAPTERS = [
    "uris errors limits patterns migration",
    "concurrency",
    "protocol",
    "binding",
    "adapters",
    "outbound",
    "client_call",
    "session",
    "publication",
    "history",
    "backplanes",
    "statistics",
    "auth",
    "routing",
    "router",
    "realm",
    "peer",
    "serving",
    "application",
    "testing",
]
PLACE = {chapter: place for place, row in enumerate(CHAPTERS) for chapter in row.split()}
KNOW_NO_WAMP = {"adapters": {"errors"}}
"""Transports that look like ASGI: they may import no more than this of what stands above."""
MAY_IMPORT_ASYNCIO = {"concurrency.tasks", "adapters.aiohttp"}
NOT_IN_PROTOCOL = {"anyio", "asyncio", "trio", "starlette", "time", "threading"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """Return the names of everything that a file imports, wherever in it, as absolute names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            names |= {
                f"{node.module}.{alias.name}"
                if f"{node.module}.{alias.name}".removeprefix("serverwamp.") in MODULES
                else node.module
                for alias in node.names
            }
    return names


def own_imports_of(name: str) -> set[str]:
    return {
        imported.removeprefix("serverwamp.")
        for imported in imports_of(MODULES[name])
        if imported.partition(".")[0] == "serverwamp"
    }


def chapter_of(name: str) -> str:
    return name.partition(".")[0]


def test_every_chapter_has_its_place() -> None:
    assert {chapter_of(name) for name in MODULES if name} == set(PLACE)


@pytest.mark.parametrize("name", sorted(set(MODULES) - {""}))
def test_imports_point_up(name: str) -> None:
    chapter = chapter_of(name)
    imported = {chapter_of(other) for other in own_imports_of(name)} - {chapter}
    assert all(PLACE[other] <= PLACE[chapter] for other in imported), imported
    assert imported <= KNOW_NO_WAMP.get(chapter, imported)


def test_imports_have_no_cycle() -> None:
    # A package may name its modules, so that users find them there.
    graph = {name: own_imports_of(name) for name in MODULES if MODULES[name].stem != "__init__"}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_event_loop_stays_where_it_belongs(name: str) -> None:
    roots = {imported.partition(".")[0] for imported in imports_of(MODULES[name])}
    assert "asyncio" not in roots or name in MAY_IMPORT_ASYNCIO
    assert "trio" not in roots or name == "concurrency.tasks"
    if chapter_of(name) == "protocol":
        assert roots.isdisjoint(NOT_IN_PROTOCOL)


def test_the_public_surface() -> None:
    assert sorted(serverwamp.__all__) == [
        "Application",
        "Audience",
        "CRAAuthRequirement",
        "ClientCall",
        "ConfigurationError",
        "Converter",
        "CryptosignAuthRequirement",
        "Health",
        "History",
        "HistoryBound",
        "HistoryPage",
        "HistoryQuery",
        "HistoryStore",
        "Limits",
        "LostWindow",
        "OverflowPolicy",
        "Publication",
        "RPCErrorResult",
        "RPCProgressReport",
        "RPCRequest",
        "RPCResult",
        "RPCRouteSet",
        "Realm",
        "SCRAMAuthRequirement",
        "Session",
        "Statistics",
        "StoredEvent",
        "Subscription",
        "TopicRouteSet",
        "WAMPError",
        "cra_credential",
        "cryptosign_credential",
        "derive_cra_secret",
        "jwt_authenticator",
        "scram_credential",
    ]
    public = {name for name in vars(serverwamp) if not name.startswith("_")}
    assert public - set(serverwamp.__all__) <= {name.partition(".")[0] for name in MODULES if name}


def test_long_modules_say_why() -> None:
    for name, path in MODULES.items():
        if len(path.read_text().splitlines()) > 400:
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert "One module" in docstring, f"{name} is long and doesn't say why"
