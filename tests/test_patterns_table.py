"""Looking up what a URI matches."""

from __future__ import annotations

import random
from itertools import product

import pytest

from serverwamp.patterns import PatternTable
from serverwamp.uris import MatchPolicy

# The specification's example: registrations by their number, and calls with which of them is meant.
REGISTRATIONS: tuple[tuple[str, MatchPolicy], ...] = (
    ("a1.b2.c3.d4.e55", "exact"),
    ("a1.b2.c3", "prefix"),
    ("a1.b2.c3.d4", "prefix"),
    ("a1.b2..d4.e5", "wildcard"),
    ("a1.b2.c33..e5", "wildcard"),
    ("a1.b2..d4.e5..g7", "wildcard"),
    ("a1.b2..d4..f6.g7", "wildcard"),
)


def table_of(*patterns: tuple[str, MatchPolicy]) -> PatternTable[tuple[str, MatchPolicy]]:
    table: PatternTable[tuple[str, MatchPolicy]] = PatternTable()
    for uri, match in patterns:
        table.add(uri, match, (uri, match))
    return table


@pytest.mark.parametrize(
    ("uri", "number"),
    [
        ("a1.b2.c3.d4.e55", 1),
        ("a1.b2.c3.d98.e74", 2),
        ("a1.b2.c3.d4.e325", 3),
        ("a1.b2.c55.d4.e5", 4),
        # By whole components it would be 5; prefixes are compared by characters.
        ("a1.b2.c33.d4.e5", 2),
        ("a1.b2.c88.d4.e5.f6.g7", 6),
        ("a2.b2.c2.d2.e2", None),
    ],
)
def test_the_best_match_of_the_specification(uri: str, number: int | None) -> None:
    best = table_of(*REGISTRATIONS).best(uri)
    assert best == (REGISTRATIONS[number - 1] if number else None)


def matches(pattern: str, match: MatchPolicy, uri: str) -> bool:
    if match == "exact":
        return uri == pattern
    if match == "prefix":
        return uri.startswith(pattern)
    mine, theirs = pattern.split("."), uri.split(".")
    return len(mine) == len(theirs) and all(m in ("", t) for m, t in zip(mine, theirs, strict=True))


def test_everything_that_matches_is_found_whatever_comes_and_goes() -> None:
    chance = random.Random(1)
    uris = [".".join(parts) for n in (1, 2, 3) for parts in product("ab", repeat=n)]
    uris += ["ab", "a.bb", "a.b.ab"]
    patterns: list[tuple[str, MatchPolicy]] = [
        *((uri, "exact") for uri in uris),
        *((uri, "prefix") for uri in ("", "a", "a.", "a.b", "b.a.a")),
        *((".".join(p), "wildcard") for n in (1, 2, 3) for p in product(("", "a", "b"), repeat=n)),
    ]
    table: PatternTable[tuple[str, MatchPolicy]] = PatternTable()
    held: set[tuple[str, MatchPolicy]] = set()
    for _ in range(2_000):
        uri, match = pattern = chance.choice(patterns)
        if pattern in held:
            table.remove(uri, match)
            held.remove(pattern)
        else:
            table.add(uri, match, pattern)
            held.add(pattern)
        asked = chance.choice(uris)
        found = list(table.matching(asked))
        assert len(found) == len(set(found))
        assert set(found) == {p for p in held if matches(*p, asked)}
        assert table.best(asked) == next(iter(found), None)
        assert set(table) == held
        assert table.has_patterns == any(match != "exact" for _, match in held)


def test_nothing_is_left_of_what_is_removed() -> None:
    table = table_of(*REGISTRATIONS)
    for uri, match in REGISTRATIONS:
        assert table.get(uri, match) == (uri, match)
        table.remove(uri, match)
        assert table.get(uri, match) is None
        with pytest.raises(KeyError):
            table.remove(uri, match)
    assert not table.has_patterns
    assert not any(getattr(table, name) for name in PatternTable.__slots__)


def test_a_pattern_is_there_once_for_each_policy() -> None:
    table = table_of(("a.b", "exact"), ("a.b", "prefix"), ("a.b", "wildcard"))
    assert len(list(table.matching("a.b"))) == 3
    with pytest.raises(KeyError):
        table.add("a.b", "prefix", ("a.b", "prefix"))


def test_a_pattern_covers_another_if_it_matches_all_that_the_other_matches() -> None:
    uris = [".".join(p) for n in (1, 2, 3) for p in product(("a", "b", "ab", "ba"), repeat=n)]
    patterns: list[tuple[str, MatchPolicy]] = [
        *((uri, "exact") for uri in ("a", "a.b", "ab.a")),
        *((uri, "prefix") for uri in ("", "a", "a.", "a.b", "a.b.", "ab")),
        *((".".join(p), "wildcard") for n in (1, 2, 3) for p in product(("", "a", "ab"), repeat=n)),
    ]
    table = table_of(*patterns)
    for theirs in patterns:
        found = list(table.covering(*theirs))
        matched = [uri for uri in uris if matches(*theirs, uri)]
        assert matched
        for mine in patterns:
            if mine in found:
                assert all(matches(*mine, uri) for uri in matched), (mine, theirs)
            elif all(matches(*mine, uri) for uri in matched):
                # It isn't found where a pattern is a strange way to write a topic.
                assert mine[1] == "exact" or (mine[1], theirs[1]) == ("wildcard", "prefix")
