"""The application: an ASGI callable that serves one or several realms.

One module, because it is where all parts of the package are put together.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
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
from serverwamp.adapters.listening import accept_all, listening
from serverwamp.auth.authentication import (
    CRAAuthRequirement as CRAAuthRequirement,  # serverwamp 2.0 has it in this module
)
from serverwamp.backplanes.base import Backplane
from serverwamp.backplanes.memory import MemoryBackplane
from serverwamp.binding.signature import Function, note_surroundings
from serverwamp.concurrency.signals import ahead_of_signals
from serverwamp.errors import BackplaneUnavailable, ConfigurationError
from serverwamp.limits import Limits
from serverwamp.outbound.backlog import OverflowPolicy
from serverwamp.protocol.serializers import SUBPROTOCOLS
from serverwamp.realm import Realm
from serverwamp.router.compiler import SOURCES_OF_LOST_WINDOWS
from serverwamp.router.router import RealmRouter
from serverwamp.routing import TopicRoute
from serverwamp.serving.connection import Connection, Receive, Scope, Send
from serverwamp.serving.handshake import (
    HandshakeRefused,
    check_origin,
    checked_origins,
    chosen_subprotocol,
    refuse,
)
from serverwamp.serving.open_backplane import OpenBackplane
from serverwamp.serving.rawsocket_server import RawSocketServer
from serverwamp.serving.server import Server
from serverwamp.serving.workers import warn_of_several_workers
from serverwamp.session import Session
from serverwamp.statistics import Health, Statistics

logger: logging.Logger = logging.getLogger(__name__)

ASGIApplication: TypeAlias = Callable[[Scope, Receive, Send], Any]
Lifespan: TypeAlias = Callable[["Application"], AbstractAsyncContextManager[None]]

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>WAMP</title>
<body style="font-family: system-ui; max-width: 40em; margin: 4em auto; line-height: 1.5">
<h1>This is a WAMP endpoint</h1>
<p>It serves calls and events over a WebSocket. Connect to it with a WAMP client that supports one
of these WebSocket subprotocols:</p><ul>{subprotocols}</ul></body></html>
"""


class Application(Realm):
    """A WAMP application: an ASGI callable, and the configuration of its default realm.

    Configure it completely before the first connection; see `freeze`.

    Arguments:
        allow_default_realm: let clients that name an unknown realm in HELLO join the default
            realm. If false, they are refused with ``wamp.error.no_such_realm``.
        synchronize_requests: run the calls of each session one after the other, not concurrently.
        camel_snake_conversion: let clients write ``countTo`` for a parameter ``count_to``, for all
            procedures and publication handlers of the default realm.
        allowed_origins: other origins whose web pages may connect, such as
            ``https://example.com``; ``*`` allows all. Pages from the application's own host may
            always connect.
        overflow: what happens to events for a client that reads too slowly, as an
            `OverflowPolicy`. Topic routes and added realms can override it.
        client_register: the URIs that clients of the default realm may register for one another. A
            URI that ends with a dot is a prefix; a URI with an empty component is a wildcard
            pattern. The method `client_register` has more options.
        limits: the limits that apply to clients.
        lifespan: a function that receives the application and returns an async context manager,
            which is open while the server runs. As in Starlette, it is used only if the server
            sends lifespan events to this application. A mounted application receives none.
        backplane: carries events between the processes that serve the application. Without one,
            events reach only subscribers in the same process.
        debug: send the text of unexpected exceptions to clients. Don't use it in production.

    Raises: ConfigurationError when an argument is invalid.
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
        backplane: Backplane | None = None,
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
        self._backplane = backplane or MemoryBackplane()
        self._open_backplane = OpenBackplane(self._backplane, self._server.counters, self._routers)
        self._lost_window_functions: list[Function] = []
        self._is_graceful = False

    # ---- realms

    def add_realm(self, realm: Realm) -> None:
        """Serve a realm in addition to the default realm.

        Raises: ConfigurationError when the realm has no URI, when its URI is in use, and when it
        belongs to an application already.
        """
        self._check_not_frozen()
        if realm.uri is None:
            raise ConfigurationError("a realm without a URI can't be added to an application")
        if realm.uri in self._realms:
            raise ConfigurationError(f"the application has a realm {realm.uri!r} already")
        if realm._application is not None or realm._router is not None:
            raise ConfigurationError(f"the realm {realm.uri!r} belongs to another application")
        realm._application = self
        self._realms[realm.uri] = realm

    def _router_for(self, uri: str | None) -> RealmRouter | None:
        """Return the router of the realm that a client joins when it names `uri` in HELLO.

        A client that names no realm is authenticated by the default realm, whose authenticators
        choose the realm. Without authenticators it is refused: the result is None.
        """
        default = self.freeze()
        if uri is None:
            return None if default.authentication.is_open else default
        realm = self._realms.get(uri)
        if realm is not None:
            return realm.freeze()
        return default if self._allow_default_realm else None

    def freeze(self) -> RealmRouter:
        """Check and freeze the configuration of the application and all its realms.

        Afterwards, methods that would change the configuration raise `ConfigurationError`.

        It is called by the lifespan of the application, by `graceful_shutdown`, at the first
        connection, and by `publish` and `call`. If none of these happens at startup, for example
        with aiohttp, call it yourself after the configuration. Then mistakes show up at startup and
        not at the first connection.

        Raises: ConfigurationError when the configuration is inconsistent.
        """
        if self._router is not None:
            return self._router
        limits, counters = self._server.limits, self._server.counters
        policy = self._overflow or "disconnect"
        # Freeze the application itself last: once it has a router, everything counts as frozen.
        for realm in (*self._realms.values(), self):
            router = realm._build_router(limits, counters, self._backplane, policy)
        self._open_backplane.lost_window_handlers = [
            self._compiler.handler(function, SOURCES_OF_LOST_WINDOWS, ("window",))
            for function in self._lost_window_functions
        ]
        if not self._backplane.is_shared and self._serves_topics:
            warn_of_several_workers()
        if not self._allow_default_realm and self._routes:
            logger.warning(
                "nobody can reach the routes of the default realm: allow_default_realm is False"
            )
        return router

    @property
    def _serves_topics(self) -> bool:
        return any(
            realm._subscription_function is not None
            or any(isinstance(route, TopicRoute) for route, _ in realm._routes)
            for realm in (*self._realms.values(), self)
        )

    def _routers(self) -> Sequence[RealmRouter]:
        return [realm.freeze() for realm in (*self._realms.values(), self)]

    def add_lost_window_handler(self, handler: Function) -> Function:
        """Run a function when events from other processes may have been lost.

        That happens when the connection to the backplane breaks. After it is back, the function
        runs once for each realm that has subscribers in this process. Its first parameter is the
        `LostWindow`; further ones are default args. Usually it tells clients to load again what
        they follow. It can be used as a decorator.
        """
        self._check_not_frozen()
        note_surroundings(handler)
        self._lost_window_functions.append(handler)
        return handler

    # ---- sessions

    @property
    def sessions(self) -> Mapping[int, Session]:
        """The open sessions of all realms in this process, by id.

        It is a read-only view that changes as sessions begin and end. Copy it before a loop that
        awaits.
        """
        return self._server.sessions

    def statistics(self) -> Statistics:
        """Return a snapshot of the application's counters and current load."""
        return self._server.statistics()

    def health(self) -> Health:
        """Return whether the application can serve clients, for a readiness check of the site."""
        state = self._backplane.state
        return Health(state, draining=self.is_draining, sessions=len(self.sessions))

    # ---- serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope: ``websocket``, ``http`` or ``lifespan``."""
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
            with self._server.counted():
                await self._open_backplane.open_in_background()
        except BackplaneUnavailable:
            await self._refuse(scope, send, "the backplane can't be reached", 503)
            return
        except HandshakeRefused as reason:
            await self._refuse(scope, send, str(reason), reason.status)
            return
        with self._server.counted():
            try:
                await send({"type": "websocket.accept", "subprotocol": subprotocol})
            except OSError as error:
                logger.debug("accepting a WebSocket failed, the client is gone: %r", error)
                return
            serializer = self._server.serializer_for(subprotocol)
            await Connection(self._server, scope, receive, send, serializer).serve()

    async def _refuse(self, scope: Scope, send: Send, reason: str, status: int) -> None:
        logger.warning("a WebSocket handshake was refused: %s", reason)
        try:
            await refuse(scope, send, status)
        except OSError as error:
            logger.debug("refusing a handshake failed, the client is gone: %r", error)

    async def serve_rawsocket(
        self,
        host: str = "127.0.0.1",
        port: int | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        task_status: TaskStatus[int | str] = TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Serve RawSocket clients at a TCP port or a Unix socket, until cancelled.

        In a task group, ``await tasks.start(app.serve_rawsocket, host, port)`` returns when clients
        can connect. The result is the port, which the system chooses if `port` is 0, or the path of
        the Unix socket.

        Call `close_sessions` before cancelling, to close the sessions cleanly. Connections that are
        left when this function is cancelled are cut off.

        Arguments:
            host: the address to listen on.
            port: the TCP port. Give either `port` or `path`.
            path: the path of the Unix socket.
            ssl_context: serve TLS with this context.
            task_status: for ``tasks.start``.

        Raises: TypeError when both or neither of `port` and `path` are given; OSError when the
        address can't be used; BackplaneUnavailable when the backplane can't be reached.

        Spec: Advanced Profile, "RawSocket Transport".
        """
        if (port is None) == (path is None):
            raise TypeError("serve_rawsocket() needs either a port or the path of a Unix socket")
        server = RawSocketServer(self._server, ssl_context)
        async with self.running(), listening(host, port, path) as (listeners, address):
            task_status.started(address)
            await accept_all(listeners, server.serve)

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
                await stack.enter_async_context(self.running())
                if self._lifespan is not None:
                    await stack.enter_async_context(self._lifespan(self))
                if not self._is_graceful:  # the lifespan function has entered it already
                    await stack.enter_async_context(self.graceful_shutdown())
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()  # lifespan.shutdown
        except Exception as error:
            logger.exception("the lifespan failed at %s", phase)
            await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the backplane open while the block runs.

        The application's own lifespan enters it automatically. Enter it in the lifespan of a site
        that mounts the application, and in programs that publish without a server. Otherwise the
        first client opens the backplane, and it stays open until the event loop ends. A nested
        block has no effect.

        Raises: BackplaneUnavailable when the backplane can't be reached; ConfigurationError when
        the configuration is inconsistent.
        """
        self.freeze()
        async with self._open_backplane.opened():
            yield

    def asgi_application(self, paths: Collection[str] | None = None) -> ASGIApplication:
        """Return an ASGI application that serves WAMP at `paths` only; at every path if None.

        Below a mount or the server's ``root_path``, `paths` are relative to that prefix. At other
        paths, HTTP requests are answered with 404 and WebSockets are refused.

        Raises: ConfigurationError for a path that doesn't start with a slash, and for a single
        string instead of a collection.
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
        """Return an aiohttp request handler that serves WAMP, for ``web.get("/ws", handler)``."""
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
        """Send GOODBYE to all sessions that match every given criterion; return their number.

        A client that is being authenticated counts as well, with the names that it claims. It is
        refused with ABORT.

        Arguments:
            session: a session, or its id.
            auth_id: the `auth_id` of the sessions.
            auth_role: the `auth_role` of the sessions.
            realm: the URI of the sessions' realm.
            reason: the URI that GOODBYE or ABORT gives as the reason.
            message: a text for the client.

        Raises: TypeError without any criterion; ValueError when `reason` is not a valid URI.
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
            raise TypeError("disconnect() needs a session, auth_id, auth_role or realm")
        return await self._server.disconnect(wanted, reason, message)

    # ---- shutting down

    @property
    def is_draining(self) -> bool:
        """Whether the application is closing its sessions and refuses new ones.

        True while `close_sessions` runs, and from the signal that starts the shutdown in
        `graceful_shutdown` until its block ends. Use it for readiness checks.
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
        """Close all sessions and connections; return when they have ended.

        New connections and sessions are refused until this returns.

        Arguments:
            grace: how many seconds running calls have to finish. Calls that take longer are
                cancelled and answered with ``wamp.error.canceled``.
            batch_size: how many connections are closed at a time. Batches prevent all clients from
                reconnecting at once.
            batch_interval: about how many seconds to wait between batches.
            goodbye: with True, each client gets GOODBYE ``wamp.close.system_shutdown``, and its
                connection is closed with code 1001 when it has answered. Common clients don't
                reconnect after that. With False, the connection is closed with code 1012, after
                which common clients reconnect.
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
        """Close all sessions at SIGINT or SIGTERM, before the server closes their connections.

        This is an async context manager for the lifespan of a site that mounts the application. An
        application that is served by itself enters it automatically; use it in your ``lifespan``
        only to pass other arguments.

        At the signal it calls `close_sessions` with the same arguments, but by default without
        GOODBYE, so that clients reconnect. Then the server's own signal handler runs. New
        connections are refused from the signal until the block ends.

        Some servers don't handle signals by ``signal.signal``. With them, the sessions are closed
        when the block ends.

        Raises: ConfigurationError when the configuration is inconsistent; see `freeze`.
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

    Some servers and frameworks remove the prefix from ``path`` themselves.

    Spec: ASGI, "HTTP Connection Scope".
    """
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    below = path.removeprefix(root) or "/"
    return below if below.startswith("/") else path
