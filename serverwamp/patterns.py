"""Pattern matching: a table that finds values by exact URI, prefix or wildcard.

It holds routes, subscriptions and registrations. The time of a lookup doesn't depend on the number
of patterns, only on the URI and the number of patterns that match it.

Spec: Advanced Profile, "Pattern-based Subscriptions" and "Pattern-based Registrations".
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterator
from operator import neg
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from serverwamp.errors import ConfigurationError
from serverwamp.uris import MatchPolicy

Target = TypeVar("Target")
RouteKind: TypeAlias = Literal["exact", "prefix", "wildcard", "regex"]

HERE: Final = None
"""The key of a node in the wildcard tree for the target of the pattern that ends there."""


class PatternTable(Generic[Target]):
    """Targets by pattern: a URI and its match policy.

    A prefix compares characters, not whole components. A wildcard matches URIs with the same number
    of components; each of its empty components matches any component. The table can hold the same
    URI once for each policy.
    """

    __slots__ = (
        "_exact",
        "_prefix_lengths",
        "_prefixes",
        "_prefixes_of_length",
        "_wildcards",
    )

    def __init__(self) -> None:
        self._exact: dict[str, Target] = {}
        self._prefixes: dict[str, Target] = {}
        self._prefixes_of_length: dict[int, int] = {}
        self._prefix_lengths: list[int] = []  # the longest first
        self._wildcards: dict[str | None, Any] = {}  # a tree of components

    @property
    def has_patterns(self) -> bool:
        """Whether the table contains a prefix or a wildcard."""
        return bool(self._prefixes or self._wildcards)

    def __bool__(self) -> bool:
        return bool(self._exact) or self.has_patterns

    # ---- by pattern

    def get(self, uri: str, match: MatchPolicy) -> Target | None:
        """Return the target of exactly this pattern, or None."""
        if match == "exact":
            return self._exact.get(uri)
        if match == "prefix":
            return self._prefixes.get(uri)
        node = self._wildcards
        for component in uri.split("."):
            if component not in node:
                return None
            node = node[component]
        return node.get(HERE)

    def add(self, uri: str, match: MatchPolicy, target: Target) -> None:
        """Add a pattern with its target.

        Raises: KeyError when the pattern has a target already.
        """
        if self.get(uri, match) is not None:
            raise KeyError(uri)
        if match == "exact":
            self._exact[uri] = target
        elif match == "prefix":
            self._prefixes[uri] = target
            if len(uri) not in self._prefixes_of_length:
                insort(self._prefix_lengths, len(uri), key=neg)
            self._prefixes_of_length[len(uri)] = self._prefixes_of_length.get(len(uri), 0) + 1
        else:
            node = self._wildcards
            for component in uri.split("."):
                node = node.setdefault(component, {})
            node[HERE] = target

    def remove(self, uri: str, match: MatchPolicy) -> None:
        """Remove a pattern.

        Raises: KeyError when the table doesn't contain it.
        """
        if match == "exact":
            del self._exact[uri]
        elif match == "prefix":
            del self._prefixes[uri]
            self._prefixes_of_length[len(uri)] -= 1
            if not self._prefixes_of_length[len(uri)]:
                del self._prefixes_of_length[len(uri)]
                self._prefix_lengths.remove(len(uri))
        else:
            nodes = [self._wildcards]
            components = uri.split(".")
            for component in components:
                nodes.append(nodes[-1][component])
            del nodes[-1][HERE]
            for parent, component in zip(nodes[-2::-1], reversed(components), strict=True):
                if parent[component]:
                    break
                del parent[component]

    # ---- by URI

    def best(self, uri: str) -> Target | None:
        """Return the target that matches `uri` best: exact, else longest prefix, else wildcard.

        Wildcards are compared at the first component in which they differ: the one that isn't
        empty there is better.
        """
        target = self._exact.get(uri)
        if target is not None:
            return target
        if self._prefixes:
            target = next(self._matching_prefixes(uri), None)
        if target is not None or not self._wildcards:
            return target
        return next(self._matching_wildcards(uri), None)

    def matching(self, uri: str) -> Iterator[Target]:
        """Yield the targets of all patterns that match `uri`, best first."""
        if uri in self._exact:
            yield self._exact[uri]
        yield from self._matching_prefixes(uri)
        if self._wildcards:
            yield from self._matching_wildcards(uri)

    def covering(self, uri: str, match: MatchPolicy) -> Iterator[Target]:
        """Yield the targets of patterns that match everything this pattern matches, best first."""
        if match == "exact":
            yield from self.matching(uri)
        elif match == "prefix":
            yield from self._matching_prefixes(uri)
        else:
            yield from self._matching_prefixes(_beginning(uri))
            yield from self._matching_wildcards(uri)  # they are empty where `uri` is

    def _matching_prefixes(self, uri: str) -> Iterator[Target]:
        for length in self._prefix_lengths:
            if length <= len(uri) and uri[:length] in self._prefixes:
                yield self._prefixes[uri[:length]]

    def _matching_wildcards(self, uri: str) -> Iterator[Target]:
        # Depth first, trying the literal component before the empty one: best matches come first.
        components = uri.split(".")
        branches = [(self._wildcards, 0)]
        while branches:
            node, depth = branches.pop()
            if depth == len(components):
                if HERE in node:
                    yield node[HERE]
                continue
            branches += [
                (node[component], depth + 1)
                for component in dict.fromkeys(("", components[depth]))
                if component in node
            ]

    def __iter__(self) -> Iterator[Target]:
        yield from self._exact.values()
        yield from self._prefixes.values()
        nodes = [self._wildcards]
        while nodes:
            for component, below in nodes.pop().items():
                if component is HERE:
                    yield below
                else:
                    nodes.append(below)


def _beginning(uri: str) -> str:
    """Return the common beginning of all URIs that a wildcard matches."""
    components = uri.split(".")
    if "" not in components:
        return uri
    return "".join(f"{component}." for component in components[: components.index("")])


def matches(pattern: str, match: MatchPolicy, uri: str) -> bool:
    """Tell whether a pattern matches a URI."""
    if match == "exact":
        return pattern == uri
    if match == "prefix":
        return uri.startswith(pattern)
    mine, theirs = pattern.split("."), uri.split(".")
    return len(mine) == len(theirs) and all(a in ("", b) for a, b in zip(mine, theirs, strict=True))


class RouteTable(Generic[Target]):
    """Routes by URI. An exact URI precedes the longest prefix, which precedes the best wildcard.

    Regular expressions come last, in the order in which they were added. Only they are tried one by
    one.

    Spec: Advanced Profile, "Pattern-based Registrations", for the precedence.
    """

    def __init__(self) -> None:
        self._patterns: PatternTable[Target] = PatternTable()
        self._regexes: list[tuple[re.Pattern[str], Target]] = []

    def add(self, uri: str, kind: RouteKind, target: Target) -> None:
        """Add a target for a URI, or for a pattern of the given kind.

        Raises: ConfigurationError when the pattern has a target already.
        """
        if kind == "regex":
            self._regexes.append((re.compile(uri), target))
            return
        try:
            self._patterns.add(uri, kind, target)
        except KeyError:
            raise ConfigurationError(f"there is a route for {uri!r} already") from None

    def resolve(self, uri: str) -> Target | None:
        """Return the target that serves `uri`; None if there is none."""
        target = self._patterns.best(uri)
        if target is not None or not self._regexes:
            return target
        return next((target for pattern, target in self._regexes if pattern.match(uri)), None)

    def resolve_pattern(self, uri: str, match: MatchPolicy) -> Target | None:
        """Return a target that serves everything that a pattern matches; None if there is none.

        Regular expressions are never returned for a pattern, because it isn't known what they
        cover.
        """
        if match == "exact":
            return self.resolve(uri)
        return next(self._patterns.covering(uri, match), None)

    def has(self, uri: str, match: MatchPolicy) -> bool:
        """Tell whether there is a target for exactly this URI or pattern."""
        return self._patterns.get(uri, match) is not None
