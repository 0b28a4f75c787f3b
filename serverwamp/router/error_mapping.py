"""Maps the exceptions of handlers to the errors that clients receive."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from serverwamp.binding.results import RPCErrorResult
from serverwamp.concurrency.failures import raise_unless_failure
from serverwamp.errors import RuntimeFailure, WAMPError, parts_of, without
from serverwamp.limits import LimitLog

logger: logging.Logger = logging.getLogger(__name__)

ErrorAnswer: TypeAlias = str | Callable[[Any], Any]
"""A URI, or a function that makes an error from an exception."""


class ErrorMapping:
    """The error answers of a realm, by exception class; see `Realm.add_error_handler`."""

    def __init__(self, answers: Mapping[type[BaseException], ErrorAnswer]) -> None:
        self._answers = answers

    async def error_for(
        self, error: BaseException, doing: str, log: LimitLog, *, debug: bool
    ) -> WAMPError:
        """Return the error that a client receives for an exception.

        In an exception group, the first exception that is mapped or is a `WAMPError` decides. All
        other exceptions are logged as the failure of `doing`, unless `log` suppresses them.
        """
        known = next((part for part in parts_of(error) if self._has_answer(part)), None)
        answer = None if known is None else await self._answer_to(known)
        unknown = error if answer is None else without(error, known)
        if unknown is not None and log.wants(doing, unknown):
            logger.error("%s failed", doing, exc_info=unknown)
        if answer is not None:
            return answer
        if debug:
            return RuntimeFailure(f"{type(error).__name__}: {error}")
        return RuntimeFailure("the handler failed; the server's log says why")

    def _has_answer(self, error: BaseException) -> bool:
        return isinstance(error, WAMPError) or self._mapped(error) is not None

    def _mapped(self, error: BaseException) -> ErrorAnswer | None:
        """Return the answer for an exception's class or nearest base class; None if there is none.

        A group is mapped only by group classes, because `Exception` is a base class of groups too.
        """
        kinds: Sequence[type] = type(error).__mro__
        if isinstance(error, BaseExceptionGroup):
            kinds = [kind for kind in kinds if issubclass(kind, BaseExceptionGroup)]
        return next((self._answers[kind] for kind in kinds if kind in self._answers), None)

    async def _answer_to(self, error: BaseException) -> WAMPError | None:
        """Return the answer to an exception; None if the function that makes the answer fails."""
        try:
            return await self._made_answer(error)
        except BaseException as failure:
            raise_unless_failure(failure)
            logger.exception("the error handler for %s failed", type(error).__name__)
            return None

    async def _made_answer(self, error: BaseException) -> WAMPError:
        if isinstance(error, WAMPError):
            return error
        mapped = self._mapped(error)
        assert mapped is not None
        answer = mapped if isinstance(mapped, str) else mapped(error)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, RPCErrorResult):
            return WAMPError(answer.error_uri, answer.args, answer.kwargs)
        return answer if isinstance(answer, WAMPError) else WAMPError(answer)
