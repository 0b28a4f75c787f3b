"""The tree of exceptions in the docstring of `serverwamp.errors` shows the classes as they are."""

from __future__ import annotations

import inspect
import re

from serverwamp import errors


def documented() -> dict[str, str]:
    """Return the name of the base class by the name of each class in the docstring's tree."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            if depth:
                parents[found[2]] = path[depth - 1]
    return parents


def test_the_documented_tree_is_complete() -> None:
    classes = [
        cls
        for cls in vars(errors).values()
        if inspect.isclass(cls) and cls.__module__ == errors.__name__
    ]
    assert {cls.__name__: cls.__base__.__name__ for cls in classes} == {
        name: base for name, base in documented().items() if name != "RuntimeError"
    }
