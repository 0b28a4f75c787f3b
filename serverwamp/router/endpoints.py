"""The endpoints of a realm: its compiled routes, found by URI."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from serverwamp import uris
from serverwamp.auth.authorization import Action, Rule, can_decide_about_patterns
from serverwamp.backplanes.topics import TopicRules
from serverwamp.binding.handler import Handler
from serverwamp.errors import (
    InvalidURI,
    NoSuchProcedure,
    NotAuthorized,
    OptionNotAllowed,
)
from serverwamp.history import History, HistoryReader, Log
from serverwamp.outbound.backlog import OverflowPolicy
from serverwamp.patterns import RouteTable
from serverwamp.routing import Definition, PublicationRoute, RPCRoute, TopicRoute
from serverwamp.uris import MatchPolicy


class Endpoint:
    """A compiled route: the route, its handler, and its rules."""

    __slots__ = (
        "client_publish",
        "handler",
        "history",
        "is_exact",
        "log",
        "overflow",
        "route",
        "rules",
    )

    def __init__(
        self,
        route: Definition,
        handler: Handler,
        rules: Sequence[Rule] = (),
        overflow: OverflowPolicy = "disconnect",
    ) -> None:
        self.route: Definition = route
        self.handler: Handler = handler
        self.rules: Sequence[Rule] = rules
        self.is_exact: bool = route.kind == "exact"
        topic = route if isinstance(route, TopicRoute) else None
        self.overflow: OverflowPolicy = (topic and topic.overflow) or overflow
        """What happens to events for a subscriber that reads too slowly."""
        self.client_publish: bool = topic is not None and topic.client_publish
        """Whether clients may publish to the topic without a publication handler."""
        self.history: History | None = None if topic is None else topic.history
        self.log: Log | None = None
        """The event history of the topic; None if the route keeps none."""

    @property
    def takes_patterns(self) -> bool:
        """Whether sessions may subscribe to patterns here."""
        return can_decide_about_patterns(
            self.handler, uri=("topic", "topic_uri"), match=("match", "subscription")
        )


class Endpoints:
    """The endpoints of a realm.

    `rpc`, if given, serves all calls; `subscription`, if given, serves all subscriptions.
    """

    def __init__(self, rpc: Endpoint | None = None, subscription: Endpoint | None = None) -> None:
        self._all: list[Endpoint] = []
        self._procedures: RouteTable[Endpoint] = RouteTable()
        self._topics: RouteTable[Endpoint] = RouteTable()
        self._publications: RouteTable[Endpoint] = RouteTable()
        self._exact_procedures: dict[str, Handler] = {}
        self._rpc = rpc
        self._subscription = subscription
        self.has_publication_handlers: bool = False
        """Whether there is a publication handler."""
        self.takes_publications: bool = False
        """Whether there is a topic to which clients may publish."""
        self.keeps_history: bool = False
        """Whether there is a topic with an event history."""
        self.has_rules: bool = False
        """Whether there is an endpoint with rules."""

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint.

        Raises: ConfigurationError when there is one for the same URI or pattern.
        """
        route = endpoint.route
        if isinstance(route, RPCRoute):
            self._procedures.add(route.uri, route.kind, endpoint)
            if endpoint.is_exact and self._rpc is None:
                self._exact_procedures[route.uri] = endpoint.handler
        elif isinstance(route, TopicRoute):
            self._topics.add(route.uri, route.kind, endpoint)
        else:
            self._publications.add(route.uri, route.kind, endpoint)
            self.has_publication_handlers = True
        self._all.append(endpoint)
        is_publication = isinstance(route, PublicationRoute)
        self.takes_publications |= is_publication or endpoint.client_publish
        self.keeps_history |= endpoint.history is not None
        self.has_rules |= bool(endpoint.rules)

    def open_logs(self, new_log: Callable[[str, History], Log]) -> None:
        """Create the event histories by ``new_log(name, history)``.

        The name of a log is the same in all processes that serve the realm.
        """
        for endpoint in self._all:
            if endpoint.history is not None:
                route = endpoint.route
                name = TopicRules(route.kind, route.uri, endpoint.history).name
                endpoint.log = new_log(name, endpoint.history)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._all)

    @property
    def has_catch_all(self) -> bool:
        """Whether one function serves all calls, or all subscriptions, including ``wamp.`` URIs."""
        return self._rpc is not None or self._subscription is not None

    # ---- calls

    @property
    def custom_rpc(self) -> bool:
        """Whether one function serves all calls; it gets the arguments from the request."""
        return self._rpc is not None

    def procedure(self, uri: str) -> Handler:
        """Return the handler for calls of `uri`.

        Raises: InvalidURI; NoSuchProcedure.
        """
        handler = self._exact_procedures.get(uri)
        if handler is not None:
            return handler
        endpoint = self._rpc or self._procedures.resolve(uri)
        if (endpoint is None or not endpoint.is_exact) and not uris.is_valid_uri(uri):
            raise InvalidURI(f"{uri!r} is not a valid URI")
        if endpoint is None:
            raise NoSuchProcedure(f"no procedure {uri!r}")
        return endpoint.handler

    def serves(self, uri: str, match: MatchPolicy = "exact") -> bool:
        """Tell whether the application serves a procedure, or all that a pattern matches."""
        return (
            uri in self._exact_procedures
            or self._rpc is not None
            or self._procedures.resolve_pattern(uri, match) is not None
        )

    def has_procedure(self, uri: str, match: MatchPolicy) -> bool:
        """Tell whether there is a route for exactly this procedure or pattern."""
        return self._procedures.has(uri, match)

    # ---- topics

    def topic(self, uri: str, match: MatchPolicy = "exact") -> Endpoint:
        """Return the endpoint that serves subscriptions to a topic or pattern.

        Raises: InvalidURI; NotAuthorized when no route serves it; OptionNotAllowed for a pattern
        when the handler can decide only about single topics.
        """
        if not uris.is_valid_uri(uri, match):
            raise InvalidURI(f"{uri!r} is not a valid URI")
        endpoint = self._subscription or self._topics.resolve_pattern(uri, match)
        if endpoint is None and match == "exact":
            raise NotAuthorized(f"there is no topic {uri!r} to subscribe to")
        if endpoint is None:
            raise NotAuthorized(f"no topic route covers the {match} pattern {uri!r}")
        if match != "exact" and not endpoint.takes_patterns:
            raise OptionNotAllowed("these topics can't be subscribed to by a pattern")
        return endpoint

    def topic_endpoint(self, uri: str) -> Endpoint | None:
        """Return the endpoint that serves a topic; None if there is none."""
        return self._subscription or self._topics.resolve(uri)

    @property
    def topics(self) -> list[TopicRules]:
        """The rules of the topic routes."""
        return [
            TopicRules(endpoint.route.kind, endpoint.route.uri, endpoint.history)
            for endpoint in self._all
            if isinstance(endpoint.route, TopicRoute)
        ]

    def forgets(self, uri: str, match: MatchPolicy) -> bool:
        """Tell whether a topic, or any topic that a pattern matches, has no history."""
        if match == "exact":
            endpoint = self.topic_endpoint(uri)
            return endpoint is None or endpoint.log is None
        covering = self._subscription or self._topics.resolve_pattern(uri, match)
        return any(
            endpoint.log is None
            and (endpoint is covering or _may_overlap(endpoint.route, uri, match))
            for endpoint in self._all
            if isinstance(endpoint.route, TopicRoute)
        )

    def may_keep(self, uri: str, match: MatchPolicy, *, reader: HistoryReader) -> bool:
        """Tell whether a topic, or perhaps a topic that a pattern matches, has this history."""
        if match == "exact":
            endpoint = self.topic_endpoint(uri)
            return (
                endpoint is not None
                and endpoint.log is not None
                and (endpoint.log.reader is reader)
            )
        return any(
            endpoint.log is not None and endpoint.log.reader is reader for endpoint in self._all
        )

    # ---- publications of clients

    def publication(self, topic: str) -> Handler | None:
        """Return the publication handler for `topic`; None if clients may publish without one.

        Raises: InvalidURI; NotAuthorized when clients may not publish there.
        """
        if not uris.is_valid_uri(topic) or uris.is_reserved(topic):
            raise InvalidURI(f"{topic!r} is not a URI that clients may publish to")
        endpoint = self._publications.resolve(topic)
        if endpoint is not None:
            return endpoint.handler
        endpoint = self._topics.resolve(topic)
        if endpoint is not None and endpoint.client_publish:
            return None
        raise NotAuthorized(f"clients may not publish to {topic!r}")

    # ---- requirements

    def rules_for(self, action: Action, uri: str, match: MatchPolicy) -> Sequence[Rule]:
        """Return the rules of the endpoint that serves an action; none if nothing serves it."""
        endpoint = None
        if action == "call":
            endpoint = self._rpc or self._procedures.resolve(uri)
        elif action == "subscribe":
            endpoint = self._subscription or self._topics.resolve_pattern(uri, match)
        elif action == "publish":
            endpoint = self._publications.resolve(uri) or self._topics.resolve(uri)
        return () if endpoint is None else endpoint.rules


def _may_overlap(route: Definition, uri: str, match: MatchPolicy) -> bool:
    """Tell whether a route may serve topics that a pattern matches."""
    if match == "prefix" and route.kind == "exact":
        return route.uri.startswith(uri)
    if match == "prefix" and route.kind == "prefix":
        return route.uri.startswith(uri) or uri.startswith(route.uri)
    return True
