"""What several test files need."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from serverwamp import Application, Realm, Session, WAMPError
from serverwamp.router.broker import Broker
from serverwamp.router.dealer import Dealer
from serverwamp.serving.connection import Connection

SECONDS = 5.0
"""How long a test waits for what has to happen."""


# ---- applications


def serving(handler: Callable[..., Any], **options: Any) -> Application:
    """Return an application whose only procedure is ``procedure``."""
    app = Application(**options)
    app.route("procedure")(handler)
    return app


async def anybody() -> AsyncIterator[None]:
    """Handle a topic to which everybody may subscribe."""
    yield


def roles_by_ticket(roles: Mapping[str, str]) -> Callable[[Session, str], Awaitable[str | None]]:
    """Return an authenticator for which a ticket is a name; `roles` has the role of each name."""

    async def accept_ticket(session: Session, ticket: str) -> str | None:
        session.auth_role = roles.get(ticket)
        return session.auth_role

    return accept_ticket


def raising(error: BaseException) -> Callable[[], Awaitable[None]]:
    """Return an async function that raises an error, after other tasks had a turn."""

    async def fault() -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    return fault


# ---- waiting


async def happened(event: anyio.Event) -> None:
    """Wait for an event, for a while at most."""
    with anyio.fail_after(SECONDS):
        await event.wait()


async def until(is_so: Callable[[], bool], *, seconds: float = SECONDS) -> None:
    """Let other tasks run until a condition holds, for a while at most."""
    with anyio.fail_after(seconds):
        while not is_so():
            await anyio.lowlevel.checkpoint()


async def wait_all_tasks_blocked() -> None:
    """Do what AnyIO's function does, without its waits of a tenth of a second on asyncio."""
    if trio.lowlevel.in_trio_run():
        await anyio.wait_all_tasks_blocked()
        return
    this_task = asyncio.current_task()
    rounds_in_which_all_waited = 0
    while rounds_in_which_all_waited < 2:
        await asyncio.sleep(0)
        waiters = [
            task._fut_waiter  # type: ignore[attr-defined]
            for task in asyncio.all_tasks()
            if task is not this_task
        ]
        are_waiting = all(waiter is not None and not waiter.done() for waiter in waiters)
        rounds_in_which_all_waited = rounds_in_which_all_waited + 1 if are_waiting else 0


# ---- errors


async def error_of(request: Awaitable[Any]) -> WAMPError:
    """Return the error that answers a request."""
    with pytest.raises(WAMPError) as failure:
        await request
    return failure.value


async def error_uri_of(request: Awaitable[Any]) -> str:
    """Return the URI of the error that answers a request."""
    return (await error_of(request)).uri


# ---- what an application holds


def connections_of(app: Application) -> set[Connection]:
    """Return the connections that are served."""
    return app._server.connections


def broker_of(realm: Realm) -> Broker:
    """Return the subscriptions of a realm."""
    return realm.freeze().broker


def dealer_of(realm: Realm) -> Dealer[Any]:
    """Return the registrations of a realm."""
    return realm.freeze().dealer


def free_ports(count: int) -> range:
    """Return consecutive ports at which nothing listens.

    They are below those that the system picks for connections, so nobody takes one by accident.
    """
    while True:
        ports = range(first := random.randrange(10_000, 30_000), first + count)
        with ExitStack() as listening, suppress(OSError):
            for port in ports:
                listening.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports


def free_port() -> int:
    """Return a port at which nothing listens."""
    return free_ports(1)[0]
