"""Route sets, the decorators that fill them, and the lookup of a URI.

A route is a URI or pattern with a function. A route set is a table of routes; it needs no
application. A realm compiles routes into a `RouteTable`, where it looks up the URIs of requests.

One module, because all decorators have the same options and the same documentation.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias, TypeVar, overload

from serverwamp import uris
from serverwamp.auth.authorization import Requirement, Requirements, checked_requirements
from serverwamp.binding.signature import is_async_generator, name_of, note_surroundings
from serverwamp.errors import ConfigurationError
from serverwamp.history import History
from serverwamp.migration import TopicRouteSetSpellings
from serverwamp.outbound.backlog import OverflowPolicy, checked_policy
from serverwamp.patterns import RouteKind

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


# ---- definitions


@dataclass(frozen=True)
class Route:
    """A URI or a pattern of URIs, and the function that serves it.

    Raises: ConfigurationError when the URI or pattern is invalid, or is reserved for the protocol.
    """

    uri: str
    handler: Callable[..., Any]
    kind: RouteKind = "exact"
    camel_snake_conversion: bool = False
    requires: Requirements = ()
    """The requirements. A session must satisfy all of them."""
    is_of_protocol: ClassVar[bool] = False
    """Whether WAMP itself defines the procedure or topic, so that its URI starts with ``wamp.``."""

    def __post_init__(self) -> None:
        if self.kind == "regex":
            re.compile(self.uri)
        elif not uris.is_valid_uri(self.uri, self.kind):
            raise ConfigurationError(f"{self.uri!r} is not a valid URI for a route")
        elif uris.is_reserved(self.uri) and not self.is_of_protocol:
            raise ConfigurationError(
                f"{self.uri!r}: URIs below 'wamp.' are reserved for the protocol"
            )
        note_surroundings(self.handler)

    def below(self, prefix: str) -> Route:
        """Return a copy of the route with `prefix` before its URI."""
        if self.kind == "regex":
            return replace(self, uri=re.escape(uris.joined(prefix, "")) + f"(?:{self.uri})")
        return replace(self, uri=uris.joined(prefix, self.uri))


@dataclass(frozen=True)
class RPCRoute(Route):
    """A route to a procedure."""


@dataclass(frozen=True)
class TopicRoute(Route):
    """A route to a subscription handler: an async generator with one ``yield``."""

    overflow: OverflowPolicy | None = None
    client_publish: bool = False
    history: History | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overflow is not None:
            checked_policy(self.overflow)
        if not is_async_generator(self.handler):
            raise ConfigurationError(
                f"{name_of(self.handler)} can't handle subscriptions: it has to be an async"
                f" generator (async def with one yield)"
            )


@dataclass(frozen=True)
class PublicationRoute(Route):
    """A route to a publication handler: a function that is called when a client publishes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_async_generator(self.handler):
            raise ConfigurationError(
                f"{name_of(self.handler)} can't handle publications: it is an async generator"
            )


Definition: TypeAlias = RPCRoute | TopicRoute | PublicationRoute


class ProtocolRoute(RPCRoute):
    """A route to a procedure that WAMP itself defines."""

    is_of_protocol = True


class ProtocolTopicRoute(TopicRoute):
    """A route to the handler of a topic that WAMP itself defines."""

    is_of_protocol = True


# ---- decorators


class RPCDecorators:
    """Decorators that register procedures. Each returns the function unchanged."""

    @abstractmethod
    def _add_rpc_route(self, route: RPCRoute) -> None: ...

    def route(
        self,
        uri: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Serve calls of exactly `uri`.

        The function is an async function, an async generator that yields progress reports and then
        the result, or a plain function, which runs in a thread.

        Arguments:
            uri: the URI of the procedure.
            camel_snake_conversion: let clients write ``countTo`` for a parameter ``count_to``.
            requires: the requirement for calling it: a role, a collection of roles (the session
                needs one of them), or a function as for `Realm.set_authorizer`.

        Raises: ConfigurationError when `uri` or `requires` is invalid.
        """
        return self._rpc_decorator("exact", uri, camel_snake_conversion, requires)

    def prefix_route(
        self,
        uri_prefix: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Serve calls of every URI that starts with `uri_prefix`.

        An exact route, or a route with a longer prefix, takes precedence. The other arguments are
        those of `route`.

        Spec: Advanced Profile, "Pattern-based Registrations", prefix matching.
        """
        return self._rpc_decorator("prefix", uri_prefix, camel_snake_conversion, requires)

    def wildcard_route(
        self,
        uri_pattern: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Serve calls of every URI that matches a pattern with empty components.

        ``com..get`` matches ``com.`` + any one component + ``.get``. Exact and prefix routes take
        precedence. The other arguments are those of `route`.

        Spec: Advanced Profile, "Pattern-based Registrations", wildcard matching.
        """
        return self._rpc_decorator("wildcard", uri_pattern, camel_snake_conversion, requires)

    def regex_route(
        self,
        uri_pattern: str | re.Pattern[str],
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Serve calls of every URI that a regular expression matches from its start.

        The expression is applied by `re.match`. All other kinds of routes take precedence; several
        expressions are tried in the order of registration. The other arguments are those of
        `route`.
        """
        return self._rpc_decorator("regex", uri_pattern, camel_snake_conversion, requires)

    def _rpc_decorator(
        self,
        kind: RouteKind,
        uri: Any,
        camel_snake_conversion: bool,
        requires: Requirement | None,
    ) -> Callable[[Decorated], Decorated]:
        return _decorator(
            self._add_rpc_route,
            RPCRoute,
            kind,
            uri,
            requires,
            camel_snake_conversion=camel_snake_conversion,
        )


class TopicDecorators:
    """Decorators that register handlers of topics. Each returns the function unchanged."""

    @abstractmethod
    def _add_topic_route(self, route: TopicRoute | PublicationRoute) -> None: ...

    # ---- subscriptions

    def topic(
        self,
        uri: str,
        *,
        overflow: OverflowPolicy | None = None,
        client_publish: bool = False,
        requires: Requirement | None = None,
        history: History | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Handle subscriptions to exactly `uri`.

        The function is an async generator with one ``yield``. The code before the ``yield`` runs
        when a session subscribes; a `WAMPError` there refuses the subscription. The code after the
        ``yield`` runs when the subscription ends for any reason.

        Arguments:
            uri: the URI of the topic.
            overflow: what happens to events for a client that reads too slowly. Default: the
                realm's policy.
            client_publish: let clients publish to the topic, with any arguments and any recipients.
                If the topic has a publication handler, that handler decides.
            requires: the requirement for subscribing, and for publishing by `client_publish`, as
                for `Realm.route`.
            history: how many events are stored, for clients that ask for past events.

        Raises: ConfigurationError when an argument is invalid, or when the function is not an async
        generator.
        """
        return self._topic_decorator("exact", uri, overflow, client_publish, requires, history)

    def prefix_topic(
        self,
        uri_prefix: str,
        *,
        overflow: OverflowPolicy | None = None,
        client_publish: bool = False,
        requires: Requirement | None = None,
        history: History | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Handle subscriptions to every topic that starts with `uri_prefix`.

        An exact route, or a route with a longer prefix, takes precedence. The other arguments are
        those of `topic`.
        """
        return self._topic_decorator(
            "prefix", uri_prefix, overflow, client_publish, requires, history
        )

    def wildcard_topic(
        self,
        uri_pattern: str,
        *,
        overflow: OverflowPolicy | None = None,
        client_publish: bool = False,
        requires: Requirement | None = None,
        history: History | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Handle subscriptions to every topic that matches a pattern with empty components.

        ``com..news`` matches ``com.`` + any one component + ``.news``. Exact and prefix routes take
        precedence. The other arguments are those of `topic`.
        """
        return self._topic_decorator(
            "wildcard", uri_pattern, overflow, client_publish, requires, history
        )

    def regex_topic(
        self,
        uri_pattern: str | re.Pattern[str],
        *,
        overflow: OverflowPolicy | None = None,
        client_publish: bool = False,
        requires: Requirement | None = None,
        history: History | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Handle subscriptions to every topic that a regular expression matches from its start.

        The expression is applied by `re.match`. All other kinds of routes take precedence. The
        other arguments are those of `topic`.
        """
        return self._topic_decorator(
            "regex", uri_pattern, overflow, client_publish, requires, history
        )

    def _topic_decorator(
        self,
        kind: RouteKind,
        uri: Any,
        overflow: OverflowPolicy | None,
        client_publish: bool,
        requires: Requirement | None,
        history: History | None,
    ) -> Callable[[Decorated], Decorated]:
        return _decorator(
            self._add_topic_route,
            TopicRoute,
            kind,
            uri,
            requires,
            overflow=overflow,
            client_publish=client_publish,
            history=history,
        )

    # ---- publications

    def publication(
        self,
        uri: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Handle the events that clients publish to exactly `uri`.

        The function receives the arguments of the event like the handler of a call. If it returns
        None, the event is published unchanged. Any other result replaces the arguments of the
        event. A `WAMPError` refuses the publication.

        Arguments:
            uri: the URI of the topic.
            camel_snake_conversion: let clients write ``sentBy`` for a parameter ``sent_by``.
            requires: the requirement for publishing, as for `Realm.route`.

        Raises: ConfigurationError when an argument is invalid, or when the function is an async
        generator.
        """
        return self._publication_decorator("exact", uri, camel_snake_conversion, requires)

    def prefix_publication(
        self,
        uri_prefix: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Handle the events that clients publish to every topic that starts with `uri_prefix`.

        An exact route, or a route with a longer prefix, takes precedence. The other arguments are
        those of `publication`.
        """
        return self._publication_decorator("prefix", uri_prefix, camel_snake_conversion, requires)

    def wildcard_publication(
        self,
        uri_pattern: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Handle the events that clients publish to topics that match a wildcard pattern.

        ``com..news`` matches ``com.`` + any one component + ``.news``. Exact and prefix routes take
        precedence. The other arguments are those of `publication`.
        """
        return self._publication_decorator(
            "wildcard", uri_pattern, camel_snake_conversion, requires
        )

    def regex_publication(
        self,
        uri_pattern: str | re.Pattern[str],
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """Handle the events that clients publish to topics that a regular expression matches.

        The expression is applied by `re.match`. All other kinds of routes take precedence. The
        other arguments are those of `publication`.
        """
        return self._publication_decorator("regex", uri_pattern, camel_snake_conversion, requires)

    def _publication_decorator(
        self,
        kind: RouteKind,
        uri: Any,
        camel_snake_conversion: bool,
        requires: Requirement | None,
    ) -> Callable[[Decorated], Decorated]:
        return _decorator(
            self._add_topic_route,
            PublicationRoute,
            kind,
            uri,
            requires,
            camel_snake_conversion=camel_snake_conversion,
        )


def _decorator(
    add: Callable[[Any], None],
    route_type: type[Route],
    kind: RouteKind,
    uri: Any,
    requires: Requirement | None,
    **options: Any,
) -> Callable[[Decorated], Decorated]:
    """Return a decorator that makes a route of a function and passes it to `add`."""
    if kind == "regex" and isinstance(uri, re.Pattern):
        uri = uri.pattern
    if not isinstance(uri, str):  # for example, `@app.route` without parentheses
        raise ConfigurationError(f'a route needs a URI, as in route("com.example"), not {uri!r}')
    requirements = checked_requirements(requires)

    def decorate(function: Decorated) -> Decorated:
        add(route_type(uri, function, kind, requires=requirements, **options))
        return function

    return decorate


# ---- route sets

RouteType = TypeVar("RouteType", bound=Route)


class RouteSet(Sequence[RouteType]):
    """A sequence of routes.

    Arguments:
        prefix: put before the URI of every route, with a dot in between.
        requires: a requirement for every route, in addition to the route's own.
    """

    def __init__(self, prefix: str = "", *, requires: Requirement | None = None) -> None:
        self.prefix = prefix
        self._requires = checked_requirements(requires)
        self._routes: list[RouteType] = []

    @overload
    def __getitem__(self, index: int) -> RouteType: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[RouteType]: ...

    def __getitem__(self, index: int | slice) -> RouteType | Sequence[RouteType]:
        return self._routes[index]

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[RouteType]:
        return iter(self._routes)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} routes>"

    def _add(self, route: Any) -> None:
        if self._requires:
            route = replace(route, requires=self._requires + route.requires)
        self._routes.append(route.below(self.prefix) if self.prefix else route)


class RPCRouteSet(RouteSet[RPCRoute], RPCDecorators):
    """A table of procedures, for `Realm.add_routes`.

    Arguments:
        prefix: put before the URI of every procedure, with a dot in between.
        camel_snake_conversion: let clients write ``countTo`` for a parameter ``count_to``.
        requires: a requirement for calling any of the procedures, in addition to its own.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> None:
        super().__init__(prefix, requires=requires)
        self._camel_snake_conversion = camel_snake_conversion

    def _add_rpc_route(self, route: RPCRoute) -> None:
        if self._camel_snake_conversion:
            route = replace(route, camel_snake_conversion=True)
        self._add(route)


class TopicRouteSet(
    RouteSet[TopicRoute | PublicationRoute], TopicDecorators, TopicRouteSetSpellings
):
    """A table of subscription and publication handlers, for `Realm.add_topics`.

    Arguments:
        prefix: put before the URI of every topic, with a dot in between.
        requires: a requirement for subscribing and publishing to any of the topics, in addition to
            the route's own.
    """

    def _add_topic_route(self, route: TopicRoute | PublicationRoute) -> None:
        self._add(route)
