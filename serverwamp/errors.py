"""The package's exceptions, and who is told about each of them.

::

    Exception
    ├── WAMPError                  the peer gets an ERROR with its URI; while joining, an ABORT
    │   └── PredefinedError        an error whose URI the protocol defines
    │       ├── InvalidURI
    │       ├── InvalidArgument
    │       ├── NoSuchProcedure
    │       ├── NoSuchSubscription
    │       ├── ProcedureAlreadyExists
    │       ├── NoSuchRegistration
    │       ├── NoSuchSession
    │       ├── FeatureNotSupported
    │       ├── NotAuthorized
    │       ├── AuthorizationFailed
    │       ├── OptionNotAllowed
    │       ├── PayloadSizeExceeded
    │       ├── RuntimeFailure
    │       ├── Unavailable
    │       │   ├── BackplaneUnavailable       the publication was not sent
    │       │   └── BackplaneOutcomeUnknown    the publication may have been sent
    │       ├── CallCanceled
    │       ├── CallTimeout
    │       ├── NoSuchRealm
    │       ├── AuthenticationRequired
    │       ├── NoMatchingAuthMethod
    │       └── AuthenticationFailed
    ├── ProtocolViolation          the peer gets an ABORT, and its connection is closed
    │   └── RefusedMessage         the peer gets an ERROR if the message is a request
    │       ├── InvalidPayload     the message's arguments can't be decoded
    │       └── LimitExceeded      the message exceeds a limit
    ├── SerializationError         the format can't express a message that we send
    │   └── MessageTooLong         the message is longer than the peer can receive
    ├── Unsuitable                 a value doesn't fit its type; becomes InvalidArgument
    └── RuntimeError
        └── ConfigurationError     raised to the developer, never sent
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serverwamp import uris


def checked_args(args: Sequence[Any]) -> tuple[Any, ...]:
    """Return positional arguments as a tuple.

    Raises: TypeError for a str or bytes: it is a sequence, but hardly one of arguments.
    """
    if isinstance(args, (str, bytes)):
        raise TypeError(f"args has to be a sequence of arguments, such as ({args!r},)")
    return tuple(args)


class WAMPError(Exception):
    """Answer the current request with an ERROR.

    Any handler of calls or subscriptions can raise it, and so can an authenticator, where the
    answer is an ABORT. The client gets `args` and `kwargs` unchanged. By convention, the first
    item of `args` is a text for people.

    Raises: ValueError when `uri` is not a valid URI. Sending it would end the client's connection.
    """

    default_uri = uris.RUNTIME_ERROR

    def __init__(
        self, uri: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        if not uris.is_valid_uri(uri):
            raise ValueError(f"{uri!r} is not a valid URI for an error")
        super().__init__(*checked_args(args))
        self.uri = uri
        """The error URI, which tells the kind of error."""
        self.kwargs: Mapping[str, Any] = kwargs or {}
        """The keyword arguments."""

    def __str__(self) -> str:
        return f"{self.uri}: {self.args[0]}" if self.args else self.uri

    @property
    def message(self) -> str:
        """The text for people, which is the first argument, or the URI without arguments."""
        return str(self.args[0]) if self.args else self.uri


class PredefinedError(WAMPError):
    """An error whose URI the protocol defines; `message` is the text for people."""

    def __init__(self, message: str = "", /, **kwargs: Any) -> None:
        super().__init__(self.default_uri, (message,) if message else (), kwargs)


class InvalidURI(PredefinedError):
    """The URI of a realm, topic, procedure or reason is not valid, or not allowed here."""

    default_uri = uris.INVALID_URI


class InvalidArgument(PredefinedError):
    """Arguments or results can't be accepted or serialized."""

    default_uri = uris.INVALID_ARGUMENT


class NoSuchProcedure(PredefinedError):
    """No procedure matches the URI of a CALL."""

    default_uri = uris.NO_SUCH_PROCEDURE


class NoSuchSubscription(PredefinedError):
    """The session has no subscription with that id."""

    default_uri = uris.NO_SUCH_SUBSCRIPTION


class ProcedureAlreadyExists(PredefinedError):
    """The procedure is registered already, and can't be shared with the requested policy."""

    default_uri = uris.PROCEDURE_ALREADY_EXISTS


class NoSuchRegistration(PredefinedError):
    """The session has no registration with that id."""

    default_uri = uris.NO_SUCH_REGISTRATION


class NoSuchSession(PredefinedError):
    """The realm has no open session with that id."""

    default_uri = uris.NO_SUCH_SESSION


class FeatureNotSupported(PredefinedError):
    """The request needs a protocol feature that the peer it concerns doesn't support."""

    default_uri = uris.FEATURE_NOT_SUPPORTED


class NotAuthorized(PredefinedError):
    """The session is not allowed to do this."""

    default_uri = uris.NOT_AUTHORIZED


class AuthorizationFailed(PredefinedError):
    """The authorizer failed, so that the action could be neither allowed nor denied."""

    default_uri = uris.AUTHORIZATION_FAILED


class OptionNotAllowed(PredefinedError):
    """The request has an option that isn't offered here."""

    default_uri = uris.OPTION_NOT_ALLOWED


class PayloadSizeExceeded(PredefinedError):
    """The answer is longer than the client can receive."""

    default_uri = uris.PAYLOAD_SIZE_EXCEEDED


class RuntimeFailure(PredefinedError):
    """A handler raised an exception whose details are not for the client."""

    default_uri = uris.RUNTIME_ERROR


class Unavailable(PredefinedError):
    """A limit is reached; the request may succeed later."""

    default_uri = uris.UNAVAILABLE


class BackplaneUnavailable(Unavailable):
    """The backplane can't be reached: nothing was sent."""


class BackplaneOutcomeUnknown(Unavailable):
    """The backplane didn't answer: something was sent, and nobody knows whether it has arrived."""


class CallCanceled(PredefinedError):
    """The call was cancelled before it had a result."""

    default_uri = uris.CANCELED


class CallTimeout(PredefinedError):
    """The call had no result within its time limit."""

    default_uri = uris.TIMEOUT


class NoSuchRealm(PredefinedError):
    """There is no realm with that URI."""

    default_uri = uris.NO_SUCH_REALM


class AuthenticationRequired(PredefinedError):
    """The realm requires authentication, and the client offered no method."""

    default_uri = uris.AUTHENTICATION_REQUIRED


class NoMatchingAuthMethod(PredefinedError):
    """The realm supports none of the authentication methods that the client offered."""

    default_uri = uris.NO_MATCHING_AUTH_METHOD


class AuthenticationFailed(PredefinedError):
    """The client could not be authenticated."""

    default_uri = uris.AUTHENTICATION_FAILED


class ProtocolViolation(Exception):
    """The peer broke the protocol: it gets an ABORT, and its connection is closed.

    `close_code` is the WebSocket close code: 1002, or a more specific one. `kind` is the key under
    which `Statistics.violations` counts it.
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
    """A part of a message can't be accepted.

    `request` is the message, as far as it could be decoded. If it is a request that gets an
    answer, the client gets an ERROR made from `error`, and the session continues.
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
    """The arguments of the message `request` can't be decoded."""


class LimitExceeded(RefusedMessage):
    """The peer has exceeded a limit; `limit` is the name of a field of `Limits`."""

    def __init__(self, limit: str, message: str, **answer: Any) -> None:
        super().__init__(message, **answer)
        self.limit = limit


class SerializationError(Exception):
    """A message that we send contains a value that its format can't express."""

    answer: type[PredefinedError] = InvalidArgument
    """The error for the client that sent the value."""
    answer_to_receiver: type[PredefinedError] = RuntimeFailure
    """The error for the client that was going to receive the value."""


class MessageTooLong(SerializationError):
    """A message that we send is longer than the peer can receive."""

    answer: type[PredefinedError] = PayloadSizeExceeded
    answer_to_receiver: type[PredefinedError] = PayloadSizeExceeded


class Unsuitable(Exception):
    """A value can't be converted to the required type.

    `path` leads to the wrong part inside the value, such as ``.lines[0].amount``. If there are
    several errors, `details` lists them all.
    """

    def __init__(self, message: str, path: str = "", details: Sequence[Unsuitable] = ()) -> None:
        super().__init__(message, path)
        self.message = message
        self.path = path
        self.details = details

    def below(self, step: str) -> Unsuitable:
        """Return the same error for the enclosing value; `step` leads from that to this value."""
        details = [detail.below(step) for detail in self.details]
        return Unsuitable(self.message, step + self.path, details)


class ConfigurationError(RuntimeError):
    """The application is configured wrongly, or was changed after it had started to serve."""


# ---- groups of exceptions


def parts_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and, if it is a group, the parts of its members in order."""
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
