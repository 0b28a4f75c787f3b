"""What handlers are called with for what clients send."""

from collections.abc import Callable
from typing import Any

import pytest

from serverwamp import Application, ConfigurationError, WAMPError
from serverwamp.testing import connect


def taking(hint: Any, taken: list[Any] | None = None) -> Callable[..., Any]:
    """Return a handler of one parameter, which keeps what it was called with."""

    async def procedure(value: Any) -> None:
        if taken is not None:
            taken.append(value)

    procedure.__annotations__["value"] = hint
    return procedure


def registered(hint: Any) -> None:
    """Register a handler of one parameter."""
    Application().route("procedure")(taking(hint))


def refused(hint: Any, match: str | None = None) -> None:
    """Check that a handler of one parameter is refused."""
    with pytest.raises(ConfigurationError, match=match) as error:
        registered(hint)
    assert "parameter 'value' of" in str(error.value)


async def sent(hint: Any, *values: Any, subprotocol: str = "wamp.2.json") -> list[Any]:
    """Return what a handler was called with, or the path of what was refused, for each value."""
    taken: list[Any] = []
    app = Application()
    app.route("procedure")(taking(hint, taken))
    outcomes = []
    async with connect(app, subprotocol=subprotocol) as client:
        for value in values:
            error = await _error_of(client.call("procedure", [value]))
            assert error is None or error.uri == "wamp.error.invalid_argument", error
            outcomes.append(taken.pop() if error is None else error.kwargs["path"])
    return outcomes


async def _error_of(call: Any) -> WAMPError | None:
    try:
        await call
    except WAMPError as error:
        return error
    return None
