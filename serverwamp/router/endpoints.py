"""The handlers of a realm: which one a URI leads to, and what their parameters can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from serverwamp import uris
from serverwamp.auth.authorization import SOURCES_OF_QUESTIONS, Action, Requirements, Rule
from serverwamp.binding.annotations import Converter
from serverwamp.binding.handler import DefaultArg, Handler, name_of
from serverwamp.errors import (
    ConfigurationError,
    InvalidURI,
    NoSuchProcedure,
    NotAuthorized,
    OptionNotAllowed,
)
from serverwamp.history import Log
from serverwamp.publication import Publication
from serverwamp.router.broker import Subscription
from serverwamp.routing import (
    ProtocolRoute,
    ProtocolTopicRoute,
    PublicationRoute,
    RouteTable,
    RPCRoute,
    TopicRoute,
)
from serverwamp.session import RPCRequest, Session
from serverwamp.uris import MatchPolicy

Function: TypeAlias = Callable[..., Any]
Definition: TypeAlias = RPCRoute | TopicRoute | PublicationRoute

SOURCES_OF_CALLS: Final[Mapping[str, type | None]] = {"request": RPCRequest, "session": Session}
# topic_uri is what serverwamp 2.0 called it.
SOURCES_OF_TOPICS: Final[Mapping[str, type | None]] = {
    "topic": None,
    "topic_uri": None,
    "match": None,
    "session": Session,
    "subscription": Subscription,
}
SOURCES_OF_PUBLICATIONS: Final[Mapping[str, type | None]] = {
    "topic": None,
    "session": Session,
    "publication": Publication,
}
SOURCES_OF_SESSIONS: Final[Mapping[str, type | None]] = {"session": Session}
SOURCES_OF_OVERFLOWS: Final[Mapping[str, type | None]] = {
    "session": Session,
    "topic": None,
    "policy": None,
}


class Route:
    """What the realm serves at a URI: its definition, and its handler once compiled."""

    __slots__ = ("_handler", "definition", "is_exact", "log", "rules")

    def __init__(self, definition: Definition) -> None:
        self.definition: Definition = definition
        self.is_exact: bool = definition.kind == "exact"
        self.rules: Sequence[Rule] = ()
        """What it requires, once compiled."""
        self._handler: Handler | None = None
        history = definition.history if isinstance(definition, TopicRoute) else None
        self.log: Log | None = None if history is None else history.new_log()
        """What is kept of the topic's past."""

    @property
    def handler(self) -> Handler:
        assert self._handler is not None, "the handlers are not compiled"
        return self._handler

    @property
    def takes_patterns(self) -> bool:
        """Whether sessions may subscribe to patterns.

        A handler that looks at the topic, and not at how it is meant, would allow more than it
        knows: who may hear ``chat.room1`` may not hear all that begins so.
        """
        takes = self.handler.takes
        decides_by_topic = takes("topic") or takes("topic_uri")
        return not decides_by_topic or takes("match") or takes("subscription")


class Handlers:
    """What answers the calls and subscriptions of a realm, compiled before it is used.

    A realm has its other functions compiled here, too, because all get the same default args.
    """

    def __init__(self, *, camel_snake_conversion: bool) -> None:
        self._camel_snake_conversion = camel_snake_conversion
        self._procedures: RouteTable[Route] = RouteTable()
        self._topics: RouteTable[Route] = RouteTable()
        self._publications: RouteTable[Route] = RouteTable()
        self.routes: list[Route] = []
        self.keeps_history: bool = False
        """Whether anything is kept of the past of any topic."""
        self._rpc_handler: Route | None = None
        self._subscription_handler: Route | None = None
        self.default_args: dict[str, DefaultArg] = {}
        self.converters: dict[Any, Converter] = {}
        """What makes values of types that aren't data types by themselves, by the type."""
        self.rpc_function: Function | None = None
        """Answers all calls, if there is one."""
        self.subscription_function: Function | None = None
        """Serves all topics, if there is one."""

    def add_procedure(self, route: RPCRoute) -> None:
        """Add a route for calls.

        Raises: ConfigurationError when its URI is taken already, or its handler can't be called.
        """
        added = Route(route)
        try:
            self._compile_call(route)
        except NameError:
            pass  # an annotation that is defined further down: compiled again with all others
        self._procedures.add(route.uri, route.kind, added)
        self.routes.append(added)

    def add_topic(self, route: TopicRoute | PublicationRoute) -> None:
        """Add a route for subscriptions, or for publications of clients.

        Raises: ConfigurationError when its URI is taken already, or a publication handler can't be
            called.
        """
        added = Route(route)
        if isinstance(route, PublicationRoute):
            with suppress(NameError):  # an annotation that is defined further down
                self._compile_with_arguments(route, SOURCES_OF_PUBLICATIONS)
        table = self._topics if isinstance(route, TopicRoute) else self._publications
        table.add(route.uri, route.kind, added)
        self.routes.append(added)
        self.keeps_history |= added.log is not None

    def add_protocol_routes(self, routes: Iterable[ProtocolRoute | ProtocolTopicRoute]) -> None:
        """Add what the protocol itself defines."""
        for route in routes:
            if isinstance(route, RPCRoute):
                self.add_procedure(route)
            else:
                self.add_topic(route)

    @property
    def has_custom_functions(self) -> bool:
        """Whether all calls, or all subscriptions, go to one function, the protocol's too."""
        return self.rpc_function is not None or self.subscription_function is not None

    @property
    def has_publication_handlers(self) -> bool:
        """Whether the application decides about any publications of clients."""
        return any(isinstance(route.definition, PublicationRoute) for route in self.routes)

    @property
    def takes_publications(self) -> bool:
        """Whether clients may publish to any topic."""
        return self.has_publication_handlers or any(
            isinstance(route.definition, TopicRoute) and route.definition.client_publish
            for route in self.routes
        )

    @property
    def has_routes(self) -> bool:
        """Whether the application serves anything by its URI."""
        return not all(route.definition.is_of_protocol for route in self.routes)

    # ---- compiling

    def compile_routes(self) -> None:
        """Compile what a URI can lead to; nothing can be added afterwards.

        Raises: ConfigurationError when something doesn't fit together.
        """
        for route in self.routes:
            try:
                route._handler = self._compile_route(route.definition)
                route.rules = self.compile_rules(route.definition.requires)
            except NameError as error:
                raise ConfigurationError(
                    f"an annotation of the handler of {route.definition.uri!r}: {error}"
                ) from error
        self._compile_custom_handlers()
        self._exact_procedures = {
            route.definition.uri: route.handler
            for route in self.routes
            if isinstance(route.definition, RPCRoute) and route.is_exact and not self.custom_rpc
        }

    def _compile_custom_handlers(self) -> None:
        self._check_no_rule_is_ignored()
        if self.rpc_function is not None:
            self._rpc_handler = Route(RPCRoute("", self.rpc_function, "prefix"))
            self._rpc_handler._handler = self.compile(
                self.rpc_function, sources=SOURCES_OF_CALLS, leading=("request",)
            )
        if self.subscription_function is not None:
            self._subscription_handler = Route(TopicRoute("any", self.subscription_function))
            self._subscription_handler._handler = self.compile(
                self.subscription_function, sources=SOURCES_OF_TOPICS, leading=("topic", "session")
            )

    def _check_no_rule_is_ignored(self) -> None:
        for function, kind in (
            (self.rpc_function, RPCRoute),
            (self.subscription_function, TopicRoute),
        ):
            for route in self.routes:
                if function is not None and route.rules and isinstance(route.definition, kind):
                    raise ConfigurationError(
                        f"{route.definition.uri!r} requires something, but its route isn't looked"
                        f" at: everything goes to {name_of(function)}"
                    )

    def compile_rules(self, requires: Requirements) -> Sequence[Rule]:
        """Return what is required with its functions compiled."""
        return [self.compile_rule(item) if callable(item) else item for item in requires]

    def compile_rule(self, function: Function) -> Handler:
        """Return the `Handler` of a function that decides what sessions may do."""
        handler = Handler(
            function,
            sources=SOURCES_OF_QUESTIONS,
            default_args=self.default_args,
            in_thread=False,
        )
        if handler.is_generator:
            raise ConfigurationError(f"{handler.name} can't decide: it is an async generator")
        return handler

    def compile(
        self,
        function: Function,
        sources: Mapping[str, type | None] = SOURCES_OF_SESSIONS,
        leading: Sequence[str] = (),
    ) -> Handler:
        """Return the `Handler` that calls a function with default args, and with `sources`."""
        return Handler(function, sources=sources, default_args=self.default_args, leading=leading)

    def _compile_route(self, route: Definition) -> Handler:
        if isinstance(route, TopicRoute):
            return self._compile_topic(route)
        if isinstance(route, PublicationRoute):
            handler = self._compile_with_arguments(route, SOURCES_OF_PUBLICATIONS)
            if handler.stream is not None:
                raise ConfigurationError(f"{handler.name} takes a stream: only procedures can")
            return handler
        return self._compile_call(route)

    def _compile_call(self, route: RPCRoute) -> Handler:
        return self._compile_with_arguments(route, SOURCES_OF_CALLS)

    def _compile_with_arguments(
        self, route: RPCRoute | PublicationRoute, sources: Mapping[str, type | None]
    ) -> Handler:
        return Handler(
            route.handler,
            sources=sources,
            default_args=self._default_args_for(route),
            takes_arguments=True,
            camel_snake_conversion=self._camel_snake_conversion or route.camel_snake_conversion,
            converters=self.converters,
        )

    def _compile_topic(self, route: TopicRoute) -> Handler:
        return Handler(
            route.handler, sources=SOURCES_OF_TOPICS, default_args=self._default_args_for(route)
        )

    def _default_args_for(self, route: Definition) -> Mapping[str, DefaultArg]:
        # A parameter of the protocol's is meant for the client, whatever the application has.
        return {} if route.is_of_protocol else self.default_args

    # ---- what a URI leads to

    def procedure(self, uri: str) -> Handler:
        """Return the handler of calls of `uri`.

        Raises: InvalidURI, NoSuchProcedure.
        """
        handler = self._exact_procedures.get(uri)
        if handler is not None:
            return handler
        route = self._rpc_handler or self._procedures.resolve(uri)
        if (route is None or not route.is_exact) and not uris.is_valid_uri(uri):
            raise InvalidURI(f"{uri!r} is not a valid URI")
        if route is None:
            raise NoSuchProcedure(f"no procedure {uri!r}")
        return route.handler

    def serves(self, uri: str, match: MatchPolicy = "exact") -> bool:
        """Tell whether the application serves a procedure, or whatever a pattern matches."""
        return (
            uri in self._exact_procedures
            or self._rpc_handler is not None
            or self._procedures.resolve_pattern(uri, match) is not None
        )

    def has_procedure(self, uri: str, match: MatchPolicy) -> bool:
        """Tell whether there is a route for just this procedure or pattern."""
        return self._procedures.has(uri, match)

    @property
    def custom_rpc(self) -> bool:
        """Whether calls go to a custom handler, which takes its arguments from the request."""
        return self._rpc_handler is not None

    def topic(self, uri: str, match: MatchPolicy = "exact") -> Route:
        """Return what serves subscriptions to `uri`, or to the pattern that it is.

        Raises: InvalidURI; NotAuthorized for topics that the application doesn't declare;
            OptionNotAllowed where it decides about one topic at a time.
        """
        if not uris.is_valid_uri(uri, match):
            raise InvalidURI(f"{uri!r} is not a valid URI")
        route = self._subscription_handler or self._topics.resolve_pattern(uri, match)
        if route is None and match == "exact":
            raise NotAuthorized(f"there is no topic {uri!r} to subscribe to")
        if route is None:
            raise NotAuthorized(f"no topic route admits to the {match} {uri!r}")
        if match != "exact" and not route.takes_patterns:
            raise OptionNotAllowed("these topics can be subscribed to one by one only")
        return route

    def serves_topic(self, uri: str) -> bool:
        """Tell whether clients can subscribe to a topic of the application."""
        return self.subscription_function is not None or self._topics.resolve(uri) is not None

    def topic_route(self, uri: str) -> Route | None:
        """Return the route of a topic, if it has one."""
        return self._subscription_handler or self._topics.resolve(uri)

    def rules_for(self, action: Action, uri: str, match: MatchPolicy) -> Sequence[Rule]:
        """Return what the route requires that serves an action, if there is one."""
        route = None
        if action == "call":
            route = self._rpc_handler or self._procedures.resolve(uri)
        elif action == "subscribe":
            route = self._subscription_handler or self._topics.resolve_pattern(uri, match)
        elif action == "publish":
            route = self._publications.resolve(uri) or self._topics.resolve(uri)
        return () if route is None else route.rules

    @property
    def has_rules(self) -> bool:
        """Whether any route requires anything."""
        return any(route.rules for route in self.routes)

    def publication(self, topic: str) -> Handler | None:
        """Return what decides about publications to `topic`; None where clients simply may.

        Raises: InvalidURI; NotAuthorized where they may not.
        """
        if not uris.is_valid_uri(topic) or uris.is_reserved(topic):
            raise InvalidURI(f"{topic!r} is not a URI that clients may publish to")
        route = self._publications.resolve(topic)
        if route is not None:
            return route.handler
        route = self._topics.resolve(topic)
        if route is not None and isinstance(route.definition, TopicRoute):
            if route.definition.client_publish:
                return None
        raise NotAuthorized(f"clients may not publish to {topic!r}")
