"""The results that handlers of calls can return or yield."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serverwamp.errors import checked_args
from serverwamp.uris import RUNTIME_ERROR


@dataclass(init=False, slots=True)
class RPCResult:
    """A result with positional and keyword arguments."""

    args: tuple[Any, ...]
    """The positional arguments."""
    kwargs: dict[str, Any]
    """The keyword arguments."""

    def __init__(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> None:
        self.args = checked_args(args)
        self.kwargs = dict(kwargs or {})


@dataclass(init=False, slots=True)
class RPCProgressReport(RPCResult):
    """A progress report: yielded before the result, for callers that asked for progress."""


@dataclass(init=False, slots=True)
class RPCErrorResult:
    """An error as the result; return or yield it instead of raising `WAMPError`.

    Default args from generators get an exception at their ``yield``, as if it had been raised.
    """

    error_uri: str
    """The error URI, which tells the kind of error."""
    args: tuple[Any, ...]
    """The positional arguments. By convention, the first is a text for people."""
    kwargs: dict[str, Any]
    """The keyword arguments."""

    def __init__(
        self,
        error_uri: str = RUNTIME_ERROR,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.error_uri = error_uri
        self.args = checked_args(args)
        self.kwargs = dict(kwargs or {})


def as_result(value: Any) -> RPCResult | RPCErrorResult:
    """Return the result that the return value of a handler means.

    A list or tuple becomes the positional arguments, a mapping the keyword arguments. Any other
    value, including None, becomes the only positional argument.
    """
    if isinstance(value, (RPCResult, RPCErrorResult)):
        return value
    if isinstance(value, (list, tuple)):
        return RPCResult(value)
    if isinstance(value, Mapping):
        return RPCResult((), value)
    return RPCResult((value,))
