"""The application: realms, put together, as an ASGI callable.

One module, though a long one: it is where everything comes together.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
)
from typing import Any, NoReturn, TypeAlias

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from starlette.responses import HTMLResponse, PlainTextResponse

from serverwamp import uris
from serverwamp.adapters import rawsocket
from serverwamp.auth.authentication import (
    CRAAuthRequirement as CRAAuthRequirement,  # where 2.0 has it
)
from serverwamp.backplanes.memory import MemoryBackplane
from serverwamp.concurrency.signals import ahead_of_signals
from serverwamp.errors import ConfigurationError
from serverwamp.limits import Limits
from serverwamp.outbound.backlog import OverflowPolicy
from serverwamp.protocol.serializers import SUBPROTOCOLS
from serverwamp.realm import Realm
from serverwamp.router.router import RealmRouter
from serverwamp.serving.connection import Connection, Receive, Scope, Send
from serverwamp.serving.handshake import (
    HandshakeRefused,
    check_origin,
    checked_origins,
    chosen_subprotocol,
    refuse,
)
from serverwamp.serving.rawsocket_server import RawSocketServer
from serverwamp.serving.server import Server
from serverwamp.session import Session
from serverwamp.statistics import Statistics

logger: logging.Logger = logging.getLogger(__name__)

ASGIApplication: TypeAlias = Callable[[Scope, Receive, Send], Any]
Lifespan: TypeAlias = Callable[["Application"], AbstractAsyncContextManager[None]]

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>WAMP</title>
<body style="font-family: system-ui; max-width: 40em; margin: 4em auto; line-height: 1.5">
<h1>This is a WAMP endpoint</h1>
<p>It serves calls and events over a WebSocket. Connect to it with a WAMP client, which asks for
one of these WebSocket subprotocols:</p><ul>{subprotocols}</ul></body></html>
"""


class Application(Realm):
    """A WAMP application: an ASGI callable, and the configuration of its default realm.

    Arguments:
        allow_default_realm: whether clients that ask for a realm that isn't added get the default
            one; otherwise they are refused.
        synchronize_requests: run the calls of each session one after the other.
        camel_snake_conversion: let clients write ``countTo`` for a parameter ``count_to``.
        allowed_origins: other hosts whose pages may connect, as ``https://example.com``; ``*`` for
            all. Pages of the application's own host always may.
        overflow: what becomes of events for a client that is too slow for them, by the name of an
            `OverflowPolicy`; topics, and realms that are added, may say something else.
        client_register: what clients may serve for one another: URIs, of which one that ends with a
            dot is a prefix, and one with an empty component a wildcard.
        limits: what a client may ask of the server.
        lifespan: an async context manager, given the application, that spans the server's life;
            as in Starlette, it runs only where the server sends lifespan events to this
            application, which isn't so for a mounted one.
        debug: tell clients the text of unexpected exceptions. Never in production.
    """

    def __init__(
        self,
        allow_default_realm: bool = True,
        *,
        synchronize_requests: bool = False,
        camel_snake_conversion: bool = False,
        allowed_origins: Collection[str] = (),
        overflow: OverflowPolicy = "disconnect",
        client_register: Iterable[str] | str = (),
        limits: Limits | None = None,
        lifespan: Lifespan | None = None,
        debug: bool = False,
    ) -> None:
        super().__init__(
            None,
            camel_snake_conversion=camel_snake_conversion,
            overflow=overflow,
            client_register=client_register,
        )
        self._server = Server(
            limits or Limits(),
            self._router_for,
            debug=debug,
            synchronize_requests=synchronize_requests,
        )
        self._allowed_origins = checked_origins(allowed_origins)
        self._allow_default_realm = allow_default_realm
        self._realms: dict[str, Realm] = {}
        self._lifespan = lifespan
        self._is_graceful = False

    # ---- realms

    def add_realm(self, realm: Realm) -> None:
        """Serve a realm beside the default one.

        Raises: ConfigurationError when it has no URI, or one that is taken, or belongs to another
            application.
        """
        self._check_not_frozen()
        if realm.uri is None or realm.uri in self._realms:
            raise ConfigurationError(f"there can't be another realm {realm.uri!r}")
        if realm._application is not None or realm._router is not None:
            raise ConfigurationError(f"the realm {realm.uri!r} belongs to another application")
        realm._application = self
        self._realms[realm.uri] = realm

    def _router_for(self, uri: str | None) -> RealmRouter | None:
        """Return the router of the realm that a client joins when it asks for `uri`.

        A client that names no realm is authenticated by the application, whose authenticators
        choose the realm. Without authenticators it is refused.
        """
        default = self.freeze()
        if uri is None:
            return None if default.authentication.is_open else default
        realm = self._realms.get(uri)
        if realm is not None:
            return realm.freeze()
        return default if self._allow_default_realm else None

    def freeze(self) -> RealmRouter:
        """Check the whole configuration, with all realms, and end it: nothing can be added then.

        The first connection does that, and so do the lifespan of the application and
        `graceful_shutdown`. Call it at the end of the configuration where none of these happens at
        start, as in aiohttp: then mistakes are found there, and not by the first client.

        Raises: ConfigurationError when something doesn't fit together.
        """
        if self._router is not None:
            return self._router
        limits, counters = self._server.limits, self._server.counters
        policy = self._overflow or "disconnect"
        for realm in (*self._realms.values(), self):  # in this order: it counts as frozen then
            router = realm._frozen(limits, counters, MemoryBackplane(), policy)
        if not self._allow_default_realm and self._routes:
            logger.warning("nobody can reach the routes of the default realm: it isn't allowed")
        return router

    # ---- sessions

    @property
    def sessions(self) -> Mapping[int, Session]:
        """The open sessions of all realms by their ids, those of this process.

        A read-only view, in which sessions come and go: copy it before awaiting in a loop.
        """
        return self._server.sessions

    def statistics(self) -> Statistics:
        """Return what the application has done, and is doing now, in numbers."""
        return self._server.statistics()

    # ---- serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope: ``websocket``, ``http``, or ``lifespan``."""
        if scope["type"] != "lifespan":
            self.freeze()
        if scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        else:
            await self._serve_page(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        try:
            self._server.check_admission()
            check_origin(scope, self._allowed_origins)
            subprotocol = chosen_subprotocol(scope)
        except HandshakeRefused as reason:
            logger.warning("a WebSocket handshake was refused: %s", reason)
            try:
                await refuse(scope, send, reason.status)
            except OSError as error:
                logger.debug("refusing failed, the client is gone: %r", error)
            return
        with self._server.counted():
            try:
                await send({"type": "websocket.accept", "subprotocol": subprotocol})
            except OSError as error:
                logger.debug("accepting failed, the client is gone: %r", error)
                return
            serializer = self._server.serializer_for(subprotocol)
            await Connection(self._server, scope, receive, send, serializer).serve()

    async def serve_rawsocket(
        self,
        host: str = "127.0.0.1",
        port: int | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        task_status: TaskStatus[int | str] = TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Serve RawSocket clients at a TCP port, or at the Unix socket `path`, until cancelled.

        In a task group ``await tasks.start(app.serve_rawsocket, host, port)`` returns when clients
        can connect, with the port, which the system chooses if it is 0. With an `ssl_context` they
        speak TLS. The sessions are ended in good order by `close_sessions`; when this is cancelled,
        what is left of them is cut off.

        Raises: TypeError unless there is either a port or a path; OSError when it can't listen
        there.

        Spec: Advanced Profile, "RawSocket Transport".
        """
        if (port is None) == (path is None):
            raise TypeError("serve_rawsocket() needs a port, or the path of a Unix socket")
        self.freeze()

        server = RawSocketServer(self._server, ssl_context)
        async with rawsocket.listening(host, port, path) as (listeners, address):
            task_status.started(address)
            await rawsocket.accept_all(listeners, server.serve)

    async def _serve_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = "".join(f"<li><code>{name}</code></li>" for name in SUBPROTOCOLS)
        page = HTMLResponse(
            PAGE.format(subprotocols=names), status_code=426, headers={"upgrade": "websocket"}
        )
        await page(scope, receive, send)

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        phase = "startup"
        try:
            async with AsyncExitStack() as stack:
                self.freeze()
                if self._lifespan is not None:
                    await stack.enter_async_context(self._lifespan(self))
                if not self._is_graceful:  # else the lifespan sees to it
                    await stack.enter_async_context(self.graceful_shutdown())
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()  # lifespan.shutdown
        except Exception as error:
            logger.exception("the lifespan failed at %s", phase)
            await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})

    def asgi_application(self, paths: Collection[str] | None = None) -> ASGIApplication:
        """Return an ASGI application that serves WAMP at `paths`, or at every path.

        Below a mount, or the `root_path` of the server, they are what follows this prefix. At other
        paths plain HTTP is answered with 404, and WebSockets are refused.

        Raises: ConfigurationError for a path without a slash in front, and for a single text.
        """
        if paths is None:
            return self
        if isinstance(paths, str) or not all(path.startswith("/") for path in paths):
            raise ConfigurationError(
                f"paths has to be a list of paths such as '/ws', not {paths!r}"
            )
        served = frozenset(paths)

        async def serve_paths(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan" or _path_below_root(scope) in served:
                await self(scope, receive, send)
            elif scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            else:
                await PlainTextResponse("Not Found", status_code=404)(scope, receive, send)

        return serve_paths

    def aiohttp_websocket_handler(self) -> Callable[..., Any]:
        """Return an aiohttp request handler that serves WAMP: ``web.get("/ws", handler)``."""
        from serverwamp.adapters.aiohttp import request_handler

        return request_handler(self)

    # ---- ending sessions

    async def disconnect(
        self,
        *,
        session: Session | int | None = None,
        auth_id: str | None = None,
        auth_role: str | None = None,
        realm: str | None = None,
        reason: str = uris.KILLED,
        message: str | None = None,
    ) -> int:
        """Say GOODBYE to a session, to all sessions of somebody, or to all of a role or realm.

        Sessions have to be all of what is given, and their number is returned. Those that are just
        being authenticated are refused, by what they claim to be.

        Raises: TypeError when it isn't said whom; ValueError when `reason` is not a valid URI.
        """
        if not uris.is_valid_uri(reason):
            raise ValueError(f"{reason!r} is not a valid URI for a reason")
        given = {
            "id": session.id if isinstance(session, Session) else session,
            "auth_id": auth_id,
            "auth_role": auth_role,
            "realm": realm,
        }
        wanted = {name: value for name, value in given.items() if value is not None}
        if not wanted:
            raise TypeError("disconnect() has to be told whom")
        return await self._server.disconnect(wanted, reason, message)

    # ---- shutting down

    @property
    def is_draining(self) -> bool:
        """Whether sessions are being closed and none may begin.

        True while `close_sessions` runs, and from the signal on that `graceful_shutdown` waits
        for. A readiness check can ask for it.
        """
        return self._server.is_draining

    async def close_sessions(
        self,
        grace: float = 5.0,
        *,
        batch_size: int = 200,
        batch_interval: float = 0.1,
        goodbye: bool = True,
    ) -> None:
        """Close every session and its connection, and wait until they have ended.

        Running calls have `grace` seconds to finish. Then they are cancelled and answered with
        ``wamp.error.canceled``. Until this returns, no connection and no session may begin. After
        about `batch_interval` seconds the next `batch_size` sessions are closed, so that not all
        clients come back at once.

        With `goodbye` each client gets GOODBYE ``wamp.close.system_shutdown``, and the connection
        is closed with code 1001 when it has answered. Widespread clients then stay away. Without,
        the connection is only closed, with code 1012, and they reconnect by themselves.
        """
        await self._server.close_sessions(
            grace, batch_size=batch_size, batch_interval=batch_interval, goodbye=goodbye
        )

    @asynccontextmanager
    async def graceful_shutdown(
        self,
        grace: float = 5.0,
        *,
        batch_size: int = 200,
        batch_interval: float = 0.1,
        goodbye: bool = False,
    ) -> AsyncIterator[None]:
        """Close all sessions when the process is told to end, before the server closes them.

        An async context manager for the lifespan of a site that the application is a part of. An
        application that is served by itself needs it only for other arguments. At SIGINT or
        SIGTERM it calls `close_sessions`, normally without GOODBYE, so that clients reconnect.
        Then the server's own handler gets the signal. From then on nobody may connect until the
        block ends. Some servers do not take signals by ``signal.signal``: there the connections
        that are left are closed when the block ends.

        Raises: ConfigurationError when something doesn't fit together, as `freeze` does.
        """
        self.freeze()
        with ExitStack() as until_the_end:

            async def drain() -> None:
                until_the_end.enter_context(self._server.draining(goodbye))
                await self.close_sessions(
                    grace, batch_size=batch_size, batch_interval=batch_interval, goodbye=goodbye
                )

            self._is_graceful = True
            try:
                async with ahead_of_signals(drain):
                    try:
                        yield
                    finally:
                        await drain()
            finally:
                self._is_graceful = False


def _path_below_root(scope: Scope) -> str:
    """Return the path without the prefix at which this application is mounted.

    Some servers and frameworks have removed the prefix from the path already.

    Spec: ASGI, "HTTP Connection Scope".
    """
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    below = path.removeprefix(root) or "/"
    return below if below.startswith("/") else path
