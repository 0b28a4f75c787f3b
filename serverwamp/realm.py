"""The configuration of a realm: routes, topics, authentication and default args under one URI.

One module, because every setting of a realm has its method, with its documentation, here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
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
    forget_answers,
)
from serverwamp.auth.configuration import Authenticators, LoginConfiguration
from serverwamp.backplanes.base import Backplane
from serverwamp.backplanes.memory import MemoryBackplane
from serverwamp.binding.annotations import Converter
from serverwamp.binding.default_args import DefaultArg, check_factory
from serverwamp.binding.handler import Handler
from serverwamp.binding.signature import Function, is_async_generator, name_of, note_surroundings
from serverwamp.client_call import ClientCall
from serverwamp.errors import ConfigurationError, checked_args
from serverwamp.limits import Limits
from serverwamp.migration import RealmSpellings
from serverwamp.outbound.backlog import OverflowPolicy, checked_policy
from serverwamp.patterns import PatternTable
from serverwamp.publication import publication_to
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
    """The procedures, topics and authentication that an application offers under one realm URI.

    Configure the realm completely before the first connection or the first `publish`, which freezes
    it: all methods that would change a frozen realm raise `ConfigurationError`.

    Arguments:
        uri: the URI by which clients name the realm in HELLO.
        camel_snake_conversion: let clients write ``countTo`` for a parameter ``count_to``, for all
            procedures and publication handlers.
        overflow: what happens to events for a client that reads too slowly, as an
            `OverflowPolicy`. Topic routes can override it. None: the application's policy.
        client_register: the URIs that clients may register for one another. A URI that ends with a
            dot is a prefix; a URI with an empty component is a wildcard pattern. The method
            `client_register` has more options.

    Raises: ConfigurationError when `uri`, `overflow` or `client_register` is invalid.
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
        """The URI by which clients name the realm; None for an application's default realm."""
        self._overflow = None if overflow is None else checked_policy(overflow)
        # Each route with its compiled handler; None until all annotations can be resolved.
        self._routes: list[tuple[Definition, Handler | None]] = []
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
        self._application: Realm | None = None  # the application that it was added to
        for pattern in (client_register,) if isinstance(client_register, str) else client_register:
            self.client_register(pattern, match_of(pattern))

    # ---- routes

    def add_routes(self, routes: Iterable[RPCRoute]) -> None:
        """Serve the procedures of a route set.

        Raises: ConfigurationError when a URI has a route already, or when the parameters of a
        handler can't be filled in.
        """
        for route in routes:
            self._add_rpc_route(route)

    def add_topics(self, routes: Iterable[TopicRoute | PublicationRoute]) -> None:
        """Serve the subscription and publication handlers of a route set.

        Raises: ConfigurationError when a URI has a route already.
        """
        for route in routes:
            self._add_topic_route(route)

    def set_rpc_handler(self, handler: Function) -> None:
        """Handle all calls by ``handler(request)``, for every URI, instead of by routes.

        The handler takes the arguments from the `RPCRequest`, unconverted. It answers like the
        function of a `route`. It also receives calls below ``wamp.``, so the realm has no meta API.

        Raises: ConfigurationError when the realm is serving already.
        """
        self._check_not_frozen()
        note_surroundings(handler)
        self._rpc_function = handler

    def set_subscription_handler(self, handler: Function) -> None:
        """Handle all subscriptions by ``handler(topic, session)``, for every topic.

        The handler is an async generator with one ``yield``, as for `topic`. It also receives
        subscriptions below ``wamp.``, so the realm has no meta API.

        Raises: ConfigurationError when it isn't an async generator.
        """
        self._check_not_frozen()
        TopicRoute("any", handler)  # checks that the handler is an async generator
        self._subscription_function = handler

    def _add_rpc_route(self, route: RPCRoute) -> None:
        self._add(RPCRoute, route)

    def _add_topic_route(self, route: TopicRoute | PublicationRoute) -> None:
        self._add(TopicRoute if isinstance(route, TopicRoute) else PublicationRoute, route)

    def _add(self, table: type[Definition], route: Definition) -> None:
        self._check_not_frozen()
        handler = None
        if table is not TopicRoute:
            with suppress(NameError):  # an annotation whose class is defined later in the module
                handler = self._compiler.route_handler(route)
        if route.kind != "regex":
            if (table, route.kind, route.uri) in self._taken:
                raise ConfigurationError(f"there is a route for {route.uri!r} already")
            self._taken.add((table, route.kind, route.uri))
        self._routes.append((route, handler))

    def _forget_handlers(self) -> None:
        """Compile all routes again later: default args or converters have changed."""
        self._routes = [(route, None) for route, _ in self._routes]

    def _check_not_frozen(self) -> None:
        if self._router is not None:
            raise ConfigurationError(
                "the application is serving already: configure it before the first connection"
            )

    # ---- settings for all handlers

    def add_default_arg(
        self, name: str, value: Any = None, *, factory: Function | None = None
    ) -> None:
        """Pass `value` to every handler that has a parameter called `name`.

        Clients can't supply these parameters. The application refuses to start if such a parameter
        looks like an argument for clients: it has a default value that is data, or its annotation
        is a data type such as ``str`` and `value` has another type.

        With `factory`, the factory is called for each call, subscription or session, and the value
        that it returns or yields is passed. A factory is a plain or async function, or a plain or
        async generator with one ``yield``. The code after the ``yield`` runs before the call is
        answered, or when the subscription or session has ended. If that code raises, the call is
        answered with the error. If the handler fails, its exception is raised at the ``yield``; an
        `RPCErrorResult` is raised there as a `WAMPError`.

        Raises: ConfigurationError for the name ``request`` or ``session``, for a value together
        with a factory, and for a factory that can't be called without arguments.
        """
        self._check_not_frozen()
        if name in SOURCES_OF_CALLS:
            raise ConfigurationError(
                f"a default arg can't be called {name!r}: the name is reserved"
            )
        if factory is not None:
            if value is not None:
                raise ConfigurationError(f"default arg {name!r} has both a value and a factory")
            check_factory(name, factory)
        self._default_args[name] = DefaultArg(value, factory)
        self._forget_handlers()

    def add_converter(self, kind: Any, convert: Callable[[Any], Any]) -> None:
        """Convert arguments whose annotation is `kind` by calling ``convert(value)``.

        This applies `Converter` to every annotation that names `kind`; see there for the values and
        errors of `convert`. Add converters before the routes that need them.

        Raises: ConfigurationError when the realm is serving already.
        """
        self._check_not_frozen()
        self._converters[kind] = Converter(convert)
        self._forget_handlers()

    def add_error_handler(self, kind: type[Exception], error: ErrorAnswer) -> None:
        """Answer with `error` when a handler raises `kind` or a subclass of it.

        `error` is a URI, or a function (plain or async) that receives the exception and returns an
        `RPCErrorResult`, a `WAMPError` or a URI. With a URI, the exception's text is not sent. In
        an exception group, the first exception that is mapped, or is a `WAMPError`, decides.

        Raises: ConfigurationError when `error` is a string that is not a valid URI.
        """
        self._check_not_frozen()
        if isinstance(error, str) and not uris.is_valid_uri(error):
            raise ConfigurationError(f"{error!r} is not a valid URI for an error")
        self._error_answers[kind] = error

    def add_session_lifespan_handler(
        self, handler: Function, authenticated_only: bool = True
    ) -> None:
        """Run an async generator with one ``yield`` for each session.

        The code before the ``yield`` runs after authentication and before WELCOME is sent; with
        ``authenticated_only=False`` it runs before authentication. An exception there refuses the
        session. The code after the ``yield`` runs when the session has ended. Parameters are the
        ``session`` and default args.

        Raises: ConfigurationError when `handler` isn't an async generator.
        """
        self._check_not_frozen()
        if not is_async_generator(handler):
            raise ConfigurationError(
                f"{name_of(handler)} has to be an async generator with one yield"
            )
        note_surroundings(handler)
        self._lifespan_functions.append((handler, authenticated_only))

    def add_overflow_handler(self, handler: Function) -> None:
        """Run a function when a client starts to read its events too slowly.

        Parameters may be the ``session``, the ``topic`` of the event that exceeded
        `Limits.outbound_messages` or `Limits.outbound_bytes`, the ``policy`` that applies to that
        event, and default args.

        The function runs again for the same session only after the session's backlog has drained.
        Only the end of the session waits for it.
        """
        self._check_not_frozen()
        note_surroundings(handler)
        self._overflow_functions.append(handler)

    # ---- permissions of clients

    @property
    def _authenticators(self) -> Authenticators:
        self._check_not_frozen()
        return self._logins

    def set_authorizer(self, function: Callable[..., Any], *, lifetime: float = 60.0) -> None:
        """Set the function that authorizes calls, subscriptions, registrations and publications.

        Parameters may be the ``session``, the ``action`` ("call", "subscribe", "register" or
        "publish"), the ``uri``, its ``match`` policy ("exact", "prefix" or "wildcard"), the
        ``options`` of the request (a dict by their names in the protocol), and default args.

        The function returns True to allow the request, returns False to refuse it with
        ``wamp.error.not_authorized``, or raises `WAMPError` to refuse it with that error. Any other
        result or exception is logged and refuses with ``wamp.error.authorization_failed``. A plain
        function runs in the event loop, not in a thread, so it must return quickly.

        Each answer is cached for `lifetime` seconds, per session, role, action, URI and match
        policy. If the function takes ``options``, answers to requests with options aren't cached.

        For a session that has subscribed to a pattern, the function is also called about each
        topic whose events match, as an exact subscription. If the function takes ``uri`` but not
        ``match``, clients can't register patterns.

        Raises: ConfigurationError when `lifetime` is negative, or `function` is not callable.
        """
        self._check_not_frozen()
        if not lifetime >= 0:
            raise ConfigurationError(f"lifetime must be at least 0 seconds, not {lifetime!r}")
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
        """Let clients register `uri`, or the URIs that this pattern matches, for one another.

        All other procedures that clients register can be called only by the application. Clients
        can register a pattern, too, if this pattern covers everything that theirs matches.

        If several `client_register` patterns match the URI of a call, the most specific one
        governs it: the call never reaches a client whose pattern was allowed by another one. The
        application's own procedures take precedence over all registrations.

        With `disclose_caller`, callees are told the caller's session even if the caller didn't set
        ``disclose_me``. `requires` is the requirement for registering, as for `route`.

        Raises: ConfigurationError when `uri` is invalid or reserved, when the pattern was given
        before, and when `requires` is not a requirement.

        Spec: Advanced Profile, "Pattern-based Registrations" and "Shared Registrations".
        """
        self._check_not_frozen()
        if not uris.is_valid_uri(uri, match) or uris.is_reserved(uri):
            raise ConfigurationError(f"{uri!r} is not a URI that clients can register")
        if (uri, match) in self._client_register:
            raise ConfigurationError(f"client_register was called for {uri!r} before")
        self._client_register[uri, match] = disclose_caller, checked_requirements(requires)

    def set_meta_api(
        self,
        requires: Requirement | None = None,
        *,
        kill: Requirement = (),
        testaments: Requirement | None = None,
    ) -> None:
        """Set who may use the meta procedures and meta topics below ``wamp.``.

        Each setting is a requirement: a role, a collection of roles, or a plain function that
        receives the session and returns True to allow it. An empty collection allows nobody.

        Arguments:
            requires: the requirement for reading: sessions, subscriptions and registrations, and
                the events about them. Default: any authenticated session.
            kill: the requirement for ending other sessions. Default: nobody.
            testaments: the requirement for adding testaments, which are published when the session
                ends. Default: any authenticated session.

        Raises: ConfigurationError when a setting is not a requirement, or is an async function.

        Spec: Advanced Profile, "Session Meta API", "Registration Meta API", "Subscription Meta API"
        and "Session Testament".
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
        """Publish an event to the sessions that are subscribed to `topic`; return its id.

        Events reach each subscriber in the order of publication. Publishing doesn't wait until
        clients have received the event.

        If no topic route serves `topic`, nobody can receive the event; that is logged once per
        topic, for at most a hundred topics. If the serialization format of a subscriber can't
        express the arguments, that subscriber doesn't receive the event; that is logged once per
        connection.

        Arguments:
            topic: the URI of the topic.
            args: the positional arguments.
            kwargs: the keyword arguments.
            exclude: sessions, or their ids, that don't receive the event.
            eligible: sessions, or their ids; no other session receives the event. Recipients must
                satisfy every ``eligible`` argument that is given.
            exclude_authid: `auth_id` values whose sessions don't receive the event.
            eligible_authid: `auth_id` values; other sessions don't receive the event.
            exclude_authrole: `auth_role` values whose sessions don't receive the event.
            eligible_authrole: `auth_role` values; other sessions don't receive the event.
            publisher: the session on whose behalf the event is published.
            exclude_me: don't send the event to `publisher`.
            disclose_me: tell subscribers the id, `auth_id` and `auth_role` of `publisher`.
            retain: keep the event for sessions that subscribe later.

        Raises: ValueError when `topic` is invalid or reserved for the protocol, and when the
        serialization format of no subscriber can express the arguments; with a backplane,
        BackplaneUnavailable if the event was not sent, and BackplaneOutcomeUnknown if it may have
        been sent.
        """
        publication = publication_to(
            topic,
            args,
            kwargs,
            exclude=exclude,
            eligible=eligible,
            exclude_authid=exclude_authid,
            eligible_authid=eligible_authid,
            exclude_authrole=exclude_authrole,
            eligible_authrole=eligible_authrole,
            publisher=publisher,
            exclude_me=exclude_me,
            disclose_me=disclose_me,
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
        """Call a procedure that clients have registered for one another; see `client_register`.

        Await the call to get its result. If several clients share the registration, their
        ``invoke`` policy picks one. The application's own procedures can't be called in this way.

        `timeout` is in seconds and starts again with each progressive result. It defaults to
        `Limits.invocation_timeout`.

        Raises: WAMPError when awaited; see `ClientCall`.
        """
        return self.freeze().call(uri, checked_args(args), kwargs or {}, timeout)

    def invalidate_authorizations(self, session: Session | None = None) -> None:
        """Forget the authorizer's cached answers for `session`, or for all sessions of the realm.

        Call it when permissions have changed and you can't wait for the ``lifetime`` of the
        answers. The answer of an authorizer that is running at that moment is used, but not cached.
        """
        if session is not None:
            forget_answers(session)
        elif self._router is not None:
            for member in self._router.members.values():
                forget_answers(member)

    # ---- freezing

    def freeze(self) -> RealmRouter:
        """Check and freeze the configuration; return the router that serves the realm from now on.

        The application calls it for its realms, at the first connection or earlier: see
        `Application.freeze`. Further calls return the same router.

        Raises: ConfigurationError when the configuration is inconsistent.
        """
        if self._router is None and self._application is not None:
            self._application.freeze()
        return self._router or self._build_router(
            Limits(), Counters(), MemoryBackplane(), "disconnect"
        )

    def _build_router(
        self, limits: Limits, counters: Counters, backplane: Backplane, overflow: OverflowPolicy
    ) -> RealmRouter:
        """Build the router. `overflow` applies where neither the topic nor the realm has a policy.

        The function is long because it builds all parts of a realm, each from the ones before.
        """
        compiler = self._compiler
        authentication = self._logins.compiled(compiler.authenticator)
        endpoints = self._endpoints(overflow)
        policies = self._registration_policies()
        authorization = self._authorization(endpoints, policies, limits)
        asks_subscribers = authorization is not None and authorization.authorizer is not None
        broker, dealer = Broker(endpoints.topic_endpoint), Dealer[Any](policies)
        publishing = Publishing(
            self.uri,
            endpoints,
            broker,
            backplane,
            counters,
            limits,
            asks_subscribers=asks_subscribers,
        )
        backplane.add_realm(publishing)
        endpoints.open_logs(partial(backplane.new_log, publishing))
        members: dict[int, Session] = {}
        meta = MetaAPIs()
        features = Features()
        if policies:
            features.offer(dealer=OF_SHARING_DEALERS)
        protocol: list[ProtocolRoute | ProtocolTopicRoute] = []
        if not endpoints.has_catch_all:  # a catch-all handler serves the meta procedures, too
            has_logins = not authentication.is_open
            if endpoints.keeps_history:
                protocol += HistoryAPI(broker, authorization).routes()
                features.offer(broker=("event_history",))
            if self._meta.offers_sessions(has_logins=has_logins):
                meta = MetaAPIs.of(self._meta, members, broker, dealer, publishing)
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
                    f"the handler of {route.uri!r} has an unknown annotation: {error}"
                ) from error
            endpoints.add(Endpoint(route, handler, rules, overflow))
        return endpoints

    def _check_requirements_count(self, route: Definition) -> None:
        """Check that no catch-all handler replaces a route that has requirements.

        Raises: ConfigurationError.
        """
        function = None
        if isinstance(route, RPCRoute):
            function = self._rpc_function
        elif isinstance(route, TopicRoute):
            function = self._subscription_function
        if function is not None and route.requires:
            raise ConfigurationError(
                f"the route {route.uri!r} has requirements, but is never used:"
                f" {name_of(function)} handles everything"
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
