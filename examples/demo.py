"""A page to show a colleague: calls, progress, events and logins over one WebSocket.

Run it from the root of the repository, and open http://127.0.0.1:8000 in two tabs. The page links
to the other examples with pages. The same server serves them below /chat/, /fleet/ and /upload/::

    pip install -e ".[demo]"
    uvicorn examples.demo:wamp
"""

import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Annotated

import anyio
from msgspec import Meta
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute

import serverwamp
from examples import chat, fleet, upload
from examples.pages import page_routes
from serverwamp import CRAAuthRequirement, RPCProgressReport, RPCResult, Session

app = serverwamp.Application()
members = serverwamp.Realm("demo.members")
app.add_realm(members)


# ---- who is here


@dataclass
class Visitor:
    id: int
    name: str
    countdown: float | None = None  # the progress, from 0 to 1


visitors: dict[int, Visitor] = {}


async def publish_visitors() -> None:
    await app.publish("demo.visitors", args=list(visitors.values()))


async def visit(session: Session) -> AsyncIterator[None]:
    """Run for each session: the code before the yield when it begins, the rest when it ends."""
    name = str(session.auth_extra.get("name", "")).strip()[:20] or "Somebody"
    visitors[session.id] = Visitor(session.id, name)
    await publish_visitors()
    await tell(name, "joined")
    yield
    del visitors[session.id]
    await publish_visitors()
    await tell(name, "left")


app.add_session_lifespan_handler(visit)


@app.topic("demo.visitors")
async def watch_visitors(session: Session) -> AsyncIterator[None]:
    session.send_event(args=list(visitors.values()))
    yield


# ---- events that new subscribers get as well

recent: dict[str, deque[dict[str, str | float]]] = {
    "demo.activity": deque(maxlen=12),
    "demo.temperature": deque(maxlen=120),
}


async def publish(topic: str, **kwargs: str | float) -> None:
    recent[topic].append(kwargs)
    await app.publish(topic, kwargs=kwargs)


async def tell(who: str, what: str) -> None:
    await publish("demo.activity", who=who, what=what)


@app.topic("demo.activity")
@app.topic("demo.temperature")
async def replay(topic: str, session: Session) -> AsyncIterator[None]:
    for kwargs in recent[topic]:
        session.send_event(kwargs=kwargs)
    yield


async def measure_temperature() -> None:
    celsius = 21.0
    while True:
        celsius += random.gauss(0, 0.35) + (21 - celsius) * 0.06
        await publish("demo.temperature", celsius=round(celsius, 2))
        await anyio.sleep(0.5)


# ---- calls


@app.route("demo.add")
async def add(number1: Decimal, number2: Decimal, session: Session) -> Decimal:
    total = number1 + number2
    await tell(visitors[session.id].name, f"{number1} + {number2} = {total}")
    return total


@app.route("demo.countdown")
async def countdown(
    seconds: Annotated[int, Meta(ge=1, le=60)], session: Session
) -> AsyncIterator[RPCResult]:
    visitor = visitors[session.id]
    outcome = "cancelled a countdown"
    try:
        for tick in range(seconds * 4):
            visitor.countdown = tick / (seconds * 4)
            await publish_visitors()
            yield RPCProgressReport(kwargs={"left": seconds - tick / 4})
            await anyio.sleep(1 / 4)
        outcome = "counted down to lift-off"
        yield RPCResult(args=("Lift-off!",))
    finally:
        visitor.countdown = None
        with anyio.CancelScope(shield=True):  # otherwise the cancellation would end this, too
            await publish_visitors()
            await tell(visitor.name, outcome)


# ---- logging in


@dataclass(frozen=True)
class Member:
    name: str
    password: str = field(repr=False)


accounts = {
    "ada": Member("Ada Lovelace", "engine"),
    "grace": Member("Grace Hopper", "compiler"),
}


nobodys_password = token_urlsafe()  # compared for unknown accounts


async def check_ticket(session: Session, ticket: str) -> Member | None:
    member = accounts.get(session.auth_id or "")
    password = member.password if member else nobodys_password
    return member if compare_digest(ticket.encode(), password.encode()) else None


async def cra_requirement(session: Session) -> CRAAuthRequirement | None:
    member = accounts.get(session.auth_id or "")
    return CRAAuthRequirement(member.password) if member else None


async def cra_identity(session: Session) -> Member:
    return accounts[session.auth_id or ""]


members.set_ticket_authenticator(check_ticket)
members.set_cra_handlers(cra_requirement, cra_identity)


@members.route("demo.members.greet")
async def greet(session: Session) -> str:
    member: Member = session.identity
    await tell(member.name, f"logged in by {session.auth_method}")
    return f"Welcome back, {member.name}!"


# ---- serving


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(measure_temperature)
        yield
        tasks.cancel_scope.cancel()


wamp = Starlette(
    routes=[
        WebSocketRoute("/ws", app),
        *page_routes("demo.html"),
        Mount("/chat", chat.wamp),
        Mount("/fleet", fleet.wamp),
        Mount("/upload", upload.wamp),
    ],
    lifespan=lifespan,
)
