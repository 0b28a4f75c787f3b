"""One application with everything that the clients in this folder do to a server.

From the root of the repository it runs on any server, as in ``uvicorn
tests.clients.application:wamp``; as a program it serves itself by aiohttp.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from typing import Any

import anyio

from serverwamp import (
    Application,
    CRAAuthRequirement,
    CryptosignAuthRequirement,
    History,
    Limits,
    Realm,
    RPCErrorResult,
    RPCProgressReport,
    RPCResult,
    RPCRouteSet,
    SCRAMAuthRequirement,
    Session,
    TopicRouteSet,
    WAMPError,
    cryptosign_credential,
    derive_cra_secret,
    scram_credential,
)

INTENDED_FAILURE = "this failure is a part of the test"

# ---- the realm for everybody

open_realm = Realm("clients.open")
procedures = RPCRouteSet("test")


@procedures.route("arguments")
async def arguments(*args: Any, **kwargs: Any) -> RPCResult:
    """Return what came, so that the client sees what it sent."""
    return RPCResult((args, kwargs))


@procedures.route("add")
async def add(a: int, b: int = 10) -> int:
    return a + b


@procedures.route("blocking_add")
def blocking_add(a: int, b: int) -> int:
    return a + b


RETURNED: Mapping[str, Any] = {
    "none": None,
    "scalar": 23,
    "list": [1, "two", [3]],
    "mapping": {"name": "Anna", "nested": {"deep": True}},
    "result": RPCResult((1, 2), {"three": 3}),
    "empty": RPCResult(),
}


@procedures.route("returned")
async def returned(form: str) -> Any:
    return RETURNED[form]


@procedures.route("raise_error")
async def raise_error() -> None:
    raise WAMPError("test.error.raised", ("told", 1), {"reason": "because"})


@procedures.route("return_error")
async def return_error() -> RPCErrorResult:
    return RPCErrorResult("test.error.returned", ("told", 2), {"reason": "why not"})


@procedures.route("fail")
async def fail() -> None:
    raise RuntimeError(INTENDED_FAILURE)


@procedures.route("count")
async def count(to: int) -> AsyncIterator[RPCResult]:
    """Report progress before the result."""
    for number in range(1, to):
        yield RPCProgressReport((number,), {"of": to})
    yield RPCResult((to,))


@procedures.route("running_total")
async def running_total(numbers: AsyncIterator[int]) -> AsyncIterator[RPCResult]:
    """Report the total of what is streamed into it, as it comes."""
    total = 0
    async for number in numbers:
        total += number
        yield RPCProgressReport((total,))
    yield RPCResult(("total", total))


@procedures.route("wait")
async def wait(session: Session) -> AsyncIterator[RPCResult]:
    """Tell that it has begun, and wait until it is cancelled."""
    ended = session["ended"] = anyio.Event()
    try:
        yield RPCProgressReport(("begun",))
        await anyio.sleep_forever()
    finally:
        ended.set()


@procedures.route("wait_has_ended")
async def wait_has_ended(session: Session) -> bool:
    """Return when the handler of ``test.wait`` was left."""
    with anyio.fail_after(10):
        await session["ended"].wait()
    return True


@procedures.route("binary")
async def binary(data: bytes) -> RPCResult:
    """Return the data, and what proves that bytes arrived here and not a text."""
    return RPCResult((data,), {"length": len(data), "sha256": sha256(data).hexdigest()})


@procedures.route("text")
async def text(value: str) -> RPCResult:
    return RPCResult((value,), {"length": len(value), "sha256": sha256(value.encode()).hexdigest()})


@procedures.route("call_me")
async def call_me(
    session: Session, uri: str, args: list[Any], kwargs: dict[str, Any], patience: float = 10
) -> AsyncIterator[RPCResult]:
    """Call what the client itself serves."""
    call = session.call(uri, args, kwargs, timeout=patience)
    async for report in call:
        yield report
    yield await call


@procedures.route("call_anyone")
async def call_anyone(uri: str, args: list[Any], kwargs: dict[str, Any]) -> RPCResult:
    """Call what some client serves for all."""
    return await open_realm.call(uri, args, kwargs, timeout=10)


@procedures.route("publish")
async def publish(topic: str, *args: Any, **kwargs: Any) -> None:
    await open_realm.publish(topic, args, kwargs)


@procedures.route("publish_numbers")
async def publish_numbers(topic: str, to: int) -> None:
    for number in range(to):
        await open_realm.publish(topic, (number,))


topics = TopicRouteSet("test")


@topics.topic("news")
async def news() -> AsyncIterator[None]:
    yield


@topics.topic("crowd")
async def crowd() -> AsyncIterator[None]:
    yield


@topics.prefix_topic("log.", history=History(events=60))
async def log() -> AsyncIterator[None]:
    yield


@topics.topic("greeting")
async def greeting(topic: str, session: Session) -> AsyncIterator[None]:
    """Greet each subscriber, before and after its subscription is open."""
    session.send_event(args=("first",), kwargs={"topic": topic})
    yield


@topics.prefix_topic("board.", client_publish=True)
async def board() -> AsyncIterator[None]:
    yield


@topics.topic("measured")
async def measured() -> AsyncIterator[None]:
    yield


@topics.publication("measured")
async def measure(celsius: float, session: Session) -> RPCResult:
    """Refuse what can't be, and publish the rest in other words."""
    if celsius < -273.15:
        raise WAMPError("test.error.too_cold", (celsius,))
    return RPCResult((), {"celsius": celsius, "by": session.id})


@topics.topic("closed_club")
async def closed_club() -> AsyncIterator[None]:
    raise WAMPError("test.error.members_only", ("sorry",))
    yield


# ---- realms with a door

identity_procedures = RPCRouteSet("test")


@identity_procedures.route("who_am_i")
async def who_am_i(session: Session) -> dict[str, Any]:
    return {
        "identity": session.identity,
        "authid": session.auth_id,
        "authrole": session.auth_role,
        "authmethod": session.auth_method,
        "authprovider": session.auth_provider,
    }


async def identify_by_ticket(session: Session, ticket: str) -> str | None:
    return "Anna by ticket" if (session.auth_id, ticket) == ("anna", "anna's ticket") else None


SALT = "a grain of salt"
ITERATIONS, KEYLEN = 500, 16  # neither of them is what clients assume if they are not told

REQUIREMENTS = {
    "anna": CRAAuthRequirement("anna's secret", auth_role="admin", auth_provider="test"),
    "bert": CRAAuthRequirement(
        derive_cra_secret("bert's password", SALT, ITERATIONS, KEYLEN),
        auth_role="member",
        auth_provider="test",
        salt=SALT,
        iterations=ITERATIONS,
        keylen=KEYLEN,
    ),
}


async def provide_requirement(session: Session) -> CRAAuthRequirement | None:
    return REQUIREMENTS.get(session.auth_id or "")


async def identify_by_cra(session: Session) -> str:
    return f"{session.auth_id} by secret"


SCRAM_REQUIREMENT = SCRAMAuthRequirement(
    **scram_credential("anna's password", iterations=2, memory=256),
    auth_role="admin",
    auth_provider="test",
)
ANNAS_KEY = "a1" * 32
KEY_REQUIREMENT = CryptosignAuthRequirement(
    **cryptosign_credential(ANNAS_KEY), auth_role="admin", auth_provider="test"
)


async def provide_scram_requirement(session: Session) -> SCRAMAuthRequirement | None:
    return SCRAM_REQUIREMENT if session.auth_id == "anna" else None


async def provide_key_requirement(session: Session) -> CryptosignAuthRequirement | None:
    if session.auth_id is None and session.auth_extra.get("pubkey") == KEY_REQUIREMENT.public_key:
        session.auth_id = "anna"
    return KEY_REQUIREMENT if session.auth_id == "anna" else None


async def identify_by_password(session: Session) -> str:
    return f"{session.auth_id} by password"


async def identify_by_key(session: Session) -> str:
    return f"{session.auth_id} by key"


async def assign_realm(session: Session, ticket: str) -> str | None:
    """Take clients that name no realm to the one for tickets."""
    session.realm = "clients.ticket"
    return await identify_by_ticket(session, ticket)


async def identify_by_cookie(session: Session) -> str | None:
    if session.connection.transport_info["http_cookies"].get("login") != "annas-cookie":
        return None
    session.auth_id = "anna"
    return "Anna by cookie"


# ---- the application


async def nothing_to_do() -> AsyncIterator[None]:
    yield


ticket_realm = Realm("clients.ticket")
ticket_realm.set_ticket_authenticator(identify_by_ticket)
cra_realm = Realm("clients.cra")
cra_realm.set_cra_handlers(provide_requirement, identify_by_cra)
cra_realm.set_meta_api(kill="admin")
cra_realm.add_topics(topics)
cra_realm.topic("test.presence", client_publish=True)(nothing_to_do)
scram_realm = Realm("clients.scram")
scram_realm.set_scram_handlers(provide_scram_requirement, identify_by_password)
key_realm = Realm("clients.key")
key_realm.set_cryptosign_handlers(provide_key_requirement, identify_by_key)
several_realm = Realm("clients.several")
several_realm.set_ticket_authenticator(identify_by_ticket)
several_realm.set_cra_handlers(provide_requirement, identify_by_cra)
several_realm.set_cryptosign_handlers(provide_key_requirement, identify_by_key)
cookie_realm = Realm("clients.cookie")
cookie_realm.add_transport_authenticator(identify_by_cookie)

open_realm.client_register("test.peer.", match="prefix")
open_realm.client_register("test.told.", match="prefix", disclose_caller=True)
open_realm.add_routes(procedures)
open_realm.add_topics(topics)

wamp = Application(allow_default_realm=False, limits=Limits(message_bytes=4 * 1024 * 1024))
wamp.set_ticket_authenticator(assign_realm)
for realm in (
    open_realm,
    ticket_realm,
    cra_realm,
    scram_realm,
    key_realm,
    several_realm,
    cookie_realm,
):
    realm.add_routes(identity_procedures)
    wamp.add_realm(realm)


def serve_by_aiohttp(port: int) -> None:
    """Serve the application at ``/`` until the process is terminated."""
    from aiohttp import web

    app = web.Application()
    app.router.add_get("/", wamp.aiohttp_websocket_handler())
    web.run_app(app, host="127.0.0.1", port=port, shutdown_timeout=1)


if __name__ == "__main__":
    serve_by_aiohttp(int(sys.argv[1]))
