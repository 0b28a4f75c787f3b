"""What can go wrong, and what is said to whom about it.

::

    Exception
    ├── WAMPError                  answered with an ERROR (or, when joining, an ABORT) of its URI
    │   ├── InvalidURI
    │   ├── InvalidArgument
    │   ├── NoSuchProcedure
    │   ├── NoSuchSubscription
    │   ├── NoSuchRegistration
    │   ├── NoSuchSession
    │   ├── NotAuthorized
    │   ├── AuthorizationFailed
    │   ├── OptionNotAllowed
    │   ├── PayloadSizeExceeded
    │   ├── RuntimeFailure
    │   ├── Unavailable
    │   ├── CallCanceled
    │   ├── CallTimeout
    │   ├── NoSuchRealm
    │   ├── AuthenticationRequired
    │   ├── NoMatchingAuthMethod
    │   └── AuthenticationFailed
    ├── ProtocolViolation          the peer's fault: ABORT, and the connection is closed
    │   └── RefusedMessage         a part of its message can't be taken: an ERROR if possible
    │       ├── InvalidPayload     the arguments can't be decoded
    │       └── LimitExceeded      it asks for too much
    ├── SerializationError         a payload of ours that the format can't hold
    │   └── MessageTooLong         or that is longer than the peer can receive
    └── ConfigurationError         the application's fault: raised to the developer, never sent
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serverwamp import uris


def checked_args(args: Sequence[Any]) -> tuple[Any, ...]:
    """Return positional arguments as a tuple.

    Raises: TypeError for a text, whose characters are hardly meant to be the arguments.
    """
    if isinstance(args, (str, bytes)):
        raise TypeError(f"args has to be a sequence of arguments: ({args!r},)?")
    return tuple(args)


class WAMPError(Exception):
    """Answer the request that is being handled with an ERROR.

    Can be raised by every handler: of calls, of subscriptions, and of authentication, where the
    answer is an ABORT. `args` and `kwargs` reach the client unchanged; by convention the first
    of `args` is a text for people.

    Raises: ValueError when `uri` is not a valid URI: sent, it would end the client's connection.
    """

    default_uri = uris.RUNTIME_ERROR

    def __init__(
        self, uri: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        if not uris.is_valid_uri(uri):
            raise ValueError(f"{uri!r} is not a valid URI for an error")
        super().__init__(*checked_args(args))
        self.uri = uri
        """What kind of an error it is."""
        self.kwargs: Mapping[str, Any] = kwargs or {}
        """The keyword arguments."""

    def __str__(self) -> str:
        return f"{self.uri}: {self.args[0]}" if self.args else self.uri

    @property
    def message(self) -> str:
        """The text for people, where there is one, otherwise the URI."""
        return str(self.args[0]) if self.args else self.uri


class PredefinedError(WAMPError):
    """An error whose URI the protocol defines: only the text is left to say."""

    def __init__(self, message: str = "", /, **kwargs: Any) -> None:
        super().__init__(self.default_uri, (message,) if message else (), kwargs)


class InvalidURI(PredefinedError):
    default_uri = uris.INVALID_URI


class InvalidArgument(PredefinedError):
    default_uri = uris.INVALID_ARGUMENT


class NoSuchProcedure(PredefinedError):
    default_uri = uris.NO_SUCH_PROCEDURE


class NoSuchSubscription(PredefinedError):
    default_uri = uris.NO_SUCH_SUBSCRIPTION


class ProcedureAlreadyExists(PredefinedError):
    default_uri = uris.PROCEDURE_ALREADY_EXISTS


class NoSuchRegistration(PredefinedError):
    default_uri = uris.NO_SUCH_REGISTRATION


class NoSuchSession(PredefinedError):
    default_uri = uris.NO_SUCH_SESSION


class FeatureNotSupported(PredefinedError):
    default_uri = uris.FEATURE_NOT_SUPPORTED


class NotAuthorized(PredefinedError):
    default_uri = uris.NOT_AUTHORIZED


class AuthorizationFailed(PredefinedError):
    default_uri = uris.AUTHORIZATION_FAILED


class OptionNotAllowed(PredefinedError):
    default_uri = uris.OPTION_NOT_ALLOWED


class PayloadSizeExceeded(PredefinedError):
    default_uri = uris.PAYLOAD_SIZE_EXCEEDED


class RuntimeFailure(PredefinedError):
    default_uri = uris.RUNTIME_ERROR


class Unavailable(PredefinedError):
    default_uri = uris.UNAVAILABLE


class CallCanceled(PredefinedError):
    default_uri = uris.CANCELED


class CallTimeout(PredefinedError):
    default_uri = uris.TIMEOUT


class NoSuchRealm(PredefinedError):
    default_uri = uris.NO_SUCH_REALM


class AuthenticationRequired(PredefinedError):
    default_uri = uris.AUTHENTICATION_REQUIRED


class NoMatchingAuthMethod(PredefinedError):
    default_uri = uris.NO_MATCHING_AUTH_METHOD


class AuthenticationFailed(PredefinedError):
    default_uri = uris.AUTHENTICATION_FAILED


class ProtocolViolation(Exception):
    """The peer broke the protocol: it gets ABORT, and its connection is closed.

    `close_code` is the WebSocket code of that close: 1002, or what says it better. `kind` is what
    it is counted as.
    """

    def __init__(
        self,
        message: str,
        *,
        uri: str = uris.PROTOCOL_VIOLATION,
        close_code: int = 1002,
        kind: str = "undecodable",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.uri = uri
        self.close_code = close_code
        self.kind = kind


class RefusedMessage(ProtocolViolation):
    """A part of a message can't be taken.

    Where `request`, the message, could be decoded and is one that gets an answer, `error` is that
    answer, and the session goes on.
    """

    def __init__(
        self,
        message: str,
        *,
        uri: str = uris.PROTOCOL_VIOLATION,
        close_code: int = 1002,
        request: Any = None,
        error: type[PredefinedError] = InvalidArgument,
    ) -> None:
        super().__init__(message, uri=uri, close_code=close_code)
        self.request = request
        self.error = error


class InvalidPayload(RefusedMessage):
    """The arguments in a message, which is `request`, can't be decoded."""


class LimitExceeded(RefusedMessage):
    """The peer has sent more than a limit allows; `limit` is the field of `Limits`."""

    def __init__(self, limit: str, message: str, **answer: Any) -> None:
        super().__init__(message, **answer)
        self.limit = limit


class SerializationError(Exception):
    """A message of ours holds what its format can't express."""

    answer: type[PredefinedError] = InvalidArgument
    """What is said to the client whose values they were."""
    answer_to_receiver: type[PredefinedError] = RuntimeFailure
    """What is said to the client that was to receive them instead."""


class MessageTooLong(SerializationError):
    """A message of ours is longer than the peer can receive."""

    answer: type[PredefinedError] = PayloadSizeExceeded
    answer_to_receiver: type[PredefinedError] = PayloadSizeExceeded


class Unsuitable(Exception):
    """A value can't be converted to the type that is wanted.

    `path` leads to what is wrong inside of the value: ``.lines[0].amount``. `details` are further
    such errors, where several are known.
    """

    def __init__(self, message: str, path: str = "", details: Sequence[Unsuitable] = ()) -> None:
        super().__init__(message, path)
        self.message = message
        self.path = path
        self.details = details

    def below(self, step: str) -> Unsuitable:
        """Return the same error as one of the value that holds this one."""
        details = [detail.below(step) for detail in self.details]
        return Unsuitable(self.message, step + self.path, details)


class ConfigurationError(RuntimeError):
    """The application is put together wrongly, or changed after it began to serve."""


# ---- groups of exceptions


def parts_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and, if it is a group, the parts of its members, in their order."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from parts_of(member)


def without(error: BaseException, part: BaseException | None) -> BaseException | None:
    """Return a group without one of its parts; None if nothing is left."""
    if part is None:
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    return error.split(lambda each: each is part)[1]
