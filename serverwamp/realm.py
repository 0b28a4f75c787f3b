"""What an application offers under one name: routes, topics, authentication, default args."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any, Final, TypeAlias

from serverwamp import uris
from serverwamp.auth.authentication import Authentication
from serverwamp.auth.authorization import Action, Authorizing, Rule
from serverwamp.auth.configuration import Logins
from serverwamp.backplanes.base import Backplane
from serverwamp.backplanes.memory import MemoryBackplane
from serverwamp.binding.annotations import Converter
from serverwamp.binding.handler import (
    DefaultArg,
    Handler,
    check_factory,
    is_async_generator,
    name_of,
    note_surroundings,
)
from serverwamp.binding.results import RPCErrorResult
from serverwamp.concurrency.tasks import escaping
from serverwamp.errors import (
    ConfigurationError,
    RuntimeFailure,
    WAMPError,
    parts_of,
    without,
)
from serverwamp.limits import LimitLog
from serverwamp.migration import RealmSpellings
from serverwamp.outbound.backlog import OverflowPolicy, checked_policy
from serverwamp.patterns import PatternTable
from serverwamp.router.broker import Broker
from serverwamp.router.dealer import Dealer
from serverwamp.router.endpoints import (
    SOURCES_OF_CALLS,
    SOURCES_OF_OVERFLOWS,
    Function,
    Handlers,
    Route,
)
from serverwamp.router.features import OF_SHARING_DEALERS, Features
from serverwamp.router.meta.configuration import ToldOf
from serverwamp.router.publishing import Events
from serverwamp.router.registration_policy import Registrations, Sharing, match_of
from serverwamp.router.retained import Retained
from serverwamp.routing import (
    PublicationRoute,
    RPCDecorators,
    RPCRoute,
    TopicDecorators,
    TopicRoute,
)
from serverwamp.session import Session
from serverwamp.statistics import Counters
from serverwamp.uris import MatchPolicy

logger: logging.Logger = logging.getLogger(__name__)

ErrorMapping: TypeAlias = str | Callable[[Any], Any]

NO_LIFESPAN: Final = nullcontext()


class Realm(
    RPCDecorators,
    TopicDecorators,
    Events,
    Registrations,
    Logins,
    Authorizing,
    ToldOf,
    RealmSpellings,
):
    """Procedures, topics, and authentication under one URI.

    A realm is configured before it is used: with the first connection it is frozen, and whatever
    would change it raises `ConfigurationError`. With `camel_snake_conversion` clients may write
    ``countTo`` for a parameter ``count_to`` of any procedure. `overflow` says what becomes of
    events for a client that is too slow for them, unless the route of the topic says it; the
    application does if that is None. `client_register` is what clients may serve for one another:
    URIs, of which one that ends with a dot is a prefix, and one with an empty component a wildcard;
    the method of that name can say more.

    Raises: ConfigurationError.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        camel_snake_conversion: bool = False,
        overflow: OverflowPolicy | None = None,
        client_register: Iterable[str] | str = (),
    ) -> None:
        if uri is not None and not uris.is_valid_uri(uri):
            raise ConfigurationError(f"{uri!r} is not a valid URI for a realm")
        self.uri = uri
        self._overflow = None if overflow is None else checked_policy(overflow)
        self._error_mappings: dict[type[BaseException], ErrorMapping] = {}
        self._lifespan_functions: list[tuple[Function, bool]] = []
        self._overflow_functions: list[Function] = []
        self._frozen = False
        self._is_added = False
        self.sharings: PatternTable[Sharing] = PatternTable()
        self.handlers: Handlers = Handlers(camel_snake_conversion=camel_snake_conversion)
        self.dealer: Dealer[Any] = Dealer(self.sharings)
        self.broker: Broker = Broker(self.handlers.topic_route)
        self.retained: Retained = Retained()
        self.unserved: set[str] = set()
        self.members: dict[int, Session] = {}
        self.features: Features = Features()
        self.counters: Counters = Counters()
        self.authentication: Authentication = Authentication()
        self.backplane: Backplane = MemoryBackplane()
        for pattern in (client_register,) if isinstance(client_register, str) else client_register:
            self.client_register(pattern, match_of(pattern))

    # ---- configuration

    def add_routes(self, routes: Iterable[RPCRoute]) -> None:
        """Serve the procedures of a route set.

        Raises: ConfigurationError when a URI is taken already, or a handler can't be called.
        """
        for route in routes:
            self._add_rpc_route(route)

    def add_topics(self, routes: Iterable[TopicRoute | PublicationRoute]) -> None:
        """Let clients subscribe to the topics of a route set, and publish where it says so.

        Raises: ConfigurationError when a URI is taken already.
        """
        for route in routes:
            self._add_topic_route(route)

    def add_default_arg(
        self, name: str, value: Any = None, *, factory: Function | None = None
    ) -> None:
        """Pass `value` to every parameter called `name` of every handler.

        Clients can't supply these parameters. If one of them seems to be meant for clients, the
        application doesn't start: if it has a default value that is data, or is annotated with a
        type of data such as ``str`` while `value` is of another type.

        A `factory` is called for each call, subscription or session instead. It may be a plain or
        an async function, or a generator or async generator with one ``yield``. What is after the
        ``yield`` runs before a call is answered, and when a subscription or session has ended. If
        it raises, the call is answered with that error. An error that answers the call is raised at
        the ``yield``, an `RPCErrorResult` as a `WAMPError`.
        """
        self._check_not_frozen()
        if name in SOURCES_OF_CALLS:
            raise ConfigurationError(f"parameters called {name!r} have a meaning already")
        if factory is not None:
            if value is not None:
                raise ConfigurationError(f"default arg {name!r} has a value as well as a factory")
            check_factory(name, factory)
        self.handlers.default_args[name] = DefaultArg(value, factory)

    def add_converter(self, kind: Any, convert: Callable[[Any], Any]) -> None:
        """Make values of `kind`, wherever a route's annotations name it, with `convert`.

        It is what `Converter` is for a single annotation: see there. Declare it before the routes
        that need it are added.

        Raises: ConfigurationError when the realm is serving already.
        """
        self._check_not_frozen()
        self.handlers.converters[kind] = Converter(convert)

    def add_error_handler(self, kind: type[Exception], error: ErrorMapping) -> None:
        """Answer with `error` when a handler raises `kind` or a subclass of it.

        `error` is a URI, or a function that is given the exception and returns an
        `RPCErrorResult`, a `WAMPError` or a URI. Nothing of the exception's text is sent by itself.
        Of a group of exceptions, the first that is mapped or a `WAMPError` is the answer.
        """
        self._check_not_frozen()
        if isinstance(error, str) and not uris.is_valid_uri(error):
            raise ConfigurationError(f"{error!r} is not a valid URI for an error")
        self._error_mappings[kind] = error

    def add_session_lifespan_handler(
        self, handler: Function, authenticated_only: bool = True
    ) -> None:
        """Run an async generator over each session: to its one ``yield`` before it is welcomed.

        The rest runs when the session has ended. With `authenticated_only` false it begins before
        the authentication. Raising refuses the session.
        """
        self._check_not_frozen()
        if not is_async_generator(handler):
            raise ConfigurationError(
                f"{name_of(handler)} has to be an async generator with one yield"
            )
        note_surroundings(handler)
        self._lifespan_functions.append((handler, authenticated_only))

    def add_overflow_handler(self, handler: Function) -> None:
        """Run a function when a client begins to be too slow for its events.

        Its parameters may be the ``session``, the ``topic`` of the event that found a limit of
        `Limits` reached, the ``policy`` that decides what becomes of it, and default args. It isn't
        run again for a session before everything has been sent that waits there. Nothing waits
        for it, but for the end of the session.
        """
        self._check_not_frozen()
        note_surroundings(handler)
        self._overflow_functions.append(handler)

    def set_rpc_handler(self, handler: Function) -> None:
        """Leave all calls to ``handler(request)``, whatever their URI; routes aren't looked at."""
        self._check_not_frozen()
        note_surroundings(handler)
        self.handlers.rpc_function = handler

    def set_subscription_handler(self, handler: Function) -> None:
        """Leave all subscriptions to ``handler(topic, session)``, an async generator."""
        self._check_not_frozen()
        TopicRoute("any", handler)  # checks that it is one
        self.handlers.subscription_function = handler

    def _add_rpc_route(self, route: RPCRoute) -> None:
        self._check_not_frozen()
        self.handlers.add_procedure(route)

    def _add_topic_route(self, route: TopicRoute | PublicationRoute) -> None:
        self._check_not_frozen()
        self.handlers.add_topic(route)

    def _check_not_frozen(self) -> None:
        if self._frozen:
            raise ConfigurationError(
                "the application is serving already: configure it before the first connection"
            )

    # ---- freezing

    def freeze(self) -> None:
        """Compile every handler; nothing can be added afterwards.

        Raises: ConfigurationError when something doesn't fit together.
        """
        if self._frozen:
            return
        compiled = self.handlers.compile
        self.authentication.compile(
            lambda function, leading: compiled(
                function, sources=dict.fromkeys(leading), leading=leading
            )
        )
        if self.shares_registrations:
            self.features.offer(dealer=OF_SHARING_DEALERS)
        self.handlers.compile_routes()
        for sharing in self.sharings:
            sharing.rules = self.handlers.compile_rules(sharing.requires)
        self._set_up_authorization(
            self.handlers.compile_rule,
            self._rules_for,
            has_rules=self.handlers.has_rules or any(sharing.rules for sharing in self.sharings),
        )
        self._lifespan_handlers = [
            (compiled(function), authenticated_only)
            for function, authenticated_only in self._lifespan_functions
        ]
        self.overflow_handlers: Sequence[Handler] = [
            compiled(function, sources=SOURCES_OF_OVERFLOWS)
            for function in self._overflow_functions
        ]
        self._offer_protocol()  # when nothing can fail any more: it would be added twice
        self.handlers.compile_routes()
        self.keeps_clients_waiting: bool = (
            bool(self._lifespan_handlers) or not self.authentication.is_open
        )
        """Whether anything is done before a session is welcomed that may take its time."""
        self._frozen = True

    # ---- on the path of a request

    def _rules_for(self, action: Action, uri: str, match: MatchPolicy) -> Sequence[Rule]:
        """Return what is required by what serves an action, if there is anything."""
        if action != "register":
            return self.handlers.rules_for(action, uri, match)
        sharing = self.sharing_of(uri, match)
        return () if sharing is None else sharing.rules

    def overflow_policy(self, route: Route) -> OverflowPolicy:
        """Return the policy for the events of a topic's subscribers."""
        assert isinstance(route.definition, TopicRoute)
        return route.definition.overflow or self._overflow or "disconnect"

    async def error_for(
        self, error: BaseException, doing: str, log: LimitLog, *, debug: bool
    ) -> WAMPError:
        """Return what a client is told about `error`; the log gets the rest, if `log` admits it.

        Of a group that is about its first part with an answer of its own.
        """
        known = next((part for part in parts_of(error) if self._has_answer(part)), None)
        answer = None if known is None else await self._answer_to(known)
        unknown = error if answer is None else without(error, known)
        if unknown is not None and log.admits(doing, unknown):
            logger.error("%s failed", doing, exc_info=unknown)
        if answer is not None:
            return answer
        if debug:
            return RuntimeFailure(f"{type(error).__name__}: {error}")
        return RuntimeFailure("the handler failed; the server's log says why")

    def _has_answer(self, error: BaseException) -> bool:
        return isinstance(error, WAMPError) or self._mapping_for(error) is not None

    def _mapping_for(self, error: BaseException) -> ErrorMapping | None:
        """Return what an exception is mapped to; groups only as such, not as any exception."""
        kinds: Sequence[type] = type(error).__mro__
        if isinstance(error, BaseExceptionGroup):
            kinds = [kind for kind in kinds if issubclass(kind, BaseExceptionGroup)]
        return next((self._error_mappings[k] for k in kinds if k in self._error_mappings), None)

    async def _answer_to(self, error: BaseException) -> WAMPError | None:
        """Return what a client is told about an exception that has an answer, unless that fails."""
        try:
            return await self._mapped(error)
        except BaseException as failure:
            if escaping(failure) is not None:
                raise
            logger.exception("the error handler for %s failed", type(error).__name__)
            return None

    async def _mapped(self, error: BaseException) -> WAMPError:
        if isinstance(error, WAMPError):
            return error
        mapping = self._mapping_for(error)
        assert mapping is not None
        mapped = mapping if isinstance(mapping, str) else mapping(error)
        if isinstance(mapped, Awaitable):
            mapped = await mapped
        if isinstance(mapped, RPCErrorResult):
            return WAMPError(mapped.error_uri, mapped.args, mapped.kwargs)
        return mapped if isinstance(mapped, WAMPError) else WAMPError(mapped)

    # ---- over a session

    def lifespan_stack(self) -> AbstractAsyncContextManager[Any]:
        """Return what `open_lifespan_handlers` needs to close them: nothing if there are none."""
        return AsyncExitStack() if self.keeps_clients_waiting else NO_LIFESPAN

    async def open_lifespan_handlers(
        self, session: Session, stack: AsyncExitStack, *, authenticated: bool
    ) -> None:
        """Start the lifespan handlers that begin after, or before, the authentication."""
        for handler, authenticated_only in self._lifespan_handlers:
            if authenticated_only is authenticated:
                await stack.enter_async_context(handler.opened({"session": session}))
