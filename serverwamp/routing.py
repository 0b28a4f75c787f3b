"""Route sets, the decorators that fill them, and the lookup of a URI.

A route is a pattern and a function. Route sets are plain tables, usable without an application;
`RouteTable` is the compiled form, in which a realm looks up what a client asked for.

One module, though a long one: there are many decorators, and all say the same of what they make.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, overload

from serverwamp import uris
from serverwamp.auth.authorization import Requirement, Requirements, checked_requirements
from serverwamp.binding.handler import is_async_generator, name_of, note_surroundings
from serverwamp.errors import ConfigurationError
from serverwamp.history import History
from serverwamp.migration import TopicRouteSetSpellings
from serverwamp.outbound.backlog import OverflowPolicy, checked_policy
from serverwamp.patterns import PatternTable
from serverwamp.uris import MatchPolicy

Function = TypeVar("Function", bound=Callable[..., Any])
Target = TypeVar("Target")
RouteKind: TypeAlias = Literal["exact", "prefix", "wildcard", "regex"]


# ---- definitions


@dataclass(frozen=True)
class Route:
    """A pattern of URIs and the function that serves them.

    Raises: ConfigurationError when the pattern is no valid URI, or is reserved for the protocol.
    """

    uri: str
    handler: Callable[..., Any]
    kind: RouteKind = "exact"
    camel_snake_conversion: bool = False
    requires: Requirements = ()
    """What a session needs to be served: all of it."""
    is_of_protocol: ClassVar[bool] = False
    """Whether the protocol itself defines what is served, so that it stands below ``wamp.``."""

    def __post_init__(self) -> None:
        if self.kind == "regex":
            re.compile(self.uri)
        elif not uris.is_valid_uri(self.uri, self.kind):
            raise ConfigurationError(f"{self.uri!r} is not a valid URI for a route")
        elif uris.is_reserved(self.uri) and not self.is_of_protocol:
            raise ConfigurationError(f"{self.uri!r}: URIs below 'wamp.' belong to the protocol")
        note_surroundings(self.handler)

    def below(self, prefix: str) -> Route:
        """Return the same route with `prefix` before its URI."""
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
    """A route to what decides about the publications of clients."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_async_generator(self.handler):
            raise ConfigurationError(
                f"{name_of(self.handler)} can't handle publications: it is an async generator"
            )


Definition: TypeAlias = RPCRoute | TopicRoute | PublicationRoute


class ProtocolRoute(RPCRoute):
    """A route to a procedure that the protocol itself defines."""

    is_of_protocol = True


class ProtocolTopicRoute(TopicRoute):
    """A route to the handler of a topic that the protocol itself defines."""

    is_of_protocol = True


# ---- decorators


class RPCDecorators:
    """Decorators that register procedures; each returns the function unchanged."""

    @abstractmethod
    def _add_rpc_route(self, route: RPCRoute) -> None: ...

    def route(
        self,
        uri: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Function], Function]:
        """Serve calls of exactly `uri`.

        With `camel_snake_conversion` a client may write ``countTo`` for a parameter ``count_to``.
        `requires` is what it takes to call it: a role, a collection of roles of which one is
        needed, or a function that returns whether the session may, as for `Realm.set_authorizer`.
        """
        return self._rpc_decorator(uri, "exact", camel_snake_conversion, requires)

    def prefix_route(
        self,
        uri_prefix: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Function], Function]:
        """Serve calls of every URI that starts with `uri_prefix`, unless a longer one matches."""
        return self._rpc_decorator(uri_prefix, "prefix", camel_snake_conversion, requires)

    def wildcard_route(
        self,
        uri_pattern: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Function], Function]:
        """Serve calls of URIs with as many components as `uri_pattern`, its empty ones being any.

        Spec: Advanced Profile, "Pattern-based Registrations", wildcard matching.
        """
        return self._rpc_decorator(uri_pattern, "wildcard", camel_snake_conversion, requires)

    def regex_route(
        self,
        uri_pattern: str | re.Pattern[str],
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Function], Function]:
        """Serve calls of URIs that `uri_pattern` matches from their start, as `re.match` does."""
        return self._rpc_decorator(_text(uri_pattern), "regex", camel_snake_conversion, requires)

    def _rpc_decorator(
        self,
        uri: str,
        kind: RouteKind,
        camel_snake_conversion: bool,
        requires: Requirement | None,
    ) -> Callable[[Function], Function]:
        _check_is_text(uri)
        needed = checked_requirements(requires)

        def decorate(function: Function) -> Function:
            self._add_rpc_route(RPCRoute(uri, function, kind, camel_snake_conversion, needed))
            return function

        return decorate


class TopicDecorators:
    """Decorators that register handlers of topics; each returns the function unchanged.

    A subscription handler is an async generator with one ``yield``: what is before it happens when
    a session subscribes, what is after it when that subscription ends, in whatever way.

    A publication handler is called with what a client wants to publish: it takes the arguments as
    the handler of a call does. If it returns None they are published as they are, anything else is
    published instead, and raising `WAMPError` refuses.
    """

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
    ) -> Callable[[Function], Function]:
        """Handle subscriptions to exactly `uri`.

        `overflow` says what becomes of events for a client that is too slow for them: it is the
        `OverflowPolicy` of the realm where it isn't given. With `client_publish` every client may
        publish there, what and to whom it likes, unless a publication handler decides about that.
        `requires` is what that and subscribing takes, as for `RPCDecorators.route`. `history` is
        how much is kept for clients that have missed it.
        """
        return self._topic_decorator(uri, "exact", overflow, client_publish, requires, history)

    def prefix_topic(
        self,
        uri_prefix: str,
        *,
        overflow: OverflowPolicy | None = None,
        client_publish: bool = False,
        requires: Requirement | None = None,
        history: History | None = None,
    ) -> Callable[[Function], Function]:
        """Handle subscriptions to every topic that starts with `uri_prefix`."""
        return self._topic_decorator(
            uri_prefix, "prefix", overflow, client_publish, requires, history
        )

    def wildcard_topic(
        self,
        uri_pattern: str,
        *,
        overflow: OverflowPolicy | None = None,
        client_publish: bool = False,
        requires: Requirement | None = None,
        history: History | None = None,
    ) -> Callable[[Function], Function]:
        """Handle subscriptions to topics with as many components, the empty ones being any."""
        return self._topic_decorator(
            uri_pattern, "wildcard", overflow, client_publish, requires, history
        )

    def regex_topic(
        self,
        uri_pattern: str | re.Pattern[str],
        *,
        overflow: OverflowPolicy | None = None,
        client_publish: bool = False,
        requires: Requirement | None = None,
        history: History | None = None,
    ) -> Callable[[Function], Function]:
        """Handle subscriptions to topics that `uri_pattern` matches from their start."""
        return self._topic_decorator(
            _text(uri_pattern), "regex", overflow, client_publish, requires, history
        )

    def _topic_decorator(
        self,
        uri: str,
        kind: RouteKind,
        overflow: OverflowPolicy | None,
        client_publish: bool,
        requires: Requirement | None,
        history: History | None,
    ) -> Callable[[Function], Function]:
        _check_is_text(uri)
        needed = checked_requirements(requires)

        def decorate(function: Function) -> Function:
            route = TopicRoute(
                uri,
                function,
                kind,
                requires=needed,
                overflow=overflow,
                client_publish=client_publish,
                history=history,
            )
            self._add_topic_route(route)
            return function

        return decorate

    # ---- publications

    def publication(
        self,
        uri: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Function], Function]:
        """Decide about what clients publish to exactly `uri`.

        With `camel_snake_conversion` a client may write ``sentBy`` for a parameter ``sent_by``.
        `requires` is what publishing takes, as for `RPCDecorators.route`.
        """
        return self._publication_decorator(uri, "exact", camel_snake_conversion, requires)

    def prefix_publication(
        self,
        uri_prefix: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Function], Function]:
        """Decide about what clients publish to every topic that starts with `uri_prefix`."""
        return self._publication_decorator(uri_prefix, "prefix", camel_snake_conversion, requires)

    def wildcard_publication(
        self,
        uri_pattern: str,
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Function], Function]:
        """Decide about publications to topics with as many components, the empty ones being any."""
        return self._publication_decorator(
            uri_pattern, "wildcard", camel_snake_conversion, requires
        )

    def regex_publication(
        self,
        uri_pattern: str | re.Pattern[str],
        *,
        camel_snake_conversion: bool = False,
        requires: Requirement | None = None,
    ) -> Callable[[Function], Function]:
        """Decide about publications to topics that `uri_pattern` matches from their start."""
        return self._publication_decorator(
            _text(uri_pattern), "regex", camel_snake_conversion, requires
        )

    def _publication_decorator(
        self,
        uri: str,
        kind: RouteKind,
        camel_snake_conversion: bool,
        requires: Requirement | None,
    ) -> Callable[[Function], Function]:
        _check_is_text(uri)
        needed = checked_requirements(requires)

        def decorate(function: Function) -> Function:
            self._add_topic_route(
                PublicationRoute(uri, function, kind, camel_snake_conversion, needed)
            )
            return function

        return decorate


def _text(pattern: str | re.Pattern[str]) -> str:
    return pattern.pattern if isinstance(pattern, re.Pattern) else pattern


def _check_is_text(uri: Any) -> None:
    if not isinstance(uri, str):  # as in `@app.route` without parentheses
        raise ConfigurationError(f'a route needs a URI, as in route("com.example"), not {uri!r}')


# ---- route sets

RouteType = TypeVar("RouteType", bound=Route)


class RouteSet(Sequence[RouteType]):
    """A table of route definitions, below a common prefix if one is given.

    What it `requires` it does for each route, beside what that requires itself.
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
    """A table of procedures; `Application.add_routes` and `Realm.add_routes` take it over."""

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
    """A table of subscription and publication handlers, taken over by ``add_topics``."""

    def _add_topic_route(self, route: TopicRoute | PublicationRoute) -> None:
        self._add(route)


# ---- lookup


class RouteTable(Generic[Target]):
    """What is served, by URI: exact before the longest prefix before the best wildcard.

    Regular expressions come last, in the order in which they were added. Only they are tried one
    by one.

    Spec: Advanced Profile, "Pattern-based Registrations", for the precedence.
    """

    def __init__(self) -> None:
        self._patterns: PatternTable[Target] = PatternTable()
        self._regexes: list[tuple[re.Pattern[str], Target]] = []

    def add(self, uri: str, kind: RouteKind, target: Target) -> None:
        """Serve the URIs that `uri`, understood as `kind`, matches.

        Raises: ConfigurationError when that pattern is taken.
        """
        if kind == "regex":
            self._regexes.append((re.compile(uri), target))
            return
        try:
            self._patterns.add(uri, kind, target)
        except KeyError:
            raise ConfigurationError(f"there is a route for {uri!r} already") from None

    def resolve(self, uri: str) -> Target | None:
        """Return what serves `uri`, or None."""
        target = self._patterns.best(uri)
        if target is not None or not self._regexes:
            return target
        return next((target for pattern, target in self._regexes if pattern.match(uri)), None)

    def resolve_pattern(self, uri: str, match: MatchPolicy) -> Target | None:
        """Return what serves everything that a pattern matches, or None.

        Of regular expressions that isn't known.
        """
        if match == "exact":
            return self.resolve(uri)
        return next(self._patterns.covering(uri, match), None)

    def has(self, uri: str, match: MatchPolicy) -> bool:
        """Tell whether something is served by just this pattern."""
        return self._patterns.get(uri, match) is not None
