"""The configuration of a realm: routes, topics, authentication and default args under one URI.

One module, though a long one: everything that can be said about a realm has its method here, with
its documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from serverwamp import uris
from serverwamp.auth.authorization import (
    Action,
    Authorization,
    Authorizer,
    Requirement,
    Requirements,
    Rule,
    checked_requirements,
)
from serverwamp.auth.configuration import Authenticators, LoginConfiguration
from serverwamp.backplanes.base import Backplane
from serverwamp.backplanes.memory import MemoryBackplane
from serverwamp.binding.annotations import Converter
from serverwamp.binding.handler import (
    DefaultArg,
    Function,
    Handler,
    check_factory,
    is_async_generator,
    name_of,
    note_surroundings,
)
from serverwamp.client_call import ClientCall
from serverwamp.errors import ConfigurationError, checked_args
from serverwamp.limits import Limits
from serverwamp.migration import RealmSpellings
from serverwamp.outbound.backlog import OverflowPolicy, checked_policy
from serverwamp.patterns import PatternTable
from serverwamp.publication import Audience, Publication, disclosure
from serverwamp.router.broker import Broker
from serverwamp.router.compiler import (
    SOURCES_OF_CALLS,
    SOURCES_OF_OVERFLOWS,
    SOURCES_OF_TOPICS,
    HandlerCompiler,
)
from serverwamp.router.dealer import Dealer
from serverwamp.router.endpoints import Endpoint, Endpoints
from serverwamp.router.error_mapping import ErrorAnswer, ErrorMapping
from serverwamp.router.features import OF_SHARING_DEALERS, Features
from serverwamp.router.meta.configuration import MetaAPIs, MetaConfiguration
from serverwamp.router.meta.history import HistoryAPI
from serverwamp.router.meta.testaments import TestamentAPI
from serverwamp.router.publishing import Publishing
from serverwamp.router.registration_policy import RegistrationPolicy
from serverwamp.router.retained import Retained
from serverwamp.router.router import RealmRouter
from serverwamp.routing import (
    Definition,
    ProtocolRoute,
    ProtocolTopicRoute,
    PublicationRoute,
    RPCDecorators,
    RPCRoute,
    TopicDecorators,
    TopicRoute,
)
from serverwamp.session import Session
from serverwamp.statistics import Counters
from serverwamp.uris import MatchPolicy, match_of


class Realm(
    RPCDecorators,
    TopicDecorators,
    LoginConfiguration,
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
        self.uri: str | None = uri
        """The URI by which clients ask for it; None for the default realm of an application."""
        self._overflow = None if overflow is None else checked_policy(overflow)
        self._routes: list[tuple[Definition, Handler | None]] = []  # and what they were compiled to
        self._taken: set[tuple[type[Definition], str, str]] = set()
        self._rpc_function: Function | None = None
        self._subscription_function: Function | None = None
        self._default_args: dict[str, DefaultArg] = {}
        self._converters: dict[object, Converter] = {}
        self._compiler = HandlerCompiler(
            self._default_args, self._converters, camel_snake_conversion=camel_snake_conversion
        )
        self._error_answers: dict[type[BaseException], ErrorAnswer] = {}
        self._lifespan_functions: list[tuple[Function, bool]] = []
        self._overflow_functions: list[Function] = []
        self._logins = Authenticators()
        self._authorizer: tuple[Function, float] | None = None
        self._client_register: dict[tuple[str, MatchPolicy], tuple[bool, Requirements]] = {}
        self._meta = MetaConfiguration()
        self._router: RealmRouter | None = None
        self._application: Realm | None = None  # the one that it was added to
        for pattern in (client_register,) if isinstance(client_register, str) else client_register:
            self.client_register(pattern, match_of(pattern))

    # ---- routes

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

    def set_rpc_handler(self, handler: Function) -> None:
        """Leave all calls to ``handler(request)``, whatever their URI; routes aren't looked at."""
        self._check_not_frozen()
        note_surroundings(handler)
        self._rpc_function = handler

    def set_subscription_handler(self, handler: Function) -> None:
        """Leave all subscriptions to ``handler(topic, session)``, an async generator."""
        self._check_not_frozen()
        TopicRoute("any", handler)  # checks that it is one
        self._subscription_function = handler

    def _add_rpc_route(self, route: RPCRoute) -> None:
        self._add(RPCRoute, route)

    def _add_topic_route(self, route: TopicRoute | PublicationRoute) -> None:
        self._add(TopicRoute if isinstance(route, TopicRoute) else PublicationRoute, route)

    def _add(self, table: type[Definition], route: Definition) -> None:
        self._check_not_frozen()
        handler = None
        if table is not TopicRoute:
            with suppress(NameError):  # an annotation that is defined further down
                handler = self._compiler.route_handler(route)
        if route.kind != "regex":
            if (table, route.kind, route.uri) in self._taken:
                raise ConfigurationError(f"there is a route for {route.uri!r} already")
            self._taken.add((table, route.kind, route.uri))
        self._routes.append((route, handler))

    def _forget_handlers(self) -> None:
        """Have all routes compiled again, because what their handlers can take has changed."""
        self._routes = [(route, None) for route, _ in self._routes]

    def _check_not_frozen(self) -> None:
        if self._router is not None:
            raise ConfigurationError(
                "the application is serving already: configure it before the first connection"
            )

    # ---- what all handlers have in common

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
        self._default_args[name] = DefaultArg(value, factory)
        self._forget_handlers()

    def add_converter(self, kind: Any, convert: Callable[[Any], Any]) -> None:
        """Make values of `kind`, wherever a route's annotations name it, with `convert`.

        It is what `Converter` is for a single annotation: see there. Declare it before the routes
        that need it are added.

        Raises: ConfigurationError when the realm is serving already.
        """
        self._check_not_frozen()
        self._converters[kind] = Converter(convert)
        self._forget_handlers()

    def add_error_handler(self, kind: type[Exception], error: ErrorAnswer) -> None:
        """Answer with `error` when a handler raises `kind` or a subclass of it.

        `error` is a URI, or a function that is given the exception and returns an
        `RPCErrorResult`, a `WAMPError` or a URI. Nothing of the exception's text is sent by itself.
        Of a group of exceptions, the first that is mapped or a `WAMPError` is the answer.
        """
        self._check_not_frozen()
        if isinstance(error, str) and not uris.is_valid_uri(error):
            raise ConfigurationError(f"{error!r} is not a valid URI for an error")
        self._error_answers[kind] = error

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

    # ---- what clients may do

    @property
    def _authenticators(self) -> Authenticators:
        self._check_not_frozen()
        return self._logins

    def set_authorizer(self, function: Callable[..., Any], *, lifetime: float = 60.0) -> None:
        """Ask `function` before a session calls, subscribes, registers or publishes anything.

        Its parameters may be the ``session``, the ``action`` ("call", "subscribe", "register" or
        "publish"), the ``uri``, how that is to be understood, as ``match`` ("exact", "prefix" or
        "wildcard"), the ``options`` of the request, and default args. It returns True or False, or
        raises `WAMPError` with what the client is to be told; whatever else it does refuses with
        ``wamp.error.authorization_failed``. A plain function is called where it is needed, and has
        to return at once.

        What it returns is held to for `lifetime` seconds, for the same session in the same role,
        unless it takes the ``options`` and there are any. Before an event goes to a session that
        has subscribed to a pattern, the topic is asked about as itself. Of registrations it is
        asked about patterns only if it takes ``match``; otherwise they are refused.

        Raises: ConfigurationError.
        """
        self._check_not_frozen()
        if not lifetime >= 0:
            raise ConfigurationError(f"answers can't be held to for {lifetime!r} seconds")
        if not callable(function):
            raise ConfigurationError(f"{function!r} is not a function")
        self._authorizer = function, lifetime

    def client_register(
        self,
        uri: str,
        match: MatchPolicy = "exact",
        *,
        disclose_caller: bool = False,
        requires: Requirement | None = None,
    ) -> None:
        """Let clients serve `uri`, or what this pattern matches, for one another.

        Whatever else clients register can be called by the application alone. They can register
        patterns, too, where this covers all that theirs match. With `disclose_caller` they are told
        who calls, also by who doesn't ask for it. `requires` is what registering takes, as for
        `route`. What a more specific one of these is about goes to nobody who has registered
        a pattern that this one covers. The application's own procedures come first.

        Raises: ConfigurationError.

        Spec: Advanced Profile, "Pattern-based Registrations" and "Shared Registrations".
        """
        self._check_not_frozen()
        if not uris.is_valid_uri(uri, match) or uris.is_reserved(uri):
            raise ConfigurationError(f"{uri!r} is nothing that clients could register")
        if (uri, match) in self._client_register:
            raise ConfigurationError(f"clients may register {uri!r} already")
        self._client_register[uri, match] = disclose_caller, checked_requirements(requires)

    def set_meta_api(
        self,
        requires: Requirement | None = None,
        *,
        kill: Requirement = (),
        testaments: Requirement | None = None,
    ) -> None:
        """Say who may use the procedures and topics that the protocol has below ``wamp.``.

        `requires` is what it takes to ask, and to hear, who is there and what they do: a role, a
        collection of roles, or a plain function that is given the session and returns True if it
        may.
        `kill` is what it takes to end the sessions of others, and `testaments` what it takes to
        leave something to be published at the session's end. Sessions that are authenticated may
        do all that unless something else is said here, but for ending others: nobody may.

        Raises: ConfigurationError.
        """
        self._check_not_frozen()
        self._meta = MetaConfiguration(requires, kill, testaments)

    # ---- at run time

    async def publish(
        self,
        topic: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        exclude: Iterable[Session | int] | Session | int = (),
        eligible: Iterable[Session | int] | Session | int | None = None,
        exclude_authid: Iterable[str] | str = (),
        eligible_authid: Iterable[str] | str | None = None,
        exclude_authrole: Iterable[str] | str = (),
        eligible_authrole: Iterable[str] | str | None = None,
        publisher: Session | None = None,
        exclude_me: bool = True,
        disclose_me: bool = False,
        retain: bool = False,
    ) -> int:
        """Send an event to every session of the realm that is subscribed to `topic`.

        `exclude` and `eligible` name sessions, or their ids, that don't, or that alone, receive
        it; `exclude_authid` and so on do so by their `auth_id` and `auth_role`. Who is to receive
        it has to be in everything that says who is eligible.

        With a `publisher` it is as if that session had published it: it doesn't receive the event
        itself unless `exclude_me` is false, and with `disclose_me` all others are told who it is.
        `retain` keeps the event for those who subscribe later.

        Events reach each subscriber in the order in which they were published; no peer is
        waited for. Returns the id of the publication.

        A topic that no topic route serves is logged once; a hundred topics are, at most. A
        subscriber whose format can't hold the arguments doesn't receive the event, which is logged
        once for its connection.

        Raises: ValueError when `topic` is not a valid URI, or one that belongs to the protocol;
            also when the format of no subscriber can hold the arguments.
        """
        if not uris.is_valid_uri(topic) or uris.is_reserved(topic):
            raise ValueError(f"{topic!r} is not a valid URI for a topic")
        audience = None
        if (
            (exclude or exclude_authid or exclude_authrole)
            or eligible is not None
            or eligible_authid is not None
            or eligible_authrole is not None
        ):
            audience = Audience(
                exclude=_ids(exclude),
                eligible=None if eligible is None else _ids(eligible),
                exclude_authid=_texts(exclude_authid),
                eligible_authid=None if eligible_authid is None else _texts(eligible_authid),
                exclude_authrole=_texts(exclude_authrole),
                eligible_authrole=None if eligible_authrole is None else _texts(eligible_authrole),
            )
        disclosed = disclosure(publisher) if publisher is not None and disclose_me else {}
        publication = Publication(
            topic,
            checked_args(args),
            kwargs or {},
            audience,
            publisher=None if publisher is None else publisher.id,
            exclude_me=exclude_me,
            disclosed=disclosed,
            retain=retain,
        )
        await self.freeze().publishing.publish(publication)
        return publication.id

    def call(
        self,
        uri: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> ClientCall:
        """Call a procedure that a client serves for all; see `client_register`.

        Of several clients one is called, as they have agreed on; what the application serves itself
        isn't called in this way. `timeout` is in seconds, and
        counts anew with each report of progress; it is `Limits.invocation_timeout` if not given.

        Raises: WAMPError when awaited; see `ClientCall`.
        """
        return self.freeze().call(uri, checked_args(args), kwargs or {}, timeout)

    def invalidate_authorizations(self, session: Session | None = None) -> None:
        """Forget what the authorizer has said about a session, or about all of the realm."""
        if session is not None:
            session._answers = None
        elif self._router is not None:
            for member in self._router.members.values():
                member._answers = None

    # ---- freezing

    def freeze(self) -> RealmRouter:
        """End the configuration, and return the router that serves the realm from now on.

        The application does that for all of its realms.

        Raises: ConfigurationError when something doesn't fit together.
        """
        if self._router is None and self._application is not None:
            self._application.freeze()
        return self._router or self._frozen(Limits(), Counters(), MemoryBackplane(), "disconnect")

    def _frozen(
        self, limits: Limits, counters: Counters, backplane: Backplane, overflow: OverflowPolicy
    ) -> RealmRouter:
        """Make the router; `overflow` is the policy of topics for which none was given.

        One function, though a long one: in here is everything that a realm is made of, in the
        order in which it is needed.
        """
        compiler = self._compiler
        authentication = self._logins.compiled(compiler.authenticator)
        endpoints = self._endpoints(overflow)
        policies = self._registration_policies()
        authorization = self._authorization(endpoints, policies, limits)
        asks_subscribers = authorization is not None and authorization.authorizer is not None
        broker, dealer = Broker(endpoints.topic_endpoint), Dealer[Any](policies)
        retained = Retained(limits)
        publishing = Publishing(
            endpoints, broker, retained, backplane, counters, asks_subscribers=asks_subscribers
        )
        members: dict[int, Session] = {}
        meta = MetaAPIs()
        features = Features()
        if policies:
            features.offer(dealer=OF_SHARING_DEALERS)
        protocol: list[ProtocolRoute | ProtocolTopicRoute] = []
        if not endpoints.has_catch_all:  # a function that takes all takes the protocol's own, too
            has_logins = not authentication.is_open
            if endpoints.keeps_history:
                protocol += HistoryAPI(broker, authorization).routes()
                features.offer(broker=("event_history",))
            if self._meta.offers_sessions(has_logins=has_logins):
                meta = MetaAPIs.of(self._meta, members, broker, dealer, publishing.deliver)
                protocol += meta.routes()
                features.offer(
                    broker=("session_meta_api", "subscription_meta_api"),
                    dealer=("session_meta_api", "registration_meta_api"),
                    is_allowed=self._meta.may_ask,
                )
            if endpoints.takes_publications and self._meta.offers_testaments(has_logins=has_logins):
                may_make_testaments = self._meta.may_make_testaments
                protocol += TestamentAPI(may_make_testaments, endpoints.publication).routes()
                features.offer(dealer=("testament_meta_api",), is_allowed=may_make_testaments)
        for route in protocol:
            endpoints.add(Endpoint(route, compiler.route_handler(route)))
        self._router = RealmRouter(
            endpoints=endpoints,
            broker=broker,
            dealer=dealer,
            registration_policies=policies,
            retained=retained,
            publishing=publishing,
            members=members,
            authentication=authentication,
            authorization=authorization,
            errors=ErrorMapping(self._error_answers),
            lifespan_handlers=[
                (compiler.handler(function), authenticated_only)
                for function, authenticated_only in self._lifespan_functions
            ],
            overflow_handlers=[
                compiler.handler(function, SOURCES_OF_OVERFLOWS)
                for function in self._overflow_functions
            ],
            features=features,
            meta=meta,
            counters=counters,
        )
        return self._router

    def _endpoints(self, overflow: OverflowPolicy) -> Endpoints:
        compiler, rpc, subscription = (
            self._compiler,
            self._rpc_function,
            self._subscription_function,
        )
        overflow = self._overflow or overflow
        for_calls = for_topics = None
        if rpc is not None:
            handler = compiler.handler(rpc, SOURCES_OF_CALLS, ("request",))
            for_calls = Endpoint(RPCRoute("", rpc, "prefix"), handler)
        if subscription is not None:
            handler = compiler.handler(subscription, SOURCES_OF_TOPICS, ("topic", "session"))
            for_topics = Endpoint(TopicRoute("any", subscription), handler, overflow=overflow)
        endpoints = Endpoints(for_calls, for_topics)
        for route, compiled in self._routes:
            self._check_requirements_count(route)
            try:
                handler = compiled or compiler.route_handler(route)
                rules = compiler.rules(route.requires)
            except NameError as error:
                raise ConfigurationError(
                    f"an annotation of the handler of {route.uri!r}: {error}"
                ) from error
            endpoints.add(Endpoint(route, handler, rules, overflow))
        return endpoints

    def _check_requirements_count(self, route: Definition) -> None:
        """Check that what a route requires isn't ignored because another function serves it.

        Raises: ConfigurationError.
        """
        function = None
        if isinstance(route, RPCRoute):
            function = self._rpc_function
        elif isinstance(route, TopicRoute):
            function = self._subscription_function
        if function is not None and route.requires:
            raise ConfigurationError(
                f"{route.uri!r} requires something, but its route isn't looked at: everything goes"
                f" to {name_of(function)}"
            )

    def _registration_policies(self) -> PatternTable[RegistrationPolicy]:
        policies: PatternTable[RegistrationPolicy] = PatternTable()
        for (uri, match), (disclose_caller, requires) in self._client_register.items():
            policy = RegistrationPolicy(disclose_caller, self._compiler.rules(requires))
            policies.add(uri, match, policy)
        return policies

    def _authorization(
        self, endpoints: Endpoints, policies: PatternTable[RegistrationPolicy], limits: Limits
    ) -> Authorization | None:
        def rules_for(action: Action, uri: str, match: MatchPolicy) -> Sequence[Rule]:
            if action != "register":
                return endpoints.rules_for(action, uri, match)
            policy = next(policies.covering(uri, match), None)
            return () if policy is None else policy.rules

        authorizer = None
        if self._authorizer is not None:
            function, lifetime = self._authorizer
            authorizer = Authorizer(self._compiler.rule(function), lifetime, limits)
        has_rules = endpoints.has_rules or any(policy.rules for policy in policies)
        if authorizer is None and not has_rules:
            return None
        return Authorization(authorizer, rules_for, limits)


def _ids(sessions: Iterable[Session | int] | Session | int) -> frozenset[int]:
    if isinstance(sessions, (Session, int)):
        sessions = (sessions,)
    return frozenset(item.id if isinstance(item, Session) else item for item in sessions)


def _texts(texts: Iterable[str] | str) -> frozenset[str]:
    return frozenset((texts,) if isinstance(texts, str) else texts)
