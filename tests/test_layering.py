"""Data flows one way: every import inside the package is an arrow of this table."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import serverwamp

PACKAGE = Path(serverwamp.__file__).parent

# What each module may import of the package. Beside the modules that the design began with stand
# those that writing it asked for: `conversion` (types) and `results` beside `binding` (signatures);
# below `conversion` stand `annotations` (what is written as a type), `records` (classes that are
# made of fields), `pydantic_types` (what pydantic does and doesn't do), `exactness` (Decimals), and
# `converting` (what happens to a value);
# `limits`; `contexts`, for what needs no task of its own; `patterns`, in which all URIs are looked
# up; `handshake`; `handlers`, what a `realm` makes of functions when it is frozen; `features`, what
# is announced; `meta` and its parts, what
# clients may ask about a realm, which `meta_api` makes a part of it; `testaments`, which a session
# leaves behind;
# `protocol.formats`, `protocol.cbor` (it needs cbor2) and `protocol.framings`, of which a
# serializer is made; `protocol.shapes`, the
# limits of a single message; `authorization`, what is asked before anything is done, and which
# routes refer to, and `questioned`, the events that wait for it; `overflow`, what waits to be sent
# and how that stays within limits;
# `outbound`, `calls` (`deadlines`, `streams`) and `subscriptions`, the three parts of an open
# session, `joining`, how it begins, `conversation`, what all of them share, and `serving`, which is
# its course from HELLO to GOODBYE, so that `connection` is left with frames; `statistics`, for
# which all of these count; `rawsockets`, connections that no ASGI server accepts; `shutdown`, which
# comes before a server takes a signal; `migration`,
# which holds the spellings of serverwamp 2.0 in one place; `scram` and `cryptosign`, two methods of
# `authentication` that are long enough, with `logins`, where a realm gets
# its authenticators, and their mathematics in `protocol.auth_scram` and
# `protocol.auth_cryptosign`; `jwt_tickets`, an authenticator for tickets that are JSON Web Tokens;
# and `testing_logins`, the client's side of all methods.
MAY_IMPORT: dict[str, set[str]] = {
    "uris": set(),
    "limits": {"errors"},
    "shutdown": set(),
    "starting": set(),
    "contexts": set(),
    "migration": set(),
    "errors": {"uris"},
    "protocol": set(),
    "protocol.ids": set(),
    "patterns": {"uris"},
    "protocol.messages": {"uris", "protocol.ids"},
    "protocol.shapes": {"protocol.messages", "errors", "uris"},
    "protocol.models": set(),
    "protocol.plain": {"protocol.models"},
    "protocol.values": set(),
    "protocol.formats": {
        "protocol.models",
        "protocol.plain",
        "protocol.shapes",
        "protocol.messages",
        "protocol.values",
        "errors",
    },
    "protocol.cbor": {
        "protocol.formats",
        "protocol.plain",
        "protocol.messages",
        "protocol.shapes",
        "protocol.values",
        "errors",
    },
    "protocol.misfits": {
        "protocol.formats",
        "protocol.plain",
        "protocol.messages",
        "errors",
    },
    "protocol.framings": {"protocol.formats", "errors"},
    "protocol.serializers": {
        "protocol.cbor",
        "protocol.formats",
        "protocol.framings",
        "protocol.shapes",
        "protocol.messages",
        "errors",
    },
    "protocol.auth": {"protocol.ids"},
    "protocol.auth_scram": set(),
    "protocol.auth_cryptosign": set(),
    "protocol.session": {"protocol.messages", "protocol.ids", "errors", "uris"},
    "authorization": {
        "contexts",
        "binding",
        "errors",
        "limits",
        "protocol.messages",
        "session",
        "starting",
        "uris",
    },
    "annotations": {"errors"},
    "records": {"annotations", "errors"},
    "pydantic_types": {"annotations", "records", "errors"},
    "exactness": {"annotations", "records", "pydantic_types"},
    "converting": {"annotations", "records", "pydantic_types", "errors"},
    "conversion": {
        "annotations",
        "records",
        "pydantic_types",
        "exactness",
        "converting",
        "errors",
    },
    "results": {"errors", "uris"},
    "shadowing": {"annotations", "errors"},
    "binding": {
        "annotations",
        "records",
        "conversion",
        "shadowing",
        "errors",
        "protocol.messages",
        "starting",
    },
    "overflow": {"protocol.formats", "limits", "errors"},
    "statistics": {"overflow", "uris"},
    "routing": {
        "history",
        "authorization",
        "patterns",
        "binding",
        "overflow",
        "uris",
        "errors",
        "migration",
    },
    "publication": {"session", "protocol.ids"},
    "broker": {"patterns", "session", "uris"},
    "events": {
        "retained",
        "publication",
        "handlers",
        "broker",
        "backplanes.base",
        "statistics",
        "binding",
        "results",
        "session",
        "starting",
        "protocol.messages",
        "protocol.serializers",
        "uris",
        "errors",
    },
    "authentication": {"protocol.auth", "protocol.messages", "errors"},
    "scram": {"authentication", "protocol.auth_scram", "errors"},
    "cryptosign": {"authentication", "protocol.auth_cryptosign", "errors"},
    "jwt_tickets": {"session", "errors"},
    "logins": {"authentication", "scram", "cryptosign"},
    "backplanes": {"backplanes.base", "backplanes.memory"},
    "backplanes.base": set(),
    "backplanes.memory": {"backplanes.base"},
    "clientcalls": {"results", "errors"},
    "history": {
        "publication",
        "protocol.formats",
        "protocol.messages",
        "protocol.serializers",
        "errors",
    },
    "retained": {"history", "publication", "session", "limits"},
    "meta_history": {
        "broker",
        "handlers",
        "history",
        "patterns",
        "publication",
        "results",
        "routing",
        "session",
        "protocol.messages",
        "errors",
    },
    "session": {"clientcalls", "protocol.session", "errors", "uris"},
    "handlers": {
        "annotations",
        "authorization",
        "history",
        "routing",
        "binding",
        "publication",
        "broker",
        "session",
        "errors",
        "uris",
    },
    "features": {"session", "protocol.messages"},
    "meta": {
        "authorization",
        "binding",
        "publication",
        "broker",
        "features",
        "routing",
        "session",
        "errors",
    },
    "meta_sessions": {
        "publication",
        "meta",
        "broker",
        "features",
        "session",
        "results",
        "protocol.messages",
        "protocol.serializers",
        "errors",
        "uris",
    },
    "meta_tables": {"meta", "session", "results", "protocol.messages", "errors", "uris"},
    "meta_subscriptions": {
        "meta_tables",
        "broker",
        "session",
        "results",
        "protocol.messages",
        "errors",
        "uris",
    },
    "meta_registrations": {
        "meta_tables",
        "broker",
        "dealer",
        "features",
        "publication",
        "session",
        "protocol.messages",
        "errors",
    },
    "meta_testaments": {"meta", "features", "session", "results", "protocol.messages"},
    "meta_api": {
        "authorization",
        "meta_history",
        "meta_testaments",
        "meta_registrations",
        "dealer",
        "publication",
        "meta",
        "meta_sessions",
        "meta_subscriptions",
        "authentication",
        "broker",
        "features",
        "handlers",
        "session",
    },
    "dealer": {"patterns", "errors", "uris"},
    "registrations": {
        "handlers",
        "authorization",
        "clientcalls",
        "dealer",
        "patterns",
        "errors",
        "uris",
    },
    "realm": {
        "annotations",
        "retained",
        "registrations",
        "dealer",
        "patterns",
        "authorization",
        "events",
        "features",
        "meta_api",
        "handlers",
        "statistics",
        "routing",
        "overflow",
        "binding",
        "broker",
        "authentication",
        "logins",
        "backplanes.base",
        "backplanes.memory",
        "results",
        "session",
        "starting",
        "migration",
        "protocol.formats",
        "protocol.messages",
        "protocol.serializers",
        "uris",
        "errors",
    },
    "outbound": {"overflow", "protocol.formats", "protocol.serializers", "starting", "limits"},
    "conversation": {
        "statistics",
        "outbound",
        "realm",
        "session",
        "protocol.formats",
        "protocol.messages",
        "protocol.serializers",
        "protocol.session",
        "starting",
        "limits",
        "errors",
        "uris",
    },
    "joining": {
        "conversation",
        "realm",
        "session",
        "protocol.ids",
        "protocol.messages",
        "protocol.session",
        "starting",
        "errors",
        "uris",
    },
    "deadlines": {"starting"},
    "streams": {
        "binding",
        "conversation",
        "limits",
        "protocol.formats",
        "protocol.messages",
        "errors",
    },
    "running": {"streams", "protocol.formats", "protocol.messages", "starting"},
    "replies": {
        "conversation",
        "streams",
        "running",
        "results",
        "protocol.formats",
        "protocol.messages",
        "protocol.misfits",
        "errors",
    },
    "invocations": {
        "conversation",
        "outbound",
        "dealer",
        "features",
        "limits",
        "patterns",
        "session",
        "protocol.messages",
        "protocol.session",
        "errors",
        "uris",
    },
    "routed": {
        "uris",
        "conversation",
        "invocations",
        "replies",
        "results",
        "running",
        "streams",
        "protocol.formats",
        "protocol.messages",
        "errors",
    },
    "calls": {
        "deadlines",
        "streams",
        "running",
        "replies",
        "routed",
        "conversation",
        "realm",
        "results",
        "session",
        "binding",
        "protocol.formats",
        "protocol.messages",
        "starting",
        "errors",
    },
    "questioned": {
        "authorization",
        "broker",
        "conversation",
        "overflow",
        "protocol.formats",
        "starting",
    },
    "subscriptions": {
        "contexts",
        "questioned",
        "patterns",
        "uris",
        "conversation",
        "realm",
        "session",
        "binding",
        "broker",
        "outbound",
        "overflow",
        "statistics",
        "protocol.ids",
        "protocol.formats",
        "protocol.messages",
        "protocol.serializers",
        "starting",
        "errors",
    },
    "publications": {
        "contexts",
        "conversation",
        "realm",
        "publication",
        "session",
        "protocol.formats",
        "protocol.messages",
        "starting",
        "errors",
    },
    "testaments": {
        "contexts",
        "authorization",
        "conversation",
        "publications",
        "protocol.messages",
        "starting",
        "errors",
    },
    "serving": {
        "contexts",
        "realm",
        "testaments",
        "invocations",
        "clientcalls",
        "authorization",
        "publications",
        "conversation",
        "joining",
        "calls",
        "subscriptions",
        "protocol.messages",
        "protocol.serializers",
        "protocol.session",
        "starting",
        "errors",
        "uris",
    },
    "connection": {
        "protocol.framings",
        "conversation",
        "serving",
        "outbound",
        "limits",
        "protocol.formats",
        "protocol.messages",
        "protocol.serializers",
        "starting",
        "errors",
    },
    "handshake": {"protocol.serializers", "errors"},
    "rawsockets": {
        "adapters.rawsocket",
        "connection",
        "conversation",
        "handshake",
        "protocol.serializers",
        "protocol.shapes",
    },
    "application": {
        "rawsockets",
        "adapters.rawsocket",
        "statistics",
        "authentication",
        "handshake",
        "connection",
        "conversation",
        "serving",
        "realm",
        "session",
        "shutdown",
        "protocol.serializers",
        "protocol.shapes",
        "limits",
        "overflow",
        "errors",
        "uris",
        "adapters.aiohttp",
    },
    "adapters": set(),
    "adapters.aiohttp": set(),
    "adapters.rawsocket": {"errors"},
    "testing_logins": {"protocol.auth", "protocol.auth_scram", "protocol.auth_cryptosign"},
    "testing": {
        "starting",
        "testing_logins",
        "protocol.formats",
        "protocol.framings",
        "protocol.serializers",
        "errors",
    },
}
MAY_IMPORT_ASYNCIO = {"starting", "adapters.aiohttp"}
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


@pytest.mark.parametrize("name", sorted(set(MODULES) - {""}))
def test_imports_follow_the_table(name: str) -> None:
    own = {
        imported.removeprefix("serverwamp.")
        for imported in imports_of(MODULES[name])
        if imported.partition(".")[0] == "serverwamp"
    }
    assert own <= MAY_IMPORT[name]


def test_the_table_has_no_module_too_many() -> None:
    assert set(MAY_IMPORT) | {""} == set(MODULES)


def test_the_table_has_no_cycle() -> None:
    order: list[str] = []
    left = dict(MAY_IMPORT)
    del left["backplanes"]  # names its modules for convenience
    while left:
        free = [name for name, wanted in left.items() if wanted.isdisjoint(left)]
        assert free, f"a cycle among {sorted(left)}"
        order += free
        for name in free:
            del left[name]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_event_loop_stays_where_it_belongs(name: str) -> None:
    roots = {imported.partition(".")[0] for imported in imports_of(MODULES[name])}
    assert "asyncio" not in roots or name in MAY_IMPORT_ASYNCIO
    assert "trio" not in roots or name == "starting"
    if name.startswith("protocol"):
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
        "History",
        "HistoryStore",
        "Limits",
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
